"""Finished runs on disk, each under the hash of its configuration and of the code that makes it.

A changed configuration, changed code (comments and docstrings apart) and another release of a
library that computes each give another key, so a run never meets a result that is not its own.
Folders appear whole or not at all, and what is in them is held by checksums: a record that was
damaged counts as none, and is made again.
"""

import fcntl
import hashlib
import io
import json
import math
import os
import sys
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sscl_core.config import Frozen, Images, Mixture, Points, TrainConfig
from sscl_core.files import remove, sweep, unwritten

from .code import code_hash, digest
from .covariance_config import WhitenedPoints
from .flock import held
from .record import Record, release
from .runs.robust_config import StressedImages, UnseenMixture
from .runs.transfer_config import TransferImages

SCHEMA = 1
RECORD, ARRAYS = "record.json", "arrays.npz"
# What computes, beside our own code.
LIBRARIES = ("torch", "scikit-learn")
# The module that makes runs on a kind of data: a run's numbers depend on all code that it reaches.
KINDS = {
    TransferImages: "sscl_experiments.runs.transfer",
    Images: "sscl_experiments.runs.images",
    Mixture: "sscl_experiments.runs.mixture",
    Points: "sscl_experiments.runs.points",
    StressedImages: "sscl_experiments.runs.robust_images",
    UnseenMixture: "sscl_experiments.runs.unseen",
    WhitenedPoints: "sscl_experiments.covariance_noise",
}


@dataclass(frozen=True)
class Identity:
    """What a run's numbers follow from: configuration, code and libraries, as they were then."""

    essence: str
    code: str
    libraries: tuple[str, ...]

    @property
    def key(self) -> str:
        return digest(self.essence, self.code, *self.libraries)


def identity(config: TrainConfig) -> Identity:
    """That of a run made now: the code is what this kind of run reaches."""
    # 2.13.0+cpu computes as 2.13.0.
    libraries = tuple(f"{name} {release(name).partition('+')[0]}" for name in LIBRARIES)
    return Identity(essence(config), code_hash(KINDS[type(config.data)]), libraries)


def run_key(config: TrainConfig) -> str:
    """The name of a run's folder, if it is made now."""
    return identity(config).key


def identities(root: Path) -> list[Identity]:
    """Those of all records under `root`; a record that does not say its own is left out."""
    found = []
    for path in root.glob(f"*/{RECORD}"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))["identity"]
            content["libraries"] = tuple(content["libraries"])
            found.append(Identity(**content))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
    return found


def essence(config: Frozen) -> str:
    """A configuration as JSON, fields at their defaults left out: a new field changes no old key.

    That holds as long as no default changes; a test freezes them.
    """
    return json.dumps(_essence(config), sort_keys=True)


def _essence(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_essence(part) for part in value]
    if not isinstance(value, Frozen):
        return value
    fields = type(value).model_fields
    # What kind of thing a part is always counts: it says whose defaults the rest has.
    told = {
        name: getattr(value, name)
        for name, field in fields.items()
        if name == "name" or getattr(value, name) != field.default
    }
    return {name: _essence(part) for name, part in told.items()}


def load(root: Path, config: TrainConfig) -> Record | None:
    """The record of this run under `root`; None where there is none, or only a damaged one.

    A damaged one is warned of, with its folder and what is wrong with it.
    """
    folder = root / run_key(config)
    if not folder.is_dir():
        return None
    try:
        return read(folder, config)
    except (OSError, ValueError) as error:
        damage = f"the record in {folder} is damaged, and the run is made again: {error}"
        warnings.warn(damage, stacklevel=2)
        return None


def read(folder: Path, config: TrainConfig) -> Record:
    """The record in a folder, which is one of this run. `OSError`, `ValueError`: it is damaged."""
    content, arrays = _read(folder)
    with np.load(io.BytesIO(arrays), allow_pickle=False) as named:
        return Record(config, content["metrics"], dict(named), content["provenance"])


def intact(root: Path, key: str) -> bool:
    """Whether the record under this key is there and undamaged."""
    return content(root, key) is not None


def content(root: Path, key: str) -> dict[str, Any] | None:
    """What the record under this key says beside its arrays; None where it is damaged, or none."""
    try:
        return _read(root / key)[0]
    except (OSError, ValueError):
        return None


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    """record.json and the bytes of arrays.npz. `ValueError`: they are not what was written."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{RECORD} is nested too deeply") from None
    arrays = (folder / ARRAYS).read_bytes()
    if not isinstance(content, dict) or content.pop("checksum", None) != _checksum(content, arrays):
        raise ValueError(
            f"{RECORD} and {ARRAYS} do not have the checksum that was written with them"
        )
    if content["schema"] != SCHEMA:
        raise ValueError(f"it has schema {content['schema']}, this code reads {SCHEMA}")
    if content["key"] != folder.name:
        raise ValueError(f"it holds another run, {content['key']}")
    return content, arrays


def _checksum(content: dict[str, Any], arrays: bytes) -> str:
    """Of values, not of their layout in the file."""
    values = json.dumps(content, sort_keys=True)
    return hashlib.sha256(values.encode() + hashlib.sha256(arrays).digest()).hexdigest()


def save(root: Path, records: Sequence[Record]) -> None:
    """Writes records beside their places, waits until they are on the disk, and moves them there.

    Of two writers of one run the first wins. `ValueError`: a metric that is NaN or infinite.
    `OSError` names the folder and the cause; nothing is left of what could not be written.
    """
    parts = {}
    for record in records:
        parts[record] = root / f".{run_key(record.config)}.{uuid.uuid4().hex}.part"
    try:
        root.mkdir(parents=True, exist_ok=True)
        sweep(root)
        for record, part in parts.items():
            _write(record, part)
        # Once for all: an ensemble has hundreds of files, and fsync takes milliseconds for each.
        os.sync()
        for record, part in parts.items():
            _move(part, root, run_key(record.config))
        os.sync()
    except OSError as error:
        raise unwritten(root, error) from error
    finally:
        for part in parts.values():
            remove(part)


def _write(record: Record, part: Path) -> None:
    for name, value in record.metrics.items():
        if not math.isfinite(value):
            raise ValueError(
                f"metric {name} is {value} in a run that ended without an error: {record.config}"
            )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **record.arrays)  # type: ignore[arg-type]
    arrays = buffer.getvalue()
    who = identity(record.config)
    content = {
        "schema": SCHEMA,
        "key": who.key,
        "identity": asdict(who) | {"libraries": list(who.libraries)},
        "config": json.loads(record.config.model_dump_json()),
        "metrics": record.metrics,
        "provenance": record.provenance,
    }
    content["checksum"] = _checksum(content, arrays)
    part.mkdir()
    (part / ARRAYS).write_bytes(arrays)
    (part / RECORD).write_text(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _move(part: Path, root: Path, key: str) -> None:
    """To its place, unless an undamaged record is there."""
    try:
        part.rename(root / key)
    except OSError:
        if intact(root, key):
            return
        remove(root / key)
        part.rename(root / key)


@contextmanager
def lock(root: Path, config: TrainConfig, *, wait: bool) -> Iterator[bool]:
    """Whether this process may now make the run, or the group of runs that begins with it.

    No other process that works under `root` does so meanwhile. With `wait` it comes back when it
    may. Where a file system has no locks, every process may: work can then be done twice, and the
    first to finish wins.
    """
    path = root.parent / "locks" / run_key(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        ours = held(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not ours and wait:
            message = f"another process is at run {path.name}: waiting for it"
            print(message, file=sys.stderr, flush=True)
            ours = held(file, fcntl.LOCK_EX)
        yield ours
