"""How many dimensions a method needs, and what withholds a verdict. (C10, C11)"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from sscl_experiments.frames import with_interval
from sscl_experiments.statistics import interval

from .searches import METHOD_LOSSES

MARGINS = (0.0, 0.01, 0.02)
DECIDED_AT = 0.01  # below SimCLR's best
CIFAR_LEAST = 0.55  # 10-NN accuracy of a SimCLR backbone on CIFAR-10 that is trained enough
Accuracies = Float[np.ndarray, "dims seeds"]


def by_seed(table: pd.DataFrame, method: str, metric: str, dims: Sequence[int]) -> Accuracies:
    """Accuracies of a method, a row a d_z, a column a seed."""
    own = table[table.method == method].sort_values("seed")
    return np.stack([own[own.d_z == dim][metric] for dim in dims])


def smallest_dims(
    dims: Sequence[int], simclr: Accuracies, other: Accuracies, margin: float = 0.0
) -> tuple[Float[np.ndarray, " seeds"], Float[np.ndarray, " seeds"]]:
    """For each seed the smallest of `dims`, ascending, that suffices for SimCLR, and for the other.

    It suffices where accuracy comes within `margin` of SimCLR's at the dimension where SimCLR's
    mean over seeds is best. Twice the largest of `dims` where none does.
    """
    level = simclr[simclr.mean(1).argmax()] - margin
    grid = np.array([*dims, 2 * dims[-1]], dtype=float)
    none_of_them = np.ones_like(level, dtype=bool)
    reached = [np.vstack([accuracy >= level, none_of_them]) for accuracy in (simclr, other)]
    first, second = (grid[is_reached.argmax(0)] for is_reached in reached)
    return first, second


def crossing(dims: Sequence[int], accuracy: Float[np.ndarray, " dims"], level: float) -> float:
    """The d_z at which a curve of accuracies first reaches `level`; infinite if it does not.

    Between dimensions it is straight in log2 d_z.
    """
    if not (accuracy >= level).any():
        return math.inf
    i = int((accuracy >= level).argmax())
    if i == 0:
        return float(dims[0])
    part = (level - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
    return float(dims[i - 1] * (dims[i] / dims[i - 1]) ** part)


class NeededDimensions:
    """The d_z > 1 that both methods need for the 15-NN accuracy on z that SimCLR has at best."""

    def __init__(self, scores: pd.DataFrame, dims: Sequence[int]) -> None:
        self.dims = [dim for dim in dims if dim > 1]
        self.simclr = by_seed(scores, "SimCLR", "knn15_z", self.dims)
        self.t_simclr = by_seed(scores, "t-SimCLR", "knn15_z", self.dims)

    def smallest(self, margin: float) -> dict[str, Float[np.ndarray, " seeds"]]:
        """`smallest_dims` of each method."""
        found = smallest_dims(self.dims, self.simclr, self.t_simclr, margin)
        return dict(zip(METHOD_LOSSES, found, strict=True))

    def octaves(self, margin: float = DECIDED_AT) -> list[float]:
        """log2 of SimCLR's over t-SimCLR's, for each seed."""
        simclr, other = self.smallest(margin).values()
        return np.log2(simclr / other).tolist()

    def table(self) -> pd.DataFrame:
        """A row a margin: the dimensions of every seed, and the octaves between the methods."""
        rows = []
        for margin in MARGINS:
            needed = self.smallest(margin)
            row: dict[str, Any] = {"below SimCLR's best": margin}
            row |= {f"{method}: d_z": self._listed(dims) for method, dims in needed.items()}
            rows.append(row | with_interval("octaves", interval(self.octaves(margin))))
        return pd.DataFrame(rows)

    def _listed(self, needed: Float[np.ndarray, " seeds"]) -> str:
        largest = self.dims[-1]
        return ", ".join(f"{dim:g}" if dim <= largest else f">{largest}" for dim in needed)

    def crossings(self) -> dict[str, float]:
        """Where the mean curves come within a point of SimCLR's best."""
        means = [accuracy.mean(1) for accuracy in (self.simclr, self.t_simclr)]
        level = means[0].max() - DECIDED_AT
        found = [crossing(self.dims, mean, level) for mean in means]
        return dict(zip(METHOD_LOSSES, found, strict=True))


def probe_gains(scores: pd.DataFrame) -> list[float]:
    """For each seed the linear probe on h at the largest d_z, t-SimCLR's minus SimCLR's."""
    largest = int(scores.d_z.max())
    probes = [by_seed(scores, m, "linear_probe_h", [largest])[0] for m in METHOD_LOSSES]
    return (probes[1] - probes[0]).tolist()


def backbone_beside_pixels(scores: pd.DataFrame, baselines: pd.DataFrame) -> dict[str, float]:
    """15-NN accuracy of SimCLR's backbone at the largest d_z, and of raw pixels."""
    own = scores[(scores.method == "SimCLR") & (scores.d_z == scores.d_z.max())]
    raw = baselines[baselines.method == "raw pixels"]
    return {"backbone": own.knn15_cosine_h.mean(), "pixels": raw.knn15_z.item()}


def withheld(
    scores: pd.DataFrame, baselines: pd.DataFrame, large: pd.DataFrame | None = None
) -> str:
    """Why no verdict can be given: a SimCLR that is not trained enough; empty where it is.

    Its backbone must be as good as raw pixels, and reach .55 on CIFAR-10 where `large` is there.
    """
    reasons = []
    found = backbone_beside_pixels(scores, baselines)
    if not found["backbone"] >= found["pixels"]:
        beside = "is not as good as raw pixels ({pixels:.3f})".format(**found)
        reasons.append(f"SimCLR's backbone ({found['backbone']:.3f}) {beside}")
    if large is not None:
        own = (large.image_set == "cifar10") & (large.method == "SimCLR") & (large.d_z == 64)
        reached = large[own].knn_cosine_h.mean()
        if not reached >= CIFAR_LEAST:
            level = f"reaches {reached:.3f} on CIFAR-10, less than .55"
            reasons.append(f"SimCLR's backbone {level}")
    return "; ".join(reasons)


def part_of(table: pd.DataFrame, image_set: str) -> pd.DataFrame:
    """The rows of one of the larger sets."""
    return table[table.image_set == image_set]
