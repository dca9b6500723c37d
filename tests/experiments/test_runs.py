"""From configuration to record: measurements with known answers, and every run trained once."""

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import data_of, read_once
from helpers import train_run as train
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

import sscl_core.ensemble
import sscl_core.train as loop
import sscl_experiments.runs.images as image_runs
import sscl_experiments.runs.points as point_runs
from sscl_core import batches
from sscl_core.config import (
    MLP,
    Cloud,
    ConvNet,
    ImageAugmentation,
    Images,
    InfoNCE,
    Mixture,
    Noise,
    Points,
    Projector,
    SpectralContrastive,
    Table,
    TrainConfig,
    TSimCLR,
    scattered,
)
from sscl_core.divergence import NonFiniteLossError
from sscl_core.evaluate import linear_probe
from sscl_core.losses import t_simclr
from sscl_core.train import TrainResult, initial_network, on_threads
from sscl_experiments import store
from sscl_experiments.arrangements import circle_gaps, uniform_arrangement
from sscl_experiments.datasets.images import ImageData
from sscl_experiments.datasets.synthetic import Part, PointSet
from sscl_experiments.runner import results, run
from sscl_experiments.runs import making, together
from sscl_experiments.runs.images import image_sets
from sscl_experiments.runs.mixture import evaluation_points, mixture
from sscl_experiments.runs.mixture import measure as measure_mixture
from sscl_experiments.runs.points import measure as measure_points
from sscl_experiments.runs.points import point_set


@pytest.fixture(autouse=True)
def _read_once(monkeypatch):
    monkeypatch.setattr(image_runs, "load_images", read_once)


def train_and_test(config: TrainConfig) -> tuple[ImageData, ImageData]:
    sets = image_sets(config)
    return sets.train, sets.test


def measure_images(trained: TrainResult, data_dir: Path | None = None):
    return image_runs.measure(trained, image_sets(trained.config, data_dir))


ABOUT = {"seconds", "date", "device", "threads", "versions"}


def toy(m: int = 3, d: int = 2, **changes) -> TrainConfig:
    small = {
        "backbone": MLP(width=8),
        "projector": Projector(hidden=0, dim=d),
        "epochs": 2,
        "batch_size": 8,
    }
    return TrainConfig(
        **{"data": Mixture(means=scattered(m), steps_per_epoch=2), **small, **changes}
    )


def points(d: int = 2, of: Cloud | Table = Cloud(dim=4, n_train=40), **changes) -> TrainConfig:  # noqa: B008
    return toy(
        d=d,
        **{
            "data": Points(points=of, augmentation=(Noise(scale=0.1),), steps_per_epoch=2),
            **changes,
        },
    )


def images(**changes) -> TrainConfig:
    """Two epochs of two steps, evaluated on the ten images a class that are held out of a small
    part.
    """
    small = {
        "backbone": ConvNet(width=2),
        "projector": Projector(hidden=8, dim=2),
        "epochs": 2,
        "batch_size": 16,
    }
    return TrainConfig(**{"data": Images(n_train=32, holdout=0.02), **small, **changes})


# --- what is measured on the mixture -------------------------------------------------------------

ARRANGEMENTS = pytest.mark.parametrize(("m", "d"), [(2, 2), (3, 2), (5, 2), (4, 3), (5, 8)])


def exact(config: TrainConfig) -> torch.Tensor:
    """Features [z1; z2] of the evaluation points at the exact minimiser, turned and not of norm 1:
    neither counts.
    """
    m, d = len(config.data.means), config.projector.dim
    turn = torch.linalg.qr(
        torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ).Q
    return 3 * (uniform_arrangement(m, d) @ turn)[evaluation_points(config)[1]].repeat(2, 1)


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
    assert (
        curves["labels"].tolist()
        == evaluation_points(config)[1].tolist()
        == [c for c in range(m) for _ in range(25)]
    )
    if d == 2:
        assert circle_gaps(torch.from_numpy(curves["means"][-1])).tolist() == pytest.approx(
            [360 / m] * m
        )

    metrics, _ = measure_mixture(config, torch.stack([best, collapsed]))  # the last is what counts
    assert metrics["loss_gap"] == pytest.approx(1)
    assert metrics["loss"] == pytest.approx(math.log(2 * 25 * m - 1))
    assert (metrics["alignment"], metrics["uniformity"]) == pytest.approx((0, 0), abs=1e-12)
    assert metrics["uniformity_exact"] < -1


@ARRANGEMENTS
def test_the_exact_loss_is_what_the_kernel_at_the_corners_gives(m, d):
    """log of the sum over the 50 points of a component, without the anchor and less its positive,
    by hand.
    """
    config = toy(m, d, loss=InfoNCE(temperature=0.3))
    cosine = (u := uniform_arrangement(m, d)) @ u.T
    anchors = [
        math.log(50 * sum(math.exp(c / 0.3) for c in row) - math.exp(1 / 0.3)) - 1 / 0.3
        for row in cosine.tolist()
    ]
    found = measure_mixture(config, exact(config)[None])[0]["loss_exact"]
    assert found == pytest.approx(np.mean(anchors))


