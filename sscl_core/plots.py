"""One look for every figure: style, one colour a method, and the few pictures that notebooks share."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from .claims import interval

Array = Tensor | np.ndarray

# Okabe and Ito's palette: told apart with any colour vision.
COLORS = {
    "SimCLR": "#0072B2",
    "t-SimCLR": "#D55E00",
    "untrained": "#CC79A7",
    "PCA": "#009E73",
    "raw pixels": "#000000",
    "attraction": "#009E73",
    "repulsion": "#D55E00",
    "noise": "#0072B2",
    "mixup": "#D55E00",
    "masking": "#009E73",
    "corruption": "#CC79A7",
    "raw": "#000000",
    "SNE": "#009E73",
    "spectral": "#009E73",
    "cosine": "#56B4E9",
    "cosine, BatchNorm": "#0072B2",
    "t joint": "#E69F00",
    "t joint, BatchNorm": "#D55E00",
    "t conditional": "#CC79A7",
    "t conditional, BatchNorm": "#882255",
    "Euclidean SNE": "#F0E442",
    "Euclidean SNE, BatchNorm": "#009E73",
}
GROUP_COLORS = ("#D55E00", "#0072B2")
CLASS_COLORS = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
STYLE: dict[str, Any] = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "legend.frameon": False,
    "image.cmap": "Blues",
    "svg.hashsalt": "sscl",  # the same figure is the same file
}


def matrices(panels: Mapping[str, Array], *, log_floor: float = 1e-3) -> Figure:
    """Probability matrices side by side on one logarithmic scale, the diagonal left blank."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels) + 0.6, 3.6), squeeze=False)
    for axis, (title, matrix) in zip(axes[0], panels.items(), strict=True):
        shown = np.clip(np.array(matrix, dtype=float), log_floor, 1)
        np.fill_diagonal(shown, np.nan)
        image = axis.imshow(shown, norm="log", vmin=log_floor, vmax=1)
        axis.set(title=title, xlabel="j (row of Z)", ylabel="i (row of Z)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=axes[0].tolist(), label="probability", shrink=0.8)
    return figure


def forces(axis: Axes, z: Float[Array, "N 2"], attraction: Float[Array, "N 2"], repulsion: Float[Array, "N 2"]) -> None:
    """Where gradient descent pulls each point: minus the two parts of the gradient, drawn to one scale."""
    z, attraction, repulsion = (np.asarray(a) for a in (z, attraction, repulsion))
    half = len(z) // 2
    axis.plot(*np.stack([z[:half], z[half:]], 1).transpose(2, 1, 0), color="0.75", lw=1, zorder=0)
    axis.scatter(z[:, 0], z[:, 1], s=14, color="0.2", zorder=3)
    longest = 0.4 * np.abs(z).max()
    scale = np.linalg.norm(np.concatenate([attraction, repulsion]), axis=1).max() / longest
    for name, force, width in (("attraction", attraction, 0.014), ("repulsion", repulsion, 0.006)):
        axis.quiver(
            *z.T,
            *-force.T,
            color=COLORS[name],
            label=name,
            angles="xy",
            scale_units="xy",
            scale=scale,
            width=width,
            zorder=2 if name == "attraction" else 4,
        )
    low, high = z.min() - longest, z.max() + longest
    axis.set(aspect="equal", xlim=(low, high), ylim=(low, high), xlabel="z₁", ylabel="z₂")


def circle(axis: Axes, u: Float[Array, "n 2"], labels: Int64[Array, " n"], corners: Float[Array, "m 2"] | None = None) -> None:
    """Unit features on the circle, pushed outwards a little by label so that they stay visible where they coincide."""
    angle = np.linspace(0, 2 * np.pi, 200)
    axis.plot(np.cos(angle), np.sin(angle), color="0.85", lw=1, zorder=0)
    if corners is not None:
        closed = np.concatenate([corners, corners[:1]])
        axis.plot(*closed.T, "--", color="0.5", lw=1, zorder=1)
    u, labels = np.asarray(u), np.asarray(labels)
    axis.scatter(u[:, 0], u[:, 1], c=[CLASS_COLORS[label] for label in labels], s=14, alpha=0.7, lw=0, zorder=2)
    axis.set(aspect="equal", xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), xlabel="u₁", ylabel="u₂")


def band(axis: Axes, x: Sequence[float] | np.ndarray, values: Float[Array, "seeds t"], *, color: str, label: str) -> None:
    """The mean over seeds with the range that all seeds lie in."""
    values = np.asarray(values)
    axis.plot(x, values.mean(0), color=color, label=label)
    axis.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.2, lw=0)


