"""How much faster an ensemble of seeds trains than the same seeds one after the other: `python benchmarks/ensembles.py`.

Times a step and seed of `train_ensemble` against two loops on the same batches: `train`, which is what a run alone uses, and the barest
loop of PyTorch around the same network, loss and optimiser. All in one process, on the same threads, interleaved; medians of `--repeats`.
"""

import argparse
import statistics
import time

import torch

from sscl_core.config import MLP, Mixture, Optimizer, Projector, TrainConfig
from sscl_core.ensemble import train_ensemble
from sscl_core.train import (
    contrastive_loss,
    epoch_pairs,
    initial_network,
    optimizer_of,
    parameter_groups,
    train,
)


def config(pairs: int, width: int, steps: int, seed: int) -> TrainConfig:
    return TrainConfig(
        data=Mixture(means=((1.0,), (2.0,), (3.0,), (4.0,)), steps_per_epoch=steps),
        backbone=MLP(width=width, depth=2),
        projector=Projector(hidden=0, dim=2),
        optimizer=Optimizer(lr=3e-3),
        epochs=1,
        batch_size=pairs,
        seed=seed,
    )


def bare(c: TrainConfig) -> None:
    x1, x2 = epoch_pairs(c, 0)
    network = initial_network(c, x1.shape[2:])
    optimizer = optimizer_of(c, parameter_groups(network))
    for a, b in zip(x1, x2, strict=True):
        loss = contrastive_loss(c, *network(torch.cat([a, b]))[1].chunk(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def microseconds(work: int, run) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) / work * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=256)
    parser.add_argument(
        "--alone", type=int, default=8, help="seeds that are timed one after the other"
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"microseconds a step and seed, {arguments.seeds} seeds, {arguments.threads} thread(s), PyTorch {torch.__version__}"
    )
    print("pairs  width  ensemble    train  ratio  bare loop  ratio")
    for pairs, width in ((16, 64), (32, 64), (64, 64), (128, 64), (16, 16), (16, 128), (16, 256)):
        configs = [config(pairs, width, arguments.steps, seed) for seed in range(arguments.seeds)]
        alone = configs[: arguments.alone]
        times: dict[str, list[float]] = {"ensemble": [], "train": [], "bare": []}
        for _ in range(arguments.repeats):
            times["ensemble"].append(
                microseconds(
                    arguments.steps * len(configs),
                    lambda c=configs: train_ensemble(c, device="cpu"),
                )
            )
            times["train"].append(
                microseconds(
                    arguments.steps * len(alone),
                    lambda c=alone: [train(a, device="cpu") for a in c],
                )
            )
            times["bare"].append(
                microseconds(arguments.steps * len(alone), lambda c=alone: [bare(a) for a in c])
            )
        ours, loop, barest = (statistics.median(values) for values in times.values())
        print(
            f"{pairs:5d}  {width:5d}  {ours:8.0f}  {loop:7.0f}  {loop / ours:5.1f}  {barest:9.0f}  {barest / ours:5.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
