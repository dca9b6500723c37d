"""One look for every figure: style, one colour a method, and pictures that studies share."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from torch import Tensor

Array = Tensor | np.ndarray
Style = dict[str, Any]  # keyword arguments of Matplotlib
Ends = tuple[float, float, float]  # mean, and the ends of its 95 % interval
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
    "covariance noise": "#56B4E9",
    "random forest": "#E69F00",
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
CLASS_COLORS = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
STYLE: Style = {
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


def forces(
    axis: Axes,
    z: Float[Array, "N 2"],
    attraction: Float[Array, "N 2"],
    repulsion: Float[Array, "N 2"],
) -> None:
    """Where gradient descent pulls each point: minus the gradient's two parts, on one scale."""
    z, attraction, repulsion = (np.asarray(a) for a in (z, attraction, repulsion))
    first, second = z[: len(z) // 2], z[len(z) // 2 :]
    axis.plot(*np.stack([first, second], 1).transpose(2, 1, 0), color="0.75", lw=1, zorder=0)
    axis.scatter(z[:, 0], z[:, 1], s=14, color="0.2", zorder=3)
    longest = 0.4 * np.abs(z).max()
    scale = np.linalg.norm(np.concatenate([attraction, repulsion]), axis=1).max() / longest
    for name, force, width, order in (
        ("attraction", attraction, 0.009, 2),
        ("repulsion", repulsion, 0.005, 4),
    ):
        style: Style = {"color": COLORS[name], "width": width, "zorder": order}
        units: Style = {"angles": "xy", "scale_units": "xy", "scale": scale}
        axis.quiver(*z.T, *-force.T, label=name, **style, **units)
    limits = (z.min() - longest, z.max() + longest)
    axis.set(aspect="equal", xlim=limits, ylim=limits, xlabel="z₁", ylabel="z₂")


def circle(
    axis: Axes,
    u: Float[Array, "n 2"],
    labels: Int64[Array, " n"],
    corners: Float[Array, "m 2"] | None = None,
) -> None:
    """Unit features on the circle, one colour a label; `corners` are joined to a polygon."""
    angle = np.linspace(0, 2 * np.pi, 200)
    axis.plot(np.cos(angle), np.sin(angle), color="0.85", lw=1, zorder=0)
    if corners is not None:
        closed = np.concatenate([corners, corners[:1]])
        axis.plot(*closed.T, "--", color="0.5", lw=1, zorder=1)
    u, labels = np.asarray(u), np.asarray(labels)
    colors = [CLASS_COLORS[label] for label in labels]
    axis.scatter(u[:, 0], u[:, 1], c=colors, s=14, alpha=0.7, lw=0, zorder=2)
    axis.set(aspect="equal", xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), xlabel="u₁", ylabel="u₂")


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


def band(
    axis: Axes,
    x: Sequence[float] | np.ndarray,
    values: Float[Array, "seeds t"],
    *,
    color: str,
    label: str,
) -> None:
    """The mean over seeds with the range that all seeds lie in."""
    values = np.asarray(values)
    axis.plot(x, values.mean(0), color=color, label=label)
    axis.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.2, lw=0)


def feature_map(
    axis: Axes, z: Float[Array, "n 2"], labels: Int64[Array, " n"], classes: Sequence[str]
) -> None:
    """A two-dimensional map of images, one colour a class.

    Cut at the 99.5th percentile of the distance to the median.
    """
    z, labels = np.asarray(z), np.asarray(labels)
    colors = [CLASS_COLORS[label] for label in labels]
    axis.scatter(z[:, 0], z[:, 1], c=colors, s=4, alpha=0.7, lw=0)
    middle = np.median(z, 0)
    reach = np.quantile(np.abs(z - middle).max(1), 0.995) * 1.05
    x, y = middle[:, None] + np.array([-reach, reach])
    axis.set(aspect="equal", xlim=x, ylim=y, xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    for label, name in enumerate(classes):
        axis.scatter([], [], color=CLASS_COLORS[label], s=20, label=name)
