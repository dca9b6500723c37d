"""The figures of notebook 09."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sscl_experiments.panels import KERNEL_COLORS, heatmap, legend_below, panels
from sscl_experiments.plotting import Array, Style

Distances = tuple[Float[Array, " n"], Float[Array, " m"]]  # within images, and between them
Grid = Float[Array, "r c"]
BESIDE = ("cosine", "Student t")


def tau_nu(grid: pd.DataFrame) -> Figure:
    """15-NN on z over ν and τ, a column a dimension, which has one colour bar.

    Above with BatchNorm, τ in units of d_z, below without.
    """
    grid = grid.assign(batchnorm=grid.batchnorm.astype(bool))
    dims = sorted(grid.d_z.unique())
    kinds = sorted(grid.batchnorm.unique(), reverse=True)
    figure, axes = panels(len(kinds), len(dims), width=3.9, height=3.4)
    for column, dim in zip(axes.T, dims, strict=True):
        own = grid[grid.d_z == dim]
        ends: dict[str, Any] = {"low": own.knn15_z.min(), "high": own.knn15_z.max()}
        for axis, batchnorm in zip(column, kinds, strict=True):
            table = _by_tau(own[own.batchnorm == batchnorm], per_dim=batchnorm)
            kind = "BatchNorm" if batchnorm else "no BatchNorm"
            image = heatmap(axis, table, title=f"d_z = {dim}, {kind}", **ends)
            axis.set_xlabel("τ / d_z" if batchnorm else "τ")
            axis.set_ylabel("ν")
        figure.colorbar(image, ax=list(column), label="15-NN accuracy, %", shrink=0.7)
    return figure


def _by_tau(grid: pd.DataFrame, *, per_dim: bool) -> pd.DataFrame:
    """15-NN on z, a row a ν, a column a τ, or with `per_dim` a τ / d_z."""
    tau = grid.tau
    if per_dim:
        tau = (tau / grid.d_z).round(6)
    return grid.assign(x=tau).pivot(index="nu", columns="x", values="knn15_z")


def distances(found: Mapping[tuple[str, int], Distances], dims: Sequence[int]) -> Figure:
    """Distances of views for cosine and Student's t, a panel a dimension."""
    figure, axes = panels(1, len(dims), width=4.2, height=4, sharey=True)
    for axis, dim in zip(axes[0], dims, strict=True):
        for kernel in BESIDE:
            _distance_histograms(axis, found[kernel, dim], kernel)
        axis.set_title(f"d_z = {dim}")
        axis.set_xlabel("distance / median of two images")
        axis.set_xlim(0, 3)
    axes[0, 0].set_ylabel("density")
    legend_below(figure, axes[0, 0])
    return figure


def _distance_histograms(axis: Axes, pairs: Distances, kernel: str) -> None:
    """Distances of views of two images (filled) and of one (line), over the former's median."""
    within, between = map(np.asarray, pairs)
    shared: Style = {
        "bins": np.linspace(0, 3, 46).tolist(),
        "density": True,
        "color": KERNEL_COLORS[kernel],
    }
    axis.hist(between, alpha=0.35, label=f"{kernel}, two images", **shared)
    line: Style = {"histtype": "step", "lw": 1.5, "ls": "-" if kernel == "cosine" else "--"}
    axis.hist(within, label=f"{kernel}, one image", **line, **shared)


def energies(side: Float[Array, " n"], values: Mapping[str, Grid]) -> Figure:
    """The loss over the place of a third point, a panel a similarity, on one scale.

    Contours at equal ratios, from 0.003 on.
    """
    figure, axes = panels(1, len(values), width=3.4, height=3.4)
    stacked = np.stack(list(values.values()))
    norm = plt.Normalize(stacked.min(), stacked.max())
    levels = np.geomspace(0.003, stacked.max(), 16)
    low, high = side[0], side[-1]
    place: Style = {"extent": (low + 1, high + 1, low, high)}
    contours: Style = {"colors": "white", "linewidths": 0.5}
    for axis, name, energy in zip(axes[0], values, stacked, strict=True):
        axis.imshow(energy, origin="lower", cmap="viridis", norm=norm, **place)
        axis.contour(energy, levels=levels, **contours, **place)
        _fixed_points(axis)
        axis.set(title=name, xlabel="c₁")
    axes[0, 0].set_ylabel("c₂")
    colors = plt.cm.ScalarMappable(norm, "viridis")
    figure.colorbar(colors, ax=list(axes.flat), shrink=0.8, label="loss")
    return figure


def _fixed_points(axis: Axes) -> None:
    """The two neighbors, and a cross at the origin."""
    axis.plot([1, 1], [-0.5, 0.5], "o", color="white", ms=5)
    axis.plot(0, 0, "x", color="white")
