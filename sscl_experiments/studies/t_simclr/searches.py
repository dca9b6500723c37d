"""TODO"""

import csv
import math
from collections.abc import Sequence
from functools import lru_cache

from pydantic import PositiveFloat

from sscl_core.config import Frozen, Images, InfoNCE, TrainConfig, TSimCLR
from sscl_experiments.paths import RECORDS, committed
from sscl_experiments.settings import (
    AUGMENTATION,
    IMAGE_SETS,
    SUBSET,
    Setting,
    image_run,
)

# The losses of notebook 05, each with and without BatchNorm on z; the search sets their temperature, for every dimension anew.
FORMS = {
    f"{name}{', BatchNorm' if batchnorm else ''}": Setting(loss=loss, batchnorm=batchnorm)
    for name, loss in (
        ("cosine", InfoNCE()),
        ("t joint", TSimCLR(df=5.0, normalization="joint")),
        ("t conditional", TSimCLR(df=5.0, normalization="conditional")),
        ("Euclidean SNE", TSimCLR(df=math.inf, normalization="conditional")),
    )
    for batchnorm in (False, True)
}
# A method is the best of its forms in validation, on the mean over d_z.
FAMILIES = {
    "SimCLR": ("cosine", "cosine, BatchNorm"),
    "t-SimCLR": tuple(form for form in FORMS if form.startswith("t ")),
}
DIMS = (1, 2, 3, 4, 8, 16, 32, 64, 128)
SEARCHED_IMAGES = Images(holdout=0.2, augmentation=AUGMENTATION)
SEARCH_EPOCHS = 3
INITIAL_SCALES = (0.2, 1.0, 5.0, 20.0)  # τ without BatchNorm, where it is no more than that
SCALES_OF_D = (0.005, 0.03, 0.2, 1.0)  # τ / d_z with it
DFS = (0.5, 1.0, 2.0, 5.0, 20.0, math.inf)


class Rule(Frozen):
    """A rule of thumb for t-SimCLR with BatchNorm on z: ν = `df`, τ = `scale` · d_z."""

    df: PositiveFloat = 5.0
    scale: PositiveFloat = 0.03


RULE = Rule()


def temperatures(form: str, dim: int, image_set: str = SUBSET) -> tuple[float, ...]:
    """Those that are searched. On CIFAR-10 four a method; on the embedded set three a form, for cosines, of which there are two forms and
    not four, six. With BatchNorm and without the sphere in units of d_z: two standardised features are at ‖z - z'‖² ≈ 2 d_z."""
    setting, few = FORMS[form], image_set == SUBSET
    if isinstance(setting.loss, InfoNCE):
        return (0.05, 0.1, 0.2, 0.3, 0.5, 1.0) if few else (0.1, 0.2, 0.5, 1.0)
    if setting.batchnorm:
        return tuple(round(scale * dim, 6) for scale in (SCALES_OF_D[:3] if few else SCALES_OF_D))
    return INITIAL_SCALES[:3] if few else INITIAL_SCALES


def search_space(image_set: str = SUBSET) -> dict[tuple[str, int, float], TrainConfig]:
    """(form, d_z, temperature) and its run, evaluated on a fifth of the training set held out. On the embedded set all `FORMS` at all
    `DIMS` (cosines from two on): twelve runs a method of `FAMILIES` and d_z. On cifar10 the forms chosen there, at the two d_z it is for.
    """
    if image_set == SUBSET:
        images, epochs, width = SEARCHED_IMAGES, SEARCH_EPOCHS, 16
        forms: Sequence[str] = list(FORMS)
        dims: Sequence[int] = DIMS
    else:
        images = Images(
            name="cifar10",
            n_train=10_000,
            holdout=0.2,
            augmentation=IMAGE_SETS["cifar10"].augmentation,
        )
        epochs, width, forms, dims = 6, 32, [chosen_form(method) for method in FAMILIES], (2, 64)
    return {
        (form, dim, t): image_run(
            with_temperature(form, t), images, dim=dim, epochs=epochs, seed=0, width=width
        )
        for form in forms
        for dim in dims
        if dim > 1 or not isinstance(FORMS[form].loss, InfoNCE)
        for t in temperatures(form, dim, image_set)
    }


def with_temperature(form: str, temperature: float) -> Setting:
    setting = FORMS[form]
    return setting.model_copy(
        update={"loss": setting.loss.model_copy(update={"temperature": temperature})}
    )


def tuned(method: str, dim: int, image_set: str = SUBSET) -> Setting:
    """Of a method of `FAMILIES`, or one of `FORMS`, the setting with the best accuracy of 15-NN on z at d_z = `dim` in the search."""
    form = chosen_form(method)
    rows = [
        row for row in search_table(image_set) if row["form"] == form and int(row["d_z"]) == dim
    ]
    if not rows:
        raise ValueError(f"dim must be one that was searched for {form} on {image_set}, got {dim}")
    return with_temperature(
        form, float(max(rows, key=lambda row: float(row["knn15_z"]))["temperature"])
    )


@lru_cache
def chosen_form(method: str) -> str:
    """The form of a method: the best on the mean over d_z ≥ 2 of the best accuracies of 15-NN on z, on the embedded set."""

    def score(form: str) -> float:
        rows = [row for row in search_table() if row["form"] == form]
        return sum(
            max(float(row["knn15_z"]) for row in rows if int(row["d_z"]) == dim) for dim in DIMS[1:]
        )

    return max(FAMILIES[method], key=score) if method in FAMILIES else method


@lru_cache
def search_table(image_set: str = SUBSET) -> list[dict[str, str]]:
    """The rows of a committed search. `ValueError`, with the remedy: its file is damaged."""
    return committed(RECORDS / f"search_{image_set}.csv", _search_rows)


def _search_rows(text: str) -> list[dict[str, str]]:
    """The rows of a table of a search. `ValueError`: there are none, or one is not of this search."""
    rows = list(csv.DictReader(text.splitlines(), strict=True))
    known = {(form, dim) for form in FORMS for dim in DIMS}
    for row in rows:
        numbers = [float(value) for name, value in row.items() if name != "form"]
        is_known = (row["form"], int(row["d_z"])) in known
        if not is_known or not all(map(math.isfinite, numbers)):
            raise ValueError(f"no form, dimension and accuracies: {row}")
    if not rows:
        raise ValueError("it has no rows")
    return rows
