"""TODO"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int64
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from sscl_experiments.plotting import CLASS_COLORS, COLORS, GROUP_COLORS, Array, circle


def rates(
    axis: Axes,
    rows: Mapping[str, tuple[float, float, float]],
    *,
    chance: Sequence[float] = (),
    **marks: Sequence[float],
) -> None:
    """A rate a row, from top to bottom, with its interval; grey ticks for chance, and `marks`, other rates of the same rows, by name."""
    y = -np.arange(len(rows))
    mean, low, high = np.array(list(rows.values())).T
    error = np.stack([mean - low, high - mean])
    axis.errorbar(
        mean, y, xerr=error, fmt="o", ms=5, capsize=2.5, color=COLORS["SimCLR"], label="trained"
    )
    for (name, values), marker, color in zip(
        marks.items(), "o^", (COLORS["untrained"], COLORS["SimCLR"]), strict=False
    ):
        axis.plot(
            values, y, marker, ms=5, mfc="none", color=color, label=name.replace("_", " "), zorder=0
        )
    if len(chance):
        axis.plot(chance, y, "|", ms=9, mew=2, color="0.5", label="chance")
    axis.set_yticks(y, list(rows))
    axis.set(xlim=(-0.03, 1.03), ylim=(y[-1] - 0.7, 0.7))
    axis.grid(axis="x", color="0.9", lw=0.8)


def moving(
    panels: Mapping[str, Float[Array, "t n 2"]],
    labels: Int64[Array, " n"],
    names: Sequence[str],
    steps: Sequence[int],
) -> tuple[Figure, FuncAnimation]:
    """Features by their direction as training goes on, a panel each, one colour a component and its name beside it; it stops a moment
    at the end. `steps`: the training step of each frame."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 3.5), squeeze=False)
    labels = np.asarray(labels)
    directions = [
        np.asarray(z) / np.linalg.norm(np.asarray(z), axis=2, keepdims=True)
        for z in panels.values()
    ]

    def draw(frame: int) -> list[Any]:
        for axis, title, u in zip(axes[0], panels, directions, strict=True):
            axis.clear()
            circle(axis, u[frame], labels)
            for label, name in enumerate(names):
                mean = u[frame][labels == label].mean(0)
                x, y = 1.2 * mean / np.linalg.norm(mean)
                axis.text(
                    x, y, name, color=CLASS_COLORS[label], ha="center", va="center", weight="bold"
                )
            axis.set(
                title=title,
                xlabel="",
                ylabel="",
                xticks=[],
                yticks=[],
                xlim=(-1.4, 1.4),
                ylim=(-1.4, 1.4),
            )
            axis.spines[:].set_visible(False)
        figure.suptitle(f"step {steps[frame]}", y=0.02, va="bottom", fontsize=10)
        return []

    return figure, FuncAnimation(figure, draw, frames=[*range(len(steps)), *12 * [len(steps) - 1]])


def similarities(
    axes: Sequence[Axes],
    panels: Mapping[str, Float[Array, "k k"]],
    names: Sequence[str],
    groups: Int64[Array, " k"],
) -> None:
    """Classes' mean similarities on one scale, the diagonal blank, each panel in the order of its own average-linkage tree; a name is
    coloured by its group."""
    off = ~np.eye(len(names), dtype=bool)
    limit = max(np.abs(np.asarray(similarity)[off]).max() for similarity in panels.values())
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        similarity = np.array(values)
        distance = np.where(off, similarity[off].max() - similarity, 0)
        order = leaves_list(
            linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
        )
        shown = np.where(off, similarity[np.ix_(order, order)], np.nan)
        image = axis.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(title)
        axis.set_xticks(range(len(order)), [names[i] for i in order], rotation=90, fontsize=9)
        axis.set_yticks(range(len(order)), [names[i] for i in order], fontsize=9)
        for i, ticks in zip(
            order, zip(axis.get_xticklabels(), axis.get_yticklabels(), strict=True), strict=True
        ):
            for tick in ticks:
                tick.set_color(GROUP_COLORS[int(groups[i])] if groups[i] >= 0 else "0.35")
    axes[0].figure.colorbar(
        image, ax=list(axes), shrink=0.75, label="mean cosine of centred features"
    )
