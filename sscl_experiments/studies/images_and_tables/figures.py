"""The figures of the notebook: accuracies in rows, for images and for tables."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sscl_experiments.covariance_config import COVARIANCE
from sscl_experiments.plotting import COLORS, Ends, dot_plot
from sscl_experiments.statistics import interval

from .analysis import SCORES

BASELINES = ("raw", "PCA", "random forest", "untrained")
AUGMENTATIONS = ("noise", COVARIANCE, "mixup", "masking", "corruption")
NOTHING = (np.nan, np.nan, np.nan)


def images(scores: Mapping[str, Ends], raw_pixels: float) -> Figure:
    """Accuracies by kind of view, beside that of raw pixels; `scores`: `analysis.view_scores`."""
    names = list(scores)
    figure, axis = plt.subplots(figsize=(6.5, 0.3 * len(names) + 1.2))
    label = "10-NN accuracy on the backbone, test images"
    dot_plot(axis, names, {"SimCLR": list(scores.values())}, xlabel=label)
    axis.axvline(raw_pixels, color=COLORS["raw"], lw=1)
    axis.text(raw_pixels, -len(names) + 0.4, " raw pixels", fontsize=9)
    return figure


def tables(best: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """A panel a table: what needs no training above, augmentations below, a colour a score.

    `best` is `analysis.best_of_each`.
    """
    names = list(best.table.unique())
    size = (4.0 * len(names) + 1, 4.6)
    figure, axes = plt.subplots(1, len(names), figsize=size, squeeze=False, sharey=True)
    for axis, name in zip(axes[0], names, strict=True):
        groups = _groups(best[best.table == name], baselines[baselines.table == name])
        series = {
            label: [_ends(rows, column) for rows in groups.values()]
            for label, column in SCORES.items()
        }
        dot_plot(axis, list(groups), series, xlabel="accuracy, test")
        axis.axhline(0.5 - len(BASELINES), color="0.6", lw=1, ls=":")
        axis.set_title(name)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, ncol=4, loc="outside upper center", fontsize=10)
    return figure


def _groups(best: pd.DataFrame, baselines: pd.DataFrame) -> dict[str, pd.DataFrame]:
    groups = {name: baselines[baselines.method == name] for name in BASELINES}
    return groups | {name: best[best.augmentation == name] for name in AUGMENTATIONS}


def _ends(rows: pd.DataFrame, column: str) -> Ends:
    values = rows[column].dropna().tolist() if column in rows else []
    return interval(values) if values else NOTHING
