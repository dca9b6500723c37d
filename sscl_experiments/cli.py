"""The command `sscl` as a process: its encoding, signals, messages and exit status.

What it does is in commands.py.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress

from . import surroundings


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of `sscl ARGUMENTS`; without `argv` of this process's own."""
    if argv is None:
        surroundings.use_utf8()
    surroundings.print_anything()
    with surroundings.importing():
        from . import commands
    try:
        arguments = commands.parser().parse_args(argv)
        with surroundings.environment(arguments):
            return arguments.run(arguments)
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        _complain(f"sscl: {error}")
        return 1
    except KeyboardInterrupt:
        _complain(surroundings.INTERRUPTED)
        return 130


def _complain(text: str) -> None:
    with suppress(OSError):  # the terminal may have been closed
        print(text, file=sys.stderr)
