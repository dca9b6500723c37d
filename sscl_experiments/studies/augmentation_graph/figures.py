"""The figures of the notebook: log s against the density ratio, spectra, maps with images."""

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

from .analysis import T_SNE
from .density_ratio import PARTNERS, R2, RAW, TRAINED, Kept, sources

COSINE = "squared cosine"  # a column of `analysis.Learned.spectra`
DASHES = ("-", "--", "-.", ":", (0, (6, 1)))  # of eigenvectors, to be told apart in grey
Places = dict[tuple[int, int], int]  # the image at (row from below, column)


def thesis(ours: Kept, wrong: Kept, nulls: pd.DataFrame) -> Figure:
    """log s of the same pairs of views against their T, by four sources; first run.

    The constant is such that the mean over partners is that of T. R² is over partners, the mean of
    all runs, at slope 1; the raw input has its best scale.
    """
    pairs, titles = ours.pairs[0], nulls.groupby("log s of")[R2].mean()
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.9), sharex=True, sharey=True)
    part, T = pairs.partners, np.asarray(pairs.T)
    low, high = np.quantile(T, 0.02), T.max() + 0.5
    for axis, (name, runs) in zip(axes, sources(ours, wrong).items(), strict=True):
        y = np.asarray(runs[0])
        y = _best_scaled(y, T, part) if name == RAW else y
        y = y - (y - T)[part].mean()
        axis.axline((0, 0), slope=1, color="0.3", lw=1.2, zorder=3)
        half = len(T) // 2
        kinds = {"two samples": slice(half, None), "two views of a sample": slice(half)}
        for (kind, some), color in zip(kinds.items(), ("0.65", COLORS["SimCLR"]), strict=True):
            axis.scatter(T[some], y[some], s=5, alpha=0.5, lw=0, color=color, label=kind)
        axis.set(xlim=(low, high), ylim=(low, high), xlabel="log P/(p p′), exact")
        weight = "bold" if name == TRAINED else "normal"
        title = "trained with noise" if name == TRAINED else name
        axis.set_title(f"{title}\nR² = {titles[name]:.2f}".replace("-", "−"), weight=weight)
    axes[0].set_ylabel("log s(z, z′) + constant")
    axes[0].legend(loc="upper left", fontsize=8, markerscale=3)
    return figure


def _best_scaled(
    y: Float[np.ndarray, " m"], T: Float[np.ndarray, " m"], part: slice
) -> Float[np.ndarray, " m"]:
    covariance = np.cov(y[part], T[part])
    return y * covariance[0, 1] / covariance[0, 0]


def in_training(table: pd.DataFrame) -> Figure:
    """R² and slope over partners against the training step, a line for each noise."""
    own = table[table.pairs == PARTNERS]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.3))
    for axis, column in zip(axes, (R2, "slope"), strict=True):
        for style, (name, part) in zip(("-", "--", ":"), own.groupby("data"), strict=True):
            values = part.pivot(index="seed", columns="step", values=column)
            (line,) = axis.plot(values.columns, values.mean(), style, label=name, lw=2)
            ends = (values.min(), values.max())
            axis.fill_between(values.columns, *ends, color=line.get_color(), alpha=0.2, lw=0)
        axis.axhline(0.5, color="0.6", lw=1)
        axis.set(xlabel="training step", ylabel=column, ylim=(-0.05, 1.05))
    axes[1].legend(fontsize=9, loc="lower right")
    return figure


def crowding(table: pd.DataFrame, residual: pd.DataFrame) -> Figure:
    """R² over partners by d_z, and where log s differs from T; three similarities.

    The latter in the least and the most dimensions, on one scale.
    """
    last = table[(table.pairs == PARTNERS) & (table.step == table.step.max())]
    figure, (left, *others) = plt.subplots(1, 3, figsize=(12, 3.7))
    colors = {"cosine": COLORS["SimCLR"], "Gaussian": COLORS["SNE"], "Cauchy": COLORS["t-SimCLR"]}
    for (name, color), mark in zip(colors.items(), "osD", strict=True):
        values = last[last.similarity == name].pivot(index="seed", columns="d_z", values=R2)
        left.plot(values.columns, values.mean(), f"{mark}-", color=color, label=name)
        left.fill_between(values.columns, values.min(), values.max(), color=color, alpha=0.2, lw=0)
        for axis, dim in zip(others, (residual.d_z.min(), residual.d_z.max()), strict=True):
            own = residual[(residual.similarity == name) & (residual.d_z == dim)]
            means = own.groupby("bin")[["T", "residual"]].mean()
            axis.plot(means["T"], means.residual, f"{mark}-", color=color, ms=4)
            axis.set_title(f"d_z = {dim}")
    left.set(xlabel="d_z", ylabel="R² over partners", xscale="log")
    left.set_xticks(values.columns, [str(dim) for dim in values.columns])
    left.minorticks_off()
    ends = [end for axis in others for end in axis.get_ylim()]
    for axis in others:
        axis.axhline(0, color="0.6", lw=1)
        axis.set(xlabel="log P/(p p′)", ylim=(min(ends), max(ends)))
    others[0].set_ylabel("log s − log P/(p p′)")
    left.legend(fontsize=9)
    return figure


def spectra(table: pd.DataFrame) -> Figure:
    """Eigenvalues, and how much of the eigenvectors features contain: in training, and after it.

    A row of panels for each graph; `table` is `analysis.Learned.spectra`. The cosine with BatchNorm
    is left to the table: its line lies on that of the cosine.
    """
    table = table[table.loss != "cosine, BatchNorm"]
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
    axes[0, 2].legend(fontsize=7)
    return figure


def order(table: pd.DataFrame, loss: str = "spectral", last: int = 6) -> Figure:
    """The energy of each eigenvector over what it is after training, by step; means over runs."""
    shown = table[(table.loss == loss) & table.eigenvector.between(2, last)]
    names = shown.data.unique()
    figure, axes = plt.subplots(1, len(names), figsize=(10, 3.5), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        own = shown[shown.data == name]
        energy = own.groupby(["eigenvector", "step"]).energy.mean().unstack()
        share = energy.div(energy.iloc[:, -1], axis=0)
        shades = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(share)))
        looks = zip(shades, DASHES, share.iterrows(), strict=False)
        for color, dash, (number, values) in looks:
            axis.plot(share.columns, values, color=color, ls=dash, label=str(number))
        axis.axhline(0.5, color="0.6", lw=1, ls=":")
        axis.set(title=name, xlabel="training step", ylim=(0, None))
        axis.legend(fontsize=7, title="eigenvector", ncol=2, title_fontsize=8)
    axes[0].set_ylabel("energy, over that after training")
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
    for loss in table.loss.unique():
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
    for loss in table.loss.unique():
        cosines = _by_eigenvector(last[last.loss == loss])
        _band(axis, cosines, color=COLORS[loss], label=loss)
    _untrained(axis, varying[varying.step == 0])
    axis.axvline(dim + 0.5, color="0.5", lw=1, ls="--")
    axis.set_title(f"after training, d_z = {dim}")
    _eigenvector_axis(axis)
    _cosine_axis(axis)


def _untrained(axis: Axes, table: pd.DataFrame) -> None:
    """Of the networks of one loss: before training all are the same but for BatchNorm."""
    shown = "cosine"
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
