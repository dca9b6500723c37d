"""Labelled images read from canonical, pickle-free files, and Gaussian mixtures to draw toy data from.

The files of a canonical set are looked for in `data_dir`, then in `$SSCL_DATA_DIR`, then in the cache, and are at last
downloaded to the cache. Whatever is read is checked against the sha256 of its content, decompressed: archives packed
anew by a distribution or a mirror are as good as the original. `data/README.md` describes every set.
"""

import gzip
import hashlib
import math
import os
import tarfile
import tempfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pooch
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from sscl_core.paths import EMBEDDED, cache_dir

SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class ImageData:
    """images (n, c, h, w) in 0..255, labels (n,) that index `classes`, and the superclasses where the set has them.

    `ValueError`: labels or coarse labels of another length than the images.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    coarse_labels: Int64[Tensor, " n"] | None = None
    coarse_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, labels in (("labels", self.labels), ("coarse_labels", self.coarse_labels)):
            _require(labels is None or len(labels) == len(self), name, labels, f"one label an image ({len(self)})")

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: Int64[Tensor, " k"] | Bool[Tensor, " n"] | slice) -> "ImageData":
        """The images of `index` (positions, a mask, or a slice), with their labels."""
        coarse = None if self.coarse_labels is None else self.coarse_labels[index]
        return replace(self, images=self.images[index], labels=self.labels[index], coarse_labels=coarse)


def load_images(name: str, split: str = "train", *, data_dir: str | Path | None = None) -> ImageData:
    """One split, "train" or "test", of "fashion_mnist_subset" (embedded), "fashion_mnist", "cifar10" or "cifar100".

    Errors: `ValueError` for an unknown name or split, and for a file whose content is not the published one;
    `FileNotFoundError` where the files are neither at hand nor to be downloaded.
    """
    _require(name in NAMES, "name", name, f"one of {NAMES}")
    _require(split in SPLITS, "split", split, f"one of {SPLITS}")
    return _load_subset(split) if name == SUBSET else _load_canonical(name, split, data_dir)


def holdout(data: ImageData, fraction: float = 0.2, *, seed: int = 0) -> tuple[ImageData, ImageData]:
    """(fit, validation): round(fraction · n_c) of the n_c images of every class c, drawn at random, are held out.

    Both parts keep the order of `data`. `ValueError`: fraction not in (0, 1), or a part left without an image.
    """
    _require(0 < fraction < 1, "fraction", fraction, "in (0, 1)")
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(data), dtype=torch.bool)
    for label in data.labels.unique():
        members = (data.labels == label).nonzero().flatten().cpu()
        order = torch.randperm(len(members), generator=generator)
        held[members[order[: round(fraction * len(members))]]] = True
    _require(0 < held.sum() < len(data), "fraction", fraction, f"such that neither part of {len(data)} images is empty")
    return data.select(~held), data.select(held)


class Components(ABC):
    """A mixture of `m` components with equal weights."""

    m: int
    dim: int

    @abstractmethod
    def sample_given(self, labels: Int64[Tensor, " n"], *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """x_i from component labels_i, independent. `ValueError`: a label outside 0..m-1."""

    def sample(self, n: int, *, generator: torch.Generator) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]:
        """n independent draws x (n, d), and the component of each (n,), uniform on 0..m-1."""
        labels = self._components(n, generator)
        return self.sample_given(labels, generator=generator), labels

    def pairs(self, n: int, *, generator: torch.Generator) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"], Int64[Tensor, " n"]]:
        """n positive pairs (x1, x2), and their component: two draws, independent given the component they share."""
        labels = self._components(n, generator)
        x1, x2 = (self.sample_given(labels, generator=generator) for _ in range(2))
        return x1, x2, labels

    def _components(self, n: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
        _require(n >= 1, "n", n, "at least 1")
        return torch.randint(self.m, (n,), generator=generator)

    def _require_labels(self, labels: Tensor) -> None:
        _require(bool(((labels >= 0) & (labels < self.m)).all()), "labels", labels, f"in 0..{self.m - 1}")


@dataclass(frozen=True, eq=False)
class GaussianMixture(Components):
    """p(x) = 1/m Σ_c N(x; μ_c, std² I),  means μ (m, d).

    `ValueError`: means not finite or not of shape (m, d), std not positive and finite.
    """

    means: Float[Tensor, "m d"]
    std: float

    def __post_init__(self) -> None:
        _require(self.means.ndim == 2 and self.means.numel() > 0, "means", self.means, "of shape (m, d), m, d ≥ 1")
        _require(self.means.is_floating_point(), "means", self.means.dtype, "floating-point")
        _require(bool(self.means.isfinite().all()), "means", self.means, "finite")
        _require(0 < self.std < math.inf, "std", self.std, "positive and finite")

    @property
    def m(self) -> int:  # type: ignore[override]
        return len(self.means)

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.means.shape[1]

    def sample_given(self, labels: Int64[Tensor, " n"], *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """x_i ~ N(μ_{labels_i}, std² I)."""
        self._require_labels(labels)
        noise = torch.randn(len(labels), self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[labels] + self.std * noise


@dataclass(frozen=True, eq=False)
class AnonymousSamples(Components):
    """m components of k fixed samples each, of which only the identity is seen: a draw is a one-hot code of m·k entries.

    It has no geometry: any two samples are equally far apart. `ValueError`: m or k below 1.
    """

    m: int
    k: int

    def __post_init__(self) -> None:
        _require(self.m >= 1 and self.k >= 1, "m, k", (self.m, self.k), "at least 1")

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.m * self.k

    def sample_given(self, labels: Int64[Tensor, " n"], *, generator: torch.Generator) -> Float[Tensor, "n mk"]:
        """One of the k samples of each label, uniform."""
        self._require_labels(labels)
        which = torch.randint(self.k, (len(labels),), generator=generator)
        return torch.nn.functional.one_hot(labels * self.k + which, self.m * self.k).float()


# The canonical sets, from here to the end: what they consist of, how a file is read, found and downloaded.


@dataclass(frozen=True)
class _File:
    name: str
    size: int
    sha256: str  # of the content, decompressed


@dataclass(frozen=True)
class _Canonical:
    folders: tuple[str, ...]  # where the files may lie; a download goes to the first
    files: dict[str, tuple[_File, ...]]  # of a split
    archives: tuple[str, ...]  # what a mirror serves: a tar of the files, or each file as .gz
    mirrors: tuple[str, ...]  # base addresses, in the order in which they are tried
    parse: Callable[[Sequence[bytes]], tuple[np.ndarray, np.ndarray]]  # images (n, c, h, w), labels (n, 1 or 2)
    classes: tuple[str, ...]
    coarse_classes: tuple[str, ...] = ()

    @property
    def all_files(self) -> dict[str, _File]:
        return {file.name: file for files in self.files.values() for file in files}


def _parse_cifar(contents: Sequence[bytes], n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """A record is its labels, a byte each (the fine one last), then 3072 bytes of a (3, 32, 32) image."""
    records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, n_labels + 3072)
    return records[:, n_labels:].reshape(-1, 3, 32, 32), records[:, :n_labels]


def _parse_idx(contents: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = map(_idx_array, contents)
    return images[:, None], labels[:, None]


def _idx_array(content: bytes) -> np.ndarray:
    """idx: two zero bytes, the type (8: uint8), the number k of axes, k big-endian 32-bit lengths, the array."""
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _load_subset(split: str) -> ImageData:
    with np.load(EMBEDDED / f"{SUBSET}.npz", allow_pickle=False) as arrays:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    return ImageData(torch.tensor(images)[:, None], torch.tensor(labels).long(), _FASHION_CLASSES)


def _load_canonical(name: str, split: str, data_dir: str | Path | None) -> ImageData:
    source = _CANONICAL[name]
    contents = [_read(_locate(file, name, data_dir), file) for file in source.files[split]]
    images, labels = source.parse(contents)
    label_columns = torch.tensor(labels).long()
    coarse = label_columns[:, 0] if source.coarse_classes else None
    return ImageData(torch.tensor(images), label_columns[:, -1], source.classes, coarse, source.coarse_classes)


def _locate(file: _File, name: str, data_dir: str | Path | None) -> Path:
    """The first that exists of root / folder / file, .gz or not; else the file newly downloaded."""
    _require(data_dir is None or Path(data_dir).expanduser().is_dir(), "data_dir", data_dir, "a folder that exists, or None")
    roots = [Path(root).expanduser() for root in (data_dir, os.environ.get("SSCL_DATA_DIR"), cache_dir()) if root]
    folders = [root / folder for root in roots for folder in _CANONICAL[name].folders]
    candidates = (folder / f"{file.name}{suffix}" for folder in folders for suffix in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None) or _download(name) / file.name


def _read(path: Path, file: _File) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return _checked(stream.read, file)
    except (ValueError, *_DAMAGED) as error:
        raise ValueError(f"{path}: {error}; delete it or move it away, and it is downloaded anew.") from None


def _checked(read: Callable[[int], bytes], file: _File) -> bytes:
    """The content, of which at most one byte more than expected is read: an archive may be a bomb."""
    content = read(file.size + 1)
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        length = len(content) if len(content) <= file.size else f"more than {file.size}"
        expected = f"expected {file.size} bytes with sha256 {file.sha256}"
        raise ValueError(f"not the published {file.name}, {expected}, found {length} bytes with sha256 {found}")
    return content


def _download(name: str) -> Path:
    """The folder of the cache that now holds every file of the set, from the first mirror that serves them all."""
    source, failures = _CANONICAL[name], []
    target = cache_dir() / source.folders[0]
    target.mkdir(parents=True, exist_ok=True)
    for mirror in source.mirrors:
        try:
            return _download_from(mirror, source, target)
        except (OSError, ValueError, *_DAMAGED) as error:
            failures.append(f"{mirror}: {error if isinstance(error, ValueError) else type(error).__name__}")
    raise FileNotFoundError(
        f"{name} is neither in data_dir nor in $SSCL_DATA_DIR nor in {target}, and could not be downloaded "
        f"({'; '.join(failures)}): get {', '.join(source.archives)} from {source.mirrors[0]} by hand and set "
        f"SSCL_DATA_DIR to a folder in which {source.folders[0]}/ holds {', '.join(source.all_files)}, .gz or not."
    )


def _download_from(mirror: str, source: _Canonical, target: Path) -> Path:
    """Every file is checked in a scratch folder, then moved: `target` never holds part of a file."""
    # As stored: some servers declare .gz a content encoding, which the client would undo on the way.
    as_stored = {"Accept-Encoding": "identity"}
    fetch = pooch.HTTPDownloader(progressbar=True, chunk_size=1 << 16, timeout=(5, 30), headers=as_stored)
    with tempfile.TemporaryDirectory(dir=target, prefix=".download-") as scratch:
        ready = {}
        for archive in map(Path(scratch).joinpath, source.archives):
            fetch(mirror + archive.name, str(archive), None)
            for file, content in _unpack(archive, source.all_files):
                ready[file.name] = archive.with_name(file.name)
                ready[file.name].write_bytes(content)
        missing = source.all_files.keys() - ready.keys()
        if missing:
            raise ValueError(f"its archive lacks {', '.join(sorted(missing))}")
        for name, path in ready.items():
            path.replace(target / name)
    return target


def _unpack(archive: Path, wanted: dict[str, _File]) -> Iterator[tuple[_File, bytes]]:
    """The wanted files of an archive, checked. Nothing is written to a path that the archive names."""
    if not archive.name.endswith(".tar.gz"):
        with gzip.open(archive) as stream:
            yield wanted[archive.stem], _checked(stream.read, wanted[archive.stem])
        return
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            # By the last part of the name: mirrors differ in the folder that they pack.
            file = wanted.get(PurePosixPath(member.name).name)
            content = tar.extractfile(member) if file and member.isreg() else None
            if file and content:
                yield file, _checked(content.read, file)


def _require(holds: bool | Tensor, name: str, value: object, rule: str) -> None:
    if not holds:
        shown = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"{name} is {shown}, must be {rule}.")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


def _files(name: str) -> dict[str, tuple[_File, ...]]:
    rows = [line.split() for line in _FILES.splitlines() if line.startswith(f"{name} ")]
    return {s: tuple(_File(file, int(size), sum_) for _, split, file, size, sum_ in rows if split == s) for s in SPLITS}


_DAMAGED = (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error)
_APACHE = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/"

_FASHION_CLASSES = _names("T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot")
_CIFAR10_CLASSES = _names("airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck")
_CIFAR100_CLASSES = _names(
    "apple, aquarium_fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, bridge, bus, butterfly, "
    "camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock, cloud, cockroach, couch, crab, crocodile, "
    "cup, dinosaur, dolphin, elephant, flatfish, forest, fox, girl, hamster, house, kangaroo, keyboard, lamp, "
    "lawn_mower, leopard, lion, lizard, lobster, man, maple_tree, motorcycle, mountain, mouse, mushroom, oak_tree, "
    "orange, orchid, otter, palm_tree, pear, pickup_truck, pine_tree, plain, plate, poppy, porcupine, possum, rabbit, "
    "raccoon, ray, road, rocket, rose, sea, seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel, "
    "streetcar, sunflower, sweet_pepper, table, tank, telephone, television, tiger, tractor, train, trout, tulip, "
    "turtle, wardrobe, whale, willow_tree, wolf, woman, worm"
)
_CIFAR100_SUPERCLASSES = _names(
    "aquatic_mammals, fish, flowers, food_containers, fruit_and_vegetables, household_electrical_devices, "
    "household_furniture, insects, large_carnivores, large_man-made_outdoor_things, large_natural_outdoor_scenes, "
    "large_omnivores_and_herbivores, medium_mammals, non-insect_invertebrates, people, reptiles, small_mammals, "
    "trees, vehicles_1, vehicles_2"
)

# A file a line: set, split, name, and of the decompressed content the number of bytes and the sha256.
_FILES = """\
fashion_mnist train train-images-idx3-ubyte 47040016 c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888
fashion_mnist train train-labels-idx1-ubyte 60008 bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9
fashion_mnist test t10k-images-idx3-ubyte 7840016 5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b
fashion_mnist test t10k-labels-idx1-ubyte 10008 0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34
cifar10 train data_batch_1.bin 30730000 cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5
cifar10 train data_batch_2.bin 30730000 a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed
cifar10 train data_batch_3.bin 30730000 bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67
cifar10 train data_batch_4.bin 30730000 014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48
cifar10 train data_batch_5.bin 30730000 755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add
cifar10 test test_batch.bin 30730000 8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b
cifar100 train train.bin 153700000 f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29
cifar100 test test.bin 30740000 d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a
"""

_IDX_PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_CANONICAL = {
    "fashion_mnist": _Canonical(
        folders=("fashion-mnist", "FashionMNIST/raw", "."),
        files=_files("fashion_mnist"),
        archives=tuple(f"{part}-ubyte.gz" for part in _IDX_PARTS),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        parse=_parse_idx,
        classes=_FASHION_CLASSES,
    ),
    "cifar10": _Canonical(
        folders=("cifar-10-batches-bin",),
        files=_files("cifar10"),
        archives=("cifar-10-binary.tar.gz",),
        mirrors=("https://www.cs.toronto.edu/~kriz/", f"{_APACHE}cifar10/"),
        parse=partial(_parse_cifar, n_labels=1),
        classes=_CIFAR10_CLASSES,
    ),
    "cifar100": _Canonical(
        folders=("cifar-100-binary",),
        files=_files("cifar100"),
        archives=("cifar-100-binary.tar.gz",),
        mirrors=("https://www.cs.toronto.edu/~kriz/", f"{_APACHE}cifar100/"),
        parse=partial(_parse_cifar, n_labels=2),
        classes=_CIFAR100_CLASSES,
        coarse_classes=_CIFAR100_SUPERCLASSES,
    ),
}
SUBSET = "fashion_mnist_subset"
NAMES = (SUBSET, *_CANONICAL)
