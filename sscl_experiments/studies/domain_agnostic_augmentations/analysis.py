"""Tables of the notebook: the best strengths, baselines, and differences between methods.

SNE without a network is in `sne`, what augmentations do before training in `views`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from sscl_core.config import TrainConfig
from sscl_core.evaluate import accuracy, knn, linear_probe
from sscl_experiments.frames import by_seed, with_interval
from sscl_experiments.runs.points import point_set
from sscl_experiments.statistics import interval

GAIN = "mixup − noise"
SCORES = ("knn_h_test", "probe_h_test")
Ends = tuple[float, float, float]  # mean, and the ends of its 95 % interval

# --- choices and baselines -----------------------------------------------------------------------


def best_settings(table: pd.DataFrame, by: Sequence[str], setting: str, score: str) -> pd.DataFrame:
    """The rows of the best `setting` of each group: that with the best mean `score` over seeds.

    Of equal ones it is the first.
    """
    names = [*by, setting]
    groups = table.groupby(names, sort=False)[score]
    means = groups.mean().reset_index()
    best = means.groupby(list(by), sort=False)[score].idxmax()
    return table.merge(means.loc[best, names], on=names)


def raw_scores(config: TrainConfig, dim: int | None = None) -> list[dict[str, Any]]:
    """10-NN (cosine) and linear probe on the data of a run as they are, and on `dim` components.

    The principal components are by default half as many as there are columns, at most 16.
    """
    data = point_set(config)
    x, x_test = data.train.x, data.test.x
    mean = x.mean(0)
    dim = dim or min(16, max(1, len(mean) // 2))
    svd = torch.linalg.svd(x - mean, full_matrices=False)
    axes = svd.Vh[:dim].T
    components = [(part - mean) @ axes for part in (x, x_test)]
    rows = []
    for name, (z, z_test) in {"raw": (x, x_test), "PCA": components}.items():
        row: dict[str, Any] = {"method": name, "seed": config.seed}
        for key, classify in (("knn_h_test", knn), ("probe_h_test", linear_probe)):
            predicted = classify(z, data.train.labels, z_test)
            row[key] = accuracy(predicted, data.test.labels)
        rows.append(row)
    return rows


def raw_table(
    runs: Mapping[str, Sequence[TrainConfig]], name: str, dim: int | None = None
) -> pd.DataFrame:
    """`raw_scores` of every run, with the key that it is listed under in the column `name`."""
    rows = []
    for key, configs in runs.items():
        for config in configs:
            rows += [{name: key} | row for row in raw_scores(config, dim)]
    return pd.DataFrame(rows)


# --- the map of clouds ---------------------------------------------------------------------------


def by_augmentation(best: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy by cloud and seed, a column an augmentation."""
    return best.pivot(index=["cloud", "seed"], columns="augmentation", values="knn_h_test")


def isotropic_gains(best: pd.DataFrame) -> list[float]:
    """A number a seed: accuracy with mixup minus noise, the mean over the isotropic clouds."""
    wide = by_augmentation(best)
    clouds = wide.index.get_level_values("cloud")
    isotropic = wide[clouds.str.startswith("isotropic")]
    return (isotropic["mixup"] - isotropic["noise"]).groupby("seed").mean().tolist()


def gains(best: pd.DataFrame, before: pd.DataFrame, clouds: Sequence[str]) -> pd.DataFrame:
    """Accuracy with mixup minus noise, its interval, and the variance ratio of each cloud.

    That is the variance of the data along the widest direction outside the span of the means, over
    the variance inside: 1 / selectivity of noise. `before` is `views.perturbations`.
    """
    wide = by_augmentation(best)
    difference = (wide["mixup"] - wide["noise"]).groupby("cloud")
    ends = {cloud: interval(values.tolist()) for cloud, values in difference}
    noise = before[before.augmentation == "noise"].set_index("cloud")
    rows = []
    for cloud in clouds:
        mean, low, high = ends[cloud]
        row = {"cloud": cloud, GAIN: mean, "low": low, "high": high}
        row["variance ratio"] = 1 / noise.selectivity[cloud]
        rows.append(row)
    return pd.DataFrame(rows)


