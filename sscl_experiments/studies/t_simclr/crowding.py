"""What a similarity makes of pairs: how far apart they end, how hard they are pushed, and the energy of three points.

Everything is free of the features' scale. Distances d are those that the similarity depends on: Euclidean, for cosines angles. The push on
a pair is that of the loss in log d, q · |∂ log s / ∂ log d|, where q is the pair's share of the normaliser: how much the loss falls when
that one distance grows by a small share of itself, whatever its unit.

Errors are those of `losses`: `TypeError` for what is no floating-point tensor, `ValueError` for shapes,
for features that are not finite, or zero where the similarity is a cosine.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from sscl_core import checks, similarities
from sscl_core.config import InfoNCE, TSimCLR
from sscl_core.similarities import log_q_cosine, log_q_student, squared_distances

Loss = InfoNCE | TSimCLR


def distances(loss: Loss, z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    """‖z_j - z_k‖, for InfoNCE the angle between them."""
    if isinstance(
        loss, InfoNCE
    ):  # by the chord: exact where the angle is small, which its cosine is not
        u = similarities.unit(checks.features(z, cosine=True))
        return 2 * (squared_distances(u).sqrt() / 2).clamp(max=1).asin()
    return squared_distances(z).sqrt()


def shares(loss: Loss, z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    """q_jk = ∂ log normaliser / ∂ log s_jk: Q of the loss, its sum 1 (rows of a conditional loss are averaged)."""
    if isinstance(loss, InfoNCE):
        return log_q_cosine(z, temperature=loss.temperature).exp() / len(z)
    log_q = log_q_student(
        z, temperature=loss.temperature, df=loss.df, normalization=loss.normalization
    )
    return log_q.exp() / (len(z) if loss.normalization == "conditional" else 1)


def steepness(loss: Loss, d: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """|∂ log s / ∂ log d|:  d sin(d) / τ for InfoNCE, d the angle;  d²/τ for the Gaussian;  (ν+1) d² / (τν + d²) for Student's t, which
    levels off at ν+1."""
    if isinstance(loss, InfoNCE):
        return d * d.sin() / loss.temperature
    if loss.df == math.inf:
        return d.square() / loss.temperature
    return (loss.df + 1) * d.square() / (loss.temperature * loss.df + d.square())


def crowding(loss: Loss, z: Float[Tensor, "two_n d"]) -> dict[str, float]:
    """Of pairs of views z = [z1; z2]: `nearer`, the mean share of other images' views that are nearer to a view than its own other one;
    `ratio`, the median distance of two views of an image over that of two images; and of the push on pairs of different images the shares
    that fall on the nearest, the middle and the farthest third of them."""
    n = _pairs(z)
    d, push = distances(loss, z), shares(loss, z)
    push = push * steepness(loss, d)
    partner = torch.arange(2 * n).roll(n)
    own = d[torch.arange(2 * n), partner]
    others = ~torch.eye(n, dtype=torch.bool).repeat(2, 2)
    between, pushes = d[others], push[others]
    thirds = pushes[between.argsort()].tensor_split(3)
    nearer = ((d < own[:, None]) & others).sum(1) / (2 * n - 2)
    result = {"nearer": nearer.mean(), "ratio": own.median() / between.median()}
    result |= {
        name: part.sum() / pushes.sum()
        for name, part in zip(("near", "middle", "far"), thirds, strict=True)
    }
    return {name: float(value) for name, value in result.items()}


def three_points(loss: Loss, c: Float[Tensor, "*shape 2"]) -> Float[Tensor, "*shape"]:
    """The loss of neighbors a = (1, -½), b = (1, ½) and a third point c in the plane, as a joint SNE objective up to a constant:
    -log s_ab + log(s_ab + s_ac + s_bc). Cosines see only the direction of c."""
    checks.check_floating("c", c)
    if not c.ndim or c.shape[-1] != 2:
        raise ValueError(f"c must have shape (..., 2), points in the plane, got {tuple(c.shape)}")
    a, b = c.new_tensor([1.0, -0.5]), c.new_tensor([1.0, 0.5])

    def log_s(x: Tensor, y: Tensor) -> Tensor:
        if isinstance(loss, InfoNCE):
            return (normalize(x, dim=-1) * normalize(y, dim=-1)).sum(-1) / loss.temperature
        squared = (x - y).square().sum(-1) / loss.temperature
        return (
            -squared / 2
            if loss.df == math.inf
            else -(loss.df + 1) / 2 * (squared / loss.df).log1p()
        )

    logits = torch.stack(torch.broadcast_tensors(log_s(a, b), log_s(a, c), log_s(b, c)), -1)
    return logits.logsumexp(-1) - logits[..., 0]


def pair_distances(
    loss: Loss, z: Float[Tensor, "two_n d"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
    """Distances of the two views of an image, and of views of two images (j < k), in units of the median of the latter."""
    n = _pairs(z)
    d = distances(loss, z)
    others = (~torch.eye(n, dtype=torch.bool).repeat(2, 2)).triu()
    between = d[others]
    return d[torch.arange(n), torch.arange(n) + n] / between.median(), between / between.median()


def _pairs(z: Tensor) -> int:
    """n, of two views of n ≥ 2 images."""
    z = checks.features(z, cosine=False)
    if len(z) < 4 or len(z) % 2:
        raise ValueError(
            f"z must hold two views of at least 2 images, (2n, d), got {tuple(z.shape)}"
        )
    return len(z) // 2
