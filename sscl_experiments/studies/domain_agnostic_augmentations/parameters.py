"""What the notebook runs: noise as SNE, a map of clouds, tables, and views of images."""

import itertools
import math
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
    TSimCLR,
)
from sscl_experiments.parameters import Parameters
from sscl_experiments.settings import (
    AUGMENTATION,
    METHODS,
    NETWORK,
    Setting,
    image_run,
    vector_run,
)
from sscl_experiments.variants import untrained, with_seeds

TableName = Literal["iris", "wine", "breast_cancer", "digits"]
CloudKey = tuple[str, str, float]  # cloud, augmentation, strength
TableKey = tuple[str, str, str, float]  # table, method, augmentation, strength
# One setting of noise as SNE, as (factor, level): the others differ from it in one factor.
BASE = ("noise σ", "0.4")
BASE_NOISE = Noise(scale=0.4)
# The similarity exp(-‖·‖²), normalised over all pairs.
SYMMETRIC_SNE = Setting(loss=TSimCLR(temperature=0.5, df=math.inf), batchnorm=False)


class DomainAgnostic(Parameters):
    """Sizes, and how many seeds each part has.

    Noise as SNE: `seeds` clouds of `points` points. The map: `seeds` networks on each of the clouds
    named in `clouds`, for every augmentation and strength. Every network on vectors is trained for
    `steps`. Tables: `table_seeds` splits of each of `tables`. Images: `image_seeds` networks a kind
    of view, on `n_train` of the embedded images for `image_epochs`.
    """

    points: Annotated[int, Field(ge=30, le=2000)]
    clouds: Annotated[tuple[str, ...], Field(min_length=1)]
    steps: PositiveInt
    tables: Annotated[tuple[TableName, ...], Field(min_length=1)]
    table_seeds: PositiveInt
    image_seeds: PositiveInt
    image_epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=10_000)]

    @model_validator(mode="after")
    def _known_clouds(self) -> "DomainAgnostic":
        if unknown := set(self.clouds) - set(CLOUDS):
            raise ValueError(f"clouds must be among {list(CLOUDS)}, got {sorted(unknown)}")
        return self

    def noise_runs(self) -> dict[tuple[str, str], list[TrainConfig]]:
        """(factor, level) and its runs: each but the controls changes one thing in `BASE`."""
        few, many = self.points // 3, 2 * self.points
        steps = {f"{std:g}": Noise(scale=std) for std in (0.1, 0.2, 0.4, 0.8)}
        changes: dict[tuple[str, str], dict[str, Any]] = {
            **{("noise σ", level): {"step": step} for level, step in steps.items()},
            ("network", "linear"): {"backbone": MLP(depth=0)},
            ("network", "width 8"): {"backbone": MLP(width=8)},
            ("network", "depth 4"): {"backbone": MLP(width=64, depth=4)},
            ("points", str(few)): {"n_train": few},
            ("points", str(many)): {"n_train": many},
            ("input dimension", "10"): {"dim": 10},
            ("kind of noise", "uniform"): {"step": Noise(scale=0.4, kind="uniform")},
            ("control", "mixup"): {"step": Mixup(strength=1.0)},
        }
        runs = {key: self._noise_group(**change) for key, change in changes.items()}
        return runs | {("control", "untrained"): untrained(runs[BASE])}

    def _noise_group(
        self, step: Agnostic = BASE_NOISE, backbone: MLP = NETWORK, **changes: int
    ) -> list[TrainConfig]:
        """Runs with SNE's own similarity on a cloud in the plane, `changes` in the cloud."""
        cloud = Cloud(dim=2, components=3, std=0.2, n_train=self.points).replace(**changes)
        points = Points(points=cloud, augmentation=(step,))
        first = vector_run(
            points, SYMMETRIC_SNE, 2, self.steps, self.seed, backbone=backbone, batch=64
        )
        return with_seeds(first, self.seed_range)

    def map_runs(self) -> dict[CloudKey, list[TrainConfig]]:
        """(cloud, augmentation, strength) and its runs."""
        runs: dict[CloudKey, list[TrainConfig]] = {}
        for cloud in self.clouds:
            for strength, step in CLOUD_STEPS:
                points = Points(points=CLOUDS[cloud], augmentation=(step,))
                first = vector_run(points, METHODS["SimCLR"], 8, self.steps, self.seed)
                runs[cloud, step.name, strength] = with_seeds(first, self.seed_range)
        return runs

    def untrained_runs(self) -> dict[str, list[TrainConfig]]:
        """The networks of the map before training, by cloud."""
        trained = {cloud: runs for (cloud, _, _), runs in self.map_runs().items()}
        return {cloud: untrained(runs) for cloud, runs in trained.items()}

    def table_runs(self) -> dict[TableKey, list[TrainConfig]]:
        """(table, method, augmentation, strength) and its runs; strength 0: untrained."""
        runs: dict[TableKey, list[TrainConfig]] = {}
        for name in self.tables:
            trained = {
                (name, method, step.name, strength): self._table_group(name, method, step)
                for method in METHODS
                for strength, step in TABLE_STEPS
            }
            *_, last = trained.values()
            runs |= trained | {(name, "untrained", "", 0.0): untrained(last)}
        return runs

    def _table_group(self, name: TableName, method: str, step: Agnostic) -> list[TrainConfig]:
        points = Points(points=Table(table=name), augmentation=(step,))
        first = vector_run(points, METHODS[method], 16, self.steps, self.seed)
        return with_seeds(first, self.first_seeds(self.table_seeds))

    def split_runs(self) -> dict[str, list[TrainConfig]]:
        """The untrained runs of each table, one a split: what baselines need."""
        runs = self.table_runs()
        return {name: runs[name, "untrained", "", 0.0] for name in dict.fromkeys(self.tables)}

    def view_runs(self) -> dict[str, list[TrainConfig]]:
        """A kind of view of images and its runs; "untrained" too."""
        runs = {}
        for name, views in (IMAGE_VIEWS | {"untrained": AUGMENTATION}).items():
            images = Images(n_train=self.n_train, augmentation=views)
            epochs = 0 if name == "untrained" else self.image_epochs
            first = image_run(
                METHODS["SimCLR"], images, dim=32, epochs=epochs, seed=self.seed, width=8
            )
            runs[name] = with_seeds(first, self.first_seeds(self.image_seeds))
        return runs

    def runs(self) -> list[TrainConfig]:
        groups = [
            *self.view_runs().values(),
            *self.noise_runs().values(),
            *self.map_runs().values(),
            *self.untrained_runs().values(),
            *self.table_runs().values(),
        ]
        return [run for runs in groups for run in runs]


# The clouds of the map: one thing changes at a time. Unless they say otherwise they are 500 points
# of five components of standard deviation 0.2.
CLOUDS: dict[str, Cloud] = {
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
# Each augmentation has as many strengths, among which the validation part decides: five on each
# cloud, three on each table.
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
    """Crop, noise, mixup, masking, every pair of them, and last the views of notebook 05.

    Each has one strength wherever it occurs, which was not tuned, and a crop comes first.
    """
    steps: dict[str, Agnostic] = {
        "noise": Noise(scale=0.2),
        "mixup": Mixup(strength=0.5),
        "masking": Masking(rate=0.3),
    }
    views: dict[str, ImageAugmentation] = {}
    for first, second in itertools.combinations_with_replacement(("crop", *steps), 2):
        parts = [first] if first == second else [first, second]
        then = tuple(steps[part] for part in parts if part in steps)
        crop_scale = AUGMENTATION.crop_scale if "crop" in parts else (1.0, 1.0)
        views[" + ".join(parts)] = ImageAugmentation(crop_scale=crop_scale, flip=0.0, then=then)
    return views | {"crop + jitter": AUGMENTATION}


IMAGE_VIEWS = _image_views()
