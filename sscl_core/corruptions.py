"""Ten corruptions of images at five severities, as functions of tensors.

Seven have the operations and constants of CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019; their
script `make_cifar_c.py`): noise, impulse noise, blur, contrast, brightness, pixelation, JPEG. Those
constants were made for 32×32 colour images, and are used for other sizes as they are. Three are
ours: occlusion, rotation and translation (`PUBLISHED` has the names of the seven).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from .checks import check_whole
from .rng import EVALUATION, VIEWS, stream

Images = Float[Tensor, "n c h w"]
SEVERITIES = (1, 2, 3, 4, 5)
# What each severity of each corruption is; the functions below say in which unit.
CONSTANTS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg": (80.0, 65.0, 58.0, 50.0, 40.0),
    "occlusion": (0.15, 0.25, 0.35, 0.45, 0.55),
    "rotation": (6.0, 12.0, 18.0, 24.0, 30.0),
    "translation": (0.04, 0.08, 0.12, 0.16, 0.20),
}
PUBLISHED = tuple(CONSTANTS)[:7]
# Quantisation of luma and chroma at quality 50: ITU-T Recommendation T.81, Annex K.
LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
BLOCK = 8
TIE = 1e-9  # of a step: rounding of the transform must not decide
# JFIF's Y, Cb, Cr of a colour; 128 is added to the last two.
TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


def corrupted(
    images: UInt8[Tensor, "n c h w"], name: str, severity: int, *, seed: int = 0
) -> UInt8[Tensor, "n c h w"]:
    """The images after one of `CONSTANTS` at a severity from 1 to 5, as bytes.

    What is random is drawn from a stream named by seed, corruption and severity, on the CPU: the
    same call gives the same images.

    `ValueError`: an unknown name, a severity outside 1..5, images that are not (n, c, h, w), or
    whose channels are neither 1 nor 3. `TypeError`: images that are no bytes, a severity that is no
    whole number.
    """
    _check(images, name, severity)
    amount = CONSTANTS[name][severity - 1]
    index = list(CONSTANTS).index(name)
    pixels = images.cpu().float() / 255
    with stream(seed, VIEWS, EVALUATION + 1, index, severity):
        changed = FUNCTIONS[name](pixels, amount)
    return (255 * changed.clamp(0, 1)).round().to(torch.uint8).to(images.device)


def _check(images: object, name: str, severity: object) -> None:
    if name not in CONSTANTS:
        raise ValueError(f"name must be one of {tuple(CONSTANTS)}, got {name!r}")
    check_whole("severity", severity)
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be from 1 (mild) to 5, got {severity}")
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        remedy = "pass (255 * x).round().to(torch.uint8) for x in [0, 1]"
        raise TypeError(f"images must be bytes (torch.uint8), got {kind}: {remedy}")
    if images.ndim != 4 or 0 in images.shape or images.shape[1] not in (1, 3):
        rule = "shape (n, c, h, w) with 1 or 3 channels"
        raise ValueError(f"images must have {rule}, got {tuple(images.shape)}")


def gaussian_noise(x: Images, std: float) -> Images:
    """x + std · ε, ε standard normal, independent for every number."""
    return x + std * torch.randn_like(x)


def impulse_noise(x: Images, share: float) -> Images:
    """That share of all numbers is set to 0 or 1, either with probability ½."""
    hit = torch.rand_like(x) < share
    return torch.where(hit, (torch.rand_like(x) < 0.5).to(x.dtype), x)


def gaussian_blur(x: Images, std: float) -> Images:
    """Convolution with a Gaussian of `std` pixels, cut at 4 std; the nearest pixel at the edges."""
    reach = int(4 * std + 0.5)
    offset = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = (-(offset**2) / (2 * std**2)).softmax(0)
    channels = x.flatten(0, 1)[:, None]
    padded = F.pad(channels, (reach, reach, reach, reach), mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])
    return blurred.view_as(x)


def contrast(x: Images, factor: float) -> Images:
    """mean + factor · (x - mean), the mean that of each image and channel."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + factor * (x - mean)


