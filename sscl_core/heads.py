"""Projector, BatchNorm and loss together, set so that they fit each other.

Off the sphere a temperature means something only where the size of features is fixed: without
BatchNorm on z the network undoes it. With it two features are at ‖z - z'‖² ≈ 2 d_z, so τ grows with
d_z. The rule τ = 0.03 d_z, ν = 5 is that of notebook 09, which says what it costs against a search.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .checks import check_settings, check_whole
from .config import Projector
from .losses import InfoNCELoss, TSimCLRLoss
from .models import projector

TEMPERATURE_PER_DIM = 0.03
DF = 5.0


class ContrastiveHead(nn.Module):
    """A projector to z and a loss of z: h1, h2 -> loss(z1, z2), (n, width) each to a scalar.

    Both views pass the projector as one batch, so BatchNorm sees 2n rows. `project` gives z by
    itself. Made by `t_simclr_head` and `simclr_head`.
    """

    def __init__(self, projector: nn.Module, loss: InfoNCELoss | TSimCLRLoss) -> None:
        super().__init__()
        self.projector, self.loss = projector, loss

    def project(self, h: Float[Tensor, "n width"]) -> Float[Tensor, "n d_z"]:
        """z of features h; after `eval()` by BatchNorm's running statistics."""
        return self.projector(h)

    def forward(
        self,
        h1: Float[Tensor, "n width"],
        h2: Float[Tensor, "n width"],
        weights: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of two views. `ValueError`: their shapes differ, and what the loss refuses."""
        if h1.shape != h2.shape:
            shapes = f"{tuple(h1.shape)} and {tuple(h2.shape)}"
            raise ValueError(f"h1 and h2 must have the same shape (n, width), got {shapes}")
        z1, z2 = self.project(torch.cat([h1, h2])).chunk(2)
        return self.loss(z1, z2, weights)


def t_simclr_head(
    width: int,
    dim: int,
    *,
    hidden: int = 2048,
    df: float = DF,
    temperature_per_dim: float = TEMPERATURE_PER_DIM,
) -> ContrastiveHead:
    """t-SimCLR: linear-ReLU-linear to `dim`, BatchNorm without affine parameters, joint loss.

    `width` of h, `hidden` units (0: one linear layer), τ = `temperature_per_dim` · `dim`, ν = `df`.
    `ValueError`, `TypeError`: a size below 1 or no integer, a number that is not positive.
    """
    check_settings(temperature_per_dim=temperature_per_dim)
    to_z = _projector(width, dim, hidden, batchnorm=True)
    loss = TSimCLRLoss(temperature=temperature_per_dim * dim, df=df, normalization="joint")
    return ContrastiveHead(to_z, loss)


def simclr_head(
    width: int, dim: int, *, hidden: int = 2048, temperature: float = 0.5
) -> ContrastiveHead:
    """SimCLR: the same projector without BatchNorm on z, which cosines do without; errors alike."""
    loss = InfoNCELoss(temperature=temperature)
    return ContrastiveHead(_projector(width, dim, hidden, batchnorm=False), loss)


def _projector(width: int, dim: int, hidden: int, *, batchnorm: bool) -> nn.Sequential:
    check_whole("width", width, 1)
    check_whole("dim", dim, 1)
    check_whole("hidden", hidden, 0)
    layers = Projector(hidden=int(hidden), dim=int(dim), batchnorm=batchnorm)
    return projector(int(width), layers)
