"""Labelled images read from canonical, pickle-free files, and Gaussian mixtures to draw toy data from.

The files of a canonical set are looked for in `data_dir`, then in `$SSCL_DATA_DIR`, then in the cache, and are at last
downloaded to the cache. A place is looked at only if those before it lack a file: whoever has all
the data needs no cache, and no home. Whatever is read is checked against the sha256 of its content,
decompressed: archives packed anew by a distribution or a mirror are as good as the original.
`data/README.md` describes every set.
"""

import errno
import gzip
import hashlib
import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pooch
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from sscl_core.checks import require
from sscl_core.files import flush, sweep
from sscl_experiments.paths import EMBEDDED, cache_dir, folder

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
            require(
                labels is None or len(labels) == len(self),
                name,
                labels,
                f"one label an image ({len(self)})",
            )

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: Int64[Tensor, " k"] | Bool[Tensor, " n"] | slice) -> "ImageData":
        """The images of `index` (positions, a mask, or a slice), with their labels."""
        coarse = None if self.coarse_labels is None else self.coarse_labels[index]
        return replace(
            self, images=self.images[index], labels=self.labels[index], coarse_labels=coarse
        )


def load_images(
    name: str, split: str = "train", *, data_dir: str | Path | None = None
) -> ImageData:
    """One split, "train" or "test", of "fashion_mnist_subset" (embedded), "fashion_mnist", "cifar10" or "cifar100".

    Errors: `ValueError` for an unknown name or split, a `data_dir` or `$SSCL_DATA_DIR` that names no
    folder, and a file that cannot be read or whose content is not the published one;
    `FileNotFoundError` where the files are neither at hand nor to be downloaded, or the cache for
    them cannot be written; it says what the folders hold instead.
    """
    require(name in NAMES, "name", name, f"one of {NAMES}")
    require(split in SPLITS, "split", split, f"one of {SPLITS}")
    chosen = None if data_dir is None else folder("data_dir", data_dir)
    return _load_subset(split) if name == SUBSET else _load_canonical(name, split, chosen)


def holdout(
    data: ImageData, fraction: float = 0.2, *, seed: int = 0
) -> tuple[ImageData, ImageData]:
    """(fit, validation): round(fraction · n_c) of the n_c images of every class c, drawn at random, are held out.

    Both parts keep the order of `data`. `ValueError`: fraction not in (0, 1), or a part left without an image.
    """
    require(0 < fraction < 1, "fraction", fraction, "in (0, 1)")
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(data), dtype=torch.bool)
    for label in data.labels.unique():
        members = (data.labels == label).nonzero().flatten().cpu()
        order = torch.randperm(len(members), generator=generator)
        held[members[order[: round(fraction * len(members))]]] = True
    require(
        0 < held.sum() < len(data),
        "fraction",
        fraction,
        f"such that neither part of {len(data)} images is empty",
    )
    return data.select(~held), data.select(held)


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
    parse: Callable[
        [Sequence[bytes]], tuple[np.ndarray, np.ndarray]
    ]  # images (n, c, h, w), labels (n, 1 or 2)
    classes: tuple[str, ...]
    others: dict[str, str]  # what may lie in its place, and why that is not read
    coarse_classes: tuple[str, ...] = ()

    @property
    def all_files(self) -> dict[str, _File]:
        return {file.name: file for files in self.files.values() for file in files}

    @property
    def tars(self) -> tuple[str, ...]:
        return tuple(name for name in self.archives if name.endswith(".tar.gz"))


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
    path = EMBEDDED / _SUBSET_FILE.name
    content = _read(
        path, _SUBSET_FILE, f"`git checkout -- {path}`, in the checkout, brings it back"
    )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    return ImageData(torch.tensor(images)[:, None], torch.tensor(labels).long(), _FASHION_CLASSES)


