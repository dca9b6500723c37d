"""What is measured: sizes of batches and of all else, and how long it may take."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from sscl_core.config import TrainConfig
from sscl_experiments.parameters import Parameters

Rows = Annotated[int, Field(ge=4, multiple_of=2)]
Network = Literal["conv net, 28×28", "ResNet-18, 32×32"]
USUAL_DIM = 128  # what most targets are about


def usual(dims: Sequence[int]) -> int:
    """The number of features that is shown where only one is."""
    return USUAL_DIM if USUAL_DIM in dims else dims[-1]


class Performance(Parameters):
    """`seeds` is how often each measurement is repeated; inputs are drawn by the first of them.

    Losses see batches of 2n = `rows` rows of `dims` features, on `threads` threads (a GPU takes
    what it takes). A method is not run where it is expected to need more than `most_gib` GiB or
    more than `most_seconds` seconds a call; all repeats of one comparison share `patience` seconds,
    but are three at least. `fit_from`: the smallest 2n that enters a fitted exponent.
    """

    rows: Annotated[tuple[Rows, ...], Field(min_length=1)]
    dims: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    threads: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    fit_from: PositiveInt
    most_gib: PositiveFloat
    most_seconds: PositiveFloat
    patience: PositiveFloat
    neighbors: tuple[Annotated[int, Field(ge=10)], PositiveInt]
    points: Annotated[int, Field(ge=40)]
    images: PositiveInt
    ensemble: PositiveInt
    steps: PositiveInt
    networks: Annotated[tuple[Network, ...], Field(min_length=1)]
    pairs: Annotated[int, Field(ge=2)]
    evaluated: Annotated[int, Field(ge=50, le=8_000)]

    @property
    def main_dim(self) -> int:
        return usual(self.dims)

    def runs(self) -> list[TrainConfig]:
        """None: what a training run measures does not depend on how long it takes."""
        return []
