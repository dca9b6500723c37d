"""What notebooks read out of runs: orders, ranks and groups, on records made by hand."""

import inspect
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from sscl_core.config import MLP, Cloud, InfoNCE, Noise, Points, Table, TrainConfig, TSimCLR
from sscl_core.evaluate import accuracy, knn, linear_probe
from sscl_core.train import point_set, train
from sscl_experiments import frames, plotting, study
from sscl_experiments.frames import frame_by
from sscl_experiments.store import Record
from sscl_experiments.studies.augmentation_graph import figures
from sscl_experiments.studies.augmentation_graph.analysis import leave_one_out
from sscl_experiments.studies.domain_agnostic_augmentations import figures
from sscl_experiments.studies.domain_agnostic_augmentations.analysis import chosen, raw_scores
from sscl_experiments.studies.implicit_bias.analysis import (
    class_groups,
    evenly,
    film,
    grouping_test,
    in_order,
    leaving,
    orders,
    placement_rank,
    placement_ranks,
)
from sscl_experiments.studies.implicit_bias.parameters import line, order_run
from sscl_experiments.studies.t_simclr.analysis import (
    accuracies,
    changes,
    crossing,
    paired,
    pixel_scores,
    regret,
    smallest_dims,
    summary,
    weight_effects,
)


def record(*angles, means=None):
    """A run whose components stand at these angles, in degrees, before and after training."""
    config = order_run({"data": {"means": means or line(*range(len(angles[0])))}}, steps=50)
    places = np.array(
        [[[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in row] for row in angles]
    )
    return Record(config, {}, {"means": places})


@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        ((0, 90, 180, 270), True),
        ((50, 320, 230, 140), True),
        ((0, 180, 90, 270), False),
        ((10, 20, 30, 25), False),
        ((10, 20, 30, 40), True),
        ((7, 7, 7, 7), False),
        ((0, 90, 180, 180), False),
    ],
)
def test_in_order_is_the_natural_cycle_in_either_sense(angles, expected):
    assert in_order([record((0, 180, 90, 270), angles)]).tolist() == [[False, expected]]


@pytest.mark.parametrize(
    ("angles", "expected"),
    [((0, 90, 180, 270), True), ((0, 46, 180, 270), True), ((0, 44, 180, 270), False)],
)
def test_evenly_is_every_gap_at_least_half_an_even_one(angles, expected):
    assert evenly([record((0, 1, 2, 3), angles)]).tolist() == [expected]


def test_placement_ranks_against_all_assignments_one_by_one():
    rng = np.random.default_rng(0)
    runs = [
        record(*angles, means=line(0.3, 1, 2.5, 2.6, 7))
        for angles in rng.uniform(0, 360, (4, 1, 5)).tolist()
    ]
    for run, rank in zip(runs, placement_ranks(runs), strict=True):
        x, z = np.array(run.config.data.means)[:, 0], run.arrays["means"][-1]
        pairs = list(itertools.combinations(range(5), 2))
        costs = [
            sum(math.dist(z[p[i]], z[p[j]]) / abs(x[i] - x[j]) for i, j in pairs)
            for p in itertools.permutations(range(5))
        ]
        assert rank == pytest.approx(np.mean([cost < costs[0] - 1e-9 for cost in costs]))
        assert 0 < rank < 1


def test_placement_rank_of_ties_is_that_of_the_best_of_them():
    assert placement_ranks([record((0, 90, 180, 270))]).tolist() == [0], (
        "eight of the 24 are the same square"
    )
    assert placement_ranks([record((0, 180, 90, 270))]).tolist() == [16 / 24], (
        "and this one is the worst of three"
    )


def test_grouping_test_against_a_naive_count():
    similarity = np.random.default_rng(1).standard_normal((6, 6))
    similarity = similarity + similarity.T
    groups = torch.tensor([0, 0, 0, 1, 1, -1])

    def contrast(g):
        pairs = list(itertools.combinations(range(6), 2))
        within = [similarity[i, j] for i, j in pairs if g[i] == g[j] >= 0]
        return np.mean(within) - np.mean(
            [similarity[i, j] for i, j in pairs if not g[i] == g[j] >= 0]
        )

    everyway = [contrast(g) for g in set(itertools.permutations(groups.tolist()))]
    assert len(everyway) == 60
    result = grouping_test(similarity, groups)
    assert result["within − across"] == pytest.approx(contrast(groups.tolist()))
    assert result["p"] == pytest.approx(
        np.mean(np.array(everyway) >= contrast(groups.tolist()) - 1e-9)
    )
    assert result["95th percentile"] == pytest.approx(np.quantile(everyway, 0.95))