def brightness(x: Images, shift: float) -> Images:
    """The value of HSV, the largest channel, raised by `shift`; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    raised = (value + shift).clamp(max=1)
    return torch.where(value > 0, x * raised / value.clamp_min(1e-12), raised)


def pixelate(x: Images, share: float) -> Images:
    """Resized to that share of height and width, and back, each pixel an average over its box."""
    h, w = x.shape[2:]
    small_h, small_w = int(h * share), int(w * share)
    down_h, down_w = box_weights(h, small_h), box_weights(w, small_w)
    up_h, up_w = box_weights(small_h, h), box_weights(small_w, w)
    small = to_bytes(down_h @ x @ down_w.T)
    return up_h @ small @ up_w.T


def to_bytes(x: Tensor) -> Tensor:
    """Rounded to 256 levels, still in [0, 1]."""
    return (255 * x.clamp(0, 1)).round() / 255


def box_weights(before: int, after: int) -> Float[Tensor, "after before"]:
    """The weights of resizing a line by boxes: of the pixels whose centers the box covers.

    A box is as long as the ratio of the lengths, but one pixel at least, as Pillow's BOX has it.
    """
    ratio = before / after
    support = 0.5 * max(ratio, 1.0)
    scale = 1 / max(ratio, 1.0)
    center = (torch.arange(after, dtype=torch.float64) + 0.5) * ratio
    first = (center - support + 0.5).floor().clamp(min=0)
    last = (center + support + 0.5).floor().clamp(max=before)
    pixel = torch.arange(before, dtype=torch.float64)
    place = (pixel + 0.5 - center[:, None]) * scale
    inside = (pixel >= first[:, None]) & (pixel < last[:, None])
    weights = (inside & (place > -0.5) & (place <= 0.5)).float()
    return weights / weights.sum(1, keepdim=True)


def jpeg(x: Images, quality: float) -> Images:
    """What baseline JPEG at this quality (1..100) leaves: 8×8 cosine transforms, rounded.

    Chroma has half the resolution, averaged, and comes back by linear interpolation, as in libjpeg.
    """
    levels = 255 * to_bytes(x)
    if x.shape[1] == 1:
        return _quantised(levels - 128, LUMA, quality).add(128) / 255
    weights = torch.tensor(TO_YCC, dtype=x.dtype)
    ycc = torch.einsum("kc,nchw->nkhw", weights, levels)
    ycc = (ycc - torch.tensor([128.0, 0, 0])[:, None, None]).round()
    luma = _quantised(ycc[:, :1], LUMA, quality)
    h, w = x.shape[2:]
    even = F.pad(ycc[:, 1:], (0, w % 2, 0, h % 2), mode="replicate")
    chroma = _quantised(F.avg_pool2d(even, 2).round(), CHROMA, quality)
    full = _doubled(_doubled(chroma).mT).mT[:, :, :h, :w].round()
    back = torch.cat([luma + 128, full], 1)
    return torch.einsum("kc,nchw->nkhw", weights.inverse(), back).round() / 255


def _doubled(x: Tensor) -> Tensor:
    """Rows of twice as many pixels: ¾ of the nearer one and ¼ of the farther one."""
    padded = F.pad(x, (1, 1, 0, 0), mode="replicate")
    before, own, after = padded[..., :-2], padded[..., 1:-1], padded[..., 2:]
    return torch.stack([0.75 * own + 0.25 * before, 0.75 * own + 0.25 * after], -1).flatten(-2)


def _quantised(x: Tensor, table: tuple[int, ...], quality: float) -> Tensor:
    """Levels about 0, after their transforms are rounded to multiples of the table."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    steps = torch.tensor(table, dtype=x.dtype).view(BLOCK, BLOCK)
    steps = ((steps * scale + 50) / 100).floor().clamp(1, 255)
    h, w = x.shape[2:]
    padded = F.pad(x, (0, -w % BLOCK, 0, -h % BLOCK), mode="replicate")
    blocks = padded.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
    basis = cosine_basis()
    multiples = basis @ blocks.to(basis.dtype) @ basis.T / steps
    # Ties go away from zero, as in libjpeg, and are many: means of blocks are whole numbers over 8.
    rounded = multiples.sign() * (multiples.abs() + 0.5 + TIE).floor() * steps
    back = (basis.T @ rounded @ basis + 0.5 + TIE).floor().transpose(3, 4).to(x.dtype)
    return back.reshape(padded.shape)[:, :, :h, :w].clamp(-128, 127)


def cosine_basis() -> Float[Tensor, "8 8"]:
    """The orthonormal cosine transform (type II) of eight numbers."""
    k = torch.arange(BLOCK, dtype=torch.float64)
    basis = (math.pi / BLOCK * k[:, None] * (k + 0.5)).cos() * (2 / BLOCK) ** 0.5
    basis[0] /= 2**0.5
    return basis


def occlusion(x: Images, side: float) -> Images:
    """A grey square (0.5) at a random place, its side that share of the image's."""
    n, _, h, w = x.shape
    height, width = round(side * h), round(side * w)
    top = (torch.rand(n) * (h - height + 1)).floor()[:, None]
    left = (torch.rand(n) * (w - width + 1)).floor()[:, None]
    row, column = torch.arange(h), torch.arange(w)
    rows = (row >= top) & (row < top + height)
    columns = (column >= left) & (column < left + width)
    return x.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0.5)


def rotation(x: Images, degrees: float) -> Images:
    """Turned about the centre by ± `degrees`, bilinear, 0 outside of the image."""
    angle = math.radians(degrees) * _signs(len(x))
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(len(x))
    h, w = x.shape[2:]
    # In units of half the height and half the width, as `affine_grid` counts.
    first = torch.stack([cos, -sin * h / w, zero], 1)
    second = torch.stack([sin * w / h, cos, zero], 1)
    return _resampled(x, torch.stack([first, second], 1))


def translation(x: Images, share: float) -> Images:
    """Moved by ± that share of the width and of the height, to whole pixels, 0 outside."""
    h, w = x.shape[2:]
    right, down = (round(share * size) * _signs(len(x)) for size in (w, h))
    one, zero = torch.ones(len(x)), torch.zeros(len(x))
    first = torch.stack([one, zero, -2 * right / w], 1)
    second = torch.stack([zero, one, -2 * down / h], 1)
    return _resampled(x, torch.stack([first, second], 1))


def _signs(n: int) -> Float[Tensor, " n"]:
    return 2.0 * torch.randint(2, (n,)) - 1


def _resampled(x: Images, maps: Float[Tensor, "n 2 3"]) -> Images:
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "impulse_noise": impulse_noise,
    "gaussian_blur": gaussian_blur,
    "contrast": contrast,
    "brightness": brightness,
    "pixelate": pixelate,
    "jpeg": jpeg,
    "occlusion": occlusion,
    "rotation": rotation,
    "translation": translation,
}
