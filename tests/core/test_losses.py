"""The losses against loops written from their formulas, closed forms, other people's code, and
the limits of floating point.
"""

import inspect
import math
from fractions import Fraction
from functools import partial, reduce

import numpy as np
import pytest
import torch
from helpers import unchecked
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss
from scipy.spatial.distance import squareform
from sklearn.manifold._t_sne import _kl_divergence
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sscl_core import checks
from sscl_core.losses import (
    InfoNCELoss,
    TSimCLRLoss,
    info_nce,
    log_q_cosine,
    log_q_gaussian,
    log_q_student,
    sne_objective,
    spectral_contrastive,
    squared_distances,
    t_simclr,
)

INF = math.inf
JOINT, CONDITIONAL = (
    partial(t_simclr, normalization="joint"),
    partial(t_simclr, normalization="conditional"),
)
LOSSES = {
    "info_nce": info_nce,
    "joint": JOINT,
    "conditional": CONDITIONAL,
    "gaussian joint": partial(JOINT, df=INF),
    "gaussian conditional": partial(CONDITIONAL, df=INF),
}
EUCLIDEAN = [name for name in LOSSES if name != "info_nce"]
all_losses = pytest.mark.parametrize("name", LOSSES)
all_euclidean = pytest.mark.parametrize("name", EUCLIDEAN)
both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
both_normalizations = pytest.mark.parametrize("normalization", ["joint", "conditional"])


plain = unchecked("sscl_core.losses")
PLAIN = {
    "info_nce": plain.info_nce,
    "joint": plain.t_simclr,
    "conditional": partial(plain.t_simclr, normalization="conditional"),
    "gaussian": partial(plain.t_simclr, df=INF),
}
all_plain = pytest.mark.parametrize("name", PLAIN)


