"""Where a training step's time goes: images per second of the whole step, of the same step on ready-made views, and of the views alone.

    python benchmarks/training.py [--device cuda] [--compile] [--out FILE]

Networks and views of notebook 5 (Fashion-MNIST, embedded); with --cifar10 of its runs on CIFAR-10 too and, on a GPU, of scale `paper`.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sscl_core.config import TrainConfig
from sscl_core.train import (
    contrastive_loss,
    fabric_of,
    initial_network,
    optimizer_of,
    parameter_groups,
    source,
)
from sscl_experiments.settings import AUGMENTATION, image_run
from sscl_experiments.studies.t_simclr.paper_scale import RUNS
from sscl_experiments.studies.t_simclr.parameters import LARGE_SETS
from sscl_experiments.studies.t_simclr.searches import METHOD_LOSSES, tuned
from sscl_experiments.study import Images


def rate(work: Callable[[], Any], images: int, device: torch.device, repeats: int = 3) -> float:
    """Images per second, the best of `repeats` after one to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return images / min(seconds[1:])


def profile(config: TrainConfig, device: str, compiled: bool, steps: int) -> dict[str, float]:
    fabric = fabric_of(config, device)
    data = source(config, None, fabric.device)
    network = (
        initial_network(config, data.sample_shape)
        .to(fabric.device)
        .to(memory_format=torch.channels_last)
    )
    callee = torch.compile(network, dynamic=False) if compiled else network
    model, optimizer = fabric.setup(callee, optimizer_of(config, parameter_groups(network)))
    ready = [views for views, _ in zip(data.batches(0), range(steps), strict=False)]
    features = [z.detach() for z in (model(torch.cat(views[:2]))[1] for views in ready)]
    images = sum(len(views[0]) for views in ready)

    def step(views: Any) -> None:
        z1, z2 = model(torch.cat(views[:2]))[1].chunk(2)
        fabric.backward(contrastive_loss(config, z1, z2))
        optimizer.step()
        optimizer.zero_grad()

    def loss_alone() -> None:
        for z in features:
            contrastive_loss(config, *z.float().requires_grad_().chunk(2)).backward()

    def views_alone() -> list[Any]:
        return [views for views, _ in zip(data.batches(1), range(steps), strict=False)]

    rates = {
        "whole step": rate(
            lambda: [step(views) for views, _ in zip(data.batches(1), range(steps), strict=False)],
            images,
            fabric.device,
        ),
        "ready-made views": rate(lambda: [step(views) for views in ready], images, fabric.device),
        "views alone": rate(views_alone, images, fabric.device),
        "loss alone": rate(loss_alone, images, fabric.device),
    }
    return rates | {"ratio": rates["whole step"] / rates["ready-made views"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cifar10", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table as CSV")
    a = parser.parse_args()
    fashion = Images(n_train=8000, augmentation=AUGMENTATION)
    runs = {
        f"Fashion-MNIST, {method}": image_run(tuned(method, 32), fashion, dim=32, epochs=1, seed=0)
        for method in METHOD_LOSSES
    }
    if a.cifar10:
        large = LARGE_SETS["cifar10"]
        runs["CIFAR-10, small network"] = image_run(
            tuned("SimCLR", 64), large.images, dim=64, epochs=1, seed=0, width=large.width
        )
        if a.device != "cpu":  # a step would take a minute there
            runs |= {
                name: RUNS[name]
                for name in ("best-simclr-resnet18-100", "best-t_simclr-resnet18-100")
            }
    table = pd.DataFrame(
        {"images per second": name, **profile(config, a.device, a.compile, a.steps)}
        for name, config in runs.items()
    )
    print(table.to_string(index=False, float_format=lambda x: f"{x:.0f}" if x > 10 else f"{x:.2f}"))
    if a.out:
        table.assign(device=a.device, threads=torch.get_num_threads()).to_csv(
            a.out, index=False, float_format="%.4g"
        )


if __name__ == "__main__":
    main()
