"""The augmentation graph and its density ratio, how far features agree with them, and maps."""

import inspect
import itertools
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
from helpers import cloud_run, normal, on_cloud, train_run
from matplotlib.figure import Figure
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from sscl_core.affinities import noise_masses
from sscl_core.config import (
    MLP,
    ImageAugmentation,
    Images,
    InfoNCE,
    Mixup,
    Noise,
    TrainConfig,
)
from sscl_core.train import initial_network
from sscl_experiments import plotting
from sscl_experiments.record import Record
from sscl_experiments.runs.points import point_set, train_points
from sscl_experiments.studies.augmentation_graph import analysis, density_ratio, figures
from sscl_experiments.studies.augmentation_graph.analysis import (
    leave_one_out,
    principal_cosines,
    squared_cosines,
)
from sscl_experiments.studies.augmentation_graph.claims import CLAIMS
from sscl_experiments.study import resolve


def test_features_that_are_not_finite_capture_nothing():
    mass, vectors = (
        torch.full((5,), 0.2, dtype=torch.float64),
        torch.eye(5, dtype=torch.float64)[:, :2],
    )
    for measure in (squared_cosines, principal_cosines):
        with pytest.raises(
            ValueError, match=r"^z must be finite, got NaN or infinity in 5 of 5 rows"
        ):
            measure(normal(5, 2) / 0, vectors, mass)


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
        squared_cosines(z, vectors, mass),
        torch.tensor([1.0, 1, 1, 1, 0, 0]).double(),
        atol=1e-9,
        rtol=0,
    )
    torch.testing.assert_close(principal_cosines(z, vectors, mass), torch.ones(4).double())
    torch.testing.assert_close(
        principal_cosines(z, vectors[:, 2:], mass),
        torch.tensor([1.0, 1, 0, 0]).double(),
        atol=1e-7,
        rtol=0,
    )


def test_a_feature_halfway_between_two_eigenvectors_is_at_45_degrees_to_either():
    mass, vectors = weighted_orthonormal(20, 4)
    _, first, second, _ = vectors.T
    z = (first + second) / mass.sqrt()
    torch.testing.assert_close(
        squared_cosines(z[:, None], vectors, mass),
        torch.tensor([1.0, 0.5, 0.5, 0]).double(),
        atol=1e-9,
        rtol=0,
    )


@pytest.mark.parametrize("dim", [1, 3, 8])
def test_principal_cosines_are_those_of_scipy(dim):
    mass, vectors = weighted_orthonormal(20, 4)
    z = normal(20, dim)
    weights = mass.sqrt().numpy()
    design = np.column_stack([np.ones(20), z]) * weights[:, None]
    angles = scipy.linalg.subspace_angles(design, vectors.numpy())
    principal = principal_cosines(z, vectors, mass)
    np.testing.assert_allclose(principal, np.cos(angles[::-1]))
    one_by_one = []
    for vector in vectors.T.numpy():
        (angle,) = scipy.linalg.subspace_angles(design, vector[:, None])
        one_by_one.append(math.cos(angle) ** 2)
    single = squared_cosines(z.float(), vectors, mass)
    assert single.tolist() == pytest.approx(one_by_one, abs=1e-5)
    total = squared_cosines(z, vectors, mass).sum()
    assert total.item() == pytest.approx(principal.square().sum().item())


