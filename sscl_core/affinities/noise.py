"""The laws of additive noise: one coordinate δ with density φ and standard deviation `std`.

Each law has `log_density`, log φ(t); `log_difference`, log (φ*φ)(t), for the difference of two
independent draws; and `cdf`, P(δ ≤ t), which has all its digits for t ≤ 0.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["gaussian", "laplace", "uniform"]


@dataclass(frozen=True)
class Gaussian:
    """φ(t) ∝ exp(-t² / (2 std²))"""

    std: float

    def log_density(self, t: Tensor) -> Tensor:
        return -(t / self.std).square() / 2 - math.log(self.std * math.sqrt(2 * math.pi))

    def log_difference(self, t: Tensor) -> Tensor:
        return Gaussian(self.std * math.sqrt(2)).log_density(t)

    def cdf(self, t: Tensor) -> Tensor:
        return torch.special.ndtr(t / self.std)


@dataclass(frozen=True)
class Laplace:
    """φ(t) ∝ exp(-|t| / b), b = std / √2"""

    std: float

    @property
    def b(self) -> float:
        return self.std / math.sqrt(2)

    def log_density(self, t: Tensor) -> Tensor:
        return -t.abs() / self.b - math.log(2 * self.b)

    def log_difference(self, t: Tensor) -> Tensor:
        return (t.abs() / self.b).log1p() - t.abs() / self.b - math.log(4 * self.b)

    def cdf(self, t: Tensor) -> Tensor:
        below = (t.clamp_max(0) / self.b).exp() / 2
        above = 1 - (-t.clamp_min(0) / self.b).exp() / 2
        return torch.where(t < 0, below, above)


@dataclass(frozen=True)
class Uniform:
    """φ constant for |t| ≤ w = √3 std, 0 elsewhere"""

    std: float

    @property
    def w(self) -> float:
        return self.std * math.sqrt(3)

    def log_density(self, t: Tensor) -> Tensor:
        inside = t.abs() <= self.w
        return torch.full_like(t, -math.log(2 * self.w)).where(inside, -math.inf)

    def log_difference(self, t: Tensor) -> Tensor:
        overlap = (2 * self.w - t.abs()).clamp_min(0)
        return (overlap / (4 * self.w**2)).log()

    def cdf(self, t: Tensor) -> Tensor:
        return ((t + self.w) / (2 * self.w)).clamp(0, 1)


Noise = Gaussian | Laplace | Uniform
_LAWS: dict[str, type[Noise]] = {"gaussian": Gaussian, "laplace": Laplace, "uniform": Uniform}


def noise(kind: str, std: float) -> Noise:
    """`ValueError`: an unknown kind."""
    if kind not in _LAWS:
        raise ValueError(f"kind must be 'gaussian', 'laplace' or 'uniform', got {kind!r}")
    return _LAWS[kind](std)
