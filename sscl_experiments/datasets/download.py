"""Image sets from their mirrors, by the standard library: bounded, checked, moved whole."""

import errno
import http.client
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from sscl_core.files import flush, sweep

from .archives import BESIDE, DAMAGED, unpack
from .manifest import Published

TIMEOUT = 15  # seconds, for a connection and for every answer
BLOCK = 1 << 16
# As stored: some servers declare .gz a content encoding, which is not to be undone on the way.
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "sscl"}
FAILURES = (OSError, ValueError, http.client.HTTPException, *DAMAGED)
# Errors of this machine's disk, which no other mirror cures.
OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)


def download(source: Published, target: Path) -> list[str]:
    """Every file of the set into the folder `target`, from the first mirror that serves them all.

    What went wrong at the mirrors, one text each; empty after success.
    `OSError`: `target` cannot be written.
    """
    failures: list[str] = []
    target.mkdir(parents=True, exist_ok=True)
    sweep(target)
    for mirror in source.mirrors:
        try:
            _download_from(mirror, source, target)
            return []
        except FAILURES as error:
            if isinstance(error, OSError) and error.errno in OURS:
                raise
            failures.append(f"{mirror}: {_reason(error)}")
    return failures


def _download_from(mirror: str, source: Published, target: Path) -> None:
    """Every file is checked in a scratch folder, then moved: `target` never holds part of a file.

    `ValueError`: what the mirror serves is not what was published. Else as for `fetch`.
    """
    # Its name is that of a part, so that one that a killed process left is swept up later.
    with tempfile.TemporaryDirectory(dir=target, prefix=".download-", suffix=".part") as scratch:
        ready: dict[str, Path] = {}
        for name in source.archives:
            archive = Path(scratch) / name
            fetch(mirror + name, archive, most=source.size + BESIDE)
            for file, content in unpack(archive, source, source.all_files):
                path = archive.with_name(file.name)
                path.write_bytes(content)
                flush(path)
                ready[file.name] = path
        missing = source.all_files.keys() - ready.keys()
        if missing:
            raise ValueError(f"its archive lacks {', '.join(sorted(missing))}")
        for name, path in ready.items():
            path.replace(target / name)
        flush(target)


def fetch(address: str, path: Path, *, most: int) -> None:
    """What an http(s) address serves, to a file, with a progress bar.

    `OSError`: no answer in time, a status other than success, or `path` cannot be written.
    `http.client.HTTPException`: what answers does not speak HTTP.
    `ValueError`: it is longer than `most` bytes, or shorter than announced.
    """
    request = urllib.request.Request(address, headers=HEADERS)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, path.open("wb") as file:
        announced = int(answer.headers.get("Content-Length") or 0)
        with tqdm(desc=path.name, total=announced or None, unit="B", unit_scale=True) as bar:
            while block := answer.read(BLOCK):
                file.write(block)
                bar.update(len(block))
                if bar.n > most:
                    raise ValueError(f"{path.name} is longer than {most} bytes")
        if bar.n < announced:
            raise ValueError(f"{path.name} broke off after {bar.n} of {announced} bytes")


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError):
        return error.reason.strerror or type(error.reason).__name__
    return str(error) if isinstance(error, ValueError) else type(error).__name__
