"""The training loop: a configuration is one network, bit for bit, whatever happens around the run
or interrupts it.
"""

import errno
import hashlib
import inspect
import io
import itertools
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import data_of, read_once
from helpers import train_run as train
from torch._dynamo import OptimizedModule

import sscl_core.train as loop
import sscl_experiments.runs.images as image_runs
from sscl_core import batches
from sscl_core.batches import Batch, Source
from sscl_core.config import (
    MLP,
    Cloud,
    ConvNet,
    Corruption,
    ImageAugmentation,
    Images,
    InfoNCE,
    Masking,
    Mixture,
    Mixup,
    Noise,
    Optimizer,
    PairWeights,
    Points,
    Projector,
    SpectralContrastive,
    Table,
    TrainConfig,
    TSimCLR,
    scattered,
)
from sscl_core.divergence import NonFiniteLossError, diverged
from sscl_core.losses import info_nce, spectral_contrastive, t_simclr
from sscl_core.rng import INIT, SAMPLE, SPLIT, stream
from sscl_core.train import (
    TrainResult,
    initial_network,
    lr_factor,
    optimizer_of,
    parameter_groups,
    set_lr,
)
from sscl_experiments.arrangements import cyclic_order
from sscl_experiments.datasets.images import ImageData
from sscl_experiments.datasets.synthetic import cloud
from sscl_experiments.datasets.tables import table
from sscl_experiments.runs.images import image_sets
from sscl_experiments.runs.mixture import first_network, mixture
from sscl_experiments.runs.points import point_set

CPU = torch.device("cpu")
OPTIMIZERS = {
    "adamw": Optimizer(weight_decay=0.01, warmup_epochs=0.5),
    "sgd": Optimizer(name="sgd", lr=0.05, weight_decay=1e-3, momentum=0.9),
}
all_optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


@pytest.fixture(autouse=True)
def _read_once(monkeypatch):
    monkeypatch.setattr(image_runs, "load_images", read_once)


def source_of(config: TrainConfig) -> Source:
    return batches.source(config, data_of(config), CPU)


def views_of(config: TrainConfig, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(batch.x1, batch.x2) for batch in source_of(config).batches(epoch)]


