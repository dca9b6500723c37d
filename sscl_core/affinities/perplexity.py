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

SMALLEST = 1e-290  # of a squared distance: its logarithm is taken
ROUNDING = 1e-12  # relative difference of squared distances that count as equal
TOLERANCE = 1e-13  # of the entropy
MOST_STEPS = 200
LARGEST_ENERGY = 1e3  # exp(-energy) is 0 from 746 on
ENTRIES = 2**17  # of the rows that are matched together: they stay in the cache
# A product of centred points has all digits but two of ‖x_i - x_j‖² where that is not smaller than
# this times ‖x_i‖² + ‖x_j‖².
CANCELLED = 1 / 32
MANY = 1 / 64  # of a block's distances: as many are not computed one by one


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
    cloud, n = _cloud(x), len(x)
    P = x.new_empty(n, n)
    for rows in torch.arange(n).split(math.ceil(ENTRIES / n)):
        P[rows] = _matched(_squared_to_others(cloud, rows), perplexity)
    return P if normalization == "conditional" else (P + P.T).div_(2 * n)


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
        parts.append(_matched(squared, perplexity))
    return torch.cat(parts)


def _truncation(
    x: Float[Tensor, "n d"],
    indices: Int64[Tensor, "n k"],
    P: Float[Tensor, "n k"],
    perplexity: float,
    checked: int,
) -> Float[Tensor, " rows"]:
    rows = torch.linspace(0, len(x) - 1, min(checked, len(x)), dtype=torch.float64)
    cloud, distances = _cloud(x), []
    for some in rows.round().long().split(16):
        dense = _matched(_squared_to_others(cloud, some), perplexity)
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


class _Cloud(NamedTuple):
    """Points, the same about their mean, and the squared norms of these."""

    x: Float[Tensor, "n d"]
    centered: Float[Tensor, "n d"]
    norms: Float[Tensor, " n"]


def _cloud(x: Float[Tensor, "n d"]) -> _Cloud:
    centered = x - x.mean(0)
    return _Cloud(x, centered, centered.square().sum(1))


def _squared_to_others(cloud: _Cloud, rows: Int64[Tensor, " r"]) -> Float[Tensor, "r n"]:
    """‖x_i - x_j‖² for i among `rows`, ∞ for j = i: no point is a neighbor of itself.

    By a product; those that lose digits by it are computed anew, as differences.
    """
    x, centered, norms = cloud
    own = (torch.arange(len(rows)), rows)
    scale = norms[rows, None] + norms
    squared = torch.addmm(scale, centered[rows], centered.T, alpha=-2)
    squared[own] = math.inf
    i, j = (squared < scale.mul_(CANCELLED)).nonzero().T
    if len(i) <= MANY * squared.numel():
        squared[i, j] = (x[rows[i]] - x[j]).square().sum(1)
        return squared
    squared = torch.cdist(x[rows], x, compute_mode="donot_use_mm_for_euclid_dist").square_()
    squared[own] = math.inf
    return squared


class _Rows(NamedTuple):
    """Rows of squared distances, from each of which its smallest is subtracted."""

    excess: Float[Tensor, "n k"]  # ∞ where no neighbor is possible
    nearest: Bool[Tensor, "n k"]  # at the smallest distance, up to rounding
    reachable: Bool[Tensor, "n 1"]  # fewer points than the perplexity are nearest


def _rows(squared: Float[Tensor, "n k"], perplexity: float) -> _Rows:
    smallest = squared.amin(1, keepdim=True)
    excess = squared - smallest
    nearest = excess <= (ROUNDING * smallest).clamp_min(SMALLEST)
    return _Rows(excess, nearest, nearest.sum(1, keepdim=True) < perplexity)


def _matched(squared: Float[Tensor, "n k"], perplexity: float) -> Float[Tensor, "n k"]:
    """P_ij = exp(-β_i squared_ij) / Σ_k exp(-β_i squared_ik), with β_i for the perplexity.

    Where no β_i reaches it, P is uniform over the nearest.
    """
    rows = _rows(squared, perplexity)
    P = _by_newton(rows, perplexity)
    if bool(rows.reachable.all()):
        return P
    uniform = rows.nearest / rows.nearest.sum(1, keepdim=True, dtype=torch.float64)
    return torch.where(rows.reachable, P, uniform)


def _by_newton(rows: _Rows, perplexity: float) -> Float[Tensor, "n k"]:
    """P, by Newton steps on log β that stay inside a bracket."""
    target = math.log(perplexity)
    low, high = _bracket(rows, target)
    log_beta = _first_guess(rows, perplexity).maximum(low).minimum(high)
    for _ in range(MOST_STEPS):
        row = _at(log_beta, rows.excess)
        error = (row.entropy - target).where(rows.reachable, 0.0)
        if bool((error.abs() < TOLERANCE).all()):
            break
        low = torch.where(error > 0, log_beta, low)
        high = torch.where(error < 0, log_beta, high)
        newton = log_beta + error / row.variance  # d entropy / d log β = -variance
        inside = (newton >= low) & (newton <= high)
        log_beta = torch.where(inside, newton, (low + high) / 2)
    return row.weights.div_(row.total)


def _bracket(rows: _Rows, target: float) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
    """Two log β between which the entropy, which falls with β, is `target`.

    It is at least log k - β · (largest excess), which is `target` at the lower end. At the upper
    end all mass lies on the nearest.
    """
    possible = rows.excess < math.inf
    most = possible.sum(1, keepdim=True).double().log()
    largest = rows.excess.where(possible, 0.0).amax(1, keepdim=True).clamp_min(SMALLEST)
    low = (most - target).log() - largest.log()
    second = rows.excess.masked_fill(rows.nearest, math.inf).amin(1, keepdim=True)
    high = 5.0 - second.log()
    return low.where(rows.reachable, 0.0), high.where(rows.reachable, 0.0)


def _first_guess(rows: _Rows, perplexity: float) -> Float[Tensor, "n 1"]:
    """log β = 1 - log of the excess of the neighbor whose rank is the perplexity: of about that
    rank, for large ones, as seen in every few columns."""
    rank = math.ceil(perplexity)
    step = max(1, rank // 8)
    typical = rows.excess[:, ::step].kthvalue(rank // step, 1, keepdim=True).values
    return 1 - typical.clamp_min(SMALLEST).log()


class _AtBeta(NamedTuple):
    """Of the energies β · excess: the weights exp(-energy) and their sum; the entropy of P, and the
    variance of the energies under P."""

    weights: Float[Tensor, "n k"]
    total: Float[Tensor, "n 1"]
    entropy: Float[Tensor, "n 1"]
    variance: Float[Tensor, "n 1"]


def _at(log_beta: Float[Tensor, "n 1"], excess: Float[Tensor, "n k"]) -> _AtBeta:
    """The entropy is the mean energy + log Σ_j exp(-energy_j), and the smallest energy is 0."""
    energy = (log_beta.exp() * excess).clamp_max_(LARGEST_ENERGY)
    weights = energy.neg().exp_()
    total = weights.sum(1, keepdim=True)
    weighted = weights * energy
    mean = weighted.sum(1, keepdim=True) / total
    square = weighted.mul_(energy).sum(1, keepdim=True) / total
    return _AtBeta(weights, total, mean + total.log(), square - mean.square())
