"""Networks: their sizes against arithmetic, their shapes, and where their randomness and gradients
come from and go to.
"""

import math
from itertools import pairwise

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn import functional as F

from sscl_core.config import MLP, ConvNet, InfoNCE, Projector, ResNet, TrainConfig, TSimCLR
from sscl_core.models import build, convnet, mlp, projector, resnet
from sscl_core.rng import INIT, stream
from sscl_experiments.runs.starts import fit

SMALL = {"mlp": MLP(width=8, depth=2), "convnet": ConvNet(width=2), "resnet": ResNet(depth=18)}
WIDTHS = {"mlp": 8, "convnet": 128, "resnet": 512}
SHAPES = [(1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32)]
all_backbones = pytest.mark.parametrize("name", SMALL)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def network(name: str, shape: tuple[int, ...], seed: int = 0, **head) -> nn.Module:
    torch.manual_seed(seed)
    return build(
        TrainConfig(backbone=SMALL[name], projector=Projector(**{"hidden": 8, "dim": 3, **head})),
        shape,
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("depth", "published", "features"), [(18, 11_689_512, 512), (50, 25_557_032, 2048)]
)
def test_resnets_have_the_published_size_but_for_stem_and_classifier(
    depth, published, features, channels
):
    """torchvision's counts, less the classifier (1000 classes, with bias) and the 7×7 stem, plus
    the 3×3 stem.
    """
    backbone, width = resnet(depth, channels)
    assert width == features
    assert (
        count(backbone)
        == published - 1000 * (features + 1) - 7 * 7 * 3 * 64 + 3 * 3 * channels * 64
    )


@pytest.mark.parametrize(("channels", "width"), [(1, 32), (3, 5)])
def test_sizes_of_the_small_backbones(channels, width):
    widths = (channels, width, 2 * width, 4 * width, 4 * width)
    assert count(convnet((channels, 28, 28), width)) == sum(
        9 * a * b + 2 * b for a, b in pairwise(widths)
    )  # and BatchNorm's two a channel
    assert count(mlp(7, width, 3)) == 8 * width + 2 * (width + 1) * width
    assert count(mlp(7, width, 1)) == 8 * width


SIDES = [(side, side) for side in (4, 20, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 40, 48)] + [
    (25, 32),
    (28, 20),
    (20, 28),
    (33, 28),
    (28, 64),
]


@pytest.mark.parametrize("size", SIDES, ids=str)
def test_a_convnet_ends_on_a_grid_of_four_by_four(size):
    """Images of 25 to 32 pixels a side reach it by themselves.

    Pooling would change nothing there, and is left out.
    """
    backbone, x = convnet((1, *size), 2).eval(), torch.rand(2, 1, *size)
    with torch.no_grad():
        maps = nn.Sequential(
            *[
                layer
                for layer in backbone
                if not isinstance(layer, nn.AdaptiveAvgPool2d | nn.Flatten)
            ]
        )(x)
        found = backbone(x)
    assert found.shape == (2, 64 * 2)
    assert torch.equal(found, F.adaptive_avg_pool2d(maps, 4).flatten(1))
    by_itself = all(25 <= side <= 32 for side in size)
    assert by_itself == (maps.shape[2:] == (4, 4))
    assert by_itself != any(isinstance(layer, nn.AdaptiveAvgPool2d) for layer in backbone)


def test_a_convnet_halves_the_image_twice_then_keeps_it_then_halves_it():
    sides, x = [], torch.rand(2, 1, 28, 28)
    for layer in convnet((1, 28, 28), 2):
        x = layer(x)
        if isinstance(layer, nn.Sequential):  # convolution and BatchNorm
            sides.append(x.shape[-1])
    assert sides == [14, 7, 7, 4]


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("depth", [18, 50])
def test_resnets_halve_the_image_three_times(depth, size):
    """CIFAR-style: neither the stem nor a pooling layer reduces it."""
    backbone, width = resnet(depth, 1)
    with torch.no_grad():
        maps = backbone[:-1](torch.zeros(2, 1, size, size))
    assert maps.shape == (2, width, 4, 4)
    torch.testing.assert_close(backbone[-1](maps), maps.flatten(2).mean(2))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@all_backbones
def test_output_shapes(name, shape):
    h, z = network(name, shape)(torch.rand(3, *shape))
    assert (h.shape, z.shape) == ((3, WIDTHS[name]), (3, 3))
    assert (h >= 0).all(), "features are after a ReLU"


