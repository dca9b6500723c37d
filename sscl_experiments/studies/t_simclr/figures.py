"""The figures of notebook 05."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from sscl_experiments.plotting import CLASS_COLORS, COLORS, Array, Style, feature_map
from sscl_experiments.statistics import interval

from .analysis import MEASURES
from .searches import METHOD_LOSSES

Points = Float[np.ndarray, "n 2"]
Distances = tuple[Float[Array, " n"], Float[Array, " m"]]  # within images, and between them
Grid = Float[Array, "r c"]

WEIGHT_MEASURES = {
    "knn15_z": "15-NN on z",
    "knn15_cosine_h": "15-NN on h",
    "linear_probe_h": "linear probe on h",
}


def ring(z: Float[Array, "n 2"], *, seed: int) -> Points:
    """The directions of features, moved off the circle at random so that none hides another."""
    z = np.asarray(z)
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((len(u), 1))
    radius = 1 + 0.12 * normal.clip(-2, 2)
    return u * radius


def _legend_below(figure: Figure, axis: Axes) -> None:
    """The legend of one panel for all of them, under the figure."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(5, len(labels)),
        fontsize=9,
    )


def _panels(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, Any]:
    """A figure with panels of that size, and their axes."""
    return plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        squeeze=False,
    )


def _measured(axes: Any, measures: Mapping[str, str]) -> Iterator[tuple[Axes, str]]:
    """A panel for each measure, with its title."""
    for axis, metric in zip(axes, measures, strict=True):
        axis.set_title(measures[metric])
        yield axis, metric


# --- accuracies -----------------------------------------------------------------------------------


def accuracy_panels(scores: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """Accuracy over d_z, a panel a measure.

    Means with 95 % intervals over seeds of the two methods, means of further losses; raw pixels,
    PCA and the untrained network beside them.
    """
    figure, axes = _panels(1, len(MEASURES), width=4.6, height=4.4)
    trained = scores[scores.method != "untrained"]
    methods = trained.groupby("method", sort=False)
    for axis, metric in _measured(axes[0], MEASURES):
        for i, (method, part) in enumerate(methods):
            by_dim = part.groupby("d_z")[metric]
            _accuracy_curve(axis, by_dim, str(method), shift=1.03**i)
        _baselines(axis, scores, baselines, metric)
        _dimension_axis(axis, trained.d_z, "test accuracy")
    _legend_below(figure, axes[0, 0])
    return figure


def _accuracy_curve(axis: Axes, by_dim: Any, method: str, *, shift: float) -> None:
    """Means over seeds; with intervals, and bold, of the two methods.

    `shift`: d_z is multiplied by it, so that intervals do not cover each other.
    """
    points = by_dim.apply(lambda values: interval(values.tolist()))
    mean, low, high = np.array(points.tolist()).T
    style: Style = {"lw": 0.9, "ls": "--", "ms": 2, "zorder": 2}
    if method in METHOD_LOSSES:
        style = {"lw": 1.8, "ls": "-", "ms": 4, "zorder": 3}
        style["yerr"] = [mean - low, high - mean]
    axis.errorbar(
        points.index.to_numpy() * shift,
        mean,
        marker="o",
        capsize=2,
        color=COLORS[method],
        label=method,
        **style,
    )


def _dimension_axis(axis: Axes, dims: pd.Series, ylabel: str) -> None:
    """The axis of feature dimensions, each with its tick."""
    ticks = sorted(dims.unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(d) for d in ticks])
    axis.set_xlabel("feature dimension d_z")
    axis.set_ylabel(ylabel)


def _baselines(axis: Axes, scores: pd.DataFrame, baselines: pd.DataFrame, metric: str) -> None:
    """Raw pixels, the untrained network, and where there are any, principal components."""
    raw = baselines[baselines.method == "raw pixels"]
    pixels: Style = {"color": COLORS["raw pixels"], "lw": 1, "ls": ":"}
    axis.axhline(raw[metric].item(), label="raw pixels", **pixels)
    _untrained(axis, scores[scores.method == "untrained"], metric)
    components = baselines[baselines.method == "PCA"].dropna(subset=metric)
    if len(components):
        axis.plot(
            components.d_z,
            components[metric],
            "s:",
            ms=3,
            lw=1,
            color="0.4",
            label="PCA to d_z",
        )


