"""What the notebook computes: nothing that is kept; its networks are trained in the notebook."""

from typing import Annotated

from pydantic import Field, PositiveInt

from sscl_core.config import Cloud, Noise, Points, TrainConfig
from sscl_experiments.parameters import Parameters
from sscl_experiments.settings import METHODS, Setting, vector_run

# Six components at equal distances in five dimensions: the plane has no room for all of them.
POINTS = Points(
    points=Cloud(dim=5, components=6, std=0.2, n_train=120), augmentation=(Noise(scale=0.3),)
)


class LossFamily(Parameters):
    """`seeds` batches of `pairs` pairs of features; networks trained for `steps` on one a seed."""

    pairs: Annotated[int, Field(ge=4, le=1000)]
    steps: PositiveInt

    def training(self, seed: int, *, batchnorm: bool) -> TrainConfig:
        """Network, data and steps of a seed. The loss is the family's, not that of the run."""
        setting = Setting(loss=METHODS["SimCLR"].loss, batchnorm=batchnorm)
        return vector_run(POINTS, setting, 2, self.steps, seed)

    def runs(self) -> list[TrainConfig]:
        return []
