"""Files that appear whole or not at all, and that a power cut after success does not take back.

A file is written beside its place under a hidden name that ends in `.part`, flushed to the disk,
and renamed.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ABANDONED = 3600  # seconds after which nobody is still writing to a part


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A part to write to that takes the place of the file `path` when the block ends.

    Content and name are then on the disk. If the block fails the part is removed and `path` is as
    it was; an `OSError` then names `path` and the cause.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        try:
            yield part
            flush(part)
            part.rename(path)
        except BaseException:
            remove(part)
            raise
        flush(path.parent)
    except OSError as error:
        raise unwritten(path, error) from error


def unwritten(path: Path, error: OSError) -> OSError:
    """The error, with the path and what became of it."""
    cause = error.strerror or str(error)
    return OSError(error.errno, f"{path} could not be written, and is as it was: {cause}")


def write_bytes(path: Path, content: bytes) -> None:
    with writing(path) as part:
        part.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def flush(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """A file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes the parts that killed processes left in a folder."""
    for part in folder.glob(".*.part"):
        try:
            if time.time() - part.stat().st_mtime > ABANDONED:
                remove(part)
        except FileNotFoundError:  # another process was faster
            pass
