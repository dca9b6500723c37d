"""A configuration means what it says: nothing unknown, nothing converted, nothing changed later, the same after a trip through JSON."""

import functools
import itertools
import json
import math
import re

import pytest
import torch
from pydantic import ValidationError

from sscl_core.config import (
    MLP,
    Cloud,
    ConvNet,
    Corruption,
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
    ensembles,
    family,
    scattered,
)

CONFIGS = {
    "default": TrainConfig(),
    "images": TrainConfig(
        data=Images(
            name="cifar10",
            n_train=100,
            holdout=0.2,
            augmentation=ImageAugmentation(crop_scale=(0.08, 0.9), jitter=0.5, then=(Masking(rate=0.1), Noise(scale=0.2))),
            transfer="cifar100",
        ),
        backbone=ResNet(depth=50),
        projector=Projector(hidden=0, dim=2, batchnorm=True),
        loss=TSimCLR(temperature=2.0, df=math.inf, normalization="conditional"),
        optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.0, warmup_epochs=0.5, schedule="constant"),
        precision="bf16-mixed",
        seed=7,
    ),
    "mixture": TrainConfig(
        data=Mixture(means=((0.0, 1.0, 2.0), (3.0, 4.0, 5.0), (6.0, 7.0, 8.0)), std=0.2, steps_per_epoch=3, anonymous=2),
        backbone=MLP(width=8, depth=0, activation="gelu", init_scale=0.5),
        projector=Projector(dim=2),
        loss=TSimCLR(df=0.5),
        epochs=0,
        batch_size=2,
        start_order=(2, 0, 1),
    ),
    "cloud": TrainConfig(
        data=Points(
            points=Cloud(dim=9, components=3, std=0.5, structure="complement", rank=2, n_train=20),
            augmentation=(Noise(scale=0.1, kind="laplace"), Mixup(strength=1.0), Masking(rate=0.1), Corruption(rate=0.9)),
            steps_per_epoch=3,
        ),
        backbone=MLP(),
        loss=SpectralContrastive(),
    ),
    "weighted": TrainConfig(weights=PairWeights(score="input", temperature=-0.5), loss=TSimCLR(learn_df=True)),
    "table": TrainConfig(data=Points(points=Table(table="digits"), augmentation=(Noise(scale=1.0),)), backbone=MLP(depth=0)),
}
LEVELS = ["", "data", "data.augmentation", "backbone", "projector", "loss", "optimizer"]
all_configs = pytest.mark.parametrize("name", CONFIGS)
both_readers = pytest.mark.parametrize("read", [TrainConfig.model_validate, lambda v: TrainConfig.model_validate_json(json.dumps(v))])


