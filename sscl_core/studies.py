"""What each notebook may be asked, and the training runs that it then needs: read by the notebooks and the workflow alike."""

import itertools
import json
import math
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from .config import (
    MLP,
    Agnostic,
    Cloud,
    Corruption,
    Frozen,
    ImageAugmentation,
    Images,
    InfoNCE,
    Masking,
    Mixture,
    Mixup,
    Noise,
    Optimizer,
    PairWeights,
    Point,
    Points,
    Projector,
    Table,
    TrainConfig,
    TSimCLR,
    as_number,
    scattered,
)
from .paths import SCALES, committed, folder, results_dir
from .settings import (
    AUGMENTATION,
    CAUCHY,
    DFS,
    DIMS,
    EUCLIDEAN_SNE,
    FAMILIES,
    FORMS,
    IMAGE_SETS,
    INITIAL_SCALES,
    METHODS,
    RULE,
    SCALES_OF_D,
    SEARCH_EPOCHS,
    SEARCHED_IMAGES,
    SPECTRAL,
    SUBSET,
    Setting,
    image_run,
    tuned,
)

_NETWORK = MLP(width=64)
LAST_SEED = 2**32 - 1  # that scikit-learn takes


def _weighs_pairs(temperature: float) -> float:
    """The temperature, if `PairWeights` takes it."""
    try:
        return PairWeights(temperature=temperature).temperature
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


PairTemperature = Annotated[float, Field(allow_inf_nan=True), BeforeValidator(as_number), AfterValidator(_weighs_pairs)]
Dims = Annotated[tuple[Annotated[int, Field(ge=1, le=128)], ...], Field(min_length=1)]


