"""Tables of runs: rows of records, intervals as columns, images as rows.

Nothing here enters a stored number.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from sscl_core.config import Images, TrainConfig

from .record import Record
from .runs.images import image_sets


def frame_by(
    records: Mapping[tuple[Any, ...], Sequence[Record]], names: Sequence[str]
) -> pd.DataFrame:
    """A row a record: the parts of its key, called `names`, its seed, then every metric."""
    rows = []
    for key, group in records.items():
        known = dict(zip(names, key, strict=True))
        rows += [known | {"seed": r.config.seed} | r.metrics for r in group]
    return pd.DataFrame(rows)


def with_interval(name: str, estimate: tuple[float, float, float]) -> dict[str, float]:
    """A mean or rate and its 95 % interval, (mean, low, high), as three columns of a table."""
    mean, low, high = estimate
    return {name: mean, "95 % low": low, "95 % high": high}


def by_seed(table: pd.DataFrame, column: str, /, **where: Any) -> pd.Series:
    """A column indexed by seed, of the rows in which the columns `where` have these values."""
    for name, value in where.items():
        table = table[table[name] == value]
    return table.set_index("seed")[column]


def recorded_claims(record: Mapping[str, Any]) -> pd.DataFrame:
    """A row a claim that a committed record of a notebook decides."""
    columns = ("estimate", "low", "high", "n", "verdict")
    return pd.DataFrame(
        {"claim": claim["claim"]["id"]} | {name: claim[name] for name in columns}
        for claim in record["claims"]
    )


def images_as_rows(
    config: TrainConfig, data_dir: str | Path | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels in [0, 1] as rows, with labels, of the images that a run trains on and is tested on.

    They are x, y, x_test, y_test: the raw baseline. Errors: those of `image_sets`.
    """
    assert isinstance(config.data, Images)
    sets = image_sets(config, data_dir)
    x, x_test = (part.images.flatten(1).float() / 255 for part in (sets.train, sets.test))
    return x, sets.train.labels, x_test, sets.test.labels
