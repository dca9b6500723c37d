"""Identities of contrastive losses and SNE, forces, and what is read out of runs."""

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import data_of, normal, train_run, unchecked

import sscl_core.train as loop
from sscl_core.affinities import positive_pairs
from sscl_core.config import MLP, ConvNet, Images, Mixture, Projector, TrainConfig, scattered
from sscl_core.losses import sne_objective
from sscl_core.similarities import Student, log_q_cosine, log_q_student, squared_distances
from sscl_experiments.arrangements import regular_simplex, uniform_arrangement
from sscl_experiments.record import Record
from sscl_experiments.studies.contrastive_is_sne import analysis, figures
from sscl_experiments.studies.contrastive_is_sne.analysis import IDENTITIES, first_batch
from sscl_experiments.studies.contrastive_is_sne.parameters import SETTINGS
from sscl_experiments.study import all_claims, resolve


def toy(**changes) -> TrainConfig:
    small = {
        "data": Mixture(means=scattered(3), steps_per_epoch=2),
        "backbone": MLP(width=8),
        "projector": Projector(hidden=0, dim=2),
        "epochs": 1,
        "batch_size": 8,
    }
    return TrainConfig(**small | changes)


def images(**changes) -> TrainConfig:
    small = {
        "data": Images(n_train=32, holdout=0.02),
        "backbone": ConvNet(width=2),
        "projector": Projector(hidden=8, dim=2),
        "epochs": 1,
        "batch_size": 16,
    }
    return TrainConfig(**small | changes)


