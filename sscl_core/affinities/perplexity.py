"""P whose rows have a given perplexity: SNE's and t-SNE's, dense, and sparse for many points."""

import math
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int64
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from sscl_core import checks
from sscl_core.checks import Normalization

from . import arguments
from .normalization import normalized

SMALLEST = 1e-290  # of a squared distance: its logarithm is taken
ROUNDING = 1e-12  # relative difference of squared distances that count as equal
TOLERANCE = 1e-13  # of the entropy
MOST_STEPS = 200


def perplexity_matched(
    x: Float[Tensor, "n d"],
    *,
    perplexity: checks.Scalar = 30.0,
    normalization: Normalization = "conditional",
) -> Float[Tensor, "n n"]:
    """conditional (SNE): P_{j|i} ∝ exp(-β_i ‖x_i - x_j‖²), j ≠ i.  joint (t-SNE): P_ij =
    (P_{j|i} + P_{i|j}) / (2n).  β_i is such that exp(-Σ_j P_{j|i} log P_{j|i}) = perplexity.

    Where more points than `perplexity` are nearest to x_i at one distance (duplicates of it), no
    β_i reaches the perplexity: P_{·|i} is then its limit, uniform over them.
    `ValueError`: perplexity not in (1, n-1).
    Source: Hinton & Roweis 2002; van der Maaten & Hinton 2008.
    """
    x = arguments.points("x", x)
    checks.check_settings(normalization=normalization)
    perplexity = arguments.perplexity_below(len(x) - 1, perplexity)
    rows = torch.arange(len(x)).split(64)
    log_p = [_log_matched(_squared_to_others(x, some), perplexity) for some in rows]
    return normalized(torch.cat(log_p), normalization)


class SparseAffinity(NamedTuple):
    """P (n, n) and, for some of its rows, how far they are from the dense ones: the total variation
    distance ½ Σ_j |P_ij - P^dense_ij|."""

    P: scipy.sparse.csr_array
    truncation: Float[Tensor, " rows"]


def sparse_perplexity_matched(
    x: Float[Tensor, "n d"],
    *,
    perplexity: checks.Scalar = 30.0,
    normalization: Normalization = "conditional",
    neighbors: int | None = None,
    checked: int = 100,
) -> SparseAffinity:
    """`perplexity_matched` in which only the k = `neighbors` nearest points are neighbors.

    They are exact, three times the perplexity by default, and take n·k memory. The truncation error
    is computed, before symmetrisation, on `checked` rows at equal steps through x.
    `ValueError`: neighbors not in 2..n-1, perplexity not in (1, neighbors), checked negative.
    """
    x = arguments.points("x", x)
    checks.check_settings(normalization=normalization)
    perplexity = arguments.perplexity_below(len(x) - 1, perplexity)
    k = _count_of_neighbors(neighbors, perplexity, len(x))
    arguments.perplexity_below(k, perplexity)
    checks.check_whole("checked", checked, 0)
    x = x - x.mean(0)
    search = NearestNeighbors(n_neighbors=k).fit(x.numpy())
    indices = torch.from_numpy(search.kneighbors(return_distance=False))
    P = _of_neighbors(x, indices, perplexity)
    truncation = _truncation(x, indices, P, perplexity, checked)
    return SparseAffinity(_sparse(P, indices, normalization), truncation)


def _count_of_neighbors(neighbors: int | None, perplexity: float, n: int) -> int:
    if neighbors is None:
        return min(math.ceil(3 * perplexity), n - 1)
    checks.check_whole("neighbors", neighbors)
    if not 2 <= neighbors <= n - 1:
        raise ValueError(f"neighbors must be in 2..{n - 1} for {n} points, got {neighbors}")
    return neighbors


def _of_neighbors(
    x: Float[Tensor, "n d"], indices: Int64[Tensor, "n k"], perplexity: float
) -> Float[Tensor, "n k"]:
    """P of the neighbors of each point. Their distances are computed anew, as differences: those of
    the search may come from a matrix of inner products."""
    parts = []
    for rows, near in zip(x.split(1024), indices.split(1024), strict=True):
        squared = (rows[:, None] - x[near]).square().sum(2)
        parts.append(_log_matched(squared, perplexity).exp())
    return torch.cat(parts)


def _truncation(
    x: Float[Tensor, "n d"],
    indices: Int64[Tensor, "n k"],
    P: Float[Tensor, "n k"],
    perplexity: float,
    checked: int,
) -> Float[Tensor, " rows"]:
    rows = torch.linspace(0, len(x) - 1, min(checked, len(x)), dtype=torch.float64)
    distances = []
    for some in rows.round().long().split(16):
        dense = _log_matched(_squared_to_others(x, some), perplexity).exp()
        difference = dense.scatter_add(1, indices[some], -P[some])
        distances.append(difference.abs().sum(1) / 2)
    return torch.cat(distances)


