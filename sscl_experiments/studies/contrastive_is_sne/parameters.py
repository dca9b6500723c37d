"""What the notebook runs: SimCLR on a mixture of five Gaussians in the plane."""

from typing import Annotated

from pydantic import Field, PositiveInt

from sscl_core.config import MLP, InfoNCE, Mixture, Optimizer, Projector, TrainConfig, scattered
from sscl_experiments.parameters import Parameters

COMPONENTS = 5
DIMS = (2, 4)  # d_z: the circle, and the smallest sphere that has room for a simplex of five


class ContrastiveIsSNE(Parameters):
    """`batch` pairs for the identities; training takes `epochs` of `steps_per_epoch` steps."""

    batch: Annotated[int, Field(ge=2, le=512)]
    epochs: PositiveInt
    steps_per_epoch: PositiveInt

    def run(self, dim: int, seed: int) -> TrainConfig:
        """SimCLR on the mixture with `dim` features."""
        means = scattered(COMPONENTS)
        return TrainConfig(
            data=Mixture(means=means, std=0.1, steps_per_epoch=self.steps_per_epoch),
            backbone=MLP(width=128, depth=2),
            projector=Projector(hidden=0, dim=dim),
            loss=InfoNCE(temperature=0.5),
            optimizer=Optimizer(lr=3e-3),
            epochs=self.epochs,
            batch_size=128,
            seed=seed,
        )

    def mixture_runs(self) -> dict[int, list[TrainConfig]]:
        """The runs of every number of features, one a seed."""
        return {dim: [self.run(dim, seed) for seed in self.seed_range] for dim in DIMS}

    def runs(self) -> list[TrainConfig]:
        return [run for runs in self.mixture_runs().values() for run in runs]
