"""Training at the scale of the paper: CIFAR-10, ResNets, hundreds of epochs on one GPU.

Every run has a name, and leaves a record.
"""

import itertools
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sscl_core.config import (
    ImageAugmentation,
    Images,
    InfoNCE,
    Optimizer,
    Projector,
    ResNet,
    TrainConfig,
    TSimCLR,
)
from sscl_core.files import write_json
from sscl_experiments.paths import RECORDS, committed
from sscl_experiments.record import Record
from sscl_experiments.runner import run
from sscl_experiments.searches import RULE
from sscl_experiments.store import SCHEMA

FOLDER = RECORDS / "paper"
CURVE = 1000  # points that a record keeps of the loss: means over as many stretches of training
DIM = 128  # of the features
Method = Literal["simclr", "t_simclr"]
Depth = Literal[18, 50]
METHODS: tuple[Method, ...] = ("simclr", "t_simclr")


def authors_run(method: Method, depth: Depth, epochs: int) -> TrainConfig:
    """The settings that the authors released, which are for ResNet-50 and 1000 epochs.

    They do not state the views: these are SimCLR's for CIFAR-10.
    """
    is_simclr = method == "simclr"
    return TrainConfig(
        data=_cifar(grayscale=0.2),
        backbone=ResNet(depth=depth),
        projector=Projector(hidden=2048, dim=DIM),
        loss=InfoNCE(temperature=0.5) if is_simclr else TSimCLR(temperature=8.0, df=5.0),
        optimizer=Optimizer(name="sgd", lr=0.5 if is_simclr else 0.4, weight_decay=1e-4),
        epochs=epochs,
        batch_size=1024,
        precision="bf16-mixed",
    )


def best_run(method: Method, depth: Depth, epochs: int) -> TrainConfig:
    """The settings of dkobak/simclr-cifar10, the best public ones for SimCLR.

    t-SimCLR with BatchNorm on z, ν and τ by our rule of thumb. The recipe's learning rate is for
    256 images, and twice as large where training is short.
    """
    is_simclr, batch = method == "simclr", 512
    by_rule = TSimCLR(temperature=RULE.temperature_per_dim * DIM, df=RULE.df)
    lr = (0.06 if epochs <= 100 else 0.03) * batch / 256
    return TrainConfig(
        data=_cifar(grayscale=0.1),
        backbone=ResNet(depth=depth),
        projector=Projector(hidden=1024, dim=DIM, batchnorm=not is_simclr),
        loss=InfoNCE(temperature=0.5) if is_simclr else by_rule,
        optimizer=Optimizer(name="sgd", lr=lr, weight_decay=5e-4),
        epochs=epochs,
        batch_size=batch,
        precision="bf16-mixed",
    )


def _cifar(*, grayscale: float) -> Images:
    """CIFAR-10; the frozen backbone is looked at on CIFAR-100 afterwards."""
    augmentation = ImageAugmentation(jitter=0.5, grayscale=grayscale)
    return Images(name="cifar10", augmentation=augmentation, transfer="cifar100")


RECIPES = {"best": best_run, "authors": authors_run}


def _runs() -> dict[str, TrainConfig]:
    """In the order in which a GPU is best spent.

    100 epochs first; then 500, after which the best recipe is known to pass 90 %.
    """
    plan: list[tuple[str, Depth, int]] = [("best", 18, 100), ("best", 18, 500)]
    depths: tuple[Depth, ...] = (18, 50)
    for depth, recipe, epochs in itertools.product(depths, RECIPES, (200, 1000)):
        plan.append((recipe, depth, epochs))
    return {
        f"{recipe}-{method}-resnet{depth}-{epochs}": RECIPES[recipe](method, depth, epochs)
        for recipe, depth, epochs in plan
        for method in METHODS
    }


RUNS = _runs()


def record_path(name: str, seed: int) -> Path:
    """Where the record of a run is committed."""
    return FOLDER / f"{name}-seed{seed}.json"


def records() -> list[dict[str, Any]]:
    """What has been recorded: the contents of the files, by name and seed.

    `ValueError`, with the remedy: a file is damaged.
    """
    return [committed(path, _content) for path in sorted(FOLDER.glob("*.json"))]


def _content(text: str) -> dict[str, Any]:
    """`ValueError`: it is no record of a run."""
    content = json.loads(text)
    needed = {"schema", "name", "config", "metrics", "arrays", "provenance"}
    if missing := sorted(needed - content.keys()):
        raise ValueError(f"it lacks {', '.join(missing)}")
    return content


def make(
    name: str,
    seed: int,
    *,
    results: Path,
    device: str = "auto",
    data_dir: str | None = None,
    compiled: bool = True,
    rehearse: bool = False,
) -> Path:
    """Trains and measures a run of `RUNS`, unless that is done, and writes its record.

    Interrupted in whatever way, the same call goes on from a checkpoint that is a minute old, or
    one epoch where that is longer. `rehearse`: the same in small, 2 epochs of 64 images in batches
    of 32, measured on 250 training images held out, its record under results/rehearsal.
    `ValueError`: unknown name.
    """
    if name not in RUNS:
        raise ValueError(f"name must be one of {', '.join(RUNS)}, got {name!r}")
    config, path = RUNS[name].replace(seed=seed), record_path(name, seed)
    if rehearse:
        small = config.data.replace(n_train=64, holdout=0.005, transfer=None)
        config = config.replace(data=small, epochs=2, batch_size=32)
        path = results / "rehearsal" / path.name
    record = run(
        config,
        runs=results / "runs",
        device=device,
        data_dir=data_dir,
        compiled=compiled,
        progress=True,
    )
    write_json(path, content(name, record))
    return path


def content(name: str, record: Record) -> dict[str, Any]:
    """What a record holds: configuration, metrics, the class similarities, the loss, provenance.

    The loss in at most `CURVE` points.
    """
    arrays: dict[str, Any] = {}
    for key, value in record.arrays.items():
        if key.startswith("classes_"):
            arrays[key] = np.round(value, 4).tolist()
    losses = record.arrays["loss"]
    stretches = np.array_split(losses, min(CURVE, len(losses)))
    arrays["loss"] = [round(float(part.mean()), 4) for part in stretches]
    return {
        "schema": SCHEMA,
        "name": name,
        "config": json.loads(record.config.model_dump_json()),
        "metrics": record.metrics,
        "arrays": arrays,
        "provenance": record.provenance,
    }
