"""A finished run as a value."""

from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np

from sscl_core.config import TrainConfig

release = lru_cache(version)  # of an installed library; looking it up takes milliseconds


@dataclass(frozen=True, eq=False)
class Record:
    """A run's configuration, what was measured on it, and where and when that was."""

    config: TrainConfig
    metrics: dict[str, float]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
