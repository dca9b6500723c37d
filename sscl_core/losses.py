"""Contrastive losses, and the stochastic-neighbor-embedding objective that they are instances of.

Two views z1, z2 of n samples are stacked as Z = [z1; z2], N = 2n rows; the positive of row i is row i ± n.
A similarity is held by its logarithm, the logit l_jk = log s_jk, and a Q is l minus its log-sum-exp off the diagonal:
over each row (conditional) or over all ordered pairs (joint). Source: Hu et al., arXiv 2205.14814.

Errors, the same for every function here: `TypeError` for what is no floating-point tensor (or no number); `ValueError` for shapes
(views that differ, not 2-D, n < 2) and settings (temperature or df not positive, unknown normalization) always, and for values
(non-finite features, zero rows under cosine, bad weights) unless `validate=False`; values cannot be seen, and are
not checked, under `torch.compile` and `vmap`. float16 and bfloat16 features are computed in float32.
"""

import math
from contextlib import AbstractContextManager
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Scalar = int | float | Tensor
Normalization = Literal["joint", "conditional"]
NORMALIZATIONS = ("joint", "conditional")


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
    z1, z2, w = _prepare(z1, z2, weights, validate=validate, cosine=True)
    temperature = _scalar(temperature)
    with _full_precision(z1):
        u1, u2 = _unit(z1), _unit(z2)
        positive = (u1 * u2).sum(1) / temperature
        u = torch.cat([u1, u2])
        return _loss(positive, (u / temperature) @ u.T, w, "conditional")


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
    z1, z2, w = _prepare(z1, z2, weights, validate=validate, cosine=False)
    temperature, df = _scalar(temperature), _scalar(df)
    with _full_precision(z1):
        z1, z2 = (_student_scaled(z, temperature, df) for z in (z1, z2))
        # Positive pairs by their difference, not from the Gram matrix: exact however close they are.
        positive = _student_logit((z1 - z2).square().sum(1), df)
        return _loss(positive, _student_logit(squared_distances(torch.cat([z1, z2])), df), w, normalization)


def spectral_contrastive(z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], *, validate: bool = True) -> Float[Tensor, ""]:
    """-2 mean_i z1_i·z2_i + mean of (z_i·z_j)² over the 2n(2n - 2) ordered pairs of rows that are neither equal nor one sample's views.

    Features are not normalised. Nothing holds the norm of a row that is orthogonal to all its negatives: over fresh batches the minimiser
    is the augmentation graph's top eigenvectors, on one fixed batch there is no lower bound. Source: HaoChen et al. 2021.
    """
    z1, z2, _ = _prepare(z1, z2, None, validate=validate, cosine=False)
    with _full_precision(z1):
        z = torch.cat([z1, z2])
        itself_or_positive = torch.eye(len(z1), dtype=torch.bool, device=z.device).repeat(2, 2)
        squares = (z @ z.T).masked_fill(itself_or_positive, 0.0).square()
        return -2 * (z1 * z2).sum(1).mean() + squares.sum() / (len(z) * (len(z) - 2))


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
        u = _unit(z)
        return _log_q((u / temperature) @ u.T, normalization)


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
        return _log_q(_student_logit(squared_distances(_student_scaled(z, temperature, df)), df), normalization)


