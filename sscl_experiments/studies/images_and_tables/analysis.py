"""Tables of the notebook: what validation picks, baselines, budgets, and the variance ratio."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sscl_core.config import TrainConfig
from sscl_core.evaluate import accuracy, knn
from sscl_experiments.choices import best_settings, forest_score, listed, raw_scores
from sscl_experiments.covariance_config import COVARIANCE
from sscl_experiments.frames import by_seed, images_as_rows, with_interval
from sscl_experiments.plotting import Ends
from sscl_experiments.runs.points import point_set
from sscl_experiments.statistics import interval
from sscl_experiments.variance_ratio import unlabelled_groups, variance_ratio

VALIDATION = "knn_h_validation"
SETTING = ["augmentation", "strength", "budget"]
# Scores of the test part by what they are called in figures.
SCORES = {
    "10-NN, cosine": "knn_h_test",
    "10-NN, Euclidean": "knn_euclidean_test",
    "linear probe": "probe_h_test",
    "forest's vote": "forest_test",
}

# --- images --------------------------------------------------------------------------------------


def view_scores(views: pd.DataFrame) -> dict[str, Ends]:
    """10-NN accuracy on the backbone by kind of view, with intervals, the best first."""
    groups = views.groupby("views", sort=False)["knn_cosine_h"]
    ends = {str(name): interval(values.tolist()) for name, values in groups}
    names, means = list(ends), [mean for mean, _, _ in ends.values()]
    best_first = np.argsort(means)[::-1]
    return {names[i]: ends[names[i]] for i in best_first}


def minus_untrained(views: pd.DataFrame) -> pd.DataFrame:
    """The same minus the untrained network's, paired by seed."""
    untrained, rows = by_seed(views, "knn_cosine_h", views="untrained"), []
    for name in view_scores(views):
        if name != "untrained":
            gain = by_seed(views, "knn_cosine_h", views=name) - untrained
            ends = with_interval("minus untrained", interval(gain.tolist()))
            rows.append({"views": name} | ends | {"n": len(untrained)})
    return pd.DataFrame(rows)


def raw_pixels(
    config: TrainConfig, *, n_train: int | None = None, data_dir: str | Path | None = None
) -> float:
    """10-NN accuracy (cosine) of the pixels, with as many training images as a run has.

    Or with the first `n_train` of them.
    """
    if n_train is not None:
        config = config.replace(data=config.data.replace(n_train=n_train))
    x, y, x_test, y_test = images_as_rows(config, data_dir)
    return accuracy(knn(x, y, x_test), y_test)


def recorded_views(record: Mapping[str, Any]) -> pd.DataFrame:
    """`minus_untrained` of a record, with the accuracy itself."""
    scores = record["figures"]["images"].groupby("views").knn_cosine_h.mean()
    table = record["tables"]["images"]
    return table.assign(**{"10-NN accuracy": table.views.map(scores)})


# --- tables --------------------------------------------------------------------------------------


def baseline_rows(splits: Mapping[str, Sequence[TrainConfig]]) -> pd.DataFrame:
    """Raw columns, their principal components and a random forest, a row a split each."""

    def rows_of(config: TrainConfig) -> list[dict]:
        return [*raw_scores(config), forest_score(config)]

    return listed(splits, "table", rows_of)


def best_of_each(trained: pd.DataFrame) -> pd.DataFrame:
    """Of every table and augmentation the strength and budget best in validation."""
    return _best(trained, ["table", "augmentation"])


def picked(trained: pd.DataFrame) -> pd.DataFrame:
    """Of every table the augmentation, strength and budget best in validation."""
    return _best(trained, ["table"])