def views(
    n: int = 5, d: int = 3, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Two views that are correlated, as views are."""
    generator = torch.Generator().manual_seed(seed)
    z1, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return z1.to(dtype), (z1 + 0.5 * noise).to(dtype)


def value_and_grad(loss, *inputs: Tensor) -> tuple[Tensor, ...]:
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    value = loss(*inputs)
    return (value.detach(), *torch.autograd.grad(value, inputs))


def assert_same(ours, theirs, *, rtol: float, atol: float = 0.0, check_dtype: bool = True) -> None:
    """Values and gradients agree, and there was something to agree on.

    All are finite, and some gradient is not zero.
    """
    assert all(x.isfinite().all() for x in ours)
    assert len(ours) == 1 or any(x.abs().max() > 0 for x in ours[1:])
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            x, y, rtol=rtol, atol=max(atol, rtol * float(y.abs().max())), check_dtype=check_dtype
        )


# ---- the formulas, as double loops over rows


def naive_logit(a: Tensor, b: Tensor, temperature, df) -> Tensor:
    """log s of two rows; df "cosine" stands for the cosine kernel."""
    if df == "cosine":
        return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt()) / temperature
    distance = ((a - b) ** 2).sum()
    if df == INF:
        return -distance / (2 * temperature)
    return -(df + 1) / 2 * torch.log(1 + distance / (temperature * df))


def naive_loss(
    z1: Tensor, z2: Tensor, weights: Tensor | None = None, *, temperature, df, normalization: str
) -> Tensor:
    z, n = [*z1, *z2], len(z1)
    w = [1.0] * n if weights is None else [x * n / sum(weights) for x in weights]
    terms, log_sums = [], []
    for i in range(2 * n):
        logits = {k: naive_logit(z[i], z[k], temperature, df) for k in range(2 * n) if k != i}
        positive = logits[i + n if i < n else i - n]
        log_sums.append(reduce(torch.logaddexp, logits.values()))
        terms.append(
            w[i % n] * (log_sums[-1] - positive if normalization == "conditional" else -positive)
        )
    return sum(terms) / (2 * n) + (
        reduce(torch.logaddexp, log_sums) if normalization == "joint" else 0
    )


def naive_log_q(z: Tensor, *, temperature, df, normalization: str) -> Tensor:
    n = range(len(z))
    s = [[0.0 if i == k else naive_logit(z[i], z[k], temperature, df).exp() for k in n] for i in n]
    total = (
        [sum(row) for row in s] if normalization == "conditional" else [sum(map(sum, s))] * len(z)
    )
    return torch.stack(
        [
            torch.stack(
                [torch.log(s[i][k] / total[i]) if i != k else z.new_tensor(-INF) for k in n]
            )
            for i in n
        ]
    )


def naive_kl(P: Tensor, log_Q: Tensor) -> Tensor:
    n = range(len(P))
    return sum(
        P[i, j] * (math.log(P[i, j]) - log_Q[i, j]) for i in n for j in n if i != j and P[i, j] > 0
    )


def naive_of(name: str, **settings):
    """The loop for a loss of LOSSES (or PLAIN), with its defaults."""
    if name == "info_nce":
        return partial(
            naive_loss,
            **{"temperature": 0.5, "df": "cosine", "normalization": "conditional"} | settings,
        )
    normalization, df = (
        "conditional" if "conditional" in name else "joint",
        INF if "gaussian" in name else 5.0,
    )
    return partial(
        naive_loss, **{"temperature": 1.0, "df": df, "normalization": normalization} | settings
    )


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("n", [2, 3, 5, 8])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 8.0])
def test_info_nce_is_the_double_loop(n, temperature, weighted):
    inputs = (*views(n), torch.rand(n, dtype=torch.float64) + 0.1)[: 3 if weighted else 2]
    ours = value_and_grad(
        lambda z1, z2, w=None: info_nce(z1, z2, temperature=temperature, weights=w), *inputs
    )
    assert_same(
        ours, value_and_grad(naive_of("info_nce", temperature=temperature), *inputs), rtol=1e-10
    )


@both_normalizations
@pytest.mark.parametrize("df", [0.5, 1.0, 5.0, INF])
@pytest.mark.parametrize(
    ("n", "temperature", "weighted"),
    [
        (2, 1.0, True),
        (2, 0.2, False),
        (3, 0.2, True),
        (3, 8.0, False),
        (5, 8.0, True),
        (5, 1.0, False),
        (8, 0.2, True),
    ],
)
def test_t_simclr_is_the_double_loop(n, temperature, weighted, df, normalization):
    inputs = (*views(n), torch.rand(n, dtype=torch.float64) + 0.1)[: 3 if weighted else 2]
    options = {"temperature": temperature, "df": df, "normalization": normalization}
    ours = value_and_grad(lambda z1, z2, w=None: t_simclr(z1, z2, weights=w, **options), *inputs)
    assert_same(ours, value_and_grad(partial(naive_loss, **options), *inputs), rtol=1e-10)


@both_normalizations
def test_gradients_of_settings_are_those_of_the_double_loop(normalization):
    inputs = (*views(4), *torch.tensor([0.7, 2.5], dtype=torch.float64))
    ours = value_and_grad(
        lambda z1, z2, t, df: t_simclr(z1, z2, temperature=t, df=df, normalization=normalization),
        *inputs,
    )
    naive = value_and_grad(
        lambda z1, z2, t, df: naive_loss(z1, z2, temperature=t, df=df, normalization=normalization),
        *inputs,
    )
    assert_same(ours, naive, rtol=1e-10)
    assert all(float(g.abs()) > 1e-3 for g in ours[3:])


@pytest.mark.parametrize(
    "name", [*LOSSES, "student with learned df, joint", "student with learned df, conditional"]
)
def test_first_and_second_derivatives_are_those_of_finite_differences(name):
    z1, z2, temperature, df = *views(3, 2), *torch.tensor([0.7, 2.5], dtype=torch.float64)
    inputs = [z1, z2, temperature, torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)]
    if name in LOSSES:

        def loss(z1, z2, temperature, weights):
            return LOSSES[name](z1, z2, temperature=temperature, weights=weights)
    else:
        inputs.append(df)

        def loss(z1, z2, temperature, weights, df):
            return t_simclr(
                z1,
                z2,
                temperature=temperature,
                weights=weights,
                df=df,
                normalization=name.split(", ")[1],
            )

    inputs = [x.clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


# ---- the objective and its Q's

LOG_Q = {
    "cosine": (log_q_cosine, {"df": "cosine", "temperature": 0.5, "normalization": "conditional"}),
    "gaussian": (log_q_gaussian, {"df": INF, "temperature": 0.5, "normalization": "conditional"}),
    "student": (log_q_student, {"df": 1.0, "temperature": 1.0, "normalization": "joint"}),
    "student, df=5": (
        partial(log_q_student, df=5.0),
        {"df": 5.0, "temperature": 1.0, "normalization": "joint"},
    ),
}
all_log_q = pytest.mark.parametrize("kernel", LOG_Q)
OPTIONS = [
    {},
    {"temperature": 0.3, "normalization": "joint"},
    {"temperature": 0.3, "normalization": "conditional"},
]
log_q_options = pytest.mark.parametrize("options", OPTIONS, ids=str)


def some_P(n: int = 6) -> Tensor:
    """Joint, without symmetry, and with zeros off the diagonal."""
    P = torch.rand(
        n, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).fill_diagonal_(0)
    P[0, 1:3] = P[3, 0] = 0
    return P / P.sum()


@all_log_q
@log_q_options
def test_log_q_is_the_double_loop_normalised_off_the_diagonal(kernel, options):
    log_q, defaults = LOG_Q[kernel]
    z, P = views(6)[0], some_P()
    Q = log_q(z, **options).exp()
    assert (Q.diagonal() == 0).all()
    assert ((Q > 0) == ~torch.eye(6, dtype=torch.bool)).all()
    totals = Q.sum() if (defaults | options)["normalization"] == "joint" else Q.sum(1)
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=1e-13, atol=0)
    naive = partial(naive_log_q, **defaults | options)
    torch.testing.assert_close(log_q(z, **options), naive(z), rtol=1e-10, atol=1e-10)
    assert_same(
        value_and_grad(lambda z: sne_objective(P, log_q(z, **options)), z),
        value_and_grad(lambda z: naive_kl(P, naive(z)), z),
        rtol=1e-10,
    )


def test_sne_objective_ignores_diagonals_and_what_P_leaves_out():
    P, log_Q = some_P(), log_q_student(views(6)[0])
    expected = naive_kl(P, log_Q)
    assert expected > 0.1
    for diagonal_of_P, diagonal_of_log_Q in [(0.0, -INF), (0.5, 0.0), (1.0, -INF), (0.0, math.nan)]:
        inputs = (
            P.clone().fill_diagonal_(diagonal_of_P),
            log_Q.clone().fill_diagonal_(diagonal_of_log_Q),
        )
        value, grad_P, grad_log_Q = value_and_grad(sne_objective, *inputs)
        torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
        torch.testing.assert_close(grad_log_Q, -P, rtol=1e-13, atol=0)
        assert grad_P.isfinite().all()
        assert (grad_P[P == 0] == 0).all()
    log_Q[0, 1] = log_Q[3, 0] = -INF  # P is zero there
    value, *grads = value_and_grad(sne_objective, P, log_Q)
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    assert all(g.isfinite().all() for g in grads)
    log_Q[0, 4] = -INF  # and is not here
    assert sne_objective(P, log_Q) == INF
    assert sne_objective(P, P.log()) == 0


def test_gradient_is_attraction_minus_repulsion_from_both_sides():
    """∂KL/∂z_i = 2 Σ_j (P_ij - Q_ij + P_ji - Q_ji)(z_i - z_j) for logits -‖z_i - z_j‖².

    Half of it is not enough for rows.
    """
    z, P = views(6)[0], some_P()
    P = P / P.sum(1, keepdim=True)
    Q = log_q_gaussian(z).exp()
    _, grad = value_and_grad(lambda z: sne_objective(P, log_q_gaussian(z)), z)
    difference = z[:, None] - z
    two_sided = 2 * ((P - Q + (P - Q).T)[:, :, None] * difference).sum(1)
    torch.testing.assert_close(grad, two_sided, rtol=1e-10, atol=1e-12)
    assert (grad - 4 * ((P - Q)[:, :, None] * difference).sum(1)).abs().max() > 0.1


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize(
    ("log_q", "loss", "joint"),
    [
        (log_q_cosine, info_nce, False),
        (partial(log_q_student, df=5.0, normalization="conditional"), CONDITIONAL, False),
        (partial(log_q_student, df=5.0), JOINT, True),
        (partial(log_q_gaussian, normalization="joint"), partial(JOINT, df=INF), True),
    ],
    ids=[
        "KL = 2n InfoNCE",
        "KL = 2n t-SimCLR, conditional",
        "KL = t-SimCLR - log 2n, joint",
        "the same, Gaussian",
    ],
)
def test_the_papers_constants(n, log_q, loss, joint):
    P = torch.eye(2 * n, dtype=torch.float64).roll(n, 0) / (2 * n if joint else 1)
    objective = value_and_grad(
        lambda z1, z2: sne_objective(P, log_q(torch.cat([z1, z2]), temperature=0.7)), *views(n)
    )
    value, *grads = value_and_grad(partial(loss, temperature=0.7), *views(n))
    expected = (
        (value - math.log(2 * n), *grads) if joint else (2 * n * value, *(2 * n * g for g in grads))
    )
    assert_same(objective, expected, rtol=1e-12)


# ---- other people's code


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
def test_info_nce_is_ntxent_of_pytorch_metric_learning(temperature):
    labels = torch.arange(6).repeat(2)
    theirs = value_and_grad(
        lambda z1, z2: NTXentLoss(temperature)(torch.cat([z1, z2]), labels), *views(6)
    )
    assert_same(
        value_and_grad(partial(info_nce, temperature=temperature), *views(6)), theirs, rtol=1e-10
    )


@pytest.mark.parametrize("df", [1.0, 3.0])
def test_sne_objective_is_exact_tsne_of_scikit_learn(df):
    z, P = views(6, 2)[0], some_P()
    P = P + P.T
    P /= P.sum()
    value, grad = _kl_divergence(z.numpy().ravel(), squareform(P.numpy(), checks=False), df, 6, 2)
    ours = value_and_grad(lambda z: sne_objective(P, log_q_student(z, df=df)), z)
    theirs = (torch.tensor(value), torch.from_numpy(grad).view(6, 2))
    known = 2 if df == 1 else 1  # scikit-learn's gradient is that of its value for df = 1 only
    assert_same(ours[:known], theirs[:known], rtol=1e-10)


# ---- closed forms


@both_precisions
@all_losses
@pytest.mark.parametrize("n", [2, 3, 50])
def test_equal_points_leave_the_number_of_candidates(n, name, dtype):
    """log(2n - 1) per anchor, log(2n(2n - 1)) over all pairs; and nothing pulls."""
    z = torch.tensor([0.3, -1.2, 2.0], dtype=dtype).expand(n, 3)
    expected = math.log(2 * n - 1) + ("joint" in name) * math.log(2 * n)
    value, *grads = value_and_grad(LOSSES[name], z, z)
    assert float(value) == pytest.approx(expected, rel=4 * torch.finfo(dtype).eps)
    assert all(g.abs().max() < 10 * torch.finfo(dtype).eps for g in grads)


@all_losses
@pytest.mark.parametrize("m", [3, 4, 7])
def test_aligned_regular_polygon(name, m):
    """Each vertex holds one pair.

    The positive is at distance 0, and two points are at each other vertex.
    """
    angles = torch.arange(m, dtype=torch.float64) * 2 * math.pi / m
    z = torch.stack([angles.cos(), angles.sin()], 1)
    if name == "info_nce":
        log_s = [math.cos(2 * math.pi * k / m) / 0.5 for k in range(m)]
    else:
        distance = [2 - 2 * math.cos(2 * math.pi * k / m) for k in range(m)]
        log_s = [-d / 2 if "gaussian" in name else -3 * math.log(1 + d / 5) for d in distance]
    row = math.log(math.exp(log_s[0]) + 2 * sum(map(math.exp, log_s[1:])))
    expected = row - log_s[0] + ("joint" in name) * math.log(2 * m)
    assert float(LOSSES[name](z, z)) == pytest.approx(expected, rel=1e-13)


def test_two_pairs_by_hand():
    z1, z2 = (
        torch.tensor([[0.0], [2.0]]).double(),
        torch.tensor([[1.0], [4.0]]).double(),
    )  # Z = 0, 2, 1, 4
    # s = 1/(1 + squared distance): 02 1/5, 01 1/2, 04 1/17, 21 1/2, 24 1/5, 14 1/10.
    # The pairs are 01 and 24.
    total = 2 * (1 / 5 + 1 / 2 + 1 / 17 + 1 / 2 + 1 / 5 + 1 / 10)
    assert float(t_simclr(z1, z2, df=1.0)) == pytest.approx(
        (math.log(2) + math.log(5)) / 2 + math.log(total), rel=1e-14
    )
    rows = {
        0: 1 / 5 + 1 / 2 + 1 / 17,
        2: 1 / 5 + 1 / 2 + 1 / 5,
        1: 1 / 2 + 1 / 2 + 1 / 10,
        4: 1 / 17 + 1 / 5 + 1 / 10,
    }
    by_hand = sum(map(math.log, rows.values())) / 4 + (math.log(2) + math.log(5)) / 2
    assert float(t_simclr(z1, z2, df=1.0, normalization="conditional")) == pytest.approx(
        by_hand, rel=1e-14
    )
    weights = torch.tensor([1.0, 3.0]).double()  # rescaled to 1/2, 3/2
    assert float(t_simclr(z1, z2, df=1.0, weights=weights)) == pytest.approx(
        math.log(2 * 5**3) / 4 + math.log(total)
    )
    e, s = torch.eye(2).double(), math.exp(2)  # unit vectors, each with itself as its pair
    assert float(info_nce(e, e)) == pytest.approx(math.log(s + 2) - 2, rel=1e-14)
    assert float(info_nce(e, -e)) == pytest.approx(math.log(1 / s + 2) + 2, rel=1e-14)


# ---- invariances


def _orthogonal(d: int, dtype: torch.dtype) -> Tensor:
    return torch.linalg.qr(
        torch.randn(d, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    )[0].to(dtype)


def _rows(n: int, dtype: torch.dtype) -> Tensor:
    return torch.logspace(-3, 3, n, dtype=dtype)[:, None]


TRANSFORMS = {
    "permute the pairs": lambda z1, z2: (z1.flip(0), z2.flip(0)),
    "swap the views": lambda z1, z2: (z2, z1),
    "rotate": lambda z1, z2: (
        z1 @ _orthogonal(z1.shape[1], z1.dtype),
        z2 @ _orthogonal(z1.shape[1], z1.dtype),
    ),
    "rescale each row": lambda z1, z2: (
        z1 * _rows(len(z1), z1.dtype),
        z2 * _rows(len(z1), z1.dtype).flip(0),
    ),
    "shift": lambda z1, z2: (z1 + 1, z2 + 1),
    "permute one view": lambda z1, z2: (z1, z2.flip(0)),
    "scale": lambda z1, z2: (2 * z1, 2 * z2),
}
SCALES = ("rescale each row", "permute one view", "scale")
CHANGES = dict.fromkeys(EUCLIDEAN, SCALES) | {"info_nce": ("shift", "permute one view")}


@both_precisions
@all_losses
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_invariances_and_what_is_none(transform, name, dtype):
    z1, z2 = views(6, 4, dtype=dtype)
    moved = TRANSFORMS[transform](z1, z2)
    assert (moved[0] - z1).abs().max() > 0.1 or (moved[1] - z2).abs().max() > 0.1
    before, after = LOSSES[name](z1, z2), LOSSES[name](*moved)
    assert (
        abs(float(before - LOSSES[name](*views(6, 4, dtype=dtype, seed=1)))) > 0.01
    )  # it depends on the features
    if transform in CHANGES[name]:
        assert abs(float(before - after)) > 0.01
    else:
        assert float(after) == pytest.approx(float(before), rel=20 * torch.finfo(dtype).eps)


@all_euclidean
def test_a_common_shift_of_1000_in_float32(name):
    """The features are multiples of 2^-10, so that adding 1000 is exact.

    Features near 1000 are rounded by 6e-5 a step, which changes a gradient by some 1e-5 to 1e-4.
    Distances from an uncentred Gram matrix would be rounded by eps·1000² = 0.1.
    """
    z1, z2 = ((z * 1024).round() / 1024 for z in views(16, 4, dtype=torch.float32))
    assert ((z1 + 1000) - 1000 == z1).all()
    before, after = (
        value_and_grad(LOSSES[name], z1, z2),
        value_and_grad(LOSSES[name], z1 + 1000, z2 + 1000),
    )
    assert_same(after, before, rtol=2e-4)
    distances = squared_distances(z1 + 1000)
    torch.testing.assert_close(distances, (z1[:, None] - z1).square().sum(2), rtol=1e-5, atol=1e-5)


@both_precisions
@all_euclidean
@pytest.mark.parametrize("temperature", [0.05, 8.0])
def test_temperature_is_a_unit_of_squared_length(temperature, name, dtype):
    z1, z2 = views(dtype=dtype)
    scaled = LOSSES[name](z1 / temperature**0.5, z2 / temperature**0.5)
    tolerance = 20 * torch.finfo(dtype).eps  # of logits up to 100
    torch.testing.assert_close(
        LOSSES[name](z1, z2, temperature=temperature), scaled, rtol=100 * tolerance, atol=tolerance
    )
    assert abs(float(scaled - LOSSES[name](z1, z2))) > 0.01


# ---- properties

batches = st.builds(
    lambda n, d, seed, scale: tuple(z * 10**scale for z in views(n, d, seed=seed)),
    st.integers(2, 9), st.integers(1, 6), st.integers(0, 2**20), st.floats(-3, 3),
)  # fmt: skip
positive = st.floats(-2, 2).map(lambda x: 10**x)
property_test = settings(max_examples=30, deadline=None, database=None, derandomize=True)


def some_weights(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (
        torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        .add(0.01)
        .to(dtype)
    )


@property_test
@given(batch=batches, temperature=positive, df=positive | st.just(INF))
def test_lower_bounds(batch, temperature, df):
    """Conditional losses are at least 0.

    The joint one is at least the entropy of its P, which is log 2n without weights.
    """
    n, p = len(batch[0]), some_weights(len(batch[0]))
    p = torch.cat([p, p]) / (2 * p.sum())
    assert info_nce(*batch, temperature=temperature) >= 0
    assert t_simclr(*batch, temperature=temperature, df=df, normalization="conditional") >= -1e-9
    assert t_simclr(*batch, temperature=temperature, df=df) >= math.log(2 * n) - 1e-9
    assert (
        t_simclr(*batch, temperature=temperature, df=df, weights=p[:n])
        >= float(torch.special.entr(p).sum()) - 1e-9
    )


@property_test
@given(
    batch=batches,
    scale=st.floats(-30, 30),
    name=st.sampled_from(list(LOSSES)),
    single=st.booleans(),
)
def test_weights_count_relative_to_their_mean(batch, scale, name, single):
    dtype = torch.float32 if single else torch.float64
    z1, z2 = (z.to(dtype) for z in batch)
    loss, w, c = LOSSES[name], some_weights(len(z1), dtype=dtype), 10**scale
    assert torch.equal(loss(z1, z2, weights=torch.full_like(w, c)), loss(z1, z2))  # bit for bit
    torch.testing.assert_close(
        loss(z1, z2, weights=c * w),
        loss(z1, z2, weights=w),
        rtol=20 * torch.finfo(dtype).eps,
        atol=1e-6,
    )


@all_losses
def test_a_pair_of_weight_zero_is_still_a_candidate(name):
    z1, z2 = views()
    w = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    keep = w > 0
    assert abs(float(LOSSES[name](z1, z2, weights=w) - LOSSES[name](z1, z2))) > 1e-3
    assert (
        abs(
            float(
                LOSSES[name](z1, z2, weights=w) - LOSSES[name](z1[keep], z2[keep], weights=w[keep])
            )
        )
        > 1e-3
    )


# ---- the limits of floating point


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("info_nce", {"temperature": t}) for t in (0.01, 100.0)),
        *((name, {"temperature": 0.01}) for name in EUCLIDEAN),
        *((name, {"df": df}) for name in ("joint", "conditional") for df in (0.01, 1e4)),
    ],
    ids=str,
)
def test_extreme_settings_in_float32(name, options):
    """Logits carry a relative error of some eps, which becomes an absolute one of the loss.

    Logits reach 1000 here, and the error 1e-4.
    """
    z1, z2 = views(8, 4, dtype=torch.float32)
    reference = value_and_grad(naive_of(name, **options), z1.double(), z2.double())
    assert_same(
        value_and_grad(partial(LOSSES[name], **options), z1, z2),
        reference,
        rtol=1e-4,
        atol=1e-6,
        check_dtype=False,
    )


@both_normalizations
def test_student_meets_the_gaussian_at_rate_one_over_df(normalization):
    loss = partial(t_simclr, *views(), normalization=normalization)
    gaps = [abs(float(loss(df=df) - loss(df=INF))) for df in (1e3, 1e4, 1e5)]
    assert gaps[0] > 1e-5
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.02)
    assert gaps[1] / gaps[2] == pytest.approx(10, rel=0.02)


@all_losses
@both_precisions
def test_coincident_points(name, dtype):
    """Views that coincide, and two samples that coincide, where a distance (not squared) would
    have no gradient.
    """
    z1, _ = views(dtype=dtype)
    z1[1] = z1[0]
    reference = value_and_grad(naive_of(name), z1.double(), z1.double())
    assert_same(
        value_and_grad(LOSSES[name], z1, z1),
        reference,
        rtol=20 * torch.finfo(dtype).eps,
        check_dtype=False,
    )


@all_euclidean
def test_distances_that_rounding_turns_negative_are_zero(name):
    """Equal rows 1e6 from the centroid.

    The Gram matrix is off by 1e5, and 1 + distance must not go below zero for it.
    """
    z1, z2 = (1e6 * z.repeat(2, 1) for z in views(32, 8, dtype=torch.float32))
    distances = squared_distances(z1)
    assert distances.min() == 0
    assert distances[0, 32] < 1e-6 * distances.max()
    assert all(x.isfinite().all() for x in value_and_grad(LOSSES[name], z1, z2))


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        *(("info_nce", scale) for scale in (1e-30, 1e-6, 1e6, 1e30)),
        *((name, scale) for name in EUCLIDEAN for scale in (1e-10, 1e-6, 1e2, 1e6, 1e10)),
    ],
)
def test_far_and_near_points_in_float32(name, scale):
    """Squares of 1e30 overflow in float32: only directions are defined there."""
    z1, z2 = (z * scale for z in views(4, 4, dtype=torch.float32))
    reference = value_and_grad(naive_of(name), z1.double(), z2.double())
    ours = value_and_grad(LOSSES[name], z1, z2)
    if (
        name == "gaussian conditional" and scale >= 1e2
    ):  # every positive is the nearest neighbor, by far
        assert (
            [float(x.abs().max()) for x in ours]
            == [float(x.abs().max()) for x in reference]
            == [0, 0, 0]
        )
    elif (
        name == "gaussian joint" and scale > 1e2
    ):  # logits beyond 1/eps: differences between them, and so softmax, are rounding
        assert float(ours[0]) == pytest.approx(float(reference[0]), rel=1e-5)
        assert all(x.isfinite().all() and x.abs().max() > 0 for x in ours)
    else:
        assert_same(ours, reference, rtol=1e-4, check_dtype=False)


@all_losses
@pytest.mark.parametrize("scale", [1e4, 1e10])
def test_far_points_with_other_neighbors_in_float32(name, scale):
    """The positive is not the nearest.

    Losses are large, gradients finite, and attraction is not lost.
    """
    z1, z2 = (z * scale for z in views(4, 4, dtype=torch.float32))
    ours = value_and_grad(LOSSES[name], z1, z2.flip(0))
    reference = naive_of(name)(z1.double(), z2.flip(0).double())
    assert float(ours[0]) == pytest.approx(float(reference), rel=1e-5)
    assert all(x.isfinite().all() and x.abs().max() > 0 for x in ours)


@pytest.mark.parametrize("name", ["info_nce", "conditional", "gaussian conditional"])
@pytest.mark.parametrize("shrink", [1e-1, 1e-3, 0.0])
def test_conditional_losses_stay_positive_and_exact_near_zero_in_float32(name, shrink):
    """log(1 + Σ s / s_positive) over negatives keeps the digits that a difference of two
    logarithms loses, sign and all.
    """
    z1, z2 = views(16, 32, dtype=torch.float32)
    z2, settings = z1 + shrink * (z2 - z1), {"temperature": 0.05 if name == "info_nce" else 1.0}
    ours = value_and_grad(partial(LOSSES[name], **settings), z1, z2)
    reference = value_and_grad(naive_of(name, **settings), z1.double(), z2.double())
    assert 0 < reference[0] < 1
    assert ours[0] > 0
    torch.testing.assert_close(ours[0].double(), reference[0], rtol=1e-4, atol=0)


def test_cosine_of_rows_on_different_scales_in_float32():
    z1, z2 = (
        z * 10.0 ** torch.tensor([[-30.0], [0.0], [30.0], [5.0]])
        for z in views(4, dtype=torch.float32)
    )
    value, g1, g2 = value_and_grad(info_nce, z1, z2)
    reference = value_and_grad(naive_of("info_nce"), z1.double(), z2.double())
    torch.testing.assert_close(value.double(), reference[0], rtol=1e-6, atol=0)
    for ours, theirs, z in zip(
        (g1, g2), reference[1:], (z1, z2), strict=True
    ):  # in each row's own unit
        size = z.double().norm(dim=1, keepdim=True)
        torch.testing.assert_close(ours.double() * size, theirs * size, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weights", [[1e300, 3e300], [1e-300, 3e-300]], ids=str)
def test_weights_beyond_the_range_of_the_features(weights):
    z1, z2 = views(2, dtype=torch.float32)
    expected = info_nce(z1, z2, weights=torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(
        info_nce(z1, z2, weights=torch.tensor(weights, dtype=torch.float64)), expected
    )


@pytest.mark.parametrize("scale", [1e20, 1e38])
@pytest.mark.parametrize("name", ["joint", "conditional"])
@pytest.mark.parametrize("df", [0.5, 5.0])
def test_features_whose_squares_overflow_in_float32(df, name, scale):
    """The logarithm of a square is no large number: values and gradients are those of float64."""
    z1, z2 = (z * scale for z in views(4, 4, dtype=torch.float32))
    assert (z1.square() == INF).any()
    loss = partial(LOSSES[name], df=df)
    reference = value_and_grad(naive_of(name, df=df), z1.double(), z2.double())
    # Gradients of 1e-38 are below the smallest normal number of float32.
    assert_same(
        value_and_grad(loss, z1, z2),
        reference,
        rtol=1e-5 if scale < 1e38 else 1e-3,
        check_dtype=False,
    )
    value = loss(z1, z2)
    assert value.dtype == torch.float32
    assert loss(z1.double(), z2.double()).dtype == torch.float64


@pytest.mark.parametrize("log_q", [log_q_student, partial(log_q_student, df=5.0)])
@both_normalizations
def test_log_q_of_features_whose_squares_overflow_in_float32(log_q, normalization):
    z = 1e20 * views(3, 4, dtype=torch.float32)[0]
    ours = log_q(z, normalization=normalization)
    df = 1.0 if log_q is log_q_student else 5.0
    naive = naive_log_q(z.double(), temperature=1.0, df=df, normalization=normalization)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), naive, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [1e-30, 1e-45, 1e-200])
def test_temperatures_below_the_range_of_float32(temperature):
    z1, z2 = views(4, 4, dtype=torch.float32)
    assert info_nce(z1, z1, temperature=temperature) == 0
    learned = torch.tensor(temperature, dtype=torch.float64)
    for name in ("joint", "conditional"):
        loss = partial(LOSSES[name], temperature=temperature)
        naive = naive_of(name, temperature=temperature)
        reference = value_and_grad(naive, z1.double(), z2.double())
        assert_same(value_and_grad(loss, z1, z2), reference, rtol=1e-5, check_dtype=False)
        torch.testing.assert_close(LOSSES[name](z1, z2, temperature=learned), loss(z1, z2))


def test_a_product_of_temperature_and_df_that_is_zero_in_float64():
    z1, z2 = (1e-30 * z for z in views(4, 4, dtype=torch.float32))
    value = JOINT(z1, z2, temperature=1e-200, df=1e-130)
    in_other_units = (1e100 * z.double() for z in (z1, z2))
    exact = naive_loss(*in_other_units, temperature=1.0, df=1e-130, normalization="joint")
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=0)


def test_results_beyond_the_range_of_the_features_are_refused():
    z1, z2 = views(4, 4, dtype=torch.float32)
    words = ["the result reaches", "beyond torch.float32", ".double()"]
    for far in ({"df": INF}, {"df": INF, "normalization": "conditional"}):
        rejects(ValueError, words, plain.t_simclr, 1e20 * z1, 1e20 * z2.flip(0), **far)
        assert plain.t_simclr(1e20 * z1.double(), 1e20 * z2.double().flip(0), **far) > 1e39
    rejects(ValueError, words, plain.info_nce, z1, z2.flip(0), temperature=1e-45)
    rejects(ValueError, words, plain.log_q_gaussian, 1e20 * z1)
    rejects(ValueError, words, plain.log_q_cosine, z1, temperature=1e-45)
    rejects(ValueError, words, plain.spectral_contrastive, 1e20 * z1, 1e20 * z2)
    rejects(ValueError, words, plain.squared_distances, 1e20 * z1)
    words = ["features over the temperature reach", "beyond float64", "rescale"]
    rejects(ValueError, words, plain.t_simclr, 1e200 * z1.double(), 1e200 * z2.double())
    rejects(ValueError, words, plain.t_simclr, z1, z2, temperature=1e-200, df=1e-200)
    rejects(ValueError, words, plain.info_nce, z1, z2, temperature=1e-310)
    rejects(ValueError, words, plain.squared_distances, 1e200 * z1.double())
    rejects(ValueError, words, plain.spectral_contrastive, 1e90 * z1.double(), z2.double())


def test_spectral_contrastive_of_large_features_in_float32():
    """Squares of products are a fourth power: those of 1e9 are representable, their sum is not."""
    z1, z2 = (2e9 * z for z in views(40, 4, dtype=torch.float32))
    z = [*z1.double(), *z2.double()]
    squares = sum(float(z[i] @ z[k]) ** 2 for i in range(80) for k in range(80) if i % 40 != k % 40)
    exact = -2 * sum(float(a @ b) for a, b in zip(z[:40], z[40:], strict=True)) / 40 + squares / (
        80 * 78
    )
    assert squares > torch.finfo(torch.float32).max > exact
    assert float(spectral_contrastive(z1, z2)) == pytest.approx(exact, rel=1e-5)


@both_precisions
@pytest.mark.parametrize("df", [1e30, 1e40, 1e300])
def test_df_without_number_is_the_gaussian(df, dtype):
    z1, z2 = views(dtype=dtype)
    expected = value_and_grad(naive_of("gaussian joint"), z1.double(), z2.double())
    rtol = 20 * torch.finfo(dtype).eps
    assert_same(
        value_and_grad(partial(t_simclr, df=df), z1, z2), expected, rtol=rtol, check_dtype=False
    )


# ---- squared distances, which keep the promises of all the rest


def naive_squared_distances(z: Tensor) -> Tensor:
    return torch.tensor([[float(((a - b) ** 2).sum()) for b in z.double()] for a in z.double()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_squared_distances_in_half_precision_are_those_of_float32(dtype):
    """Squares of 300 overflow in float16; of bfloat16 two digits would be left."""
    z = (300 * views(6, 4)[0]).to(dtype)
    ours = squared_distances(z)
    assert ours.dtype == torch.float32
    assert ours.max() > 65504
    torch.testing.assert_close(
        ours, naive_squared_distances(z), rtol=1e-5, atol=1e-6 * float(ours.max())
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(squared_distances(z), ours)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e17, 1e18])
def test_squared_distances_up_to_the_largest_number(scale):
    z = scale * views(6, 4, dtype=torch.float32)[0]
    ours, exact = squared_distances(z), naive_squared_distances(z)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-6 * float(exact.max()))


@all_losses
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_features_are_computed_in_float32(name, dtype):
    z1, z2 = (z.to(dtype) for z in views(8, 16))
    weights = some_weights(8, dtype=dtype)
    ours = value_and_grad(lambda *z: LOSSES[name](*z, weights=weights), z1, z2)
    single = value_and_grad(
        lambda *z: LOSSES[name](*z, weights=weights.float()), z1.float(), z2.float()
    )
    assert [x.dtype for x in ours] == [torch.float32, dtype, dtype]
    assert torch.equal(ours[0], single[0])
    assert all(
        torch.equal(x, y.to(dtype)) and x.abs().max() > 0
        for x, y in zip(ours[1:], single[1:], strict=True)
    )


@pytest.mark.parametrize(
    "call",
    [
        *LOSSES.values(),
        lambda *z: log_q_cosine(torch.cat(z)),
        lambda *z: log_q_student(torch.cat(z)),
    ],
)
def test_autocast_does_not_reach_inside(call):
    def under_autocast(z1, z2):
        with torch.autocast("cpu", torch.bfloat16):
            assert (z1 @ z2.T).dtype == torch.bfloat16
            return call(z1, z2).nan_to_num(neginf=0.0).sum()  # a log Q has -inf on its diagonal

    z1, z2 = views(8, 16, dtype=torch.float32)
    inside = value_and_grad(under_autocast, z1, z1 + z2)
    outside = value_and_grad(lambda *z: call(*z).nan_to_num(neginf=0.0).sum(), z1, z1 + z2)
    assert all(
        x.dtype == torch.float32 and torch.equal(x, y) for x, y in zip(inside, outside, strict=True)
    )


# ---- memory and small batches


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max(
            [self.numel, *(x.numel() for x in tree_leaves(out) if isinstance(x, Tensor))]
        )
        return out


@all_losses
@pytest.mark.parametrize(("n", "d"), [(64, 128), (64, 16), (4, 64)])
def test_no_tensor_of_n_squared_times_d(name, n, d):
    """The largest is one of (2n)² numbers, or a factor of the Gram matrix, 2n × (d + 2).

    A difference tensor has (2n)²·d.
    """
    z1, z2 = views(n, d)
    with LargestTensor() as direct:
        (z1[:, None] - z2).square().sum()
    assert direct.numel == n * n * d
    with LargestTensor() as largest:
        value_and_grad(LOSSES[name], z1, z2)
    assert largest.numel == max((2 * n) ** 2, 2 * n * (d if name == "info_nce" else d + 2))


@all_losses
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("d", [1, 5])
def test_small_and_odd_batches(n, d, name):
    value, *grads = value_and_grad(LOSSES[name], *views(n, d))
    assert value > 0
    assert value.shape == ()
    assert all(g.isfinite().all() for g in grads)
    assert any(g.abs().max() > 1e-6 for g in grads) != (
        name == "info_nce" and d == 1
    )  # on S⁰ there is nowhere to go


# ---- bad input, as users meet it

GOOD = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
ROW_OF_NAN, ROW_OF_INF, ROW_OF_ZEROS = (
    torch.stack([GOOD[0], GOOD[1], torch.full((2,), x)]) for x in (math.nan, INF, 0.0)
)
BAD_FEATURES = [
    ([[1.0, 2.0]], TypeError, ["floating-point", "list"]),
    (None, TypeError, ["floating-point", "NoneType"]),
    (GOOD.long(), TypeError, ["floating-point", "torch.int64"]),
    (GOOD > 0, TypeError, ["floating-point", "torch.bool"]),
    (GOOD + 0j, TypeError, ["floating-point", "torch.complex64"]),
    (GOOD[0], ValueError, ["(n, d)", "(2,)"]),
    (GOOD[None], ValueError, ["(n, d)", "(1, 3, 2)"]),
    (GOOD[:1], ValueError, ["n >= 2", "(1, 2)"]),
    (GOOD[:0], ValueError, ["n >= 2", "(0, 2)"]),
    (GOOD[:, :0], ValueError, ["d >= 1", "(3, 0)"]),
]
BAD_VALUES = [
    (ROW_OF_NAN, ValueError, ["finite", "NaN"]),
    (ROW_OF_INF, ValueError, ["finite", "infinity"]),
]
BAD_POSITIVE = [
    (0.0, ValueError, ["positive", "0"]),
    (0, ValueError, ["positive", "0"]),
    (-1.5, ValueError, ["positive", "-1.5"]),
    (math.nan, ValueError, ["positive", "nan"]),
    (-INF, ValueError, ["positive", "-inf"]),
    (torch.tensor(-1.5), ValueError, ["positive", "-1.5"]),
    (torch.tensor(INF), ValueError, ["finite", "inf"]),
    (torch.tensor(math.nan), ValueError, ["positive", "nan"]),
    (torch.ones(2), ValueError, ["scalar", "(2,)"]),
    (torch.ones(0), ValueError, ["scalar", "(0,)"]),
    (torch.tensor(True), TypeError, ["number", "torch.bool"]),
    (torch.tensor(1j), TypeError, ["number", "torch.complex64"]),
    (np.float32(-1.5), ValueError, ["positive", "-1.5"]),
    (Fraction(-3, 2), ValueError, ["positive", "-3/2"]),
    (10**400, ValueError, ["range of a float", "1000"]),
    (Fraction(1, 10**400), ValueError, ["positive", "1/1000"]),
    (np.bool_(True), TypeError, ["number", "bool"]),
    (np.array(1.5), TypeError, ["number", "ndarray"]),
    (1j, TypeError, ["number", "complex"]),
    ("1", TypeError, ["number", "str"]),
    (None, TypeError, ["number", "NoneType"]),
    (True, TypeError, ["number", "bool"]),
    ([1.0], TypeError, ["number", "list"]),
]
BAD_WEIGHTS = [
    ([1.0, 1.0, 1.0], TypeError, ["tensor", "list"]),
    (2.0, TypeError, ["tensor", "float"]),
    (torch.ones(3).long(), TypeError, ["floating-point", "torch.int64"]),
    (torch.ones(3).bool(), TypeError, ["floating-point", "torch.bool"]),
    (torch.ones(2), ValueError, ["(3,)", "(2,)"]),
    (torch.ones(6), ValueError, ["(3,)", "(6,)"]),
    (torch.ones(3, 1), ValueError, ["(3,)", "(3, 1)"]),
    (torch.tensor(1.0), ValueError, ["(3,)", "()"]),
]
BAD_WEIGHT_VALUES = [
    (torch.tensor(w), ValueError, ["nonnegative"])
    for w in ([1, -1e-9, 1], [1, math.nan, 1], [INF, 1, 1], [0.0, 0, 0])
]
FUNCTIONS_OF_VIEWS, FUNCTIONS_OF_Z = (
    ("info_nce", "t_simclr"),
    ("log_q_cosine", "log_q_gaussian", "log_q_student"),
)
# A fraction, and NumPy's scalars, most of which are no subclass of Python's numbers.
NUMBERS = [
    Fraction(3, 2),
    np.float64(1.5),
    np.float32(1.5),
    np.float16(1.5),
    np.int64(3),
    np.uint8(3),
    3,
]


def rejects(error: type[Exception], words: list[str], call, *args, **options) -> None:
    with pytest.raises(error) as caught:
        call(*args, **options)
    assert type(caught.value) is error
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


@pytest.mark.parametrize(("bad", "error", "words"), BAD_FEATURES + BAD_VALUES, ids=str)
def test_bad_features(bad, error, words):
    for function in FUNCTIONS_OF_VIEWS:
        rejects(error, ["z1", *words], getattr(plain, function), bad, GOOD)
        rejects(error, ["z2", *words], getattr(plain, function), GOOD, bad)
    for function in FUNCTIONS_OF_Z:
        rejects(error, ["z must", *words], getattr(plain, function), bad)
    rejects(error, ["z must", *words], plain.squared_distances, bad)


def test_views_of_different_shapes():
    for function in FUNCTIONS_OF_VIEWS:
        rejects(
            ValueError, ["z1 and z2", "(3, 2)", "(2, 2)"], getattr(plain, function), GOOD, GOOD[:2]
        )
        rejects(
            ValueError,
            ["z1 and z2", "(3, 2)", "(3, 1)"],
            getattr(plain, function),
            GOOD,
            GOOD[:, :1],
        )


def test_rows_without_direction():
    for args in ((ROW_OF_ZEROS, GOOD), (GOOD, ROW_OF_ZEROS)):
        rejects(
            ValueError,
            ["z1" if args[1] is GOOD else "z2", "row of zeros", "norm > 0"],
            plain.info_nce,
            *args,
        )
        assert plain.t_simclr(*args).isfinite()
    rejects(ValueError, ["z has a row of zeros"], plain.log_q_cosine, ROW_OF_ZEROS)
    assert plain.log_q_student(ROW_OF_ZEROS).exp().isfinite().all()


@pytest.mark.parametrize(("bad", "error", "words"), BAD_POSITIVE, ids=str)
def test_bad_temperature_and_df(bad, error, words):
    for function in FUNCTIONS_OF_VIEWS:
        rejects(
            error, ["temperature", *words], getattr(plain, function), GOOD, GOOD, temperature=bad
        )
    for function in FUNCTIONS_OF_Z:
        rejects(error, ["temperature", *words], getattr(plain, function), GOOD, temperature=bad)
    for module in (plain.InfoNCELoss, plain.TSimCLRLoss):
        rejects(error, ["temperature", *words], module, temperature=bad)
    rejects(error, ["df", *words], plain.t_simclr, GOOD, GOOD, df=bad)
    rejects(error, ["df", *words], plain.log_q_student, GOOD, df=bad)
    rejects(error, ["df", *words], plain.TSimCLRLoss, df=bad)


def test_infinity_is_a_df_and_no_temperature():
    rejects(ValueError, ["temperature", "inf"], plain.info_nce, GOOD, GOOD, temperature=INF)
    assert plain.t_simclr(GOOD, GOOD, df=INF).isfinite()


@pytest.mark.parametrize("bad", ["Joint", "", None, 1, np.array(["joint", "joint"])], ids=str)
def test_unknown_normalization(bad):
    words = ["normalization", "joint", "conditional", repr(bad)]
    rejects(ValueError, words, plain.t_simclr, GOOD, GOOD, normalization=bad)
    rejects(ValueError, words, plain.TSimCLRLoss, normalization=bad)
    for function in FUNCTIONS_OF_Z:
        rejects(ValueError, words, getattr(plain, function), GOOD, normalization=bad)


@pytest.mark.parametrize(("bad", "error", "words"), BAD_WEIGHTS + BAD_WEIGHT_VALUES, ids=str)
def test_bad_weights(bad, error, words):
    for function in FUNCTIONS_OF_VIEWS:
        rejects(error, ["weights", *words], getattr(plain, function), GOOD, GOOD, weights=bad)


def test_bad_P_and_log_Q():
    P, log_Q = torch.full((3, 3), 1 / 6), torch.zeros(3, 3)
    rejects(TypeError, ["P must", "list"], plain.sne_objective, P.tolist(), log_Q)
    rejects(TypeError, ["log_Q must", "torch.int64"], plain.sne_objective, P, log_Q.long())
    for args, shapes in [
        ((P[:2], log_Q[:2]), "(2, 3)"),
        ((P, log_Q[:2, :2]), "(2, 2)"),
        ((P[0], log_Q[0]), "(3,)"),
    ]:
        rejects(ValueError, ["P and log_Q", "square", shapes], plain.sne_objective, *args)
    for value in (-0.1, math.nan):
        rejects(
            ValueError,
            ["P must be nonnegative"],
            plain.sne_objective,
            P.where(log_Q == 1, value),
            log_Q,
        )


def test_validate_false_skips_values_and_nothing_else():
    for function in FUNCTIONS_OF_VIEWS:
        call = partial(getattr(plain, function), validate=False)
        torch.testing.assert_close(
            call(GOOD, GOOD + 1), getattr(plain, function)(GOOD, GOOD + 1), rtol=0, atol=0
        )
        for bad, *_ in BAD_VALUES:
            assert call(bad, GOOD).isnan() | call(bad, GOOD).isinf()
        for bad, *_ in BAD_WEIGHT_VALUES:
            call(GOOD, GOOD, weights=bad)
        for bad, error, words in BAD_FEATURES:
            rejects(error, words, call, bad, GOOD)
        for bad, error, words in BAD_POSITIVE:
            rejects(error, words, call, GOOD, GOOD, temperature=bad)
    assert plain.info_nce(ROW_OF_ZEROS, GOOD, validate=False).isfinite()
    rejects(ValueError, ["z1", "finite"], plain.InfoNCELoss(), ROW_OF_NAN, GOOD)
    assert not plain.TSimCLRLoss(validate=False)(ROW_OF_NAN, GOOD).isfinite()


# ---- transforms of PyTorch


@all_plain
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_compile_in_one_graph(name, weighted):
    torch.compiler.reset()
    inputs = (*views(dtype=torch.float32), some_weights(5, dtype=torch.float32))[
        : 3 if weighted else 2
    ]

    def loss(z1, z2, w=None):
        return PLAIN[name](z1, z2, weights=w)

    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert_same(value_and_grad(compiled, *inputs), value_and_grad(loss, *inputs), rtol=1e-6)
    assert not compiled(ROW_OF_NAN, GOOD).isfinite()  # values are not seen there


@all_plain
def test_vmap_and_vmap_of_grad(name):
    z1, z2 = (torch.stack(z) for z in zip(*(views(seed=s) for s in range(4)), strict=True))
    loss = PLAIN[name]
    values, grads = torch.vmap(torch.func.grad_and_value(loss))(z1, z2)[::-1]
    one_by_one = [value_and_grad(loss, *pair) for pair in zip(z1, z2, strict=True)]
    assert_same(
        (values, grads),
        [torch.stack(x) for x in list(zip(*one_by_one, strict=True))[:2]],
        rtol=1e-12,
    )
    torch.testing.assert_close(torch.vmap(loss)(z1, z2), values, rtol=1e-13, atol=0)
    assert values.std() > 0.01
    hessian = torch.func.hessian(loss)(z1[0], z2[0])
    torch.testing.assert_close(
        hessian,
        torch.autograd.functional.hessian(lambda z: loss(z, z2[0]), z1[0]),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("setting", ["temperature", "df"])
@pytest.mark.parametrize("name", ["info_nce", "joint", "conditional"])
def test_vmap_over_a_setting(name, setting):
    if (name, setting) == ("info_nce", "df"):
        pytest.skip("no such setting")
    grid, (z1, z2) = torch.tensor([0.5, 1.0, 7.0], dtype=torch.float64), views()
    expected = torch.stack([PLAIN[name](z1, z2, **{setting: float(x)}) for x in grid])
    assert expected.std() > 0.01
    torch.testing.assert_close(
        torch.vmap(lambda x: PLAIN[name](z1, z2, **{setting: x}))(grid),
        expected,
        rtol=1e-12,
        atol=0,
    )


# ---- modules


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (InfoNCELoss(), info_nce),
        (InfoNCELoss(temperature=0.1), partial(info_nce, temperature=0.1)),
        (TSimCLRLoss(), t_simclr),
        (
            TSimCLRLoss(temperature=8.0, df=1.0, normalization="conditional"),
            partial(CONDITIONAL, temperature=8.0, df=1.0),
        ),
        (TSimCLRLoss(df=INF), partial(t_simclr, df=INF)),
    ],
    ids=["InfoNCE", "InfoNCE, τ=.1", "t-SimCLR", "t-SimCLR, conditional", "Gaussian"],
)
def test_modules_are_the_functions_with_settings(module, function):
    w = some_weights(5)
    for ours, theirs in [
        (module(*views()), function(*views())),
        (module(*views(), w), function(*views(), weights=w)),
    ]:
        assert torch.equal(ours, theirs)
    assert module.state_dict() == {}


@pytest.mark.parametrize(
    ("cls", "names"), [(InfoNCELoss, ["temperature"]), (TSimCLRLoss, ["temperature", "df"])]
)
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_learned_settings(cls, names, shape):
    module = cls(**{name: nn.Parameter(torch.full(shape, 2.0)) for name in names})
    assert [name for name, _ in module.named_parameters()] == list(module.state_dict()) == names
    z1, z2 = views(dtype=torch.float32)
    value = module(z1, z2)
    assert value.shape == ()
    torch.testing.assert_close(value, cls(**dict.fromkeys(names, 2.0))(z1, z2))
    value.backward()
    assert all(p.grad.shape == p.shape and p.grad.abs() > 1e-3 for p in module.parameters())
    other = cls(**{name: nn.Parameter(torch.ones(shape)) for name in names})
    assert not torch.equal(other(z1, z2), value)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(z1, z2), value)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1)], ids=str)
def test_a_setting_of_one_element_is_a_scalar_whatever_its_shape_and_dtype(shape):
    z1, z2 = views(dtype=torch.float32)
    one, two = (
        torch.full(shape, 1.5, dtype=torch.float64),
        torch.full(shape, 3.0, dtype=torch.float64),
    )
    for ours, expected in [
        (plain.info_nce(z1, z2, temperature=one), plain.info_nce(z1, z2, temperature=1.5)),
        (
            plain.t_simclr(z1, z2, temperature=one, df=two),
            plain.t_simclr(z1, z2, temperature=1.5, df=3.0),
        ),
    ]:
        torch.testing.assert_close(ours, expected)  # float32 and () too


@pytest.mark.parametrize("number", NUMBERS, ids=lambda x: type(x).__name__)
def test_any_real_number_is_a_setting(number):
    z1, z2 = views(dtype=torch.float32)
    same, exact = {"temperature": number}, {"temperature": float(number)}
    pairs = [
        (plain.info_nce(z1, z2, **same), plain.info_nce(z1, z2, **exact)),
        (plain.InfoNCELoss(**same)(z1, z2), plain.info_nce(z1, z2, **exact)),
        (plain.log_q_cosine(z1, **same), plain.log_q_cosine(z1, **exact)),
        (plain.log_q_gaussian(z1, **same), plain.log_q_gaussian(z1, **exact)),
    ]
    same["df"], exact["df"] = number, float(number)
    pairs += [
        (plain.t_simclr(z1, z2, **same), plain.t_simclr(z1, z2, **exact)),
        (plain.TSimCLRLoss(**same)(z1, z2), plain.t_simclr(z1, z2, **exact)),
        (plain.log_q_student(z1, **same), plain.log_q_student(z1, **exact)),
        (t_simclr(z1, z2, **same), plain.t_simclr(z1, z2, **exact)),  # types checked
    ]
    for ours, expected in pairs:
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected)
    shown = f"{float(number):g}"
    assert repr(plain.InfoNCELoss(temperature=number)) == f"InfoNCELoss(temperature={shown})"
    assert f"df={shown}, normalization='joint'" in repr(plain.TSimCLRLoss(df=number))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_objective_in_half_precision_is_that_of_float32(dtype):
    P, log_Q = some_P().to(dtype), log_q_student(views(6)[0]).to(dtype)
    value = sne_objective(P, log_Q)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(naive_kl(P.double(), log_Q.double())), rel=1e-6)


def test_repr_and_numpy_scalars():
    assert repr(InfoNCELoss(temperature=0.25)) == "InfoNCELoss(temperature=0.25)"
    module = TSimCLRLoss(
        temperature=nn.Parameter(torch.tensor(8.0)), df=INF, normalization="conditional"
    )
    assert repr(module) == "TSimCLRLoss(temperature=8, df=inf, normalization='conditional')"
    assert plain.info_nce(GOOD, GOOD + 1, temperature=np.float64(0.5)) == plain.info_nce(
        GOOD, GOOD + 1
    )


def test_an_error_of_the_device_is_not_taken_for_vmaps_refusal():
    class Lost:
        def __init__(self, message):
            self.message = message

        def __bool__(self):
            raise RuntimeError(self.message)

    unchecked_holds = inspect.unwrap(checks.holds)
    with pytest.raises(RuntimeError, match="out of memory"):
        unchecked_holds(Lost("CUDA error: out of memory"))
    assert torch.func.vmap(lambda x: x * checks.holds(x > 0))(torch.ones(3)).sum() == 3
