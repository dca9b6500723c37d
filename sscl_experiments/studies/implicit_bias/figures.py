"""The figures of notebook 03."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from sscl_experiments.plotting import CLASS_COLORS, COLORS, Array, circle
from sscl_experiments.record import Record
from sscl_experiments.statistics import rate_interval

from .analysis import NAMES, Ranking, changed_order, in_natural_order, in_order, point_labels

GROUP_COLORS = ("#D55E00", "#0072B2")
ON_LINE = "share of seeds in the order of the line"
PAUSE = 12  # frames for which an animation stands still at its end


def order(record: Record, kept: Bool[np.ndarray, "n t"]) -> Figure:
    """The features of one run before and after training; the share of all runs in order by step."""
    figure, (before, after, share) = plt.subplots(1, 3, figsize=(11, 3.8))
    for axis, t, title in ((before, 0, "before training"), (after, -1, "after training")):
        circle(axis, record.arrays["features"][t], point_labels(record))
        axis.set(title=title, xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))
    _name_components(after, record.arrays["means"][-1])
    steps = 50 * np.arange(kept.shape[1])
    share.plot(steps, kept.mean(0), "o-", color=COLORS["SimCLR"])
    share.axhline(1 / 3, color="0.5", lw=1, ls="--")
    share.text(steps[-1], 1 / 3 + 0.02, "chance", ha="right", color="0.4")
    share.set(xlabel="training step", title=ON_LINE, ylim=(0, 1.03))
    return figure


def _name_components(axis: Axes, directions: Float[Array, "m 2"]) -> None:
    """The name of each component outside the circle, in its colour."""
    for name, color, place in zip(NAMES, CLASS_COLORS, directions, strict=False):
        x, y = 1.2 * np.asarray(place)
        axis.text(x, y, name, color=color, ha="center", va="center", weight="bold")


def training_animation(
    panels: Mapping[str, Float[Array, "t n 2"]],
    labels: Int64[Array, " n"],
    steps: Sequence[int],
) -> tuple[Figure, FuncAnimation]:
    """The directions of features as training goes on, a panel a run; it pauses at the end.

    One colour a component, its name beside it. `steps`: the training step of each frame.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 3.5), squeeze=False)
    labels = np.asarray(labels)
    directions = [_unit(np.asarray(z)) for z in panels.values()]

    def draw(frame: int) -> list[Any]:
        for axis, title, u in zip(axes[0], panels, directions, strict=True):
            axis.clear()
            circle(axis, u[frame], labels)
            means = [u[frame][labels == label].mean(0) for label in np.unique(labels)]
            _name_components(axis, _unit(np.stack(means)))
            axis.set(title=title, xlabel="", ylabel="", xticks=[], yticks=[])
            axis.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))
            axis.spines[:].set_visible(False)
        figure.suptitle(f"step {steps[frame]}", y=0.02, va="bottom", fontsize=10)
        return []

    frames = [*range(len(steps)), *PAUSE * [len(steps) - 1]]
    return figure, FuncAnimation(figure, draw, frames=frames)


def _unit(z: np.ndarray) -> np.ndarray:
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def rate_rows(axis: Axes, rows: Mapping[str, tuple[float, float, float]]) -> np.ndarray:
    """A rate a row, from top to bottom, with its interval; returns the rows' heights."""
    y = -np.arange(len(rows))
    mean, low, high = np.array(list(rows.values())).T
    error = np.stack([mean - low, high - mean])
    color = COLORS["SimCLR"]
    axis.errorbar(mean, y, xerr=error, fmt="o", ms=5, capsize=2.5, color=color, label="trained")
    axis.set_yticks(y, list(rows))
    axis.set(xlim=(-0.03, 1.03), ylim=(y[-1] - 0.7, 0.7))
    axis.grid(axis="x", color="0.9", lw=0.8)
    return y


