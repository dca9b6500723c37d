"""The density of mixup with one Gaussian component, by quadrature over the reciprocal of λ."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

PANELS = 8  # of one side of the mode
NODES, WEIGHTS = (values.tolist() for values in np.polynomial.legendre.leggauss(32))
NEGLIGIBLE = -45  # log of the integrand against its largest value


def log_density_to_mean(
    shifts: Sequence[Float[Tensor, "m d"]],
    to_mean: Sequence[Float[Tensor, " d"]],
    std: float,
    strength: float,
) -> Float[Tensor, "n m"]:
    """log ∫_{1/strength}^∞ t^(d-2) exp(-‖t r - v‖² / (2 std²)) dt.

    shifts: r = x'_j - x_i for every anchor i.  to_mean: v = μ - x_i.
    This is the integral over λ of N(x'; x_i + λv, λ² std² I) with t = 1/λ, without its constant.
    """
    d = shifts[0].shape[1]
    lines = [_line(r, v) for r, v in zip(shifts, to_mean, strict=True)]
    stacked = _Line(*(torch.stack(parts) for parts in zip(*lines, strict=True)))
    return _log_inverse_moment(stacked, std, d, 1 / strength)


class _Line(NamedTuple):
    """‖t r - v‖² = rr (t - along)² + across, as a function of t."""

    rr: Float[Tensor, "*n m"]
    along: Float[Tensor, "*n m"]
    across: Float[Tensor, "*n m"]


def _line(r: Float[Tensor, "m d"], v: Float[Tensor, " d"]) -> _Line:
    rr = r.square().sum(1)
    along = r @ v / rr.where(rr > 0, 1.0)
    across = (v - along[:, None] * r).square().sum(1)
    return _Line(rr, along, across)


class _Integrand(NamedTuple):
    """t^(d-1) exp(-rr (t - along)² / (2 std²)) as a function of u = log t - log mode.

    One power of t more than in the integral over t: dt = t du. It has one smooth maximum.
    """

    rr: Float[Tensor, "n m"]
    along: Float[Tensor, "n m"]
    mode: Float[Tensor, "n m"]
    std: float
    d: int

    def log_relative(self, u: Tensor) -> Tensor:
        """Its log at u, less that at the mode."""
        step = self.mode * u.expm1()
        squares = self.rr * step * (step + 2 * (self.mode - self.along))
        return (self.d - 1) * u - squares / (2 * self.std**2)


def _log_inverse_moment(line: _Line, std: float, d: int, start: float) -> Float[Tensor, "n m"]:
    """log ∫_start^∞ t^(d-2) exp(-(rr (t - along)² + across) / (2 std²)) dt.

    By Gauss–Legendre quadrature in log t on both sides of the integrand's mode. Meaningless where
    rr = 0, where the density has its pole.
    """
    rr = line.rr.where(line.rr > 0, 1.0)
    root = (line.along.square() + 4 * (d - 1) * std**2 / rr).sqrt()
    mode = ((line.along + root) / 2).clamp_min(start)
    integrand = _Integrand(rr, line.along, mode, std, d)
    below = mode.log() - math.log(start)
    unlimited = torch.full_like(mode, math.inf)
    total = torch.zeros_like(mode)
    for side, limit in ((-1, below), (1, unlimited)):
        for term in _gauss_legendre(integrand, side, _reach(integrand, side, limit)):
            total += term
    exponent = (rr * (mode - line.along).square() + line.across) / (2 * std**2)
    return (d - 1) * mode.log() - exponent + total.log()


def _reach(integrand: _Integrand, side: int, limit: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """How far in u to one side of the mode the integrand is not negligible, at most `limit`.

    Doubled from a step that is always too short.
    """
    reach = torch.full_like(limit, 1e-15)
    while True:
        short = (integrand.log_relative(side * reach) > NEGLIGIBLE) & (reach < limit)
        if not bool(short.any()):
            return reach.minimum(limit)
        reach = torch.where(short, 2 * reach, reach)


def _gauss_legendre(
    integrand: _Integrand, side: int, reach: Float[Tensor, "n m"]
) -> Iterator[Float[Tensor, "n m"]]:
    """The terms of the sum over all panels and nodes, relative to the integrand at the mode."""
    for panel in range(PANELS):
        for node, weight in zip(NODES, WEIGHTS, strict=True):
            u = side * reach * (panel + (1 + node) / 2) / PANELS
            yield weight / (2 * PANELS) * reach * integrand.log_relative(u).exp()
