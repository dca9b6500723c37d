"""Configurations of runs whose features are judged on other images. No PyTorch: plans use it."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from sscl_core.config import Images, SpectralContrastive, TrainConfig, TSimCLR

TargetName = Literal["digits", "mnist", "usps", "fashion_mnist", "cifar10", "cifar100"]
# How a network is trained: on pairs of views, against a queue of keys, with labels.
Objective = Literal["pairs", "queue", "labels"]


class TransferImages(Images):
    """Images to train on, and the sets that the frozen backbone is then judged on.

    `shots`: labelled images of a class of a target that probe and neighbors have (0: all that the
    target's split for that holds).
    """

    targets: tuple[TargetName, ...] = ()
    shots: Annotated[int, Field(ge=0)] = 0


class TransferRun(TrainConfig):
    """A run that is judged on other images than it was trained on.

    objective: `pairs`, SimCLR and t-SimCLR; `queue`, MoCo-v2 and t-MoCo; `labels`, cross-entropy of
    a linear head on h, on the same views. `queue_size`, `momentum` and `groups` are the queue's
    (see `sscl_core.moco`).
    """

    data: TransferImages = TransferImages()
    objective: Objective = "pairs"
    queue_size: PositiveInt = 1024
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    groups: PositiveInt = 8

    @model_validator(mode="after")
    def _has_this_objective(self) -> "TransferRun":
        if self.objective != "queue":
            return self
        if self.batch_size < 2 * self.groups:
            rule = f"at least {2 * self.groups}, two images for each of {self.groups} groups"
            raise ValueError(f"batch_size must be {rule}, got {self.batch_size}")
        learns = isinstance(self.loss, TSimCLR) and self.loss.learn_df
        if self.weights or learns or isinstance(self.loss, SpectralContrastive):
            rule = "info_nce or t_simclr, without weights and learn_df, where there is a queue"
            raise ValueError(f"loss must be {rule}, got {self.loss}")
        return self
