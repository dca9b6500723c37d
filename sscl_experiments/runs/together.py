"""Runs that are trained at once, in an ensemble, and measured one by one."""

import time
from collections.abc import Callable, Sequence

from sscl_core.config import TrainConfig
from sscl_core.divergence import NonFiniteLossError
from sscl_core.ensemble import train_ensemble
from sscl_core.train import TrainResult
from sscl_experiments.record import Record

from .making import Measures, record_of

Made = tuple[list[Record], NonFiniteLossError | None]


def make_together(
    configs: Sequence[TrainConfig],
    data: Sequence,
    measure: Callable[[TrainResult], Measures],
    training: Callable[..., list[TrainResult]] | None = None,
    **settings: object,
) -> Made:
    """The records of the runs that ended well, and the error that names the others, if any.

    `training` is by default `train_ensemble`, and `settings` are those of that. `seconds` are each
    run's share of the ensemble's.
    Products of stacked matrices can round otherwise than those of single ones, so each record says
    which seeds were trained `together`.
    """
    failure = None
    try:
        trained = (training or train_ensemble)(configs, data, **settings)  # type: ignore[arg-type]
    except NonFiniteLossError as error:
        trained, failure = error.finished, error
    began = time.monotonic()
    measured = [measure(result) for result in trained]
    share = (time.monotonic() - began) / max(1, len(trained))
    records = [record_of(*pair, share) for pair in zip(trained, measured, strict=True)]
    for record in records:
        record.provenance["together"] = [config.seed for config in configs]
    return records, failure
