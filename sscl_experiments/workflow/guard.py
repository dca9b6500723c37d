"""Runs a command of which nothing outlives the process that asked for it, however that one ends.

`python -m sscl_experiments.workflow.guard PIPE LOCK COMMAND...`: `PIPE` is the reading end of a
pipe whose other end the asking process alone holds. When it closes that end, or is killed, the
guard ends the command with all that came of it, kernels in sessions of their own included: orphans
are adopted by the guard. Until then the guard and the command hold the file `LOCK`. This module
and what it imports need the standard library only.
"""

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from sscl_experiments.flock import held

ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
GRACE = 10.0  # seconds in which Snakemake may take its jobs back from a cluster
GLANCE = 0.1  # seconds between two looks
FINAL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_stopped = False


def main(arguments: list[str]) -> int:
    pipe, lock, *command = arguments
    for number in FINAL:
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, _stop)
    ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1, 0, 0, 0)
    with Path(lock).open("a", encoding="utf-8") as file:
        held(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        child = subprocess.Popen(command, pass_fds=[file.fileno()])
        while child.poll() is None and not (_stopped or _is_closed(int(pipe))):
            time.sleep(GLANCE)
        finished = child.poll()
        end(child.pid)
    return 128 + signal.SIGTERM if finished is None else finished


def _stop(*_: object) -> None:
    global _stopped
    _stopped = True


def _is_closed(pipe: int) -> bool:
    return bool(select.select([pipe], [], [], 0)[0])


def end(first: int) -> None:
    """Ends all descendants of this process and waits for them; those left after a while are killed.

    `first` is interrupted, upon which Snakemake cancels its jobs; the others are terminated.
    """
    told: set[int] = set()
    deadline = time.monotonic() + GRACE
    while left := descendants(os.getpid()):
        late = time.monotonic() > deadline
        for pid in left - told if not late else left:
            gentle = signal.SIGINT if pid == first else signal.SIGTERM
            _send(pid, signal.SIGKILL if late else gentle)
        told |= left
        _reap()
        time.sleep(GLANCE / 5)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _reap() -> None:
    """Takes note of every child that ended, adopted ones among them."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def descendants(pid: int) -> set[int]:
    """Children, their children and so on, as /proc lists them, zombies included."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)) is not None:
            parents[int(entry.name)] = parent
    found: set[int] = set()
    new = {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def _parent(process: Path) -> int | None:
    """Field 4 of /proc/PID/stat; the name in field 2 is in parentheses and may hold anything."""
    try:
        stat = (process / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(b")")[2].split()[1])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
