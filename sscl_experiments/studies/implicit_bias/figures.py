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

from sscl_experiments.plotting import CLASS_COLORS, COLORS, Array, Style, circle
from sscl_experiments.record import Record
from sscl_experiments.statistics import rate_interval

from .analysis import NAMES, Ranking, changed_order, in_natural_order, in_order, point_labels

Runs = Mapping[str, Sequence[Record]]  # by their start
Labels = Int64[Array, " n"]
Matrix = Float[np.ndarray, "k k"]
Ranks = Mapping[str, Float[np.ndarray, " n"]]  # of a setting's runs
Rate = tuple[float, float, float]  # and the ends of its interval

GROUP_COLORS = ("#D55E00", "#0072B2")
ON_LINE = "share of seeds in the order of the line"
PAUSE = 12  # frames for which an animation stands still at its end
RATE_LIMITS = (-0.03, 1.03)
CIRCLE_LIMITS = (-1.4, 1.4)  # of an axis, with room for names outside the circle
START_STEPS = 25  # of training, between two looks at a run from a fitted start


# --- the order of one setting ---------------------------------------------------------------------


def order(record: Record, kept: Bool[np.ndarray, "n t"]) -> Figure:
    """The features of one run before and after training; the share of all runs in order by step."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.8))
    before, after, share = axes
    features = record.arrays["features"]
    labels = point_labels(record)
    _named_circle(before, features[0], labels, "before training")
    _named_circle(after, features[-1], labels, "after training")
    _name_components(after, record.arrays["means"][-1])
    _share_in_order(share, kept)
    return figure


def _named_circle(
    axis: Axes, features: Float[np.ndarray, "n 2"], labels: Labels, title: str
) -> None:
    circle(axis, features, labels)
    axis.set_title(title)
    axis.set(xlim=CIRCLE_LIMITS, ylim=CIRCLE_LIMITS)


def _name_components(axis: Axes, directions: Float[Array, "m 2"]) -> None:
    """The name of each component outside the circle, in its colour."""
    style: Style = {
        "ha": "center",
        "va": "center",
        "weight": "bold",
    }
    for name, color, place in zip(NAMES, CLASS_COLORS, directions, strict=False):
        x, y = 1.2 * np.asarray(place)
        axis.text(x, y, name, color=color, **style)


def _share_in_order(axis: Axes, kept: Bool[np.ndarray, "n t"]) -> None:
    steps = 50 * np.arange(kept.shape[1])
    axis.plot(steps, kept.mean(0), "o-", color=COLORS["SimCLR"])
    chance = 1 / 3
    axis.axhline(chance, color="0.5", lw=1, ls="--")
    axis.text(
        steps[-1],
        chance + 0.02,
        "chance",
        ha="right",
        color="0.4",
    )
    axis.set_title(ON_LINE)
    axis.set_xlabel("training step")
    axis.set_ylim(0, 1.03)


def training_animation(
    panels: Mapping[str, Float[Array, "t n 2"]],
    labels: Labels,
    steps: Sequence[int],
) -> tuple[Figure, FuncAnimation]:
    """The directions of features as training goes on, a panel a run; it pauses at the end.

    One colour a component, its name beside it. `steps`: the training step of each frame.
    """
    columns = len(panels)
    size = (3.1 * columns, 3.5)
    figure, axes = plt.subplots(1, columns, figsize=size, squeeze=False)
    labels = np.asarray(labels)
    directions = [_unit(np.asarray(z)) for z in panels.values()]

    def draw(frame: int) -> list[Any]:
        for axis, title, u in zip(axes[0], panels, directions, strict=True):
            _draw_frame(axis, u[frame], labels, title)
        title = f"step {steps[frame]}"
        figure.suptitle(title, y=0.02, va="bottom", fontsize=10)
        return []

    frames = list(range(len(steps)))
    frames += PAUSE * frames[-1:]
    return figure, FuncAnimation(figure, draw, frames=frames)


def _draw_frame(axis: Axes, u: Float[np.ndarray, "n 2"], labels: Labels, title: str) -> None:
    axis.clear()
    _named_circle(axis, u, labels, title)
    parts = [u[labels == label] for label in np.unique(labels)]
    means = np.stack([part.mean(0) for part in parts])
    _name_components(axis, _unit(means))
    axis.set(xlabel="", ylabel="")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _unit(z: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(z, axis=-1, keepdims=True)
    return z / norms


# --- other settings -------------------------------------------------------------------------------


def rate_rows(axis: Axes, rows: Mapping[str, Rate]) -> np.ndarray:
    """A rate a row, from top to bottom, with its interval; returns the rows' heights."""
    y = -np.arange(len(rows))
    ends = np.array(list(rows.values()))
    mean, low, high = ends.T
    style: Style = {
        "fmt": "o",
        "ms": 5,
        "capsize": 2.5,
        "color": COLORS["SimCLR"],
    }
    error = np.stack([mean - low, high - mean])
    axis.errorbar(mean, y, xerr=error, label="trained", **style)
    axis.set_yticks(y, list(rows))
    axis.set_xlim(*RATE_LIMITS)
    axis.set_ylim(y[-1] - 0.7, 0.7)
    axis.grid(axis="x", color="0.9", lw=0.8)
    return y