class Parameters(Frozen):
    """What every notebook takes: `seeds` (how many) from `seed` on, the device, and where data and results are.

    Folders are made absolute: a notebook may run elsewhere. One for data must exist.
    """

    scale: Literal["smoke", "quick", "full"]
    seeds: PositiveInt
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data_dir: str | None = None
    results_dir: str | None = None

    records: ClassVar[tuple[str, ...]] = ()  # of data/records, patterns of what the notebook shows beside its own

    @field_validator("data_dir")
    @classmethod
    def _is_there(cls, value: str | None) -> str | None:
        return None if value is None else str(folder("data_dir", value))

    @field_validator("results_dir")
    @classmethod
    def _can_be_made(cls, value: str | None) -> str | None:
        return None if value is None else str(folder("results_dir", value, new=True))

    @model_validator(mode="after")
    def _seeds_in_range(self) -> "Parameters":
        last = self.seed + max(getattr(self, name) for name in self._numbers_of_seeds()) - 1
        if last > LAST_SEED:
            raise ValueError(f"seed must be such that the last seed is at most {LAST_SEED}, got {last}")
        return self

    @classmethod
    def _numbers_of_seeds(cls) -> list[str]:
        return [name for name in cls.model_fields if name == "seeds" or name.endswith("_seeds")]

    @property
    def seed_range(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    @property
    def larger_sets(self) -> tuple[str, ...]:
        """Image sets that are not embedded and that the notebook reads whatever runs there are."""
        return ()

    def require_data(self) -> None:
        """Reads the larger sets once, so that a notebook stops at its start, not after an hour,
        where one is neither at hand nor to be downloaded. Errors: those of `load_images`."""
        from .data import SPLITS, load_images  # here, as they import PyTorch and plans do without

        for name, split in itertools.product(self.larger_sets, SPLITS):
            load_images(name, split, data_dir=self.data_dir)

    def runs(self) -> list[TrainConfig]:
        raise NotImplementedError

    def require_runs(self) -> None:
        """`ValueError` where a run of these parameters breaks a rule of its configuration."""
        one_seed = self.model_copy(update=dict.fromkeys(self._numbers_of_seeds(), 1))
        try:
            one_seed.runs()
        except ValidationError as error:
            raise ValueError(f"they ask for a run that cannot be: {_explain(error)}") from None


class ContrastiveIsSNE(Parameters):
    """01: `batch` pairs for the identities, `epochs` of `steps_per_epoch` steps for training on the mixture."""

    batch: Annotated[int, Field(ge=2, le=512)]
    epochs: PositiveInt
    steps_per_epoch: PositiveInt

    def run(self, dim: int, seed: int) -> TrainConfig:
        return TrainConfig(
            data=Mixture(means=scattered(5), std=0.1, steps_per_epoch=self.steps_per_epoch),
            backbone=MLP(width=128, depth=2),
            projector=Projector(hidden=0, dim=dim),
            loss=InfoNCE(temperature=0.5),
            optimizer=Optimizer(lr=3e-3),
            epochs=self.epochs,
            batch_size=128,
            seed=seed,
        )

    def runs(self) -> list[TrainConfig]:
        return [self.run(dim, seed) for dim in (2, 4) for seed in self.seed_range]


class TSimCLRFeatures(Parameters):
    """05: SimCLR, t-SimCLR and the further `forms` with features of `dims` dimensions, `epochs` on `n_train` of the embedded images;
    SimCLR with positive pairs weighted by IoU at each temperature of `weights`; with `alternatives` weighted in other ways too, and both
    methods in the plane at other temperatures; maps over τ and ν at `map_dims`, for images and digits; larger `image_sets`."""

    dims: Dims
    epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=10_000)]
    forms: tuple[str, ...]
    weights: Annotated[tuple[PairTemperature, ...], Field(min_length=1)]
    alternatives: bool
    map_dims: tuple[Annotated[int, Field(ge=1, le=784)], ...]
    image_sets: tuple[Literal["fashion_mnist", "cifar10"], ...]

    records: ClassVar[tuple[str, ...]] = ("search_*.csv", "paper/*.json")

    @model_validator(mode="after")
    def _known(self) -> "TSimCLRFeatures":
        if unknown := set(self.dims) - set(DIMS):
            raise ValueError(f"dims must be among {DIMS}, for which settings were searched, got {sorted(unknown)}")
        if max(self.dims) == 1:
            raise ValueError("dims must hold one above 1: cosines do not train in one dimension")
        if unknown_forms := set(self.forms) - set(FORMS):
            raise ValueError(f"forms must be among {list(FORMS)}, got {sorted(unknown_forms)}")
        return self

    @property
    def larger_sets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.image_sets))

    def run(self, method: str, dim: int, seed: int) -> TrainConfig:
        """With the setting that the search chose for this method, or form, and dimension."""
        images = Images(n_train=self.n_train, augmentation=AUGMENTATION)
        return image_run(tuned(method, dim), images, dim=dim, epochs=self.epochs, seed=seed)

    def dimension_runs(self) -> dict[tuple[str, int], list[TrainConfig]]:
        """(method or form, d_z) and its runs; "untrained" is SimCLR's network of the largest. Cosines do not train in one dimension."""
        dims = sorted(set(self.dims))
        runs = {
            (method, dim): [self.run(method, dim, seed) for seed in self.seed_range]
            for method in dict.fromkeys((*FAMILIES, *self.forms))
            for dim in dims
            if dim > 1 or not isinstance(tuned(method, 2).loss, InfoNCE)
        }
        untrained = [run.model_copy(update={"epochs": 0}) for run in runs["SimCLR", dims[-1]]]
        return runs | {("untrained", dims[-1]): untrained}

    def untuned_runs(self) -> dict[tuple[str, int], list[TrainConfig]]:
        """(method, d_z = 2) and its runs with the settings of the other notebooks, which have other temperatures; for `alternatives`."""
        images = Images(n_train=self.n_train, augmentation=AUGMENTATION)
        return {
            (method, 2): [image_run(setting, images, dim=2, epochs=self.epochs, seed=seed) for seed in self.seed_range]
            for method, setting in METHODS.items()
            if self.alternatives
        }

    def weight_runs(self) -> dict[tuple[str, str, float], list[TrainConfig]]:
        """(crops, score, temperature) and its runs: SimCLR with weighted pairs; score "none" is unweighted."""
        runs: dict[tuple[str, str, float], list[TrainConfig]] = {}
        base = [self.run("SimCLR", WEIGHT_DIM, seed) for seed in self.seed_range]
        for crops, scale in CROPS.items() if self.alternatives else [("70–100 %", AUGMENTATION.crop_scale)]:
            images = Images(n_train=self.n_train, augmentation=AUGMENTATION.model_copy(update={"crop_scale": scale}))
            plain = [run.model_copy(update={"data": images}) for run in base]
            schemes = [PairWeights(temperature=t) for t in self.weights]
            if self.alternatives and scale == AUGMENTATION.crop_scale:
                schemes += WEIGHT_ALTERNATIVES
            runs[crops, "none", math.inf] = plain
            runs |= {
                (crops, weights.score, weights.temperature): [run.model_copy(update={"weights": weights}) for run in plain]
                for weights in schemes
            }
        return runs

    def map_runs(self) -> dict[tuple[int, bool, float, float], list[TrainConfig]]:
        """(d_z, BatchNorm, ν, τ) and its run, on the part of the training images held out: t-SimCLR, joint normalisation."""
        cells = [(dim, True, df, scale * dim) for dim in self.map_dims for df in DFS for scale in SCALES_OF_D]
        cells += [(dim, False, df, tau) for dim in self.map_dims for df in DFS for tau in INITIAL_SCALES]
        return {cell: [self._map_run(*cell, self.seed)] for cell in cells}

    def learned_runs(self) -> dict[tuple[int, float], list[TrainConfig]]:
        """(d_z, ν at the start) and its runs: ν learned, BatchNorm, τ by the rule of thumb."""
        return {
            (dim, df): [self._map_run(dim, True, df, RULE.scale * dim, seed, learn=True) for seed in self.seed_range[:2]]
            for dim in self.map_dims
            for df in (0.5, 5.0, 50.0)
        }

    def _map_run(self, dim: int, batchnorm: bool, df: float, temperature: float, seed: int, learn: bool = False) -> TrainConfig:
        loss = TSimCLR(temperature=temperature, df=df, normalization="joint", learn_df=learn)
        return image_run(Setting(loss=loss, batchnorm=batchnorm), SEARCHED_IMAGES, dim=dim, epochs=SEARCH_EPOCHS, seed=seed)

    def digits_runs(self) -> dict[tuple[int, float, float], list[TrainConfig]]:
        """(d_z, ν, τ / d_z) and its runs on scikit-learn's digits, which the rule of thumb was not made from."""
        points = Points(points=Table(table="digits"), augmentation=(Masking(rate=0.3),))
        return {
            (dim, df, scale): [
                vector_run(points, Setting(loss=TSimCLR(temperature=scale * dim, df=df), batchnorm=True), dim, 400, seed)
                for seed in self.seed_range
            ]
            for dim in self.map_dims
            for df in DFS
            for scale in SCALES_OF_D
        }

    def large_runs(self) -> dict[tuple[str, str, int], list[TrainConfig]]:
        """(image set, method, d_z) and its runs; "untrained" too."""
        runs: dict[tuple[str, str, int], list[TrainConfig]] = {}
        for name in self.image_sets:
            large = LARGE_SETS[name]
            for method in (*FAMILIES, *large.controls):
                for dim in large.dims if method in FAMILIES else large.dims[:1]:
                    setting = tuned(method, dim, name if name == "cifar10" else SUBSET)
                    run = image_run(setting, large.images, dim=dim, epochs=large.epochs, seed=0, width=large.width)
                    runs[name, method, dim] = [run.model_copy(update={"seed": seed}) for seed in self.seed_range]
            top = large.dims[-1]
            runs[name, "untrained", top] = [run.model_copy(update={"epochs": 0}) for run in runs[name, "SimCLR", top]]
        return runs

    def runs(self) -> list[TrainConfig]:
        groups: list[Mapping[Any, list[TrainConfig]]] = [
            self.dimension_runs(),
            self.untuned_runs(),
            self.weight_runs(),
            self.map_runs(),
            self.learned_runs(),
            self.digits_runs(),
            self.large_runs(),
        ]
        return list(dict.fromkeys(run for group in groups for runs in group.values() for run in runs))


