"""The probability A_ij that a view of anchor i falls into cell j, exactly and by Monte Carlo."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from sscl_core import checks

from . import arguments
from .noise import Kind, noise


def noise_masses(
    anchors: Float[Tensor, "n d"],
    edges: Sequence[Sequence[float]],
    *,
    scale: checks.Scalar,
    kind: Kind = "gaussian",
) -> Float[Tensor, "n m"]:
    """A_ij = P(x_i + δ in box j), δ as in `log_noise`.

    It is the product over coordinates of Φ(upper - x) - Φ(lower - x). The boxes, those of
    `box_cells(edges)`, are cut at `edges[k]`, ascending, along coordinate k; the outer ones have no
    end, and the last coordinate runs fastest.
    `ValueError`: scale not positive, edges that are not one ascending list a coordinate.
    """
    anchors = arguments.points("anchors", anchors)
    law = noise(kind, arguments.positive("scale", scale))
    masses = torch.ones(len(anchors), 1, dtype=torch.float64)
    infinity = torch.tensor([math.inf], dtype=torch.float64)
    for x, cuts in zip(anchors.T, _edges(edges, anchors.shape[1]), strict=True):
        ends = torch.cat([-infinity, cuts, infinity]) - x[:, None]
        lower, upper = ends[:, :-1], ends[:, 1:]
        # Of both tails the smaller, which loses no digits.
        by_upper_tail = law.cdf(-lower) - law.cdf(-upper)
        by_lower_tail = law.cdf(upper) - law.cdf(lower)
        mass = torch.where(lower > 0, by_upper_tail, by_lower_tail)
        masses = (masses[:, :, None] * mass[:, None]).flatten(1)
    return masses


def mixup_masses(
    anchors: Float[Tensor, "n d"], centers: Float[Tensor, "m d"], *, strength: checks.Scalar
) -> Float[Tensor, "n m"]:
    """A_ic = P(x_i + λ(x_j - x_i) is nearest to centers[c]), exact.

    λ ~ U(0, strength), and the partner j ≠ i is uniform among the anchors. Views for training
    (`augmentations`) draw it from all n: a share 1/n of them is the anchor itself.
    On a finite set views lie on segments and have no density. Along a segment ‖x' - c‖² is, up to
    a part that all c have in common, linear in λ: each of the n² segments is followed from cell to
    cell along the lower envelope of these lines.
    `ValueError`: strength not in (0, 1], n < 2.
    """
    anchors = arguments.points("anchors", anchors)
    centers = arguments.points("centers", centers, like=anchors)
    strength = arguments.strength_of_mixup(strength)
    if len(anchors) < 2:
        raise ValueError("anchors must be at least 2 points, got 1: mixup needs a partner")
    origin = anchors.mean(0)
    anchors, centers = anchors - origin, centers - origin
    height = torch.cdist(anchors, centers, compute_mode="donot_use_mm_for_euclid_dist").square()
    projected = _inner_products(anchors, centers)
    masses = torch.zeros(len(anchors), len(centers), dtype=torch.float64)
    for i in range(len(anchors)):
        partners = torch.arange(len(anchors)) != i
        slope = 2 * (projected[i] - projected[partners])
        for cell, length in _envelope(height[i], slope, strength):
            masses[i].index_add_(0, cell, length)
    return masses / (strength * (len(anchors) - 1))


def _inner_products(
    anchors: Float[Tensor, "n d"], centers: Float[Tensor, "m d"]
) -> Float[Tensor, "n m"]:
    """Not by a matrix product: equal centers must give equal bits, or they divide a cell between
    them at random."""
    total = torch.zeros(len(anchors), len(centers), dtype=torch.float64)
    for a, c in zip(anchors.T, centers.T, strict=True):
        total += a[:, None] * c
    return total


def _envelope(
    height: Float[Tensor, " m"], slope: Float[Tensor, "s m"], end: float
) -> Iterator[tuple[Int64[Tensor, " a"], Float[Tensor, " a"]]]:
    """Which of the lines height_c + λ slope_sc is lowest on which part of [0, end].

    For each of s segments, which have m lines each. Every turn gives the next lowest line of all
    segments that are not at their end, and the length of its part.
    """
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
        # Of the lines that meet there the steepest goes on.
        following = slope[rows].where(crossing <= meet[:, None], math.inf).argmin(1)
        goes_on = meet < end
        rows, cell, place = rows[goes_on], following[goes_on], meet[goes_on]


def empirical_masses(
    augment: Callable[[Tensor], Tensor],
    anchors: Shaped[Tensor, "n ..."],
    cells: Callable[[Tensor], Tensor],
    n_cells: int,
    *,
    draws: int = 1000,
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """A_ij, the fraction of `draws` views of anchor i that fall into cell j, and its standard error
    √(A(1-A)/draws).

    `augment` makes one random view of each row, of the same shape. `cells` gives the cell of each
    row, in 0..n_cells-1: `nearest_cells(centers)`, `box_cells(edges)`, or a partition of your own.
    Randomness is the callable's, or torch's global generator.
    `TypeError`: views that are no tensor, cells that are no integers. `ValueError`: draws < 2,
    views that are not finite or of another shape, cells out of range.
    """
    if not isinstance(anchors, Tensor):
        found = type(anchors).__name__
        raise TypeError(
            f"anchors must be a tensor, a view of each row of which is drawn, got {found}"
        )
    checks.check_whole("draws", draws, 2)
    checks.check_whole("n_cells", n_cells, 1)
    rows = torch.arange(len(anchors))
    counts = torch.zeros(len(anchors), n_cells, dtype=torch.float64)
    for _ in range(draws):
        views = augment(anchors)
        _check_views(views, anchors)
        cell = _checked_cells(cells(views), len(anchors), n_cells)
        counts[rows, cell] += 1
    masses = counts / draws
    return masses, (masses * (1 - masses) / draws).sqrt()


def _check_views(views: object, anchors: Tensor) -> None:
    if not isinstance(views, Tensor):
        found = type(views).__name__
        raise TypeError(f"augment must give a tensor, one view a row, got {found}")
    if views.shape != anchors.shape:
        rule = f"keep the shape {tuple(anchors.shape)}, one view a row"
        raise ValueError(f"augment must {rule}, got {tuple(views.shape)}")
    if not views.isfinite().all():
        raise ValueError("augment must give finite views, got NaN or infinity")


def _checked_cells(cell: object, n: int, n_cells: int) -> Int64[Tensor, " n"]:
    cell = checks.whole_numbers("cells", cell).cpu()
    if cell.shape != (n,) or not bool(((cell >= 0) & (cell < n_cells)).all()):
        rule = f"a number in 0..{n_cells - 1} (n_cells - 1) for each of {n} views"
        found = f"shape {tuple(cell.shape)}, numbers {cell.min()} to {cell.max()}"
        raise ValueError(f"cells must give {rule}, got {found}: raise n_cells, or correct cells")
    return cell


def nearest_cells(centers: Float[Tensor, "m d"]) -> Callable[[Tensor], Int64[Tensor, " n"]]:
    """The cells of `centers`: every (flattened) row belongs to its nearest, of equally near ones to
    the first."""
    centers = arguments.points("centers", centers)

    def cells(x: Tensor) -> Tensor:
        x = x.flatten(1).double().cpu()
        return torch.cdist(x, centers, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)

    return cells


def box_cells(edges: Sequence[Sequence[float]]) -> Callable[[Tensor], Int64[Tensor, " n"]]:
    """The boxes of `noise_masses`; an edge belongs to the box below it."""

    def cells(x: Tensor) -> Tensor:
        number = torch.zeros(len(x), dtype=torch.int64)
        for column, cuts in zip(x.T, _edges(edges, x.shape[1]), strict=True):
            place = torch.bucketize(column.double().cpu().contiguous(), cuts)
            number = number * (len(cuts) + 1) + place
        return number

    return cells


def _edges(edges: Sequence[Sequence[float]], d: int) -> list[Float[Tensor, " k"]]:
    cuts = [torch.as_tensor(e, dtype=torch.float64).reshape(-1) for e in edges]
    if len(cuts) != d or not all(_ascending(c) for c in cuts):
        rule = f"one ascending list of finite numbers for each of {d} coordinates"
        raise ValueError(f"edges must be {rule}, got {edges}")
    return cuts


def _ascending(cuts: Float[Tensor, " k"]) -> bool:
    return not bool((cuts.diff() <= 0).any()) and bool(cuts.isfinite().all())
