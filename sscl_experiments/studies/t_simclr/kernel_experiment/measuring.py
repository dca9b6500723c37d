"""Trains a run and measures it: what `sscl kernel` does between two records."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from sklearn.decomposition import PCA
from torch import Tensor

from sscl_core.config import Images, TrainConfig
from sscl_core.evaluate import accuracy, embed, feature_scores, knn, linear_probe
from sscl_core.models import Encoder
from sscl_core.train import TrainResult, computing, initial_network, train
from sscl_experiments.runs.images import ImageSets, image_sets
from sscl_experiments.runs.making import is_collapsed

from .design import METRICS
from .ledger import packed
from .tasks import Task

Labelled = tuple[Float[Tensor, "_ d"], Integer[Tensor, " _"]]
Measured = dict[str, Any]


def make(task: Task, *, checkpoint: Path, data_dir: str | Path | None) -> Measured:
    """What a record says of a run: "metrics", and where the test images decide "correct".

    `checkpoint` names files, one a stage, from which an interrupted run goes on; the caller deletes
    them. `NonFiniteLossError`: it diverged.
    """
    sets = _sets(task.data, data_dir)
    with computing(task.stages[0]):
        if task.pixels:
            return {"metrics": _pixels(sets, task.pixels), "images": len(sets.test)}
        trained = trained_in_stages(task, sets.train.images, checkpoint)
        return measure(trained, sets, tested=task.data.holdout == 0)


@lru_cache(maxsize=2)
def _sets(data: Images, data_dir: str | Path | None) -> ImageSets:
    return image_sets(TrainConfig(data=data), data_dir)


def checkpoints(task: Task, checkpoint: Path) -> list[Path]:
    return [checkpoint.with_suffix(f".{stage}.pt") for stage in range(len(task.stages))]


def trained_in_stages(task: Task, images: Tensor, checkpoint: Path) -> TrainResult:
    """The network after the last stage.

    The second begins with the backbone and the hidden layer of the first and a new last layer,
    which alone it trains; the third trains all.
    """
    network: Encoder | None = None
    for number, (config, path) in enumerate(
        zip(task.stages, checkpoints(task, checkpoint), strict=True)
    ):
        if network is not None and number == 1:
            network = with_new_head(network, config, images.shape[1:])
        if network is not None:
            _let_train(network, everything=number > 1)
        result = train(config, images, network=network, device="cpu", checkpoint=path)
        network = result.model
    return result


def with_new_head(old: Encoder, config: TrainConfig, sample_shape: torch.Size) -> Encoder:
    """A network of `config` whose layers below the last are those of `old`."""
    new = initial_network(config, sample_shape)
    new.backbone = old.backbone
    new.projector[0] = old.projector[0]  # type: ignore[operator, index]
    return new


def _let_train(network: Encoder, *, everything: bool) -> None:
    """All of the network, or its last layer only."""
    for part in (network.backbone, network.projector[0]):  # type: ignore[index]
        part.requires_grad_(everything)


def measure(trained: TrainResult, sets: ImageSets, *, tested: bool) -> Measured:
    """k-NN on z by either metric, and the probe on h.

    With `tested` k-NN on h too, and which images 15-NN on z and the probe tell right.
    """
    h, z = embed(trained.model, sets.train.images)
    h_test, z_test = embed(trained.model, sets.test.images)
    labels, truth = sets.train.labels, sets.test.labels
    metrics = _neighbors("z", (z, labels), (z_test, truth))
    probed = linear_probe(h, labels, h_test)
    metrics["probe_h"] = accuracy(probed, truth)
    metrics["collapsed"] = is_collapsed(h_test, z_test)
    metrics["norm_z"] = z_test.norm(dim=1).mean().item()
    metrics["loss"] = float(np.mean(trained.losses[-20:])) if trained.losses else 0.0
    found: Measured = {"metrics": metrics, "images": len(truth)}
    if tested:
        metrics |= _neighbors("h", (h, labels), (h_test, truth))
        told = {"probe_h": probed}
        for metric in METRICS:
            told[f"knn15_{metric}_z"] = knn(z, labels, z_test, k=15, metric=metric)
        found["correct"] = {name: packed((own == truth).numpy()) for name, own in told.items()}
        # Of two neighbors equally near, rounding may name either: the figure is that of the bits.
        metrics |= {name: accuracy(own, truth) for name, own in told.items()}
    metrics |= {name: round(value, 6) for name, value in metrics.items()}
    return found


def _neighbors(name: str, train_part: Labelled, test_part: Labelled) -> dict[str, float]:
    """10-NN and 15-NN by either metric."""
    scores = feature_scores(*train_part, *test_part)
    kept = {key: value for key, value in scores.items() if not key.startswith("knn1_")}
    return {f"{key.replace('knn_', 'knn10_')}_{name}": value for key, value in kept.items()}


def _pixels(sets: ImageSets, dims: tuple[int, ...]) -> dict[str, float]:
    """Pixels as they are, and their principal components."""
    x, x_test = (part.images.flatten(1).float() / 255 for part in (sets.train, sets.test))
    labels, truth = sets.train.labels, sets.test.labels
    metrics = _neighbors("pixels", (x, labels), (x_test, truth))
    metrics["probe_pixels"] = accuracy(linear_probe(x, labels, x_test), truth)
    components = PCA(max(dims), random_state=0).fit(x.numpy())
    z, z_test = (torch.tensor(components.transform(part.numpy())) for part in (x, x_test))
    for dim in dims:
        metrics |= _neighbors(f"pca{dim}", (z[:, :dim], labels), (z_test[:, :dim], truth))
    return {name: round(value, 6) for name, value in metrics.items()}
