"""Clouds are the mixtures that they are said to be; tables are split, then standardised.

What is held out has no part in that.
"""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.datasets
import torch
from scipy import stats

from sscl_core.config import Cloud, Table
from sscl_experiments.datasets.synthetic import Part, PointSet, cloud
from sscl_experiments.datasets.tables import table

ALPHA = 1e-3  # of every test of a distribution, at a fixed seed
PARTS = ("train", "validation", "test")
CLOUDS = {
    "isotropic": {"dim": 12, "std": 0.3},
    "two in the plane": {"dim": 2, "components": 2, "std": 0.1},
    "complement": {"dim": 12, "std": 0.4, "structure": "complement"},
    "3 nuisances": {"dim": 12, "std": 0.4, "structure": "complement", "rank": 3},
    "all nuisances by name": {"dim": 12, "std": 0.4, "structure": "complement", "rank": 8},
    "manifold": {"dim": 12, "std": 0.3, "structure": "manifold"},
}
every_cloud = pytest.mark.parametrize("name", CLOUDS)
flat_clouds = pytest.mark.parametrize("name", [name for name in CLOUDS if name != "manifold"])


def draw(seed: int = 0, **spec) -> PointSet:
    return cloud(Cloud(**spec), torch.Generator().manual_seed(seed))


def parts(points: PointSet) -> list[Part]:
    return [getattr(points, name) for name in PARTS]


def residuals(points: PointSet) -> torch.Tensor:
    """Of the training part, from the mean of each point's component."""
    return (points.train.x - points.means[points.train.labels]).double()


# --- clouds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("components", "dim"), [(2, 1), (2, 5), (3, 2), (5, 4), (5, 100), (20, 30)]
)
@pytest.mark.parametrize("outside", [0, 3], ids=["isotropic", "complement"])
def test_means_are_at_distance_1_from_each_other(outside, components, dim):
    structure = {"structure": "complement", "rank": outside} if outside else {}
    means = draw(dim=dim + outside, components=components, **structure).means
    assert means.shape == (components, dim + outside)
    pairs = components * (components - 1) // 2
    assert torch.pdist(means).tolist() == pytest.approx([1] * pairs, abs=1e-5)


@pytest.mark.parametrize(("dim", "components", "std"), [(2, 3, 0.1), (12, 5, 0.3), (50, 2, 2.0)])
def test_isotropic_points_are_normal_about_their_means_in_every_direction(dim, components, std):
    points = draw(dim=dim, components=components, std=std, n_train=4000)
    r, coordinates = residuals(points), torch.eye(dim, dtype=torch.float64)
    # Directions of the means first, then those outside them.
    of_the_means = torch.linalg.svd(points.means - points.means.mean(0)).Vh.double()
    assert stats.kstest(r.flatten(), stats.norm(0, std).cdf).pvalue > ALPHA
    for basis in (coordinates, of_the_means):
        white = r @ basis.T / std
        assert (white.square().mean(0) - 1).abs().max() < 5 * (2 / 4000) ** 0.5
        assert (white.T.corrcoef() - torch.eye(dim)).abs().max() < 5 / 4000**0.5


@pytest.mark.parametrize(
    ("dim", "components", "rank", "expected"),
    [(12, 5, 0, 8), (12, 5, 8, 8), (12, 5, 3, 3), (12, 5, 1, 1), (3, 3, 1, 1), (3, 2, 0, 2)],
)
def test_complement_spreads_only_outside_the_span_of_the_means(dim, components, rank, expected):
    std = 0.7
    points = draw(
        dim=dim, components=components, std=std, structure="complement", rank=rank, n_train=4000
    )
    r = residuals(points)
    span = torch.linalg.svd(points.means - points.means.mean(0)).Vh[: components - 1].double()
    assert (r @ span.T).abs().max() < 1e-5
    _, width, directions = torch.linalg.svd(r, full_matrices=False)
    width = width / 4000**0.5
    assert (width > 0.1 * std).sum() == expected
    assert width[expected:].sum() < 1e-4
    inside = r @ directions[:expected].T / std
    assert (inside.T @ inside / 4000 - torch.eye(expected)).abs().max() < 0.12
    diagonal = torch.ones(expected, dtype=torch.float64) / expected**0.5
    assert stats.kstest(inside @ diagonal, stats.norm.cdf).pvalue > ALPHA
    between = torch.stack([r[points.train.labels == c].mean(0) for c in range(components)])
    error = std / (4000 / components) ** 0.5
    assert between.abs().max() < 5 * error, "and says nothing of the component"


