"""What a configuration gives to a key: what it says beside its defaults, which are frozen here.

A key leaves out the fields that are at their defaults, and it does not see the code of `config`. So
a default, or a constant of a class, that changed would let old results pass for new ones. Whoever
changes one edits `DEFAULTS` or `CONSTANTS` on purpose, and makes the runs again that had it.
"""

import json
import math
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

import sscl_core.config as settings
from sscl_core.config import (
    MLP,
    Cloud,
    ConvNet,
    Corruption,
    Frozen,
    ImageAugmentation,
    Images,
    InfoNCE,
    Masking,
    Mixture,
    Mixup,
    Noise,
    Optimizer,
    PairWeights,
    Points,
    Projector,
    ResNet,
    SpectralContrastive,
    Table,
    TrainConfig,
    TSimCLR,
)
from sscl_experiments import store
from sscl_experiments.store import essence, run_key

REQUIRED = PydanticUndefined
PENTAGON = ((0.1, -0.6), (1.4, 1.7), (0.9, -1.1), (-1.8, -1.6), (0.3, 0.8))
DEFAULTS: dict[type[Frozen], dict[str, Any]] = {
    Mixture: {
        "name": "mixture",
        "means": PENTAGON,
        "std": 0.1,
        "steps_per_epoch": 100,
        "anonymous": 0,
    },
    Noise: {"name": "noise", "scale": REQUIRED, "kind": "gaussian"},
    Mixup: {"name": "mixup", "strength": REQUIRED},
    Masking: {"name": "masking", "rate": REQUIRED},
    Corruption: {"name": "corruption", "rate": REQUIRED},
    Cloud: {
        "name": "cloud",
        "dim": REQUIRED,
        "components": 5,
        "std": 0.2,
        "structure": "isotropic",
        "rank": 0,
        "n_train": 500,
    },
    Table: {"name": "table", "table": REQUIRED},
    Points: {
        "name": "points",
        "points": REQUIRED,
        "augmentation": REQUIRED,
        "steps_per_epoch": 50,
    },
    ImageAugmentation: {
        "crop_scale": (0.2, 1.0),
        "flip": 0.5,
        "jitter": 0.0,
        "jitter_probability": 0.8,
        "grayscale": 0.0,
        "then": (),
    },
    Images: {
        "name": "fashion_mnist_subset",
        "n_train": None,
        "holdout": 0.0,
        "augmentation": ImageAugmentation(),
        "transfer": None,
    },
    PairWeights: {"score": "iou", "temperature": REQUIRED},
    InfoNCE: {"name": "info_nce", "temperature": 0.5},
    TSimCLR: {
        "name": "t_simclr",
        "temperature": 1.0,
        "df": 5.0,
        "normalization": "joint",
        "learn_df": False,
    },
    SpectralContrastive: {"name": "spectral_contrastive"},
    MLP: {"name": "mlp", "width": 128, "depth": 2, "activation": "relu", "init_scale": 1.0},
    ConvNet: {"name": "convnet", "width": 32},
    ResNet: {"name": "resnet", "depth": 18},
    Projector: {"hidden": 128, "dim": 32, "batchnorm": False},
    Optimizer: {
        "name": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.0,
        "momentum": 0.9,
        "warmup_epochs": 0.0,
        "schedule": "cosine",
    },
    TrainConfig: {
        "data": Images(),
        "backbone": ConvNet(),
        "projector": Projector(),
        "loss": InfoNCE(),
        "optimizer": Optimizer(),
        "epochs": 6,
        "batch_size": 256,
        "weights": None,
        "precision": "32-true",
        "threads": 1,
        "start_order": None,
        "seed": 0,
    },
}
# Of a class, not of its values: what measures of a run take from its configuration beside them.
CONSTANTS = {
    InfoNCE: {"metric": "cosine"},
    TSimCLR: {"metric": "euclidean"},
    SpectralContrastive: {"metric": "euclidean"},
}


def defaults_of(kind: type[Frozen]) -> dict[str, Any]:
    return {name: field.default for name, field in kind.model_fields.items()}


def constants_of(kind: type[Frozen]) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in kind.__class_vars__}


def test_every_class_of_a_configuration_is_frozen_here():
    classes = {
        value
        for value in vars(settings).values()
        if isinstance(value, type) and issubclass(value, Frozen) and value is not Frozen
    }
    assert classes == set(DEFAULTS)


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_the_defaults_are_those_that_keys_leave_out(kind):
    """Compared as text too, which tells 1 from 1.0 and from True."""
    assert defaults_of(kind) == DEFAULTS[kind]
    assert repr(defaults_of(kind)) == repr(DEFAULTS[kind])
    assert constants_of(kind) == CONSTANTS.get(kind, {})