GRAPHS = {
    "noise": (analysis.noise_graph, Noise(scale=0.3), 5),
    "cells": (partial(analysis.cell_graph, draws=50), Mixup(strength=1.0), 1),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_has_mass_1_eigenvalue_1_and_orthonormal_vectors(name):
    graph_of, step, views = GRAPHS[name]
    graph = graph_of(on_cloud(step), 0, 5)
    assert graph.nodes.shape == (16 * views, 3)
    assert graph.nodes.dtype == torch.float32
    assert graph.mass.sum() == pytest.approx(1)
    assert graph.values[0] == pytest.approx(1)
    assert ((graph.values >= 0) & (graph.values <= 1 + 1e-9)).all()
    assert (graph.values.diff() <= 0).all()
    products = graph.vectors.T @ graph.vectors
    torch.testing.assert_close(products, torch.eye(5).double())
    torch.testing.assert_close(graph.vectors[:, 0].abs(), graph.mass.sqrt())


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_that_of_its_seed(name):
    graph_of, step, _ = GRAPHS[name]
    graph = graph_of(on_cloud(step), 0, 3)
    getattr(graph_of, "func", graph_of).cache_clear()
    torch.rand(3)
    again = graph_of(on_cloud(step), 0, 3)
    assert again is not graph
    for ours, theirs in zip(graph, again, strict=True):
        assert torch.equal(ours, theirs)
    other = graph_of(on_cloud(step), 1, 3)
    assert not torch.equal(graph.nodes, other.nodes)


def test_nodes_of_a_noise_graph_are_views_and_its_edges_densities_over_their_sum():
    data = on_cloud(Noise(scale=0.3))
    graph = analysis.noise_graph(data, 0, 4, views=3)
    x = point_set(cloud_run(data)).train.x.double()
    noise = graph.nodes - x.repeat(3, 1)
    assert noise.std().item() == pytest.approx(0.3, rel=0.2)
    nodes, anchors = graph.nodes.double().numpy(), x.numpy()
    differences = nodes - anchors[:, None]
    density = stats.norm(0, 0.3).pdf(differences).prod(-1)
    A = density / density.sum(0)
    A /= A.sum(1, keepdims=True)
    mass = A.mean(0)
    degrees = np.sqrt(mass[:, None] * mass)
    values = np.linalg.eigvalsh(A.T @ A / 16 / degrees)[::-1]
    assert graph.mass.tolist() == pytest.approx(mass, rel=1e-4)
    assert graph.values.tolist() == pytest.approx(values[:4], abs=1e-5)


def test_the_masses_of_a_cell_graph_on_a_line_are_those_between_midpoints():
    data = on_cloud(Noise(scale=0.2), dim=1, components=2, n_train=10)
    draws = 2000
    graph = analysis.cell_graph(data, 0, 3, draws=draws)
    points = point_set(cloud_run(data)).train.x.double()
    x, order = points.flatten().sort()
    midpoints = (x[1:] + x[:-1]) / 2
    A = noise_masses(x[:, None], [midpoints.tolist()], scale=0.2)
    mass = A.mean(0)
    error = (A * (1 - A) / draws).sum(0).sqrt() / 10
    assert ((graph.mass[order] - mass).abs() < 4 * error).all()
    values = torch.linalg.svdvals(A / mass.sqrt() / 10**0.5)[:3] ** 2
    torch.testing.assert_close(graph.values, values, atol=0.03, rtol=0)


def test_points_that_no_view_leaves_are_a_graph_without_edges():
    graph = analysis.cell_graph(on_cloud(Noise(scale=1e-6)), 0, 4, draws=10)
    assert graph.mass.tolist() == [1 / 16] * 16
    assert graph.values.tolist() == pytest.approx([1] * 4)


def test_the_history_of_features_begins_with_the_initial_networks():
    configs = [cloud_run(on_cloud(Noise(scale=0.3)), seed=seed) for seed in (0, 4)]
    x = torch.stack([point_set(config).train.x for config in configs])
    history = analysis.feature_history(configs, x)
    assert history.shape == (3, 2, 16, 2)
    assert not history.requires_grad
    for config, points, z in zip(configs, x, history[0], strict=True):
        network = initial_network(config, torch.Size([3])).eval()
        torch.testing.assert_close(z, network(points)[1].detach())
    for before, after in itertools.pairwise(history):
        assert (before - after).abs().max() > 1e-5


def test_features_that_depend_on_others_add_nothing():
    z = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    vectors = torch.linalg.qr(torch.randn(20, 4).double()).Q
    mass = torch.full((20,), 1 / 20, dtype=torch.float64)
    expected = squared_cosines(z, vectors, mass)
    dependent = (
        z[:, :1],
        torch.zeros(20, 1),
        torch.ones(20, 1),
        z.sum(1, keepdim=True),
    )
    for extra in dependent:
        both = torch.cat([z, extra], 1)
        found = squared_cosines(both, vectors, mass)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        assert len(principal_cosines(both, vectors, mass)) == 3


def test_what_is_learned_has_a_row_an_eigenvector_step_and_run():
    data = on_cloud(Noise(scale=0.3), n_train=20)
    configs = [cloud_run(data, seed=seed) for seed in (0, 4)]
    spectra, angles = analysis.learned({("cloud, noise", "SimCLR"): configs}, draws=10)
    assert len(spectra) == 2 * 3 * analysis.EIGENVECTORS
    assert spectra.step.unique().tolist() == [0, 2, 4]
    assert spectra.data.unique().tolist() == ["cloud, noise"]
    assert spectra.d_z.unique().tolist() == [2]
    graph = analysis.noise_graph(data, 4, analysis.EIGENVECTORS)
    nodes = torch.stack([graph.nodes, graph.nodes])
    z = analysis.feature_history(configs, nodes)[-1, 1]
    own = spectra[spectra.seed == 4]
    last = own[own.step == 4]
    expected = squared_cosines(z, graph.vectors, graph.mass)
    assert last["squared cosine"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert last.eigenvalue.tolist() == graph.values.tolist()
    unit = torch.nn.functional.normalize(z, dim=1)
    energies = analysis.energies(unit, graph.vectors, graph.mass)
    assert last.energy.tolist() == pytest.approx(energies.tolist(), abs=1e-5)
    assert last.eigenvector.tolist() == list(range(1, analysis.EIGENVECTORS + 1))
    top = principal_cosines(z, graph.vectors[:, :2], graph.mass)
    angle = math.degrees(math.acos(top[1]))
    assert angles["2"][1] == pytest.approx(angle, abs=1e-3)
    assert list(angles.columns) == ["data", "loss", "seed", "2"], "the constant's is left out"


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_of_densities_for_noise_and_counted_for_the_rest(name):
    expected, step, _ = GRAPHS[name]
    data = on_cloud(step)
    graph = analysis.graph_of(cloud_run(data, seed=3), 3, draws=50)
    assert graph is expected(data, 3, 3)


# --- estimates of a graph, and the order of learning ---------------------------------------------


def test_two_estimates_of_a_graph_agree_as_views_are_many():
    data = on_cloud(Mixup(strength=1.0), n_train=20)
    table = analysis.self_agreement([cloud_run(data)], [20, 4000], dim=3)
    few, many = table["top 3"]
    assert table.draws.tolist() == [20, 4000]
    assert many < few / 3, "the angle falls as the root of the number"
    first, second = (
        analysis.cell_graph(data, 0, 16, draws=20, again=again) for again in (False, True)
    )
    assert not torch.equal(first.mass, second.mass)
    pair = (graph.vectors[:, :3].numpy() for graph in (first, second))
    angle = np.rad2deg(scipy.linalg.subspace_angles(*pair).max())
    assert few == pytest.approx(angle, abs=1e-4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 0.9, 0.8, 0.1, 0.09, 0.05], 3),
        ([1, 0.1, 0.09, 0.08, 0.01, 0.009], 4),
        ([1, 0.9, 0.8, 0.3, 0.02, 0.015], 4),
    ],
)
def test_the_eigengap_is_the_largest_ratio_from_the_third_on(values, expected):
    assert analysis.eigengap(torch.tensor(values).double()) == expected


