"""What each notebook may be asked, and the training runs that it then needs: read by the notebooks and the workflow alike."""

import json
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from .config import MLP, ConvNet, Frozen, ImageAugmentation, Images, InfoNCE, Mixture, Optimizer, Projector, TrainConfig, TSimCLR
from .paths import SCALES, results_dir

Dims = Annotated[tuple[Annotated[int, Field(ge=2, le=2048)], ...], Field(min_length=1)]


class Parameters(Frozen):
    """What every notebook takes: `seeds` (how many) from `seed` on, the device, and where data and results are."""

    scale: Literal["smoke", "quick", "full"]
    seeds: PositiveInt
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data_dir: str | None = None
    results_dir: str | None = None

    @property
    def seed_range(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    def runs(self) -> list[TrainConfig]:
        raise NotImplementedError


class ContrastiveIsSNE(Parameters):
    """01: `batch` pairs for the identities, `epochs` of `steps_per_epoch` steps for training on the mixture."""

    batch: Annotated[int, Field(ge=2, le=512)]
    epochs: PositiveInt
    steps_per_epoch: PositiveInt

    def run(self, dim: int, seed: int) -> TrainConfig:
        return TrainConfig(
            data=Mixture(components=5, std=0.1, steps_per_epoch=self.steps_per_epoch),
            backbone=MLP(width=128, depth=2),
            projector=Projector(hidden=0, dim=dim),
            loss=InfoNCE(temperature=0.5),
            optimizer=Optimizer(lr=3e-3),
            epochs=self.epochs,
            batch_size=128,
            seed=seed,
        )

    def runs(self) -> list[TrainConfig]:
        return [self.run(dim, seed) for dim in (2, 4) for seed in self.seed_range]


class TSimCLRFeatures(Parameters):
    """05: feature dimensions `dims`, ascending; `epochs` on `n_train` of the embedded images."""

    dims: Dims
    epochs: PositiveInt
    n_train: Annotated[int, Field(ge=200, le=10_000)]

    @model_validator(mode="after")
    def _dims_fit(self) -> "TSimCLRFeatures":
        if max(self.dims) > min(self.n_train, 28 * 28):
            raise ValueError("dims must not exceed n_train or the 784 pixels: PCA to as many dimensions stands beside")
        return self

    def run(self, method: str, dim: int, seed: int) -> TrainConfig:
        images = Images(n_train=self.n_train, augmentation=AUGMENTATION)
        return image_run(METHODS[method], images, dim=dim, epochs=self.epochs, seed=seed)

    def runs(self) -> list[TrainConfig]:
        trained = [self.run(method, dim, seed) for method in METHODS for dim in sorted(set(self.dims)) for seed in self.seed_range]
        return trained + [self.untrained(seed) for seed in self.seed_range]

    def untrained(self, seed: int) -> TrainConfig:
        return self.run("SimCLR", max(self.dims), seed).model_copy(update={"epochs": 0})


NOTEBOOKS: dict[str, type[Parameters]] = {"01_contrastive_is_sne": ContrastiveIsSNE, "05_t_simclr": TSimCLRFeatures}


class Setting(Frozen):
    """A loss, and whether BatchNorm fixes the scale of the features that it compares."""

    loss: Annotated[InfoNCE | TSimCLR, Field(discriminator="name")]
    batchnorm: bool


# Common to all methods, settled on the held-out part with SimCLR alone. No flip: shoes all point left.
AUGMENTATION = ImageAugmentation(crop_scale=(0.7, 1.0), flip=0.0, jitter=0.8)

# Chosen by `sscl tune` on a held-out part of the training labels, ten settings a method; the table of that search is
# data/records/tuning_05_t_simclr.csv.
METHODS = {
    "SimCLR": Setting(loss=InfoNCE(temperature=0.1), batchnorm=True),
    "t-SimCLR": Setting(loss=TSimCLR(temperature=0.2, df=5.0, normalization="joint"), batchnorm=True),
}


def image_run(setting: Setting, images: Images, *, dim: int, epochs: int, seed: int) -> TrainConfig:
    return TrainConfig(
        data=images,
        backbone=ConvNet(width=16),
        projector=Projector(hidden=128, dim=dim, batchnorm=setting.batchnorm),
        loss=setting.loss,
        optimizer=Optimizer(lr=5e-3, warmup_epochs=0.5),
        epochs=epochs,
        batch_size=128,
        precision="bf16-mixed",
        seed=seed,
    )


@lru_cache
def scales() -> dict[str, dict[str, Any]]:
    return tomllib.loads(SCALES.read_text())


def resolve(notebook: str, given: Mapping[str, Any]) -> Parameters:
    """The parameters of a notebook: the sizes of its scale, under what is given and not None.

    `ValueError` that names every unknown name, wrong type and value out of range, and the valid names.
    """
    if notebook not in NOTEBOOKS:
        raise ValueError(f"notebook must be one of {sorted(NOTEBOOKS)}, got {notebook!r}")
    model = NOTEBOOKS[notebook]
    scale = given.get("scale", "quick")
    sizes = scales().get(scale, {}).get(notebook, {}) if isinstance(scale, str) else {}
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return model.model_validate_json(json.dumps({"scale": "quick"} | sizes | chosen))
    except (ValidationError, TypeError) as error:
        raise ValueError(f"parameters of {notebook}: {_explain(error)}; valid names: {', '.join(model.model_fields)}") from None


def out_dir(notebook: str, parameters: Parameters) -> Path:
    """results/<scale>, or results/custom where the sizes are not the scale's own; where it runs and writes does not matter."""
    where = {"device", "data_dir", "results_dir"}
    standard = resolve(notebook, {"scale": parameters.scale}).model_dump(exclude=where)
    own = parameters.model_dump(exclude=where) == standard
    return results_dir(parameters.results_dir) / (parameters.scale if own else "custom")


def _explain(error: ValidationError | TypeError) -> str:
    """Missing sizes are left out: they only follow from a scale that is unknown."""
    if isinstance(error, TypeError):
        return str(error)
    parts = [(".".join(map(str, e["loc"])), e["msg"], e["input"]) for e in error.errors() if e["type"] != "missing"]
    return "; ".join(f"{name} = {value!r}: {message[0].lower()}{message[1:]}" for name, message, value in parts)
