"""The figures of notebook 10."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sscl_experiments.panels import (
    MARKERS,
    OTHER_COLORS,
    differences,
    legend_below,
    numbers,
    panels,
    titled,
    zero_line,
)
from sscl_experiments.plotting import Array, Style

from .analysis import MEASURES
from .claims import MARGIN

FIRST: Style = {"edgecolor": "black", "ls": "-"}
SECOND: Style = {"edgecolor": "#882255", "ls": "--"}


def crops(image: Float[Array, "h w"], pairs: Mapping[str, Float[Array, "k ..."]]) -> Figure:
    """An image once for each pair of crops, drawn as boxes (x0, y0, x1, y1).

    `pairs`: as of `analysis.example_crops`.
    """
    number = len(pairs["iou"])
    figure, axes = plt.subplots(1, number, figsize=(11, 2.3), squeeze=False)
    height, width = image.shape
    place: Style = {"extent": (0, width, height, 0)}
    for i, axis in enumerate(axes[0]):
        axis.imshow(np.asarray(image), cmap="gray_r", alpha=0.6, **place)
        _box(axis, pairs["first"][i], FIRST)
        _box(axis, pairs["second"][i], SECOND)
        axis.set_title(f"IoU {pairs['iou'][i]:.2f}")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


def _box(axis: Axes, corners: Float[Array, " 4"], style: Style) -> None:
    x0, y0, x1, y1 = np.asarray(corners)
    box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, lw=2, clip_on=False, **style)
    axis.add_patch(box)


def weight_effects(effects: pd.DataFrame) -> Figure:
    """Differences of accuracy in points by the temperature of pair weights, with 95 % intervals.

    A panel a measure, a colour and a marker a kind of weights. From the left, which favours large
    overlap most, to the right, which favours small overlap most; the band is the margin.
    """
    order = sorted(effects["τ'"].unique(), key=lambda value: -1 / value)
    figure, axes = panels(1, len(MEASURES), width=4.2, height=3.9, sharey=True)
    for axis, metric in titled(axes[0], MEASURES):
        _effects_by_temperature(axis, effects[effects.metric == metric], order)
        axis.axhspan(-100 * MARGIN, 100 * MARGIN, color="0.92", zorder=0)
        zero_line(axis)
        axis.set_xticks(range(len(order)), numbers(order))
        axis.set_xlim(-0.6, len(order) - 0.4)
        axis.set_xlabel("τ' of the weights")
    axes[0, 0].set_ylabel("weighted − unweighted, points")
    legend_below(figure, axes[0, 0])
    return figure


def _effects_by_temperature(axis: Axes, effects: pd.DataFrame, order: Sequence[float]) -> None:
    """At the place of their temperature in `order`, each kind of weights a little to the right."""
    by = [name for name in ("epochs", "crops", "score") if name in effects]
    for i, (kind, part) in enumerate(effects.groupby(by, sort=False)):
        x = part["τ'"].map(order.index) + 0.1 * i
        style: Style = {"fmt": MARKERS[i % 7], "color": OTHER_COLORS[i % 7]}
        differences(axis, x, part, label=_name(dict(zip(by, kind, strict=True))), **style)


def _name(kind: Mapping[str, object]) -> str:
    words = {"iou": "by overlap", "input": "by pixels", "features": "by features"}
    name = f"{words[str(kind['score'])]}, crops {kind['crops']}"
    return f"{name}, {kind['epochs']} epochs" if "epochs" in kind else name
