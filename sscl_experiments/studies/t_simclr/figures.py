"""The figures of notebook 05."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from sscl_experiments.plotting import CLASS_COLORS, COLORS, Array, feature_map
from sscl_experiments.statistics import interval

from .analysis import MEASURES
from .searches import METHOD_LOSSES

WEIGHT_MEASURES = {
    "knn15_z": "15-NN on z",
    "knn15_cosine_h": "15-NN on h",
    "linear_probe_h": "linear probe on h",
}


def ring(z: Float[Array, "n 2"], *, seed: int) -> Float[np.ndarray, "n 2"]:
    """The directions of features, moved off the circle at random so that none hides another."""
    u = np.asarray(z) / np.linalg.norm(np.asarray(z), axis=1, keepdims=True)
    shift = np.random.default_rng(seed).standard_normal((len(u), 1)).clip(-2, 2)
    return u * (1 + 0.12 * shift)


def _legend_below(figure: Figure, axis: Axes) -> None:
    """The legend of one panel for all of them, under the figure."""
    handles, labels = axis.get_legend_handles_labels()
    columns = min(5, len(labels))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9)


# --- accuracies -----------------------------------------------------------------------------------


def accuracy_panels(scores: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """Accuracy over d_z, a panel a measure.

    Means with 95 % intervals over seeds of the two methods, means of further losses; raw pixels,
    PCA and the untrained network beside them.
    """
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(4.6 * len(MEASURES), 4.4))
    trained = scores[scores.method != "untrained"]
    for axis, (metric, title) in zip(axes, MEASURES.items(), strict=True):
        for i, (method, part) in enumerate(trained.groupby("method", sort=False)):
            _accuracy_curve(axis, part.groupby("d_z")[metric], str(method), shift=1.03**i)
        _baselines(axis, scores, baselines, metric)
        _dimension_axis(axis, trained.d_z, ylabel="test accuracy", title=title)
    _legend_below(figure, axes[0])
    return figure


def _accuracy_curve(axis: Axes, by_dim: Any, method: str, *, shift: float) -> None:
    """Means over seeds; with intervals, and bold, of the two methods.

    `shift`: d_z is multiplied by it, so that intervals do not cover each other.
    """
    points = by_dim.apply(lambda values: interval(values.tolist()))
    mean, low, high = np.array(points.tolist()).T
    x, color = points.index.to_numpy() * shift, COLORS[method]
    style: dict[str, Any] = {"marker": "o", "capsize": 2, "color": color, "label": method}
    if method in METHOD_LOSSES:
        error = [mean - low, high - mean]
        axis.errorbar(x, mean, error, lw=1.8, ls="-", zorder=3, ms=4, **style)
    else:
        axis.errorbar(x, mean, lw=0.9, ls="--", zorder=2, ms=2, **style)


def _dimension_axis(axis: Axes, dims: pd.Series, **labels: str) -> None:
    """The axis of feature dimensions, each with its tick."""
    ticks = sorted(dims.unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(d) for d in ticks])
    axis.set(xlabel="feature dimension d_z", **labels)


def _baselines(axis: Axes, scores: pd.DataFrame, baselines: pd.DataFrame, metric: str) -> None:
    """Raw pixels, the untrained network, and where there are any, principal components."""
    raw = baselines[baselines.method == "raw pixels"][metric].item()
    axis.axhline(raw, color=COLORS["raw pixels"], lw=1, ls=":", label="raw pixels")
    untrained = scores[scores.method == "untrained"]
    mean = untrained[metric].mean()
    style: dict[str, Any] = {"color": "0.6", "label": "untrained network"}
    if metric.endswith("_z"):  # its z has a dimension of its own
        axis.plot(untrained.d_z.iloc[0], mean, "D", ms=5, **style)
    else:
        axis.axhline(mean, lw=1, ls="-.", **style)
    own = baselines[(baselines.method == "PCA") & baselines[metric].notna()]
    if len(own):
        axis.plot(own.d_z, own[metric], "s:", ms=3, lw=1, color="0.4", label="PCA to d_z")


def larger_sets(scores: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """Accuracies of every seed over d_z, and lines through their means.

    A row a set of images, a panel a measure; raw pixels, PCA and the untrained network beside them.
    """
    sets, size = list(scores.image_set.unique()), len(MEASURES)
    shape = (4.2 * size, 3.4 * len(sets))
    figure, axes = plt.subplots(len(sets), size, figsize=shape, squeeze=False)
    for row, name in zip(axes, sets, strict=True):
        part = scores[scores.image_set == name]
        trained = part[part.method != "untrained"]
        for axis, (metric, title) in zip(row, MEASURES.items(), strict=True):
            for method, own in trained.groupby("method", sort=False):
                color, means = COLORS[str(method)], own.groupby("d_z")[metric].mean()
                axis.plot(own.d_z, own[metric], "o", ms=4, alpha=0.6, color=color)
                axis.plot(means.index, means, "_-", ms=12, color=color, label=method)
            _baselines(axis, part, baselines[baselines.image_set == name], metric)
            title = f"{name}: {title}"
            _dimension_axis(axis, trained.d_z, ylabel="test accuracy", title=title)
    _legend_below(figure, axes[0][0])
    return figure


def changes(effects: pd.DataFrame) -> Figure:
    """Differences of accuracy over d_z with 95 % intervals, a panel a measure."""
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(4.6 * len(MEASURES), 4))
    for axis, (metric, title) in zip(axes, MEASURES.items(), strict=True):
        own = effects[effects.metric == metric]
        for i, (name, part) in enumerate(own.groupby("change", sort=False)):
            x = part.d_z * 1.07**i
            _differences(axis, x, part, fmt="o-", lw=0.8, capsize=2, color=i, label=str(name))
        axis.axhline(0, color="0.6", lw=1)
        _dimension_axis(axis, effects.d_z, ylabel="difference of test accuracy", title=title)
    _legend_below(figure, axes[0])
    return figure


def _differences(
    axis: Axes, x: Any, part: pd.DataFrame, *, color: int, label: str, **style: Any
) -> None:
    """Differences with their intervals."""
    error = [part.difference - part.low, part.high - part.difference]
    own: dict[str, Any] = {"ms": 4, "color": CLASS_COLORS[color], "label": label}
    axis.errorbar(x, part.difference, error, **own, **style)


def maps(
    found: Mapping[str, Float[np.ndarray, "n 2"]],
    titles: Mapping[str, str],
    labels: Int64[Array, " n"],
    classes: Sequence[str],
) -> Figure:
    """Images in two dimensions, a panel a map, one colour a class."""
    figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 5.2))
    for axis, (name, z) in zip(axes, found.items(), strict=True):
        feature_map(axis, z, labels, classes)
        axis.set_title(titles[name])
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5, fontsize=9)
    return figure


# --- temperature and degrees of freedom -----------------------------------------------------------


def gaussian_limit(gaps: pd.DataFrame) -> Figure:
    """The distance of the loss from its Gaussian limit over ν, beside 1/ν."""
    figure, axis = plt.subplots(figsize=(5, 3.6))
    df, gap = gaps.df.to_numpy(), gaps.gap.to_numpy()
    axis.loglog(df, gap, "o-", color=COLORS["t-SimCLR"], label="|L(ν) − L(∞)|")
    axis.loglog(df, gap[-1] * df[-1] / df, "--", color="0.5", label="∝ 1/ν")
    axis.set(xlabel="degrees of freedom ν")
    axis.legend()
    return figure


def heatmap(
    axis: Axes, table: pd.DataFrame, *, low: float, high: float, title: str, best: bool = True
) -> AxesImage:
    """Accuracies over rows and columns, the numbers on top, in percent; the best is framed."""
    values = table.to_numpy(dtype=float)
    image = axis.imshow(values, vmin=low, vmax=high, aspect="auto")
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
    for i, j in np.ndindex(values.shape):
        color = "white" if values[i, j] > (low + high) / 2 else "black"
        axis.text(j, i, f"{100 * values[i, j]:.0f}", color=color, **style)
    if best:
        i, j = np.unravel_index(np.nanargmax(values), values.shape)
        axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#D55E00", lw=2))
    axis.set_xticks(range(len(table.columns)), [f"{value:g}" for value in table.columns])
    names = ["∞" if value == np.inf else f"{value:g}" for value in table.index]
    axis.set_yticks(range(len(table)), names)
    axis.set_title(title)
    return image


def tau_nu(grid: pd.DataFrame) -> Figure:
    """15-NN on z over ν and τ, a column a dimension.

    Above with BatchNorm, τ in units of d_z, below without.
    """
    has_batchnorm = grid.batchnorm.astype(bool)
    dims, kinds = sorted(grid.d_z.unique()), sorted(has_batchnorm.unique(), reverse=True)
    shape = (3.7 * len(dims), 3.4 * len(kinds))
    figure, axes = plt.subplots(len(kinds), len(dims), figsize=shape, squeeze=False)
    for column, dim in zip(axes.T, dims, strict=True):
        own = grid[grid.d_z == dim]
        low, high = own.knn15_z.min(), own.knn15_z.max()
        for axis, kind in zip(column, kinds, strict=True):
            part = own[has_batchnorm[own.index] == kind]
            part = part.assign(x=(part.tau / dim).round(6) if kind else part.tau)
            table = part.pivot(index="nu", columns="x", values="knn15_z")
            title = f"d_z = {dim}, {'BatchNorm' if kind else 'no BatchNorm'}"
            heatmap(axis, table, low=low, high=high, title=title)
            axis.set(xlabel="τ / d_z" if kind else "τ", ylabel="ν")
    return figure


# --- crowding -------------------------------------------------------------------------------------


def distances(
    found: Mapping[tuple[str, int], tuple[Float[Array, " n"], Float[Array, " m"]]],
    dims: Sequence[int],
) -> Figure:
    """Distances of views for both methods, a panel a dimension."""
    shape = (4.2 * len(dims), 4)
    figure, axes = plt.subplots(1, len(dims), figsize=shape, squeeze=False)
    for axis, dim in zip(axes[0], dims, strict=True):
        _distance_histograms(axis, {method: found[method, dim] for method in METHOD_LOSSES})
        axis.set_title(f"d_z = {dim}")
    _legend_below(figure, axes[0, 0])
    return figure


def _distance_histograms(
    axis: Axes, pairs: Mapping[str, tuple[Float[Array, " n"], Float[Array, " m"]]]
) -> None:
    """Distances of views of two images (filled) and of one (line), over the former's median."""
    bins = np.linspace(0, 3, 46).tolist()
    filled: dict[str, Any] = {"alpha": 0.35}
    line: dict[str, Any] = {"histtype": "step", "lw": 1.5}
    for method, (own, between) in pairs.items():
        parts = ((between, "two images", filled), (own, "one image", line))
        for values, images, style in parts:
            label = f"{method}, {images}"
            color = COLORS[method]
            axis.hist(np.asarray(values), bins, density=True, color=color, label=label, **style)
    axis.set(xlabel="distance / median of two images", ylabel="density", xlim=(0, 3))


