"""Contrastive losses, and the stochastic-neighbor-embedding objective that they are instances of.

Two views z1, z2 of n samples are stacked as Z = [z1; z2], N = 2n rows; the positive of row i is row i ± n.
A similarity is held by its logarithm, the logit l_jk = log s_jk, and a Q is l minus its log-sum-exp off the diagonal:
over each row (conditional) or over all ordered pairs (joint). Source: Hu et al., arXiv 2205.14814.

Errors, the same for every function here: `TypeError` for what is no floating-point tensor (or no number); `ValueError` for shapes
(views that differ, not 2-D, n < 2) and settings (temperature or df not positive, unknown normalization) always, and for values
(non-finite features, zero rows under cosine, bad weights) unless `validate=False`; values cannot be seen, and are
not checked, under `torch.compile` and `vmap`.

Numbers are real numbers of any kind (Python's, NumPy's, fractions), or tensors of one element.
float16 and bfloat16 features are computed in float32, and float32 features in float64 where their
squares, over the temperature, overflow: that is seen as values are. What comes out has the
precision of the features, at least float32, and is a `ValueError` if it is beyond it.
"""

import math
from contextlib import AbstractContextManager
from numbers import Integral, Real
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Scalar = int | float | Real | Tensor
Number = float | Tensor  # a Scalar, checked: a tensor of one element has no dimensions
Normalization = Literal["joint", "conditional"]
NORMALIZATIONS = ("joint", "conditional")
# From here on Student's t is the Gaussian, in all digits: they differ by d⁴/df.
LARGEST_DF = 1e30


def info_nce(
    z1: Float[Tensor, "n d"],
    z2: Float[Tensor, "n d"],
    *,
    temperature: Scalar = 0.5,
    weights: Float[Tensor, " n"] | None = None,
    validate: bool = True,
) -> Float[Tensor, ""]:
    """mean over the 2n anchors i of  w_i · ( -l_{i,i'} + log Σ_{k≠i} exp l_ik ),   l_jk = cos(z_j, z_k) / temperature.

    NT-Xent of SimCLR, i' being the other view of i. `weights` (n,) are nonnegative, one a pair, and rescaled to mean 1.
    """
    _check_settings(temperature=temperature)
    z, w = _prepare(z1, z2, weights, validate=validate, cosine=True)
    temperature = _scalar(temperature)
    with _full_precision(z):
        u = _unit_scaled(z, temperature, validate=validate)
        u1, u2 = u.chunk(2)
        positive = (u1 * u2).sum(1) / temperature
        value = _loss(positive, (u / temperature) @ u.T, w, "conditional")
        return _in_precision_of(z, value)


def t_simclr(
    z1: Float[Tensor, "n d"],
    z2: Float[Tensor, "n d"],
    *,
    temperature: Scalar = 1.0,
    df: Scalar = 5.0,
    normalization: Normalization = "joint",
    weights: Float[Tensor, " n"] | None = None,
    validate: bool = True,
) -> Float[Tensor, ""]:
    """With  s_jk = (1 + ‖z_j - z_k‖² / (temperature · df))^(-(df + 1)/2)  and i' the other view of i, over the 2n anchors i:

    joint:        -mean w_i log s_ii'  +  log Σ_{j≠k} s_jk
    conditional:   mean w_i · ( -log s_ii' + log Σ_{k≠i} s_ik )

    `df` > 0 are Student's degrees of freedom ν: `math.inf` is the Gaussian exp(-‖·‖²/(2 temperature)), a tensor can be learned.
    Features are not normalised, so `temperature` is a unit of squared length: t_simclr(z, τ) = t_simclr(z/√τ, 1).
    """
    _check_settings(temperature=temperature, df=df, normalization=normalization)
    z, w = _prepare(z1, z2, weights, validate=validate, cosine=False)
    temperature, df = _scalar(temperature), _scalar(df)
    with _full_precision(z):
        scaled = _student_scaled(z, temperature, df, validate=validate)
        a, b = scaled.chunk(2)
        # Positive pairs by their difference, not from the Gram matrix: exact however close they are.
        positive = _student_logit((a - b).square().sum(1), df)
        logits = _student_logit(_squared_distances(scaled), df)
        return _in_precision_of(z, _loss(positive, logits, w, normalization))


