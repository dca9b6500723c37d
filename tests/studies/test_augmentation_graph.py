"""The augmentation graph, how far features agree with its eigenvectors, and maps with images."""

import inspect
import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers import cloud_run, normal, on_cloud
from matplotlib.figure import Figure
from scipy import stats
from sscl_experiments.studies.augmentation_graph.loss_family import LOSSES

from sscl_core.affinities import noise_masses
from sscl_core.config import Mixup, Noise
from sscl_core.train import initial_network
from sscl_experiments import plotting
from sscl_experiments.record import Record
from sscl_experiments.runs.points import point_set
from sscl_experiments.studies.augmentation_graph import analysis, figures
from sscl_experiments.studies.augmentation_graph.analysis import (
    leave_one_out,
    principal_cosines,
    squared_cosines,
)


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
    "cells": (analysis.cell_graph, Mixup(strength=1.0), 1),
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
    graph_of.cache_clear()
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
    graph = analysis.cell_graph(on_cloud(Noise(scale=1e-6)), 0, 4)
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
    spectra, angles = analysis.learned({("cloud, noise", "SimCLR"): configs})
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
    assert last.eigenvector.tolist() == list(range(1, analysis.EIGENVECTORS + 1))
    top = principal_cosines(z, graph.vectors[:, :2], graph.mass)
    angle = math.degrees(math.acos(top[1]))
    assert angles["2"][1] == pytest.approx(angle, abs=1e-3)
    assert list(angles.columns) == ["data", "loss", "seed", "2"], "the constant's is left out"
    means = analysis.mean_angles(angles)
    assert means["2"].tolist() == pytest.approx([angles["2"].mean()])


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_of_densities_for_noise_and_counted_for_the_rest(name):
    expected, step, _ = GRAPHS[name]
    data = on_cloud(step)
    graph = analysis.graph_of(cloud_run(data, seed=3), 3)
    assert graph is expected(data, 3, 3)


# --- forces --------------------------------------------------------------------------------------


def test_forces_of_every_loss_are_parts_of_its_gradient():
    measured = analysis.measured_forces(3, n=4)
    assert measured.Z.shape == (8, 2)
    assert measured.parts.keys() == LOSSES.keys()
    for name, (pull, push) in measured.parts.items():
        Z = measured.Z.clone().requires_grad_()
        terms = LOSSES[name].loss(*Z.chunk(2))
        (gradient,) = torch.autograd.grad(terms.loss, Z)
        torch.testing.assert_close(pull + push, gradient)
        assert torch.equal(measured.arrays[f"{name}: attraction"], pull)
    figures.forces(measured).draw_without_rendering()


def test_the_table_of_forces_by_hand():
    measured = analysis.measured_forces(3, n=4)
    pull = torch.zeros(8, 2, dtype=torch.float64)
    push = -(measured.Z - measured.Z.mean(0))
    push[0] *= -1
    pull[1] = push[1]
    parts = {"InfoNCE": measured.parts["InfoNCE"], "SNE": (pull, push)}
    own = analysis.Forces(measured.Z, parts)
    table = analysis.force_table(own).set_index("loss")
    row = table.loc["SNE"]
    assert row["outward"] == 7 / 8
    ratio = push.norm() / pull.norm()
    assert row["repulsion / attraction"] == pytest.approx(ratio.item())
    assert table.loc["InfoNCE", "like InfoNCE"] == pytest.approx(1)
    assert row["like InfoNCE"] < 1
    assert row["source"] == LOSSES["SNE"].source


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
