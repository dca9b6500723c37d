"""The loss family: every contrastive loss is (P, similarity, divergence).

P says which pairs are positive, the similarity what features make of a pair, the divergence how the
two are compared. Each row of `LOSSES` is a function of two views that returns its two `Terms`.
Their gradients are the measured attraction and repulsion, `forces`.

Notation and errors are those of `losses`: Z = [z1; z2] of 2n rows, i' the other view of i,
d_jk = ‖z_j - z_k‖. The negatives of row i are the 2n - 2 rows other than i and i'. All of them are
used; nothing is sampled. Both terms come in the precision of the features, at least float32.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from sscl_core import checks, losses, similarities
from sscl_core.affinities import positive_pairs
from sscl_core.checks import Normalization, Scalar
from sscl_core.similarities import Cosine, Similarity, Student

View = Float[Tensor, "n d"]
Stacked = Float[Tensor, "2*n d"]
Affinity = Float[Tensor, "2*n 2*n"]


class Terms(NamedTuple):
    """A loss in two: `attraction` is what positive pairs contribute, `repulsion` all the rest."""

    attraction: Float[Tensor, ""]
    repulsion: Float[Tensor, ""]

    @property
    def loss(self) -> Float[Tensor, ""]:
        return self.attraction + self.repulsion


class Member(NamedTuple):
    """A row of the table: P, similarity and divergence in words, who proposed it, and the loss.

    The loss is called as `loss(z1, z2, **settings)` and returns `Terms`.
    """

    P: str
    similarity: str
    divergence: str
    source: str
    loss: Callable[..., Terms]


def forces(
    loss: Callable[..., Terms], z1: View, z2: View, **settings: Any
) -> tuple[Stacked, Stacked]:
    """∂attraction/∂Z and ∂repulsion/∂Z of any row.

    Their sum is the gradient of the loss; descent moves against them.
    """
    with torch.enable_grad():
        Z = torch.cat([z1, z2]).detach().requires_grad_()
        attraction, repulsion = loss(*Z.chunk(2), **settings)
    (attracting,) = torch.autograd.grad(attraction, Z, retain_graph=True)
    (repelling,) = torch.autograd.grad(repulsion, Z)
    return attracting, repelling


def info_nce_terms(z1: View, z2: View, *, temperature: Scalar = 0.5) -> Terms:
    """-mean l_ii'  and  mean_i log Σ_{k≠i} exp l_ik,  l = cos/temperature.

    They are `losses.info_nce` in two.
    """
    loss = losses.info_nce(z1, z2, temperature=temperature)
    attraction = -_log_s(Cosine(temperature), z1, z2)[0].mean()
    return _terms(loss, attraction, loss - attraction)


def t_simclr_terms(
    z1: View,
    z2: View,
    *,
    temperature: Scalar = 1.0,
    df: Scalar = 5.0,
    normalization: Normalization = "joint",
) -> Terms:
    """-mean log s_ii'  and  log Σ_{j≠k} s_jk (joint) or mean_i log Σ_{k≠i} s_ik (conditional).

    They are `losses.t_simclr` in two.
    """
    loss = losses.t_simclr(z1, z2, temperature=temperature, df=df, normalization=normalization)
    attraction = -_log_s(Student(temperature, df), z1, z2)[0].mean()
    return _terms(loss, attraction, loss - attraction)


def sne_terms(z1: View, z2: View, *, P: Affinity | None = None, temperature: Scalar = 0.5) -> Terms:
    """Σ_i KL(P_i ‖ Q_i) in two, with s_ij = exp(-d_ij² / (2 temperature)):

    Σ_{i≠j} P_ij (log P_ij - log s_ij)  and  Σ_i log Σ_{k≠i} s_ik.
    P is over the rows of Z, each of its rows sums to 1 off the diagonal; None is
    `positive_pairs(n)`.
    """
    return _kl_terms(Student(temperature, math.inf), "conditional", z1, z2, P)


def t_sne_terms(
    z1: View, z2: View, *, P: Affinity | None = None, temperature: Scalar = 1.0, df: Scalar = 1.0
) -> Terms:
    """KL(P ‖ Q) in two, with s as in `losses.t_simclr`:

    Σ_{i≠j} P_ij (log P_ij - log s_ij)  and  log Σ_{j≠k} s_jk.
    P is over the rows of Z and sums to 1 off the diagonal; None is
    `positive_pairs(n, normalization="joint")`.
    """
    return _kl_terms(Student(temperature, df), "joint", z1, z2, P)


def dcl_terms(z1: View, z2: View, *, temperature: Scalar = 0.5) -> Terms:
    """-mean l_ii'  and  mean_i log Σ_k exp l_ik over the negatives k of i,  l = cos/temperature."""
    positive, logits = _log_s(Cosine(temperature), z1, z2)
    repulsion = _of_negatives(logits, -math.inf).logsumexp(1).mean()
    return _terms(z1, -positive.mean(), repulsion)


