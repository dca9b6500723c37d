"""The methods that are compared, and how a run of each is made up. No PyTorch: plans use it."""

import math
from typing import Literal

from sscl_core.config import (
    ConvNet,
    Frozen,
    ImageAugmentation,
    InfoNCE,
    Optimizer,
    Projector,
    TSimCLR,
)
from sscl_experiments.runs.transfer_config import (
    Objective,
    TargetName,
    TransferImages,
    TransferRun,
)
from sscl_experiments.settings import AUGMENTATION, IMAGE_SETS

Source = Literal["fashion_mnist_subset", "fashion_mnist", "cifar10", "cifar100"]
DIM = 32  # of z


class Method(Frozen):
    """What it compares and by what, and the temperatures that are tried first in its search.

    There are none where there are labels.
    """

    objective: Objective
    loss: InfoNCE | TSimCLR = InfoNCE()
    batchnorm: bool = False
    temperatures: tuple[float, ...] = ()

    def at(self, temperature: float) -> InfoNCE | TSimCLR:
        """Its loss at a temperature."""
        return self.loss.replace(temperature=temperature) if self.temperatures else self.loss


_COSINE, _EUCLIDEAN = (0.1, 0.2, 0.5), (0.2, 1.0, 5.0)
_T = TSimCLR(df=5.0, normalization="conditional")
METHODS = {
    "SimCLR": Method(objective="pairs", batchnorm=True, temperatures=_COSINE),
    "t-SimCLR": Method(
        objective="pairs", loss=TSimCLR(df=5.0), batchnorm=True, temperatures=_EUCLIDEAN
    ),
    "Gaussian": Method(
        objective="pairs",
        loss=TSimCLR(df=math.inf, normalization="conditional"),
        batchnorm=True,
        temperatures=_EUCLIDEAN,
    ),
    "MoCo": Method(objective="queue", temperatures=_COSINE),
    "MoCo, BatchNorm": Method(objective="queue", batchnorm=True, temperatures=_COSINE),
    "t-MoCo": Method(objective="queue", loss=_T, batchnorm=True, temperatures=_EUCLIDEAN),
    "supervised": Method(objective="labels"),
}
RATES = (2.5e-3, 5e-3, 1e-2)  # learning rates that are tried first


class Setting(Frozen):
    """What a search chooses for a method."""

    temperature: float = 0.5
    lr: float = 5e-3


class SourceSet(Frozen):
    """How networks are trained on a set, and what they are judged on."""

    targets: tuple[TargetName, ...]
    augmentation: ImageAugmentation
    width: int
    classes: int


_CIFAR_VIEWS = IMAGE_SETS["cifar10"].augmentation
SOURCES: dict[str, SourceSet] = {
    "fashion_mnist_subset": SourceSet(
        targets=("digits",), augmentation=AUGMENTATION, width=16, classes=10
    ),
    "fashion_mnist": SourceSet(
        targets=("mnist", "usps", "digits"), augmentation=AUGMENTATION, width=16, classes=10
    ),
    "cifar10": SourceSet(targets=("cifar100",), augmentation=_CIFAR_VIEWS, width=32, classes=10),
    "cifar100": SourceSet(targets=("cifar10",), augmentation=_CIFAR_VIEWS, width=32, classes=100),
}


def transfer_run(
    method: str,
    setting: Setting,
    source: Source,
    *,
    epochs: int,
    n_train: int | None = None,
    holdout: float = 0.0,
    shots: int = 0,
    targets: tuple[TargetName, ...] | None = None,
    seed: int = 0,
) -> TransferRun:
    """A run of a method on a source, judged on the source's targets unless others are given."""
    what, where = METHODS[method], SOURCES[source]
    data = TransferImages(
        name=source,
        n_train=n_train,
        holdout=holdout,
        augmentation=where.augmentation,
        targets=where.targets if targets is None else targets,
        shots=shots,
    )
    head = Projector(hidden=128, dim=DIM, batchnorm=what.batchnorm)
    if what.objective == "labels":
        head = Projector(hidden=0, dim=where.classes)
    return TransferRun(
        data=data,
        backbone=ConvNet(width=where.width),
        projector=head,
        loss=what.at(setting.temperature),
        optimizer=Optimizer(lr=setting.lr, warmup_epochs=0.5),
        epochs=epochs,
        batch_size=128,
        precision="bf16-mixed",
        objective=what.objective,
        seed=seed,
    )
