"""Checks of arguments, shared by losses, similarities and evaluation."""

import math
from numbers import Integral, Real
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor

Scalar = int | float | Real | Tensor
Number = float | Tensor  # a Scalar, checked: a tensor of one element has no dimensions
Normalization = Literal["joint", "conditional"]
Metric = Literal["cosine", "euclidean"]
NORMALIZATIONS = ("joint", "conditional")


def scalar(value: Scalar) -> Number:
    """A float, or a tensor without dimensions: neither changes shapes or the features' dtype."""
    return single(value.reshape(())) if isinstance(value, Tensor) else float(value)


def real(value: Scalar) -> float:
    """A number as a float, without its history."""
    return float(value.detach() if isinstance(value, Tensor) else value)


def features(z: Tensor, *, name: str = "z", validate: bool = True, cosine: bool) -> Tensor:
    """z (n, d), checked, in at least float32; what its values are only if `validate`.

    `cosine`: rows must have a direction. Raises what `losses` says.
    """
    check_floating(name, z)
    if z.ndim != 2 or len(z) < 2 or z.shape[1] < 1:
        raise ValueError(
            f"{name} must have shape (n, d) with n >= 2 and d >= 1, got {tuple(z.shape)}"
        )
    if validate:
        check_values(name, z.detach(), cosine=cosine)
    return single(z)


def check_values(name: str, z: Tensor, *, cosine: bool) -> None:
    """`ValueError` unless z (n, d) is finite and, for cosine, has no row of zeros."""
    # Norms that are positive and finite say all of it in one pass over z. Squares that overflow or
    # vanish are no error: what the norms leave open is looked at entry by entry.
    norms = torch.linalg.vector_norm(z, dim=1)
    if holds(((norms > 0) & norms.isfinite()).all()):
        return
    if not holds(z.isfinite().all()):
        raise ValueError(
            f"{name} must be finite, got NaN or infinity: "
            "look for it before the loss (learning rate, precision)"
        )
    if cosine and not holds((z != 0).any(1).all()):
        raise ValueError(
            f"{name} has a row of zeros, which has no direction: cosine similarity needs a norm > 0"
        )


def single(x: Tensor) -> Tensor:
    """x in at least float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def check_floating(name: str, value: object) -> None:
    """`TypeError` for what is no floating-point tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a floating-point tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(
            f"{name} must be a floating-point tensor, got {value.dtype}: convert it with .float()"
        )


def check_settings(*, normalization: str = "joint", **positive: Scalar) -> None:
    """Positive numbers (finite, but for df = inf) and a known normalization."""
    for name, value in positive.items():
        check_number(name, value)
        if isinstance(value, Tensor):
            valid = holds(((value > 0) & value.isfinite()).all())
        else:
            valid = real(value) > 0 and (name == "df" or real(value) < math.inf)
        if not valid:
            raise ValueError(
                f"{name} must be positive and finite (df may be math.inf), got {value}"
            )
    if not isinstance(normalization, str) or normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization must be one of {NORMALIZATIONS}, got {normalization!r}")


