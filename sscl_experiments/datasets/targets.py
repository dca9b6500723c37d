"""Image sets on which features are judged that were learned elsewhere: a support and a query part.

Support images have labels that nearest neighbors and probe may use, query images are what counts.
Both are the same for every run, so that runs are paired image by image. Digits come with
scikit-learn, MNIST (its test images only) and USPS from their published files, the others as
`images.load_images` has them.
"""

import gzip
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from sscl_core.checks import require
from sscl_experiments.paths import cache_dir, folder

from . import canonical
from .archives import DAMAGED
from .images import ImageData, holdout, load_images
from .manifest import File, Published

DIGITS = tuple("0123456789")
# The published test files; what they hold is checked, not how they are packed.
MNIST = Published(
    name="mnist",
    layout="idx",
    folders=("mnist", "MNIST/raw"),
    files={
        "train": (),
        "test": (
            File(
                "t10k-images-idx3-ubyte",
                7840016,
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            File(
                "t10k-labels-idx1-ubyte",
                10008,
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
    },
    archives=("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/",),
    classes=DIGITS,
    others={"fashion-mnist": "which are clothes, in files of the same names"},
)
# Of each part of USPS: its file, the number of its images, and the sha256 of its values.
USPS = {
    "train": (
        "zip.train.gz",
        7291,
        "64380a7ed4e64aee40c2d7ef7eb48294299bc6365fa3fb1516551e5c6b109900",
    ),
    "test": (
        "zip.test.gz",
        2007,
        "cc4220c7ce1d56b06a203fbe29dba377d11a83aca39e0fe6d1d546873b283da3",
    ),
}
NAMES = ("digits", "mnist", "usps", "fashion_mnist", "cifar10", "cifar100")


@dataclass(frozen=True, eq=False)
class Target:
    """Labelled support images, and query images, of the same classes.

    `ValueError`: classes that differ, a class of a query that has no support, or no image.
    """

    name: str
    support: ImageData
    query: ImageData

    def __post_init__(self) -> None:
        _check_parts(self.name, self.support, self.query)


def _check_parts(name: str, support: ImageData, query: ImageData) -> None:
    if support.classes != query.classes:
        other = sorted(set(support.classes) ^ set(query.classes)) or "their order"
        raise ValueError(
            f"support and query of {name} must have the same classes, they differ in {other}: "
            "relabel one of the two"
        )
    for part, images in (("support", support), ("query", query)):
        if not len(images):
            raise ValueError(f"the {part} of {name} must hold an image, got none")
        highest = int(images.labels.max())
        if highest >= len(images.classes) or int(images.labels.min()) < 0:
            rule = f"in 0..{len(images.classes) - 1}, its {len(images.classes)} classes"
            raise ValueError(f"labels of the {part} of {name} must be {rule}, got {highest}")
    missing = sorted(set(query.labels.tolist()) - set(support.labels.tolist()))
    if missing:
        named = ", ".join(query.classes[label] for label in missing)
        raise ValueError(
            f"every class of the query of {name} must have support, got none for {named}: "
            "add labelled images of it, or leave the class out"
        )


def load_target(
    name: str, shape: Sequence[int], *, shots: int = 0, data_dir: str | Path | None = None
) -> Target:
    """A target resized to images of `shape` (c, h, w), what the network takes.

    `shots`: support images of each class, the first of a fixed shuffle; 0: all.
    `ValueError`: an unknown name, another number of channels, a class with fewer than `shots`
    images, or files that do not hold what was published. `FileNotFoundError`: there are none.
    """
    require(name in NAMES, "name", name, f"one of {NAMES}")
    support, query = _parts(name, data_dir)
    if shots:
        support = few(support, shots, name)
    return Target(name, fitted(support, shape, name), fitted(query, shape, name))


def fitted(images: ImageData, shape: Sequence[int], name: str) -> ImageData:
    """The images resized to `shape` (c, h, w): bilinear, antialiased where they shrink.

    `ValueError`: another number of channels, or a shape that no image has.
    """
    rule = "the (channels, height, width) that the network takes, each at least 1"
    require(len(shape) == 3 and min(shape) >= 1, "shape", tuple(shape), rule)
    channels, *size = shape
    if images.images.shape[1] != channels:
        raise ValueError(
            f"{name} has images of {images.images.shape[1]} channels and the network takes "
            f"{channels}: choose a target with {channels}"
        )
    if list(images.images.shape[2:]) == size:
        return images
    pixels = images.images.float()
    resized = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    return replace(images, images=resized.round().clamp(0, 255).to(torch.uint8))


def few(images: ImageData, shots: int, name: str) -> ImageData:
    """`shots` images of every class, those that a shuffle with seed 0 puts first."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)
    chosen = []
    for label in range(len(images.classes)):
        members = order[images.labels[order] == label]
        if len(members) < shots:
            rule = f"at most {len(members)}, the support of {images.classes[label]} in {name}"
            raise ValueError(f"shots must be {rule}, got {shots}")
        chosen.append(members[:shots])
    return images.select(torch.cat(chosen).sort().values)


def _parts(name: str, data_dir: str | Path | None) -> tuple[ImageData, ImageData]:
    """Support and query: the published split, or half of a set that has none."""
    if name == "digits":
        return _halves(_digits())
    if name == "mnist":
        root = None if data_dir is None else folder("data_dir", data_dir)
        images, labels = canonical.load(MNIST, "test", root)
        numbers = torch.tensor(labels).long()[:, 0]
        return _halves(ImageData(torch.tensor(images), numbers, DIGITS))
    if name == "usps":
        return usps("train", data_dir), usps("test", data_dir)
    train = load_images(name, "train", data_dir=data_dir)
    return train, load_images(name, "test", data_dir=data_dir)


def _halves(images: ImageData) -> tuple[ImageData, ImageData]:
    return holdout(images, 0.5)


def _digits() -> ImageData:
    """scikit-learn's 1797 digits of 8×8 pixels, 0..16 as 0..255."""
    from sklearn.datasets import load_digits

    content = load_digits()
    pixels = torch.tensor(content.images * (255 / 16)).round().to(torch.uint8)
    return ImageData(pixels[:, None], torch.tensor(content.target).long(), DIGITS)


def usps(split: str, data_dir: str | Path | None = None) -> ImageData:
    """USPS digits, 16×16, values -1..1 as 0..255, from the files of *The Elements of Statistical
    Learning*: a line an image, its label and 256 values.

    They are looked for below usps/ in `data_dir`, then in `$SSCL_DATA_DIR`, then in the cache, and
    are not downloaded. Values are checked, however the file is packed. Errors: `load_target`'s.
    """
    require(split in USPS, "split", split, f"one of {tuple(USPS)}")
    name, number, checksum = USPS[split]
    path = _usps_file(name, data_dir)
    labels, thousandths = _usps_values(path)
    found = hashlib.sha256(thousandths.tobytes() + labels.tobytes()).hexdigest()
    if found != checksum:
        raise ValueError(
            f"{path} does not hold the {number} published images of USPS ({len(labels)} images, "
            f"values with sha256 {found}, expected {checksum}): get {name} anew"
        )
    pixels = np.round((thousandths.astype(np.float64) + 1000) * (255 / 2000)).astype(np.uint8)
    images = torch.from_numpy(pixels.reshape(-1, 1, 16, 16))
    return ImageData(images, torch.from_numpy(labels).long(), DIGITS)


@lru_cache(maxsize=2)  # a job makes many runs on the same images
def _usps_values(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels, bytes, and values in thousandths, integers of 16 bits."""
    try:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        table = np.array(text.split(), dtype=np.float64).reshape(-1, 257)
    except (OSError, ValueError, *DAMAGED) as error:
        rule = "lines of a label and 256 numbers"
        raise ValueError(f"{path} cannot be read as {rule} ({error}): get it anew") from None
    return table[:, 0].astype(np.uint8), np.round(table[:, 1:] * 1000).astype("<i2")


def _usps_file(name: str, data_dir: str | Path | None) -> Path:
    """The first of the places that has the file, gzipped or not."""
    roots = [folder("data_dir", data_dir)] if data_dir is not None else []
    if variable := os.environ.get("SSCL_DATA_DIR"):
        roots.append(folder("SSCL_DATA_DIR", variable))
    roots.append(cache_dir())
    for root in roots:
        for candidate in (root / "usps" / name, root / "usps" / name.removesuffix(".gz")):
            if candidate.is_file():
                return candidate
    places = ", ".join(str(root / "usps") for root in roots)
    raise FileNotFoundError(
        f"USPS's {name} is in none of {places}: get it from the data page of The Elements of "
        "Statistical Learning and set SSCL_DATA_DIR to a folder in which usps/ holds it."
    )


def pixels_as_rows(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n p"]:
    """Pixels in [0, 1], a row an image: the raw baseline."""
    return images.flatten(1).float() / 255
