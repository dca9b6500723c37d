"""Contrastive losses, and the stochastic-neighbor-embedding objective that they are instances of.

Two views z1, z2 of n samples are stacked as Z = [z1; z2], N = 2n rows; the positive of row i is
row i ± n. A similarity is held by its logarithm, the logit l_jk = log s_jk, and a Q is l minus its
log-sum-exp off the diagonal: over each row (conditional) or over all ordered pairs (joint).
Source: Hu et al., arXiv 2205.14814.

Errors are the same for every function here. `TypeError`: what is no floating-point tensor, or no
number. `ValueError`: shapes (views that differ, not 2-D, n < 2) and settings (temperature or df not
positive, unknown normalization), always; values (non-finite features, zero rows under cosine, bad
weights) unless `validate=False`. Values cannot be seen, and are not checked, under `torch.compile`
and `vmap`.

Numbers are real numbers of any kind (Python's, NumPy's, fractions), or tensors of one element.
float16 and bfloat16 features are computed in float32, and float32 features in float64 where their
squares, over the temperature, overflow: that is seen as values are. What comes out has the
precision of the features, at least float32, and is a `ValueError` if it is beyond it.

`info_nce` and `t_simclr` make the similarities of 2n rows by tiles, the gradient by the same tiles
(`negatives`): memory grows as n·d. `tile` is the rows of a tile, by default chosen by size; up to
1,024 rows, 4,096 on a GPU, one tile is all. 0 is one matrix, differentiated by autograd: small
batches get it and `torch.compile` does, forward mode needs it. Second derivatives take n² memory in
any case, as `spectral_contrastive` and the log Q's do. On a GPU each tiled loss waits once for its
sums, to see whether they are in range. Products there have the precision that PyTorch is set to: in
TF32, which is off by default, distances lose all but three digits.
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
    check_whole,
    features,
    holds,
    real,
    single,
)
from .negatives import fastest_tile, log_sums, log_total
from .similarities import (
    Cosine,
    Similarity,
    Student,
    diagonal,
    full_precision,
    in_precision_of,
    largest,
    log_q_cosine,
    log_q_gaussian,
    log_q_student,
    same_sample,
    squared_distances,
    wide_enough,
)

# Below so many rows, one matrix and autograd: all is overhead there.
SMALLEST_TILED = 256

__all__ = [
    "InfoNCELoss",
    "TSimCLRLoss",
    "info_nce",
    "log_q_cosine",
    "log_q_gaussian",
    "log_q_student",
    "sne_objective",
    "spectral_contrastive",
    "squared_distances",
    "t_simclr",
]


def info_nce(
    z1: Float[Tensor, "n d"],
    z2: Float[Tensor, "n d"],
    *,
    temperature: Scalar = 0.5,
    weights: Float[Tensor, " n"] | None = None,
    validate: bool = True,
    tile: int | None = None,
) -> Float[Tensor, ""]:
    """Mean over the 2n anchors i of  w_i · ( -l_ii' + log Σ_{k≠i} exp l_ik ).

    l_jk = cos(z_j, z_k) / temperature, and i' is the other view of i: the NT-Xent loss of SimCLR.
    `weights` (n,) are nonnegative, one a pair, and rescaled to mean 1.
    """
    similarity = Cosine(temperature)
    return _contrastive(similarity, "conditional", z1, z2, weights, validate=validate, tile=tile)


def t_simclr(
    z1: Float[Tensor, "n d"],
    z2: Float[Tensor, "n d"],
    *,
    temperature: Scalar = 1.0,
    df: Scalar = 5.0,
    normalization: Normalization = "joint",
    weights: Float[Tensor, " n"] | None = None,
    validate: bool = True,
    tile: int | None = None,
) -> Float[Tensor, ""]:
    """With  s_jk = (1 + ‖z_j - z_k‖² / (temperature · df))^(-(df + 1)/2), over the 2n anchors i:

    joint:        -mean w_i log s_ii'  +  log Σ_{j≠k} s_jk
    conditional:   mean w_i · ( -log s_ii' + log Σ_{k≠i} s_ik )

    i' is the other view of i. `df` > 0 are Student's degrees of freedom ν: `math.inf` is the
    Gaussian exp(-‖·‖²/(2 temperature)), a tensor can be learned. Features are not normalised, so
    `temperature` is a unit of squared length: t_simclr(z, τ) = t_simclr(z/√τ, 1).
    """
    similarity = Student(temperature, df)
    check_settings(normalization=normalization)
    return _contrastive(similarity, normalization, z1, z2, weights, validate=validate, tile=tile)


def spectral_contrastive(
    z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], *, validate: bool = True
) -> Float[Tensor, ""]:
    """-2 mean_i z1_i·z2_i  +  the mean of (z_i·z_j)² over pairs of rows of different samples.

    Those are 2n(2n - 2) ordered pairs. Features are not normalised, and nothing holds the norm of a
    row that is orthogonal to all its negatives: on one fixed batch there is no lower bound. Over
    fresh batches the minimiser is the augmentation graph's top eigenvectors.
    Source: HaoChen et al. 2021.
    """
    z = prepare(z1, z2, None, validate=validate, cosine=False)[0]
    with full_precision(z):
        x = wide_enough(z, largest(z), power=4) if validate else z
        a, b = x.chunk(2)
        squares = (x @ x.T).masked_fill(same_sample(len(a), x.device), 0.0).square()
        attraction = -2 * (a * b).sum(1).mean()
        return in_precision_of(z, attraction + squares.sum() / (len(x) * (len(x) - 2)))


def sne_objective(P: Float[Tensor, "N N"], log_Q: Float[Tensor, "N N"]) -> Float[Tensor, ""]:
    """KL(P ‖ Q) = Σ_{i≠j} P_ij (log P_ij - log Q_ij),  0·log 0 = 0; no diagonal enters.

    The sum of the rows' divergences if P and Q are conditional, one divergence if they are joint.
    Infinite where Q = 0 < P.
    """
    for name, value in (("P", P), ("log_Q", log_Q)):
        check_floating(name, value)
    if P.ndim != 2 or P.shape[0] != P.shape[1] or P.shape != log_Q.shape:
        raise ValueError(
            "P and log_Q must be square and of one shape (N, N), "
            f"got {tuple(P.shape)}, {tuple(log_Q.shape)}"
        )
    if not holds((P >= 0).all()):
        raise ValueError(
            "P must be nonnegative without NaN, got an entry that is not: "
            "pass probabilities, not logarithms"
        )
    P, log_Q = single(P), single(log_Q)
    support = (P > 0) & ~diagonal(P)
    # Entries off the support are replaced before the logarithm and the product, so that neither
    # -inf · 0 nor its gradient occurs.
    P_safe, log_Q_safe = P.where(support, 1.0), log_Q.where(support, 0.0)
    return (P.where(support, 0.0) * (P_safe.log() - log_Q_safe)).sum()


class InfoNCELoss(nn.Module):
    """`info_nce` with its settings held; `temperature` may be an `nn.Parameter`.

    Call: forward(z1, z2, weights=None).
    """

    def __init__(
        self, *, temperature: Scalar = 0.5, validate: bool = True, tile: int | None = None
    ) -> None:
        super().__init__()
        check_settings(temperature=temperature)
        _check_tile(tile)
        self.temperature, self.validate, self.tile = temperature, validate, tile

    def forward(
        self,
        z1: Float[Tensor, "n d"],
        z2: Float[Tensor, "n d"],
        weights: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, ""]:
        return info_nce(
            z1,
            z2,
            temperature=self.temperature,
            weights=weights,
            validate=self.validate,
            tile=self.tile,
        )

    def extra_repr(self) -> str:
        return f"temperature={real(self.temperature):g}"


class TSimCLRLoss(nn.Module):
    """`t_simclr` with its settings held; `temperature` and `df` may be `nn.Parameter`s.

    Call: forward(z1, z2, weights=None).
    """

    def __init__(
        self,
        *,
        temperature: Scalar = 1.0,
        df: Scalar = 5.0,
        normalization: Normalization = "joint",
        validate: bool = True,
        tile: int | None = None,
    ) -> None:
        super().__init__()
        check_settings(temperature=temperature, df=df, normalization=normalization)
        _check_tile(tile)
        self.temperature, self.df, self.normalization = temperature, df, normalization
        self.validate, self.tile = validate, tile

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
            tile=self.tile,
        )

    def extra_repr(self) -> str:
        numbers = f"temperature={real(self.temperature):g}, df={real(self.df):g}"
        return f"{numbers}, normalization={self.normalization!r}"


def _contrastive(
    similarity: Similarity,
    normalization: Normalization,
    z1: Tensor,
    z2: Tensor,
    weights: Tensor | None,
    *,
    validate: bool,
    tile: int | None,
) -> Float[Tensor, ""]:
    """KL(P ‖ Q) for P on the positive pairs, less its constant.

    Both views of a pair share its positive logit and its weight, so anchors are averaged within
    pairs first. The positives enter the denominator as they are, not as a product rounds them: a
    conditional loss is log(1 + Σ s / s_ii') over the negatives, never below 0 and exact however
    small.
    """
    _check_tile(tile)
    cosine = similarity.metric == "cosine"
    z, w = prepare(z1, z2, weights, validate=validate, cosine=cosine)
    with full_precision(z):
        rows = similarity.rows(z, validate=validate)
        positive = similarity.log_s_of_pairs(*rows.chunk(2))
        if normalization == "joint":
            both_views = positive.logsumexp(0) + math.log(2)
            # Not cat([negatives, positive, positive]).logsumexp(0): Inductor gives it a wrong
            # gradient. It lets the result of a reduction share memory with the `cat` that the
            # result goes into, keeps both for the backward pass, and there overwrites one before
            # it reads the other. Smallest form, on (6, 6) and (1,), its gradient in M wrong by
            # half, in torch 2.13.0:
            #     torch.compile(lambda M, p: torch.cat([M.norm(dim=1), p]).square().sum())
            total = torch.logaddexp(_log_total(similarity, rows, tile), both_views)
            return in_precision_of(z, total - _weighted_mean(positive, w))
        excess = _log_sums(similarity, rows, tile).view(2, -1) - positive
        of_pairs = torch.logaddexp(excess, torch.zeros_like(excess)).mean(0)
        return in_precision_of(z, _weighted_mean(of_pairs, w))


def _log_sums(similarity: Similarity, rows: Tensor, tile: int | None) -> Float[Tensor, " N"]:
    """log Σ_k s_ik over the negatives k of each row i."""
    tile = _tile(rows, tile)
    if tile:
        return log_sums(rows, similarity.metric, _degrees_of_freedom(similarity, rows), tile=tile)
    log_s = similarity.log_s_of_all(rows)
    own = same_sample(len(rows) // 2, rows.device)
    return log_s.masked_fill_(own, -math.inf).logsumexp(1)


def _log_total(similarity: Similarity, rows: Tensor, tile: int | None) -> Float[Tensor, ""]:
    """log Σ_ik s_ik over all pairs of negatives."""
    tile = _tile(rows, tile)
    if tile:
        return log_total(rows, similarity.metric, _degrees_of_freedom(similarity, rows), tile=tile)
    return _log_sums(similarity, rows, 0).logsumexp(0)


def _degrees_of_freedom(similarity: Similarity, rows: Tensor) -> float | Tensor:
    """A tensor with the precision and device of the rows, which the tiles would take from it."""
    df = similarity.degrees_of_freedom
    return df.to(rows) if isinstance(df, Tensor) else df


def _tile(rows: Tensor, tile: int | None) -> int:
    """The rows of a tile, 0 for one matrix by autograd: for small batches and compilers."""
    if torch.compiler.is_compiling():
        return 0
    if tile is None:
        return 0 if len(rows) < SMALLEST_TILED else fastest_tile(len(rows), rows.device)
    return tile


def _check_tile(tile: int | None) -> None:
    if tile is not None:
        check_whole("tile", tile, 0)


def _weighted_mean(values: Tensor, w: Tensor | None) -> Tensor:
    return values.mean() if w is None else (w * values).mean()


def prepare(
    z1: Tensor, z2: Tensor, weights: Tensor | None, *, validate: bool, cosine: bool
) -> tuple[Tensor, Tensor | None]:
    """Both views, one above the other, in at least float32, and weights of mean 1, checked.

    They are stacked before anything is computed: no result goes into a `cat`, see `_contrastive`.
    """
    z1 = features(z1, name="z1", validate=validate, cosine=cosine)
    z2 = features(z2, name="z2", validate=validate, cosine=cosine)
    if z1.shape != z2.shape:
        shapes = f"{tuple(z1.shape)} and {tuple(z2.shape)}"
        raise ValueError(f"z1 and z2 must have the same shape (n, d), got {shapes}")
    z = torch.cat([z1, z2])
    if weights is None:
        return z, None
    _check_weights(weights, len(z1), validate=validate)
    # Over the largest before the mean, and the cast, which large weights would overflow.
    w = weights.to(torch.promote_types(weights.dtype, z.dtype))
    w = (w / w.detach().amax()).to(z.dtype)
    return z, w / w.mean()


def _check_weights(weights: Tensor, n: int, *, validate: bool) -> None:
    check_floating("weights", weights)
    if weights.shape != (n,):
        found = tuple(weights.shape)
        raise ValueError(f"weights must have shape ({n},), one a pair, got {found}")
    if not validate:
        return
    if not holds(weights.isfinite().all() & (weights >= 0).all() & (weights > 0).any()):
        raise ValueError(
            "weights must be finite, nonnegative and not all zero: got a value that breaks this"
        )