def changed(config: TrainConfig, path: str, value: object) -> dict:
    """`config` as nested dictionaries, with `value` at the dotted `path`."""
    values = config.model_dump()
    if values["loss"].get("df") == math.inf:  # JSON has none
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
    if level == "data.augmentation":
        level = {"mixture": "data", "cloud": "data.points", "table": "data.points"}.get(name, level)
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
    ("precision", 32), ("data.transfer", 10),
]  # fmt: skip
OUT_OF_RANGE = [
    ("epochs", -1), ("seed", -1), ("batch_size", 1), ("data.n_train", 0), ("data.n_train", 1), ("data.holdout", 1.0),
    ("data.holdout", -0.1), ("data.name", "mnist"), ("data.augmentation.flip", 1.1), ("data.augmentation.jitter", 1.5),
    ("data.augmentation.crop_scale", (0.0, 1.0)), ("data.augmentation.crop_scale", (0.5, 1.1)), ("data.augmentation.crop_scale", (0.5,)),
    ("backbone.depth", 34), ("backbone.name", "vit"), ("projector.hidden", -1), ("projector.dim", 0), ("loss.temperature", 0.0),
    ("loss.temperature", -1.0), ("loss.df", 0.0), ("loss.normalization", "row"), ("loss.name", "triplet"), ("optimizer.lr", 0.0),
    ("optimizer.weight_decay", -1e-4), ("optimizer.momentum", 1.0), ("optimizer.name", "lars"), ("optimizer.schedule", "step"),
    ("optimizer.warmup_epochs", -1.0), ("precision", "16-mixed"), ("loss.temperature", math.nan), ("loss.df", math.nan),
    ("optimizer.lr", math.nan), ("data.transfer", "mnist"),
]  # fmt: skip
ON_THE_MIXTURE = [
    ("data.std", 0.0), ("data.std", math.nan), ("data.steps_per_epoch", 0), ("data.anonymous", -1), ("data.anonymous", 2.0),
    ("data.anonymous", True), ("data.means", 5), ("data.means", (("0", "1"), ("2", "3"))), ("data.means", ((0.0, math.inf), (1.0, 2.0))),
    ("data.means", ((True, False), (False, True))), ("backbone.depth", -1), ("backbone.width", 0), ("backbone.activation", "sine"),
    ("backbone.init_scale", 0.0), ("backbone.init_scale", "2"), ("start_order", "201"), ("start_order", (2.0, 0.0, 1.0)),
]  # fmt: skip
ON_A_CLOUD = [
    ("data.points.dim", 0), ("data.points.dim", 3), ("data.points.dim", 9.0), ("data.points.dim", "9"), ("data.points.components", 1),
    ("data.points.std", 0.0), ("data.points.std", math.nan), ("data.points.structure", "ball"), ("data.points.rank", -1),
    ("data.points.rank", 8), ("data.points.rank", True), ("data.points.n_train", 9), ("data.points.name", "table"),
    ("data.steps_per_epoch", 0), ("data.augmentation", ()), ("data.augmentation", ({"name": "noise"},)),
    ("data.augmentation", ({"name": "crop"},)), ("data.augmentation", {"name": "mixup", "strength": 0.5}), ("loss.temperature", 0.5),
]  # fmt: skip
WEIGHTED = [
    ("weights.temperature", 0.0), ("weights.temperature", -0.0), ("weights.temperature", 0), ("weights.temperature", math.nan),
    ("weights.temperature", 1e-300), ("weights.temperature", -1e-38),
    ("weights.temperature", "0.5"), ("weights.temperature", "NaN"), ("weights.temperature", True), ("weights.temperature", None),
    ("weights.score", "crop"), ("weights", 0.5), ("weights", {}), ("weights.power", 1.0), ("loss.learn_df", 1), ("loss.learn_df", "true"),
    ("loss.df", "Infinity"),
]  # fmt: skip
CASES = [
    *(("weighted", *case) for case in WEIGHTED),
    *(("images", *case) for case in CONVERSIONS + OUT_OF_RANGE),
    *(("mixture", *case) for case in ON_THE_MIXTURE),
    *(("cloud", *case) for case in ON_A_CLOUD),
    *(("table", "data.points.table", name) for name in ("boston", "Digits", 3, None)),
]


@both_readers
@pytest.mark.parametrize(("name", "path", "value"), CASES, ids=repr)
def test_nothing_is_converted_and_ranges_hold(name, path, value, read):
    read(changed(CONFIGS[name], "epochs", 3))
    with pytest.raises(ValidationError) as caught:
        read(changed(CONFIGS[name], path, value))
    assert path.split(".")[0] in {error["loc"][0] for error in caught.value.errors()}


@pytest.mark.parametrize("path", ["loss.temperature", "optimizer.lr", "optimizer.weight_decay", "optimizer.warmup_epochs"])
def test_only_df_may_be_infinite(path):
    assert TrainConfig.model_validate(changed(CONFIGS["images"], "loss.df", math.inf)).loss.df == math.inf
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(changed(CONFIGS["images"], path, math.inf))


