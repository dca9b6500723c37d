"""Every folder that the project reads or writes, anchored on the package.

None depends on the working directory.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import sscl_core

Content = TypeVar("Content")
PACKAGE = Path(__file__).resolve().parent
PACKAGES = {"sscl_core": Path(sscl_core.__file__).resolve().parent, "sscl_experiments": PACKAGE}
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "notebooks").is_dir() else None
# A wheel carries data/ and workflow/ inside the package; a checkout has them beside it.
RESOURCES = CHECKOUT or PACKAGE / "resources"
EMBEDDED = RESOURCES / "data"
RECORDS = EMBEDDED / "records"  # of long runs, committed


def cache_dir() -> Path:
    """Downloads: `$XDG_CACHE_HOME/sscl`, by default `~/.cache/sscl`.

    `FileNotFoundError`: there is no home, as where a container runs under a number without a name.
    """
    if variable := os.environ.get("XDG_CACHE_HOME"):
        return Path(variable) / "sscl"
    home = os.environ.get("HOME") or os.path.expanduser("~")
    if not os.path.isabs(home):
        where = "HOME is not set and this user has no home"
        raise FileNotFoundError(f"{where}: set XDG_CACHE_HOME to a folder that can be written")
    return Path(home) / ".cache" / "sscl"


def results_dir(given: str | Path | None = None) -> Path:
    """Where results go: `given`, else `$SSCL_RESULTS_DIR`, else `results/` of the checkout, else
    (from a wheel) the cache.

    `ValueError`: it is a file.
    """
    if given:
        return folder("results_dir", given, new=True)
    if variable := os.environ.get("SSCL_RESULTS_DIR"):
        return folder("SSCL_RESULTS_DIR", variable, new=True)
    return (CHECKOUT or cache_dir()) / "results"


def folder(name: str, value: str | Path, *, new: bool = False) -> Path:
    """The absolute path of a folder that was given as `name`; `~` is the user's home.

    `ValueError`: there is no such folder, which `new` allows, or it is a file.
    """
    path = Path(os.path.expanduser(value)).resolve()
    if not str(value):
        raise ValueError(f"{name} must name a folder, got ''")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{name} must name a folder, got {str(value)!r}, which is a file")
    if not path.exists() and not new:
        found = f"{str(value)!r}: there is no {path}"
        raise ValueError(f"{name} must name a folder that exists, got {found}")
    return path


def committed(path: Path, read: Callable[[str], Content]) -> Content:
    """What `read` makes of the text of a committed file.

    `ValueError`, with the remedy: it is damaged.
    """
    try:
        return read(path.read_text(encoding="utf-8"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        remedy = f"`git checkout -- {path}`, in the checkout, brings it back"
        cause = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is damaged: {remedy} ({cause})") from error
