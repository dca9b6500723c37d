"""What the experiment compares, on which images, in how many dimensions, and for how long.

Nothing here imports PyTorch: plans are made of it.
"""

import math
from typing import Literal, NamedTuple

from pydantic import PositiveInt

from sscl_core.config import Frozen, ImageSetName, InfoNCE, TSimCLR

Kernel = Literal["cosine", "Gaussian", "Student t"]
# The normalisation is that of InfoNCE for all, over the other views of each anchor: nothing but
# the similarity differs.
KERNELS: dict[Kernel, InfoNCE | TSimCLR] = {
    "cosine": InfoNCE(),
    "Gaussian": TSimCLR(df=math.inf, normalization="conditional"),
    "Student t": TSimCLR(df=5.0, normalization="conditional"),
}
COMPARED: tuple[Kernel, Kernel] = ("cosine", "Student t")  # by the endpoints
Purpose = Literal["z", "h"]
# What a setting can be chosen for: 15-NN on z in the better of two metrics, or the probe on h.
PURPOSES: tuple[Purpose, ...] = ("z", "h")
METRICS: tuple[Literal["cosine", "euclidean"], ...] = ("cosine", "euclidean")

FACTOR = 3.0  # between temperatures, and between learning rates
STEPS = range(-3, 3)  # the six temperatures that are tried first, base · FACTOR^step
REACH = 3  # further steps on either side, while the best is at an edge
LR, DECAY, DECAY_FACTOR = 5e-3, 0.1, 10.0
# A setting chosen for z serves h too where its probe is this close to the best in validation: half
# of the margin within which C11 calls two methods equal.
TIE = 0.0025
# The parts of a staged run: at the largest d_z, the new last layer alone, all of the network.
STAGES = (0.6, 0.1, 0.3)
FINE_TUNING = 0.1  # of the learning rate, in the last part
SEARCH_SEEDS = (100, 101)  # no final run begins from these networks


class Rung(Frozen):
    """How long the runs of a search are, and on how many images and seeds."""

    n_train: PositiveInt | None
    epochs: PositiveInt
    seeds: tuple[int, ...]


class Grid(Frozen):
    """Final runs of one length: in how many dimensions."""

    epochs: PositiveInt
    dims: tuple[int, ...]


class ImageDesign(Frozen):
    """One set of images.

    `holdout` of its training images judge the settings, at `searched` dimensions; in between they
    are those of the nearest. `lengths`: the final runs with settings chosen for z, `probed` those
    for h. `size`: of its training set. `speed`, in images a second and core, and the seconds that
    evaluation takes in the search and at last are for the plan alone.
    """

    name: ImageSetName
    width: PositiveInt
    size: PositiveInt
    n_train: PositiveInt | None
    holdout: float
    searched: tuple[int, ...]
    first: Rung
    second: Rung
    lengths: tuple[Grid, ...]
    probed: tuple[Grid, ...]
    both_forms: Grid
    staged: tuple[int, ...]
    speed: float
    validation_seconds: float
    test_seconds: float

    @property
    def single(self) -> Rung:
        """The second rung with its first seed alone."""
        return self.second.replace(seeds=self.second.seeds[:1])

    @property
    def largest(self) -> int:
        return max(self.searched)

    def grids(self, purpose: Purpose) -> tuple[Grid, ...]:
        """The final runs with settings chosen for a purpose."""
        return self.lengths if purpose == "z" else self.probed


class Design(Frozen):
    """Both sets, and the seeds of the final runs; `more` are added where nothing is decided."""

    cifar10: ImageDesign
    fashion: ImageDesign
    seeds: tuple[int, ...]
    more: tuple[int, ...]
    confirming_images: PositiveInt | None = None  # all of them
    ranked_dim: PositiveInt = 8  # where rankings of temperatures are shown against length


class Point(NamedTuple):
    """A setting, in steps from where the search begins."""

    batchnorm: bool
    step: int  # of the temperature
    lr: int = 0
    decay: int = 0


