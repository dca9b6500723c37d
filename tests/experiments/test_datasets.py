"""What is read is what was published, whatever the folder, packing or mirror.

Toy draws have their moments.
"""

import functools
import gzip
import hashlib
import http.server
import importlib.util
import inspect
import io
import os
import pwd
import re
import resource
import shutil
import socket
import socketserver
import tarfile
import tempfile
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sscl_core.config import scattered
from sscl_experiments import paths
from sscl_experiments.datasets import archives, download, images
from sscl_experiments.datasets.images import NAMES, ImageData, holdout, load_images
from sscl_experiments.datasets.manifest import PUBLISHED
from sscl_experiments.datasets.synthetic import AnonymousSamples, GaussianMixture
from sscl_experiments.paths import EMBEDDED

SUBSET_SHA256 = "d5b91c929ef64cdf3fac6a13820932f698037ef77030a9584f3d6499a1ccee00"
REAL = os.environ.get("SSCL_DATA_DIR")
CANONICAL = ("fashion_mnist", "cifar10", "cifar100")
SIGMAS = (
    5  # of the standard error: one false alarm in two million comparisons, and the seeds are fixed
)


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """No data but what a test provides, and an empty cache."""
    monkeypatch.delenv("SSCL_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def unchecked(cls, *args, **kwargs):
    """cls(*args, **kwargs) without the shape checks that the tests install."""
    inspect.unwrap(cls.__init__)(object.__new__(cls), *args, **kwargs)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# --- the embedded subset -------------------------------------------------------------------------


def build_script():
    spec = importlib.util.spec_from_file_location(
        "build_subset", EMBEDDED / "build_fashion_mnist_subset.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("split", "per_class"), [("train", 1000), ("test", 200)])
def test_subset_is_stratified(split, per_class):
    subset = load_images("fashion_mnist_subset", split)
    assert subset.images.shape == (10 * per_class, 1, 28, 28)
    assert subset.images.dtype == torch.uint8
    assert subset.labels.dtype == torch.int64
    assert subset.labels.bincount().tolist() == [per_class] * 10
    assert len(subset) == 10 * per_class
    assert len(subset.classes) == 10
    assert subset.classes[9] == "Ankle boot"
    assert subset.coarse_labels is None


def test_subset_content():
    found = hashlib.sha256()
    for split in ("train", "test"):
        subset = load_images("fashion_mnist_subset", split)
        found.update(subset.images.numpy().tobytes())
        found.update(subset.labels.numpy().astype(np.uint8).tobytes())
    assert found.hexdigest() == SUBSET_SHA256


def test_subset_has_no_image_twice():
    images = [
        image.numpy().tobytes()
        for s in ("train", "test")
        for image in load_images(NAMES[0], s).images
    ]
    assert len(set(images)) == len(images) == 12_000


def test_subset_file_is_small_and_plain():
    file = EMBEDDED / "fashion_mnist_subset.npz"
    assert file.stat().st_size < 6_000_000
    with np.load(file, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["test_images", "test_labels", "train_images", "train_labels"]
        assert {arrays[name].dtype for name in arrays} == {np.dtype(np.uint8)}


def test_subset_rebuild(tmp_path):
    build = build_script()
    if not build.DEBIAN.is_dir():
        pytest.skip("the package dataset-fashion-mnist is not installed")
    arrays = build.subset(build.DEBIAN)
    assert build.content_sha256(arrays) == SUBSET_SHA256


def test_subset_is_written_byte_for_byte_alike(tmp_path, monkeypatch):
    build = build_script()
    arrays = {
        "train_images": np.arange(784, dtype=np.uint8).reshape(1, 28, 28),
        "train_labels": np.zeros(1, np.uint8),
    }
    build.write_npz(tmp_path / "a.npz", arrays)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    build.write_npz(
        tmp_path / "b.npz", {name: np.asfortranarray(array) for name, array in arrays.items()}
    )
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as again:
        assert all((again[name] == array).all() for name, array in arrays.items())


def test_first_of_each_class():
    labels = torch.tensor([1, 0, 1, 1, 0, 0, 1])
    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1)
    part = build_script().first_of_each_class(ImageData(images, labels, ("a", "b")), 2)
    assert part.images.flatten().tolist() == [0, 1, 2, 4]


def cut(position):
    return lambda content: content[:position]


def flipped(position):
    return lambda content: (
        content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
    )


DAMAGES = {
    "empty": lambda _: b"",
    "cut": cut(4_000_000),
    "one byte short": cut(-1),
    "zeros within": lambda content: content[:1_000_000] + bytes(1000) + content[1_001_000:],
    "text": lambda _: b"version https://git-lfs.github.com/spec/v1\n",
    "other arrays": lambda _: npz(train_images=np.zeros((1, 28, 28), np.uint8)),
    "pickles": lambda _: npz(train_images=np.array([{}], dtype=object)),
    # In the header of the archive, of a member, in its data, and in the list of members at the end.
    **{f"bit {position}": flipped(position) for position in (0, 8, 40, 2_000_000, -300, -1)},
}


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_subset_is_named_with_the_remedy(tmp_path, monkeypatch, damage, split):
    file = tmp_path / "fashion_mnist_subset.npz"
    file.write_bytes(damage((EMBEDDED / file.name).read_bytes()))
    monkeypatch.setattr(images, "EMBEDDED", tmp_path)
    with pytest.raises(ValueError, match="not the published fashion_mnist_subset") as error:
        load_images("fashion_mnist_subset", split)
    assert str(error.value).startswith(f"{file}: ")
    assert f"`git checkout -- {file}`" in str(error.value)


@pytest.mark.parametrize(
    ("kind", "cause"), [("missing", "No such file"), ("a folder", "Is a directory")]
)
def test_a_subset_that_is_no_file_is_named_with_the_remedy(tmp_path, monkeypatch, kind, cause):
    file = tmp_path / "fashion_mnist_subset.npz"
    if kind == "a folder":
        file.mkdir()
    monkeypatch.setattr(images, "EMBEDDED", tmp_path)
    with pytest.raises(ValueError, match=rf"npz cannot be read \({cause}.*git checkout -- "):
        load_images("fashion_mnist_subset")


# --- canonical files, small and made up ----------------------------------------------------------


def idx(array):
    """idx, written from the specification."""
    return (
        bytes([0, 0, 8, array.ndim])
        + b"".join(n.to_bytes(4, "big") for n in array.shape)
        + array.tobytes()
    )


def fake_content(name):
    """{file: content}, and the images (n, c, h, w) and labels (n, 1 or 2) of each split.

    Both in the set's own layout.
    """
    random = np.random.default_rng(0)
    contents, truth = {}, {}
    for split, files in PUBLISHED[name].files.items():
        make = fake_idx if name == "fashion_mnist" else fake_cifar
        made, truth[split] = make(random, files, 2 if name == "cifar100" else 1)
        contents |= made
    return contents, truth


def fake_idx(random, files, n_labels):
    pixels = random.integers(0, 256, (6, 28, 28), np.uint8)
    labels = random.integers(0, 10, (6, n_labels), np.uint8)
    contents = {files[0].name: idx(pixels), files[1].name: idx(labels[:, 0])}
    return contents, (pixels[:, None], labels)


def fake_cifar(random, files, n_labels):
    pixels = random.integers(0, 256, (3 * len(files), 3, 32, 32), np.uint8)
    labels = random.integers(0, 10, (len(pixels), n_labels), np.uint8)
    records = [bytes(row) + image.tobytes() for row, image in zip(labels, pixels, strict=True)]
    contents = {file.name: b"".join(records[3 * i : 3 * i + 3]) for i, file in enumerate(files)}
    return contents, (pixels, labels)


@pytest.fixture
def fake(monkeypatch):
    """Replaces the sizes, checksums and mirrors of a set by those of small made-up files."""

    def install(name, mirrors=("http://127.0.0.1:9/",)):
        contents, truth = fake_content(name)
        source = PUBLISHED[name]
        sums = {
            split: tuple(
                replace(
                    file,
                    size=len(contents[file.name]),
                    sha256=hashlib.sha256(contents[file.name]).hexdigest(),
                )
                for file in files
            )
            for split, files in source.files.items()
        }
        monkeypatch.setitem(PUBLISHED, name, replace(source, files=sums, mirrors=tuple(mirrors)))
        return contents, truth

    return install


def write(folder, contents, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(
            gzip.compress(content, 1) if packed else content
        )


def assert_loaded(name, truth, **where):
    for split in ("train", "test"):
        loaded, (images, labels) = load_images(name, split, **where), truth[split]
        assert np.array_equal(loaded.images.numpy(), images)
        assert np.array_equal(loaded.labels.numpy(), labels[:, -1])
        coarse = loaded.coarse_labels
        assert (coarse is not None and np.array_equal(coarse.numpy(), labels[:, 0])) == (
            name == "cifar100"
        )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("fashion_mnist", "."),
        ("fashion_mnist", "fashion-mnist"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-bin"),
        ("cifar100", "cifar-100-binary"),
    ],
)
def test_layouts(fake, tmp_path, name, folder, packed):
    contents, truth = fake(name)
    write(tmp_path / "sets" / folder, contents, packed)
    assert_loaded(name, truth, data_dir=tmp_path / "sets")


def test_search_order(fake, tmp_path, monkeypatch):
    """Argument, then environment, then cache: each is used once what goes before it is gone."""
    contents, truth = fake("cifar100")
    places = [tmp_path / "argument", tmp_path / "environment", tmp_path / "cache" / "sscl"]
    monkeypatch.setenv("SSCL_DATA_DIR", str(places[1]))
    for place in places:
        write(place / "cifar-100-binary", contents)
    for i, place in enumerate(places):
        assert_loaded("cifar100", truth, data_dir=places[0])
        # Damage what is to be read: the error names the place that was read.
        (place / "cifar-100-binary" / "train.bin").write_bytes(b"")
        with pytest.raises(ValueError, match=f"{place.name}.*train.bin"):
            load_images("cifar100", data_dir=places[0])
        write(place / "cifar-100-binary", contents)
        if i < 2:
            (place / "cifar-100-binary").rename(tmp_path / f"gone{i}")


@pytest.mark.parametrize("kind", ["not there", "a file"])
def test_a_data_dir_that_is_no_folder_is_an_error_though_the_files_are_elsewhere(
    fake, tmp_path, monkeypatch, kind
):
    contents, truth = fake("cifar100")
    write(tmp_path / "sets" / "cifar-100-binary", contents)
    monkeypatch.setenv("SSCL_DATA_DIR", str(tmp_path / "sets"))
    assert_loaded("cifar100", truth)
    named = tmp_path / "named"
    if kind == "a file":
        named.write_bytes(b"")
    for data_dir in (named, str(named)):
        for name in ("cifar100", "fashion_mnist_subset"):
            with pytest.raises(
                ValueError, match=rf"data_dir must name a folder.*{re.escape(str(named))}"
            ):
                load_images(name, data_dir=data_dir)
    assert not (tmp_path / "cache").exists(), "nothing was downloaded"


@pytest.mark.parametrize("kind", ["not there", "a file"])
def test_a_variable_that_names_no_folder_is_an_error_where_it_is_looked_up(
    fake, tmp_path, monkeypatch, kind
):
    """Though the cache has the files. With all of them in data_dir it is not looked at."""
    contents, truth = fake("cifar100")
    write(tmp_path / "cache" / "sscl" / "cifar-100-binary", contents)
    write(tmp_path / "sets" / "cifar-100-binary", contents)
    assert_loaded("cifar100", truth)
    named = tmp_path / "named"
    if kind == "a file":
        named.write_bytes(b"")
    monkeypatch.setenv("SSCL_DATA_DIR", str(named))
    with pytest.raises(
        ValueError, match=rf"SSCL_DATA_DIR must name a folder.*{re.escape(str(named))}"
    ):
        load_images("cifar100")
    assert_loaded("cifar100", truth, data_dir=tmp_path / "sets")


# --- no home, no cache ---------------------------------------------------------------------------


@pytest.fixture
def homeless(monkeypatch):
    """As under `docker run -u 12345`: no HOME, and a user that the system does not know."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize("where", ["data_dir", "SSCL_DATA_DIR"])
def test_without_a_home_complete_data_are_read(fake, homeless, tmp_path, monkeypatch, where):
    contents, truth = fake("cifar10")
    write(tmp_path / "sets" / "cifar-10-batches-bin", contents)
    with pytest.raises(FileNotFoundError):
        paths.cache_dir()
    if where == "data_dir":
        assert_loaded("cifar10", truth, data_dir=tmp_path / "sets")
    else:
        monkeypatch.setenv("SSCL_DATA_DIR", str(tmp_path / "sets"))
        assert_loaded("cifar10", truth)


def test_without_a_home_what_is_missing_is_one_sentence_with_the_remedies(fake, homeless, tmp_path):
    contents, _ = fake("cifar10")
    del contents["data_batch_2.bin"]
    write(tmp_path / "sets" / "cifar-10-batches-bin", contents)
    with pytest.raises(FileNotFoundError) as error:
        load_images("cifar10", data_dir=tmp_path / "sets")
    message = str(error.value)
    assert message.startswith("cifar10 is neither in data_dir nor in $SSCL_DATA_DIR nor in a cache")
    for part in (
        "batches-bin lacks data_batch_2.bin",
        "HOME is not set",
        "set XDG_CACHE_HOME to",
        "set SSCL_DATA_DIR to",
    ):
        assert part in message
    assert len(load_images("cifar10", "test", data_dir=tmp_path / "sets")) == 3


@pytest.fixture
def ordinary_user():
    """A folder that a user without privileges can look into; the test goes on as that user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    shutil.rmtree(folder)


def closed(folder, mode):
    """A folder of another user, or of one's own but without these rights."""
    euid = os.geteuid()
    if os.getuid() == 0:
        os.seteuid(0)
    folder.mkdir()
    folder.chmod(mode)
    os.seteuid(euid)
    return folder


def closed_home(parent, mode, monkeypatch):
    """The home of the test, in which the cache would be."""
    home = closed(parent / "home", mode)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(home))
    return home


def test_a_home_that_cannot_be_written_is_one_sentence_with_the_remedies(
    fake, ordinary_user, monkeypatch
):
    """HOME=/ is what a container without a user's name has."""
    fake("cifar10")
    home = closed_home(ordinary_user, 0o555, monkeypatch)
    with pytest.raises(
        FileNotFoundError, match=rf"{home}/\.cache/sscl/\S+ cannot be written \(Permission denied\)"
    ) as error:
        load_images("cifar10")
    for part in ("set XDG_CACHE_HOME to a folder that can be written", "set SSCL_DATA_DIR to"):
        assert part in str(error.value)


def test_a_home_that_cannot_be_looked_into_is_named(fake, ordinary_user, monkeypatch):
    fake("cifar10")
    home = closed_home(ordinary_user, 0o000, monkeypatch)
    with pytest.raises(
        PermissionError, match=rf"^{home}\S* cannot be read: .*SSCL_DATA_DIR or XDG_CACHE_HOME"
    ):
        load_images("cifar10")


def test_a_cache_in_the_place_of_a_file_is_named(fake, tmp_path, monkeypatch):
    fake("cifar10")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        FileNotFoundError,
        match=r"file/sscl/\S+ cannot be written \(Not a directory\): set XDG_CACHE_HOME",
    ):
        load_images("cifar10")


