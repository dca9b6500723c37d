"""P of a batch, and the closed forms, each against a loop or a definition written out."""

import math
from inspect import unwrap

import pytest
import torch

from sscl_core import theory
from sscl_core.affinities import positive_pairs
from sscl_core.losses import info_nce, log_q_cosine, log_q_student, sne_objective, squared_distances


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize(("form", "entry", "total"), [("conditional", 1.0, None), ("joint", None, 1.0)])
def test_positive_pairs(n, form, entry, total):
    P = positive_pairs(n, normalization=form)
    value = entry or 1 / (2 * n)
    for i in range(2 * n):
        for j in range(2 * n):
            assert P[i, j] == (value if abs(i - j) == n else 0)
    assert P.sum() == pytest.approx(total or 2 * n)


@pytest.mark.parametrize(("n", "form"), [(0, "joint"), (3, "rows")])
def test_positive_pairs_rejects(n, form):
    with pytest.raises(ValueError, match=r"n must be|normalization must be"):
        unwrap(positive_pairs)(n, normalization=form)


def random_points(n=7, d=3):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("normalization", ["joint", "conditional"])
def test_attraction_and_repulsion_are_the_gradient(normalization):
    """For any P, not only that of pairs; the one-sided sum is not the gradient of the conditional form."""
    z = random_points().requires_grad_()
    P = torch.rand(7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64).fill_diagonal_(0)
    P = P / (P.sum() if normalization == "joint" else P.sum(1, keepdim=True))
    log_Q = log_q_student(z, temperature=0.7, df=3.0, normalization=normalization)
    (gradient,) = torch.autograd.grad(sne_objective(P, log_Q), z)
    slope = theory.student_slope(squared_distances(z), temperature=0.7, df=3.0)
    attraction, repulsion = theory.attraction_repulsion(P, log_Q.exp(), z, slope)
    assert gradient.abs().max() > 1e-3
    assert torch.allclose(attraction + repulsion, gradient, atol=1e-12)
    one_sided = 4 * torch.einsum("ij,ijd->id", slope * (P - log_Q.exp()), z[:, None] - z[None])
    assert not torch.allclose(one_sided, gradient, atol=1e-3)


def test_attraction_pulls_towards_the_other_view():
    z = torch.tensor([[0.0, 0], [1, 0]], dtype=torch.float64)
    attraction, repulsion = theory.attraction_repulsion(positive_pairs(1), positive_pairs(1), z, 0.5)
    assert torch.equal(-attraction, torch.tensor([[2.0, 0], [-2, 0]], dtype=torch.float64))
    assert torch.equal(repulsion, -attraction)


def test_gradient_through_normalization():
    z = random_points().requires_grad_()
    u = torch.nn.functional.normalize(z, dim=1)
    objective = sne_objective(torch.full((7, 7), 1 / 6, dtype=torch.float64).fill_diagonal_(0), log_q_cosine(u))
    to_u, to_z = torch.autograd.grad(objective, [u, z])
    assert torch.allclose(theory.through_normalization(z, to_u), to_z, atol=1e-12)


@pytest.mark.parametrize("m", [2, 3, 5, 8])
def test_polygon_and_simplex(m):
    polygon = theory.regular_polygon(m)
    assert torch.allclose(theory.circle_gaps(polygon), torch.full((m,), 360 / m, dtype=torch.float64))
    for d in (m - 1, m + 2):
        corners = theory.regular_simplex(m, d)
        expected = torch.full((m, m), -1 / (m - 1), dtype=torch.float64).fill_diagonal_(1)
        assert torch.allclose(corners @ corners.T, expected, atol=1e-12)
    assert theory.uniform_arrangement(m, 2).shape == (m, 2)


def test_simplex_needs_room():
    with pytest.raises(ValueError, match="d must be at least m - 1 = 4"):
        theory.uniform_arrangement(5, 3)


def test_circle_gaps_of_known_angles():
    angles = torch.tensor([350.0, 10, 100]).double().deg2rad()
    gaps = theory.circle_gaps(torch.stack([angles.cos(), angles.sin()], 1) * 3)
    assert torch.allclose(gaps, torch.tensor([90.0, 250, 20]).double())


def test_component_means():
    u = torch.tensor([[1.0, 0], [3, 0], [0, 5]])
    assert torch.equal(theory.component_means(u, torch.tensor([0, 0, 1]), 2), torch.tensor([[2.0, 0], [0, 5]]))


@pytest.mark.parametrize("dim", [2, 4])
def test_free_points_find_the_arrangement_and_nothing_lower(dim):
    """Five free points under pure repulsion: L-BFGS reaches the closed form, which is known to be optimal."""

    def repulsion(z):
        u = torch.nn.functional.normalize(z, dim=1)
        return ((u @ u.T) / 0.5).exp().sum()

    values = theory.minimise_free(repulsion, (5, dim), starts=5, generator=torch.Generator().manual_seed(0))
    exact = theory.uniform_arrangement(5, dim)
    assert values.min().item() == pytest.approx(((exact @ exact.T) / 0.5).exp().sum().item(), rel=1e-9)


def test_loss_at_the_aligned_polygon_in_closed_form():
    n, m, tau = 10, 5, 0.5
    u = theory.regular_polygon(m).repeat(n // m, 1)
    others = sum((2 * n // m) * math.exp(math.cos(2 * math.pi * k / m) / tau) for k in range(m)) - math.exp(1 / tau)
    assert info_nce(u, u, temperature=tau).item() == pytest.approx(math.log(others) - 1 / tau, abs=1e-12)


@pytest.mark.parametrize("turn", [0.0, 40.0, -170.0])
def test_the_fitted_polygon_lies_on_the_points(turn):
    """In any order of the points, it is the polygon they nearly are: every corner within their deviation."""
    angles = (72.0 * torch.arange(5).double() + turn + torch.tensor([1.0, -1, 0.5, -0.5, 0])).deg2rad()[torch.tensor([3, 0, 4, 1, 2])]
    points = torch.stack([angles.cos(), angles.sin()], 1)
    nearest = torch.cdist(theory.fitted_polygon(points), points).amin(1)
    assert nearest.max() < 0.02
    assert torch.allclose(theory.circle_gaps(theory.fitted_polygon(points)), torch.full((5,), 72.0).double())
