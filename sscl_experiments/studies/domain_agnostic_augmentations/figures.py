"""The figures of the notebook: P of noise, agreement with SNE, mixup, and accuracies in rows."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from sscl_experiments import plotting
from sscl_experiments.plotting import COLORS, Style
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
    style: Style = {"fmt": "o", "ms": 4.5, "capsize": 2, "lw": 1.2}
    for i, name in enumerate(series):
        shift = 0.5 * ((i + 0.5) / len(series) - 0.5)
        ends = np.array(series[name], dtype=float)
        mean, low, high = ends.T
        axis.errorbar(
            mean,
            places - shift,
            xerr=[mean - low, high - mean],
            color=COLORS.get(name, f"C{i}"),
            label=name,
            **style,
        )
    axis.set_yticks(places, list(rows))
    axis.set_ylim(-len(rows) + 0.3, 0.7)
    axis.set_xlabel(xlabel)
    axis.grid(axis="x", color="0.9", lw=0.8)


def noise(masses: pd.DataFrame, edges: Sequence[float], pairs: pd.DataFrame) -> Figure:
    """Masses of one view, counted and exact; P of two views against distance.

    `masses` are `views.counted_noise`, `pairs` `sne.distance_and_flat_limit`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    _masses(left, masses)
    below = f"< {edges[0]:g}".replace("-", "−")
    names = [below, *(f"{edge:g}–" for edge in edges)]
    left.set_xticks(range(len(names)), names, fontsize=8)
    _against_distance(right, pairs)
    return figure


def _masses(axis: Axes, masses: pd.DataFrame) -> None:
    """Exact as bars, counted as points with two standard errors."""
    kinds = masses.groupby("noise", sort=False)
    for i, (kind, part) in enumerate(kinds):
        x = part.cell + 0.27 * (i - 1)
        axis.bar(x, part.exact, 0.25, color=f"C{i}", alpha=0.4, label=kind)
        error = 2 * part["s.e."]
        axis.errorbar(x, part.counted, error, fmt="k.", ms=3, lw=1)
    axis.set_xlabel("cell (its lower edge)")
    axis.set_ylabel("mass of one view")
    axis.legend(fontsize=8)


def _against_distance(axis: Axes, pairs: pd.DataFrame) -> None:
    axis.semilogy(
        pairs.distance,
        pairs.P,
        ".",
        ms=2,
        alpha=0.3,
        color=COLORS["noise"],
        label="two views, $KK^⊤$",
    )
    order = pairs.sort_values("distance")
    line: Style = {"color": "black", "lw": 1.2}
    axis.semilogy(order.distance, order.flat, label="φ∗φ, flat density", **line)
    axis.set_xlabel("‖x_i − x_j‖")
    axis.set_ylabel("P_ij")
    axis.set_ylim(1e-12, None)
    axis.legend(fontsize=9)


def agreement(example: Record, agree: pd.DataFrame) -> Figure:
    """The maps of one run, and rank correlation with SNE against the strength of noise."""
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.3))
    labels = point_set(example.config).train.labels
    maps = aligned_maps(example)
    for axis, title in zip(axes[:3], maps, strict=True):
        plotting.feature_map(axis, maps[title], labels, [])
        axis.set_title(title)
    _correlation_by_noise(axes[3], agree)
    return figure


def _correlation_by_noise(axis: Axes, agree: pd.DataFrame) -> None:
    own = agree[agree.factor == BASE[0]]
    by_noise = own.pivot(index="seed", columns="level")
    series = {
        "SSCL": ("rank correlation", "noise"),
        "SNE again": ("rank correlation, SNE", "SNE"),
        "input": ("rank correlation, input", "raw"),
    }
    for label, (column, color) in series.items():
        values = by_noise[column]
        stds = values.columns.to_numpy(dtype=float)
        plotting.band(axis, stds, values.to_numpy(), color=COLORS[color], label=label)
    axis.set_title("rank correlation with SNE")
    axis.set_xlabel("noise σ")
    axis.set(xticks=stds, ylim=(0.5, 1.02))
    axis.legend()