def test_energies_are_the_parts_of_the_variance():
    mass, vectors = weighted_orthonormal(20, 4)
    functions = vectors / mass.sqrt()[:, None]
    z = functions[:, :3] @ torch.tensor([[5.0, 0], [3, 0], [1, 2]]).double()
    found = analysis.energies(z, vectors, mass)
    torch.testing.assert_close(found, torch.tensor([25.0, 9, 5, 0]).double(), atol=1e-9, rtol=0)
    parts = analysis.energies(z, weighted_orthonormal(20, 20)[1], mass)
    assert parts.sum().item() == pytest.approx((mass[:, None] * z.square()).sum().item())


def test_when_and_in_which_order_eigenvectors_are_learned():
    rows = []
    courses = {1: [9, 9, 9], 2: [0, 6, 10], 3: [20, 1, 10], 4: [5, 5, 5]}
    for seed in (0, 1):
        for number, energies in courses.items():
            for step, energy in zip((0, 10, 20), energies, strict=True):
                known = {"data": "a", "loss": "b", "seed": seed, "d_z": 3}
                rows.append(known | {"eigenvector": number, "step": step, "energy": energy})
    times = analysis.half_times(pd.DataFrame(rows))
    assert times["stays"].tolist() == [10, 20] * 2, "the first and those beyond d_z are left out"
    assert times["first"].tolist() == [10, 0] * 2
    crossed, order = analysis.order_of_learning(times).to_dict("records")
    assert (crossed["step"], crossed["2"], crossed["3"]) == ("first", 10, 0)
    assert (order["step"], order["2"], order["3"]) == ("stays", 10, 20)
    assert crossed["rank correlation"] == pytest.approx(-1)
    assert order["rank correlation"] == pytest.approx(1)
    times["stays"] = 10
    found = analysis.order_of_learning(times)["rank correlation"].tolist()
    assert found == pytest.approx([-1, 0])


