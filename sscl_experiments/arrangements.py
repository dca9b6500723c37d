"""Closed forms that training is measured against.

Errors, the same for every function here: `TypeError` for what is no floating-point tensor, no number
or no whole number; `ValueError` for shapes, for values that are not finite, for rows of zeros where
a direction is needed, and for settings out of range, which each function names.
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
    """m ≥ 1 points spaced evenly on the unit circle, the minimiser of Σ exp(z·z'/τ) there for every τ."""
    checks.check_whole("m", m, 1)
    angle = 2 * math.pi * torch.arange(m, dtype=torch.float64) / m
    return torch.stack([angle.cos(), angle.sin()], 1)


def regular_simplex(m: int, d: int) -> Float[Tensor, "m d"]:
    """m ≥ 2 unit vectors in d ≥ m-1 dimensions with cosine -1/(m-1) between any two, the minimiser for every τ."""
    checks.check_whole("m", m, 2)
    checks.check_whole("d", d, 1)
    if d < m - 1:
        raise ValueError(
            f"d must be at least m - 1 = {m - 1} for a simplex of m = {m} points, got {d}"
        )
    centred = torch.eye(m, dtype=torch.float64) - 1 / m
    basis = torch.linalg.svd(centred).Vh[
        : m - 1
    ]  # of the (m-1)-dimensional space that the corners span
    corners = centred @ basis.T
    return torch.nn.functional.pad(corners / corners.norm(dim=1, keepdim=True), (0, d - m + 1))


def uniform_arrangement(m: int, d: int) -> Float[Tensor, "m d"]:
    """The polygon for d = 2, the simplex for d ≥ m-1; `ValueError` between them, where no closed form is known here."""
    checks.check_whole("d", d, 1)
    return regular_polygon(m) if d == 2 else regular_simplex(m, d)


def circle_gaps(z: Float[Tensor, "m 2"]) -> Float[Tensor, " m"]:
    """Angles between neighbors on the circle in degrees, in cyclic order; they sum to 360."""
    z = _on_circle(z)
    angles = torch.atan2(z[:, 1], z[:, 0]).rad2deg().remainder(360).sort().values
    return torch.cat([angles[1:], angles[:1] + 360]) - angles


def fitted_polygon(z: Float[Tensor, "m 2"]) -> Float[Tensor, "m 2"]:
    """The regular polygon turned to lie nearest to m points on the circle: each, turned back by its place in cyclic order, votes."""
    z, m = _on_circle(z), len(z)
    angles = (
        torch.atan2(z[:, 1], z[:, 0]).double().sort().values
        - 2 * math.pi * torch.arange(m, dtype=torch.float64) / m
    )
    turn = torch.atan2(angles.sin().sum(), angles.cos().sum())
    rotation = torch.stack(
        [torch.stack([turn.cos(), turn.sin()]), torch.stack([-turn.sin(), turn.cos()])]
    )
    return regular_polygon(m) @ rotation


def minimise_free(
    objective: Callable[[Tensor], Tensor],
    shape: tuple[int, int],
    *,
    starts: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, " starts"], Float[Tensor, "m d"]]:
    """The values that L-BFGS reaches from `starts` random arrangements of free points, one vector each, no network; the best of them.

    `ValueError`: starts < 1, a shape with less than one row or column.
    """
    checks.check_whole("starts", starts, 1)
    for size in shape:
        checks.check_whole("every size in shape", size, 1)
    found = [
        _descend(objective, torch.randn(shape, dtype=torch.float64, generator=generator))
        for _ in range(starts)
    ]
    values = torch.stack([objective(z) for z in found])
    return values, found[int(values.argmin())]


def _descend(
    objective: Callable[[Tensor], Tensor], z: Float[Tensor, "m d"]
) -> Float[Tensor, "m d"]:
    z = z.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [z],
        max_iter=500,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(z)
        value.backward()
        return value

    optimizer.step(closure)
    return z.detach()