def siglip_terms(z1: View, z2: View, *, temperature: Scalar = 0.1, bias: Scalar = -10.0) -> Terms:
    """-1/n Σ_i log σ(l_ii)  and  -1/n Σ_{i≠j} log σ(-l_ij),  over pairs across views only.

    l_ij = cos(z1_i, z2_j)/temperature + bias.
    """
    checks.check_number("bias", bias)
    if not checks.holds(similarities.detached(checks.scalar(bias)).isfinite()):
        raise ValueError(f"bias must be finite, got {bias}")
    positive, logits = _log_s(Cosine(temperature), z1, z2)
    bias, n = checks.scalar(bias), len(z1)
    across = logits[:n, n:] + bias
    negatives = across.masked_fill(similarities.diagonal(across), -math.inf)
    return _binary_terms(z1, positive + bias, negatives)


def negative_sampling_terms(
    z1: View,
    z2: View,
    *,
    temperature: Scalar = 1.0,
    df: Scalar = 1.0,
    odds: Scalar = 1.0,
) -> Terms:
    """-mean log(s_ii' / (s_ii' + odds))  and  -mean_i Σ_k log(odds / (s_ik + odds)),

    k the negatives of i. s is that of `losses.t_simclr`; the defaults, s = 1/(1 + d²), are
    Neg-t-SNE's. `odds` is the place on the spectrum between attraction and repulsion of Damrich et
    al. 2023: s that are small beside it say "no pair", so a small one spreads the features.
    """
    checks.check_settings(odds=odds)
    positive, logits = _log_s(Student(temperature, df), z1, z2)
    number = checks.scalar(odds)
    log_odds = number.log() if isinstance(number, Tensor) else math.log(number)
    negatives = _of_negatives(logits - log_odds, -math.inf)
    return _binary_terms(z1, positive - log_odds, negatives)


def umap_terms(z1: View, z2: View) -> Terms:
    """-mean log q_ii'  and  -mean_i Σ_k log(1 - q_ik) over the negatives k of i.

    q = 1/(1 + d²): UMAP with a = b = 1. Infinite where two negatives coincide, or lie so near that
    their distance rounds to 0.
    """
    z = _stacked(z1, z2)
    q = Student(1.0, 1.0)
    with similarities.full_precision(z):
        distances = _of_negatives(similarities.unchecked_squared_distances(z), math.inf)
        attraction = -q.log_s_of_pairs(*q.rows(z).chunk(2)).mean()
    return _terms(z1, attraction, -F.logsigmoid(distances.log()).sum() / len(distances))


def spectral_terms(z1: View, z2: View) -> Terms:
    """-2 mean_i z1_i·z2_i  and  the mean of (z_i·z_j)² over all rows i and their negatives j.

    They are `losses.spectral_contrastive` in two. With P joint and p its marginal, 1/(2n) for each
    row:  Σ_ij p_i p_j (P_ij/(p_i p_j) - z_i·z_j)²
    = constant - 2 Σ_ij P_ij z_i·z_j + Σ_ij p_i p_j (z_i·z_j)².
    The last sum is over independent pairs, for which negatives stand.
    """
    loss = losses.spectral_contrastive(z1, z2)
    a, b = _stacked(z1, z2, power=4).chunk(2)
    attraction = -2 * (a * b).sum(1).mean()
    return _terms(loss, attraction, loss - attraction)


