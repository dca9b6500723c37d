"""A configuration means what it says: nothing unknown, nothing converted, nothing changed later, the same after a trip through JSON."""

import json
import math

import pytest
import torch
from pydantic import ValidationError

from sscl_core.config import MLP, ConvNet, ImageAugmentation, Images, InfoNCE, Mixture, Optimizer, Projector, ResNet, TrainConfig, TSimCLR

CONFIGS = {
    "default": TrainConfig(),
    "images": TrainConfig(
        data=Images(name="cifar10", n_train=100, holdout=0.2, augmentation=ImageAugmentation(crop_scale=(0.08, 0.9), jitter=0.5)),
        backbone=ResNet(depth=50),
        projector=Projector(hidden=0, dim=2, batchnorm=True),
        loss=TSimCLR(temperature=2.0, df=math.inf, normalization="conditional"),
        optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.0, warmup_epochs=0.5, schedule="constant"),
        precision="bf16-mixed",
        seed=7,
    ),
    "mixture": TrainConfig(data=Mixture(components=3, std=0.2), backbone=MLP(width=8), loss=TSimCLR(df=0.5), epochs=0, batch_size=2),
}
LEVELS = ["", "data", "data.augmentation", "backbone", "projector", "loss", "optimizer"]
all_configs = pytest.mark.parametrize("name", CONFIGS)
both_readers = pytest.mark.parametrize("read", [TrainConfig.model_validate, lambda v: TrainConfig.model_validate_json(json.dumps(v))])


def changed(config: TrainConfig, path: str, value: object) -> dict:
    """`config` as nested dictionaries, with `value` at the dotted `path`."""
    values = json.loads(config.model_dump_json())
    if values["data"].get("augmentation"):
        values["data"]["augmentation"]["crop_scale"] = config.data.augmentation.crop_scale
    if values["loss"].get("df") == "Infinity":
        values["loss"]["df"] = 5.0
    *parents, last = path.split(".")
    level = values
    for key in parents:
        level = level[key]
    level[last] = value
    return values


@both_readers
@pytest.mark.parametrize("level", LEVELS)
@all_configs
def test_unknown_keys_are_rejected_at_every_level(name, level, read):
    if name == "mixture" and level == "data.augmentation":
        level = "data"
    assert read(changed(CONFIGS[name], "epochs", 3)).epochs == 3  # without the typo it is fine
    with pytest.raises(ValidationError, match="Extra inputs are not permitted") as caught:
        read(changed(CONFIGS[name], f"{level}.lerning_rate".lstrip("."), 1))
    assert [error["loc"][-1] for error in caught.value.errors()] == ["lerning_rate"]


CONVERSIONS = [
    ("epochs", "3"), ("epochs", True), ("epochs", 3.0), ("seed", None), ("batch_size", "256"), ("data.n_train", "10"),
    ("data.n_train", True), ("data.holdout", "0.2"), ("data.holdout", False), ("data.augmentation.flip", "0.5"),
    ("data.augmentation.flip", True), ("data.augmentation.crop_scale", (True, True)), ("data.augmentation.crop_scale", ("0.2", "1")),
    ("backbone.depth", "50"), ("projector.batchnorm", 1), ("projector.batchnorm", "true"), ("projector.dim", 2.0),
    ("loss.temperature", "0.5"), ("loss.temperature", True), ("loss.df", "5"), ("optimizer.lr", "1e-3"), ("optimizer.lr", True),
    ("precision", 32),
]  # fmt: skip
OUT_OF_RANGE = [
    ("epochs", -1), ("seed", -1), ("batch_size", 1), ("data.n_train", 0), ("data.n_train", 1), ("data.holdout", 1.0),
    ("data.holdout", -0.1), ("data.name", "mnist"), ("data.augmentation.flip", 1.1), ("data.augmentation.jitter", 1.5),
    ("data.augmentation.crop_scale", (0.0, 1.0)), ("data.augmentation.crop_scale", (0.5, 1.1)), ("data.augmentation.crop_scale", (0.5,)),
    ("backbone.depth", 34), ("backbone.name", "vit"), ("projector.hidden", -1), ("projector.dim", 0), ("loss.temperature", 0.0),
    ("loss.temperature", -1.0), ("loss.df", 0.0), ("loss.normalization", "row"), ("loss.name", "triplet"), ("optimizer.lr", 0.0),
    ("optimizer.weight_decay", -1e-4), ("optimizer.momentum", 1.0), ("optimizer.name", "lars"), ("optimizer.schedule", "step"),
    ("optimizer.warmup_epochs", -1.0), ("precision", "16-mixed"), ("loss.temperature", math.nan), ("loss.df", math.nan),
    ("optimizer.lr", math.nan),
]  # fmt: skip


