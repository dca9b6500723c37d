"""Tables of notebook 05: accuracies by dimension and length, one change at a time, records."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.decomposition import PCA

from sscl_core.config import Images, TrainConfig
from sscl_experiments.frames import images_as_rows, with_interval
from sscl_experiments.record import Record
from sscl_experiments.scores import MEASURES, Pixels, Runs, accuracies, paired, pixel_scores
from sscl_experiments.searches import KERNEL_LOSSES, METHOD_LOSSES
from sscl_experiments.settings import SUBSET
from sscl_experiments.statistics import interval

from .kernel_experiment.design import Kernel
from .parameters import LARGE_SETS

BATCH = 128  # of all runs on images here
NAMES = ("method", "d_z", "epochs")
CHOSEN = {"z": "knn15_best_z", "h": "linear_probe_h"}
# The contrasts of kernels that the notebook is about: (minus, plus).
CONTRASTS: dict[str, tuple[Kernel, Kernel]] = {
    "Gaussian − cosine": ("cosine", "Gaussian"),
    "Student t − Gaussian": ("Gaussian", "Student t"),
}
# The record of scale full calls losses by these names. "SimCLR" is the cosine with BatchNorm.
_IN_RECORD = {
    "with BatchNorm": ("SimCLR", "Euclidean SNE, BatchNorm", "t conditional, BatchNorm"),
    "without": ("cosine", "Euclidean SNE", "t conditional"),
}


def scores_of(records: Runs) -> pd.DataFrame:
    """`accuracies` of runs by kernel, d_z and epochs, and the optimiser steps of each.

    knn15_best_z: 15-NN on z in the metric that is better for this kernel, d_z and length on the
    mean over seeds, alike for all. (Half of what separates the kernels on the circle is that
    metric.)
    """
    table = accuracies(records, NAMES)
    steps = [steps_of(record.config) for group in records.values() for record in group]
    by_group = table.groupby(list(NAMES))
    columns = ["knn15_cosine_z", "knn15_euclidean_z"]
    means = pd.DataFrame({name: by_group[name].transform("mean") for name in columns})
    euclidean = means.knn15_euclidean_z > means.knn15_cosine_z
    best = table.knn15_euclidean_z.where(euclidean, table.knn15_cosine_z)
    return table.assign(steps=steps, knn15_best_z=best)


def scores_of_large(records: Runs) -> pd.DataFrame:
    """`accuracies` of runs by image set, method and d_z."""
    return accuracies(records, ("image_set", "method", "d_z"))


def steps_of(config: TrainConfig) -> int:
    """Of the optimiser: epochs times batches, of which the last may be smaller."""
    assert isinstance(config.data, Images)
    assert config.data.n_train is not None
    return config.epochs * math.ceil(config.data.n_train / config.batch_size)


def at_length(scores: pd.DataFrame, epochs: int) -> pd.DataFrame:
    """The rows of one length, and of the untrained network."""
    return scores[scores.epochs.isin([epochs, 0])]


def contrasts(scores: pd.DataFrame, images: str) -> pd.DataFrame:
    """Differences between kernels at every d_z and length, paired by seed, in long form.

    Columns: contrast, purpose ("z" or "h"), d_z, epochs, steps, difference, low, high, n, images.
    """
    parts = []
    run = set(scores.method)
    for contrast, (minus, plus) in CONTRASTS.items():
        if not {minus, plus} <= run:
            continue
        sides = {"column": "method", "minus": minus, "plus": plus}
        part = paired(scores, ["d_z", "epochs", "steps"], list(CHOSEN.values()), **sides)
        plain = {f"{plus} − {minus}": "difference", "95 % low": "low", "95 % high": "high"}
        parts.append(part.rename(columns=plain).assign(contrast=contrast))
    if not parts:
        return pd.DataFrame(columns=["contrast", "images"])
    table = pd.concat(parts, ignore_index=True)
    purposes = {metric: purpose for purpose, metric in CHOSEN.items()}
    return table.assign(purpose=table.metric.map(purposes), images=images).drop(columns="metric")


def contrasts_of_record(record: Mapping[str, Any], dims: Sequence[int]) -> pd.DataFrame:
    """`contrasts` of a record of scale full, whose z is read in the metric of each loss."""
    parameters, table = record["parameters"], record["figures"]["accuracy_by_dimension"]
    names = dict(zip(_IN_RECORD["with BatchNorm"], KERNEL_LOSSES, strict=True))
    own = table[table.method.isin(names) & table.d_z.isin(dims)]
    batches = math.ceil(parameters["n_train"] / BATCH)
    scores = own.assign(
        method=own.method.map(names),
        knn15_best_z=own.knn15_z,
        epochs=parameters["epochs"],
        steps=parameters["epochs"] * batches,
    )
    return contrasts(scores, SUBSET)


def by_metric(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean 15-NN on z of every kernel and d_z, read by cosine and by Euclidean distance."""
    trained = scores[scores.method.isin(KERNEL_LOSSES)]
    names = {"knn15_cosine_z": "by cosine", "knn15_euclidean_z": "by Euclidean distance"}
    means = trained.groupby(["d_z", "method"], sort=False)[list(names)].mean()
    return means.rename(columns=names).reset_index()


