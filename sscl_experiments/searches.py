"""The searches for the losses' settings: what is tried, and what the committed tables say is best.

`sscl tune` runs them, on the part of the training images held out, and data/records/ keeps them.
Plans are made of this, so nothing here imports PyTorch.
"""

import csv
import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from pydantic import PositiveFloat

from sscl_core.config import Frozen, Images, InfoNCE, TrainConfig, TSimCLR
from sscl_experiments.paths import RECORDS, committed
from sscl_experiments.settings import AUGMENTATION, IMAGE_SETS, SUBSET, Setting, image_run

_KERNELS: dict[str, InfoNCE | TSimCLR] = {
    "cosine": InfoNCE(),
    "t joint": TSimCLR(df=5.0, normalization="joint"),
    "t conditional": TSimCLR(df=5.0, normalization="conditional"),
    "Euclidean SNE": TSimCLR(df=math.inf, normalization="conditional"),
}
# The losses that were searched, each with and without BatchNorm on z. The search sets their
# temperature, for every dimension anew.
LOSSES = {
    f"{name}, BatchNorm" if batchnorm else name: Setting(loss=loss, batchnorm=batchnorm)
    for name, loss in _KERNELS.items()
    for batchnorm in (False, True)
}
# A method is the best of its losses in validation, on the mean over d_z.
METHOD_LOSSES = {
    "SimCLR": ("cosine", "cosine, BatchNorm"),
    "t-SimCLR": tuple(name for name in LOSSES if name.startswith("t ")),
}
# The three similarities that notebooks 05 and 09 compare, with BatchNorm on z. Student's t is the
# best of its four losses in validation, which is normalised over all pairs, the others for each
# view. In the record of scale full that made no difference that could be seen; the experiment on
# kernels leaves it out.
Kernel = Literal["cosine", "Gaussian", "Student t"]
KERNEL_LOSSES: dict[Kernel, str] = {
    "cosine": "cosine, BatchNorm",
    "Gaussian": "Euclidean SNE, BatchNorm",
    "Student t": "t joint, BatchNorm",
}
DIMS = (1, 2, 3, 4, 8, 16, 32, 64, 128)
SEARCHED_IMAGES = Images(holdout=0.2, augmentation=AUGMENTATION)
SEARCH_EPOCHS = 3
FREE_TEMPERATURES = (0.2, 1.0, 5.0, 20.0)  # without BatchNorm, where τ is only an initial scale
TEMPERATURES_PER_DIM = (0.005, 0.03, 0.2, 1.0)  # τ / d_z with it
DEGREES_OF_FREEDOM = (0.5, 1.0, 2.0, 5.0, 20.0, math.inf)


class Rule(Frozen):
    """A rule of thumb for t-SimCLR with BatchNorm on z: ν and τ / d_z."""

    df: PositiveFloat = 5.0
    temperature_per_dim: PositiveFloat = 0.03


RULE = Rule()


class SearchRow(NamedTuple):
    """A run of a search: 15-NN accuracy on z in the metric of the loss, 15-NN and probe on h."""

    loss: str  # of `LOSSES`
    d_z: int
    temperature: float
    knn15_z: float
    knn15_h: float
    probe_h: float


def temperatures(loss: str, dim: int, image_set: str = SUBSET) -> tuple[float, ...]:
    """Those that are searched, for one of `LOSSES`: on CIFAR-10 four.

    On the embedded set three; six for cosines, of which there are two losses and not four. With
    BatchNorm and without the sphere in units of d_z: two standardised features are at
    ‖z - z'‖² ≈ 2 d_z.
    """
    setting, is_subset = LOSSES[loss], image_set == SUBSET
    if isinstance(setting.loss, InfoNCE):
        return (0.05, 0.1, 0.2, 0.3, 0.5, 1.0) if is_subset else (0.1, 0.2, 0.5, 1.0)
    number = 3 if is_subset else 4
    if setting.batchnorm:
        return tuple(round(per_dim * dim, 6) for per_dim in TEMPERATURES_PER_DIM[:number])
    return FREE_TEMPERATURES[:number]