@both_readers
@pytest.mark.parametrize(("path", "value"), CONVERSIONS + OUT_OF_RANGE, ids=repr)
def test_nothing_is_converted_and_ranges_hold(path, value, read):
    read(changed(CONFIGS["images"], "epochs", 3))
    with pytest.raises(ValidationError) as caught:
        read(changed(CONFIGS["images"], path, value))
    assert path.split(".")[0] in {error["loc"][0] for error in caught.value.errors()}


@pytest.mark.parametrize("path", ["loss.temperature", "optimizer.lr", "optimizer.weight_decay", "optimizer.warmup_epochs"])
def test_only_df_may_be_infinite(path):
    assert TrainConfig.model_validate(changed(CONFIGS["images"], "loss.df", math.inf)).loss.df == math.inf
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(changed(CONFIGS["images"], path, math.inf))


@pytest.mark.parametrize("components", [1, 13])
def test_components_of_the_mixture_are_those_that_exist(components):
    with pytest.raises(ValidationError, match="components"):
        Mixture(components=components)


def test_an_integer_is_a_float_and_so_the_same_run():
    assert TrainConfig(loss=InfoNCE(temperature=1)).model_dump_json() == TrainConfig(loss=InfoNCE(temperature=1.0)).model_dump_json()


@pytest.mark.parametrize("level", LEVELS)
def test_frozen_at_every_level(level):
    model = CONFIGS["images"]
    for key in filter(None, level.split(".")):
        model = getattr(model, key)
    field = next(iter(type(model).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model, field, getattr(model, field))


@all_configs
def test_json_round_trip(name):
    config = CONFIGS[name]
    text = config.model_dump_json()
    json.loads(text, parse_constant=pytest.fail)  # Infinity and NaN are not JSON
    read = TrainConfig.model_validate_json(text)
    assert (read, hash(read), read.model_dump_json()) == (config, hash(config), text)
    assert len({c.model_dump_json() for c in CONFIGS.values()}) == len(CONFIGS)  # the text tells runs apart


def test_infinite_df_survives_json():
    assert TSimCLR.model_validate_json(TSimCLR(df=math.inf).model_dump_json()).df == math.inf


def test_crop_scale_is_smallest_then_largest():
    with pytest.raises(ValidationError, match="smallest, largest"):
        ImageAugmentation(crop_scale=(1.0, 0.2))
    assert ImageAugmentation(crop_scale=(0.5, 0.5)).crop_scale == (0.5, 0.5)


@pytest.mark.parametrize("backbone", [ConvNet(), ResNet()], ids=lambda b: b.name)
def test_the_mixture_needs_an_mlp(backbone):
    with pytest.raises(ValidationError, match=f"'mlp' for the mixture, .* got '{backbone.name}'"):
        TrainConfig(data=Mixture(), backbone=backbone)
    assert TrainConfig(data=Mixture(), backbone=MLP()).backbone.name == TrainConfig(backbone=MLP()).backbone.name == "mlp"


# --- the learning rate ---------------------------------------------------------------------------


def factors(spec: Optimizer, steps_per_epoch: int, epochs: int) -> list[float]:
    return [spec.factor(step, steps_per_epoch=steps_per_epoch, epochs=epochs) for step in range(steps_per_epoch * epochs)]


def test_cosine_is_torchs():
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert factors(Optimizer(), 4, 3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("warmup", [0, 0.5, 2])  # epochs of 5 steps: none, 2.5 and 10 of 30 steps
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_warm_up_then_the_schedule(schedule, warmup):
    found = factors(Optimizer(warmup_epochs=warmup, schedule=schedule), 5, 6)
    w = math.ceil(5 * warmup)
    assert found[:w] == pytest.approx([(s + 1) / (5 * warmup + 1) for s in range(w)])
    assert all(0 < f <= 1 for f in found)
    rest = [1.0] * 30 if schedule == "constant" else [math.cos(math.pi / 2 * (s - 5 * warmup) / (30 - 5 * warmup)) ** 2 for s in range(30)]
    assert found[w:] == pytest.approx(rest[w:])


def test_cosine_ends_at_zero_and_has_its_middle_at_half():
    spec = Optimizer(warmup_epochs=1)
    assert [spec.factor(s, steps_per_epoch=10, epochs=5) for s in (10, 30, 50)] == pytest.approx([1, 0.5, 0], abs=1e-12)


def test_a_warm_up_longer_than_the_run_stays_a_line():
    assert factors(Optimizer(warmup_epochs=5), 2, 2) == pytest.approx([1 / 11, 2 / 11, 3 / 11, 4 / 11])