def untrained_beside(scores: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """What training is held against: pixels, their components, the untrained network."""
    columns = {"knn15_z": "15-NN on z", "knn15_cosine_h": "15-NN on h", "linear_probe_h": "probe"}
    network = scores[scores.method == "untrained"].groupby(["method", "d_z"])[list(columns)].mean()
    table = pd.concat([baselines, network.reset_index()])
    return table[["method", "d_z", *columns]].rename(columns=columns)


# --- one change at a time -------------------------------------------------------------------------


def two_by_two(record: pd.DataFrame) -> pd.DataFrame:
    """What leaving the sphere does, and then the tail, with BatchNorm on z and without.

    `record`: accuracies by loss at scale full. Rows: change, form, metric, d_z, difference, low,
    high, n; paired by seed.
    """
    parts = []
    for form, (cosine, gaussian, student) in _IN_RECORD.items():
        steps = {"leave the sphere": (cosine, gaussian), "heavy tail": (gaussian, student)}
        parts.append(changes(record, steps, list(MEASURES)).assign(form=form))
    return pd.concat(parts, ignore_index=True)


def changes(
    table: pd.DataFrame, steps: Mapping[str, tuple[str, str]], metrics: Sequence[str]
) -> pd.DataFrame:
    """What each step, from one method to another, changes in the metrics at every d_z.

    Differences paired by seed, with 95 % intervals.
    """
    parts = []
    for name, (before, after) in steps.items():
        part = paired(table, ["d_z"], metrics, column="method", minus=before, plus=after)
        plain = {f"{after} − {before}": "difference", "95 % low": "low", "95 % high": "high"}
        parts.append(part.rename(columns=plain).assign(change=name))
    return pd.concat(parts, ignore_index=True)


def method_differences(scores: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """t-SimCLR minus SimCLR in every measure, paired by seed."""
    methods = scores[scores.method.isin(METHOD_LOSSES)]
    sides = {"column": "method", "minus": "SimCLR", "plus": "t-SimCLR"}
    return paired(methods, by, list(MEASURES), **sides)


def large_baselines(
    runs: Mapping[tuple[str, str, int], Sequence[TrainConfig]], data_dir: str | Path | None
) -> pd.DataFrame:
    """`pixel_scores` of every larger set, of the images that its runs are trained on."""
    first: dict[str, TrainConfig] = {}
    for (name, _, _), group in runs.items():
        first.setdefault(name, group[0])
    tables = []
    for name, run in first.items():
        scores = pixel_scores(images_as_rows(run, data_dir), LARGE_SETS[name].dims)
        tables.append(scores.assign(image_set=name))
    return pd.concat(tables)


def in_points(differences: pd.DataFrame, *by: str) -> pd.DataFrame:
    """A row a group of `by`, a column a measure: "difference [low, high]" in points."""
    columns = {"95 % low": "low", "95 % high": "high", "t-SimCLR − SimCLR": "difference"}
    table = differences.rename(columns=columns)
    numbers = (table[name].tolist() for name in ("difference", "low", "high"))
    table["text"] = [points(*row) for row in zip(*numbers, strict=True)]
    wide = table.pivot(index=list(by), columns="metric", values="text")
    return wide[list(MEASURES)].rename(columns=MEASURES).reset_index().rename_axis(columns=None)


def points(value: float, low: float, high: float) -> str:
    """A difference of accuracies with its interval, in points."""
    return f"{100 * value:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"


# --- maps -----------------------------------------------------------------------------------------


def planar_maps(records: Runs, epochs: int, pixels: Pixels) -> dict[str, Float[np.ndarray, "n 2"]]:
    """Maps of the test images in two dimensions: principal components, and the first seeds."""
    x, _, x_test, _ = pixels
    maps = {"PCA": PCA(2, random_state=0).fit(x.numpy()).transform(x_test.numpy())}
    for kernel, name in MAPPED.items():
        first: Record = records[kernel, 2, epochs][0]
        maps[name] = first.arrays["z_test"]
    return maps


MAPPED = {"cosine": "SimCLR", "Student t": "t-SimCLR"}


def map_titles(
    names: Sequence[str], scores: pd.DataFrame, baselines: pd.DataFrame
) -> dict[str, str]:
    """The 10-NN accuracy of each map, over seeds where there are any."""
    kernels = {name: kernel for kernel, name in MAPPED.items()}
    titles = {}
    for name in names:
        own = (scores.method == kernels.get(name)) & (scores.d_z == 2)
        if values := scores[own].knn_z.tolist():
            found = "{:.3f} [{:.3f}, {:.3f}]".format(*interval(values))
        else:
            of_pixels = (baselines.method == name) & (baselines.d_z == 2)
            found = f"{baselines[of_pixels].knn_z.item():.3f}"
        titles[name] = f"{name}: 10-NN {found}"
    return titles


# --- records --------------------------------------------------------------------------------------


def endpoints_before(record: Mapping[str, Any]) -> pd.DataFrame:
    """The verdicts that a record of scale `full` holds, by the endpoints of its time."""
    rows = []
    for outcome in record["claims"]:
        row = {"claim": outcome["claim"]["id"], "endpoint then": outcome["claim"]["estimand"]}
        estimate = (outcome["estimate"], outcome["low"], outcome["high"])
        row |= with_interval("estimate", estimate) | {"n": outcome["n"]}
        rows.append(row | {"it said": outcome["verdict"]})
    return pd.DataFrame(rows)
