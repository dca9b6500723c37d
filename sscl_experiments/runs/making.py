"""What all kinds of runs have in common: how a record is made, its provenance, and collapse."""

import datetime
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Required, TypedDict

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sscl_core.config import TrainConfig
from sscl_core.train import TrainResult, computing
from sscl_experiments.record import Record, release

Measures = tuple[dict[str, float], dict[str, np.ndarray]]  # metrics, arrays
COLLAPSE = 1e-5  # of distance over norm: below it float32 features have no digits to differ in


class Training(TypedDict, total=False):
    """How a run on images is trained, whatever it is: what `sscl_core.train.train` takes."""

    device: Required[str]
    checkpoint: Required[Path]
    compiled: bool
    progress: bool


def made(
    config: TrainConfig,
    training: Callable[[], TrainResult],
    measure: Callable[[TrainResult], Measures],
) -> Record:
    """The record of a run: it is trained, then measured, both as its configuration computes."""
    with computing(config):
        trained = training()
        began = time.monotonic()
        measures = measure(trained)
        return record_of(trained, measures, time.monotonic() - began)


def record_of(trained: TrainResult, measures: Measures, seconds: float) -> Record:
    """`seconds`: of measuring, beside those of training."""
    metrics, arrays = measures
    arrays["loss"] = np.asarray(trained.losses, dtype=np.float32)
    metrics["images_per_second"] = trained.images_per_second
    origin = provenance(trained.model, trained.seconds + seconds)
    return Record(trained.config, metrics, arrays, origin)


def provenance(model: nn.Module, seconds: float) -> dict[str, Any]:
    """What a number needs beside its configuration to be understood later."""
    device = next(model.parameters()).device
    cuda = device.type == "cuda"
    libraries = {name: release(name) for name in ("torch", "numpy")}
    return {
        "seconds": round(seconds, 3),
        "date": now(),
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": libraries | {"python": platform.python_version()},
    }


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def is_collapsed(*features: Float[Tensor, "n _"]) -> float:
    """1 if all rows of one of these sets of features are equal up to rounding, or zero; else 0."""
    return float(any(_relative_width(z) <= COLLAPSE for z in features))


def _relative_width(z: Float[Tensor, "n d"]) -> float:
    """The largest distance to the mean over the largest norm, 0 where all is zero."""
    z = z.double()
    largest = z.norm(dim=1).max().clamp_min(1e-300)
    return ((z - z.mean(0)).norm(dim=1).max() / largest).item()
