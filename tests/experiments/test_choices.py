"""What validation picks among settings, raw baselines, and how rows of intervals are drawn."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier

from sscl_core.config import MLP, Cloud, Noise, Points, Table, TrainConfig
from sscl_core.evaluate import accuracy, knn, linear_probe
from sscl_experiments import choices, plotting
from sscl_experiments.choices import best_settings, forest_score, listed, raw_scores
from sscl_experiments.runs.points import point_set


def test_the_setting_chosen_has_the_best_mean_over_seeds_within_its_group():
    """Of "u" the second has the best seed, but the first the best mean; of "t" all are equal."""
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
    best = best_settings(table, ["group"], "setting", "score")
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
    best = best_settings(table, ["a", "b"], "setting", "score")
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


def points_run(points, seed=0):
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

    def note(x, labels, test, metric="cosine"):
        seen.append((x, labels, test))
        return torch.zeros(len(test), dtype=torch.int64)

    monkeypatch.setattr(choices, "knn", note)
    monkeypatch.setattr(choices, "linear_probe", note)
    config = points_run(points, seed=2)
    raw_scores(config, dim)
    data = point_set(config)
    assert len(seen) == 6
    assert all(labels is data.train.labels for _, labels, _ in seen)
    for x, _, test in seen[:3]:
        assert torch.equal(x, data.train.x)
        assert torch.equal(test, data.test.x)
    pca = PCA(expected, svd_solver="full").fit(data.train.x.double().numpy())
    for ours in seen[3:]:
        for z, part in zip(ours[::2], (data.train, data.test), strict=True):
            theirs = torch.from_numpy(pca.transform(part.x.double().numpy()))
            assert z.shape == theirs.shape
            signs = (z.double() * theirs).sum(0).sign()
            torch.testing.assert_close(z.double(), signs * theirs, atol=1e-3, rtol=0)


def test_raw_scores_are_accuracies_on_the_test_part():
    config = points_run(Cloud(dim=6, std=0.5, components=3, n_train=80), seed=5)
    raw, pca = raw_scores(config)
    assert [(row["method"], row["seed"]) for row in (raw, pca)] == [("raw", 5), ("PCA", 5)]
    data = point_set(config)
    train, labels, test = data.train.x, data.train.labels, data.test.x
    assert raw["knn_h_test"] == accuracy(knn(train, labels, test, k=10), data.test.labels)
    euclidean = knn(train, labels, test, k=10, metric="euclidean")
    assert raw["knn_euclidean_test"] == accuracy(euclidean, data.test.labels) != raw["knn_h_test"]
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


def test_a_dot_plot_has_a_row_a_name_and_an_interval_about_every_mean():
    axis = Figure().subplots()
    series = {
        "mixup": [(0.5, 0.4, 0.7), (math.nan, math.nan, math.nan), (0.1, 0.0, 0.3)],
        "mine": [(0.2, 0.1, 0.25), (0.6, 0.6, 0.9), (0.3, 0.2, 0.4)],
    }
    plotting.dot_plot(axis, ["a", "b", "c"], series, xlabel="share")
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


def test_a_forest_votes_on_the_raw_columns():
    config = points_run(Table(table="wine"), seed=3)
    data = point_set(config)
    forest = RandomForestClassifier(200, random_state=3)
    forest.fit(data.train.x.numpy(), data.train.labels.numpy())
    share = forest.score(data.test.x.numpy(), data.test.labels.numpy())
    row = forest_score(config)
    assert (row["method"], row["seed"]) == ("random forest", 3)
    assert row["forest_test"] == pytest.approx(share)
    assert share > 0.9


def test_rows_of_several_runs_are_listed_under_their_keys():
    runs = [points_run(Cloud(dim=6, components=3, n_train=40), seed=seed) for seed in (0, 1)]
    table = listed({"a": runs, "b": runs[:1]}, "cloud", lambda config: raw_scores(config, 2))
    assert table.cloud.tolist() == ["a"] * 4 + ["b"] * 2
    expected = [row for run in [*runs, runs[0]] for row in raw_scores(run, 2)]
    assert table.drop(columns="cloud").to_dict("records") == expected
