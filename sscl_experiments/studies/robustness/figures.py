"""The figures of notebook 04."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.nn import functional as F

from sscl_experiments.plotting import CLASS_COLORS, COLORS
from sscl_experiments.record import Record
from sscl_experiments.runs.unseen import draws, world_means

from .exact import Placement
from .parameters import MIXTURE, SEEN

KERNEL_COLORS = {
    "cosine": COLORS["SimCLR"],
    "Gaussian": COLORS["Euclidean SNE, BatchNorm"],
    "t joint": COLORS["t joint"],
    "t conditional": COLORS["t conditional"],
}
METHOD_COLORS = {
    "SimCLR": COLORS["SimCLR"],
    "t-SimCLR": COLORS["t-SimCLR"],
    "untrained": COLORS["untrained"],
    "raw pixels": COLORS["raw pixels"],
    "supervised": "0.5",
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def landing(records: Mapping[tuple[str, int], list[Record]], placement: Placement) -> Figure:
    """Where components land in two dimensions: the input, the exact optimum, trained networks.

    Seen components are dots, unseen ones crosses, in the same colours in all panels.
    """
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.8))
    first = records["cosine", 2][0]
    x, labels = draws(first.config, "new", 40, 1)
    _points(axes[0], x.numpy(), labels.numpy())
    for c, mean in enumerate(world_means(MIXTURE)["new"].tolist()):
        axes[0].annotate("ABCDEFGHIJKL"[c], mean, ha="center", va="center", fontsize=9)
    axes[0].set(title="input", xlabel="x₁", ylabel="x₂")
    new = placement.new(first.config.seed)
    unit = F.normalize(new["queries"], dim=1)
    _points(axes[1], _spread(unit, new["truth"]), new["truth"].numpy())
    axes[1].set_title("optimum on the circle, P known")
    z = torch.tensor(first.arrays["z"])
    _points(axes[2], _spread(F.normalize(z, dim=1), labels), labels.numpy())
    axes[2].set_title("cosine, trained: direction")
    _points(axes[3], (z / z.norm(dim=1).median()).numpy(), labels.numpy())
    axes[3].set_title("the same, norm kept")
    for axis in axes[1:3]:
        angle = np.linspace(0, 2 * np.pi, 200)
        axis.plot(np.cos(angle), np.sin(angle), color="0.85", lw=1, zorder=0)
    for axis in axes[1:]:
        axis.set(aspect="equal", xlabel="z₁", ylabel="z₂")
    return figure


def _spread(unit: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Directions with a radius for each component: on one circle they would hide each other."""
    return (unit * (1 + 0.06 * labels[:, None])).numpy()


def _points(axis: Axes, z: np.ndarray, labels: np.ndarray) -> None:
    for c in np.unique(labels):
        color = CLASS_COLORS[c % 10]
        style = {"marker": "o", "lw": 0} if c < SEEN else {"marker": "x", "lw": 1}
        axis.scatter(*z[labels == c].T, color=color, s=14, alpha=0.7, **style)  # type: ignore[misc, arg-type]


def by_dimension(table: pd.DataFrame, predicted: pd.DataFrame) -> Figure:
    """Accuracy on unseen components by d_z: at the exact optimum, and trained, by metric.

    Trained networks without BatchNorm, first in the metric of each kernel, then in the Euclidean.
    """
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), sharey=True)
    for kernel, group in predicted.groupby("kernel", sort=False):
        _curve(axes[0], group, str(kernel), KERNEL_COLORS[str(kernel)])
    for axis, column in zip(axes[1:], ("new", "new_euclidean"), strict=True):
        for kernel, color in KERNEL_COLORS.items():
            _curve(axis, table[table.kernel == kernel], kernel, color, column)
    for axis, title in zip(
        axes, ("exact optimum", "trained, own metric", "trained, all Euclidean"), strict=True
    ):
        axis.set_xscale("log", base=2)
        axis.set(title=title, xlabel="d_z")
    axes[0].set_ylabel("1-NN accuracy, unseen components")
    axes[0].legend(fontsize=8)
    axes[1].legend(fontsize=8)
    return figure


def _curve(axis: Axes, table: pd.DataFrame, label: str, color: str, column: str = "new") -> None:
    """Means over seeds, with the middle 90 % of seeds as a band."""
    groups = table.groupby("d_z")[column]
    mean, low, high = groups.mean(), groups.quantile(0.05), groups.quantile(0.95)
    marker = MARKERS[list(KERNEL_COLORS.values()).index(color)]
    axis.plot(mean.index, mean, marker=marker, color=color, label=label, ms=4)
    axis.fill_between(mean.index, low, high, color=color, alpha=0.12, lw=0)


def corruptions(table: pd.DataFrame) -> Figure:
    """10-NN accuracy on h against severity, a panel a corruption, a line a method.

    The Gaussian, which is in the table, is left out: five lines are what a panel can hold.
    """
    names = [name for name in table.corruption.unique() if name != "clean"]
    figure, axes = plt.subplots(2, 5, figsize=(13, 5), sharey=True, sharex=True)
    clean = table[table.corruption == "clean"]
    for axis, name in zip(axes.flat, names, strict=True):
        part = pd.concat([clean, table[table.corruption == name]])
        means = part.groupby(["method", "severity"])["accuracy"].mean()
        for marker, (method, color) in zip(MARKERS, METHOD_COLORS.items(), strict=False):
            values = means[method]
            axis.plot(values.index, values, color=color, marker=marker, ms=3, label=method)
        axis.set_title(name.replace("_", " "))
    for axis in axes[1]:
        axis.set_xlabel("severity")
    for axis in axes[:, 0]:
        axis.set_ylabel("10-NN accuracy")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncol=5, fontsize=9)
    return figure


def scatter(table: pd.DataFrame) -> Figure:
    """Prediction and measurement of all pairs: as they are, and without corruptions' means."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6))
    for number, (augmentation, part) in enumerate(table.groupby("augmentation", sort=False)):
        style = {"color": CLASS_COLORS[number], "marker": MARKERS[number], "s": 26}
        axes[0].scatter(part.predicted, part.measured, label=augmentation, **style)
        means = table.groupby("corruption")[["predicted", "measured"]].mean()
        own = part.set_index("corruption")[["predicted", "measured"]] - means
        axes[1].scatter(own.predicted, own.measured, **style)
    axes[0].set(xlabel="share of P farther out", ylabel="accuracy kept", title="all pairs")
    axes[1].set(
        xlabel="share of P farther out, less the corruption's mean",
        ylabel="accuracy kept, less the corruption's mean",
        title="what is up to the augmentation",
    )
    axes[0].legend(fontsize=8)
    return figure