def _untrained(axis: Axes, scores: pd.DataFrame, metric: str) -> None:
    mean = scores[metric].mean()
    style: Style = {"color": "0.6", "label": "untrained network"}
    if metric.endswith("_z"):  # its z has a dimension of its own
        dim = scores.d_z.iloc[0]
        axis.plot(dim, mean, "D", ms=5, **style)
    else:
        axis.axhline(mean, lw=1, ls="-.", **style)


def larger_sets(scores: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """Accuracies of every seed over d_z, and lines through their means.

    A row a set of images, a panel a measure; raw pixels, PCA and the untrained network beside them.
    """
    names = scores.image_set.unique()
    shape = (len(names), len(MEASURES))
    figure, axes = _panels(*shape, width=4.2, height=3.4)
    for row, name in zip(axes, names, strict=True):
        own = scores[scores.image_set == name]
        beside = baselines[baselines.image_set == name]
        _larger_set(row, own, beside, name)
    _legend_below(figure, axes[0, 0])
    return figure


def _larger_set(row: Any, scores: pd.DataFrame, baselines: pd.DataFrame, name: str) -> None:
    trained = scores[scores.method != "untrained"]
    for axis, metric in _measured(row, MEASURES):
        for method, own in trained.groupby("method", sort=False):
            _seeds_and_means(axis, own, metric, str(method))
        _baselines(axis, scores, baselines, metric)
        _dimension_axis(axis, trained.d_z, "test accuracy")
        axis.set_title(f"{name}: {axis.get_title()}")


def _seeds_and_means(axis: Axes, scores: pd.DataFrame, metric: str, method: str) -> None:
    x, y = scores.d_z, scores[metric]
    color = COLORS[method]
    axis.plot(x, y, "o", ms=4, alpha=0.6, color=color)
    means = y.groupby(x).mean()
    axis.plot(means.index, means, "_-", ms=12, color=color, label=method)


def changes(effects: pd.DataFrame) -> Figure:
    """Differences of accuracy over d_z with 95 % intervals, a panel a measure."""
    figure, axes = _panels(1, len(MEASURES), width=4.6, height=4)
    for axis, metric in _measured(axes[0], MEASURES):
        own = effects[effects.metric == metric]
        _changes_by_dimension(axis, own)
        axis.axhline(0, color="0.6", lw=1)
        _dimension_axis(axis, effects.d_z, "difference of test accuracy")
    _legend_below(figure, axes[0, 0])
    return figure


def _changes_by_dimension(axis: Axes, effects: pd.DataFrame) -> None:
    steps = effects.groupby("change", sort=False)
    style: Style = {"fmt": "o-", "lw": 0.8, "capsize": 2}
    for i, (name, part) in enumerate(steps):
        x = part.d_z * 1.07**i
        _differences(axis, x, part, color=i, label=str(name), **style)


def _differences(
    axis: Axes, x: Any, part: pd.DataFrame, *, color: int, label: str, **style: Any
) -> None:
    """Differences with their intervals."""
    below = part.difference - part.low
    above = part.high - part.difference
    axis.errorbar(
        x,
        part.difference,
        [below, above],
        ms=4,
        color=CLASS_COLORS[color],
        label=label,
        **style,
    )


def maps(
    found: Mapping[str, Points],
    titles: Mapping[str, str],
    labels: Int64[Array, " n"],
    classes: Sequence[str],
) -> Figure:
    """Images in two dimensions, a panel a map, one colour a class."""
    figure, axes = _panels(1, len(found), width=4, height=5.2)
    for axis, name in zip(axes[0], found, strict=True):
        feature_map(axis, found[name], labels, classes)
        axis.set_title(titles[name])
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5, fontsize=9)
    return figure


# --- temperature and degrees of freedom -----------------------------------------------------------


def gaussian_limit(gaps: pd.DataFrame) -> Figure:
    """The distance of the loss from its Gaussian limit over ν, beside 1/ν."""
    figure, axis = plt.subplots(figsize=(5, 3.6))
    last = gaps.iloc[-1]
    inverse = last.gap * last.df / gaps.df
    color = COLORS["t-SimCLR"]
    axis.loglog(gaps.df, gaps.gap, "o-", color=color, label="|L(ν) − L(∞)|")
    axis.loglog(gaps.df, inverse, "--", color="0.5", label="∝ 1/ν")
    axis.set_xlabel("degrees of freedom ν")
    axis.legend()
    return figure


