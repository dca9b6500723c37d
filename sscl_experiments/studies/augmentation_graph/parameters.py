"""What the notebook runs: networks whose features are compared with eigenvectors, and maps."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from sscl_core.config import (
    Cloud,
    Corruption,
    Images,
    InfoNCE,
    Noise,
    Points,
    SpectralContrastive,
    Table,
    TrainConfig,
    TSimCLR,
)
from sscl_experiments.parameters import Parameters
from sscl_experiments.settings import AUGMENTATION, METHODS, Setting, image_run, vector_run
from sscl_experiments.variants import with_seeds

# What features are compared with the eigenvectors of the augmentation graph. Not tuned.
SPECTRAL = {
    "spectral": Setting(loss=SpectralContrastive(), batchnorm=False),
    "SimCLR": Setting(loss=InfoNCE(temperature=0.5), batchnorm=False),
    "t-SimCLR": Setting(loss=TSimCLR(temperature=0.5), batchnorm=True),
}
# t-SNE's similarity on the feature plane, as t-SimCNE has it (Böhm et al. 2023).
CAUCHY = Setting(
    loss=TSimCLR(temperature=1.0, df=1.0, normalization="conditional"), batchnorm=False
)


class AugmentationGraph(Parameters):
    """Sizes, and how many seeds each part has.

    Spectra: `seeds` clouds of `points` points and splits of the table `table`, with networks that
    are trained for `steps`: the notebook does that in seconds, and they are not kept.
    Maps: `map_seeds` networks on `n_train` of the embedded images for `image_epochs`.
    """

    points: Annotated[int, Field(ge=20, le=2000)]
    table: Literal["iris", "wine", "breast_cancer", "digits"]
    steps: PositiveInt
    map_seeds: PositiveInt
    image_epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=10_000)]

    def spectral_runs(self) -> dict[tuple[str, str], list[TrainConfig]]:
        """(data, loss) and its runs: noise on a cloud in the plane, corruption of the table."""
        cloud = Cloud(dim=2, components=3, std=0.2, n_train=self.points)
        noisy = Points(points=cloud, augmentation=(Noise(scale=0.3),))
        corrupted = Points(points=Table(table=self.table), augmentation=(Corruption(rate=0.6),))
        data = {"cloud, noise": (noisy, 6), f"{self.table}, corruption": (corrupted, 10)}
        runs = {}
        for name, (points, dim) in data.items():
            for loss, setting in SPECTRAL.items():
                first = vector_run(points, setting, dim, self.steps, self.seed, batch=64)
                runs[name, loss] = with_seeds(first, self.seed_range)
        return runs

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
