"""Checks of arguments, and their conversion to float64 on the CPU."""

import math

from jaxtyping import Float
from torch import Tensor

from sscl_core import checks

LARGEST = 1e100  # of a coordinate: squares of more, and their sums, overflow


def points(name: str, x: object, *, like: Tensor | None = None) -> Float[Tensor, "n d"]:
    """Points between which distances are taken, checked: floating-point, finite, at most 1e100."""
    x = _matrix(name, x)
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating-point, got {x.dtype}: pass {name}.double()")
    _check_shape(name, x, like)
    _check_range(name, bool((x.abs() < LARGEST).all()))
    return as_double(x)


def values(name: str, x: object, *, like: Tensor | None = None) -> Float[Tensor, "n d"]:
    """Points of which coordinates are only compared, checked: finite, of any type of number."""
    x = _matrix(name, x)
    _check_shape(name, x, like)
    _check_range(name, bool(x.isfinite().all()))
    return as_double(x)


def log_densities(log_a: object) -> Float[Tensor, "n m"]:
    """Log densities of anchors (rows) and views (columns), checked: not NaN, infinities allowed."""
    if not isinstance(log_a, Tensor):
        raise TypeError(f"log_a must be a tensor of log densities, got {type(log_a).__name__}")
    if log_a.ndim != 2 or 0 in log_a.shape:
        shape = tuple(log_a.shape)
        raise ValueError(f"log_a must have shape (n, m), anchors and views, got {shape}")
    if bool(log_a.isnan().any()):
        raise ValueError("log_a must hold log densities, got NaN: look for it in what made them")
    return as_double(log_a)


def as_double(x: Tensor) -> Tensor:
    return x.detach().double().cpu()


def number(name: str, value: checks.Scalar) -> float:
    checks.check_number(name, value)
    return checks.real(value)


def positive(name: str, value: checks.Scalar) -> float:
    found = number(name, value)
    if not 0 < found < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return found


def strength_of_mixup(strength: checks.Scalar) -> float:
    found = number("strength", strength)
    if not 0 < found <= 1:
        rule = "in (0, 1], the largest weight of the partner"
        raise ValueError(f"strength must be {rule}, got {strength}")
    return found


def perplexity_below(k: int, perplexity: checks.Scalar) -> float:
    """A perplexity that k neighbors allow: more than 1, less than k."""
    found = number("perplexity", perplexity)
    if not 1 < found < k:
        rule = f"in (1, {k}), of {k} possible neighbors"
        remedy = "change it or give more neighbors"
        raise ValueError(f"perplexity must be {rule}, got {perplexity}: {remedy}")
    return found


def _matrix(name: str, x: object) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of points (n, d), got {type(x).__name__}")
    return x


def _check_shape(name: str, x: Tensor, like: Tensor | None) -> None:
    fits = x.ndim == 2 and 0 not in x.shape
    if like is not None:
        fits = fits and x.shape[1] == like.shape[1]
    if not fits:
        width = "d" if like is None else like.shape[1]
        raise ValueError(f"{name} must have shape (n, {width}), got {tuple(x.shape)}")


def _check_range(name: str, holds: bool) -> None:
    if not holds:
        found = "NaN, infinity or more: drop, fill in or rescale those rows first"
        raise ValueError(f"{name} must be finite and below 1e100, got {found}")
