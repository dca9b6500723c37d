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
from sscl_experiments.plotting import CLASS_COLORS, COLORS, Array, Style

from .analysis import T_SNE, Forces
from .parameters import SPECTRAL

COSINE = "squared cosine"  # a column of `analysis.Learned.spectra`
Places = dict[tuple[int, int], int]  # the image at (row from below, column)


def spectra(table: pd.DataFrame) -> Figure:
    """Eigenvalues, and how much of the eigenvectors features contain: in training, and after it.

    A row of panels for each graph; `table` is `analysis.Learned.spectra`.
    """
    names = table.data.unique()
    rows = len(names)
    figure, axes = plt.subplots(
        rows,
        3,
        figsize=(13, 3.4 * rows),
        squeeze=False,
    )
    for (left, middle, right), name in zip(axes, names, strict=True):
        part = table[table.data == name]
        _eigenvalues(left, part)
        left.set_title(name)
        _in_training(middle, part)
        _after_training(right, part)
    axes[0, 2].legend(fontsize=8)
    return figure


def _eigenvalues(axis: Axes, table: pd.DataFrame) -> None:
    first = table[table.loss == "spectral"]
    first = first[first.step == 0]
    values = first.pivot(index="seed", columns="eigenvector", values="eigenvalue")
    _band(axis, values, color="0.3", label="")
    axis.set_ylabel("eigenvalue")
    _eigenvector_axis(axis)


def _in_training(axis: Axes, table: pd.DataFrame) -> None:
    dim = table.d_z.iloc[0]
    top = table[table.eigenvector.between(2, dim)]
    for loss in SPECTRAL:
        own = top[top.loss == loss]
        means = own.groupby(["seed", "step"])[COSINE].mean()
        _band(axis, means.unstack(), color=COLORS[loss], label=loss)
    axis.set_title(f"of eigenvectors 2 to {dim}")
    axis.set_xlabel("training step")
    _cosine_axis(axis)


def _after_training(axis: Axes, table: pd.DataFrame) -> None:
    dim = table.d_z.iloc[0]
    varying = table[table.eigenvector > 1]
    last = varying[varying.step == varying.step.max()]
    for loss in SPECTRAL:
        cosines = _by_eigenvector(last[last.loss == loss])
        _band(axis, cosines, color=COLORS[loss], label=loss)
    _untrained(axis, varying[varying.step == 0])
    axis.axvline(dim + 0.5, color="0.5", lw=1, ls="--")
    axis.set_title(f"after training, d_z = {dim}")
    _eigenvector_axis(axis)
    _cosine_axis(axis)


def _untrained(axis: Axes, table: pd.DataFrame) -> None:
    """Of the networks of one loss: before training all are the same but for BatchNorm."""
    *_, shown = SPECTRAL
    cosines = _by_eigenvector(table[table.loss == shown])
    means = cosines.mean()
    color = COLORS["untrained"]
    axis.plot(means.index, means, "--", color=color, label="untrained")


def _by_eigenvector(table: pd.DataFrame) -> pd.DataFrame:
    return table.pivot(index="seed", columns="eigenvector", values=COSINE)


def _band(axis: Axes, values: pd.DataFrame, *, color: str, label: str) -> None:
    """`plotting.band` of a table with a row a seed."""
    x = values.columns.to_numpy()
    plotting.band(axis, x, values.to_numpy(), color=color, label=label)


def _eigenvector_axis(axis: Axes) -> None:
    axis.set_xlabel("eigenvector")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _cosine_axis(axis: Axes) -> None:
    axis.set_ylabel(COSINE)
    axis.set_ylim(0, 1.03)


def forces(measured: Forces) -> Figure:
    """Where descent on each term of every loss moves each feature."""
    figure, axes = plt.subplots(3, 4, figsize=(12, 9))
    for axis, name in zip(axes.flat, measured.parts, strict=True):
        plotting.forces(axis, measured.Z, *measured.parts[name])
        axis.set_title(name)
        axis.set(xticks=[], yticks=[])
        axis.set(xlabel="", ylabel="")
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
    for axis, name in zip(axes, ("Cauchy", T_SNE), strict=True):
        thumbnails(axis, maps[name][0], images, labels, squares=30)
    axes[0].set_title("contrastive, Cauchy similarity")
    axes[1].set_title(T_SNE)
    for color, name in zip(CLASS_COLORS, classes, strict=False):
        axes[0].scatter([], [], color=color, marker="s", label=name)
    handles = axes[0].get_legend_handles_labels()
    style: Style = {"ncol": 10, "fontsize": 7.5, "columnspacing": 1}
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
    images, labels = np.asarray(images), np.asarray(labels)
    h, w = images.shape[1:]
    canvas = np.ones((squares, h, squares, w, 3))
    for (row, column), i in _nearest_to_middles(np.asarray(z), squares).items():
        from_top = squares - 1 - row
        canvas[from_top, :, column] = _colored(images[i], CLASS_COLORS[labels[i]])
    image = canvas.reshape(squares * h, squares * w, 3)
    axis.imshow(image, origin="upper", interpolation="antialiased")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _colored(image: Float[np.ndarray, "h w"], color: Sequence[float]) -> Float[np.ndarray, "h w 3"]:
    """White where the image is 0, in a darker shade of the colour where it is 1."""
    absorbed = 1 - 0.9 * np.array(color)
    return 1 - image[..., None] * absorbed


def _nearest_to_middles(z: Float[np.ndarray, "n 2"], squares: int) -> Places:
    """The point that is nearest to the middle of its square, by (row from below, column)."""
    low, high = np.quantile(z, [0.005, 0.995], axis=0)
    center = (low + high) / 2
    half = (high - low).max() / 2
    place = (z - center + half) / (2 * half) * squares
    to_middle = np.abs(place % 1 - 0.5).max(1)
    columns, rows = np.floor(place).astype(int).T.tolist()
    found: Places = {}
    for i in to_middle.argsort().tolist():
        row, column = rows[i], columns[i]
        if 0 <= row < squares and 0 <= column < squares:
            found.setdefault((row, column), i)
    return found
