"""Labelled images: what a set of them is, how one is loaded, and how a part of it is held out."""

import io
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from sscl_core.checks import require
from sscl_experiments.paths import EMBEDDED, folder

from . import archives, canonical
from .manifest import FASHION_CLASSES, PUBLISHED, SPLITS
from .manifest import SUBSET as SUBSET_FILE

SUBSET = "fashion_mnist_subset"
NAMES = (SUBSET, *PUBLISHED)


@dataclass(frozen=True, eq=False)
class ImageData:
    """images (n, c, h, w) in 0..255, and labels (n,) that index `classes`.

    `coarse_labels` and `coarse_classes` are the superclasses, where the set has them.
    `ValueError`: labels or coarse labels of another length than the images.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    coarse_labels: Int64[Tensor, " n"] | None = None
    coarse_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rule = f"one label an image ({len(self)})"
        for name, labels in (("labels", self.labels), ("coarse_labels", self.coarse_labels)):
            require(labels is None or len(labels) == len(self), name, labels, rule)

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: Int64[Tensor, " k"] | Bool[Tensor, " n"] | slice) -> "ImageData":
        """The images of `index` (positions, a mask, or a slice), with their labels."""
        images, labels = self.images[index], self.labels[index]
        coarse = None if self.coarse_labels is None else self.coarse_labels[index]
        return replace(self, images=images, labels=labels, coarse_labels=coarse)


def load_images(
    name: str, split: str = "train", *, data_dir: str | Path | None = None
) -> ImageData:
    """One split, "train" or "test", of an image set.

    Sets: "fashion_mnist_subset" (embedded), "fashion_mnist", "cifar10", "cifar100". `canonical`
    says where their files are looked for.

    `ValueError`: an unknown name or split, a `data_dir` or `$SSCL_DATA_DIR` that names no folder,
    a file that cannot be read or whose content is not the published one.
    `FileNotFoundError`: the files are neither at hand nor to be downloaded, or the cache for them
    cannot be written; it says what the folders hold instead.
    """
    require(name in NAMES, "name", name, f"one of {NAMES}")
    require(split in SPLITS, "split", split, f"one of {SPLITS}")
    root = None if data_dir is None else folder("data_dir", data_dir)
    return _load_subset(split) if name == SUBSET else _load_published(name, split, root)


def _load_subset(split: str) -> ImageData:
    path = EMBEDDED / SUBSET_FILE.name
    remedy = f"`git checkout -- {path}`, in the checkout, brings it back"
    images, labels = _unpacked(archives.read(path, SUBSET_FILE, remedy), split)
    return ImageData(torch.tensor(images)[:, None], torch.tensor(labels).long(), FASHION_CLASSES)


@lru_cache(maxsize=2)  # a job makes tens of runs on the same images
def _unpacked(content: bytes, split: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays[f"{split}_images"], arrays[f"{split}_labels"]


def _load_published(name: str, split: str, data_dir: Path | None) -> ImageData:
    source = PUBLISHED[name]
    images, labels = canonical.load(source, split, data_dir)
    columns = torch.tensor(labels).long()
    coarse = columns[:, 0] if source.coarse_classes else None
    fine = columns[:, -1]
    return ImageData(torch.tensor(images), fine, source.classes, coarse, source.coarse_classes)


def holdout(
    data: ImageData, fraction: float = 0.2, *, seed: int = 0
) -> tuple[ImageData, ImageData]:
    """(fit, validation): of the n_c images of every class c, round(fraction · n_c) are held out.

    They are drawn at random. Both parts keep the order of `data`.
    `ValueError`: fraction not in (0, 1), or one of the two parts without an image.
    """
    require(0 < fraction < 1, "fraction", fraction, "in (0, 1)")
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(data), dtype=torch.bool)
    for label in data.labels.unique():
        members = (data.labels == label).nonzero().flatten().cpu()
        order = torch.randperm(len(members), generator=generator)
        held[members[order[: round(fraction * len(members))]]] = True
    rule = f"such that neither part of {len(data)} images is empty"
    require(0 < held.sum() < len(data), "fraction", fraction, rule)
    return data.select(~held), data.select(held)
