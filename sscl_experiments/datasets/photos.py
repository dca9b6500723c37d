"""Photographs of any size: folders of images, and tar shards as WebDataset has them, as two views.

Random crops are cut while a file is decoded, so that what is held and sent is small: two views of
bytes, and the numbers that decide what is done to them later, on the device. All of an image's
randomness has a stream of its own, named by seed, epoch and image: it does not depend on how many
processes or workers there are. Pillow decodes; it is an extra.
"""

import io
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from sscl_core.augmentations import colour_jitter, random_boxes
from sscl_core.checks import require
from sscl_core.rng import ORDER, VIEWS, stream
from sscl_experiments.paths import folder

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
CROP = (0.2, 1.0)  # share of the area, as MoCo-v2 and SimCLR have it
# MoCo-v2's views: jitter .4, .4, .4, .1 with probability .8, grey .2, blur .5, flip .5.
STRENGTH, JITTERED, GREY, BLURRED, FLIPPED = 0.5, 0.8, 0.2, 0.5, 0.5
SIGMA = (0.1, 2.0)  # of the blur, in pixels
# What an image's view has beside its pixels: flip, brightness, contrast, saturation, hue, sigma.
FACTORS = 6


class CorruptImageError(ValueError):
    """A file that is no image, or only part of one; the message names it."""


@dataclass(frozen=True)
class Views:
    """Two views of an image: bytes (2, 3, s, s), and what is still to be done to them (2, 6)."""

    pixels: UInt8[Tensor, "2 3 s s"]
    factors: Float[Tensor, "2 6"]


def decode(content: bytes, name: str) -> Any:
    """A Pillow image in RGB. `CorruptImageError`; `ImportError` where Pillow is not installed."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ImportError("photographs need Pillow: pip install pillow") from None
    unreadable = (UnidentifiedImageError, Image.DecompressionBombError)
    try:
        image = Image.open(io.BytesIO(content))
        return image.convert("RGB")  # which decodes it
    except (*unreadable, OSError, SyntaxError, ValueError) as error:
        remedy = "delete or replace it, or ask for corrupt images to be skipped"
        raise CorruptImageError(f"{name} is no readable image ({error}): {remedy}") from None


def two_views(image: Any, size: int) -> Views:
    """Two random crops of `size` × `size`, by torch's global generator."""
    from PIL import Image

    width, height = image.size
    boxes = random_boxes(2, (height, width), CROP, torch.device("cpu"))
    crops = []
    for box in boxes.tolist():
        crop = image.resize((size, size), Image.Resampling.BILINEAR, box=tuple(box))
        crops.append(torch.from_numpy(np.array(crop)).permute(2, 0, 1))
    return Views(torch.stack(crops), _factors(2))


def _factors(n: int) -> Float[Tensor, "n 6"]:
    """0, 1, 1, 1, 0, 0 changes nothing."""
    changes = STRENGTH * (2 * torch.rand(4, n) - 1) * (torch.rand(n) < JITTERED)
    brightness, contrast, saturation = 1 + 0.8 * changes[:3]
    saturation = saturation.masked_fill(torch.rand(n) < GREY, 0.0)
    low, high = SIGMA
    sigma = (low + (high - low) * torch.rand(n)) * (torch.rand(n) < BLURRED)
    flip = (torch.rand(n) < FLIPPED).float()
    return torch.stack([flip, brightness, contrast, saturation, 0.2 * changes[3], sigma], 1)


def finished(
    pixels: UInt8[Tensor, "n 3 s s"], factors: Float[Tensor, "n 6"]
) -> Float[Tensor, "n 3 s s"]:
    """Views as the network sees them, in [0, 1]: flipped, recoloured, blurred, on any device."""
    flip, brightness, contrast, saturation, hue, sigma = factors.unbind(1)
    x = pixels.float().div_(255)
    x = torch.where(flip[:, None, None, None] > 0, x.flip(3), x)
    x = blurred(colour_jitter(x, brightness, contrast, saturation, hue), sigma)
    return x.contiguous(memory_format=torch.channels_last)