def _load_canonical(name: str, split: str, data_dir: Path | None) -> ImageData:
    source = _CANONICAL[name]
    images, labels = source.parse(_contents(name, source.files[split], data_dir))
    label_columns = torch.tensor(labels).long()
    coarse = label_columns[:, 0] if source.coarse_classes else None
    return ImageData(
        torch.tensor(images), label_columns[:, -1], source.classes, coarse, source.coarse_classes
    )


def _contents(name: str, files: Sequence[_File], data_dir: Path | None) -> list[bytes]:
    """Of each file, from the first place that has it; else newly downloaded."""
    found: dict[str, bytes] = {}
    for root in _roots(name, data_dir):
        missing = [file for file in files if file.name not in found]
        try:
            found |= _found_in(root, _CANONICAL[name], missing)
        except PermissionError as error:
            remedy = (
                "let this user read it, or set SSCL_DATA_DIR or XDG_CACHE_HOME to another folder"
            )
            raise PermissionError(f"{error.filename or root} cannot be read: {remedy}") from None
        if len(found) == len(files):
            return [found[file.name] for file in files]
    target = _download(name, data_dir)
    return [found.get(file.name) or _read(target / file.name, file) for file in files]


def _roots(name: str, data_dir: Path | None) -> Iterator[Path]:
    """Where files are looked for, in this order. The cache comes last, and only if it is asked for:
    there may be no home to have one in."""
    yield from _chosen_roots(data_dir)
    yield _cache(name, data_dir)


def _chosen_roots(data_dir: Path | None) -> Iterator[Path]:
    if data_dir is not None:
        yield data_dir
    if variable := os.environ.get("SSCL_DATA_DIR"):
        yield folder("SSCL_DATA_DIR", variable)


def _cache(name: str, data_dir: Path | None) -> Path:
    try:
        return cache_dir()
    except FileNotFoundError as error:
        raise _nowhere(name, data_dir, f"it cannot be downloaded: {error}, or") from None


def _found_in(root: Path, source: _Canonical, files: Sequence[_File]) -> dict[str, bytes]:
    """Those of the files that lie under a root, each by itself, gzipped or not, or in an archive."""
    folders = [root / name for name in source.folders]
    found: dict[str, bytes] = {}
    for file in files:
        places = (place / f"{file.name}{suffix}" for place in folders for suffix in ("", ".gz"))
        path = next((place for place in places if place.is_file()), None)
        if path is not None:
            found[file.name] = _read(path, file)
    for archive in (place / name for place in (root, *folders) for name in source.tars):
        missing = {file.name: file for file in files if file.name not in found}
        if missing and archive.is_file():
            found |= _read_tar(archive, source, missing)
    return found


_ANEW = "delete it or move it away, and it is downloaded anew"


def _read(path: Path, file: _File, remedy: str = _ANEW) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return _checked(stream.read, file)
    except (ValueError, *_DAMAGED) as error:
        raise ValueError(f"{path}: {error}; {remedy}.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): {remedy}.") from None


def _read_tar(archive: Path, source: _Canonical, wanted: dict[str, _File]) -> dict[str, bytes]:
    try:
        return {file.name: content for file, content in _unpack(archive, source, wanted)}
    except (ValueError, *_DAMAGED) as error:
        raise ValueError(f"{archive}: {error}; {_ANEW}.") from None
    except OSError as error:
        raise ValueError(f"{archive} cannot be read ({error.strerror}): {_ANEW}.") from None


def _checked(read: Callable[[int], bytes], file: _File) -> bytes:
    """The content, of which at most one byte more than expected is read: an archive may be a bomb."""
    content = read(file.size + 1)
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        length = len(content) if len(content) <= file.size else f"more than {file.size}"
        expected = f"expected {file.size} bytes with sha256 {file.sha256}"
        known = ", which is MNIST's, of digits" if found in _MNIST else ""
        raise ValueError(
            f"not the published {file.name}, {expected}, found {length} bytes with sha256 {found}{known}"
        )
    return content


