"""From unnormalised log probabilities to P, whose rows or whose total sum to 1."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sscl_core import checks


def normalized(log_p: Float[Tensor, "n n"], normalization: str) -> Float[Tensor, "n n"]:
    """conditional: P_{j|i} = p_ij / Σ_{k≠i} p_ik.  joint: P_ij = (P_{j|i} + P_{i|j}) / (2n).

    Where densities of a row are infinite, these have equal probabilities and all others none.
    `ValueError`: a point without a neighbor, an unknown normalization.
    """
    checks.check_settings(normalization=normalization)
    log_p = without_diagonal(log_p)
    check_neighbors(log_p > -math.inf)
    infinite = log_p == math.inf
    only_infinite = torch.where(infinite, 0.0, -math.inf)
    log_p = torch.where(infinite.any(1, keepdim=True), only_infinite, log_p)
    P = log_p.softmax(1)
    return P if normalization == "conditional" else (P + P.T) / (2 * len(P))


def without_diagonal(log_p: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """A copy in which no point is a neighbor of itself."""
    return log_p.clone().fill_diagonal_(-math.inf)


def check_neighbors(linked: Bool[Tensor, "n n"]) -> None:
    """`ValueError`: a row without any True."""
    isolated = (~linked.any(1)).nonzero().flatten()
    if len(isolated):
        which = f"point {int(isolated[0])} (of {len(isolated)} such)"
        raise ValueError(f"{which} has no neighbor at all: use a wider augmentation")