def generality(table: pd.DataFrame, ranks: Ranks, plane: Record) -> Figure:
    """Rates of the natural order, a row a setting; ranks of placements; features in the plane.

    `table` as of `analysis.generality`; `ranks`: of grids, and of t-SimCLR, whose run `plane` is.
    """
    panels = "AB;AC"
    figure, axes = plt.subplot_mosaic(
        panels,
        figsize=(11.5, 8.6),
        width_ratios=(1.5, 1),
    )
    _rates_by_setting(axes["A"], table)
    _rank_distributions(axes["B"], ranks)
    _plane(axes["C"], plane)
    return figure


def _rates_by_setting(axis: Axes, table: pd.DataFrame) -> None:
    names = table.factor + " " + table.level
    columns = table[["in order", "95 % low", "95 % high"]]
    rates = columns.itertuples(index=False, name=None)
    y = rate_rows(axis, dict(zip(names.str.strip(), rates, strict=True)))
    marks: Style = {"ms": 5, "mfc": "none", "zorder": 0}
    axis.plot(
        table["before training"],
        y,
        "o",
        color=COLORS["untrained"],
        label="before training",
        **marks,
    )
    axis.plot(
        table["in order, well separated"],
        y,
        "^",
        color=COLORS["SimCLR"],
        label="and well separated",
        **marks,
    )
    bars: Style = {"ms": 9, "mew": 2, "color": "0.5"}
    axis.plot(table.chance, y, "|", label="chance", **bars)
    axis.set_xlabel(ON_LINE)
    axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.3, -0.06),
        ncols=4,
        fontsize=9,
    )


def _rank_distributions(axis: Axes, ranks: Ranks) -> None:
    styles = (
        ("-", COLORS["t-SimCLR"]),
        ("--", COLORS["SimCLR"]),
        ("-.", COLORS["SimCLR"]),
    )
    for name, (style, color) in zip(ranks, styles, strict=True):
        axis.ecdf(ranks[name], label=name, ls=style, color=color)
    axis.plot([0, 1], [0, 1], color="0.6", lw=1, label="chance")
    axis.set_title("rank of the placement")
    axis.set_xlabel("share of assignments that are smoother")
    axis.set_ylabel("share of seeds")
    axis.legend(loc="lower right", fontsize=9)


def _plane(axis: Axes, record: Record) -> None:
    """Features that are not on a circle, with the components' names beside their means."""
    features = record.arrays["features"][-1]
    means = record.arrays["means"][-1]
    colors = [CLASS_COLORS[i] for i in point_labels(record)]
    x, y = features.T
    axis.scatter(x, y, c=colors, s=14, alpha=0.7, lw=0)
    style: Style = {
        "xytext": (12, 8),
        "textcoords": "offset points",
        "weight": "bold",
    }
    for name, color, mean in zip(NAMES, CLASS_COLORS, means, strict=False):
        axis.annotate(name, mean, color=color, **style)
    axis.set_title("t-SimCLR in the plane, first seed")
    axis.set(aspect="equal", xlabel="z₁", ylabel="z₂")


def ranking(found: Ranking) -> Figure:
    """C of all orders, from the smoothest on, and where runs stand before and after training."""
    figure, axis = plt.subplots(figsize=(7.5, 3.6))
    costs = np.sort(found.costs)
    every_rank = np.arange(1, len(costs) + 1)
    axis.plot(every_rank, costs, color="0.6", lw=1.5, label="all orders, by C")
    looks: list[Style] = [
        {"color": COLORS["untrained"], "marker": "o"},
        {"color": COLORS["SimCLR"], "marker": "D"},
    ]
    shared: Style = {"s": 28, "alpha": 0.6, "lw": 0}
    for name, look in zip(found.ranks, looks, strict=True):
        ranks = found.ranks[name]
        axis.scatter(
            ranks,
            costs[ranks - 1],
            label=name,
            zorder=3,
            **look,
            **shared,
        )
    axis.set_xscale("log")
    axis.set_xlabel("rank of the order (1: smoothest)")
    axis.set_ylabel("expected Lipschitz constant C")
    axis.legend()
    return figure


# --- fitted starts --------------------------------------------------------------------------------