def test_class_groups_number_the_groups_and_leave_the_rest_out():
    assert class_groups(("a", "b", "c", "d"), {"first": ("d", "a"), "second": ("b",)}).tolist() == [
        0,
        1,
        -1,
        0,
    ]


def test_class_groups_that_name_no_class_are_refused():
    with pytest.raises(ValueError, match=r"classes among \['a', 'b'\], got \['c'\]"):
        class_groups(("a", "b"), {"first": ("a", "c")})


def test_leaving_counts_who_ends_elsewhere_and_where():
    """From ACBD: two end in ABCD, one in ABDC, one comes back after a loss above the wall."""
    start = (0, 180, 90, 270)
    ends = [(0, 90, 180, 270), (0, 90, 180, 270), (0, 90, 270, 180), start]
    losses = [[9, 1, 1], [9, 5, 1], [9, 5, 1], [9, 5, 1]]
    runs = [record(start, start, end) for end in ends]
    for run, loss, gap in zip(runs, losses, (0.1, 0.2, 0.6, 0.4), strict=True):
        run.arrays["evaluation_loss"] = np.array(loss, dtype=float)
        run.metrics["loss_gap"] = gap
    assert orders(runs, "ABCD") == ["ABCD", "ABCD", "ABDC", "ACBD"]
    assert orders(runs, "ABCD", 0) == ["ACBD"] * 4
    assert list(leaving(runs, "ABCD", wall=4.0).values()) == pytest.approx(
        [3 / 4, 2 / 3, 2 / 3, 1, 0.2, 0.4]
    )
    stayed = list(leaving(runs[3:], "ABCD", wall=4.0).values())
    assert (stayed[0], stayed[3]) == (0, 1)
    assert all(math.isnan(stayed[i]) for i in (1, 2, 4)), "of those that leave, where none does"


