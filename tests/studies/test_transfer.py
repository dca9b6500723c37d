"""Notebook 06: what is compared, the search, the rules and their nulls, tables and figures."""

import itertools
import json

import matplotlib
import numpy as np
import pandas as pd
import pytest

from sscl_core.config import ResNet
from sscl_core.models import build
from sscl_experiments.crossed import crossed_interval
from sscl_experiments.studies.transfer import analysis, figures, paper_scale, searches
from sscl_experiments.studies.transfer.claims import CLAIMS
from sscl_experiments.studies.transfer.methods import METHODS, RATES, SOURCES, Setting
from sscl_experiments.studies.transfer.parameters import CONTRAST, PIXELS, UNTRAINED
from sscl_experiments.studies.transfer.searches import SEEDS, SearchRow, best, inside, wanted
from sscl_experiments.study import resolve

matplotlib.use("Agg")
SEEDS_SHOWN, IMAGES = 5, 400
C12, C13 = CLAIMS


# --- what is run ----------------------------------------------------------------------------------


def test_all_methods_have_the_same_budget():
    p = resolve("06_transfer", {"scale": "quick"})
    runs = p.transfer_runs()
    last = p.epochs[-1]
    assert {method for _, method, epochs in runs if epochs == last} == set(METHODS)
    assert {method for _, method, epochs in runs if epochs == p.epochs[0]} == set(CONTRAST)
    assert {name for pair in analysis.PAIRS.values() for name in pair} == set(CONTRAST)
    alike = {
        (run.data, run.backbone, run.epochs, run.batch_size, run.precision)
        for (_, _, epochs), group in runs.items()
        if epochs == last
        for run in group
    }
    assert len(alike) == 1
    for group in runs.values():
        assert [run.seed for run in group] == list(p.seed_range)
    (untrained,) = [group for key, group in runs.items() if key[1] == UNTRAINED]
    assert {run.epochs for run in untrained} == {0}
    assert len(p.runs()) == len(set(p.runs()))


def test_full_judges_on_other_sets_and_back():
    p = resolve("06_transfer", {"scale": "full"})
    assert p.targets()["cifar10"] == ("cifar100",)
    assert p.targets()["cifar100"] == ("cifar10",)
    assert set(p.targets()["fashion_mnist_subset"]) == {"mnist", "usps"}
    assert set(p.larger_sets) == {"cifar10", "cifar100"}
    for source, names in p.targets().items():
        assert source not in names
    supervised = p.transfer_runs()["cifar100", "supervised", p.epochs[-1]][0]
    assert supervised.projector.dim == SOURCES["cifar100"].classes == 100


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": [4, 2]}, "epochs must be increasing"),
        ({"sources": ["cifar10", "cifar10"]}, "sources must be distinct"),
        ({"sources": ["mnist"]}, "sources"),
    ],
)
def test_wrong_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        resolve("06_transfer", wrong)


def test_paper_scale_is_a_resnet_that_can_be_built():
    for name, run in paper_scale.RUNS.items():
        assert run.backbone == ResNet(depth=18)
        network = build(run, (3, 32, 32))
        assert network.projector[-1] is not None, name
    assert len(set(paper_scale.RUNS.values())) == len(paper_scale.RUNS)
    assert {run.data.targets for run in paper_scale.RUNS.values()} == {("cifar100",), ("cifar10",)}


# --- the search -----------------------------------------------------------------------------------


def searched(method, accuracy):
    """The whole search of a method where `accuracy(setting)` is what its probe finds."""
    rows = []
    for _ in range(30):
        settings = wanted(method, rows)
        if not settings:
            return rows
        for setting, seed in itertools.product(settings, SEEDS):
            probe = accuracy(setting) + 1e-4 * (seed - 0.5)
            row = SearchRow(method, setting.temperature, setting.lr, seed, probe)
            rows.append(row)
    raise AssertionError("the search does not end")


def peak(temperature, lr):
    def accuracy(setting):
        return -abs(np.log2(setting.temperature / temperature)) - abs(np.log2(setting.lr / lr))

    return accuracy


@pytest.mark.parametrize("method", ["SimCLR", "t-MoCo"])
@pytest.mark.parametrize("at", ["first", "middle", "beyond"])
def test_the_search_goes_on_until_the_best_is_inside(method, at):
    first = METHODS[method].temperatures
    temperature = {"first": first[0], "middle": first[1], "beyond": 2 * first[-1]}[at]
    rows = searched(method, peak(temperature, RATES[0]))
    assert best(method, rows) == Setting(temperature=temperature, lr=RATES[0])
    assert inside(method, rows)
    tried = {(row.temperature, row.lr) for row in rows}
    assert all(sum((r.temperature, r.lr) == key for r in rows) == len(SEEDS) for key in tried)


