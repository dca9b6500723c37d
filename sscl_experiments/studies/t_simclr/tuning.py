"""The searches that fix the settings of notebook 05: making their tables, and reading them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sscl_experiments.runner import results
from sscl_experiments.searches import (
    DIMS,
    KERNEL_LOSSES,
    LOSSES,
    search_space,
    search_table,
    temperatures,
    tuned,
)


def tune(image_set: str, *, runs: Path, data_dir: str | Path | None = None) -> pd.DataFrame:
    """Runs a search: a row a run, the columns those of `searches.SearchRow`.

    Of the images held out: the accuracy of 15-NN on z in the metric of the loss, by which
    `searches.tuned` chooses, of 15-NN (cosine) on h, and of the linear probe on h.
    """
    space = search_space(image_set)
    records = results(list(space.values()), runs=runs, data_dir=data_dir)
    rows = []
    for (loss, dim, temperature), record in zip(space, records, strict=True):
        row = {"loss": loss, "d_z": dim, "temperature": temperature}
        row |= {
            "knn15_z": record.metrics[f"knn15_{record.config.loss.metric}_z"],
            "knn15_h": record.metrics["knn15_cosine_h"],
            "probe_h": record.metrics["linear_probe_h"],
        }
        rows.append(row)
    return pd.DataFrame(rows)


def subset_search() -> pd.DataFrame:
    """The committed search on the embedded set."""
    return pd.DataFrame(search_table())


def best_temperatures(search: pd.DataFrame, measure: str) -> pd.DataFrame:
    """For each loss and d_z the run with the best `measure`."""
    return search.loc[search.groupby(["loss", "d_z"], sort=False)[measure].idxmax()]


def search_summary(search: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of 15-NN on z at the best temperature, a row a loss, a column a d_z."""
    best = best_temperatures(search, "knn15_z")
    wide = best.pivot(index="loss", columns="d_z", values="knn15_z").loc[list(LOSSES)]
    wide["mean, d_z ≥ 2"] = wide[list(DIMS[1:])].mean(axis=1)
    return wide.reset_index().rename_axis(columns=None)


def chosen_temperatures(dims: Sequence[int]) -> pd.DataFrame:
    """A row a kernel, a column a d_z: the temperature in use.

    Marked where it is at an end of its grid.
    """
    rows = []
    for kernel, loss in KERNEL_LOSSES.items():
        row: dict[str, Any] = {"kernel": kernel}
        for dim in dims:
            temperature = getattr(tuned(loss, dim).loss, "temperature", 1.0)
            tried = temperatures(loss, dim)
            at_edge = temperature in (min(tried), max(tried))
            row[f"τ at d_z = {dim}"] = f"{temperature:g}{' (edge)' if at_edge else ''}"
        rows.append(row)
    return pd.DataFrame(rows)
