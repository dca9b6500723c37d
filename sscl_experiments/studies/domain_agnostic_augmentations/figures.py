"""The figures of the notebook: P of noise, agreement with SNE, mixup, and accuracies by cloud."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from sscl_experiments import plotting
from sscl_experiments.plotting import COLORS, Ends, Style, dot_plot
from sscl_experiments.record import Record
from sscl_experiments.runs.points import point_set

from .analysis import GAIN
from .parameters import BASE
from .sne import Form, aligned_maps
from .views import Densities


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


def agreement(example: Record, agree: Mapping[Form, pd.DataFrame]) -> Figure:
    """The maps of one run, and KL to either P over the strength of noise.

    `agree` holds `sne.agreement_by_factor` for each form of P.
    """
    figure, axes = plt.subplots(1, 5, figsize=(14.5, 3.3), width_ratios=(1, 1, 1, 1.1, 1.1))
    labels = point_set(example.config).train.labels
    maps = aligned_maps(example)
    for axis, title in zip(axes[:3], maps, strict=True):
        plotting.feature_map(axis, maps[title], labels, [])
        axis.set_title(title)
    titles: dict[Form, str] = {"ratio": "KL to P/(p p′)", "joint": "KL to P = $KK^⊤$"}
    right = axes[3:]
    for axis, (form, title) in zip(right, titles.items(), strict=True):
        _kl_by_noise(axis, agree[form])
        axis.set_title(title)
    limits = [limit for axis in right for limit in axis.get_ylim()]
    for axis in right:
        axis.set_ylim(min(limits), max(limits))
    right[0].set_ylabel("KL(P ‖ Q) at the best scale")
    right[0].legend()
    return figure


def _kl_by_noise(axis: Axes, agree: pd.DataFrame) -> None:
    own = agree[agree.factor == BASE[0]]
    by_noise = own.pivot(index="seed", columns="level")
    series = {"KL": ("SSCL", "noise"), "KL, SNE": ("SNE", "SNE"), "KL, input": ("input", "raw")}
    for column, (label, color) in series.items():
        values = by_noise[column]
        stds = values.columns.to_numpy(dtype=float)
        plotting.band(axis, stds, values.to_numpy(), color=COLORS[color], label=label)
    axis.set_xlabel("noise σ")
    axis.set(xticks=stds, yscale="log")


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
        figsize=(13, 0.45 * len(gain) + 1.6),
        width_ratios=(1.5, 1),
    )
    rows = [f"{cloud}  [{i}]" for i, cloud in enumerate(gain.cloud, 1)]
    dot_plot(left, rows, scores, xlabel="10-NN accuracy, test")
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, ncol=6, loc="outside upper left", fontsize=9)
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