def check_number(name: str, value: Scalar) -> None:
    """A real number within the range of a float, or a tensor that holds one."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be a scalar, got a tensor of shape {tuple(value.shape)}")
        if value.dtype == torch.bool or value.is_complex():
            raise TypeError(f"{name} must be a real number, got a tensor of {value.dtype}")
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{name} must be a number or a tensor of one element, got {type(value).__name__}"
        )
    try:
        float(value)
    except OverflowError:
        raise ValueError(f"{name} must be within the range of a float, got {value}") from None


def check_whole(name: str, value: object, least: int | None = None) -> None:
    """`TypeError` for what is no whole number, `ValueError` for one below `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def holds(condition: Tensor) -> bool:
    """Whether `condition` is true; true where that cannot be seen, under torch.compile and vmap."""
    if torch.compiler.is_compiling():
        return True
    try:
        return bool(condition)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return True  # vmap refuses control flow that depends on data


def check_points(name: str, z: Tensor) -> Tensor:
    """z, if it is (N, d) and finite."""
    check_floating(name, z)
    if z.ndim != 2 or 0 in z.shape:
        raise ValueError(f"{name} must have shape (N, d), N and d at least 1, got {tuple(z.shape)}")
    if not holds(z.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return z


def check_directions(name: str, z: Tensor) -> Tensor:
    """z, if it is (N, d), finite, and has no row of zeros."""
    empty = (check_points(name, z) == 0).all(1).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"{name} has a row of zeros, row {empty[0]}, which has no direction: leave it out"
        )
    return z


def check_like(name: str, x: Tensor, z: Tensor) -> None:
    """`ValueError` unless x has the shape of z."""
    check_floating(name, x)
    if x.shape != z.shape:
        raise ValueError(f"{name} must have shape {tuple(z.shape)}, got {tuple(x.shape)}")


def check_square(name: str, x: Tensor, n: int | None) -> None:
    """`ValueError` unless x is (n, n), or square where n is None."""
    check_floating(name, x)
    if x.ndim != 2 or x.shape[0] != x.shape[1] or n not in (None, len(x)):
        wanted = "(m, m)" if n is None else f"({n}, {n})"
        raise ValueError(f"{name} must have shape {wanted}, got {tuple(x.shape)}")


def checked_features(name: str, z: Any, *, least: int = 1, batched: bool = False) -> Tensor:
    """z (n, d), checked, in at least float32, n ≥ `least`; behind further axes if `batched`."""
    if not isinstance(z, Tensor):
        raise TypeError(
            f"{name} must be a floating-point tensor, got {type(z).__name__}: "
            "convert it with torch.as_tensor"
        )
    check_floating(name, z)
    if z.ndim < 2 or (z.ndim > 2 and not batched) or z.shape[-2] < least or z.shape[-1] < 1:
        raise ValueError(
            f"{name} must have shape (n, d) with n >= {least} and d >= 1, got {tuple(z.shape)}"
        )
    z = z.float() if z.dtype.itemsize < 4 else z
    # What is computed from features are squares of differences, and their sums.
    if not holds((2 * torch.linalg.vector_norm(z.detach())).square().isfinite()):
        raise ValueError(_not_finite(name, z))
    return z


def _not_finite(name: str, z: Tensor) -> str:
    bad = (~z.isfinite()).any(-1).flatten()
    if bad.any():
        first, count = int(bad.nonzero()[0]), int(bad.sum())
        found = f"NaN or infinity in {count} of {len(bad)} rows, first in row {first}"
        remedy = "look for it in what made the features, or leave such rows out"
        return f"{name} must be finite, got {found}: {remedy}"
    found = f"holds entries up to {z.abs().max().item():.3g}, whose squares overflow {z.dtype}"
    return f"{name} {found}: scale it, or convert it with .double()"


def checked_labels(
    name: str, labels: Any, rows: Tensor | None = None, *, of: str = ""
) -> Int64[Tensor, " n"]:
    """Labels, checked, as int64: with `rows`, one for each of them and on their device."""
    labels = whole_numbers(name, labels)
    if labels.ndim != 1:
        raise ValueError(
            f"{name} must have shape (n,), got {tuple(labels.shape)}: "
            "pass class numbers, not one-hot rows"
        )
    if rows is not None and len(labels) != len(rows):
        raise ValueError(f"{name} must be one for each row of {of}, {len(rows)}, got {len(labels)}")
    if (labels < 0).any():
        negative = int((labels < 0).sum())
        raise ValueError(
            f"{name} must be class numbers from 0, got {int(labels.min())}: "
            f"leave the {negative} negative ones out"
        )
    return labels if rows is None else labels.to(rows.device)


def whole_numbers(name: str, values: Any) -> Tensor:
    """Integers of any width as int64. `TypeError` for what is no integer tensor."""
    if not isinstance(values, Tensor):
        raise TypeError(
            f"{name} must be an integer tensor, got {type(values).__name__}: "
            "convert it with torch.as_tensor"
        )
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(
            f"{name} must be an integer tensor, got {values.dtype}: convert it with .long()"
        )
    return values.long()


def require(holds: bool | Tensor, name: str, value: object, rule: str) -> None:
    """`ValueError` that names the argument, its value and the rule, unless the rule holds."""
    if not holds:
        shown = repr(value)
        if isinstance(value, Tensor):
            shown = f"a tensor of shape {tuple(value.shape)}"
        raise ValueError(f"{name} is {shown}, must be {rule}.")
