"""How training orders a line: the settings, and what is read out of records made by hand."""

import inspect
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import normal, train_run
from scipy import stats

from sscl_experiments import settings
from sscl_experiments.arrangements import regular_polygon
from sscl_experiments.datasets.images import ImageData
from sscl_experiments.datasets.manifest import PUBLISHED
from sscl_experiments.record import Record
from sscl_experiments.studies.implicit_bias import figures
from sscl_experiments.studies.implicit_bias.analysis import (
    CONTROLS,
    VARIED,
    angle_curve,
    example_runs,
    feature_history,
    generality,
    in_order,
    order_table,
    orders,
    placement_ranks,
    put_in_order,
    ranking,
    recorded_generality,
    recorded_starts,
    start_outcomes,
    well_separated,
)
from sscl_experiments.studies.implicit_bias.class_groups import (
    above_baselines,
    class_groups,
    group_auc,
    group_contrast,
    group_correlation,
    group_table,
    grouping_test,
    grouping_tests,
    panel_table,
    regroupings,
    transfer_table,
)
from sscl_experiments.studies.implicit_bias.enumeration import (
    natural_order,
    next_best,
    placement_rank,
    proved_gap,
)
from sscl_experiments.studies.implicit_bias.parameters import (
    OTHER,
    SLOW,
    centred,
    line,
    order_run,
    shifted,
)
from sscl_experiments.study import all_claims, resolve


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
    pairs = list(itertools.combinations(range(6), 2))
    same = [float(groups[i] == groups[j] >= 0) for i, j in pairs]
    alike = [similarity[i, j] for i, j in pairs]
    assert result["correlation"] == pytest.approx(np.corrcoef(same, alike)[0, 1])
    within = [value for value, one in zip(alike, same, strict=True) if one]
    across = [value for value, one in zip(alike, same, strict=True) if not one]
    assert result["AUC"] == pytest.approx(
        stats.mannwhitneyu(within, across).statistic / len(within) / len(across)
    )


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


def test_the_base_setting_is_four_centred_components_and_offsets_move_them():
    data = resolve("03_implicit_bias", {}).base_runs()[0].data
    assert (data.means, data.std) == (((-1.5,), (-0.5,), (0.5,), (1.5,)), 0.1)
    assert data.means == centred(4) == shifted(0.0)
    assert shifted(2.5) == line(1, 2, 3, 4)
    assert centred(5) == line(-2, -1, 0, 1, 2)


def test_an_angle_curve_is_the_network_s_angle_without_jumps():
    """Against the features of the same run at the same positions, one by one."""
    config = order_run({}, steps=100)
    curve = angle_curve(config, points=200)
    assert (curve.x[0], curve.x[-1]) == (pytest.approx(-1.8), pytest.approx(1.8))
    network = train_run(config, device="cpu").model
    with torch.no_grad():
        z = network(torch.tensor(curve.x)[:, None])[1].double()
    u = (z / z.norm(dim=1, keepdim=True)).numpy()
    turned = np.deg2rad(curve.after)
    cosines = np.cos(turned[:, None] - turned)
    assert np.abs(cosines - u @ u.T).max() < 1e-5
    assert np.abs(np.diff(curve.after)).max() < 90
    assert curve.before[0] == curve.after[0] == 0
    assert np.abs(curve.after - curve.before).max() > 30
    kept = np.array([[True, True], [False, True]])
    runs = [record(NATURAL, NATURAL), record(CROSSED, NATURAL)]
    examples = example_runs(runs, kept)
    assert list(examples.values()) == [run.config for run in runs]
    figures.turning({"first": curve, "second": curve}, kept).draw_without_rendering()