def blurred(
    x: Float[Tensor, "n c h w"], sigma: Float[Tensor, " n"], *, radius: int = 6
) -> Float[Tensor, "n c h w"]:
    """Gaussian blur of each image with its own standard deviation, 0 for none; edges repeat."""
    n, c, h, w = x.shape
    offsets = torch.arange(-radius, radius + 1, device=x.device)
    exponent = -0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]).square()
    kernel = exponent.softmax(1).to(x.dtype).repeat_interleave(c, 0)
    padded = F.pad(x, (radius,) * 4, mode="replicate")
    padded = padded.reshape(1, n * c, h + 2 * radius, w + 2 * radius)
    rows = F.conv2d(padded, kernel[:, None, :, None], groups=n * c)
    return F.conv2d(rows, kernel[:, None, None, :], groups=n * c).view(n, c, h, w)


# --- folders --------------------------------------------------------------------------------------


def image_files(root: str | Path) -> list[Path]:
    """All images below a folder, in the order of their names.

    `ValueError`: no such folder, or none in it that is an image. `PermissionError` names what
    cannot be read.
    """
    top = folder("data", root)
    found = [path for path in _walk(top) if path.suffix.lower() in ENDINGS]
    if not found:
        kinds = ", ".join(ENDINGS)
        raise ValueError(f"data must hold images ({kinds}), got {top}, where there is none")
    return sorted(found)


def _walk(top: Path) -> Iterator[Path]:
    try:
        entries = sorted(top.iterdir())
    except PermissionError:
        raise PermissionError(f"{top} cannot be read: let this user read it") from None
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry)
        else:
            yield entry


class Folder(Dataset):
    """The images below a folder, as `Views`, by (epoch, number of the image).

    With `skip`, a corrupt image is warned of and the next readable one takes its place; without, it
    is a `CorruptImageError` that names it.
    """

    def __init__(self, root: str | Path, size: int, *, seed: int = 0, skip: bool = False) -> None:
        self.files, self.size, self.seed, self.skip = image_files(root), size, seed, skip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: tuple[int, int]) -> Views:
        epoch, number = place
        for ahead in range(len(self.files)):
            path = self.files[(number + ahead) % len(self.files)]
            try:
                image = decode(_read(path), str(path))
            except CorruptImageError as error:
                if not self.skip:
                    raise
                warnings.warn(f"skipped: {error}", stacklevel=2)
                continue
            with stream(self.seed, VIEWS, epoch, number):
                return two_views(image, self.size)
        raise ValueError(f"data must hold a readable image, got {len(self.files)} corrupt ones")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError:
        raise PermissionError(f"{path} cannot be read: let this user read it") from None


