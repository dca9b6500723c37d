"""Arrangements of points on a circle or sphere that training is measured against, and their order.

Errors, the same for every function here: `TypeError` for what is no floating-point tensor, no
number or no whole number; `ValueError` for shapes, for values that are not finite, for rows of
zeros where a direction is needed, and for settings out of range, which each function names.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sscl_core import checks
from sscl_core.checks import Scalar, check_directions, check_like, check_square, checked_features


def regular_polygon(m: int) -> Float[Tensor, "m 2"]:
    """m ≥ 1 points at equal steps on the unit circle, which minimise Σ exp(z·z'/τ) for every τ."""
    checks.check_whole("m", m, 1)
    angle = 2 * math.pi * torch.arange(m, dtype=torch.float64) / m
    return torch.stack([angle.cos(), angle.sin()], 1)


def regular_simplex(m: int, d: int) -> Float[Tensor, "m d"]:
    """m ≥ 2 unit vectors in d ≥ m-1 dimensions with cosine -1/(m-1) between any two.

    They minimise Σ exp(z·z'/τ) for every τ.
    """
    checks.check_whole("m", m, 2)
    checks.check_whole("d", d, 1)
    if d < m - 1:
        least = f"at least m - 1 = {m - 1} for a simplex of m = {m} points"
        raise ValueError(f"d must be {least}, got {d}")
    centred = torch.eye(m, dtype=torch.float64) - 1 / m
    basis = torch.linalg.svd(centred).Vh[: m - 1]  # of the m-1 dimensions that the corners span
    corners = centred @ basis.T
    corners = corners / corners.norm(dim=1, keepdim=True)
    return torch.nn.functional.pad(corners, (0, d - m + 1))


def uniform_arrangement(m: int, d: int) -> Float[Tensor, "m d"]:
    """The regular polygon for d = 2, the regular simplex for d ≥ m-1.

    `ValueError`: a d between them, for which no closed form is known here.
    """
    checks.check_whole("d", d, 1)
    return regular_polygon(m) if d == 2 else regular_simplex(m, d)


def circle_gaps(z: Float[Tensor, "m 2"]) -> Float[Tensor, " m"]:
    """Angles between neighbors on the circle in degrees, in cyclic order; they sum to 360."""
    z = _on_circle(z)
    angles = torch.atan2(z[:, 1], z[:, 0]).rad2deg().remainder(360).sort().values
    return torch.cat([angles[1:], angles[:1] + 360]) - angles


def fitted_polygon(z: Float[Tensor, "m 2"]) -> Float[Tensor, "m 2"]:
    """The regular polygon turned to lie nearest to m points on the circle.

    It is turned by the circular mean of their angles, each less 2πk/m for the k-th in cyclic order.
    """
    z = _on_circle(z)
    m = len(z)
    angles = torch.atan2(z[:, 1], z[:, 0]).double().sort().values
    turns = angles - 2 * math.pi * torch.arange(m, dtype=torch.float64) / m
    turn = torch.atan2(turns.sin().sum(), turns.cos().sum())
    first, second = torch.stack([turn.cos(), turn.sin()]), torch.stack([-turn.sin(), turn.cos()])
    return regular_polygon(m) @ torch.stack([first, second])


def minimise_free(
    objective: Callable[[Tensor], Tensor],
    shape: tuple[int, int],
    *,
    starts: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, " starts"], Float[Tensor, "m d"]]:
    """The values that L-BFGS reaches from `starts` random arrangements, and the best arrangement.

    The points are free: one vector each, no network.
    `ValueError`: starts < 1, a shape with less than one row or column.
    """
    checks.check_whole("starts", starts, 1)
    for size in shape:
        checks.check_whole("every size in shape", size, 1)
    found = []
    for _ in range(starts):
        start = torch.randn(shape, dtype=torch.float64, generator=generator)
        found.append(descend(objective, start))
    values = torch.stack([objective(z) for z in found])
    return values, found[int(values.argmin())]


def descend(
    objective: Callable[[Tensor], Tensor],
    start: Float[Tensor, "m d"],
    *,
    max_iter: int = 500,
    tolerance_grad: float = 1e-9,
    tolerance_change: float = 1e-14,
) -> Float[Tensor, "m d"]:
    """Where L-BFGS comes to from `start`. The settings are those of `torch.optim.LBFGS`.

    `ValueError`: max_iter below 1.
    """
    checks.check_whole("max_iter", max_iter, 1)
    z = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [z],
        max_iter=max_iter,
        tolerance_grad=tolerance_grad,
        tolerance_change=tolerance_change,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(z)
        value.backward()
        return value

    optimizer.step(closure)
    return z.detach()