def test_the_two_by_two_is_of_the_eigenvectors_before_the_gap_and_of_those_after_it():
    """The gap follows the third eigenvalue, and is each seed's own; the first, constant, one and
    those beyond d_z are left out.
    """
    rows = []
    for seed, step, number in itertools.product((0, 1), (0, 10), (1, 2, 3, 4, 5)):
        value = 0.1 * number + 0.2 * seed if step else 0.05
        known = {"data": "a", "loss": "b", "seed": seed, "d_z": 4, "step": step}
        eigenvalue = {1: 1.0, 2: 0.9, 3: 0.8, 4: 0.3, 5: 0.2}[number]
        rows.append(
            known | {"eigenvector": number, "eigenvalue": eigenvalue, "squared cosine": value}
        )
    table = analysis.two_by_two(pd.DataFrame(rows))
    assert table.loss.tolist() == ["untrained", "untrained", "b", "b"]
    assert table.eigenvectors.tolist() == ["up to the gap", "after it"] * 2
    assert table["squared cosine"].tolist() == pytest.approx([0.05, 0.05, 0.35, 0.5])
    assert set(table.n) == {2}


# --- density ratios ------------------------------------------------------------------------------


def test_t_is_the_log_of_the_density_of_a_pair_over_its_marginals():
    """By numbers of scipy, at a few places."""
    points = on_cloud(Noise(scale=0.5), dim=2, n_train=12)
    pairs = density_ratio.noise_pairs(points, 3, 5)
    x = train_points(points, 3).numpy()
    for i in range(10):
        views = pairs.x1[i].numpy(), pairs.x2[i].numpy()
        a1, a2 = (stats.norm(x, 0.5).pdf(view).prod(1) for view in views)
        P = np.mean(a1 * a2)
        assert pairs.log_P[i].item() == pytest.approx(np.log(P))
        assert pairs.T[i].item() == pytest.approx(np.log(P / a1.mean() / a2.mean()))


def test_the_first_half_are_partners_and_the_others_independent():
    points = on_cloud(Noise(scale=0.01), dim=2, n_train=12)
    pairs = density_ratio.noise_pairs(points, 0, 400)
    apart = (pairs.x1 - pairs.x2).norm(dim=1)
    assert apart[pairs.partners].max() < 0.1
    own = (apart[400:] < 0.1).double().mean().item()
    assert own == pytest.approx(1 / 12, abs=0.06)
    assert pairs.T[pairs.partners].mean().item() == pytest.approx(math.log(12), abs=0.3)


def test_a_fit_is_a_regression_with_slope_one():
    T = normal(200)
    other = normal(200, seed=1)
    for log_s in (T + 3, 0.5 * T, 0.01 * other, 2 * T + other):
        found = density_ratio.fit(log_s, T)
        line = stats.linregress(T.numpy(), log_s.numpy())
        assert found["slope"] == pytest.approx(line.slope)
        assert found["R², best scale"] == pytest.approx(line.rvalue**2)
        left = np.var(log_s.numpy() - T.numpy()) / np.var(T.numpy())
        assert found["R²"] == pytest.approx(1 - left)
        scales = np.linspace(-3, 3, 1201)
        best = max(density_ratio.fit(scale * log_s, T)["R²"] for scale in scales)
        assert best <= found["R², best scale"] + 1e-9
    assert density_ratio.fit(T + 3, T)["R²"] == pytest.approx(1)
    assert density_ratio.fit(torch.ones(200).double(), T)["R²"] == pytest.approx(0)


