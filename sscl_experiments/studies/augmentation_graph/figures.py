"""The figures of the notebook: spectra, the forces of every loss, and maps drawn with images."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sscl_experiments import plotting
from sscl_experiments.plotting import CLASS_COLORS, COLORS, Array

from .analysis import T_SNE, Forces
from .parameters import SPECTRAL


def spectra(table: pd.DataFrame) -> Figure:
    """Eigenvalues, and how much of the eigenvectors features contain: in training, and after it.

    A row of panels for each graph; `table` is `analysis.Learned.spectra`.
    """
    names = list(table.data.unique())
    size = (13, 3.4 * len(names))
    figure, axes = plt.subplots(len(names), 3, figsize=size, squeeze=False)
    for (left, middle, right), name in zip(axes, names, strict=True):
        part = table[table.data == name]
        _eigenvalues(left, part)
        left.set_title(name)
        _in_training(middle, part)
        _after_training(right, part)
        for axis in (left, right):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 2].legend(fontsize=8)
    return figure


def _eigenvalues(axis: Axes, table: pd.DataFrame) -> None:
    first = table[(table.step == 0) & (table.loss == "spectral")]
    values = first.pivot(index="seed", columns="eigenvector", values="eigenvalue")
    plotting.band(axis, values.columns.to_numpy(), values.to_numpy(), color="0.3", label="")
    axis.set(xlabel="eigenvector", ylabel="eigenvalue")


def _in_training(axis: Axes, table: pd.DataFrame) -> None:
    dim = table.d_z.iloc[0]
    top = table[table.eigenvector.between(2, dim)]
    for loss in SPECTRAL:
        steps = top[top.loss == loss].groupby(["seed", "step"])["squared cosine"].mean().unstack()
        x, values = steps.columns.to_numpy(), steps.to_numpy()
        plotting.band(axis, x, values, color=COLORS[loss], label=loss)
    title = f"of eigenvectors 2 to {dim}"
    axis.set(xlabel="training step", ylabel="squared cosine", title=title, ylim=(0, 1.03))


def _after_training(axis: Axes, table: pd.DataFrame) -> None:
    dim, varying = table.d_z.iloc[0], table[table.eigenvector > 1]
    last = varying[varying.step == varying.step.max()]
    for loss in SPECTRAL:
        cosines = _by_eigenvector(last[last.loss == loss])
        x, values = cosines.columns.to_numpy(), cosines.to_numpy()
        plotting.band(axis, x, values, color=COLORS[loss], label=loss)
    *_, shown = SPECTRAL  # one loss's networks: before training all are the same but for BatchNorm
    untrained = _by_eigenvector(varying[(varying.step == 0) & (varying.loss == shown)]).mean()
    color = COLORS["untrained"]
    axis.plot(untrained.index, untrained, "--", color=color, label="untrained")
    axis.axvline(dim + 0.5, color="0.5", lw=1, ls="--")
    title = f"after training, d_z = {dim}"
    axis.set(xlabel="eigenvector", ylabel="squared cosine", title=title, ylim=(0, 1.03))


def _by_eigenvector(table: pd.DataFrame) -> pd.DataFrame:
    return table.pivot(index="seed", columns="eigenvector", values="squared cosine")


def forces(measured: Forces) -> Figure:
    """Where descent on each term of every loss moves each feature."""
    figure, axes = plt.subplots(3, 4, figsize=(12, 9))
    for axis, (name, (pull, push)) in zip(axes.flat, measured.parts.items(), strict=True):
        plotting.forces(axis, measured.Z, pull, push)
        axis.set(title=name, xticks=[], yticks=[], xlabel="", ylabel="")
    axes[0, 0].legend(loc="lower left", fontsize=8)
    return figure


def image_maps(
    maps: Mapping[str, Sequence[Float[Array, "n 2"]]],
    images: Float[Array, "n h w"],
    labels: Int64[Array, " n"],
    classes: Sequence[str],
) -> Figure:
    """The first map with the Cauchy similarity beside that of t-SNE, as `thumbnails`."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 6.3))
    titles = {"Cauchy": "contrastive, Cauchy similarity", T_SNE: T_SNE}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        thumbnails(axis, maps[name][0], images, labels, squares=30)
        axis.set_title(title)
    for color, name in zip(CLASS_COLORS, classes, strict=False):
        axes[0].scatter([], [], color=color, marker="s", label=name)
    handles = axes[0].get_legend_handles_labels()
    style = {"ncol": 10, "fontsize": 7.5, "columnspacing": 1}
    figure.legend(*handles, loc="outside lower center", **style)
    return figure


def thumbnails(
    axis: Axes,
    z: Float[Array, "n 2"],
    images: Float[Array, "n h w"],
    labels: Int64[Array, " n"],
    *,
    squares: int = 36,
) -> None:
    """A map drawn with its images, each in the colour of its class.

    The plane, cut at the 0.5th and 99.5th percentile, is divided into rows and columns of that many
    squares, and each shows the image whose place is nearest to its middle.
    """
    z, images, labels = np.asarray(z), np.asarray(images), np.asarray(labels)
    h, w = images.shape[1:]
    canvas = np.ones((squares * h, squares * w, 3))
    for (row, column), i in _nearest_to_middles(z, squares).items():
        pale = 1 - 0.9 * np.array(CLASS_COLORS[labels[i]])
        top, left = (squares - 1 - row) * h, column * w  # the first row of an image is the top one
        canvas[top : top + h, left : left + w] = 1 - images[i][..., None] * pale
    axis.imshow(canvas, origin="upper", interpolation="antialiased")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _nearest_to_middles(z: Float[np.ndarray, "n 2"], squares: int) -> dict[tuple[int, int], int]:
    """The point that is nearest to the middle of its square, by (row from below, column)."""
    low, high = np.quantile(z, [0.005, 0.995], axis=0)
    center, half = (low + high) / 2, (high - low).max() / 2
    place = (z - center + half) / (2 * half) * squares
    found: dict[tuple[int, int], int] = {}
    for i in np.argsort(np.abs(place % 1 - 0.5).max(1)):
        column, row = np.floor(place[i]).astype(int).tolist()
        if 0 <= row < squares and 0 <= column < squares:
            found.setdefault((row, column), int(i))
    return found
