"""How far apart a similarity leaves pairs, how hard it pushes them, its energy of three points.

Nothing here depends on the features' unit of length. Distances d are those that the similarity
depends on: Euclidean, for cosines angles. The push on a pair is that of the loss in log d,
q · |∂ log s / ∂ log d|, where q is the pair's part of the normaliser. It says how much the loss
falls when that one distance grows by a small part of itself.

Errors are those of `losses`: `TypeError` for what is no floating-point tensor, `ValueError` for
shapes, for features that are not finite, or zero where the similarity is a cosine.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from sscl_core import checks
from sscl_core.config import InfoNCE, TSimCLR
from sscl_core.similarities import Cosine, Similarity, Student, same_sample

Loss = InfoNCE | TSimCLR


def similarity_of(loss: Loss) -> Similarity:
    """The similarity that a loss compares features by."""
    if isinstance(loss, InfoNCE):
        return Cosine(loss.temperature)
    return Student(loss.temperature, loss.df)


def distances(loss: Loss, z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    """‖z_j - z_k‖, for InfoNCE the angle between them."""
    similarity = similarity_of(loss)
    return similarity.distances(checks.features(z, cosine=similarity.metric == "cosine"))


def probabilities(loss: Loss, z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    """q_jk = ∂ log normaliser / ∂ log s_jk: the Q of the loss.

    Its sum is 1: rows of a conditional loss are averaged.
    """
    similarity = similarity_of(loss)
    z = checks.features(z, cosine=similarity.metric == "cosine")
    normalization = "conditional" if isinstance(loss, InfoNCE) else loss.normalization
    q = similarity.log_q(z, normalization=normalization).exp()
    return q / (len(z) if normalization == "conditional" else 1)


def push(loss: Loss, z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
    """q_jk · |∂ log s_jk / ∂ log d_jk|."""
    slope = similarity_of(loss).slope_in_log_distance(distances(loss, z))
    return probabilities(loss, z) * slope


def crowding(loss: Loss, z: Float[Tensor, "two_n d"]) -> dict[str, float]:
    """How crowded pairs of views z = [z1; z2] are.

    `nearer`: the fraction of other images' views that are nearer to a view than its own other one,
    averaged over views. `ratio`: the median distance of two views of an image over that of two
    images. `near`, `middle`, `far`: of the push on pairs of different images, the fractions that
    fall on the nearest, the middle and the farthest third of them.
    """
    n = _pairs(z)
    d = distances(loss, z)
    rows = torch.arange(2 * n)
    own = d[rows, rows.roll(n)]
    others = ~same_sample(n, z.device)
    between, pushes = d[others], push(loss, z)[others]
    thirds = pushes[between.argsort()].tensor_split(3)
    nearer = ((d < own[:, None]) & others).sum(1) / (2 * n - 2)
    result = {"nearer": nearer.mean(), "ratio": own.median() / between.median()}
    for name, third in zip(("near", "middle", "far"), thirds, strict=True):
        result[name] = third.sum() / pushes.sum()
    return {name: float(value) for name, value in result.items()}


def three_points(loss: Loss, c: Float[Tensor, "*shape 2"]) -> Float[Tensor, "*shape"]:
    """The energy of neighbors a = (1, -½), b = (1, ½) and a third point c in the plane.

    That is -log s_ab + log(s_ab + s_ac + s_bc), a joint SNE objective up to a constant. Cosines see
    only the direction of c.
    """
    checks.check_floating("c", c)
    if not c.ndim or c.shape[-1] != 2:
        raise ValueError(f"c must have shape (..., 2), points in the plane, got {tuple(c.shape)}")
    similarity = similarity_of(loss)

    def log_s(x: Tensor, y: Tensor) -> Tensor:
        if isinstance(similarity, Cosine):
            cosines = (normalize(x, dim=-1) * normalize(y, dim=-1)).sum(-1)
            return cosines / loss.temperature
        return similarity.log_s_of_squared((x - y).square().sum(-1))

    a, b = c.new_tensor([1.0, -0.5]), c.new_tensor([1.0, 0.5])
    pairs = torch.broadcast_tensors(log_s(a, b), log_s(a, c), log_s(b, c))
    logits = torch.stack(pairs, -1)
    return logits.logsumexp(-1) - logits[..., 0]


def pair_distances(
    loss: Loss, z: Float[Tensor, "two_n d"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
    """Distances of the two views of an image, and of views of two images (j < k).

    Both are in units of the median of the latter.
    """
    n = _pairs(z)
    d = distances(loss, z)
    between = d[(~same_sample(n, z.device)).triu()]
    rows = torch.arange(n)
    return d[rows, rows + n] / between.median(), between / between.median()


def _pairs(z: Tensor) -> int:
    """n, of two views of n ≥ 2 images."""
    z = checks.features(z, cosine=False)
    if len(z) < 4 or len(z) % 2:
        raise ValueError(
            f"z must hold two views of at least 2 images, (2n, d), got {tuple(z.shape)}"
        )
    return len(z) // 2
