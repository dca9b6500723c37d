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
from matplotlib.ticker import MultipleLocator

from sscl_experiments.plotting import CLASS_COLORS, COLORS, Array, Style, circle
from sscl_experiments.record import Record
from sscl_experiments.statistics import rate_interval

from .analysis import (
    NAMES,
    AngleCurve,
    Ranking,
    changed_order,
    in_natural_order,
)

Runs = Mapping[str, Sequence[Record]]  # by their start
Labels = Int64[Array, " n"]
Rate = tuple[float, float, float]  # and the ends of its interval

GROUP_COLORS = ("#D55E00", "#0072B2")
ON_LINE = "share of seeds in the order of the line"
PAUSE = 12  # frames for which an animation stands still at its end
RATE_LIMITS = (-0.03, 1.03)
CIRCLE_LIMITS = (-1.4, 1.4)  # of an axis, with room for names outside the circle
START_STEPS = 25  # of training, between two looks at a run from a fitted start
MEANS = (-1.5, -0.5, 0.5, 1.5)  # of the components of the base setting
CENTRED: Style = {"ha": "center", "va": "center", "weight": "bold"}


# --- the order of one setting ---------------------------------------------------------------------


def turning(curves: Mapping[str, AngleCurve], kept: Bool[np.ndarray, "n t"]) -> Figure:
    """Where on the circle networks put the line; the share of all runs in order by step.

    `curves`: of two seeds, before and after training; the dots are the means of the components.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 4))
    *panels, share = axes
    for axis, (title, curve) in zip(panels, curves.items(), strict=True):
        _angle_panel(axis, curve)
        axis.set_title(f"seed {curve.seed}: {title}")
    panels[0].legend(loc="center left", bbox_to_anchor=(0.0, 0.72))
    panels[0].set_ylabel("angle of the feature (degrees)")
    _share_in_order(share, kept)
    return figure


def _angle_panel(axis: Axes, curve: AngleCurve) -> None:
    looks: dict[str, Style] = {
        "before training": {"color": COLORS["untrained"], "ls": "--"},
        "after": {"color": COLORS["SimCLR"], "ls": "-"},
    }
    heights = (curve.before, curve.after)
    for (name, look), angles in zip(looks.items(), heights, strict=True):
        axis.plot(curve.x, angles, label=name, lw=1.8, **look)
        places = np.interp(MEANS, curve.x, angles)
        axis.scatter(MEANS, places, color=look["color"], s=30, zorder=3)
    for name, color, x in zip(NAMES, CLASS_COLORS, MEANS, strict=False):
        axis.axvspan(x - 0.2, x + 0.2, color=color, alpha=0.12, lw=0)  # two standard deviations
        axis.text(x, 0.95, name, color=color, transform=axis.get_xaxis_transform(), **CENTRED)
    axis.yaxis.set_major_locator(MultipleLocator(90))
    axis.grid(axis="y", color="0.92", lw=0.8)
    axis.set_xlabel("position on the line")


def _named_circle(
    axis: Axes, features: Float[np.ndarray, "n 2"], labels: Labels, title: str
) -> None:
    circle(axis, features, labels)
    axis.set_title(title)
    axis.set(xlim=CIRCLE_LIMITS, ylim=CIRCLE_LIMITS)


def _name_components(axis: Axes, directions: Float[Array, "m 2"]) -> None:
    """The name of each component outside the circle, in its colour."""
    for name, color, place in zip(NAMES, CLASS_COLORS, directions, strict=False):
        x, y = 1.2 * np.asarray(place)
        axis.text(x, y, name, color=color, **CENTRED)


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


def rate_rows(axis: Axes, rows: Mapping[str, Rate], *, label: str) -> np.ndarray:
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
    axis.errorbar(mean, y, xerr=error, label=label, **style)
    axis.set_yticks(y, list(rows))
    axis.set_xlim(*RATE_LIMITS)
    axis.set_ylim(y[-1] - 0.7, 0.7)
    axis.grid(axis="x", color="0.9", lw=0.8)
    return y


def generality(table: pd.DataFrame) -> Figure:
    """Rates of the natural order, a row a setting: `analysis.generality`."""
    figure, axis = plt.subplots(figsize=(8.5, 1.6 + 0.35 * len(table)))
    _rates_by_setting(axis, table)
    return figure


def _rates_by_setting(axis: Axes, table: pd.DataFrame) -> None:
    names = table.factor + " " + table.level
    columns = table[["in order", "95 % low", "95 % high"]]
    rates = columns.itertuples(index=False, name=None)
    y = rate_rows(axis, dict(zip(names.str.strip(), rates, strict=True)), label="after training")
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
        bbox_to_anchor=(0.4, 1.2),
        ncols=4,
        fontsize=9,
    )


def ranking(found: Ranking) -> Figure:
    """How many runs stand at each order, from the smoothest on: a mark a run, piled up.

    The grey line, on the right axis, is C of every order.
    """
    figure, axes = plt.subplots(2, 1, figsize=(7.5, 5), sharex=True, sharey=True)
    looks: tuple[Style, ...] = (
        {"color": COLORS["untrained"], "marker": "o"},
        {"color": COLORS["SimCLR"], "marker": "D"},
    )
    for axis, (name, ranks), look in zip(axes, found.ranks.items(), looks, strict=True):
        heights = _piled(ranks)
        axis.scatter(ranks, heights, s=16, lw=0, zorder=3, **look)
        axis.set_title(f"{name}, {len(ranks)} seeds")
        axis.set_ylabel("seeds at this order")
        _costs_behind(axis, found.costs)
    axes[-1].set_xscale("log")
    axes[-1].set_xlabel("order around the circle, by C (1: the smoothest)")
    return figure


def _piled(values: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """For each value how many equal ones have come so far, itself included."""
    heights = np.empty_like(values)
    for value in np.unique(values):
        same = values == value
        heights[same] = np.arange(1, same.sum() + 1)
    return heights


def _costs_behind(axis: Axes, costs: Float[np.ndarray, " orders"]) -> None:
    right = axis.twinx()
    right.plot(np.arange(1, len(costs) + 1), np.sort(costs), color="0.7", lw=1.5)
    right.set_ylabel("C", color="0.5")
    right.spines["right"].set_visible(True)


# --- fitted starts --------------------------------------------------------------------------------


def starts(begun: Runs, *, square_loss: float, barrier: float) -> Figure:
    """What becomes of a fitted order: the loss on the way, and where each start ends."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.2), width_ratios=(1, 1.2))
    _losses_on_the_way(left, begun["step size 0.003"])
    line: Style = {"color": "0.3", "lw": 1}
    left.axhline(barrier, ls="--", label="barrier", **line)
    left.axhline(square_loss, ls=":", label="square", **line)
    left.legend(fontsize=9)
    rates = {name: _natural_rate(runs) for name, runs in begun.items()}
    heights = rate_rows(right, rates, label="in the order of the line, ABCD")
    third = [_third_order(runs) for runs in begun.values()]
    marks: Style = {"ms": 7, "mfc": "none", "color": COLORS["t-SimCLR"]}
    right.plot(third, heights, "s", label="in the third order", **marks)
    right.set_xlabel("share of seeds at the end")
    right.legend(loc="upper center", bbox_to_anchor=(0.4, -0.15), ncols=2, fontsize=9)
    return figure


