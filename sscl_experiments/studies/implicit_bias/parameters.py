"""What notebook 03 can be asked, and the runs that follow from it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from sscl_core.config import (
    MLP,
    Images,
    InfoNCE,
    Mixture,
    Optimizer,
    Point,
    Projector,
    TrainConfig,
    TSimCLR,
)
from sscl_experiments.parameters import Parameters
from sscl_experiments.settings import IMAGE_SETS, METHODS, SUBSET, image_run
from sscl_experiments.variants import untrained, with_seeds

# For a part of a configuration the fields that differ, or another part, or value, in its place.
Changes = Mapping[str, Any]


class ImplicitBias(Parameters):
    """03: the order of components on a line, and groups of classes of images.

    `seeds` of the base setting and `factor_seeds` of every other one, for `epochs` of 50 steps;
    with `wide` of all factors and fitted starts, else of those that the argument rests on.
    `image_seeds` networks a method, on `n_train` of `image_set` for `image_epochs`.
    """

    factor_seeds: PositiveInt
    wide: bool
    epochs: PositiveInt
    image_set: Literal["fashion_mnist_subset", "cifar10"]
    image_seeds: PositiveInt
    image_epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=50_000)]

    @model_validator(mode="after")
    def _enough_images(self) -> "ImplicitBias":
        if self.image_set == "fashion_mnist_subset" and self.n_train > 10_000:
            raise ValueError("n_train must be at most 10000 for fashion_mnist_subset")
        return self

    @property
    def larger_sets(self) -> tuple[str, ...]:
        """The image set, unless it is the embedded one."""
        return () if self.image_set == SUBSET else (self.image_set,)

    @property
    def image_seed_range(self) -> range:
        """The seeds of networks on images."""
        return self.first_seeds(self.image_seeds)

    def toy_runs(self, changes: Changes, seeds: int) -> list[TrainConfig]:
        """Runs that differ from the base setting by `changes`."""
        return with_seeds(order_run(changes, steps=50 * self.epochs), self.first_seeds(seeds))

    def watched_runs(self) -> dict[str, TrainConfig]:
        """The first seed with a network, and with free vectors in its place, in epochs of 6 steps.

        Their features are drawn after every epoch; nothing of them is stored.
        """
        free = {**_data(anonymous=16), **_backbone(depth=0)}
        settings: dict[str, Changes] = {"a network": {}, "one free vector a sample": free}
        epochs = min(70, 8 * self.epochs)
        runs = {}
        for name, changes in settings.items():
            (run,) = self.toy_runs(changes, 1)
            runs[name] = run.replace(data=run.data.replace(steps_per_epoch=6), epochs=epochs)
        return runs

    def base_runs(self) -> list[TrainConfig]:
        """Of the base setting, one a seed."""
        return self.toy_runs({}, self.seeds)

    def factor_runs(self) -> dict[tuple[str, str], list[TrainConfig]]:
        """One factor at a time: (factor, level) and its runs."""
        return {
            (factor, level): self.toy_runs(changes, self.factor_seeds)
            for factor, levels in FACTORS.items()
            if self.wide or factor in NARROW
            for level, changes in levels.items()
        }

    def start_runs(self) -> dict[str, list[TrainConfig]]:
        """From features that were fitted to an order first."""
        starts = STARTS | (MORE_STARTS if self.wide else {})
        runs = {name: self.toy_runs(changes, self.factor_seeds) for name, changes in starts.items()}
        for name in (SLOW, OTHER):
            runs[name] = [run.replace(epochs=5 * run.epochs) for run in runs[name]]
        return runs

    def image_runs(self) -> dict[str, list[TrainConfig]]:
        """(method) and its runs on images; "untrained" are SimCLR's networks before training."""
        runs = {method: self._runs_on_images(method) for method in METHODS}
        return runs | {"untrained": untrained(runs["SimCLR"])}

    def _runs_on_images(self, method: str) -> list[TrainConfig]:
        source = IMAGE_SETS[self.image_set]
        images = Images(
            name=self.image_set,
            n_train=self.n_train,
            augmentation=source.augmentation,
            transfer=source.transfer,
        )
        first = image_run(
            METHODS[method],
            images,
            dim=32,
            epochs=self.image_epochs,
            seed=self.seed,
            width=source.width,
        )
        return with_seeds(first, self.image_seed_range)

    def runs(self) -> list[TrainConfig]:
        groups = [
            *self.image_runs().values(),
            self.base_runs(),
            *self.factor_runs().values(),
            *self.start_runs().values(),
        ]
        return [run for group in groups for run in group]


def line(*positions: float | int) -> tuple[Point, ...]:
    """Means on a line."""
    return tuple((float(x),) for x in positions)


def grid(rows: int, columns: int) -> tuple[Point, ...]:
    """Means on a square grid of step 1 around 0, row by row."""
    above, left = (rows - 1) / 2, (columns - 1) / 2
    return tuple((i - above, j - left) for i in range(rows) for j in range(columns))


