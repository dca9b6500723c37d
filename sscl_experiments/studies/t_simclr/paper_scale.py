"""Training at the scale of the paper: CIFAR-10, ResNets, hundreds of epochs on one GPU. Every run has a name, and leaves a record."""

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
from sscl_experiments.paths import RECORDS
from sscl_experiments.record import Record
from sscl_experiments.runner import run
from sscl_experiments.store import SCHEMA

from .searches import RULE

FOLDER = RECORDS / "paper"
CURVE = 1000  # points that a record keeps of the loss: means over as many stretches of training
Method = Literal["simclr", "t_simclr"]


def _run(
    recipe: Literal["authors", "best"], method: Method, depth: Literal[18, 50], epochs: int
) -> TrainConfig:
    """`authors`: their released settings, which are for ResNet-50 and 1000 epochs; views, which are not stated, are SimCLR's for CIFAR-10.
    `best`: those of dkobak/simclr-cifar10, the best public ones for SimCLR; t-SimCLR with BatchNorm on z, ν and τ by our rule of thumb.
    CIFAR-100 is looked at with the frozen backbone afterwards."""
    best, cosine = recipe == "best", method == "simclr"
    loss = InfoNCE(temperature=0.5) if cosine else TSimCLR(temperature=8.0, df=5.0)
    if best and not cosine:
        loss = TSimCLR(temperature=RULE.scale * 128, df=RULE.df)
    batch = 512 if best else 1024
    # The best recipe's rate is for 256 images, and twice as large where training is short.
    lr = (0.06 if epochs <= 100 else 0.03) * batch / 256 if best else (0.5 if cosine else 0.4)
    return TrainConfig(
        data=Images(
            name="cifar10",
            augmentation=ImageAugmentation(jitter=0.5, grayscale=0.1 if best else 0.2),
            transfer="cifar100",
        ),
        backbone=ResNet(depth=depth),
        projector=Projector(hidden=1024 if best else 2048, dim=128, batchnorm=best and not cosine),
        loss=loss,
        optimizer=Optimizer(name="sgd", lr=lr, weight_decay=5e-4 if best else 1e-4),
        epochs=epochs,
        batch_size=batch,
        precision="bf16-mixed",
    )


def _runs() -> dict[str, TrainConfig]:
    """In the order in which a GPU is best spent: 100 epochs first; then 500, after which the best recipe is known to pass 90 %."""
    methods: tuple[Method, ...] = ("simclr", "t_simclr")
    plan: list[tuple[Literal["authors", "best"], Literal[18, 50], int]] = [
        ("best", 18, 100),
        ("best", 18, 500),
    ]
    plan += [
        (recipe, depth, epochs)
        for depth in (18, 50)
        for recipe in ("best", "authors")
        for epochs in (200, 1000)
    ]
    return {
        f"{r}-{method}-resnet{d}-{epochs}": _run(r, method, d, epochs)
        for r, d, epochs in plan
        for method in methods
    }


RUNS = _runs()


def record_path(name: str, seed: int) -> Path:
    return FOLDER / f"{name}-seed{seed}.json"


def records() -> list[dict[str, Any]]:
    """What has been recorded: the contents of the files, by name and seed."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]


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
    """Trains and measures a run of `RUNS`, unless that is done, and writes its record; interrupted in whatever way, the same call goes on
    from a checkpoint that is a minute old, or one epoch where that is longer. `rehearse`: the same in small, 2 epochs of 64 images in
    batches of 32, measured on 250 training images held out, its record under results/rehearsal. `ValueError`: unknown name."""
    if name not in RUNS:
        raise ValueError(f"name must be one of {', '.join(RUNS)}, got {name!r}")
    config, path = RUNS[name].model_copy(update={"seed": seed}), record_path(name, seed)
    if rehearse:
        small = config.data.model_copy(update={"n_train": 64, "holdout": 0.005, "transfer": None})
        config = config.model_copy(update={"data": small, "epochs": 2, "batch_size": 32})
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
    """What a record holds: configuration, metrics, the class similarities, the loss in at most `CURVE` points, provenance."""
    arrays = {
        key: np.round(value, 4).tolist()
        for key, value in record.arrays.items()
        if key.startswith("classes_")
    }
    losses = np.array_split(record.arrays["loss"], min(CURVE, len(record.arrays["loss"])))
    return {
        "schema": SCHEMA,
        "name": name,
        "config": json.loads(record.config.model_dump_json()),
        "metrics": record.metrics,
        "arrays": arrays | {"loss": [round(float(part.mean()), 4) for part in losses]},
        "provenance": record.provenance,
    }