@pytest.mark.parametrize("std", [0.01, 0.05, 0.3, 1.0])
def test_manifold_points_are_as_far_from_their_means_as_random_fourier_features_put_them(std):
    """E‖x - x'‖² = 2(1 - E exp(-‖u - u'‖²/2)) = 2(1 - (1 + std²)^(-4/2)), x' the mean's place.

    To first order 4 std²."""
    points = draw(dim=4000, std=std, structure="manifold")
    expected = 2 * (1 - (1 + std**2) ** -2)
    found = residuals(points).square().sum(1)
    error = found.std().item() / 500**0.5 / expected
    assert found.mean() == pytest.approx(expected, rel=5 * error + 0.03)
    if std <= 0.05:
        assert expected == pytest.approx(4 * std**2, rel=0.01)
    between = 2 * (1 - np.exp(-1 / 2))
    assert torch.pdist(points.means).square().tolist() == pytest.approx([between] * 10, abs=0.1)


def test_a_manifold_is_smooth_and_of_one_dimension_less_than_it_has_components():
    points = draw(dim=200, std=0.01, structure="manifold")
    for c in range(5):
        x = points.train.x[points.train.labels == c].double()
        width = torch.linalg.svdvals(x - x.mean(0)) / len(x) ** 0.5
        assert width[:4].tolist() == pytest.approx([0.01] * 4, rel=0.4)
        assert width[4:].max() < 5e-4, "of second order"
    assert points.train.x.abs().max() <= (2 / 200) ** 0.5 + 1e-6


@every_cloud
def test_sizes_are_those_described(name):
    for n_train, n_validation in ((10, 100), (150, 100), (201, 100), (500, 250)):
        points = draw(**CLOUDS[name], n_train=n_train)
        assert [len(part) for part in parts(points)] == [n_train, n_validation, 500]
        for part in parts(points):
            assert part.x.shape == (len(part.labels), CLOUDS[name]["dim"])
            assert (part.x.dtype, part.labels.dtype) == (torch.float32, torch.int64)
            assert part.x.isfinite().all()


@every_cloud
def test_components_have_equal_weights_in_every_part(name):
    m = CLOUDS[name].get("components", 5)
    draws = [draw(seed, **CLOUDS[name]) for seed in range(10)]
    for part in PARTS:
        counts = torch.cat([getattr(points, part).labels for points in draws]).bincount(minlength=m)
        assert len(counts) == m
        assert stats.chisquare(counts).pvalue > ALPHA
    sizes = {tuple(points.train.labels.bincount().tolist()) for points in draws}
    assert len(sizes) > 1, "in expectation: labels are drawn, not dealt"


@every_cloud
def test_parts_are_independent_draws_about_the_same_means(name):
    points = draw(**CLOUDS[name])
    n, m = 250, len(points.means)
    for a, b in itertools.combinations(parts(points), 2):
        assert torch.cdist(a.x, b.x, compute_mode="donot_use_mm_for_euclid_dist").min() > 0
        same = int((a.labels[:n] == b.labels[:n]).sum())
        assert stats.binomtest(same, n, 1 / m).pvalue > ALPHA
        first, second = ((part.x - points.means[part.labels])[:n].flatten() for part in (a, b))
        assert abs(torch.stack([first, second]).corrcoef()[0, 1]) < 5 / n**0.5
    for c in range(m):
        centres = [part.x[part.labels == c].mean(0) for part in parts(points)]
        width = CLOUDS[name]["std"] * CLOUDS[name]["dim"] ** 0.5
        for a, b in itertools.combinations(centres, 2):
            assert (a - b).norm() < width * 0.5 + 0.1


@every_cloud
def test_a_cloud_is_its_seed(name):
    first, again, other = (draw(seed, **CLOUDS[name]) for seed in (3, 3, 4))
    for a, b, c in zip(parts(first), parts(again), parts(other), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.labels, b.labels)
        assert not torch.equal(a.labels, c.labels)
        assert torch.cdist(a.x, c.x).min() > 0
    assert torch.equal(first.means, again.means)
    assert (first.means - other.means).abs().max() > 0.05, "turned otherwise"


@flat_clouds
def test_nothing_but_the_generator_is_random(name):
    torch.manual_seed(0)
    before, first = torch.get_rng_state(), draw(**CLOUDS[name])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(draw(**CLOUDS[name]).train.x, first.train.x)


# --- tables --------------------------------------------------------------------------------------

SIZES = {
    "iris": (150, 4, 3),
    "wine": (178, 13, 3),
    "breast_cancer": (569, 30, 2),
    "digits": (1797, 64, 10),
}
every_table = pytest.mark.parametrize("name", SIZES)


def content(name: str) -> tuple[np.ndarray, np.ndarray]:
    loaded = getattr(sklearn.datasets, f"load_{name}")()
    return loaded.data.astype(np.float64), loaded.target


def patched(monkeypatch, name: str, x: np.ndarray, y: np.ndarray) -> None:
    monkeypatch.setattr(sklearn.datasets, f"load_{name}", lambda: SimpleNamespace(data=x, target=y))


