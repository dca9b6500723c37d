"""What the notebook runs: SimCLR on mixtures of Gaussians in the plane."""

from typing import Annotated

from pydantic import Field, PositiveInt

from sscl_core.config import MLP, InfoNCE, Mixture, Optimizer, Projector, TrainConfig, scattered
from sscl_experiments.parameters import Parameters

COMPONENTS = 5  # of the mixture that is drawn
# (m, d_z): on the circle, and where it is another, on the smallest sphere with room for a simplex.
SETTINGS = ((3, 2), (5, 2), (8, 2), (5, 4), (8, 7))


class ContrastiveIsSNE(Parameters):
    """`batch` pairs for the identities; training takes `epochs` of `steps_per_epoch` steps."""

    batch: Annotated[int, Field(ge=2, le=512)]
    epochs: PositiveInt
    steps_per_epoch: PositiveInt

    def run(self, m: int, dim: int, seed: int) -> TrainConfig:
        """SimCLR on the mixture of m components with `dim` features."""
        means = scattered(m)
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

    def mixture_runs(self) -> dict[tuple[int, int], list[TrainConfig]]:
        """The runs of every setting (m, d_z), one a seed."""
        return {
            (m, dim): [self.run(m, dim, seed) for seed in self.seed_range] for m, dim in SETTINGS
        }

    def runs(self) -> list[TrainConfig]:
        return [run for runs in self.mixture_runs().values() for run in runs]
