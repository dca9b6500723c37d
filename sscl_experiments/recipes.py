"""How networks are trained on millions of photographs. No PyTorch: that is `pretrain`'s."""

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from sscl_core.config import Frozen, as_number


class Recipe(Frozen):
    """A training run on photographs.

    objective: `pairs`, SimCLR and t-SimCLR with the negatives of all processes; `queue`, MoCo-v2
    and t-MoCo. similarity: `cosine`, on the sphere, or `student`, with BatchNorm on z and `df`
    degrees of freedom. `batch` is that of all processes together. `tiny` is a network without
    BatchNorm for rehearsals. BatchNorm of a queue's networks is over `group` images.
    """

    objective: Literal["pairs", "queue"]
    similarity: Literal["cosine", "student"]
    backbone: Literal["tiny", "resnet18", "resnet50"] = "resnet50"
    size: Annotated[int, Field(ge=8)] = 224
    epochs: PositiveInt = 200
    batch: Annotated[int, Field(ge=2)] = 256
    group: Annotated[int, Field(ge=2)] = 32
    lr: PositiveFloat = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    temperature: PositiveFloat = 0.2
    df: Annotated[float, Field(gt=0, allow_inf_nan=True), BeforeValidator(as_number)] = 5.0
    hidden: PositiveInt = 2048
    dim: PositiveInt = 128
    queue: PositiveInt = 65536
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.999
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _divides(self) -> "Recipe":
        if self.objective == "queue" and (self.batch % self.group or self.batch == self.group):
            rule = f"a multiple of group = {self.group}, two groups or more: keys are dealt to them"
            raise ValueError(f"batch must be {rule}, got {self.batch}")
        return self


_QUEUE = Recipe(objective="queue", similarity="cosine")
_PAIRS = Recipe(objective="pairs", similarity="cosine", batch=1024, lr=0.4, warmup_epochs=10)
RECIPES = {
    # MoCo-v2 as published, and the authors' change to it: ν = 5, τ = .2, queue 65536, lr .03,
    # batch 256, BatchNorm without affine parameters in the place of the sphere.
    "moco-v2": _QUEUE,
    "t-moco-v2": _QUEUE.replace(similarity="student", df=5.0),
    "gaussian-moco-v2": _QUEUE.replace(similarity="student", df=math.inf),
    # Not the authors': they released no SimCLR for ImageNet. Not tuned.
    "simclr": _PAIRS,
    "t-simclr": _PAIRS.replace(similarity="student", df=5.0),
}


def small(recipe: Recipe) -> Recipe:
    """The same in small, for a rehearsal on a CPU with a few hundred images."""
    sizes = {"size": 32, "epochs": 1, "batch": 16, "group": 4, "hidden": 32, "dim": 16}
    return recipe.replace(backbone="tiny", queue=37, warmup_epochs=0.0, **sizes)