def generality(
    table: pd.DataFrame, ranks: Mapping[str, Float[np.ndarray, " n"]], plane: Record
) -> Figure:
    """Rates of the natural order, a row a setting; ranks of placements; features in the plane.

    `table` as of `analysis.generality`; `ranks`: of grids, and of t-SimCLR, whose run `plane` is.
    """
    figure, axes = plt.subplot_mosaic(
        [["rates", "rank"], ["rates", "plane"]], figsize=(11.5, 8.6), width_ratios=(1.5, 1)
    )
    _generality_rates(axes["rates"], table)
    _rank_distributions(axes["rank"], ranks)
    _plane(axes["plane"], plane)
    return figure


def _generality_rates(axis: Axes, table: pd.DataFrame) -> None:
    names = (table.factor + " " + table.level).str.strip()
    columns = table[["in order", "95 % low", "95 % high"]]
    y = rate_rows(axis, dict(zip(names, columns.itertuples(index=False, name=None), strict=True)))
    marks = (
        ("before training", "before training", "o", COLORS["untrained"]),
        ("in order, well separated", "and well separated", "^", COLORS["SimCLR"]),
    )
    for column, label, marker, color in marks:
        axis.plot(table[column], y, marker, ms=5, mfc="none", color=color, label=label, zorder=0)
    axis.plot(table.chance, y, "|", ms=9, mew=2, color="0.5", label="chance")
    axis.set_xlabel(ON_LINE)
    axis.legend(loc="upper center", bbox_to_anchor=(0.3, -0.06), ncols=4, fontsize=9)


def _rank_distributions(axis: Axes, ranks: Mapping[str, Float[np.ndarray, " n"]]) -> None:
    styles = (("-", COLORS["t-SimCLR"]), ("--", COLORS["SimCLR"]), ("-.", COLORS["SimCLR"]))
    for (name, values), (style, color) in zip(ranks.items(), styles, strict=True):
        axis.ecdf(values, label=name, ls=style, color=color)
    axis.plot([0, 1], [0, 1], color="0.6", lw=1, label="chance")
    axis.set(xlabel="share of assignments that are smoother", ylabel="share of seeds")
    axis.set_title("rank of the placement")
    axis.legend(loc="lower right", fontsize=9)


def _plane(axis: Axes, record: Record) -> None:
    """Features that are not on a circle, with the components' names beside their means."""
    features, means = record.arrays["features"][-1], record.arrays["means"][-1]
    colors = [CLASS_COLORS[i] for i in point_labels(record)]
    axis.scatter(features[:, 0], features[:, 1], c=colors, s=14, alpha=0.7, lw=0)
    for name, color, mean in zip(NAMES, CLASS_COLORS, means, strict=False):
        style: dict[str, Any] = {"color": color, "weight": "bold"}
        axis.annotate(name, mean, (12, 8), textcoords="offset points", **style)
    title = "t-SimCLR in the plane, first seed"
    axis.set(aspect="equal", title=title, xlabel="z₁", ylabel="z₂")


def ranking(found: Ranking) -> Figure:
    """C of all orders, from the smoothest on, and where runs stand before and after training."""
    figure, axis = plt.subplots(figsize=(7.5, 3.6))
    costs = np.sort(found.costs)
    axis.plot(np.arange(1, len(costs) + 1), costs, color="0.6", lw=1.5, label="all orders, by C")
    styles = ((COLORS["untrained"], "o"), (COLORS["SimCLR"], "D"))
    for (name, ranks), (color, marker) in zip(found.ranks.items(), styles, strict=True):
        style: dict[str, Any] = {"color": color, "marker": marker, "s": 28, "alpha": 0.6, "lw": 0}
        axis.scatter(ranks, costs[ranks - 1], label=name, zorder=3, **style)
    axis.set(xscale="log", xlabel="rank of the order (1: smoothest)")
    axis.set_ylabel("expected Lipschitz constant C")
    axis.legend()
    return figure


