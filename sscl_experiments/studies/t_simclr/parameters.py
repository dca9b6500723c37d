"""What notebook 05 can be asked, and the runs that follow from it."""

import itertools
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
from sscl_experiments.variants import untrained, with_seeds

from .searches import (
    DEGREES_OF_FREEDOM,
    DIMS,
    FREE_TEMPERATURES,
    LOSSES,
    METHOD_LOSSES,
    RULE,
    SEARCH_EPOCHS,
    SEARCHED_IMAGES,
    TEMPERATURES_PER_DIM,
    trains,
    tuned,
)

WEIGHT_DIM = 32
MILD_CROPS = "70–100 %"
CROPS = {MILD_CROPS: AUGMENTATION.crop_scale, "20–100 %": (0.2, 1.0)}
# Beside the overlap of the crops: how alike the views' pixels are, and how alike the network
# already finds them.
WEIGHT_ALTERNATIVES = [
    PairWeights(score="input", temperature=0.03),
    PairWeights(score="input", temperature=0.1),
    PairWeights(score="features", temperature=0.1),
    PairWeights(score="features", temperature=0.3),
]
DIGITS = Points(points=Table(table="digits"), augmentation=(Masking(rate=0.3),))
DIGITS_STEPS = 400
LEARNED_STARTS = (0.5, 5.0, 50.0)  # ν before training, where it is learned