def heatmap(
    axis: Axes,
    table: pd.DataFrame,
    *,
    low: float,
    high: float,
    title: str,
    best: bool = True,
) -> AxesImage:
    """Accuracies over rows and columns, the numbers on top, in percent; the best is framed."""
    values = table.to_numpy(dtype=float)
    image = axis.imshow(values, vmin=low, vmax=high, aspect="auto")
    _write_percents(axis, values, middle=(low + high) / 2)
    if best:
        _frame_best(axis, values)
    rows, columns = values.shape
    axis.set_xticks(range(columns), _numbers(table.columns))
    axis.set_yticks(range(rows), _numbers(table.index))
    axis.set_title(title)
    return image


def _write_percents(axis: Axes, values: Grid, *, middle: float) -> None:
    """In white on what is above the middle of the colours."""
    style: Style = {"ha": "center", "va": "center", "fontsize": 8}
    for (i, j), value in np.ndenumerate(values):
        color = "white" if value > middle else "black"
        percent = f"{100 * value:.0f}"
        axis.text(j, i, percent, color=color, **style)


def _frame_best(axis: Axes, values: Grid) -> None:
    best = np.nanargmax(values)
    i, j = np.unravel_index(best, values.shape)
    corner = (j - 0.5, i - 0.5)
    style: Style = {"fill": False, "edgecolor": "#D55E00", "lw": 2}
    axis.add_patch(Rectangle(corner, 1, 1, **style))


def _numbers(values: Sequence[float] | pd.Index) -> list[str]:
    """Short, as they are written beside an axis."""
    return [f"{value:g}".replace("inf", "∞") for value in values]


def tau_nu(grid: pd.DataFrame) -> Figure:
    """15-NN on z over ν and τ, a column a dimension.

    Above with BatchNorm, τ in units of d_z, below without.
    """
    grid = grid.assign(batchnorm=grid.batchnorm.astype(bool))
    dims = sorted(grid.d_z.unique())
    kinds = sorted(grid.batchnorm.unique(), reverse=True)
    figure, axes = _panels(len(kinds), len(dims), width=3.7, height=3.4)
    for column, dim in zip(axes.T, dims, strict=True):
        own = grid[grid.d_z == dim]
        ends: dict[str, Any] = {"low": own.knn15_z.min(), "high": own.knn15_z.max()}
        for axis, batchnorm in zip(column, kinds, strict=True):
            table = _by_tau(own[own.batchnorm == batchnorm], per_dim=batchnorm)
            kind = "BatchNorm" if batchnorm else "no BatchNorm"
            heatmap(axis, table, title=f"d_z = {dim}, {kind}", **ends)
            axis.set_xlabel("τ / d_z" if batchnorm else "τ")
            axis.set_ylabel("ν")
    return figure


def _by_tau(grid: pd.DataFrame, *, per_dim: bool) -> pd.DataFrame:
    """15-NN on z, a row a ν, a column a τ, or with `per_dim` a τ / d_z."""
    tau = grid.tau
    if per_dim:
        tau = (tau / grid.d_z).round(6)
    return grid.assign(x=tau).pivot(index="nu", columns="x", values="knn15_z")


# --- crowding -------------------------------------------------------------------------------------


def distances(found: Mapping[tuple[str, int], Distances], dims: Sequence[int]) -> Figure:
    """Distances of views for both methods, a panel a dimension."""
    figure, axes = _panels(1, len(dims), width=4.2, height=4)
    for axis, dim in zip(axes[0], dims, strict=True):
        for method in METHOD_LOSSES:
            _distance_histograms(axis, found[method, dim], method)
        axis.set_title(f"d_z = {dim}")
        axis.set_xlabel("distance / median of two images")
        axis.set_ylabel("density")
        axis.set_xlim(0, 3)
    _legend_below(figure, axes[0, 0])
    return figure


def _distance_histograms(axis: Axes, pairs: Distances, method: str) -> None:
    """Distances of views of two images (filled) and of one (line), over the former's median."""
    within, between = map(np.asarray, pairs)
    shared: Style = {
        "bins": np.linspace(0, 3, 46).tolist(),
        "density": True,
        "color": COLORS[method],
    }
    axis.hist(between, alpha=0.35, label=f"{method}, two images", **shared)
    line: Style = {"histtype": "step", "lw": 1.5}
    axis.hist(within, label=f"{method}, one image", **line, **shared)