def epoch_batches(
    n: int, batch: int, *, epoch: int, seed: int = 0, rank: int = 0, world: int = 1
) -> list[list[tuple[int, int]]]:
    """For each step of an epoch, the places in a `Folder` that one of `world` processes takes.

    `batch` is that of all processes together, which take neighboring parts of it: what they see
    together does not depend on how many they are. A last, smaller batch is left out.
    `ValueError`: a batch that does not divide by the processes, or that is larger than the set.
    """
    require(batch % world == 0, "batch", batch, f"a multiple of {world}, the number of processes")
    require(1 < batch <= n, "batch", batch, f"in 2..{n}, the number of images")
    with stream(seed, ORDER, epoch):
        order = torch.randperm(n)[: n // batch * batch]
    own = order.view(-1, world, batch // world)[:, rank].tolist()
    return [[(epoch, number) for number in numbers] for numbers in own]


# --- shards ---------------------------------------------------------------------------------------


def shard_files(root: str | Path) -> list[Path]:
    """The .tar files of a folder, in the order of their names. `ValueError`: there is none."""
    top = folder("data", root)
    found = sorted(path for path in _walk(top) if path.suffix == ".tar")
    if not found:
        raise ValueError(f"data must hold .tar shards, got {top}, where there is none")
    return found


Member = tuple[str, tuple[int, ...], bytes]  # an image's name, where it stands, and content


class Shards(IterableDataset):
    """Tar shards, read from front to back and never unpacked, as `Views` without end.

    Every process, and every worker of it, has shards of its own, in an order shuffled for each
    epoch, and draws from a buffer of `buffer` images. Other files of a shard, as labels, are passed
    over. Memory is that of the buffer's compressed images.
    `ValueError`: fewer shards than processes and workers, a shard that is no tar file, or one
    without images.
    """

    def __init__(
        self,
        root: str | Path,
        size: int,
        *,
        epoch: int = 0,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        buffer: int = 1000,
        skip: bool = False,
    ) -> None:
        self.files, self.size, self.epoch, self.seed = shard_files(root), size, epoch, seed
        self.rank, self.world, self.buffer, self.skip = rank, world, buffer, skip

    def __iter__(self) -> Iterator[Views]:
        worker = get_worker_info()
        workers, own = (worker.num_workers, worker.id) if worker else (1, 0)
        readers = self.world * workers
        rule = f"{readers} or more, one for each of {self.world} processes with {workers} workers"
        require(len(self.files) >= readers, "number of shards", len(self.files), rule)
        mine = range(self.rank * workers + own, len(self.files), readers)
        for name, place, content in self._drawn(self._endless(list(mine)), own):
            try:
                image = decode(content, name)
            except CorruptImageError as error:
                if not self.skip:
                    raise
                warnings.warn(f"skipped: {error}", stacklevel=2)
                continue
            with stream(self.seed, VIEWS, self.epoch, *place):
                views = two_views(image, self.size)
            yield views

    def _endless(self, shards: Sequence[int]) -> Iterator[Member]:
        """Each image of these shards, once a round, the shards in another order every round."""
        around = 0
        while True:
            with stream(self.seed, ORDER, self.epoch, around, self.rank):
                order = torch.randperm(len(shards)).tolist()
            for shard in (shards[chosen] for chosen in order):
                for name, place, content in members(self.files[shard], shard):
                    yield name, (around, *place), content
            around += 1

    def _drawn(self, images: Iterator[Member], worker: int) -> Iterator[Member]:
        """Drawn at random from a buffer that is kept full, and is emptied after each round.

        So no image is in it twice, and each is drawn once a round.
        """
        with stream(self.seed, ORDER, self.epoch, self.rank, worker, 1):
            generator = torch.Generator().manual_seed(torch.initial_seed())
        held: list[Member] = []
        for image in images:
            _, (around, *_), _ = image
            while held and (len(held) >= self.buffer or held[0][1][0] != around):
                number = int(torch.randint(len(held), (), generator=generator))
                held[number], held[-1] = held[-1], held[number]
                yield held.pop()
            held.append(image)


def members(path: Path, shard: int) -> Iterator[Member]:
    """The images of a shard: their name, (shard, place in it), and content.

    `ValueError`: it is no tar file, is cut off, or holds no image.
    """
    place = 0
    try:
        with tarfile.open(path, mode="r|*") as tar:
            for member in tar:
                is_image = Path(member.name).suffix.lower() in ENDINGS and member.isreg()
                file = tar.extractfile(member) if is_image else None
                if file is not None:
                    yield f"{path}:{member.name}", (shard, place), file.read()
                    place += 1
                tar.members.clear()  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} is no whole tar file ({error}): make the shard anew") from None
    if not place:
        raise ValueError(f"{path} must hold images, got none: make the shard anew, or move it away")


def together(views: Sequence[Views]) -> tuple[Tensor, Tensor]:
    """A batch: the first views of all and then the second, their pixels and their factors."""
    pixels = torch.stack([view.pixels for view in views], 1)
    factors = torch.stack([view.factors for view in views], 1)
    return pixels.flatten(0, 1), factors.flatten(0, 1)
