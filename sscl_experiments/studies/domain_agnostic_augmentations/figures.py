"""The figures of the notebook: P of noise, agreement with SNE, mixup, and accuracies in rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sscl_experiments import plotting
from sscl_experiments.plotting import COLORS
from sscl_experiments.record import Record
from sscl_experiments.runs.points import point_set
from sscl_experiments.statistics import interval

from .analysis import GAIN, SCORES, Ends
from .parameters import BASE
from .sne import aligned_maps
from .views import Densities

SCORE_LABELS = {"knn_h_test": "10-NN accuracy, test", "probe_h_test": "linear probe, test"}


def dot_plot(
    axis: Axes, rows: Sequence[str], series: Mapping[str, Sequence[Ends]], *, xlabel: str
) -> None:
    """A quantity a row, from top to bottom, for each series with its interval.

    It is nan where a series lacks a row.
    """
    places = -np.arange(len(rows))
    for i, (name, points) in enumerate(series.items()):
        y = places - 0.5 * ((i + 0.5) / len(series) - 0.5)
        mean, low, high = np.array(points, dtype=float).T
        error = np.stack([mean - low, high - mean])
        style: dict[str, Any] = {"fmt": "o", "ms": 4.5, "capsize": 2, "lw": 1.2}
        color = COLORS.get(name, f"C{i}")
        axis.errorbar(mean, y, xerr=error, color=color, label=name, **style)
    axis.set_yticks(places, list(rows))
    axis.set(ylim=(-len(rows) + 0.3, 0.7), xlabel=xlabel)
    axis.grid(axis="x", color="0.9", lw=0.8)


def noise(masses: pd.DataFrame, edges: Sequence[float], pairs: pd.DataFrame) -> Figure:
    """Masses of one view, counted and exact; P of two views against distance.

    `masses` are `views.counted_noise`, `pairs` `sne.distance_and_flat_limit`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    for i, (kind, part) in enumerate(masses.groupby("noise", sort=False)):
        x = part.cell + 0.27 * (i - 1)
        left.bar(x, part.exact, 0.25, color=f"C{i}", alpha=0.4, label=kind)
        left.errorbar(x, part.counted, 2 * part["s.e."], fmt="k.", ms=3, lw=1)
    lower_edges = [f"< {edges[0]:g}".replace("-", "−"), *(f"{edge:g}–" for edge in edges)]
    left.set_xticks(range(len(lower_edges)), lower_edges, fontsize=8)
    left.set(xlabel="cell (its lower edge)", ylabel="mass of one view")
    left.legend(fontsize=8)
    points: dict[str, Any] = {"ms": 2, "alpha": 0.3, "color": COLORS["noise"]}
    right.semilogy(pairs.distance, pairs.P, ".", label="two views, $KK^⊤$", **points)
    order = pairs.sort_values("distance")
    label = "φ∗φ, flat density"
    right.semilogy(order.distance, order.flat, color="black", lw=1.2, label=label)
    right.set(xlabel="‖x_i − x_j‖", ylabel="P_ij", ylim=(1e-12, None))
    right.legend(fontsize=9)
    return figure


def agreement(example: Record, agree: pd.DataFrame) -> Figure:
    """The maps of one run, and rank correlation with SNE against the strength of noise."""
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.3))
    labels = point_set(example.config).train.labels
    for axis, (title, z) in zip(axes[:3], aligned_maps(example).items(), strict=True):
        plotting.feature_map(axis, z, labels, [])
        axis.set_title(title)
    series = {
        "SSCL": ("rank correlation", "noise"),
        "SNE again": ("rank correlation, SNE", "SNE"),
        "input": ("rank correlation, input", "raw"),
    }
    by_noise = agree[agree.factor == BASE[0]].pivot(index="seed", columns="level")
    stds = by_noise["rank correlation"].columns.to_numpy(dtype=float)
    for label, (column, color) in series.items():
        values = by_noise[column].to_numpy()
        plotting.band(axes[3], stds, values, color=COLORS[color], label=label)
    title = "rank correlation with SNE"
    axes[3].set(xlabel="noise σ", xticks=stds, title=title, ylim=(0.5, 1.02))
    axes[3].legend()
    return figure