def barlow_twins_terms(z1: View, z2: View, *, redundancy: Scalar = 5e-3) -> Terms:
    """Σ_a (1 - C_aa)²  and  redundancy · Σ_{a≠b} C_ab²,  with C = x1ᵀ x2 / n.

    x are the columns of z less their mean, over √(variance + 1e-5). On the n × n side the second
    sum is  Σ_ij (x1_i·x1_j)(x2_i·x2_j) / n² - Σ_a C_aa²:  a product of Gram matrices instead of one
    squared. Positive pairs enter all of C: its off-diagonal is called repulsion for what it does.
    """
    checks.check_settings(redundancy=redundancy)
    z = _stacked(z1, z2)
    with similarities.full_precision(z):
        x1, x2 = (F.batch_norm(view, None, None, training=True) for view in z.chunk(2))
        C = x1.T @ x2 / len(x1)
    attraction = (1 - C.diagonal()).square().sum()
    return _terms(z1, attraction, checks.scalar(redundancy) * _off_diagonal_squares(C).sum())


def vicreg_terms(
    z1: View,
    z2: View,
    *,
    invariance: Scalar = 25.0,
    variance: Scalar = 25.0,
    covariance: Scalar = 1.0,
) -> Terms:
    """invariance/d · mean ‖z1_i - z2_i‖²  and, summed over both views,
    variance/(2d) · Σ_a max(0, 1 - √(C_aa + 1e-4))  +  covariance/d · Σ_{a≠b} C_ab².

    C is the covariance (over n - 1) of one view: the scaling of the authors' code. On the n × n
    side the last sum is  Σ_ij (x_i·x_j)² / (n - 1)² - Σ_a C_aa²,  x the centred rows.
    """
    checks.check_settings(invariance=invariance, variance=variance, covariance=covariance)
    a, b = _stacked(z1, z2, power=4).chunk(2)

    def decorrelation(z: Tensor) -> Tensor:
        x = z - z.mean(0)
        with similarities.full_precision(z):
            C = x.T @ x / (len(z) - 1)
        hinge = (1 - (C.diagonal() + 1e-4).sqrt()).relu()
        squares = _off_diagonal_squares(C)
        of_variances = checks.scalar(variance) / 2 * hinge.mean()
        return of_variances + checks.scalar(covariance) * squares.sum() / len(C)

    attraction = checks.scalar(invariance) * (a - b).square().mean()
    return _terms(z1, attraction, decorrelation(a) + decorrelation(b))


def _kl_terms(
    similarity: Similarity,
    normalization: Normalization,
    z1: Tensor,
    z2: Tensor,
    P: Tensor | None,
) -> Terms:
    logits = _log_s(similarity, z1, z2)[1]
    P = positive_pairs(len(z1), normalization=normalization) if P is None else P
    checks.check_floating("P", P)
    P = P.to(logits)
    attraction = losses.sne_objective(P, logits)  # which checks shape and sign of P
    _check_sums(P, normalization)
    loss = losses.sne_objective(P, similarities.log_q(logits, normalization))
    return _terms(z1, attraction, loss - attraction)


def _check_sums(P: Tensor, normalization: Normalization) -> None:
    rows = P.masked_fill(similarities.diagonal(P), 0).sum(1)
    sums = rows if normalization == "conditional" else rows.sum()
    if checks.holds((sums - 1).abs().max() < 1e-5):
        return
    where = " in each row" if normalization == "conditional" else ""
    found = f"rows that sum to {rows.min():g}..{rows.max():g}"
    raise ValueError(f"P must sum to 1{where} off the diagonal, got {found}: divide by the sum")


def _terms(like: Tensor, attraction: Tensor, repulsion: Tensor) -> Terms:
    """Both in the precision of `like`, at least float32."""
    like = checks.single(like)
    return Terms(
        similarities.in_precision_of(like, attraction),
        similarities.in_precision_of(like, repulsion),
    )


