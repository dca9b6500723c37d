"""What notebook 10 can be asked, and the runs that follow from it."""

import math
from typing import Annotated, ClassVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
)

from sscl_core.config import Images, PairWeights, TrainConfig, as_number
from sscl_experiments.parameters import Parameters
from sscl_experiments.searches import tuned
from sscl_experiments.settings import AUGMENTATION, image_run
from sscl_experiments.variants import with_seeds

DIM = 32
MILD_CROPS = "70–100 %"
CROPS = {MILD_CROPS: AUGMENTATION.crop_scale, "20–100 %": (0.2, 1.0)}
# Beside the overlap of the crops: how alike the views' pixels are, and how alike the network
# already finds them. Negative temperatures favour the pairs that are least alike.
ALTERNATIVES = [
    PairWeights(score="input", temperature=0.03),
    PairWeights(score="input", temperature=0.1),
    PairWeights(score="features", temperature=0.1),
    PairWeights(score="features", temperature=0.3),
    PairWeights(score="features", temperature=-0.3),
]
Key = tuple[int, str, str, float]  # (epochs, crops, score, τ')


def _weighs_pairs(temperature: float) -> float:
    """The temperature, if `PairWeights` takes it."""
    try:
        return PairWeights(temperature=temperature).temperature
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


PairTemperature = Annotated[
    float, Field(allow_inf_nan=True), BeforeValidator(as_number), AfterValidator(_weighs_pairs)
]


class WeightedPairs(Parameters):
    """10: SimCLR with its positive pairs weighted by the overlap of their crops.

    For each of `lengths`, in epochs on `n_train` of the embedded images, without weights and at
    each temperature τ' of `weights`. With `alternatives` weights of other kinds, and larger crops.
    """

    lengths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    n_train: Annotated[int, Field(ge=200, le=10_000)]
    weights: Annotated[tuple[PairTemperature, ...], Field(min_length=1)]
    alternatives: bool

    records: ClassVar[tuple[str, ...]] = ("search_fashion_mnist_subset.csv",)

    @field_validator("lengths")
    @classmethod
    def _ascend(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError(f"lengths must ascend, got {list(value)}")
        return value

    def unweighted(self, epochs: int, crops: str = MILD_CROPS) -> TrainConfig:
        """SimCLR with the setting that the search chose, whose pairs weigh alike; first seed."""
        augmentation = AUGMENTATION.replace(crop_scale=CROPS[crops])
        images = Images(n_train=self.n_train, augmentation=augmentation)
        return image_run(tuned("SimCLR", DIM), images, dim=DIM, epochs=epochs, seed=self.seed)

    def weight_runs(self) -> dict[Key, list[TrainConfig]]:
        """(epochs, crops, score, τ') and its runs; the score "none" is unweighted."""
        runs: dict[Key, list[TrainConfig]] = {}
        for epochs in reversed(self.lengths):
            for crops in CROPS if self.alternatives else (MILD_CROPS,):
                plain = self.unweighted(epochs, crops)
                runs[epochs, crops, "none", math.inf] = with_seeds(plain, self.seed_range)
                for weights in self._weights(crops):
                    key = (epochs, crops, weights.score, weights.temperature)
                    weighted = plain.replace(weights=weights)
                    runs[key] = with_seeds(weighted, self.seed_range)
        return runs

    def _weights(self, crops: str) -> list[PairWeights]:
        by_overlap = [PairWeights(temperature=temperature) for temperature in self.weights]
        has_others = self.alternatives and crops == MILD_CROPS
        return by_overlap + (ALTERNATIVES if has_others else [])

    def runs(self) -> list[TrainConfig]:
        lists = self.weight_runs().values()
        return list(dict.fromkeys(run for runs in lists for run in runs))
