"""Losses and image sets with the settings that several studies train them with."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from sscl_core.config import (
    MLP,
    ConvNet,
    Frozen,
    ImageAugmentation,
    Images,
    InfoNCE,
    Optimizer,
    Points,
    Projector,
    SpectralContrastive,
    TrainConfig,
    TSimCLR,
)

SUBSET: Literal["fashion_mnist_subset"] = "fashion_mnist_subset"


class Setting(Frozen):
    """A loss, and whether BatchNorm fixes the scale of the features that it compares."""

    loss: Annotated[InfoNCE | TSimCLR | SpectralContrastive, Field(discriminator="name")]
    batchnorm: bool


# Common to all methods, settled on the held-out part with SimCLR only. No flip: all shoes point
# left.
AUGMENTATION = ImageAugmentation(crop_scale=(0.7, 1.0), flip=0.0, jitter=0.8)
# One setting for all dimensions, for notebooks that do not tune their own: the best of ten a method
# on the part of the training images held out, by 10-NN on z at d_z = 2, 8 and 32, two seeds of four
# epochs. The table of that search is data/records/search_one_setting.csv.
METHODS = {
    "SimCLR": Setting(loss=InfoNCE(temperature=0.1), batchnorm=True),
    "t-SimCLR": Setting(
        loss=TSimCLR(temperature=0.2, df=5.0, normalization="joint"), batchnorm=True
    ),
}


class ImageSet(Frozen):
    """How networks are trained on a set of images, and which of its classes are close in meaning.

    The groups were fixed before any run.
    """

    augmentation: ImageAugmentation
    width: PositiveInt
    groups: dict[str, tuple[str, ...]]
    transfer: Literal["cifar100"] | None = None


IMAGE_SETS = {
    "fashion_mnist_subset": ImageSet(
        augmentation=AUGMENTATION,
        width=16,
        groups={
            "tops": ("T-shirt/top", "Pullover", "Coat", "Shirt"),
            "footwear": ("Sandal", "Sneaker", "Ankle boot"),
        },
    ),
    # SimCLR's views of CIFAR-10, not tuned here.
    "cifar10": ImageSet(
        augmentation=ImageAugmentation(jitter=0.5, grayscale=0.2),
        width=32,
        groups={
            "animals": ("bird", "cat", "deer", "dog", "frog", "horse"),
            "objects": ("airplane", "automobile", "ship", "truck"),
        },
        transfer="cifar100",
    ),
}


def image_run(
    setting: Setting, images: Images, *, dim: int, epochs: int, seed: int, width: int = 16
) -> TrainConfig:
    """A small convolutional network on images, trained with this loss."""
    return TrainConfig(
        data=images,
        backbone=ConvNet(width=width),
        projector=Projector(hidden=128, dim=dim, batchnorm=setting.batchnorm),
        loss=setting.loss,
        optimizer=Optimizer(lr=5e-3, warmup_epochs=0.5),
        epochs=epochs,
        batch_size=128,
        precision="bf16-mixed",
        seed=seed,
    )


NETWORK = MLP(width=64)


def vector_run(
    points: Points,
    setting: Setting,
    dim: int,
    steps: int,
    seed: int,
    *,
    backbone: MLP = NETWORK,
    batch: int = 32,
) -> TrainConfig:
    """A small network on vectors, trained with this loss for `steps` steps.

    In epochs of 50, or the largest number below that divides `steps`.
    """
    per_epoch = max(k for k in range(1, 51) if steps % k == 0)
    return TrainConfig(
        data=points.replace(steps_per_epoch=per_epoch),
        backbone=backbone,
        projector=Projector(hidden=0, dim=dim, batchnorm=setting.batchnorm),
        loss=setting.loss,
        optimizer=Optimizer(lr=3e-3),
        epochs=steps // per_epoch,
        batch_size=batch,
        seed=seed,
    )
