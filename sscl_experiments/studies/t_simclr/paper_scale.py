"""Training at the scale of the paper: CIFAR-10, ResNets, hundreds of epochs on one GPU.

Every run has a name, and leaves a record. The plan that can decide C10 and C11 there: three
kernels, d_z = 2, 8, 128, temperature and learning rate searched on training images held out, 200
epochs, five seeds. The smallest version of it, and recipes of others, stand beside.
"""

import itertools
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

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

from .kernel_experiment import design
from .kernel_experiment.design import PURPOSES, Kernel, Purpose
from .kernel_experiment.search import Incomplete, Score, best, bracketed

FOLDER = RECORDS / "paper"
CURVE = 1000  # points that a record keeps of the loss: means over as many stretches of training
DIM = 128  # of the features
Method = Literal["simclr", "t_simclr"]
Depth = Literal[18, 50]
METHODS: tuple[Method, ...] = ("simclr", "t_simclr")
DIMS = (2, 8, 128)  # d_z of the plan that decides
SHORT: dict[Kernel, str] = {"cosine": "cosine", "Gaussian": "gaussian", "Student t": "student"}
EPOCHS, SEEDS = 200, 5
GATE = 0.85  # 10-NN accuracy that SimCLR's backbone must reach: the public recipe passes 90 %
SEARCH_EPOCHS, HOLDOUT = 30, 0.1  # on 45,000 images, judged on 5,000
SMALL_EPOCHS = 30
LR = 0.12  # of the public recipe where training is short, for batches of 512
TAU_STEPS = range(-2, 3)
REACH = 5  # steps from where a search begins, at most
Scores = Mapping["Point", Mapping[Purpose, float]]


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


# --- the plan that decides ------------------------------------------------------------------------


class Point(NamedTuple):
    """A setting, in steps of a factor of 3 from where its search begins."""

    kernel: Kernel
    dim: int
    tau: int = 0
    lr: int = 0


def plan_run(point: Point, *, epochs: int, holdout: float = 0.0) -> TrainConfig:
    """A kernel on ResNet-18 with the rest of the public recipe.

    With BatchNorm on z off the sphere, where it gives τ a meaning, and without on it.
    """
    batchnorm = point.kernel != "cosine"
    recipe = best_run("simclr", 18, epochs)
    tau = design.temperature(point.kernel, design.Point(batchnorm, point.tau), point.dim)
    lr = float(f"{LR * design.FACTOR**point.lr:.4g}")
    data = recipe.data.replace(holdout=holdout, transfer=None if holdout else "cifar100")
    return recipe.replace(
        data=data,
        projector=recipe.projector.replace(dim=point.dim, batchnorm=batchnorm),
        loss=design.KERNELS[point.kernel].replace(temperature=tau),
        optimizer=recipe.optimizer.replace(lr=lr),
        epochs=epochs,
    )


def search_points(kernel: Kernel, dim: int, found: Scores) -> list[Point]:
    """The points that are known to be needed, recorded or not; `found` are their scores.

    Five temperatures; their neighbors while the best is at an end, for either purpose; then the
    learning rate up and down from the best of each, likewise.
    """
    start = [Point(kernel, dim, step) for step in TAU_STEPS]
    scores = [_score(purpose, found) for purpose in PURPOSES]
    # For both purposes together: what one adds may be the best for the other.
    temperatures = bracketed(start, scores, partial(_beside, "tau"))
    points = dict.fromkeys(temperatures)
    for score in scores:
        try:
            middle = best(temperatures, score)
        except Incomplete:
            continue
        points |= dict.fromkeys(bracketed([middle], [score], partial(_beside, "lr")))
    return list(points)


def _score(purpose: Purpose, found: Scores) -> Score[Point]:
    """None for a point that is not recorded."""
    return lambda point: found[point][purpose] if point in found else None


def _beside(field: str, point: Point) -> list[Point]:
    steps = [getattr(point, field) + change for change in (-1, 1)]
    return [point._replace(**{field: step}) for step in steps if abs(step) <= REACH]


def chosen(kernel: Kernel, dim: int, purpose: Purpose, found: Scores) -> Point:
    """The best of a search. `ValueError`: it is not all recorded, with the runs that are next."""
    points = search_points(kernel, dim, found)
    if missing := [search_name(point) for point in points if point not in found]:
        raise ValueError(f"the search comes first, it lacks {', '.join(missing)}")
    return best(points, _score(purpose, found))


def search_scores() -> Scores:
    """What is recorded of the search: for z 15-NN in the better metric, for h the probe."""
    found: dict[Point, dict[Purpose, float]] = {}
    for record in records():
        if point := _point_of(record["name"]):
            metrics = record["metrics"]
            z = max(metrics[f"knn15_{metric}_z"] for metric in design.METRICS)
            found[point] = {"z": z, "h": metrics["linear_probe_h"]}
    return found


