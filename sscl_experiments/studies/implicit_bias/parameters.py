"""TODO"""

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


class ImplicitBias(Parameters):
    """03: `seeds` of the base setting and `factor_seeds` of every other one for `epochs` of 50 steps; `image_seeds` networks a method on
    `n_train` of `image_set` for `image_epochs`."""

    factor_seeds: PositiveInt
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
        return () if self.image_set == SUBSET else (self.image_set,)

    @property
    def image_seed_range(self) -> range:
        return range(self.seed, self.seed + self.image_seeds)

    def toy_runs(self, changes: Mapping[str, Any], seeds: int) -> list[TrainConfig]:
        """Runs that differ from the base setting by `changes`, part by part."""
        config = order_run(changes, steps=50 * self.epochs)
        return [
            config.model_copy(update={"seed": seed}) for seed in range(self.seed, self.seed + seeds)
        ]

    def base_runs(self) -> list[TrainConfig]:
        return self.toy_runs({}, self.seeds)

    def factor_runs(self) -> dict[tuple[str, str], list[TrainConfig]]:
        """One factor at a time: (factor, level) and its runs."""
        levels = {
            (factor, level): changes
            for factor, options in FACTORS.items()
            for level, changes in options.items()
        }
        return {name: self.toy_runs(changes, self.factor_seeds) for name, changes in levels.items()}

    def start_runs(self) -> dict[str, list[TrainConfig]]:
        """From features that were fitted to an order first."""
        return {name: self.toy_runs(changes, self.factor_seeds) for name, changes in STARTS.items()}

    def image_run(self, method: str, seed: int) -> TrainConfig:
        source = IMAGE_SETS[self.image_set]
        images = Images(
            name=self.image_set,
            n_train=self.n_train,
            augmentation=source.augmentation,
            transfer=source.transfer,
        )
        epochs = 0 if method == "untrained" else self.image_epochs
        setting = METHODS["SimCLR" if method == "untrained" else method]
        return image_run(setting, images, dim=32, epochs=epochs, seed=seed, width=source.width)

    def image_runs(self) -> dict[str, list[TrainConfig]]:
        return {
            method: [self.image_run(method, seed) for seed in self.image_seed_range]
            for method in (*METHODS, "untrained")
        }

    def runs(self) -> list[TrainConfig]:
        images = [run for runs in self.image_runs().values() for run in runs]
        toys = [*self.factor_runs().values(), *self.start_runs().values()]
        return images + self.base_runs() + [run for runs in toys for run in runs]


def line(*positions: float | int) -> tuple[Point, ...]:
    """Means on a line."""
    return tuple((float(x),) for x in positions)


def grid(rows: int, columns: int) -> tuple[Point, ...]:
    """Means on a square grid of step 1, row by row."""
    return tuple((float(i), float(j)) for i in range(rows) for j in range(columns))


def order_run(changes: Mapping[str, Any], *, steps: int) -> TrainConfig:
    """The base setting of the order experiments, four components at 1, 2, 3, 4 on a line and features on the circle, with `changes`:
    for a part of the configuration the fields that differ, else the value itself. `steps` of training, in epochs of 50 or as changed."""
    base = TrainConfig(
        data=Mixture(means=line(1, 2, 3, 4), std=0.1, steps_per_epoch=50),
        backbone=MLP(width=64, depth=2),
        projector=Projector(hidden=0, dim=2),
        loss=InfoNCE(temperature=0.5),
        optimizer=Optimizer(lr=3e-3),
        batch_size=16,
    )
    parts = {
        k: getattr(base, k).model_copy(update=v) if isinstance(v, dict) else v
        for k, v in changes.items()
    }
    changed = TrainConfig.model_validate(dict(base) | parts)
    assert isinstance(changed.data, Mixture)
    return changed.model_copy(update={"epochs": max(1, steps // changed.data.steps_per_epoch)})


# Factors of the order experiments, each level changing the base setting in that one respect (but where two are named).
FACTORS: dict[str, dict[str, dict[str, Any]]] = {
    "components": {str(m): {"data": {"means": line(*range(1, m + 1))}} for m in (5, 6, 7, 8)},
    "spacing": {
        "1, 2, 3, 10": {"data": {"means": line(1, 2, 3, 10)}},
        "1, 1.5, 4, 4.5": {"data": {"means": line(1, 1.5, 4, 4.5)}},
    },
    "spread σ": {"0.3": {"data": {"std": 0.3}}},
    "depth": {"1": {"backbone": {"depth": 1}}, "4": {"backbone": {"depth": 4}}},
    "width": {"8": {"backbone": {"width": 8}}, "128": {"backbone": {"width": 128}}},
    "activation": {
        "tanh": {"backbone": {"activation": "tanh"}},
        "GELU": {"backbone": {"activation": "gelu"}},
    },
    "optimiser": {
        "AdamW, lr 0.01": {"optimizer": {"lr": 0.01}},
        "SGD, lr 0.01": {"optimizer": {"name": "sgd", "lr": 0.01}},
        "SGD, lr 0.1": {"optimizer": {"name": "sgd", "lr": 0.1}},
    },
    "temperature": {
        "0.1": {"loss": InfoNCE(temperature=0.1)},
        "1": {"loss": InfoNCE(temperature=1.0)},
    },
    "initial scale": {
        "×0.3": {"backbone": {"init_scale": 0.3}},
        "×10": {"backbone": {"init_scale": 10.0}},
        "×10, tanh": {"backbone": {"init_scale": 10.0, "activation": "tanh"}},
        "×30, tanh": {"backbone": {"init_scale": 30.0, "activation": "tanh"}},
    },
    "input": {
        "one-hot codes": {"data": {"anonymous": 16}},
        "no network": {"data": {"anonymous": 16}, "backbone": {"depth": 0}},
    },
    "loss": {"t-SimCLR": {"loss": TSimCLR(temperature=0.2), "projector": {"batchnorm": True}}},
    "grid": {
        f"{a}×{b}": {"data": {"means": grid(a, b)}, "projector": {"dim": 3}}
        for a, b in ((2, 3), (3, 3))
    },
}
WRONG, RIGHT = (0, 2, 1, 3), (0, 1, 2, 3)


def _start(
    order: tuple[int, ...],
    *,
    data: dict[str, Any] | None = None,
    batch_size: int = 16,
    **optimizer: Any,
) -> dict[str, Any]:
    """Looked at every 25 steps. The step size 0.001, a third of the base setting's, is where both outcomes occur."""
    return {
        "start_order": order,
        "data": {"steps_per_epoch": 25, **(data or {})},
        "optimizer": {"lr": 1e-3, **optimizer},
        "batch_size": batch_size,
    }


# From features that were fitted to an order first.
STARTS: dict[str, dict[str, Any]] = {
    "right order": _start(RIGHT),
    "wrong order": _start(WRONG),
    "step size 0.0001": _start(WRONG, lr=1e-4),
    "step size 0.0003": _start(WRONG, lr=3e-4),
    "step size 0.003": _start(WRONG, lr=3e-3),
    "warm-up, 100 steps": _start(WRONG, warmup_epochs=4.0),
    "weight decay 1": _start(WRONG, weight_decay=1.0),
    "weight decay 3": _start(WRONG, weight_decay=3.0),
    "4 pairs a batch": _start(WRONG, batch_size=4),
    "64 pairs a batch": _start(WRONG, batch_size=64),
    "spread σ 0.03": _start(WRONG, data={"std": 0.03}),
    "spread σ 0.3": _start(WRONG, data={"std": 0.3}),
}