def energies(side: Float[Array, " n"], values: Mapping[str, Float[Array, "n n"]]) -> Figure:
    """The loss over the place of a third point, a panel a similarity, on one scale.

    Contours at equal ratios, from 0.003 on.
    """
    shape = (4.2 * len(values), 3.8)
    figure, axes = plt.subplots(1, len(values), figsize=shape, squeeze=False)
    reach = (side[0] + 1, side[-1] + 1, side[0], side[-1])
    low, high = min(map(np.min, values.values())), max(map(np.max, values.values()))
    scale, levels = plt.Normalize(low, high), np.geomspace(0.003, high, 16)
    for axis, (name, values_of) in zip(axes[0], values.items(), strict=True):
        energy = np.asarray(values_of)
        axis.imshow(energy, origin="lower", extent=reach, cmap="viridis", norm=scale)
        axis.contour(energy, levels=levels, colors="white", linewidths=0.5, extent=reach)
        axis.plot([1, 1], [-0.5, 0.5], "o", color="white", ms=5)
        axis.plot(0, 0, "x", color="white")
        axis.set(title=name, xlabel="c₁", ylabel="c₂")
    colors = plt.cm.ScalarMappable(scale, "viridis")
    figure.colorbar(colors, ax=list(axes[0]), shrink=0.8, label="loss")
    return figure