def test_networks_in_order_before_training_do_not_count_for_c5():
    kept = np.array([[True, True], [True, False], [False, True], [False, True], [False, False]])
    separated = np.array([True, True, True, False, True])
    assert put_in_order(kept, separated).tolist() == [True, False, False]
    table = order_table(kept, separated)
    assert table["in order"].tolist() == pytest.approx([2 / 5, 3 / 5, 2 / 5, 1 / 3])
    assert table.n.tolist() == [5, 5, 5, 3]
    untrained = np.repeat(kept[:, :1], 2, axis=1)
    assert not put_in_order(untrained, separated).any(), "an untrained network scores 0"
    with pytest.raises(ValueError, match="in another order before training, got none"):
        put_in_order(kept[:2], separated[:2])


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
    starts = p.start_runs()
    slow, other = starts.pop(SLOW), starts.pop(OTHER)
    assert other == [run.replace(start_order=(0, 1, 3, 2)) for run in slow]
    steps = {
        run.epochs * run.data.steps_per_epoch
        for runs in (*p.factor_runs().values(), *starts.values())
        for run in runs
    }
    assert steps == {50 * p.epochs}, "everything is trained for as long"
    far = slow[0].epochs * slow[0].data.steps_per_epoch * slow[0].optimizer.lr
    assert far == pytest.approx(50 * p.epochs * p.base_runs()[0].optimizer.lr)


def test_fitted_starts_differ_from_the_wrong_order_in_one_thing():
    starts = resolve("03_implicit_bias", {"wide": True}).start_runs()
    wrong = starts.pop("wrong order")[0].model_dump()
    assert wrong["start_order"] == (0, 2, 1, 3)
    del starts[OTHER]
    starts[SLOW] = [run.replace(epochs=wrong["epochs"]) for run in starts[SLOW]]
    for name, runs in starts.items():
        parts = {
            part: value for part, value in runs[0].model_dump().items() if value != wrong[part]
        }
        (part,) = parts
        if isinstance(parts[part], dict):
            assert len([key for key in parts[part] if parts[part][key] != wrong[part][key]]) == 1, (
                name
            )


def test_what_is_not_wide_is_a_part_of_what_is():
    narrow, wide = (resolve("03_implicit_bias", {"wide": wide}) for wide in (False, True))
    for few, all_runs in (
        (narrow.factor_runs(), wide.factor_runs()),
        (narrow.start_runs(), wide.start_runs()),
    ):
        assert len(few) < len(all_runs)
        assert all(all_runs[name] == runs for name, runs in few.items())
    assert list(narrow.factor_runs()) == [
        ("offset", "2.5"),
        ("offset", "10.5"),
        ("components", "8"),
    ]


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


def test_ranking_is_among_all_orders_by_their_cost():
    """Of four on a square there are three orders, the natural one the smoothest."""
    found = ranking([record(CROSSED, NATURAL), record(TURNED, TURNED)])
    assert len(found.costs) == 3
    assert found.ranks["after training"][0] == 1
    assert found.ranks["before training"][1] == found.ranks["after training"][1]
    assert sorted({*found.ranks["before training"]} | {1}) == [1, 2, 3]
    assert found.summary()["after training"].startswith("rank 1: 0.50")
    figure = figures.ranking(found)
    marks = [axis.collections[0].get_offsets() for axis in figure.axes[:2]]
    assert [len({tuple(place) for place in places}) for places in marks] == [2, 2], "one a seed"


def test_the_natural_order_is_the_best_of_random_spacings():
    found = natural_order((4, 6), (0, 1, 2))
    assert len(found.margins) == 3
    assert len(found.errors) == len(found.weights) == len(found.ratios) == 6
    assert min(found.ratios) >= 1 - 1e-9
    assert min(found.margins) > 0
    assert max(found.errors) < 1e-12
    assert min(found.weights) > 0


