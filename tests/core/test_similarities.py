"""Each similarity by itself: log s and Q by loops, slopes by autograd, distances, the masks."""

import math

import pytest
import torch

from sscl_core.similarities import (
    Cosine,
    Student,
    same_sample,
    squared_distances,
)

SIMILARITIES = [
    Cosine(0.3),
    Student(0.7, math.inf),
    Student(0.7, 1e31),
    Student(0.7, 2.0),
    Student(2.0, 0.5),
    Student(torch.tensor(0.7), torch.tensor(2.5)),
]
all_similarities = pytest.mark.parametrize("similarity", SIMILARITIES, ids=str)
all_students = pytest.mark.parametrize("similarity", SIMILARITIES[1:], ids=str)


def features(n: int = 6, d: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def log_s_of_squared(similarity: Student, squared: torch.Tensor) -> torch.Tensor:
    temperature, df = similarity.temperature, similarity.df
    if df > 1e30:
        return -squared / (2 * temperature)
    return -(df + 1) / 2 * (1 + squared / (temperature * df)).log()


def naive(similarity: Cosine | Student, x: torch.Tensor, y: torch.Tensor) -> float:
    if isinstance(similarity, Cosine):
        return float(x @ y / x.norm() / y.norm() / similarity.temperature)
    return float(log_s_of_squared(similarity, ((x - y) ** 2).sum()))


@all_similarities
def test_log_s_is_the_naive_loop(similarity):
    z = features()
    expected = torch.tensor([[naive(similarity, x, y) for y in z] for x in z]).double()
    torch.testing.assert_close(similarity.log_s(z), expected, rtol=1e-6, atol=1e-6)
    pairs, every = similarity.log_s_of_views(z)
    torch.testing.assert_close(every, similarity.log_s(z), rtol=0, atol=0)
    torch.testing.assert_close(pairs, expected.diagonal(3), rtol=1e-6, atol=1e-6)


@all_similarities
@pytest.mark.parametrize("normalization", ["joint", "conditional"])
def test_log_q_is_normalised_off_the_diagonal(similarity, normalization):
    log_q = similarity.log_q(features(), normalization=normalization)
    assert (log_q.diagonal() == -math.inf).all()
    off = ~torch.eye(6, dtype=torch.bool)
    logits = similarity.log_s(features())
    difference = (logits - log_q)[off].view(6, 5)
    if normalization == "joint":
        assert log_q.exp().sum().item() == pytest.approx(1)
        torch.testing.assert_close(difference, difference[0, 0].expand(6, 5))
    else:
        torch.testing.assert_close(log_q.exp().sum(1), torch.ones(6).double())
        torch.testing.assert_close(difference, difference[:, :1].expand(6, 5))


@all_students
def test_slopes_of_a_function_of_squared_distances_are_autograds(similarity):
    squared = torch.linspace(0.0, 9.0, 20, dtype=torch.float64, requires_grad=True)
    log_s = similarity.log_s_of_squared(squared)
    torch.testing.assert_close(log_s, log_s_of_squared(similarity, squared), rtol=1e-6, atol=1e-12)
    (slope,) = torch.autograd.grad(log_s.sum(), squared)
    torch.testing.assert_close(similarity.slope(squared.detach()), -slope, rtol=1e-6, atol=0)
    d = squared.detach().sqrt()
    in_log = similarity.slope_in_log_distance(d)
    torch.testing.assert_close(in_log, -2 * slope * d**2, rtol=1e-6, atol=0)


def test_slopes_of_a_cosine():
    """By the squared distance of unit vectors, and by the logarithm of their angle."""
    similarity = Cosine(0.3)
    angle = torch.linspace(0.1, 3.1, 20, dtype=torch.float64, requires_grad=True)
    log_s, squared = angle.cos() / 0.3, 2 - 2 * angle.cos()
    (by_angle,) = torch.autograd.grad(log_s.sum(), angle)
    (squared_by_angle,) = torch.autograd.grad(squared.sum(), angle)
    slope = similarity.slope(squared.detach())
    torch.testing.assert_close(slope, -by_angle / squared_by_angle)
    in_log = similarity.slope_in_log_distance(angle.detach())
    torch.testing.assert_close(in_log, -by_angle * angle.detach())


def test_small_distances_keep_their_digits_in_float32():
    """Beside a far point, which keeps centring from making all of them small."""
    angles = torch.tensor([0.0, 1e-5, 1e-4, 1e-3, 3.0], dtype=torch.float64)
    z = torch.stack([angles.cos(), angles.sin()], 1).float()
    right = (z[:, 1:].double() - z[:, 1:].double().T).abs()
    for similarity in (Cosine(0.3), Student(0.7, 2.0)):
        found = similarity.distances(z)
        assert found.dtype == torch.float32
        near = (slice(4), slice(4))
        torch.testing.assert_close(found.double()[near], right[near], rtol=1e-3, atol=1e-7)


def test_distances_are_angles_or_euclidean():
    z = features()
    cosines = torch.nn.functional.cosine_similarity(z[:, None], z[None], dim=-1)
    off = ~torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(Cosine(0.3).distances(z)[off], cosines[off].acos())
    torch.testing.assert_close(Student(0.7, 2.0).distances(z), torch.cdist(z, z))
    assert Cosine(0.3).metric == "cosine"
    assert Student(0.7, 2.0).metric == "euclidean"


@all_similarities
def test_log_s_is_computed_where_it_can_be_held(similarity):
    """In float64 where squares of float32 features overflow; and under autocast in full precision.

    Cosines do not depend on the length of features.
    """
    z = 1e25 * features().float()
    wide = isinstance(similarity, Student)
    assert similarity.log_s(z).dtype == (torch.float64 if wide else torch.float32)
    assert similarity.log_s(z).isfinite().all()
    near = features().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = similarity.log_s(near)
    assert torch.equal(under_autocast, similarity.log_s(near))


def test_squares_of_differences_are_held_where_those_of_features_just_are():
    """(a - b)² is up to four times the square of either, which here is a third of the largest."""
    largest = torch.finfo(torch.float32).max
    z = torch.tensor([[1.0], [-1.0]]) * math.sqrt(largest / 3)
    assert z.square().sum().isfinite()
    log_s = Student(0.5, math.inf).log_s(z)
    assert log_s[0, 1].item() == pytest.approx(-4 * largest / 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(0.0), "temperature must be positive and finite"),
        (lambda: Student(math.inf, 1.0), "temperature must be positive and finite"),
        (lambda: Student(1.0, -2.0), "df must be positive"),
    ],
)
def test_settings_are_checked_when_a_similarity_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_mask_of_self_and_positive_pairs():
    n, mask = 3, same_sample(3, torch.device("cpu"))
    assert mask.shape == (6, 6)
    for j in range(6):
        for k in range(6):
            assert mask[j, k] == ((j - k) % n == 0)


def test_squared_distances_have_no_gradient_through_the_shift():
    z = features().requires_grad_()
    (gradient,) = torch.autograd.grad(squared_distances(z)[0, 1], z)
    torch.testing.assert_close(gradient[0], 2 * (z[0] - z[1]).detach())
    torch.testing.assert_close(gradient[1], -gradient[0])
    assert gradient[2:].abs().max() < 1e-12
