"""TODO"""

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
from sscl_experiments.settings import AUGMENTATION, CAUCHY, METHODS, Setting, image_run, vector_run

# What features are compared with the eigenvectors of the augmentation graph. Not tuned.
SPECTRAL = {
    "spectral": Setting(loss=SpectralContrastive(), batchnorm=False),
    "SimCLR": Setting(loss=InfoNCE(temperature=0.5), batchnorm=False),
    "t-SimCLR": Setting(loss=TSimCLR(temperature=0.5), batchnorm=True),
}


class AugmentationGraph(Parameters):
    """07: spectra over `seeds` of a cloud of `points` points and of the table `table`, networks trained for `steps`, which takes the
    notebook seconds and is not kept; maps by `map_seeds` networks on `n_train` of the embedded images for `image_epochs`."""

    points: Annotated[int, Field(ge=20, le=2000)]
    table: Literal["iris", "wine", "breast_cancer", "digits"]
    steps: PositiveInt
    map_seeds: PositiveInt
    image_epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=10_000)]

    def spectral_runs(self) -> dict[tuple[str, str], list[TrainConfig]]:
        """(data, loss) and its runs: noise on the cloud in the plane, corruption of the table's columns."""
        cloud = Points(
            points=Cloud(dim=2, components=3, std=0.2, n_train=self.points),
            augmentation=(Noise(scale=0.3),),
        )
        table = Points(points=Table(table=self.table), augmentation=(Corruption(rate=0.6),))
        return {
            (name, loss): [
                vector_run(data, setting, dim, self.steps, seed, batch=64)
                for seed in self.seed_range
            ]
            for name, data, dim in (
                ("cloud, noise", cloud, 6),
                (f"{self.table}, corruption", table, 10),
            )
            for loss, setting in SPECTRAL.items()
        }

    def map_runs(self) -> dict[str, list[TrainConfig]]:
        """A method and its runs in two dimensions; SimCLR and t-SimCLR are those of notebook 05 at equal sizes."""
        images = Images(n_train=self.n_train, augmentation=AUGMENTATION)
        seeds = range(self.seed, self.seed + self.map_seeds)
        settings = METHODS | {"Cauchy": CAUCHY}
        return {
            name: [
                image_run(setting, images, dim=2, epochs=self.image_epochs, seed=seed)
                for seed in seeds
            ]
            for name, setting in settings.items()
        }

    def runs(self) -> list[TrainConfig]:
        return [run for runs in self.map_runs().values() for run in runs]
