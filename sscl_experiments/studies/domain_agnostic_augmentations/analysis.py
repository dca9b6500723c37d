"""Tables of the notebook: accuracies on clouds, differences between augmentations, predictors.

SNE without a network is in `sne`, what augmentations do before training in `views`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from numpy import nan
from scipy.stats import spearmanr

from sscl_experiments.covariance_config import COVARIANCE
from sscl_experiments.frames import by_seed, with_interval
from sscl_experiments.plotting import Ends
from sscl_experiments.statistics import interval

from .parameters import CLOUDS, NUISANCE_CLOUDS, PREMISE_CLOUDS, separation

GAIN = "mixup − noise"

# --- the map of clouds ---------------------------------------------------------------------------


def by_augmentation(best: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy by cloud and seed, a column an augmentation."""
    return best.pivot(index=["cloud", "seed"], columns="augmentation", values="knn_h_test")


def premise_gains(best: pd.DataFrame) -> list[float]:
    """A number a seed: accuracy with mixup minus noise, the mean over `PREMISE_CLOUDS`."""
    return _mean_over(by_augmentation(best), PREMISE_CLOUDS, "mixup", "noise")


def covariance_gains(best: pd.DataFrame, of: str = COVARIANCE) -> list[float]:
    """The same of noise with the data's covariance minus mixup, over `NUISANCE_CLOUDS`.

    `of`: "noise" is isotropic noise in its place, the null of the claim.
    """
    return _mean_over(by_augmentation(best), NUISANCE_CLOUDS, of, "mixup")


def _mean_over(wide: pd.DataFrame, clouds: Sequence[str], first: str, second: str) -> list[float]:
    own = wide.loc[list(clouds)]
    return (own[first] - own[second]).groupby("seed").mean().tolist()


def exceptions(gains_by_scale: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The clouds whose gain does not have the sign of log variance ratio, by scale.

    The values have the columns of `gains`. A gain whose interval includes 0 has no sign.
    """
    parts = []
    for scale, gain in gains_by_scale.items():
        ahead = (gain.low > 0).astype(int) - (gain.high < 0).astype(int)
        expected = (gain["variance ratio"] > 1).astype(int) * 2 - 1
        other = gain[ahead != expected]
        part = other[["cloud", "variance ratio", GAIN, "low", "high"]]
        part.insert(0, "scale", f"{scale}: {len(other)} of {len(gain)}")
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def by_separation(gains_by_scale: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every cloud in which the premise of C4 holds, by scale, and its gain: the evidence on C4b."""
    parts = []
    for scale, gain in gains_by_scale.items():
        distance = [separation(CLOUDS[cloud]) for cloud in gain.cloud]
        part = gain[["cloud", GAIN, "low", "high"]].copy()
        part.insert(1, "separation", distance)
        part.insert(0, "scale", scale)
        parts.append(part[part.separation > 1])
    return pd.concat(parts, ignore_index=True)


def rank_by_ratio(gains_by_scale: Mapping[str, pd.DataFrame]) -> str:
    """The rank correlation of the gain with the variance ratio over all clouds, by scale."""
    found = []
    for scale, gain in gains_by_scale.items():
        value = spearmanr(gain["variance ratio"], gain[GAIN]).statistic
        found.append(f"{value:.2f} over {len(gain)} clouds of {scale}")
    return f"rank correlation of variance ratio and gain: {', '.join(found)}"


def control_table(best: pd.DataFrame, clouds: Sequence[str]) -> pd.DataFrame:
    """Accuracy of each augmentation, and noise of the data's covariance minus mixup, by cloud.

    The last row is the mean over these clouds, paired by seed.
    """
    wide = by_augmentation(best).loc[list(clouds)]
    groups = {cloud: wide.loc[cloud] for cloud in clouds}
    groups["mean of these clouds"] = wide.groupby("seed").mean()
    rows = []
    for cloud, own in groups.items():
        row: dict[str, Any] = {"cloud": cloud}
        row |= {name: own[name].mean() for name in ("noise", "mixup", COVARIANCE)}
        difference = interval((own[COVARIANCE] - own["mixup"]).tolist())
        row |= with_interval("covariance noise − mixup", difference)
        rows.append(row | {"n": len(own)})
    return pd.DataFrame(rows)


def gains(best: pd.DataFrame, before: pd.DataFrame, clouds: Sequence[str]) -> pd.DataFrame:
    """Accuracy with mixup minus noise, its interval, separation and variance ratio of each cloud.

    The variance ratio is the variance of the data along the widest direction outside the span of
    the means, over the variance inside: 1 / selectivity of noise. `before` is `views.over_seeds`.
    """
    wide = by_augmentation(best)
    difference = (wide["mixup"] - wide["noise"]).groupby("cloud")
    ends = {cloud: interval(values.tolist()) for cloud, values in difference}
    noise = before[before.augmentation == "noise"].set_index("cloud")
    rows = []
    for cloud in clouds:
        mean, low, high = ends[cloud]
        row = {"cloud": cloud, GAIN: mean, "low": low, "high": high}
        row["separation"] = separation(CLOUDS[cloud])
        row["variance ratio"] = 1 / noise.selectivity[cloud]
        rows.append(row)
    return pd.DataFrame(rows)


def cloud_scores(
    best: pd.DataFrame, beside: pd.DataFrame, clouds: Sequence[str]
) -> dict[str, list[Ends]]:
    """Test accuracies by method, one interval a cloud: noise, mixup, and what is beside them.

    It is nan where a cloud has no networks of a method.
    """
    trained = ("noise", "mixup", COVARIANCE)
    methods = {name: best[best.augmentation == name] for name in trained}
    for name in ("untrained", "raw", "PCA"):
        methods[name] = beside[beside.method == name]
    scores = {}
    for name, rows in methods.items():
        values = [by_seed(rows, "knn_h_test", cloud=cloud) for cloud in clouds]
        scores[name] = [interval(own.tolist()) if len(own) else (nan, nan, nan) for own in values]
    return scores


def _predictors(before: pd.DataFrame, clouds: Sequence[str]) -> pd.DataFrame:
    names = ["energy in span", "views at own mean", "P within", "selectivity"]
    return before.pivot(index="cloud", columns="augmentation", values=names).loc[list(clouds)]


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
