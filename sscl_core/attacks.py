"""Small changes of inputs that are sought on purpose, and how steep a function is where it stands.

The attack is projected gradient descent (Madry et al., ICLR 2018) on any loss of one number a row:
the cross-entropy of a classifier, or, without labels, how far the features move. What it finds is a
lower bound of what can be done, and so is the local Lipschitz constant.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.func import jvp, vjp
from torch.nn import functional as F

from .checks import check_floating, check_whole, checked_labels
from .similarities import unit

Norm = Literal["l2", "linf"]
NORMS: tuple[Norm, ...] = ("l2", "linf")
Function = Callable[[Tensor], Tensor]


def pgd(
    loss: Function,
    x: Float[Tensor, "n ..."],
    *,
    radius: float,
    norm: Norm = "l2",
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n ..."]:
    """x' in [0, 1] with ‖x' - x‖ ≤ radius and a large loss(x')_i, each row by itself.

    Steps of length `step_size` (2.5 · radius / steps by default) along the gradient, for "linf"
    along its sign, each followed by the projection onto the ball and onto [0, 1]. It begins at x,
    and again `restarts` - 1 times at a random point of the ball. Every row keeps the best point
    that any step reached, so more restarts never find less, nor does x itself. `generator` is on
    the CPU, wherever x is.

    `ValueError`: a radius or step size that is not positive and finite, an unknown norm, steps or
    restarts below 1, x without rows, outside [0, 1] or not finite, a loss that is not one number a
    row. `TypeError`: x that is no floating-point tensor.
    """
    _check_attack(x, radius, norm, steps, step_size, restarts)
    x = x.detach()
    step = 2.5 * radius / steps if step_size is None else step_size
    best, found = x.clone(), x.new_full(x.shape[:1], -math.inf)
    for number in range(restarts):
        at = x if number == 0 else random_start(x, radius, norm, generator)
        for _ in range(steps):
            values, slope = _value_and_slope(loss, at)
            best, found = _better(at, values, best, found)
            at = project(at + step * _steepest(slope, norm), x, radius, norm)
        with torch.no_grad():
            best, found = _better(at, _rows(loss, at), best, found)
    return best


def _better(at: Tensor, values: Tensor, best: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    larger = values > found
    rows = larger.view(-1, *[1] * (at.ndim - 1))
    return torch.where(rows, at, best), torch.where(larger, values, found)


def _value_and_slope(loss: Function, at: Tensor) -> tuple[Tensor, Tensor]:
    at = at.detach().requires_grad_()
    with torch.enable_grad():
        values = _rows(loss, at)
        (slope,) = torch.autograd.grad(values.sum(), at)
    # Where the loss has a minimum, as a displacement has at 0, any direction leads up.
    flat = slope.flatten(1).abs().amax(1) == 0
    slope = torch.where(flat.view(-1, *[1] * (at.ndim - 1)), _fixed_direction(slope), slope)
    return values.detach(), slope


def _fixed_direction(like: Tensor) -> Tensor:
    """The same for every call: the attack has no randomness but in its restarts."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(like.shape, generator=generator).to(like)


def _rows(loss: Function, x: Tensor) -> Tensor:
    values = loss(x)
    if values.shape != x.shape[:1]:
        rule = f"one number a row, shape ({len(x)},)"
        raise ValueError(f"loss must give {rule}, got shape {tuple(values.shape)}")
    return values


def _steepest(slope: Tensor, norm: Norm) -> Tensor:
    """The direction of length 1 in which the loss grows fastest."""
    if norm == "linf":
        return slope.sign()
    return _units(slope)


def project(moved: Tensor, x: Tensor, radius: float, norm: Norm) -> Tensor:
    """The point of the ball about x near `moved`, then its part in [0, 1], which is in the ball."""
    change = moved - x
    if norm == "linf":
        change = change.clamp(-radius, radius)
    else:
        length = change.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
        change = change * (radius / length.clamp_min(1e-30)).clamp(max=1)
    return (x + change).clamp(0, 1)


def random_start(
    x: Tensor, radius: float, norm: Norm, generator: torch.Generator | None = None
) -> Tensor:
    """x + a random change of norm `radius` ("linf": uniform in the ball), cut to [0, 1]."""
    if norm == "linf":
        change = 2 * torch.rand(x.shape, generator=generator).to(x) - 1
    else:
        change = torch.randn(x.shape, generator=generator).to(x)
        change = _units(change)
    return (x + radius * change).clamp(0, 1)


def displacement(f: Function, x: Float[Tensor, "n ..."]) -> Function:
    """The label-free loss: ‖f(x') - f(x)‖ of each row, for x the rows that are attacked."""
    with torch.no_grad():
        own = f(x)
    return lambda moved: (f(moved) - own).flatten(1).norm(dim=1)


def mistake(logits: Function, labels: Integer[Tensor, " n"]) -> Function:
    """The cross-entropy of each row, for rows with these labels. Raises as `evaluate` says."""
    labels = checked_labels("labels", labels)
    return lambda x: F.cross_entropy(logits(x), labels, reduction="none")


def local_lipschitz(
    f: Function,
    x: Float[Tensor, "n ..."],
    *,
    iterations: int = 5,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " n"]:
    """A lower bound of the largest singular value of the Jacobian of f at each x.

    ‖J v‖ for the unit vector v that so many power iterations of Jᵀ J reach from a random start. f
    acts on rows. The bound grows with the iterations, and is exact in the limit.

    `ValueError`: iterations below 1. `TypeError`: x that is no floating-point tensor.
    """
    check_floating("x", x)
    check_whole("iterations", iterations, 1)
    v = _units(torch.randn(x.shape, generator=generator).to(x))
    for _ in range(iterations):
        _, along = jvp(f, (x,), (v,))  # type: ignore[misc]
        _, back = vjp(f, x)  # type: ignore[misc]
        v = _units(back(along)[0])
    return jvp(f, (x,), (v,))[1].flatten(1).norm(dim=1).detach()


def _units(v: Tensor) -> Tensor:
    """Rows over their norms, however small these are."""
    return unit(v.flatten(1)).view_as(v)


def _check_attack(
    x: Any, radius: Any, norm: Any, steps: Any, step_size: Any, restarts: Any
) -> None:
    check_floating("x", x)
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"x must have shape (n, ...) with n >= 1, got {tuple(x.shape)}")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError(
            f"x must be in [0, 1], got {x.min().item():.3g} to {x.max().item():.3g}: "
            "divide bytes by 255"
        )
    lengths = {"radius": radius} | ({} if step_size is None else {"step_size": step_size})
    for name, value in lengths.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")
    check_whole("steps", steps, 1)
    check_whole("restarts", restarts, 1)
