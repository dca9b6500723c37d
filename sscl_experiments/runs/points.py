"""Runs on labelled vectors: clouds that are drawn, and tables."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from sscl_core.config import MLP, Cloud, Points, Table, TrainConfig
from sscl_core.evaluate import accuracy, knn, linear_probe
from sscl_core.rng import SPLIT, stream
from sscl_core.train import TrainResult, computing, on_threads
from sscl_experiments.datasets.synthetic import PointSet, cloud
from sscl_experiments.datasets.tables import table

from .making import Measures, is_collapsed
from .together import Made, make_together


def point_set(config: TrainConfig) -> PointSet:
    """The vectors of a run: its own draw, or split, by its seed."""
    assert isinstance(config.data, Points)
    return _point_set(config.data.points, config.seed)


@lru_cache(maxsize=64)
def _point_set(points: Cloud | Table, seed: int) -> PointSet:
    """On one thread: whoever asks first, and on however many, the points are the same to a bit."""
    with on_threads(1):
        if isinstance(points, Table):
            return table(points, seed)
        with stream(seed, SPLIT) as generator:
            return cloud(points, generator)


def train_points(points: Points, seed: int) -> Float[Tensor, "n d"]:
    """What runs of this seed train on, in float64."""
    return point_set(TrainConfig(data=points, backbone=MLP(), seed=seed)).train.x.double()


def make(configs: Sequence[TrainConfig], *, device: str, progress: bool = False) -> Made:
    data = [point_set(config).train.x for config in configs]
    with computing(configs[0]):
        return make_together(configs, data, measure, device=device, progress=progress)


@torch.no_grad()
def measure(trained: TrainResult) -> Measures:
    """10-NN on h (cosine) and on z (the metric of the loss), the linear probe on h, and collapse.

    k-NN on the validation part, by which settings are chosen, and on the test part, where the probe
    is too. For d_z = 2 the map of the training part.
    """
    points = point_set(trained.config)
    device = next(trained.model.parameters()).device
    parts = {"train": points.train, "validation": points.validation, "test": points.test}
    features = {name: trained.model(part.x.to(device)) for name, part in parts.items()}
    truth = {name: part.labels.to(device) for name, part in parts.items()}
    (h, z), labels, k = features["train"], truth["train"], min(10, len(points.train))
    metrics = {}
    for name in ("validation", "test"):
        h_part, z_part = features[name]
        by_h = knn(h, labels, h_part, k=k)
        by_z = knn(z, labels, z_part, k=k, metric=trained.config.loss.metric)
        metrics[f"knn_h_{name}"] = accuracy(by_h, truth[name])
        metrics[f"knn_z_{name}"] = accuracy(by_z, truth[name])
    h_test, z_test = features["test"]
    metrics["probe_h_test"] = accuracy(linear_probe(h, labels, h_test), truth["test"])
    metrics["collapsed"] = is_collapsed(h_test, z_test)
    return metrics, {"z": z.numpy(force=True)} if z.shape[1] == 2 else {}
