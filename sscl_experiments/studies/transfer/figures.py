"""Figures of notebook 06."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sscl_experiments.plotting import COLORS

from .analysis import OWN
from .methods import METHODS
from .parameters import PIXELS, UNTRAINED

ORDER = (*METHODS, UNTRAINED, PIXELS)
# Beside the methods that every notebook has; t forms and their originals share a hue family.
OWN_COLORS = {
    "Gaussian": "#009E73",
    "MoCo": "#56B4E9",
    "MoCo, BatchNorm": "#332288",
    "t-MoCo": "#E69F00",
    "supervised": "#777777",
}
MARKERS = {"linear probe": "o", "10-NN, cosine": "^", "10-NN, Euclidean": "s"}
NAMES = {
    "fashion_mnist_subset": "Fashion-MNIST (subset)",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "mnist": "MNIST",
    "usps": "USPS",
}


def color(method: str) -> str:
    return OWN_COLORS.get(method) or COLORS[method]


def named(name: str) -> str:
    return NAMES.get(name, name)


def accuracies(table: pd.DataFrame) -> Figure:
    """A panel a target, a row a method: the probe with its interval, and 10-NN in two metrics."""
    keys = list(dict.fromkeys(zip(table.source, table.target, strict=True)))
    keys.sort(key=lambda key: (key[0], key[1] != OWN))
    figure, axes = plt.subplots(
        1, len(keys), figsize=(1 + 3.6 * len(keys), 3.9), sharey=True, squeeze=False
    )
    for axis, (source, target) in zip(axes[0], keys, strict=True):
        here = table[(table.source == source) & (table.target == target)]
        _dots(axis, here)
        other = f"{named(source)}, its own test images" if target == OWN else named(target)
        title = other if target == OWN else f"{named(source)} → {other}"
        axis.set(title=title, xlabel="accuracy, %")
    axes[0, 0].set_yticks(range(len(ORDER)), ORDER)
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _dots(axis: Axes, table: pd.DataFrame) -> None:
    for offset, (measure, marker) in zip((0, 0.22, -0.22), MARKERS.items(), strict=True):
        rows = table[table.measure == measure].set_index("method").reindex(ORDER)
        place = np.arange(len(ORDER)) + offset
        is_probe = measure == "linear probe"
        face = [color(name) if is_probe else "white" for name in ORDER]
        edge = [color(name) for name in ORDER]
        size = 46 if is_probe else 26
        x = 100 * rows.accuracy
        axis.scatter(x, place, s=size, c=face, edgecolors=edge, marker=marker, zorder=3)
        axis.scatter(
            [],
            [],
            s=size,
            c="0.3" if is_probe else "white",
            edgecolors="0.3",
            marker=marker,
            label=measure,
        )
        if is_probe:
            low, high = 100 * rows["95 % low"], 100 * rows["95 % high"]
            axis.hlines(place, low, high, colors=edge, lw=1.5)
    axis.grid(axis="x", color="0.9")


def differences(table: pd.DataFrame, measures: Sequence[str] = tuple(MARKERS)) -> Figure:
    """A panel a pair: method minus method in points on each target; zero is a line."""
    pairs = list(dict.fromkeys(table.pair))
    keys = list(dict.fromkeys(zip(table.source, table.target, strict=True)))
    lines = -(-len(pairs) // 2)
    size = (9.2, 1 + lines * (0.8 + 0.65 * len(keys)))
    figure, axes = plt.subplots(lines, 2, figsize=size, sharey=True, sharex=True, squeeze=False)
    for axis, pair in zip(axes.flat, pairs, strict=True):
        for offset, measure in zip((-0.22, 0, 0.22), measures, strict=True):
            rows = table[(table.pair == pair) & (table.measure == measure)]
            place = np.arange(len(rows)) + offset
            tone = "0.15" if measure == "linear probe" else "0.55"
            axis.hlines(place, rows["95 % low"], rows["95 % high"], colors=tone, lw=1.5)
            axis.scatter(rows.points, place, c=tone, marker=MARKERS[measure], s=34, label=measure)
        axis.axvline(0, color="0.6", lw=1, zorder=0)
        axis.set(title=pair, ylim=(-0.5, len(keys) - 0.5))
    shown = [named(s) if t == OWN else f"{named(s)} → {named(t)}" for s, t in keys]
    for axis in axes[-1]:
        axis.set_xlabel("points")
    axes[0, 0].set_yticks(range(len(keys)), shown)
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