def test_an_integer_is_a_float_and_so_the_same_run():
    assert TrainConfig(loss=InfoNCE(temperature=1)).model_dump_json() == TrainConfig(loss=InfoNCE(temperature=1.0)).model_dump_json()
    assert Mixture(means=((0, 1), (2, 3))).model_dump_json() == Mixture(means=((0.0, 1.0), (2.0, 3.0))).model_dump_json()


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


@pytest.mark.parametrize("score", ["iou", "input", "features"])
@pytest.mark.parametrize("temperature", [math.inf, -math.inf, 1e-6, -0.1, 3.0])
def test_weights_survive_json(temperature, score):
    config = TrainConfig(weights=PairWeights(score=score, temperature=temperature))
    text = config.model_dump_json()
    json.loads(text, parse_constant=pytest.fail)
    read = TrainConfig.model_validate_json(text)
    assert read == config
    assert (read.weights.score, read.weights.temperature) == (score, temperature)
    assert text != TrainConfig().model_dump_json()
    assert text != TrainConfig(weights=PairWeights(score=score, temperature=-temperature)).model_dump_json()


@pytest.mark.parametrize(("text", "value"), [("inf", math.inf), ("Infinity", math.inf), ("-inf", -math.inf), ("-Infinity", -math.inf)])
def test_either_infinity_is_read_as_it_may_be_written(text, value):
    assert PairWeights.model_validate_json(json.dumps({"temperature": text})) == PairWeights(temperature=value)
    if value > 0:
        assert TSimCLR.model_validate_json(json.dumps({"df": text})).df == value
    else:
        with pytest.raises(ValidationError):
            TSimCLR.model_validate_json(json.dumps({"df": text}))


@pytest.mark.parametrize("temperature", [0.0, -0.0, 0, math.nan])
def test_a_temperature_of_weights_divides(temperature):
    with pytest.raises(ValidationError, match=r"temperature must be a number other than 0 .*, or infinite, got"):
        PairWeights(temperature=temperature)


def test_weights_and_learned_df_are_not_what_is_meant_unless_said():
    assert TrainConfig().weights is None
    assert not TSimCLR().learn_df
    assert PairWeights(temperature=1.0).score == "iou"


@pytest.mark.parametrize("name", ["mixture", "cloud", "table"])
@pytest.mark.parametrize("change", [{"weights": PairWeights(temperature=1.0)}, {"loss": TSimCLR(learn_df=True)}], ids=str)
def test_weights_and_learned_df_are_for_images(name, change):
    settings = {"data": CONFIGS[name].data, "backbone": MLP(), "loss": TSimCLR()}
    assert TrainConfig(**settings).loss == TSimCLR()
    assert TrainConfig(**(settings | change | {"data": Images()}))
    with pytest.raises(ValidationError, match=f"weights and learn_df are for images, got them for {settings['data'].name}"):
        TrainConfig(**(settings | change))


@pytest.mark.parametrize("score", ["iou", "input", "features"])
def test_the_spectral_loss_has_no_weights(score):
    weights = PairWeights(score=score, temperature=math.inf)
    for loss in (InfoNCE(), TSimCLR(), TSimCLR(learn_df=True, normalization="conditional")):
        assert TrainConfig(loss=loss, weights=weights).weights == weights
    with pytest.raises(ValidationError, match="weights must be left out for spectral_contrastive"):
        TrainConfig(loss=SpectralContrastive(), weights=weights)


def test_df_is_not_learned_from_infinity():
    assert TSimCLR(learn_df=True, df=1e6).df == 1e6
    assert TSimCLR(df=math.inf).df == math.inf
    with pytest.raises(ValidationError, match="df must be finite where it is learned"):
        TSimCLR(learn_df=True, df=math.inf)


def test_crop_scale_is_smallest_then_largest():
    with pytest.raises(ValidationError, match="smallest, largest"):
        ImageAugmentation(crop_scale=(1.0, 0.2))
    assert ImageAugmentation(crop_scale=(0.5, 0.5)).crop_scale == (0.5, 0.5)


