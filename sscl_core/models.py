"""Backbones and the projector on top of them."""

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .config import MLP, ConvNet, Projector, ResNet, TrainConfig, TSimCLR


class Encoder(nn.Module):
    """x -> (h, z): the features h of the backbone, and their projection z.

    Training compares z; h is what is used afterwards.
    """

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, *, learned_df: float | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.projector = backbone, projector
        # The one parameter that a loss may have: the logarithm of Student's degrees of freedom,
        # which begin at `learned_df`.
        self.log_df: nn.Parameter | None = None
        if learned_df is not None:
            self.log_df = nn.Parameter(torch.tensor(math.log(learned_df)))

    def forward(
        self, x: Float[Tensor, "n ..."]
    ) -> tuple[Float[Tensor, "n d_h"], Float[Tensor, "n d_z"]]:
        h = self.backbone(x)
        return h, self.projector(h)


def build(config: TrainConfig, sample_shape: tuple[int, ...]) -> Encoder:
    """The network of a run for inputs of `sample_shape`, (d,) or (c, h, w).

    It is initialised from torch's global generator.
    """
    spec, loss = config.backbone, config.loss
    backbone, width = _backbone(spec, sample_shape)
    learned_df = loss.df if isinstance(loss, TSimCLR) and loss.learn_df else None
    network = Encoder(backbone, projector(width, config.projector), learned_df=learned_df)
    if isinstance(spec, MLP) and spec.init_scale != 1:
        for part in (network.backbone, network.projector):
            for parameter in part.parameters():
                parameter.data.mul_(spec.init_scale)
    return network


def _backbone(
    spec: MLP | ConvNet | ResNet, sample_shape: tuple[int, ...]
) -> tuple[nn.Sequential, int]:
    """The backbone and the number of its features."""
    if isinstance(spec, MLP):
        dim = int(torch.Size(sample_shape).numel())
        width = spec.width if spec.depth else dim
        return mlp(dim, spec.width, spec.depth, spec.activation), width
    if isinstance(spec, ConvNet):
        return convnet(sample_shape, spec.width), 64 * spec.width
    return resnet(spec.depth, sample_shape[0])


def mlp(dim: int, width: int, depth: int, activation: str = "relu") -> nn.Sequential:
    """Flattens, then `depth` times linear and activation."""
    activations = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth):
        layers += [nn.Linear(width if i else dim, width), activations[activation]()]
    return nn.Sequential(*layers)


def convnet(sample_shape: tuple[int, ...], width: int) -> nn.Sequential:
    """Four convolutions, widths w, 2w, 4w, 4w, strides 2, 2, 1, 2: 64w features on a 4×4 grid.

    Positions are kept: where a sleeve is tells garments apart. Images with other sides than 25 to
    32 are pooled to that grid.
    """
    channels, *size = sample_shape
    widths = (channels, width, 2 * width, 4 * width, 4 * width)
    layers: list[nn.Module] = []
    for (a, b), stride in zip(pairwise(widths), (2, 2, 1, 2), strict=True):
        layers += [_conv_bn(a, b, 3, stride), nn.ReLU()]
    if any(math.ceil(side / 8) != 4 for side in size):
        layers.append(nn.AdaptiveAvgPool2d(4))
    return nn.Sequential(*layers, nn.Flatten())


def resnet(depth: int, channels: int) -> tuple[nn.Sequential, int]:
    """ResNet-18 or -50 for 32×32 images, and the number of its features.

    As in He et al. 2016, with a 3×3 stem and no max-pool.
    """
    block: Any = _Basic if depth == 18 else _Bottleneck
    counts = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    layers: list[nn.Module] = [_conv_bn(channels, 64, 3), nn.ReLU()]
    width_in = 64
    for stage, count in enumerate(counts):
        for i in range(count):
            layers.append(block(width_in, 64 * 2**stage, 2 if stage and not i else 1))
            width_in = 64 * 2**stage * block.expansion
    return nn.Sequential(*layers, _GlobalMean()), width_in


def projector(width: int, config: Projector) -> nn.Sequential:
    """Linear, or linear-ReLU-linear, to d_z dimensions.

    BatchNorm without affine parameters follows if the configuration asks for it.
    """
    layers: list[nn.Module] = []
    if config.hidden:
        layers += [nn.Linear(width, config.hidden), nn.ReLU()]
    layers.append(nn.Linear(config.hidden or width, config.dim))
    if config.batchnorm:
        layers.append(nn.BatchNorm1d(config.dim, affine=False))
    return nn.Sequential(*layers)


def _conv_bn(width_in: int, width_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(width_in, width_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width_out))


class _GlobalMean(nn.Module):
    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
        return x.mean((2, 3))


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        same = stride == 1 and width_in == width_out
        self.body = body
        self.shortcut = nn.Identity() if same else _conv_bn(width_in, width_out, 1, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        return F.relu(self.body(x) + self.shortcut(x))


class _Basic(_Residual):
    expansion = 1

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        body = nn.Sequential(
            _conv_bn(width_in, width, 3, stride), nn.ReLU(), _conv_bn(width, width, 3)
        )
        super().__init__(body, width_in, width, stride)


class _Bottleneck(_Residual):
    expansion = 4

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        inner = (
            _conv_bn(width_in, width, 1),
            nn.ReLU(),
            _conv_bn(width, width, 3, stride),
            nn.ReLU(),
        )
        super().__init__(
            nn.Sequential(*inner, _conv_bn(width, 4 * width, 1)), width_in, 4 * width, stride
        )