def starts(begun: Runs, *, square_loss: float, barrier: float) -> Figure:
    """What becomes of a fitted order: by step size, by the loss on the way, and for every start."""
    figure, (left, middle, right) = plt.subplots(
        1,
        3,
        figsize=(12.5, 4.6),
        width_ratios=(1, 1, 1.1),
    )
    _by_step_size(left, begun)
    _losses_on_the_way(middle, begun["wrong order"])
    line: Style = {"color": "0.3", "lw": 1}
    middle.axhline(barrier, ls="--", label="barrier", **line)
    middle.axhline(square_loss, ls=":", label="square", **line)
    middle.legend(fontsize=9)
    rates = {name: _natural_rate(runs) for name, runs in begun.items()}
    rate_rows(right, rates)
    right.set_xlabel("share in the order of the line at the end")
    return figure


def _natural_rate(runs: Sequence[Record]) -> Rate:
    ended = in_natural_order(runs)
    return rate_interval(int(ended.sum()), len(ended))


def _by_step_size(axis: Axes, begun: Runs) -> None:
    """The wrong order, and what starts from it with another step size."""
    shades = (0.3, 0.55, 0.75, 1.0)
    names = [name for name in begun if name.startswith("step size")]
    groups = [begun[name] for name in ("wrong order", *names)]
    groups.sort(key=_step_size)
    for runs, shade in zip(groups, shades, strict=True):
        share = in_order(runs).mean(0)
        steps = START_STEPS * np.arange(len(share))
        color = plt.get_cmap("Blues")(shade)
        axis.plot(steps, share, color=color, label=f"{_step_size(runs):g}")
    axis.set_title("share in the order of the line")
    axis.set_xlabel("training step")
    axis.set_ylim(*RATE_LIMITS)
    corner = (1, 0.9)
    axis.legend(title="step size", loc="upper right", bbox_to_anchor=corner)


def _step_size(runs: Sequence[Record]) -> float:
    return runs[0].config.optimizer.lr


def _losses_on_the_way(axis: Axes, records: Sequence[Record]) -> None:
    histories = [record.arrays["evaluation_loss"] for record in records]
    loss = np.array(histories)
    changed = changed_order(records)
    _loss_curves(axis, loss[changed], "order changed", COLORS["SimCLR"])
    _loss_curves(axis, loss[~changed], "unchanged", COLORS["t-SimCLR"])
    axis.set_title("InfoNCE, from the wrong order")
    axis.set_xlabel("training step")


def _loss_curves(axis: Axes, loss: Float[np.ndarray, "n t"], label: str, color: str) -> None:
    """A thin line a run, one label with their number."""
    steps = START_STEPS * np.arange(loss.shape[1])
    axis.plot(steps, loss.T, color=color, lw=0.6, alpha=0.5)
    with_number = f"{label} ({len(loss)})"
    axis.plot([], [], color=color, label=with_number)


# --- classes of images ----------------------------------------------------------------------------


def class_similarities(
    panels: Mapping[str, Float[Array, "k k"]],
    names: Sequence[str],
    groups: Int64[Array, " k"],
) -> Figure:
    """Classes' mean similarities in four panels on one scale, the diagonal blank.

    Each panel is in the order of its own average-linkage tree; names are coloured by group.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 8.6))
    matrices = [np.array(values) for values in panels.values()]
    off = ~np.eye(len(names), dtype=bool)
    limit = max(np.abs(matrix[off]).max() for matrix in matrices)
    norm = plt.Normalize(-limit, limit)
    for axis, title, matrix in zip(axes.flat, panels, matrices, strict=True):
        ranks = _tree_order(matrix)
        ordered = matrix[np.ix_(ranks, ranks)]
        shown = np.where(off, ordered, np.nan)
        axis.imshow(shown, cmap="RdBu_r", norm=norm)
        axis.set_title(title)
        _name_classes(axis, [names[i] for i in ranks])
        _color_names(axis, [int(groups[i]) for i in ranks])
    figure.colorbar(
        plt.cm.ScalarMappable(norm, "RdBu_r"),
        ax=list(axes.flat),
        shrink=0.75,
        label="mean cosine of centred features",
    )
    return figure


def _tree_order(similarity: Matrix) -> list[int]:
    """The leaves of the average-linkage tree, like beside like."""
    off = ~np.eye(len(similarity), dtype=bool)
    largest = similarity[off].max()
    distance = np.where(off, largest - similarity, 0)
    condensed = squareform(distance, checks=False)
    tree = linkage(condensed, "average", optimal_ordering=True)
    return leaves_list(tree).tolist()


def _name_classes(axis: Axes, names: Sequence[str]) -> None:
    places = range(len(names))
    axis.set_xticks(places, names, rotation=90, fontsize=9)
    axis.set_yticks(places, names, fontsize=9)


def _color_names(axis: Axes, groups: Sequence[int]) -> None:
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        for label, group in zip(labels, groups, strict=True):
            color = GROUP_COLORS[group] if group >= 0 else "0.35"
            label.set_color(color)