class DomainAgnostic(Parameters):
    """02: `seeds` a setting on clouds, of `points` points for noise as SNE, and for the map the clouds named in `cells`, every network
    trained for `steps`; `table_seeds` splits of each of `tables`; `image_seeds` networks a kind of view on `n_train` of the embedded images
    for `image_epochs`."""

    points: Annotated[int, Field(ge=30, le=2000)]
    cells: Annotated[tuple[str, ...], Field(min_length=1)]
    steps: PositiveInt
    tables: Annotated[tuple[Literal["iris", "wine", "breast_cancer", "digits"], ...], Field(min_length=1)]
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

        def runs(step: Agnostic = noise, backbone: MLP = _NETWORK, **changes: Any) -> list[TrainConfig]:
            points = Points(points=cloud.model_copy(update=changes), augmentation=(step,))
            options: dict[str, Any] = {"backbone": backbone, "batch": 64}
            return [vector_run(points, EUCLIDEAN_SNE, 2, self.steps, seed, **options) for seed in self.seed_range]

        return {
            **{("noise scale", f"{scale:g}"): runs(Noise(scale=scale)) for scale in (0.1, 0.2, 0.4, 0.8)},
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
                vector_run(Points(points=CELLS[cell], augmentation=(step,)), METHODS["SimCLR"], 8, self.steps, seed)
                for seed in self.seed_range
            ]
            for cell in self.cells
            for strength, step in CLOUD_STEPS
        }

    def untrained_runs(self) -> dict[str, list[TrainConfig]]:
        """The networks of the map before training, by cell."""
        trained = {cell: runs for (cell, _, _), runs in self.map_runs().items()}
        return {cell: [run.model_copy(update={"epochs": 0}) for run in runs] for cell, runs in trained.items()}

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
            runs[name, "untrained", "", 0.0] = [run.model_copy(update={"epochs": 0}) for run in trained]
        return runs

    def view_runs(self) -> dict[str, list[TrainConfig]]:
        """A kind of view of images and its runs; "untrained" too."""
        seeds = range(self.seed, self.seed + self.image_seeds)

        def runs(augmentation: ImageAugmentation, epochs: int) -> list[TrainConfig]:
            images = Images(n_train=self.n_train, augmentation=augmentation)
            return [image_run(METHODS["SimCLR"], images, dim=32, epochs=epochs, seed=seed, width=8) for seed in seeds]

        return {name: runs(views, self.image_epochs) for name, views in IMAGE_VIEWS.items()} | {"untrained": runs(AUGMENTATION, 0)}

    def runs(self) -> list[TrainConfig]:
        groups = [
            *self.view_runs().values(),
            *self.noise_runs().values(),
            *self.map_runs().values(),
            *self.untrained_runs().values(),
            *self.table_runs().values(),
        ]
        return [run for runs in groups for run in runs]


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
        return [config.model_copy(update={"seed": seed}) for seed in range(self.seed, self.seed + seeds)]

    def base_runs(self) -> list[TrainConfig]:
        return self.toy_runs({}, self.seeds)

    def factor_runs(self) -> dict[tuple[str, str], list[TrainConfig]]:
        """One factor at a time: (factor, level) and its runs."""
        levels = {(factor, level): changes for factor, options in FACTORS.items() for level, changes in options.items()}
        return {name: self.toy_runs(changes, self.factor_seeds) for name, changes in levels.items()}

    def start_runs(self) -> dict[str, list[TrainConfig]]:
        """From features that were fitted to an order first."""
        return {name: self.toy_runs(changes, self.factor_seeds) for name, changes in STARTS.items()}

    def image_run(self, method: str, seed: int) -> TrainConfig:
        source = IMAGE_SETS[self.image_set]
        images = Images(name=self.image_set, n_train=self.n_train, augmentation=source.augmentation, transfer=source.transfer)
        epochs = 0 if method == "untrained" else self.image_epochs
        setting = METHODS["SimCLR" if method == "untrained" else method]
        return image_run(setting, images, dim=32, epochs=epochs, seed=seed, width=source.width)

    def image_runs(self) -> dict[str, list[TrainConfig]]:
        return {method: [self.image_run(method, seed) for seed in self.image_seed_range] for method in (*METHODS, "untrained")}

    def runs(self) -> list[TrainConfig]:
        images = [run for runs in self.image_runs().values() for run in runs]
        toys = [*self.factor_runs().values(), *self.start_runs().values()]
        return images + self.base_runs() + [run for runs in toys for run in runs]