def test_the_search_ends_where_there_is_no_best():
    rows = searched("SimCLR", lambda setting: setting.temperature + setting.lr)
    assert not inside("SimCLR", rows)
    assert len({row.temperature for row in rows}) == searches.MOST


def test_labels_have_no_temperature_to_search():
    rows = searched("supervised", peak(0.5, RATES[1]))
    assert {row.temperature for row in rows} == {0.5}
    assert best("supervised", rows).lr == RATES[1]


def test_the_committed_search_is_whole():
    rows = searches.search_table()
    for method in METHODS:
        assert wanted(method, rows) == [], method
    assert {row.seed for row in rows} == set(SEEDS)
    summary = analysis.search_summary(rows)
    assert summary.method.tolist() == list(METHODS)


@pytest.mark.parametrize("text", ["", "method,temperature,lr,seed,probe\n", "a\n1\n"])
def test_a_damaged_search_is_refused(text):
    with pytest.raises((ValueError, LookupError)):
        searches._rows(text)


# --- the rules ------------------------------------------------------------------------------------


def judged(*, home=0.8, pixels_at_home=0.7, **accuracies):
    """Made-up answers: each image has a difficulty of its own that all methods share."""
    rng = np.random.default_rng(0)
    ease = rng.random(IMAGES)[None]
    level = dict.fromkeys((*METHODS, UNTRAINED, PIXELS), 0.6) | accuracies
    right = {}
    for name, measure in itertools.product(level, analysis.MEASURES):
        for epochs in (0,) if name in (UNTRAINED, PIXELS) else (2, 4):
            value = level.get(f"{name}, {epochs}", level[name])
            noise = 0.02 * rng.standard_normal((SEEDS_SHOWN, IMAGES))
            right["a", name, epochs, "b", measure] = ease + noise < value
            at_home = pixels_at_home if name == PIXELS else home
            right["a", name, epochs, "own", measure] = ease + noise < at_home
    return analysis.Judged(right, {"a": ("b",)}, (2, 4))


def outcome(found, claim=C12):
    decided = analysis.decision(found, claim)
    verdict = analysis._verdict(found, claim, analysis.PAIRS[claim.id][0])
    return verdict, decided.withheld


def test_a_gain_replicates_where_the_nulls_do_not_pass():
    found = judged(**{"t-SimCLR": 0.75, UNTRAINED: 0.4, PIXELS: 0.5})
    assert outcome(found) == ("replicates", "")
    values = analysis.decision(found, C12).values
    assert len(values) == SEEDS_SHOWN
    assert np.mean(values) == pytest.approx(0.15, abs=0.03)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
@pytest.mark.parametrize("measure", analysis.GATES)
def test_no_verdict_where_training_ends_below_pixels_at_home(claim, measure):
    method, other = analysis.PAIRS[claim.id]
    good = {method: 0.75, UNTRAINED: 0.4, PIXELS: 0.5}
    found = judged(**good)
    assert outcome(found, claim)[1] == ""
    low = judged(**good, pixels_at_home=0.9)
    for name in (method, other):
        right = dict(found.right)
        key = ("a", name, 4, "own", measure)
        right["a", PIXELS, 0, "own", measure] = found.right[key] | (np.arange(IMAGES) % 5 == 0)
        withheld = outcome(analysis.Judged(right, {"a": ("b",)}, (2, 4)), claim)[1]
        assert f"{name} is below raw pixels" in withheld
        assert analysis.MEASURES[measure] in withheld
    assert len(outcome(low, claim)[1].split(";")) == 2 * len(analysis.GATES)


def test_neither_a_loss_nor_no_difference_replicates_and_half_a_point_is_mixed():
    worse = judged(**{"t-SimCLR": 0.5, UNTRAINED: 0.4, PIXELS: 0.4})
    assert outcome(worse) == ("does not replicate", "")
    equal = judged(**{UNTRAINED: 0.4, PIXELS: 0.4})
    assert outcome(equal)[0] == "does not replicate"
    same = analysis.Judged(equal.right | _copied(equal.right), equal.targets, equal.lengths)
    assert outcome(same)[0] == "does not replicate", "an interval of [0, 0]"
    little = judged(**{"t-SimCLR": 0.605, UNTRAINED: 0.4, PIXELS: 0.4})
    assert outcome(little)[0] == "mixed"


def _copied(right):
    """The answers of SimCLR as those of t-SimCLR."""
    own = {key: answers for key, answers in right.items() if key[1] == "SimCLR"}
    return {(key[0], "t-SimCLR", *key[2:]): answers for key, answers in own.items()}


