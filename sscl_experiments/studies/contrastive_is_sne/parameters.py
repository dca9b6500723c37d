"""TODO"""

from typing import Annotated

from pydantic import Field, PositiveInt

from sscl_core.config import MLP, InfoNCE, Mixture, Optimizer, Projector, TrainConfig, scattered
from sscl_experiments.parameters import Parameters


class ContrastiveIsSNE(Parameters):
    """01: `batch` pairs for the identities, `epochs` of `steps_per_epoch` steps for training on the mixture."""

    batch: Annotated[int, Field(ge=2, le=512)]
    epochs: PositiveInt
    steps_per_epoch: PositiveInt

    def run(self, dim: int, seed: int) -> TrainConfig:
        return TrainConfig(
            data=Mixture(means=scattered(5), std=0.1, steps_per_epoch=self.steps_per_epoch),
            backbone=MLP(width=128, depth=2),
            projector=Projector(hidden=0, dim=dim),
            loss=InfoNCE(temperature=0.5),
            optimizer=Optimizer(lr=3e-3),
            epochs=self.epochs,
            batch_size=128,
            seed=seed,
        )

    def runs(self) -> list[TrainConfig]:
        return [self.run(dim, seed) for dim in (2, 4) for seed in self.seed_range]
