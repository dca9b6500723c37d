"""The figures of notebook 05."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sscl_experiments.panels import (
    KERNEL_COLORS,
    MARKERS,
    OTHER_COLORS,
    differences,
    dimension_axis,
    legend_below,
    panels,
    titled,
    zero_line,
)
from sscl_experiments.plotting import COLORS, Array, Style, feature_map
from sscl_experiments.statistics import interval

from .analysis import CONTRASTS

Points = Float[np.ndarray, "n 2"]
PURPOSES = {"z": "15-NN on z", "h": "linear probe on h"}
SHOWN = {"knn15_best_z": "15-NN on z", "linear_probe_h": "linear probe on h"}
IN_RECORD = {"knn15_z": "15-NN on z", "linear_probe_h": "linear probe on h"}
LENGTHS = (120, 20_000)  # optimiser steps: those of all lengths, recorded or not
IMAGES = {"cifar10": "CIFAR-10", "fashion_mnist_subset": "Fashion-MNIST, embedded"}


def ring(z: Float[Array, "n 2"], *, seed: int) -> Points:
    """The directions of features, moved off the circle at random so that none hides another."""
    z = np.asarray(z)
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((len(u), 1))
    radius = 1 + 0.12 * normal.clip(-2, 2)
    return u * radius


def accuracy_panels(scores: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """Accuracy over d_z of the kernels that were run, on z and on h.

    Means with 95 % intervals over seeds; raw pixels beside them, on z PCA to d_z, on h the
    untrained network. A panel for each of the two that there are runs of.
    """
    trained = scores[scores.epochs > 0]
    measures = {name: title for name, title in SHOWN.items() if trained[name].notna().any()}
    figure, axes = panels(1, len(measures), width=4.8, height=4.2)
    for axis, metric in titled(axes[0], measures):
        own = trained.dropna(subset=metric)
        axis.set_title(f"{SHOWN[metric]}, {own.epochs.max()} epochs")
        for i, (kernel, color) in enumerate(KERNEL_COLORS.items()):
            by_dim = own[own.method == kernel].groupby("d_z")[metric]
            if not len(by_dim):
                continue
            _curve(axis, by_dim, shift=1.04**i, color=color, label=kernel, marker=MARKERS[i])
        _baselines(axis, scores, baselines, metric)
        dimension_axis(axis, scores.d_z, "test accuracy")
    legend_below(figure, axes[0])
    return figure


def _curve(axis: Axes, by_dim: Any, *, shift: float, **style: Any) -> None:
    """Means over seeds with intervals; d_z is multiplied by `shift`, or bars hide each other."""
    points = by_dim.apply(lambda values: interval(values.tolist()))
    mean, low, high = np.array(points.tolist()).T
    bars = [mean - low, high - mean]
    axis.errorbar(points.index.to_numpy() * shift, mean, bars, capsize=2, ms=4, **style)


def _baselines(axis: Axes, scores: pd.DataFrame, baselines: pd.DataFrame, metric: str) -> None:
    own = metric.replace("best_", "")
    raw = baselines[baselines.method == "raw pixels"][own].item()
    axis.axhline(raw, color=COLORS["raw pixels"], lw=1, ls=":", label="raw pixels")
    components = baselines[baselines.method == "PCA"].dropna(subset=own)
    if len(components):
        x, y = components.d_z, components[own]
        axis.plot(x, y, "s:", ms=3, lw=1, color="0.5", label="PCA to d_z")
    elif len(network := scores[scores.method == "untrained"][own]):
        axis.axhline(network.mean(), color="0.5", lw=1, ls="-.", label="untrained network")


def against_length(table: pd.DataFrame) -> Figure:
    """Differences between kernels in points against optimiser steps, with 95 % intervals.

    `table`: of `analysis.contrasts` and `recorded.contrasts`. A row of panels a contrast
    and set of images, a panel a purpose, a line a dimension.
    """
    names = [name for name in IMAGES if name in set(table.images)]
    shape = (len(names) * len(CONTRASTS), len(PURPOSES))
    figure, axes = panels(*shape, width=5, height=3.1, sharex=True, sharey="row")
    dims = sorted(table.d_z.unique())
    rows = iter(axes)
    for name in names:
        for contrast in CONTRASTS:
            for axis, purpose in titled(next(rows), PURPOSES):
                here = (table.images == name) & (table.contrast == contrast)
                _by_length(axis, table[here & (table.purpose == purpose)], dims)
                axis.set_title(f"{contrast}: {PURPOSES[purpose]}, {IMAGES[name]}", fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel("points")
    for axis in axes[-1]:
        axis.set_xlabel("optimiser steps")
    legend_below(figure, axes.flat)
    return figure


def _by_length(axis: Axes, table: pd.DataFrame, dims: Sequence[int]) -> None:
    """A line a dimension, the lighter the more of them; moved a little aside of each other."""
    for i, dim in enumerate(dims):
        part = table[table.d_z == dim].sort_values("steps")
        if len(part):
            style: Style = {"color": OTHER_COLORS[i], "fmt": f"{MARKERS[i]}-"}
            differences(axis, part.steps * 1.04**i, part, label=f"d_z = {dim}", **style)
    zero_line(axis)
    axis.set_xscale("log")
    axis.set_xlim(*LENGTHS)


def two_by_two(effects: pd.DataFrame) -> Figure:
    """What leaving the sphere and the heavy tail change in points, over d_z, 95 % intervals.

    Filled with BatchNorm on z, hollow without; no lines, since nothing lies between dimensions.
    """
    figure, axes = panels(1, len(IN_RECORD), width=5, height=4, sharey=True)
    groups = [(change, form) for change in effects.change.unique() for form in _FORMS]
    for axis, metric in titled(axes[0], IN_RECORD):
        own = effects[(effects.metric == metric) & (effects.d_z > 1)]
        for i, (change, form) in enumerate(groups):
            part = own[(own.change == change) & (own.form == form)]
            color = OTHER_COLORS[0] if change == "leave the sphere" else OTHER_COLORS[1]
            style: Style = {"fmt": "os"[i // 2], "color": color, "mfc": _FORMS[form] or color}
            differences(axis, part.d_z * 1.07**i, part, label=f"{change}, {form}", **style)
        zero_line(axis)
        dimension_axis(axis, own.d_z, "points")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9
    )
    return figure


_FORMS = {"with BatchNorm": None, "without": "white"}


def maps(
    found: Mapping[str, Points],
    titles: Mapping[str, str],
    labels: Int64[Array, " n"],
    classes: Sequence[str],
) -> Figure:
    """Images in two dimensions, a panel a map, one colour a class."""
    figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 5.2), squeeze=False)
    for axis, name in zip(axes[0], found, strict=True):
        feature_map(axis, found[name], labels, classes)
        axis.set_title(titles[name])
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5, fontsize=9)
    return figure
