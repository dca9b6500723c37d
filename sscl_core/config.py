"""One typed, frozen description of a training run.

It holds everything that the numbers of the run depend on, and nothing else: where the run computes,
and the data themselves, are arguments of `train`.
"""

import math
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Point = Annotated[tuple[float, ...], Field(min_length=1)]
SMALLEST = 1e-37  # what a number of float32 up to 1 can be divided by
Metric = Literal["cosine", "euclidean"]
ImageSetName = Literal["fashion_mnist_subset", "fashion_mnist", "cifar10", "cifar100"]

Kind = TypeVar("Kind", bound="Frozen")


class Frozen(BaseModel):
    """Rejects unknown keys and silent conversions ("3" for 3); cannot be changed once made."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, ser_json_inf_nan="strings"
    )

    def replace(self: Kind, **changes: Any) -> Kind:
        """A copy in which these fields have other values, checked as those of any other.

        `ValidationError` (a `ValueError`): an unknown field, or a value that breaks a rule.
        """
        fields = type(self).model_fields
        return type(self)(**{name: getattr(self, name) for name in fields} | changes)


def as_number(value: Any) -> Any:
    """JSON has no infinity: it is written, and so read, as a string."""
    return float(value) if value in ("Infinity", "inf", "-Infinity", "-inf") else value


# At least 0.9 apart. The first m >= 3 of them are never close to a regular polygon, whatever its
# size: features become one, and must not begin as one.
_SCATTERED = (
    *((0.1, -0.6), (1.4, 1.7), (0.9, -1.1), (-1.8, -1.6), (0.3, 0.8), (-1.2, 0.9)),
    *((1.0, 0.1), (1.7, 0.7), (-0.8, -1.5), (-0.6, 1.7), (-0.6, 0.2), (-1.6, -0.3)),
)


def scattered(m: int) -> tuple[Point, ...]:
    """The first m of twelve fixed points in the plane. `ValueError`: m not in 2..12."""
    if not 2 <= m <= len(_SCATTERED):
        raise ValueError(f"m must be in 2..{len(_SCATTERED)}, got {m}")
    return _SCATTERED[:m]


class Mixture(Frozen):
    """Fresh pairs at every step: two independent draws from one component of a Gaussian mixture.

    The components have these `means` and the covariance std² I. With `anonymous` = k > 0 there are
    instead k fixed samples a component, and the network is told only which one it sees, by a
    one-hot code. A linear layer on that is one free vector a sample (and a shift common to all),
    and the means play no part.
    """

    name: Literal["mixture"] = "mixture"
    means: Annotated[tuple[Point, ...], Field(min_length=2)] = scattered(5)
    std: PositiveFloat = 0.1
    steps_per_epoch: PositiveInt = 100
    anonymous: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _distinct(self) -> "Mixture":
        dimensions = {len(mean) for mean in self.means}
        if len(dimensions) > 1 or len(set(self.means)) < len(self.means):
            raise ValueError(f"means must be distinct points of one dimension, got {self.means}")
        return self


class Noise(Frozen):
    """x + δ, δ of independent entries of this kind with standard deviation `scale`."""

    name: Literal["noise"] = "noise"
    scale: PositiveFloat
    kind: Literal["gaussian", "laplace", "uniform"] = "gaussian"


class Mixup(Frozen):
    """x + λ(x̄ - x), with x̄ drawn from the data trained on and its weight λ ~ U(0, strength)."""

    name: Literal["mixup"] = "mixup"
    strength: Share


class Masking(Frozen):
    """Every entry is set to 0 with probability `rate`."""

    name: Literal["masking"] = "masking"
    rate: Rate


class Corruption(Frozen):
    """Every entry is replaced with probability `rate` by the same entry of another sample.

    That is a draw from the marginal distribution of the entry.
    """

    name: Literal["corruption"] = "corruption"
    rate: Rate


# An augmentation that asks nothing of the data but that they are numbers.
Agnostic = Annotated[Noise | Mixup | Masking | Corruption, Field(discriminator="name")]


class Cloud(Frozen):
    """A labelled sample of a mixture of `components`, drawn anew for every seed.

    The means are at distance 1 from each other; `std` is the standard deviation about them.

    isotropic: x ~ N(μ_c, std² I_d).
    complement: noise only outside the span of the means, in `rank` directions (0: all).
    manifold: an isotropic mixture in components - 1 dimensions, laid into d dimensions by a smooth
    map that keeps short distances (the means are then 0.89 apart).
    `n_train` points to train on, half as many for validation (at least 100), 500 for the test.
    """

    name: Literal["cloud"] = "cloud"
    dim: PositiveInt
    components: Annotated[int, Field(ge=2)] = 5
    std: PositiveFloat = 0.2
    structure: Literal["isotropic", "complement", "manifold"] = "isotropic"
    rank: Annotated[int, Field(ge=0)] = 0
    n_train: Annotated[int, Field(ge=10)] = 500

    @model_validator(mode="after")
    def _room(self) -> "Cloud":
        outside = max(1, self.rank) if self.structure == "complement" else 0
        least = self.components - 1 + outside
        if self.dim < least or (self.rank and not outside):
            rule = f"at least {least}, and rank 0 unless for complement"
            raise ValueError(f"dim must be {rule}, got {self.dim} and {self.rank}")
        return self


class Table(Frozen):
    """A data set that ships with scikit-learn, split anew for every seed, classes in proportion.

    30 % are for the test, of the rest a fifth for validation. Columns are standardised by the
    training part; constant ones become 0.
    """

    name: Literal["table"] = "table"
    table: Literal["iris", "wine", "breast_cancer", "digits"]


class Points(Frozen):
    """Labelled vectors; a view of a point goes through the steps of `augmentation` in their order.

    A batch is drawn from the points without repetition: all of them if there are fewer than
    `batch_size`.
    """

    name: Literal["points"] = "points"
    points: Annotated[Cloud | Table, Field(discriminator="name")]
    augmentation: Annotated[tuple[Agnostic, ...], Field(min_length=1)]
    steps_per_epoch: PositiveInt = 50


class ImageAugmentation(Frozen):
    """SimCLR's views: random resized crop, horizontal flip, colour jitter, grayscale.

    Then the steps of `then`, on pixels in [0, 1]. `crop_scale`: the smallest and the largest share
    of the area. `jitter`: SimCLR's strength s, for brightness, contrast and saturation 0.8 s, for
    hue 0.2 s. Jitter and grayscale do nothing at 0.
    """

    crop_scale: tuple[Share, Share] = (0.2, 1.0)
    flip: Fraction = 0.5
    jitter: Fraction = 0.0
    jitter_probability: Fraction = 0.8
    grayscale: Fraction = 0.0
    then: tuple[Agnostic, ...] = ()

    @model_validator(mode="after")
    def _ordered(self) -> "ImageAugmentation":
        smallest, largest = self.crop_scale
        if smallest > largest:
            rule = "(smallest, largest) share of the area"
            raise ValueError(f"crop_scale must be {rule}, got {self.crop_scale}")
        return self


class Images(Frozen):
    """A labelled image set.

    With `holdout` > 0, that share of the training images is kept for validation, and evaluation is
    on it: the test set is not looked at. `n_train`: the first n of a seeded shuffle of the others
    (None: all). `transfer`: another set, of as many channels, whose test images are looked at after
    training too.
    """

    name: ImageSetName = "fashion_mnist_subset"
    n_train: Annotated[int, Field(ge=2)] | None = None
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: ImageAugmentation = ImageAugmentation()
    transfer: ImageSetName | None = None


class PairWeights(Frozen):
    """Weights of the positive pairs of a batch, w ∝ exp(score / temperature), with mean 1.

    A negative temperature favours low scores, an infinite one weighs all pairs alike.

    iou: intersection over union of the two crops, in [0, 1].
    input: minus the root mean squared difference of the views' pixels.
    features: cos(z1, z2) at that step, through which no gradient flows: hard pairs count less.
    """

    score: Literal["iou", "input", "features"] = "iou"
    temperature: Annotated[float, Field(allow_inf_nan=True), BeforeValidator(as_number)]

    @field_validator("temperature")
    @classmethod
    def _divides(cls, value: float) -> float:
        if not abs(value) >= SMALLEST:
            rule = f"a number other than 0 (at least {SMALLEST:g} away from it), or infinite"
            raise ValueError(f"temperature must be {rule}, got {value}")
        return value


class InfoNCE(Frozen):
    name: Literal["info_nce"] = "info_nce"
    metric: ClassVar[Metric] = "cosine"  # of the features that it compares
    temperature: PositiveFloat = 0.5


class TSimCLR(Frozen):
    """With `learn_df`, log df is a parameter of the network, and `df` is where it starts.

    Its learning rate is ten times that of the network.
    """

    name: Literal["t_simclr"] = "t_simclr"
    metric: ClassVar[Metric] = "euclidean"
    temperature: PositiveFloat = 1.0
    df: Annotated[float, Field(gt=0, allow_inf_nan=True), BeforeValidator(as_number)] = 5.0
    normalization: Literal["joint", "conditional"] = "joint"
    learn_df: bool = False

    @model_validator(mode="after")
    def _starts(self) -> "TSimCLR":
        if self.learn_df and self.df == math.inf:
            rule = "finite where it is learned: no step leads away from infinity"
            raise ValueError(f"df must be {rule}")
        return self


class SpectralContrastive(Frozen):
    name: Literal["spectral_contrastive"] = "spectral_contrastive"
    metric: ClassVar[Metric] = "euclidean"


class MLP(Frozen):
    """`depth` hidden layers of `width` units; with 0 the features are the input.

    `init_scale` multiplies the initial weights and biases, those of the projector too.
    """

    name: Literal["mlp"] = "mlp"
    width: PositiveInt = 128
    depth: Annotated[int, Field(ge=0)] = 2
    activation: Literal["relu", "tanh", "gelu"] = "relu"
    init_scale: PositiveFloat = 1.0


class ConvNet(Frozen):
    """Four 3×3 convolutions with BatchNorm, for images of about 28×28."""

    name: Literal["convnet"] = "convnet"
    width: PositiveInt = 32


class ResNet(Frozen):
    """CIFAR-style: 3×3 stem, no max-pool."""

    name: Literal["resnet"] = "resnet"
    depth: Literal[18, 50] = 18


class Projector(Frozen):
    """The head whose output z training compares: `dim` is d_z, `hidden` = 0 is a linear head.

    `batchnorm`: z is standardised, without affine parameters. That fixes its size, so that a
    temperature means something for a similarity that is not on the sphere.
    """

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


class TrainConfig(Frozen):
    """A training run. `epochs=0` is the untrained network.

    `threads`: of the processor; sums round differently with another number of them, unless they are
    computed on a GPU.
    `start_order`: before training the features are fitted to a regular polygon, on whose corners
    the components of the mixture stand in this cyclic order.
    """

    data: Annotated[Mixture | Points | Images, Field(discriminator="name")] = Images()
    backbone: Annotated[MLP | ConvNet | ResNet, Field(discriminator="name")] = ConvNet()
    projector: Projector = Projector()
    loss: Annotated[InfoNCE | TSimCLR | SpectralContrastive, Field(discriminator="name")] = (
        InfoNCE()
    )
    optimizer: Optimizer = Optimizer()
    epochs: Annotated[int, Field(ge=0)] = 6
    batch_size: Annotated[int, Field(ge=2)] = 256
    weights: PairWeights | None = None
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: PositiveInt = 1
    start_order: tuple[int, ...] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fits_vectors(self) -> "TrainConfig":
        if isinstance(self.data, Images):
            return self
        if not isinstance(self.backbone, MLP):
            what = f"for {self.data.name}, which are no images"
            raise ValueError(f"backbone must be 'mlp' {what}, got {self.backbone.name!r}")
        if self.weights or (isinstance(self.loss, TSimCLR) and self.loss.learn_df):
            raise ValueError(f"weights and learn_df are for images, got them for {self.data.name}")
        return self

    @model_validator(mode="after")
    def _has_pairs_to_weigh(self) -> "TrainConfig":
        if self.weights and isinstance(self.loss, SpectralContrastive):
            raise ValueError("weights must be left out for spectral_contrastive, which has none")
        return self

    @model_validator(mode="after")
    def _can_be_ordered(self) -> "TrainConfig":
        if self.start_order is None:
            return self
        m = len(self.data.means) if isinstance(self.data, Mixture) else 0
        in_the_plane = self.projector.dim == 2 and not self.projector.batchnorm
        if sorted(self.start_order) != list(range(m)) or not in_the_plane:
            rule = "an order of the mixture's components, for d_z=2 without BatchNorm"
            raise ValueError(f"start_order must be {rule}, got {self.start_order}")
        return self