@pytest.mark.parametrize("changes", [{}, {"data": {"anonymous": 3}, "backbone": {"depth": 0}}])
def test_a_film_ends_with_the_features_of_the_trained_network(changes):
    config = order_run(changes, steps=100)
    history, labels, network = film(config)
    assert history.shape == (3, 4 * 32, 2)
    assert labels.bincount().tolist() == [32] * 4
    assert (history[0] - history[-1]).abs().max() > 0.01
    alone = train(config, device="cpu").model
    for ours, theirs in zip(network.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_base_setting_is_the_paper_s_four_components():
    data = study.resolve("03_implicit_bias", {}).base_runs()[0].data
    assert (data.means, data.std) == (((1.0,), (2.0,), (3.0,), (4.0,)), 0.1)


def test_a_rank_is_not_computed_over_too_many_assignments():
    with pytest.raises(ValueError, match="at most 9 points, got 10"):
        placement_rank(torch.rand(10, 1), torch.rand(10, 2))


# --- tables of runs ------------------------------------------------------------------------------


def scored(seed, **metrics):
    return Record(order_run({}, steps=50).model_copy(update={"seed": seed}), metrics)


def test_frame_by_has_a_row_a_record_and_the_parts_of_its_key():
    records = {
        ("a", 0.5): [scored(0, loss=1.0), scored(7, loss=2.0)],
        ("b", 0.1): [scored(3, loss=3.0, gap=4.0)],
        ("c", 0.2): [],
    }
    table = frame_by(records, ["name", "scale"])
    assert list(table.columns) == ["name", "scale", "seed", "loss", "gap"]
    assert table[["name", "scale", "seed", "loss"]].to_numpy().tolist() == [
        ["a", 0.5, 0, 1.0],
        ["a", 0.5, 7, 2.0],
        ["b", 0.1, 3, 3.0],
    ]
    assert table.gap.isna().tolist() == [True, True, False]


@pytest.mark.parametrize("names", [["name"], ["name", "scale", "more"]])
def test_frame_by_asks_for_a_name_for_each_part_of_a_key(names):
    with pytest.raises(ValueError, match="zip"):
        frame_by({("a", 0.5): [scored(0)]}, names)


def test_the_setting_chosen_has_the_best_mean_over_seeds_within_its_group():
    """Of group "u" the second setting has the best seed, but the first the best mean; of "t" all are equal."""
    scores = {
        ("u", 9): (0.6, 0.8),
        ("u", 1): (0.1, 1.0),
        ("u", 5): (0.5, 0.5),
        ("t", 5): (0.3, 0.3),
        ("t", 9): (0.3, 0.3),
        ("t", 1): (0.3, 0.3),
    }
    rows = [
        (g, s, seed, score)
        for (g, s), values in scores.items()
        for seed, score in enumerate(values)
    ]
    table = pd.DataFrame(rows, columns=["group", "setting", "seed", "score"]).assign(
        other=range(12)
    )
    best = chosen(table, ["group"], "setting", "score")
    assert list(best.columns) == list(table.columns)
    assert best.to_numpy().tolist() == [
        ["u", 9, 0, 0.6, 0],
        ["u", 9, 1, 0.8, 1],
        ["t", 5, 0, 0.3, 6],
        ["t", 5, 1, 0.3, 7],
    ]


def test_settings_are_chosen_within_every_combination_of_groups():
    rng = np.random.default_rng(0)
    keys = list(itertools.product("xy", (1, 2), ("weak", "strong", "none"), range(4)))
    table = pd.DataFrame(keys, columns=["a", "b", "setting", "seed"]).assign(
        score=rng.random(len(keys))
    )
    best = chosen(table, ["a", "b"], "setting", "score")
    picked = set()
    for a, b in itertools.product("xy", (1, 2)):
        means = {
            s: np.mean([r.score for r in table.itertuples() if (r.a, r.b, r.setting) == (a, b, s)])
            for s in ("weak", "strong", "none")
        }
        picked |= {(a, b, max(means, key=means.get), seed) for seed in range(4)}
    assert set(best[["a", "b", "setting", "seed"]].itertuples(index=False, name=None)) == picked
    assert len(best) == 16
    assert len({setting for _, _, setting, _ in picked}) > 1


# --- baselines -----------------------------------------------------------------------------------


def on(points, seed=0):
    return TrainConfig(
        data=Points(points=points, augmentation=(Noise(scale=0.1),)), backbone=MLP(), seed=seed
    )


@pytest.mark.parametrize(
    ("points", "dim", "expected"),
    [
        (Table(table="iris"), None, 2),
        (Table(table="wine"), None, 6),
        (Table(table="digits"), None, 16),
        (Table(table="wine"), 3, 3),
        (Cloud(dim=40, n_train=60), None, 16),
        (Cloud(dim=40, n_train=60), 20, 20),
    ],
)
def test_raw_scores_are_of_the_data_and_of_the_principal_components_that_scikit_learn_finds(
    points, dim, expected, monkeypatch
):
    seen = []

    def note(x, labels, test):
        seen.append((x, labels, test))
        return torch.zeros(len(test), dtype=torch.int64)

    monkeypatch.setattr(frames, "knn", note)
    monkeypatch.setattr(frames, "linear_probe", note)
    config = on(points, seed=2)
    raw_scores(config, dim)
    data = point_set(config)
    assert len(seen) == 4
    assert all(labels is data.train.labels for _, labels, _ in seen)
    for x, _, test in seen[:2]:
        assert torch.equal(x, data.train.x)
        assert torch.equal(test, data.test.x)
    pca = PCA(expected, svd_solver="full").fit(data.train.x.double().numpy())
    for ours in seen[2:]:
        for z, part in zip(ours[::2], (data.train, data.test), strict=True):
            theirs = torch.from_numpy(pca.transform(part.x.double().numpy()))
            assert z.shape == theirs.shape
            signs = (z.double() * theirs).sum(0).sign()
            torch.testing.assert_close(z.double(), signs * theirs, atol=1e-3, rtol=0)


def test_raw_scores_are_accuracies_on_the_test_part():
    config = on(Cloud(dim=6, std=0.5, components=3, n_train=80), seed=5)
    raw, pca = raw_scores(config)
    assert [(row["method"], row["seed"]) for row in (raw, pca)] == [("raw", 5), ("PCA", 5)]
    data = point_set(config)
    train, labels, test = data.train.x, data.train.labels, data.test.x
    assert raw["knn_h_test"] == accuracy(knn(train, labels, test, k=10), data.test.labels)
    assert raw["probe_h_test"] == accuracy(linear_probe(train, labels, test), data.test.labels)
    components = PCA(3, svd_solver="full").fit(train.numpy())
    z, z_test = (torch.from_numpy(components.transform(x.numpy())) for x in (train, test))
    assert pca["knn_h_test"] == pytest.approx(
        accuracy(knn(z, labels, z_test, k=10), data.test.labels), abs=0.003
    )
    assert pca["probe_h_test"] == pytest.approx(
        accuracy(linear_probe(z, labels, z_test), data.test.labels), abs=0.003
    )
    assert 0.5 < raw["knn_h_test"] != pca["knn_h_test"]


@pytest.mark.parametrize(("n", "k"), [(40, 10), (40, 1), (30, 3), (8, 10)])
def test_leave_one_out_point_by_point(n, k):
    rng = np.random.default_rng(n * k)
    labels = rng.choice(3, n, p=[0.6, 0.2, 0.2])
    z = rng.standard_normal((n, 2)) + labels[:, None]
    right = 0
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: math.dist(z[i], z[j]))[:k]
        votes = [sum(labels[j] == c for j in others) for c in range(3)]
        right += votes.index(max(votes)) == labels[i]
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
    good = {"z": np.array([[0.0], [1], [10], [11]]), "labels": np.array([0, 0, 1, 1])}
    assert leave_one_out(**good, k=1) == 1
    assert leave_one_out(good["z"].astype(np.float16), good["labels"].astype(np.uint8), 1) == 1
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(leave_one_out)(**good | change)


