"""Runs whose frozen backbone is judged on other images than it was trained on.

Trained by contrast of pairs, by MoCo, or with labels: on the same views and batches, with the same
optimiser and random streams.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sscl_core.evaluate import embed, knn, linear_probe
from sscl_core.moco import train_moco
from sscl_core.train import TrainResult, train
from sscl_experiments.datasets.images import ImageData
from sscl_experiments.datasets.targets import Target, load_target
from sscl_experiments.record import Record

from .images import image_sets
from .labels import train_with_labels
from .making import Measures, Training, is_collapsed, made
from .transfer_config import TransferRun

OWN = "own"  # the images that a network was trained on, as a target
OWN_SUPPORT = 2000  # of its training images that probe and neighbors there have
NEIGHBORS, WEIGHTED, TEMPERATURE = 10, 200, 0.1


def make(
    config: TransferRun, *, data_dir: str | Path | None, **training: Unpack[Training]
) -> Record:
    """Trains and measures a run. What evaluation needs and lacks is found out before training."""
    sets = image_sets(config, data_dir)
    targets = [own_target(sets.train, sets.test), *targets_of(config, sets.train, data_dir)]
    return made(
        config,
        lambda: _trained(config, sets.train, training),
        lambda trained: measure(trained, targets),
    )


def _trained(config: TransferRun, data: ImageData, training: Training) -> TrainResult:
    """By its objective. Without pairs it keeps no checkpoint: interrupted, it begins anew."""
    if config.objective == "pairs":
        return train(config, data.images, **training)
    if config.objective == "labels":
        return train_with_labels(config, data, **training)
    return train_moco(
        config,
        data.images,
        queue_size=config.queue_size,
        momentum=config.momentum,
        groups=config.groups,
        device=training["device"],
        progress=training.get("progress", False),
    )


def own_target(train_set: ImageData, test_set: ImageData) -> Target:
    """The images of the training itself: neighbors and probe have the first `OWN_SUPPORT`."""
    return Target(OWN, train_set.select(slice(OWN_SUPPORT)), test_set)


def targets_of(
    config: TransferRun, train_set: ImageData, data_dir: str | Path | None = None
) -> list[Target]:
    """The sets that a run is judged on, of the shape that its network takes.

    Errors: those of `load_target`.
    """
    shape, shots = train_set.images.shape[1:], config.data.shots
    names = config.data.targets
    return [load_target(name, shape, shots=shots, data_dir=data_dir) for name in names]


def measure(trained: TrainResult, targets: list[Target]) -> Measures:
    """Accuracy on every target of neighbors and probe on h, and, as arrays, which images are right.

    Metrics and arrays are called by `judge` and the name of the target.
    """
    metrics: dict[str, float] = {}
    arrays = {}
    for target in targets:
        h = embed(trained.model, target.support.images)[0]
        h_query, z_query = embed(trained.model, target.query.images)
        right = judge(h, target.support.labels, h_query, target.query.labels)
        for name, values in right.items():
            metrics[f"{name}_{target.name}"] = values.double().mean().item()
            arrays[f"{name}_{target.name}"] = values.numpy(force=True)
        if target.name == OWN:
            metrics["collapsed"] = is_collapsed(h_query, z_query)
    return metrics, arrays


def judge(
    h: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    h_query: Float[Tensor, "m d"],
    query_labels: Int64[Tensor, " m"],
) -> Mapping[str, Bool[Tensor, " m"]]:
    """Which query images are classified rightly.

    By 10-NN in either metric, by the field's weighted k-NN (k = 200, T = 0.1, or all there are if
    there are fewer), and by the linear probe.
    """
    labels, truth = labels.to(h.device), query_labels.to(h.device)
    few, many = min(NEIGHBORS, len(h)), min(WEIGHTED, len(h))
    predicted = {
        "knn_cosine": knn(h, labels, h_query, k=few, metric="cosine"),
        "knn_euclidean": knn(h, labels, h_query, k=few, metric="euclidean"),
        "knn_weighted": knn(h, labels, h_query, k=many, metric="cosine", temperature=TEMPERATURE),
        "probe": linear_probe(h, labels, h_query),
    }
    return {name: votes == truth for name, votes in predicted.items()}
