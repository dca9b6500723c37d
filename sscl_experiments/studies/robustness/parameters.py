"""What notebook 04 can be asked, and the runs that follow from it."""

import csv
import itertools
import math
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from sscl_core.config import (
    MLP,
    ImageAugmentation,
    Images,
    InfoNCE,
    Masking,
    Noise,
    Optimizer,
    Projector,
    TrainConfig,
    TSimCLR,
    scattered,
)
from sscl_experiments.parameters import Parameters
from sscl_experiments.paths import RECORDS, committed
from sscl_experiments.runs.robust_config import (
    RobustRun,
    StressedImages,
    UnseenMixture,
    UnseenRun,
)
from sscl_experiments.settings import IMAGE_SETS, SUBSET, Setting, image_run
from sscl_experiments.variants import untrained, with_seeds

# --- the mixture ----------------------------------------------------------------------------------

SEEN = 5  # of the twelve scattered components; the others are unseen
STD = 0.25  # the components overlap a little, so P is not one-hot and accuracies can differ
MIXTURE = UnseenMixture(
    means=scattered(SEEN), std=STD, steps_per_epoch=50, unseen=scattered(12)[SEEN:]
)
_KERNELS: dict[str, InfoNCE | TSimCLR] = {
    "cosine": InfoNCE(),
    "Gaussian": TSimCLR(df=math.inf, normalization="conditional"),
    "t joint": TSimCLR(df=5.0, normalization="joint"),
    "t conditional": TSimCLR(df=5.0, normalization="conditional"),
}
KERNELS = {
    f"{name}, BatchNorm" if batchnorm else name: Setting(loss=loss, batchnorm=batchnorm)
    for name, loss in _KERNELS.items()
    for batchnorm in (False, True)
}
TEMPERATURES = (0.1, 0.3, 1.0)  # for every kernel: times d_z with BatchNorm off the sphere
SEARCH_DIMS, SEARCH_SEEDS = (2, 8), 5
SEARCH = "search_robustness.csv"

# --- images ---------------------------------------------------------------------------------------

IMAGE_DIM = 32
# In the records of notebook 05's searches: the same number of temperatures for each, by 15-NN on z
# of training images held out.
IMAGE_LOSSES = {
    "SimCLR": "cosine, BatchNorm",
    "t-SimCLR": "t joint, BatchNorm",
    "Gaussian": "Euclidean SNE, BatchNorm",
}
COMPARED = ("SimCLR", "t-SimCLR")
IMAGE_TEMPERATURES = {
    "fashion_mnist_subset": {"SimCLR": 0.1, "t-SimCLR": 0.16, "Gaussian": 6.4},
    # Those of 64 dimensions, in units of d_z; the Gaussian was not searched there.
    "cifar10": {"SimCLR": 0.1, "t-SimCLR": 0.96, "Gaussian": 6.4},
}
WHOLE = (1.0, 1.0)
PLAIN = ImageAugmentation(crop_scale=WHOLE, flip=0.0)
AUGMENTATIONS = {
    "noise 0.05": PLAIN.replace(then=(Noise(scale=0.05),)),
    "noise 0.2": PLAIN.replace(then=(Noise(scale=0.2),)),
    "masking 0.3": PLAIN.replace(then=(Masking(rate=0.3),)),
    "crops 70–100 %": PLAIN.replace(crop_scale=(0.7, 1.0)),
    "crops 20–100 %": PLAIN.replace(crop_scale=(0.2, 1.0)),
    "jitter 0.8": PLAIN.replace(jitter=0.8),
}