def test_no_point_votes_for_itself():
    assert leave_one_out(np.array([[0.0], [1], [10], [11]]), np.array([0, 1, 0, 1]), 1) == 0


# --- pictures ------------------------------------------------------------------------------------


def test_thumbnails_stand_where_their_points_are_in_the_colour_of_their_class():
    """Eight points on the middles of 3 × 3 squares; a ninth, farther from its middle, loses its square."""
    places = [(1.3, 1.2), *((x, y) for x in range(3) for y in range(3) if (x, y) != (1, 2))]
    ends = 2 * [(-0.5, -0.5), (2.5, 2.5)]  # twice, so that what is cut off begins there
    z = 10.0 * np.array([*places, *ends])
    images = np.full((len(z), 2, 4), 0.5)
    images[:, 0, 0] = 1.0  # the upper left pixel
    images[0] = 0.25
    images[-4:] = 0
    labels = np.arange(len(z)) % 10
    axis = Figure().subplots()
    figures.thumbnails(axis, z, images, labels, cells=3)
    (canvas,) = [image.get_array() for image in axis.get_images()]
    assert canvas.shape == (3 * 2, 3 * 4, 3)
    for i, (x, y) in list(enumerate(places))[1:]:
        top = 2 * (2 - y)  # y grows upwards
        square = canvas[top : top + 2, 4 * x : 4 * x + 4]
        expected = 1 - images[i][..., None] * (1 - 0.9 * np.array(plotting.CLASS_COLORS[labels[i]]))
        np.testing.assert_allclose(square, expected, err_msg="upright, in the colour of its class")
    assert (canvas[0:2, 4:8] == 1).all(), "where there is no point there is no image"


def test_the_few_points_far_from_all_others_are_cut_off_a_map_of_thumbnails():
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.uniform(0, 1, (999, 2)), [[1000.0, 0]]])
    axis = Figure().subplots()
    figures.thumbnails(axis, z, np.ones((1000, 1, 1)), np.zeros(1000, dtype=np.int64), cells=5)
    (canvas,) = [image.get_array() for image in axis.get_images()]
    assert (canvas < 1).any(2).all(), "every square holds an image"


def test_dots_has_a_row_a_name_and_an_interval_about_every_mean():
    axis = Figure().subplots()
    series = {
        "mixup": [(0.5, 0.4, 0.7), (math.nan, math.nan, math.nan), (0.1, 0.0, 0.3)],
        "mine": [(0.2, 0.1, 0.25), (0.6, 0.6, 0.9), (0.3, 0.2, 0.4)],
    }
    figures.dots(axis, ["a", "b", "c"], series, xlabel="share")
    assert axis.get_xlabel() == "share"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    assert axis.get_yticks().tolist() == [0, -1, -2]
    low, high = axis.get_ylim()
    assert low < -2.2
    assert high > 0.2
    handles, labels = axis.get_legend_handles_labels()
    assert labels == ["mixup", "mine"]
    heights = []
    for container, points in zip(handles, series.values(), strict=True):
        line, _, (bars,) = container
        np.testing.assert_allclose(line.get_xdata(), [mean for mean, *_ in points])
        heights.append(line.get_ydata())
        drawn = {
            round(y0): (x0, x1) for (x0, y0), (x1, _) in (s for s in bars.get_segments() if len(s))
        }
        for i, (_, *interval) in enumerate(points):
            if not math.isnan(interval[0]):
                assert drawn[-i] == pytest.approx(tuple(interval))
    assert (heights[0] > heights[1]).all(), "side by side, the first above"
    assert np.abs(heights - np.array([0, -1, -2])).max() < 0.5
    assert handles[0].lines[0].get_color() == plotting.COLORS["mixup"]
    axis.figure.draw_without_rendering()


