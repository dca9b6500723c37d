"""Agreement of maps, SNE without a network, what augmentations do to clouds, and graphs, against loops, closed forms and exact cases."""

import inspect
import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from scipy import stats

from sscl_core.affinities import noise_masses
from sscl_core.config import MLP, Cloud, Masking, Mixup, Noise, Points, Projector, TrainConfig
from sscl_core.train import initial_network, point_set
from sscl_experiments.store import Record
from sscl_experiments.studies.augmentation_graph import analysis
from sscl_experiments.studies.augmentation_graph.analysis import captured, principal_cosines
from sscl_experiments.studies.domain_agnostic_augmentations import analysis
from sscl_experiments.studies.domain_agnostic_augmentations.analysis import (
    counted_mixup,
    counted_noise,
    noise_P,
    perturbation,
    rank_correlation,
    scaled_kl,
    sne,
    sne_agreement,
    turned_onto,
)

ALPHA = 1e-3  # of every test of a distribution, at a fixed seed


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def on(*steps, **cloud) -> Points:
    return Points(
        points=Cloud(**{"dim": 3, "components": 3, "n_train": 16} | cloud),
        augmentation=steps,
        steps_per_epoch=2,
    )


def run(data: Points, **changes) -> TrainConfig:
    settings = {
        "backbone": MLP(width=8, depth=1),
        "projector": Projector(hidden=0, dim=2),
        "epochs": 2,
        "batch_size": 8,
    }
    return TrainConfig(data=data, **settings | changes)


def kl(P: torch.Tensor, z: torch.Tensor) -> float:
    """KL(P ‖ Q), Q ∝ exp(-‖z_i - z_j‖²) over all pairs i ≠ j."""
    pairs = ~np.eye(len(z), dtype=bool)
    p, logits = P.numpy()[pairs], -((z.numpy()[:, None] - z.numpy()[None]) ** 2).sum(2)[pairs]
    return float(scipy.special.xlogy(p, p).sum() - p @ (logits - scipy.special.logsumexp(logits)))