# --- something else in the folder ----------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "inside"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_an_archive_as_published_is_read_without_unpacking(fake, tmp_path, name, place):
    contents, truth = fake(name)
    source = PUBLISHED[name]
    folder = tmp_path / "sets" / (source.folders[0] if place == "inside" else ".")
    write(folder, {source.archives[0]: tar_gz(contents, f"{source.folders[0]}/")})
    assert_loaded(name, truth, data_dir=tmp_path / "sets")
    assert [path.name for path in (tmp_path / "sets").rglob("*") if path.is_file()] == [
        source.archives[0]
    ]
    write(tmp_path / "sets" / source.folders[0], {next(iter(contents)): b"damaged"})
    with pytest.raises(ValueError, match="not the published"):
        load_images(name, data_dir=tmp_path / "sets")  # unpacked files go before it


@pytest.mark.parametrize("damage", ["cut", "text", "content"])
def test_a_damaged_archive_in_the_folder_is_named(fake, tmp_path, damage):
    contents, _ = fake("cifar100")
    good = tar_gz(contents if damage != "content" else corrupted(contents))
    bad = {"cut": good[: len(good) // 2], "text": b"<html>", "content": good}[damage]
    write(tmp_path, {"cifar-100-binary.tar.gz": bad})
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(tmp_path))}/cifar-100-binary.tar.gz: .*delete it"
    ):
        load_images("cifar100", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "holds", "words"),
    [
        (
            "cifar10",
            "cifar-10-batches-py/data_batch_1",
            "{} holds cifar-10-batches-py, the python release, which is pickled and not read",
        ),
        (
            "cifar10",
            "cifar-10-python.tar.gz",
            "{} holds cifar-10-python.tar.gz, the python release",
        ),
        ("cifar100", "cifar-100-python/train", "{} holds cifar-100-python, the python release"),
        (
            "fashion_mnist",
            "MNIST/raw/train-images-idx3-ubyte",
            "{} holds MNIST, which are digits, in files of the same names",
        ),
        ("cifar10", "data_batch_1.bin", "{} holds data_batch_1.bin)"),
        ("cifar10", "photos/a.png", "{} holds photos/)"),
        (
            "cifar10",
            "cifar-10-batches-bin/data_batch_1.bin",
            "{}/cifar-10-batches-bin lacks data_batch_2.bin, data_batch_3.bin, ",
        ),
        (
            "fashion_mnist",
            "train-images-idx3-ubyte.gz",
            "{} lacks train-labels-idx1-ubyte, t10k-images-idx3-ubyte, ",
        ),
        ("cifar10", None, "{} holds nothing"),
        (
            "cifar10",
            [f"{i}.png" for i in range(9)],
            "{} holds 0.png, 1.png, 2.png, 3.png, 4.png, 5.png and 3 more",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("where", ["data_dir", "SSCL_DATA_DIR"])
def test_what_the_folder_holds_instead_is_said(
    fake, tmp_path, monkeypatch, name, holds, words, where
):
    contents, _ = fake(name)
    folder = tmp_path / "sets"
    folder.mkdir()
    for path in [] if holds is None else [holds] if isinstance(holds, str) else holds:
        content = contents.get(Path(path).name.removesuffix(".gz"), b"")
        write(
            (folder / path).parent,
            {Path(path).name: gzip.compress(content) if path.endswith(".gz") else content},
        )
    if where == "SSCL_DATA_DIR":
        monkeypatch.setenv("SSCL_DATA_DIR", str(folder))
    with pytest.raises(FileNotFoundError) as error:
        load_images(name, data_dir=folder if where == "data_dir" else None)
    assert words.format(folder) in str(error.value)
    assert f"in which {PUBLISHED[name].folders[0]}/ holds" in str(error.value), "and what is wanted"


def test_mnist_in_the_place_of_fashion_mnist_is_called_by_its_name(fake, tmp_path, monkeypatch):
    contents, _ = fake("fashion_mnist")
    digits = {name: content[:-1] + b"\x07" for name, content in contents.items()}
    monkeypatch.setattr(
        archives, "MNIST", [hashlib.sha256(content).hexdigest() for content in digits.values()]
    )
    write(tmp_path / "fashion-mnist", digits)
    cause = (
        r"fashion-mnist/train-images-idx3-ubyte: not the published .*, which is MNIST's, of digits"
    )
    message = f"{cause}; delete it or move it away"
    with pytest.raises(ValueError, match=message):
        load_images("fashion_mnist", data_dir=tmp_path)


def test_home_is_expanded(fake, tmp_path, monkeypatch):
    contents, truth = fake("cifar100")
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "sets" / "cifar-100-binary", contents)
    assert_loaded("cifar100", truth, data_dir="~/sets")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("damage", ["changed", "truncated", "extended"])
def test_wrong_content_is_refused(fake, tmp_path, damage, packed):
    contents, _ = fake("cifar10")
    good = contents["data_batch_2.bin"]
    bad = {
        "changed": good[:-1] + bytes([good[-1] ^ 1]),
        "truncated": good[:-1],
        "extended": good + b"\0",
    }[damage]
    write(tmp_path / "cifar-10-batches-bin", contents | {"data_batch_2.bin": bad}, packed)
    with pytest.raises(ValueError, match="not the published") as error:
        load_images("cifar10", data_dir=tmp_path)
    for part in (
        str(tmp_path),
        "data_batch_2.bin",
        hashlib.sha256(good).hexdigest(),
        str(len(good)),
        "delete it",
    ):
        assert part in str(error.value)
    assert re.search("found .* bytes with sha256 [0-9a-f]{64}", str(error.value))
    assert (
        len(load_images("cifar10", "test", data_dir=tmp_path)) == 3
    )  # the other split is untouched


@pytest.mark.parametrize(
    "damage", [lambda gz: gz[: len(gz) // 2], lambda gz: b"no gzip", lambda gz: gz[:20] + gz[25:]]
)
def test_damaged_gz_is_refused(fake, tmp_path, damage):
    contents, _ = fake("cifar100")
    write(tmp_path / "cifar-100-binary", contents, packed=True)
    file = tmp_path / "cifar-100-binary" / "train.bin.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"train\.bin\.gz.*delete it"):
        load_images("cifar100", data_dir=tmp_path)


def test_gz_bomb_is_not_unpacked(fake, tmp_path):
    contents, _ = fake("cifar100")
    bomb = 64 << 20
    write(tmp_path / "cifar-100-binary", contents | {"train.bin": bytes(bomb)}, packed=True)
    tracemalloc.start()
    with pytest.raises(ValueError, match="found more than"):
        load_images("cifar100", data_dir=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < bomb / 16


@pytest.mark.parametrize("name", CANONICAL)
def test_published_sizes(name):
    """Sizes follow from the formats: idx header + n·784, n·(labels + 3072)."""
    source = PUBLISHED[name]
    sizes = [file.size for files in source.files.values() for file in files]
    expected = {
        "fashion_mnist": [16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000],
        "cifar10": [10_000 * 3073] * 6,
        "cifar100": [50_000 * 3074, 10_000 * 3074],
    }
    assert sizes == expected[name]
    assert all(len(file.sha256) == 64 for file in source.all_files.values())
    assert len(set(source.classes)) == len(source.classes) == (100 if name == "cifar100" else 10)
    assert len(set(source.coarse_classes)) == (20 if name == "cifar100" else 0)
    assert all(mirror.endswith("/") for mirror in source.mirrors)
    assert len(source.mirrors) >= 2


@pytest.mark.parametrize("name", CANONICAL)
@pytest.mark.parametrize("split", ["train", "test"])
def test_real_files(name, split):
    folders = [Path(REAL or "nowhere") / folder for folder in PUBLISHED[name].folders]
    if not any(
        folder.is_dir() and any(folder.glob("*ubyte*")) + any(folder.glob("*.bin"))
        for folder in folders
    ):
        pytest.skip(f"$SSCL_DATA_DIR has no {name}")
    loaded = load_images(name, split, data_dir=REAL)
    assert (
        len(loaded)
        == {"train": 60_000 if name == "fashion_mnist" else 50_000, "test": 10_000}[split]
    )
    assert len(loaded.labels.bincount().unique()) == 1  # balanced
    if loaded.coarse_labels is not None:
        parents = set(zip(loaded.labels.tolist(), loaded.coarse_labels.tolist(), strict=True))
        assert len(parents) == 100
        named = {loaded.classes[fine]: loaded.coarse_classes[coarse] for fine, coarse in parents}
        assert (named["rocket"], named["trout"], named["woman"]) == ("vehicles_2", "fish", "people")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnist",), r"name is 'mnist', must be one of .*cifar10"),
        (("cifar10", "validation"), r"split is 'validation', must be one of .*train.*test"),
        (("fashion_mnist_subset", ""), r"split is ''"),
    ],
)
def test_unknown_name_or_split(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_images(*arguments)


# --- download, from a server on this machine -----------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        self.server.asked.append(self.path)


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path/served; `.asked` counts the requests' paths, `.base` is its address."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.asked, running.root = [], tmp_path / "served"
        running.base = f"http://127.0.0.1:{running.server_port}/"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def tar_gz(contents, folder="x/"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in {"readme.html": b"hello", **contents}.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def serve(server, mirror, name, contents, folder="x/"):
    """Puts the archives of a set under a mirror's folder."""
    archives = PUBLISHED[name].archives
    tarred = archives[0].endswith(".tar.gz")
    packed = (
        {archives[0]: tar_gz(contents, folder)}
        if tarred
        else {f"{file}.gz": gzip.compress(content, 1) for file, content in contents.items()}
    )
    write(server.root / mirror, packed)


def cached_files(tmp_path):
    return sorted(
        path.name
        for path in (tmp_path / "cache").rglob("*")
        if path.is_file() or ".download" in path.name
    )


LIMIT = 1 << 20  # what an archive may hold beside the published files, which are a few kB here


def bomb(name, content, kind):
    """A .tar.gz of some kB that is 64 MB unpacked: in a name, a header, or another file.

    Of many files it is 16 MB: it takes long to write them.
    """
    stream, size = io.BytesIO(), (16 if kind == "many members" else 64) << 20
    layout = tarfile.PAX_FORMAT if kind == "pax header" else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=stream, mode="w:gz", format=layout) as tar:
        member = tarfile.TarInfo("a" * size + "/" + name if kind == "long name" else name)
        member.size = len(content)
        if kind == "pax header":
            member.pax_headers = {"comment": "a" * size}
        elif kind == "other file":
            other = tarfile.TarInfo("other")
            other.size = size
            tar.addfile(other, io.BytesIO(bytes(size)))
        elif kind == "many members":
            for _ in range(size // tarfile.BLOCKSIZE):
                tar.addfile(tarfile.TarInfo("a"))
        tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["long name", "pax header", "other file", "many members"])
@pytest.mark.parametrize("where", ["folder", "mirror"])
def test_a_tar_bomb_is_not_unpacked(fake, server, tmp_path, kind, where):
    contents, _ = fake("cifar100", [f"{server.base}a/"])
    packed = bomb("train.bin", contents["train.bin"], kind)
    assert len(packed) < LIMIT / 2
    write(
        server.root / "a" if where == "mirror" else tmp_path / "sets",
        {"cifar-100-binary.tar.gz": packed},
    )
    (tmp_path / "sets").mkdir(exist_ok=True)
    tracemalloc.start()
    error = FileNotFoundError if where == "mirror" else ValueError
    with pytest.raises(
        error,
        match=r"holds more than 10[0-9]{5} bytes, the published files and what may lie beside them",
    ):
        load_images("cifar100", data_dir=tmp_path / "sets")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * LIMIT
    assert cached_files(tmp_path) == []


def test_a_readme_beside_the_files_is_no_bomb(fake, tmp_path):
    contents, truth = fake("cifar100")
    write(
        tmp_path,
        {"cifar-100-binary.tar.gz": tar_gz({"notes.txt": bytes(LIMIT * 9 // 10), **contents})},
    )
    assert_loaded("cifar100", truth, data_dir=tmp_path)


def test_a_full_disk_is_named_and_nothing_is_left(fake, server, tmp_path):
    """The limit on a file's size stands for a full disk: another mirror would not help."""
    contents, _ = fake("fashion_mnist", [f"{server.base}a/", f"{server.base}b/"])
    for mirror in "ab":
        serve(server, mirror, "fashion_mnist", contents)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(FileNotFoundError) as error:
            load_images("fashion_mnist")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cache/sscl/fashion-mnist cannot be written (File too large)" in str(error.value)
    assert server.asked
    assert not any(path.startswith("/b/") for path in server.asked)
    assert cached_files(tmp_path) == []


def test_what_a_killed_download_left_is_swept_up(fake, server, tmp_path):
    contents, truth = fake("cifar100", [f"{server.base}a/"])
    serve(server, "a", "cifar100", contents)
    old, young = (
        tmp_path / "cache" / "sscl" / "cifar-100-binary" / f".download-{name}.part"
        for name in ("old", "young")
    )
    for folder in (old, young):
        write(folder, {"cifar-100-binary.tar.gz": b"half"})
    os.utime(old, (0, 0))
    assert_loaded("cifar100", truth)
    assert (old.exists(), young.exists()) == (False, True), "another process may still be at it"


@pytest.mark.parametrize("name", CANONICAL)
@pytest.mark.parametrize("folder", ["", "./cifar-binary/"])
def test_download(fake, server, tmp_path, capfd, name, folder):
    contents, truth = fake(name, [f"{server.base}a/"])
    serve(server, "a", name, contents, folder)
    assert_loaded(name, truth)
    assert cached_files(tmp_path) == sorted(contents)
    assert len(server.asked) == len(PUBLISHED[name].archives)  # once, for both splits
    assert "100%" in capfd.readouterr().err  # a progress bar was drawn
    server.shutdown()
    assert_loaded(name, truth)  # from the cache


def test_download_is_moved_within_the_cache(fake, server, tmp_path, monkeypatch):
    """A move is atomic only inside one file system: the scratch folder is where the files go."""
    made, temporary = [], tempfile.TemporaryDirectory
    monkeypatch.setattr(
        tempfile, "TemporaryDirectory", lambda **kw: made.append(kw.get("dir")) or temporary(**kw)
    )
    contents, truth = fake("cifar100", [f"{server.base}a/"])
    serve(server, "a", "cifar100", contents)
    assert_loaded("cifar100", truth)
    assert made == [tmp_path / "cache" / "sscl" / "cifar-100-binary"]


def corrupted(contents):
    return contents | {next(iter(contents)): bytes(len(next(iter(contents.values()))))}


@pytest.mark.parametrize("name", CANONICAL)
@pytest.mark.parametrize("first", ["absent", "corrupted", "incomplete"])
def test_second_mirror_is_used(fake, server, tmp_path, name, first):
    contents, truth = fake(name, [f"{server.base}a/", f"{server.base}b/"])
    if first != "absent":
        bad = corrupted(contents) if first == "corrupted" else dict(list(contents.items())[:-1])
        serve(server, "a", name, bad)
    serve(server, "b", name, contents)
    assert_loaded(name, truth)
    assert any(path.startswith("/a/") for path in server.asked)
    assert any(path.startswith("/b/") for path in server.asked)
    assert cached_files(tmp_path) == sorted(contents)


@pytest.mark.parametrize("name", CANONICAL)
@pytest.mark.parametrize("damage", ["content", "archive", "html"])
def test_nothing_wrong_survives(fake, server, tmp_path, name, damage):
    contents, _ = fake(name, [f"{server.base}a/"])
    serve(server, "a", name, corrupted(contents) if damage == "content" else contents)
    for archive in (server.root / "a").iterdir():
        if damage == "archive":
            archive.write_bytes(
                archive.read_bytes()[:-2000] if archive.stat().st_size > 4000 else b"\x1f\x8b"
            )
        elif damage == "html":
            archive.write_bytes(b"<html>please log in</html>")
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as error:
        load_images(name)
    assert server.asked
    assert cached_files(tmp_path) == []
    if damage == "content":
        assert f"not the published {next(iter(contents))}" in str(error.value)


def test_a_status_is_named(fake, server, tmp_path):
    fake("cifar10", [f"{server.base}a/"])
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded \(\S+/a/: status 404\)"):
        load_images("cifar10")
    assert cached_files(tmp_path) == []


def test_an_endless_answer_is_cut_off(fake, server, tmp_path):
    """Before it fills the disk: at the published size and what may lie beside it."""
    fake("cifar10", [f"{server.base}a/"])
    write(server.root / "a", {"cifar-10-binary.tar.gz": bytes(64 << 20)})
    with pytest.raises(FileNotFoundError, match=r"is longer than \d+ bytes"):
        load_images("cifar10")
    assert cached_files(tmp_path) == []


class Raw(socketserver.BaseRequestHandler):
    """Answers every request with the bytes `answer`, then closes, or hangs for a second."""

    answer, hangs = b"", False

    def handle(self):
        self.request.recv(1 << 16)
        self.request.sendall(self.answer)
        if self.hangs:
            time.sleep(1)


SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"


@pytest.mark.parametrize(
    ("answer", "hangs", "cause"),
    [
        (SHORT, False, "broke off after 4 of 1000 bytes"),
        (SHORT, True, "TimeoutError"),
        (b"", True, "TimeoutError"),
        (b"", False, "RemoteDisconnected|Connection reset"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", False, "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", False, "invalid literal"),
    ],
    ids=["short", "stalled", "silent", "closed", "no http", "no length"],
)
def test_a_server_that_fails_is_named(fake, tmp_path, monkeypatch, answer, hangs, cause):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    handler = type("Handler", (Raw,), {"answer": answer, "hangs": hangs})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        fake("cifar10", [f"http://127.0.0.1:{running.server_address[1]}/"])
        with pytest.raises(FileNotFoundError, match=f"could not be downloaded .*({cause})"):
            load_images("cifar10")
        running.shutdown()
    assert cached_files(tmp_path) == []


def test_tar_writes_only_what_is_expected(fake, server, tmp_path):
    """No member that climbs out of its folder, and no link with an expected name."""
    fake("cifar100", [f"{server.base}a/"])
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name in ("../../evil.bin", "extra.bin"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("cifar-100-binary/train.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    write(server.root / "a", {"cifar-100-binary.tar.gz": stream.getvalue()})
    with pytest.raises(FileNotFoundError, match=r"lacks test\.bin, train\.bin"):
        load_images("cifar100")
    assert not list(tmp_path.rglob("evil.bin"))
    assert not list(tmp_path.rglob("extra.bin"))


@pytest.mark.parametrize("name", CANONICAL)
def test_offline_is_one_sentence_and_quick(fake, name, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refuses connections
        mirrors = [f"http://127.0.0.1:{unused.getsockname()[1]}/{mirror}/" for mirror in "ab"]
        fake(name, mirrors)
        start = time.perf_counter()
        with pytest.raises(FileNotFoundError) as error:
            load_images(name)
    assert time.perf_counter() - start < 5
    message, source = str(error.value), PUBLISHED[name]
    assert message.startswith(f"{name} is neither in data_dir nor in $SSCL_DATA_DIR nor in ")
    for part in (
        *mirrors,
        *source.archives,
        *source.all_files,
        source.folders[0],
        "set SSCL_DATA_DIR to",
    ):
        assert part in message
    assert "\n" not in message
    assert ". " not in message
    assert "Traceback" not in message
    assert "HTTPConnectionPool" not in message
    assert error.value.__cause__ is None
    assert error.value.__context__ is None


# --- ImageData and holdout -----------------------------------------------------------------------


def numbered(labels, **more):
    """Images that carry their position, so that they can be told apart."""
    labels = torch.as_tensor(labels)
    position = torch.arange(len(labels))
    images = torch.stack([position // 256, position % 256], 1).to(torch.uint8).view(-1, 2, 1, 1)
    return ImageData(images, labels, tuple("abcdefghij"), **more)


def positions(part):
    return (part.images[:, 0, 0, 0].int() * 256 + part.images[:, 1, 0, 0].int()).tolist()


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (torch.tensor([3, 0]), [3, 0]),
        (torch.tensor([False, True, True, False]), [1, 2]),
        (slice(None, 2), [0, 1]),
    ],
)
def test_select(index, expected):
    whole = numbered(
        [0, 1, 2, 3], coarse_labels=torch.tensor([4, 5, 6, 7]), coarse_classes=tuple("stuvwxyz")
    )
    part = whole.select(index)
    assert positions(part) == part.labels.tolist() == expected
    assert len(part) == 2
    assert part.coarse_labels.tolist() == [4 + i for i in expected]
    assert (part.classes, part.coarse_classes) == (whole.classes, whole.coarse_classes)
    assert numbered([0, 1, 2, 3]).select(index).coarse_labels is None


@pytest.mark.parametrize("wrong", ["labels", "coarse_labels"])
def test_image_data_of_two_lengths(wrong):
    labels = {
        "labels": torch.zeros(3, dtype=torch.int64),
        "coarse_labels": torch.zeros(3, dtype=torch.int64),
    }
    labels[wrong] = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(
        ValueError, match=rf"^{wrong} is .*\(2,\), must be one label an image \(3\)"
    ):
        unchecked(ImageData, torch.zeros(3, 1, 2, 2, dtype=torch.uint8), classes=("a",), **labels)


LABELS = torch.tensor([0] * 50 + [1] * 20 + [2] * 7)[
    torch.randperm(77, generator=torch.Generator().manual_seed(1))
]


def test_holdout_is_a_stratified_partition():
    fit, validation = holdout(numbered(LABELS), 0.2)
    assert validation.labels.bincount().tolist() == [10, 4, 1]
    assert fit.labels.bincount().tolist() == [40, 16, 6]
    assert not set(positions(fit)) & set(positions(validation))
    assert sorted(positions(fit) + positions(validation)) == list(range(77))
    for part in (fit, validation):
        assert positions(part) == sorted(positions(part))
        assert torch.equal(part.labels, LABELS[positions(part)])


def test_holdout_is_drawn_by_its_seed_alone():
    whole, state = numbered(LABELS), torch.get_rng_state()
    first, again, other = (positions(holdout(whole, 0.2, seed=seed)[1]) for seed in (3, 3, 4))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)
    assert positions(holdout(whole)[1]) == positions(holdout(whole, 0.2, seed=0)[1])


def test_holdout_is_random_within_a_class():
    """Every image is held out about equally often: 400 seeds, p = 1/5, five standard errors."""
    whole = numbered([0] * 20)
    counts = torch.zeros(20)
    for seed in range(400):
        counts[positions(holdout(whole, seed=seed)[1])] += 1
    assert counts.sum() == 400 * 4
    assert (counts - 80).abs().max() < SIGMAS * (400 * 0.2 * 0.8) ** 0.5


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_holdout_fraction(fraction):
    with pytest.raises(ValueError, match=rf"^fraction is {fraction}, must be in \(0, 1\)"):
        holdout(numbered(LABELS), fraction)


@pytest.mark.parametrize("fraction", [0.2, 0.9])
def test_holdout_that_leaves_a_part_empty(fraction):
    with pytest.raises(
        ValueError, match=rf"^fraction is {fraction}, must be such that neither part"
    ):
        holdout(numbered([0, 0, 1, 1]), fraction)


# --- mixtures ------------------------------------------------------------------------------------

TOY = GaussianMixture(torch.tensor(scattered(12)), 0.1)
MIXTURE = GaussianMixture(
    torch.tensor([[0.0, 0.0, 1.0], [2.0, -1.0, 0.0]], dtype=torch.float64), 0.5
)


def assert_mean(samples, expected):
    """The mean over the first axis is `expected`, within SIGMAS of its small standard error."""
    error = samples.std(0) / len(samples) ** 0.5
    assert (error < 0.02).all()
    assert ((samples.mean(0) - expected).abs() < SIGMAS * error).all()


def test_mixture_moments():
    """E x = mean of the μ_c, Cov x = std² I + Cov(μ), each component with probability 1/m."""
    x, labels = MIXTURE.sample(40_000, generator=rng())
    assert x.shape == (40_000, 3)
    assert x.dtype == torch.float64
    assert labels.dtype == torch.int64
    mean = MIXTURE.means.mean(0)
    centred = MIXTURE.means - mean
    covariance = 0.25 * torch.eye(3) + centred.T @ centred / 2
    assert_mean(x, mean)
    assert_mean((x - mean)[:, :, None] * (x - mean)[:, None, :], covariance)
    assert_mean(
        (labels[:, None] == torch.arange(2)).double(), torch.full((2,), 0.5, dtype=torch.float64)
    )


def test_components_are_isotropic_gaussians():
    """Given c: mean μ_c, covariance std² I, and the fourth moment 3 std⁴ of no other noise."""
    for c in range(2):
        noise = MIXTURE.sample_given(torch.full((40_000,), c), generator=rng(c)) - MIXTURE.means[c]
        assert_mean(noise, torch.zeros(3, dtype=torch.float64))
        assert_mean(noise[:, :, None] * noise[:, None, :], 0.25 * torch.eye(3, dtype=torch.float64))
        assert_mean(noise**4, torch.full((3,), 3 * 0.5**4, dtype=torch.float64))


def test_sample_is_near_its_label():
    x, labels = TOY.sample(2000, generator=rng())
    assert torch.equal(torch.cdist(x, TOY.means).argmin(1), labels)
    assert len(labels.unique()) == TOY.m == 12


def test_pairs_share_the_component_and_nothing_else():
    """x1 - μ and x2 - μ are uncorrelated, in value and in square; x1 - x2 has variance 2 std²."""
    x1, x2, labels = MIXTURE.pairs(40_000, generator=rng())
    r1, r2 = x1 - MIXTURE.means[labels], x2 - MIXTURE.means[labels]
    assert_mean(r1[:, :, None] * r2[:, None, :], torch.zeros(3, 3, dtype=torch.float64))
    assert_mean((r1**2 - 0.25) * (r2**2 - 0.25), torch.zeros(3, dtype=torch.float64))
    assert_mean((x1 - x2) ** 2, torch.full((3,), 0.5, dtype=torch.float64))
    assert_mean(
        (labels[:, None] == torch.arange(2)).double(), torch.full((2,), 0.5, dtype=torch.float64)
    )


def test_toy_pairs_agree_on_the_nearest_mean():
    x1, x2, labels = TOY.pairs(3000, generator=rng())
    assert len(labels.unique()) == 12
    for x in (x1, x2):
        # The nearest pair of means is 9 std apart: a draw crosses the middle with probability 3e-6.
        assert torch.equal(torch.cdist(x, TOY.means).argmin(1), labels)


@pytest.mark.parametrize(
    "components",
    [MIXTURE, AnonymousSamples(3, 4)],
    ids=lambda components: type(components).__name__,
)
@pytest.mark.parametrize("draw", ["sample", "pairs"])
def test_draws_are_those_of_the_generator(components, draw):
    state = torch.get_rng_state()
    first, again, other = (getattr(components, draw)(50, generator=rng(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    generator = rng(1)
    one, two = (components.sample(50, generator=generator)[0] for _ in range(2))
    assert not torch.equal(one, two)


@pytest.mark.parametrize(
    ("means", "std", "message"),
    [
        (torch.zeros(3), 1.0, r"^means is .*\(3,\).*shape \(m, d\)"),
        (torch.zeros(0, 2), 1.0, r"^means is .*\(0, 2\)"),
        (torch.tensor([[0.0, float("nan")]]), 1.0, r"^means is .*finite"),
        (
            torch.zeros(2, 2, dtype=torch.int64),
            1.0,
            r"^means is torch.int64, must be floating-point",
        ),
        (torch.zeros(2, 2), 0.0, r"^std is 0.0, must be positive and finite"),
        (torch.zeros(2, 2), -1.0, r"^std is -1.0"),
        (torch.zeros(2, 2), float("nan"), r"^std is nan"),
        (torch.zeros(2, 2), float("inf"), r"^std is inf"),
    ],
)
def test_bad_mixture(means, std, message):
    with pytest.raises(ValueError, match=message):
        unchecked(GaussianMixture, means, std)


@pytest.mark.parametrize("n", [0, -1])
def test_bad_number_of_draws(n):
    for draw in (MIXTURE.sample, MIXTURE.pairs, AnonymousSamples(2, 3).sample):
        with pytest.raises(ValueError, match=rf"^n is {n}, must be at least 1"):
            draw(n, generator=rng())


@pytest.mark.parametrize("label", [-1, 2])
def test_bad_label(label):
    for components in (MIXTURE, AnonymousSamples(2, 3)):
        with pytest.raises(ValueError, match=r"^labels is .* must be in 0\.\.1"):
            components.sample_given(torch.tensor([0, label]), generator=rng())


# --- anonymous samples ---------------------------------------------------------------------------


def test_an_anonymous_sample_is_a_one_hot_code_of_its_component():
    """Codes 0..k-1 are those of component 0, the next k of component 1, and so on."""
    x, labels = AnonymousSamples(3, 4).sample(500, generator=rng())
    assert x.shape == (500, 12)
    assert x.dtype == torch.float32
    assert torch.equal(x.sort(1).values, torch.eye(12)[11].expand(500, 12)), "a single 1, else 0"
    assert [code // 4 for code in x.argmax(1).tolist()] == labels.tolist()
    given = torch.tensor([2, 0, 0, 1])
    assert torch.equal(
        AnonymousSamples(3, 4).sample_given(given, generator=rng()).view(4, 3, 4).sum(2),
        torch.eye(3)[given],
    )


@pytest.mark.parametrize(("m", "k"), [(1, 1), (2, 1), (1, 3), (5, 4)])
def test_anonymous_samples_are_uniform(m, k):
    x, labels = AnonymousSamples(m, k).sample(40_000, generator=rng())
    frequencies = x.double().mean(0)
    assert (frequencies - 1 / (m * k)).abs().max() < SIGMAS * (1 / (m * k) / 40_000) ** 0.5
    given = (
        AnonymousSamples(m, k)
        .sample_given(torch.full((40_000,), m - 1), generator=rng(1))
        .double()
        .mean(0)
    )
    assert given[:-k].sum() == 0
    assert (given[-k:] - 1 / k).abs().max() < SIGMAS * (1 / k / 40_000) ** 0.5
    assert labels.bincount().shape == (m,)


def test_anonymous_pairs_share_the_component_and_nothing_else():
    """Each of the k² pairs of samples of a component is as likely as any other, equal ones too."""
    m, k, n = 2, 3, 40_000
    x1, x2, labels = AnonymousSamples(m, k).pairs(n, generator=rng())
    joint = (x1.double().T @ x2.double() / n).view(m, k, m, k)
    for c in range(m):
        assert (joint[c, :, c] - 1 / (m * k * k)).abs().max() < SIGMAS * (
            1 / (m * k * k) / n
        ) ** 0.5
        assert (joint[c, :, 1 - c] == 0).all()
    assert torch.equal(x1.argmax(1) // k, labels)


@pytest.mark.parametrize(("m", "k"), [(0, 3), (3, 0), (-1, 2), (2, -1)])
def test_bad_number_of_anonymous_samples(m, k):
    with pytest.raises(ValueError, match=rf"^m, k is \({m}, {k}\), must be at least 1"):
        AnonymousSamples(m, k)