def ring(z: Float[Array, "n 2"], *, seed: int) -> Float[np.ndarray, "n 2"]:
    """Features by their direction alone, as the cosine sees them, moved off the circle at random so that they do not hide each other."""
    u = np.asarray(z) / np.linalg.norm(np.asarray(z), axis=1, keepdims=True)
    return u * (1 + 0.12 * np.random.default_rng(seed).standard_normal((len(u), 1)).clip(-2, 2))


def feature_map(axis: Axes, z: Float[Array, "n 2"], labels: Int64[Array, " n"], classes: Sequence[str]) -> None:
    """A two-dimensional map of images, one colour a class, cut at the 99.5th percentile of the distance to the median."""
    z, labels = np.asarray(z), np.asarray(labels)
    axis.scatter(z[:, 0], z[:, 1], c=[CLASS_COLORS[label] for label in labels], s=4, alpha=0.7, lw=0)
    middle = np.median(z, 0)
    reach = np.quantile(np.abs(z - middle).max(1), 0.995) * 1.05
    axis.set(aspect="equal", xlim=middle[0] + np.array([-reach, reach]), ylim=middle[1] + np.array([-reach, reach]))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    for label, name in enumerate(classes):
        axis.scatter([], [], color=CLASS_COLORS[label], s=20, label=name)


def thumbnails(axis: Axes, z: Float[Array, "n 2"], images: Float[Array, "n h w"], labels: Int64[Array, " n"], *, cells: int = 36) -> None:
    """A map drawn with its images, each in the colour of its class: the plane, cut at the 0.5th and 99.5th percentile, is divided into
    cells × cells squares, and each shows the image whose place is nearest to its middle."""
    z, images = np.asarray(z), np.asarray(images)
    low, high = np.quantile(z, [0.005, 0.995], axis=0)
    middle, half = (low + high) / 2, (high - low).max() / 2
    place = (z - middle + half) / (2 * half) * cells
    h, w = images.shape[1:]
    canvas = np.ones((cells * h, cells * w, 3))
    taken: dict[tuple[int, int], int] = {}
    for i in np.argsort(np.abs(place % 1 - 0.5).max(1)):
        column, row = np.floor(place[i]).astype(int)
        if 0 <= row < cells and 0 <= column < cells and (row, column) not in taken:
            taken[row, column] = i
            row, ink = cells - 1 - row, images[i][..., None]  # the first row of an image is the top one
            canvas[row * h : (row + 1) * h, column * w : (column + 1) * w] = 1 - ink * (1 - 0.9 * np.array(CLASS_COLORS[int(labels[i])]))
    axis.imshow(canvas, origin="upper", interpolation="antialiased")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def rates(axis: Axes, rows: Mapping[str, tuple[float, float, float]], *, chance: Sequence[float] = (), **marks: Sequence[float]) -> None:
    """A rate a row, from top to bottom, with its interval; grey ticks for chance, and `marks`, other rates of the same rows, by name."""
    y = -np.arange(len(rows))
    mean, low, high = np.array(list(rows.values())).T
    error = np.stack([mean - low, high - mean])
    axis.errorbar(mean, y, xerr=error, fmt="o", ms=5, capsize=2.5, color=COLORS["SimCLR"], label="trained")
    for (name, values), marker, color in zip(marks.items(), "o^", (COLORS["untrained"], COLORS["SimCLR"]), strict=False):
        axis.plot(values, y, marker, ms=5, mfc="none", color=color, label=name.replace("_", " "), zorder=0)
    if len(chance):
        axis.plot(chance, y, "|", ms=9, mew=2, color="0.5", label="chance")
    axis.set_yticks(y, list(rows))
    axis.set(xlim=(-0.03, 1.03), ylim=(y[-1] - 0.7, 0.7))
    axis.grid(axis="x", color="0.9", lw=0.8)


def dots(axis: Axes, rows: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float]]], *, xlabel: str) -> None:
    """A quantity a row, from top to bottom, for each series with its interval; nan where a series lacks a row."""
    for i, (name, points) in enumerate(series.items()):
        y = -np.arange(len(rows)) - 0.5 * ((i + 0.5) / len(series) - 0.5)
        mean, low, high = np.array(points, dtype=float).T
        error = np.stack([mean - low, high - mean])
        axis.errorbar(mean, y, xerr=error, fmt="o", ms=4.5, capsize=2, lw=1.2, color=COLORS.get(name, f"C{i}"), label=name)
    axis.set_yticks(-np.arange(len(rows)), list(rows))
    axis.set(ylim=(-len(rows) + 0.3, 0.7), xlabel=xlabel)
    axis.grid(axis="x", color="0.9", lw=0.8)