def _download(name: str, data_dir: Path | None) -> Path:
    """The folder of the cache that now holds every file of the set, from the first mirror that serves them all."""
    source, failures = _CANONICAL[name], []
    target = _cache(name, data_dir) / source.folders[0]
    try:
        target.mkdir(parents=True, exist_ok=True)
        sweep(target)
        for mirror in source.mirrors:
            try:
                return _download_from(mirror, source, target)
            except (OSError, ValueError, *_DAMAGED) as error:
                if isinstance(error, OSError) and error.errno in _OURS:
                    raise
                failures.append(
                    f"{mirror}: {error if isinstance(error, ValueError) else type(error).__name__}"
                )
    except OSError as error:
        another = "set XDG_CACHE_HOME to a folder that can be written, or"
        why = (
            f"it cannot be downloaded, as {target} cannot be written ({error.strerror}): {another}"
        )
        raise _nowhere(name, data_dir, why) from None
    by_hand = f"get {', '.join(source.archives)} from {source.mirrors[0]} by hand and"
    raise _nowhere(name, data_dir, f"could not be downloaded ({'; '.join(failures)}): {by_hand}")


def _nowhere(name: str, data_dir: Path | None, why: str) -> FileNotFoundError:
    """What the folders hold instead of the set, why it was not downloaded, and what to do."""
    source = _CANONICAL[name]
    try:
        cache = str(cache_dir() / source.folders[0])
    except FileNotFoundError:
        cache = "a cache"
    seen = "".join(
        f" ({_instead(root, source)})" for root in dict.fromkeys(_chosen_roots(data_dir))
    )
    packed = ", .gz or not" + "".join(f", or which holds {tar}" for tar in source.tars)
    return FileNotFoundError(
        f"{name} is neither in data_dir nor in $SSCL_DATA_DIR nor in {cache}{seen}, and {why} "
        f"set SSCL_DATA_DIR to a folder in which {source.folders[0]}/ holds "
        f"{', '.join(source.all_files)}{packed}."
    )


def _instead(root: Path, source: _Canonical) -> str:
    """What a folder has in the place of a set."""
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    for place in (root / name for name in source.folders):
        present = {path.name.removesuffix(".gz") for path in place.glob("*")}
        lacking = [name for name in source.all_files if name not in present]
        if 0 < len(lacking) < len(source.all_files):
            return f"{place} lacks {', '.join(lacking)}"
    for name, what in source.others.items():
        if (root / name).exists():
            return f"{root} holds {name}, {what}"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{root} holds {', '.join(names[:_SHOWN]) or 'nothing'}{more}"


def _download_from(mirror: str, source: _Canonical, target: Path) -> Path:
    """Every file is checked in a scratch folder, then moved: `target` never holds part of a file."""
    # As stored: some servers declare .gz a content encoding, which the client would undo on the way.
    as_stored = {"Accept-Encoding": "identity"}
    fetch = pooch.HTTPDownloader(
        progressbar=True, chunk_size=1 << 16, timeout=(5, 30), headers=as_stored
    )
    # Its name is that of a part, so that one that a killed process left is swept up later.
    with tempfile.TemporaryDirectory(dir=target, prefix=".download-", suffix=".part") as scratch:
        ready = {}
        for archive in map(Path(scratch).joinpath, source.archives):
            fetch(mirror + archive.name, str(archive), None)
            for file, content in _unpack(archive, source, source.all_files):
                ready[file.name] = archive.with_name(file.name)
                ready[file.name].write_bytes(content)
                flush(ready[file.name])
        missing = source.all_files.keys() - ready.keys()
        if missing:
            raise ValueError(f"its archive lacks {', '.join(sorted(missing))}")
        for name, path in ready.items():
            path.replace(target / name)
        flush(target)
    return target