def spread(
    m: int,
    d: int,
    *,
    temperature: Scalar,
    starts: int = 20,
    generator: torch.Generator,
    start: Float[Tensor, "m d"] | None = None,
) -> Float[Tensor, "m d"]:
    """The best arrangement found of m unit vectors under τ log Σ_{i<j} exp(z_i·z_j/τ), from random starts, or from `start`.

    Where there is a closed form (`uniform_arrangement`) it is that one, turned; elsewhere a minimum by search, without proof.
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

    best = (
        minimise_free(energy, (m, d), starts=starts, generator=generator)[1]
        if start is None
        else _descend(energy, start)
    )
    return torch.nn.functional.normalize(best, dim=1)


def tammes(m: int, d: int, *, starts: int = 20, generator: torch.Generator) -> Float[Tensor, "m d"]:
    """The packing found with the largest smallest angle, Tammes' problem: `spread` followed as the temperature goes to 0."""
    z = spread(m, d, temperature=0.1, starts=starts, generator=generator)
    for temperature in (0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4):
        z = spread(m, d, temperature=temperature, generator=generator, start=z)
    return z


def smallest_angle(z: Float[Tensor, "m d"]) -> float:
    """In degrees, between two of m ≥ 2 unit vectors."""
    z = check_directions("z", z)
    if len(z) < 2:
        raise ValueError(
            f"z must have at least 2 rows, between which there is an angle, got {len(z)}"
        )
    return (
        (z @ z.T - 2 * torch.eye(len(z), dtype=z.dtype)).max().clamp(-1, 1).acos().rad2deg().item()
    )


def cyclic_orders(m: int) -> Int64[Tensor, "k m"]:
    """All k = (m-1)!/2 cyclic orders of m ≥ 3 things, the natural one first; each begins with 0, and its second is smaller than its last.

    `order[c]` is what stands at corner c: corners[order.argsort()] are the places of things 0, 1, …, m-1.
    """
    checks.check_whole("m", m)
    if not 3 <= m <= 10:
        raise ValueError(f"m must be in 3..10, got {m}: there are (m-1)!/2 orders")
    return torch.tensor(
        [(0, *rest) for rest in itertools.permutations(range(1, m)) if rest[0] < rest[-1]]
    )


def circular_splits(c: Float[Tensor, "m m"]) -> tuple[Float[Tensor, " k"], Bool[Tensor, "k m"]]:
    """c = Σ_S α_S δ_S, S over the arcs {i+1, …, j} of the cycle 0…m-1, one of S and its complement; δ_S(a, b) = 1 if S separates a from b.

    Every symmetric c with zero diagonal has exactly one such sum, α_S = (c_ij + c_{i+1,j+1} - c_{i,j+1} - c_{i+1,j}) / 2, indices mod m.
    c is Kalmanson (in this order) if α_S ≥ 0 for all S of more than one element whose complement has more than one.
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
    """The points in the order in which they are met on going round their centroid, from point 0 on and towards the smaller of its two
    neighbors: the same for every rotation and reflection, so (m-1)!/2 values for m ≥ 3.

    Raises as the module says, and `ValueError` for what is not in the plane, or m < 2.
    """
    z = _in_the_plane(z)
    x, y = (z - z.mean(0)).T
    order = torch.atan2(y, x).argsort()
    order = order.roll(-int((order == 0).nonzero()))
    return order if order[1] <= order[-1] else torch.cat([order[:1], order[1:].flip(0)])


def preserves_order(z: Float[Tensor, "m 2"]) -> bool:
    """Whether points that were numbered along a line keep their neighbors on the circle: 0, 1, …, m-1, in either sense. Coinciding
    points (to 1e-6 of the largest distance) are in no order. Raises as `cyclic_order`."""
    z = _in_the_plane(z)
    distances = torch.pdist(z)
    natural = torch.arange(len(z), device=z.device)
    return bool(distances.min() > 1e-6 * distances.max()) and torch.equal(cyclic_order(z), natural)


def _in_the_plane(z: Any) -> Tensor:
    z = checked_features("z", z)
    if z.shape[1] != 2 or len(z) < 2:
        raise ValueError(
            f"z must have shape (m, 2), m >= 2 points in the plane, got {tuple(z.shape)}"
        )
    return z