class AugmentationGraph(Parameters):
    """07: spectra over `seeds` of a cloud of `points` points and of the table `table`, networks trained for `steps`, which takes the
    notebook seconds and is not kept; maps by `map_seeds` networks on `n_train` of the embedded images for `image_epochs`."""

    points: Annotated[int, Field(ge=20, le=2000)]
    table: Literal["iris", "wine", "breast_cancer", "digits"]
    steps: PositiveInt
    map_seeds: PositiveInt
    image_epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=10_000)]

    def spectral_runs(self) -> dict[tuple[str, str], list[TrainConfig]]:
        """(data, loss) and its runs: noise on the cloud in the plane, corruption of the table's columns."""
        cloud = Points(points=Cloud(dim=2, components=3, std=0.2, n_train=self.points), augmentation=(Noise(scale=0.3),))
        table = Points(points=Table(table=self.table), augmentation=(Corruption(rate=0.6),))
        return {
            (name, loss): [vector_run(data, setting, dim, self.steps, seed, batch=64) for seed in self.seed_range]
            for name, data, dim in (("cloud, noise", cloud, 6), (f"{self.table}, corruption", table, 10))
            for loss, setting in SPECTRAL.items()
        }

    def map_runs(self) -> dict[str, list[TrainConfig]]:
        """A method and its runs in two dimensions; SimCLR and t-SimCLR are those of notebook 05 at equal sizes."""
        images = Images(n_train=self.n_train, augmentation=AUGMENTATION)
        seeds = range(self.seed, self.seed + self.map_seeds)
        settings = METHODS | {"Cauchy": CAUCHY}
        return {
            name: [image_run(setting, images, dim=2, epochs=self.image_epochs, seed=seed) for seed in seeds]
            for name, setting in settings.items()
        }

    def runs(self) -> list[TrainConfig]:
        return [run for runs in self.map_runs().values() for run in runs]


