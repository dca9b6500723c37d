"""Views: of image batches by kornia, with the boxes of the crops; of any numbers by agnostic steps.

Agnostic steps know nothing of the domain. Randomness is torch's global generator.
"""

from collections.abc import Sequence

import kornia.augmentation as K
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

from .config import Agnostic, Corruption, ImageAugmentation, Masking, Mixup


def agnostic_views(
    x: Float[Tensor, "n ..."], steps: Sequence[Agnostic], pool: Shaped[Tensor, "m ..."]
) -> Float[Tensor, "n ..."]:
    """One random view of each row: the steps in turn (`config.Agnostic` says what each does).

    `pool` is the data that partners and marginals are drawn from, as it is stored: bytes count as
    0..1.
    """
    for step in steps:
        if isinstance(step, Mixup):
            x = _mixed_with_pool(x, step.strength, pool)
        elif isinstance(step, Masking):
            x = x.masked_fill(torch.rand_like(x) < step.rate, 0.0)
        elif isinstance(step, Corruption):
            x = _corrupted(x, step.rate, pool)
        else:
            x = x + step.scale * _standard_noise(x, step.kind)
    return x


def _mixed_with_pool(x: Tensor, strength: float, pool: Tensor) -> Tensor:
    shape = (len(x), *[1] * (x.ndim - 1))
    share = strength * torch.rand(shape, dtype=x.dtype, device=x.device)
    partner = pool[torch.randint(len(pool), (len(x),), device=x.device)]
    return mixed(x, partner, share)


def mixed(
    x: Float[Tensor, "n ..."], partner: Shaped[Tensor, "n ..."], share: Float[Tensor, "n ..."]
) -> Float[Tensor, "n ..."]:
    """x + share · (partner - x): mixup, of partners as they are stored."""
    return torch.lerp(x, _as_numbers(partner, x), share)


def _corrupted(x: Tensor, rate: float, pool: Tensor) -> Tensor:
    replaced = torch.rand_like(x) < rate
    entry = torch.arange(x[0].numel(), device=x.device).expand(len(x), -1)
    row = torch.randint(len(pool), entry.shape, device=x.device)
    drawn = pool.flatten(1)[row, entry].view_as(x)
    return torch.where(replaced, _as_numbers(drawn, x), x)


def _as_numbers(stored: Tensor, like: Tensor) -> Tensor:
    numbers = stored.to(like.dtype)
    return numbers / 255 if stored.dtype == torch.uint8 else numbers


def _standard_noise(x: Tensor, kind: str) -> Tensor:
    """Of variance 1."""
    if kind == "gaussian":
        return torch.randn_like(x)
    if kind == "uniform":
        return 3**0.5 * (2 * torch.rand_like(x) - 1)
    # Laplace, by a difference: inversion of a uniform number fails where that is 0.
    difference = torch.empty_like(x).exponential_() - torch.empty_like(x).exponential_()
    return difference / 2**0.5


class ImageViews(nn.Module):
    """One random view of each image of `shape` (c, h, w), and the box of its crop.

    Boxes are (x0, y0, x1, y1) in pixels of the input, right and bottom excluded. A flip comes after
    the crop and leaves them as they are. `pool` is for `agnostic_views`.
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
    """Intersection over union of two crops of one image, from their boxes (x0, y0, x1, y1).

    Right and bottom are excluded. Boxes are in the image's own coordinates, where a flip after the
    crop moves nothing: this is the overlap of what the views show.
    """
    corner = torch.maximum(first[:, :2], second[:, :2])
    opposite = torch.minimum(first[:, 2:], second[:, 2:])
    shared = (opposite - corner).clamp_min(0).prod(1)
    return shared / (_areas(first) + _areas(second) - shared)


def _areas(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _colour(config: ImageAugmentation, channels: int) -> list[nn.Module]:
    """Colour jitter and grayscale; one channel keeps brightness and contrast alone.

    `ColorJiggle` would add brightness, where SimCLR multiplies.
    """
    s, colour = config.jitter, channels == 3
    factors = (1 - 0.8 * s, 1 + 0.8 * s)
    saturation, hue = (factors, 0.2 * s) if colour else (0.0, 0.0)
    stages: list[nn.Module] = []
    if s > 0:
        p = config.jitter_probability
        stages.append(K.ColorJitter(factors, factors, saturation, hue, p=p))
    if config.grayscale > 0 and colour:
        stages.append(K.RandomGrayscale(p=config.grayscale))
    return stages
