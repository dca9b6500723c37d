"""TODO"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sscl_experiments.plotting import Array


def matrices(panels: Mapping[str, Array], *, log_floor: float = 1e-3) -> Figure:
    """Probability matrices side by side on one logarithmic scale, the diagonal left blank."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.6 * len(panels) + 0.6, 3.6), squeeze=False
    )
    for axis, (title, matrix) in zip(axes[0], panels.items(), strict=True):
        shown = np.clip(np.array(matrix, dtype=float), log_floor, 1)
        np.fill_diagonal(shown, np.nan)
        image = axis.imshow(shown, norm="log", vmin=log_floor, vmax=1)
        axis.set(title=title, xlabel="j (row of Z)", ylabel="i (row of Z)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=axes[0].tolist(), label="probability", shrink=0.8)
    return figure