NOTEBOOKS: dict[str, type[Parameters]] = {
    "01_contrastive_is_sne": ContrastiveIsSNE,
    "02_domain_agnostic_augmentations": DomainAgnostic,
    "03_implicit_bias": ImplicitBias,
    "05_t_simclr": TSimCLRFeatures,
    "07_augmentation_graph": AugmentationGraph,
}


# The clouds of the map in notebook 02: one thing changed at a time from five components with spread 0.2 in 64 dimensions, 500 points.
CELLS: dict[str, Cloud] = {
    **{f"isotropic, d={d}": Cloud(dim=d) for d in (8, 64, 256, 512, 1000)},
    **{f"isotropic, σ={std:g}": Cloud(dim=64, std=std) for std in (0.05, 0.1, 0.4)},
    **{f"isotropic, n={n}": Cloud(dim=64, n_train=n) for n in (100, 2000)},
    **{f"complement, σ={std:g}": Cloud(dim=64, std=std, structure="complement") for std in (0.2, 0.4)},
    **{f"5 nuisances, σ={std:g}": Cloud(dim=64, std=std, structure="complement", rank=5) for std in (0.1, 0.3, 0.5, 1.0, 2.0)},
    **{f"5 nuisances, d={d}": Cloud(dim=d, std=1.0, structure="complement", rank=5) for d in (16, 512)},
    **{f"{k} nuisances, σ=1": Cloud(dim=64, std=1.0, structure="complement", rank=k) for k in (1, 20)},
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
    steps: dict[str, Agnostic] = {"noise": Noise(scale=0.2), "mixup": Mixup(strength=0.5), "masking": Masking(rate=0.3)}
    parts: dict[str, dict[str, Any]] = crop | {name: {"then": (step,)} for name, step in steps.items()}
    views: dict[str, ImageAugmentation] = {}
    for first, second in itertools.combinations_with_replacement(parts, 2):
        chosen: dict[str, Any] = {"crop_scale": (1.0, 1.0), "flip": 0.0} | parts[first]
        if second != first:
            chosen["then"] = (*chosen.get("then", ()), *parts[second]["then"])
        views[first if first == second else f"{first} + {second}"] = ImageAugmentation(**chosen)
    return views | {"crop + jitter": AUGMENTATION}


IMAGE_VIEWS = _image_views()


WEIGHT_DIM = 32
CROPS = {"70–100 %": AUGMENTATION.crop_scale, "20–100 %": (0.2, 1.0)}
# Beside the overlap of the crops: how alike the views' pixels are, and how alike the network already finds them.
WEIGHT_ALTERNATIVES = [
    *(PairWeights(score="input", temperature=t) for t in (0.03, 0.1)),
    *(PairWeights(score="features", temperature=t) for t in (0.1, 0.3)),
]


class LargeSet(Frozen):
    """A set too large for `quick`: the dimensions and sizes of the runs on it, and further forms, at the smallest dimension alone."""

    images: Images
    dims: tuple[int, ...]
    epochs: PositiveInt
    width: PositiveInt
    controls: tuple[str, ...] = ()


LARGE_SETS = {
    "fashion_mnist": LargeSet(
        images=Images(name="fashion_mnist", augmentation=AUGMENTATION),
        dims=(2, 8, 32, 128),
        epochs=2,
        width=16,
        controls=("Euclidean SNE",),
    ),
    "cifar10": LargeSet(images=Images(name="cifar10", augmentation=IMAGE_SETS["cifar10"].augmentation), dims=(2, 64), epochs=3, width=32),
}


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
    parts = {k: getattr(base, k).model_copy(update=v) if isinstance(v, dict) else v for k, v in changes.items()}
    changed = TrainConfig.model_validate(dict(base) | parts)
    assert isinstance(changed.data, Mixture)
    return changed.model_copy(update={"epochs": max(1, steps // changed.data.steps_per_epoch)})


# Factors of the order experiments, each level changing the base setting in that one respect (but where two are named).
FACTORS: dict[str, dict[str, dict[str, Any]]] = {
    "components": {str(m): {"data": {"means": line(*range(1, m + 1))}} for m in (5, 6, 7, 8)},
    "spacing": {"1, 2, 3, 10": {"data": {"means": line(1, 2, 3, 10)}}, "1, 1.5, 4, 4.5": {"data": {"means": line(1, 1.5, 4, 4.5)}}},
    "spread σ": {"0.3": {"data": {"std": 0.3}}},
    "depth": {"1": {"backbone": {"depth": 1}}, "4": {"backbone": {"depth": 4}}},
    "width": {"8": {"backbone": {"width": 8}}, "128": {"backbone": {"width": 128}}},
    "activation": {"tanh": {"backbone": {"activation": "tanh"}}, "GELU": {"backbone": {"activation": "gelu"}}},
    "optimiser": {
        "AdamW, lr 0.01": {"optimizer": {"lr": 0.01}},
        "SGD, lr 0.01": {"optimizer": {"name": "sgd", "lr": 0.01}},
        "SGD, lr 0.1": {"optimizer": {"name": "sgd", "lr": 0.1}},
    },
    "temperature": {"0.1": {"loss": InfoNCE(temperature=0.1)}, "1": {"loss": InfoNCE(temperature=1.0)}},
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
    "grid": {f"{a}×{b}": {"data": {"means": grid(a, b)}, "projector": {"dim": 3}} for a, b in ((2, 3), (3, 3))},
}
WRONG, RIGHT = (0, 2, 1, 3), (0, 1, 2, 3)


def _start(order: tuple[int, ...], *, data: dict[str, Any] | None = None, batch_size: int = 16, **optimizer: Any) -> dict[str, Any]:
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


def vector_run(
    points: Points, setting: Setting, dim: int, steps: int, seed: int, *, backbone: MLP = _NETWORK, batch: int = 32
) -> TrainConfig:
    """`steps` steps, in epochs of 50 or the largest number below that divides them."""
    per_epoch = max(k for k in range(1, 51) if steps % k == 0)
    return TrainConfig(
        data=points.model_copy(update={"steps_per_epoch": per_epoch}),
        backbone=backbone,
        projector=Projector(hidden=0, dim=dim, batchnorm=setting.batchnorm),
        loss=setting.loss,
        optimizer=Optimizer(lr=3e-3),
        epochs=steps // per_epoch,
        batch_size=batch,
        seed=seed,
    )


@lru_cache
def scales() -> dict[str, dict[str, Any]]:
    return committed(SCALES, tomllib.loads)


def resolve(notebook: str, given: Mapping[str, Any]) -> Parameters:
    """The parameters of a notebook: the sizes of its scale, under what is given and not None.

    `ValueError` that names every unknown name, wrong type and value out of range, a value that a run
    cannot have or a folder that is not there, and the valid names.
    """
    if notebook not in NOTEBOOKS:
        raise ValueError(f"notebook must be one of {sorted(NOTEBOOKS)}, got {notebook!r}")
    model = NOTEBOOKS[notebook]
    scale = given.get("scale", "quick")
    sizes = scales().get(scale, {}).get(notebook, {}) if isinstance(scale, str) else {}
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        parameters = model.model_validate_json(json.dumps({"scale": "quick"} | sizes | chosen))
        parameters.require_runs()
    except (ValueError, TypeError) as error:
        names = ", ".join(model.model_fields)
        raise ValueError(f"parameters of {notebook}: {_explain(error)}; valid names: {names}") from None
    return parameters


def out_dir(notebook: str, parameters: Parameters) -> Path:
    """results/<scale>, or results/custom where the sizes are not the scale's own; where it runs and writes does not matter."""
    where = {"device", "data_dir", "results_dir"}
    standard = resolve(notebook, {"scale": parameters.scale}).model_dump(exclude=where)
    own = parameters.model_dump(exclude=where) == standard
    return results_dir(parameters.results_dir) / (parameters.scale if own else "custom")


def _explain(error: Exception) -> str:
    """Missing sizes are left out: they only follow from a scale that is unknown."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(_problem(dict(e)) for e in error.errors() if e["type"] != "missing")


def _problem(error: dict[str, Any]) -> str:
    """Of a rule about several parameters, what it says; else the parameter and its value before that."""
    said = error["msg"].removeprefix("Value error, ")
    name = ".".join(map(str, error["loc"]))
    return f"{name} = {error['input']!r}: {said[0].lower()}{said[1:]}" if name else said
