"""What every notebook can be asked, and what is said where an answer is wrong."""

import itertools
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator

from sscl_core.config import Frozen, TrainConfig

from .paths import folder

LAST_SEED = 2**32 - 1  # that scikit-learn takes


class Parameters(Frozen):
    """What every notebook takes: seeds, the device, and where data and results are.

    `seeds` is how many there are, from `seed` on.

    Folders are made absolute: a notebook may run elsewhere. One for data must exist.
    """

    scale: Literal["smoke", "quick", "full"]
    seeds: PositiveInt
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data_dir: str | None = None
    results_dir: str | None = None

    # Patterns of files in data/records that the notebook shows beside its own.
    records: ClassVar[tuple[str, ...]] = ()

    @field_validator("data_dir")
    @classmethod
    def _is_there(cls, value: str | None) -> str | None:
        return None if value is None else str(folder("data_dir", value))

    @field_validator("results_dir")
    @classmethod
    def _can_be_made(cls, value: str | None) -> str | None:
        return None if value is None else str(folder("results_dir", value, new=True))

    @model_validator(mode="after")
    def _seeds_in_range(self) -> "Parameters":
        last = self.seed + max(getattr(self, name) for name in self._numbers_of_seeds()) - 1
        if last > LAST_SEED:
            rule = f"such that the last seed is at most {LAST_SEED}"
            raise ValueError(f"seed must be {rule}, got {last}")
        return self

    @classmethod
    def _numbers_of_seeds(cls) -> list[str]:
        return [name for name in cls.model_fields if name == "seeds" or name.endswith("_seeds")]

    @property
    def seed_range(self) -> range:
        return self.first_seeds(self.seeds)

    def first_seeds(self, number: int) -> range:
        """`number` seeds from `seed` on."""
        return range(self.seed, self.seed + number)

    @property
    def larger_sets(self) -> tuple[str, ...]:
        """Image sets that are not embedded and that the notebook reads whatever runs there are."""
        return ()

    def require_data(self) -> None:
        """Reads the larger sets once.

        So a notebook stops at its start, not after an hour, where one is neither at hand nor to be
        downloaded. Errors: those of `load_images`.
        """
        # Here, since it imports PyTorch, which plans do without.
        from sscl_experiments.datasets.images import SPLITS, load_images

        for name, split in itertools.product(self.larger_sets, SPLITS):
            load_images(name, split, data_dir=self.data_dir)

    def runs(self) -> list[TrainConfig]:
        raise NotImplementedError

    def require_runs(self) -> None:
        """`ValueError` where a run of these parameters breaks a rule of its configuration."""
        one_seed = self.replace(**dict.fromkeys(self._numbers_of_seeds(), 1))
        try:
            one_seed.runs()
        except ValidationError as error:
            raise ValueError(f"they ask for a run that cannot be: {explain(error)}") from None


def explain(error: Exception) -> str:
    """Missing sizes are left out: they only follow from a scale that is unknown."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(_problem(dict(e)) for e in error.errors() if e["type"] != "missing")


def _problem(error: dict[str, Any]) -> str:
    """What the rule says; where it is about one parameter, after its name and value."""
    said = error["msg"].removeprefix("Value error, ")
    name = ".".join(map(str, error["loc"]))
    return f"{name} = {error['input']!r}: {said[0].lower()}{said[1:]}" if name else said
