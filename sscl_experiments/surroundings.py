"""What a command finds around it: the locale, Ctrl-C while modules are imported, folders, a home.

It is imported before everything else and imports the standard library only.
"""

import io
import os
import pwd
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import paths

INTERRUPTED = "sscl: interrupted; finished runs are kept, the same command goes on from there"
# What libraries keep beside their work, with its place in the home folder.
FOLDERS = {
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "IPYTHONDIR": ".ipython",
    "JUPYTER_CONFIG_DIR": ".jupyter",
    "JUPYTER_DATA_DIR": ".local/share/jupyter",
    "JUPYTER_RUNTIME_DIR": ".local/share/jupyter/runtime",
    "MPLCONFIGDIR": ".config/matplotlib",
}
UTF8 = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}  # for child processes


def use_utf8() -> None:
    """Under a locale of another encoding, starts this process's Python again in UTF-8 mode.

    Names of files then are what they are elsewhere, and children read them alike; only what is
    printed keeps the encoding of the terminal.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    terminal = {"PYTHONIOENCODING": getattr(sys.stdout, "encoding", "utf-8")}
    environment = terminal | os.environ | {"PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def print_anything() -> None:
    """A character that the terminal does not have is printed as its code; it is no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def importing() -> Iterator[None]:
    """Meanwhile Ctrl-C ends the process at once: interrupted imports raise or print anything."""
    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _leave(*_: object) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)


@contextmanager
def environment(arguments: Namespace) -> Iterator[None]:
    """Settles, while a command runs, which folders it and its children use.

    `--results-dir` and `--data-dir`, where the command has them, and `$SSCL_RESULTS_DIR` and
    `$SSCL_DATA_DIR` are made absolute; folders of libraries that cannot be written go to the
    results. `ValueError`: a value names no folder.
    """
    before = dict(os.environ)
    try:
        os.environ.update(_places(arguments))
        if hasattr(arguments, "results_dir"):
            os.environ.update(home(paths.results_dir()))
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _places(arguments: Namespace) -> dict[str, str]:
    """Makes `--data-dir` absolute in `arguments`; returns the variables that are set."""
    places = {}
    if data := os.environ.get("SSCL_DATA_DIR"):
        places["SSCL_DATA_DIR"] = str(paths.folder("SSCL_DATA_DIR", data))
    if given := getattr(arguments, "data_dir", None):
        arguments.data_dir = str(paths.folder("--data-dir", given))
    given = getattr(arguments, "results_dir", None)
    if results := given or os.environ.get("SSCL_RESULTS_DIR"):
        name = "--results-dir" if given else "SSCL_RESULTS_DIR"
        places["SSCL_RESULTS_DIR"] = str(paths.folder(name, results, new=True))
    if given:
        arguments.results_dir = places["SSCL_RESULTS_DIR"]
    return places


def home(results: Path) -> dict[str, str]:
    """Variables that move what cannot be written in the user's home to `results`/.home.

    That is everything where there is no home (`docker run -u`), and nothing for most. A user whom
    the system has no name for gets one: libraries name temporary folders by it.
    """
    own = results / ".home"
    # Without any it is relative, so not writable.
    user = Path(os.environ.get("HOME") or _account_home() or "")
    places = {"HOME": "."} | FOLDERS
    wanted = {name: Path(os.environ.get(name) or user / place) for name, place in places.items()}
    missing = [name for name, folder in wanted.items() if not _is_writable(folder)]
    variables = {name: str(own / places[name]) for name in missing}
    if variables:
        own.mkdir(parents=True, exist_ok=True)
    if "XDG_CACHE_HOME" in variables:
        _keep_cache(wanted["XDG_CACHE_HOME"], own / ".cache")
    if _account_home() is None and not (os.environ.get("LOGNAME") or os.environ.get("USER")):
        variables["LOGNAME"] = variables["USER"] = f"uid{os.getuid()}"
    return variables


def _keep_cache(old: Path, new: Path) -> None:
    """Data sets in a cache that can only be read are still found."""
    new.mkdir(parents=True, exist_ok=True)
    if old.is_absolute() and (old / "sscl").is_dir() and not os.path.lexists(new / "sscl"):
        (new / "sscl").symlink_to(old / "sscl")


def _account_home() -> str | None:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None


def _is_writable(folder: Path) -> bool:
    """Or can be made: then the nearest folder above it that exists can be written.

    A relative one is no folder to rely on.
    """
    if not folder.is_absolute():
        return False
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    return existing is not None and existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
