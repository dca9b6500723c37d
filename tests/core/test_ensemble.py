"""Networks trained together are the networks trained alone: by `train`, and by a loop written out
here.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import train_run as train
from helpers import train_runs as train_ensemble
from torch import nn
from torch.nn import functional as F

import sscl_core.ensemble as together
import sscl_core.train as alone
import sscl_experiments.runs.mixture as on_mixture
from sscl_core import batches
from sscl_core.config import (
    MLP,
    Cloud,
    ConvNet,
    Corruption,
    Images,
    Masking,
    Mixture,
    Mixup,
    Noise,
    Optimizer,
    Points,
    Projector,
    SpectralContrastive,
    Table,
    TrainConfig,
    TSimCLR,
    scattered,
)
from sscl_core.divergence import NonFiniteLossError
from sscl_core.ensemble import Ensemble
from sscl_core.rng import INIT, SAMPLE, stream
from sscl_core.train import TrainResult, optimizer_of
from sscl_experiments.runs.mixture import evaluation_points
from sscl_experiments.runs.points import point_set
from sscl_experiments.studies.implicit_bias.parameters import FACTORS, order_run

SEEDS = (3, 11, 5)
SETTINGS = {
    "adamw": {"optimizer": Optimizer(weight_decay=0.1)},
    "sgd": {"optimizer": Optimizer(name="sgd", lr=0.05, weight_decay=1e-3, schedule="constant")},
    "warm-up": {"optimizer": Optimizer(lr=3e-3, warmup_epochs=1.5)},
    "joint": {"loss": TSimCLR(), "projector": Projector(hidden=16, dim=3)},
    "conditional": {"loss": TSimCLR(normalization="conditional", df=math.inf, temperature=0.5)},
    "batchnorm": {"loss": TSimCLR(), "projector": Projector(hidden=16, dim=2, batchnorm=True)},
    "tanh": {"backbone": MLP(width=16, depth=1, activation="tanh", init_scale=2.0)},
    "start_order": {"start_order": (0, 2, 4, 1, 3)},
    "anonymous": {"data": Mixture(steps_per_epoch=12, anonymous=3), "backbone": MLP(depth=0)},
    "line": {"data": Mixture(steps_per_epoch=12, means=((-1.0,), (-0.4,), (0.5,), (1.0,)))},
}
# Products of stacked matrices may round otherwise than those of single ones. Where training makes
# more than 1e-5 of an ulp, both sides
# compute in float64: entries of exactly zero gradient, as biases before BatchNorm have, move by
# what AdamW makes of rounding alone.
SENSITIVE = {"adamw", "sgd", "joint", "conditional", "batchnorm"}
STEPS = (Noise(scale=0.2), Mixup(strength=0.5), Masking(rate=0.1), Corruption(rate=0.1))
ON_POINTS = {
    "InfoNCE": {"data": Points(points=Cloud(dim=6), augmentation=STEPS, steps_per_epoch=8)},
    "t-SimCLR with BatchNorm": {
        "data": Points(
            points=Cloud(dim=6, structure="manifold"), augmentation=STEPS[:1], steps_per_epoch=8
        ),
        "loss": TSimCLR(),
        "projector": Projector(hidden=0, dim=3, batchnorm=True),
    },
    "spectral": {
        "data": Points(points=Table(table="iris"), augmentation=STEPS[1:], steps_per_epoch=8),
        "loss": SpectralContrastive(),
    },
    "all points a batch": {
        "data": Points(points=Cloud(dim=6, n_train=12), augmentation=STEPS, steps_per_epoch=8)
    },
}
every_setting = pytest.mark.parametrize("setting", SETTINGS)


def runs(*seeds: int, **changes) -> list[TrainConfig]:
    """48 steps of 16 pairs, in four epochs."""
    small = {
        "data": Mixture(steps_per_epoch=12),
        "backbone": MLP(width=16),
        "projector": Projector(hidden=0, dim=2),
    }
    return [
        TrainConfig(
            **{
                **small,
                "epochs": 4,
                "batch_size": 16,
                "optimizer": Optimizer(lr=3e-3),
                **changes,
                "seed": s,
            }
        )
        for s in seeds
    ]


def short(*seeds: int, **changes) -> list[TrainConfig]:
    """Six steps, in two epochs."""
    return runs(*seeds, **{"data": Mixture(steps_per_epoch=3), "epochs": 2, **changes})


def in_double(monkeypatch) -> None:
    """Both ways of training compute in float64 from here on."""
    network, pairs = alone.initial_network, batches.epoch_pairs

    def double_network(*arguments, **settings):
        return network(*arguments, **settings).double()

    def double_pairs(*arguments):
        return tuple(x.double() for x in pairs(*arguments))

    for module in (alone, together, on_mixture):
        monkeypatch.setattr(module, "initial_network", double_network)
    for module in (batches, together):
        monkeypatch.setattr(module, "epoch_pairs", double_pairs)


def moved(config: TrainConfig, result: TrainResult) -> bool:
    """Whether training took every weight matrix elsewhere."""
    start = train(config.replace(epochs=0)).model
    pairs = zip(start.parameters(), result.model.parameters(), strict=True)
    return all((a - b).abs().max() > 0.01 for a, b in pairs if a.ndim == 2)


def assert_same(found: TrainResult, expected: TrainResult) -> None:
    """Weights, running statistics, losses and features."""
    config = expected.config
    x = (
        point_set(config).test.x
        if isinstance(config.data, Points)
        else evaluation_points(config)[0]
    )
    x = x.to(next(expected.model.parameters()).dtype)
    assert found.config == expected.config
    assert (found.model.training, len(found.losses)) == (False, len(expected.losses))
    for of in (
        lambda r: dict(r.model.state_dict()),
        lambda r: torch.tensor(r.losses, dtype=torch.float64),
        lambda r: r.model(x),
    ):
        torch.testing.assert_close(of(found), of(expected), rtol=0, atol=1e-5)


@every_setting
def test_a_seed_in_an_ensemble_is_the_seed_alone(setting, monkeypatch):
    if setting in SENSITIVE:
        in_double(monkeypatch)
    configs = runs(*SEEDS, **SETTINGS[setting])
    for config, found in zip(configs, train_ensemble(configs, device="cpu"), strict=True):
        expected = train(config, device="cpu")
        assert moved(config, expected)
        assert_same(found, expected)
        assert found.images_per_second > 0


@pytest.mark.parametrize("setting", ON_POINTS)
def test_a_seed_on_points_is_the_seed_alone(setting, monkeypatch):
    """Each with points of its own.

    BatchNorm leaves the bias before it without a gradient, of which AdamW makes steps out of
    rounding.
    """
    in_double(monkeypatch)
    configs = runs(*SEEDS, **{"epochs": 3, **ON_POINTS[setting]})
    results = train_ensemble(configs, device="cpu")
    for config, found in zip(configs, results, strict=True):
        expected = train(config, device="cpu")
        assert len(expected.losses) == 24
        assert moved(config, expected)
        assert_same(found, expected)
    assert len({loss for result in results for loss in result.losses}) == 24 * len(SEEDS)
    swapped = train_ensemble(configs[2:] + configs[:1], device="cpu")
    for result, again in zip(results[2:] + results[:1], swapped, strict=True):
        assert_same(again, result)


@pytest.mark.parametrize(
    "changes",
    [{}, FACTORS["optimiser"]["SGD, lr 0.01"], FACTORS["components"]["8"], FACTORS["depth"]["4"]],
)
@pytest.mark.parametrize("double", [False, True])
def test_the_settings_of_notebook_3(double, changes, monkeypatch):
    """100 steps at the sizes of the notebook, two epochs: to 1e-5 in float64.

    In float32, as there, stacked and single products may round differently, which is the
    processor's business, and a difference of 1e-7 may grow tenfold in a few steps. So there the
    losses of the first ten steps agree, to 1e-4.
    """
    if double:
        in_double(monkeypatch)
    steps = 100 if double else 50
    configs = [order_run(changes, steps=steps).replace(seed=seed) for seed in SEEDS]
    for config, found in zip(configs, train_ensemble(configs, device="cpu"), strict=True):
        expected = train(config, device="cpu")
        if double:
            assert_same(found, expected)
        else:
            first, as_expected = torch.tensor(found.losses[:10]), torch.tensor(expected.losses[:10])
            torch.testing.assert_close(first, as_expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_an_optimiser_works_entry_by_entry(name):
    """Bit for bit, wherever in a stack an entry stands."""
    config = runs(0, **SETTINGS[name])[0]
    start = torch.randn(7, 13, generator=torch.Generator().manual_seed(0))
    stack, single = start.clone().requires_grad_(), [row.clone().requires_grad_() for row in start]
    optimizers = [
        optimizer_of(config, [{"params": parameters}]) for parameters in ([stack], single)
    ]
    for gradient in torch.randn(100, 7, 13, generator=torch.Generator().manual_seed(1)) ** 3:
        stack.grad = gradient.clone()
        for row, of_row in zip(single, gradient, strict=True):
            row.grad = of_row.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(stack, torch.stack(single))
    assert (stack - start).abs().min() > 1e-4


def test_running_statistics_are_each_seeds_own():
    first, second = (
        r.model.projector[-1] for r in train_ensemble(short(0, 1, **SETTINGS["batchnorm"]))
    )
    assert first.num_batches_tracked == second.num_batches_tracked == 6
    assert (first.running_mean - second.running_mean).abs().max() > 1e-3


def alone_by_hand(seed: int) -> tuple[nn.Module, list[float]]:
    """One network, written out: initialisation, pairs, InfoNCE at τ = 1/2, SGD at a rate that rises
    for an epoch and falls as a cosine.
    """
    with stream(seed, INIT):
        network = nn.Sequential(
            nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)
        ).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-3)
    means, partner, losses = torch.tensor(scattered(5)), torch.arange(32).roll(16), []
    for step in range(48):
        if step % 12 == 0:
            with stream(seed, SAMPLE, step // 12):
                labels = torch.randint(5, (192,))
                x1, x2 = (means[labels] + 0.1 * torch.randn(192, 2) for _ in range(2))
        rows = slice(step % 12 * 16, step % 12 * 16 + 16)
        u = F.normalize(network(torch.cat([x1[rows], x2[rows]]).double()))
        loss = F.cross_entropy((u @ u.T / 0.5).fill_diagonal_(-math.inf), partner)
        optimizer.param_groups[0]["lr"] = 0.05 * (
            (step + 1) / 13 if step < 12 else (1 + math.cos(math.pi * (step - 12) / 36)) / 2
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return network, losses


def test_an_ensemble_is_a_loop_written_out(monkeypatch):
    in_double(monkeypatch)
    configs = runs(
        0, 1, optimizer=Optimizer(name="sgd", lr=0.05, weight_decay=1e-3, warmup_epochs=1)
    )
    for config, result in zip(configs, train_ensemble(configs, device="cpu"), strict=True):
        network, losses = alone_by_hand(config.seed)
        assert moved(config, result)
        assert result.losses == pytest.approx(losses, abs=1e-5)
        for found, expected in zip(result.model.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(found.data, expected.data, rtol=0, atol=1e-5)


def test_neither_the_other_seeds_nor_their_order_matter():
    seeds = [(0, 1, 2, 3), (3, 9, 0), (0,), (7, 6, 3, 8, 4, 5, 10, 0)]
    first, *others = ({r.config.seed: r for r in train_ensemble(runs(*some))} for some in seeds)
    assert [list(found) for found in (first, *others)] == list(map(list, seeds))
    for found in others:
        for seed in found.keys() & first.keys():
            assert_same(found[seed], first[seed])
    assert not set(first[0].losses) & set(first[3].losses)


def test_global_random_states_neither_matter_nor_change():
    def states() -> tuple[bytes, bytes]:  # not Python's `random`: beartype itself draws from it
        return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes()  # noqa: NPY002

    torch.manual_seed(1)
    before = states()
    first = train_ensemble(short(0, 1))
    assert states() == before
    torch.manual_seed(2)
    second = train_ensemble(short(0, 1), on_epoch=lambda *_: torch.rand(17))
    assert states() != before
    for a, b in zip(first, second, strict=True):
        assert a.losses == b.losses
        assert_same(a, b)


@pytest.mark.parametrize("setting", ["adamw", "batchnorm"])
def test_every_epoch_can_be_looked_at(setting, monkeypatch):
    """The features are those of the networks alone, in evaluation mode, and looking at them changes
    nothing.
    """
    in_double(monkeypatch)
    configs = short(*SEEDS, **SETTINGS[setting] | {"epochs": 3})
    x = torch.stack([evaluation_points(c)[0].double() for c in configs])
    seen, alone = [], {c.seed: [] for c in configs}

    def look(epoch: int, ensemble: Ensemble) -> None:
        z = ensemble(x)
        assert not z.requires_grad
        seen.append((epoch, z))

    watched = train_ensemble(configs, on_epoch=look)
    for config, points in zip(configs, x, strict=True):
        train(
            config,
            on_epoch=lambda _, model, points=points, found=alone[config.seed]: found.append(
                model(points)[1].detach()
            ),
        )
    assert [epoch for epoch, _ in seen] == [0, 1, 2, 3]
    for (_, z), *expected in zip(seen, *alone.values(), strict=True):
        torch.testing.assert_close(z, torch.stack(expected), rtol=0, atol=1e-5)
    assert all((b - a).abs().max() > 1e-3 for (_, a), (_, b) in itertools.pairwise(seen))
    for a, b in zip(watched, train_ensemble(configs), strict=True):
        assert_same(a, b)


def test_a_member_is_a_network_of_its_own():
    """What happens to the ensemble later, or to another member, does not reach it."""
    configs, kept, expected = short(0, 1), [], []
    vessels = [train(short(0, epochs=0)[0]).model for _ in range(3)]
    train_ensemble(
        configs, on_epoch=lambda epoch, ensemble: kept.append(ensemble.member(1, vessels[epoch]))
    )
    train(
        configs[1],
        on_epoch=lambda _, model: expected.append(
            {name: value.clone() for name, value in model.state_dict().items()}
        ),
    )
    for model, state in zip(kept, expected, strict=True):
        assert not model.training
        torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=1e-5)
    assert not torch.equal(expected[0]["backbone.1.weight"], expected[2]["backbone.1.weight"])


def test_no_epochs_are_the_initial_networks():
    epochs = []
    configs = short(0, 1, 2, epochs=0)
    for config, result in zip(
        configs,
        train_ensemble(configs, on_epoch=lambda epoch, _: epochs.append(epoch)),
        strict=True,
    ):
        assert result.losses == []
        assert_same(result, train(config))
    assert epochs == [0]


@pytest.mark.parametrize(
    "configs",
    [
        [],
        [TrainConfig(backbone=ConvNet(width=2), data=Images(n_train=48))],
        short(0) + short(1, optimizer=Optimizer(lr=2e-3)),
        short(0) + short(1, epochs=3),
        short(0) + short(1, data=Mixture(steps_per_epoch=3, std=0.2)),
        short(0) + short(1, **ON_POINTS["InfoNCE"]),
        short(0, **ON_POINTS["InfoNCE"]) + short(1, **ON_POINTS["all points a batch"]),
    ],
    ids=["none", "images", "optimizer", "epochs", "data", "mixture and points", "points"],
)
def test_runs_that_are_not_alike_are_refused(configs):
    rule = "configs must be one or more runs on vectors .* in their seed alone"
    with pytest.raises(ValueError, match=f"{rule}, got {len(configs)} "):
        train_ensemble(configs)


@pytest.mark.parametrize("steps", [1, 3, 45])
def test_a_learning_rate_out_of_hand_is_an_error(steps):
    with pytest.raises(
        NonFiniteLossError,
        match=r"in seed 7 \(at or before step \d+\), seed 8 .*lower optimizer.lr \(1e\+38\)",
    ):
        train_ensemble(
            short(
                7, 8, optimizer=Optimizer(name="sgd", lr=1e38), data=Mixture(steps_per_epoch=steps)
            )
        )


@pytest.mark.parametrize(("step", "looked"), [(25, 40), (45, 45)])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_no_step_goes_unchecked(monkeypatch, what, step, looked):
    """Not even one whose loss alone is NaN, nor the last, after whose gradient there is no loss."""
    calls, loss = [], together.contrastive_loss

    def spoiled(config, z1, z2):
        calls.append(1)
        wrong = (
            math.nan if what == "loss" else (0 * z1).square().sum().sqrt()
        )  # 0, and its gradient is NaN
        return loss(config, z1, z2) + (wrong if len(calls) == step else 0)

    monkeypatch.setattr(together, "contrastive_loss", spoiled)
    with pytest.raises(NonFiniteLossError, match=rf"in seed 4 \(at or before step {looked}\)"):
        train_ensemble(short(4, 5, data=Mixture(steps_per_epoch=45), epochs=1))


@pytest.mark.parametrize(("step", "looked"), [(0, 20), (19, 20), (20, 40), (44, 45)])
def test_the_seed_that_diverges_is_named(monkeypatch, step, looked):
    """Together with the step at which it was noticed."""

    def poisoned(config, data, epoch):
        x1, x2 = (x.clone() for x in batches.epoch_pairs(config, data, epoch))
        if config.seed in (5, 9):
            x1[step] = math.nan
        return x1, x2

    monkeypatch.setattr(together, "epoch_pairs", poisoned)
    configs = short(4, 5, 6, 9, data=Mixture(steps_per_epoch=45))
    who = rf"in seed 5 \(at or before step {looked}\), seed 9 \(at or before step {looked}\):"
    with pytest.raises(NonFiniteLossError, match=who) as error:
        train_ensemble(configs)
    monkeypatch.undo()
    assert [result.config.seed for result in error.value.finished] == [4, 6], "the others are kept"
    sound = train_ensemble([configs[0], configs[2]])
    for kept, expected in zip(error.value.finished, sound, strict=True):
        assert_same(kept, expected)


def test_networks_that_are_not_one_a_run_are_refused():
    points = Points(points=Cloud(dim=6, n_train=20), augmentation=STEPS[:1], steps_per_epoch=2)
    configs = [TrainConfig(data=points, backbone=MLP(width=8), seed=seed) for seed in range(2)]
    network = alone.initial_network(configs[0], torch.Size([6]))
    with pytest.raises(ValueError, match="networks must have one entry a run, 2, got 1"):
        together.train_ensemble(configs, [torch.zeros(20, 6)] * 2, networks=[network])