def search_space(image_set: str = SUBSET) -> dict[tuple[str, int, float], TrainConfig]:
    """(loss, d_z, temperature) and its run, evaluated on a fifth of the training set held out.

    On the embedded set all `LOSSES` at all `DIMS`, cosines from two on: twelve runs a method and
    d_z. On cifar10 the losses that were best there, at the two d_z that it is for.
    """
    if image_set == SUBSET:
        return _space(SUBSET, SEARCHED_IMAGES, list(LOSSES), DIMS, SEARCH_EPOCHS, width=16)
    augmentation = IMAGE_SETS["cifar10"].augmentation
    images = Images(name="cifar10", n_train=10_000, holdout=0.2, augmentation=augmentation)
    best = [loss_of(method) for method in METHOD_LOSSES]
    return _space("cifar10", images, best, (2, 64), epochs=6, width=32)


def _space(
    image_set: str,
    images: Images,
    losses: Sequence[str],
    dims: Sequence[int],
    epochs: int,
    width: int,
) -> dict[tuple[str, int, float], TrainConfig]:
    space = {}
    for loss, dim in itertools.product(losses, dims):
        if not trains(LOSSES[loss], dim):
            continue
        for temperature in temperatures(loss, dim, image_set):
            setting = with_temperature(loss, temperature)
            run = image_run(setting, images, dim=dim, epochs=epochs, seed=0, width=width)
            space[loss, dim, temperature] = run
    return space


def trains(setting: Setting, dim: int) -> bool:
    """Whether there is a gradient: cosines have none in one dimension."""
    return dim > 1 or setting.loss.metric != "cosine"


def with_temperature(loss: str, temperature: float) -> Setting:
    """One of `LOSSES` at another temperature."""
    setting = LOSSES[loss]
    return setting.replace(loss=setting.loss.replace(temperature=temperature))


def tuned(method: str, dim: int, image_set: str = SUBSET) -> Setting:
    """The setting with the best 15-NN accuracy on z at d_z = `dim` in the search.

    `method`: of `METHOD_LOSSES`, or one of `LOSSES`. `ValueError`: `dim` was not searched.
    """
    loss = loss_of(method)
    rows = [row for row in search_table(image_set) if row.loss == loss and row.d_z == dim]
    if not rows:
        rule = f"one that was searched for {loss} on {image_set}"
        raise ValueError(f"dim must be {rule}, got {dim}")
    return with_temperature(loss, max(rows, key=lambda row: row.knn15_z).temperature)


def kernel_run(kernel: Kernel, images: Images, *, dim: int, epochs: int, seed: int) -> TrainConfig:
    """On the embedded set, with the setting that the search chose for this kernel and dimension."""
    setting = tuned(KERNEL_LOSSES[kernel], dim)
    return image_run(setting, images, dim=dim, epochs=epochs, seed=seed)


@lru_cache
def loss_of(method: str) -> str:
    """The loss of a method, and one of `LOSSES` itself.

    The best on the mean over d_z ≥ 2 of the best 15-NN accuracies on z, on the embedded set.
    """
    return max(METHOD_LOSSES[method], key=_mean_accuracy) if method in METHOD_LOSSES else method


def _mean_accuracy(loss: str) -> float:
    best: dict[int, float] = {}
    for row in search_table():
        if row.loss == loss and row.d_z > 1:
            best[row.d_z] = max(row.knn15_z, best.get(row.d_z, 0.0))
    return sum(best[dim] for dim in DIMS[1:])


@lru_cache
def search_table(image_set: str = SUBSET) -> list[SearchRow]:
    """The rows of a committed search. `ValueError`, with the remedy: its file is damaged."""
    return committed(RECORDS / f"search_{image_set}.csv", _search_rows)


def _search_rows(text: str) -> list[SearchRow]:
    """`ValueError`: there are no rows, or one that no search has."""
    rows = [_search_row(row) for row in csv.DictReader(text.splitlines(), strict=True)]
    if not rows:
        raise ValueError("it has no rows")
    return rows


def _search_row(row: dict[str, str]) -> SearchRow:
    numbers = [float(row[name]) for name in SearchRow._fields[2:]]
    found = SearchRow(row["loss"], int(row["d_z"]), *numbers)
    is_known = found.loss in LOSSES and found.d_z in DIMS
    if not is_known or not all(map(math.isfinite, numbers)):
        raise ValueError(f"no loss, dimension and accuracies: {row}")
    return found
