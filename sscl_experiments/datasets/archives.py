"""Files and archives read with bounds and checksums: what comes back is what was published.

Whatever is read is checked against the sha256 of its content, decompressed: archives packed anew by
a distribution or a mirror are as good as the original.
"""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from .manifest import MNIST, File, Published

DAMAGED = (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error)
BESIDE = 1 << 20  # bytes that an archive may hold beside the published files: headers, a readme
REMEDY = "delete it or move it away, and it is downloaded anew"


def read(path: Path, file: File, remedy: str = REMEDY) -> bytes:
    """The content of a file, decompressed where it is a .gz.

    `ValueError`, with the remedy: it cannot be read, or it is not the published one.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return _checked(stream.read, file)
    except (OSError, ValueError, *DAMAGED) as error:
        raise _unreadable(path, error, remedy) from None


def read_tar(archive: Path, source: Published, wanted: dict[str, File]) -> dict[str, bytes]:
    """Those of the wanted files that a .tar.gz holds. `ValueError` as for `read`."""
    try:
        unpacked = unpack(archive, source, wanted)
        return {file.name: content for file, content in unpacked}
    except (OSError, ValueError, *DAMAGED) as error:
        raise _unreadable(archive, error, REMEDY) from None


def unpack(
    archive: Path, source: Published, wanted: dict[str, File]
) -> Iterator[tuple[File, bytes]]:
    """The wanted files of an archive, checked. Nothing is written to a path that it names.

    `ValueError`: one is not the published one, or the archive holds far more than was published.
    One of `DAMAGED`: it is no archive, or only part of one.
    """
    with gzip.open(archive) as stream:
        if archive.name not in source.tars:
            file = wanted[archive.stem]
            yield file, _checked(stream.read, file)
            return
        bounded = _Bounded(stream, source.size + BESIDE)
        with tarfile.open(fileobj=bounded, mode="r|") as tar:  # type: ignore[call-overload]
            yield from _members(tar, wanted)


def _members(tar: tarfile.TarFile, wanted: dict[str, File]) -> Iterator[tuple[File, bytes]]:
    left = dict(wanted)
    while left and (member := tar.next()):
        # tarfile keeps a list of all members so far, of which there may be millions.
        tar.members.clear()  # type: ignore[attr-defined]
        # By the last part of the name: mirrors differ in the folder that they pack.
        name = PurePosixPath(member.name).name
        content = tar.extractfile(member) if name in left and member.isreg() else None
        if content:
            file = left.pop(name)
            yield file, _checked(content.read, file)


class _Bounded:
    """A stream of which at most `limit` bytes are read.

    An archive may be a bomb in its headers too: a name of gigabytes takes megabytes, compressed.
    """

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self.stream, self.limit, self.left = stream, limit, limit

    def read(self, size: int) -> bytes:
        content = self.stream.read(min(size, self.left + 1))
        self.left -= len(content)
        if self.left < 0:
            expected = "the published files and what may lie beside them"
            raise ValueError(f"holds more than {self.limit} bytes, {expected}")
        return content


def _checked(read: Callable[[int], bytes], file: File) -> bytes:
    """The content, of which at most one byte more than expected is read: it may be a bomb."""
    content = read(file.size + 1)
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        length = len(content) if len(content) <= file.size else f"more than {file.size}"
        known = ", which is MNIST's, of digits" if found in MNIST else ""
        raise ValueError(
            f"not the published {file.name}, "
            f"expected {file.size} bytes with sha256 {file.sha256}, "
            f"found {length} bytes with sha256 {found}{known}"
        )
    return content


def _unreadable(path: Path, error: Exception, remedy: str) -> ValueError:
    if isinstance(error, OSError) and not isinstance(error, DAMAGED):
        return ValueError(f"{path} cannot be read ({error.strerror}): {remedy}.")
    return ValueError(f"{path}: {error}; {remedy}.")
