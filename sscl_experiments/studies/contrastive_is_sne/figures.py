"""The figures of the notebook: P and Q, forces, the arrangements reached, and how fast."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import MaxNLocator

from sscl_experiments import plotting
from sscl_experiments.arrangements import fitted_polygon
from sscl_experiments.plotting import Array, Style
from sscl_experiments.record import Record

Curves = Float[np.ndarray, "seeds t"]
ARROWS: dict[str, Style] = {
    "attraction": {
        "color": plotting.COLORS["attraction"],
        "arrowstyle": "-|>",
        "mutation_scale": 13,
        "lw": 2.4,
        "ls": "-",
        "zorder": 2,
    },
    "repulsion": {
        "color": plotting.COLORS["repulsion"],
        "arrowstyle": "->",
        "mutation_scale": 11,
        "lw": 1.3,
        "ls": (0, (4, 2)),
        "zorder": 3,
    },
}
LINES: tuple[Style, ...] = (  # blue on the circle, green on spheres; darker and broken for more m
    {"color": "#56B4E9", "ls": "-"},
    {"color": "#0072B2", "ls": "--"},
    {"color": "#003A5C", "ls": "-."},
    {"color": "#009E73", "ls": "--"},
    {"color": "#004D38", "ls": "-."},
)


def matrices(panels: Mapping[str, Array], *, log_floor: float = 1e-3) -> Figure:
    """Probability matrices side by side on one logarithmic scale, the diagonal left blank."""
    columns = len(panels)
    size = (3.6 * columns + 0.6, 3.6)
    figure, axes = plt.subplots(1, columns, figsize=size, squeeze=False)
    for axis, title in zip(axes[0], panels, strict=True):
        image = _matrix(axis, panels[title], log_floor)
        axis.set_title(title)
    # All panels have the scale of the last.
    figure.colorbar(image, ax=axes[0].tolist(), label="probability", shrink=0.8)
    return figure


def _matrix(axis: Axes, matrix: Array, log_floor: float) -> AxesImage:
    values = np.asarray(matrix).astype(float)
    shown = np.clip(values, log_floor, 1)
    np.fill_diagonal(shown, np.nan)
    image = axis.imshow(shown, norm="log", vmin=log_floor, vmax=1)
    axis.set(xlabel="view j", ylabel="view i")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    return image


def p_and_q(panels: Mapping[str, Float[Array, "N N"]]) -> Figure:
    """P beside Q before and after training: `analysis.batch_matrices`."""
    titles = ("P: the augmentation", "Q: untrained network", "Q: trained network")
    figure = matrices(dict(zip(titles, panels.values(), strict=True)))
    for axis in figure.axes[:3]:
        for edge in range(4, len(panels["P"]), 4):  # two pairs of a component are four views
            axis.axhline(edge - 0.5, color="0.7", lw=0.5)
            axis.axvline(edge - 0.5, color="0.7", lw=0.5)
    return figure


def forces(arrays: Mapping[str, Float[Array, "N 2"]]) -> Figure:
    """Attraction and repulsion on the circle and in the plane: `analysis.example_forces`."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.6))
    for axis, name in zip(axes, ("SimCLR", "t-SimCLR, joint"), strict=True):
        parts = [np.asarray(arrays[f"{name} {part}"]) for part in ("z", *ARROWS)]
        _pair_forces(axis, *parts)
        axis.set_title(name)
    circle = plt.Circle((0, 0), 1, fill=False, color="0.85")
    axes[0].add_patch(circle)
    for name, style in ARROWS.items():
        axes[1].plot([], [], color=style["color"], ls=style["ls"], lw=style["lw"], label=name)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _pair_forces(
    axis: Axes,
    z: Float[np.ndarray, "N 2"],
    attraction: Float[np.ndarray, "N 2"],
    repulsion: Float[np.ndarray, "N 2"],
) -> None:
    """Numbered pairs, and from each point where gradient descent takes it, by either part."""
    first, second = np.split(z, 2)
    axis.plot(*np.stack([first, second], 1).transpose(2, 1, 0), color="0.8", lw=1, zorder=0)
    # Two arrows of a pair never meet.
    longest = 0.38 * np.linalg.norm(first - second, axis=1).min()
    scale = np.linalg.norm(np.concatenate([attraction, repulsion]), axis=1).max() / longest
    for force, look in zip((attraction, repulsion), ARROWS.values(), strict=True):
        for start, step in zip(z, -force / scale, strict=True):
            patch = FancyArrowPatch(start, start + step, shrinkA=0, shrinkB=0, **look)
            axis.add_patch(patch)
    points: Style = {"s": 130, "color": "white", "edgecolors": "0.2", "zorder": 4}
    axis.scatter(z[:, 0], z[:, 1], **points)
    for (x, y), number in zip(z, [*range(1, len(first) + 1)] * 2, strict=True):
        axis.text(x, y, str(number), ha="center", va="center", fontsize=8, zorder=5)
    limits = (z.min() - longest, z.max() + longest)
    axis.set(aspect="equal", xlim=limits, ylim=limits, xlabel="z₁", ylabel="z₂")


def polygon_and_simplex(on_circle: Record, cosines: Float[Array, "m m"]) -> Figure:
    """Features on the circle before and after training; cosines between components for d_z = 4."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.9))
    before, after = on_circle.arrays["features"]
    labels = np.tile(on_circle.arrays["labels"], 2)
    means = torch.tensor(on_circle.arrays["means"][-1])
    plotting.circle(left, before, labels)
    plotting.circle(middle, after, labels, fitted_polygon(means))
    left.set_title("before training")
    middle.set_title("after training")
    image = _cosines(right, np.asarray(cosines))
    figure.colorbar(image, ax=right, shrink=0.8)
    return figure


def _cosines(axis: Axes, cosines: Float[np.ndarray, "m m"]) -> AxesImage:
    """A matrix of cosines, with the numbers on top."""
    image = axis.imshow(cosines, vmin=-1, vmax=1, cmap="RdBu_r")
    style: Style = {"ha": "center", "va": "center", "fontsize": 8}
    for (i, j), cosine in np.ndenumerate(cosines):
        color = "white" if i == j else "black"
        axis.text(j, i, f"{cosine:.2f}", color=color, **style)
    axis.set_title("d_z=4: cosines of components")
    axis.set(xlabel="component", ylabel="component")
    return image


def approach(curves: Mapping[str, Curves], threshold: float, steps_per_epoch: int) -> Figure:
    """The larger share of both errors against training, a line a setting, beside the rule.

    `curves` are `analysis.share_histories(runs)`; lines are means over seeds, bands their range.
    """
    figure, axis = plt.subplots(figsize=(7.5, 3.8))
    for (name, values), look in zip(curves.items(), LINES, strict=True):
        steps = steps_per_epoch * np.arange(np.shape(values)[1])
        axis.fill_between(
            steps, values.min(0), values.max(0), color=look["color"], alpha=0.15, lw=0
        )
        axis.plot(steps, values.mean(0), label=name, **look)
    axis.axhline(threshold, color="0.3", ls=":", lw=1.2)
    axis.text(0, threshold, "the rule", va="bottom", color="0.3", fontsize=9)
    axis.set(yscale="log", xlabel="training step", ylabel="larger error, share of the exact angle")
    axis.legend(loc="upper right")
    return figure
