"""Closed forms that training is measured against."""

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def attraction_repulsion(
    P: Float[Tensor, "N N"], Q: Float[Tensor, "N N"], z: Float[Tensor, "N d"], slope: Float[Tensor, "N N"] | float
) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N d"]]:
    """∂KL(P‖Q)/∂z = attraction + repulsion for a Q that depends on squared distances D through its logits:

    attraction_i = 2 Σ_j slope_ij (P_ij + P_ji)(z_i - z_j),   repulsion_i = -2 Σ_j slope_ij (Q_ij + Q_ji)(z_i - z_j),
    slope = -dl/dD: 1/(2τ) for exp(-D/(2τ)), and for exp(cos/τ) on unit features; `student_slope` for Student's t.
    Both directions of a pair enter: for conditional forms the one-sided sum is not the gradient.
    """

    def pull(weights: Tensor) -> Tensor:
        return 2 * (weights.sum(1, keepdim=True) * z - weights @ z)

    return pull(slope * (P + P.T)), -pull(slope * (Q + Q.T))


def student_slope(squared_distance: Float[Tensor, "N N"], *, temperature: float, df: float) -> Float[Tensor, "N N"]:
    """-dl/dD = (ν+1) / (2 (τν + D)) for l = -(ν+1)/2 · log(1 + D/(τν))."""
    return (df + 1) / 2 / (temperature * df + squared_distance)


def through_normalization(z: Float[Tensor, "N d"], gradient: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
    """The gradient with respect to z of a function of u = z/‖z‖, given the one with respect to u: (I - u uᵀ) g / ‖z‖."""
    norm = z.norm(dim=1, keepdim=True)
    u = z / norm
    return (gradient - (gradient * u).sum(1, keepdim=True) * u) / norm


def regular_polygon(m: int) -> Float[Tensor, "m 2"]:
    """m points spaced evenly on the unit circle, the minimiser of Σ exp(z·z'/τ) there for every τ."""
    angle = 2 * math.pi * torch.arange(m, dtype=torch.float64) / m
    return torch.stack([angle.cos(), angle.sin()], 1)


def regular_simplex(m: int, d: int) -> Float[Tensor, "m d"]:
    """m unit vectors in d ≥ m-1 dimensions with cosine -1/(m-1) between any two, the minimiser for every τ."""
    if d < m - 1:
        raise ValueError(f"d must be at least m - 1 = {m - 1} for a simplex of m = {m} points, got {d}")
    centred = torch.eye(m, dtype=torch.float64) - 1 / m
    basis = torch.linalg.svd(centred).Vh[: m - 1]  # of the (m-1)-dimensional space that the corners span
    corners = centred @ basis.T
    return torch.nn.functional.pad(corners / corners.norm(dim=1, keepdim=True), (0, d - m + 1))


def uniform_arrangement(m: int, d: int) -> Float[Tensor, "m d"]:
    """The polygon for d = 2, the simplex for d ≥ m-1; `ValueError` between them, where no closed form is known here."""
    return regular_polygon(m) if d == 2 else regular_simplex(m, d)


def circle_gaps(z: Float[Tensor, "m 2"]) -> Float[Tensor, " m"]:
    """Angles between neighbors on the circle in degrees, in cyclic order; they sum to 360."""
    angles = torch.atan2(z[:, 1], z[:, 0]).rad2deg().remainder(360).sort().values
    return torch.cat([angles[1:], angles[:1] + 360]) - angles


def fitted_polygon(z: Float[Tensor, "m 2"]) -> Float[Tensor, "m 2"]:
    """The regular polygon turned to lie nearest to m points on the circle: each, turned back by its place in cyclic order, votes."""
    m = len(z)
    angles = torch.atan2(z[:, 1], z[:, 0]).double().sort().values - 2 * math.pi * torch.arange(m, dtype=torch.float64) / m
    turn = torch.atan2(angles.sin().sum(), angles.cos().sum())
    rotation = torch.stack([torch.stack([turn.cos(), turn.sin()]), torch.stack([-turn.sin(), turn.cos()])])
    return regular_polygon(m) @ rotation


def component_means(u: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], m: int) -> Float[Tensor, "m d"]:
    """The mean feature of each of m components; every one must occur in `labels`."""
    sums = torch.zeros(m, u.shape[1], dtype=u.dtype, device=u.device).index_add(0, labels, u)
    return sums / labels.bincount(minlength=m)[:, None]


