"""The records: a line of JSON a run, in one file a phase, which only grows.

They are committed, so that any machine goes on where the last one stopped. A run is known by its
configuration (`Task.id`); which code and libraries made it stands in its line.
"""

import base64
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from sscl_experiments.paths import RECORDS, committed

FOLDER = RECORDS / "full" / "kernel_experiment"
Entry = dict[str, Any]


class Found(Mapping[str, Entry]):
    """Records by the name of the run; they do not change. `memory`: of what follows from them."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = dict(entries)
        self.memory: dict[Any, Any] = {}

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class Ledger:
    """The records in a folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    def path(self, phase: str) -> Path:
        return self.folder / f"{phase}.jsonl"

    def found(self) -> Found:
        """All of them; of two of one run the first. `ValueError`, with the remedy: a damaged one.

        A last line without an end is what a power cut left, and counts as none.
        """
        found: dict[str, Entry] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for entry in committed(path, _entries):
                found.setdefault(entry["id"], entry)
        return Found(found)

    def has(self, name: str) -> bool:
        """Whether this run is recorded by now; much faster than `found`."""
        line = f'"id": "{name}"'.encode()
        paths = self.folder.glob("*.jsonl")
        # Without what follows the last end of a line, as in `found`: it will be made again.
        return any(line in path.read_bytes().rpartition(b"\n")[0] for path in paths)

    def append(self, phase: str, entry: Entry) -> None:
        """In one piece, and on the disk when it returns; other processes may append meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n"
        with self.path(phase).open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _cut_unfinished(file)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


def _entries(text: str) -> list[Entry]:
    """`ValueError`: a line that is no record."""
    lines = text.split("\n")[:-1]  # what follows the last end of a line is empty or unfinished
    entries = [json.loads(line) for line in lines]
    for entry in entries:
        if not isinstance(entry.get("id"), str) or not ({"metrics", "diverged"} & entry.keys()):
            raise ValueError(f"a line holds no run: {str(entry)[:80]}")
    return entries


def _cut_unfinished(file: Any) -> None:
    file.seek(0)
    content = file.read()
    file.truncate(content.rfind(b"\n") + 1)


def packed(correct: Bool[np.ndarray, " n"]) -> str:
    """Which test images were told right, a bit each, in base64."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpacked(text: str, n: int) -> Bool[np.ndarray, " n"]:
    """`ValueError`: it does not hold n images."""
    content = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(content) != -(-n // 8):
        raise ValueError(f"correct must hold {n} images, got {8 * len(content)}")
    return np.unpackbits(content, count=n).astype(bool)