def _best(trained: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    setting = trained[SETTING].astype(str).agg(", ".join, axis=1)
    return best_settings(trained.assign(setting=setting), by, "setting", VALIDATION)


def against_baselines(best: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """What validation picked minus each baseline, paired by split; a row a table and baseline.

    The forest's own vote is held against the linear probe.
    """
    rows = []
    for name in best.table.unique():
        ours = best[best.table == name]
        for label, column, other, own in _comparisons():
            theirs = by_seed(baselines, own, table=name, method=other)
            difference = by_seed(ours, column) - theirs
            row = {"table": name, "picked by validation": ours.setting.iloc[0]}
            row |= {"score": label, "against": other}
            row |= with_interval("difference", interval(difference.tolist()))
            rows.append(row | {"n": len(theirs)})
    return pd.DataFrame(rows)


def _comparisons() -> Iterator[tuple[str, str, str, str]]:
    """(what is compared, our column, the baseline, its column)."""
    for other in ("raw", "PCA", "untrained"):
        yield "10-NN, cosine", "knn_h_test", other, "knn_h_test"
    yield "10-NN, ours cosine, raw Euclidean", "knn_h_test", "raw", "knn_euclidean_test"
    for other in ("raw", "PCA", "untrained"):
        yield "linear probe", "probe_h_test", other, "probe_h_test"
    yield "linear probe, forest's vote", "probe_h_test", "random forest", "forest_test"


def scores(best: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy of raw columns in either metric and by the probe, and of what was picked."""
    raw = baselines[baselines.method == "raw"]
    rows = []
    for name in best.table.unique():
        row: dict[str, Any] = {"table": name}
        for source, table in (("raw", raw), ("picked", best)):
            own = table[table.table == name]
            for label in ("10-NN, cosine", "10-NN, Euclidean", "linear probe"):
                if SCORES[label] in own:
                    row[f"{source}, {label}"] = own[SCORES[label]].mean()
        rows.append(row | {"n": best[best.table == name].seed.nunique()})
    return pd.DataFrame(rows)


def probe_gains(best: pd.DataFrame, baselines: pd.DataFrame) -> list[float]:
    """A number a seed: the probe on what validation picked minus the probe on raw columns, the mean
    over tables."""
    names = ["table", "seed"]
    raw = baselines[baselines.method == "raw"].set_index(names).probe_h_test
    gains = best.set_index(names).probe_h_test - raw
    return gains.groupby("seed").mean().tolist()


def by_budget(trained: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """Of every table and budget what validation picks, and its probe minus that of raw columns.

    Noise of the data's covariance, trained at the small budget alone, is left out.
    """
    best = _best(trained[trained.augmentation != COVARIANCE], ["table", "budget"])
    rows = []
    for (name, budget), own in best.groupby(["table", "budget"], sort=False):
        raw = by_seed(baselines, "probe_h_test", table=name, method="raw")
        gain = by_seed(own, "probe_h_test") - raw
        row = {"table": name, "budget": budget, "augmentation": own.augmentation.iloc[0]}
        row |= {"validation": own[VALIDATION].mean(), "10-NN": own.knn_h_test.mean()}
        row |= {"probe": own.probe_h_test.mean()}
        row |= with_interval("probe minus raw", interval(gain.tolist()))
        rows.append(row | {"n": len(own)})
    return pd.DataFrame(rows)


# --- the variance ratio --------------------------------------------------------------------------


def ratio_table(trained: pd.DataFrame, splits: Mapping[str, Sequence[TrainConfig]]) -> pd.DataFrame:
    """The variance ratio of each table, with and without labels, beside what it is to predict.

    Means over splits. Gains are in 10-NN, each augmentation at the small budget and its strength
    best in validation.
    """
    best = best_of_each(trained[trained.budget == "small"])
    rows = []
    for name, configs in splits.items():
        ratios = pd.DataFrame([_ratios(config) for config in configs])
        row = {"table": name} | ratios.mean().to_dict()
        own = best[best.table == name]
        noise = by_seed(own, "knn_h_test", augmentation="noise")
        for other in ("mixup", COVARIANCE):
            gain = by_seed(own, "knn_h_test", augmentation=other) - noise
            mean, low, high = interval(gain.tolist())
            row[f"{other} − noise"] = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        rows.append(row | {"n": len(configs)})
    return pd.DataFrame(rows)


def _ratios(config: TrainConfig) -> dict[str, float]:
    part = point_set(config).train
    groups, silhouettes = unlabelled_groups(part.x, len(part.labels.unique()), seed=config.seed)
    ratios = {
        "ratio by labels": variance_ratio(part.x, part.labels),
        "ratio without labels": variance_ratio(part.x, groups),
    }
    return ratios | {f"silhouette, {name}": value for name, value in silhouettes.items()}
