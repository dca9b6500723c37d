"""Noise with the covariance of the data: isotropic noise in whitened coordinates.

x + s Σ^½ δ with δ ~ N(0, I) and Σ the covariance of the training part. It has mixup's second
moments (up to the scale) without mixup's interpolation: mixup moves a point by λ (x_j - x_i), whose
covariance is 2 E[λ²] Σ. No labels are used.

Training itself knows only isotropic noise. So it is handed whitened points, on which noise of
standard deviation s is just that, and a network that begins with the fixed map back to the
original coordinates. Without that first map the network would see whitened input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sscl_core.checks import checked_features
from sscl_core.config import TrainConfig
from sscl_core.divergence import NonFiniteLossError
from sscl_core.ensemble import train_ensemble
from sscl_core.models import Encoder
from sscl_core.train import TrainResult, computing, initial_network

from .runs.points import measure, point_set
from .runs.together import Made, make_together

NEGLIGIBLE = 1e-5  # of the largest standard deviation: below it a direction is rounding


@dataclass(frozen=True, eq=False)
class Whitening:
    """w = Vᵀ(x - mean) / std, with V the principal axes of x and std along them, and back.

    Along axes on which the points do not vary w is 0.
    """

    mean: Float[Tensor, " d"]
    axes: Float[Tensor, "d r"]
    std: Float[Tensor, " r"]

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n r"]:
        scale = self.std.reciprocal().where(self.std > 0, 0.0)
        return (x - self.mean) @ self.axes * scale

    def back(self, w: Float[Tensor, "n r"]) -> Float[Tensor, "n d"]:
        return self.mean + (w * self.std) @ self.axes.T


def whitening(x: Float[Tensor, "n d"]) -> Whitening:
    """That of these points, r = min(n, d). Raises as `evaluate` says."""
    x = checked_features("x", x)
    mean = x.mean(0)
    _, singular, Vh = torch.linalg.svd(x - mean, full_matrices=False)
    std = singular / len(x) ** 0.5
    varies = std > NEGLIGIBLE * std[0]
    return Whitening(mean, Vh.T.contiguous(), std.where(varies, 0.0))


class _Back(nn.Module):
    """`Whitening.back` as a layer that is not trained."""

    mean: Tensor
    basis: Tensor

    def __init__(self, map_: Whitening) -> None:
        super().__init__()
        self.register_buffer("mean", map_.mean.clone())
        self.register_buffer("basis", (map_.axes * map_.std).T.contiguous())

    def forward(self, w: Float[Tensor, "n r"]) -> Float[Tensor, "n d"]:
        return self.mean + w @ self.basis


def train_with_covariance_noise(
    configs: Sequence[TrainConfig], points: Sequence[Float[Tensor, "n d"]], **settings: Any
) -> list[TrainResult]:
    """Networks on the original coordinates, trained with noise of the points' own covariance.

    `configs` differ in their seed alone; their augmentation is `Noise`, and its scale s is in units
    of the data's own standard deviation in every direction. Initial weights and batches are those
    of a run with isotropic noise. The networks that come back take x, not w.
    `settings` and errors are those of `train_ensemble`.
    """
    maps = [whitening(x) for x in points]
    first = [initial_network(c, x.shape[1:]) for c, x in zip(configs, points, strict=True)]
    networks = []
    for map_, network in zip(maps, first, strict=True):
        layers = [_Back(map_), *network.backbone.children()]
        networks.append(Encoder(nn.Sequential(*layers), network.projector))
    white = [map_(x) for map_, x in zip(maps, points, strict=True)]
    try:
        results = train_ensemble(configs, white, networks=networks, **settings)
    except NonFiniteLossError as error:
        error.finished = [_on_points(result) for result in error.finished]
        raise
    return [_on_points(result) for result in results]


def _on_points(result: TrainResult) -> TrainResult:
    """The same network without its first layer, which takes it from w to x."""
    layers = list(result.model.backbone.children())[1:]
    result.model = Encoder(nn.Sequential(*layers), result.model.projector).eval()
    return result


def make(configs: Sequence[TrainConfig], *, device: str, progress: bool = False) -> Made:
    """As `runs.points.make`, with this noise: what is measured on networks is the same."""
    points = [point_set(config).train.x for config in configs]
    how = {"device": device, "progress": progress}
    with computing(configs[0]):
        return make_together(configs, points, measure, train_with_covariance_noise, **how)
