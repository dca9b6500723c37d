"""What notebook 09 can be asked, and the runs that follow from it."""

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, PositiveInt

from sscl_core.config import Images, Masking, Points, Table, TrainConfig, TSimCLR
from sscl_experiments.parameters import Parameters
from sscl_experiments.searches import (
    DEGREES_OF_FREEDOM,
    FREE_TEMPERATURES,
    RULE,
    SEARCH_EPOCHS,
    SEARCHED_IMAGES,
    TEMPERATURES_PER_DIM,
    Kernel,
    kernel_run,
)
from sscl_experiments.settings import AUGMENTATION, METHODS, Setting, image_run, vector_run
from sscl_experiments.variants import with_seeds

KERNELS: tuple[Kernel, ...] = ("cosine", "Student t")
LARGEST = 32  # d_z up to which runs keep the features of pairs of views
DIGITS = Points(points=Table(table="digits"), augmentation=(Masking(rate=0.3),))
DIGITS_STEPS = 400
LEARNED_STARTS = (0.5, 5.0, 50.0)  # ν before training, where it is learned
Dims = Annotated[tuple[Annotated[int, Field(ge=2, le=LARGEST)], ...], Field(min_length=1)]


class TemperatureAndDf(Parameters):
    """09: t-SimCLR by τ and ν; how crowded features are, and where the loss pushes.

    Crowding: cosine and Student's t with features of each of `dims` dimensions, `epochs` on
    `n_train` of the embedded images; with `alternatives` in the plane at other temperatures too.
    Maps over τ and ν at `map_dims`, for images and digits.
    """

    dims: Dims
    epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=10_000)]
    alternatives: bool
    map_dims: tuple[Annotated[int, Field(ge=1, le=784)], ...]

    records: ClassVar[tuple[str, ...]] = ("search_*.csv",)

    @property
    def images(self) -> Images:
        return Images(n_train=self.n_train, augmentation=AUGMENTATION)

    def kernel_runs(self) -> dict[tuple[str, int], list[TrainConfig]]:
        """(kernel, d_z) and its runs, which are those of notebook 05 at equal sizes."""
        runs: dict[tuple[str, int], list[TrainConfig]] = {}
        for kernel, dim in itertools.product(KERNELS, sorted(set(self.dims))):
            where = {"dim": dim, "epochs": self.epochs, "seed": self.seed}
            runs[kernel, dim] = with_seeds(
                kernel_run(kernel, self.images, **where), self.seed_range
            )
        return runs

    def untuned_runs(self) -> dict[tuple[str, int], list[TrainConfig]]:
        """(method, d_z = 2) and its runs at the temperature of the other notebooks.

        Only with `alternatives`.
        """
        runs = {}
        for method, setting in METHODS.items() if self.alternatives else ():
            first = image_run(setting, self.images, dim=2, epochs=self.epochs, seed=0)
            runs[method, 2] = with_seeds(first, self.seed_range)
        return runs

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

    def runs(self) -> list[TrainConfig]:
        groups: list[Mapping[Any, list[TrainConfig]]] = [
            self.kernel_runs(),
            self.untuned_runs(),
            self.map_runs(),
            self.learned_runs(),
            self.digits_runs(),
        ]
        lists = itertools.chain.from_iterable(group.values() for group in groups)
        return list(dict.fromkeys(itertools.chain.from_iterable(lists)))


def _map_run(
    dim: int, batchnorm: bool, df: float, temperature: float, learn_df: bool = False
) -> TrainConfig:
    loss = TSimCLR(temperature=temperature, df=df, normalization="joint", learn_df=learn_df)
    setting = Setting(loss=loss, batchnorm=batchnorm)
    return image_run(setting, SEARCHED_IMAGES, dim=dim, epochs=SEARCH_EPOCHS, seed=0)