def _unpack(
    archive: Path, source: _Canonical, wanted: dict[str, _File]
) -> Iterator[tuple[_File, bytes]]:
    """The wanted files of an archive, checked. Nothing is written to a path that the archive names."""
    with gzip.open(archive) as stream:
        if archive.name not in source.tars:
            yield wanted[archive.stem], _checked(stream.read, wanted[archive.stem])
            return
        published = sum(file.size for file in source.all_files.values())
        bounded = _Bounded(stream, published + _BESIDE)
        with tarfile.open(fileobj=bounded, mode="r|") as tar:  # type: ignore[call-overload]
            yield from _members(tar, wanted)


def _members(tar: tarfile.TarFile, wanted: dict[str, _File]) -> Iterator[tuple[_File, bytes]]:
    left = dict(wanted)
    while left and (member := tar.next()):
        tar.members.clear()  # type: ignore[attr-defined]  # a list of all so far: there may be millions
        # By the last part of the name: mirrors differ in the folder that they pack.
        name = PurePosixPath(member.name).name
        content = tar.extractfile(member) if name in left and member.isreg() else None
        if content:
            file = left.pop(name)
            yield file, _checked(content.read, file)


class _Bounded:
    """A stream of which at most `limit` bytes are read. An archive may be a bomb in its headers too:
    a name of gigabytes takes megabytes, compressed."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self.stream, self.limit, self.left = stream, limit, limit

    def read(self, size: int) -> bytes:
        content = self.stream.read(min(size, self.left + 1))
        self.left -= len(content)
        if self.left < 0:
            raise ValueError(
                f"holds more than {self.limit} bytes, the published files and what may lie beside them"
            )
        return content


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


def _files(name: str) -> dict[str, tuple[_File, ...]]:
    rows = [line.split() for line in _FILES.splitlines() if line.startswith(f"{name} ")]
    return {
        s: tuple(_File(file, int(size), sum_) for _, split, file, size, sum_ in rows if split == s)
        for s in SPLITS
    }


_DAMAGED = (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error)
# Errors of this machine's disk, which no other mirror cures.
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)
_BESIDE = 1 << 20  # bytes that an archive may hold beside the published files: headers, a readme
_SHOWN = 6  # names of a folder's content in a message
_APACHE = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/"
_FASHION_CLASSES = _names(
    "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
)
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
_SUBSET_FILE = _File(
    "fashion_mnist_subset.npz",
    4520163,
    "01d68a4610f8d001e969bbfbf22d8b8fbce010ca11ffdaded522055c5d45b534",
)
# MNIST's files, which bear the names of Fashion-MNIST's and have their sizes.
_MNIST = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)


def _python_release(name: str, folder: str) -> dict[str, str]:
    """Of CIFAR, what torchvision downloads."""
    why = "the python release, which is pickled and not read: the binary one is"
    return {folder: why, f"{name}-python.tar.gz": why}


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
        others={"MNIST": "which are digits, in files of the same names"},
    ),
    "cifar10": _Canonical(
        folders=("cifar-10-batches-bin",),
        files=_files("cifar10"),
        archives=("cifar-10-binary.tar.gz",),
        mirrors=("https://www.cs.toronto.edu/~kriz/", f"{_APACHE}cifar10/"),
        parse=partial(_parse_cifar, n_labels=1),
        classes=_CIFAR10_CLASSES,
        others=_python_release("cifar-10", "cifar-10-batches-py"),
    ),
    "cifar100": _Canonical(
        folders=("cifar-100-binary",),
        files=_files("cifar100"),
        archives=("cifar-100-binary.tar.gz",),
        mirrors=("https://www.cs.toronto.edu/~kriz/", f"{_APACHE}cifar100/"),
        parse=partial(_parse_cifar, n_labels=2),
        classes=_CIFAR100_CLASSES,
        others=_python_release("cifar-100", "cifar-100-python"),
        coarse_classes=_CIFAR100_SUPERCLASSES,
    ),
}
SUBSET = "fashion_mnist_subset"
NAMES = (SUBSET, *_CANONICAL)