def test_a_changed_default_is_noticed():
    class Changed(Optimizer):
        lr: float = 2e-3

    class Other(InfoNCE):
        temperature: float = 0.25

    assert defaults_of(Changed) != DEFAULTS[Optimizer]
    assert defaults_of(Other) != DEFAULTS[InfoNCE]


CLOUD = Points(
    points=Cloud(dim=9, structure="complement", rank=2),
    augmentation=(Noise(scale=0.1, kind="laplace"), Mixup(strength=1.0)),
)
TRANSFER = Images(
    name="cifar10",
    n_train=100,
    augmentation=ImageAugmentation(jitter=0.5, then=(Masking(rate=0.1),)),
    transfer="cifar100",
)
ESSENCES = [
    (TrainConfig(), {}),
    (TrainConfig(seed=3, epochs=6), {"seed": 3}),
    (
        TrainConfig(loss=TSimCLR(df=math.inf), projector=Projector(dim=2)),
        {"loss": {"name": "t_simclr", "df": math.inf}, "projector": {"dim": 2}},
    ),
    (TrainConfig(loss=TSimCLR()), {"loss": {"name": "t_simclr"}}),
    (
        TrainConfig(data=Mixture(), backbone=MLP(), start_order=None),
        {"data": {"name": "mixture"}, "backbone": {"name": "mlp"}},
    ),
    (
        TrainConfig(data=CLOUD, backbone=MLP(depth=0), optimizer=Optimizer(lr=0.01)),
        {
            "data": {
                "name": "points",
                "points": {"name": "cloud", "dim": 9, "structure": "complement", "rank": 2},
                "augmentation": [
                    {"name": "noise", "scale": 0.1, "kind": "laplace"},
                    {"name": "mixup", "strength": 1.0},
                ],
            },
            "backbone": {"name": "mlp", "depth": 0},
            "optimizer": {"name": "adamw", "lr": 0.01},
        },
    ),
    (
        TrainConfig(
            data=TRANSFER, weights=PairWeights(temperature=-math.inf), precision="bf16-mixed"
        ),
        {
            "data": {
                "name": "cifar10",
                "n_train": 100,
                "augmentation": {"jitter": 0.5, "then": [{"name": "masking", "rate": 0.1}]},
                "transfer": "cifar100",
            },
            "weights": {"temperature": -math.inf},
            "precision": "bf16-mixed",
        },
    ),
    (
        TrainConfig(
            data=Mixture(means=((0.0, 1.0), (2.0, 3.0)), steps_per_epoch=4),
            backbone=MLP(),
            projector=Projector(dim=2),
            start_order=(1, 0),
        ),
        {
            "data": {"name": "mixture", "means": [[0.0, 1.0], [2.0, 3.0]], "steps_per_epoch": 4},
            "backbone": {"name": "mlp"},
            "projector": {"dim": 2},
            "start_order": [1, 0],
        },
    ),
]


@pytest.mark.parametrize(("config", "expected"), ESSENCES, ids=range(len(ESSENCES)))
def test_the_essence_is_what_a_configuration_says_beside_its_defaults(config, expected):
    assert essence(config) == json.dumps(expected, sort_keys=True)


def test_configurations_that_say_different_things_have_different_essences():
    assert len({essence(config) for config, _ in ESSENCES}) == len(ESSENCES)


def test_a_new_field_at_its_default_changes_no_essence():
    class Wider(Optimizer):
        """Of tomorrow."""

        nesterov: bool = False

    for lr in (1e-3, 0.1):
        assert essence(Wider(lr=lr)) == essence(Optimizer(lr=lr))
    assert essence(Wider(nesterov=True)) != essence(Optimizer())


@pytest.mark.parametrize("field", DEFAULTS[TrainConfig])
def test_every_field_is_in_the_key(field):
    changes = {
        "data": Images(n_train=10),
        "backbone": ConvNet(width=8),
        "projector": Projector(dim=2),
        "loss": InfoNCE(temperature=0.1),
        "optimizer": Optimizer(lr=0.1),
        "epochs": 7,
        "batch_size": 128,
        "weights": PairWeights(temperature=1.0),
        "precision": "bf16-mixed",
        "threads": 2,
        "seed": 1,
    }
    base = TrainConfig()
    if field == "start_order":
        base = TrainConfig(data=Mixture(), backbone=MLP(), projector=Projector(dim=2))
        changes["start_order"] = (0, 2, 1, 3, 4)
    assert run_key(base.replace(**{field: changes[field]})) != run_key(base)


def test_the_parts_of_an_identity_do_not_run_into_each_other():
    one, other = (
        store.Identity(essence=a, code=b, libraries=("torch 2",))
        for a, b in (("ab", "c"), ("a", "bc"))
    )
    assert one.key != other.key
