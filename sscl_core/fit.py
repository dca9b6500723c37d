"""The training loop for losses that `train` does not have: of keys and a queue, of labels."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from .batches import Batch, Data, source
from .config import TrainConfig
from .divergence import NonFiniteLossError, diverged
from .models import Encoder
from .train import TrainResult, optimizer_of, parameter_groups, run_epoch, steps_bar


def fit(
    config: TrainConfig,
    data: Data,
    network: Encoder,
    loss_of: Callable[[Batch, int], Tensor],
    *,
    progress: bool = False,
) -> TrainResult:
    """Trains a network, on the device that it is on, with any `loss_of(batch, step)`, step from 1.

    Batches, optimiser, learning rates and random streams are those of `train.train`. Call it within
    `train.computing`. `NonFiniteLossError` where a loss or a weight is not finite.
    """
    place = next(network.parameters()).device
    batches = source(config, data, place)
    if len(batches.sample_shape) == 3:  # in which convolutions are fastest
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = optimizer_of(config, parameter_groups(network))
    result = TrainResult(config, network)

    def check(losses: list[Tensor], step: int, last: bool) -> None:
        norms = [p.detach().norm() for p in network.parameters()] if last else []
        if not torch.stack(losses + norms).isfinite().all():
            raise NonFiniteLossError(diverged(config, {config.seed: step}))

    began = time.monotonic()
    with steps_bar(config, batches, 0, progress) as bar:
        for epoch in range(config.epochs):
            network.train()
            losses = run_epoch(config, epoch, batches, optimizer, loss_of, check, bar)
            result.losses += losses.tolist()
    result.seconds = time.monotonic() - began
    if config.epochs:
        result.images_per_second = batches.images_per_epoch * config.epochs / result.seconds
    network.eval()
    return result
