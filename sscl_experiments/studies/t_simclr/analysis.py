"""TODO"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor

from sscl_core.config import InfoNCE
from sscl_core.evaluate import backbone_scores, feature_scores
from sscl_experiments.frames import frame_by
from sscl_experiments.record import Record
from sscl_experiments.statistics import interval


def own_metric(record: Record) -> str:
    """The metric of the loss's similarity: cosine for InfoNCE, else Euclidean."""
    return "cosine" if isinstance(record.config.loss, InfoNCE) else "euclidean"


def accuracies(
    records: Mapping[tuple[Any, ...], Sequence[Record]], names: Sequence[str]
) -> pd.DataFrame:
    """`frame_by` of runs on images, and as knn1_z, knn_z (10) and knn15_z the k-NN accuracy on z in the metric of the loss: cosine for
    InfoNCE, else Euclidean."""
    table = frame_by(records, names)
    own = [own_metric(r) for group in records.values() for r in group]
    for votes in ("knn1", "knn", "knn15"):
        table[f"{votes}_z"] = [
            row[f"{votes}_{metric}_z"]
            for metric, (_, row) in zip(own, table.iterrows(), strict=True)
        ]
    return table


def pixel_scores(
    pixels: tuple[Tensor, Tensor, Tensor, Tensor], dims: Sequence[int]
) -> pd.DataFrame:
    """What features are held against: the pixels as they are, and their principal components. Columns as in `accuracies`; on z the better
    of the two metrics for pixels, the Euclidean for components."""
    x, y, x_test, y_test = pixels
    scores = feature_scores(*pixels)
    raw = {
        f"{knn}_z": max(scores[f"{knn}_{metric}"] for metric in ("cosine", "euclidean"))
        for knn in ("knn1", "knn", "knn15")
    }
    rows = [
        {
            "method": "raw pixels",
            **raw,
            **{f"{name}_h": value for name, value in backbone_scores(*pixels).items()},
        }
    ]
    components = PCA(max(dims), random_state=0).fit(x.numpy())
    z, z_test = (
        torch.tensor(components.transform(part.numpy()), dtype=torch.float32)
        for part in (x, x_test)
    )
    for dim in dims:
        scores = feature_scores(z[:, :dim], y, z_test[:, :dim], y_test)
        rows.append(
            {"method": "PCA", "d_z": dim}
            | {f"{knn}_z": scores[f"{knn}_euclidean"] for knn in ("knn1", "knn", "knn15")}
        )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """A row a group: n, and for each metric "mean [low, high]", the 95 % interval over seeds."""
    rows = []
    for key, group in table.groupby(list(by), sort=False, dropna=False):
        row = dict(zip(by, key, strict=True)) | {"n": len(group)}
        for metric in metrics:
            mean, low, high = interval(group[metric].tolist())
            row[metric] = (
                f"{mean:.3f}" if len(group) == 1 else f"{mean:.3f} [{low:.3f}, {high:.3f}]"
            )
        rows.append(row)
    return pd.DataFrame(rows)


def paired(
    table: pd.DataFrame,
    by: Sequence[str],
    metrics: Sequence[str],
    *,
    column: str,
    minus: str,
    plus: str,
) -> pd.DataFrame:
    """A row a metric and group of `by`: the difference between the rows where `column` is `plus` and `minus`, paired by seed, with its 95 %
    interval over seeds."""
    rows = []
    for metric in metrics:
        wide = table.pivot_table(index=[*by, "seed"], columns=column, values=metric).dropna(
            subset=[plus, minus]
        )
        for key, values in (wide[plus] - wide[minus]).groupby(
            level=list(range(len(by))), sort=False
        ):
            mean, low, high = interval(values.tolist())
            group = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
            rows.append(
                {
                    "metric": metric,
                    **group,
                    f"{plus} − {minus}": mean,
                    "95 % low": low,
                    "95 % high": high,
                    "n": len(values),
                }
            )
    return pd.DataFrame(rows)


