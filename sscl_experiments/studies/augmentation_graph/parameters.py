"""What the notebook runs: networks compared with eigenvectors and with density ratios, and maps."""

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from sscl_core.config import (
    MLP,
    Agnostic,
    Cloud,
    Corruption,
    ImageAugmentation,
    Images,
    InfoNCE,
    Mixup,
    Noise,
    Optimizer,
    Points,
    Projector,
    SpectralContrastive,
    Table,
    TrainConfig,
    TSimCLR,
)
from sscl_experiments.parameters import Parameters
from sscl_experiments.settings import AUGMENTATION, METHODS, Setting, image_run, vector_run
from sscl_experiments.variants import with_seeds

# What features are compared with the eigenvectors of the augmentation graph. Not tuned. Kernel and
# BatchNorm are crossed, so that what either does can be told.
SPECTRAL = {
    "spectral": Setting(loss=SpectralContrastive(), batchnorm=False),
    "cosine": Setting(loss=InfoNCE(temperature=0.5), batchnorm=False),
    "cosine, BatchNorm": Setting(loss=InfoNCE(temperature=0.5), batchnorm=True),
    "t joint": Setting(loss=TSimCLR(temperature=0.5), batchnorm=False),
    "t joint, BatchNorm": Setting(loss=TSimCLR(temperature=0.5), batchnorm=True),
}
# t-SNE's similarity on the feature plane, as t-SimCNE has it (Böhm et al. 2023).
CAUCHY = Setting(
    loss=TSimCLR(temperature=1.0, df=1.0, normalization="conditional"), batchnorm=False
)
# SNE's similarity exp(-‖z - z'‖²).
GAUSSIAN = Setting(
    loss=TSimCLR(temperature=0.5, df=math.inf, normalization="conditional"), batchnorm=False
)
COSINE = Setting(loss=InfoNCE(temperature=0.1), batchnorm=False)
SIMILARITIES = {"cosine": COSINE, "Gaussian": GAUSSIAN, "Cauchy": CAUCHY}
PLANE = Cloud(dim=2, components=3, std=0.2, n_train=100)
# Six components at equal distances: in fewer than five dimensions there is no room for that.
CROWDED = Points(
    points=Cloud(dim=5, components=6, std=0.2, n_train=100), augmentation=(Noise(scale=0.3),)
)
DIMS = (2, 3, 5)
NOISES = (0.2, 0.4, 0.8)
BASE = ("plane, σ=0.4", "Gaussian", 2)  # what the claim is decided on
DIGITS_NOISE = 2.0  # in standard deviations of a pixel
IMAGE_NOISE = 3.0  # of pixels in [0, 1]: with little a view tells of which image it is
IMAGES = 100
CROPS = 256  # of each image, by which its views' density is averaged
FitKey = tuple[str, str, int]  # data, similarity, d_z