@pytest.mark.parametrize("null", [UNTRAINED, PIXELS])
def test_no_verdict_where_a_null_passes_the_same_rule(null):
    found = judged(**{"t-SimCLR": 0.75, UNTRAINED: 0.4, PIXELS: 0.4} | {null: 0.7})
    verdict, withheld = outcome(found)
    assert verdict == "replicates"
    assert withheld == f"{null} in the place of t-SimCLR passes the rule too, so it cannot tell"


def test_no_verdict_where_half_the_training_says_otherwise():
    levels = {"t-SimCLR, 2": 0.45, "t-SimCLR": 0.75, UNTRAINED: 0.3, PIXELS: 0.3}
    assert outcome(judged(**levels))[1] == ("2 epochs say 'does not replicate', 4 say 'replicates'")


def test_c13_compares_moco_with_its_t_form():
    found = judged(**{"t-MoCo": 0.75, "t-SimCLR": 0.2, UNTRAINED: 0.4, PIXELS: 0.5})
    assert outcome(found, C13) == ("replicates", "")
    assert outcome(found, C12)[0] == "does not replicate"


def test_targets_count_alike_however_many_images_they_have():
    found = judged(**{"t-SimCLR": 0.8, "SimCLR": 0.6})
    right = dict(found.right)
    for name, epochs, measure in itertools.product(METHODS, (2, 4), analysis.MEASURES):
        right["a", name, epochs, "c", measure] = np.zeros((SEEDS_SHOWN, 10), bool)
    both = analysis.Judged(right, {"a": ("b", "c")}, (2, 4))
    alone = np.mean(analysis.by_seed(analysis.differences(found, "t-SimCLR", "SimCLR")))
    halved = np.mean(analysis.by_seed(analysis.differences(both, "t-SimCLR", "SimCLR")))
    assert halved == pytest.approx(alone / 2)


def test_the_rule_table_has_method_lengths_and_nulls():
    table = analysis.rule_table(judged(**{UNTRAINED: 0.4, PIXELS: 0.5}), CLAIMS)
    assert len(table) == 2 * 4
    nulls = table[table.case.str.startswith((UNTRAINED, PIXELS))]
    assert set(nulls["the rule says"]) == {"does not replicate"}


# --- tables and figures ---------------------------------------------------------------------------


def test_tables_hold_what_was_found():
    found = judged(**{"t-SimCLR": 0.75, UNTRAINED: 0.4, PIXELS: 0.5})
    scores = analysis.accuracies(found)
    here = scores[(scores.method == "t-SimCLR") & (scores.target == "b")]
    probe = here[here.measure == "linear probe"].iloc[0]
    right = found.right["a", "t-SimCLR", 4, "b", "probe"].astype(float)
    assert probe.accuracy == pytest.approx(right.mean())
    assert (probe["95 % low"], probe["95 % high"]) == pytest.approx(crossed_interval([right])[1:])
    wide = analysis.accuracy_table(scores)
    assert len(wide) == 2 * (len(METHODS) + 2)
    assert "t-SimCLR minus SimCLR" in analysis.answer(found, CLAIMS)


def test_the_probes_of_a_table_stand_by_method_and_target_in_the_order_of_both():
    rows = [
        ("b", "x", "second", 1.0),
        ("b", "x", "first", 2.0),
        ("a", "own", "second", 3.0),
        ("a", "own", "first", 4.0),
    ]
    table = pd.DataFrame(rows, columns=["source", "target", "method", "linear probe"])
    found = analysis.probe_by_target(table)
    assert found.columns.tolist() == ["method", "b → x", "a → own"]
    assert found.to_numpy().tolist() == [["second", 1.0, 3.0], ["first", 2.0, 4.0]]


def test_figures_show_every_method_and_target():
    found = judged(**{"t-SimCLR": 0.75, UNTRAINED: 0.4, PIXELS: 0.5})
    figure = figures.accuracies(analysis.accuracies(found))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [*METHODS, UNTRAINED, PIXELS]
    assert len(figure.axes) == 2
    gains = analysis.difference_table(found)
    figure = figures.differences(gains)
    assert [axis.get_title() for axis in figure.axes] == [
        "t-SimCLR − SimCLR",
        "t-MoCo − MoCo, BatchNorm",
        "MoCo, BatchNorm − MoCo",
        "t-MoCo − MoCo",
    ]
    assert isinstance(gains, pd.DataFrame)
    shown = analysis.difference_text(gains)
    assert len(shown) == 4 * 2
    last = gains.iloc[-4]
    ends = f"{last.points:.1f} [{last['95 % low']:.1f}, {last['95 % high']:.1f}]"
    assert shown.iloc[-1][last.measure] == ends
    assert "5 seeds and 400 query images" in analysis.answer(found, CLAIMS)
    assert json.dumps(gains.points.tolist())