def mixup(densities: Densities, in_span: pd.DataFrame) -> Figure:
    """Where views of a point fall, and the part of their energy in the span of the means."""
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.5))
    place: dict[str, Any] = {"origin": "lower", "extent": densities.ends * 2, "vmin": -6, "vmax": 3}
    for axis, (name, log_p) in zip(axes[:2], densities.log_p.items(), strict=True):
        axis.imshow(log_p.T, **place)
        axis.plot(*densities.means.T, "k+", ms=9)
        axis.plot(*densities.anchor.T, "o", color="#D55E00")
        axis.set(title=f"{name}: p(x′ | ●)", xlabel="x′₁", ylabel="x′₂")
    image = axes[0].get_images()[0]  # both have its scale
    label = "log density, cut at −6"
    figure.colorbar(image, ax=list(axes[:2]), label=label, shrink=0.8)
    for name in ("noise", "mixup"):
        axes[2].loglog(in_span.d, in_span[name], color=COLORS[name], label=name)
    axes[2].set(xlabel="dimension d", title="share of energy in the span of the means")
    axes[2].legend()
    return figure


def cloud_map(scores: Mapping[str, Sequence[Ends]], gain: pd.DataFrame) -> Figure:
    """Accuracies on every cloud, and the gain of mixup over noise against the variance ratio.

    `scores` are `analysis.cloud_scores`, `gain` `analysis.gains`; numbers join the panels.
    """
    size = (13, 0.42 * len(gain) + 1.6)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, width_ratios=(1.5, 1))
    rows = [f"{cloud}  [{i}]" for i, cloud in enumerate(gain.cloud, 1)]
    dot_plot(left, rows, scores, xlabel="10-NN accuracy, test")
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, ncol=5, loc="outside upper left", fontsize=9)
    columns = gain[["variance ratio", GAIN, "low", "high"]]
    for i, (ratio, mean, low, high) in enumerate(columns.itertuples(index=False, name=None), 1):
        error = [[mean - low], [high - mean]]
        color = _sign_color(low, high)
        right.errorbar(ratio, mean, error, fmt="o", color=color, ms=5, capsize=2)
        offset: dict[str, Any] = {"xytext": (4, 4), "textcoords": "offset points"}
        right.annotate(str(i), (ratio, mean), fontsize=8, **offset)
    right.axhline(0, color="0.5", lw=1)
    right.axvline(1, color="0.5", lw=1, ls="--")
    directions = "widest direction outside\nthe span of the means ÷ mean inside"
    right.set(xscale="log", xlabel=f"variance of the data: {directions}")
    right.set_ylabel("10-NN accuracy, mixup − noise")
    return figure


def _sign_color(low: float, high: float) -> str:
    """The colour of the augmentation that is ahead; grey where the interval includes 0."""
    if low > 0:
        return COLORS["mixup"]
    return COLORS["noise"] if high < 0 else "0.6"


def images(scores: Mapping[str, Ends], raw_pixels: float) -> Figure:
    """Accuracies by kind of view, beside that of raw pixels; `scores`: `analysis.view_scores`."""
    names = list(scores)
    figure, axis = plt.subplots(figsize=(6.5, 0.3 * len(names) + 1.2))
    label = "10-NN accuracy on the backbone, test images"
    dot_plot(axis, names, {"SimCLR": list(scores.values())}, xlabel=label)
    axis.axvline(raw_pixels, color=COLORS["raw"], lw=1)
    axis.text(raw_pixels, -len(names) + 0.4, " raw pixels", fontsize=9)
    return figure


def tables(best: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """Accuracies on each table by augmentation and method, beside the baselines, dashed.

    `best` are the best strengths of all methods, `baselines` as in `analysis.against_baselines`.
    """
    names = list(best.table.unique())
    size = (4.2 * len(names), 6.4)
    figure, axes = plt.subplots(len(SCORES), len(names), figsize=size, squeeze=False)
    for column, name in zip(axes.T, names, strict=True):
        here = baselines[baselines.table == name]
        for axis, score in zip(column, SCORES, strict=True):
            _by_augmentation(axis, best[best.table == name], score)
            for method in ("raw", "PCA", "untrained"):
                mean = here[here.method == method][score].mean()
                axis.axvline(mean, color=COLORS[method], lw=1.2, ls="--", label=method)
        column[0].set_title(name)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, ncol=5, loc="outside upper center", fontsize=9)
    return figure


def _by_augmentation(axis: Axes, best: pd.DataFrame, score: str) -> None:
    trained = best[best.method != "untrained"]
    kinds = list(trained.augmentation.unique())
    series = {}
    for method, rows in trained.groupby("method", sort=False):
        groups = rows.groupby("augmentation")[score]
        series[str(method)] = [interval(groups.get_group(kind).tolist()) for kind in kinds]
    dot_plot(axis, kinds, series, xlabel=SCORE_LABELS[score])
