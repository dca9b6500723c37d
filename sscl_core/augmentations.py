"""Views of image batches, by kornia, with the boxes of the crops at hand."""

from collections.abc import Sequence

import kornia.augmentation as K
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .config import ImageAugmentation


class ImageViews(nn.Module):
    """One random view of each image of `shape` (c, h, w), and the box of its crop.

    Boxes are (x0, y0, x1, y1) in pixels of the input, right and bottom excluded; a flip comes after the crop and leaves them as they are.
    Randomness is torch's global generator.
    """

    def __init__(self, config: ImageAugmentation, shape: Sequence[int]) -> None:
        super().__init__()
        self.crop = K.RandomResizedCrop((shape[1], shape[2]), scale=config.crop_scale, cropping_mode="resample")
        self.rest = nn.Sequential(K.RandomHorizontalFlip(p=config.flip), *_colour(config, shape[0]))

    def forward(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n 4"]]:
        views = self.rest(self.crop(images))
        corners = self.crop._params["src"].to(images)  # (n, 4, 2), the last one included
        return views, torch.cat([corners[:, 0], corners[:, 2] + 1], 1)


def _colour(config: ImageAugmentation, channels: int) -> list[nn.Module]:
    """Hue and saturation are a colour image's; one channel keeps brightness and contrast. (`ColorJiggle` would add brightness.)"""
    s, colour = config.jitter, channels == 3
    spread = (1 - 0.8 * s, 1 + 0.8 * s)
    stages: list[nn.Module] = []
    if s > 0:
        stages.append(K.ColorJitter(spread, spread, spread if colour else 0.0, 0.2 * s if colour else 0.0, p=config.jitter_probability))
    if config.grayscale > 0 and colour:
        stages.append(K.RandomGrayscale(p=config.grayscale))
    return stages