def _binary_terms(z1: Tensor, positive: Tensor, negatives: Tensor) -> Terms:
    """-log σ of the positives' log-odds, and -log σ(-·) of the negatives'.

    The latter is summed over each row, where pairs that are no negatives are -inf, and averaged
    over rows.
    """
    repulsion = -F.logsigmoid(-negatives).sum() / len(negatives)
    return _terms(z1, -F.logsigmoid(positive).mean(), repulsion)


def _of_negatives(square: Tensor, fill: float) -> Tensor:
    """`square`, over all pairs of rows of Z, with `fill` for those that are no negatives."""
    return square.masked_fill(similarities.same_sample(len(square) // 2, square.device), fill)


def _off_diagonal_squares(C: Tensor) -> Tensor:
    return C.masked_fill(similarities.diagonal(C), 0.0).square()


def _stacked(z1: Tensor, z2: Tensor, *, power: int = 2) -> Tensor:
    """Z, checked, in a precision in which powers of features are finite."""
    z = losses.prepare(z1, z2, None, validate=True, cosine=False)[0]
    return similarities.wide_enough(z, similarities.largest(z), power=power)


def _log_s(similarity: Similarity, z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """log s of the n positive pairs, by their difference, and of all pairs (2n, 2n)."""
    cosine = similarity.metric == "cosine"
    z = losses.prepare(z1, z2, None, validate=True, cosine=cosine)[0]
    return similarity.log_s_of_views(z)


_PAIR = "positive pair, one per row"
_KNN = "kNN graph; here the positive pair, one per row"
_COS = "exp(cos/τ)"
_STUDENT = "(1 + d²/(τν))^(-(ν+1)/2)"
_HU = "Hu et al., arXiv 2205.14814"
_BINARY = "binary cross-entropy of every pair, positive or not"
LOSSES: Mapping[str, Member] = {
    "InfoNCE": Member(_PAIR, _COS, "KL, conditional", "Chen et al. 2020", info_nce_terms),
    "t-SimCLR": Member("positive pairs, 1/(2n) each", _STUDENT, "KL, joint", _HU, t_simclr_terms),
    "t-SimCLR, conditional": Member(
        _PAIR,
        _STUDENT,
        "KL, conditional",
        _HU,
        partial(t_simclr_terms, normalization="conditional"),
    ),
    "SNE": Member(
        "any, rows sum to 1", "exp(-d²/(2τ))", "KL, conditional", "Hinton & Roweis 2002", sne_terms
    ),
    "t-SNE": Member(
        "any, sums to 1", "1/(1 + d²)", "KL, joint", "van der Maaten & Hinton 2008", t_sne_terms
    ),
    "DCL": Member(
        _PAIR,
        _COS,
        "KL, conditional, but Q normalised over the negatives alone",
        "Yeh et al. 2022",
        dcl_terms,
    ),
    "SigLIP": Member(
        f"{_PAIR}, across views",
        "odds exp(cos/τ + b)",
        f"{_BINARY}, across views",
        "Zhai et al. 2023",
        siglip_terms,
    ),
    "Neg-t-SNE": Member(
        _KNN, "odds 1/(1 + d²)", _BINARY, "Damrich et al. 2023", negative_sampling_terms
    ),
    "UMAP": Member(
        _KNN,
        "odds 1/d², probability 1/(1 + d²) (a = b = 1)",
        _BINARY,
        "McInnes et al. 2018",
        umap_terms,
    ),
    "spectral contrastive": Member(
        "P/(pp'), p its marginal",
        "z·z'",
        "squared error weighted by pp', squares over negatives",
        "HaoChen et al. 2021",
        spectral_terms,
    ),
    "Barlow Twins": Member(
        "positive pairs, in all of C = x1ᵀx2/n",
        "x·x', x standardised over the batch",
        "squared error of C for I (d × d), off-diagonal times λ",
        "Zbontar et al. 2021; n × n side: Garrido et al. 2023",
        barlow_twins_terms,
    ),
    "VICReg": Member(
        _PAIR,
        "-‖z - z'‖² of positives, x·x' centred within a view",
        "mean squared distance + squared off-diagonal of covariances (d × d) + hinge on variances",
        "Bardes et al. 2022; n × n side: Garrido et al. 2023",
        vicreg_terms,
    ),
}
