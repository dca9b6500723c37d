"""Configurations of the two kinds of runs that measure what training did not see."""

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from sscl_core.config import Images, Mixture, Point, TrainConfig


class StressedImages(Images):
    """Images whose first `tested` test images are corrupted, and first `attacked` are attacked.

    First in a fixed shuffle. Without attacked ones there are no local Lipschitz constants either.
    """

    tested: Annotated[int, Field(ge=10)] = 300
    attacked: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _enough(self) -> "StressedImages":
        if self.attacked > self.tested:
            raise ValueError(f"attacked must be at most tested, {self.tested}, got {self.attacked}")
        return self


class RobustRun(TrainConfig):
    """A run on images, looked at under corruptions and attacks.

    `supervised`: by cross-entropy on the labels of the same views; z are the logits, so the
    projector must be linear, with as many outputs as there are classes.
    """

    data: StressedImages = StressedImages()
    supervised: bool = False

    @model_validator(mode="after")
    def _has_logits(self) -> "RobustRun":
        if self.supervised and (self.projector.hidden or self.projector.batchnorm):
            raise ValueError("projector must be linear, without BatchNorm, where z are logits")
        return self


class UnseenMixture(Mixture):
    """A mixture beside components `unseen` that no training step draws from."""

    unseen: Annotated[tuple[Point, ...], Field(min_length=1)]
    support: PositiveInt = 10  # labelled draws of every component
    queries: PositiveInt = 40


class UnseenRun(TrainConfig):
    """A run on a mixture, looked at on components that it was not trained on."""

    data: UnseenMixture
