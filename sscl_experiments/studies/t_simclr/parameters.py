"""What notebook 05 can be asked, and the runs that follow from it."""

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from sscl_core.config import Frozen, Images, TrainConfig
from sscl_experiments.parameters import Parameters
from sscl_experiments.searches import (
    DIMS,
    LOSSES,
    METHOD_LOSSES,
    Kernel,
    kernel_run,
    trains,
    tuned,
)
from sscl_experiments.settings import AUGMENTATION, IMAGE_SETS, SUBSET, image_run
from sscl_experiments.variants import untrained, with_seeds


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
Dims = Annotated[tuple[Annotated[int, Field(ge=1, le=128)], ...], Field(min_length=1)]


class TSimCLRFeatures(Parameters):
    """05: kernels by dimension and by length of training.

    `kernels` with features of each of `dims` dimensions, for the last of `lengths` in epochs on
    `n_train` of the embedded images; for the lengths before it at the smallest and largest
    dimension only. The further `losses`, and the larger `image_sets`. The experiment on kernels is
    no part of this: its records are shown.
    """

    dims: Dims
    lengths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    n_train: Annotated[int, Field(ge=200, le=10_000)]
    kernels: tuple[Kernel, ...]
    losses: tuple[str, ...]
    image_sets: tuple[Literal["fashion_mnist", "cifar10"], ...]

    records: ClassVar[tuple[str, ...]] = ("search_*.csv", "full/kernel_experiment/*.jsonl")

    @model_validator(mode="after")
    def _known(self) -> "TSimCLRFeatures":
        if unknown := sorted(set(self.dims) - set(DIMS)):
            rule = f"among {DIMS}, for which settings were searched"
            raise ValueError(f"dims must be {rule}, got {unknown}")
        if max(self.dims) == 1:
            raise ValueError("dims must hold one above 1: cosines do not train in one dimension")
        if list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"lengths must ascend, got {list(self.lengths)}")
        if not {"cosine", "Student t"} <= set(self.kernels):
            raise ValueError(f"kernels must hold cosine and Student t, got {list(self.kernels)}")
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

    @property
    def epochs(self) -> int:
        return self.lengths[-1]

    @property
    def compared_dims(self) -> list[int]:
        """Those in which all kernels train, in ascending order."""
        return [dim for dim in sorted(set(self.dims)) if dim > 1]

    def kernel_runs(self) -> dict[tuple[str, int, int], list[TrainConfig]]:
        """(kernel, d_z, epochs) and its runs, with the settings that the search chose."""
        runs: dict[tuple[str, int, int], list[TrainConfig]] = {}
        for epochs in self.lengths:
            dims = self.compared_dims
            if epochs != self.epochs:
                dims = sorted({dims[0], dims[-1]})
            for kernel, dim in itertools.product(self.kernels, dims):
                where = {"dim": dim, "epochs": epochs, "seed": self.seed}
                first = kernel_run(kernel, self.images, **where)
                runs[kernel, dim, epochs] = with_seeds(first, self.seed_range)
        return runs

    def untrained_runs(self) -> dict[tuple[str, int, int], list[TrainConfig]]:
        """The network of the largest d_z before its first step, which knows of no kernel."""
        dim = self.compared_dims[-1]
        return {("untrained", dim, 0): untrained(self.kernel_runs()["cosine", dim, self.epochs])}

    def loss_runs(self) -> dict[tuple[str, int], list[TrainConfig]]:
        """(loss, d_z) and its runs, where the loss trains in that dimension."""
        runs = {}
        for loss, dim in itertools.product(self.losses, sorted(set(self.dims))):
            if trains(LOSSES[loss], dim):
                where: dict[str, int] = {"dim": dim, "epochs": self.epochs, "seed": self.seed}
                first = image_run(tuned(loss, dim), self.images, **where)
                runs[loss, dim] = with_seeds(first, self.seed_range)
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
            self.kernel_runs(),
            self.untrained_runs(),
            self.loss_runs(),
            self.large_runs(),
        ]
        lists = itertools.chain.from_iterable(group.values() for group in groups)
        return list(dict.fromkeys(itertools.chain.from_iterable(lists)))


def _large_run(name: str, method: str, dim: int) -> TrainConfig:
    """With the settings of the search on CIFAR-10, or, for Fashion-MNIST, on its subset."""
    large, searched = LARGE_SETS[name], name if name == "cifar10" else SUBSET
    setting = tuned(method, dim, searched)
    return image_run(setting, large.images, dim=dim, epochs=large.epochs, seed=0, width=large.width)
