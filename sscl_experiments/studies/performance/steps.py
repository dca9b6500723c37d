"""Where the time of a training step goes: views, forward, loss, backward, optimiser; evaluation."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from sscl_core.batches import Batch, source
from sscl_core.config import ImageAugmentation, Images, InfoNCE, Projector, ResNet, TrainConfig
from sscl_core.evaluate import backbone_scores, embed, feature_scores
from sscl_core.models import Encoder
from sscl_core.train import (
    computing,
    contrastive_loss,
    initial_network,
    optimizer_of,
    parameter_groups,
    precision,
)
from sscl_experiments.datasets.images import load_images
from sscl_experiments.settings import AUGMENTATION, METHODS, SUBSET, image_run

from .measuring import spread
from .parameters import Network, Performance

PARTS = ("views", "forward", "loss", "backward", "optimiser")
WHOLE, READY, EVALUATION = "whole step", "step on ready-made views", "evaluation"


class Setting(NamedTuple):
    config: TrainConfig
    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]


def setting(network: Network, pairs: int) -> Setting:
    """The run of notebook 5, or a ResNet-18 in SimCLR's usual setting, on the embedded images.

    For the ResNet those are padded to 32×32 and given three channels: times do not depend on what
    the pixels show.
    """
    data = load_images(SUBSET, "train")
    if network == "conv net, 28×28":
        fashion = Images(augmentation=AUGMENTATION)
        config = image_run(METHODS["SimCLR"], fashion, dim=32, epochs=1, seed=0)
        return Setting(config.replace(batch_size=pairs), data.images, data.labels)
    config = TrainConfig(
        data=Images(augmentation=ImageAugmentation(jitter=0.5, grayscale=0.2)),
        backbone=ResNet(depth=18),
        projector=Projector(hidden=512, dim=128),
        loss=InfoNCE(),
        epochs=1,
        batch_size=pairs,
        precision="bf16-mixed",
    )
    colour = F.pad(data.images, (2, 2, 2, 2)).expand(-1, 3, -1, -1)
    return Setting(config, colour, data.labels)


def step_times(p: Performance, device: torch.device) -> pd.DataFrame:
    """A row for each network and part of a step: "ms" with quartiles, and "share" of the step.

    The parts are of the same steps, one after the other. Below them the whole step, the same less
    its views, and one evaluation of `evaluated` training images and a fifth as many test images, in
    steps. One thread on a CPU.
    """
    rows: list[dict[str, Any]] = []
    for name in p.networks:
        known = setting(name, p.pairs)
        with computing(known.config):
            rows += _of_network(p, name, known, device)
    return pd.DataFrame(rows)


def _of_network(
    p: Performance, name: Network, known: Setting, device: torch.device
) -> list[dict[str, Any]]:
    config, images, labels = known
    used = images[: p.pairs * (p.seeds + 1)]
    batches = source(config, used, device)
    network = initial_network(config, batches.sample_shape).to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = optimizer_of(config, parameter_groups(network))
    endless = itertools.chain.from_iterable(map(batches.batches, itertools.count()))
    marks = [_step(config, network, optimizer, endless, device) for _ in range(p.seeds + 1)]
    taken = 1e3 * np.diff(marks[1:], axis=1)  # steps × parts; the first step warms up
    times = dict(zip(PARTS, taken.T, strict=True))
    whole = taken.sum(1)
    times |= {WHOLE: whole, READY: whole - times["views"]}
    evaluated = _evaluation(network, images, labels, p.evaluated, device)
    times[EVALUATION] = np.array([1e3 * evaluated])
    rows = []
    for part, values in times.items():
        share = values / (whole if len(values) == len(whole) else np.median(whole))
        row: dict[str, Any] = {"network": name, "pairs": p.pairs, "part": part}
        rows.append(row | spread("ms", values) | spread("share", share))
    return rows


def _step(
    config: TrainConfig,
    network: Encoder,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    device: torch.device,
) -> list[float]:
    """When it began and when each of its parts ended, in seconds."""
    now = _clock(device)
    marks = [now()]
    batch = next(batches)
    marks.append(now())
    with precision(config, device):
        z = network(torch.cat([batch.x1, batch.x2]))[1]
    marks.append(now())
    loss = contrastive_loss(config, *z.float().chunk(2))
    marks.append(now())
    loss.backward()
    marks.append(now())
    optimizer.step()
    optimizer.zero_grad()
    return [*marks, now()]


def _clock(device: torch.device) -> Callable[[], float]:
    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def _evaluation(
    network: Encoder, images: Tensor, labels: Tensor, n: int, device: torch.device
) -> float:
    """Seconds of what is measured on a trained network: features, k-NN, the linear probe."""
    now = _clock(device)
    began = now()
    both = n + n // 5
    h, z = embed(network, images[:both])
    own, truth = labels[:both].to(device).tensor_split([n])
    feature_scores(z[:n], own, z[n:], truth)
    backbone_scores(h[:n], own, h[n:], truth)
    return now() - began
