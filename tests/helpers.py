"""What several files of tests need."""

import functools
import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import torch

from sscl_core.batches import Data
from sscl_core.config import (
    MLP,
    Agnostic,
    Cloud,
    Images,
    Mixture,
    Points,
    Projector,
    TrainConfig,
)
from sscl_core.ensemble import train_ensemble
from sscl_core.models import Encoder
from sscl_core.train import TrainResult, train
from sscl_experiments.datasets.images import load_images
from sscl_experiments.runs.images import image_sets
from sscl_experiments.runs.mixture import first_network, mixture
from sscl_experiments.runs.points import point_set

read_once = functools.cache(load_images)


def data_of(config: TrainConfig, data_dir: str | Path | None = None) -> Data:
    """What a run trains on, as `train` takes it."""
    if isinstance(config.data, Images):
        return image_sets(config, data_dir).train.images
    return mixture(config.data) if isinstance(config.data, Mixture) else point_set(config).train.x


def network_of(config: TrainConfig) -> Encoder | None:
    """The network that a run begins with where that is not the initial one of its seed."""
    return first_network(config) if config.start_order is not None else None


def train_run(config: TrainConfig, **settings) -> TrainResult:
    """`train`, on the data of the configuration."""
    return train(config, data_of(config), network=network_of(config), **settings)


def train_runs(configs: list[TrainConfig], **settings) -> list[TrainResult]:
    """`train_ensemble`, on the data of the configurations."""
    networks = [network_of(config) for config in configs]
    if any(networks):
        settings["networks"] = networks
    return train_ensemble(configs, [data_of(config) for config in configs], **settings)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draws from the standard normal distribution, in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def on_cloud(*steps: Agnostic, **cloud) -> Points:
    """Sixteen points of three components in space, seen through `steps`."""
    small = {"dim": 3, "components": 3, "n_train": 16}
    return Points(points=Cloud(**small | cloud), augmentation=steps, steps_per_epoch=2)


def cloud_run(data: Points, **changes) -> TrainConfig:
    """Two epochs with two features."""
    small = {"backbone": MLP(width=8, depth=1), "projector": Projector(hidden=0, dim=2)}
    return TrainConfig(data=data, **small | {"epochs": 2, "batch_size": 8} | changes)


class _RenamedLoader(SourceFileLoader):
    """Loads a module of ours with its imports from our packages renamed as it is itself."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        return compile(source.replace("sscl_", "unchecked_"), self.path, "exec")


class _RenamedFinder:
    """Finds `unchecked_core` and `unchecked_experiments` where ours are."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in ("unchecked_core", "unchecked_experiments"):
            return None
        spec = PathFinder.find_spec(name.replace("unchecked_", "sscl_"), path)
        if spec is None:
            return None
        spec.name = name
        spec.loader = _RenamedLoader(name, spec.origin)
        return spec


def unchecked(module: str) -> ModuleType:
    """A module as users get it, and all of ours that it imports, without conftest's type checks.

    They are other modules than the checked ones: their classes are not the same classes.
    """
    if not any(finder is _RenamedFinder for finder in sys.meta_path):
        sys.meta_path.insert(0, _RenamedFinder)
    return importlib.import_module(module.replace("sscl_", "unchecked_"))