def epoch_pairs(config: TrainConfig, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return batches.epoch_pairs(config, data_of(config), epoch)


def pair_weights(spec: PairWeights, x1, x2, z1, z2, overlap) -> torch.Tensor:
    return loop.pair_weights(spec, Batch(x1, x2, overlap), z1, z2)


def images(**changes) -> TrainConfig:
    """Three epochs of three steps."""
    small = {
        "backbone": ConvNet(width=2),
        "projector": Projector(hidden=8, dim=4),
        "epochs": 3,
        "batch_size": 16,
    }
    return TrainConfig(**{"data": Images(n_train=48), **small, **changes})


def toy(**changes) -> TrainConfig:
    small = {
        "backbone": MLP(width=16),
        "projector": Projector(hidden=0, dim=2),
        "epochs": 3,
        "batch_size": 16,
    }
    return TrainConfig(**{"data": Mixture(steps_per_epoch=3), **small, **changes})


CLOUD = Cloud(dim=6, n_train=40)


def points(*steps, of: Cloud | Table = CLOUD, steps_per_epoch: int = 3, **changes) -> TrainConfig:
    return toy(
        data=Points(
            points=of, augmentation=steps or (Noise(scale=0.1),), steps_per_epoch=steps_per_epoch
        ),
        **changes,
    )


KINDS = {"images": images, "mixture": toy, "points": points}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def same(a: TrainResult, b: TrainResult) -> bool:
    """Bitwise: parameters, buffers, losses."""
    first, second = a.model.state_dict(), b.model.state_dict()
    return (
        first.keys() == second.keys()
        and all(torch.equal(first[k], second[k]) for k in first)
        and a.losses == b.losses
    )


def spy(monkeypatch, replace: Callable | None = None) -> list[tuple]:
    """The (z1, z2, loss) of every step from here on; `replace(number of the step from 1, loss)` may
    change the loss.
    """
    steps, original = [], loop.contrastive_loss

    def contrastive_loss(config, z1, z2, **options):
        loss = original(config, z1, z2, **options)
        steps.append((z1.detach(), z2.detach(), loss.detach()))
        return replace(len(steps), loss) if replace else loss

    monkeypatch.setattr(loop, "contrastive_loss", contrastive_loss)
    return steps


def interrupt_at(step: int) -> Callable:
    def replace(number: int, loss: torch.Tensor) -> torch.Tensor:
        if number == step:
            raise KeyboardInterrupt
        return loss

    return replace


# --- reproducibility -----------------------------------------------------------------------------


@every_kind
def test_a_seed_is_a_network(make):
    first, again, other = train(make()), train(make()), train(make(seed=1))
    assert len(first.losses) == 9
    assert all(map(math.isfinite, first.losses))
    assert same(first, again)
    assert not same(first, other)
    assert not set(first.losses) & set(other.losses)
    assert not first.model.training
    assert first.images_per_second > 0


@every_kind
def test_the_seed_seeds_the_views(make, monkeypatch):
    """The same seed gives the same pairs, another epoch, step or seed others: of 48 times one
    image, so that the order does not matter.
    """
    picture = read_once("fashion_mnist_subset", "train").select(torch.zeros(48, dtype=torch.int64))
    monkeypatch.setattr(image_runs, "load_images", lambda *args, **settings: picture)

    def pairs(seed: int, epoch: int) -> list[tuple]:
        return views_of(make(seed=seed), epoch)

    first, again = pairs(0, 1), pairs(0, 1)
    assert all(
        torch.equal(a, b)
        for one, two in zip(first, again, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    distinct = [
        view for steps in (first, pairs(0, 2), pairs(1, 1)) for pair in steps for view in pair
    ]
    assert len({view.numpy().tobytes() for view in distinct}) == len(distinct) == 18


@every_kind
def test_global_random_states_neither_matter_nor_change(make):
    def states() -> tuple[bytes, bytes]:  # not Python's `random`: beartype itself draws from it
        return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes()  # noqa: NPY002

    torch.manual_seed(1)
    before = states()
    first = train(make())
    assert states() == before
    torch.manual_seed(2)
    second = train(make(), on_epoch=lambda *_: torch.rand(17))  # nor does what runs beside it
    assert same(first, second)
    assert states() != before


def test_no_epochs_give_the_untrained_network():
    calls = []
    result = train(
        images(epochs=0), on_epoch=lambda epoch, model: calls.append((epoch, model.training))
    )
    with stream(0, INIT):
        untrained = loop.build(images(), (1, 28, 28))
    assert calls == [(0, False)]
    assert (result.losses, result.model.training) == ([], False)
    assert same(result, TrainResult(images(), untrained))
    assert not same(result, TrainResult(images(), train(images(epochs=1)).model)), (
        "and training changes it"
    )


@every_kind
def test_on_epoch_sees_every_epoch_and_does_not_change_training(make):
    calls = []
    watched = train(make(), on_epoch=lambda epoch, model: calls.append((epoch, model.training)))
    assert calls == [(epoch, False) for epoch in range(4)]
    assert same(watched, train(make()))


# --- interruption --------------------------------------------------------------------------------


@all_optimizers
@every_kind
@pytest.mark.parametrize("step", [4, 8], ids="step {}".format)
def test_interrupted_and_resumed_is_uninterrupted(make, optimizer, step, monkeypatch, tmp_path):
    config, checkpoint = make(optimizer=optimizer), tmp_path / "deep" / "run.pt"
    whole = train(config)
    with monkeypatch.context() as patch:
        spy(patch, interrupt_at(step))
        with pytest.raises(KeyboardInterrupt):
            train(config, checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["run.pt"]
    epochs = []
    resumed = train(
        config,
        checkpoint=checkpoint,
        checkpoint_seconds=0.0,
        on_epoch=lambda epoch, _: epochs.append(epoch),
    )
    assert epochs == list(range((step - 1) // 3 + 1, 4)), "it went on, not back to the start"
    assert same(whole, resumed)


def test_checkpoints_are_no_more_frequent_than_asked(tmp_path):
    train(images(), checkpoint=tmp_path / "run.pt", checkpoint_seconds=1e6)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"epochs": 4}, {"loss": InfoNCE(temperature=0.4)}], ids=str
)
def test_a_checkpoint_of_another_run_is_refused(change, tmp_path):
    checkpoint = tmp_path / "run.pt"
    train(toy(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match="belongs to another run"):
        train(toy(**change), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    "damage", [lambda c: b"", lambda c: b"no checkpoint", lambda c: c[:100], lambda c: c[:-100]]
)
def test_a_damaged_checkpoint_is_named_with_the_remedy(damage, tmp_path):
    checkpoint = tmp_path / "run.pt"
    train(toy(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    broken = damage(checkpoint.read_bytes())
    checkpoint.write_bytes(broken)
    with pytest.raises(ValueError, match="is damaged: delete it, and the run begins anew") as error:
        train(toy(), checkpoint=checkpoint)
    assert str(checkpoint) in str(error.value)
    assert checkpoint.read_bytes() == broken, "it may be what someone wants to look at"
    checkpoint.unlink()
    assert same(train(toy(), checkpoint=checkpoint), train(toy()))


def saved_state(checkpoint):
    """What a checkpoint holds before its sha256."""
    return torch.load(io.BytesIO(checkpoint.read_bytes()[:-32]), weights_only=True)


def test_no_flipped_bit_is_trained_on(tmp_path):
    """`torch.load` looks at no checksum: of a bit that is flipped in a weight it says nothing."""
    checkpoint = tmp_path / "run.pt"
    train(toy(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    sound = checkpoint.read_bytes()
    for at in range(0, len(sound), len(sound) // 50):
        flipped = bytearray(sound)
        flipped[at] ^= 4
        checkpoint.write_bytes(flipped)
        with pytest.raises(ValueError, match="is damaged: delete it"):
            train(toy(), checkpoint=checkpoint)


def without_seconds(state):
    del state["seconds"]


def of_another_shape(state):
    state["model"]["backbone.1.weight"] = torch.zeros(2, 2)


def without_a_layer(state):
    del state["model"]["backbone.1.weight"]


@pytest.mark.parametrize("change", [without_seconds, of_another_shape, without_a_layer])
def test_a_checkpoint_that_does_not_fit_is_named_with_the_remedy(change, tmp_path):
    checkpoint = tmp_path / "run.pt"
    train(toy(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    state = saved_state(checkpoint)
    change(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    checkpoint.write_bytes(buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest())
    with pytest.raises(
        ValueError, match="delete it, and the run begins anew: it does not fit"
    ) as error:
        train(toy(), checkpoint=checkpoint)
    assert str(checkpoint) in str(error.value)


@pytest.mark.parametrize("broken_save", [1, 2], ids="save {}".format)
def test_a_half_written_checkpoint_is_never_met(broken_save, monkeypatch, tmp_path):
    config, checkpoint, saves = toy(), tmp_path / "run.pt", []
    write = Path.write_bytes

    def fails(path, content):
        saves.append(path)
        if len(saves) < broken_save:
            return write(path, content)
        write(path, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fails)
        with pytest.raises(OSError, match=f"{checkpoint} could not be written, .*: No space left"):
            train(config, checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert len(saves) == broken_save
    assert list(tmp_path.iterdir()) == [checkpoint][: broken_save - 1], (
        "that of the epoch before, or none"
    )
    assert same(train(config, checkpoint=checkpoint), train(config))


def test_seconds_are_those_of_all_stretches(tmp_path, monkeypatch):
    config, checkpoint = toy(), tmp_path / "run.pt"
    clock = itertools.count(0.0, 10.0)  # ten seconds pass between any two looks at it
    with monkeypatch.context() as patch:
        patch.setattr(loop.time, "monotonic", lambda: next(clock))
        train(config, checkpoint=checkpoint, checkpoint_seconds=0.0)
    saved = saved_state(checkpoint)["seconds"]
    assert saved >= 10
    resumed = train(config, checkpoint=checkpoint)
    assert saved < resumed.seconds < saved + 10


def test_a_run_has_the_threads_of_its_configuration_wherever_it_is_made():
    """One and two threads add in different orders; with the caller's number a key would stand for
    two results.
    """
    config, before, found = (
        images(data=Images(n_train=96), backbone=ConvNet(width=8), batch_size=32),
        torch.get_num_threads(),
        [],
    )
    try:
        for callers in (1, 2):
            torch.set_num_threads(callers)
            found.append(train(config))
            assert torch.get_num_threads() == callers
    finally:
        torch.set_num_threads(before)
    one, other = found
    assert same(one, other)
    assert not same(one, train(config.replace(threads=2)))


@pytest.mark.parametrize(("most", "calls"), [(2**30, 2), (2**25, 3), (0, 2)])
def test_trimming_is_set_only_where_large_arrays_may_be_kept(most, calls, monkeypatch):
    """By itself it would have glibc map every array anew."""
    trimming, asked = -1, []

    class OldLibrary:
        def mallopt(self, setting, value):
            asked.append(setting)
            return int(setting == trimming or value <= most)

    monkeypatch.setattr(loop.ctypes, "CDLL", lambda _: OldLibrary())
    monkeypatch.setattr(loop.platform, "libc_ver", lambda: ("glibc", "2.31"))
    loop.keep_freed_memory.__wrapped__()
    assert len(asked) == calls
    assert (trimming in asked) == (most > 0)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's allocator")
def test_what_a_step_frees_serves_the_next_one_without_the_system():
    """In a process of its own: the setting lasts, and other tests have made it before.

    By default it is chance whether the system gets an array back; here it gets each of them.
    """
    script = """
import resource
import torch
from sscl_core.config import TrainConfig
from sscl_core.train import computing

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        arrays = [torch.ones(25 << 18) for _ in range(4)]  # 25 MiB each, 6400 pages
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def program():
    print(faults(10))
    with computing(TrainConfig()):
        faults(2)
        print(faults(10))
program()
"""
    every_array = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=every_array,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    by_default, then = map(int, run.stdout.split())
    assert 10 * then < by_default  # once an array more is needed, where they are left with gaps


# --- losses that are not numbers -----------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_is_an_error_and_leaves_the_last_sound_checkpoint(
    value, monkeypatch, tmp_path
):
    config, checkpoint = images(seed=3), tmp_path / "run.pt"
    with monkeypatch.context() as patch:
        steps = spy(patch, lambda number, loss: loss * value if number == 5 else loss)
        with pytest.raises(
            NonFiniteLossError,
            match=r"seed 3 \(at or before step 6\): .* lower optimizer.lr \(0.001\)",
        ):
            train(config, checkpoint=checkpoint, checkpoint_seconds=0.0)
        assert len(steps) == 6, "met at the end of the epoch at the latest"
    state = saved_state(checkpoint)
    assert state["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert same(train(config, checkpoint=checkpoint), train(config))


@pytest.mark.parametrize("step", [3, 9], ids="step {}".format)
def test_a_last_step_that_breaks_the_weights_is_such_an_error_too(step, monkeypatch, tmp_path):
    """The loss of that step is finite, its gradient is not: without a look at the weights a broken
    network is kept or handed back.
    """
    checkpoint = tmp_path / "run.pt"
    spy(monkeypatch, lambda number, loss: loss + (loss - loss).sqrt() if number == step else loss)
    with pytest.raises(NonFiniteLossError):
        train(images(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert not checkpoint.exists() or all(
        tensor.isfinite().all() for tensor in saved_state(checkpoint)["model"].values()
    )


@every_kind
def test_a_learning_rate_that_diverges_is_such_an_error(make, tmp_path):
    config = make(optimizer=Optimizer(name="sgd", lr=1e30))
    with pytest.raises(NonFiniteLossError, match=r"lr \(1e\+30\); raise loss.temperature \(0.5\)"):
        train(config, checkpoint=tmp_path / "run.pt", checkpoint_seconds=0.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        (
            {"optimizer": Optimizer(name="sgd", lr=1.0, weight_decay=1e30)},
            r"lower optimizer.weight_decay \(1e\+30\)",
        ),
        ({"backbone": MLP(init_scale=1e30)}, r"move backbone.init_scale \(1e\+30\) towards 1"),
    ],
    ids=["weight decay", "initial scale"],
)
def test_the_message_names_what_was_the_cause(changes, remedy):
    with pytest.raises(NonFiniteLossError, match=remedy) as error:
        train(toy(**changes))
    assert "32-true" not in str(error.value), "that is what it has"


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        (
            images(weights=PairWeights(temperature=1e-9)),
            r"move weights.temperature \(1e-09\) away from 0",
        ),
        (points(Noise(scale=1e30)), r"lower the scale of the noise \(1e\+30\)"),
        (images(precision="bf16-mixed"), "use precision '32-true'"),
    ],
    ids=["weights", "noise", "precision"],
)
def test_every_setting_that_can_be_the_cause_is_named(config, remedy):
    assert re.search(remedy, diverged(config, {0: 1}))


def test_a_learned_df_that_diverges_is_named_with_its_step(monkeypatch):
    config = images(loss=TSimCLR(learn_df=True))
    real = loop.set_lr

    def spoil(optimizer, config, step, steps):
        real(optimizer, config, step, steps)
        if step == 4:
            optimizer.param_groups[1]["params"][0].data.fill_(200.0)

    monkeypatch.setattr(loop, "set_lr", spoil)
    with pytest.raises(
        NonFiniteLossError,
        match=r"the learned df became .* in seed 0 \(at or before step 5\): .*loss.df",
    ):
        train(config)


# --- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "sizes"), [(33, [16, 16]), (35, [16, 16, 3]), (32, [16, 16]), (9, [9])]
)
def test_the_last_batch_is_used_unless_it_is_one_image(n, sizes, monkeypatch):
    config = images(data=Images(n_train=n), epochs=2)
    steps = spy(monkeypatch)
    result = train(config)
    assert [(len(z1), len(z2)) for z1, z2, _ in steps] == [(size, size) for size in sizes * 2]
    assert len(result.losses) == 2 * len(sizes)
    assert source_of(config).images_per_epoch == sum(sizes)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    still = ImageAugmentation(crop_scale=(1.0, 1.0), flip=0.0)
    config = images(data=Images(n_train=35, augmentation=still))
    expected = image_sets(config).train.images

    def shown(epoch: int) -> torch.Tensor:
        pairs = [pair for pair in views_of(config, epoch) if torch.equal(*pair)]
        return (torch.cat([x1 for x1, _ in pairs]) * 255).round().byte()

    def rows(x: torch.Tensor) -> list[bytes]:
        return [image.numpy().tobytes() for image in x.contiguous()]

    first, second = rows(shown(0)), rows(shown(1))
    assert first != second
    assert sorted(first) == sorted(second) == sorted(rows(expected))


def test_n_train_is_the_same_images_for_every_seed_and_not_the_first():
    few, more = (image_sets(images(data=Images(n_train=n), seed=n)).train for n in (20, 40))
    assert torch.equal(few.images, more.images[:20])
    assert not torch.equal(few.images, read_once("fashion_mnist_subset", "train").images[:20])


def test_more_images_than_there_are_is_an_error():
    """Else a record would claim a size that it does not have."""
    with pytest.raises(ValueError, match="n_train"):
        inspect.unwrap(image_sets)(images(data=Images(n_train=10_001)))
    assert len(image_sets(images(data=Images(n_train=10_000))).train) == 10_000


def numbered(n: int) -> ImageData:
    """Images that show their number, of two classes."""
    return ImageData(
        torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 8, 8).clone(),
        torch.arange(n) % 2,
        ("a", "b"),
    )


@pytest.mark.parametrize("n_train", [None, 30])
def test_held_out_images_are_never_trained_on(n_train, monkeypatch):
    seen: set[int] = set()

    def load(name, split, data_dir=None):
        assert split == "train", "with a holdout the test set is not looked at"
        return numbered(50)

    class Spy(batches.ImageViews):
        def forward(self, batch, pool):
            seen.update(batch[:, 0, 0, 0].tolist())
            return super().forward(batch, pool)

    monkeypatch.setattr(image_runs, "load_images", load)
    monkeypatch.setattr(batches, "ImageViews", Spy)
    config = images(data=Images(holdout=0.2, n_train=n_train), epochs=2, batch_size=8)
    sets = image_sets(config)
    fit, validation = (set(part.images[:, 0, 0, 0].tolist()) for part in (sets.train, sets.test))
    train(config)
    assert len(validation) == 10
    assert seen == fit
    assert len(fit) == (n_train or 40)
    assert not seen & validation


# --- settings ------------------------------------------------------------------------------------


def test_bf16_mixed_computes_the_network_in_bf16_and_the_loss_in_float32(monkeypatch):
    dtypes: set[torch.dtype] = set()

    def hook(epoch, model):
        if epoch == 0:
            model.backbone[0].register_forward_hook(lambda *a: dtypes.add(a[2].dtype))

    steps = spy(monkeypatch)
    mixed, full = train(images(precision="bf16-mixed"), on_epoch=hook), train(images())
    assert dtypes == {torch.bfloat16}
    assert {loss.dtype for _, _, loss in steps} == {torch.float32}
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float32}
    assert mixed.losses != full.losses
    assert mixed.losses == pytest.approx(full.losses, rel=0.05)


@pytest.mark.parametrize(
    "loss",
    [
        InfoNCE(temperature=0.2),
        TSimCLR(df=1.0),
        TSimCLR(df=math.inf, normalization="conditional"),
        SpectralContrastive(),
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [images, points])
def test_the_loss_is_the_one_described(make, loss, monkeypatch):
    config = make(loss=loss, epochs=1)
    steps = spy(monkeypatch)
    result = train(config)
    function = {
        "info_nce": info_nce,
        "t_simclr": t_simclr,
        "spectral_contrastive": spectral_contrastive,
    }[loss.name]
    expected = [
        function(z1, z2, **loss.model_dump(exclude={"name", "learn_df"})).item()
        for z1, z2, _ in steps
    ]
    assert result.losses == pytest.approx(expected, rel=1e-6)
    assert result.losses != pytest.approx(
        [info_nce(z1, z2, temperature=0.5).item() for z1, z2, _ in steps], rel=1e-6
    )


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_optimiser_and_its_learning_rate_are_those_described(name, monkeypatch):
    rates, kinds, original = [], set(), loop.set_lr

    def record(optimizer, *args):
        original(optimizer, *args)
        rates.extend(group["lr"] for group in optimizer.param_groups)
        kinds.add(
            (
                type(optimizer).__name__,
                optimizer.param_groups[0].get("momentum"),
                optimizer.param_groups[0]["weight_decay"],
            )
        )

    monkeypatch.setattr(loop, "set_lr", record)
    spec = Optimizer(name=name, lr=0.01, warmup_epochs=1, momentum=0.7, weight_decay=0.02)
    train(toy(optimizer=spec))
    assert kinds == {("AdamW", None, 0.02) if name == "adamw" else ("SGD", 0.7, 0.02)}
    assert rates == pytest.approx(
        [0.01 * lr_factor(spec, step, steps_per_epoch=3, epochs=3) for step in range(9)]
    )


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_an_update_does_not_depend_on_where_in_memory_an_entry_stands(name):
    """Tensors of three entries each, stacked or alone: a seed in an ensemble is the seed alone, to
    the last bit.
    """
    gradients = torch.randn(20, 30, 3, generator=torch.Generator().manual_seed(0))
    config = toy(optimizer=Optimizer(name=name, lr=0.01, weight_decay=0.01))

    def trained(start: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        parameter = start.clone().requires_grad_()
        update = optimizer_of(config, [{"params": [parameter]}])
        for gradient in steps:
            parameter.grad = gradient.clone()
            update.step()
        return parameter.detach()

    start = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    stacked = trained(start, gradients)
    assert not torch.equal(stacked, start)
    assert torch.equal(
        stacked, torch.stack([trained(start[i], gradients[:, i]) for i in range(30)])
    )


@pytest.mark.parametrize(
    "device", ["tpu", "cuda:0", "", *([] if torch.cuda.is_available() else ["cuda"])]
)
def test_a_device_that_is_not_there_is_an_error(device):
    with pytest.raises(ValueError, match=f"device must be 'auto', 'cpu' .*got '{device}'"):
        inspect.unwrap(loop.train)(toy(), data_of(toy()), device=device)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_shows_loss_and_speed(progress, capsys):
    result = train(toy(), progress=progress)
    shown = capsys.readouterr().err
    assert (
        ("9/9" in shown)
        == (f"loss={result.losses[-1]:.4f}" in shown)
        == ("images_s=" in shown)
        == progress
    )
    assert progress or not shown


def test_the_loss_goes_down_on_the_mixture():
    """To within a tenth of the way from a collapsed network's loss to the exact minimiser's."""
    result = train(
        toy(data=Mixture(steps_per_epoch=50), epochs=4, batch_size=64, optimizer=Optimizer(lr=0.01))
    )
    angle = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5
    pentagon = torch.stack([angle.cos(), angle.sin()], 1)[torch.arange(64) % 5]
    best, collapsed = info_nce(pentagon, pentagon, temperature=0.5).item(), math.log(127)
    first, last = np.mean(result.losses[:3]), np.mean(result.losses[-20:])
    assert first > best + 0.3 * (collapsed - best)
    assert last < best + 0.1 * (collapsed - best)


def batches_of(config: TrainConfig) -> Iterator[Batch]:
    return source_of(config).batches(0)


def test_pairs_of_the_mixture_share_their_component():
    means = mixture(Mixture()).means
    for batch in batches_of(toy(data=Mixture(std=0.01))):
        first, second = (torch.cdist(x, means).argmin(1) for x in (batch.x1, batch.x2))
        assert torch.equal(first, second)
        assert len(first.unique()) > 1
        assert batch.overlap is None, "nothing is cropped"
        assert not torch.equal(batch.x1, batch.x2)


def test_the_mixture_is_the_one_described():
    means = ((0.0, 1.0, 2.0), (3.0, 4.0, 5.0), (6.0, 7.0, 9.0))
    gaussian = mixture(Mixture(means=means, std=0.3))
    assert (gaussian.m, gaussian.std) == (3, 0.3)
    assert torch.equal(gaussian.means, torch.tensor(means))
    anonymous = mixture(Mixture(means=means, anonymous=4))
    assert (anonymous.m, anonymous.k) == (3, 4)


@pytest.mark.parametrize(
    "data",
    [Mixture(steps_per_epoch=4), Mixture(steps_per_epoch=4, anonymous=3)],
    ids=["gaussian", "anonymous"],
)
@pytest.mark.parametrize("epoch", [0, 2])
def test_an_epoch_of_the_mixture_is_one_draw_dealt_to_its_steps(data, epoch):
    config = toy(data=data, seed=5)
    with stream(5, SAMPLE, epoch) as generator:
        drawn = mixture(data).pairs(4 * 16, generator=generator)[:2]
    found, steps = source_of(config), views_of(config, epoch)
    assert (len(steps), found.steps_per_epoch, found.images_per_epoch) == (4, 4, 64)
    assert {x.shape for pair in steps for x in pair} == {(16, *found.sample_shape)}
    assert all(
        torch.equal(torch.cat(views), x)
        for views, x in zip(zip(*steps, strict=True), drawn, strict=True)
    )


def test_anonymous_samples_are_trained_on_as_one_free_vector_each():
    config = toy(
        data=Mixture(means=scattered(3), anonymous=4, steps_per_epoch=50),
        backbone=MLP(depth=0),
        batch_size=64,
    )
    result = train(config.replace(optimizer=Optimizer(lr=0.05)))
    assert sum(p.numel() for p in result.model.parameters()) == 12 * 2 + 2
    z = torch.nn.functional.normalize(result.model(torch.eye(12))[1].detach(), dim=1)
    centers = z.view(3, 4, 2)
    assert (centers - centers[:, :1]).norm(dim=2).max() < 0.2, "the samples of a component meet"
    assert torch.pdist(centers.mean(1)).min() > 1.5, "and the components are a triangle"


# --- vectors -------------------------------------------------------------------------------------


def numbers_of(config: TrainConfig, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which point each view of an epoch is of, (steps, n): the nearest, where views are almost the
    points.
    """
    x = point_set(config).train.x
    first, second = (torch.cdist(view, x).min(2) for view in epoch_pairs(config, epoch))
    assert 0 < max(first.values.max(), second.values.max()) < 0.01 < torch.pdist(x).min()
    return first.indices, second.indices


TINY = Noise(scale=1e-4)


@pytest.mark.parametrize(("batch_size", "n"), [(16, 16), (39, 39), (40, 40), (41, 40), (1000, 40)])
def test_a_batch_is_points_without_repetition_or_all_of_them(batch_size, n):
    config = points(TINY, batch_size=batch_size, steps_per_epoch=5)
    assert batches.epoch_shape(config, data_of(config)) == (6, 5, n)
    assert [x.shape for x in epoch_pairs(config, 0)] == [(5, n, 6)] * 2
    assert (found := source_of(config)).images_per_epoch == 5 * n
    assert (found.sample_shape, found.steps_per_epoch) == ((6,), 5)
    first, second = numbers_of(config, 0)
    assert torch.equal(first, second), "both views are of one point"
    assert all(len(batch.unique()) == n for batch in first)
    assert len({tuple(batch.tolist()) for batch in first}) == 5, "every step draws anew"
    assert len(torch.cat([numbers_of(config, epoch)[0] for epoch in range(5)]).unique()) == 40, (
        "and none is forgotten"
    )


@pytest.mark.parametrize("of", [CLOUD, Table(table="iris")], ids=["cloud", "table"])
def test_epochs_and_seeds_have_views_of_their_own(of):
    """Of every point two, which differ; a table of another seed has other points."""
    drawn = [
        torch.cat(epoch_pairs(points(of=of, seed=seed), epoch))
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    views = torch.cat(drawn).flatten(0, 1)
    assert torch.pdist(views).min() > 0
    assert torch.equal(torch.cat(epoch_pairs(points(of=of), 0)), drawn[0])
    assert not torch.equal(*(torch.stack(numbers_of(points(TINY), epoch)) for epoch in (0, 1)))


def test_views_go_through_the_steps_with_the_training_part_as_their_pool():
    of = Cloud(dim=6, n_train=12, components=2)
    x = point_set(points(of=of)).train.x
    corrupted = torch.cat(
        epoch_pairs(points(Corruption(rate=0.9), of=of, steps_per_epoch=20), 0)
    ).flatten(0, 1)
    for a in range(6):
        assert set(corrupted[:, a].tolist()) == set(x[:, a].tolist()), (
            "every one of the twelve, and no other"
        )
    few = torch.cat(
        epoch_pairs(points(Corruption(rate=0.9), of=of, steps_per_epoch=1, batch_size=2), 0)
    ).flatten(0, 1)
    assert max(len(column.unique()) for column in few.T) > 2, "the pool is not the batch"
    v1, v2 = epoch_pairs(points(Mixup(strength=1.0), of=of, batch_size=12), 0)
    ends = torch.stack([torch.stack([a, b]) for a, b in itertools.product(x, x)])
    for view in torch.cat([v1, v2]).flatten(0, 1)[::5]:
        a, b = ends.unbind(1)
        gap = (view - a).norm(dim=1) + (view - b).norm(dim=1) - (a - b).norm(dim=1)
        assert gap.min() < 1e-5, "between two points"
    masked = (
        torch.cat(epoch_pairs(points(Noise(scale=1.0), Masking(rate=0.5), steps_per_epoch=50), 0))
        == 0
    )
    assert masked.float().mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("seed", [0, 5])
def test_the_points_of_a_run_are_those_of_its_seed(seed):
    """They depend on nothing else of the run, and its evaluation has the same."""
    with stream(seed, SPLIT) as generator:
        expected = cloud(CLOUD, generator)
    before = torch.get_rng_state()
    for config in (
        points(seed=seed),
        points(Masking(rate=0.5), seed=seed, loss=TSimCLR(), batch_size=4, epochs=1),
    ):
        found = point_set(config)
        assert torch.equal(found.means, expected.means)
        for part in ("train", "validation", "test"):
            assert torch.equal(getattr(found, part).x, getattr(expected, part).x)
            assert torch.equal(getattr(found, part).labels, getattr(expected, part).labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(point_set(points(seed=seed + 1)).train.x, expected.train.x)
    wine = Table(table="wine")
    assert torch.equal(point_set(points(of=wine, seed=seed)).test.x, table(wine, seed).test.x)


def test_training_leaves_the_points_as_they_are():
    config = points(
        *(Noise(scale=0.1), Mixup(strength=0.5), Masking(rate=0.2), Corruption(rate=0.2))
    )
    before = point_set(config).train.x.clone()
    train(config)
    assert torch.equal(point_set(config).train.x, before)


def test_the_loss_goes_down_on_a_cloud():
    """Views of a point come closer, against the distance between points."""
    config = points(
        Noise(scale=0.15),
        of=Cloud(dim=20, std=0.05),
        steps_per_epoch=50,
        batch_size=64,
        optimizer=Optimizer(lr=0.01),
    )

    def nearness(model: torch.nn.Module) -> float:
        with torch.no_grad():
            z1, z2 = (
                torch.nn.functional.normalize(model(x[-1])[1], dim=1)
                for x in epoch_pairs(config, 3)
            )
        return ((z1 - z2).norm(dim=1).mean() / torch.cdist(z1, z2).mean()).item()

    result = train(config)
    assert np.mean(result.losses[-10:]) < np.mean(result.losses[:3]) - 0.3
    assert nearness(result.model) < 0.5 * nearness(initial_network(config, torch.Size([20])))


# --- weights of pairs ----------------------------------------------------------------------------

SCORES = ("iou", "input", "features")
every_score = pytest.mark.parametrize("score", SCORES)


def some_pairs(n: int = 12, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """x1, x2, z1, z2 and the overlaps."""
    generator = torch.Generator().manual_seed(seed)
    x1, x2, noise = torch.rand(3, n, 3, 4, 5, generator=generator)
    z1, z2 = torch.randn(2, n, 6, generator=generator)
    return (
        x1,
        torch.lerp(x1, x2, noise[:, :1, :1, :1]),
        z1,
        2 * z2,
        torch.rand(n, generator=generator),
    )


def naive_scores(score: str, x1, x2, z1, z2, overlap) -> list[float]:
    """Pair by pair, in Python's own numbers."""
    if score == "iou":
        return overlap.tolist()
    a, b = (
        part.flatten(1).double().tolist() for part in ((x1, x2) if score == "input" else (z1, z2))
    )
    if score == "input":
        return [
            -math.sqrt(sum((p - q) ** 2 for p, q in zip(*pair, strict=True)) / len(pair[0]))
            for pair in zip(a, b, strict=True)
        ]
    return [
        sum(p * q for p, q in zip(u, v, strict=True)) / math.hypot(*u) / math.hypot(*v)
        for u, v in zip(a, b, strict=True)
    ]


def naive_weights(spec: PairWeights, *pairs) -> list[float]:
    """Of mean 1."""
    kernel = [math.exp(score / spec.temperature) for score in naive_scores(spec.score, *pairs)]
    return [len(kernel) * value / sum(kernel) for value in kernel]


@every_score
@pytest.mark.parametrize("temperature", [0.07, 1.0, -0.2, -2.0])
def test_weights_are_those_of_a_naive_loop(temperature, score):
    spec, pairs = PairWeights(score=score, temperature=temperature), some_pairs()
    found, expected = pair_weights(spec, *pairs), naive_weights(spec, *pairs)
    assert max(expected) > 1.05 * min(expected)
    assert (found / found.mean()).tolist() == pytest.approx(expected, rel=1e-4)
    assert found.max() == 1


def test_what_the_scores_favour():
    """Crops that overlap, views that look alike, features that point the same way; and with a
    negative temperature the others.
    """
    x = torch.rand(1, 1, 4, 4).repeat(3, 1, 1, 1)
    z1, z2 = (
        torch.tensor([[1.0, 0.0]]).repeat(3, 1),
        torch.tensor([[5.0, 0.0], [1.0, 1.0], [-0.1, 0.0]]),
    )
    pairs = (
        x,
        x + torch.tensor([0.0, 0.3, -0.6])[:, None, None, None],
        z1,
        z2,
        torch.tensor([1.0, 0.4, 0.0]),
    )
    ratios = {"iou": (0.6, 1.0), "input": (0.3, 0.6), "features": (1 - 0.5**0.5, 2.0)}
    for score, (second, third) in ratios.items():
        found = pair_weights(PairWeights(score=score, temperature=0.5), *pairs)
        assert found.tolist() == pytest.approx(
            [1.0, math.exp(-2 * second), math.exp(-2 * third)], rel=1e-5
        )
        swapped = pair_weights(PairWeights(score=score, temperature=-0.5), *pairs)
        assert swapped.tolist() == pytest.approx(
            [math.exp(-2 * third), math.exp(2 * (second - third)), 1.0], rel=1e-5
        )


@every_score
@pytest.mark.parametrize("temperature", [math.inf, -math.inf])
def test_an_infinite_temperature_weighs_all_pairs_alike(temperature, score):
    assert torch.equal(
        pair_weights(PairWeights(score=score, temperature=temperature), *some_pairs()),
        torch.ones(12),
    )


@every_score
@pytest.mark.parametrize("temperature", [1e-6, -1e-6, 1e-30])
def test_a_tiny_temperature_leaves_the_first_alone_and_does_not_overflow(temperature, score):
    scores = naive_scores(score, *some_pairs())
    chosen = scores.index(max(scores) if temperature > 0 else min(scores))
    found = pair_weights(PairWeights(score=score, temperature=temperature), *some_pairs())
    assert found.tolist() == [float(i == chosen) for i in range(12)]


@every_score
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_have_no_gradient_and_full_precision(dtype, score):
    x1, x2, z1, z2, overlap = some_pairs()
    z1, z2 = (z.to(dtype).requires_grad_() for z in (z1, z2))
    spec = PairWeights(score=score, temperature=0.3)
    found = pair_weights(spec, x1, x2, z1, z2, overlap)
    assert not found.requires_grad
    assert found.dtype == torch.float32
    assert (found / found.mean()).tolist() == pytest.approx(
        naive_weights(spec, x1, x2, z1, z2, overlap), rel=1e-4
    )


def test_the_overlap_of_a_pair_is_that_of_the_two_views_it_comes_with(monkeypatch):
    """On images every pixel of which says where it stands: views tell what they show, flipped or
    not.
    """
    column, row = torch.arange(28).expand(28, 28), torch.arange(28)[:, None].expand(28, 28)
    where = torch.stack([column, row, 0 * row]).byte()
    maps = ImageData(where.repeat(40, 1, 1, 1), torch.arange(40) % 2, ("a", "b"))
    monkeypatch.setattr(image_runs, "load_images", lambda *args, **settings: maps)
    sizes = []
    for batch in batches_of(images(data=Images())):
        x1, x2, overlap = batch.x1, batch.x2, batch.overlap
        sizes.append(len(overlap))
        corners = [
            [(v[c].min() * 255, v[c].max() * 255 + 1) for c in (0, 1)] for v in torch.cat([x1, x2])
        ]
        sides = torch.tensor(corners).view(2, -1, 2, 2)
        shared = (sides[..., 1].amin(0) - sides[..., 0].amax(0)).clamp_min(0).prod(1)
        both = (sides[..., 1] - sides[..., 0]).prod(2).sum(0)
        torch.testing.assert_close(overlap, shared / (both - shared), rtol=0, atol=1e-3)
        assert overlap.unique().numel() > 1
    assert sizes == [16, 16, 8]


WEIGHABLE = {
    "info_nce": InfoNCE(temperature=0.2),
    "joint": TSimCLR(df=2.0),
    "conditional": TSimCLR(normalization="conditional"),
    "learned": TSimCLR(learn_df=True),
}


@every_score
@pytest.mark.parametrize("loss", WEIGHABLE)
def test_a_run_with_equal_weights_is_the_run_without_and_no_other_is(loss, score):
    def trained(temperature: float | None) -> TrainResult:
        weights = None if temperature is None else PairWeights(score=score, temperature=temperature)
        return train(images(loss=WEIGHABLE[loss], weights=weights, epochs=1))

    plain = trained(None)
    assert len(plain.losses) == 3
    assert same(trained(math.inf), plain)
    assert same(trained(-math.inf), plain)
    for temperature in (0.1, -0.1):
        assert not set(trained(temperature).losses) & set(plain.losses)


@every_score
@pytest.mark.parametrize("temperature", [0.2, -0.2])
@pytest.mark.parametrize(
    "loss",
    [InfoNCE(temperature=0.2), TSimCLR(df=2.0), TSimCLR(normalization="conditional")],
    ids=str,
)
def test_the_loss_is_weighted_by_what_the_step_saw(loss, temperature, score, monkeypatch):
    config = images(loss=loss, weights=PairWeights(score=score, temperature=temperature), epochs=1)
    steps = spy(monkeypatch)
    result = train(config)
    function, settings = (
        info_nce if isinstance(loss, InfoNCE) else t_simclr,
        loss.model_dump(exclude={"name", "learn_df"}),
    )
    expected, plain = [], []
    for batch, (z1, z2, _) in zip(batches_of(config), steps, strict=True):
        naive = naive_weights(config.weights, batch.x1, batch.x2, z1, z2, batch.overlap)
        weights = torch.tensor(naive, dtype=torch.float64)
        expected.append(function(z1.double(), z2.double(), weights=weights, **settings).item())
        plain.append(function(z1.double(), z2.double(), **settings).item())
    assert result.losses == pytest.approx(expected, rel=1e-5)
    assert not np.isclose(result.losses, plain, rtol=1e-5, atol=0).any()


# --- degrees of freedom that are learned ---------------------------------------------------------


def one_step(
    name: str, weight_decay: float = 0.0, normalization: str = "joint", **settings
) -> TrainConfig:
    optimizer = Optimizer(name=name, lr=0.02, weight_decay=weight_decay)
    loss = TSimCLR(temperature=0.01, normalization=normalization, df=2.0, **settings)
    return images(data=Images(n_train=16), loss=loss, optimizer=optimizer, epochs=1)


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize("normalization", ["joint", "conditional"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_first_step_of_df(name, normalization, weight_decay, monkeypatch):
    """Ten times the learning rate down the slope in log df, found by differences; without decay."""
    steps = spy(monkeypatch)
    result = train(one_step(name, weight_decay, normalization, learn_df=True))
    ((z1, z2, loss),) = steps

    def value(log_df: float) -> float:
        settings = {"temperature": 0.01, "df": math.exp(log_df), "normalization": normalization}
        return t_simclr(z1.double(), z2.double(), **settings).item()

    start = math.log(2.0)
    assert loss.item() == pytest.approx(value(start), rel=1e-5)
    slope = (value(start + 1e-4) - value(start - 1e-4)) / 2e-4
    assert abs(slope) > 1e-3
    moved = -0.2 * (slope if name == "sgd" else math.copysign(1, slope))
    assert result.model.log_df.item() - start == pytest.approx(moved, rel=2e-3)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_weights_move_as_they_do_beside_a_df_that_stays(name):
    """At the first step, after which df is another: with their own learning rate and decay."""
    learned, fixed, undecayed = (
        dict(train(one_step(name, decay, learn_df=learn_df)).model.named_parameters())
        for decay, learn_df in ((0.5, True), (0.5, False), (0.0, False))
    )
    assert learned.keys() - fixed.keys() == {"log_df"}
    # AdamW's first step is the sign of the gradient: entries whose gradient is zero but for
    # rounding may go either way.
    near = [(learned[key] - value).abs() < 1e-5 for key, value in fixed.items()]
    assert torch.cat([part.flatten() for part in near]).float().mean() > 0.99
    weight = "projector.0.weight"
    assert (fixed[weight] - undecayed[weight]).abs().max() > 1e-4


@every_kind
def test_every_parameter_is_in_one_group_and_df_by_itself(make):
    def groups(config: TrainConfig) -> tuple[list[dict], dict[str, torch.nn.Parameter]]:
        network = initial_network(config, torch.Size((1, 28, 28)))
        return parameter_groups(network), dict(network.named_parameters())

    (group,), named = groups(make())
    assert [id(p) for p in group["params"]] == [id(p) for p in named.values()]
    if make is images:
        (weights, df), named = groups(
            images(loss=TSimCLR(learn_df=True), optimizer=Optimizer(weight_decay=0.3))
        )
        assert [id(p) for p in df["params"]] == [id(named.pop("log_df"))]
        assert [id(p) for p in weights["params"]] == [id(p) for p in named.values()]
        assert df["weight_decay"] == 0
        assert "weight_decay" not in weights


@all_optimizers
def test_the_learning_rate_of_df_is_ten_times_that_of_the_weights(optimizer):
    config = images(loss=TSimCLR(learn_df=True), optimizer=optimizer)
    update = optimizer_of(
        config, parameter_groups(initial_network(config, torch.Size((1, 28, 28))))
    )
    assert [group["weight_decay"] for group in update.param_groups] == [optimizer.weight_decay, 0]
    for step in range(9):
        set_lr(update, config, step, 3)
        rate = optimizer.lr * lr_factor(optimizer, step, steps_per_epoch=3, epochs=3)
        assert [group["lr"] for group in update.param_groups] == pytest.approx([rate, 10 * rate])


@pytest.mark.parametrize("seed", [1, 2])
def test_training_moves_df(seed):
    seen = []
    config = images(loss=TSimCLR(df=5.0, learn_df=True), seed=seed)
    result = train(config, on_epoch=lambda _, model: seen.append(model.log_df.item()))
    assert seen[0] == pytest.approx(math.log(5.0))
    assert len(set(seen)) == 4
    assert result.model.state_dict()["log_df"].item() == seen[-1]
    assert set(result.losses[1:]).isdisjoint(
        train(images(loss=TSimCLR(df=5.0), seed=seed)).losses[1:]
    )


@all_optimizers
@every_score
def test_a_run_with_learned_df_and_weights_resumes_where_it_was(
    score, optimizer, monkeypatch, tmp_path
):
    weights = PairWeights(score=score, temperature=-0.2)
    config, checkpoint = (
        images(loss=TSimCLR(learn_df=True), weights=weights, optimizer=optimizer),
        tmp_path / "run.pt",
    )
    whole = train(config)
    with monkeypatch.context() as patch:
        spy(patch, interrupt_at(5))
        with pytest.raises(KeyboardInterrupt):
            train(config, checkpoint=checkpoint, checkpoint_seconds=0.0)
    kept = torch.load(checkpoint)["model"]["log_df"]
    resumed = train(config, checkpoint=checkpoint)
    assert same(whole, resumed)
    assert len({kept.item(), whole.model.log_df.item(), math.log(5.0)}) == 3


# --- compiled ------------------------------------------------------------------------------------


class Compilations:
    """How torch.compile was called, and how often what it gave."""

    def __init__(self, monkeypatch) -> None:
        self.settings: list[dict] = []
        self.calls = 0
        compile_, forward = torch.compile, OptimizedModule.__call__

        def spy(module, **settings):
            self.settings.append(settings)
            return compile_(module, **settings)

        def call(module, *args, **settings):
            self.calls += 1
            return forward(module, *args, **settings)

        monkeypatch.setattr(torch, "compile", spy)
        monkeypatch.setattr(OptimizedModule, "__call__", call)


@pytest.fixture
def compilations(monkeypatch) -> Iterator[Compilations]:
    """Modules are wrapped, and run as they are: to trace and to generate code takes long, and is
    torch's business.
    """
    with torch.compiler.set_stance("force_eager"):
        yield Compilations(monkeypatch)


@pytest.mark.parametrize("loss", [InfoNCE(), TSimCLR(learn_df=True)], ids=lambda loss: loss.name)
def test_a_compiled_run_is_the_run(loss, compilations, tmp_path):
    """Its result and its checkpoint are of the plain network, and either way of training goes on
    from the other's.
    """
    config, checkpoint = images(loss=loss, epochs=2, data=Images(n_train=20)), tmp_path / "run.pt"
    plain, seen = train(config), []
    assert not compilations.settings, "unless it is asked for"

    def look(epoch: int, model: torch.nn.Module) -> None:
        seen.append((epoch, model.training, type(model)))

    found = train(
        config, compiled=True, checkpoint=checkpoint, checkpoint_seconds=0.0, on_epoch=look
    )
    assert compilations.settings
    assert all(settings == {"dynamic": False} for settings in compilations.settings)
    assert compilations.calls == 4, "every step"
    assert type(found.model) is type(plain.model)
    assert not found.model.training
    assert seen == [(epoch, False, type(plain.model)) for epoch in range(3)]
    assert same(found, plain)
    state = torch.load(checkpoint)["model"]
    assert list(state) == list(plain.model.state_dict())
    assert ("log_df" in state) == (loss != InfoNCE())
    assert same(train(config, checkpoint=checkpoint), plain)
    assert same(train(config, checkpoint=checkpoint, compiled=True), plain)


# --- the network before training -----------------------------------------------------------------


@every_kind
def test_the_initial_network_is_that_of_the_seed(make):
    config, shape = make(seed=4), torch.Size((1, 28, 28)) if make is images else torch.Size((2,))
    with stream(4, INIT):
        expected = loop.build(config, shape)
    assert same(TrainResult(config, initial_network(config, shape)), TrainResult(config, expected))


def line(m: int) -> tuple[tuple[float, ...], ...]:
    return tuple((float(i),) for i in range(m))


def ordered(order: tuple[int, ...], d: int, **changes) -> TrainConfig:
    means = line(len(order)) if d == 1 else scattered(len(order))
    return toy(
        data=Mixture(means=means, steps_per_epoch=3),
        backbone=MLP(width=64),
        start_order=order,
        **changes,
    )


def mean_features(network: torch.nn.Module, config: TrainConfig) -> torch.Tensor:
    """Of 100 fresh draws of every component."""
    components = mixture(config.data)
    x = components.sample_given(
        torch.arange(components.m).repeat_interleave(100),
        generator=torch.Generator().manual_seed(9),
    )
    with torch.no_grad():
        return network(x)[1].view(components.m, 100, 2).mean(1)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("m", [4, 5])
def test_the_components_stand_on_the_circle_in_the_order_asked_for(m, d, seed):
    """Every one of the (m-1)!/2 orders, not only those that the network would find by itself."""
    orders = [(0, *rest) for rest in itertools.permutations(range(1, m)) if rest[0] < rest[-1]]
    assert len(orders) == math.factorial(m - 1) // 2
    for order in orders:
        config = ordered(order, d, seed=seed)
        means = mean_features(first_network(config), config)
        assert cyclic_order(means).tolist() == list(order)
        angles = torch.tensor([2 * math.pi * order.index(component) / m for component in range(m)])
        assert (means - torch.stack([angles.cos(), angles.sin()], 1)).norm(dim=1).max() < 0.5, (
            "near the corners of a regular polygon"
        )


def test_a_start_order_need_not_begin_with_0():
    config = ordered((3, 2, 4, 0, 1), 2)
    means = mean_features(first_network(config), config)
    assert cyclic_order(means).tolist() == [0, 1, 3, 2, 4]
    assert means[3].tolist() == pytest.approx([1, 0], abs=0.2), "the first at the first corner"


def test_training_begins_at_the_start_order_and_is_reproducible():
    config, seen = ordered((0, 2, 1, 3), 2), []
    first = train(config, on_epoch=lambda epoch, model: seen.append(mean_features(model, config)))
    assert torch.equal(seen[0], mean_features(first_network(config), config))
    assert cyclic_order(seen[0]).tolist() == [0, 2, 1, 3]
    assert same(first, train(config))
    assert not same(first, train(ordered((0, 1, 2, 3), 2)))


def test_an_order_that_the_network_cannot_take_is_an_error():
    """A linear map of the plane cannot put five scattered means around the circle in this order."""
    config = toy(
        data=Mixture(means=scattered(5)),
        backbone=MLP(depth=0),
        projector=Projector(hidden=0, dim=2),
        start_order=(0, 3, 1, 4, 2),
    )
    with pytest.raises(ValueError, match="could not be fitted with seed 0: use a wider backbone"):
        first_network(config)