@pytest.mark.parametrize("data", [Mixture(), CONFIGS["cloud"].data, CONFIGS["table"].data], ids=["mixture", "cloud", "table"])
@pytest.mark.parametrize("backbone", [ConvNet(), ResNet()], ids=lambda b: b.name)
def test_vectors_need_an_mlp(backbone, data):
    with pytest.raises(ValidationError, match=f"backbone must be 'mlp' for {data.name}, .* got '{backbone.name}'"):
        TrainConfig(data=data, backbone=backbone)
    assert TrainConfig(data=data, backbone=MLP()).backbone.name == TrainConfig(backbone=MLP()).backbone.name == "mlp"


# --- vectors and their views ---------------------------------------------------------------------

STEPS = {"noise": (Noise, "scale"), "mixup": (Mixup, "strength"), "masking": (Masking, "rate"), "corruption": (Corruption, "rate")}
BAD_STRENGTHS = [(name, value) for name in STEPS for value in (0, 0.0, -0.1, math.nan, math.inf, "0.5", True, None)]


@pytest.mark.parametrize(("name", "value"), [*BAD_STRENGTHS, ("mixup", 1.01), ("masking", 1.0), ("corruption", 1.0), ("masking", 1.5)])
def test_strengths_out_of_range_name_their_field(name, value):
    step, field = STEPS[name]
    with pytest.raises(ValidationError) as caught:
        step(**{field: value})
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]
    with pytest.raises(ValidationError) as caught:
        TrainConfig.model_validate(changed(CONFIGS["cloud"], "data.augmentation", ({"name": name, field: value},)))
    assert caught.value.errors()[0]["loc"][-3:] == (0, name, field)


def test_the_ends_of_the_ranges():
    assert (Noise(scale=1e-9).scale, Noise(scale=100).scale) == (1e-9, 100)
    assert (Mixup(strength=1).strength, Mixup(strength=1e-9).strength) == (1, 1e-9)
    assert [step(rate=rate).rate for step in (Masking, Corruption) for rate in (1e-9, 0.999)] == [1e-9, 0.999] * 2
    assert (Cloud(dim=1, components=2).dim, Cloud(dim=4, n_train=10).n_train) == (1, 10)
    assert (Cloud(dim=5, structure="complement").dim, Cloud(dim=7, structure="complement", rank=3).dim) == (5, 7)
    assert Cloud(dim=4, structure="manifold").dim == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dim": 3}, "dim must be at least 4"),
        ({"dim": 1, "components": 3}, "dim must be at least 2"),
        ({"dim": 3, "structure": "manifold"}, "dim must be at least 4"),
        ({"dim": 4, "structure": "complement"}, "dim must be at least 5"),
        ({"dim": 6, "structure": "complement", "rank": 3}, "dim must be at least 7"),
        ({"dim": 64, "rank": 1}, "rank 0 unless for complement, got 64 and 1"),
        ({"dim": 64, "rank": 1, "structure": "manifold"}, "rank 0 unless for complement, got 64 and 1"),
    ],
    ids=str,
)
def test_a_cloud_needs_room_for_its_means_and_its_spread(settings, words):
    with pytest.raises(ValidationError, match=words):
        Cloud(**settings)


def test_unknown_kinds_are_named_with_the_known_ones():
    for make, field, words in (
        (lambda: Table(table="boston"), "table", "'iris', 'wine', 'breast_cancer' or 'digits'"),
        (lambda: Noise(scale=1.0, kind="cauchy"), "kind", "'gaussian', 'laplace' or 'uniform'"),
        (lambda: Cloud(dim=9, structure="ball"), "structure", "'isotropic', 'complement' or 'manifold'"),
    ):
        with pytest.raises(ValidationError, match=words) as caught:
            make()
        assert [error["loc"] for error in caught.value.errors()] == [(field,)]


