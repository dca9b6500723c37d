"""TODO"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from sscl_core.config import (
    Frozen,
    Images,
    InfoNCE,
    Masking,
    PairWeights,
    Points,
    Table,
    TrainConfig,
    TSimCLR,
    as_number,
)
from sscl_experiments.parameters import Parameters
from sscl_experiments.settings import (
    AUGMENTATION,
    IMAGE_SETS,
    METHODS,
    SUBSET,
    Setting,
    image_run,
    vector_run,
)

from .searches import (
    DFS,
    DIMS,
    FAMILIES,
    FORMS,
    INITIAL_SCALES,
    RULE,
    SCALES_OF_D,
    SEARCH_EPOCHS,
    SEARCHED_IMAGES,
    tuned,
)


def _weighs_pairs(temperature: float) -> float:
    """The temperature, if `PairWeights` takes it."""
    try:
        return PairWeights(temperature=temperature).temperature
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


PairTemperature = Annotated[
    float, Field(allow_inf_nan=True), BeforeValidator(as_number), AfterValidator(_weighs_pairs)
]
Dims = Annotated[tuple[Annotated[int, Field(ge=1, le=128)], ...], Field(min_length=1)]


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
            raise ValueError(
                f"dims must be among {DIMS}, for which settings were searched, got {sorted(unknown)}"
            )
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
            (method, 2): [
                image_run(setting, images, dim=2, epochs=self.epochs, seed=seed)
                for seed in self.seed_range
            ]
            for method, setting in METHODS.items()
            if self.alternatives
        }

    def weight_runs(self) -> dict[tuple[str, str, float], list[TrainConfig]]:
        """(crops, score, temperature) and its runs: SimCLR with weighted pairs; score "none" is unweighted."""
        runs: dict[tuple[str, str, float], list[TrainConfig]] = {}
        base = [self.run("SimCLR", WEIGHT_DIM, seed) for seed in self.seed_range]
        for crops, scale in (
            CROPS.items() if self.alternatives else [("70–100 %", AUGMENTATION.crop_scale)]
        ):
            images = Images(
                n_train=self.n_train,
                augmentation=AUGMENTATION.model_copy(update={"crop_scale": scale}),
            )
            plain = [run.model_copy(update={"data": images}) for run in base]
            schemes = [PairWeights(temperature=t) for t in self.weights]
            if self.alternatives and scale == AUGMENTATION.crop_scale:
                schemes += WEIGHT_ALTERNATIVES
            runs[crops, "none", math.inf] = plain
            runs |= {
                (crops, weights.score, weights.temperature): [
                    run.model_copy(update={"weights": weights}) for run in plain
                ]
                for weights in schemes
            }
        return runs

    def map_runs(self) -> dict[tuple[int, bool, float, float], list[TrainConfig]]:
        """(d_z, BatchNorm, ν, τ) and its run, on the part of the training images held out: t-SimCLR, joint normalisation."""
        cells = [
            (dim, True, df, scale * dim)
            for dim in self.map_dims
            for df in DFS
            for scale in SCALES_OF_D
        ]
        cells += [
            (dim, False, df, tau) for dim in self.map_dims for df in DFS for tau in INITIAL_SCALES
        ]
        return {cell: [self._map_run(*cell, self.seed)] for cell in cells}

    def learned_runs(self) -> dict[tuple[int, float], list[TrainConfig]]:
        """(d_z, ν at the start) and its runs: ν learned, BatchNorm, τ by the rule of thumb."""
        return {
            (dim, df): [
                self._map_run(dim, True, df, RULE.scale * dim, seed, learn=True)
                for seed in self.seed_range[:2]
            ]
            for dim in self.map_dims
            for df in (0.5, 5.0, 50.0)
        }

    def _map_run(
        self,
        dim: int,
        batchnorm: bool,
        df: float,
        temperature: float,
        seed: int,
        learn: bool = False,
    ) -> TrainConfig:
        loss = TSimCLR(temperature=temperature, df=df, normalization="joint", learn_df=learn)
        return image_run(
            Setting(loss=loss, batchnorm=batchnorm),
            SEARCHED_IMAGES,
            dim=dim,
            epochs=SEARCH_EPOCHS,
            seed=seed,
        )

    def digits_runs(self) -> dict[tuple[int, float, float], list[TrainConfig]]:
        """(d_z, ν, τ / d_z) and its runs on scikit-learn's digits, which the rule of thumb was not made from."""
        points = Points(points=Table(table="digits"), augmentation=(Masking(rate=0.3),))
        return {
            (dim, df, scale): [
                vector_run(
                    points,
                    Setting(loss=TSimCLR(temperature=scale * dim, df=df), batchnorm=True),
                    dim,
                    400,
                    seed,
                )
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
                    run = image_run(
                        setting,
                        large.images,
                        dim=dim,
                        epochs=large.epochs,
                        seed=0,
                        width=large.width,
                    )
                    runs[name, method, dim] = [
                        run.model_copy(update={"seed": seed}) for seed in self.seed_range
                    ]
            top = large.dims[-1]
            runs[name, "untrained", top] = [
                run.model_copy(update={"epochs": 0}) for run in runs[name, "SimCLR", top]
            ]
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
        return list(
            dict.fromkeys(run for group in groups for runs in group.values() for run in runs)
        )


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
    "cifar10": LargeSet(
        images=Images(name="cifar10", augmentation=IMAGE_SETS["cifar10"].augmentation),
        dims=(2, 64),
        epochs=3,
        width=32,
    ),
}
