"""Images and tables: runs, what validation picks, baselines, budgets and the variance ratio."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sscl_core.config import Corruption, Masking, Mixup, Noise, Points
from sscl_core.evaluate import accuracy, knn
from sscl_experiments.frames import images_as_rows
from sscl_experiments.grouping import ensembles
from sscl_experiments.runs.points import point_set
from sscl_experiments.settings import AUGMENTATION, METHODS
from sscl_experiments.studies.images_and_tables import analysis, figures
from sscl_experiments.studies.images_and_tables.parameters import (
    BUDGETS,
    COVARIANCE_STRENGTHS,
    IMAGE_VIEWS,
    LARGER_STEPS,
    TABLE_STEPS,
)
from sscl_experiments.study import resolve
from sscl_experiments.variance_ratio import variance_ratio


def study(**given):
    return resolve("11_images_and_tables", given)


# --- images --------------------------------------------------------------------------------------


def test_kinds_of_views_are_sorted_and_paired_with_the_untrained_network():
    scores = {"noise": (0.5, 0.7), "untrained": (0.2, 0.3), "mixup": (0.8, 0.7)}
    rows = [
        {"views": name, "seed": seed, "knn_cosine_h": value}
        for name, values in scores.items()
        for seed, value in enumerate(values)
    ]
    table = pd.DataFrame(rows).sample(frac=1, random_state=0)
    found = analysis.view_scores(table)
    assert list(found) == ["mixup", "noise", "untrained"]
    assert found["noise"][0] == pytest.approx(0.6)
    paired = analysis.minus_untrained(table)
    assert paired.views.tolist() == ["mixup", "noise"]
    assert paired["minus untrained"].tolist() == pytest.approx([0.5, 0.35])
    low, high = stats.t.interval(0.95, 1, 0.35, stats.sem([0.3, 0.4]))
    assert paired.loc[1, ["95 % low", "95 % high"]].tolist() == pytest.approx([low, high])
    assert paired.n.tolist() == [2, 2]
    figures.images(found, 0.4).draw_without_rendering()


def test_recorded_views_have_their_accuracy():
    rows = [("mixup", 0, 0.5), ("mixup", 1, 0.7), ("crop", 0, 0.9)]
    images = pd.DataFrame(rows, columns=["views", "seed", "knn_cosine_h"])
    table = pd.DataFrame({"views": ["crop", "mixup"], "minus untrained": [0.2, 0.1]})
    record = {"figures": {"images": images}, "tables": {"images": table}}
    found = analysis.recorded_views(record)
    assert found["10-NN accuracy"].tolist() == pytest.approx([0.9, 0.6])


def test_raw_pixels_are_classified_by_as_many_images_as_a_run_has():
    config = study(scale="smoke").view_runs()["untrained"][0]
    few, more = analysis.raw_pixels(config), analysis.raw_pixels(config, n_train=400)
    x, y, x_test, y_test = images_as_rows(config.replace(data=config.data.replace(n_train=400)))
    assert more == accuracy(knn(x, y, x_test), y_test)
    assert 0.4 < few < more


# --- tables --------------------------------------------------------------------------------------


def tables_frame() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables: mixup at the medium budget is best in validation, and worst in the test."""
    keys = itertools.product(("wine", "iris"), ("noise", "mixup"), ("small", "medium"), range(3))
    rows = []
    for table, name, budget, seed in keys:
        worst = (name, budget) == ("mixup", "medium")
        score = 0.01 * seed + (0.2 if worst else 0.6)
        row = {"table": table, "augmentation": name, "strength": 0.3, "budget": budget}
        row |= {"seed": seed, "knn_h_validation": 1.0 if worst else 0.5}
        rows.append(row | {"knn_h_test": score, "probe_h_test": score + 0.1 + 0.001 * seed})
    covariance = [
        row | {"augmentation": "covariance noise", "knn_h_validation": 0.4, "probe_h_test": 0.9}
        for row in rows
        if row["augmentation"] == "noise" and row["budget"] == "small"
    ]
    levels = {"raw": 0.4, "PCA": 0.3, "untrained": 0.65, "random forest": 0.5}
    scores = ("knn_h_test", "probe_h_test", "knn_euclidean_test", "forest_test")
    baselines = pd.DataFrame(
        {"table": table, "method": method, "seed": seed} | dict.fromkeys(scores, level)
        for table in ("wine", "iris")
        for method, level in levels.items()
        for seed in range(3)
    )
    return pd.DataFrame([*rows, *covariance]), baselines


