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

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .checks import (
    Normalization,
    Scalar,
    check_floating,
    check_settings,
    features,
    holds,
    real,
    scalar,
    single,
)
from .similarities import (
    diagonal,
    full_precision,
    in_precision_of,
    largest,
    student_logit,
    student_scaled,
    unchecked_squared_distances,
    unit_scaled,
    wide_enough,
)


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
    check_settings(temperature=temperature)
    z, w = prepare(z1, z2, weights, validate=validate, cosine=True)
    temperature = scalar(temperature)
    with full_precision(z):
        u = unit_scaled(z, temperature, validate=validate)
        u1, u2 = u.chunk(2)
        positive = (u1 * u2).sum(1) / temperature
        value = _loss(positive, (u / temperature) @ u.T, w, "conditional")
        return in_precision_of(z, value)


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
    check_settings(temperature=temperature, df=df, normalization=normalization)
    z, w = prepare(z1, z2, weights, validate=validate, cosine=False)
    temperature, df = scalar(temperature), scalar(df)
    with full_precision(z):
        scaled = student_scaled(z, temperature, df, validate=validate)
        a, b = scaled.chunk(2)
        # Positive pairs by their difference, not from the Gram matrix: exact however close they are.
        positive = student_logit((a - b).square().sum(1), df)
        logits = student_logit(unchecked_squared_distances(scaled), df)
        return in_precision_of(z, _loss(positive, logits, w, normalization))


def spectral_contrastive(
    z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], *, validate: bool = True
) -> Float[Tensor, ""]:
    """-2 mean_i z1_i·z2_i + mean of (z_i·z_j)² over the 2n(2n - 2) ordered pairs of rows that are neither equal nor one sample's views.

    Features are not normalised. Nothing holds the norm of a row that is orthogonal to all its negatives: over fresh batches the minimiser
    is the augmentation graph's top eigenvectors, on one fixed batch there is no lower bound. Source: HaoChen et al. 2021.
    """
    z = prepare(z1, z2, None, validate=validate, cosine=False)[0]
    with full_precision(z):
        x = wide_enough(z, largest(z), power=4) if validate else z
        a, b = x.chunk(2)
        itself_or_positive = torch.eye(len(a), dtype=torch.bool, device=x.device).repeat(2, 2)
        squares = (x @ x.T).masked_fill(itself_or_positive, 0.0).square()
        value = -2 * (a * b).sum(1).mean() + squares.sum() / (len(x) * (len(x) - 2))
        return in_precision_of(z, value)


def sne_objective(P: Float[Tensor, "N N"], log_Q: Float[Tensor, "N N"]) -> Float[Tensor, ""]:
    """KL(P ‖ Q) = Σ_{i≠j} P_ij (log P_ij - log Q_ij),  0·log 0 = 0; the diagonals of both never enter.

    The sum of the rows' divergences if P and Q are conditional, one divergence if they are joint. Infinite where Q = 0 < P.
    """
    for name, value in (("P", P), ("log_Q", log_Q)):
        check_floating(name, value)
    if P.ndim != 2 or P.shape[0] != P.shape[1] or P.shape != log_Q.shape:
        raise ValueError(
            f"P and log_Q must be square and of one shape (N, N), got {tuple(P.shape)}, {tuple(log_Q.shape)}"
        )
    if not holds((P >= 0).all()):
        raise ValueError(
            "P must be nonnegative without NaN, got an entry that is not: pass probabilities, not logarithms"
        )
    P, log_Q = single(P), single(log_Q)
    support = (P > 0) & ~diagonal(P)
    # Entries off the support are replaced before the logarithm and the product, so that neither -inf · 0 nor its gradient occurs.
    P_safe, log_Q_safe = P.where(support, 1.0), log_Q.where(support, 0.0)
    return (P.where(support, 0.0) * (P_safe.log() - log_Q_safe)).sum()


class InfoNCELoss(nn.Module):
    """`info_nce` with its settings held; `temperature` may be an `nn.Parameter`. forward(z1, z2, weights=None)."""

    def __init__(self, *, temperature: Scalar = 0.5, validate: bool = True) -> None:
        super().__init__()
        check_settings(temperature=temperature)
        self.temperature, self.validate = temperature, validate

    def forward(
        self,
        z1: Float[Tensor, "n d"],
        z2: Float[Tensor, "n d"],
        weights: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, ""]:
        return info_nce(
            z1, z2, temperature=self.temperature, weights=weights, validate=self.validate
        )

    def extra_repr(self) -> str:
        return f"temperature={real(self.temperature):g}"


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
        check_settings(temperature=temperature, df=df, normalization=normalization)
        self.temperature, self.df = temperature, df
        self.normalization, self.validate = normalization, validate

    def forward(
        self,
        z1: Float[Tensor, "n d"],
        z2: Float[Tensor, "n d"],
        weights: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, ""]:
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
        return f"temperature={real(self.temperature):g}, df={real(self.df):g}, normalization={self.normalization!r}"


def _loss(
    positive: Float[Tensor, " n"],
    logits: Float[Tensor, "N N"],
    w: Float[Tensor, " n"] | None,
    normalization: str,
) -> Float[Tensor, ""]:
    """Both views of a pair share its positive logit and its weight, so anchors are averaged within pairs first.

    The positives enter the denominator as they are, not as the matrix rounds them: a conditional loss is log(1 + Σ s / s_ii')
    over the negatives, never below 0 and exact however small.
    """
    itself_or_positive = torch.eye(len(positive), dtype=torch.bool, device=logits.device).repeat(
        2, 2
    )
    negatives = logits.masked_fill_(itself_or_positive, -math.inf).logsumexp(
        1
    )  # in place: the N × N arrays are the cost
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


def _weighted_mean(values: Tensor, w: Tensor | None) -> Tensor:
    return values.mean() if w is None else (w * values).mean()


def prepare(
    z1: Tensor, z2: Tensor, weights: Tensor | None, *, validate: bool, cosine: bool
) -> tuple[Tensor, Tensor | None]:
    """Both views, one above the other, in at least float32, and weights of mean 1, checked.

    They are stacked before anything is computed, so that no result goes into a `cat`: see `_loss`.
    """
    z1 = features(z1, name="z1", validate=validate, cosine=cosine)
    z2 = features(z2, name="z2", validate=validate, cosine=cosine)
    if z1.shape != z2.shape:
        raise ValueError(
            f"z1 and z2 must have the same shape (n, d), got {tuple(z1.shape)} and {tuple(z2.shape)}"
        )
    z = torch.cat([z1, z2])
    if weights is None:
        return z, None
    check_floating("weights", weights)
    if weights.shape != z1.shape[:1]:
        raise ValueError(
            f"weights must have shape ({len(z1)},), one a pair, got {tuple(weights.shape)}"
        )
    if validate and not holds(
        weights.isfinite().all() & (weights >= 0).all() & (weights > 0).any()
    ):
        raise ValueError(
            "weights must be finite, nonnegative and not all zero: got a value that breaks this"
        )
    w = weights.to(torch.promote_types(weights.dtype, z.dtype))
    w = (w / w.detach().amax()).to(
        z.dtype
    )  # before the mean, and the cast, which large weights would overflow
    return z, w / w.mean()