class AugmentationGraph(Parameters):
    """Sizes, and how many seeds each part has.

    Spectra: `seeds` clouds of `points` points and splits of the table `table`, with networks that
    are trained for `steps`; edges of the table's graph from `draws` views of each row.
    Density ratios: `seeds` networks on each set of points, trained for `fit_steps`, `pairs` pairs
    of views of either kind. The notebook trains both, and they are not kept.
    Maps: `map_seeds` networks on `n_train` of the embedded images for `image_epochs`.
    """

    points: Annotated[int, Field(ge=20, le=2000)]
    table: Literal["iris", "wine", "breast_cancer", "digits"]
    steps: PositiveInt
    draws: Annotated[int, Field(ge=2)]
    fit_steps: PositiveInt
    pairs: Annotated[int, Field(ge=20, le=20_000)]
    map_seeds: PositiveInt
    image_epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=10_000)]

    def spectral_runs(self) -> dict[tuple[str, str], list[TrainConfig]]:
        """(data, loss) and its runs: noise on a cloud in the plane, corruption of the table."""
        cloud = Cloud(dim=2, components=3, std=0.2, n_train=self.points)
        noisy = Points(points=cloud, augmentation=(Noise(scale=0.3),))
        corrupted = Points(points=Table(table=self.table), augmentation=(Corruption(rate=0.6),))
        few = {name: SPECTRAL[name] for name in ("spectral", "cosine", "t joint, BatchNorm")}
        data = {
            "cloud, noise": (noisy, 6, SPECTRAL),
            f"{self.table}, corruption": (corrupted, 10, few),
        }
        runs = {}
        for name, (points, dim, settings) in data.items():
            for loss, setting in settings.items():
                first = vector_run(points, setting, dim, self.steps, self.seed, batch=64)
                runs[name, loss] = with_seeds(often_looked_at(first), self.seed_range)
        return runs

    def plane_runs(self, wrong: Agnostic | None = None) -> dict[FitKey, list[TrainConfig]]:
        """Noise of three sizes on points in the plane; or, on the same points, a wrong step."""
        steps: dict[str, Agnostic] = {f"plane, σ={scale:g}": Noise(scale=scale) for scale in NOISES}
        if wrong is not None:
            steps = {"plane, mixup": wrong}
        data = {name: Points(points=PLANE, augmentation=(step,)) for name, step in steps.items()}
        return {(name, "Gaussian", 2): self._fit(own, GAUSSIAN, 2) for name, own in data.items()}

    def mixup_runs(self) -> dict[FitKey, list[TrainConfig]]:
        return self.plane_runs(Mixup(strength=1.0))

    def crowded_runs(self) -> dict[FitKey, list[TrainConfig]]:
        """Three similarities in two to five dimensions, on points that need five."""
        runs = {}
        for name, setting in SIMILARITIES.items():
            for dim in DIMS:
                runs["six components", name, dim] = self._fit(CROWDED, setting, dim)
        return runs

    def digits_runs(self) -> dict[FitKey, list[TrainConfig]]:
        """Handwritten digits of 8×8 pixels as vectors, seen through noise: P is exact.

        As long as all others, and five times as long: is what is missing only training?
        """
        noise = (Noise(scale=DIGITS_NOISE),)
        digits = Points(points=Table(table="digits"), augmentation=noise)
        longer = {"digits": 1, "digits, longer": 5}
        return {
            (name, "Gaussian", 8): self._fit(digits, GAUSSIAN, 8, times)
            for name, times in longer.items()
        }

    def _fit(
        self, points: Points, setting: Setting, dim: int, longer: int = 1
    ) -> list[TrainConfig]:
        steps = longer * self.fit_steps
        first = vector_run(points, setting, dim, steps, self.seed, batch=64)
        return with_seeds(first, self.seed_range)

    def image_fit_runs(self) -> list[TrainConfig]:
        """Small networks on a hundred images, cropped and then seen through noise."""
        views = ImageAugmentation(crop_scale=(0.7, 1.0), flip=0.0, then=(Noise(scale=IMAGE_NOISE),))
        first = TrainConfig(
            data=Images(n_train=IMAGES, augmentation=views),
            backbone=MLP(width=256),
            projector=Projector(hidden=0, dim=8),
            loss=GAUSSIAN.loss,
            optimizer=Optimizer(lr=3e-3),
            epochs=math.ceil(self.fit_steps / 3),
            batch_size=50,
            seed=self.seed,
        )
        return with_seeds(first, self.seed_range)

    def map_runs(self) -> dict[str, list[TrainConfig]]:
        """A method and its runs in two dimensions.

        SimCLR and t-SimCLR are those of notebook 05 at equal sizes.
        """
        images = Images(n_train=self.n_train, augmentation=AUGMENTATION)
        runs = {}
        for name, setting in (METHODS | {"Cauchy": CAUCHY}).items():
            first = image_run(setting, images, dim=2, epochs=self.image_epochs, seed=self.seed)
            runs[name] = with_seeds(first, self.first_seeds(self.map_seeds))
        return runs

    def runs(self) -> list[TrainConfig]:
        return [run for runs in self.map_runs().values() for run in runs]


def often_looked_at(config: TrainConfig) -> TrainConfig:
    """The same training in epochs of at most ten steps: what is seen in training is seen then."""
    assert isinstance(config.data, Points)
    steps = config.epochs * config.data.steps_per_epoch
    per_epoch = max(k for k in range(1, 11) if steps % k == 0)
    data = config.data.replace(steps_per_epoch=per_epoch)
    return config.replace(data=data, epochs=steps // per_epoch)
