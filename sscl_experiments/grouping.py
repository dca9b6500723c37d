"""Which runs are trained together. Plans are made of it, so nothing here imports PyTorch."""

from collections.abc import Iterable

from sscl_core.config import Images, TrainConfig

LARGEST = 256  # runs of one ensemble


def ensembles(configs: Iterable[TrainConfig], largest: int = LARGEST) -> list[list[TrainConfig]]:
    """Up to `largest` runs on vectors that differ in their seed alone; each on images by itself."""
    groups: dict[TrainConfig, list[TrainConfig]] = {}
    for config in dict.fromkeys(configs):
        groups.setdefault(without_seed(config), []).append(config)
    parts = []
    for alike in groups.values():
        parts += [alike[start : start + largest] for start in range(0, len(alike), largest)]
    return parts


def without_seed(config: TrainConfig) -> TrainConfig:
    """What runs that are trained together have in common: on vectors all but the seed."""
    on_images = isinstance(config.data, Images)
    return config if on_images else config.replace(seed=0)