def test_for_one_gaussian_a_kernel_of_distance_explains_half():
    """T = ρ/2 (U² - W²), U and W the standardised midpoint and difference: it sees only W."""
    rho = 0.4
    shared, first, second = (normal(200_000, seed=seed) for seed in range(3))
    x1, x2 = (rho**0.5 * shared + (1 - rho) ** 0.5 * own for own in (first, second))
    law = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]])
    joint = law.logpdf(np.stack([x1, x2], 1))
    T = torch.from_numpy(joint) - stats.norm.logpdf(x1) - stats.norm.logpdf(x2)
    log_s = -rho / (4 * (1 - rho)) * (x1 - x2).square()
    found = density_ratio.fit(log_s, T)
    assert found["R²"] == pytest.approx(0.5, abs=0.02)
    assert found["slope"] == pytest.approx(0.5, abs=0.02)
    assert density_ratio.quadratic_share(log_s - T, ((x1 + x2) / 2)[:, None]) > 0.99


def test_the_quadratic_share_is_that_of_scikit_learn():
    x, noise = normal(300, 2), normal(300, seed=4)
    y = x[:, 0] * x[:, 1] + x[:, 0] + noise
    model = make_pipeline(PolynomialFeatures(2), LinearRegression()).fit(x, y)
    expected = model.score(x, y)
    assert density_ratio.quadratic_share(y, x) == pytest.approx(expected)
    assert 0.3 < expected < 0.9


