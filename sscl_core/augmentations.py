"""Views: SimCLR's of image batches, with the boxes of the crops; of any numbers by agnostic steps.

Agnostic steps know nothing of the domain. Randomness is torch's global generator, that of the
device which the images are on. Nothing here waits for a GPU.
"""

import functools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from .config import Agnostic, Corruption, ImageAugmentation, Masking, Mixup

ASPECT_RATIOS = (3 / 4, 4 / 3)  # width over height of a crop
TRIES = 10  # draws of a crop, of which the first that fits into the image is taken
CACHED = 2**18  # numbers that a CPU handles at a time: more leave its cache, at half the speed
# NTSC's Y (luma), I and Q (chroma) of a colour (R, G, B).
YIQ = (
    (0.299, 0.587, 0.114),
    (0.595716, -0.274453, -0.321263),
    (0.211456, -0.522591, 0.311135),
)


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

    Images are bytes or numbers in [0, 1]; views of bytes are float32, and all are in the memory
    format `channels_last`. Boxes are (x0, y0, x1, y1) in pixels of the input, right and bottom
    excluded. A flip comes after the crop and leaves them as they are. `pool` is for
    `agnostic_views`.

    `ValueError`: images of another shape. `TypeError`: integers other than bytes.
    """

    def __init__(self, config: ImageAugmentation, shape: Sequence[int]) -> None:
        super().__init__()
        self.config, self.shape = config, tuple(shape)
        self.recolours = config.jitter > 0 or (config.grayscale > 0 and shape[0] == 3)

    def forward(
        self, images: Shaped[Tensor, "n c h w"], pool: UInt8[Tensor, "m c h w"] | None = None
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n 4"]]:
        _check_images(images, self.shape)
        n, device = len(images), images.device
        boxes = random_boxes(n, self.shape[1:], self.config.crop_scale, device)
        flipped = torch.rand(n, device=device) < self.config.flip
        factors = _random_factors(self.config, n, device)
        at_once = n if images.is_cuda else max(CACHED // math.prod(self.shape), 1)
        inputs = (images, boxes, flipped, factors)
        parts = zip(*(part.split(at_once) for part in inputs), strict=True)
        views = torch.cat([self._views(*part) for part in parts])
        if self.config.then:
            views = agnostic_views(views, self.config.then, images if pool is None else pool)
        return views, boxes

    def _views(self, images: Tensor, boxes: Tensor, flipped: Tensor, factors: Tensor) -> Tensor:
        pixels = images.float().div_(255) if images.dtype == torch.uint8 else images
        views = resized_crop(pixels, boxes, flipped)
        views = colour_jitter(views, *factors.T) if self.recolours else views
        return views.contiguous(memory_format=torch.channels_last)


def _check_images(images: Tensor, shape: tuple[int, ...]) -> None:
    if images.shape[1:] != shape:
        expected, found = ", ".join(map(str, shape)), tuple(images.shape)
        rule = f"(n, {expected}), the one that these views are for"
        raise ValueError(f"images must have shape {rule}, got {found}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        rule = "bytes (torch.uint8) or floating-point numbers in [0, 1]"
        raise TypeError(f"images must be {rule}, got {images.dtype}")


def random_boxes(
    n: int, size: Sequence[int], scale: tuple[float, float], device: torch.device
) -> Float[Tensor, "n 4"]:
    """Crops (x0, y0, x1, y1) of whole pixels, of images of `size` (h, w).

    The share of the area is uniform in `scale`, the aspect ratio log-uniform, the place uniform;
    where ten draws do not fit, the largest box of an allowed ratio. These are the crops of kornia's
    `RandomResizedCrop`; torchvision's centres the last kind.
    """
    height, width = size
    narrow, wide = ASPECT_RATIOS
    area = height * width * _uniform(*scale, (n, TRIES), device)
    ratio = _uniform(math.log(narrow), math.log(wide), (n, TRIES), device).exp()
    widest, highest = min(width, round(height * wide)), min(height, round(width / narrow))
    w = F.pad((area * ratio).sqrt().round(), (0, 1), value=widest)
    h = F.pad((area / ratio).sqrt().round(), (0, 1), value=highest)
    fails = (w < 1) | (w > width) | (h < 1) | (h > height)
    first = fails.cumprod(1).sum(1, keepdim=True)  # that fits: as many fail before it
    w, h = w.gather(1, first).squeeze(1), h.gather(1, first).squeeze(1)
    x0 = (torch.rand(n, device=device) * (width - w + 1)).floor()
    y0 = (torch.rand(n, device=device) * (height - h + 1)).floor()
    return torch.stack([x0, y0, x0 + w, y0 + h], 1)


def _uniform(low: float, high: float, shape: tuple[int, ...], device: torch.device) -> Tensor:
    return low + (high - low) * torch.rand(shape, device=device)


def resized_crop(
    images: Float[Tensor, "n c h w"], boxes: Float[Tensor, "n 4"], flipped: Bool[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """The boxes, enlarged to the size of the images, and mirrored where `flipped`.

    Bilinear, from the centre of a box's first pixel to that of its last (`align_corners`). Boxes
    stand upright, so a channel X becomes R X Cᵀ, with the weights of its rows R and columns C: two
    products of small matrices, faster than `grid_sample`.
    """
    n, c, h, w = images.shape
    precise = torch.promote_types(images.dtype, torch.float32)
    left, top, right, bottom = boxes.to(precise).unbind(1)
    start, end = left, right - 1
    start, end = torch.where(flipped, end, start), torch.where(flipped, start, end)
    columns = _interpolation(start, end, w).to(images.dtype)
    rows = _interpolation(top, bottom - 1, h).to(images.dtype)
    stretched = images.reshape(n, c * h, w) @ columns.mT
    return (rows.repeat_interleave(c, 0) @ stretched.view(n * c, h, w)).view(n, c, h, w)


def _interpolation(
    start: Float[Tensor, " n"], end: Float[Tensor, " n"], size: int
) -> Float[Tensor, "n size size"]:
    """The weights of a line's pixels in as many points, equally spaced from `start` to `end`."""
    pixel = torch.arange(size, device=start.device)
    point = start[:, None] + pixel * (end - start)[:, None] / max(size - 1, 1)
    return (point[:, :, None] - pixel).abs_().neg_().add_(1).clamp_(min=0)


