"""The figures of the notebook: time and memory against the batch, ratios, and a training step."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .contenders import DIRECT, FLOOR, IDIOM, METRIC_LEARNING, OURS
from .steps import PARTS

# Okabe and Ito's palette, with markers that tell methods apart in grey too.
STYLES = {
    OURS: ("#0072B2", "o", "-"),
    IDIOM: ("#E69F00", "s", "-"),
    METRIC_LEARNING: ("#CC79A7", "^", "-"),
    DIRECT: ("#D55E00", "v", "-"),
    FLOOR: ("#000000", "", "--"),
}
PART_COLORS = dict(zip(PARTS, ("#56B4E9", "#0072B2", "#D55E00", "#009E73", "#999999"), strict=True))
SHOWN = ("info_nce", "t_simclr joint", "t_simclr conditional")


def scaling(some: pd.DataFrame) -> Figure:
    """Time (above) and peak extra memory (below) against 2n, a column a loss, on log axes.

    `some` are the rows of one d and one number of threads.
    """
    figure, axes = plt.subplots(2, len(SHOWN), figsize=(12, 7), sharex=True, sharey="row")
    for (above, below), loss in zip(axes.T, SHOWN, strict=True):
        of_loss = some[some.loss == loss]
        for method, style in STYLES.items():
            _line(above, of_loss[of_loss.method == method], "ms", method, style)
            _line(below, of_loss[of_loss.method == method], "MiB", method, style)
        above.set_title(loss)
        below.set_xlabel("rows of a batch, 2n")
        below.set_ylim(bottom=0.3)
    axes[0, 0].set_ylabel("ms, forward and backward")
    axes[1, 0].set_ylabel("peak extra memory in MiB")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=len(STYLES))
    return figure


def _line(
    axis: Axes, table: pd.DataFrame, column: str, label: str, style: tuple[str, str, str]
) -> None:
    color, marker, line = style
    table = table.dropna(subset=[column]).sort_values("rows")
    if len(table):
        how = {"color": color, "marker": marker or None, "ls": line, "ms": 5}
        axis.loglog(table["rows"], table[column], label=label, base=2, **how)
    axis.set_yscale("log", base=10)


def over_the_floor(losses: pd.DataFrame) -> Figure:
    """Ours over three products, by 2n: a panel a loss, a line a number of features."""
    some = losses[(losses.method == FLOOR) & (losses.threads == losses.threads.min())]
    dims = sorted(some.dim.unique())
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(12, 3.8), sharey=True)
    for axis, loss in zip(axes, SHOWN, strict=True):
        for number, dim in enumerate(dims):
            shade = str(0.75 * (1 - (number + 1) / len(dims)))
            _ratios(
                axis, some[(some.loss == loss) & (some.dim == dim)], f"d = {dim}", shade, number
            )
        axis.axhline(1, color="0.6", lw=1)
        axis.set(title=loss, xlabel="rows of a batch, 2n")
    axes[0].set_ylabel("time over three products")
    axes[-1].legend()
    return figure


def _ratios(axis: Axes, table: pd.DataFrame, label: str, color: str, number: int) -> None:
    table = table.dropna(subset=["ratio"]).sort_values("rows")
    if not len(table):
        return
    middle, low, high = (1 / table[name] for name in ("ratio", "ratio_high", "ratio_low"))
    errors = np.stack([middle - low, high - middle])
    marker = "osv^D"[number % 5]
    axis.errorbar(table["rows"], middle, errors, color=color, marker=marker, label=label, ms=4)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)


def steps(table: pd.DataFrame) -> Figure:
    """A bar a network: what share of a training step each of its parts takes."""
    networks: Sequence[str] = list(table.network.unique())
    figure, axis = plt.subplots(figsize=(9, 0.8 + 0.7 * len(networks)))
    for row, network in enumerate(networks):
        shares = table[table.network == network].set_index("part").share
        left = 0.0
        for part in PARTS:
            label = part if row == 0 else None
            axis.barh(network, shares[part], left=left, color=PART_COLORS[part], label=label)
            if shares[part] > 0.04:
                at = left + shares[part] / 2
                axis.text(at, row, f"{shares[part]:.0%}", ha="center", va="center", color="w")
            left += shares[part]
    axis.set(xlabel="share of a training step", xlim=(0, 1.02))
    figure.legend(loc="outside upper center", ncol=len(PARTS))
    return figure