def minimise_free(
    objective: Callable[[Tensor], Tensor], shape: tuple[int, int], *, starts: int, generator: torch.Generator
) -> tuple[Float[Tensor, " starts"], Float[Tensor, "m d"]]:
    """The values that L-BFGS reaches from `starts` random arrangements of free points, one vector each, no network; the best of them."""
    found = [_descend(objective, torch.randn(shape, dtype=torch.float64, generator=generator)) for _ in range(starts)]
    values = torch.stack([objective(z) for z in found])
    return values, found[int(values.argmin())]


def _descend(objective: Callable[[Tensor], Tensor], z: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    z = z.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([z], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(z)
        value.backward()
        return value

    optimizer.step(closure)
    return z.detach()


def spread(
    m: int, d: int, *, temperature: float, starts: int = 20, generator: torch.Generator, start: Float[Tensor, "m d"] | None = None
) -> Float[Tensor, "m d"]:
    """The best arrangement found of m unit vectors under τ log Σ_{i<j} exp(z_i·z_j/τ), from random starts, or from `start`.

    Where there is a closed form (`uniform_arrangement`) it is that one, turned; elsewhere a minimum by search, without proof.
    """
    i, j = torch.triu_indices(m, m, 1)

    def energy(z: Tensor) -> Tensor:
        u = torch.nn.functional.normalize(z, dim=1)
        return temperature * ((u[i] * u[j]).sum(1) / temperature).logsumexp(0)

    best = minimise_free(energy, (m, d), starts=starts, generator=generator)[1] if start is None else _descend(energy, start)
    return torch.nn.functional.normalize(best, dim=1)


def tammes(m: int, d: int, *, starts: int = 20, generator: torch.Generator) -> Float[Tensor, "m d"]:
    """The packing found with the largest smallest angle, Tammes' problem: `spread` followed as the temperature goes to 0."""
    z = spread(m, d, temperature=0.1, starts=starts, generator=generator)
    for temperature in (0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4):
        z = spread(m, d, temperature=temperature, generator=generator, start=z)
    return z


def smallest_angle(z: Float[Tensor, "m d"]) -> float:
    """In degrees, between two of m unit vectors."""
    return (z @ z.T - 2 * torch.eye(len(z), dtype=z.dtype)).max().clamp(-1, 1).acos().rad2deg().item()


def cyclic_orders(m: int) -> Int64[Tensor, "k m"]:
    """All k = (m-1)!/2 cyclic orders of m ≥ 3 things, the natural one first; each begins with 0, and its second is smaller than its last.

    `order[c]` is what stands at corner c: corners[order.argsort()] are the places of things 0, 1, …, m-1.
    """
    if not 3 <= m <= 10:
        raise ValueError(f"m must be in 3..10, got {m}: there are (m-1)!/2 orders")
    return torch.tensor([(0, *rest) for rest in itertools.permutations(range(1, m)) if rest[0] < rest[-1]])


def circular_splits(c: Float[Tensor, "m m"]) -> tuple[Float[Tensor, " k"], Bool[Tensor, "k m"]]:
    """c = Σ_S α_S δ_S, S over the arcs {i+1, …, j} of the cycle 0…m-1, one of S and its complement; δ_S(a, b) = 1 if S separates a from b.

    Every symmetric c with zero diagonal has exactly one such sum, α_S = (c_ij + c_{i+1,j+1} - c_{i,j+1} - c_{i+1,j}) / 2, indices mod m.
    c is Kalmanson (in this order) if α_S ≥ 0 for all S of more than one element whose complement has more than one.
    Returns α and, as rows of a mask, the sets S.
    """
    m = len(c)
    i, j = torch.triu_indices(m, m, 1)
    after_i, after_j = (i + 1) % m, (j + 1) % m
    weights = (c[i, j] + c[after_i, after_j] - c[i, after_j] - c[after_i, j]) / 2
    place = torch.arange(m)
    return weights, (place > i[:, None]) & (place <= j[:, None])