def spectral_contrastive(z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], *, validate: bool = True) -> Float[Tensor, ""]:
    """-2 mean_i z1_i·z2_i + mean of (z_i·z_j)² over the 2n(2n - 2) ordered pairs of rows that are neither equal nor one sample's views.

    Features are not normalised. Nothing holds the norm of a row that is orthogonal to all its negatives: over fresh batches the minimiser
    is the augmentation graph's top eigenvectors, on one fixed batch there is no lower bound. Source: HaoChen et al. 2021.
    """
    z = _prepare(z1, z2, None, validate=validate, cosine=False)[0]
    with _full_precision(z):
        x = _wide_enough(z, _largest(z), power=4) if validate else z
        a, b = x.chunk(2)
        itself_or_positive = torch.eye(len(a), dtype=torch.bool, device=x.device).repeat(2, 2)
        squares = (x @ x.T).masked_fill(itself_or_positive, 0.0).square()
        value = -2 * (a * b).sum(1).mean() + squares.sum() / (len(x) * (len(x) - 2))
        return _in_precision_of(z, value)


def sne_objective(P: Float[Tensor, "N N"], log_Q: Float[Tensor, "N N"]) -> Float[Tensor, ""]:
    """KL(P ‖ Q) = Σ_{i≠j} P_ij (log P_ij - log Q_ij),  0·log 0 = 0; the diagonals of both never enter.

    The sum of the rows' divergences if P and Q are conditional, one divergence if they are joint. Infinite where Q = 0 < P.
    """
    for name, value in (("P", P), ("log_Q", log_Q)):
        _check_floating(name, value)
    if P.ndim != 2 or P.shape[0] != P.shape[1] or P.shape != log_Q.shape:
        raise ValueError(f"P and log_Q must be square and of one shape (N, N), got {tuple(P.shape)}, {tuple(log_Q.shape)}")
    if not _holds((P >= 0).all()):
        raise ValueError("P must be nonnegative without NaN, got an entry that is not: pass probabilities, not logarithms")
    P, log_Q = _single(P), _single(log_Q)
    support = (P > 0) & ~_diagonal(P)
    # Entries off the support are replaced before the logarithm and the product, so that neither -inf · 0 nor its gradient occurs.
    P_safe, log_Q_safe = P.where(support, 1.0), log_Q.where(support, 0.0)
    return (P.where(support, 0.0) * (P_safe.log() - log_Q_safe)).sum()


def log_q_cosine(
    z: Float[Tensor, "N d"], *, temperature: Scalar = 0.5, normalization: Normalization = "conditional"
) -> Float[Tensor, "N N"]:
    """log Q for  s_jk = exp(cos(z_j, z_k) / temperature); the diagonal is -inf. The Q of SimCLR."""
    _check_settings(temperature=temperature, normalization=normalization)
    z, temperature = _features(z, cosine=True), _scalar(temperature)
    with _full_precision(z):
        u = _unit_scaled(z, temperature)
        return _in_precision_of(z, _log_q((u / temperature) @ u.T, normalization))


def log_q_gaussian(
    z: Float[Tensor, "N d"], *, temperature: Scalar = 0.5, normalization: Normalization = "conditional"
) -> Float[Tensor, "N N"]:
    """log Q for  s_jk = exp(-‖z_j - z_k‖² / (2 temperature)); the default is SNE's exp(-‖·‖²). The diagonal is -inf."""
    return log_q_student(z, temperature=temperature, df=math.inf, normalization=normalization)