def changes(
    table: pd.DataFrame, steps: Mapping[str, tuple[str, str]], metrics: Sequence[str]
) -> pd.DataFrame:
    """What each step, from one method to another, changes in the metrics at every d_z: differences paired by seed, with 95 % intervals."""
    parts = [
        paired(table, ["d_z"], metrics, column="method", minus=before, plus=after)
        .rename(
            columns={f"{after} − {before}": "difference", "95 % low": "low", "95 % high": "high"}
        )
        .assign(change=name)
        for name, (before, after) in steps.items()
    ]
    return pd.concat(parts, ignore_index=True)


def regret(cells: pd.DataFrame, *, rule: tuple[float, float]) -> pd.DataFrame:
    """What a rule for (nu, scale) costs against the best of all settings, for every d_z. `cells`: a row a run with d_z, nu, scale, seed;
    `chosen_by`, the accuracy whose mean over seeds picks the best; `knn_z`, on which rule and best are compared, paired by seed."""
    rows = []
    for dim, part in cells.groupby("d_z"):
        runs = {key: group.sort_values("seed") for key, group in part.groupby(["nu", "scale"])}
        top = max(runs, key=lambda key: runs[key].chosen_by.mean())
        ours, best = (runs[key].knn_z.to_numpy() for key in (rule, top))
        means = pd.Series([group.knn_z.mean() for group in runs.values()])
        mean, low, high = interval((ours - best).tolist())
        row = {
            "d_z": dim,
            "rule": ours.mean(),
            "best in validation": best.mean(),
            "its ν": top[0],
            "its τ / d_z": top[1],
        }
        row |= {"rule − best": mean, "95 % low": low, "95 % high": high, "n": len(ours)}
        rows.append(row | {"median of all settings": means.median(), "worst": means.min()})
    return pd.DataFrame(rows)


def weight_effects(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Of runs with weighted pairs (crops, score, τ', seed, metrics) the differences from the unweighted ones (score "none") with the same
    crops, paired by seed, with their 95 % intervals over seeds."""
    rows = []
    for (crops, score, temperature), part in scores[scores.score != "none"].groupby(
        ["crops", "score", "τ'"], sort=False
    ):
        base = scores[(scores.crops == crops) & (scores.score == "none")].set_index("seed")
        for metric in metrics:
            mean, low, high = interval((part.set_index("seed")[metric] - base[metric]).tolist())
            key = {"crops": crops, "score": score, "τ'": temperature, "metric": metric}
            rows.append(key | {"difference": mean, "low": low, "high": high, "n": len(part)})
    return pd.DataFrame(rows)


def smallest_dims(
    dims: Sequence[int],
    simclr: Float[np.ndarray, "dims seeds"],
    other: Float[np.ndarray, "dims seeds"],
    margin: float = 0.0,
) -> tuple[Float[np.ndarray, " seeds"], Float[np.ndarray, " seeds"]]:
    """For each seed the smallest of `dims`, ascending, at which SimCLR, and the other method, comes within `margin` of SimCLR's accuracy at
    the dimension where its mean over seeds is best; twice the largest where none does."""
    level = simclr[simclr.mean(1).argmax()] - margin
    grid = np.array([*dims, 2 * dims[-1]], dtype=float)
    first, second = (
        np.vstack([accuracy >= level, np.ones_like(level, dtype=bool)]).argmax(0)
        for accuracy in (simclr, other)
    )
    return grid[first], grid[second]


def crossing(dims: Sequence[int], accuracy: Float[np.ndarray, " dims"], level: float) -> float:
    """The d_z at which a curve of accuracies first reaches `level`, straight in log2 d_z between dimensions; infinite if it does not."""
    if not (accuracy >= level).any():
        return math.inf
    i = int((accuracy >= level).argmax())
    if i == 0:
        return float(dims[0])
    share = (level - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
    return float(dims[i - 1] * (dims[i] / dims[i - 1]) ** share)
