"""Finished runs on disk, each under the hash of its configuration and of the code that makes its numbers.

A changed configuration, changed code (comments and docstrings apart) or another release of a library that computes have another key, so a
run never meets a result that is not its own. Folders appear whole or not at all.
"""

import ast
import fcntl
import hashlib
import json
import shutil
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .config import TrainConfig
from .paths import EMBEDDED, PACKAGE

SCHEMA = 1
RUN_LIBRARIES = ("torch", "kornia", "scikit-learn")
RUN_CODE = ("augmentations", "config", "data", "ensemble", "evaluate", "experiments", "losses", "models", "points", "theory", "train")


@dataclass(frozen=True)
class Record:
    """A finished run: its configuration, the metrics and arrays measured on it, and where and when that was."""

    config: TrainConfig
    metrics: dict[str, float]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def run_key(config: TrainConfig) -> str:
    return digest(config.model_dump_json(), code_hash(RUN_CODE), *(release(name).split("+")[0] for name in RUN_LIBRARIES))  # +cpu or not


release = lru_cache(version)  # of an installed library; looking it up costs more than everything else here


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


@lru_cache
def code_hash(modules: Sequence[str]) -> str:
    """Of the modules named, blind to comments, docstrings and layout; and of the embedded data."""
    data = hashlib.sha256((EMBEDDED / "fashion_mnist_subset.npz").read_bytes()).hexdigest()
    return digest(*(_meaning((PACKAGE / f"{name}.py").read_text(encoding="utf-8")) for name in modules), data)


def _meaning(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def load(root: Path, config: TrainConfig) -> Record | None:
    """The record of this run under `root`, or None where it is still to be made. `ValueError`: it is damaged."""
    folder = root / run_key(config)
    if not folder.is_dir():
        return None
    try:
        content = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        if TrainConfig.model_validate_json(json.dumps(content["config"])) != config:
            raise ValueError("it holds another run")
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            return Record(config, content["metrics"], dict(arrays), content["provenance"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"the record in {folder} is damaged: delete that folder, and the run is made again ({error})") from error


def save(root: Path, record: Record) -> None:
    """Writes the record beside its place and moves it there; of two writers of one run the first wins."""
    root.mkdir(parents=True, exist_ok=True)
    part = root / f".{run_key(record.config)}.{uuid.uuid4().hex}.part"
    part.mkdir()
    content = {
        "schema": SCHEMA,
        "config": json.loads(record.config.model_dump_json()),
        "metrics": record.metrics,
        "provenance": record.provenance,
    }
    write_json(part / "record.json", content)
    np.savez_compressed(part / "arrays.npz", **record.arrays)  # type: ignore[arg-type]
    try:
        part.rename(root / run_key(record.config))
    except OSError:
        shutil.rmtree(part)
        if not (root / run_key(record.config)).is_dir():
            raise


@contextmanager
def lock(root: Path, config: TrainConfig, *, wait: bool) -> Iterator[bool]:
    """Whether this process may now make the run, or the group of runs that begins with it, under `root`: no other does so meanwhile.

    With `wait` it comes back when it may. The system lets go of the lock however the process ends. Where a file system has no locks,
    every process may: work can then be done twice, and the first to finish wins.
    """
    path = root.parent / "locks" / run_key(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield True


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, content: str) -> None:
    """Atomically: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    part.write_text(content, encoding="utf-8", newline="")
    part.replace(path)