@pytest.mark.parametrize("first", ["cloud", "table"])
def test_a_step_means_its_place_and_its_kind(first):
    """The order of the steps, the kind of noise and the strength tell runs apart; the settings of a view of images do too."""
    points = CONFIGS[first].data
    a, b = Noise(scale=0.1), Masking(rate=0.1)
    chains = [(a,), (b,), (a, b), (b, a), (a, a), (Corruption(rate=0.1),), (Noise(scale=0.2),), (Noise(scale=0.1, kind="uniform"),)]
    texts = {points.model_copy(update={"augmentation": chain}).model_dump_json() for chain in chains}
    assert len(texts) == len(chains)
    assert len({ImageAugmentation(then=chain).model_dump_json() for chain in ((), *chains)}) == len(chains) + 1


# --- the mixture ---------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 13, 0, -2])
def test_there_are_twelve_scattered_points(m):
    with pytest.raises(ValueError, match=rf"^m must be in 2\.\.12, got {m}"):
        scattered(m)


@pytest.mark.parametrize("m", range(2, 13))
def test_scattered_points_are_a_prefix_of_the_twelve_and_far_apart(m):
    points = scattered(m)
    assert len(points) == m
    assert points == scattered(12)[:m]
    assert min(math.dist(a, b) for a, b in itertools.combinations(points, 2)) >= 0.9 - 1e-12
    assert Mixture(means=points).means == points


def test_scattered_points_are_fixed():
    assert scattered(3) == ((0.1, -0.6), (1.4, 1.7), (0.9, -1.1))
    assert [sum(x) for x in zip(*scattered(12), strict=True)] == pytest.approx([-1.2, 1.0])
    assert Mixture().means == scattered(5)


def shape(points: torch.Tensor) -> torch.Tensor:
    """Pairwise distances, sorted, up to scale: equal for similar figures."""
    distances = torch.pdist(points).sort().values
    return distances / distances.square().mean().sqrt()


def polygon(m: int) -> torch.Tensor:
    angle = 2 * torch.pi * torch.arange(m, dtype=torch.float64) / m
    return torch.stack([angle.cos(), angle.sin()], 1)


@pytest.mark.parametrize("m", range(3, 13))
def test_scattered_points_are_no_regular_polygon(m):
    rotated = polygon(m) @ torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64) * 3 + 1
    assert torch.allclose(shape(rotated), shape(polygon(m)))  # the measure knows a polygon
    assert (shape(torch.tensor(scattered(m), dtype=torch.float64)) - shape(polygon(m))).abs().max() > 0.3


@pytest.mark.parametrize(
    "means",
    [((0.0, 1.0), (2.0, 3.0), (0.0, 1.0)), ((0.0, 1.0), (2.0,)), ((0.0,), (-0.0,)), ((1.0, 2.0),), (), ((), ())],
    ids=["twice", "two dimensions", "twice with signs", "one", "none", "no dimension"],
)
def test_means_are_at_least_two_distinct_points_of_one_dimension(means):
    with pytest.raises(ValidationError, match="means"):
        Mixture(means=means)


@pytest.mark.parametrize("means", [((0.0,), (1.0,)), ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))], ids=str)
def test_means_may_lie_in_any_dimension(means):
    assert Mixture(means=means).means == Mixture.model_validate_json(json.dumps({"means": means})).means == means


def ordered(start_order, m: int = 3, **changes) -> TrainConfig:
    values = {"data": Mixture(means=scattered(m)), "backbone": MLP(), "projector": Projector(dim=2), "start_order": start_order}
    return TrainConfig(**(values | changes))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_start_order_is_any_order_of_the_components(order):
    assert ordered(order).start_order == order


@pytest.mark.parametrize("order", [(), (0, 1), (0, 1, 1), (1, 2, 3), (0, 1, 2, 3), (-1, 0, 1)], ids=str)
def test_start_order_names_every_component_once(order):
    with pytest.raises(ValidationError, match=rf"order of the mixture's components, .* got {re.escape(str(order))}"):
        ordered(order)