# --- two maps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (normal(5, 2), normal(5, 2) / 0, "^b must be finite, got NaN or infinity in 5 of 5 rows"),
        (normal(5, 2), normal(6, 2), "^a and b must be maps of the same points, got 5 and 6"),
        (normal(2, 2), normal(2, 2), r"^a must have shape \(n, d\) with n >= 3"),
        (
            torch.zeros(5, 2),
            normal(5, 2),
            "^a has no ranks of distance: from point 0 all others are equally far, so from 5 of 5",
        ),
        (torch.eye(3), normal(3, 2), "^a has no ranks of distance: from point 0 .* 3 of 3"),
    ],
    ids=["nan", "other points", "two", "collapsed", "simplex"],
)
def test_maps_without_ranks_are_named(a, b, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(rank_correlation)(a, b)


def test_agreement_needs_four_points_and_takes_half_precision():
    a, b = normal(12, 2), normal(12, 2, seed=1)
    exact, half = analysis.agreement(a, b), analysis.agreement(a.half(), b.half())
    assert half == pytest.approx(exact, abs=0.02)
    with pytest.raises(ValueError, match=r"^a must have shape \(n, d\) with n >= 4"):
        analysis.agreement(a[:3], b[:3])
    assert torch.allclose(turned_onto(a.half(), b.half()).double(), turned_onto(a, b), atol=5e-3)


def test_a_collapsed_map_has_no_divergence():
    with pytest.raises(ValueError, match=r"^z must be a map of points apart, got 4 that coincide"):
        scaled_kl(torch.full((4, 4), 1 / 16, dtype=torch.float64), torch.full((4, 2), 0.3))


def test_features_that_are_not_finite_capture_nothing():
    mass, vectors = (
        torch.full((5,), 0.2, dtype=torch.float64),
        torch.eye(5, dtype=torch.float64)[:, :2],
    )
    for measure in (captured, principal_cosines):
        with pytest.raises(
            ValueError, match=r"^z must be finite, got NaN or infinity in 5 of 5 rows"
        ):
            measure(normal(5, 2) / 0, vectors, mass)


@pytest.mark.parametrize(
    ("a", "b"),
    [(normal(12, 2), normal(12, 5, seed=1)), (normal(9, 1).round(), normal(9, 2, seed=2).round())],
)
def test_rank_correlation_is_the_mean_of_spearman_s_over_points(a, b):
    """The second pair has ties."""
    one_by_one = []
    for i in range(len(a)):
        others = [j for j in range(len(a)) if j != i]
        distances = [[(z[i] - z[j]).norm().item() for j in others] for z in (a, b)]
        one_by_one.append(stats.spearmanr(*distances).statistic)
    assert rank_correlation(a, b) == pytest.approx(np.mean(one_by_one), abs=1e-12)
    assert abs(rank_correlation(a, b)) < 0.9


def turned(z: torch.Tensor, *, mirrored: bool) -> torch.Tensor:
    Q = torch.linalg.qr(normal(z.shape[1], z.shape[1], seed=7)).Q
    if (torch.linalg.det(Q) < 0) != mirrored:
        Q[:, 0] *= -1
    return 0.3 * z @ Q + normal(z.shape[1], seed=8)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_moved_turned_and_scaled_copy_agrees_and_is_recovered(dim, mirrored):
    z = normal(15, dim)
    copy = turned(z, mirrored=mirrored)
    result = analysis.agreement(copy, z)
    assert result == pytest.approx(
        {"rank correlation": 1, "trustworthiness": 1, "Procrustes": 0}, abs=1e-12
    )
    torch.testing.assert_close(turned_onto(z, copy), copy - copy.mean(0))


def test_no_other_turn_shift_or_scale_lies_nearer_to_the_target():
    z, target = normal(10, 2), normal(10, 2, seed=1)
    placed, centred = turned_onto(z, target), target - target.mean(0)
    best = (placed - centred).square().sum()
    for angle, mirror, scale in itertools.product(
        np.linspace(0, 2 * np.pi, 61), (1, -1), np.linspace(0, 2, 21)
    ):
        turn = torch.tensor(
            [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        ) @ torch.diag(torch.tensor([1.0, mirror]).double())
        assert ((z - z.mean(0)) @ turn * scale - centred).square().sum() > best
    distances = torch.pdist(placed) / torch.pdist(z)
    torch.testing.assert_close(
        distances, distances[:1].expand_as(distances), msg="its shape has changed"
    )


def test_agreement_takes_its_neighbors_and_its_variance_from_the_second_map():
    a, b = normal(30, 2), normal(30, 2, seed=1)
    result = analysis.agreement(a, b)
    n, k = 30, 10
    ranks = {
        name: torch.cdist(z, z).argsort(1).argsort(1) for name, z in {"a": a, "b": b}.items()
    }  # 0 is the point itself
    intruders = sum(
        (ranks["b"] - k)[i, j].clamp_min(0).item()
        for i in range(n)
        for j in range(n)
        if 1 <= ranks["a"][i, j] <= k
    )
    assert result["trustworthiness"] == pytest.approx(
        1 - 2 / (n * k * (2 * n - 3 * k - 1)) * intruders
    )
    centred = b - b.mean(0)
    assert result["Procrustes"] == pytest.approx(
        ((turned_onto(a, b) - centred).square().sum() / centred.square().sum()).item()
    )


# --- SNE without a network -----------------------------------------------------------------------


def test_noise_P_equals_a_double_loop():
    for kind, scale in (("gaussian", 0.4), ("laplace", 0.7)):
        config = run(on(Noise(scale=scale, kind=kind)), seed=3)
        x = point_set(config).train.x.double().numpy()
        law = stats.norm(0, scale) if kind == "gaussian" else stats.laplace(0, scale / math.sqrt(2))
        expected = np.zeros((len(x), len(x)))
        for i, j in itertools.permutations(range(len(x)), 2):
            expected[i, j] = sum(
                np.prod(law.pdf(x[i] - anchor)) * np.prod(law.pdf(x[j] - anchor)) for anchor in x
            )
        torch.testing.assert_close(
            noise_P(config.data, 3), torch.from_numpy(expected / expected.sum())
        )


def test_sne_finds_the_map_that_P_was_made_of():
    z = 0.7 * normal(8, 2)
    P = torch.cdist(z, z).square().neg().exp().fill_diagonal_(0)
    P /= P.sum()
    found = [sne(P, seed=seed) for seed in range(4)]
    best = min(found, key=lambda map_: kl(P, map_))
    assert kl(P, best) < 1e-8
    assert analysis.agreement(best, z)["Procrustes"] < 1e-4


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_sne_ends_lower_than_anything_near_it_and_than_chance(dim):
    P = noise_P(on(Noise(scale=0.4)), 0)
    z = sne(P, dim=dim)
    assert z.shape == (16, dim)
    reached = kl(P, z)
    assert (
        reached
        < min(
            kl(P, scale * normal(16, dim, seed=seed))
            for seed in range(5)
            for scale in (0.1, 0.5, 1)
        )
        - 0.05
    )
    assert reached < min(kl(P, z + 0.05 * normal(16, dim, seed=seed)) for seed in range(10))


def test_the_random_start_of_sne_is_that_of_its_seed():
    P = noise_P(on(Noise(scale=0.4)), 0)
    assert torch.equal(sne(P, seed=5), sne(P, seed=5))
    assert not torch.allclose(sne(P, seed=5), sne(P, seed=6), atol=1e-2)
    first, second = analysis.sne_maps(on(Noise(scale=0.4)), 0)
    assert (first - second).abs().max() > 1e-2, "it is to be seen how far SNE agrees with itself"


def test_scaled_kl_is_the_least_over_scalings():
    P, z = noise_P(on(Noise(scale=0.4)), 1), normal(16, 2)
    least = scaled_kl(P, z)
    grid = [kl(P, scale * z) for scale in np.geomspace(0.01, 10, 400)]
    assert min(grid) - 1e-4 < least <= min(grid) + 1e-9
    assert least < kl(P, z) - 1e-3
    for same in (100 * z, 0.01 * z, turned(z, mirrored=True), z.float()):
        assert scaled_kl(P, same) == pytest.approx(least, rel=1e-5)


def test_no_scaling_improves_what_sne_found():
    P = noise_P(on(Noise(scale=0.4)), 0)
    z = sne(P)
    assert scaled_kl(P, 3 * z) == pytest.approx(kl(P, z), abs=1e-7)


AGREEMENT = ("rank correlation", "trustworthiness", "Procrustes")


def test_a_run_that_ends_at_sne_s_own_map_agrees_with_it():
    data = on(Noise(scale=0.4))
    first, second = analysis.sne_maps(data, 4)
    record = Record(run(data, seed=4), {}, {"z": turned(first, mirrored=True).float().numpy()})
    result = sne_agreement(record)
    assert list(result) == [
        *AGREEMENT,
        *(f"{name}, SNE" for name in AGREEMENT),
        *("rank correlation, input", "KL", "KL, SNE", "KL, input", "same point"),
    ]
    assert [result[name] for name in AGREEMENT] == pytest.approx([1, 1, 0], abs=1e-4)
    assert result["KL"] == pytest.approx(result["KL, SNE"], abs=1e-5)
    P, x = noise_P(data, 4), point_set(record.config).train.x.double()
    assert result["KL, SNE"] == pytest.approx(kl(P, first), abs=1e-6)
    assert result["KL, input"] == pytest.approx(scaled_kl(P, x))
    assert result["rank correlation, input"] == pytest.approx(rank_correlation(x, first))
    assert {name: result[f"{name}, SNE"] for name in AGREEMENT} == pytest.approx(
        analysis.agreement(second, first)
    )
    assert result["rank correlation, SNE"] < 0.99


def test_a_run_can_be_held_against_the_P_of_other_noise():
    record = Record(run(on(Noise(scale=0.2))), {}, {"z": normal(16, 2).numpy()})
    own, other = on(Noise(scale=0.2)), on(Noise(scale=0.6))
    assert sne_agreement(record) == sne_agreement(record, own)
    result, z = sne_agreement(record, other), torch.from_numpy(record.arrays["z"])
    assert result["KL"] == pytest.approx(scaled_kl(noise_P(other, 0), z))
    assert result["rank correlation"] == pytest.approx(
        rank_correlation(z, analysis.sne_maps(other, 0)[0])
    )


def test_the_share_of_views_on_the_same_point_pair_by_pair():
    for scale in (0.1, 0.5):
        config = run(on(Noise(scale=scale)))
        x = point_set(config).train.x.double().numpy()
        density = np.exp([[-((a - b) ** 2).sum() / (2 * scale**2) for b in x] for a in x])
        pairs = {
            (j, k): sum(row[j] * row[k] for row in density) for j in range(16) for k in range(16)
        }
        result = sne_agreement(Record(config, {}, {"z": normal(16, 2).numpy()}))
        assert result["same point"] == pytest.approx(
            sum(pairs[j, j] for j in range(16)) / sum(pairs.values())
        )


# --- clouds before training ----------------------------------------------------------------------


def look(step, seed=0, **cloud):
    return perturbation(
        run(on(step, **{"dim": 20, "components": 5, "n_train": 500} | cloud), seed=seed), n=10
    )


@pytest.mark.parametrize(("components", "dim"), [(5, 20), (3, 10)])
@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_noise_spends_the_share_of_its_energy_in_the_span_that_the_span_has_of_the_directions(
    kind, components, dim
):
    result = look(Noise(scale=0.3, kind=kind), components=components, dim=dim)
    assert result["energy in span"] == pytest.approx((components - 1) / dim, rel=0.05)


def test_mixup_spends_its_energy_where_the_variance_is():
    m, d, std = 5, 20, 0.3
    signal, noise = (m - 1) / (2 * m) + (m - 1) * std**2, (d - m + 1) * std**2
    assert look(Mixup(strength=1.0), std=std)["energy in span"] == pytest.approx(
        signal / (signal + noise), rel=0.06
    )


@pytest.mark.parametrize(
    ("structure", "std"),
    [("isotropic", 0.2), ("isotropic", 0.6), ("complement", 0.2), ("complement", 1.0)],
)
def test_mixup_blurs_all_directions_alike_and_noise_those_of_small_variance(structure, std):
    """The means, at distance 1, have the variance 1/(2m) in each direction of their span."""
    inside = 1 / 10 + (std**2 if structure == "isotropic" else 0)
    seeds = range(4)
    mixed = np.mean(
        [
            look(Mixup(strength=0.7), seed, std=std, structure=structure)["selectivity"]
            for seed in seeds
        ]
    )
    noisy = np.mean(
        [
            look(Noise(scale=0.3), seed, std=std, structure=structure)["selectivity"]
            for seed in seeds
        ]
    )
    assert mixed == pytest.approx(1, rel=0.1)
    assert noisy == pytest.approx(inside / std**2, rel=0.1)


def test_the_strength_of_noise_cancels_in_its_selectivity_and_not_in_what_it_does():
    weak, strong = look(Noise(scale=1e-3)), look(Noise(scale=10.0))
    for name in ("selectivity", "energy in span"):
        assert weak[name] == pytest.approx(strong[name], rel=1e-3)
    assert weak["P within"] == 1
    assert strong["P within"] < 0.6
    assert strong["views at own mean"] == pytest.approx(0.2, abs=0.05)
    assert look(Noise(scale=1e-3), std=0.02)["views at own mean"] == 1


def test_views_at_their_own_mean_of_two_components_have_a_closed_form():
    """The means are 1 apart: a view stays as long as it goes less than 1/2 towards the other."""
    result = look(Noise(scale=0.4), components=2, dim=2, std=0.3)
    assert result["views at own mean"] == pytest.approx(stats.norm.cdf(0.5 / 0.5), abs=0.03)


def test_the_look_at_a_cloud_is_that_of_its_seed():
    step = Masking(rate=0.5)
    assert look(step) == look(step)
    assert look(step) != look(step, seed=1)


# --- counted and exact masses --------------------------------------------------------------------


def chi_squared(counted: np.ndarray, exact: np.ndarray, draws: int) -> float:
    """Pearson's p-value, one row of masses."""
    possible = exact > 1e-12
    assert (counted[~possible] == 0).all()
    return float(
        stats.chisquare(
            counted[possible] * draws, exact[possible] / exact[possible].sum() * draws
        ).pvalue
    )


def test_counted_noise_is_calibrated():
    edges, draws = [-0.5, 0.0, 0.4, 1.0], 2000
    steps = [Noise(scale=0.5, kind=kind) for kind in ("gaussian", "laplace", "uniform")]
    result = counted_noise(steps, 0.3, edges, draws=draws, seed=0)
    laws = {
        "gaussian": stats.norm(0.3, 0.5),
        "laplace": stats.laplace(0.3, 0.5 / 2**0.5),
        "uniform": stats.uniform(0.3 - 0.75**0.5, 3**0.5),
    }
    assert result["noise"].unique().tolist() == list(laws)
    for kind, rows in result.groupby("noise"):
        exact = np.diff(laws[kind].cdf([-np.inf, *edges, np.inf]))
        assert rows["cell"].tolist() == list(range(5))
        assert rows["exact"].tolist() == pytest.approx(exact, abs=1e-9)
        assert rows["s.e."].tolist() == pytest.approx(
            np.sqrt(exact * (1 - exact) / draws), abs=1e-9
        )
        assert ALPHA < chi_squared(rows["counted"].to_numpy(), exact, draws) < 1 - ALPHA
    assert counted_noise(steps, 0.3, edges, draws=50, seed=1).equals(
        counted_noise(steps, 0.3, edges, draws=50, seed=1)
    )


def test_counted_mixup_is_calibrated():
    exact, counted = counted_mixup(normal(7, 2), draws=3000, seed=0)
    assert exact.shape == counted.shape == (7, 7)
    p = [chi_squared(c, e, 3000) for c, e in zip(counted.numpy(), exact.numpy(), strict=True)]
    assert min(p) > ALPHA / 7
    assert max(p) < 1 - ALPHA / 7


def test_partners_of_counted_mixup_are_others():
    """Two points: half of every segment on either side, and more on one's own if one could be one's own partner."""
    exact, counted = counted_mixup(torch.tensor([[0.0], [1.0]]), draws=2000, seed=0)
    assert exact.flatten().tolist() == pytest.approx([0.5] * 4)
    assert counted.flatten().tolist() == pytest.approx([0.5] * 4, abs=0.05)


# --- the augmentation graph ----------------------------------------------------------------------


def weighted_orthonormal(n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A mass, and k orthonormal vectors the first of which is its root, as in a graph."""
    mass = normal(n, seed=5).exp()
    mass /= mass.sum()
    return mass, torch.linalg.qr(torch.cat([mass.sqrt()[:, None], normal(n, k - 1, seed=6)], 1)).Q


def test_eigenvectors_that_are_linear_in_the_features_are_captured_and_others_are_not():
    mass, vectors = weighted_orthonormal(20, 6)
    functions = vectors / mass.sqrt()[:, None]
    z = functions[:, 1:4] @ normal(3, 3) + 5
    torch.testing.assert_close(
        captured(z, vectors, mass), torch.tensor([1.0, 1, 1, 1, 0, 0]).double(), atol=1e-9, rtol=0
    )
    torch.testing.assert_close(principal_cosines(z, vectors, mass), torch.ones(4).double())
    torch.testing.assert_close(
        principal_cosines(z, vectors[:, 2:], mass),
        torch.tensor([1.0, 1, 0, 0]).double(),
        atol=1e-7,
        rtol=0,
    )


def test_a_feature_halfway_between_two_eigenvectors_captures_half_of_either():
    mass, vectors = weighted_orthonormal(20, 4)
    z = (vectors[:, 1:2] + vectors[:, 2:3]) / mass.sqrt()[:, None]
    torch.testing.assert_close(
        captured(z, vectors, mass), torch.tensor([1.0, 0.5, 0.5, 0]).double(), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("dim", [1, 3, 8])
def test_principal_cosines_are_those_of_scipy(dim):
    mass, vectors = weighted_orthonormal(20, 4)
    z = normal(20, dim)
    design = np.column_stack([np.ones(20), z]) * mass.sqrt().numpy()[:, None]
    angles = scipy.linalg.subspace_angles(design, vectors.numpy())
    torch.testing.assert_close(
        principal_cosines(z, vectors, mass), torch.from_numpy(np.cos(angles[::-1]).copy())
    )
    one_by_one = [
        math.cos(scipy.linalg.subspace_angles(design, vector[:, None])[0]) ** 2
        for vector in vectors.T.numpy()
    ]
    assert captured(z.float(), vectors, mass).tolist() == pytest.approx(one_by_one, abs=1e-5)
    assert captured(z, vectors, mass).sum() == pytest.approx(
        principal_cosines(z, vectors, mass).square().sum().item()
    )


GRAPHS = {
    "noise": (analysis.noise_graph, Noise(scale=0.3), 5),
    "cells": (analysis.cell_graph, Mixup(strength=1.0), 1),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_has_mass_1_eigenvalue_1_and_orthonormal_vectors(name):
    graph_of, step, views = GRAPHS[name]
    graph = graph_of(on(step), 0, 5)
    assert graph.nodes.shape == (16 * views, 3)
    assert graph.nodes.dtype == torch.float32
    assert graph.mass.sum() == pytest.approx(1)
    assert graph.values[0] == pytest.approx(1)
    assert ((graph.values >= 0) & (graph.values <= 1 + 1e-9)).all()
    assert (graph.values.diff() <= 0).all()
    torch.testing.assert_close(graph.vectors.T @ graph.vectors, torch.eye(5).double())
    torch.testing.assert_close(graph.vectors[:, 0].abs(), graph.mass.sqrt())


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_that_of_its_seed(name):
    graph_of, step, _ = GRAPHS[name]
    graph = graph_of(on(step), 0, 3)
    graph_of.cache_clear()
    torch.rand(3)
    again = graph_of(on(step), 0, 3)
    assert again is not graph
    assert all(torch.equal(a, b) for a, b in zip(graph, again, strict=True))
    assert not torch.equal(graph.nodes, graph_of(on(step), 1, 3).nodes)


def test_nodes_of_a_noise_graph_are_views_and_its_edges_densities_over_their_sum():
    data = on(Noise(scale=0.3))
    graph = analysis.noise_graph(data, 0, 4, views=3)
    x = point_set(run(data)).train.x.double()
    assert ((graph.nodes - x.repeat(3, 1)).std() / 0.3).item() == pytest.approx(1, rel=0.2)
    density = np.array(
        [
            [stats.norm(0, 0.3).pdf(node - anchor).prod() for node in graph.nodes.double().numpy()]
            for anchor in x.numpy()
        ]
    )
    A = density / density.sum(0)
    A /= A.sum(1, keepdims=True)
    mass = A.mean(0)
    values = np.linalg.eigvalsh(A.T @ A / 16 / np.sqrt(mass[:, None] * mass))[::-1]
    assert graph.mass.tolist() == pytest.approx(mass, rel=1e-4)
    assert graph.values.tolist() == pytest.approx(values[:4], abs=1e-5)


def test_the_masses_of_a_cell_graph_on_a_line_are_those_between_midpoints():
    data = on(Noise(scale=0.2), dim=1, components=2, n_train=10)
    graph, draws = analysis.cell_graph(data, 0, 3, draws=2000), 2000
    x, order = point_set(run(data)).train.x.double().flatten().sort()
    A = noise_masses(x[:, None], [((x[1:] + x[:-1]) / 2).tolist()], scale=0.2)
    error = (A * (1 - A) / draws).sum(0).sqrt() / 10
    assert ((graph.mass[order] - A.mean(0)).abs() < 4 * error).all()
    values = torch.linalg.svdvals(A / A.mean(0).sqrt() / 10**0.5)[:3] ** 2
    torch.testing.assert_close(graph.values, values, atol=0.03, rtol=0)


def test_points_that_no_view_leaves_are_a_graph_without_edges():
    graph = analysis.cell_graph(on(Noise(scale=1e-6)), 0, 4)
    assert graph.mass.tolist() == [1 / 16] * 16
    assert graph.values.tolist() == pytest.approx([1] * 4)


def test_the_history_of_features_begins_with_the_initial_networks():
    configs = [run(on(Noise(scale=0.3)), seed=seed) for seed in (0, 4)]
    x = torch.stack([point_set(config).train.x for config in configs])
    history = analysis.feature_history(configs, x)
    assert history.shape == (3, 2, 16, 2)
    assert not history.requires_grad
    for config, points, z in zip(configs, x, history[0], strict=True):
        torch.testing.assert_close(
            z, initial_network(config, torch.Size([3])).eval()(points)[1].detach()
        )
    assert all((a - b).abs().max() > 1e-5 for a, b in itertools.pairwise(history))


def test_features_that_depend_on_others_add_nothing():
    z, vectors = (
        torch.randn(20, 2, generator=torch.Generator().manual_seed(0)),
        torch.linalg.qr(torch.randn(20, 4).double()).Q,
    )
    mass = torch.full((20,), 1 / 20, dtype=torch.float64)
    expected = analysis.captured(z, vectors, mass)
    for extra in (z[:, :1], torch.zeros(20, 1), torch.ones(20, 1), z.sum(1, keepdim=True)):
        assert torch.allclose(
            analysis.captured(torch.cat([z, extra], 1), vectors, mass), expected, atol=1e-6
        )
        assert len(analysis.principal_cosines(torch.cat([z, extra], 1), vectors, mass)) == 3
