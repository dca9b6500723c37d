"""Parts of figures that several studies share: panels, axes, differences with intervals, heat maps.

A kernel has one colour in every figure; with BatchNorm on z its line is solid, without dashed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from .plotting import COLORS, Style

KERNEL_COLORS = {
    "cosine": COLORS["SimCLR"],
    "Gaussian": COLORS["SNE"],
    "Student t": COLORS["t-SimCLR"],
}
# For what is no method: dimensions, kinds of weights. Paul Tol's, told apart in grey too.
OTHER_COLORS = ("#332288", "#882255", "#44AA99", "#999933", "#555555", "#DDAA33", "#CC6677")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def panels(rows: int, columns: int, *, width: float, height: float, **more: Any) -> tuple:
    """A figure with panels of that size, and their axes, in rows."""
    size = (width * columns, height * rows)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, **more)


def legend_below(figure: Figure, axes: Axes | Iterable[Axes]) -> None:
    """One legend under the figure for all panels, each name once."""
    found: dict[str, Any] = {}
    for axis in [axes] if isinstance(axes, Axes) else axes:
        handles, labels = axis.get_legend_handles_labels()
        found |= {label: one for one, label in zip(handles, labels, strict=True)}
    place: Style = {"loc": "outside lower center", "ncols": min(5, len(found)), "fontsize": 9}
    figure.legend(list(found.values()), list(found), **place)


def titled(axes: Iterable[Axes], measures: Mapping[str, str]) -> Iterator[tuple[Axes, str]]:
    """A panel for each measure, with its title."""
    for axis, metric in zip(axes, measures, strict=True):
        axis.set_title(measures[metric])
        yield axis, metric


def dimension_axis(axis: Axes, dims: Iterable[int], ylabel: str) -> None:
    """The axis of feature dimensions, each with its tick."""
    ticks = sorted(set(dims))
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(d) for d in ticks])
    axis.minorticks_off()
    axis.set_xlabel("feature dimension d_z")
    axis.set_ylabel(ylabel)


def differences(axis: Axes, x: Any, part: pd.DataFrame, **style: Any) -> None:
    """The columns difference, low and high, of accuracies, in points."""
    below, above = part.difference - part.low, part.high - part.difference
    shared: Style = {"ms": 4, "capsize": 2, "lw": 1}
    axis.errorbar(x, 100 * part.difference, [100 * below, 100 * above], **shared | style)


def zero_line(axis: Axes) -> None:
    axis.axhline(0, color="0.6", lw=1, zorder=0)


def numbers(values: Sequence[float] | pd.Index) -> list[str]:
    """Short, as they are written beside an axis."""
    return [f"{value:g}".replace("inf", "∞") for value in values]


def heatmap(
    axis: Axes, table: pd.DataFrame, *, low: float, high: float, title: str, best: bool = True
) -> AxesImage:
    """Accuracies over rows and columns, the numbers on top, in percent; the best is framed."""
    values = 100 * table.to_numpy(dtype=float)
    image = axis.imshow(values, vmin=100 * low, vmax=100 * high, aspect="auto")
    _write(axis, values, middle=50 * (low + high))
    if best:
        _frame_best(axis, values)
    rows, columns = values.shape
    axis.set_xticks(range(columns), numbers(table.columns))
    axis.set_yticks(range(rows), numbers(table.index))
    axis.set_title(title)
    return image


def _write(axis: Axes, values: Float[np.ndarray, "r c"], *, middle: float) -> None:
    """In white on what is above the middle of the colours."""
    style: Style = {"ha": "center", "va": "center", "fontsize": 8}
    for (i, j), value in np.ndenumerate(values):
        color = "white" if value > middle else "black"
        axis.text(j, i, f"{value:.0f}", color=color, **style)


def _frame_best(axis: Axes, values: Float[np.ndarray, "r c"]) -> None:
    i, j = np.unravel_index(np.nanargmax(values), values.shape)
    style: Style = {"fill": False, "edgecolor": "black", "lw": 2}
    axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **style))
