"""The search that fixed `studies.METHODS`, on the part of the training images held out: `sscl tune`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from .config import Images, InfoNCE, TrainConfig, TSimCLR
from .experiments import results
from .studies import AUGMENTATION, Setting, image_run


def tune(seeds: Sequence[int], *, runs: Path, data_dir: str | Path | None = None) -> pd.DataFrame:
    """The search behind `studies.METHODS`: a row a setting with its validation accuracies: 10-NN on z, and the mean over d_z.

    A method's setting is the one with the best such mean under the metric of its own similarity: cosine for SimCLR, else Euclidean.
    """
    rows = []
    for method, metric in (("SimCLR", "knn_cosine_z"), ("t-SimCLR", "knn_euclidean_z")):
        for setting, configs in search_space(method, seeds=seeds).items():
            records = results(configs, runs=runs, data_dir=data_dir)
            dims = {d: np.mean([r.metrics[metric] for r in records if r.config.projector.dim == d]) for d in (2, 8, 32)}
            loss = setting.loss.model_dump(exclude={"name"})
            scores = {f"d_z={d}": value for d, value in dims.items()} | {"mean": np.mean(list(dims.values()))}
            backbone = np.mean([r.metrics["knn_cosine_h"] for r in records])
            rows.append({"method": method, **loss, "batchnorm": setting.batchnorm, **scores, "backbone": backbone, "runs": len(records)})
    return pd.DataFrame(rows)


def search_space(
    method: str, *, seeds: Sequence[int], epochs: int = 4, dims: Sequence[int] = (2, 8, 32)
) -> dict[Setting, list[TrainConfig]]:
    """The search for a method's setting: each with its runs, which are evaluated on the fifth of the training set held out."""
    images = Images(holdout=0.2, augmentation=AUGMENTATION)
    return {
        setting: [image_run(setting, images, dim=dim, epochs=epochs, seed=seed) for dim in dims for seed in seeds]
        for setting in _candidates(method)
    }


def _candidates(method: str) -> list[Setting]:
    """Ten a method: the same budget for both."""
    if method == "SimCLR":
        grid = [(tau, norm) for tau in (0.05, 0.1, 0.2, 0.5, 1.0) for norm in (False, True)]
        return [Setting(loss=InfoNCE(temperature=tau), batchnorm=norm) for tau, norm in grid]
    forms: list[tuple[Literal["joint", "conditional"], bool, tuple[float, ...]]] = [
        ("joint", True, (0.05, 0.2, 1.0, 5.0)),
        ("conditional", True, (0.05, 0.2, 1.0, 5.0)),
        ("conditional", False, (0.2, 5.0)),
    ]
    return [
        Setting(loss=TSimCLR(temperature=tau, df=5.0, normalization=form), batchnorm=norm) for form, norm, taus in forms for tau in taus
    ]