def test_validation_picks_augmentation_strength_and_budget_together():
    trained, baselines = tables_frame()
    best = analysis.picked(trained)
    assert best.setting.unique().tolist() == ["mixup, 0.3, medium"]
    assert len(best) == 6
    each = analysis.best_of_each(trained)
    kinds = each.groupby("augmentation").budget.unique().to_dict()
    assert {name: list(found) for name, found in kinds.items()} == {
        "covariance noise": ["small"],
        "mixup": ["medium"],
        "noise": ["small"],
    }
    figures.tables(each, baselines).draw_without_rendering()


def test_what_is_picked_is_compared_with_every_baseline():
    trained, baselines = tables_frame()
    table = analysis.against_baselines(analysis.picked(trained), baselines)
    own = table[table.table == "wine"].set_index(["score", "against"])
    assert own.difference["10-NN, cosine", "raw"] == pytest.approx(0.21 - 0.4)
    assert own.difference["10-NN, cosine", "untrained"] == pytest.approx(0.21 - 0.65)
    assert own.difference["10-NN, ours cosine, raw Euclidean", "raw"] == pytest.approx(-0.19)
    probe = np.array([0.3, 0.311, 0.322])
    assert own.difference["linear probe", "PCA"] == pytest.approx(probe.mean() - 0.3)
    forest = own.loc[("linear probe, forest's vote", "random forest")]
    low, high = stats.t.interval(0.95, 2, probe.mean() - 0.5, stats.sem(probe))
    assert (forest["95 % low"], forest["95 % high"]) == pytest.approx((low, high))
    assert set(table["picked by validation"]) == {"mixup, 0.3, medium"}
    gains = analysis.probe_gains(analysis.picked(trained), baselines)
    assert gains == pytest.approx(probe - 0.4)


def test_scores_of_raw_columns_and_of_what_was_picked():
    trained, baselines = tables_frame()
    (row, _) = analysis.scores(analysis.picked(trained), baselines).to_dict("records")
    assert (row["table"], row["n"]) == ("wine", 3)
    assert row["raw, 10-NN, cosine"] == row["raw, linear probe"] == pytest.approx(0.4)
    assert row["picked, 10-NN, cosine"] == pytest.approx(0.21)
    assert row["picked, linear probe"] == pytest.approx(0.311)
    assert "picked, 10-NN, Euclidean" not in row


def test_every_budget_is_held_against_the_raw_columns():
    table = analysis.by_budget(*tables_frame()).set_index(["table", "budget"])
    assert len(table) == 4
    assert table.augmentation["wine", "small"] == "noise", "of equal ones the first"
    assert table["probe minus raw"]["wine", "small"] == pytest.approx(0.711 - 0.4)
    assert table["probe minus raw"]["iris", "medium"] == pytest.approx(0.311 - 0.4)


def test_the_ratio_of_a_table_is_the_mean_over_its_splits():
    trained, _ = tables_frame()
    splits = {"wine": study(scale="smoke", tables=["wine"]).untrained_runs()["wine"]}
    row = analysis.ratio_table(trained[trained.table == "wine"], splits).iloc[0]
    parts = [point_set(config).train for config in splits["wine"]]
    expected = np.mean([variance_ratio(part.x, part.labels) for part in parts])
    assert row["ratio by labels"] == pytest.approx(expected)
    assert row["ratio without labels"] == pytest.approx(expected, rel=0.1)
    assert row["silhouette, raw"] > row["silhouette, whitened"]
    assert row["mixup − noise"].startswith("+0.000 [")


def test_baselines_are_rows_of_tables():
    splits = {"wine": study(scale="smoke").untrained_runs()["wine"]}
    rows = analysis.baseline_rows(splits)
    assert rows.method.tolist() == ["raw", "PCA", "random forest"] * 2
    assert rows[rows.method == "random forest"].forest_test.min() > 0.9