def test_fits_are_those_of_the_runs_own_features_on_their_own_pairs():
    data = on_cloud(Noise(scale=0.3), dim=2)
    configs = [cloud_run(data, loss=InfoNCE(temperature=0.5), seed=seed) for seed in (0, 4)]
    fitted = density_ratio.fits({("a", "b", 2): configs}, 30)
    assert fitted.table.step.unique().tolist() == [0, 2, 4]
    pairs = density_ratio.noise_pairs(data, 4, 30)
    network = train_run(configs[1], device="cpu").model
    z1, z2 = (network(x.float())[1].detach() for x in (pairs.x1, pairs.x2))
    log_s = torch.cosine_similarity(z1, z2).double() / 0.5
    own = fitted.table[(fitted.table.seed == 4) & (fitted.table.step == 4)]
    for kind, part in (("partners", slice(30)), ("half independent", slice(None))):
        (row,) = own[own.pairs == kind].to_dict("records")
        assert row["R²"] == pytest.approx(
            density_ratio.fit(log_s[part], pairs.T[part])["R²"], abs=1e-4
        )
    kept = fitted.pairs["a", "b", 2]
    torch.testing.assert_close(kept.after[1], log_s, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(kept.before[1], kept.after[1])


def test_fits_against_other_noise_are_on_its_pairs():
    data, other = (on_cloud(step, dim=2) for step in (Mixup(strength=1.0), Noise(scale=0.3)))
    fitted = density_ratio.fits({("a", "b", 2): [cloud_run(data)]}, 10, against=other)
    assert fitted.pairs["a", "b", 2].pairs == [density_ratio.noise_pairs(other, 0, 10)]


def test_what_is_left_over_is_measured_against_the_best_null_at_its_best_scale():
    rows = []
    for name, r2, scaled in (
        ("raw input", 0.5, 0.5),
        ("untrained", 0, 0.6),
        ("trained", 0.9, 0.95),
    ):
        rows.append({"log s of": name, "run": 0, "R²": r2, "R², best scale": scaled})
    assert density_ratio.left_over(pd.DataFrame(rows)) == [pytest.approx(0.1 / 0.4)]


def test_no_null_can_pass_the_rule_of_b7():
    """Put in the place of the trained network, each leaves at least what the best of them does."""
    data = on_cloud(Noise(scale=0.3), dim=2)
    (kept,) = density_ratio.fits({("a", "b", 2): [cloud_run(data)]}, 50).pairs.values()
    nulls = density_ratio.against_nulls(kept, kept).set_index("log s of")
    for name in ("raw input", "untrained", "trained with mixup"):
        table = nulls.copy()
        table.loc["trained"] = nulls.loc[name]
        (value,) = density_ratio.left_over(table.reset_index())
        assert value >= 1 - 1e-9 > CLAIMS[0].threshold


def test_residuals_by_bins_of_t():
    T = torch.arange(20).double()
    x = torch.zeros(20, 2)
    pairs = density_ratio.Pairs(x, x, T, T)
    log_s = torch.where(T < 10, T, T + 3)
    kept = {("a", "b", 2): density_ratio.Kept([pairs], [log_s], [log_s])}
    table = density_ratio.residuals(kept, bins=2)
    assert table["T"].tolist() == [4.5, 14.5]
    assert table.residual.tolist() == [0, 3], "partners, the first half, are at 0"


def test_ends_of_residuals_are_those_of_the_outer_bins_over_runs():
    rows = []
    for seed, dim, number in itertools.product(range(3), (2, 5), range(3)):
        known = {"similarity": "cosine", "d_z": dim, "seed": seed, "bin": number, "T": number}
        rows.append(known | {"residual": seed + 10.0 * number * dim})
    table = density_ratio.ends_of_residuals(pd.DataFrame(rows))
    assert table.d_z.tolist() == ["2", "5", "2 minus 5"]
    low, high = scipy.stats.t.interval(0.95, 2, 1, scipy.stats.sem([0, 1, 2]))
    own = f"+1.00 [{low:.2f}, {high:.2f}]"
    assert table.strangers.tolist() == [own, own, "+0.00 [0.00, 0.00]"]
    expected = ["+41.00", "+101.00", "-60.00"]
    assert table["closest pairs"].str.partition(" ")[0].tolist() == expected
    assert table.n.tolist() == [3, 3, 3]


def test_densities_of_views_of_images_are_means_over_crops():
    config = TrainConfig(
        data=Images(
            n_train=3,
            augmentation=ImageAugmentation(
                crop_scale=(0.7, 1.0), flip=0.0, then=(Noise(scale=4.0),)
            ),
        ),
        backbone=MLP(width=4),
    )
    found = density_ratio.image_pairs(config, 4, crops=2000)
    assert found.pairs.T.shape == (8,)
    difference = (found.again - found.pairs.T).abs().max()
    assert 0 < difference < 0.1
    templates = torch.rand(6, 5).double()
    x = torch.rand(4, 5).double()
    log_a = density_ratio._log_mean_noise(templates, x, 0.7, 2)
    for image, view in itertools.product(range(3), range(4)):
        crops = templates[2 * image : 2 * image + 2]
        densities = [math.exp(-((x[view] - crop) ** 2).sum() / (2 * 0.49)) for crop in crops]
        assert log_a[image, view].item() == pytest.approx(math.log(sum(densities) / 2))


# --- maps ----------------------------------------------------------------------------------------


TWO_PAIRS = np.array([[0.0], [1.0], [10.0], [11.0]])


@pytest.mark.parametrize(("n", "k"), [(40, 10), (40, 1), (30, 3), (8, 10)])
def test_leave_one_out_point_by_point(n, k):
    rng = np.random.default_rng(n * k)
    labels = rng.choice(3, n, p=[0.6, 0.2, 0.2])
    z = rng.standard_normal((n, 2)) + labels[:, None]
    right = 0
    for i in range(n):
        distances = {j: math.dist(z[i], z[j]) for j in range(n) if j != i}
        nearest = sorted(distances, key=distances.__getitem__)[:k]
        votes = labels[nearest].tolist()
        winner = max(range(3), key=votes.count)
        right += winner == labels[i]
    assert leave_one_out(z, labels, k) == pytest.approx(right / n)
    assert 0 < right < n


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 1, -1, 0])}, "^labels must be class numbers from 0, got -1"),
        ({"labels": np.array([0, 1, 0])}, "^labels must be one for each row of z, 4, got 3"),
        (
            {"z": np.array([[0.0], [1], [np.nan], [11]])},
            "^z must be finite, got NaN or infinity in 1 of 4 rows, first in row 2",
        ),
        (
            {"z": np.zeros((1, 2)), "labels": np.array([0])},
            r"^z must have shape \(n, d\) with n >= 2",
        ),
    ],
)
def test_leave_one_out_names_what_cannot_be(change, message):
    good = {"z": TWO_PAIRS, "labels": np.array([0, 0, 1, 1])}
    assert leave_one_out(**good, k=1) == 1
    z, labels = TWO_PAIRS.astype(np.float16), good["labels"].astype(np.uint8)
    assert leave_one_out(z, labels, 1) == 1
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(leave_one_out)(**good | change)


def test_no_point_votes_for_itself():
    assert leave_one_out(TWO_PAIRS, np.array([0, 1, 0, 1]), 1) == 0


