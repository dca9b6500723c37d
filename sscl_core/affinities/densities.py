"""log a(x'_j | x_i) of augmentations: rows are anchors x_i, columns are views x'_j."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sscl_core import checks

from . import arguments
from .mixup import log_density_to_mean
from .noise import Kind, noise


def log_noise(
    anchors: Float[Tensor, "n d"],
    views: Float[Tensor, "m d"],
    *,
    scale: checks.Scalar,
    kind: Kind = "gaussian",
    twice: bool = False,
) -> Float[Tensor, "n m"]:
    """log φ(x'_j - x_i) for additive noise δ ~ φ; `twice`: log (φ*φ).

    Coordinates of δ are independent, with standard deviation `scale`.
    gaussian: φ falls with ‖δ‖₂.  laplace: with ‖δ‖₁.  uniform: φ is constant on the cube
    ‖δ‖_∞ ≤ √3·scale and 0 outside.
    φ*φ is the density of the difference of two views of an anchor. It is their P where anchors have
    a flat density.
    `ValueError`: scale not positive and finite, an unknown kind. Source: claim C3.
    """
    anchors = arguments.points("anchors", anchors)
    views = arguments.points("views", views, like=anchors)
    law = noise(kind, arguments.positive("scale", scale))
    log_density = law.log_difference if twice else law.log_density
    total = torch.zeros(len(anchors), len(views), dtype=torch.float64)
    for a, v in zip(anchors.T, views.T, strict=True):
        total += log_density(v[None] - a[:, None])
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
    """log p(x'|x_i) for mixup with a Gaussian mixture, x' = x_i + λ(x - x_i):

    p(x'|x_i) = 1/strength ∫ Σ_c π_c N(x'; (1-λ)x_i + λμ_c, λ² std² I) dλ,
    x ~ Σ_c π_c N(μ_c, std² I),  λ ~ U(0, strength).

    Computed by quadrature, exact to about 1e-11. +∞ at x' = x_i, where the density has its pole.
    `ValueError`: std not positive, strength not in (0, 1], weights not probabilities.
    Source: claim C4.
    """
    anchors = arguments.points("anchors", anchors)
    views = arguments.points("views", views, like=anchors)
    means = arguments.points("means", means, like=anchors)
    std = arguments.positive("std", std)
    strength = arguments.strength_of_mixup(strength)
    probabilities = _probabilities(weights, len(means))
    d = anchors.shape[1]
    shifts = [views - anchor for anchor in anchors]
    terms = []
    for log_weight, mean in zip(probabilities.log(), means, strict=True):
        to_mean = [mean - anchor for anchor in anchors]
        terms.append(log_weight + log_density_to_mean(shifts, to_mean, std, strength))
    log_constant = d / 2 * math.log(2 * math.pi * std**2)
    log_p = torch.stack(terms).logsumexp(0) - math.log(strength) - log_constant
    at_anchor = torch.stack([shift.square().sum(1) == 0 for shift in shifts])
    return log_p.masked_fill(at_anchor, math.inf)


def _probabilities(weights: Tensor | None, c: int) -> Float[Tensor, " c"]:
    """Of c components, equal by default."""
    if weights is None:
        pi = torch.full((c,), 1 / c, dtype=torch.float64)
    else:
        pi = torch.as_tensor(weights, dtype=torch.float64).cpu()
    fits = pi.shape == (c,) and bool((pi >= 0).all())
    if not fits or abs(pi.sum() - 1) > 1e-6:  # to which precision float32 sums to 1
        raise ValueError(f"weights must be {c} probabilities that sum to 1, got {weights}")
    return pi / pi.sum()


def log_masking(
    anchors: Shaped[Tensor, "n d"],
    views: Shaped[Tensor, "m d"],
    *,
    rate: checks.Scalar,
    mask: checks.Scalar = 0.0,
) -> Float[Tensor, "n m"]:
    """log Π_d [ (1-rate)·1(x'_d = x_d) + rate·1(x'_d = mask) ].

    Every column is replaced by `mask` independently with probability `rate`.
    `ValueError`: rate not in (0, 1), mask not finite.
    """
    value = arguments.number("mask", mask)
    if not math.isfinite(value):
        raise ValueError(f"mask must be a finite number, got {mask}")
    rate = _rate(rate)
    anchors = arguments.values("anchors", anchors)
    views = arguments.values("views", views, like=anchors)
    return _log_replacement(anchors, views, rate, (views == value).double())


def log_corruption(
    anchors: Shaped[Tensor, "n d"],
    views: Shaped[Tensor, "m d"],
    *,
    rate: checks.Scalar,
    table: Shaped[Tensor, "k d"] | None = None,
) -> Float[Tensor, "n m"]:
    """log Π_d [ (1-rate)·1(x'_d = x_d) + rate·p_d(x'_d) ].

    Every column is resampled independently with probability `rate` from its marginal p_d, the
    frequencies in `table` (by default in `anchors`).
    `ValueError`: rate not in (0, 1).
    Source: SCARF (Bahri et al. 2022), which resamples a fixed number of columns instead.
    """
    rate = _rate(rate)
    anchors = arguments.values("anchors", anchors)
    views = arguments.values("views", views, like=anchors)
    table = anchors if table is None else arguments.values("table", table, like=anchors)
    columns = zip(views.T, table.T, strict=True)
    frequencies = [(v[:, None] == t[None]).double().mean(1) for v, t in columns]
    return _log_replacement(anchors, views, rate, torch.stack(frequencies, 1))


def _rate(rate: checks.Scalar) -> float:
    found = arguments.number("rate", rate)
    if not 0 < found < 1:
        raise ValueError(f"rate must be in (0, 1), got {rate}")
    return found


def _log_replacement(
    anchors: Float[Tensor, "n d"],
    views: Float[Tensor, "m d"],
    rate: float,
    replaced: Float[Tensor, "m d"],
) -> Float[Tensor, "n m"]:
    """`replaced`: the probability of each view's entry where a column is replaced."""
    total = torch.zeros(len(anchors), len(views), dtype=torch.float64)
    for a, v, p in zip(anchors.T, views.T, replaced.T, strict=True):
        unchanged = (a[:, None] == v[None]).double()
        total += ((1 - rate) * unchanged + rate * p).log()
    return total