# --- runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["smoke", "quick", "full"])
def test_the_runs_are_those_of_the_groups_and_each_is_made_once(scale):
    p = study(scale=scale)
    groups = {"view": p.image_seeds, "table": p.seeds, "untrained": p.seeds, "covariance": p.seeds}
    grouped = []
    for group, n in groups.items():
        for name, runs in getattr(p, f"{group}_runs")().items():
            assert [run.seed for run in runs] == list(range(n)), (group, name)
            grouped += runs
    assert len(set(p.runs())) == len(p.runs()) == len(grouped)
    vectors = [run for run in p.runs() if isinstance(run.data, Points)]
    assert all(len(group) == p.seeds for group in ensembles(vectors))


def test_every_strength_is_tried_at_the_small_budget_and_two_at_the_others():
    p = study(scale="full", tables=["iris", "digits", "iris"])
    runs = p.table_runs()
    expected = {
        (table, step.name, strength, budget)
        for table in ("iris", "digits")
        for budget in BUDGETS
        for strength, step in (TABLE_STEPS if budget == "small" else LARGER_STEPS)
    }
    assert runs.keys() == expected
    for (table, name, strength, budget), (run, *_) in runs.items():
        (step,) = run.data.augmentation
        value = step.model_dump().keys() & {"scale", "strength", "rate"}
        assert (step.name, getattr(step, *value)) == (name, strength)
        width, batch, longer = BUDGETS[budget]
        assert run.data.points.table == table
        assert (run.backbone.width, run.batch_size) == (width, batch)
        assert run.epochs * run.data.steps_per_epoch == longer * p.steps
        assert run.loss == METHODS["SimCLR"].loss


def test_every_augmentation_has_as_many_strengths():
    kinds = (Noise, Mixup, Masking, Corruption)
    assert [type(step) for _, step in TABLE_STEPS] == [kind for kind in kinds for _ in range(3)]
    assert len(COVARIANCE_STRENGTHS) == 3
    p = study(scale="smoke")
    names = ["covariance noise"]
    expected = itertools.product(p.tables, names, COVARIANCE_STRENGTHS, ["small"])
    assert set(p.covariance_runs()) == set(expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tables": ["boston"]}, "tables.0 = 'boston'"),
        ({"tables": []}, "tables"),
        ({"budgets": ["huge"]}, "budgets.0 = 'huge'"),
        ({"steps": 0}, "steps = 0"),
        ({"image_seeds": 0}, "image_seeds = 0"),
        ({"image_epochs": 0}, "image_epochs = 0"),
        ({"n_train": 10_001}, "n_train = 10001"),
    ],
    ids=str,
)
def test_wrong_parameters_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        study(scale="smoke", **given)


def test_views_of_images_are_all_singles_and_pairs_of_four_kinds():
    """Each kind has one strength wherever it occurs, a crop is first, and nothing else is done."""
    kinds = ("crop", "noise", "mixup", "masking")
    expected = {*kinds, *(" + ".join(pair) for pair in itertools.combinations(kinds, 2))}
    assert IMAGE_VIEWS.keys() == expected | {"crop + jitter"}
    assert IMAGE_VIEWS["crop + jitter"] == AUGMENTATION
    strengths = {name: IMAGE_VIEWS[name].then for name in kinds}
    assert strengths["crop"] == ()
    assert [type(step) for name in kinds[1:] for step in strengths[name]] == [Noise, Mixup, Masking]
    for name in expected:
        views, parts = IMAGE_VIEWS[name], name.split(" + ")
        assert (views.crop_scale == AUGMENTATION.crop_scale) == ("crop" in parts)
        assert views.crop_scale == (1.0, 1.0) or "crop" in parts
        assert views.then == tuple(step for part in parts for step in strengths[part])
        assert (views.flip, views.jitter, views.grayscale) == (0.0, 0.0, 0.0)


def test_runs_on_views_of_images_differ_in_their_views_alone():
    p = study(scale="smoke")
    runs = p.view_runs()
    assert runs.keys() == IMAGE_VIEWS.keys() | {"untrained"}
    for name, views in IMAGE_VIEWS.items():
        assert all(run.data.augmentation == views for run in runs[name])
        assert {run.epochs for run in runs[name]} == {p.image_epochs}
    assert {run.epochs for run in runs["untrained"]} == {0}
    assert (
        len(
            {
                run.model_copy(update={"data": None, "epochs": 0, "seed": 0})
                for group in runs.values()
                for run in group
            }
        )
        == 1
    )
    assert {run.data.n_train for group in runs.values() for run in group} == {p.n_train}