def log_q_student(
    z: Float[Tensor, "N d"], *, temperature: Scalar = 1.0, df: Scalar = 1.0, normalization: Normalization = "joint"
) -> Float[Tensor, "N N"]:
    """log Q for  s_jk = (1 + ‖z_j - z_k‖²/(temperature·df))^(-(df+1)/2); the defaults are t-SNE's. The diagonal is -inf."""
    _check_settings(temperature=temperature, df=df, normalization=normalization)
    z, temperature, df = _features(z, cosine=False), _scalar(temperature), _scalar(df)
    with _full_precision(z):
        squared = _squared_distances(_student_scaled(z, temperature, df))
        return _in_precision_of(z, _log_q(_student_logit(squared, df), normalization))


def squared_distances(z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    """‖z_j - z_k‖² by one matrix product, without an N × N × d temporary.

    Rounding errs by about eps·R², R the largest distance to the centroid: centring keeps a common shift from entering R.
    """
    z = _features(z, cosine=False)
    with _full_precision(z):
        return _in_precision_of(z, _squared_distances(_wide_enough(z, _largest(z))))


def _squared_distances(z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    z = z - z.detach().mean(0)  # distances, and so gradients, do not depend on the shift
    norms = z.square().sum(1, keepdim=True)
    one = torch.ones_like(norms)
    return (torch.cat([-2 * z, norms, one], 1) @ torch.cat([z, one, norms], 1).T).relu_()


class InfoNCELoss(nn.Module):
    """`info_nce` with its settings held; `temperature` may be an `nn.Parameter`. forward(z1, z2, weights=None)."""

    def __init__(self, *, temperature: Scalar = 0.5, validate: bool = True) -> None:
        super().__init__()
        _check_settings(temperature=temperature)
        self.temperature, self.validate = temperature, validate

    def forward(self, z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], weights: Float[Tensor, " n"] | None = None) -> Float[Tensor, ""]:
        return info_nce(z1, z2, temperature=self.temperature, weights=weights, validate=self.validate)

    def extra_repr(self) -> str:
        return f"temperature={_real(self.temperature):g}"


class TSimCLRLoss(nn.Module):
    """`t_simclr` with its settings held; `temperature` and `df` may be `nn.Parameter`s. forward(z1, z2, weights=None)."""

    def __init__(
        self,
        *,
        temperature: Scalar = 1.0,
        df: Scalar = 5.0,
        normalization: Normalization = "joint",
        validate: bool = True,
    ) -> None:
        super().__init__()
        _check_settings(temperature=temperature, df=df, normalization=normalization)
        self.temperature, self.df = temperature, df
        self.normalization, self.validate = normalization, validate

    def forward(self, z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], weights: Float[Tensor, " n"] | None = None) -> Float[Tensor, ""]:
        return t_simclr(
            z1,
            z2,
            temperature=self.temperature,
            df=self.df,
            normalization=self.normalization,
            weights=weights,
            validate=self.validate,
        )

    def extra_repr(self) -> str:
        return f"temperature={_real(self.temperature):g}, df={_real(self.df):g}, normalization={self.normalization!r}"


def _loss(
    positive: Float[Tensor, " n"], logits: Float[Tensor, "N N"], w: Float[Tensor, " n"] | None, normalization: str
) -> Float[Tensor, ""]:
    """Both views of a pair share its positive logit and its weight, so anchors are averaged within pairs first.

    The positives enter the denominator as they are, not as the matrix rounds them: a conditional loss is log(1 + Σ s / s_ii')
    over the negatives, never below 0 and exact however small.
    """
    itself_or_positive = torch.eye(len(positive), dtype=torch.bool, device=logits.device).repeat(2, 2)
    negatives = logits.masked_fill_(itself_or_positive, -math.inf).logsumexp(1)  # in place: the N × N arrays are the cost
    if normalization == "joint":
        both_views = positive.logsumexp(0) + math.log(2)
        # Not cat([negatives, positive, positive]).logsumexp(0): Inductor gives it a wrong gradient.
        # It lets the result of a reduction share memory with the `cat` that the result goes into,
        # keeps both for the backward pass, and there overwrites one before it reads the other.
        # Smallest form, on (6, 6) and (1,), its gradient in M wrong by half, in torch 2.13.0:
        #     torch.compile(lambda M, p: torch.cat([M.norm(dim=1), p]).square().sum())
        return torch.logaddexp(negatives.logsumexp(0), both_views) - _weighted_mean(positive, w)
    excess = negatives.view(2, -1) - positive
    return _weighted_mean(torch.logaddexp(excess, torch.zeros_like(excess)).mean(0), w)


