"""The losses here, and others that compute the same: each a function of two views (n, d)."""

import inspect
import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from sscl_core.losses import info_nce, t_simclr

from .measuring import installed

Loss = Callable[[Tensor, Tensor], Tensor]
OURS = "ours"
DIRECT, IDIOM = "direct formula", "ten lines"
METRIC_LEARNING, TORCHDR = "pytorch-metric-learning", "torchdr"
FLOOR, FLOOR_IN_BLOCKS = "three products", "three products, in blocks"
BLOCK = 512  # rows
TEMPERATURE, DF = 0.5, 5.0  # of info_nce; of t_simclr, whose temperature is 1


def direct(
    z1: Float[Tensor, "n d"],
    z2: Float[Tensor, "n d"],
    *,
    temperature: float = 1.0,
    df: float | None,
    joint: bool,
) -> Float[Tensor, ""]:
    """The formula as it is written, over all (2n)² × d differences.

    Student's similarity, or without `df` the cosine, which is 1 - ‖u - v‖²/2 of unit vectors.
    """
    z = torch.cat([z1, z2])
    if df is None:
        z = z / z.norm(dim=1, keepdim=True)
    squared = (z[:, None] - z[None]).square().sum(2)
    if df is None:
        logits = (1 - squared / 2) / temperature
    else:
        logits = -(df + 1) / 2 * (squared / (temperature * df)).log1p()
    return _normalised(logits, joint=joint)


def _normalised(logits: Float[Tensor, "N N"], *, joint: bool) -> Float[Tensor, ""]:
    n = len(logits) // 2
    positive = torch.cat([logits.diagonal(n), logits.diagonal(-n)])
    itself = torch.eye(2 * n, dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(itself, -math.inf)
    if joint:
        return logits.logsumexp((0, 1)) - positive.mean()
    return (logits.logsumexp(1) - positive).mean()


def cross_entropy_of_cosines(
    z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]
) -> Float[Tensor, ""]:
    """InfoNCE as most code bases have it: normalise, one product, cross-entropy."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    logits = z @ z.T / TEMPERATURE
    return F.cross_entropy(logits.fill_diagonal_(-math.inf), _partners(z))


def from_one_product(
    z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], *, joint: bool
) -> Float[Tensor, ""]:
    """t-SimCLR in the same manner: squared distances from one product, log1p, cross-entropy."""
    z = torch.cat([z1, z2])
    squares = z.square().sum(1)
    squared = (squares[:, None] + squares - 2 * z @ z.T).clamp_min(0)
    logits = -(DF + 1) / 2 * (squared / DF).log1p()
    if joint:
        return _normalised(logits, joint=True)
    return F.cross_entropy(logits.fill_diagonal_(-math.inf), _partners(z))


def _partners(z: Tensor) -> Tensor:
    return torch.arange(len(z), device=z.device).roll(len(z) // 2)


def _metric_learning() -> Loss:
    from pytorch_metric_learning.losses import NTXentLoss

    loss = NTXentLoss(TEMPERATURE)

    def nt_xent(z1: Tensor, z2: Tensor) -> Tensor:
        return loss(torch.cat([z1, z2]), torch.arange(len(z1), device=z1.device).repeat(2))

    return nt_xent


def _torchdr() -> Loss:
    """The two terms of `torchdr.TSNE`, from its functions; its own sum has the diagonal too."""
    from torchdr.distance import pairwise_distances, pairwise_distances_indexed
    from torchdr.utils import cross_entropy_loss, logsumexp_red

    def t_sne(z1: Tensor, z2: Tensor) -> Tensor:
        z = torch.cat([z1, z2])
        near = pairwise_distances_indexed(z, key_indices=_partners(z)[:, None])
        P = torch.full_like(near, 1 / len(z))
        attraction = cross_entropy_loss(P, -(1 + near).log(), log=True)
        squared = pairwise_distances(z, metric="sqeuclidean")
        log_s = -(1 + squared).log()
        repulsion = logsumexp_red(log_s.fill_diagonal_(-math.inf), dim=(0, 1))
        return (attraction + repulsion).squeeze()

    return t_sne


# The paths inside our losses by their `tile`, where it can be chosen; 0 is one matrix.
DENSE, TILES = "ours, dense", f"ours, tiles of {BLOCK}"
PATHS = {DENSE: 0, TILES: BLOCK}
T_SNE = "t-SNE, ν = 1"
# By name: ours, then functions that make the others, which import what may not be installed.
CONTESTS: dict[str, tuple[Callable[..., Tensor], dict[str, Callable[[], Loss]]]] = {
    "info_nce": (
        partial(info_nce, temperature=TEMPERATURE),
        {
            DIRECT: lambda: partial(direct, temperature=TEMPERATURE, df=None, joint=False),
            IDIOM: lambda: cross_entropy_of_cosines,
            METRIC_LEARNING: _metric_learning,
        },
    ),
    "t_simclr joint": (
        partial(t_simclr, df=DF),
        {
            DIRECT: lambda: partial(direct, df=DF, joint=True),
            IDIOM: lambda: partial(from_one_product, joint=True),
        },
    ),
    "t_simclr conditional": (
        partial(t_simclr, df=DF, normalization="conditional"),
        {
            DIRECT: lambda: partial(direct, df=DF, joint=False),
            IDIOM: lambda: partial(from_one_product, joint=False),
        },
    ),
    T_SNE: (partial(t_simclr, df=1.0), {TORCHDR: _torchdr}),
}


def contenders(name: str) -> tuple[dict[str, Loss], dict[str, str]]:
    """Of one loss: every implementation that is here, ours first, and why others are not."""
    ours, others = CONTESTS[name]
    found = {OURS: ours}
    if "tile" in inspect.signature(ours).parameters:  # else the loss has one path
        found |= {path: partial(ours, tile=tile) for path, tile in PATHS.items()}
    made, missing = installed(others)
    return found | made, missing


def gradient(loss: Loss, views: list[Tensor]) -> tuple[Tensor, ...]:
    """Forward and backward."""
    return torch.autograd.grad(loss(*views), views)


def views_of(
    rows: int,
    dim: int,
    seed: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> list[Float[Tensor, "n d"]]:
    """Two views of rows/2 samples: normal features, the second with noise of half their size."""
    generator = torch.Generator().manual_seed(seed)
    first, noise = torch.randn(2, rows // 2, dim, generator=generator, dtype=dtype)
    return [z.to(device).requires_grad_() for z in (first, first + 0.5 * noise)]


def check_agreement(*, dim: int = 8, rows: int = 32) -> None:
    """`AssertionError`: contenders are not one function, in value or gradient (float64)."""
    views = views_of(rows, dim, seed=0, dtype=torch.float64)
    for name in CONTESTS:
        ours, *others = contenders(name)[0].values()
        for other in others:
            torch.testing.assert_close(other(*views), ours(*views), rtol=1e-8, atol=0)
            both = zip(gradient(other, views), gradient(ours, views), strict=True)
            for theirs, own in both:
                torch.testing.assert_close(theirs, own, rtol=1e-6, atol=1e-9)


def three_products(z: Float[Tensor, "N d"]) -> None:
    """The Gram matrix, and two products of as many operations for its gradient; results are new."""
    for _ in range(3):
        z @ z.T


def three_products_in_blocks(z: Float[Tensor, "N d"]) -> None:
    """The same operations without an N × N array: a block of rows at a time, in one place."""
    out = z.new_empty(min(BLOCK, len(z)), len(z))
    for _ in range(3):
        for some in z.split(BLOCK):
            torch.mm(some, z.T, out=out[: len(some)])
