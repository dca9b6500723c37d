"""How training orders a line: the settings, and what is read out of records made by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import train_run

from sscl_experiments import settings
from sscl_experiments.datasets.images import ImageData
from sscl_experiments.datasets.manifest import PUBLISHED
from sscl_experiments.record import Record
from sscl_experiments.studies.implicit_bias.analysis import (
    feature_history,
    generality,
    in_order,
    orders,
    paired_starts,
    placement_ranks,
    ranking,
    start_outcomes,
    well_separated,
)
from sscl_experiments.studies.implicit_bias.class_groups import (
    beyond_regroupings,
    class_groups,
    group_table,
    grouping_test,
    grouping_tests,
    transfer_table,
)
from sscl_experiments.studies.implicit_bias.enumeration import (
    natural_order,
    objective_residuals,
    placement_rank,
    residual_summary,
)
from sscl_experiments.studies.implicit_bias.parameters import line, order_run
from sscl_experiments.study import resolve


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
def test_well_separated_is_every_gap_at_least_half_an_even_one(angles, expected):
    assert well_separated([record((0, 1, 2, 3), angles)]).tolist() == [expected]


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


def test_outcomes_of_starts_count_who_ends_elsewhere_and_where():
    """From ACBD: two end in ABCD, one in ABDC, one comes back after a loss above the barrier."""
    start = (0, 180, 90, 270)
    ends = [(0, 90, 180, 270), (0, 90, 180, 270), (0, 90, 270, 180), start]
    losses = [[9, 1, 1], [9, 5, 1], [9, 5, 1], [9, 5, 1]]
    runs = [record(start, start, end) for end in ends]
    for run, loss, gap in zip(runs, losses, (0.1, 0.2, 0.6, 0.4), strict=True):
        run.arrays["evaluation_loss"] = np.array(loss, dtype=float)
        run.metrics["loss_gap"] = gap
    assert orders(runs, "ABCD") == ["ABCD", "ABCD", "ABDC", "ACBD"]
    assert orders(runs, "ABCD", 0) == ["ACBD"] * 4
    assert list(start_outcomes(runs, 4.0).values()) == pytest.approx(
        [3 / 4, 2 / 3, 2 / 3, 1, 0.2, 0.4]
    )
    stayed = list(start_outcomes(runs[3:], 4.0).values())
    assert (stayed[0], stayed[3]) == (0, 1)
    assert all(math.isnan(stayed[i]) for i in (1, 2, 4)), (
        "of those that change order, where none does"
    )


@pytest.mark.parametrize("changes", [{}, {"data": {"anonymous": 3}, "backbone": {"depth": 0}}])
def test_a_history_ends_with_the_features_of_the_trained_network(changes):
    config = order_run(changes, steps=100)
    history, labels, network = feature_history(config)
    assert history.shape == (3, 4 * 32, 2)
    assert labels.bincount().tolist() == [32] * 4
    assert (history[0] - history[-1]).abs().max() > 0.01
    alone = train_run(config, device="cpu").model
    for ours, theirs in zip(network.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_base_setting_is_the_paper_s_four_components():
    data = resolve("03_implicit_bias", {}).base_runs()[0].data
    assert (data.means, data.std) == (((1.0,), (2.0,), (3.0,), (4.0,)), 0.1)


def test_a_rank_is_not_computed_over_too_many_assignments():
    with pytest.raises(ValueError, match="at most 9 points, got 10"):
        placement_rank(torch.rand(10, 1), torch.rand(10, 2))


def test_every_factor_of_the_order_experiments_changes_one_part_and_shares_its_seeds():
    p = resolve("03_implicit_bias", {"scale": "smoke", "factor_seeds": 3})
    base = p.base_runs()[0].model_dump()
    for (factor, level), runs in p.factor_runs().items():
        assert [run.seed for run in runs] == [0, 1, 2]
        changed = {part for part, value in runs[0].model_dump().items() if value != base[part]}
        allowed = 2 if factor in ("grid", "loss") or level == "no network" else 1
        assert 1 <= len(changed) <= allowed, (factor, level, changed)
    steps = {
        run.epochs * run.data.steps_per_epoch
        for runs in (*p.factor_runs().values(), *p.start_runs().values())
        for run in runs
    }
    assert steps == {50 * p.epochs}, "everything is trained for as long"


def test_fitted_starts_differ_from_the_wrong_order_in_one_thing():
    starts = resolve("03_implicit_bias", {}).start_runs()
    wrong = starts.pop("wrong order")[0].model_dump()
    assert wrong["start_order"] == (0, 2, 1, 3)
    for name, runs in starts.items():
        parts = {
            part: value for part, value in runs[0].model_dump().items() if value != wrong[part]
        }
        (part,) = parts
        if isinstance(parts[part], dict):
            assert len([key for key in parts[part] if parts[part][key] != wrong[part][key]]) == 1, (
                name
            )


def test_groups_name_classes_that_exist():
    for name, source in settings.IMAGE_SETS.items():
        classes = PUBLISHED["fashion_mnist" if name == "fashion_mnist_subset" else name].classes
        members = [member for group in source.groups.values() for member in group]
        assert len(members) == len(set(members))
        assert set(members) <= set(classes)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image_set": "mnist"}, "image_set"),
        ({"n_train": 20_000}, "10000"),
        ({"factor_seeds": 0}, "factor_seeds"),
    ],
)
def test_wrong_parameters_of_the_order_study(given, words):
    with pytest.raises(ValueError, match=words):
        resolve("03_implicit_bias", given)


# --- tables --------------------------------------------------------------------------------------

NATURAL, CROSSED, TURNED = (0, 90, 180, 270), (0, 180, 90, 270), (0, 90, 270, 180)


def test_generality_has_a_row_a_setting_with_its_own_chance():
    five = [record((0, 72, 144, 216, 288), (0, 144, 72, 216, 288))]
    found = {
        ("components", "5"): five,
        ("depth", "1"): [record(CROSSED, NATURAL), record(NATURAL, (0, 10, 20, 30))],
        ("grid", "2×3"): five,
    }
    table = generality([record(NATURAL, NATURAL)], found).set_index(["factor", "level"])
    assert table.index.tolist() == [("base", ""), ("components", "5"), ("depth", "1")]
    assert table["in order"].tolist() == [1, 0, 1]
    assert table["before training"].tolist() == [1, 1, 0.5]
    assert table["in order, well separated"].tolist() == [1, 0, 0.5]
    assert table.chance.tolist() == pytest.approx([1 / 3, 1 / 12, 1 / 3])
    assert table.n.tolist() == [1, 1, 2]


def test_starts_are_paired_with_the_plain_wrong_order_seed_by_seed():
    ends = {
        "right order": [NATURAL] * 4,
        "wrong order": [NATURAL, CROSSED, CROSSED, CROSSED],
        "other": [TURNED, NATURAL, NATURAL, CROSSED],
    }
    begun = {name: [record(CROSSED, end) for end in own] for name, own in ends.items()}
    (row,) = paired_starts(begun).to_dict("records")
    assert (row["start"], row["n"]) == ("other", 4)
    assert (row["in order, only here"], row["only at the reference"]) == (2, 1)
    assert row["p"] == pytest.approx(1.0), "2 of 3 on one side"


def test_ranking_is_among_all_orders_by_their_cost():
    """Of four on a square there are three orders, the natural one the smoothest."""
    found = ranking([record(CROSSED, NATURAL), record(TURNED, TURNED)])
    assert len(found.costs) == 3
    assert found.ranks["after training"][0] == 1
    assert found.ranks["before training"][1] == found.ranks["after training"][1]
    assert sorted({*found.ranks["before training"]} | {1}) == [1, 2, 3]
    assert found.summary()["after training"].startswith("rank 1: 0.50")


def test_the_natural_order_is_the_best_of_random_spacings():
    found = natural_order((4, 6), (0, 1, 2))
    assert len(found.margins) == 3
    assert len(found.errors) == len(found.weights) == 6
    assert min(found.margins) > 0
    assert max(found.errors) < 1e-12
    assert min(found.weights) > 0


def test_only_the_joint_objective_without_a_square_is_a_line_in_c():
    """Up to five points a square makes no difference: there are only two distances."""
    table = residual_summary(objective_residuals((5, 6), 3, seed=0)).set_index(["variant", "m"])
    assert set(table.spacings) == {3}
    residual = table["largest residual of a + b·C"]
    assert residual["joint, unsquared"].max() < 1e-12
    assert residual["rows of P normalised"].min() > 0.01
    assert residual["squared distance", 5] < 1e-12
    assert residual["squared distance", 6] > 0.01


def similarity(seed):
    values = np.random.default_rng(seed).standard_normal((4, 4))
    return values + values.T


def test_group_table_subtracts_each_seed_s_untrained_network_and_the_pixels():
    groups = torch.tensor([0, 0, 1, 1])
    runs = {}
    for method in ("SimCLR", "t-SimCLR", "untrained"):
        runs[method] = []
        for seed in (0, 1):
            metrics = {"knn_cosine_h": 0.5 + seed / 10, "knn_cosine_z": 0.1}
            key = 10 * len(runs) + seed
            arrays = {"classes_h": similarity(key), "classes_z": similarity(key + 100)}
            runs[method].append(Record(order_run({}, steps=50), metrics, arrays))
    pixels = similarity(99)
    tests = grouping_tests(runs, pixels, groups)
    table = group_table(tests).set_index("features")
    contrast = tests.groupby("features", sort=False)["within − across"].apply(np.array)
    for name, before in (("t-SimCLR, h", "untrained, h"), ("SimCLR, z", "untrained, z")):
        change = (contrast[name] - contrast[before]).mean()
        assert table.loc[name, "minus untrained"].startswith(f"{change:.3f} [")
        change = (contrast[name] - contrast["raw pixels"][0]).mean()
        assert table.loc[name, "minus raw pixels"].startswith(f"{change:.3f} [")
    assert table.loc["SimCLR, h", "10-NN accuracy"] == pytest.approx(0.55)
    assert math.isnan(table.loc["raw pixels", "95 % low"]), "one value has no interval"
    assert beyond_regroupings(tests, "SimCLR, h") == pytest.approx(
        contrast["SimCLR, h"] - tests[tests.features == "SimCLR, h"]["95th percentile"]
    )


def test_transfer_is_tested_by_the_superclasses_of_the_other_set():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (12, 1, 2, 2), generator=generator, dtype=torch.uint8)
    labels, coarse = torch.arange(12) % 4, torch.tensor([0, 1, 0, 1])
    other = ImageData(pixels, labels, ("a", "b", "c", "d"), coarse[labels])
    arrays = [{"classes_transfer": similarity(seed)} for seed in (0, 1)]
    runs = [Record(order_run({}, steps=50), {}, own) for own in arrays]
    table = transfer_table({"SimCLR": runs}, other)
    assert table.features.tolist() == ["raw pixels", "SimCLR, h"]
    found = [grouping_test(own["classes_transfer"], coarse) for own in arrays]
    mean = np.mean([test["within − across"] for test in found])
    assert table["within − across"][1] == pytest.approx(mean)
    assert table.p[1] == max(test["p"] for test in found)
    assert table.n[1] == 2