def energies(side: Float[Array, " n"], values: Mapping[str, Grid]) -> Figure:
    """The loss over the place of a third point, a panel a similarity, on one scale.

    Contours at equal ratios, from 0.003 on.
    """
    figure, axes = _panels(1, len(values), width=4.2, height=3.8)
    stacked = np.stack(list(values.values()))
    norm = plt.Normalize(stacked.min(), stacked.max())
    levels = np.geomspace(0.003, stacked.max(), 16)
    low, high = side[0], side[-1]
    place: Style = {"extent": (low + 1, high + 1, low, high)}
    contours: Style = {"colors": "white", "linewidths": 0.5}
    for axis, name, energy in zip(axes[0], values, stacked, strict=True):
        axis.imshow(energy, origin="lower", cmap="viridis", norm=norm, **place)
        axis.contour(energy, levels=levels, **contours, **place)
        _fixed_points(axis)
        axis.set(title=name, xlabel="c₁", ylabel="c₂")
    colors = plt.cm.ScalarMappable(norm, "viridis")
    figure.colorbar(colors, ax=list(axes.flat), shrink=0.8, label="loss")
    return figure


def _fixed_points(axis: Axes) -> None:
    """The two neighbors, and a cross at the origin."""
    axis.plot([1, 1], [-0.5, 0.5], "o", color="white", ms=5)
    axis.plot(0, 0, "x", color="white")


# --- weighted pairs -------------------------------------------------------------------------------


def crops(image: Float[Array, "h w"], pairs: Mapping[str, Float[Array, "k ..."]]) -> Figure:
    """An image once for each pair of crops, drawn as boxes (x0, y0, x1, y1).

    `pairs`: as of `pair_weights.example_crops`.
    """
    number = len(pairs["iou"])
    figure, axes = plt.subplots(1, number, figsize=(11, 2.3), squeeze=False)
    height, width = image.shape
    place: Style = {"extent": (0, width, height, 0)}
    for i, axis in enumerate(axes[0]):
        axis.imshow(np.asarray(image), cmap="gray_r", **place)
        _box(axis, pairs["first"][i], COLORS["SimCLR"])
        _box(axis, pairs["second"][i], COLORS["t-SimCLR"])
        axis.set_title(f"IoU {pairs['iou'][i]:.2f}")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


def _box(axis: Axes, corners: Float[Array, " 4"], color: str) -> None:
    x0, y0, x1, y1 = np.asarray(corners)
    box = Rectangle(
        (x0, y0),
        x1 - x0,
        y1 - y0,
        fill=False,
        edgecolor=color,
        lw=2,
        clip_on=False,
    )
    axis.add_patch(box)


def weight_effects(effects: pd.DataFrame) -> Figure:
    """Differences of accuracy by the temperature of pair weights, with 95 % intervals.

    A panel a measure, a colour a kind of weights; negative temperatures on the right.
    """
    temperatures = effects["τ'"].unique()
    order = sorted(temperatures, key=lambda value: (value < 0, abs(value)))
    number = len(WEIGHT_MEASURES)
    size = (4.4 * number, 3.8)
    figure, axes = plt.subplots(1, number, figsize=size, sharey=True)
    for axis, metric in _measured(axes, WEIGHT_MEASURES):
        own = effects[effects.metric == metric]
        _effects_by_temperature(axis, own, order)
        axis.axhline(0, color="0.6", lw=1)
        axis.set_xticks(range(len(order)), _numbers(order))
        axis.set_xlabel("τ' of the weights")
    axes[0].set_ylabel("weighted − unweighted")
    _legend_below(figure, axes[0])
    return figure


def _effects_by_temperature(axis: Axes, effects: pd.DataFrame, order: Sequence[float]) -> None:
    """At the place of their temperature in `order`, each kind of weights a little to the right."""
    kinds = effects.groupby(["crops", "score"], sort=False)
    style: Style = {"fmt": "o", "capsize": 3}
    for i, ((images, score), part) in enumerate(kinds):
        x = part["τ'"].map(order.index) + 0.1 * i
        label = f"{score}, crops {images}"
        _differences(axis, x, part, color=i, label=label, **style)