def _log_q(logits: Float[Tensor, "N N"], normalization: str) -> Float[Tensor, "N N"]:
    logits = logits.masked_fill_(_diagonal(logits), -math.inf)
    by_row = logits.logsumexp(1, keepdim=True)
    return logits - (by_row.logsumexp(0) if normalization == "joint" else by_row)


def _unit_scaled(z: Tensor, temperature: Number, *, validate: bool = True) -> Tensor:
    """Unit rows, in a precision in which cosines over the temperature are finite."""
    largest = 1 / _detached(temperature)
    return _unit(_wide_enough(z, largest, power=1) if validate else z)


def _unit(z: Tensor) -> Tensor:
    """Rows over their norms, each first over its largest entry: squares neither overflow nor underflow."""
    largest = z.detach().abs().amax(1, keepdim=True)
    return F.normalize(z / largest.clamp_min(torch.finfo(z.dtype).tiny), dim=1)


def _student_scaled(z: Tensor, temperature: Number, df: Number, *, validate: bool = True) -> Tensor:
    """z in units in which the kernel is (1 + ‖·‖²)^(-(df+1)/2), or exp(-‖·‖²).

    n·d operations instead of n². In a precision in which squares of it are finite.
    """
    shape = 2.0 if _is_gaussian(df) else df
    if validate:
        unit = _detached(temperature) ** 0.5 * _detached(shape) ** 0.5
        z = _wide_enough(z, _largest(z) / unit)
    return z * (temperature**-0.5 * shape**-0.5)  # the product of the two might be 0


def _student_logit(squared_distance: Tensor, df: Number) -> Tensor:
    return -squared_distance if _is_gaussian(df) else squared_distance.log1p().mul_(-(df + 1) / 2)


def _is_gaussian(df: Number) -> bool:
    return not isinstance(df, Tensor) and df >= LARGEST_DF


def _scalar(value: Scalar) -> Number:
    """A float, or a tensor without dimensions, which changes neither shapes nor the features' dtype."""
    return value.reshape(()) if isinstance(value, Tensor) else float(value)


def _real(value: Scalar) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)


def _detached(value: Number) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().double()
    return torch.tensor(value, dtype=torch.float64)


def _largest(z: Tensor) -> Tensor:
    return z.detach().abs().amax().double()


def _wide_enough(z: Tensor, largest: Tensor, *, power: int = 2) -> Tensor:
    """z, in float64 if powers of numbers up to `largest`, summed, overflow in its own precision.

    `ValueError` if they do in float64.
    """
    if torch.compiler.is_compiling():
        return z
    for dtype in (z.dtype, torch.float64):
        # A sum over rows and columns; and of four terms, as ‖a - b‖² is.
        powers = torch.finfo(dtype).max / (32 * z.numel()) ** (power / 2)
        if _holds(largest <= powers ** (1 / power)):
            return z.to(dtype)
    raise ValueError(
        f"features over the temperature reach {float(largest):.3g}, whose powers are beyond float64: "
        "rescale the features, or raise the temperature (or df)"
    )


def _in_precision_of(z: Tensor, value: Tensor) -> Tensor:
    """`value`, which may have been computed in float64 because of `_wide_enough`."""
    if value.dtype == z.dtype:
        return value
    result = value.to(z.dtype)
    if not _holds((result.isfinite() == value.isfinite()).all()):
        reached = float(value.detach().nan_to_num(posinf=0, neginf=0).abs().max())
        raise ValueError(
            f"the result reaches {reached:.3g}, beyond {z.dtype}: pass features as .double(), rescale them, or raise the temperature"
        )
    return result


