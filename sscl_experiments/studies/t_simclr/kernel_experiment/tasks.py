"""One run of the experiment: its configuration, its name in the records, what it should take.

Plans ask for the same runs again and again, so each is made once.
"""

from dataclasses import dataclass
from functools import cache, cached_property

from sscl_core.config import Images, TrainConfig
from sscl_experiments.code import digest
from sscl_experiments.settings import IMAGE_SETS, Setting, image_run
from sscl_experiments.store import essence

from .design import (
    FINE_TUNING,
    KERNELS,
    STAGES,
    ImageDesign,
    Kernel,
    Point,
    Rung,
    learning_rate,
    temperature,
    weight_decay,
)

# Between the seeds of the stages of a run: each sees views of its own.
STAGE_SEEDS = 1_000


@dataclass(frozen=True)
class Task:
    """A run, in one stage or several; with `pixels` no network is trained, and pixels are measured.

    It is the configuration that names it, whatever code made it: see METHOD.md beside the records.
    """

    stages: tuple[TrainConfig, ...]
    pixels: tuple[int, ...] = ()  # d_z of the principal components

    @cached_property
    def id(self) -> str:
        parts = [essence(stage) for stage in self.stages]
        return digest(*parts, *(f"pixels {dim}" for dim in self.pixels))

    @property
    def seed(self) -> int:
        return self.stages[0].seed

    @property
    def data(self) -> Images:
        data = self.stages[0].data
        assert isinstance(data, Images)
        return data


def seconds(task: Task, images: ImageDesign) -> float:
    """What it should take on one core."""
    held = images.holdout if task.data.holdout else 0.0
    n = task.data.n_train or round(images.size * (1 - held))
    epochs = sum(stage.epochs for stage in task.stages)
    evaluation = images.validation_seconds if task.data.holdout else images.test_seconds
    return n * epochs / images.speed + evaluation


@cache
def searching(
    images: ImageDesign, rung: Rung, kernel: Kernel, dim: int, point: Point
) -> tuple[Task, ...]:
    """A run a seed, judged on training images held out."""
    data = _data(images, rung.n_train, images.holdout)
    first = _config(images, data, kernel, dim, point, rung.epochs)
    return tuple(Task((first.replace(seed=seed),)) for seed in rung.seeds)


@cache
def final(
    images: ImageDesign,
    kernel: Kernel,
    dim: int,
    point: Point,
    epochs: int,
    seed: int,
    *,
    n_train: int | None,
) -> Task:
    """Judged on the test images."""
    data = _data(images, n_train, 0.0)
    return Task((_config(images, data, kernel, dim, point, epochs).replace(seed=seed),))


@cache
def staged(
    images: ImageDesign, kernel: Kernel, wide: Point, planar: Point, epochs: int, seed: int
) -> Task:
    """A run that ends in two dimensions, as t-SimCNE trains them (Böhm et al., ICLR 2023).

    Trained with many features, then with a new last layer of two which is trained alone, then all
    of it at `FINE_TUNING` of the learning rate: together as many epochs as a direct run.
    """
    data = _data(images, images.n_train, 0.0)
    parts = _parts(epochs)
    first = _config(images, data, kernel, images.largest, wide, parts[0])
    second = _config(images, data, kernel, 2, planar, parts[1])
    third = _config(images, data, kernel, 2, planar, parts[2])
    slower = third.optimizer.replace(lr=third.optimizer.lr * FINE_TUNING)
    stages = (first, second, third.replace(optimizer=slower))
    seeds = [seed + STAGE_SEEDS * number for number in range(len(stages))]
    return Task(tuple(one.replace(seed=own) for one, own in zip(stages, seeds, strict=True)))


def _parts(epochs: int) -> tuple[int, int, int]:
    """`STAGES` of so many epochs, one at least each."""
    middle = max(1, round(STAGES[1] * epochs))
    last = max(1, round(STAGES[2] * epochs))
    return max(1, epochs - middle - last), middle, last


@cache
def untrained(images: ImageDesign, dim: int, seed: int) -> Task:
    """The network before its first step, which knows of no kernel."""
    task = final(images, "cosine", dim, Point(False, 0), 1, seed, n_train=images.n_train)
    return Task((task.stages[0].replace(epochs=0),))


@cache
def baseline(images: ImageDesign) -> Task:
    """Pixels as they are, and their principal components at every dimension of the final runs."""
    dims = {dim for grid in images.lengths for dim in grid.dims}
    return Task(untrained(images, 2, 0).stages, tuple(sorted(dims)))


def _data(images: ImageDesign, n_train: int | None, holdout: float) -> Images:
    augmentation = IMAGE_SETS[images.name].augmentation
    return Images(name=images.name, n_train=n_train, holdout=holdout, augmentation=augmentation)


def _config(
    images: ImageDesign, data: Images, kernel: Kernel, dim: int, point: Point, epochs: int
) -> TrainConfig:
    loss = KERNELS[kernel].replace(temperature=temperature(kernel, point, dim))
    setting = Setting(loss=loss, batchnorm=point.batchnorm)
    run = image_run(setting, data, dim=dim, epochs=epochs, seed=0, width=images.width)
    optimizer = run.optimizer.replace(lr=learning_rate(point), weight_decay=weight_decay(point))
    return run.replace(optimizer=optimizer)
