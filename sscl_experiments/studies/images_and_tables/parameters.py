"""What the notebook runs: views of images, and tables by augmentation, strength and budget."""

import itertools
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, PositiveInt

from sscl_core.config import (
    MLP,
    Agnostic,
    Corruption,
    ImageAugmentation,
    Images,
    Masking,
    Mixup,
    Noise,
    Points,
    Table,
    TrainConfig,
)
from sscl_experiments.covariance_config import COVARIANCE, whitened
from sscl_experiments.parameters import Parameters
from sscl_experiments.settings import AUGMENTATION, METHODS, image_run, vector_run
from sscl_experiments.variants import untrained, with_seeds

TableName = Literal["iris", "wine", "breast_cancer", "digits"]
BudgetName = Literal["small", "medium", "large"]
TableKey = tuple[str, str, float, str]  # table, augmentation, strength, budget
DIM = 16  # of the projection that is compared on tables


class Budget(NamedTuple):
    """Width of the two hidden layers, pairs a batch, and steps as a multiple of the scale's."""

    width: int
    batch: int
    longer: int


class ImagesAndTables(Parameters):
    """Sizes, and how many seeds each part has.

    Tables: `seeds` splits of each of `tables`. At the small budget, which trains for `steps`, every
    strength of every augmentation is tried; at the others in `budgets` those of `LARGER_STEPS`.
    Images: `image_seeds` networks a kind of view, on `n_train` of the embedded images for
    `image_epochs`.
    """

    tables: Annotated[tuple[TableName, ...], Field(min_length=1)]
    steps: PositiveInt
    budgets: Annotated[tuple[BudgetName, ...], Field(min_length=1)]
    image_seeds: PositiveInt
    image_epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=10_000)]

    def table_runs(self) -> dict[TableKey, list[TrainConfig]]:
        """(table, augmentation, strength, budget) and its runs, all of SimCLR."""
        runs: dict[TableKey, list[TrainConfig]] = {}
        for table, budget in itertools.product(dict.fromkeys(self.tables), self.budgets):
            steps = TABLE_STEPS if budget == "small" else LARGER_STEPS
            for strength, step in steps:
                key = (table, step.name, strength, budget)
                runs[key] = self._table_group(table, step, budget)
        return runs

    def covariance_runs(self) -> dict[TableKey, list[TrainConfig]]:
        """(table, "covariance noise", strength, "small") and its runs.

        The noise is isotropic in whitened coordinates.
        """
        runs: dict[TableKey, list[TrainConfig]] = {}
        for table in dict.fromkeys(self.tables):
            for strength in COVARIANCE_STRENGTHS:
                step = Noise(scale=strength)
                group = self._table_group(table, step, "small")
                runs[table, COVARIANCE, strength, "small"] = whitened(group)
        return runs

    def untrained_runs(self) -> dict[str, list[TrainConfig]]:
        """The networks of the small budget before training, by table; one a split."""
        step = Corruption(rate=0.6)
        tables = dict.fromkeys(self.tables)
        return {name: untrained(self._table_group(name, step, "small")) for name in tables}

    def _table_group(
        self, table: TableName, step: Agnostic, budget: BudgetName
    ) -> list[TrainConfig]:
        points = Points(points=Table(table=table), augmentation=(step,))
        width, batch, longer = BUDGETS[budget]
        steps, backbone = longer * self.steps, MLP(width=width)
        method = METHODS["SimCLR"]
        first = vector_run(points, method, DIM, steps, self.seed, backbone=backbone, batch=batch)
        return with_seeds(first, self.seed_range)

    def view_runs(self) -> dict[str, list[TrainConfig]]:
        """A kind of view of images and its runs; "untrained" too."""
        runs = {}
        for name, views in (IMAGE_VIEWS | {"untrained": AUGMENTATION}).items():
            images = Images(n_train=self.n_train, augmentation=views)
            epochs = 0 if name == "untrained" else self.image_epochs
            first = image_run(
                METHODS["SimCLR"], images, dim=32, epochs=epochs, seed=self.seed, width=8
            )
            runs[name] = with_seeds(first, self.first_seeds(self.image_seeds))
        return runs

    def runs(self) -> list[TrainConfig]:
        groups = [
            *self.view_runs().values(),
            *self.table_runs().values(),
            *self.covariance_runs().values(),
            *self.untrained_runs().values(),
        ]
        return [run for runs in groups for run in runs]


BUDGETS = {
    "small": Budget(width=64, batch=32, longer=1),
    "medium": Budget(width=128, batch=128, longer=3),
    "large": Budget(width=256, batch=256, longer=4),
}
# Three strengths of each augmentation, among which the validation part decides. At the larger
# budgets one strength of the two that were best in validation at the small one.
TABLE_STEPS: list[tuple[float, Agnostic]] = [
    *((scale, Noise(scale=scale)) for scale in (0.1, 0.3, 1.0)),
    *((strength, Mixup(strength=strength)) for strength in (0.2, 0.5, 1.0)),
    *((rate, Masking(rate=rate)) for rate in (0.1, 0.3, 0.6)),
    *((rate, Corruption(rate=rate)) for rate in (0.1, 0.3, 0.6)),
]
LARGER_STEPS: list[tuple[float, Agnostic]] = [
    (1.0, Noise(scale=1.0)),
    (0.3, Masking(rate=0.3)),
]
COVARIANCE_STRENGTHS = (0.1, 0.3, 1.0)


def _image_views() -> dict[str, ImageAugmentation]:
    """Crop, noise, mixup, masking, every pair of them, and last the views of notebook 05.

    Each has one strength wherever it occurs, which was not tuned, and a crop comes first.
    """
    steps: dict[str, Agnostic] = {
        "noise": Noise(scale=0.2),
        "mixup": Mixup(strength=0.5),
        "masking": Masking(rate=0.3),
    }
    views: dict[str, ImageAugmentation] = {}
    for first, second in itertools.combinations_with_replacement(("crop", *steps), 2):
        parts = [first] if first == second else [first, second]
        then = tuple(steps[part] for part in parts if part in steps)
        crop_scale = AUGMENTATION.crop_scale if "crop" in parts else (1.0, 1.0)
        views[" + ".join(parts)] = ImageAugmentation(crop_scale=crop_scale, flip=0.0, then=then)
    return views | {"crop + jitter": AUGMENTATION}


IMAGE_VIEWS = _image_views()
