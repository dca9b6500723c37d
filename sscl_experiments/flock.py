"""Locks on files between processes. The standard library only: the guard imports it."""

import fcntl
from typing import IO


def held(file: IO[str], operation: int) -> bool:
    """Whether this process now holds an open file as `operation` asks (see flock(2)).

    False: another holds it, and LOCK_NB forbids to wait. The system lets go of it however the
    process ends, and when the file is closed. Where a file system has no locks, every process may.
    """
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