# --- weighted pairs -------------------------------------------------------------------------------


def crops(image: Float[Array, "h w"], pairs: Mapping[str, Float[Array, "k ..."]]) -> Figure:
    """An image once for each pair of crops, drawn as boxes (x0, y0, x1, y1).

    `pairs`: as of `pair_weights.example_crops`.
    """
    figure = plt.figure(figsize=(11, 2.3))
    first, second, overlap = (np.asarray(pairs[name]) for name in ("first", "second", "iou"))
    axes = figure.subplots(1, len(overlap), squeeze=False)[0]
    height, width = image.shape
    for axis, one, two, value in zip(axes, first, second, overlap, strict=True):
        axis.imshow(np.asarray(image), cmap="gray_r", extent=(0, width, height, 0))
        _box(axis, one, COLORS["SimCLR"])
        _box(axis, two, COLORS["t-SimCLR"])
        axis.set(title=f"IoU {value:.2f}", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


def _box(axis: Axes, corners: Float[np.ndarray, " 4"], color: str) -> None:
    x0, y0, x1, y1 = corners
    style: dict[str, Any] = {"fill": False, "edgecolor": color, "lw": 2, "clip_on": False}
    axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, **style))


def weight_effects(effects: pd.DataFrame) -> Figure:
    """Differences of accuracy by the temperature of pair weights, with 95 % intervals.

    A panel a measure, a colour a kind of weights; negative temperatures on the right.
    """
    order = sorted(effects["τ'"].unique(), key=lambda value: (value < 0, abs(value)))
    labels = [f"{value:g}".replace("inf", "∞") for value in order]
    size = len(WEIGHT_MEASURES)
    figure, axes = plt.subplots(1, size, figsize=(4.4 * size, 3.8), sharey=True)
    for axis, (metric, title) in zip(axes, WEIGHT_MEASURES.items(), strict=True):
        own = effects[effects.metric == metric]
        for i, ((images, score), part) in enumerate(own.groupby(["crops", "score"], sort=False)):
            x = np.array([order.index(value) for value in part["τ'"]]) + 0.1 * i
            label = f"{score}, crops {images}"
            _differences(axis, x, part, fmt="o", capsize=3, color=i, label=label)
        axis.axhline(0, color="0.6", lw=1)
        axis.set_xticks(range(len(order)), labels)
        axis.set(xlabel="τ' of the weights", title=title)
    axes[0].set_ylabel("weighted − unweighted")
    _legend_below(figure, axes[0])
    return figure
