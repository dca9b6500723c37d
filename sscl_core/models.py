"""Backbones and the projector on top of them."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .config import MLP, ConvNet, Projector, TrainConfig, TSimCLR


class Encoder(nn.Module):
    """x -> (h, z): the backbone's features h, which are used afterwards, and their projection z, which training compares."""

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, *, learned_df: float | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.projector = backbone, projector
        # The one parameter that a loss may have: Student's degrees of freedom, by their logarithm, from `learned_df` on.
        self.log_df = (
            None if learned_df is None else nn.Parameter(torch.tensor(math.log(learned_df)))
        )

    def forward(
        self, x: Float[Tensor, "n ..."]
    ) -> tuple[Float[Tensor, "n d_h"], Float[Tensor, "n d_z"]]:
        h = self.backbone(x)
        return h, self.projector(h)


def build(config: TrainConfig, sample_shape: tuple[int, ...]) -> Encoder:
    """The network of a run for inputs of `sample_shape` (d,) or (c, h, w), initialised from torch's global generator."""
    spec = config.backbone
    if isinstance(spec, MLP):
        dim = int(torch.Size(sample_shape).numel())
        backbone, width = (
            mlp(dim, spec.width, spec.depth, spec.activation),
            spec.width if spec.depth else dim,
        )
    elif isinstance(spec, ConvNet):
        backbone, width = convnet(sample_shape, spec.width), 64 * spec.width
    else:
        backbone, width = resnet(spec.depth, sample_shape[0])
    learned_df = (
        config.loss.df if isinstance(config.loss, TSimCLR) and config.loss.learn_df else None
    )
    network = Encoder(backbone, projector(width, config.projector), learned_df=learned_df)
    if isinstance(spec, MLP) and spec.init_scale != 1:
        for part in (network.backbone, network.projector):
            for parameter in part.parameters():
                parameter.data.mul_(spec.init_scale)
    return network


def mlp(dim: int, width: int, depth: int, activation: str = "relu") -> nn.Sequential:
    """Flattens, then `depth` times linear and activation."""
    activations = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth):
        layers += [nn.Linear(width if i else dim, width), activations[activation]()]
    return nn.Sequential(*layers)


def convnet(sample_shape: tuple[int, ...], width: int) -> nn.Sequential:
    """Four convolutions, widths w, 2w, 4w, 4w, strides 2, 2, 1, 2, on a 4×4 grid in the end: 64w features.

    Positions are kept: where a sleeve is tells garments apart. Images of other sizes than 25 to 32 are pooled to that grid."""
    channels, *size = sample_shape
    widths, strides = (channels, width, 2 * width, 4 * width, 4 * width), (2, 2, 1, 2)
    blocks = [
        _conv_bn(a, b, 3, stride) for a, b, stride in zip(widths, widths[1:], strides, strict=False)
    ]
    pool = [] if all(math.ceil(side / 8) == 4 for side in size) else [nn.AdaptiveAvgPool2d(4)]
    return nn.Sequential(
        *(layer for block in blocks for layer in (block, nn.ReLU())), *pool, nn.Flatten()
    )


def resnet(depth: int, channels: int) -> tuple[nn.Sequential, int]:
    """ResNet-18 or -50 for 32×32 images (He et al. 2016, with the 3×3 stem) and the number of its features."""
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
    """Linear, or linear-ReLU-linear, to d_z dimensions, then BatchNorm without affine parameters if asked for."""
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