def test_thumbnails_stand_where_their_points_are_in_the_colour_of_their_class():
    """Eight points on the middles of 3 × 3 squares; a ninth, farther from its, loses its square."""
    middles = set(itertools.product(range(3), repeat=2)) - {(1, 2)}
    places = [(1.3, 1.2), *sorted(middles)]
    ends = 2 * [(-0.5, -0.5), (2.5, 2.5)]  # twice, so that what is cut off begins there
    z = 10.0 * np.array([*places, *ends])
    images = np.full((len(z), 2, 4), 0.5)
    images[:, 0, 0] = 1.0  # the upper left pixel
    images[0] = 0.25
    images[-4:] = 0
    labels = np.arange(len(z)) % 10
    axis = Figure().subplots()
    figures.thumbnails(axis, z, images, labels, squares=3)
    (canvas,) = [image.get_array() for image in axis.get_images()]
    assert canvas.shape == (3 * 2, 3 * 4, 3)
    squares = canvas.reshape(3, 2, 3, 4, 3)[::-1]  # y grows upwards
    for i, (x, y) in enumerate(sorted(middles), 1):
        square = squares[y, :, x]
        color = np.array(plotting.CLASS_COLORS[labels[i]])
        expected = 1 - images[i][..., None] * (1 - 0.9 * color)
        np.testing.assert_allclose(square, expected, err_msg="upright, in the colour of its class")
    assert (canvas[0:2, 4:8] == 1).all(), "where there is no point there is no image"


def test_the_few_points_far_from_all_others_are_cut_off_a_map_of_thumbnails():
    rng = np.random.default_rng(0)
    z = rng.uniform(0, 1, (1000, 2))
    z[-1] = [1000.0, 0.0]
    images, labels = np.ones((1000, 1, 1)), np.zeros(1000, dtype=np.int64)
    axis = Figure().subplots()
    figures.thumbnails(axis, z, images, labels, squares=5)
    (canvas,) = [image.get_array() for image in axis.get_images()]
    assert (canvas < 1).any(2).all(), "every square holds an image"


def test_maps_are_those_of_runs_and_of_t_sne():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((40, 2)).astype(np.float32)
    config = cloud_run(on_cloud(Noise(scale=0.3)))
    records = {name: [Record(config, {}, {"z_test": z})] for name in ("SimCLR", "Cauchy")}
    pixels = rng.random((40, 5)).astype(np.float32)
    maps = analysis.maps(records, pixels, 0)
    assert list(maps) == ["SimCLR", "Cauchy", "t-SNE of pixels"]
    assert maps["Cauchy"][0] is z
    (on_circle,) = maps["SimCLR"]
    np.testing.assert_allclose(np.hypot(*on_circle.T), 1, rtol=1e-6)
    directions = z / np.hypot(*z.T)[:, None]
    np.testing.assert_allclose(on_circle, directions, rtol=1e-5)
    assert maps["t-SNE of pixels"][0].shape == (40, 2)


def test_scores_of_maps_have_intervals_where_there_are_seeds():
    labels = np.repeat([0, 1], 20)
    apart = labels[:, None] + np.zeros((40, 2))
    mixed = np.random.default_rng(0).standard_normal((40, 2))
    maps = {"one": [apart], "two": [apart, mixed]}
    table = analysis.map_scores(maps, labels)
    mean = (1 + leave_one_out(mixed, labels)) / 2
    assert table["10-NN"].tolist() == [1, mean]
    assert table["95 % low"].isna().tolist() == [True, False]
    assert table.n.tolist() == [1, 2]
    assert table.images.tolist() == [40, 40]


def test_digits_are_trained_as_long_as_the_rest_and_five_times_as_long():
    p = resolve("07_augmentation_graph", {"scale": "smoke"})
    runs = p.digits_runs()
    steps = [group[0].epochs * group[0].data.steps_per_epoch for group in runs.values()]
    assert steps == [p.fit_steps, 5 * p.fit_steps]
    fitted = density_ratio.fits({key: group[:1] for key, group in runs.items()}, 20)
    table = density_ratio.digits_table(fitted)
    first, longer = (table[table.data == data] for data in ("digits", "digits, longer"))
    assert first.step.tolist()[-1] == p.fit_steps
    assert longer.step.tolist()[-1] == 5 * p.fit_steps
    assert table.step.tolist()[-1] == "raw input, best scale"
