"""TODO"""

import numpy as np
from jaxtyping import Float, Int64
from matplotlib.axes import Axes

from sscl_experiments.plotting import CLASS_COLORS, Array


def thumbnails(
    axis: Axes,
    z: Float[Array, "n 2"],
    images: Float[Array, "n h w"],
    labels: Int64[Array, " n"],
    *,
    cells: int = 36,
) -> None:
    """A map drawn with its images, each in the colour of its class: the plane, cut at the 0.5th and 99.5th percentile, is divided into
    cells × cells squares, and each shows the image whose place is nearest to its middle."""
    z, images = np.asarray(z), np.asarray(images)
    low, high = np.quantile(z, [0.005, 0.995], axis=0)
    middle, half = (low + high) / 2, (high - low).max() / 2
    place = (z - middle + half) / (2 * half) * cells
    h, w = images.shape[1:]
    canvas = np.ones((cells * h, cells * w, 3))
    taken: dict[tuple[int, int], int] = {}
    for i in np.argsort(np.abs(place % 1 - 0.5).max(1)):
        column, row = np.floor(place[i]).astype(int)
        if 0 <= row < cells and 0 <= column < cells and (row, column) not in taken:
            taken[row, column] = i
            row, ink = (
                cells - 1 - row,
                images[i][..., None],
            )  # the first row of an image is the top one
            canvas[row * h : (row + 1) * h, column * w : (column + 1) * w] = 1 - ink * (
                1 - 0.9 * np.array(CLASS_COLORS[int(labels[i])])
            )
    axis.imshow(canvas, origin="upper", interpolation="antialiased")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