def moving(
    panels: Mapping[str, Float[Array, "t n 2"]], labels: Int64[Array, " n"], names: Sequence[str], steps: Sequence[int]
) -> tuple[Figure, FuncAnimation]:
    """Features by their direction as training goes on, a panel each, one colour a component and its name beside it; it stops a moment
    at the end. `steps`: the training step of each frame."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 3.5), squeeze=False)
    labels = np.asarray(labels)
    directions = [np.asarray(z) / np.linalg.norm(np.asarray(z), axis=2, keepdims=True) for z in panels.values()]

    def draw(frame: int) -> list[Any]:
        for axis, title, u in zip(axes[0], panels, directions, strict=True):
            axis.clear()
            circle(axis, u[frame], labels)
            for label, name in enumerate(names):
                mean = u[frame][labels == label].mean(0)
                x, y = 1.2 * mean / np.linalg.norm(mean)
                axis.text(x, y, name, color=CLASS_COLORS[label], ha="center", va="center", weight="bold")
            axis.set(title=title, xlabel="", ylabel="", xticks=[], yticks=[], xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))
            axis.spines[:].set_visible(False)
        figure.suptitle(f"step {steps[frame]}", y=0.02, va="bottom", fontsize=10)
        return []

    return figure, FuncAnimation(figure, draw, frames=[*range(len(steps)), *12 * [len(steps) - 1]])


def similarities(axes: Sequence[Axes], panels: Mapping[str, Float[Array, "k k"]], names: Sequence[str], groups: Int64[Array, " k"]) -> None:
    """Classes' mean similarities on one scale, the diagonal blank, each panel in the order of its own average-linkage tree; a name is
    coloured by its group."""
    off = ~np.eye(len(names), dtype=bool)
    limit = max(np.abs(np.asarray(similarity)[off]).max() for similarity in panels.values())
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        similarity = np.array(values)
        distance = np.where(off, similarity[off].max() - similarity, 0)
        order = leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True))
        shown = np.where(off, similarity[np.ix_(order, order)], np.nan)
        image = axis.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(title)
        axis.set_xticks(range(len(order)), [names[i] for i in order], rotation=90, fontsize=9)
        axis.set_yticks(range(len(order)), [names[i] for i in order], fontsize=9)
        for i, ticks in zip(order, zip(axis.get_xticklabels(), axis.get_yticklabels(), strict=True), strict=True):
            for tick in ticks:
                tick.set_color(GROUP_COLORS[int(groups[i])] if groups[i] >= 0 else "0.35")
    axes[0].figure.colorbar(image, ax=list(axes), shrink=0.75, label="mean cosine of centred features")


def heatmap(axis: Axes, table: pd.DataFrame, *, low: float, high: float, title: str, best: bool = True) -> AxesImage:
    """Accuracies over rows and columns with the numbers in their cells; the best is framed."""
    values = table.to_numpy(dtype=float)
    image = axis.imshow(values, vmin=low, vmax=high, aspect="auto")
    for i, j in np.ndindex(values.shape):
        dark = values[i, j] > (low + high) / 2
        axis.text(j, i, f"{100 * values[i, j]:.0f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    if best:
        i, j = np.unravel_index(np.nanargmax(values), values.shape)
        axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#D55E00", lw=2))
    axis.set_xticks(range(len(table.columns)), [f"{value:g}" for value in table.columns])
    axis.set_yticks(range(len(table)), ["∞" if value == np.inf else f"{value:g}" for value in table.index])
    axis.set_title(title)
    return image


def crops(
    figure: Figure, image: Float[Array, "h w"], first: Float[Array, "k 4"], second: Float[Array, "k 4"], titles: Sequence[str]
) -> None:
    """An image once for each pair of crops, which are drawn as boxes (x0, y0, x1, y1)."""
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for axis, one, two, title in zip(axes, np.asarray(first), np.asarray(second), titles, strict=True):
        axis.imshow(np.asarray(image), cmap="gray_r", extent=(0, image.shape[1], image.shape[0], 0))
        for (x0, y0, x1, y1), color in ((one, COLORS["SimCLR"]), (two, COLORS["t-SimCLR"])):
            axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, lw=2, clip_on=False))
        axis.set(title=title, xticks=[], yticks=[])
        axis.spines[:].set_visible(False)


def accuracy_panels(scores: pd.DataFrame, baselines: pd.DataFrame, measures: Mapping[str, str]) -> Figure:
    """A panel a measure: accuracy over d_z, means, of the two methods with 95 % intervals over seeds, of further forms without; raw pixels,
    PCA and the untrained network beside them."""
    figure, axes = plt.subplots(1, len(measures), figsize=(4.6 * len(measures), 4.4))
    trained = scores[scores.method != "untrained"]
    for axis, (metric, title) in zip(axes, measures.items(), strict=True):
        for i, (method, part) in enumerate(trained.groupby("method", sort=False)):
            points = part.groupby("d_z")[metric].apply(lambda values: interval(values.tolist()))
            mean, low, high = np.array(points.tolist()).T
            x = points.index.to_numpy() * 1.03**i  # side by side, so that intervals do not cover each other
            bold = method in ("SimCLR", "t-SimCLR")
            style = {"lw": 1.8 if bold else 0.9, "ls": "-" if bold else "--", "zorder": 3 if bold else 2, "ms": 4 if bold else 2}
            error = [mean - low, high - mean] if bold else None
            axis.errorbar(x, mean, error, marker="o", capsize=2, color=COLORS[str(method)], label=method, **style)
        _beside(axis, scores, baselines, metric)
        _over_dims(axis, trained.d_z, ylabel="test accuracy", title=title)
    legend_below(figure, axes[0])
    return figure


def _over_dims(axis: Axes, dims: pd.Series, **labels: str) -> None:
    """The axis of feature dimensions, each with its tick."""
    ticks = sorted(dims.unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(d) for d in ticks])
    axis.set(xlabel="feature dimension d_z", **labels)


def _beside(axis: Axes, scores: pd.DataFrame, baselines: pd.DataFrame, metric: str) -> None:
    """What accuracies are held against: raw pixels, the untrained network, and where there are any, principal components."""
    raw = baselines[baselines.method == "raw pixels"][metric].item()
    axis.axhline(raw, color=COLORS["raw pixels"], lw=1, ls=":", label="raw pixels")
    untrained = scores[scores.method == "untrained"]
    if metric.endswith("_z"):  # its z has a dimension of its own
        axis.plot(untrained.d_z.iloc[0], untrained[metric].mean(), "D", ms=5, color="0.6", label="untrained network")
    else:
        axis.axhline(untrained[metric].mean(), color="0.6", lw=1, ls="-.", label="untrained network")
    components = baselines[(baselines.method == "PCA") & baselines[metric].notna()]
    if len(components):
        axis.plot(components.d_z, components[metric], "s:", ms=3, lw=1, color="0.4", label="PCA to d_z")


def larger_sets(scores: pd.DataFrame, baselines: pd.DataFrame, measures: Mapping[str, str]) -> Figure:
    """A row a set of images, a panel a measure: the accuracies of every seed over d_z, and lines through their means; raw pixels, PCA and
    the untrained network beside them."""
    sets = list(scores.image_set.unique())
    figure, axes = plt.subplots(len(sets), len(measures), figsize=(4.2 * len(measures), 3.4 * len(sets)), squeeze=False)
    for row, name in zip(axes, sets, strict=True):
        part = scores[scores.image_set == name]
        trained = part[part.method != "untrained"]
        for axis, (metric, title) in zip(row, measures.items(), strict=True):
            for method, own in trained.groupby("method", sort=False):
                color, means = COLORS[str(method)], own.groupby("d_z")[metric].mean()
                axis.plot(own.d_z, own[metric], "o", ms=4, alpha=0.6, color=color)
                axis.plot(means.index, means, "_-", ms=12, color=color, label=method)
            _beside(axis, part, baselines[baselines.image_set == name], metric)
            _over_dims(axis, trained.d_z, ylabel="test accuracy", title=f"{name}: {title}")
    legend_below(figure, axes[0][0])
    return figure


def changes(effects: pd.DataFrame, measures: Mapping[str, str]) -> Figure:
    """Differences of accuracy over d_z with 95 % intervals, a panel a measure, a colour a change."""
    figure, axes = plt.subplots(1, len(measures), figsize=(4.6 * len(measures), 4))
    for axis, (metric, title) in zip(axes, measures.items(), strict=True):
        for i, (name, part) in enumerate(effects[effects.metric == metric].groupby("change", sort=False)):
            error = [part.difference - part.low, part.high - part.difference]
            axis.errorbar(part.d_z * 1.07**i, part.difference, error, fmt="o-", lw=0.8, ms=4, capsize=2, color=CLASS_COLORS[i], label=name)
        axis.axhline(0, color="0.6", lw=1)
        _over_dims(axis, effects.d_z, ylabel="difference of test accuracy", title=title)
    legend_below(figure, axes[0])
    return figure


def tau_nu(cells: pd.DataFrame) -> Figure:
    """Heatmaps of 15-NN on z over ν and τ: a column a dimension; above with BatchNorm, τ in units of d_z, below without."""
    dims, rows = sorted(cells.d_z.unique()), [kind for kind in (True, False) if (cells.batchnorm.astype(bool) == kind).any()]
    figure, axes = plt.subplots(len(rows), len(dims), figsize=(3.7 * len(dims), 3.4 * len(rows)), squeeze=False)
    for column, dim in enumerate(dims):
        own = cells[cells.d_z == dim]
        low, high = own.knn15_z.min(), own.knn15_z.max()
        for row, kind in enumerate(rows):
            part = own[own.batchnorm.astype(bool) == kind].copy()
            part["x"] = (part.tau / dim).round(6) if kind else part.tau
            name = f"d_z = {dim}, {'BatchNorm' if kind else 'no BatchNorm'}"
            heatmap(axes[row, column], part.pivot(index="nu", columns="x", values="knn15_z"), low=low, high=high, title=name)
            axes[row, column].set(xlabel="τ / d_z" if kind else "τ", ylabel="ν")
    return figure


def distance_histograms(axis: Axes, pairs: Mapping[str, tuple[Float[Array, " n"], Float[Array, " m"]]]) -> None:
    """For each method the distances of views of two images (filled) and of one (a line), in units of the median of the former."""
    bins = np.linspace(0, 3, 46).tolist()
    for method, (own, between) in pairs.items():
        axis.hist(np.asarray(between), bins, density=True, alpha=0.35, color=COLORS[method], label=f"{method}, two images")
        axis.hist(np.asarray(own), bins, density=True, histtype="step", lw=1.5, color=COLORS[method], label=f"{method}, one image")
    axis.set(xlabel="distance / median of two images", ylabel="density", xlim=(0, 3))


def energies(side: Float[Array, " n"], values: Mapping[str, Float[Array, "n n"]]) -> Figure:
    """The loss over the place of a third point, a panel a similarity, on one scale; contours at equal ratios, from 0.003 on."""
    figure, axes = plt.subplots(1, len(values), figsize=(4.2 * len(values), 3.8), squeeze=False)
    reach = (side[0] + 1, side[-1] + 1, side[0], side[-1])
    low, high = min(map(np.min, values.values())), max(map(np.max, values.values()))
    for axis, (name, energy) in zip(axes[0], values.items(), strict=True):
        image = axis.imshow(np.asarray(energy), origin="lower", extent=reach, cmap="viridis", vmin=low, vmax=high)
        axis.contour(np.asarray(energy), levels=np.geomspace(0.003, high, 16), colors="white", linewidths=0.5, extent=reach)
        axis.plot([1, 1], [-0.5, 0.5], "o", color="white", ms=5)
        axis.plot(0, 0, "x", color="white")
        axis.set(title=name, xlabel="c₁", ylabel="c₂")
    figure.colorbar(image, ax=list(axes[0]), shrink=0.8, label="loss")
    return figure


def weight_effects(effects: pd.DataFrame) -> Figure:
    """Differences of accuracy by the temperature of pair weights, a panel a measure, a curve a kind of weights, with 95 % intervals."""
    metrics = {"knn15_z": "15-NN on z", "knn15_cosine_h": "15-NN on h", "linear_probe_h": "linear probe on h"}
    labels = {key: f"{value:g}".replace("inf", "∞") for key, value in zip(effects["τ'"], effects["τ'"], strict=True)}
    order = sorted(labels, key=lambda value: (value < 0, abs(value)))
    figure, axes = plt.subplots(1, len(metrics), figsize=(4.4 * len(metrics), 3.8), sharey=True)
    for axis, (metric, title) in zip(axes, metrics.items(), strict=True):
        for i, ((crops_, score), part) in enumerate(effects[effects.metric == metric].groupby(["crops", "score"], sort=False)):
            x = np.array([order.index(value) for value in part["τ'"]]) + 0.1 * i
            error = [part.difference - part.low, part.high - part.difference]
            axis.errorbar(x, part.difference, error, fmt="o", ms=4, capsize=3, color=CLASS_COLORS[i], label=f"{score}, crops {crops_}")
        axis.axhline(0, color="0.6", lw=1)
        axis.set_xticks(range(len(order)), [labels[value] for value in order])
        axis.set(xlabel="τ' of the weights", title=title)
    axes[0].set_ylabel("weighted − unweighted")
    legend_below(figure, axes[0])
    return figure


def legend_below(figure: Figure, axis: Axes) -> None:
    """The legend of one panel for all of them, under the figure."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), fontsize=9)