def colour_jitter(
    images: Float[Tensor, "n c h w"],
    brightness: Float[Tensor, " n"],
    contrast: Float[Tensor, " n"],
    saturation: Float[Tensor, " n"],
    hue: Float[Tensor, " n"],
) -> Float[Tensor, "n c h w"]:
    """Brightness b, contrast c, saturation s and hue t (in turns) of each image changed, in [0, 1].

    A colour x of luma y, in an image of mean luma ȳ, becomes b (c (y + s T(x - y)) + (1 - c) ȳ),
    where T turns its chroma, (I, Q), by t. So brightness, contrast and saturation are torchvision's
    (kornia's `ColorJitter`), s = 0 is grayscale, and hue is NVIDIA DALI's `Hsv`, where torchvision
    adds to the hue of HSV. Clamped only at the end, the steps commute: they need no random order.
    Of other than three channels the mean is the luma, and there is no chroma.
    """
    pixels, gain = images.flatten(2), brightness * contrast
    mean = pixels.mean(2).to(gain.dtype)
    if images.shape[1] == 3:
        basis = _colour_basis(gain.device, gain.dtype)
        turn, chroma = 2 * math.pi * hue, gain * saturation
        parts = torch.stack([gain, chroma * turn.cos(), chroma * turn.sin()], 1)
        changed = (parts @ basis).view(-1, 3, 3).to(pixels.dtype) @ pixels
        luma = mean @ basis[0, :3]
    else:
        changed = gain[:, None, None].to(pixels.dtype) * pixels
        luma = mean.mean(1)
    offset = brightness * (1 - contrast) * luma
    return changed.add_(offset[:, None, None]).clamp_(0, 1).view_as(images)


@functools.cache
def _colour_basis(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "3 9"]:
    """Three maps of colours, as rows: to luma, to the rest, and that turned a quarter in (I, Q).

    The turn is against the order of I and Q, from red to green as hue counts.
    """
    yiq = torch.tensor(YIQ, dtype=torch.float64)
    luma = yiq[0].expand(3, 3)
    quarter = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]], dtype=yiq.dtype)
    turned = yiq.inverse() @ quarter @ yiq
    rest = torch.eye(3, dtype=yiq.dtype) - luma
    return torch.stack([luma, rest, turned]).flatten(1).to(device, dtype)


def _random_factors(
    config: ImageAugmentation, n: int, device: torch.device
) -> Float[Tensor, "n 4"]:
    """Brightness, contrast, saturation and hue for `colour_jitter`; grayscale is saturation 0."""
    changes = config.jitter * _uniform(-1.0, 1.0, (4, n), device)
    changes *= torch.rand(n, device=device) < config.jitter_probability
    brightness, contrast, saturation = 1 + 0.8 * changes[:3]
    grey = torch.rand(n, device=device) < config.grayscale
    return torch.stack([brightness, contrast, saturation.masked_fill(grey, 0), 0.2 * changes[3]], 1)


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
