"""Views: of image batches by kornia, with the boxes of the crops at hand; of any numbers by steps that know nothing of the domain."""

from collections.abc import Sequence

import kornia.augmentation as K
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

from .config import Agnostic, Corruption, ImageAugmentation, Masking, Mixup


def agnostic_views(
    x: Float[Tensor, "n ..."], steps: Sequence[Agnostic], pool: Shaped[Tensor, "m ..."]
) -> Float[Tensor, "n ..."]:
    """One random view of each row: the steps in turn (`config.Agnostic` says what each does). `pool` is the data that partners and
    marginals are drawn from, as it is stored: bytes count as 0..1. Randomness is torch's global generator."""
    for step in steps:
        if isinstance(step, Mixup):
            share = step.strength * torch.rand(
                len(x), *[1] * (x.ndim - 1), dtype=x.dtype, device=x.device
            )
            partner = pool[torch.randint(len(pool), (len(x),), device=x.device)]
            x = mixed(x, partner, share)
        elif isinstance(step, Masking):
            x = x.masked_fill(torch.rand_like(x) < step.rate, 0.0)
        elif isinstance(step, Corruption):
            replaced = torch.rand_like(x) < step.rate
            entry = torch.arange(x[0].numel(), device=x.device).expand(len(x), -1)
            drawn = pool.flatten(1)[
                torch.randint(len(pool), entry.shape, device=x.device), entry
            ].view_as(x)
            x = torch.where(replaced, _as_numbers(drawn, x), x)
        else:
            x = x + step.scale * _standard_noise(x, step.kind)
    return x


def mixed(
    x: Float[Tensor, "n ..."], partner: Shaped[Tensor, "n ..."], share: Float[Tensor, "n ..."]
) -> Float[Tensor, "n ..."]:
    """x + share · (partner - x): mixup, of partners as they are stored."""
    return torch.lerp(x, _as_numbers(partner, x), share)


def _as_numbers(stored: Tensor, like: Tensor) -> Tensor:
    return stored.to(like.dtype) / 255 if stored.dtype == torch.uint8 else stored.to(like.dtype)


def _standard_noise(x: Tensor, kind: str) -> Tensor:
    """Of variance 1."""
    if kind == "gaussian":
        return torch.randn_like(x)
    if kind == "uniform":
        return 3**0.5 * (2 * torch.rand_like(x) - 1)
    return (
        torch.empty_like(x).exponential_() - torch.empty_like(x).exponential_()
    ) / 2**0.5  # Laplace


class ImageViews(nn.Module):
    """One random view of each image of `shape` (c, h, w), and the box of its crop; `pool` is for `agnostic_views`.

    Boxes are (x0, y0, x1, y1) in pixels of the input, right and bottom excluded; a flip comes after the crop and leaves them as they are.
    Randomness is torch's global generator.
    """

    def __init__(self, config: ImageAugmentation, shape: Sequence[int]) -> None:
        super().__init__()
        self.crop = K.RandomResizedCrop(
            (shape[1], shape[2]), scale=config.crop_scale, cropping_mode="resample"
        )
        self.then = config.then
        self.rest = nn.Sequential(K.RandomHorizontalFlip(p=config.flip), *_colour(config, shape[0]))

    def forward(
        self, images: Float[Tensor, "n c h w"], pool: UInt8[Tensor, "m c h w"] | None = None
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n 4"]]:
        views = self.rest(self.crop(images))
        corners = self.crop._params["src"].to(images)  # (n, 4, 2), the last one included
        if self.then:
            views = agnostic_views(views, self.then, images if pool is None else pool)
        return views, torch.cat([corners[:, 0], corners[:, 2] + 1], 1)


def crop_overlap(first: Float[Tensor, "n 4"], second: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Intersection over union of two crops of one image, from their boxes (x0, y0, x1, y1), right and bottom excluded.

    Boxes are in the image's own coordinates, where a flip, which comes after the crop, moves nothing: the overlap of what the views show.
    """
    size = (
        torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])
    ).clamp_min(0)
    shared = size.prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared)


def _colour(config: ImageAugmentation, channels: int) -> list[nn.Module]:
    """Hue and saturation are a colour image's; one channel keeps brightness and contrast. (`ColorJiggle` would add brightness.)"""
    s, colour = config.jitter, channels == 3
    spread = (1 - 0.8 * s, 1 + 0.8 * s)
    stages: list[nn.Module] = []
    if s > 0:
        stages.append(
            K.ColorJitter(
                spread,
                spread,
                spread if colour else 0.0,
                0.2 * s if colour else 0.0,
                p=config.jitter_probability,
            )
        )
    if config.grayscale > 0 and colour:
        stages.append(K.RandomGrayscale(p=config.grayscale))
    return stages
