"""TODO"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from sscl_experiments.plotting import CLASS_COLORS, COLORS, Array, legend_below
from sscl_experiments.statistics import interval


def ring(z: Float[Array, "n 2"], *, seed: int) -> Float[np.ndarray, "n 2"]:
    """Features by their direction alone, as the cosine sees them, moved off the circle at random so that they do not hide each other."""
    u = np.asarray(z) / np.linalg.norm(np.asarray(z), axis=1, keepdims=True)
    return u * (1 + 0.12 * np.random.default_rng(seed).standard_normal((len(u), 1)).clip(-2, 2))


def heatmap(
    axis: Axes, table: pd.DataFrame, *, low: float, high: float, title: str, best: bool = True
) -> AxesImage:
    """Accuracies over rows and columns with the numbers in their cells; the best is framed."""
    values = table.to_numpy(dtype=float)
    image = axis.imshow(values, vmin=low, vmax=high, aspect="auto")
    for i, j in np.ndindex(values.shape):
        dark = values[i, j] > (low + high) / 2
        axis.text(
            j,
            i,
            f"{100 * values[i, j]:.0f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else "black",
        )
    if best:
        i, j = np.unravel_index(np.nanargmax(values), values.shape)
        axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#D55E00", lw=2))
    axis.set_xticks(range(len(table.columns)), [f"{value:g}" for value in table.columns])
    axis.set_yticks(
        range(len(table)), ["∞" if value == np.inf else f"{value:g}" for value in table.index]
    )
    axis.set_title(title)
    return image


def crops(
    figure: Figure,
    image: Float[Array, "h w"],
    first: Float[Array, "k 4"],
    second: Float[Array, "k 4"],
    titles: Sequence[str],
) -> None:
    """An image once for each pair of crops, which are drawn as boxes (x0, y0, x1, y1)."""
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for axis, one, two, title in zip(
        axes, np.asarray(first), np.asarray(second), titles, strict=True
    ):
        axis.imshow(np.asarray(image), cmap="gray_r", extent=(0, image.shape[1], image.shape[0], 0))
        for (x0, y0, x1, y1), color in ((one, COLORS["SimCLR"]), (two, COLORS["t-SimCLR"])):
            axis.add_patch(
                Rectangle(
                    (x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, lw=2, clip_on=False
                )
            )
        axis.set(title=title, xticks=[], yticks=[])
        axis.spines[:].set_visible(False)


def accuracy_panels(
    scores: pd.DataFrame, baselines: pd.DataFrame, measures: Mapping[str, str]
) -> Figure:
    """A panel a measure: accuracy over d_z, means, of the two methods with 95 % intervals over seeds, of further forms without; raw pixels,
    PCA and the untrained network beside them."""
    figure, axes = plt.subplots(1, len(measures), figsize=(4.6 * len(measures), 4.4))
    trained = scores[scores.method != "untrained"]
    for axis, (metric, title) in zip(axes, measures.items(), strict=True):
        for i, (method, part) in enumerate(trained.groupby("method", sort=False)):
            points = part.groupby("d_z")[metric].apply(lambda values: interval(values.tolist()))
            mean, low, high = np.array(points.tolist()).T
            x = (
                points.index.to_numpy() * 1.03**i
            )  # side by side, so that intervals do not cover each other
            bold = method in ("SimCLR", "t-SimCLR")
            style = {
                "lw": 1.8 if bold else 0.9,
                "ls": "-" if bold else "--",
                "zorder": 3 if bold else 2,
                "ms": 4 if bold else 2,
            }
            error = [mean - low, high - mean] if bold else None
            axis.errorbar(
                x,
                mean,
                error,
                marker="o",
                capsize=2,
                color=COLORS[str(method)],
                label=method,
                **style,
            )
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
        axis.plot(
            untrained.d_z.iloc[0],
            untrained[metric].mean(),
            "D",
            ms=5,
            color="0.6",
            label="untrained network",
        )
    else:
        axis.axhline(
            untrained[metric].mean(), color="0.6", lw=1, ls="-.", label="untrained network"
        )
    components = baselines[(baselines.method == "PCA") & baselines[metric].notna()]
    if len(components):
        axis.plot(
            components.d_z, components[metric], "s:", ms=3, lw=1, color="0.4", label="PCA to d_z"
        )


def larger_sets(
    scores: pd.DataFrame, baselines: pd.DataFrame, measures: Mapping[str, str]
) -> Figure:
    """A row a set of images, a panel a measure: the accuracies of every seed over d_z, and lines through their means; raw pixels, PCA and
    the untrained network beside them."""
    sets = list(scores.image_set.unique())
    figure, axes = plt.subplots(
        len(sets), len(measures), figsize=(4.2 * len(measures), 3.4 * len(sets)), squeeze=False
    )
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
        for i, (name, part) in enumerate(
            effects[effects.metric == metric].groupby("change", sort=False)
        ):
            error = [part.difference - part.low, part.high - part.difference]
            axis.errorbar(
                part.d_z * 1.07**i,
                part.difference,
                error,
                fmt="o-",
                lw=0.8,
                ms=4,
                capsize=2,
                color=CLASS_COLORS[i],
                label=name,
            )
        axis.axhline(0, color="0.6", lw=1)
        _over_dims(axis, effects.d_z, ylabel="difference of test accuracy", title=title)
    legend_below(figure, axes[0])
    return figure


def tau_nu(cells: pd.DataFrame) -> Figure:
    """Heatmaps of 15-NN on z over ν and τ: a column a dimension; above with BatchNorm, τ in units of d_z, below without."""
    dims, rows = (
        sorted(cells.d_z.unique()),
        [kind for kind in (True, False) if (cells.batchnorm.astype(bool) == kind).any()],
    )
    figure, axes = plt.subplots(
        len(rows), len(dims), figsize=(3.7 * len(dims), 3.4 * len(rows)), squeeze=False
    )
    for column, dim in enumerate(dims):
        own = cells[cells.d_z == dim]
        low, high = own.knn15_z.min(), own.knn15_z.max()
        for row, kind in enumerate(rows):
            part = own[own.batchnorm.astype(bool) == kind].copy()
            part["x"] = (part.tau / dim).round(6) if kind else part.tau
            name = f"d_z = {dim}, {'BatchNorm' if kind else 'no BatchNorm'}"
            heatmap(
                axes[row, column],
                part.pivot(index="nu", columns="x", values="knn15_z"),
                low=low,
                high=high,
                title=name,
            )
            axes[row, column].set(xlabel="τ / d_z" if kind else "τ", ylabel="ν")
    return figure


def distance_histograms(
    axis: Axes, pairs: Mapping[str, tuple[Float[Array, " n"], Float[Array, " m"]]]
) -> None:
    """For each method the distances of views of two images (filled) and of one (a line), in units of the median of the former."""
    bins = np.linspace(0, 3, 46).tolist()
    for method, (own, between) in pairs.items():
        axis.hist(
            np.asarray(between),
            bins,
            density=True,
            alpha=0.35,
            color=COLORS[method],
            label=f"{method}, two images",
        )
        axis.hist(
            np.asarray(own),
            bins,
            density=True,
            histtype="step",
            lw=1.5,
            color=COLORS[method],
            label=f"{method}, one image",
        )
    axis.set(xlabel="distance / median of two images", ylabel="density", xlim=(0, 3))


def energies(side: Float[Array, " n"], values: Mapping[str, Float[Array, "n n"]]) -> Figure:
    """The loss over the place of a third point, a panel a similarity, on one scale; contours at equal ratios, from 0.003 on."""
    figure, axes = plt.subplots(1, len(values), figsize=(4.2 * len(values), 3.8), squeeze=False)
    reach = (side[0] + 1, side[-1] + 1, side[0], side[-1])
    low, high = min(map(np.min, values.values())), max(map(np.max, values.values()))
    for axis, (name, energy) in zip(axes[0], values.items(), strict=True):
        image = axis.imshow(
            np.asarray(energy), origin="lower", extent=reach, cmap="viridis", vmin=low, vmax=high
        )
        axis.contour(
            np.asarray(energy),
            levels=np.geomspace(0.003, high, 16),
            colors="white",
            linewidths=0.5,
            extent=reach,
        )
        axis.plot([1, 1], [-0.5, 0.5], "o", color="white", ms=5)
        axis.plot(0, 0, "x", color="white")
        axis.set(title=name, xlabel="c₁", ylabel="c₂")
    figure.colorbar(image, ax=list(axes[0]), shrink=0.8, label="loss")
    return figure


def weight_effects(effects: pd.DataFrame) -> Figure:
    """Differences of accuracy by the temperature of pair weights, a panel a measure, a curve a kind of weights, with 95 % intervals."""
    metrics = {
        "knn15_z": "15-NN on z",
        "knn15_cosine_h": "15-NN on h",
        "linear_probe_h": "linear probe on h",
    }
    labels = {
        key: f"{value:g}".replace("inf", "∞")
        for key, value in zip(effects["τ'"], effects["τ'"], strict=True)
    }
    order = sorted(labels, key=lambda value: (value < 0, abs(value)))
    figure, axes = plt.subplots(1, len(metrics), figsize=(4.4 * len(metrics), 3.8), sharey=True)
    for axis, (metric, title) in zip(axes, metrics.items(), strict=True):
        for i, ((crops_, score), part) in enumerate(
            effects[effects.metric == metric].groupby(["crops", "score"], sort=False)
        ):
            x = np.array([order.index(value) for value in part["τ'"]]) + 0.1 * i
            error = [part.difference - part.low, part.high - part.difference]
            axis.errorbar(
                x,
                part.difference,
                error,
                fmt="o",
                ms=4,
                capsize=3,
                color=CLASS_COLORS[i],
                label=f"{score}, crops {crops_}",
            )
        axis.axhline(0, color="0.6", lw=1)
        axis.set_xticks(range(len(order)), [labels[value] for value in order])
        axis.set(xlabel="τ' of the weights", title=title)
    axes[0].set_ylabel("weighted − unweighted")
    legend_below(figure, axes[0])
    return figure