# Four components on a line, and features on the circle. The line is centred: inputs that lie to one
# side of 0 give an untrained ReLU network few bends among them, and so give the order away.
BASE = TrainConfig(
    data=Mixture(means=line(-1.5, -0.5, 0.5, 1.5), std=0.1, steps_per_epoch=50),
    backbone=MLP(width=64, depth=2),
    projector=Projector(hidden=0, dim=2),
    loss=InfoNCE(temperature=0.5),
    optimizer=Optimizer(lr=3e-3),
    batch_size=16,
)


def order_run(changes: Changes, *, steps: int) -> TrainConfig:
    """The base setting with `changes`, trained for `steps`, in epochs of 50 or as changed."""
    parts = {name: _changed(getattr(BASE, name), change) for name, change in changes.items()}
    run = BASE.replace(**parts)
    assert isinstance(run.data, Mixture)
    return run.replace(epochs=max(1, steps // run.data.steps_per_epoch))


def _changed(part: Any, change: Any) -> Any:
    return part.replace(**change) if isinstance(change, Mapping) else change


def _data(**fields: Any) -> Changes:
    return {"data": fields}


def _backbone(**fields: Any) -> Changes:
    return {"backbone": fields}


def _optimizer(**fields: Any) -> Changes:
    return {"optimizer": fields}


def centred(m: int) -> tuple[Point, ...]:
    """m means on a line at steps of 1, around 0."""
    return line(*(i - (m - 1) / 2 for i in range(m)))


def shifted(by: float) -> tuple[Point, ...]:
    """The means of the base setting, all moved by the same offset."""
    return line(*(i - 1.5 + by for i in range(4)))


# Each level changes the base setting in that one respect (some of the initial weights and of the
# input, and the last two factors, in two).
FACTORS: dict[str, dict[str, Changes]] = {
    "offset": {"2.5": _data(means=shifted(2.5)), "10.5": _data(means=shifted(10.5))},
    "components": {"8": _data(means=centred(8))},
    "spacing": {"−3, −2, −1, 6": _data(means=line(-3, -2, -1, 6))},
    "standard deviation": {"0.3": _data(std=0.3)},
    "depth": {"1": _backbone(depth=1), "4": _backbone(depth=4)},
    "width": {"8": _backbone(width=8), "128": _backbone(width=128)},
    "activation": {"tanh": _backbone(activation="tanh"), "GELU": _backbone(activation="gelu")},
    "optimiser": {
        "AdamW, lr 0.01": _optimizer(lr=0.01),
        "SGD, lr 0.01": _optimizer(name="sgd", lr=0.01),
    },
    "temperature": {
        "0.1": {"loss": InfoNCE(temperature=0.1)},
        "1": {"loss": InfoNCE(temperature=1.0)},
    },
    "initial weights": {
        "×10, tanh": _backbone(init_scale=10.0, activation="tanh"),
        "×30, tanh": _backbone(init_scale=30.0, activation="tanh"),
    },
    "input": {
        "one-hot codes": _data(anonymous=16),
        "no network": {**_data(anonymous=16), **_backbone(depth=0)},
    },
    "loss": {"t-SimCLR": {"loss": TSimCLR(temperature=0.2), "projector": {"batchnorm": True}}},
    "grid": {
        "2×3": {**_data(means=grid(2, 3)), "projector": {"dim": 3}},
        "3×3": {**_data(means=grid(3, 3)), "projector": {"dim": 3}},
    },
}
NARROW = ("offset", "components")  # the factors that are varied in any case


def _start(order: tuple[int, ...], *changes: Changes) -> Changes:
    """Features that were fitted to an order first, looked at every 25 steps.

    The step size 0.001, a third of the base setting's, is where both outcomes occur.
    """
    start: dict[str, Any] = {
        "start_order": order,
        "data": {"steps_per_epoch": 25},
        "optimizer": {"lr": 1e-3},
    }
    for change in changes:
        for part, value in change.items():
            start[part] = start[part] | value if isinstance(value, Mapping) else value
    return start


RIGHT, WRONG, OTHER_WRONG = (0, 1, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2)
SLOW = "step size 0.0006, five times the steps"
OTHER = "the same, from the other wrong order, ABDC"
STARTS: dict[str, Changes] = {
    "right order": _start(RIGHT),
    "wrong order": _start(WRONG),
    SLOW: _start(WRONG, _optimizer(lr=6e-4)),
    OTHER: _start(OTHER_WRONG, _optimizer(lr=6e-4)),
    "step size 0.003": _start(WRONG, _optimizer(lr=3e-3)),
}
MORE_STARTS: dict[str, Changes] = {
    "weight decay 3": _start(WRONG, _optimizer(weight_decay=3.0)),
    "4 pairs a batch": _start(WRONG, {"batch_size": 4}),
    "64 pairs a batch": _start(WRONG, {"batch_size": 64}),
    "standard deviation 0.03": _start(WRONG, _data(std=0.03)),
    "standard deviation 0.3": _start(WRONG, _data(std=0.3)),
}