def test_alignment_and_gap_of_imperfect_features():
    config = toy()
    best = exact(config)
    noisy = best + 0.3 * torch.randn(
        best.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    metrics, curves = measure_mixture(config, torch.stack([best, noisy]))
    z1, z2 = F.normalize(noisy, dim=1).chunk(2)
    assert metrics["alignment"] == pytest.approx((z1 - z2).square().sum(1).mean().item())
    assert metrics["alignment"] > 1e-3
    assert 0.001 < metrics["loss_gap"] < 0.5
    assert curves["features"].shape == (2, len(best), 2), "before and after training"


def test_evaluation_pairs_are_not_training_pairs():
    config = toy(data=Mixture(steps_per_epoch=20))
    x, labels = evaluation_points(config)
    trained = torch.cat([x.flatten(0, 1) for x in batches.epoch_pairs(config, data_of(config), 0)])
    assert torch.cdist(x, trained).min() > 0
    assert torch.equal(x, evaluation_points(config)[0])
    assert not torch.equal(x, evaluation_points(config.replace(seed=1))[0])
    nearest = torch.cdist(x, mixture(config.data).means).argmin(1)
    assert torch.equal(nearest, labels.repeat(2)), "both views of a pair are of its component"


def naive_log_mean_kernel(z: np.ndarray) -> float:
    """log of the mean of exp(-2 ‖u_i - u_j‖²) over i ≠ j."""
    u = [row / np.linalg.norm(row) for row in z]
    return math.log(
        np.mean(
            [
                math.exp(-2 * np.sum((a - b) ** 2))
                for i, a in enumerate(u)
                for j, b in enumerate(u)
                if i != j
            ]
        )
    )


def some_features(m: int, d: int, steps: int = 2) -> torch.Tensor:
    return 2 + 3 * torch.randn(steps, 2 * 25 * m, d, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("m", "d"), [(3, 2), (5, 2), (6, 3)])
def test_measures_of_t_simclr_are_of_the_features_as_they_are(m, d):
    """Neither normalised nor centred, but for the uniformity of the means about their centre; and
    no exact minimiser is known.
    """
    config, history = toy(m, d, loss=TSimCLR(temperature=0.5, df=2.0)), some_features(m, d)
    metrics, arrays = measure_mixture(config, history)
    assert metrics.keys() == {"loss", "alignment", "uniformity", "collapsed"}
    assert arrays.keys() == {
        "evaluation_loss",
        "alignment",
        "uniformity",
        "means",
        "features",
        "labels",
    }
    for t, z in enumerate(history.double().numpy()):
        z1, z2 = z[: 25 * m], z[25 * m :]
        means = np.stack(
            [
                np.mean([*z1[25 * c : 25 * (c + 1)], *z2[25 * c : 25 * (c + 1)]], axis=0)
                for c in range(m)
            ]
        )
        assert arrays["means"][t] == pytest.approx(means)
        assert arrays["alignment"][t] == pytest.approx(
            np.mean([np.sum((a - b) ** 2) for a, b in zip(z1, z2, strict=True)])
        )
        assert arrays["uniformity"][t] == pytest.approx(
            naive_log_mean_kernel(means - means.mean(0))
        )
        expected = t_simclr(
            torch.from_numpy(z1),
            torch.from_numpy(z2),
            temperature=0.5,
            df=2.0,
            normalization="joint",
        )
        assert arrays["evaluation_loss"][t] == pytest.approx(expected.item())
        assert arrays["features"][t] == pytest.approx(z)
    assert metrics["loss"] == arrays["evaluation_loss"][-1]


@pytest.mark.parametrize(("m", "d"), [(6, 3), (5, 3), (3, 1)])
def test_where_no_exact_minimiser_is_known_the_rest_is_measured(m, d):
    """Of more components than a simplex in d dimensions has corners; features are compared on the
    sphere, so their norm does not count.
    """
    config, history = toy(m, d), some_features(m, d, steps=3)
    metrics, arrays = measure_mixture(config, history)
    assert metrics.keys() == {"loss", "alignment", "uniformity", "collapsed"}
    u = history.double().numpy()
    u /= np.linalg.norm(u, axis=2, keepdims=True)
    means = np.stack(
        [
            np.mean(
                np.concatenate(
                    [u[:, 25 * c : 25 * (c + 1)], u[:, 25 * (m + c) : 25 * (m + c + 1)]], 1
                ),
                axis=1,
            )
            for c in range(m)
        ],
        1,
    )
    assert arrays["means"] == pytest.approx(means / np.linalg.norm(means, axis=2, keepdims=True))
    assert arrays["uniformity"] == pytest.approx([naive_log_mean_kernel(step) for step in means])
    assert arrays["alignment"] == pytest.approx(
        np.square(u[:, : 25 * m] - u[:, 25 * m :]).sum(2).mean(1)
    )
    assert arrays["features"] == pytest.approx(u[[0, -1]])
    assert arrays["evaluation_loss"].shape == (3,)


def test_evaluation_loss_is_the_mean_over_all_anchors_of_a_naive_loop():
    config, history = toy(2, 2), some_features(2, 2, steps=1)
    (u,) = F.normalize(history.double(), dim=2).tolist()
    kernel = [[math.exp(sum(a * b for a, b in zip(x, y, strict=True)) / 0.5) for y in u] for x in u]
    anchors = [math.log((sum(row) - row[i]) / row[(i + 50) % 100]) for i, row in enumerate(kernel)]
    assert measure_mixture(config, history)[0]["loss"] == pytest.approx(np.mean(anchors))


@pytest.mark.parametrize(
    "config",
    [toy(6, 3), toy(3, 2, loss=TSimCLR()), toy(3, 2, data=Mixture(anonymous=4, steps_per_epoch=2))],
    ids=["6 in 3", "t", "one-hot"],
)
def test_such_runs_have_records_too(config, tmp_path):
    record = run(config, runs=tmp_path / "runs")
    assert ("loss_gap" in record.metrics) == (config.data.anonymous > 0)
    assert all(map(math.isfinite, record.metrics.values()))
    assert record.arrays["features"].shape == (
        2,
        2 * 25 * len(config.data.means),
        config.projector.dim,
    )
    assert store.load(tmp_path / "runs", config).metrics == record.metrics


# --- what is measured on points ------------------------------------------------------------------


def naive_knn_accuracy(
    train: np.ndarray, labels: list[int], test: np.ndarray, truth: list[int], k: int, metric: str
) -> float:
    """By sorting the distances to each point; of equal votes the smaller label."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return (
            math.dist(a, b)
            if metric == "euclidean"
            else 1 - sum(a * b) / math.hypot(*a) / math.hypot(*b)
        )

    hits = 0
    for x, label in zip(test, truth, strict=True):
        nearest = sorted(range(len(train)), key=lambda i, x=x: distance(train[i], x))[:k]
        votes = [labels[i] for i in nearest]
        hits += max(sorted(set(votes)), key=votes.count) == label
    return hits / len(truth)


def by_hand(
    n: int, loss: InfoNCE | TSimCLR | SpectralContrastive, d: int, monkeypatch
) -> tuple[TrainResult, PointSet]:
    """Points off the origin of three classes that half of the labels know, on which h is x and z is
    a linear map of it.
    """
    generator = torch.Generator().manual_seed(0)

    def part(n: int) -> Part:
        x, noise = torch.randn(n, 5, generator=generator), torch.randn(n, generator=generator)
        return Part(x + 0.7, torch.bucketize(x[:, 0] + noise, torch.tensor([-0.6, 0.6])))

    found = PointSet(part(n), part(150), part(170))
    monkeypatch.setattr(point_runs, "point_set", lambda config: found)
    config = points(d, backbone=MLP(depth=0), loss=loss)
    return TrainResult(config, initial_network(config, torch.Size([5])).eval()), found


LOSSES = {
    "info_nce": (InfoNCE(), "cosine"),
    "t_simclr": (TSimCLR(), "euclidean"),
    "spectral": (SpectralContrastive(), "euclidean"),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("n", "d"), [(200, 2), (200, 4), (11, 3), (10, 3), (6, 2), (1, 3)])
def test_measures_of_points_are_those_of_a_naive_search(name, n, d, monkeypatch):
    """With ten neighbors, or as many as there are."""
    loss, own = LOSSES[name]
    trained, data = by_hand(n, loss, d, monkeypatch)
    if n < 10:  # a probe needs two classes
        data.train.labels[: n // 2], data.train.labels[n // 2 :] = 0, 2
        monkeypatch.setattr(
            point_runs, "linear_probe", lambda h, labels, test: torch.full((len(test),), 2)
        )
    metrics, arrays = measure_points(trained)
    with torch.no_grad():
        z = {
            part: trained.model(getattr(data, part).x)[1].numpy()
            for part in ("train", "validation", "test")
        }
    labels, k = data.train.labels.tolist(), min(10, n)
    other = {"cosine": "euclidean", "euclidean": "cosine"}
    found, swapped = {}, {}
    for part in ("validation", "test"):
        truth = getattr(data, part).labels.tolist()
        for metrics_of, h_metric, z_metric in (
            (found, "cosine", own),
            (swapped, "euclidean", other[own]),
        ):
            h_train, h = data.train.x.numpy(), getattr(data, part).x.numpy()
            metrics_of[f"knn_h_{part}"] = naive_knn_accuracy(h_train, labels, h, truth, k, h_metric)
            metrics_of[f"knn_z_{part}"] = naive_knn_accuracy(
                z["train"], labels, z[part], truth, k, z_metric
            )
    assert metrics.pop("collapsed") == 0
    assert {key: value for key, value in metrics.items() if key != "probe_h_test"} == pytest.approx(
        found
    )
    if n == 200:
        for features in "hz":
            assert any(found[key] != swapped[key] for key in found if f"_{features}_" in key), (
                "the metric matters here"
            )
        assert (
            found["knn_h_test"]
            != found["knn_z_test"]
            != found["knn_z_validation"]
            != found["knn_h_validation"]
        )
    assert arrays.keys() == ({"z"} if d == 2 else set())
    if d == 2:
        assert np.array_equal(arrays["z"], z["train"])


def test_the_points_are_the_same_on_however_many_threads_they_are_asked_for():
    """In float32 the product with the axes rounds otherwise on two threads, and the signs of
    singular vectors, so all noise of the data's covariance, follow from the last bit.
    """
    points = Cloud(dim=64, components=5, std=1.0, structure="complement", rank=20, n_train=500)
    data = Points(points=points, augmentation=(Noise(scale=1.0),))
    config = TrainConfig(data=data, backbone=MLP())
    found = []
    for number in (1, 2):
        point_runs._point_set.cache_clear()
        with on_threads(number):
            found.append(point_set(config).train.x)
    assert torch.equal(*found)


def test_the_probe_is_of_h_on_the_test_part(monkeypatch):
    trained, data = by_hand(200, InfoNCE(), 2, monkeypatch)
    for part in (data.train, data.test):
        part.labels[:] = (part.x[:, 0] > part.x[:, 1]).long()
    assert measure_points(trained)[0]["probe_h_test"] > 0.95
    data.test.labels[:] = 1 - data.test.labels
    assert measure_points(trained)[0]["probe_h_test"] < 0.05


@pytest.mark.parametrize(
    "of", [Cloud(dim=4, n_train=40), Table(table="iris")], ids=["cloud", "table"]
)
@pytest.mark.parametrize("d", [2, 3])
def test_records_of_points(d, of, tmp_path):
    record = run(points(d, of), runs=tmp_path / "runs")
    scores = {"knn_h_validation", "knn_h_test", "knn_z_validation", "knn_z_test", "probe_h_test"}
    assert record.metrics.keys() == scores | {"images_per_second", "collapsed"}
    assert all(0 <= record.metrics[name] <= 1 for name in scores)
    assert record.arrays.keys() == ({"loss", "z"} if d == 2 else {"loss"})
    assert record.arrays["loss"].shape == (4,)
    if d == 2:
        assert record.arrays["z"].shape == (len(point_set(points(d, of)).train), 2)
        expected = train(points(d, of)).model(point_set(points(d, of)).train.x)[1]
        assert record.arrays["z"] == pytest.approx(expected.detach().numpy(), abs=1e-4)
    assert record.provenance.keys() == ABOUT | {"together"}
    assert record.provenance["together"] == [0]
    stored = store.load(tmp_path / "runs", points(d, of))
    assert (stored.config, stored.metrics, stored.provenance) == (
        record.config,
        record.metrics,
        record.provenance,
    )


# --- what is measured on images ------------------------------------------------------------------


OF_BACKBONE = {"knn_cosine", "knn1_cosine", "knn15_cosine", "knn_weighted", "linear_probe"}


def naive_similarity(features: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """The mean over all pairs of an image of class a and one of class b of the cosine about the
    mean of all images, by looking at each.
    """
    x = features.double().numpy()
    x = x - x.mean(0)
    cosines = np.array([[a @ b for b in x] for a in x]) / np.outer(
        norms := np.linalg.norm(x, axis=1), norms
    )
    members = [np.flatnonzero(labels.numpy() == c) for c in range(10)]
    return np.array(
        [[np.mean([cosines[i, j] for i in a for j in b]) for b in members] for a in members]
    )


def test_similarities_of_classes_on_both_features_and_on_another_set(monkeypatch, tmp_path):
    own = read_once("fashion_mnist_subset", "test")
    other, near = (
        own.select(slice(0, 2000, 10)),
        read_once("fashion_mnist_subset", "train").select(slice(0, 600, 10)),
    )
    parts = {
        ("cifar10", "train"): near,
        ("cifar10", "test"): other,
        ("fashion_mnist_subset", "train"): read_once("fashion_mnist_subset", "train"),
        ("fashion_mnist_subset", "test"): own,
    }

    def load(name, split, data_dir):
        assert data_dir == tmp_path
        return parts[name, split]

    monkeypatch.setattr(image_runs, "load_images", load)
    config = images(
        data=Images(n_train=32, holdout=0.02, transfer="cifar10"),
        projector=Projector(hidden=8, dim=3),
    )
    trained = loop.train(config, data_of(config, tmp_path))
    metrics, arrays = measure_images(trained, tmp_path)
    assert arrays.keys() == {"classes_h", "classes_z", "classes_transfer", "z_views"}
    with torch.no_grad():
        test = image_sets(config, tmp_path).test
        h, z = trained.model(test.images.float() / 255)
        assert arrays["classes_h"] == pytest.approx(naive_similarity(h, test.labels), abs=1e-5)
        assert arrays["classes_z"] == pytest.approx(naive_similarity(z, test.labels), abs=1e-5)
        h_train, h_other = (trained.model(part.images.float() / 255)[0] for part in (near, other))
    transferred = naive_similarity(h_other, other.labels)
    assert arrays["classes_transfer"] == pytest.approx(transferred, abs=1e-5)
    assert not np.allclose(transferred, arrays["classes_h"], atol=1e-3)
    x, y, x_far, y_far = (value.numpy() for value in (h_train, near.labels, h_other, other.labels))
    expected = {
        name: KNeighborsClassifier(k, metric="cosine").fit(x, y).score(x_far, y_far)
        for name, k in (("knn", 10), ("knn1", 1), ("knn15", 15))
    }
    assert {name: metrics[f"{name}_cosine_transfer"] for name in expected} == pytest.approx(
        expected
    )
    assert len({metrics[f"knn_cosine_{of}"] for of in ("transfer", "h", "z")}) == 3
    probe = linear_probe(h_train, near.labels, h_other)
    assert metrics["linear_probe_transfer"] == pytest.approx(
        (probe == other.labels).float().mean().item()
    )
    assert max(metrics["linear_probe_transfer"], metrics["knn_cosine_transfer"]) > 0.3, (
        "of ten classes"
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transfer_set_that_cannot_be_evaluated_is_refused_before_training(
    channels, tmp_path, monkeypatch
):
    """Another number of channels, or a folder that is not there."""
    config = images(data=Images(n_train=32, transfer="cifar10"))
    if channels == 3:
        own = read_once("fashion_mnist_subset", "test")
        colour = replace(own, images=own.images.repeat(1, 3, 1, 1))
        monkeypatch.setattr(
            image_runs,
            "load_images",
            lambda name, split, data_dir: colour if name == "cifar10" else own,
        )
    monkeypatch.setattr(image_runs, "train", None)
    with pytest.raises(ValueError, match="1-channel images" if channels == 3 else "data_dir"):
        run(config, runs=tmp_path / "runs", data_dir=None if channels == 3 else tmp_path / "absent")


def test_a_transfer_set_is_looked_at_after_training_and_changes_nothing_else(tmp_path, monkeypatch):
    """The embedded set's own images, which with a holdout are not those of the evaluation."""
    monkeypatch.setattr(
        image_runs,
        "load_images",
        lambda name, split, data_dir: read_once(name, split).select(slice(0, 2000)),
    )
    plain = run(images(), runs=tmp_path / "runs")
    record = run(
        images(data=Images(n_train=32, holdout=0.02, transfer="fashion_mnist_subset")),
        runs=tmp_path / "runs",
    )
    assert record.arrays.keys() - plain.arrays.keys() == {"classes_transfer"}
    assert record.arrays["classes_transfer"].shape == (10, 10)
    assert all(np.array_equal(value, record.arrays[name]) for name, value in plain.arrays.items())
    assert record.metrics.keys() - plain.metrics.keys() == {
        f"{name}_transfer" for name in OF_BACKBONE
    }
    assert all(0 <= record.metrics[f"{name}_transfer"] <= 1 for name in OF_BACKBONE)
    assert {name: record.metrics[name] for name in plain.metrics} | {
        "images_per_second": plain.metrics["images_per_second"]
    } == plain.metrics


# --- runs and their records ----------------------------------------------------------------------


@pytest.fixture
def trainings(monkeypatch) -> list[list[TrainConfig]]:
    """The configurations that were trained, in order, those together that were trained together."""
    calls: list[list[TrainConfig]] = []

    def one(config: TrainConfig, data, **settings):
        calls.append([config])
        return loop.train(config, data, **settings)

    def several(configs: list[TrainConfig], data, **settings):
        calls.append(list(configs))
        return sscl_core.ensemble.train_ensemble(configs, data, **settings)

    monkeypatch.setattr(image_runs, "train", one)
    monkeypatch.setattr(together, "train_ensemble", several)
    return calls


def test_what_is_missing_is_trained_once_and_never_again(trainings, tmp_path):
    a, b, c = toy(), images(), toy(seed=1)
    first = results([b, a], runs=tmp_path / "runs", progress=False)
    assert trainings == [[b], [a]]
    second = results([a, c, b, a], runs=tmp_path / "runs", progress=False)
    assert trainings == [[b], [a], [c]]
    assert [record.config for record in first] == [b, a]
    assert [record.config for record in second] == [a, c, b, a], (
        "in the order asked for, repeated where repeated"
    )
    for record, again in ((first[0], second[2]), (first[1], second[0])):
        assert record.metrics == again.metrics
        assert record.provenance == again.provenance
        assert record.arrays.keys() == again.arrays.keys()
        assert all(
            np.array_equal(value, again.arrays[name]) for name, value in record.arrays.items()
        )
    assert results([], runs=tmp_path / "runs") == []


@pytest.mark.parametrize("toy", [toy, points])
def test_seeds_on_vectors_are_trained_together_and_images_one_by_one(toy, trainings, tmp_path):
    seeds, others, pictures = (
        [toy(seed=s) for s in (3, 1, 2)],
        [toy(seed=s, epochs=1) for s in (1, 2)],
        [images(seed=s) for s in (0, 1)],
    )
    configs = [seeds[0], pictures[0], others[0], *seeds[1:], others[1], pictures[1]]
    records = results(configs, runs=tmp_path / "runs", progress=False)
    assert trainings == [seeds, [pictures[0]], others, [pictures[1]]]
    assert [record.config for record in records] == configs
    results([*seeds, toy(seed=4), toy(seed=5)], runs=tmp_path / "runs", progress=False)
    assert trainings[4:] == [[toy(seed=4), toy(seed=5)]], (
        "of an ensemble only the seeds that are missing"
    )


@pytest.mark.parametrize(
    "loss", [InfoNCE(), TSimCLR(), SpectralContrastive()], ids=lambda loss: loss.name
)
@pytest.mark.parametrize("make", [toy, points])
def test_a_record_does_not_tell_which_seeds_were_trained_beside_it(make, loss, tmp_path):
    configs = [make(seed=seed, loss=loss) for seed in range(3)]
    for record in results(configs, runs=tmp_path / "together" / "runs", progress=False):
        assert record.provenance["together"] == [0, 1, 2]
        alone = run(record.config, runs=tmp_path / "alone" / "runs")
        assert record.metrics.keys() == alone.metrics.keys()
        assert all(
            record.metrics[k] == pytest.approx(v, rel=1e-5, abs=1e-6)
            for k, v in alone.metrics.items()
            if k != "images_per_second"
        )
        assert record.arrays.keys() == alone.arrays.keys()
        assert all(
            value == pytest.approx(alone.arrays[name], rel=1e-4, abs=1e-5)
            for name, value in record.arrays.items()
        )


@pytest.mark.parametrize("make", [toy, points, images])
def test_a_failed_run_leaves_no_record_and_is_tried_again(make, trainings, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        for module in (loop, sscl_core.ensemble):
            patch.setattr(
                module, "contrastive_loss", lambda config, z1, z2, **_: z1.sum() * math.nan
            )
        with pytest.raises(NonFiniteLossError):
            results([make()], runs=tmp_path / "runs", progress=False)
    assert store.load(tmp_path / "runs", make()) is None
    assert len(results([make()], runs=tmp_path / "runs", progress=False)) == 1
    assert trainings == [[make()]] * 2


@pytest.mark.timeout(60)
def test_runs_that_are_there_are_not_waited_for(tmp_path):
    first = results([toy()], runs=tmp_path / "runs", progress=False)
    with store.lock(tmp_path / "runs", toy(), wait=False) as ours:
        assert ours, "another process makes more seeds"
        assert (
            results([toy()], runs=tmp_path / "runs", progress=False)[0].provenance
            == first[0].provenance
        )


OTHER_PROCESS = """
import sys
import time
from pathlib import Path
from sscl_core.config import TrainConfig
from sscl_experiments.runner import results
from sscl_experiments.runs import together

folder, *configs = sys.argv[1:]
train_ensemble, trained = together.train_ensemble, []

def slowly(configs, data, **settings):
    trained.extend(configs)
    (Path(folder) / "at it").touch()
    give_up = time.monotonic() + 30
    while not (Path(folder) / "go on").exists() and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(0.3)
    return train_ensemble(configs, data, **settings)

together.train_ensemble = slowly
configs = [TrainConfig.model_validate_json(config) for config in configs]
records = results(configs, runs=Path(folder) / "runs", progress=False)
assert [record.config for record in records] == configs
print(*(config.model_dump_json() for config in trained), sep="\\n")
"""


def test_two_processes_share_the_work_and_train_no_run_twice(monkeypatch, tmp_path):
    """While another process is at the first two ensembles' first, this one makes the second, and
    then waits for the other's.
    """
    ours, first, second = [], [toy(seed=s) for s in (0, 1)], [toy(seed=s, epochs=1) for s in (0, 1)]

    def quickly(configs: list[TrainConfig], data, **settings):
        ours.extend(configs)
        trained = sscl_core.ensemble.train_ensemble(configs, data, **settings)
        (tmp_path / "go on").touch()
        return trained

    monkeypatch.setattr(together, "train_ensemble", quickly)
    arguments = [str(tmp_path), *(config.model_dump_json() for config in (*first, *second))]
    environment = os.environ | {"PYTHONPATH": str(Path(store.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as other:
        while not (tmp_path / "at it").exists():
            assert other.poll() is None
            time.sleep(0.01)
        records = results([*first, *second], runs=tmp_path / "runs", progress=False)
        theirs = [
            TrainConfig.model_validate_json(line)
            for line in other.communicate(timeout=60)[0].splitlines()
        ]
    assert other.returncode == 0
    assert ours == second
    assert theirs == first
    assert [record.config for record in records] == [*first, *second]
    assert all(
        record.provenance == store.load(tmp_path / "runs", record.config).provenance
        for record in records
    )


def test_records_describe_themselves(tmp_path):
    record = run(toy(), runs=tmp_path / "runs")
    expected = {
        "loss_gap",
        "loss",
        "loss_exact",
        "alignment",
        "uniformity",
        "uniformity_exact",
        "images_per_second",
        "collapsed",
    }
    assert record.metrics.keys() == expected
    assert all(map(math.isfinite, record.metrics.values()))
    assert record.arrays["loss"].shape == (4,)
    assert record.arrays["evaluation_loss"].shape == (3,), "before training and after each epoch"
    assert record.arrays["evaluation_loss"][-1] == pytest.approx(record.metrics["loss"])
    assert record.provenance.keys() == ABOUT | {"together"}
    assert record.provenance["together"] == [0]
    assert record.provenance["versions"].keys() == {"torch", "numpy", "python"}
    assert record.provenance["versions"]["torch"] == torch.__version__
    assert record.provenance["seconds"] > 0
    assert record.provenance["date"].endswith("+00:00")


@pytest.mark.parametrize("d", [2, 4])
def test_records_of_images(d, tmp_path):
    config = images(projector=Projector(hidden=8, dim=d))
    record = run(config, runs=tmp_path / "runs")
    scores = {f"{name}_h" for name in OF_BACKBONE} | {
        f"{k}_{metric}_z" for k in ("knn", "knn1", "knn15") for metric in ("cosine", "euclidean")
    }
    assert record.metrics.keys() == scores | {"norm_z", "images_per_second", "collapsed"}
    assert all(0 <= record.metrics[name] <= 1 for name in scores)
    assert record.provenance.keys() == ABOUT, "an image run is trained by itself"
    arrays = {"loss", "classes_h", "classes_z", "z_views"}
    assert record.arrays.keys() == (arrays | {"z_test", "labels_test"} if d == 2 else arrays), (
        "the map itself, where it is one"
    )
    if d == 2:
        test = train_and_test(config)[1]
        assert np.array_equal(record.arrays["labels_test"], test.labels)
        assert record.metrics["norm_z"] == pytest.approx(
            np.linalg.norm(record.arrays["z_test"], axis=1).mean(), rel=1e-5
        )


@pytest.mark.parametrize(("holdout", "n"), [(0.02, 200), (0.03, 256)])
def test_the_features_of_views_are_those_of_two_views_of_the_first_256_test_images(holdout, n):
    """Here the views are the images themselves."""
    augmentation = ImageAugmentation(crop_scale=(1.0, 1.0), flip=0.0)
    data = Images(n_train=32, holdout=holdout, augmentation=augmentation)
    config = images(
        data=data, backbone=MLP(depth=0), projector=Projector(hidden=0, dim=2), epochs=0
    )
    trained = train(config)
    with torch.no_grad():
        z = trained.model(train_and_test(config)[1].images[:256].float() / 255)[1]
    found = measure_images(trained)[1]["z_views"]
    assert found.shape == (2 * n, 2)
    assert found == pytest.approx(z.repeat(2, 1).numpy(), abs=1e-4)
    assert (torch.pdist(z) > 1e-2).float().mean() > 0.95


@pytest.mark.parametrize("d", [2, 3, 32, 33])
def test_the_features_of_views_are_the_seeds_and_kept_up_to_32_dimensions(d):
    config = images(projector=Projector(hidden=8, dim=d), epochs=0)
    trained = train(config)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    arrays = measure_images(trained)[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert ("z_views" in arrays) == (d <= 32)
    if d <= 32:
        n = len(train_and_test(config)[1])
        first, (z1, z2) = arrays["z_views"], np.split(arrays["z_views"], 2)
        assert first.shape == (2 * min(256, n), d)
        assert (np.abs(z1 - z2).max(1) > 0).mean() > 0.95, "of two crops"
        assert np.array_equal(measure_images(train(config))[1]["z_views"], first)
        other = replace(trained, config=config.replace(seed=1))
        assert (np.abs(measure_images(other)[1]["z_views"] - first).max(1) > 0).mean() > 0.95, (
            "the same network, other crops"
        )


@pytest.mark.parametrize(
    "loss", [TSimCLR(df=3.0, learn_df=True), TSimCLR(df=3.0), InfoNCE()], ids=str
)
def test_df_is_a_metric_where_it_was_learned(loss, tmp_path):
    record = run(images(loss=loss), runs=tmp_path / "runs")
    assert ("df" in record.metrics) == (loss == TSimCLR(df=3.0, learn_df=True))
    if "df" in record.metrics:
        expected = math.exp(train(images(loss=loss)).model.state_dict()["log_df"])
        assert record.metrics["df"] == pytest.approx(expected, rel=1e-5)
        assert record.metrics["df"] != pytest.approx(3.0, rel=1e-3)
        assert (
            store.load(tmp_path / "runs", images(loss=loss)).metrics["df"] == record.metrics["df"]
        )


@pytest.mark.parametrize("settings", [{}, {"compiled": False}, {"compiled": True}], ids=str)
def test_a_run_is_compiled_if_it_is_asked_for(settings, monkeypatch, tmp_path):
    asked = []

    def spy(config: TrainConfig, data, *, compiled: bool = False, **others) -> TrainResult:
        asked.append(compiled)
        return loop.train(config, data, **others)

    monkeypatch.setattr(image_runs, "train", spy)
    run(images(epochs=0), runs=tmp_path / "runs", **settings)
    assert asked == [settings.get("compiled", False)]


def interrupted(config: TrainConfig, checkpoint: Path) -> None:
    """A run that was stopped after its first epoch, as it leaves its checkpoint."""

    def stop(epoch: int, _) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, checkpoint=checkpoint, checkpoint_seconds=0.0, on_epoch=stop)


@pytest.mark.parametrize(
    "make",
    [run, lambda config, runs: results([config], runs=runs, progress=False)[0]],
    ids=["run", "results"],
)
def test_a_resumed_run_is_the_uninterrupted_one_and_removes_its_checkpoint(
    make, monkeypatch, tmp_path
):
    config, steps, loss = images(), [], loop.contrastive_loss
    whole = run(config, runs=tmp_path / "whole" / "runs")
    checkpoint = tmp_path / "checkpoints" / f"{store.run_key(config)}.pt"
    interrupted(config, checkpoint)
    assert checkpoint.exists()
    monkeypatch.setattr(
        loop, "contrastive_loss", lambda *args, **kw: steps.append(1) or loss(*args, **kw)
    )
    record = make(config, runs=tmp_path / "runs")
    assert len(steps) == 2, "one epoch was left"
    assert list(checkpoint.parent.iterdir()) == []
    metrics, expected = (
        {k: v for k, v in r.metrics.items() if k != "images_per_second"} for r in (record, whole)
    )
    assert metrics == expected
    assert all(np.array_equal(value, whole.arrays[name]) for name, value in record.arrays.items())


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("part", ["backbone", "projector"])
def test_a_collapsed_network_is_detected(value, part, monkeypatch, tmp_path):
    """All features equal, or zero: whatever comes in.

    Its record says so, and so does who asks for it.
    """

    def constant(config, shape):
        network = initial_network(config, shape)
        modules = list(getattr(network, part).modules())
        last = [module for module in modules if list(module.parameters(recurse=False))][-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, value)
        return network

    assert run(images(epochs=0), runs=tmp_path / "runs").metrics["collapsed"] == 0
    monkeypatch.setattr(loop, "initial_network", constant)
    with pytest.warns(UserWarning, match=r"1 of 1 networks collapsed.* \(seeds 1; .*d_z = 2\)"):
        record = run(images(epochs=0, seed=1), runs=tmp_path / "runs")
    assert record.metrics["collapsed"] == 1


def test_rounding_is_no_spread():
    z = torch.full((50, 3), 0.1) + 1e-8 * torch.rand(50, 3)
    assert making.is_collapsed(z) == 1
    assert making.is_collapsed(z + 1e-3 * torch.rand(50, 3)) == 0
    assert making.is_collapsed(torch.rand(50, 3), z) == 1, "one set of several is enough"


def test_of_an_ensemble_in_which_seeds_diverge_the_others_are_kept(
    trainings, monkeypatch, tmp_path
):
    """And other runs that were asked for are made before it is said."""
    configs, other = [toy(seed=seed) for seed in range(5)], toy(epochs=1)
    ensemble = sscl_core.ensemble
    real = ensemble.epoch_pairs

    def poisoned(config, data, epoch):
        x1, x2 = real(config, data, epoch)
        return (x1 * math.nan, x2) if config.seed in (1, 3) and config.epochs > 1 else (x1, x2)

    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "epoch_pairs", poisoned)
        with pytest.raises(NonFiniteLossError, match=r"in seed 1 \(at .*\), seed 3 \(at "):
            results([*configs, other], runs=tmp_path / "runs", progress=False)
    kept = [config for config in [*configs, other] if store.load(tmp_path / "runs", config)]
    assert kept == [configs[0], configs[2], configs[4], other]
    trainings.clear()
    assert len(results(configs, runs=tmp_path / "runs", progress=False)) == 5
    assert trainings == [[configs[1], configs[3]]]
