"""Which setting validation picks, and what was there without training: raw columns, PCA, a forest.

Several studies on vectors share them. Nothing here enters a stored number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from sscl_core.config import TrainConfig
from sscl_core.evaluate import accuracy, knn, linear_probe

from .datasets.synthetic import PointSet
from .runs.points import point_set
from .scores import principal_components

TREES = 200


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
    """The data of a run as they are, and on `dim` principal components: a row each.

    10-NN by cosine ("knn_h_test", as of networks) and by Euclidean distance
    ("knn_euclidean_test"), and the linear probe. The components are by default half as many as
    there are columns, at most 16.
    """
    data = point_set(config)
    dim = dim or min(16, max(1, data.train.x.shape[1] // 2))
    raw = (data.train.x, data.test.x)
    parts = {"raw": raw, "PCA": principal_components(*raw, dim)}
    rows = []
    for name, (z, z_test) in parts.items():
        scores = _scores(z, data, z_test)
        rows.append({"method": name, "seed": config.seed} | scores)
    return rows


def _scores(
    z: Float[Tensor, "n d"], data: PointSet, z_test: Float[Tensor, "m d"]
) -> dict[str, float]:
    labels = data.train.labels
    predicted = {
        "knn_h_test": knn(z, labels, z_test),
        "knn_euclidean_test": knn(z, labels, z_test, metric="euclidean"),
        "probe_h_test": linear_probe(z, labels, z_test),
    }
    return {name: accuracy(own, data.test.labels) for name, own in predicted.items()}


def forest_score(config: TrainConfig) -> dict[str, Any]:
    """A random forest of 200 trees on the raw columns, scikit-learn's settings, as one more row."""
    data = point_set(config)
    forest = RandomForestClassifier(TREES, random_state=config.seed)
    forest.fit(data.train.x.numpy(), data.train.labels.numpy())
    predicted = torch.from_numpy(forest.predict(data.test.x.numpy()))
    return {
        "method": "random forest",
        "seed": config.seed,
        "forest_test": accuracy(predicted, data.test.labels),
    }


def listed(
    runs: Mapping[str, Sequence[TrainConfig]],
    name: str,
    rows_of: Callable[[TrainConfig], list[dict[str, Any]]],
) -> pd.DataFrame:
    """The rows of every run, with the key that it is listed under in the column `name`."""
    rows = []
    for key, configs in runs.items():
        for config in configs:
            rows += [{name: key} | row for row in rows_of(config)]
    return pd.DataFrame(rows)
