"""How much faster an ensemble of seeds trains than the same seeds one after the other.

    python benchmarks/ensembles.py [--seeds 256] [--threads 1]

Times a step and seed of `train_ensemble` against two loops on the same batches: `train`, which is
what a run by itself uses, and the barest loop of PyTorch around the same network, loss and
optimiser. All in one process, on the same threads, interleaved; medians of `--repeats`.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from sscl_core.batches import epoch_pairs
from sscl_core.config import MLP, Mixture, Optimizer, Projector, TrainConfig
from sscl_core.ensemble import train_ensemble
from sscl_core.train import (
    contrastive_loss,
    initial_network,
    optimizer_of,
    parameter_groups,
    train,
)
from sscl_experiments.datasets.synthetic import GaussianMixture

MEANS = ((1.0,), (2.0,), (3.0,), (4.0,))
COMPONENTS = GaussianMixture(torch.tensor(MEANS), Mixture().std)
PAIRS_AND_WIDTHS = ((16, 64), (32, 64), (64, 64), (128, 64), (16, 16), (16, 128), (16, 256))


def config(pairs: int, width: int, steps: int, seed: int) -> TrainConfig:
    return TrainConfig(
        data=Mixture(means=MEANS, steps_per_epoch=steps),
        backbone=MLP(width=width, depth=2),
        projector=Projector(hidden=0, dim=2),
        optimizer=Optimizer(lr=3e-3),
        epochs=1,
        batch_size=pairs,
        seed=seed,
    )


def bare(c: TrainConfig) -> None:
    x1, x2 = epoch_pairs(c, COMPONENTS, 0)
    network = initial_network(c, x1.shape[2:])
    optimizer = optimizer_of(c, parameter_groups(network))
    for a, b in zip(x1, x2, strict=True):
        loss = contrastive_loss(c, *network(torch.cat([a, b]))[1].chunk(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def together(configs: list[TrainConfig]) -> None:
    train_ensemble(configs, [COMPONENTS] * len(configs), device="cpu")


def one_by_one(configs: list[TrainConfig]) -> None:
    for c in configs:
        train(c, COMPONENTS, device="cpu")


def bare_loops(configs: list[TrainConfig]) -> None:
    for c in configs:
        bare(c)


def microseconds(run: Callable[[list[TrainConfig]], None], configs: list[TrainConfig]) -> float:
    """Of a step and seed."""
    assert isinstance(configs[0].data, Mixture)
    began = time.perf_counter()
    run(configs)
    steps = configs[0].data.steps_per_epoch * len(configs)
    return (time.perf_counter() - began) / steps * 1e6


def compared(configs: list[TrainConfig], few: int, repeats: int) -> tuple[float, float, float]:
    """The medians of the ensemble, and on its first `few` seeds of `train` and of the bare loop."""
    rounds = [
        (
            microseconds(together, configs),
            microseconds(one_by_one, configs[:few]),
            microseconds(bare_loops, configs[:few]),
        )
        for _ in range(repeats)
    ]
    ensemble, loop, barest = (statistics.median(times) for times in zip(*rounds, strict=True))
    return ensemble, loop, barest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=256)
    one_by_one_help = "seeds that are timed one after the other"
    parser.add_argument("--few", type=int, default=8, help=one_by_one_help)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    where = f"{a.seeds} seeds, {a.threads} thread(s), PyTorch {torch.__version__}"
    print(f"microseconds a step and seed, {where}")
    print("pairs  width  ensemble    train  ratio  bare loop  ratio")
    for pairs, width in PAIRS_AND_WIDTHS:
        configs = [config(pairs, width, a.steps, seed) for seed in range(a.seeds)]
        ours, loop, barest = compared(configs, a.few, a.repeats)
        by_train = f"{loop:7.0f}  {loop / ours:5.1f}"
        by_bare = f"{barest:9.0f}  {barest / ours:5.1f}"
        print(f"{pairs:5d}  {width:5d}  {ours:8.0f}  {by_train}  {by_bare}", flush=True)


if __name__ == "__main__":
    main()
