"""From configuration to record: measurements with known answers, and every run trained once."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import sscl_core.train as loop
from sscl_core import experiments, store
from sscl_core.analysis import first_batch, frame, images_as_rows
from sscl_core.config import MLP, ConvNet, Images, InfoNCE, Mixture, Projector, TrainConfig, TSimCLR
from sscl_core.data import load_images
from sscl_core.experiments import measure_mixture, results, run
from sscl_core.theory import circle_gaps, uniform_arrangement
from sscl_core.train import mixture, source, train, train_and_test_images

read_once = functools.cache(load_images)


@pytest.fixture(autouse=True)
def _read_once(monkeypatch):
    monkeypatch.setattr(loop, "load_images", read_once)


def toy(m: int = 3, d: int = 2, **changes) -> TrainConfig:
    small = {"backbone": MLP(width=8), "projector": Projector(hidden=0, dim=d), "epochs": 2, "batch_size": 8}
    return TrainConfig(**{"data": Mixture(components=m, steps_per_epoch=2), **small, **changes})


def images(**changes) -> TrainConfig:
    """Two epochs of two steps, evaluated on the ten images a class that are held out of a small part."""
    small = {"backbone": ConvNet(width=2), "projector": Projector(hidden=8, dim=2), "epochs": 2, "batch_size": 16}
    return TrainConfig(**{"data": Images(n_train=32, holdout=0.02), **small, **changes})


def evaluation(config: TrainConfig) -> tuple[torch.Tensor, torch.Tensor]:
    return experiments._mixture_evaluation(config, mixture(config))


# --- what is measured on the mixture -------------------------------------------------------------

ARRANGEMENTS = pytest.mark.parametrize(("m", "d"), [(2, 2), (3, 2), (5, 2), (4, 3), (5, 8)])


def exact(config: TrainConfig) -> torch.Tensor:
    """Features [z1; z2] of the evaluation points at the exact minimiser, turned and not of norm 1: neither counts."""
    m, d = config.data.components, config.projector.dim
    turn = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    return 3 * (uniform_arrangement(m, d) @ turn)[evaluation(config)[1]].repeat(2, 1)


@ARRANGEMENTS
def test_measures_at_the_exact_minimiser_and_at_collapse(m, d):
    config = toy(m, d)
    best = exact(config)
    collapsed = torch.ones_like(best)
    metrics, curves = measure_mixture(config, torch.stack([collapsed, best]))
    assert metrics["loss_gap"] == pytest.approx(0, abs=1e-9)
    assert metrics["loss"] == pytest.approx(metrics["loss_exact"])
    assert metrics["alignment"] == pytest.approx(0, abs=1e-12)
    assert metrics["uniformity"] == pytest.approx(metrics["uniformity_exact"], rel=1e-9)
    assert curves["uniformity"] == pytest.approx([0, metrics["uniformity_exact"]], abs=1e-9)
    assert np.linalg.norm(curves["means"], axis=2) == pytest.approx(1)
    assert curves["labels"].tolist() == evaluation(config)[1].tolist() == [c for c in range(m) for _ in range(50)]
    if d == 2:
        assert circle_gaps(torch.from_numpy(curves["means"][-1])).tolist() == pytest.approx([360 / m] * m)

    metrics, _ = measure_mixture(config, torch.stack([best, collapsed]))  # the last is what counts
    assert metrics["loss_gap"] == pytest.approx(1)
    assert metrics["loss"] == pytest.approx(math.log(2 * 50 * m - 1))
    assert (metrics["alignment"], metrics["uniformity"]) == pytest.approx((0, 0), abs=1e-12)
    assert metrics["uniformity_exact"] < -1


@ARRANGEMENTS
def test_the_exact_loss_is_what_the_kernel_at_the_corners_gives(m, d):
    """log of the sum over the 100 points of a component, without the anchor and less its positive, by hand."""
    config = toy(m, d, loss=InfoNCE(temperature=0.3))
    cosine = (u := uniform_arrangement(m, d)) @ u.T
    anchors = [math.log(100 * sum(math.exp(c / 0.3) for c in row) - math.exp(1 / 0.3)) - 1 / 0.3 for row in cosine.tolist()]
    found = measure_mixture(config, exact(config)[None])[0]["loss_exact"]
    assert found == pytest.approx(np.mean(anchors))


def test_alignment_and_gap_of_imperfect_features():
    config = toy()
    best = exact(config)
    noisy = best + 0.3 * torch.randn(best.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    metrics, curves = measure_mixture(config, torch.stack([best, noisy]))
    z1, z2 = F.normalize(noisy, dim=1).chunk(2)
    assert metrics["alignment"] == pytest.approx((z1 - z2).square().sum(1).mean().item())
    assert metrics["alignment"] > 1e-3
    assert 0.001 < metrics["loss_gap"] < 0.5
    assert curves["features"].shape == (2, len(best), 2), "before and after training"


def test_evaluation_pairs_are_not_training_pairs():
    config = toy(data=Mixture(steps_per_epoch=20))
    x, labels = evaluation(config)
    trained = torch.cat([x for pair in source(config, None, torch.device("cpu")).batches(0) for x in pair])
    assert torch.cdist(x, trained).min() > 0
    assert torch.equal(x, evaluation(config)[0])
    assert not torch.equal(x, evaluation(config.model_copy(update={"seed": 1}))[0])
    nearest = torch.cdist(x, mixture(config).means).argmin(1)
    assert torch.equal(nearest, labels.repeat(2)), "both views of a pair are of its component"


# --- runs and their records ----------------------------------------------------------------------


@pytest.fixture
def trainings(monkeypatch) -> list[TrainConfig]:
    """The configurations that were trained, in order."""
    calls: list[TrainConfig] = []

    def counted(config: TrainConfig, **settings):
        calls.append(config)
        return train(config, **settings)

    monkeypatch.setattr(experiments, "train", counted)
    return calls


def test_what_is_missing_is_trained_once_and_never_again(trainings, tmp_path):
    a, b, c = toy(), images(), toy(seed=1)
    first = results([b, a], runs=tmp_path / "runs", progress=False)
    assert trainings == [b, a]
    second = results([a, c, b, a], runs=tmp_path / "runs", progress=False)
    assert trainings == [b, a, c]
    assert [record.config for record in first] == [b, a]
    assert [record.config for record in second] == [a, c, b, a], "in the order asked for, repeated where repeated"
    for record, again in ((first[0], second[2]), (first[1], second[0])):
        assert record.metrics == again.metrics
        assert record.provenance == again.provenance
        assert record.arrays.keys() == again.arrays.keys()
        assert all(np.array_equal(value, again.arrays[name]) for name, value in record.arrays.items())
    assert results([], runs=tmp_path / "runs") == []


def test_a_failed_run_leaves_no_record_and_is_tried_again(trainings, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "contrastive_loss", lambda config, z1, z2: z1.sum() * math.nan)
        with pytest.raises(loop.NonFiniteLossError):
            results([toy()], runs=tmp_path, progress=False)
    assert store.load(tmp_path, toy()) is None
    assert len(results([toy()], runs=tmp_path, progress=False)) == 1
    assert len(trainings) == 2


def test_records_describe_themselves(tmp_path):
    record = run(toy(), runs=tmp_path / "runs")
    expected = {"loss_gap", "loss", "loss_exact", "alignment", "uniformity", "uniformity_exact", "images_per_second"}
    assert record.metrics.keys() == expected
    assert all(map(math.isfinite, record.metrics.values()))
    assert record.arrays["loss"].shape == (4,)
    assert record.arrays["evaluation_loss"].shape == (3,), "before training and after each epoch"
    assert record.arrays["evaluation_loss"][-1] == pytest.approx(record.metrics["loss"])
    assert record.provenance.keys() == {"seconds", "date", "device", "threads", "versions"}
    assert record.provenance["versions"].keys() == {"torch", "kornia", "numpy", "python"}
    assert record.provenance["versions"]["torch"] == torch.__version__
    assert record.provenance["seconds"] > 0
    assert record.provenance["date"].endswith("+00:00")


@pytest.mark.parametrize("d", [2, 4])
def test_records_of_images(d, tmp_path):
    config = images(projector=Projector(hidden=8, dim=d))
    record = run(config, runs=tmp_path / "runs")
    scores = {"knn_cosine_z", "knn_euclidean_z", "knn_cosine_h", "knn_weighted_h", "linear_probe_h"}
    assert record.metrics.keys() == scores | {"norm_z", "images_per_second"}
    assert all(0 <= record.metrics[name] <= 1 for name in scores)
    assert record.arrays.keys() == ({"loss", "z_test", "labels_test"} if d == 2 else {"loss"}), "the map itself, where it is one"
    if d == 2:
        test = train_and_test_images(config)[1]
        assert np.array_equal(record.arrays["labels_test"], test.labels)
        assert record.metrics["norm_z"] == pytest.approx(np.linalg.norm(record.arrays["z_test"], axis=1).mean(), rel=1e-5)


def interrupted(config: TrainConfig, checkpoint: Path) -> None:
    """A run that was stopped after its first epoch, as it leaves its checkpoint."""

    def stop(epoch: int, _) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, checkpoint=checkpoint, checkpoint_seconds=0.0, on_epoch=stop)


def test_a_resumed_run_is_the_uninterrupted_one_and_removes_its_checkpoint(monkeypatch, tmp_path):
    config, steps, loss = images(), [], loop.contrastive_loss
    whole = run(config, runs=tmp_path / "whole" / "runs")
    checkpoint = tmp_path / "checkpoints" / f"{store.run_key(config)}.pt"
    interrupted(config, checkpoint)
    assert checkpoint.exists()
    monkeypatch.setattr(loop, "contrastive_loss", lambda *args: steps.append(1) or loss(*args))
    record = run(config, runs=tmp_path / "runs")
    assert len(steps) == 2, "one epoch was left"
    assert list(checkpoint.parent.iterdir()) == []
    metrics, expected = ({k: v for k, v in r.metrics.items() if k != "images_per_second"} for r in (record, whole))
    assert metrics == expected
    assert all(np.array_equal(value, whole.arrays[name]) for name, value in record.arrays.items())


def test_frame_has_a_row_a_record():
    records = [store.Record(toy(seed=s, loss=TSimCLR()), {"score": s / 10}) for s in range(3)]
    table = frame(records)
    assert table.columns.tolist() == ["loss", "d_z", "epochs", "seed", "score"]
    assert table.values.tolist() == [["t_simclr", 2, 2, s, s / 10] for s in range(3)]


def test_images_as_rows_are_the_runs_own():
    x, y, x_test, y_test = images_as_rows(images())
    fit, test = train_and_test_images(images())
    assert (x.shape, x_test.shape) == ((32, 784), (len(test), 784))
    assert torch.equal((x * 255).round().byte(), fit.images.flatten(1))
    assert torch.equal((x_test * 255).round().byte(), test.images.flatten(1))
    assert torch.equal(y, fit.labels)
    assert torch.equal(y_test, test.labels)


# --- the first batch -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [toy, images, functools.partial(images, projector=Projector(dim=2, batchnorm=True))], ids=["toy", "images", "bn"]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_first_batch_is_what_the_first_step_of_training_sees(make: Callable, seed, monkeypatch):
    config, seen, loss = make(seed=seed, epochs=1), [], loop.contrastive_loss
    z1, z2 = first_batch(config, config.batch_size)
    assert z1.dtype == z2.dtype == torch.float64
    assert not torch.allclose(z1, z2, atol=1e-3)
    monkeypatch.setattr(loop, "contrastive_loss", lambda c, *z: seen.append([x.detach() for x in z]) or loss(c, *z))
    train(config)
    for found, step in zip((z1, z2), seen[0], strict=True):
        torch.testing.assert_close(found, step.double(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(z1, seen[1][0].double(), atol=1e-3), "and not what the second sees"


def test_the_first_batch_has_the_size_asked_for_and_leaves_the_random_state():
    before = torch.get_rng_state()
    z1, z2 = first_batch(images(), 20)
    assert z1.shape == z2.shape == (20, 2)
    assert torch.equal(torch.get_rng_state(), before)