def test_smallest_dims_by_hand():
    """SimCLR is best at 8 on the mean; seed by seed the first dimension within the margin of that seed's accuracy there."""
    simclr = np.array([[0.50, 0.70], [0.80, 0.79], [0.79, 0.795]])  # d_z = 2, 8, 32
    other = np.array([[0.795, 0.60], [0.70, 0.77], [0.81, 0.78]])
    assert simclr.mean(1).argmax() == 1
    first, second = smallest_dims([2, 8, 32], simclr, other)
    assert first.tolist() == [8, 8]
    assert second.tolist() == [32, 64], "the second never gets there: twice the largest"
    first, second = smallest_dims([2, 8, 32], simclr, other, 0.01)
    assert first.tolist() == [8, 8]
    assert second.tolist() == [2, 32], "an accuracy that falls later counts where it was reached"
    assert smallest_dims([2, 8, 32], simclr, simclr, 0.5)[0].tolist() == [2, 2]


def test_where_a_curve_crosses_a_level():
    dims, curve = [2, 8, 32], np.array([0.5, 0.7, 0.9])
    assert crossing(dims, curve, 0.6) == pytest.approx(4), "half-way from 2 to 8 in octaves"
    assert crossing(dims, curve, 0.7) == pytest.approx(8)
    assert crossing(dims, curve, 0.1) == 2
    assert crossing(dims, curve, 0.91) == math.inf
    assert crossing(dims, np.array([0.5, 0.9, 0.7]), 0.7) == pytest.approx(4), "the first time"


def scores_frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    keys = [(m, d, s) for m in ("SimCLR", "t-SimCLR") for d in (2, 8) for s in (0, 1, 2)]
    rows = [
        {"method": m, "d_z": d, "seed": s, "a": rng.random(), "b": rng.random()} for m, d, s in keys
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=1)


def test_summary_and_paired_differences_by_scipy():
    table = scores_frame()
    shown = summary(table, ["method", "d_z"], ["a"]).set_index(["method", "d_z"])
    cell = table[(table.method == "SimCLR") & (table.d_z == 8)].a
    low, high = stats.t.interval(0.95, 2, cell.mean(), stats.sem(cell))
    assert shown.loc[("SimCLR", 8), "a"] == f"{cell.mean():.3f} [{low:.3f}, {high:.3f}]"
    assert set(shown.n) == {3}
    differences = paired(
        table, ["d_z"], ["a", "b"], column="method", minus="SimCLR", plus="t-SimCLR"
    ).set_index(["metric", "d_z"])
    for metric in ("a", "b"):
        for d in (2, 8):
            cells = (table[(table.method == m) & (table.d_z == d)] for m in ("SimCLR", "t-SimCLR"))
            one, two = (cell.sort_values("seed")[metric].to_numpy() for cell in cells)
            test = stats.ttest_rel(two, one)
            row = differences.loc[(metric, d)]
            assert row["t-SimCLR − SimCLR"] == pytest.approx(test.statistic * stats.sem(two - one))
            assert (row["95 % low"], row["95 % high"]) == pytest.approx(
                tuple(test.confidence_interval(0.95))
            )
            assert row["n"] == 3


def test_changes_are_after_minus_before_where_both_were_run():
    rows = [
        {"method": method, "d_z": d, "seed": seed, "a": 0.5 + 0.1 * seed + gain * d}
        for method, gain, dims in (
            ("one", 0.0, (2, 4)),
            ("two", 0.01, (1, 2, 4)),
            ("three", -0.02, (1, 2, 4)),
        )
        for d in dims
        for seed in (0, 1, 2)
    ]
    found = changes(
        pd.DataFrame(rows), {"first": ("one", "two"), "second": ("two", "three")}, ["a"]
    ).set_index(["change", "d_z"])
    assert found.difference.to_dict() == pytest.approx(
        {
            ("first", 2): 0.02,
            ("first", 4): 0.04,
            ("second", 1): -0.03,
            ("second", 2): -0.06,
            ("second", 4): -0.12,
        }
    )
    assert (found.high - found.low).max() < 1e-9, "the seeds' own differences cancel"


