"""What notebook 06 can be asked, and the runs that follow from it."""

import itertools
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from sscl_core.config import TrainConfig
from sscl_experiments.parameters import Parameters
from sscl_experiments.runs.transfer_config import TargetName, TransferRun
from sscl_experiments.variants import untrained

from .methods import METHODS, SOURCES, Source, transfer_run
from .searches import tuned

UNTRAINED, PIXELS = "untrained", "raw pixels"
# Those of which the claims speak.
CONTRAST = ("SimCLR", "t-SimCLR", "MoCo, BatchNorm", "t-MoCo")
EMBEDDED = "fashion_mnist_subset"
SHAPES = {source: (3, 32, 32) if "cifar" in source else (1, 28, 28) for source in SOURCES}
Handwritten = Literal["digits", "mnist", "usps"]
Runs = dict[tuple[str, str, int], list[TransferRun]]


class Transfer(Parameters):
    """06: networks trained on each of `sources`, and judged, frozen, on other sets.

    Every method is trained for the last of `epochs` on the first `n_train` images of a source (0:
    all). Those of the claims are trained for the other lengths too: a verdict counts where the last
    two agree. `shots`: labelled images of each class of a target (0: all that it has). Networks
    that were trained on clothes are judged on each of `handwritten`.
    """

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    epochs: Annotated[tuple[PositiveInt, ...], Field(min_length=2)]
    n_train: Annotated[int, Field(ge=0)]
    shots: Annotated[int, Field(ge=0)]
    handwritten: Annotated[tuple[Handwritten, ...], Field(min_length=1)]

    records: ClassVar[tuple[str, ...]] = ("search_transfer.csv",)

    @model_validator(mode="after")
    def _in_order(self) -> "Transfer":
        if list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError(f"epochs must be increasing, got {self.epochs}")
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"sources must be distinct, got {self.sources}")
        return self

    @property
    def larger_sets(self) -> tuple[str, ...]:
        """Those sources that are not embedded."""
        return tuple(source for source in self.sources if source != EMBEDDED)

    def require_data(self) -> None:
        """Reads sources that are not embedded, and all targets, once. Errors: `load_target`'s."""
        super().require_data()
        # Here, since it imports PyTorch, which plans do without.
        from sscl_experiments.datasets.targets import load_target

        for source, names in self.targets().items():
            for name in names:
                shape = SHAPES[source]
                load_target(name, shape, shots=self.shots, data_dir=self.data_dir)

    def targets(self) -> dict[str, tuple[TargetName, ...]]:
        """What is judged on, by source."""
        clothes: tuple[TargetName, ...] = tuple(dict.fromkeys(self.handwritten))
        return {
            source: clothes if SHAPES[source][0] == 1 else SOURCES[source].targets
            for source in self.sources
        }

    def run(self, method: str, source: Source, epochs: int, seed: int) -> TransferRun:
        """With the setting that the search chose for this method."""
        return transfer_run(
            method,
            tuned(method),
            source,
            epochs=epochs,
            n_train=self.n_train or None,
            shots=self.shots,
            targets=self.targets()[source],
            seed=seed,
        )

    def transfer_runs(self) -> Runs:
        """(source, method, epochs) and its runs, one a seed; untrained at 0 epochs."""
        runs: Runs = {}
        last = self.epochs[-1]
        for source, method in itertools.product(self.sources, METHODS):
            lengths = self.epochs if method in CONTRAST else (last,)
            for epochs in lengths:
                seeds = self.seed_range
                runs[source, method, epochs] = [
                    self.run(method, source, epochs, seed) for seed in seeds
                ]
        for source in self.sources:
            # SimCLR's network before the first step: that of t-SimCLR, too, on h.
            first = untrained(runs[source, "SimCLR", last])
            runs[source, UNTRAINED, 0] = [run for run in first if isinstance(run, TransferRun)]
        return runs

    def runs(self) -> list[TrainConfig]:
        return list(itertools.chain.from_iterable(self.transfer_runs().values()))
