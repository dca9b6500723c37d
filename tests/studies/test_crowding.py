"""Pushes, crowding and the energy of three points, against autograd and naive loops."""

import itertools
import math

import pytest
import torch
from helpers import unchecked

from sscl_core.config import InfoNCE, TSimCLR
from sscl_core.losses import info_nce, t_simclr
from sscl_core.train import contrastive_loss
from sscl_experiments.studies.temperature_and_df.crowding import (
    crowding,
    distances,
    pair_distances,
    probabilities,
    push,
    similarity_of,
    three_points,
)

LOSSES = [
    InfoNCE(temperature=0.3),
    TSimCLR(temperature=0.7, df=math.inf, normalization="conditional"),
    TSimCLR(temperature=0.7, df=2.0, normalization="joint"),
    TSimCLR(temperature=2.0, df=0.5, normalization="conditional"),
]


def features(n: int = 10, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def log_s(loss, d: torch.Tensor) -> torch.Tensor:
    if isinstance(loss, InfoNCE):
        return d.cos() / loss.temperature
    if loss.df == math.inf:
        return -(d**2) / (2 * loss.temperature)
    return -(loss.df + 1) / 2 * torch.log1p(d**2 / (loss.temperature * loss.df))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_slope_in_log_distance_is_autograds(loss):
    logarithm = torch.linspace(-2, 1, 20, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_s(loss, logarithm.exp()).sum(), logarithm)
    assert torch.allclose(
        similarity_of(loss).slope_in_log_distance(logarithm.detach().exp()), -slope, rtol=1e-10
    )


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_push_is_the_gradient_of_the_loss_in_log_distances(loss):
    """Of the loss written as a function of all distances, one at a time, for pairs of different
    images: the naive normaliser.
    """
    z = features()
    n = len(z) // 2
    d = distances(loss, z)
    logarithm = (d + torch.eye(2 * n)).log().requires_grad_()
    s = log_s(loss, logarithm.exp()).exp()
    joint = getattr(loss, "normalization", "conditional") == "joint"
    rows = [sum(s[i, k] for k in range(2 * n) if k != i) for i in range(2 * n)]
    positives = sum(s[i, (i + n) % (2 * n)].log() for i in range(2 * n)) / (2 * n)
    normaliser = sum(rows).log() if joint else sum(row.log() for row in rows) / (2 * n)
    value = normaliser - positives
    assert torch.allclose(value, contrastive_loss_of(loss, z), rtol=1e-9)
    (gradient,) = torch.autograd.grad(value, logarithm)
    pushes = push(loss, z)
    assert probabilities(loss, z).sum() == pytest.approx(1, rel=1e-12)
    for i, k in itertools.permutations(range(2 * n), 2):
        if (i - k) % n:
            assert pushes[i, k].item() == pytest.approx(-gradient[i, k].item(), rel=1e-7)


def contrastive_loss_of(loss, z: torch.Tensor) -> torch.Tensor:
    z1, z2 = z.chunk(2)
    if isinstance(loss, InfoNCE):
        return info_nce(z1, z2, temperature=loss.temperature)
    return t_simclr(
        z1, z2, temperature=loss.temperature, df=loss.df, normalization=loss.normalization
    )


def distance(loss, x: torch.Tensor, y: torch.Tensor) -> float:
    """For cosines the angle, by its cosine."""
    if isinstance(loss, InfoNCE):
        return math.acos(min(1.0, (x @ y / x.norm() / y.norm()).item()))
    return (x - y).norm().item()


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_crowding_by_loops(loss):
    z = features(14)
    n, found = 7, crowding(loss, z)
    d = [[distance(loss, z[i], z[k]) for k in range(2 * n)] for i in range(2 * n)]
    own = [d[i][(i + n) % (2 * n)] for i in range(2 * n)]
    nearer = [
        sum(d[i][k] < own[i] for k in range(2 * n) if (i - k) % n) / (2 * n - 2)
        for i in range(2 * n)
    ]
    assert found["nearer"] == pytest.approx(sum(nearer) / (2 * n))
    between = sorted(d[i][k] for i in range(2 * n) for k in range(2 * n) if (i - k) % n)
    assert found["ratio"] == pytest.approx(
        sorted(own)[n - 1] / between[(len(between) - 1) // 2], rel=1e-6
    )
    pushes = push(loss, z).tolist()
    ordered = [
        pushes[i][k]
        for _, i, k in sorted(
            (d[i][k], i, k) for i in range(2 * n) for k in range(2 * n) if (i - k) % n
        )
    ]
    third = len(ordered) // 3
    assert found["near"] == pytest.approx(sum(ordered[:third]) / sum(ordered), rel=1e-6)
    assert found["near"] + found["middle"] + found["far"] == pytest.approx(1)
    one, other = pair_distances(loss, z)
    assert (len(one), len(other)) == (n, 2 * n * (n - 1))
    assert other.median() == 1
    assert sorted(one.tolist()) == pytest.approx(
        sorted(value / between[(len(between) - 1) // 2] for value in own)[::2], rel=1e-6
    )


def test_crowding_does_not_depend_on_units():
    """Features twice as large, τ four times: the same numbers."""
    z = features(12)
    first = crowding(TSimCLR(temperature=0.5, df=3.0), z)
    assert crowding(TSimCLR(temperature=2.0, df=3.0), 2 * z) == pytest.approx(first, rel=1e-9)
    assert crowding(TSimCLR(temperature=0.5, df=3.0), 2 * z) != pytest.approx(first, rel=1e-3)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_energy_of_three_points(loss):
    c = torch.tensor([[0.3, -1.2], [2.0, 0.1]], dtype=torch.float64)
    a, b = torch.tensor([1.0, -0.5]), torch.tensor([1.0, 0.5])
    for point, energy in zip(c, three_points(loss, c), strict=True):
        s = [
            log_s(loss, torch.tensor(distance(loss, x.double(), y.double()))).exp()
            for x, y in itertools.combinations((a, b, point), 2)
        ]
        assert energy.item() == pytest.approx(-math.log(s[0] / sum(s)), rel=1e-6)
    assert three_points(loss, torch.zeros(4, 5, 2) + 0.1).shape == (4, 5)


def test_cosine_sees_only_the_direction_of_the_third_point():
    c = torch.tensor([[0.3, -1.2]])
    cosine = InfoNCE(temperature=0.5)
    assert torch.allclose(three_points(cosine, c), three_points(cosine, 7 * c))


def test_contrastive_loss_of_the_loop_agrees():
    from sscl_core.config import TrainConfig

    z = features()
    for loss in LOSSES:
        assert torch.allclose(
            contrastive_loss(TrainConfig(loss=loss), *z.chunk(2)), contrastive_loss_of(loss, z)
        )


# ---- bad input, and features on any scale


plain = unchecked("sscl_experiments.studies.temperature_and_df.crowding")
COSINE, STUDENT = plain.InfoNCE(temperature=0.3), plain.TSimCLR(temperature=0.7, df=2.0)
Z = features(10)
BAD = [
    (Z[:5], ValueError, "two views of at least 2 images, (2n, d), got (5, 3)"),
    (Z[:2], ValueError, "two views of at least 2 images, (2n, d), got (2, 3)"),
    (Z[0], ValueError, "z must have shape (n, d)"),
    (Z[:0], ValueError, "z must have shape (n, d)"),
    (Z * math.nan, ValueError, "z must be finite"),
    (Z.long(), TypeError, "z must be a floating-point tensor, got torch.int64"),
    (Z.tolist(), TypeError, "z must be a floating-point tensor, got list"),
]


@pytest.mark.parametrize(("z", "error", "message"), BAD, ids=lambda x: str(x)[:30])
@pytest.mark.parametrize("loss", [COSINE, STUDENT], ids=str)
def test_bad_features(loss, z, error, message):
    for function in (plain.crowding, plain.pair_distances):
        with pytest.raises(error) as caught:
            function(loss, z)
        assert message in str(caught.value)


def test_rows_of_zeros_have_no_angle():
    z = Z.index_fill(0, torch.tensor(2), 0.0)
    for function in (
        plain.distances,
        plain.probabilities,
        plain.push,
        plain.crowding,
        plain.pair_distances,
    ):
        with pytest.raises(ValueError, match="z has a row of zeros, which has no direction"):
            function(COSINE, z)
        assert function(STUDENT, z) is not None


@pytest.mark.parametrize("c", [torch.zeros(3), torch.tensor(1.0), torch.zeros(2, 3)], ids=str)
def test_third_points_that_are_not_in_the_plane(c):
    with pytest.raises(
        ValueError, match=r"c must have shape \(\.\.\., 2\), points in the plane, got"
    ):
        plain.three_points(STUDENT, c)
    with pytest.raises(TypeError, match="c must be a floating-point tensor, got list"):
        plain.three_points(STUDENT, [1.0, 2.0])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_angles_do_not_depend_on_the_scale_in_float32(scale):
    """Squares of 1e30 overflow there, and those of 1e-30 are 0."""
    expected = crowding(LOSSES[0], features())
    assert crowding(LOSSES[0], scale * features().float()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_half_precision_is_computed_in_float32(loss, dtype):
    z = features().to(dtype)
    assert crowding(loss, z) == crowding(loss, z.float())