def test_points_are_samples_too():
    h, z = network("mlp", (2,))(torch.rand(5, 2))
    assert (h.shape, z.shape) == ((5, 8), (5, 3))


def test_features_tell_where_something_is():
    """The convnet keeps a grid of positions.

    A spot shows most in the features of its own corner, which a global mean would hide.
    """
    model = network("convnet", (1, 28, 28)).eval()
    corners = torch.zeros(2, 1, 28, 28)
    corners[0, :, 4:8, 4:8] = corners[1, :, 20:24, 20:24] = 1
    first, second = model(corners)[0].view(2, 8, 4, 4).sum(1)
    assert first[:2, :2].sum() > 2 * first[2:, 2:].sum()
    assert second[2:, 2:].sum() > 2 * second[:2, :2].sum()


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize(
    ("hidden", "parameters"), [(0, (6 + 1) * 4), (5, (6 + 1) * 5 + (5 + 1) * 4)]
)
def test_projector_variants(hidden, parameters, batchnorm):
    head = projector(6, Projector(hidden=hidden, dim=4, batchnorm=batchnorm))
    assert count(head) == parameters, "BatchNorm has no affine parameters here"
    x = torch.randn(7, 6)
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    expected = linear[0](x) if hidden == 0 else linear[1](linear[0](x).relu())
    if batchnorm:
        expected = (expected - expected.mean(0)) / (expected.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(head(x), expected)


def test_batchnorm_standardises_the_features():
    x = torch.rand(64, 1, 28, 28)
    raw, z = (
        network("convnet", (1, 28, 28), batchnorm=batchnorm)(x)[1] for batchnorm in (False, True)
    )
    assert (raw.std(0) - 1).abs().min() > 0.1, "without it they are not standard"
    torch.testing.assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    variance = raw.var(0, correction=0)
    torch.testing.assert_close(z.var(0, correction=0), variance / (variance + 1e-5))


@all_backbones
def test_gradients_reach_every_parameter(name):
    model = network(name, (1, 28, 28))
    z = model(torch.rand(8, 1, 28, 28))[1]
    (z * torch.randn_like(z)).sum().backward()
    assert {
        key: p.grad is not None and bool(p.grad.isfinite().all() and (p.grad != 0).any())
        for key, p in model.named_parameters()
    } == {key: True for key, _ in model.named_parameters()}


def test_gradients_reach_every_parameter_of_resnet50():
    model = nn.Sequential(resnet(50, 3)[0])
    features = model(torch.rand(4, 3, 8, 8))
    (features * torch.randn_like(features)).sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())


def test_a_residual_block_with_a_silent_body_is_its_shortcut():
    block = resnet(18, 1)[0][2]
    nn.init.zeros_(block.body[-1][-1].weight)
    x = torch.randn(2, 64, 5, 5)
    torch.testing.assert_close(block(x), x.relu())


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_initialisation_is_the_streams_and_nothing_elses(name):
    config = TrainConfig(backbone=SMALL[name])

    def weights(seed: int, surroundings: int) -> list[torch.Tensor]:
        torch.manual_seed(surroundings)
        with stream(seed, INIT):
            return list(build(config, (1, 28, 28)).parameters())

    first, again, other = weights(0, 1), weights(0, 2), weights(1, 1)
    assert all(map(torch.equal, first, again))
    assert not any(
        torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.unique().numel() > 1
    )  # BatchNorm's are constants