@pytest.mark.parametrize(
    "changes",
    [{"projector": Projector(dim=3)}, {"projector": Projector(dim=2, batchnorm=True)}, {"data": Images()}],
    ids=["d_z=3", "batchnorm", "images"],
)
def test_start_order_needs_a_plane_of_its_own_and_components(changes):
    with pytest.raises(ValidationError, match="for d_z=2 without BatchNorm"):
        ordered((0, 1, 2), **changes)
    assert ordered(None, **changes).start_order is None


# --- what is trained together --------------------------------------------------------------------


def toy(seed: int = 0, **changes) -> TrainConfig:
    return TrainConfig(**{"data": Mixture(), "backbone": MLP(), "seed": seed, **changes})


def images(seed: int = 0) -> TrainConfig:
    return TrainConfig(seed=seed)


def points(seed: int = 0, points: Cloud | Table = Cloud(dim=4), **changes) -> TrainConfig:  # noqa: B008
    return toy(seed, **{"data": Points(points=points, augmentation=(Noise(scale=0.1),)), **changes})


@pytest.mark.parametrize("make", [toy, points, lambda seed=0: points(seed, Table(table="wine"))], ids=["mixture", "cloud", "table"])
def test_a_family_is_all_seeds_on_vectors_and_one_run_on_images(make):
    assert family(make(3)) == family(make(5)) == make()
    assert family(images(3)) == images(3) != family(images(5))


@pytest.mark.parametrize(
    "change", [{"data": Mixture(std=0.2)}, {"epochs": 1}, {"loss": TSimCLR()}, {"backbone": MLP(init_scale=2)}], ids=str
)
def test_runs_that_differ_in_more_than_the_seed_are_of_two_families(change):
    assert family(toy(1, **change)) == family(toy(2, **change)) != family(toy(1))
    assert ensembles([toy(1), toy(1, **change), toy(2)]) == [[toy(1), toy(2)], [toy(1, **change)]]


@pytest.mark.parametrize(
    "other",
    [
        functools.partial(points, points=Cloud(dim=5)),
        functools.partial(points, points=Cloud(dim=4, structure="manifold")),
        functools.partial(points, points=Table(table="iris")),
        functools.partial(points, data=Points(points=Cloud(dim=4), augmentation=(Noise(scale=0.2),))),
        functools.partial(points, data=Points(points=Cloud(dim=4), augmentation=(Noise(scale=0.1), Mixup(strength=0.1)))),
        functools.partial(points, loss=SpectralContrastive()),
        functools.partial(points, epochs=1),
        toy,
        images,
    ],
    ids=["dim", "structure", "table", "strength", "steps", "loss", "epochs", "mixture", "images"],
)
def test_points_are_trained_together_by_all_but_the_seed(other):
    assert family(points(1)) == family(points(2)) == points() != family(other(1))
    assert ensembles([points(2), other(0), points(0), points(2)]) == [[points(2), points(0)], [other(0)]]


def test_ensembles_keep_the_order_and_drop_what_is_repeated():
    groups = ensembles(iter([images(1), toy(2), images(0), toy(0), toy(2), images(1), toy(1)]))
    assert groups == [[images(1)], [toy(2), toy(0), toy(1)], [images(0)]]
    assert ensembles([]) == []


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (4, [4, 1]), (5, [5]), (256, [5])])
def test_ensembles_are_no_larger_than_asked(largest, sizes):
    seeds = [toy(seed) for seed in (4, 0, 3, 1, 2)]
    groups = ensembles([images(0), *seeds, images(1)], largest=largest)
    assert groups[0] == [images(0)]
    assert groups[-1] == [images(1)]
    assert list(map(len, groups[1:-1])) == sizes
    assert [config for group in groups[1:-1] for config in group] == seeds


def test_ensembles_have_at_most_256_seeds():
    assert list(map(len, ensembles(map(toy, range(300))))) == [256, 44]


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
