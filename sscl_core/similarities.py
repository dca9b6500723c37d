"""Similarities s of pairs of features, by their logarithms, and the Q that each of them gives.

A similarity is `Cosine` or `Student` (with df = inf the Gaussian). It holds its settings and knows
its metric. Its methods take features as `checks.features` returns them; `log_q_cosine`,
`log_q_gaussian` and `log_q_student` check theirs, and raise what `losses` says.
"""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from .checks import Metric, Normalization, Number, Scalar, check_settings, features, holds, scalar

# From here on Student's t is the Gaussian, in all digits: they differ by d⁴/df.
LARGEST_DF = 1e30


class _Similarity:
    """What the similarities share: log s of whole batches, and Q, from rows in units of their own.

    log s comes in the precision of the features, or in float64 where it would overflow there.
    """

    metric: ClassVar[Metric]

    @property
    def degrees_of_freedom(self) -> Number:
        """Beside rows, all that log s depends on: df; inf where there is none to speak of."""
        return math.inf

    def rows(self, z: Float[Tensor, "N d"], *, validate: bool = True) -> Float[Tensor, "N d"]:
        """The features in units in which log s is short to write: n·d operations instead of n²."""
        raise NotImplementedError

    def log_s_of_pairs(
        self, a: Float[Tensor, "*#n d"], b: Float[Tensor, "*#n d"]
    ) -> Float[Tensor, "..."]:
        """log s of each row of a with the same row of b, both from `rows`."""
        raise NotImplementedError

    def log_s_of_all(self, rows: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
        """log s of all pairs of rows by one matrix product, `rows` as the method of that name."""
        raise NotImplementedError

    def log_s(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
        """log s_jk of all pairs of features, j = k among them."""
        with full_precision(z):
            return self.log_s_of_all(self.rows(z))

    def log_s_of_views(
        self, z: Float[Tensor, "two_n d"], *, validate: bool = True
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "two_n two_n"]]:
        """log s of the positive pairs, rows i and i + n of z, and of all pairs.

        The former is exact however near the two are; the latter has the rounding of a product.
        """
        with full_precision(z):
            rows = self.rows(z, validate=validate)
            return self.log_s_of_pairs(*rows.chunk(2)), self.log_s_of_all(rows)

    def log_q(
        self, z: Float[Tensor, "N d"], *, normalization: Normalization
    ) -> Float[Tensor, "N N"]:
        """log Q: log s less the logarithm of its sum off the diagonal, where it is -inf."""
        return in_precision_of(z, log_q(self.log_s(z), normalization))


@dataclass(frozen=True)
class Cosine(_Similarity):
    """log s_jk = cos(z_j, z_k) / temperature. `rows` are unit vectors over √temperature."""

    temperature: Scalar = 0.5
    metric: ClassVar[Metric] = "cosine"

    def __post_init__(self) -> None:
        check_settings(temperature=self.temperature)

    def rows(self, z: Float[Tensor, "N d"], *, validate: bool = True) -> Float[Tensor, "N d"]:
        """Rows in a precision in which cosines over the temperature are finite."""
        temperature = scalar(self.temperature)
        largest = 1 / detached(temperature)
        return unit(wide_enough(z, largest, power=1) if validate else z) * temperature**-0.5

    def log_s_of_pairs(
        self, a: Float[Tensor, "*#n d"], b: Float[Tensor, "*#n d"]
    ) -> Float[Tensor, "..."]:
        return (a * b).sum(-1)

    def log_s_of_all(self, rows: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
        return rows @ rows.T

    def slope(self, squared: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """-∂ log s / ∂ squared distance of unit features: 1 / (2 temperature) everywhere."""
        return torch.zeros_like(squared) + 1 / (2 * scalar(self.temperature))

    def distances(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
        """Angles, by the chord, in float64: of small angles the cosine would say little."""
        chord = squared_distances(unit(z.double())).sqrt()
        return (2 * (chord / 2).clamp(max=1).asin()).to(z.dtype)

    def slope_in_log_distance(self, d: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """-∂ log s / ∂ log d for angles d:  d sin(d) / temperature."""
        return d * d.sin() / scalar(self.temperature)


@dataclass(frozen=True)
class Student(_Similarity):
    """log s_jk = -(df + 1)/2 · log(1 + ‖z_j - z_k‖² / (temperature · df)).

    df = inf is the Gaussian, -‖z_j - z_k‖² / (2 temperature). `rows` are features in units of
    √(temperature·df), of √(2 temperature) for the Gaussian: log s is then a function of their
    squared distances and df alone.
    """

    temperature: Scalar = 1.0
    df: Scalar = 5.0
    metric: ClassVar[Metric] = "euclidean"

    def __post_init__(self) -> None:
        check_settings(temperature=self.temperature, df=self.df)

    def rows(self, z: Float[Tensor, "N d"], *, validate: bool = True) -> Float[Tensor, "N d"]:
        """Features over their unit, in a precision in which squares of them are finite."""
        temperature, unit = scalar(self.temperature), self._unit()
        if validate:
            length = detached(temperature) ** 0.5 * detached(unit) ** 0.5
            z = wide_enough(z, largest(z) / length)
        return z * (temperature**-0.5 * unit**-0.5)  # the product of the two might be 0

    def log_s_of_pairs(
        self, a: Float[Tensor, "*#n d"], b: Float[Tensor, "*#n d"]
    ) -> Float[Tensor, "..."]:
        return self._log_s_at((a - b).square().sum(-1))

    def log_s_of_all(self, rows: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
        return self._log_s_at(unchecked_squared_distances(rows))

    def log_s_of_squared(self, squared: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """log s of pairs of features from their squared distances."""
        return self._log_s_at(squared / scalar(self.temperature) / self._unit())

    def slope(self, squared: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """-∂ log s / ∂ squared distance:  (df + 1) / (2 (temperature · df + squared)).

        1 / (2 temperature) for the Gaussian.
        """
        temperature, df = scalar(self.temperature), scalar(self.df)
        if is_gaussian(df):
            return torch.zeros_like(squared) + 1 / (2 * temperature)
        return (df + 1) / 2 / (temperature * df + squared)

    def distances(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
        """Euclidean distances, in float64: the root of a rounding error is not small."""
        return squared_distances(z.double()).sqrt().to(z.dtype)

    def slope_in_log_distance(self, d: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """-∂ log s / ∂ log d:  (df + 1) d² / (temperature · df + d²), which levels off at df + 1.

        d² / temperature for the Gaussian.
        """
        temperature, df = scalar(self.temperature), scalar(self.df)
        if is_gaussian(df):
            return d.square() / temperature
        return (df + 1) * d.square() / (temperature * df + d.square())

    @property
    def degrees_of_freedom(self) -> Number:
        df = scalar(self.df)
        return math.inf if is_gaussian(df) else df

    def _unit(self) -> Number:
        """The unit of squared length of `rows`, over the temperature."""
        df = scalar(self.df)
        return 2.0 if is_gaussian(df) else df

    def _log_s_at(self, squared: Tensor) -> Tensor:
        """log s at squared distances of rows."""
        df = scalar(self.df)
        return -squared if is_gaussian(df) else squared.log1p().mul_(-(df + 1) / 2)


Similarity = Cosine | Student


def log_q_cosine(
    z: Float[Tensor, "N d"],
    *,
    temperature: Scalar = 0.5,
    normalization: Normalization = "conditional",
) -> Float[Tensor, "N N"]:
    """log Q for  s_jk = exp(cos(z_j, z_k) / temperature); the diagonal is -inf.

    The Q of SimCLR.
    """
    return _checked_log_q(Cosine(temperature), z, normalization)


def log_q_gaussian(
    z: Float[Tensor, "N d"],
    *,
    temperature: Scalar = 0.5,
    normalization: Normalization = "conditional",
) -> Float[Tensor, "N N"]:
    """log Q for  s_jk = exp(-‖z_j - z_k‖² / (2 temperature)); the diagonal is -inf.

    The default is SNE's exp(-‖·‖²).
    """
    return _checked_log_q(Student(temperature, math.inf), z, normalization)


def log_q_student(
    z: Float[Tensor, "N d"],
    *,
    temperature: Scalar = 1.0,
    df: Scalar = 1.0,
    normalization: Normalization = "joint",
) -> Float[Tensor, "N N"]:
    """log Q for  s_jk = (1 + ‖z_j - z_k‖²/(temperature·df))^(-(df+1)/2); the diagonal is -inf.

    The defaults are t-SNE's.
    """
    return _checked_log_q(Student(temperature, df), z, normalization)


def _checked_log_q(
    similarity: Similarity, z: Tensor, normalization: Normalization
) -> Float[Tensor, "N N"]:
    check_settings(normalization=normalization)
    z = features(z, cosine=similarity.metric == "cosine")
    return similarity.log_q(z, normalization=normalization)


def squared_distances(z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    """‖z_j - z_k‖² by one matrix product, without an N × N × d temporary.

    Rounding errs by about eps·R², R the largest distance to the centroid. Centring keeps a common
    shift from entering R.
    """
    z = features(z, cosine=False)
    with full_precision(z):
        return in_precision_of(z, unchecked_squared_distances(wide_enough(z, largest(z))))


def unchecked_squared_distances(z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    """`squared_distances` in the precision that z has."""
    z = z - z.detach().mean(0)  # distances, and so gradients, do not depend on the shift
    norms = z.square().sum(1, keepdim=True)
    one = torch.ones_like(norms)
    left, right = torch.cat([-2 * z, norms, one], 1), torch.cat([z, one, norms], 1)
    return (left @ right.T).relu_()


def log_q(logits: Float[Tensor, "N N"], normalization: str) -> Float[Tensor, "N N"]:
    """log Q of log s, which is overwritten: its diagonal becomes -inf."""
    logits = logits.masked_fill_(diagonal(logits), -math.inf)
    by_row = logits.logsumexp(1, keepdim=True)
    return logits - (by_row.logsumexp(0) if normalization == "joint" else by_row)


def unit(z: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
    """Rows over their norms.

    Each is first divided by its largest entry: squares neither overflow nor underflow.
    """
    largest = z.detach().abs().amax(1, keepdim=True)
    return F.normalize(z / largest.clamp_min(torch.finfo(z.dtype).tiny), dim=1)


def is_gaussian(df: Number) -> bool:
    """Whether Student's t with so many degrees of freedom is computed as the Gaussian."""
    return not isinstance(df, Tensor) and df >= LARGEST_DF


def detached(value: Number) -> Float[Tensor, ""]:
    """A number, in float64, without its history."""
    if isinstance(value, Tensor):
        return value.detach().double()
    return torch.tensor(value, dtype=torch.float64)


def largest(z: Tensor) -> Float[Tensor, ""]:
    """The largest absolute entry, in float64, without its history."""
    return z.detach().abs().amax().double()


def wide_enough(z: Tensor, largest: Float[Tensor, ""], *, power: int = 2) -> Tensor:
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
        f"features over the temperature reach {float(largest):.3g}, whose powers are beyond "
        "float64: rescale the features, or raise the temperature (or df)"
    )


def in_precision_of(z: Tensor, value: Tensor) -> Tensor:
    """`value` in the precision of z, where `wide_enough` had it computed in float64.

    `ValueError` if it is beyond that precision.
    """
    if value.dtype == z.dtype:
        return value
    result = value.to(z.dtype)
    if not holds((result.isfinite() == value.isfinite()).all()):
        reached = float(value.detach().nan_to_num(posinf=0, neginf=0).abs().max())
        raise ValueError(
            f"the result reaches {reached:.3g}, beyond {z.dtype}: "
            "pass features as .double(), rescale them, or raise the temperature"
        )
    return result


def diagonal(square: Float[Tensor, "N N"]) -> Bool[Tensor, "N N"]:
    """The mask of the pairs of a row with itself."""
    return torch.eye(len(square), dtype=torch.bool, device=square.device)


def same_sample(n: int, device: torch.device) -> Bool[Tensor, "two_n two_n"]:
    """The mask of self and positive pairs among the rows of [z1; z2]: equal modulo n."""
    return torch.eye(n, dtype=torch.bool, device=device).repeat(2, 2)


def full_precision(z: Tensor) -> AbstractContextManager:
    """Autocast would send the Gram matrix back to half precision."""
    return torch.autocast(z.device.type, enabled=False)