def _sparse(
    P: Float[Tensor, "n k"], indices: Int64[Tensor, "n k"], normalization: str
) -> scipy.sparse.csr_array:
    n, k = P.shape
    starts = np.arange(0, P.numel() + 1, k)
    columns = indices.flatten().numpy().astype(np.int32)
    sparse = scipy.sparse.csr_array((P.flatten().numpy(), columns, starts), shape=(n, n))
    if normalization == "joint":
        sparse = (sparse + sparse.T).tocsr() / (2 * n)
    sparse.sort_indices()
    return sparse


def _squared_to_others(x: Float[Tensor, "n d"], rows: Int64[Tensor, " r"]) -> Float[Tensor, "r n"]:
    """‖x_i - x_j‖² for i among `rows`, ∞ for j = i: no point is a neighbor of itself."""
    squared = torch.cdist(x[rows], x, compute_mode="donot_use_mm_for_euclid_dist").square()
    own = (torch.arange(len(rows)), rows)
    return squared.index_put(own, torch.tensor(math.inf, dtype=torch.float64))


class _Rows(NamedTuple):
    """Rows of squared distances, from each of which its smallest is subtracted."""

    excess: Float[Tensor, "n k"]  # ∞ where no neighbor is possible
    finite: Float[Tensor, "n k"]  # the same with 0 for ∞
    possible: Bool[Tensor, "n k"]
    nearest: Bool[Tensor, "n k"]  # at the smallest distance, up to rounding
    reachable: Bool[Tensor, "n 1"]  # fewer points than the perplexity are nearest


def _rows(squared: Float[Tensor, "n k"], perplexity: float) -> _Rows:
    possible = squared.isfinite()
    excess = squared - squared.amin(1, keepdim=True)
    rounding = (ROUNDING * squared).where(possible, 0.0).clamp_min(SMALLEST)
    nearest = excess <= rounding
    reachable = nearest.sum(1, keepdim=True) < perplexity
    return _Rows(excess, excess.where(possible, 0.0), possible, nearest, reachable)


def _log_matched(squared: Float[Tensor, "n k"], perplexity: float) -> Float[Tensor, "n k"]:
    """log P_ij = -β_i squared_ij - log Σ_k exp(-β_i squared_ik), with β_i for the perplexity.

    Where no β_i reaches it, P is uniform over the nearest.
    """
    rows = _rows(squared, perplexity)
    log_p = _by_newton(rows, perplexity)
    ties = rows.nearest.sum(1, keepdim=True)
    uniform = torch.where(rows.nearest, -ties.double().log(), -math.inf)
    return torch.where(rows.reachable, log_p, uniform)


def _by_newton(rows: _Rows, perplexity: float) -> Float[Tensor, "n k"]:
    """log P, by Newton steps on log β that stay inside a bracket."""
    target = math.log(perplexity)
    low, high = _bracket(rows, target)
    log_beta = _first_guess(rows, perplexity).maximum(low).minimum(high)
    for _ in range(MOST_STEPS - 1):
        row = _at(log_beta, rows)
        error = (row.entropy - target).where(rows.reachable, 0.0)
        if bool((error.abs() < TOLERANCE).all()):
            return row.log_p
        low = torch.where(error > 0, log_beta, low)
        high = torch.where(error < 0, log_beta, high)
        newton = log_beta + error / row.variance  # d entropy / d log β = -variance
        inside = (newton >= low) & (newton <= high)
        log_beta = torch.where(inside, newton, (low + high) / 2)
    return _at(log_beta, rows).log_p


def _bracket(rows: _Rows, target: float) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
    """Two log β between which the entropy, which falls with β, is `target`.

    It is at least log k - β · (largest excess), which is `target` at the lower end. At the upper
    end all mass lies on the nearest.
    """
    most = rows.possible.sum(1, keepdim=True).double().log()
    largest = rows.finite.amax(1, keepdim=True).clamp_min(SMALLEST)
    low = (most - target).log() - largest.log()
    second = rows.excess.where(~rows.nearest, math.inf).amin(1, keepdim=True)
    high = 5.0 - second.log()
    return low.where(rows.reachable, 0.0), high.where(rows.reachable, 0.0)


def _first_guess(rows: _Rows, perplexity: float) -> Float[Tensor, "n 1"]:
    """log β = 1 - log of the excess of the neighbor whose rank is the perplexity."""
    rank = math.ceil(perplexity)
    typical = rows.excess.kthvalue(rank, 1, keepdim=True).values
    return 1 - typical.clamp_min(SMALLEST).log()


class _AtBeta(NamedTuple):
    """P at some β, its entropy, and the variance under P of the energies β · excess."""

    log_p: Float[Tensor, "n k"]
    entropy: Float[Tensor, "n 1"]
    variance: Float[Tensor, "n 1"]


def _at(log_beta: Float[Tensor, "n 1"], rows: _Rows) -> _AtBeta:
    """The entropy is the mean energy + log Σ_j exp(-energy_j), and the smallest energy is 0."""
    beta = log_beta.exp()
    log_p = (-beta * rows.excess).log_softmax(1)
    p, energy = log_p.exp(), beta * rows.finite
    mean = (p * energy).sum(1, keepdim=True)
    variance = (p * (energy - mean).square()).sum(1, keepdim=True)
    return _AtBeta(log_p, mean - log_p.amax(1, keepdim=True), variance)
