"""Closed forms that training is measured against."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
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
    sums = torch.zeros(m, u.shape[1], dtype=u.dtype).index_add(0, labels, u)
    return sums / labels.bincount(minlength=m)[:, None]


def minimise_free(
    objective: Callable[[Tensor], Tensor], shape: tuple[int, int], *, starts: int, generator: torch.Generator
) -> Float[Tensor, " starts"]:
    """The values that L-BFGS reaches from `starts` random arrangements of free points, one vector each and no network."""
    values = []
    for _ in range(starts):
        z = torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        optimizer = torch.optim.LBFGS([z], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe")

        def closure(z: Tensor = z, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            value = objective(z)
            value.backward()
            return value

        optimizer.step(closure)
        values.append(objective(z).detach())
    return torch.stack(values)