# --- the first batch -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        toy,
        images,
        functools.partial(images, projector=Projector(dim=2, batchnorm=True)),
        functools.partial(toy, start_order=(0, 2, 1)),
    ],
    ids=["toy", "images", "bn", "start_order"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_first_batch_is_what_the_first_step_of_training_sees(make: Callable, seed, monkeypatch):
    config, seen, loss = make(seed=seed), [], loop.contrastive_loss
    z1, z2 = first_batch(config, data_of(config), config.batch_size)
    assert z1.dtype == z2.dtype == torch.float64
    assert not torch.allclose(z1, z2, atol=1e-3)

    def note(config, *z, **settings):
        seen.append([x.detach() for x in z])
        return loss(config, *z, **settings)

    monkeypatch.setattr(loop, "contrastive_loss", note)
    train_run(config, device="cpu")
    for found, step in zip((z1, z2), seen[0], strict=True):
        torch.testing.assert_close(found, step.double(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(z1, seen[1][0].double(), atol=1e-3), "and not what the second sees"


def test_the_first_batch_has_the_size_asked_for_and_leaves_the_random_state():
    before = torch.get_rng_state()
    z1, z2 = first_batch(images(), data_of(images()), 20)
    assert z1.shape == z2.shape == (20, 2)
    assert torch.equal(torch.get_rng_state(), before)


# --- identities and forces -----------------------------------------------------------------------


@pytest.mark.parametrize("name", IDENTITIES)
@pytest.mark.parametrize("n", [2, 5])
def test_the_objective_of_sne_is_the_loss_but_for_factor_and_constant(name, n):
    z1, z2 = analysis.free_points(n, 0).chunk(2)
    row = analysis.compare(name, z1, z2)
    assert row["loss"] == name
    assert abs(row["computed"]) > 0.1
    assert row["difference"] == row["computed"] - row["expected"]
    assert abs(row["difference"]) < 1e-12 * abs(row["computed"])
    assert row["gradient difference"] < 1e-12


def test_identities_have_a_row_a_seed_source_and_identity():
    sources = {"a": (toy(), data_of(toy())), "b": (images(), data_of(images()))}
    table = analysis.identities(sources, [3, 4], 5)
    keys = [(seed, source, name) for seed in (3, 4) for source in "ab" for name in IDENTITIES]
    assert list(table[["seed", "batch", "loss"]].itertuples(index=False, name=None)) == keys
    assert table.computed.nunique() == len(table)
    assert max(analysis.largest_differences(table)) < 1e-10
    z1, z2 = first_batch(toy(seed=4), data_of(toy()), 5)
    expected = analysis.compare("t-SimCLR, joint", z1, z2)["computed"]
    assert table.computed[8] == expected


def test_the_largest_difference_of_a_seed_is_of_value_or_gradient():
    rows = {
        "seed": [0, 0, 1, 1],
        "difference": [0.2, -0.9, 0.1, 0.0],
        "expected": [2.0, -3.0, 1.0, 5.0],
        "gradient difference": [0.1, 0.2, 0.05, 0.7],
    }
    assert analysis.largest_differences(pd.DataFrame(rows)) == pytest.approx([0.3, 0.7])


def test_the_gradient_formula_holds_at_free_points():
    table = analysis.formula_errors(analysis.free_points(6, 1))
    assert table.loss.tolist() == list(IDENTITIES)
    assert table["relative difference to autograd"].max() < 1e-12


@pytest.mark.parametrize(("n", "drawn"), [(2, [0, 1, 2, 3]), (5, [0, 1, 2, 5, 6, 7])])
def test_forces_are_drawn_of_three_pairs_at_most(n, drawn):
    z = analysis.free_points(n, 2)
    arrays = analysis.example_forces(z)
    assert torch.equal(arrays["t-SimCLR, joint z"], z[drawn])
    on_circle = arrays["SimCLR z"]
    torch.testing.assert_close(on_circle, z[drawn] / z[drawn].norm(dim=1, keepdim=True))
    for part in ("attraction", "repulsion"):
        radial = (arrays[f"SimCLR {part}"] * on_circle).sum(1)
        torch.testing.assert_close(radial, torch.zeros(len(drawn)).double(), atol=1e-12, rtol=0)
    figures.forces(arrays).draw_without_rendering()


def test_the_pairs_that_are_drawn_are_apart():
    z = analysis.spread_pairs()
    distances = torch.pdist(z / z.norm(dim=1, keepdim=True))
    assert z.shape == (6, 2)
    assert distances.min() > 0.5
    assert distances.min() < distances.max()


def test_no_free_arrangement_is_lower_than_the_uniform_one():
    table = analysis.search_for_lower(0, per_component=2, starts=3)
    assert list(zip(table.m, table.d_z, strict=True)) == list(SETTINGS)
    assert set(table.starts) == {3}
    assert table["best - exact"].abs().max() < 1e-6
    assert (table["worst - exact"] >= table["best - exact"]).all()
    simplex = table.d_z >= table.m - 1
    assert table["exact - proved bound"][simplex].abs().max() < 1e-9, "attained"
    assert table["exact - proved bound"][~simplex].min() > 0.1, "no room for a simplex"


@pytest.mark.parametrize(("m", "r", "d"), [(3, 2, 2), (4, 3, 3), (5, 4, 6), (2, 5, 3)])
def test_nothing_falls_below_the_bound_of_the_simplex(m, r, d):
    """Random points, the simplex, and the simplex disturbed a little."""
    labels = torch.arange(m).repeat_interleave(r)
    objective, bound = analysis.average_objective(labels), analysis.simplex_bound(m, r)
    for seed in range(50):
        assert objective(normal(m * r, d, seed=seed)) > bound
    exact = regular_simplex(m, d)[labels]
    assert objective(exact).item() == pytest.approx(bound, rel=1e-12)
    for seed in range(20):
        assert objective(exact + 0.01 * normal(m * r, d, seed=seed)) > bound


# --- runs on the mixture -------------------------------------------------------------------------


def record(m: int, dim: int, seed: int = 0, **metrics) -> Record:
    """A run that ends at the optimum, its components turned by a degree for each seed."""
    exact = uniform_arrangement(m, dim)
    turn = torch.eye(dim).double()
    angle = math.radians(seed)
    rotation = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    turn[:2, :2] = torch.tensor(rotation, dtype=torch.float64)
    means = (exact @ turn).numpy()
    labels = np.repeat(np.arange(m), 25)
    after = means[np.tile(labels, 2)]
    arrays = {
        "means": np.stack([means[:1].repeat(m, 0) + 1e-3 * means, means]),
        "features": np.stack([np.roll(after, 1, axis=0), after]),
        "labels": labels,
        "alignment": np.array([0.5, 1e-4 * seed]),
    }
    config = resolve("01_contrastive_is_sne", {}).run(m, dim, seed)
    return Record(config, {"loss_gap": 0.5} | metrics, arrays)


def swapped(run: Record) -> Record:
    """The same run with components 1 and 2 at each other's places."""
    order = [0, 2, 1, 3, 4]
    means = run.arrays["means"][:, order]
    after = means[-1][np.tile(run.arrays["labels"], 2)]
    features = np.stack([run.arrays["features"][0], after])
    return Record(run.config, run.metrics, run.arrays | {"means": means, "features": features})


@pytest.mark.parametrize("run", [record(5, 2), swapped(record(5, 2))], ids=["natural", "swapped"])
def test_matrices_of_a_batch_have_neighbors_around_the_circle_side_by_side(run):
    found = analysis.batch_matrices(run)
    assert {name: matrix.shape for name, matrix in found.items()} == dict.fromkeys(
        ("P", "Q_untrained", "Q_trained"), (20, 20)
    )
    place = torch.arange(20)
    assert torch.equal(found["P"].argmax(1), place ^ 1), "a view and its partner"
    assert found["P"].sum() == 20
    Q = found["Q_trained"]
    steps = (place[:, None] // 4 - place // 4).remainder(5)
    steps = torch.minimum(steps, 5 - steps).masked_fill(torch.eye(20, dtype=torch.bool), -1)
    levels = [Q[steps == step] for step in (0, 1, 2)]
    for level in levels:
        torch.testing.assert_close(level, level[:1].expand_as(level))
    assert levels[0][0] > levels[1][0] > levels[2][0], "0°, 72° and 144°"
    assert not torch.allclose(Q, found["Q_untrained"], atol=1e-3)
    figures.p_and_q(found).draw_without_rendering()


@pytest.mark.parametrize(
    ("m", "dim", "exact"), [(5, 2, 72), (8, 2, 45), (3, 2, 120), (4, 3, 109.47)]
)
def test_the_error_of_an_angle_is_0_at_the_optimum_and_grows_with_a_turn(m, dim, exact):
    assert analysis.exact_angle(m, dim) == pytest.approx(exact, abs=0.01)
    optimum = uniform_arrangement(m, dim)
    assert analysis.angle_error(optimum) == pytest.approx(0, abs=1e-5)
    rotation = torch.linalg.qr(normal(dim, dim)).Q
    assert analysis.angle_error(optimum @ rotation) == pytest.approx(0, abs=1e-5)
    if dim == 2:
        turned = analysis._turned(optimum, 30.0)
        assert analysis.angle_error(turned) == pytest.approx(30)
        merged = analysis._turned(optimum, float(exact))
        assert analysis.angle_error(merged) == pytest.approx(exact)


def test_the_angle_between_views_is_that_of_their_chord():
    for degrees in (1.0, 30.0, 180.0):
        chord = 2 * math.sin(math.radians(degrees) / 2)
        assert analysis.view_angle(chord**2) == pytest.approx(degrees)


def test_shares_are_the_larger_error_of_the_worst_setting_of_each_seed():
    runs = {(m, dim): [record(m, dim, seed) for seed in range(3)] for m, dim in ((5, 2), (8, 7))}
    expected = [math.degrees(math.sqrt(1e-4 * seed)) / 72 for seed in range(3)]
    assert analysis.largest_shares(runs) == pytest.approx(expected, abs=1e-5)
    curves = analysis.share_histories(runs)
    assert list(curves) == ["m=5, d_z=2", "m=8, d_z=7"]
    assert curves["m=5, d_z=2"].shape == (3, 2)
    assert curves["m=5, d_z=2"][:, 0].min() > 1, "all in one place before"
    table = analysis.beside_the_optimum(runs).set_index(["m", "d_z"])
    assert table.loc[(5, 2), "exact angle (°)"] == 72
    assert table["largest error of an angle (°)"].max() < 1e-4
    assert table.loc[(5, 2), "larger, share"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert table["loss gap"].tolist() == [0.5, 0.5]
    every = {setting: [record(*setting), record(*setting, 1)] for setting in SETTINGS}
    figures.approach(analysis.share_histories(every), 0.05, 30).draw_without_rendering()
    cosines = analysis.component_cosines(runs[8, 7])
    assert cosines.shape == (3, 8, 8)
    figures.polygon_and_simplex(runs[5, 2][0], cosines[0]).draw_without_rendering()


def test_arrangements_that_are_not_the_optimum_do_not_pass_the_rule():
    table = analysis.null_shares({(5, 2): [record(5, 2)]}).set_index("")
    assert table["larger share"]["one corner 30° off"] == pytest.approx(30 / 72)
    assert table["larger share"]["two corners merged"] == pytest.approx(1)
    assert table["larger share"].min() > 8 * all_claims()["C2"].threshold
    assert table["loss gap"]["one corner 30° off"] < 0.05, "which the old rule took for a pentagon"


def test_runs_are_of_every_setting_with_every_seed():
    p = resolve("01_contrastive_is_sne", {"scale": "smoke", "seeds": 3, "seed": 5})
    runs = p.mixture_runs()
    assert tuple(runs) == SETTINGS
    for (m, dim), group in runs.items():
        assert [run.seed for run in group] == [5, 6, 7]
        assert {run.projector.dim for run in group} == {dim}
        assert {len(run.data.means) for run in group} == {m}
    assert p.runs() == [run for group in runs.values() for run in group]


# --- forces at free points ------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["joint", "conditional"])
def test_attraction_and_repulsion_are_the_gradient(normalization):
    """For any P, not only that of pairs. The one-sided sum is no gradient where rows sum to 1."""
    z = normal(7, 3).requires_grad_()
    P = torch.rand(
        7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).fill_diagonal_(0)
    P = P / (P.sum() if normalization == "joint" else P.sum(1, keepdim=True))
    log_Q = log_q_student(z, temperature=0.7, df=3.0, normalization=normalization)
    (gradient,) = torch.autograd.grad(sne_objective(P, log_Q), z)
    slope = Student(0.7, 3.0).slope(squared_distances(z))
    attraction, repulsion = analysis.attraction_repulsion(P, log_Q.exp(), z, slope)
    assert gradient.abs().max() > 1e-3
    assert torch.allclose(attraction + repulsion, gradient, atol=1e-12)
    one_sided = 4 * torch.einsum("ij,ijd->id", slope * (P - log_Q.exp()), z[:, None] - z[None])
    assert not torch.allclose(one_sided, gradient, atol=1e-3)


def test_attraction_pulls_towards_the_other_view():
    z = torch.tensor([[0.0, 0], [1, 0]], dtype=torch.float64)
    attraction, repulsion = analysis.attraction_repulsion(
        positive_pairs(1), positive_pairs(1), z, 0.5
    )
    assert torch.equal(-attraction, torch.tensor([[2.0, 0], [-2, 0]], dtype=torch.float64))
    assert torch.equal(repulsion, -attraction)


def test_gradient_through_normalization():
    z = normal(7, 3).requires_grad_()
    u = torch.nn.functional.normalize(z, dim=1)
    objective = sne_objective(
        torch.full((7, 7), 1 / 6, dtype=torch.float64).fill_diagonal_(0), log_q_cosine(u)
    )
    to_u, to_z = torch.autograd.grad(objective, [u, z])
    assert torch.allclose(analysis.through_normalization(z, to_u), to_z, atol=1e-12)


plain = unchecked("sscl_experiments.studies.contrastive_is_sne.analysis")
Z, SQUARE = normal(5, 3), normal(5, 5)
FORCES = partial(plain.attraction_repulsion, P=SQUARE, Q=SQUARE, z=Z, slope=0.5)
THROUGH = partial(plain.through_normalization, z=Z, gradient=Z)


def with_row_of(value, row=2):
    return Z.index_fill(0, torch.tensor(row), value)


BAD = [
    (
        THROUGH,
        {"z": with_row_of(0.0)},
        ValueError,
        "z has a row of zeros, row 2, which has no direction",
    ),
    (THROUGH, {"z": with_row_of(math.nan)}, ValueError, "z must be finite"),
    (THROUGH, {"z": Z[0]}, ValueError, "z must have shape (N, d), N and d at least 1, got (3,)"),
    (THROUGH, {"z": Z.long()}, TypeError, "z must be a floating-point tensor, got torch.int64"),
    (THROUGH, {"gradient": Z[:2]}, ValueError, "gradient must have shape (5, 3), got (2, 3)"),
    (THROUGH, {"gradient": None}, TypeError, "gradient must be a floating-point tensor"),
    (FORCES, {"P": SQUARE[:2]}, ValueError, "P must have shape (5, 5), got (2, 5)"),
    (FORCES, {"Q": SQUARE.tolist()}, TypeError, "Q must be a floating-point tensor, got list"),
    (FORCES, {"z": Z[:0]}, ValueError, "z must have shape (N, d), N and d at least 1, got (0, 3)"),
    (FORCES, {"slope": torch.ones(2)}, ValueError, "slope must have shape (5, 5), got (2,)"),
    (FORCES, {"slope": "1"}, TypeError, "slope must be a number"),
]


@pytest.mark.parametrize(("function", "arguments", "error", "message"), BAD, ids=range(len(BAD)))
def test_forces_of_bad_input(function, arguments, error, message):
    with pytest.raises(error) as caught:
        function(**arguments)
    assert type(caught.value) is error
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "number", [np.float32(1.5), np.int64(3), Fraction(3, 2)], ids=lambda x: type(x).__name__
)
def test_any_real_number_is_a_slope(number):
    ours = plain.attraction_repulsion(SQUARE, SQUARE, Z, number)
    theirs = analysis.attraction_repulsion(SQUARE, SQUARE, Z, float(number))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