def temperature(kernel: Kernel, point: Point, dim: int) -> float:
    """For cosines around 0.3; off the sphere around 0.1·d_z with BatchNorm on z, else around 3.

    With BatchNorm two features are at ‖z - z'‖² ≈ 2 d_z. Without, a Gaussian's or Student's τ is
    only an initial scale.
    """
    free = 0.1 * dim if point.batchnorm else 3.0
    base = 0.3 if kernel == "cosine" else free
    return float(f"{base * FACTOR**point.step:.4g}")


def learning_rate(point: Point) -> float:
    return float(f"{LR * FACTOR**point.lr:.4g}")


def weight_decay(point: Point) -> float:
    return float(f"{DECAY * DECAY_FACTOR**point.decay:.4g}")


CIFAR10 = ImageDesign(
    name="cifar10",
    width=32,
    size=50_000,
    n_train=20_000,
    holdout=0.1,
    searched=(2, 8, 64),
    first=Rung(n_train=10_000, epochs=3, seeds=SEARCH_SEEDS[:1]),
    second=Rung(n_train=10_000, epochs=6, seeds=SEARCH_SEEDS),
    lengths=(Grid(epochs=10, dims=(2, 4, 8, 16, 64)), Grid(epochs=30, dims=(2, 8, 64))),
    probed=(Grid(epochs=10, dims=(2, 8, 64)), Grid(epochs=30, dims=(2, 8, 64))),
    both_forms=Grid(epochs=10, dims=(2, 64)),
    staged=(10,),
    speed=1100,
    validation_seconds=9,
    test_seconds=35,
)
FASHION = ImageDesign(
    name="fashion_mnist_subset",
    width=16,
    size=10_000,
    n_train=None,
    holdout=0.2,
    searched=(2, 8, 32, 128),
    first=Rung(n_train=None, epochs=3, seeds=SEARCH_SEEDS[:1]),
    second=Rung(n_train=None, epochs=10, seeds=SEARCH_SEEDS),
    lengths=(
        Grid(epochs=3, dims=(2, 8, 32, 128)),
        Grid(epochs=10, dims=(2, 8, 32, 128)),
        Grid(epochs=30, dims=(2, 8, 32, 128)),
        Grid(epochs=100, dims=(2, 8, 128)),
    ),
    probed=(
        Grid(epochs=10, dims=(2, 8, 32, 128)),
        Grid(epochs=30, dims=(2, 8, 32, 128)),
    ),
    both_forms=Grid(epochs=10, dims=(2, 8, 32, 128)),
    staged=(30,),
    speed=3700,
    validation_seconds=2,
    test_seconds=4,
)
FULL = Design(cifar10=CIFAR10, fashion=FASHION, seeds=tuple(range(5)), more=tuple(range(5, 10)))


def rehearsal() -> Design:
    """The same in little: 64 images in the search, 160 at last, a few epochs, two seeds."""
    return FULL.replace(
        cifar10=_small(CIFAR10),
        fashion=_small(FASHION),
        seeds=(0, 1),
        more=(2,),
        confirming_images=200,
    )


def _small(images: ImageDesign) -> ImageDesign:
    rung = {"n_train": 64, "epochs": 1}
    epochs = {grid.epochs: number for number, grid in enumerate(images.lengths, 1)}

    def shortened(grid: Grid) -> Grid:
        return grid.replace(epochs=epochs[grid.epochs])

    return images.replace(
        width=2,
        n_train=160,
        holdout=0.01,
        first=images.first.replace(**rung),
        second=images.second.replace(**rung | {"epochs": 2}),
        lengths=tuple(map(shortened, images.lengths)),
        probed=tuple(map(shortened, images.probed)),
        both_forms=shortened(images.both_forms),
        staged=tuple(epochs[length] for length in images.staged),
        speed=2000,
        validation_seconds=0.1,
        test_seconds=1,
    )
