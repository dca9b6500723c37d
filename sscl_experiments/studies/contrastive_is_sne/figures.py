"""The figures of the notebook: P and Q, forces, the arrangements reached, and training."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sscl_experiments import plotting
from sscl_experiments.arrangements import fitted_polygon
from sscl_experiments.plotting import Array
from sscl_experiments.record import Record

from .analysis import Runs

DIM_COLORS = {2: plotting.COLORS["SimCLR"], 4: plotting.COLORS["PCA"]}


def matrices(panels: Mapping[str, Array], *, log_floor: float = 1e-3) -> Figure:
    """Probability matrices side by side on one logarithmic scale, the diagonal left blank."""
    size = (3.6 * len(panels) + 0.6, 3.6)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False)
    for axis, (title, matrix) in zip(axes[0], panels.items(), strict=True):
        shown = np.clip(np.asarray(matrix).astype(float), log_floor, 1)
        np.fill_diagonal(shown, np.nan)
        axis.imshow(shown, norm="log", vmin=log_floor, vmax=1)
        axis.set(title=title, xlabel="j (row of Z)", ylabel="i (row of Z)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    image = axes[0, 0].get_images()[0]  # all panels have its scale
    figure.colorbar(image, ax=axes[0].tolist(), label="probability", shrink=0.8)
    return figure


def p_and_q(panels: Mapping[str, Float[Array, "N N"]]) -> Figure:
    """P beside Q before and after training: `analysis.batch_matrices`."""
    titles = ("P: the augmentation", "Q: untrained network", "Q: trained network")
    return matrices(dict(zip(titles, panels.values(), strict=True)))


def forces(arrays: Mapping[str, Float[Array, "N 2"]]) -> Figure:
    """Attraction and repulsion on the circle and in the plane: `analysis.example_forces`."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4))
    for axis, name in zip(axes, ("SimCLR", "t-SimCLR, joint"), strict=True):
        parts = [arrays[f"{name} {part}"] for part in ("z", "attraction", "repulsion")]
        plotting.forces(axis, *parts)
        axis.set_title(name)
    axes[0].add_patch(plt.Circle((0, 0), 1, fill=False, color="0.85"))
    axes[1].legend(loc="best")
    return figure


def polygon_and_simplex(on_circle: Record, cosines: Float[Array, "m m"]) -> Figure:
    """Features on the circle before and after training; cosines between components for d_z = 4."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.9))
    before, after = on_circle.arrays["features"]
    labels = np.tile(on_circle.arrays["labels"], 2)
    corners = fitted_polygon(torch.tensor(on_circle.arrays["means"][-1]))
    plotting.circle(axes[0], before, labels)
    plotting.circle(axes[1], after, labels, corners)
    axes[0].set_title("before training")
    axes[1].set_title("after training")
    image = axes[2].imshow(np.asarray(cosines), vmin=-1, vmax=1, cmap="RdBu_r")
    for (i, j), cosine in np.ndenumerate(np.asarray(cosines)):
        color = "white" if i == j else "black"
        center = {"ha": "center", "va": "center"}
        axes[2].text(j, i, f"{cosine:.2f}", fontsize=8, color=color, **center)
    axes[2].set(title="d_z=4: cosines of components", xlabel="component", ylabel="component")
    figure.colorbar(image, ax=axes[2], shrink=0.8)
    return figure


def training_curves(curves: Mapping[str, Float[Array, "seeds t"]], runs: Runs) -> Figure:
    """Alignment, uniformity and loss against epochs, beside the exact optimum, dashed.

    `curves` are `analysis.histories(runs)`.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    titles = {
        "alignment": "alignment E‖u−u′‖²",
        "uniformity": "uniformity of the components' means",
        "evaluation_loss": "InfoNCE (nats)",
    }
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for dim, color in DIM_COLORS.items():
            label = f"d_z={dim}"
            values = np.asarray(curves[f"{name}, {label}"])
            plotting.band(axis, np.arange(values.shape[1]), values, color=color, label=label)
        axis.set(xlabel="epoch", title=title)
    for dim, color in DIM_COLORS.items():
        exact = runs[dim][0].metrics
        axes[1].axhline(exact["uniformity_exact"], color=color, ls="--", lw=1)
        axes[2].axhline(exact["loss_exact"], color=color, ls="--", lw=1)
    axes[0].set_yscale("log")
    axes[0].legend()
    return figure
