"""The canonical files of an image set: where they are looked for, and what they hold.

They are looked for in `data_dir`, then in `$SSCL_DATA_DIR`, then in the cache, and are at last
downloaded to the cache. A place is looked at only if those before it lack a file: whoever has all
the data needs no cache, and no home.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sscl_experiments.paths import cache_dir, folder

from .archives import read, read_tar
from .download import download
from .manifest import File, Published

SHOWN = 6  # names of a folder's content in a message


def load(
    source: Published, split: str, data_dir: Path | None
) -> tuple[UInt8[np.ndarray, "n c h w"], UInt8[np.ndarray, "n k"]]:
    """Images and labels of a split; the last of k = 1 or 2 labels is the fine one.

    Errors: those of `load_images`.
    """
    contents = _contents(source, source.files[split], data_dir)
    if source.layout == "idx":
        images, labels = map(_idx_array, contents)
        return images[:, None], labels[:, None]
    return _cifar_arrays(contents, n_labels=2 if source.coarse_classes else 1)


def _idx_array(content: bytes) -> np.ndarray:
    """idx: two zero bytes, the type (8: uint8), the number k of axes, k lengths, the array.

    A length is a big-endian number of 32 bits.
    """
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _cifar_arrays(contents: Sequence[bytes], n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """A record is its labels, a byte each, then the 3072 bytes of a (3, 32, 32) image."""
    records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, n_labels + 3072)
    return records[:, n_labels:].reshape(-1, 3, 32, 32), records[:, :n_labels]


def _contents(source: Published, files: Sequence[File], data_dir: Path | None) -> list[bytes]:
    """Of each file, from the first place that has it; else newly downloaded."""
    found: dict[str, bytes] = {}
    for root in _roots(source, data_dir):
        missing = [file for file in files if file.name not in found]
        try:
            found |= _found_in(root, source, missing)
        except PermissionError as error:
            where = error.filename or root
            remedy = "set SSCL_DATA_DIR or XDG_CACHE_HOME to another folder"
            message = f"{where} cannot be read: let this user read it, or {remedy}"
            raise PermissionError(message) from None
        if len(found) == len(files):
            return [found[file.name] for file in files]
    target = _downloaded(source, data_dir)
    return [found.get(file.name) or read(target / file.name, file) for file in files]


def _roots(source: Published, data_dir: Path | None) -> Iterator[Path]:
    """Where files are looked for, in this order. The cache comes last, and only if it is asked for:
    there may be no home to have one in."""
    yield from _named_roots(data_dir)
    yield _cache(source, data_dir)


def _named_roots(data_dir: Path | None) -> Iterator[Path]:
    """Those that the user named."""
    if data_dir is not None:
        yield data_dir
    if variable := os.environ.get("SSCL_DATA_DIR"):
        yield folder("SSCL_DATA_DIR", variable)


def _cache(source: Published, data_dir: Path | None) -> Path:
    try:
        return cache_dir()
    except FileNotFoundError as error:
        raise _nowhere(source, data_dir, f"it cannot be downloaded: {error}, or") from None


def _found_in(root: Path, source: Published, files: Sequence[File]) -> dict[str, bytes]:
    """Those of the files that lie under a root: each by itself, gzipped or not, or packed."""
    folders = [root / name for name in source.folders]
    found: dict[str, bytes] = {}
    for file in files:
        names = (file.name, f"{file.name}.gz")
        places = (place / name for place in folders for name in names)
        path = next((place for place in places if place.is_file()), None)
        if path is not None:
            found[file.name] = read(path, file)
    for archive in (place / name for place in (root, *folders) for name in source.tars):
        missing = {file.name: file for file in files if file.name not in found}
        if missing and archive.is_file():
            found |= read_tar(archive, source, missing)
    return found


def _downloaded(source: Published, data_dir: Path | None) -> Path:
    """The folder of the cache that now holds every file of the set."""
    target = _cache(source, data_dir) / source.folders[0]
    try:
        failures = download(source, target)
    except OSError as error:
        where = f"{target} cannot be written ({error.strerror})"
        remedy = "set XDG_CACHE_HOME to a folder that can be written, or"
        why = f"it cannot be downloaded, as {where}: {remedy}"
        raise _nowhere(source, data_dir, why) from None
    if failures:
        by_hand = f"get {', '.join(source.archives)} from {source.mirrors[0]} by hand and"
        why = f"could not be downloaded ({'; '.join(failures)}): {by_hand}"
        raise _nowhere(source, data_dir, why)
    return target


def _nowhere(source: Published, data_dir: Path | None, why: str) -> FileNotFoundError:
    """What the folders hold instead of the set, why it was not downloaded, and what to do."""
    try:
        cache = str(cache_dir() / source.folders[0])
    except FileNotFoundError:
        cache = "a cache"
    roots = dict.fromkeys(_named_roots(data_dir))
    seen = "".join(f" ({_instead(root, source)})" for root in roots)
    packed = ", .gz or not" + "".join(f", or which holds {tar}" for tar in source.tars)
    return FileNotFoundError(
        f"{source.name} is neither in data_dir nor in $SSCL_DATA_DIR nor in {cache}{seen}, "
        f"and {why} set SSCL_DATA_DIR to a folder in which {source.folders[0]}/ holds "
        f"{', '.join(source.all_files)}{packed}."
    )


def _instead(root: Path, source: Published) -> str:
    """What a folder has in the place of a set."""
    for place in (root / name for name in source.folders):
        present = {path.name.removesuffix(".gz") for path in place.glob("*")}
        lacking = [name for name in source.all_files if name not in present]
        if 0 < len(lacking) < len(source.all_files):
            return f"{place} lacks {', '.join(lacking)}"
    for name, what in source.others.items():
        if (root / name).exists():
            return f"{root} holds {name}, {what}"
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{root} holds {', '.join(names[:SHOWN]) or 'nothing'}{more}"
