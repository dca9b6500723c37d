"""The figures of the notebook: P and Q, forces, the arrangements reached, and training."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from sscl_experiments import plotting
from sscl_experiments.arrangements import fitted_polygon
from sscl_experiments.plotting import Array, Style
from sscl_experiments.record import Record

from .analysis import Runs

Curves = Float[Array, "seeds t"]
DIM_COLORS = {2: plotting.COLORS["SimCLR"], 4: plotting.COLORS["PCA"]}


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
    axis.set(xlabel="j (row of Z)", ylabel="i (row of Z)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    return image


def p_and_q(panels: Mapping[str, Float[Array, "N N"]]) -> Figure:
    """P beside Q before and after training: `analysis.batch_matrices`."""
    titles = ("P: the augmentation", "Q: untrained network", "Q: trained network")
    return matrices(dict(zip(titles, panels.values(), strict=True)))


def forces(arrays: Mapping[str, Float[Array, "N 2"]]) -> Figure:
    """Attraction and repulsion on the circle and in the plane: `analysis.example_forces`."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4))
    for axis, name in zip(axes, ("SimCLR", "t-SimCLR, joint"), strict=True):
        plotting.forces(
            axis,
            arrays[f"{name} z"],
            arrays[f"{name} attraction"],
            arrays[f"{name} repulsion"],
        )
        axis.set_title(name)
    circle = plt.Circle((0, 0), 1, fill=False, color="0.85")
    axes[0].add_patch(circle)
    axes[1].legend(loc="best")
    return figure


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


def training_curves(curves: Mapping[str, Curves], runs: Runs) -> Figure:
    """Alignment, uniformity and loss against epochs, beside the exact optimum, dashed.

    `curves` are `analysis.histories(runs)`.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    titles = {
        "alignment": "alignment E‖u−u′‖²",
        "uniformity": "uniformity of the components' means",
        "evaluation_loss": "InfoNCE (nats)",
    }
    for axis, name in zip(axes, titles, strict=True):
        for dim in DIM_COLORS:
            _curve(axis, np.asarray(curves[f"{name}, d_z={dim}"]), dim)
        axis.set_title(titles[name])
        axis.set_xlabel("epoch")
    for dim, color in DIM_COLORS.items():
        exact = runs[dim][0].metrics
        style: Style = {"color": color, "ls": "--", "lw": 1}
        axes[1].axhline(exact["uniformity_exact"], **style)
        axes[2].axhline(exact["loss_exact"], **style)
    axes[0].set_yscale("log")
    axes[0].legend()
    return figure


def _curve(axis: Axes, values: Float[np.ndarray, "seeds t"], dim: int) -> None:
    epochs = np.arange(values.shape[1])
    plotting.band(axis, epochs, values, color=DIM_COLORS[dim], label=f"d_z={dim}")
