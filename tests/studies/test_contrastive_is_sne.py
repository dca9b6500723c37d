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
from sscl_experiments.arrangements import uniform_arrangement
from sscl_experiments.record import Record
from sscl_experiments.studies.contrastive_is_sne import analysis, figures
from sscl_experiments.studies.contrastive_is_sne.analysis import IDENTITIES, first_batch
from sscl_experiments.study import resolve


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


def test_no_free_arrangement_is_lower_than_the_uniform_one():
    table = analysis.search_for_lower(0, per_component=2, starts=3)
    assert table.d_z.tolist() == [2, 4]
    assert table.starts.tolist() == [3, 3]
    assert table["best - exact"].abs().max() < 1e-6
    assert (table["worst - exact"] >= table["best - exact"]).all()


# --- runs on the mixture -------------------------------------------------------------------------


def record(dim: int, seed: int = 0, **metrics) -> Record:
    """A run that ends at the optimum, its components turned by a degree for each seed."""
    exact = uniform_arrangement(5, dim)
    turn = torch.eye(dim).double()
    angle = math.radians(seed)
    rotation = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    turn[:2, :2] = torch.tensor(rotation, dtype=torch.float64)
    means = (exact @ turn).numpy()
    labels = np.repeat(np.arange(5), 25)
    after = means[np.tile(labels, 2)]
    values = {"alignment": 0.1 * seed, "uniformity": -1.0, "loss": 3.0, "loss_gap": 0.5}
    values |= {"uniformity_exact": -2.0, "loss_exact": 2.5}
    arrays = {
        "means": np.stack([means[::-1], means]),
        "features": np.stack([np.roll(after, 1, axis=0), after]),
        "labels": labels,
        "alignment": np.array([0.5, 0.1 * seed]),
        "uniformity": np.array([-0.5, -1.0]),
        "evaluation_loss": np.array([4.0, 3.0]),
    }
    config = resolve("01_contrastive_is_sne", {}).run(dim, seed)
    return Record(config, values | metrics, arrays)


def test_matrices_of_a_batch_are_of_two_pairs_of_each_component():
    found = analysis.batch_matrices(record(2))
    assert {name: matrix.shape for name, matrix in found.items()} == dict.fromkeys(
        ("P", "Q_untrained", "Q_trained"), (20, 20)
    )
    partners = found["P"].argmax(1)
    assert partners.tolist() == [*range(10, 20), *range(10)]
    Q = found["Q_trained"]
    labels = torch.arange(5).repeat_interleave(2).repeat(2)
    same = (labels[:, None] == labels).fill_diagonal_(False)
    torch.testing.assert_close(Q[same], Q[same][:1].expand(60))
    assert Q[same].min() > Q[~same].max()
    assert not torch.allclose(Q, found["Q_untrained"], atol=1e-3)
    figures.p_and_q(found).draw_without_rendering()


def test_runs_that_reach_the_optimum_have_its_angles_and_cosines():
    runs = {dim: [record(dim, seed) for seed in range(3)] for dim in (2, 4)}
    table = analysis.beside_the_optimum(runs).set_index("quantity")
    errors = table[table.index.str.startswith("largest error")]
    assert errors.computed.tolist() == pytest.approx([0, 0], abs=1e-9)
    assert list(table.columns) == ["computed", "95 % low", "95 % high", "expected"]
    for dim in (2, 4):
        assert table.loc[f"alignment, d_z={dim}"].tolist() == pytest.approx(
            [0.1, 0.1 - 0.2484, 0.1 + 0.2484, 0], abs=1e-4
        )
        assert table.loc[f"uniformity, d_z={dim}"].tolist() == [-1, -1, -1, -2]
        assert table.loc[f"InfoNCE, d_z={dim}"].tolist() == [3, 3, 3, 2.5]
    cosines = analysis.component_cosines(runs[4])
    assert cosines.shape == (3, 5, 5)
    curves = analysis.histories(runs)
    assert curves["alignment, d_z=4"].tolist() == [[0.5, 0.0], [0.5, 0.1], [0.5, 0.2]]
    assert len(curves) == 6
    figures.polygon_and_simplex(runs[2][0], cosines[0]).draw_without_rendering()
    figures.training_curves(curves, runs).draw_without_rendering()


def test_the_largest_gap_of_a_seed_is_over_both_numbers_of_features():
    runs = {
        2: [record(2, seed, loss_gap=gap) for seed, gap in enumerate((0.1, 0.4))],
        4: [record(4, seed, loss_gap=gap) for seed, gap in enumerate((0.3, 0.2))],
    }
    assert analysis.largest_gaps(runs) == [0.3, 0.4]


def test_runs_are_of_both_numbers_of_features_with_every_seed():
    p = resolve("01_contrastive_is_sne", {"scale": "smoke", "seeds": 3, "seed": 5})
    runs = p.mixture_runs()
    assert list(runs) == [2, 4]
    for dim, group in runs.items():
        assert [run.seed for run in group] == [5, 6, 7]
        assert {run.projector.dim for run in group} == {dim}
    assert p.runs() == runs[2] + runs[4]


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