def test_regret_of_a_rule_by_hand():
    """The best is picked by one accuracy and compared by another."""
    cells = pd.DataFrame(
        {
            "d_z": 2,
            "nu": nu,
            "scale": scale,
            "seed": seed,
            "chosen_by": chosen,
            "knn_z": value + 0.1 * seed * (nu == 1),
        }
        for nu, scale, chosen, value in (
            (5.0, 0.03, 0.5, 0.70),
            (1.0, 0.2, 0.9, 0.74),
            (1.0, 0.5, 0.6, 0.95),
        )
        for seed in (1, 0)
    )
    (row,) = regret(cells, rule=(5.0, 0.03)).to_dict("records")
    assert (row["its ν"], row["its τ / d_z"]) == (1.0, 0.2)
    assert row["best in validation"] == pytest.approx(0.79)
    assert row["rule − best"] == pytest.approx(-0.09)
    low, high = stats.t.interval(0.95, 1, -0.09, stats.sem([-0.04, -0.14]))
    assert (row["95 % low"], row["95 % high"]) == pytest.approx((low, high))
    assert row["median of all settings"] == pytest.approx(0.79)
    assert row["worst"] == pytest.approx(0.70)


def test_effects_of_weights_are_paired_by_seed_and_crops():
    rows = [
        {
            "crops": crops,
            "score": score,
            "τ'": t,
            "seed": seed,
            "a": 0.5 + 0.1 * seed + gain + (0.2 if crops == "large" else 0),
        }
        for crops in ("small", "large")
        for score, t, gain in (("none", math.inf, 0.0), ("iou", 0.3, 0.01), ("iou", -0.3, -0.02))
        for seed in (0, 1, 2)
    ]
    found = weight_effects(pd.DataFrame(rows).sample(frac=1, random_state=0), ["a"]).set_index(
        ["crops", "τ'"]
    )
    assert found.difference.loc[("large", 0.3)] == pytest.approx(0.01)
    assert found.difference.loc[("small", -0.3)] == pytest.approx(-0.02)
    assert (found.high - found.low).max() < 1e-9, "the seeds' own differences cancel"
    assert len(found) == 4


def test_pixel_scores_against_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    x, x_test = (torch.rand(n, 12, generator=generator) for n in (60, 40))
    y, y_test = (torch.randint(3, (n,), generator=generator) for n in (60, 40))
    table = pixel_scores((x, y, x_test, y_test), [2, 5])
    assert table.method.tolist() == ["raw pixels", "PCA", "PCA"]
    nearest = {
        m: KNeighborsClassifier(1, metric=m).fit(x, y).score(x_test, y_test)
        for m in ("cosine", "euclidean")
    }
    assert table.knn1_z[0] == pytest.approx(max(nearest.values()))
    assert table.knn1_cosine_h[0] == pytest.approx(nearest["cosine"])
    components = PCA(5).fit(x.numpy())
    for dim, value in ((2, table.knn1_z[1]), (5, table.knn1_z[2])):
        z, z_test = (components.transform(part.numpy())[:, :dim] for part in (x, x_test))
        assert value == pytest.approx(KNeighborsClassifier(1).fit(z, y).score(z_test, y_test))


def test_accuracies_are_in_the_metric_of_the_loss():
    names = itertools.product(
        enumerate(("knn1", "knn", "knn15")), enumerate(("cosine", "euclidean"))
    )
    metrics = {f"{votes}_{metric}_z": i + 10.0 * j for (i, votes), (j, metric) in names}
    losses = {"a": InfoNCE(), "b": TSimCLR()}
    table = accuracies(
        {(name, 2): [Record(TrainConfig(loss=loss), metrics)] for name, loss in losses.items()},
        ("method", "d_z"),
    )
    assert table[["knn1_z", "knn_z", "knn15_z"]].to_numpy().tolist() == [[0, 1, 2], [10, 11, 12]]
    assert table.method.tolist() == ["a", "b"]