def starts(begun: Mapping[str, Sequence[Record]], *, square_loss: float, barrier: float) -> Figure:
    """What becomes of a fitted order: by step size, by the loss on the way, and for every start."""
    figure, axes = plt.subplots(1, 3, figsize=(12.5, 4.6), width_ratios=(1, 1, 1.1))
    _by_step_size(axes[0], begun)
    _losses_on_the_way(axes[1], begun["wrong order"])
    axes[1].axhline(barrier, color="0.3", ls="--", lw=1, label="barrier")
    axes[1].axhline(square_loss, color="0.3", ls=":", lw=1, label="square")
    axes[1].legend(fontsize=9)
    counts = {name: in_natural_order(runs) for name, runs in begun.items()}
    found = {name: rate_interval(int(ended.sum()), len(ended)) for name, ended in counts.items()}
    rate_rows(axes[2], found)
    axes[2].set_xlabel("share in the order of the line at the end")
    return figure


def _by_step_size(axis: Axes, begun: Mapping[str, Sequence[Record]]) -> None:
    own = ("wrong order", *(name for name in begun if name.startswith("step size")))
    sizes = {begun[name][0].config.optimizer.lr: begun[name] for name in own}
    for size, shade in zip(sorted(sizes), (0.3, 0.55, 0.75, 1.0), strict=True):
        share = in_order(sizes[size]).mean(0)
        color = plt.get_cmap("Blues")(shade)
        axis.plot(25 * np.arange(len(share)), share, color=color, label=f"{size:g}")
    title = "share in the order of the line"
    axis.set(xlabel="training step", title=title, ylim=(-0.03, 1.03))
    axis.legend(title="step size", loc="upper right", bbox_to_anchor=(1, 0.9))


def _losses_on_the_way(axis: Axes, records: Sequence[Record]) -> None:
    loss = np.array([record.arrays["evaluation_loss"] for record in records])
    steps, changed = 25 * np.arange(loss.shape[1]), changed_order(records)
    parts = (
        (changed, "order changed", COLORS["SimCLR"]),
        (~changed, "unchanged", COLORS["t-SimCLR"]),
    )
    for mask, label, color in parts:
        axis.plot(steps, loss[mask].T, color=color, lw=0.6, alpha=0.5)
        axis.plot([], [], color=color, label=f"{label} ({mask.sum()})")
    axis.set(xlabel="training step", title="InfoNCE, from the wrong order")


def class_similarities(
    panels: Mapping[str, Float[Array, "k k"]], names: Sequence[str], groups: Int64[Array, " k"]
) -> Figure:
    """Classes' mean similarities in four panels on one scale, the diagonal blank.

    Each panel is in the order of its own average-linkage tree; names are coloured by group.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 8.6))
    off = ~np.eye(len(names), dtype=bool)
    limit = max(np.abs(np.asarray(similarity)[off]).max() for similarity in panels.values())
    scale = plt.Normalize(-limit, limit)
    for axis, (title, values) in zip(axes.flat, panels.items(), strict=True):
        similarity = np.array(values)
        ranks = _tree_order(similarity)
        shown = np.where(off, similarity[np.ix_(ranks, ranks)], np.nan)
        axis.imshow(shown, cmap="RdBu_r", norm=scale)
        axis.set_title(title)
        _name_classes(axis, [names[i] for i in ranks], [int(groups[i]) for i in ranks])
    colors = plt.cm.ScalarMappable(scale, "RdBu_r")
    label = "mean cosine of centred features"
    figure.colorbar(colors, ax=list(axes.flat), shrink=0.75, label=label)
    return figure


def _tree_order(similarity: Float[np.ndarray, "k k"]) -> list[int]:
    """The leaves of the average-linkage tree, like beside like."""
    off = ~np.eye(len(similarity), dtype=bool)
    distance = np.where(off, similarity[off].max() - similarity, 0)
    condensed = squareform(distance, checks=False)
    return leaves_list(linkage(condensed, "average", optimal_ordering=True)).tolist()


def _name_classes(axis: Axes, names: Sequence[str], groups: Sequence[int]) -> None:
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=9)
    axis.set_yticks(range(len(names)), names, fontsize=9)
    for ticks in (axis.get_xticklabels(), axis.get_yticklabels()):
        for tick, group in zip(ticks, groups, strict=True):
            tick.set_color(GROUP_COLORS[group] if group >= 0 else "0.35")
