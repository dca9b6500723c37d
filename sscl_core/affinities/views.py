"""P of a contrastive batch, and P of points that are views with known densities."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sscl_core import checks
from sscl_core.checks import Normalization

from . import arguments
from .normalization import check_neighbors, normalized, without_diagonal

UNDERFLOW = 1e-290  # below, products of densities have lost digits
PAIRS_AT_A_TIME = 10_000_000  # entries of one block of the sum in the log domain


def positive_pairs(n: int, *, normalization: Normalization = "conditional") -> Float[Tensor, "N N"]:
    """The P of a contrastive batch Z = [z1; z2], N = 2n: the other view is the only neighbor.

    conditional: P_{j|i} = 1 for j = i ± n, rows sum to 1.
    joint: P_ij = 1/(2n), the whole sums to 1.
    `ValueError`: n < 1 or an unknown normalization. Source: arXiv 2205.14814.
    """
    checks.check_whole("n", n, 1)
    checks.check_settings(normalization=normalization)
    pairs = torch.eye(2 * n, dtype=torch.float64).roll(n, 0)
    return pairs if normalization == "conditional" else pairs / (2 * n)


def one_view(
    log_a: Float[Tensor, "n n"], *, normalization: Normalization = "conditional"
) -> Float[Tensor, "n n"]:
    """P_{j|i} = a(x_j | x_i) / Σ_{k≠i} a(x_k | x_i): points x_j ≠ x_i as views of the clean x_i.

    joint: (P_{j|i} + P_{i|j}) / (2n).
    `ValueError`: a point that has no other within reach (all of its densities zero).
    """
    log_a = arguments.log_densities(log_a)
    if log_a.shape[0] != log_a.shape[1]:
        rule = "of shape (n, n), the points as anchors and as views"
        raise ValueError(f"log_a must be {rule}, got {tuple(log_a.shape)}")
    return normalized(log_a, normalization)


def two_views(
    log_a: Float[Tensor, "n m"], *, normalization: Normalization = "joint"
) -> Float[Tensor, "m m"]:
    """P_ij ∝ Σ_k a(x_i | x̄_k) a(x_j | x̄_k), i ≠ j: points as two views of one of n equally likely
    anchors. With K_ik = a(x_i | x̄_k) that is K Kᵀ.

    joint: the whole sums to 1.  conditional: rows do.
    `ValueError`: a point that shares no anchor with another, an infinite density.
    """
    log_a = arguments.log_densities(log_a)
    checks.check_settings(normalization=normalization)
    if bool((log_a == math.inf).any()):
        found = "+inf where a view lies on an anchor: use one_view, or anchors that are no views"
        raise ValueError(f"log_a must hold no pole, got {found}")
    log_w = _log_shared_density(log_a)
    if normalization == "conditional":
        return normalized(log_w, normalization)
    log_w = without_diagonal(log_w)
    check_neighbors(log_w > -math.inf)
    return log_w.flatten().softmax(0).view_as(log_w)


def _log_shared_density(log_a: Float[Tensor, "n m"]) -> Float[Tensor, "m m"]:
    """log Σ_k a_ki a_kj.

    As a matrix product where that has all digits, in the log domain elsewhere: a point far from all
    others still has nearest ones.
    """
    largest = log_a.amax(0).nan_to_num(neginf=0.0)
    scaled = (log_a - largest).exp()
    product = scaled.T @ scaled
    log_w = product.log() + largest[:, None] + largest
    lost = (product < UNDERFLOW).triu().nonzero()
    for pairs in lost.split(max(1, PAIRS_AT_A_TIME // len(log_a))):
        i, j = pairs.T
        log_w[i, j] = log_w[j, i] = (log_a[:, i] + log_a[:, j]).logsumexp(0)
    return log_w