def _third_order(runs: Sequence[Record]) -> float:
    """The share that ends in neither the order of the line nor the one that it began in."""
    elsewhere = changed_order(runs) & ~in_natural_order(runs)
    return float(elsewhere.mean())


def _natural_rate(runs: Sequence[Record]) -> Rate:
    ended = in_natural_order(runs)
    return rate_interval(int(ended.sum()), len(ended))


def _losses_on_the_way(axis: Axes, records: Sequence[Record]) -> None:
    histories = [record.arrays["evaluation_loss"] for record in records]
    loss = np.array(histories)
    changed = changed_order(records)
    _loss_curves(axis, loss[changed], "order changed", COLORS["SimCLR"])
    _loss_curves(axis, loss[~changed], "unchanged", COLORS["t-SimCLR"])
    axis.set_title("InfoNCE from the wrong order, step size 0.003")
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
    """Classes' mean similarities in four panels, the diagonal blank, names coloured by group.

    All panels have the classes in one order, group by group, and one scale: standard deviations
    from the mean over a panel's pairs, which is what the correlation compares.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 8.6))
    numbers = [int(group) for group in groups]
    place = sorted(range(len(numbers)), key=lambda i: (numbers[i] < 0, numbers[i]))
    standard = {title: _standardised(np.array(values)) for title, values in panels.items()}
    limit = max(np.nanmax(np.abs(values)) for values in standard.values())
    norm = plt.Normalize(-limit, limit)
    for axis, (title, values) in zip(axes.flat, standard.items(), strict=True):
        axis.imshow(values[np.ix_(place, place)], cmap="RdBu_r", norm=norm)
        axis.set_title(title)
        _name_classes(axis, [names[i] for i in place])
        _color_names(axis, [numbers[i] for i in place])
        _outline_groups(axis, [numbers[i] for i in place])
    figure.colorbar(
        plt.cm.ScalarMappable(norm, "RdBu_r"),
        ax=list(axes.flat),
        shrink=0.75,
        label="similarity, in standard deviations over the panel's pairs",
    )
    return figure


def _standardised(matrix: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """Mean 0 and standard deviation 1 off the diagonal, which is NaN."""
    off = ~np.eye(len(matrix), dtype=bool)
    values = (matrix - matrix[off].mean()) / matrix[off].std()
    return np.where(off, values, np.nan)


def _outline_groups(axis: Axes, groups: Sequence[int]) -> None:
    """A frame around the block of each group."""
    for group in sorted(set(groups) - {-1}):
        first, size = groups.index(group) - 0.5, groups.count(group)
        frame = plt.Rectangle((first, first), size, size, fill=False, lw=1.5)
        axis.add_patch(frame)


def _name_classes(axis: Axes, names: Sequence[str]) -> None:
    places = range(len(names))
    axis.set_xticks(places, names, rotation=90, fontsize=9)
    axis.set_yticks(places, names, fontsize=9)


def _color_names(axis: Axes, groups: Sequence[int]) -> None:
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        for label, group in zip(labels, groups, strict=True):
            color = GROUP_COLORS[group] if group >= 0 else "0.35"
            label.set_color(color)
