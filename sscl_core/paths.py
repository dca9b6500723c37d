"""Every folder the project reads or writes, anchored on the package, never on the working directory."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "notebooks").is_dir() else None
# A wheel carries data/ and workflow/ inside the package; a checkout has them beside it.
RESOURCES = CHECKOUT or PACKAGE / "resources"
EMBEDDED = RESOURCES / "data"
RECORDS = EMBEDDED / "records"  # of long runs, committed
SCALES = RESOURCES / "workflow" / "scales.toml"


def cache_dir() -> Path:
    """Downloads: `$XDG_CACHE_HOME/sscl`, by default `~/.cache/sscl`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sscl"


def results_dir(chosen: str | Path | None = None) -> Path:
    """Where results go: `chosen`, else `$SSCL_RESULTS_DIR`, else `results/` of the checkout, else (from a wheel) the cache."""
    chosen = chosen or os.environ.get("SSCL_RESULTS_DIR")
    return Path(chosen).resolve() if chosen else (CHECKOUT or cache_dir()) / "results"