# --- a learned df --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        ConvNet(width=2),
        MLP(width=8),
        MLP(width=8, init_scale=3.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("df", [0.5, 5.0, 300.0])
def test_a_learned_df_is_a_parameter_by_its_logarithm(df, spec):
    """Beside weights that are the same as without it."""

    def built(**settings) -> nn.Module:
        torch.manual_seed(0)
        return build(
            TrainConfig(backbone=spec, projector=Projector(hidden=8, dim=3), **settings),
            (1, 28, 28),
        )

    model, plain = built(loss=TSimCLR(df=df, learn_df=True)), built(loss=TSimCLR(df=df))
    state, expected = dict(model.named_parameters()), dict(plain.named_parameters())
    assert state.keys() - expected.keys() == {"log_df"}
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert model.state_dict()["log_df"].shape == ()
    assert model.state_dict()["log_df"].item() == pytest.approx(math.log(df), rel=1e-6)
    assert state["log_df"].requires_grad
    for other in (plain, built(loss=InfoNCE())):
        assert other.log_df is None
        assert not [name for name in other.state_dict() if "df" in name]


# --- the MLP -------------------------------------------------------------------------------------


def perceptron(dim: int = 2, seed: int = 0, hidden: int = 5, d_z: int = 2, **spec) -> nn.Module:
    torch.manual_seed(seed)
    return build(
        TrainConfig(
            backbone=MLP(**{"width": 8, **spec}), projector=Projector(hidden=hidden, dim=d_z)
        ),
        (dim,),
    )


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(
    ("activation", "function"), [("relu", torch.relu), ("tanh", torch.tanh), ("gelu", F.gelu)]
)
def test_hidden_layers_are_linear_then_the_activation(activation, function, depth):
    model, x = perceptron(activation=activation, depth=depth), torch.randn(6, 2)
    linear = [layer for layer in model.backbone if isinstance(layer, nn.Linear)]
    assert len(linear) == depth
    expected = x
    for layer in linear:
        expected = function(expected @ layer.weight.T + layer.bias)
    torch.testing.assert_close(model(x)[0], expected)


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("shape", [(7,), (1, 4, 3)], ids=str)
def test_without_hidden_layers_the_features_are_the_input(shape, hidden):
    torch.manual_seed(0)
    model = build(
        TrainConfig(backbone=MLP(depth=0), projector=Projector(hidden=hidden, dim=3)), shape
    )
    x = torch.randn(6, *shape)
    h, z = model(x)
    assert torch.equal(h, x.flatten(1))
    assert z.shape == (6, 3)
    assert count(model.backbone) == 0
    assert model.projector[0].in_features == h.shape[1]


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("depth", [0, 2])
def test_init_scale_multiplies_every_weight_and_bias(depth, scale):
    plain, scaled = perceptron(depth=depth), perceptron(depth=depth, init_scale=scale)
    assert [name for name, _ in scaled.named_parameters()] == [
        name for name, _ in plain.named_parameters()
    ]
    assert sum(1 for _ in scaled.parameters()) == 2 * (depth + 2)
    for before, after in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert torch.equal(after, scale * before)
        assert after.requires_grad


# --- fitting to a target -------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [1e-3, 0.1])
@pytest.mark.parametrize("hidden", [0, 5])
def test_the_last_layer_is_fitted_by_ridge_regression(hidden, ridge):
    """On [features of the layer below, 1], with the penalty per sample, on the bias too.

    Without L-BFGS nothing else changes.
    """
    model = perceptron(hidden=hidden, depth=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, target = torch.randn(30, 2), torch.randn(30, 2)
    fit(model, x, target, iterations=0, ridge=ridge)
    with torch.no_grad():
        below = model.projector[:-1](model.backbone(x)).double().numpy()
    reference = (
        Ridge(alpha=30 * ridge, fit_intercept=False)
        .fit([[*row, 1.0] for row in below], target.double().numpy())
        .coef_
    )
    last = model.projector[-1]
    torch.testing.assert_close(
        torch.cat([last.weight, last.bias[:, None]], 1),
        torch.tensor(reference, dtype=torch.float32),
    )
    moved = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {f"projector.{len(model.projector) - 1}.{name}" for name in ("weight", "bias")}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_features_are_fitted_to_a_target_by_all_layers(activation, seed):
    """Eight random points to eight others: more than the last layer can do alone."""
    model, coarse = (
        perceptron(seed=seed, activation=activation, width=32, hidden=32) for _ in range(2)
    )
    x, target = (
        torch.randn(8, 2, generator=torch.Generator().manual_seed(seed + i)) for i in (10, 20)
    )
    fit(coarse, x, target, iterations=0)
    fit(model, x, target)
    before, after = (F.mse_loss(m(x)[1], target).item() for m in (coarse, model))
    assert before > 0.15
    assert after < before / 5
    assert all(p.grad is None and p.requires_grad for p in model.parameters()), (
        "no gradient is left to the first step of training"
    )
    assert not any(
        torch.equal(a, b) for a, b in zip(model.parameters(), coarse.parameters(), strict=True)
    )


def test_a_linear_network_is_fitted_as_well_as_least_squares_can():
    model = perceptron(dim=3, depth=0, hidden=0)
    x, target = torch.randn(40, 3), torch.randn(40, 2)
    fit(model, x, target)
    design = torch.cat([x, torch.ones(40, 1)], 1).double()
    best = F.mse_loss(
        design @ torch.linalg.lstsq(design, target.double()).solution, target.double()
    ).item()
    assert F.mse_loss(model(x)[1], target).item() == pytest.approx(best, rel=1e-4)
