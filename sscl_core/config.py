"""One typed, frozen description of a training run. It holds everything that its numbers depend on, and nothing else:
where the run computes and where it finds its data are arguments of `train`, not part of what it is."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
ImageSetName = Literal["fashion_mnist_subset", "fashion_mnist", "cifar10", "cifar100"]


class Frozen(BaseModel):
    """Rejects unknown keys and silent conversions ("3" for 3); cannot be changed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, ser_json_inf_nan="strings")


class Mixture(Frozen):
    """Fresh pairs from a Gaussian mixture at every step: two independent draws from one component."""

    name: Literal["mixture"] = "mixture"
    components: Annotated[int, Field(ge=2, le=12)] = 5
    std: PositiveFloat = 0.1
    steps_per_epoch: PositiveInt = 100


class ImageAugmentation(Frozen):
    """SimCLR's views: random resized crop, horizontal flip, colour jitter, grayscale. The last two do nothing at 0."""

    crop_scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.2, 1.0)
    flip: Fraction = 0.5
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0  # strength s of SimCLR: brightness, contrast, saturation .8s, hue .2s
    jitter_probability: Fraction = 0.8
    grayscale: Fraction = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> "ImageAugmentation":
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale must be (smallest, largest) share of the area, got {self.crop_scale}")
        return self


class Images(Frozen):
    """A labelled image set. With `holdout` > 0, that share of the training labels is kept for validation, and evaluation
    is on it: the test set is not looked at."""

    name: ImageSetName = "fashion_mnist_subset"
    n_train: Annotated[int, Field(ge=2)] | None = None  # the first n of a seeded shuffle; None: all
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: ImageAugmentation = ImageAugmentation()


class InfoNCE(Frozen):
    name: Literal["info_nce"] = "info_nce"
    temperature: PositiveFloat = 0.5


class TSimCLR(Frozen):
    name: Literal["t_simclr"] = "t_simclr"
    temperature: PositiveFloat = 1.0
    # JSON has no infinity: it is written, and so read, as a string.
    df: Annotated[float, Field(gt=0, allow_inf_nan=True), BeforeValidator(lambda v: math.inf if v in ("Infinity", "inf") else v)] = 5.0
    normalization: Literal["joint", "conditional"] = "joint"


class MLP(Frozen):
    name: Literal["mlp"] = "mlp"
    width: PositiveInt = 128
    depth: PositiveInt = 2


class ConvNet(Frozen):
    """Four 3×3 convolutions with BatchNorm, for images of about 28×28."""

    name: Literal["convnet"] = "convnet"
    width: PositiveInt = 32


class ResNet(Frozen):
    """CIFAR-style: 3×3 stem, no max-pool."""

    name: Literal["resnet"] = "resnet"
    depth: Literal[18, 50] = 18


class Projector(Frozen):
    """The head that training compares: `dim` is d_z; `hidden` = 0 is a linear head. `batchnorm`: standardise the features (no affine
    parameters), which fixes their scale, so that a temperature means something without the sphere."""

    hidden: Annotated[int, Field(ge=0)] = 128
    dim: PositiveInt = 32
    batchnorm: bool = False


class Optimizer(Frozen):
    """`lr` after a linear warm-up, then a half cosine to 0 (`schedule="cosine"`) or flat."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # SGD only
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"

    def factor(self, step: int, *, steps_per_epoch: int, epochs: int) -> float:
        """The share of `lr` that step number `step` (from 0) uses."""
        warmup, total = self.warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


class TrainConfig(Frozen):
    """A training run. `epochs=0` is the untrained network."""

    data: Annotated[Mixture | Images, Field(discriminator="name")] = Images()
    backbone: Annotated[MLP | ConvNet | ResNet, Field(discriminator="name")] = ConvNet()
    projector: Projector = Projector()
    loss: Annotated[InfoNCE | TSimCLR, Field(discriminator="name")] = InfoNCE()
    optimizer: Optimizer = Optimizer()
    epochs: Annotated[int, Field(ge=0)] = 6
    batch_size: Annotated[int, Field(ge=2)] = 256
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fits(self) -> "TrainConfig":
        if isinstance(self.data, Mixture) and not isinstance(self.backbone, MLP):
            raise ValueError(f"backbone must be 'mlp' for the mixture, which has no images, got {self.backbone.name!r}")
        return self
