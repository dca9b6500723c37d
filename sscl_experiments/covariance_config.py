"""Configurations of runs whose noise has the covariance of the data. No PyTorch: plans use it."""

from collections.abc import Iterable
from typing import Literal

from sscl_core.config import Points, TrainConfig

COVARIANCE = "covariance noise"  # what the augmentation is called in tables


class WhitenedPoints(Points):
    """Points whose augmentation acts in whitened coordinates; the network sees the points.

    Noise of scale s there is noise with s² times the covariance of the training part.
    """

    # Without a default, so that it is part of a run's name: other points have no such field.
    coordinates: Literal["whitened"]


class WhitenedRun(TrainConfig):
    """A run on such points."""

    data: WhitenedPoints


def whitened(configs: Iterable[TrainConfig]) -> list[TrainConfig]:
    """The same runs on points, their augmentation in whitened coordinates."""
    return [_whitened(config) for config in configs]


def _whitened(config: TrainConfig) -> WhitenedRun:
    fields = {name: getattr(config, name) for name in type(config).model_fields}
    points = {name: getattr(config.data, name) for name in type(config.data).model_fields}
    return WhitenedRun(**fields | {"data": WhitenedPoints(**points, coordinates="whitened")})
