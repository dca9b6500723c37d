"""What notebooks do with runs and their data, beside showing them. Nothing here enters a stored number."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from sscl_core.config import Images, TrainConfig
from sscl_experiments.runs.images import image_sets

from .record import Record


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """A row a record: loss, d_z, epochs, seed, then every metric."""
    return pd.DataFrame(
        {
            "loss": r.config.loss.name,
            "d_z": r.config.projector.dim,
            "epochs": r.config.epochs,
            "seed": r.config.seed,
            **r.metrics,
        }
        for r in records
    )


def frame_by(
    records: Mapping[tuple[Any, ...], Sequence[Record]], names: Sequence[str]
) -> pd.DataFrame:
    """A row a record: the parts of the key it is listed under, called `names`, its seed, then every metric."""
    rows = [(key, record) for key, group in records.items() for record in group]
    return pd.DataFrame(
        {**dict(zip(names, key, strict=True)), "seed": r.config.seed, **r.metrics}
        for key, r in rows
    )


def images_as_rows(
    config: TrainConfig, data_dir: str | Path | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels in [0, 1] as rows, with labels, of the images a run trains on and is evaluated on: the raw baseline."""
    assert isinstance(config.data, Images)
    sets = image_sets(config, data_dir)
    x, x_test = (part.images.flatten(1).float() / 255 for part in (sets.train, sets.test))
    y, y_test = sets.train.labels, sets.test.labels
    return x, y, x_test, y_test


def with_interval(name: str, estimate: tuple[float, float, float]) -> dict[str, float]:
    """A mean or rate and its 95 % interval, (mean, low, high), as three columns of a table."""
    mean, low, high = estimate
    return {name: mean, "95 % low": low, "95 % high": high}