def squared_distances(z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    """‖z_j - z_k‖² by one matrix product, without an N × N × d temporary.

    Rounding errs by about eps·R², R the largest distance to the centroid: centring keeps a common shift from entering R.
    """
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
        return f"temperature={_number(self.temperature):g}"


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
        return f"temperature={_number(self.temperature):g}, df={_number(self.df):g}, normalization={self.normalization!r}"


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
        return -_weighted_mean(positive, w) + torch.cat([negatives, positive, positive]).logsumexp(0)
    excess = negatives.view(2, -1) - positive
    return _weighted_mean(torch.logaddexp(excess, torch.zeros_like(excess)).mean(0), w)


def _log_q(logits: Float[Tensor, "N N"], normalization: str) -> Float[Tensor, "N N"]:
    logits = logits.masked_fill_(_diagonal(logits), -math.inf)
    by_row = logits.logsumexp(1, keepdim=True)
    return logits - (by_row.logsumexp(0) if normalization == "joint" else by_row)


def _student_scaled(z: Tensor, temperature: Scalar, df: Scalar) -> Tensor:
    """z in units in which the kernel is (1 + ‖·‖²)^(-(df+1)/2), or exp(-‖·‖²): n·d operations instead of n²."""
    return z * (temperature * (2 if _is_gaussian(df) else df)) ** -0.5


def _student_logit(squared_distance: Tensor, df: Scalar) -> Tensor:
    return -squared_distance if _is_gaussian(df) else squared_distance.log1p().mul_(-(df + 1) / 2)


def _scalar(value: Scalar) -> Scalar:
    """A tensor of one element without dimensions, so that it changes neither shapes nor the features' dtype."""
    return value.reshape(()) if isinstance(value, Tensor) else value


def _number(value: Scalar) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else value


def _is_gaussian(df: Scalar) -> bool:
    return not isinstance(df, Tensor) and df == math.inf


def _unit(z: Tensor) -> Tensor:
    """Rows over their norms, each first over its largest entry: squares neither overflow nor underflow."""
    largest = z.detach().abs().amax(1, keepdim=True)
    return F.normalize(z / largest.clamp_min(torch.finfo(z.dtype).tiny), dim=1)


def _weighted_mean(values: Tensor, w: Tensor | None) -> Tensor:
    return values.mean() if w is None else (w * values).mean()


def _diagonal(square: Tensor) -> Tensor:
    return torch.eye(len(square), dtype=torch.bool, device=square.device)


def _full_precision(z: Tensor) -> AbstractContextManager:
    """Autocast would send the Gram matrix back to half precision."""
    return torch.autocast(z.device.type, enabled=False)


def _prepare(z1: Tensor, z2: Tensor, weights: Tensor | None, *, validate: bool, cosine: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Views in at least float32 and weights of mean 1, checked."""
    z1, z2 = (_features(z, name=name, validate=validate, cosine=cosine) for name, z in (("z1", z1), ("z2", z2)))
    if z1.shape != z2.shape:
        raise ValueError(f"z1 and z2 must have the same shape (n, d), got {tuple(z1.shape)} and {tuple(z2.shape)}")
    if weights is None:
        return z1, z2, None
    _check_floating("weights", weights)
    if weights.shape != z1.shape[:1]:
        raise ValueError(f"weights must have shape ({len(z1)},), one a pair, got {tuple(weights.shape)}")
    if validate and not _holds(weights.isfinite().all() & (weights >= 0).all() & (weights > 0).any()):
        raise ValueError("weights must be finite, nonnegative and not all zero: got a value that breaks this")
    w = weights.to(torch.promote_types(weights.dtype, z1.dtype))
    w = (w / w.detach().amax()).to(z1.dtype)  # before the mean, and the cast, which large weights would overflow
    return z1, z2, w / w.mean()


def _features(z: Tensor, *, name: str = "z", validate: bool = True, cosine: bool) -> Tensor:
    _check_floating(name, z)
    if z.ndim != 2 or len(z) < 2 or z.shape[1] < 1:
        raise ValueError(f"{name} must have shape (n, d) with n >= 2 and d >= 1, got {tuple(z.shape)}")
    if validate and not _holds(z.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity: look for it before the loss (learning rate, precision)")
    if validate and cosine and not _holds((z != 0).any(1).all()):
        raise ValueError(f"{name} has a row of zeros, which has no direction: cosine similarity needs a norm > 0")
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


def _check_floating(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a floating-point tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {value.dtype}: convert it with .float()")


def _check_settings(*, normalization: str = "joint", **positive: Scalar) -> None:
    """Positive numbers (finite, but for df = inf) and a known normalization."""
    for name, value in positive.items():
        if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
            raise TypeError(f"{name} must be a number or a tensor of one element, got {type(value).__name__}")
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(f"{name} must be a scalar, got a tensor of shape {tuple(value.shape)}")
            valid = _holds(((value > 0) & value.isfinite()).all())
        else:
            valid = value > 0 and (name == "df" or value < math.inf)
        if not valid:
            raise ValueError(f"{name} must be positive and finite (df may be math.inf), got {value}")
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization must be one of {NORMALIZATIONS}, got {normalization!r}")


def _holds(condition: Tensor) -> bool:
    """Whether `condition` is true, and true where its value cannot be seen: under torch.compile and vmap."""
    if torch.compiler.is_compiling():
        return True
    try:
        return bool(condition)
    except RuntimeError:  # how vmap refuses control flow that depends on data
        return True
