"""TODO"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from sscl_experiments.plotting import COLORS


def dots(
    axis: Axes,
    rows: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, float, float]]],
    *,
    xlabel: str,
) -> None:
    """A quantity a row, from top to bottom, for each series with its interval; nan where a series lacks a row."""
    for i, (name, points) in enumerate(series.items()):
        y = -np.arange(len(rows)) - 0.5 * ((i + 0.5) / len(series) - 0.5)
        mean, low, high = np.array(points, dtype=float).T
        error = np.stack([mean - low, high - mean])
        axis.errorbar(
            mean,
            y,
            xerr=error,
            fmt="o",
            ms=4.5,
            capsize=2,
            lw=1.2,
            color=COLORS.get(name, f"C{i}"),
            label=name,
        )
    axis.set_yticks(-np.arange(len(rows)), list(rows))
    axis.set(ylim=(-len(rows) + 0.3, 0.7), xlabel=xlabel)
    axis.grid(axis="x", color="0.9", lw=0.8)