def minimal_energy(
    m: int,
    d: int,
    *,
    temperature: Scalar,
    starts: int = 20,
    generator: torch.Generator,
    start: Float[Tensor, "m d"] | None = None,
) -> Float[Tensor, "m d"]:
    """The arrangement found of m unit vectors with the least energy τ log Σ_{i<j} exp(z_i·z_j/τ).

    The search begins at random, `starts` times, or at `start`. Where there is a closed form
    (`uniform_arrangement`) it is that one, turned; elsewhere a minimum by search, without proof.
    `ValueError`: m < 2, d < 1, temperature not positive.
    """
    checks.check_whole("m", m, 2)
    checks.check_whole("d", d, 1)
    checks.check_settings(temperature=temperature)
    temperature = checks.real(temperature)
    if start is not None:
        start = check_directions("start", start)
        check_like("start", start, torch.empty(m, d))
    i, j = torch.triu_indices(m, m, 1)

    def energy(z: Tensor) -> Tensor:
        u = torch.nn.functional.normalize(z, dim=1)
        return temperature * ((u[i] * u[j]).sum(1) / temperature).logsumexp(0)

    if start is None:
        _, best = minimise_free(energy, (m, d), starts=starts, generator=generator)
    else:
        best = descend(energy, start)
    return torch.nn.functional.normalize(best, dim=1)


def tammes(m: int, d: int, *, starts: int = 20, generator: torch.Generator) -> Float[Tensor, "m d"]:
    """The packing found with the largest smallest angle: Tammes' problem.

    It is the limit of `minimal_energy` as the temperature goes to 0.
    """
    z = minimal_energy(m, d, temperature=0.1, starts=starts, generator=generator)
    for temperature in (0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4):
        z = minimal_energy(m, d, temperature=temperature, generator=generator, start=z)
    return z


def smallest_angle(z: Float[Tensor, "m d"]) -> float:
    """In degrees, between two of m ≥ 2 unit vectors."""
    z = check_directions("z", z)
    if len(z) < 2:
        rule = "at least 2 rows, between which there is an angle"
        raise ValueError(f"z must have {rule}, got {len(z)}")
    without_diagonal = z @ z.T - 2 * torch.eye(len(z), dtype=z.dtype)
    cosine = without_diagonal.max().clamp(-1, 1)
    return cosine.acos().rad2deg().item()


def cyclic_orders(m: int) -> Int64[Tensor, "k m"]:
    """All k = (m-1)!/2 cyclic orders of m ≥ 3 things, the natural one first.

    Each begins with 0, and its second is smaller than its last. `order[c]` is what stands at corner
    c: corners[order.argsort()] are the places of things 0, 1, …, m-1.
    `ValueError`: m not in 3..10.
    """
    checks.check_whole("m", m)
    if not 3 <= m <= 10:
        raise ValueError(f"m must be in 3..10, got {m}: there are (m-1)!/2 orders")
    others = itertools.permutations(range(1, m))
    return torch.tensor([(0, *rest) for rest in others if rest[0] < rest[-1]])


def circular_splits(c: Float[Tensor, "m m"]) -> tuple[Float[Tensor, " k"], Bool[Tensor, "k m"]]:
    """c = Σ_S α_S δ_S, S over the arcs {i+1, …, j} of the cycle 0…m-1, one of S and its complement.

    δ_S(a, b) = 1 if S separates a from b. Every symmetric c with zero diagonal has exactly one such
    sum, α_S = (c_ij + c_{i+1,j+1} - c_{i,j+1} - c_{i+1,j}) / 2, indices mod m.
    c is Kalmanson (in this order) if α_S ≥ 0 for all S of more than one element whose complement
    has more than one.
    Returns α and, as rows of a mask, the sets S.
    """
    check_square("c", c, None)
    m = len(c)
    i, j = torch.triu_indices(m, m, 1)
    after_i, after_j = (i + 1) % m, (j + 1) % m
    weights = (c[i, j] + c[after_i, after_j] - c[i, after_j] - c[after_i, j]) / 2
    place = torch.arange(m)
    return weights, (place > i[:, None]) & (place <= j[:, None])


def _on_circle(z: Tensor) -> Tensor:
    if check_directions("z", z).shape[1] != 2:
        raise ValueError(f"z must have shape (m, 2), points on a circle, got {tuple(z.shape)}")
    return z


def cyclic_order(z: Float[Tensor, "m 2"]) -> Int64[Tensor, " m"]:
    """The points in the order in which one meets them on going round their centroid.

    From point 0 on and towards the smaller of its two neighbors: the same for every rotation and
    reflection, so (m-1)!/2 values for m ≥ 3.
    `ValueError`: points that are not in the plane, m < 2.
    """
    z = _in_the_plane(z)
    x, y = (z - z.mean(0)).T
    order = torch.atan2(y, x).argsort()
    order = order.roll(-int((order == 0).nonzero()))
    return order if order[1] <= order[-1] else torch.cat([order[:1], order[1:].flip(0)])


def preserves_order(z: Float[Tensor, "m 2"]) -> bool:
    """Whether the cyclic order of the points is 0, 1, …, m-1, in either sense.

    Then points that were numbered along a line keep their neighbors on the circle. Coinciding
    points (to 1e-6 of the largest distance) are in no order. Errors: those of `cyclic_order`.
    """
    z = _in_the_plane(z)
    distances = torch.pdist(z)
    apart = bool(distances.min() > 1e-6 * distances.max())
    natural = torch.arange(len(z), device=z.device)
    return apart and torch.equal(cyclic_order(z), natural)


def _in_the_plane(z: Any) -> Tensor:
    z = checked_features("z", z)
    if z.shape[1] != 2 or len(z) < 2:
        rule = "shape (m, 2), m >= 2 points in the plane"
        raise ValueError(f"z must have {rule}, got {tuple(z.shape)}")
    return z
