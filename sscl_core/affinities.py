"""Who is a neighbor of whom: the P that an augmentation specifies."""

import torch
from jaxtyping import Float
from torch import Tensor


def positive_pairs(n: int, *, normalization: str = "conditional") -> Float[Tensor, "N N"]:
    """The P of a contrastive batch Z = [z1; z2], N = 2n, in float64: the other view is the only neighbor.

    conditional: P_{j|i} = 1 for j = i ± n, rows sum to 1.  joint: P_ij = 1/(2n), the whole sums to 1.
    `ValueError`: n < 1 or an unknown normalization. Source: arXiv 2205.14814.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if normalization not in ("conditional", "joint"):
        raise ValueError(f"normalization must be 'conditional' or 'joint', got {normalization!r}")
    other_view = torch.eye(2 * n, dtype=torch.float64).roll(n, 0)
    return other_view if normalization == "conditional" else other_view / (2 * n)