def mixup(densities: Densities, in_span: pd.DataFrame) -> Figure:
    """Where views of a point fall, and the part of their energy in the span of the means."""
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.5))
    *views, right = axes
    for axis, name in zip(views, densities.log_p, strict=True):
        image = _view_density(axis, densities, name)
    # Both have the scale of the last.
    label = "log density, cut at −6"
    figure.colorbar(image, ax=views, label=label, shrink=0.8)
    for name in ("noise", "mixup"):
        right.loglog(in_span.d, in_span[name], color=COLORS[name], label=name)
    right.set_title("share of energy in the span of the means")
    right.set_xlabel("dimension d")
    right.legend()
    return figure


def _view_density(axis: Axes, densities: Densities, name: str) -> AxesImage:
    """With the means of the mixture and the point whose views they are."""
    image = axis.imshow(
        densities.log_p[name].T,
        origin="lower",
        extent=densities.ends * 2,
        vmin=-6,
        vmax=3,
    )
    axis.plot(*densities.means.T, "k+", ms=9)
    axis.plot(*densities.anchor.T, "o", color="#D55E00")
    axis.set_title(f"{name}: p(x′ | ●)")
    axis.set(xlabel="x′₁", ylabel="x′₂")
    return image


def cloud_map(scores: Mapping[str, Sequence[Ends]], gain: pd.DataFrame) -> Figure:
    """Accuracies on every cloud, and the gain of mixup over noise against the variance ratio.

    `scores` are `analysis.cloud_scores`, `gain` `analysis.gains`; numbers join the panels.
    """
    figure, (left, right) = plt.subplots(
        1,
        2,
        figsize=(13, 0.42 * len(gain) + 1.6),
        width_ratios=(1.5, 1),
    )
    rows = [f"{cloud}  [{i}]" for i, cloud in enumerate(gain.cloud, 1)]
    dot_plot(left, rows, scores, xlabel="10-NN accuracy, test")
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, ncol=5, loc="outside upper left", fontsize=9)
    _gain_by_variance(right, gain)
    return figure


def _gain_by_variance(axis: Axes, gain: pd.DataFrame) -> None:
    """A numbered point a cloud."""
    columns = gain[["variance ratio", GAIN, "low", "high"]]
    rows = columns.itertuples(index=False, name=None)
    style: Style = {"fmt": "o", "ms": 5, "capsize": 2}
    offset: Style = {"xytext": (4, 4), "textcoords": "offset points"}
    for i, (ratio, mean, low, high) in enumerate(rows, 1):
        error = [[mean - low], [high - mean]]
        axis.errorbar(ratio, mean, error, color=_sign_color(low, high), **style)
        axis.annotate(str(i), (ratio, mean), fontsize=8, **offset)
    axis.axhline(0, color="0.5", lw=1)
    axis.axvline(1, color="0.5", lw=1, ls="--")
    axis.set_xscale("log")
    directions = "widest direction outside\nthe span of the means ÷ mean inside"
    axis.set_xlabel(f"variance of the data: {directions}")
    axis.set_ylabel("10-NN accuracy, mixup − noise")


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
    names = best.table.unique()
    shape = (len(SCORES), len(names))
    size = (4.2 * len(names), 6.4)
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False)
    for column, name in zip(axes.T, names, strict=True):
        own = best[best.table == name]
        beside = baselines[baselines.table == name]
        for axis, score in zip(column, SCORES, strict=True):
            _by_augmentation(axis, own, score)
            _baseline_lines(axis, beside, score)
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
        values = [groups.get_group(kind).tolist() for kind in kinds]
        series[str(method)] = [interval(own) for own in values]
    dot_plot(axis, kinds, series, xlabel=SCORE_LABELS[score])


def _baseline_lines(axis: Axes, baselines: pd.DataFrame, score: str) -> None:
    for method in ("raw", "PCA", "untrained"):
        own = baselines[baselines.method == method]
        style: Style = {"color": COLORS[method], "lw": 1.2, "ls": "--"}
        axis.axvline(own[score].mean(), label=method, **style)