class Robustness(Parameters):
    """04: features away from what they were trained on.

    Mixture: `seeds` networks of each kernel and each of `dims`, trained for `steps`. Images:
    `image_seeds` networks of each method on `n_train` images of `image_set` for `epochs`, SimCLR
    and t-SimCLR for half of them too; `tested` test images are corrupted, every tenth of them is
    attacked. Augmentations: SimCLR with each of `augmentations`, `augmentation_seeds` networks.
    """

    dims: Annotated[tuple[Annotated[int, Field(ge=2, le=64)], ...], Field(min_length=1)]
    steps: PositiveInt
    image_set: Literal["fashion_mnist_subset", "cifar10"]
    image_seeds: PositiveInt
    epochs: Annotated[int, Field(ge=2, multiple_of=2)]
    n_train: Annotated[int, Field(ge=200, le=50_000)]
    tested: Annotated[int, Field(ge=20, le=10_000)]
    augmentations: tuple[str, ...]
    augmentation_seeds: PositiveInt

    records: ClassVar[tuple[str, ...]] = (SEARCH,)

    @model_validator(mode="after")
    def _known(self) -> "Robustness":
        if 2 not in self.dims:
            raise ValueError(f"dims must hold 2, which is drawn, got {self.dims}")
        if unknown := sorted(set(self.augmentations) - set(AUGMENTATIONS)):
            rule = f"among {list(AUGMENTATIONS)}"
            raise ValueError(f"augmentations must be {rule}, got {unknown}")
        return self

    @property
    def larger_sets(self) -> tuple[str, ...]:
        return () if self.image_set == SUBSET else (self.image_set,)

    def mixture_runs(self) -> dict[tuple[str, int], list[TrainConfig]]:
        """(kernel, d_z) and its runs on the mixture."""
        runs = {}
        for kernel, dim in itertools.product(KERNELS, sorted(set(self.dims))):
            first = mixture_run(kernel, dim, tuned(kernel, dim), self.steps)
            runs[kernel, dim] = with_seeds(first, self.seed_range)
        return runs

    def stressed(self, augmentation: ImageAugmentation | None = None) -> StressedImages:
        return StressedImages(
            name=self.image_set,
            n_train=self.n_train,
            augmentation=augmentation or IMAGE_SETS[self.image_set].augmentation,
            tested=self.tested,
        )

    def image_run(self, method: str, epochs: int, attacked: int) -> RobustRun:
        images = self.stressed().replace(attacked=attacked)
        return robust_run(image_setting(method, self.image_set), images, epochs)

    def image_runs(self) -> dict[str, list[TrainConfig]]:
        """A method and its runs; "untrained" is SimCLR's network before training."""
        firsts = {
            method: self.image_run(method, self.epochs, self.tested // 10)
            for method in IMAGE_LOSSES
        }
        logits = Projector(hidden=0, dim=10)
        firsts["supervised"] = firsts["SimCLR"].replace(supervised=True, projector=logits)
        seeds = self.first_seeds(self.image_seeds)
        runs = {method: with_seeds(first, seeds) for method, first in firsts.items()}
        return runs | {"untrained": untrained(runs["SimCLR"])}

    def shorter_runs(self) -> dict[str, list[TrainConfig]]:
        """SimCLR and t-SimCLR trained half as long: no verdict where the two lengths disagree."""
        seeds = self.first_seeds(self.image_seeds)
        half = self.epochs // 2
        return {method: with_seeds(self.image_run(method, half, 0), seeds) for method in COMPARED}

    def augmentation_runs(self) -> dict[str, list[TrainConfig]]:
        """An augmentation and its runs of SimCLR."""
        seeds = self.first_seeds(self.augmentation_seeds)
        setting = image_setting("SimCLR", self.image_set)
        return {
            name: with_seeds(
                robust_run(setting, self.stressed(AUGMENTATIONS[name]), self.epochs), seeds
            )
            for name in self.augmentations
        }

    def runs(self) -> list[TrainConfig]:
        groups = (self.mixture_runs(), self.image_runs(), self.shorter_runs())
        lists = [runs for group in groups for runs in group.values()]
        lists += self.augmentation_runs().values()
        return list(dict.fromkeys(itertools.chain.from_iterable(lists)))


def mixture_run(kernel: str, dim: int, temperature: float, steps: int) -> UnseenRun:
    """A network of two hidden layers of 64, trained with one of `KERNELS` on the mixture."""
    setting = KERNELS[kernel]
    per_epoch = max(k for k in range(1, 51) if steps % k == 0)
    return UnseenRun(
        data=MIXTURE.replace(steps_per_epoch=per_epoch),
        backbone=MLP(width=64),
        projector=Projector(hidden=0, dim=dim, batchnorm=setting.batchnorm),
        loss=setting.loss.replace(temperature=temperature),
        optimizer=Optimizer(lr=3e-3),
        epochs=steps // per_epoch,
        batch_size=32,
    )


def temperatures(kernel: str, dim: int) -> tuple[float, ...]:
    """As many for every kernel. BatchNorm makes ‖z - z'‖² about 2 d_z: τ is in units of d_z."""
    setting = KERNELS[kernel]
    on_sphere = setting.loss.metric == "cosine"
    unit = dim if setting.batchnorm and not on_sphere else 1
    return tuple(round(unit * temperature, 6) for temperature in TEMPERATURES)


def tuned(kernel: str, dim: int) -> float:
    """The temperature with the best accuracy on seen components at the searched d_z next to it."""
    near = SEARCH_DIMS[0] if dim < 5 else SEARCH_DIMS[1]
    rows = [row for row in search_table() if (row["kernel"], row["d_z"]) == (kernel, near)]
    best = max(rows, key=lambda row: row["seen"])["temperature"]
    return temperatures(kernel, dim)[temperatures(kernel, near).index(best)]


@lru_cache
def search_table() -> list[dict]:
    """The rows of the committed search. `ValueError`, with the remedy: its file is damaged."""
    return committed(RECORDS / SEARCH, _rows)


def _rows(text: str) -> list[dict]:
    rows = list(csv.DictReader(text.splitlines(), strict=True))
    numbers = ("temperature", "seen", "new")
    found = [
        {"kernel": row["kernel"], "d_z": int(row["d_z"])} | {n: float(row[n]) for n in numbers}
        for row in rows
    ]
    expected = {
        (kernel, dim, temperature)
        for kernel, dim in itertools.product(KERNELS, SEARCH_DIMS)
        for temperature in temperatures(kernel, dim)
    }
    if {(row["kernel"], row["d_z"], row["temperature"]) for row in found} != expected:
        raise ValueError("its rows are not the runs of the search")
    return found


def image_setting(method: str, image_set: str) -> Setting:
    loss: InfoNCE | TSimCLR = InfoNCE()
    if method == "t-SimCLR":
        loss = TSimCLR(df=5.0, normalization="joint")
    elif method == "Gaussian":
        loss = TSimCLR(df=math.inf, normalization="conditional")
    temperature = IMAGE_TEMPERATURES[image_set][method]
    return Setting(loss=loss.replace(temperature=temperature), batchnorm=True)


def robust_run(setting: Setting, images: StressedImages, epochs: int) -> RobustRun:
    """`settings.image_run`, looked at under corruptions and attacks."""
    plain = Images(**{name: getattr(images, name) for name in Images.model_fields})
    width = IMAGE_SETS[images.name].width
    run = image_run(setting, plain, dim=IMAGE_DIM, epochs=epochs, seed=0, width=width)
    fields = {name: getattr(run, name) for name in TrainConfig.model_fields}
    return RobustRun(**fields | {"data": images})