def rows_of(monkeypatch, name: str, seed: int) -> dict[str, np.ndarray]:
    """Which rows each part has: a further column numbers them, in an order that is kept."""
    x, y = content(name)
    with monkeypatch.context() as patch:
        patched(patch, name, np.column_stack([x, np.arange(len(y))]), y)
        points = table(Table(table=name), seed)
    numbers = torch.cat([part.x[:, -1] for part in parts(points)])
    assert len(numbers.unique()) == len(numbers) == len(y), "parts are disjoint and cover the set"
    ranks = numbers.argsort().argsort().split([len(part) for part in parts(points)])
    return {part: rank.numpy() for part, rank in zip(PARTS, ranks, strict=True)}


@pytest.mark.parametrize("seed", [0, 7])
@every_table
def test_parts_are_disjoint_cover_the_set_and_keep_the_classes_in_proportion(
    name, seed, monkeypatch
):
    x, y = content(name)
    rows, points = rows_of(monkeypatch, name, seed), table(Table(table=name), seed)
    assert (*x.shape, y.max() + 1) == SIZES[name]
    assert points.means is None
    n_test = np.ceil(0.3 * len(y))
    assert [len(rows[part]) for part in ("test", "validation")] == [
        n_test,
        np.ceil(0.2 * (len(y) - n_test)),
    ]
    assert np.sort(np.concatenate(list(rows.values()))).tolist() == list(range(len(y)))
    for part in PARTS:
        assert getattr(points, part).labels.tolist() == y[rows[part]].tolist()
        frequency = np.bincount(y[rows[part]]) / len(rows[part])
        assert frequency == pytest.approx(
            np.bincount(y) / len(y), abs=1.01 / len(rows[part]) + 0.01
        )


@pytest.mark.parametrize("seed", [0, 7])
@every_table
def test_columns_are_standardised_by_the_training_part(name, seed, monkeypatch):
    x, _ = content(name)
    rows, points = rows_of(monkeypatch, name, seed), table(Table(table=name), seed)
    fit = x[rows["train"]]
    varies = np.ptp(fit, axis=0) > 0
    assert varies.all() == (name != "digits"), "some pixels are always white"
    for part in PARTS:
        found = getattr(points, part).x
        assert (found.dtype, found.shape) == (torch.float32, (len(rows[part]), x.shape[1]))
        expected = (x[rows[part]] - fit.mean(0))[:, varies] / fit.std(0)[varies]
        assert found.numpy()[:, varies] == pytest.approx(
            expected, abs=1e-4 * max(1, np.abs(expected).max())
        )
        assert (found.numpy()[:, ~varies] == 0).all(), "even where a row held out differs"
    assert points.train.x[:, varies].mean(0).abs().max() < 1e-5
    assert points.train.x[:, varies].std(0, correction=0).numpy() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("part", ["test", "validation"])
@every_table
def test_an_outlier_that_is_held_out_does_not_reach_the_training_part(name, part, monkeypatch):
    (x, y), rows = content(name), rows_of(monkeypatch, name, 0)
    before = table(Table(table=name), 0)
    x[rows[part][0]] += 1e4 * (1 + x.std(0))
    patched(monkeypatch, name, x, y)
    after = table(Table(table=name), 0)
    varies = before.train.x.std(0) > 0
    assert (getattr(after, part).x[0, varies] - getattr(before, part).x[0, varies]).min() > 1000, (
        "the outlier is there"
    )
    for other in PARTS:
        kept = slice(1 if other == part else 0, None)
        assert torch.equal(getattr(after, other).x[kept], getattr(before, other).x[kept])


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 0.1, -7.7, 1e6 + 0.1])
@pytest.mark.parametrize("name", ["breast_cancer", "digits"])
def test_constant_columns_become_0(name, value, monkeypatch):
    x, y = content(name)
    patched(monkeypatch, name, np.column_stack([x, np.full(len(y), value)]), y)
    for part in parts(table(Table(table=name), 0)):
        assert part.x.isfinite().all()
        assert (part.x[:, -1] == 0).all()


def test_a_column_of_small_relative_spread_is_not_constant(monkeypatch):
    x, y = content("iris")
    patched(monkeypatch, "iris", np.column_stack([x, 1000 + x[:, 0] / 10]), y)
    train = table(Table(table="iris"), 0).train.x
    assert train[:, -1].numpy() == pytest.approx(train[:, 0].numpy(), abs=0.01)


@every_table
def test_a_split_is_its_seed(name):
    first, again, other = (table(Table(table=name), seed) for seed in (3, 3, 4))
    for a, b, c in zip(parts(first), parts(again), parts(other), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.labels, b.labels)
        assert not torch.equal(a.labels, c.labels)
