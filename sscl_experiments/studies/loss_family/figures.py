"""The figures of the notebook: forces on trained features, ratios by scale, the spectrum."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sscl_experiments import plotting
from sscl_experiments.plotting import CLASS_COLORS

from .analysis import RATIO, Forces, Place

MARKS = "osD^v"
# One or two of each kind of similarity: those that are left out look like one of these.
DRAWN = ("InfoNCE", "t-SNE", "t-SimCLR, conditional", "UMAP", "spectral contrastive", "VICReg")


def forces(trained: Mapping[str, Sequence[Forces]]) -> Figure:
    """Where descent on each term of a loss moves each feature, on the loss's own features.

    Of the losses in `DRAWN`; the first network of each.
    """
    figure, axes = plt.subplots(2, 3, figsize=(12, 8.4))
    for axis, name in zip(axes.flat, DRAWN, strict=True):
        z, pull, push = trained[name][0]
        z = z - z.mean(0)
        plotting.forces(axis, z, pull, push)
        (left, below), (right, above) = z.amin(0), z.amax(0)
        margin = 0.2 * max(right - left, above - below)
        ends = {"xlim": (left - margin, right + margin), "ylim": (below - margin, above + margin)}
        axis.set(title=name, xticks=[], yticks=[], xlabel="", ylabel="", **ends)
    axes[0, 0].legend(loc="lower left", fontsize=10)
    return figure


def by_scale(table: pd.DataFrame) -> Figure:
    """Repulsion over attraction against the size of the features; means, bands all seeds."""
    figure, axis = plt.subplots(figsize=(7, 4))
    for mark, (name, own) in zip(MARKS, table.groupby("loss", sort=False), strict=False):
        values = own.pivot(index="seed", columns="scale", values=RATIO)
        (line,) = axis.plot(values.columns, values.mean(), f"{mark}-", label=name)
        ends = (values.min(), values.max())
        axis.fill_between(values.columns, *ends, color=line.get_color(), alpha=0.2, lw=0)
    axis.axhline(1, color="0.6", lw=1, ls=":")
    axis.set(xscale="log", yscale="log", xlabel="features multiplied by", ylabel=RATIO)
    axis.legend(fontsize=9)
    return figure


def spectrum(places: Mapping[float, Place]) -> Figure:
    """Maps of the same points along the spectrum, from repulsion to attraction, each to scale."""
    figure, axes = plt.subplots(1, len(places), figsize=(2.6 * len(places), 3.1))
    for axis, (odds, place) in zip(axes, places.items(), strict=True):
        z = place.z - place.z.mean(0)
        colors = [CLASS_COLORS[label] for label in place.labels]
        axis.scatter(*z.T, c=colors, s=9)
        reach = 1.05 * float(z.abs().max())
        limits = (-reach, reach)
        axis.set(aspect="equal", xlim=limits, ylim=limits, xticks=[], yticks=[])
        axis.set_title(f"odds {odds:g}\nspread {np.mean(place.spread):.2g}")
    axes[0].set_xlabel("more repulsion")
    axes[-1].set_xlabel("more attraction")
    return figure
