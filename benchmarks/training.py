"""Where the time of a training step goes, in images per second.

    python benchmarks/training.py [--device cuda] [--compile] [--out FILE]

Of the whole step, of the same step on ready-made views, of the views by themselves and of the loss
by itself, in turns; `ratio` is the step's rate over that on ready-made views. Networks and views of
notebook 5 (Fashion-MNIST, embedded); with --cifar10 also those of its runs on CIFAR-10 and, on a
GPU, of scale `paper`. On a CPU the time is the processor's: what runs beside does not count.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sscl_core.batches import Batch, source
from sscl_core.config import Images, TrainConfig
from sscl_core.train import (
    contrastive_loss,
    device_of,
    initial_network,
    optimizer_of,
    parameter_groups,
    precision,
)
from sscl_experiments.runs.images import image_sets
from sscl_experiments.searches import METHOD_LOSSES, tuned
from sscl_experiments.settings import AUGMENTATION, image_run
from sscl_experiments.studies.t_simclr.paper_scale import RUNS
from sscl_experiments.studies.t_simclr.parameters import LARGE_SETS

LARGE_RUNS = ("best-simclr-resnet18-100", "best-t_simclr-resnet18-100")


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    began = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def profile(
    config: TrainConfig, device: str, compiled: bool, steps: int, repeats: int
) -> dict[str, float]:
    """Medians over the turns that all take after one to warm up."""
    place = device_of(device)
    batches = source(config, image_sets(config).train.images, place)
    network = initial_network(config, batches.sample_shape)
    network = network.to(place).to(memory_format=torch.channels_last)
    optimizer = optimizer_of(config, parameter_groups(network))
    model: Any = torch.compile(network, dynamic=False) if compiled else network

    def features(batch: Batch) -> torch.Tensor:
        with precision(config, place):
            return model(torch.cat([batch.x1, batch.x2]))[1].float()

    def train_on(some: Iterable[Batch]) -> None:
        for batch in some:
            contrastive_loss(config, *features(batch).chunk(2)).backward()
            optimizer.step()
            optimizer.zero_grad()

    def views() -> Iterable[Batch]:
        return itertools.islice(batches.batches(1), steps)

    ready = list(views())
    compared = [features(batch).detach() for batch in ready]

    def losses() -> None:
        for z in compared:
            contrastive_loss(config, *z.requires_grad_().chunk(2)).backward()

    work: dict[str, Callable[[], Any]] = {
        "whole step": lambda: train_on(views()),
        "ready-made views": lambda: train_on(ready),
        "only views": lambda: list(views()),
        "only loss": losses,
    }
    images = sum(len(batch.x1) for batch in ready)
    turns = [[seconds(run, place) for run in work.values()] for _ in range(repeats + 1)][1:]
    spent = map(statistics.median, zip(*turns, strict=True))
    rates = {name: images / time for name, time in zip(work, spent, strict=True)}
    return rates | {"ratio": statistics.median(ready / whole for whole, ready, *_ in turns)}


def runs(device: str, *, cifar10: bool) -> dict[str, TrainConfig]:
    fashion = Images(n_train=8000, augmentation=AUGMENTATION)
    chosen = {}
    for method in METHOD_LOSSES:
        run = image_run(tuned(method, 32), fashion, dim=32, epochs=1, seed=0)
        chosen[f"Fashion-MNIST, {method}"] = run
    if cifar10:
        large, setting = LARGE_SETS["cifar10"], tuned("SimCLR", 64)
        small = image_run(setting, large.images, dim=64, epochs=1, seed=0, width=large.width)
        chosen["CIFAR-10, small network"] = small
        if device != "cpu":  # a step would take a minute there
            chosen |= {name: RUNS[name] for name in LARGE_RUNS}
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cifar10", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table as CSV")
    a = parser.parse_args()
    rows = []
    for name, config in runs(a.device, cifar10=a.cifar10).items():
        rates = profile(config, a.device, a.compile, a.steps, a.repeats)
        rows.append({"images per second": name, **rates})
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda x: f"{x:.0f}" if x > 10 else f"{x:.2f}"))
    if a.out:
        table = table.assign(device=a.device, threads=torch.get_num_threads())
        table.to_csv(a.out, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