def search_name(point: Point) -> str:
    return f"search-{SHORT[point.kernel]}-d{point.dim}-tau{point.tau:+d}-lr{point.lr:+d}"


def _point_of(name: str) -> Point | None:
    """That of a run of the search."""
    found = re.fullmatch(r"search-(\w+)-d(\d+)-tau([+-]\d+)-lr([+-]\d+)", name)
    if found is None or found[1] not in SHORT.values() or int(found[2]) not in DIMS:
        return None
    kernels = {short: kernel for kernel, short in SHORT.items()}
    point = Point(kernels[found[1]], *map(int, found.groups()[1:]))
    return point if max(abs(point.tau), abs(point.lr)) <= REACH else None


def smallest_run(kernel: Kernel, dim: int) -> TrainConfig:
    """By the rule of thumb, 30 epochs: six of them fit half an hour at 10,000 images a second."""
    run = plan_run(Point(kernel, dim), epochs=SMALL_EPOCHS)
    tau = 0.5 if kernel == "cosine" else RULE.temperature_per_dim * dim
    return run.replace(loss=run.loss.replace(temperature=tau))


def _decisive() -> dict[str, tuple[Kernel, int, Purpose]]:
    grid = itertools.product(SHORT, DIMS, PURPOSES)
    return {f"decide-{SHORT[k]}-d{dim}-{purpose}": (k, dim, purpose) for k, dim, purpose in grid}


DECISIVE = _decisive()


def _runs() -> dict[str, TrainConfig]:
    """Those that follow from nothing else, in the order in which a GPU is best spent."""
    runs = {
        f"small-{SHORT[kernel]}-d{dim}": smallest_run(kernel, dim)
        for kernel, dim in itertools.product(SHORT, (DIMS[0], DIMS[-1]))
    }
    beside: list[tuple[str, Depth, int]] = [
        *(("best", 18, 100), ("best", 18, 200), ("authors", 18, 200)),
        *(("best", 18, 1000), ("authors", 18, 1000), ("authors", 50, 1000)),
    ]
    for recipe, depth, epochs in beside:
        for method in METHODS:
            name = f"{recipe}-{method}-resnet{depth}-{epochs}"
            runs[name] = RECIPES[recipe](method, depth, epochs)
    return runs


RUNS = _runs()


def names() -> list[str]:
    """Of all runs that are known by now: the smallest plan, the search, what decides, the rest."""
    found = search_scores()
    grid = itertools.product(SHORT, DIMS)
    search = [search_name(p) for kernel, dim in grid for p in search_points(kernel, dim, found)]
    small = [name for name in RUNS if name.startswith("small-")]
    return [*small, *search, *DECISIVE, *(name for name in RUNS if name not in small)]


def config_of(name: str, *, supposed: bool = False) -> TrainConfig:
    """The configuration of a run. `ValueError`: unknown, or the search before it is not recorded.

    `supposed`: where the search begins stands for what it will choose, as in a rehearsal.
    """
    if name in RUNS:
        return RUNS[name]
    if point := _point_of(name):
        return plan_run(point, epochs=SEARCH_EPOCHS, holdout=HOLDOUT)
    if name not in DECISIVE:
        raise ValueError(f"name must be one of {', '.join(names())}, got {name!r}")
    kernel, dim, purpose = DECISIVE[name]
    point = Point(kernel, dim) if supposed else chosen(kernel, dim, purpose, search_scores())
    return plan_run(point, epochs=EPOCHS)


def gate() -> str:
    """Why the plan gives no verdict: SimCLR is not trained well enough. Empty: it is.

    By 10-NN (cosine) on h at the largest d_z, the mean over seeds of the run that decides for h.
    """
    name = f"decide-cosine-d{DIMS[-1]}-h"
    own = [record["metrics"]["knn_cosine_h"] for record in records() if record["name"] == name]
    if len(own) < SEEDS:
        return f"{name} has {len(own)} of {SEEDS} seeds"
    reached = float(np.mean(own))
    return "" if reached >= GATE else f"{name} reaches {reached:.3f} by 10-NN, less than {GATE:g}"


# --- making them ----------------------------------------------------------------------------------


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
    """Trains and measures a run of `names`, unless that is done, and writes its record.

    Interrupted in whatever way, the same call goes on from a checkpoint that is a minute old, or
    one epoch where that is longer. `rehearse`: the same in small, 2 epochs of 64 images in batches
    of 32, measured on 250 training images held out, its record under results/rehearsal.
    `ValueError`: an unknown name, or one whose search is not recorded.
    """
    config = config_of(name, supposed=rehearse).replace(seed=seed)
    path = record_path(name, seed)
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
