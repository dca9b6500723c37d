"""TODO"""

import math
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .checks import Normalization, Number, Scalar, check_settings, features, holds, scalar

# From here on Student's t is the Gaussian, in all digits: they differ by d⁴/df.
LARGEST_DF = 1e30


def log_q_cosine(
    z: Float[Tensor, "N d"],
    *,
    temperature: Scalar = 0.5,
    normalization: Normalization = "conditional",
) -> Float[Tensor, "N N"]:
    """log Q for  s_jk = exp(cos(z_j, z_k) / temperature); the diagonal is -inf. The Q of SimCLR."""
    check_settings(temperature=temperature, normalization=normalization)
    z, temperature = features(z, cosine=True), scalar(temperature)
    with full_precision(z):
        u = unit_scaled(z, temperature)
        return in_precision_of(z, log_q((u / temperature) @ u.T, normalization))


def log_q_gaussian(
    z: Float[Tensor, "N d"],
    *,
    temperature: Scalar = 0.5,
    normalization: Normalization = "conditional",
) -> Float[Tensor, "N N"]:
    """log Q for  s_jk = exp(-‖z_j - z_k‖² / (2 temperature)); the default is SNE's exp(-‖·‖²). The diagonal is -inf."""
    return log_q_student(z, temperature=temperature, df=math.inf, normalization=normalization)


def log_q_student(
    z: Float[Tensor, "N d"],
    *,
    temperature: Scalar = 1.0,
    df: Scalar = 1.0,
    normalization: Normalization = "joint",
) -> Float[Tensor, "N N"]:
    """log Q for  s_jk = (1 + ‖z_j - z_k‖²/(temperature·df))^(-(df+1)/2); the defaults are t-SNE's. The diagonal is -inf."""
    check_settings(temperature=temperature, df=df, normalization=normalization)
    z, temperature, df = features(z, cosine=False), scalar(temperature), scalar(df)
    with full_precision(z):
        squared = unchecked_squared_distances(student_scaled(z, temperature, df))
        return in_precision_of(z, log_q(student_logit(squared, df), normalization))


def squared_distances(z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    """‖z_j - z_k‖² by one matrix product, without an N × N × d temporary.

    Rounding errs by about eps·R², R the largest distance to the centroid: centring keeps a common shift from entering R.
    """
    z = features(z, cosine=False)
    with full_precision(z):
        return in_precision_of(z, unchecked_squared_distances(wide_enough(z, largest(z))))


def unchecked_squared_distances(z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    z = z - z.detach().mean(0)  # distances, and so gradients, do not depend on the shift
    norms = z.square().sum(1, keepdim=True)
    one = torch.ones_like(norms)
    return (torch.cat([-2 * z, norms, one], 1) @ torch.cat([z, one, norms], 1).T).relu_()


def log_q(logits: Float[Tensor, "N N"], normalization: str) -> Float[Tensor, "N N"]:
    logits = logits.masked_fill_(diagonal(logits), -math.inf)
    by_row = logits.logsumexp(1, keepdim=True)
    return logits - (by_row.logsumexp(0) if normalization == "joint" else by_row)


def unit_scaled(z: Tensor, temperature: Number, *, validate: bool = True) -> Tensor:
    """Unit rows, in a precision in which cosines over the temperature are finite."""
    largest = 1 / detached(temperature)
    return unit(wide_enough(z, largest, power=1) if validate else z)


def unit(z: Tensor) -> Tensor:
    """Rows over their norms, each first over its largest entry: squares neither overflow nor underflow."""
    largest = z.detach().abs().amax(1, keepdim=True)
    return F.normalize(z / largest.clamp_min(torch.finfo(z.dtype).tiny), dim=1)


def student_scaled(z: Tensor, temperature: Number, df: Number, *, validate: bool = True) -> Tensor:
    """z in units in which the kernel is (1 + ‖·‖²)^(-(df+1)/2), or exp(-‖·‖²).

    n·d operations instead of n². In a precision in which squares of it are finite.
    """
    shape = 2.0 if is_gaussian(df) else df
    if validate:
        unit = detached(temperature) ** 0.5 * detached(shape) ** 0.5
        z = wide_enough(z, largest(z) / unit)
    return z * (temperature**-0.5 * shape**-0.5)  # the product of the two might be 0


def student_logit(squared_distance: Tensor, df: Number) -> Tensor:
    return -squared_distance if is_gaussian(df) else squared_distance.log1p().mul_(-(df + 1) / 2)


def is_gaussian(df: Number) -> bool:
    return not isinstance(df, Tensor) and df >= LARGEST_DF


def detached(value: Number) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().double()
    return torch.tensor(value, dtype=torch.float64)


def largest(z: Tensor) -> Tensor:
    return z.detach().abs().amax().double()


def wide_enough(z: Tensor, largest: Tensor, *, power: int = 2) -> Tensor:
    """z, in float64 if powers of numbers up to `largest`, summed, overflow in its own precision.

    `ValueError` if they do in float64.
    """
    if torch.compiler.is_compiling():
        return z
    for dtype in (z.dtype, torch.float64):
        # A sum over rows and columns; and of four terms, as ‖a - b‖² is.
        powers = torch.finfo(dtype).max / (32 * z.numel()) ** (power / 2)
        if holds(largest <= powers ** (1 / power)):
            return z.to(dtype)
    raise ValueError(
        f"features over the temperature reach {float(largest):.3g}, whose powers are beyond float64: "
        "rescale the features, or raise the temperature (or df)"
    )


def in_precision_of(z: Tensor, value: Tensor) -> Tensor:
    """`value`, which may have been computed in float64 because of `_wide_enough`."""
    if value.dtype == z.dtype:
        return value
    result = value.to(z.dtype)
    if not holds((result.isfinite() == value.isfinite()).all()):
        reached = float(value.detach().nan_to_num(posinf=0, neginf=0).abs().max())
        raise ValueError(
            f"the result reaches {reached:.3g}, beyond {z.dtype}: pass features as .double(), rescale them, or raise the temperature"
        )
    return result


def diagonal(square: Tensor) -> Tensor:
    return torch.eye(len(square), dtype=torch.bool, device=square.device)


def full_precision(z: Tensor) -> AbstractContextManager:
    """Autocast would send the Gram matrix back to half precision."""
    return torch.autocast(z.device.type, enabled=False)
