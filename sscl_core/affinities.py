"""Who is a neighbor of whom: the P that an augmentation specifies, in float64.

Perplexity: `perplexity_matched` (SNE, t-SNE), and `sparse_perplexity_matched` for many points.
Densities: `log_noise`, `log_mixup`, `log_masking`, `log_corruption` give log a(x'_j | x_i), rows anchors and columns views, from which
`one_view` (a clean anchor and a view of it) or `two_views` (two views of an anchor) make P.
Masses: `noise_masses`, `mixup_masses` exactly, and `empirical_masses` by Monte Carlo from any augmentation, give the probability A_ij
that a view of anchor i falls into cell j; `spectrum` decomposes the augmentation graph Aᵀ A.

Errors, the same for every function here: `TypeError` for what is no tensor, or none of floating-point numbers where a distance is taken;
`ValueError` for points that are not finite or not of shape (n, d), and for settings out of range, which each function names.
Numbers are real ones of any kind (Python's, NumPy's, fractions) or tensors of one element; counts are
whole numbers. `TypeError` for what is none.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from scipy.sparse.linalg import svds
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from . import checks

Normalization = Literal["joint", "conditional"]
Kind = Literal["gaussian", "laplace", "uniform"]


def positive_pairs(n: int, *, normalization: Normalization = "conditional") -> Float[Tensor, "N N"]:
    """The P of a contrastive batch Z = [z1; z2], N = 2n: the other view is the only neighbor.

    conditional: P_{j|i} = 1 for j = i ± n, rows sum to 1.  joint: P_ij = 1/(2n), the whole sums to 1.
    `ValueError`: n < 1 or an unknown normalization. Source: arXiv 2205.14814.
    """
    checks.check_whole("n", n, 1)
    _require_normalization(normalization)
    pairs = torch.eye(2 * n, dtype=torch.float64).roll(n, 0)
    return pairs if normalization == "conditional" else pairs / (2 * n)


def perplexity_matched(
    x: Float[Tensor, "n d"],
    *,
    perplexity: checks.Scalar = 30.0,
    normalization: Normalization = "conditional",
) -> Float[Tensor, "n n"]:
    """conditional (SNE):  P_{j|i} ∝ exp(-β_i ‖x_i - x_j‖²), j ≠ i, β_i such that exp(-Σ_j P_{j|i} log P_{j|i}) = perplexity.
    joint (t-SNE):  P_ij = (P_{j|i} + P_{i|j}) / (2n).

    Where more points than `perplexity` are nearest to x_i at one distance (duplicates of it), no β_i reaches the perplexity: P_{·|i} is
    then its limit, uniform over them. `ValueError`: perplexity not in (1, n-1).
    Source: Hinton & Roweis 2002; van der Maaten & Hinton 2008.
    """
    x = _points("x", x)
    _require_normalization(normalization)
    perplexity = _require_perplexity(perplexity, len(x) - 1)
    rows = torch.arange(len(x)).split(64)
    return _normalized(
        torch.cat(
            [_log_perplexity_matched(_squared_to_others(x, some), perplexity) for some in rows]
        ),
        normalization,
    )


class SparseAffinity(NamedTuple):
    """P (n, n) and, for some of its rows, how far they are from the dense ones: the total variation distance ½ Σ_j |P_ij - P^dense_ij|."""

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
    """`perplexity_matched` with the exact `neighbors` nearest points (by default three times the perplexity) as the only ones: n·k memory.

    The truncation error is computed, before symmetrisation, on `checked` rows spread evenly over x. `ValueError`: neighbors not in 2..n-1,
    perplexity not in (1, neighbors), checked negative.
    """
    x = _points("x", x)
    _require_normalization(normalization)
    perplexity = _require_perplexity(perplexity, len(x) - 1)
    if neighbors is not None:
        checks.check_whole("neighbors", neighbors)
    k = min(math.ceil(3 * perplexity), len(x) - 1) if neighbors is None else neighbors
    if not 2 <= k <= len(x) - 1:
        raise ValueError(f"neighbors must be in 2..{len(x) - 1} for {len(x)} points, got {k}")
    _require_perplexity(perplexity, k)
    checks.check_whole("checked", checked, 0)
    x = x - x.mean(0)
    indices = torch.from_numpy(
        NearestNeighbors(n_neighbors=k).fit(x.numpy()).kneighbors(return_distance=False)
    )
    # Distances anew, as differences: those of the search may come from a Gram matrix.
    chunks = zip(x.split(1024), indices.split(1024), strict=True)
    P = torch.cat(
        [
            _log_perplexity_matched((rows[:, None] - x[near]).square().sum(2), perplexity).exp()
            for rows, near in chunks
        ]
    )

    truncation = []
    for some in (
        torch.linspace(0, len(x) - 1, min(checked, len(x)), dtype=torch.float64)
        .round()
        .long()
        .split(16)
    ):
        dense = _log_perplexity_matched(_squared_to_others(x, some), perplexity).exp()
        truncation.append(dense.scatter_add(1, indices[some], -P[some]).abs().sum(1) / 2)

    starts = np.arange(0, P.numel() + 1, k)
    sparse = scipy.sparse.csr_array(
        (P.flatten().numpy(), indices.flatten().numpy().astype(np.int32), starts),
        shape=(len(x), len(x)),
    )
    if normalization == "joint":
        sparse = (sparse + sparse.T).tocsr() / (2 * len(x))
    sparse.sort_indices()
    return SparseAffinity(sparse, torch.cat(truncation))


def log_noise(
    anchors: Float[Tensor, "n d"],
    views: Float[Tensor, "m d"],
    *,
    scale: checks.Scalar,
    kind: Kind = "gaussian",
    twice: bool = False,
) -> Float[Tensor, "n m"]:
    """log φ(x'_j - x_i) for additive noise δ ~ φ with independent coordinates of standard deviation `scale`; `twice`: log (φ*φ).

    gaussian: φ falls with ‖δ‖₂;  laplace: with ‖δ‖₁;  uniform: constant on the cube ‖δ‖_∞ ≤ √3·scale, 0 outside.
    φ*φ is the density of the difference of two views of an anchor, and their P where anchors have a flat density.
    `ValueError`: scale not positive and finite, an unknown kind. Source: claim C3.
    """
    anchors, views = _points("anchors", anchors), _points("views", views, like=anchors)
    scale = _require_positive("scale", scale)
    one_coordinate = _noise_1d(kind, scale, twice)
    total = torch.zeros(len(anchors), len(views), dtype=torch.float64)
    for a, v in zip(anchors.T, views.T, strict=True):
        total += one_coordinate(v[None] - a[:, None])
    return total


def log_mixup(
    anchors: Float[Tensor, "n d"],
    views: Float[Tensor, "m d"],
    *,
    means: Float[Tensor, "c d"],
    std: checks.Scalar,
    strength: checks.Scalar,
    weights: Float[Tensor, " c"] | None = None,
) -> Float[Tensor, "n m"]:
    """log p(x'|x_i) for mixup with a Gaussian mixture,  x' = x_i + λ(x - x_i),  x ~ Σ_c π_c N(μ_c, std² I),  λ ~ U(0, strength):

    p(x'|x_i) = 1/strength ∫ Σ_c π_c N(x'; (1-λ)x_i + λμ_c, λ²std² I) dλ.

    With t = 1/λ and r = x' - x_i, v = μ_c - x_i the integrand is t^(d-2) exp(-‖t r - v‖²/(2 std²)) on t ≥ 1/strength: one smooth bump, on
    which quadrature is exact to about 1e-11. +∞ at x' = x_i, where the density has its pole.
    `ValueError`: std not positive, strength not in (0, 1], weights not probabilities. Source: claim C4.
    """
    anchors = _points("anchors", anchors)
    views, means = _points("views", views, like=anchors), _points("means", means, like=anchors)
    std = _require_positive("std", std)
    strength = _require_strength(strength)
    d, uniform = anchors.shape[1], torch.full((len(means),), 1 / len(means), dtype=torch.float64)
    pi = uniform if weights is None else torch.as_tensor(weights, dtype=torch.float64)
    if (
        pi.shape != uniform.shape or not bool((pi >= 0).all()) or abs(pi.sum() - 1) > 1e-6
    ):  # float32 sums to 1 so far
        raise ValueError(f"weights must be {len(means)} probabilities that sum to 1, got {weights}")
    terms = []
    for log_weight, mean in zip((pi / pi.sum()).log(), means, strict=True):
        rr, along, across = map(
            torch.stack, zip(*(_relative_to(views - a, mean - a) for a in anchors), strict=True)
        )
        terms.append(log_weight + _log_inverse_moment(rr, along, across, std, d, 1 / strength))
    log_p = (
        torch.stack(terms).logsumexp(0)
        - math.log(strength)
        - d / 2 * math.log(2 * math.pi * std**2)
    )
    return log_p.masked_fill(rr == 0, math.inf)


def log_masking(
    anchors: Shaped[Tensor, "n d"],
    views: Shaped[Tensor, "m d"],
    *,
    rate: checks.Scalar,
    mask: checks.Scalar = 0.0,
) -> Float[Tensor, "n m"]:
    """log Π_d [ (1-rate)·1(x'_d = x_d) + rate·1(x'_d = mask) ]: every column is replaced by `mask` independently with probability `rate`.

    `ValueError`: rate not in (0, 1), mask not finite.
    """
    value = _number("mask", mask)
    if not math.isfinite(value):
        raise ValueError(f"mask must be a finite number, got {mask}")
    return _log_by_column(anchors, views, rate, lambda column: (column == value).double())


def log_corruption(
    anchors: Shaped[Tensor, "n d"],
    views: Shaped[Tensor, "m d"],
    *,
    rate: checks.Scalar,
    table: Shaped[Tensor, "k d"] | None = None,
) -> Float[Tensor, "n m"]:
    """log Π_d [ (1-rate)·1(x'_d = x_d) + rate·p_d(x'_d) ]: every column is resampled independently with probability `rate` from its
    marginal p_d, the frequencies in `table` (by default in `anchors`).

    `ValueError`: rate not in (0, 1). Source: SCARF (Bahri et al. 2022), which resamples a fixed number of columns instead.
    """
    _points("anchors", anchors, distances=False)
    if table is not None:
        _points("table", table, like=anchors, distances=False)
    columns = iter((anchors if table is None else table).T)
    return _log_by_column(
        anchors,
        views,
        rate,
        lambda column: (column[:, None] == next(columns)[None]).double().mean(1),
    )


def one_view(
    log_a: Float[Tensor, "n n"], *, normalization: Normalization = "conditional"
) -> Float[Tensor, "n n"]:
    """P_{j|i} = a(x_j | x_i) / Σ_{k≠i} a(x_k | x_i): points x_j ≠ x_i as views of the clean anchor x_i;  joint: (P_{j|i} + P_{i|j}) / (2n).

    `ValueError`: a point that has no other within reach (all of its densities zero).
    """
    log_a = _log_densities(log_a)
    if log_a.shape[0] != log_a.shape[1]:
        raise ValueError(
            f"log_a must be of shape (n, n), the points as anchors and as views, got {tuple(log_a.shape)}"
        )
    return _normalized(log_a.clone(), normalization)


def two_views(
    log_a: Float[Tensor, "n m"], *, normalization: Normalization = "joint"
) -> Float[Tensor, "m m"]:
    """P_ij ∝ Σ_k a(x_i | x̄_k) a(x_j | x̄_k), i ≠ j: points as two views of one of n equally likely anchors; K Kᵀ with K_ik = a(x_i | x̄_k).

    joint: the whole sums to 1;  conditional: rows do. `ValueError`: a point that shares no anchor with another, an infinite density.
    """
    log_a = _log_densities(log_a)
    _require_normalization(normalization)
    if bool((log_a == math.inf).any()):
        raise ValueError(
            "log_a must hold no pole, got +inf where a view lies on an anchor: use one_view, or anchors that are no views"
        )
    top = log_a.amax(0).nan_to_num(neginf=0.0)
    scaled = (log_a - top).exp()
    gram = scaled.T @ scaled
    log_w = gram.log() + top[:, None] + top
    # What underflows in the product is summed in the log domain: a point far from all others still has nearest ones.
    lost = (gram < 1e-290).triu().nonzero()
    for pairs in lost.split(max(1, 10_000_000 // len(log_a))):
        i, j = pairs.T
        log_w[i, j] = log_w[j, i] = (log_a[:, i] + log_a[:, j]).logsumexp(0)
    if normalization == "conditional":
        return _normalized(log_w, normalization)
    log_w.fill_diagonal_(-math.inf)
    _require_neighbors(log_w > -math.inf)
    return log_w.flatten().softmax(0).view_as(log_w)


def noise_masses(
    anchors: Float[Tensor, "n d"],
    edges: Sequence[Sequence[float]],
    *,
    scale: checks.Scalar,
    kind: Kind = "gaussian",
) -> Float[Tensor, "n m"]:
    """A_ij = P(x_i + δ in box j), δ as in `log_noise`: the product over coordinates of Φ(upper - x) - Φ(lower - x).

    The boxes, `box_cells(edges)`, are cut at `edges[k]`, ascending, along coordinate k, the outer ones without end; the last coordinate
    runs fastest. `ValueError`: scale not positive, edges that are not one ascending list a coordinate.
    """
    anchors = _points("anchors", anchors)
    scale = _require_positive("scale", scale)
    cdf, masses = _noise_cdf(kind, scale), torch.ones(len(anchors), 1, dtype=torch.float64)
    for x, cuts in zip(anchors.T, _edges(edges, anchors.shape[1]), strict=True):
        infinity = torch.tensor([math.inf], dtype=torch.float64)
        ends = torch.cat([-infinity, cuts, infinity]) - x[:, None]
        lower, upper = ends[:, :-1], ends[:, 1:]
        mass = torch.where(
            lower > 0, cdf(-lower) - cdf(-upper), cdf(upper) - cdf(lower)
        )  # of both tails the small one
        masses = (masses[:, :, None] * mass[:, None]).flatten(1)
    return masses


def mixup_masses(
    anchors: Float[Tensor, "n d"], centers: Float[Tensor, "m d"], *, strength: checks.Scalar
) -> Float[Tensor, "n m"]:
    """A_ic = P(x_i + λ(x_j - x_i) is nearest to centers[c]),  λ ~ U(0, strength),  partner j ≠ i uniform among the anchors. Exact.

    On a finite set views lie on segments and have no density. Along a segment ‖x' - c‖² is, but for what is common to all c, linear in λ: a
    segment is followed from cell to cell along the lower envelope of these lines, n² segments and as many steps as one crosses cells.
    `ValueError`: strength not in (0, 1], n < 2.
    """
    anchors = _points("anchors", anchors)
    centers = _points("centers", centers, like=anchors)
    strength = _require_strength(strength)
    if len(anchors) < 2:
        raise ValueError("anchors must be at least 2 points, got 1: mixup needs a partner")
    origin = anchors.mean(0)
    anchors, centers = anchors - origin, centers - origin
    height = torch.cdist(anchors, centers, compute_mode="donot_use_mm_for_euclid_dist").square()
    projected = torch.zeros_like(height)
    for a, c in zip(
        anchors.T, centers.T, strict=True
    ):  # no matrix product: equal centers must give equal bits, or they share at random
        projected += a[:, None] * c
    masses = torch.zeros(len(anchors), len(centers), dtype=torch.float64)
    for i in range(len(anchors)):
        partners = torch.arange(len(anchors)) != i
        slope = 2 * (
            projected[i] - projected[partners]
        )  # of ‖x' - c‖² - λ²‖x_j - x_i‖² - …, up to a constant of each segment
        for cell, length in _envelope(height[i], slope, strength):
            masses[i].index_add_(0, cell, length)
    return masses / (strength * (len(anchors) - 1))


def empirical_masses(
    augment: Callable[[Tensor], Tensor],
    anchors: Shaped[Tensor, "n ..."],
    cells: Callable[[Tensor], Tensor],
    n_cells: int,
    *,
    draws: int = 1000,
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """A_ij, the share of `draws` views of anchor i that fall into cell j, and its standard error √(A(1-A)/draws).

    `augment` makes one random view of each row, of the same shape; `cells` gives the cell of each row, in 0..n_cells-1:
    `nearest_cells(centers)`, `box_cells(edges)`, or a partition of your own. Randomness is the callable's, or torch's global generator.
    `ValueError`: draws < 2, views of another shape, cells out of range.
    """
    if not isinstance(anchors, Tensor):
        raise TypeError(
            f"anchors must be a tensor, a view of each row of which is drawn, got {type(anchors).__name__}"
        )
    checks.check_whole("draws", draws, 2)
    checks.check_whole("n_cells", n_cells, 1)
    counts, rows = (
        torch.zeros(len(anchors), n_cells, dtype=torch.float64),
        torch.arange(len(anchors)),
    )
    for _ in range(draws):
        views = augment(anchors)
        if not isinstance(views, Tensor):
            raise TypeError(
                f"augment must give a tensor, one view a row, got {type(views).__name__}"
            )
        if views.shape != anchors.shape:
            raise ValueError(
                f"augment must keep the shape {tuple(anchors.shape)}, one view a row, got {tuple(views.shape)}"
            )
        cell = cells(views)
        if not isinstance(cell, Tensor) or cell.is_floating_point():
            raise TypeError(
                f"cells must give a tensor of whole numbers, got {cell.dtype if isinstance(cell, Tensor) else type(cell).__name__}"
            )
        if cell.shape != rows.shape or not bool(((cell >= 0) & (cell < n_cells)).all()):
            raise ValueError(
                f"cells must give a number in 0..{n_cells - 1} (n_cells - 1) for each of {len(rows)} views, got shape {tuple(cell.shape)}, "
                f"numbers {cell.min()} to {cell.max()}: raise n_cells, or correct cells"
            )
        counts[rows, cell] += 1
    masses = counts / draws
    return masses, (masses * (1 - masses) / draws).sqrt()


def nearest_cells(centers: Float[Tensor, "m d"]) -> Callable[[Tensor], Int64[Tensor, " n"]]:
    """The cells of `centers`: every (flattened) row belongs to its nearest, of equally near ones to the first."""
    centers = _points("centers", centers)
    return lambda x: torch.cdist(
        x.flatten(1).double().cpu(), centers, compute_mode="donot_use_mm_for_euclid_dist"
    ).argmin(1)


def box_cells(edges: Sequence[Sequence[float]]) -> Callable[[Tensor], Int64[Tensor, " n"]]:
    """The boxes of `noise_masses`; an edge belongs to the box below it."""

    def cells(x: Tensor) -> Tensor:
        number = torch.zeros(len(x), dtype=torch.int64)
        for column, cuts in zip(x.T, _edges(edges, x.shape[1]), strict=True):
            number = number * (len(cuts) + 1) + torch.bucketize(column.double().contiguous(), cuts)
        return number

    return cells


def spectrum(A: Any, k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "m k"]]:
    """The k largest eigenvalues, descending, and eigenvectors of the normalised augmentation graph D^(-1/2) W D^(-1/2),  W = Aᵀ A / n.

    W_jl is the probability that two views of one anchor fall into cells j and l, D its row sums. The first pair is 1 and √D. Computed as
    the singular vectors of A D^(-1/2) / √n; A is a tensor, an array or a sparse array. Cells out of reach have eigenvector entries 0.
    `ValueError`: A with negative entries or rows that do not sum to 1, k not in 1..min(n, m) - 1.
    Source: HaoChen et al. 2021.
    """
    A = scipy.sparse.csr_array(
        A.numpy(force=True) if isinstance(A, Tensor) else A, dtype=np.float64
    )
    if (A.data < 0).any() or not np.allclose(A.sum(1), 1):
        raise ValueError(
            "A must hold probabilities, rows that sum to 1, got some that do not: pass masses of cells"
        )
    checks.check_whole("k", k)
    if not 1 <= k < min(A.shape):
        raise ValueError(f"k must be in 1..{min(A.shape) - 1} for A of shape {A.shape}, got {k}")
    mass = A.mean(0)
    scale = np.where(mass > 0, mass, 1) ** -0.5
    _, values, vectors = svds(
        A * scale / A.shape[0] ** 0.5,
        k=k,
        v0=np.random.default_rng(0).standard_normal(min(A.shape)),
    )
    order = np.argsort(-values)
    signs = np.sign(vectors.sum(1) + 1e-300)  # of no meaning, but the same every time
    return torch.from_numpy(values[order] ** 2), torch.from_numpy(
        (signs[:, None] * vectors * (mass > 0))[order].T.copy()
    )


def _normalized(log_p: Float[Tensor, "n n"], normalization: str) -> Float[Tensor, "n n"]:
    """Rows off the diagonal to sum 1; joint: then (P + Pᵀ)/(2n). Infinite densities share their row evenly."""
    _require_normalization(normalization)
    log_p.fill_diagonal_(-math.inf)
    _require_neighbors(log_p > -math.inf)
    poles = (log_p == math.inf).any(1, keepdim=True)
    log_p = torch.where(poles, torch.where(log_p == math.inf, 0.0, -math.inf), log_p)
    P = log_p.softmax(1)
    return P if normalization == "conditional" else (P + P.T) / (2 * len(P))


def _squared_to_others(x: Float[Tensor, "n d"], rows: Int64[Tensor, " r"]) -> Float[Tensor, "r n"]:
    """‖x_i - x_j‖² for i among `rows`, ∞ for j = i: no neighbor of itself."""
    squared = torch.cdist(x[rows], x, compute_mode="donot_use_mm_for_euclid_dist").square()
    return squared.index_put(
        (torch.arange(len(rows)), rows), torch.tensor(math.inf, dtype=torch.float64)
    )


def _log_perplexity_matched(
    squared: Float[Tensor, "n k"], perplexity: float
) -> Float[Tensor, "n k"]:
    """log P ∝ -β_i squared_ij, by Newton steps on log β inside a bracket. The entropy falls with β: it is at least log k - β·(range of
    squared), so reached above the lower end, and at the upper one all mass lies on the nearest (those equal to it up to rounding)."""
    possible = squared.isfinite()
    excess = squared - squared.amin(1, keepdim=True)
    finite, target = excess.where(possible, 0.0), math.log(perplexity)
    nearest = excess <= (1e-12 * squared).where(possible, 0.0).clamp_min(1e-290)
    count = nearest.sum(1, keepdim=True)
    reachable = count < perplexity
    log_entropy_left = (possible.sum(1, keepdim=True).double().log() - target).log()
    low = (log_entropy_left - finite.amax(1, keepdim=True).clamp_min(1e-290).log()).where(
        reachable, 0.0
    )
    high = (5.0 - excess.where(~nearest, math.inf).amin(1, keepdim=True).log()).where(
        reachable, 0.0
    )
    typical = excess.kthvalue(math.ceil(perplexity), 1, keepdim=True).values
    log_beta = (1 - typical.clamp_min(1e-290).log()).maximum(low).minimum(high)
    for _ in range(200):
        log_p = (-log_beta.exp() * excess).log_softmax(1)
        p, energy = log_p.exp(), log_beta.exp() * finite
        mean = (p * energy).sum(1, keepdim=True)
        error = (mean - log_p.amax(1, keepdim=True) - target).where(
            reachable, 0.0
        )  # the entropy is mean energy + log Σ_j exp(-energy_j)
        if bool((error.abs() < 1e-13).all()):
            break
        low, high = torch.where(error > 0, log_beta, low), torch.where(error < 0, log_beta, high)
        newton = log_beta + error / (p * (energy - mean).square()).sum(
            1, keepdim=True
        )  # d entropy / d log β = -Var(energy)
        log_beta = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
    return torch.where(reachable, log_p, torch.where(nearest, -count.double().log(), -math.inf))


def _noise_1d(kind: str, scale: float, twice: bool) -> Callable[[Tensor], Tensor]:
    """log φ of one coordinate, or log (φ*φ)."""
    if kind == "gaussian":
        std = scale * math.sqrt(2) if twice else scale
        return lambda t: -(t / std).square() / 2 - math.log(std * math.sqrt(2 * math.pi))
    if kind == "laplace":
        b = scale / math.sqrt(2)
        if twice:
            return lambda t: (t.abs() / b).log1p() - t.abs() / b - math.log(4 * b)
        return lambda t: -t.abs() / b - math.log(2 * b)
    if kind == "uniform":
        w = scale * math.sqrt(3)
        if twice:
            return lambda t: ((2 * w - t.abs()).clamp_min(0) / (4 * w**2)).log()
        return lambda t: torch.full_like(t, -math.log(2 * w)).where(t.abs() <= w, -math.inf)
    raise ValueError(f"kind must be 'gaussian', 'laplace' or 'uniform', got {kind!r}")


def _noise_cdf(kind: str, scale: float) -> Callable[[Tensor], Tensor]:
    if kind == "gaussian":
        return lambda t: torch.special.ndtr(t / scale)
    if kind == "laplace":
        b = scale / math.sqrt(2)
        return lambda t: torch.where(
            t < 0, (t.clamp_max(0) / b).exp() / 2, 1 - (-t.clamp_min(0) / b).exp() / 2
        )
    if kind == "uniform":
        w = scale * math.sqrt(3)
        return lambda t: ((t + w) / (2 * w)).clamp(0, 1)
    raise ValueError(f"kind must be 'gaussian', 'laplace' or 'uniform', got {kind!r}")


def _relative_to(
    r: Float[Tensor, "m d"], v: Float[Tensor, " d"]
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"], Float[Tensor, " m"]]:
    """‖r‖², and v in parts along and across r: t₀ = r·v/‖r‖², ‖v - t₀ r‖². Then ‖t r - v‖² = ‖r‖²(t - t₀)² + ‖v - t₀ r‖²."""
    rr = r.square().sum(1)
    along = r @ v / rr.where(rr > 0, 1.0)
    return rr, along, (v - along[:, None] * r).square().sum(1)


def _log_inverse_moment(
    rr: Tensor, along: Tensor, across: Tensor, std: float, d: int, start: float
) -> Float[Tensor, "n m"]:
    """log ∫_start^∞ t^(d-2) exp(-(rr (t - along)² + across) / (2 std²)) dt, by Gauss–Legendre in u = log t around the integrand's mode."""
    rr = rr.where(rr > 0, 1.0)  # the pole, which the caller fills in
    mode = ((along + (along.square() + 4 * (d - 1) * std**2 / rr).sqrt()) / 2).clamp_min(start)

    def g(u: Tensor) -> Tensor:  # log of the integrand at t = mode·e^u, against that at the mode
        step = mode * u.expm1()
        return (d - 1) * u - rr * step * (step + 2 * (mode - along)) / (2 * std**2)

    points, weights = np.polynomial.legendre.leggauss(32)
    total, unlimited = torch.zeros_like(mode), torch.full_like(mode, math.inf)
    for side, limit in ((-1, mode.log() - math.log(start)), (1, unlimited)):
        reach = torch.full_like(
            mode, 1e-15
        )  # doubled as far as the integrand is above e^-45 of its largest
        while bool((short := (g(side * reach) > -45) & (reach < limit)).any()):
            reach = torch.where(short, 2 * reach, reach)
        reach = reach.minimum(limit)
        for i, (point, weight) in itertools.product(range(8), zip(points, weights, strict=True)):
            total += weight / 16 * reach * g(side * reach * (i + (1 + point) / 2) / 8).exp()
    return (
        (d - 1) * mode.log() - (rr * (mode - along).square() + across) / (2 * std**2) + total.log()
    )


def _log_by_column(
    anchors: Tensor, views: Tensor, rate: checks.Scalar, replaced: Callable[[Tensor], Tensor]
) -> Float[Tensor, "n m"]:
    rate = _number("rate", rate)
    if not 0 < rate < 1:
        raise ValueError(f"rate must be in (0, 1), got {rate}")
    _points("anchors", anchors, distances=False)
    _points("views", views, like=anchors, distances=False)
    total = torch.zeros(len(anchors), len(views), dtype=torch.float64)
    for a, v in zip(anchors.T, views.T, strict=True):
        total += ((1 - rate) * (a[:, None] == v[None]).double() + rate * replaced(v)).log()
    return total


def _envelope(
    height: Float[Tensor, " m"], slope: Float[Tensor, "s m"], end: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each of s families of m lines height_c + λ slope_sc: which is lowest on which part of [0, end], as (cells, lengths) at a time."""
    rows = torch.arange(len(slope))
    lowest = height == height.amin()
    cell = slope.where(lowest, math.inf).argmin(1)
    place = torch.zeros(len(slope), dtype=torch.float64)
    while len(rows):
        fall = slope[rows, cell][:, None] - slope[rows]
        crossing = ((height - height[cell][:, None]) / fall).where(fall > 0, math.inf)
        crossing = torch.maximum(crossing, place[:, None])
        meet = crossing.amin(1)
        yield cell, meet.clamp_max(end) - place
        after = meet < end
        # Of the lines that meet there the steepest goes on.
        following = slope[rows].where(crossing <= meet[:, None], math.inf).argmin(1)
        rows, cell, place = rows[after], following[after], meet[after]


def _edges(edges: Sequence[Sequence[float]], d: int) -> list[Float[Tensor, " k"]]:
    cuts = [torch.as_tensor(e, dtype=torch.float64).reshape(-1) for e in edges]
    if len(cuts) != d or any(
        bool((c.diff() <= 0).any()) or not bool(c.isfinite().all()) for c in cuts
    ):
        raise ValueError(
            f"edges must be one ascending list of finite numbers for each of {d} coordinates, got {edges}"
        )
    return cuts


def _points(
    name: str, x: object, *, like: Tensor | None = None, distances: bool = True
) -> Float[Tensor, "n d"]:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of points (n, d), got {type(x).__name__}")
    if distances and not x.is_floating_point():
        raise TypeError(f"{name} must be floating-point, got {x.dtype}: pass {name}.double()")
    if x.ndim != 2 or 0 in x.shape or (like is not None and x.shape[1] != like.shape[1]):
        width = "d" if like is None else like.shape[1]
        raise ValueError(f"{name} must have shape (n, {width}), got {tuple(x.shape)}")
    if not bool(
        (x.abs() < 1e100).all() if distances else x.isfinite().all()
    ):  # beyond, squares overflow
        raise ValueError(
            f"{name} must be finite and below 1e100, got NaN, infinity or more: drop, fill in or rescale those rows first"
        )
    return x.detach().double().cpu()


def _log_densities(log_a: object) -> Float[Tensor, "n m"]:
    if not isinstance(log_a, Tensor):
        raise TypeError(f"log_a must be a tensor of log densities, got {type(log_a).__name__}")
    if log_a.ndim != 2 or 0 in log_a.shape:
        raise ValueError(
            f"log_a must have shape (n, m), anchors and views, got {tuple(log_a.shape)}"
        )
    if bool(log_a.isnan().any()):
        raise ValueError("log_a must hold log densities, got NaN: look for it in what made them")
    return log_a.detach().double().cpu()


def _require_normalization(normalization: str) -> None:
    if not isinstance(normalization, str) or normalization not in ("conditional", "joint"):
        raise ValueError(f"normalization must be 'conditional' or 'joint', got {normalization!r}")


def _number(name: str, value: checks.Scalar) -> float:
    checks.check_number(name, value)
    return checks.real(value)


def _require_perplexity(perplexity: checks.Scalar, k: int) -> float:
    number = _number("perplexity", perplexity)
    if not 1 < number < k:
        raise ValueError(
            f"perplexity must be in (1, {k}), of {k} possible neighbors, got {perplexity}: change it or give more neighbors"
        )
    return number


def _require_positive(name: str, value: checks.Scalar) -> float:
    number = _number(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return number


def _require_strength(strength: checks.Scalar) -> float:
    number = _number("strength", strength)
    if not 0 < number <= 1:
        raise ValueError(
            f"strength must be in (0, 1], the largest share of the partner, got {strength}"
        )
    return number


def _require_neighbors(linked: Bool[Tensor, "n n"]) -> None:
    alone = (~linked.any(1)).nonzero().flatten()
    if len(alone):
        raise ValueError(
            f"point {int(alone[0])} (of {len(alone)} such) has no neighbor at all: use a wider augmentation"
        )