class LargeSet(Frozen):
    """A set too large for `quick`: the dimensions and sizes of the runs on it.

    `controls`: further losses, at the smallest dimension only.
    """

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
    """05: SimCLR and t-SimCLR by dimension, by τ and ν, and with weighted pairs.

    Both methods and the further `losses` with features of each of `dims` dimensions,
    `epochs` on `n_train` of the embedded images. SimCLR with positive pairs weighted by the IoU of
    their crops, at each temperature of `weights`. With `alternatives` weights of other kinds too,
    and both methods in the plane at other temperatures. Maps over τ and ν at `map_dims`, for images
    and digits. The larger `image_sets`.
    """

    dims: Dims
    epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=10_000)]
    losses: tuple[str, ...]
    weights: Annotated[tuple[PairTemperature, ...], Field(min_length=1)]
    alternatives: bool
    map_dims: tuple[Annotated[int, Field(ge=1, le=784)], ...]
    image_sets: tuple[Literal["fashion_mnist", "cifar10"], ...]

    records: ClassVar[tuple[str, ...]] = ("search_*.csv", "paper/*.json")

    @model_validator(mode="after")
    def _known(self) -> "TSimCLRFeatures":
        if unknown := sorted(set(self.dims) - set(DIMS)):
            rule = f"among {DIMS}, for which settings were searched"
            raise ValueError(f"dims must be {rule}, got {unknown}")
        if max(self.dims) == 1:
            raise ValueError("dims must hold one above 1: cosines do not train in one dimension")
        if unknown_losses := sorted(set(self.losses) - set(LOSSES)):
            raise ValueError(f"losses must be among {list(LOSSES)}, got {unknown_losses}")
        return self

    @property
    def larger_sets(self) -> tuple[str, ...]:
        """The image sets, each once."""
        return tuple(dict.fromkeys(self.image_sets))

    @property
    def images(self) -> Images:
        """Those of the runs on the embedded set."""
        return Images(n_train=self.n_train, augmentation=AUGMENTATION)

    def run(self, method: str, dim: int, seed: int) -> TrainConfig:
        """With the setting that the search chose for this method, or loss, and dimension."""
        return image_run(tuned(method, dim), self.images, dim=dim, epochs=self.epochs, seed=seed)

    def dimension_runs(self) -> dict[tuple[str, int], list[TrainConfig]]:
        """(method or loss, d_z) and its runs, where the loss trains in that dimension.

        "untrained" is SimCLR's network of the largest.
        """
        dims = sorted(set(self.dims))
        methods = dict.fromkeys((*METHOD_LOSSES, *self.losses))
        runs = {}
        for method, dim in itertools.product(methods, dims):
            if trains(tuned(method, 2), dim):
                runs[method, dim] = with_seeds(self.run(method, dim, 0), self.seed_range)
        return runs | {("untrained", dims[-1]): untrained(runs["SimCLR", dims[-1]])}

    def untuned_runs(self) -> dict[tuple[str, int], list[TrainConfig]]:
        """(method, d_z = 2) and its runs at the temperature of the other notebooks.

        Only with `alternatives`.
        """
        runs = {}
        for method, setting in METHODS.items() if self.alternatives else ():
            first = image_run(setting, self.images, dim=2, epochs=self.epochs, seed=0)
            runs[method, 2] = with_seeds(first, self.seed_range)
        return runs

    def weight_runs(self) -> dict[tuple[str, str, float], list[TrainConfig]]:
        """(crops, score, temperature) and its runs: SimCLR with weighted pairs.

        The score "none" is unweighted.
        """
        runs: dict[tuple[str, str, float], list[TrainConfig]] = {}
        for crops in CROPS if self.alternatives else (MILD_CROPS,):
            augmentation = AUGMENTATION.replace(crop_scale=CROPS[crops])
            images = self.images.replace(augmentation=augmentation)
            plain = self.run("SimCLR", WEIGHT_DIM, 0).replace(data=images)
            runs[crops, "none", math.inf] = with_seeds(plain, self.seed_range)
            for weights in self._weights(crops):
                weighted = plain.replace(weights=weights)
                key = (crops, weights.score, weights.temperature)
                runs[key] = with_seeds(weighted, self.seed_range)
        return runs

    def _weights(self, crops: str) -> list[PairWeights]:
        by_overlap = [PairWeights(temperature=temperature) for temperature in self.weights]
        has_others = self.alternatives and crops == MILD_CROPS
        return by_overlap + (WEIGHT_ALTERNATIVES if has_others else [])

    def map_runs(self) -> dict[tuple[int, bool, float, float], list[TrainConfig]]:
        """(d_z, BatchNorm, ν, τ) and its run of t-SimCLR, on training images held out."""
        grid = itertools.product(self.map_dims, DEGREES_OF_FREEDOM, TEMPERATURES_PER_DIM)
        keys = [(dim, True, df, per_dim * dim) for dim, df, per_dim in grid]
        free = itertools.product(self.map_dims, DEGREES_OF_FREEDOM, FREE_TEMPERATURES)
        keys += [(dim, False, df, temperature) for dim, df, temperature in free]
        return {key: with_seeds(_map_run(*key), [self.seed]) for key in keys}

    def learned_runs(self) -> dict[tuple[int, float], list[TrainConfig]]:
        """(d_z, ν at the start) and its runs: ν learned, BatchNorm, τ by the rule of thumb."""
        runs = {}
        for dim, df in itertools.product(self.map_dims, LEARNED_STARTS):
            first = _map_run(dim, True, df, RULE.temperature_per_dim * dim, learn_df=True)
            runs[dim, df] = with_seeds(first, self.seed_range[:2])
        return runs

    def digits_runs(self) -> dict[tuple[int, float, float], list[TrainConfig]]:
        """(d_z, ν, τ / d_z) and its runs on scikit-learn's digits.

        The rule of thumb was not made from them.
        """
        runs = {}
        grid = itertools.product(self.map_dims, DEGREES_OF_FREEDOM, TEMPERATURES_PER_DIM)
        for dim, df, per_dim in grid:
            loss = TSimCLR(temperature=per_dim * dim, df=df)
            first = vector_run(DIGITS, Setting(loss=loss, batchnorm=True), dim, DIGITS_STEPS, 0)
            runs[dim, df, per_dim] = with_seeds(first, self.seed_range)
        return runs

    def large_runs(self) -> dict[tuple[str, str, int], list[TrainConfig]]:
        """(image set, method, d_z) and its runs; "untrained" too."""
        runs: dict[tuple[str, str, int], list[TrainConfig]] = {}
        for name in self.image_sets:
            large = LARGE_SETS[name]
            keys = [*itertools.product(METHOD_LOSSES, large.dims)]
            keys += [(control, large.dims[0]) for control in large.controls]
            for method, dim in keys:
                runs[name, method, dim] = with_seeds(_large_run(name, method, dim), self.seed_range)
            top = large.dims[-1]
            runs[name, "untrained", top] = untrained(runs[name, "SimCLR", top])
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
        lists = itertools.chain.from_iterable(group.values() for group in groups)
        return list(dict.fromkeys(itertools.chain.from_iterable(lists)))


def _map_run(
    dim: int, batchnorm: bool, df: float, temperature: float, learn_df: bool = False
) -> TrainConfig:
    loss = TSimCLR(temperature=temperature, df=df, normalization="joint", learn_df=learn_df)
    setting = Setting(loss=loss, batchnorm=batchnorm)
    return image_run(setting, SEARCHED_IMAGES, dim=dim, epochs=SEARCH_EPOCHS, seed=0)


def _large_run(name: str, method: str, dim: int) -> TrainConfig:
    """With the settings of the search on CIFAR-10, or, for Fashion-MNIST, on its subset."""
    large, searched = LARGE_SETS[name], name if name == "cifar10" else SUBSET
    setting = tuned(method, dim, searched)
    return image_run(setting, large.images, dim=dim, epochs=large.epochs, seed=0, width=large.width)