def _weighted_mean(values: Tensor, w: Tensor | None) -> Tensor:
    return values.mean() if w is None else (w * values).mean()


def _diagonal(square: Tensor) -> Tensor:
    return torch.eye(len(square), dtype=torch.bool, device=square.device)


def _full_precision(z: Tensor) -> AbstractContextManager:
    """Autocast would send the Gram matrix back to half precision."""
    return torch.autocast(z.device.type, enabled=False)


def _prepare(z1: Tensor, z2: Tensor, weights: Tensor | None, *, validate: bool, cosine: bool) -> tuple[Tensor, Tensor | None]:
    """Both views, one above the other, in at least float32, and weights of mean 1, checked.

    They are stacked before anything is computed, so that no result goes into a `cat`: see `_loss`.
    """
    z1 = _features(z1, name="z1", validate=validate, cosine=cosine)
    z2 = _features(z2, name="z2", validate=validate, cosine=cosine)
    if z1.shape != z2.shape:
        raise ValueError(f"z1 and z2 must have the same shape (n, d), got {tuple(z1.shape)} and {tuple(z2.shape)}")
    z = torch.cat([z1, z2])
    if weights is None:
        return z, None
    _check_floating("weights", weights)
    if weights.shape != z1.shape[:1]:
        raise ValueError(f"weights must have shape ({len(z1)},), one a pair, got {tuple(weights.shape)}")
    if validate and not _holds(weights.isfinite().all() & (weights >= 0).all() & (weights > 0).any()):
        raise ValueError("weights must be finite, nonnegative and not all zero: got a value that breaks this")
    w = weights.to(torch.promote_types(weights.dtype, z.dtype))
    w = (w / w.detach().amax()).to(z.dtype)  # before the mean, and the cast, which large weights would overflow
    return z, w / w.mean()


def _features(z: Tensor, *, name: str = "z", validate: bool = True, cosine: bool) -> Tensor:
    _check_floating(name, z)
    if z.ndim != 2 or len(z) < 2 or z.shape[1] < 1:
        raise ValueError(f"{name} must have shape (n, d) with n >= 2 and d >= 1, got {tuple(z.shape)}")
    if validate and not _holds(z.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity: look for it before the loss (learning rate, precision)")
    if validate and cosine and not _holds((z != 0).any(1).all()):
        raise ValueError(f"{name} has a row of zeros, which has no direction: cosine similarity needs a norm > 0")
    return _single(z)


def _single(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _check_floating(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a floating-point tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {value.dtype}: convert it with .float()")


def _check_settings(*, normalization: str = "joint", **positive: Scalar) -> None:
    """Positive numbers (finite, but for df = inf) and a known normalization."""
    for name, value in positive.items():
        _check_number(name, value)
        if isinstance(value, Tensor):
            valid = _holds(((value > 0) & value.isfinite()).all())
        else:
            valid = _real(value) > 0 and (name == "df" or _real(value) < math.inf)
        if not valid:
            raise ValueError(f"{name} must be positive and finite (df may be math.inf), got {value}")
    if not isinstance(normalization, str) or normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization must be one of {NORMALIZATIONS}, got {normalization!r}")


def _check_number(name: str, value: Scalar) -> None:
    """A real number within the range of a float, or a tensor that holds one."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be a scalar, got a tensor of shape {tuple(value.shape)}")
        if value.dtype == torch.bool or value.is_complex():
            raise TypeError(f"{name} must be a real number, got a tensor of {value.dtype}")
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number or a tensor of one element, got {type(value).__name__}")
    try:
        float(value)
    except OverflowError:
        raise ValueError(f"{name} must be within the range of a float, got {value}") from None


def _check_whole(name: str, value: object, least: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _holds(condition: Tensor) -> bool:
    """Whether `condition` is true, and true where its value cannot be seen: under torch.compile and vmap."""
    if torch.compiler.is_compiling():
        return True
    try:
        return bool(condition)
    except RuntimeError:  # how vmap refuses control flow that depends on data
        return True