def cloud_scores(
    best: pd.DataFrame, beside: pd.DataFrame, clouds: Sequence[str]
) -> dict[str, list[Ends]]:
    """Test accuracies by method, one interval a cloud: noise, mixup, and what is beside them."""
    methods = {name: best[best.augmentation == name] for name in ("noise", "mixup")}
    for name in ("untrained", "raw", "PCA"):
        methods[name] = beside[beside.method == name]
    scores = {}
    for name, rows in methods.items():
        values = [by_seed(rows, "knn_h_test", cloud=cloud) for cloud in clouds]
        scores[name] = [interval(own.tolist()) for own in values]
    return scores


def _predictors(before: pd.DataFrame, clouds: Sequence[str]) -> pd.DataFrame:
    names = ["energy in span", "views at own mean", "P within", "selectivity"]
    return before.pivot(index="cloud", columns="augmentation", values=names).loc[list(clouds)]


def predictors(before: pd.DataFrame, gain: pd.DataFrame) -> pd.DataFrame:
    """What augmentations do to each cloud at their best strengths, beside the gain."""
    clouds = gain.cloud.tolist()
    table = pd.DataFrame({"cloud": clouds})
    for name in ("noise", "mixup"):
        own = before[before.augmentation == name]
        strength = own.set_index("cloud").strength
        table[f"strength, {name}"] = strength.loc[clouds].tolist()
    values = _predictors(before, clouds)
    for column in values.columns:
        table[", ".join(column)] = values[column].tolist()
    return table.assign(**{GAIN: gain[GAIN].tolist()})


def predictor_test(before: pd.DataFrame, gain: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation over clouds between the gain and each predictor, mixup minus noise."""
    values, rows = _predictors(before, gain.cloud.tolist()), []
    for name in values.columns.get_level_values(0).unique():
        difference = values[name]["mixup"] - values[name]["noise"]
        test = spearmanr(difference, gain[GAIN])
        row = {"predictor (mixup minus noise)": name}
        row |= {"rank correlation with the gain": test.statistic, "p": test.pvalue}
        rows.append(row | {"clouds": len(gain)})
    return pd.DataFrame(rows)


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


# --- tables --------------------------------------------------------------------------------------


def against_baselines(best: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """What validation picks among methods and augmentations, minus each baseline, paired by split.

    `best` are the best strengths of all methods, `baselines` the raw columns, their principal
    components and the untrained network. A row for each table, score and baseline.
    """
    rows = []
    for name in best.table.unique():
        trained = best[(best.table == name) & (best.method != "untrained")]
        means = trained.groupby(["method", "augmentation"]).knn_h_validation.transform("mean")
        picked = trained.loc[means.idxmax(), ["method", "augmentation"]].to_dict()
        for score in SCORES:
            ours = by_seed(trained, score, **picked)
            for other in ("raw", "PCA", "untrained"):
                difference = ours - by_seed(baselines, score, table=name, method=other)
                row = {"table": name, "picked by validation": ", ".join(picked.values())}
                row |= {"score": score.removesuffix("_h_test"), "against": other}
                row |= with_interval("difference", interval(difference.tolist()))
                rows.append(row | {"n": len(ours)})
    return pd.DataFrame(rows)


def counts_against_baselines(best: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """In how many comparisons a learned feature is above or below a baseline.

    There is one for each method, augmentation and score. It counts where the 95 % interval of the
    difference, paired by split, has 0 outside.
    """
    rows = []
    for name in best.table.unique():
        for other in ("raw", "untrained"):
            ends = list(_comparisons(best, baselines, name, other))
            low, high = np.array(ends).T
            row = {"table": name, "every method, augmentation and score, against": other}
            row |= {"above": (low > 0).sum()}
            row |= {"cannot be told apart": ((low <= 0) & (high >= 0)).sum()}
            rows.append(row | {"below": (high < 0).sum()})
    return pd.DataFrame(rows)


def _comparisons(
    best: pd.DataFrame, baselines: pd.DataFrame, name: str, other: str
) -> Iterator[tuple[float, float]]:
    """The ends of the interval of each comparison on a table."""
    trained = best[(best.table == name) & (best.method != "untrained")]
    for score in SCORES:
        theirs = by_seed(baselines, score, table=name, method=other)
        for _, group in trained.groupby(["method", "augmentation"]):
            difference = by_seed(group, score) - theirs
            _, low, high = interval(difference.tolist())
            yield low, high
