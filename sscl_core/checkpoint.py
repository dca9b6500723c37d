"""The state of a training run in one file, from which the run goes on exactly.

`torch.load` looks at no checksum, so the sha256 of the state stands behind it.
"""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from .files import write_bytes

CHECKSUM_BYTES = hashlib.sha256().digest_size


def save(path: Path, state: dict[str, Any]) -> None:
    """`OSError`: it could not be written; what was there is as it was."""
    buffer = io.BytesIO()  # torch's own writer reports a full disk as an "enforce fail"
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_bytes(path, content + hashlib.sha256(content).digest())


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """`ValueError`, with the remedy: the file is damaged."""
    content = path.read_bytes()
    content, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    if hashlib.sha256(content).digest() != checksum:
        raise ValueError(f"checkpoint {path} is damaged: delete it, and the run begins anew")
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: Exception) -> ValueError:
    """What to say of a file whose content does not fit the run."""
    remedy = "delete it, and the run begins anew"
    return ValueError(
        f"checkpoint {path} cannot be used: {remedy}: it does not fit this run ({error})"
    )
