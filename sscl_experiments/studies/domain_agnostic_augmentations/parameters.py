"""TODO"""

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from sscl_core.config import (
    MLP,
    Agnostic,
    Cloud,
    Corruption,
    ImageAugmentation,
    Images,
    Masking,
    Mixup,
    Noise,
    Points,
    Table,
    TrainConfig,
)
from sscl_experiments.parameters import Parameters
from sscl_experiments.settings import (
    AUGMENTATION,
    EUCLIDEAN_SNE,
    METHODS,
    NETWORK,
    image_run,
    vector_run,
)


class DomainAgnostic(Parameters):
    """02: `seeds` a setting on clouds, of `points` points for noise as SNE, and for the map the clouds named in `cells`, every network
    trained for `steps`; `table_seeds` splits of each of `tables`; `image_seeds` networks a kind of view on `n_train` of the embedded images
    for `image_epochs`."""

    points: Annotated[int, Field(ge=30, le=2000)]
    cells: Annotated[tuple[str, ...], Field(min_length=1)]
    steps: PositiveInt
    tables: Annotated[
        tuple[Literal["iris", "wine", "breast_cancer", "digits"], ...], Field(min_length=1)
    ]
    table_seeds: PositiveInt
    image_seeds: PositiveInt
    image_epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=10_000)]

    @model_validator(mode="after")
    def _known_cells(self) -> "DomainAgnostic":
        if unknown := set(self.cells) - set(CELLS):
            raise ValueError(f"cells must be among {list(CELLS)}, got {sorted(unknown)}")
        return self

    def noise_runs(self) -> dict[tuple[str, str], list[TrainConfig]]:
        """One factor at a time from the base setting, which is ("noise scale", "0.4"): (factor, level) and its runs."""
        cloud, noise = Cloud(dim=2, components=3, std=0.2, n_train=self.points), Noise(scale=0.4)

        def runs(
            step: Agnostic = noise, backbone: MLP = NETWORK, **changes: Any
        ) -> list[TrainConfig]:
            points = Points(points=cloud.model_copy(update=changes), augmentation=(step,))
            options: dict[str, Any] = {"backbone": backbone, "batch": 64}
            return [
                vector_run(points, EUCLIDEAN_SNE, 2, self.steps, seed, **options)
                for seed in self.seed_range
            ]

        return {
            **{
                ("noise scale", f"{scale:g}"): runs(Noise(scale=scale))
                for scale in (0.1, 0.2, 0.4, 0.8)
            },
            ("network", "linear"): runs(backbone=MLP(depth=0)),
            ("network", "width 8"): runs(backbone=MLP(width=8)),
            ("network", "depth 4"): runs(backbone=MLP(width=64, depth=4)),
            ("points", str(self.points // 3)): runs(n_train=self.points // 3),
            ("points", str(2 * self.points)): runs(n_train=2 * self.points),
            ("input dimension", "10"): runs(dim=10),
            ("kind of noise", "uniform"): runs(Noise(scale=0.4, kind="uniform")),
            ("control", "mixup"): runs(Mixup(strength=1.0)),
            ("control", "untrained"): [run.model_copy(update={"epochs": 0}) for run in runs()],
        }

    def map_runs(self) -> dict[tuple[str, str, float], list[TrainConfig]]:
        """(cell, augmentation, strength) and its runs."""
        return {
            (cell, step.name, strength): [
                vector_run(
                    Points(points=CELLS[cell], augmentation=(step,)),
                    METHODS["SimCLR"],
                    8,
                    self.steps,
                    seed,
                )
                for seed in self.seed_range
            ]
            for cell in self.cells
            for strength, step in CLOUD_STEPS
        }

    def untrained_runs(self) -> dict[str, list[TrainConfig]]:
        """The networks of the map before training, by cell."""
        trained = {cell: runs for (cell, _, _), runs in self.map_runs().items()}
        return {
            cell: [run.model_copy(update={"epochs": 0}) for run in runs]
            for cell, runs in trained.items()
        }

    def table_runs(self) -> dict[tuple[str, str, str, float], list[TrainConfig]]:
        """(table, method, augmentation, strength) and its runs; strength 0 is the untrained network."""
        seeds = range(self.seed, self.seed + self.table_seeds)
        runs: dict[tuple[str, str, str, float], list[TrainConfig]] = {}
        for name in self.tables:
            for method, setting in METHODS.items():
                for strength, step in TABLE_STEPS:
                    points = Points(points=Table(table=name), augmentation=(step,))
                    trained = [vector_run(points, setting, 16, self.steps, seed) for seed in seeds]
                    runs[name, method, step.name, strength] = trained
            runs[name, "untrained", "", 0.0] = [
                run.model_copy(update={"epochs": 0}) for run in trained
            ]
        return runs

    def view_runs(self) -> dict[str, list[TrainConfig]]:
        """A kind of view of images and its runs; "untrained" too."""
        seeds = range(self.seed, self.seed + self.image_seeds)

        def runs(augmentation: ImageAugmentation, epochs: int) -> list[TrainConfig]:
            images = Images(n_train=self.n_train, augmentation=augmentation)
            return [
                image_run(METHODS["SimCLR"], images, dim=32, epochs=epochs, seed=seed, width=8)
                for seed in seeds
            ]

        return {name: runs(views, self.image_epochs) for name, views in IMAGE_VIEWS.items()} | {
            "untrained": runs(AUGMENTATION, 0)
        }

    def runs(self) -> list[TrainConfig]:
        groups = [
            *self.view_runs().values(),
            *self.noise_runs().values(),
            *self.map_runs().values(),
            *self.untrained_runs().values(),
            *self.table_runs().values(),
        ]
        return [run for runs in groups for run in runs]


# The clouds of the map in notebook 02: one thing changed at a time from five components with spread 0.2 in 64 dimensions, 500 points.
CELLS: dict[str, Cloud] = {
    **{f"isotropic, d={d}": Cloud(dim=d) for d in (8, 64, 256, 512, 1000)},
    **{f"isotropic, σ={std:g}": Cloud(dim=64, std=std) for std in (0.05, 0.1, 0.4)},
    **{f"isotropic, n={n}": Cloud(dim=64, n_train=n) for n in (100, 2000)},
    **{
        f"complement, σ={std:g}": Cloud(dim=64, std=std, structure="complement")
        for std in (0.2, 0.4)
    },
    **{
        f"5 nuisances, σ={std:g}": Cloud(dim=64, std=std, structure="complement", rank=5)
        for std in (0.1, 0.3, 0.5, 1.0, 2.0)
    },
    **{
        f"5 nuisances, d={d}": Cloud(dim=d, std=1.0, structure="complement", rank=5)
        for d in (16, 512)
    },
    **{
        f"{k} nuisances, σ=1": Cloud(dim=64, std=1.0, structure="complement", rank=k)
        for k in (1, 20)
    },
    **{f"manifold, d={d}": Cloud(dim=d, std=0.3, structure="manifold") for d in (64, 512)},
}
# Five strengths an augmentation, of which one is chosen for each cloud on its validation part; three for each table.
CLOUD_STEPS: list[tuple[float, Agnostic]] = [
    *((scale, Noise(scale=scale)) for scale in (0.01, 0.03, 0.1, 0.3, 1.0)),
    *((strength, Mixup(strength=strength)) for strength in (0.05, 0.1, 0.3, 0.6, 1.0)),
]
TABLE_STEPS: list[tuple[float, Agnostic]] = [
    *((scale, Noise(scale=scale)) for scale in (0.1, 0.3, 1.0)),
    *((strength, Mixup(strength=strength)) for strength in (0.2, 0.5, 1.0)),
    *((rate, Masking(rate=rate)) for rate in (0.1, 0.3, 0.6)),
    *((rate, Corruption(rate=rate)) for rate in (0.1, 0.3, 0.6)),
]


def _image_views() -> dict[str, ImageAugmentation]:
    """Noise, mixup, masking, crop, and every pair of them, each at one strength that was not tuned; last what notebook 05 uses."""
    crop = {"crop": {"crop_scale": AUGMENTATION.crop_scale}}
    steps: dict[str, Agnostic] = {
        "noise": Noise(scale=0.2),
        "mixup": Mixup(strength=0.5),
        "masking": Masking(rate=0.3),
    }
    parts: dict[str, dict[str, Any]] = crop | {
        name: {"then": (step,)} for name, step in steps.items()
    }
    views: dict[str, ImageAugmentation] = {}
    for first, second in itertools.combinations_with_replacement(parts, 2):
        chosen: dict[str, Any] = {"crop_scale": (1.0, 1.0), "flip": 0.0} | parts[first]
        if second != first:
            chosen["then"] = (*chosen.get("then", ()), *parts[second]["then"])
        views[first if first == second else f"{first} + {second}"] = ImageAugmentation(**chosen)
    return views | {"crop + jitter": AUGMENTATION}


IMAGE_VIEWS = _image_views()
