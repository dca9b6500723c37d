"""Runs that differ from a given one in one respect. Plans are made of them: no PyTorch here."""

from collections.abc import Iterable

from sscl_core.config import TrainConfig


def with_seeds(config: TrainConfig, seeds: Iterable[int]) -> list[TrainConfig]:
    """One run a seed."""
    return [config.replace(seed=seed) for seed in seeds]


def untrained(configs: Iterable[TrainConfig]) -> list[TrainConfig]:
    """The same networks as they are before the first step."""
    return [config.replace(epochs=0) for config in configs]
