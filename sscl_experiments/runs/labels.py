"""Training with labels: the same views, batches, optimiser and random streams as by contrast."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional as F

from sscl_core.batches import Batch
from sscl_core.checks import require
from sscl_core.config import TrainConfig
from sscl_core.fit import fit
from sscl_core.rng import ORDER, stream
from sscl_core.train import TrainResult, device_of, initial_network, precision
from sscl_experiments.datasets.images import ImageData


def train_with_labels(
    config: TrainConfig,
    data: ImageData,
    *,
    device: str = "auto",
    checkpoint: Path | None = None,
    compiled: bool = False,
    progress: bool = False,
) -> TrainResult:
    """Cross-entropy of z, the logits, with both views of every image.

    `checkpoint` and `compiled`, which `train.train` takes, are not used: interrupted, it begins
    anew. `ValueError`: fewer logits than classes. `NonFiniteLossError` as `fit` says.
    """
    classes = len(data.classes)
    rule = f"{classes} or more, the number of classes"
    require(config.projector.dim >= classes, "projector.dim", config.projector.dim, rule)
    place = device_of(device)
    network = initial_network(config, data.images.shape[1:]).to(place)
    labels = labels_by_step(config, data.labels.to(place))

    def loss_of(batch: Batch, step: int) -> Tensor:
        truth = labels(step, len(batch.x1)).repeat(2)
        with precision(config, place):
            logits = network(torch.cat([batch.x1, batch.x2]))[1]
        return F.cross_entropy(logits.float(), truth)

    return fit(config, data.images, network, loss_of, progress=progress)


def labels_by_step(
    config: TrainConfig, labels: Int64[Tensor, " n"]
) -> Callable[[int, int], Int64[Tensor, " m"]]:
    """The labels of the batch of a step, from 1: batches come in the order of a named stream."""
    steps = len(labels) // config.batch_size + (len(labels) % config.batch_size > 1)

    @cache
    def order(epoch: int) -> Tensor:
        with stream(config.seed, ORDER, epoch):
            return torch.randperm(len(labels)).to(labels.device)

    def of_step(step: int, n: int) -> Int64[Tensor, " m"]:
        epoch, place = divmod(step - 1, steps)
        first = place * config.batch_size
        return labels[order(epoch)[first : first + n]]

    return of_step
