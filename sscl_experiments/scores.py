"""Scores of runs on images as tables: accuracies, baselines, means and differences by seed.

Nothing here enters a stored number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor

from sscl_core.evaluate import backbone_scores, feature_scores

from .frames import frame_by, with_interval
from .record import Record
from .statistics import interval

Runs = Mapping[tuple[Any, ...], Sequence[Record]]
Pixels = tuple[Tensor, Tensor, Tensor, Tensor]  # x and labels, of the training and the test images
VOTES = ("knn1", "knn", "knn15")  # 1, 10 and 15 neighbors
MEASURES = {
    "knn15_z": "15-NN on z",
    "knn15_cosine_h": "15-NN (cosine) on h",
    "linear_probe_h": "linear probe on h",
}


def accuracies(records: Runs, names: Sequence[str]) -> pd.DataFrame:
    """`frame_by` of runs on images, and accuracies on z in the metric of the loss.

    The latter are called knn1_z, knn_z (10 neighbors) and knn15_z.
    """
    table = frame_by(records, names)
    metrics = [r.config.loss.metric for group in records.values() for r in group]
    for votes in VOTES:
        columns = [f"{votes}_{metric}_z" for metric in metrics]
        table[f"{votes}_z"] = [table[name].iloc[i] for i, name in enumerate(columns)]
    return table


def pixel_scores(pixels: Pixels, dims: Sequence[int]) -> pd.DataFrame:
    """What features are held against: the pixels as they are, and their principal components.

    Columns as in `accuracies`. On z the better of the two metrics for pixels, the Euclidean one for
    components.
    """
    x, y, x_test, y_test = pixels
    own = feature_scores(*pixels)
    raw: dict[str, Any] = {"method": "raw pixels"}
    for votes in VOTES:
        raw[f"{votes}_z"] = max(own[f"{votes}_cosine"], own[f"{votes}_euclidean"])
    raw |= {f"{name}_h": value for name, value in backbone_scores(*pixels).items()}
    rows = [raw]
    z, z_test = principal_components(x, x_test, max(dims))
    for dim in dims:
        scores = feature_scores(z[:, :dim], y, z_test[:, :dim], y_test)
        row = {"method": "PCA", "d_z": dim}
        rows.append(row | {f"{votes}_z": scores[f"{votes}_euclidean"] for votes in VOTES})
    return pd.DataFrame(rows)


def principal_components(
    x: Float[Tensor, "n p"], x_test: Float[Tensor, "m p"], dim: int
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Those of x, and x_test in them."""
    components = PCA(dim, random_state=0).fit(x.numpy())
    parts = [components.transform(part.numpy()) for part in (x, x_test)]
    z, z_test = (torch.tensor(part, dtype=torch.float32) for part in parts)
    return z, z_test


def summary(table: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """A row a group: n, and for each metric "mean [low, high]", the 95 % interval over seeds."""
    rows = []
    for key, group in table.groupby(list(by), sort=False, dropna=False):
        row = dict(zip(by, key, strict=True)) | {"n": len(group)}
        rows.append(row | {metric: _with_interval(group[metric]) for metric in metrics})
    return pd.DataFrame(rows)


def _with_interval(values: pd.Series) -> str:
    mean, low, high = interval(values.tolist())
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def paired(
    table: pd.DataFrame,
    by: Sequence[str],
    metrics: Sequence[str],
    *,
    column: str,
    minus: str,
    plus: str,
) -> pd.DataFrame:
    """Differences between rows where `column` is `plus` and `minus`, paired by seed.

    A row a metric and group of `by`, with the 95 % interval over seeds.
    """
    rows = []
    for metric in metrics:
        wide = table.pivot_table(index=[*by, "seed"], columns=column, values=metric)
        both = wide.dropna(subset=[plus, minus])
        differences = both[plus] - both[minus]
        for key, values in differences.groupby(level=list(range(len(by))), sort=False):
            group = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
            row = {"metric": metric, **group}
            row |= with_interval(f"{plus} − {minus}", interval(values.tolist()))
            rows.append(row | {"n": len(values)})
    return pd.DataFrame(rows)