@pytest.mark.parametrize("m", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("seed", range(6))
def test_every_other_order_is_behind_by_what_the_proof_says(m, seed):
    """Uniform, equal and very uneven spacings, over all orders, with C from the naive loop."""
    x = normal(m, 1, seed=seed).sort(0).values
    if seed == 0:
        x = torch.arange(m, dtype=torch.float64)[:, None]
    if seed == 1:
        x = torch.logspace(0, 3, m, dtype=torch.float64)[:, None]
    bound = proved_gap(x)
    assert bound > 0
    natural, gap = next_best(x)
    assert gap >= bound * (1 - 1e-9)
    corners = regular_polygon(m)
    assert natural == pytest.approx(naive_lipschitz(x, corners))
    others = itertools.permutations(range(1, m)) if m < 7 else ()
    same = (tuple(range(m)), (0, *range(m - 1, 0, -1)))
    for places in others:
        order = (0, *places)
        if order not in same:
            assert naive_lipschitz(x, corners[list(order)]) >= natural + bound * (1 - 1e-9)


def similarity(seed):
    values = np.random.default_rng(seed).standard_normal((4, 4))
    return values + values.T


def image_tests(pixels, groups):
    runs = {}
    for method in ("SimCLR", "t-SimCLR", "untrained"):
        runs[method] = []
        for seed in (0, 1):
            metrics = {"knn_cosine_h": 0.5 + seed / 10, "knn_cosine_z": 0.1}
            key = 10 * len(runs) + seed
            arrays = {"classes_h": similarity(key), "classes_z": similarity(key + 100)}
            runs[method].append(Record(order_run({}, steps=50), metrics, arrays))
    return grouping_tests(runs, pixels, groups)


def test_the_score_is_above_the_pixels_and_each_seed_s_own_untrained_network():
    tests = image_tests(similarity(99), torch.tensor([0, 0, 1, 1]))
    found = tests.groupby("features", sort=False)["correlation"].apply(np.array)
    for name, before in (("t-SimCLR, h", "untrained, h"), ("SimCLR, z", "untrained, z")):
        larger = np.maximum(found[before], found["raw pixels"])
        assert above_baselines(tests, name) == pytest.approx(found[name] - larger)
        table = group_table(tests).set_index("features")
        change = (found[name] - found[before]).mean()
        assert table.loc[name, "minus untrained"].startswith(f"{change:.3f} [")
        change = (found[name] - found["raw pixels"]).mean()
        assert table.loc[name, "minus raw pixels"].startswith(f"{change:.3f} [")
    assert table.loc["SimCLR, h", "10-NN accuracy"] == pytest.approx(0.55)
    assert math.isnan(table.loc["raw pixels", "95 % low"]), "one value has no interval"


@pytest.mark.parametrize("seed", range(5))
def test_pixels_and_untrained_networks_never_pass_the_rule_of_c7(seed):
    tests = image_tests(similarity(1000 + seed), torch.tensor([0, 0, 1, 1]))
    for name in ("raw pixels", "untrained, h", "untrained, z"):
        assert max(above_baselines(tests, name)) <= 0 < all_claims()["C7"].threshold


def test_neither_scale_nor_shift_of_similarities_changes_the_correlation():
    groups = torch.tensor([0, 0, 1, 1])
    values = torch.tensor(similarity(3))
    one = group_correlation(values, groups)
    assert group_correlation(5 * values - 2, groups).item() == pytest.approx(one.item())
    assert group_contrast(5 * values - 2, groups) != pytest.approx(group_contrast(values, groups))
    perfect = (groups[:, None] == groups).double()
    assert group_correlation(perfect, groups).item() == pytest.approx(1)
    assert group_auc(perfect, groups) == 1
    assert group_auc(torch.ones(4, 4), groups) == 0.5, "ties count half"
    (row,) = panel_table({"panel": perfect.numpy()}, groups).to_dict("records")
    assert (row["features"], row["correlation"]) == ("panel", pytest.approx(1))
    figures.class_similarities(
        dict.fromkeys("abcd", similarity(0)), ["w", "x", "y", "z"], groups
    ).draw_without_rendering()


def test_a_record_s_lowest_rate_of_each_factor_and_its_controls():
    pairs = [(name, level) for name in VARIED for level in ("a", "b")]
    pairs += [("control", level) for level in CONTROLS] + [("base", "")]
    table = pd.DataFrame(pairs, columns=["factor", "level"])
    table["in order"] = [1.0, 0.9] * len(VARIED) + [0.5] * len(CONTROLS) + [0.1]
    table["95 % low"], table["before training"], table["n"] = table["in order"] - 0.1, 0.3, 4
    found = recorded_generality({"tables": {"generality": table}}).set_index("")
    assert found.index.tolist() == [*VARIED, *CONTROLS]
    assert set(found.loc[list(VARIED), "lowest share in order"]) == {0.9}
    assert set(found.loc[list(CONTROLS), "lowest share in order"]) == {0.5}
    assert found.levels.tolist() == [2] * len(VARIED) + [1] * len(CONTROLS)


def test_a_record_says_what_step_size_and_weight_decay_do_beside_the_plain_start():
    starts = {
        "start": ["right order", "wrong order", "step size 0.1", "64 pairs", "weight decay 3"],
        "n": [4] * 5,
        "order changed": [0.0, 0.5, 0.25, 0.0, 0.75],
        "of these in natural order": [math.nan, 1.0, 1.0, math.nan, 1.0],
    }
    paired = {"start": ["other", "weight decay 3"], "p": [0.5, 0.01]}
    tables = {"starts": pd.DataFrame(starts), "paired_starts": pd.DataFrame(paired)}
    table = recorded_starts({"tables": tables})
    assert table.start.tolist() == ["wrong order", "step size 0.1", "weight decay 3"]
    assert table.p.tolist()[2] == 0.01
    assert math.isnan(table.p[0])


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
    for statistic in ("within − across", "correlation"):
        mean = np.mean([test[statistic] for test in found])
        assert table[statistic][1] == pytest.approx(mean)
    assert table.p[1] == max(test["p"] for test in found)
    assert table.n[1] == 2


# --- Lipschitz constants of placements and of networks --------------------------------------------


def naive_lipschitz(x, z):
    slopes = [
        math.dist(z[i].tolist(), z[j].tolist()) / math.dist(x[i].tolist(), x[j].tolist())
        for i, j in itertools.combinations(range(len(x)), 2)
    ]
    return sum(slopes) / len(slopes)


@pytest.mark.parametrize(("m", "d", "d_z"), [(3, 1, 2), (5, 1, 2), (6, 2, 3)])
def test_the_rank_of_a_placement_is_the_naive_loop(m, d, d_z):
    ranks = set()
    for seed in range(5):
        x, z = normal(m, d, seed=seed), normal(m, d_z, seed=seed + 10)
        constants = [
            naive_lipschitz(x, z[list(places)]) for places in itertools.permutations(range(m))
        ]
        ranks.add(placement_rank(x, z))
        assert placement_rank(x, z) == pytest.approx(
            sum(c < constants[0] - 1e-12 for c in constants) / len(constants), abs=1e-12
        )
    assert len(ranks) > 1


def test_the_natural_order_has_the_lowest_rank_although_turns_and_reflections_tie_with_it():
    x = normal(7, 1).sort(0).values
    for z in (
        regular_polygon(7),
        regular_polygon(7).roll(3, 0),
        regular_polygon(7).flip(0) @ torch.linalg.qr(normal(2, 2)).Q,
    ):
        assert placement_rank(x, z) == 0
    with pytest.raises(ValueError, match="x must hold at most 9 points, got 10"):
        placement_rank(normal(10, 1), normal(10, 2))


# --- groups of classes ----------------------------------------------------------------------------


def symmetric(k: int, seed: int = 0) -> torch.Tensor:
    a = normal(k, k, seed=seed)
    return a + a.T


def naive_contrast(similarity: torch.Tensor, groups: list[int]) -> float:
    pairs = list(itertools.combinations(range(len(groups)), 2))
    within = [float(similarity[a, b]) for a, b in pairs if groups[a] == groups[b] >= 0]
    others = [float(similarity[a, b]) for a, b in pairs if groups[a] != groups[b] or groups[a] < 0]
    return sum(within) / len(within) - sum(others) / len(others)


def test_group_contrast_is_the_naive_loop():
    """For one grouping and for a batch of them.

    Classes with a negative number are in no group, nor with each other.
    """
    groups = torch.tensor(
        [
            [[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 1], [0, 1, 2, 3, 4, 0]],
            [[0, 0, -1, -1, -1, -1], [5, -1, 5, -2, 5, 1], [0] * 5 + [-1]],
        ]
    )
    found = group_contrast(symmetric(6), groups)
    assert found.shape == (2, 3)
    for i, j in itertools.product(range(2), range(3)):
        expected = naive_contrast(symmetric(6), groups[i, j].tolist())
        assert found[i, j].item() == pytest.approx(expected, rel=1e-12)
        assert group_contrast(symmetric(6), groups[i, j]).item() == pytest.approx(
            expected, rel=1e-12
        )
    loud = symmetric(6).fill_diagonal_(1e6)
    assert torch.equal(group_contrast(loud, groups), found)


@pytest.mark.parametrize("groups", [[0, 0, 0], [0, 1, 2], [-1, -1, -1], [0, -1, -1]], ids=str)
def test_group_contrast_needs_pairs_of_either_kind(groups):
    with pytest.raises(
        ValueError, match="groups must put two classes into one group and not all into one"
    ):
        group_contrast(symmetric(3), torch.tensor(groups))
    with pytest.raises(ValueError, match="groups must put"):
        group_contrast(symmetric(3), torch.tensor([[0, 0, 1], groups]))


FOUR_THREE_THREE, SIX_FOUR = (
    torch.tensor([1, 0, 2, 0, 1, 0, 2, 1, 0, 2]),
    torch.tensor([1, 0, 0, 1, 0, 0, 1, 0, 0, 1]),
)


@pytest.mark.parametrize(
    ("groups", "number"),
    [(FOUR_THREE_THREE, 4200), (SIX_FOUR, 210), (torch.tensor([-1, 3, 3]), 3)],
    ids=["433", "64", "12"],
)
def test_regroupings_are_all_there_are(groups, number):
    found = regroupings(groups)
    assert torch.equal(found[0], groups)
    assert len({tuple(row) for row in found.tolist()}) == len(found) == number
    assert (found.sort(1).values == groups.sort().values).all()
    assert torch.equal(regroupings(groups, at_most=number), found)


def test_too_many_regroupings_are_drawn():
    found = regroupings(FOUR_THREE_THREE, at_most=4199)
    assert found.shape == (4199, 10)
    assert torch.equal(found[0], FOUR_THREE_THREE)
    assert (found.sort(1).values == FOUR_THREE_THREE.sort().values).all()
    shares = torch.stack([(found[1:] == group).double().mean(0) for group in range(3)])
    assert (
        shares - torch.tensor([[0.4], [0.3], [0.3]])
    ).abs().max() < 0.03  # four standard deviations
    assert torch.equal(regroupings(FOUR_THREE_THREE, at_most=4199), found)
    assert not torch.equal(regroupings(FOUR_THREE_THREE, at_most=4199, seed=1), found)


@pytest.mark.parametrize(
    ("groups", "at_most"), [(SIX_FOUR, 10_000), (FOUR_THREE_THREE, 200)], ids=["all", "drawn"]
)
def test_a_permutation_test_of_noise_has_uniform_p_values(groups, at_most):
    p = []
    for seed in range(300):
        contrasts = group_contrast(
            symmetric(10, seed), regroupings(groups, at_most=at_most, seed=seed)
        )
        p.append((contrasts >= contrasts[0]).double().mean().item())
    assert min(p) >= 1 / at_most
    assert stats.kstest(p, "uniform").pvalue > 0.01
    similarity = symmetric(10) / 10 + (groups[:, None] == groups).double()
    contrasts = group_contrast(similarity, regroupings(groups, at_most=at_most))
    assert (contrasts >= contrasts[0]).double().mean() < 0.02, "groups that are there are found"


@pytest.mark.parametrize("function", [group_contrast, regroupings])
def test_groups_are_integers_of_any_width(function):
    groups = torch.tensor([0, 0, 1, 1, 2, 2])
    first = (symmetric(6),) if function is group_contrast else ()
    for dtype in (torch.uint8, torch.int32):
        assert torch.equal(function(*first, groups.to(dtype)), function(*first, groups))
    with pytest.raises(TypeError, match=r"^groups must be an integer tensor"):
        inspect.unwrap(function)(*first, groups.float())
