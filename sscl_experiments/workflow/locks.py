"""Who may write to the results of a scale: one reproduction at a time, and the jobs it started."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from sscl_experiments.flock import held

# A variable in the environment of Snakemake: there paths of any characters arrive as they are.
SETTINGS = "SSCL_REPRODUCTION"
LOCK = ".lock"
PATIENCE = 3.0  # seconds that a reproduction which was killed has to end its jobs


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Holds `out`, results/<scale>, for this process and what it starts.

    The lock is then shared with whoever takes part, and until the last of them ended none gets it
    alone. `RuntimeError` where another reproduction holds it, or jobs of one that was killed.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a+", encoding="utf-8") as file:
        deadline = monotonic() + PATIENCE
        while not _is_ours(file):
            if monotonic() > deadline:
                holder = f"process {_owner(file)}, or what it started"
                remedy = "wait for it, or choose another --results-dir"
                what = f"another reproduction is writing {out} ({holder})"
                raise RuntimeError(f"{what}: {remedy}")
            sleep(0.1)
        yield


def _is_ours(file: IO[str]) -> bool:
    if not held(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
        return False
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    # Another may come in between, and then it is theirs.
    return held(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _owner(file: IO[str]) -> str:
    """The number of the process that last had the lock alone."""
    file.seek(0)
    return file.read()


@contextmanager
def taking_part(out: Path) -> Iterator[None]:
    """Meanwhile no reproduction begins that writes to `out`.

    One that is at work may be what started this process. Where a file system has no locks, nothing
    is held. `RuntimeError` in a job of the workflow: the reproduction that it belongs to was
    killed, and another has begun.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a+", encoding="utf-8") as file:
        held(file, fcntl.LOCK_SH)
        ours = json.loads(os.environ.get(SETTINGS, "{}"))
        if ours and ours["process"] != _owner(file):
            mine, other = ours["process"], _owner(file)
            what = f"this job is of reproduction {mine}, which ended"
            raise RuntimeError(f"{what}; {other} has taken over {out}")
        yield
