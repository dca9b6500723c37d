"""Every P against loops, quadrature and densities written out, other people's code, and draws."""

import itertools
import math
import subprocess
import sys
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import torch
from helpers import unchecked
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.spatial.distance import squareform
from scipy.special import logsumexp
from sklearn.manifold._t_sne import _joint_probabilities, _joint_probabilities_nn
from sklearn.neighbors import NearestNeighbors

from sscl_core.affinities import (
    box_cells,
    empirical_masses,
    log_corruption,
    log_masking,
    log_mixup,
    log_noise,
    mixup_masses,
    nearest_cells,
    noise_masses,
    one_view,
    perplexity_matched,
    positive_pairs,
    sparse_perplexity_matched,
    spectrum,
    two_views,
)
from sscl_core.affinities import perplexity as perplexity_module
from sscl_experiments.paths import CHECKOUT

INF = math.inf
KINDS = ("gaussian", "laplace", "uniform")
both_normalizations = pytest.mark.parametrize("normalization", ["joint", "conditional"])
all_kinds = pytest.mark.parametrize("kind", KINDS)


plain = unchecked("sscl_core.affinities")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def close(a, b, rtol=1e-12, atol=0.0):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=rtol, atol=atol)


# --- a batch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize(
    ("normalization", "entry", "total"), [("conditional", 1.0, None), ("joint", None, 1.0)]
)
def test_positive_pairs(n, normalization, entry, total):
    P = positive_pairs(n, normalization=normalization)
    value = entry or 1 / (2 * n)
    for i in range(2 * n):
        for j in range(2 * n):
            assert P[i, j] == (value if abs(i - j) == n else 0)
    assert P.sum() == pytest.approx(total or 2 * n)


# --- what every P is -----------------------------------------------------------------------------

POINTS = normal(24, 2)
TABLE = torch.randint(0, 3, (24, 3), generator=seeded()).double()
ANCHORS = normal(40, 2, seed=1)
MEANS = normal(3, 2, seed=2)


def noise_once(x, **options):
    return log_noise(x, x, scale=0.8, **options)


def dense(affinity):
    return torch.from_numpy(affinity.P.toarray())


# name: (points, function of points and normalization)
AFFINITIES = {
    "perplexity": (
        POINTS,
        lambda x, normalization: perplexity_matched(x, perplexity=5.0, normalization=normalization),
    ),
    "sparse": (
        POINTS,
        lambda x, normalization: dense(
            sparse_perplexity_matched(x, perplexity=5.0, normalization=normalization)
        ),
    ),
    **{
        f"{kind} once": (
            POINTS,
            lambda x, normalization, kind=kind: one_view(
                noise_once(2 * x.tanh(), kind=kind), normalization=normalization
            ),
        )
        for kind in KINDS
    },
    "flat": (
        POINTS,
        lambda x, normalization: one_view(noise_once(x, twice=True), normalization=normalization),
    ),
    **{
        f"{kind} twice": (
            POINTS,
            lambda x, normalization, kind=kind: two_views(
                log_noise(ANCHORS, x, scale=1.5, kind=kind), normalization=normalization
            ),
        )
        for kind in KINDS
    },
    "mixup once": (
        POINTS,
        lambda x, normalization: one_view(
            log_mixup(x, x, means=MEANS, std=0.5, strength=0.7), normalization=normalization
        ),
    ),
    "mixup twice": (
        POINTS,
        lambda x, normalization: two_views(
            log_mixup(ANCHORS, x, means=MEANS, std=0.5, strength=0.7), normalization=normalization
        ),
    ),
    "masking": (
        TABLE,
        lambda x, normalization: two_views(
            log_masking(x, x, rate=0.3), normalization=normalization
        ),
    ),
    "corruption": (
        TABLE,
        lambda x, normalization: one_view(
            log_corruption(x, x, rate=0.3), normalization=normalization
        ),
    ),
}


@both_normalizations
@pytest.mark.parametrize("name", AFFINITIES)
def test_every_affinity_is_one(name, normalization):
    points, affinity = AFFINITIES[name]
    P = affinity(points, normalization)
    assert P.dtype == torch.float64
    assert P.shape == (24, 24)
    assert (P >= 0).all()
    assert (P.diagonal() == 0).all()
    assert (0.001 / (24 if normalization == "joint" else 1) < P).sum() > 24
    assert P.var() > 1e-8, "not constant"
    close(
        P.sum() if normalization == "joint" else P.sum(1),
        torch.ones(() if normalization == "joint" else 24).double(),
    )
    if normalization == "joint":
        close(P, P.T)
    if name in ("perplexity", "sparse") and normalization == "conditional":
        close(torch.special.entr(P).sum(1).exp(), torch.full((24,), 5.0).double(), rtol=1e-11)
    order = torch.randperm(24, generator=seeded())
    close(affinity(points[order], normalization), P[order][:, order], rtol=1e-9, atol=1e-300)


# --- perplexity ----------------------------------------------------------------------------------


def naive_perplexity(x, perplexity):
    """Bisection on log β, a row at a time, on plain floats."""
    rows, P = x.tolist(), []
    for i, a in enumerate(rows):
        squared = [
            sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) if j != i else INF
            for j, b in enumerate(rows)
        ]
        least, low, high = min(squared), -100.0, 100.0
        while True:
            middle = (low + high) / 2
            weights = [
                math.exp(-math.exp(middle) * (s - least)) if s < INF else 0.0 for s in squared
            ]
            total = math.fsum(weights)
            entropy = -math.fsum(w / total * math.log(w / total) for w in weights if w / total > 0)
            if middle in (low, high):
                break
            low, high = (middle, high) if entropy > math.log(perplexity) else (low, middle)
        P.append([w / total for w in weights])
    return torch.tensor(P, dtype=torch.float64)


CLOUDS = {
    "cloud": (normal(40, 3), 10.0),
    "line": (normal(30, 1), 3.5),
    "high dimension": (normal(30, 100), 20.0),
    "few, just above 1": (normal(4, 2), 1.001),
    "few, just below n - 1": (normal(4, 2), 2.999),
    "an outlier": (torch.cat([normal(20, 2), torch.full((1, 2), 1e3).double()]), 5.0),
    "two far groups": (torch.cat([normal(15, 2), 1e3 + normal(15, 2)]), 8.0),
    "heavy tails": (normal(40, 2) ** 5, 6.0),
    "duplicates within reach": (torch.cat([normal(20, 2), normal(20, 2)[:3]]), 5.0),
}


@pytest.mark.parametrize("name", CLOUDS)
def test_perplexity_is_that_of_bisection(name):
    x, perplexity = CLOUDS[name]
    expected = naive_perplexity(x, perplexity)
    assert expected.max() > 1.01 / (len(x) - 1)
    close(perplexity_matched(x, perplexity=perplexity), expected, rtol=1e-9, atol=1e-300)
    close(
        perplexity_matched(x, perplexity=perplexity, normalization="joint"),
        (expected + expected.T) / (2 * len(x)),
        rtol=1e-9,
        atol=1e-300,
    )


@pytest.mark.parametrize("perplexity", [1.001, 1.5, 30.0, 62.9])
def test_newton_converges_in_a_few_steps(perplexity, monkeypatch):
    """A row that has converged stays where it is: thrown back to bisection, it took fifty."""
    steps, at = [], perplexity_module._at
    monkeypatch.setattr(perplexity_module, "_at", lambda *args: steps.append(0) or at(*args))
    for x in (normal(64, 2), normal(64, 50)):
        perplexity_matched(x, perplexity=perplexity)
    assert 6 < len(steps) <= 40


def two_spheres(n, d, radius, apart):
    """Points on two spheres of that radius, their centers `apart`, in units of the radius."""
    x = normal(2 * n, d)
    x = radius * x / x.norm(dim=1, keepdim=True)
    x[n:, 0] += apart * radius
    return x


NEAR = normal(200, 20)[:3] + 1e-9 * normal(3, 20, seed=1)
FAR_APART = {
    "a few pairs are near": torch.cat([normal(200, 20), NEAR]),
    "half of all pairs are near": two_spheres(40, 6, 1e-3, 1e6),
    "in the plane": normal(200, 2),
}


@pytest.mark.parametrize("name", FAR_APART)
def test_squared_distances_have_all_digits(name):
    """Against differences in extended precision; a product of points alone would err."""
    x = FAR_APART[name]
    exact = x.numpy().astype(np.longdouble)
    expected = np.square(exact[:, None] - exact).sum(2).astype(float)
    np.fill_diagonal(expected, INF)
    cloud = perplexity_module._cloud(x)
    found = [
        perplexity_module._squared_to_others(cloud, rows) for rows in torch.arange(len(x)).split(64)
    ]
    close(torch.cat(found), torch.from_numpy(expected), rtol=2e-13)
    product = cloud.norms[:, None] + cloud.norms - 2 * cloud.centered @ cloud.centered.T
    wrong = (product - torch.from_numpy(expected)).abs() > 2e-13 * torch.from_numpy(expected)
    assert wrong.fill_diagonal_(False).any()


def test_the_blocks_of_rows_change_nothing(monkeypatch):
    """Rows are matched a block at a time; here one by one, in threes and all together."""
    x = normal(40, 3)
    expected = naive_perplexity(x, 10.0)
    for entries in (1, 100, 10_000):
        monkeypatch.setattr(perplexity_module, "ENTRIES", entries)
        close(perplexity_matched(x, perplexity=10.0), expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("perplexity", [5.0, 50.0, 300.0])
def test_the_perplexity_is_reached_to_twelve_digits(perplexity):
    """Whichever column has the neighbor that the search begins at."""
    for x in (normal(500, 3), normal(500, 40) ** 3):
        P = perplexity_matched(x, perplexity=perplexity)
        reached = torch.special.entr(P).sum(1).exp()
        close(reached, torch.full((500,), perplexity).double(), rtol=1e-12)


def test_perplexity_does_not_see_scale_and_origin():
    x = normal(50, 3)
    P = perplexity_matched(x, perplexity=8.0)
    for scale in (1e-8, 1e8):
        close(perplexity_matched(x * scale, perplexity=8.0), P, rtol=1e-9, atol=1e-300)
    close(
        perplexity_matched(x + 1e6, perplexity=8.0), P, rtol=1e-5, atol=1e-12
    )  # x + 1e6 has 10 digits left
    close(perplexity_matched(x.float(), perplexity=8.0), P, rtol=1e-4, atol=1e-9)


def test_joint_perplexity_is_that_of_scikit_learn():
    x = normal(100, 5)
    squared = torch.cdist(x, x).square().float().numpy()
    theirs = torch.from_numpy(squareform(_joint_probabilities(squared, 15.0, 0)))
    seen = theirs > 1e-8
    assert seen.sum() > 5000
    close(
        perplexity_matched(x, perplexity=15.0, normalization="joint")[seen],
        theirs[seen].double(),
        rtol=1e-4,
    )


def test_truncated_perplexity_is_that_of_scikit_learn():
    x = normal(300, 5)
    graph = NearestNeighbors(n_neighbors=45).fit(x.numpy()).kneighbors_graph(mode="distance")
    graph.data **= 2
    theirs = torch.from_numpy(_joint_probabilities_nn(graph, 15.0, 0).toarray())
    ours = dense(sparse_perplexity_matched(x, perplexity=15.0, normalization="joint"))
    assert (theirs > 1e-8).sum() > 10_000
    assert torch.equal(theirs > 1e-8, ours > 1e-8)
    close(ours[theirs > 1e-8], theirs[theirs > 1e-8].double(), rtol=1e-4)


def test_conditional_perplexity_is_that_of_torchdr():
    torchdr = pytest.importorskip("torchdr")
    x = normal(60, 5)
    theirs, _ = torchdr.EntropicAffinity(perplexity=10.0, sparsity=False)(x)
    assert theirs.max() > 1e-3
    close(perplexity_matched(x, perplexity=10.0), 60 * theirs, rtol=0, atol=1e-5)


@both_normalizations
def test_sparse_perplexity_with_all_neighbors_is_dense(normalization):
    x = normal(60, 4)
    sparse, truncation = sparse_perplexity_matched(
        x, perplexity=12.0, normalization=normalization, neighbors=59
    )
    assert scipy.sparse.issparse(sparse)
    assert truncation.abs().max() < 1e-12
    close(
        torch.from_numpy(sparse.toarray()),
        perplexity_matched(x, perplexity=12.0, normalization=normalization),
        rtol=1e-9,
        atol=1e-300,
    )


@pytest.mark.parametrize("d", [3, 40])
def test_the_truncation_is_how_far_the_sparse_rows_are(d):
    """Trees find the neighbors in few dimensions, a search over all in many."""
    x = 1e3 + normal(100, d)
    sparse, truncation = sparse_perplexity_matched(x, perplexity=5.0, neighbors=10, checked=7)
    full = perplexity_matched(x, perplexity=5.0)
    distance = (torch.from_numpy(sparse.toarray()) - full).abs().sum(1) / 2
    assert truncation.min() > 1e-3
    assert distance.var() > 1e-6
    close(truncation, distance[torch.linspace(0, 99, 7).round().long()], rtol=1e-6)
    for i, row in enumerate(torch.cdist(x, x).fill_diagonal_(INF)):
        assert set(sparse[[i]].indices) == set(row.argsort()[:10].tolist())
    assert sparse_perplexity_matched(x, perplexity=5.0, checked=0).truncation.shape == (0,)
    assert len(sparse_perplexity_matched(x, perplexity=5.0).truncation) == 100


def test_where_duplicates_are_too_many_they_are_equally_likely():
    """Twelve equal points, and one of its own far from them: it sees all at one distance."""
    x = torch.zeros(13, 3, dtype=torch.float64)
    x[5] = 7.0
    for P in (
        perplexity_matched(x, perplexity=4.0),
        dense(sparse_perplexity_matched(x, perplexity=4.0, neighbors=12)),
    ):
        for i, j in itertools.product(range(13), repeat=2):
            expected = 0 if i == j else 1 / 12 if i == 5 else 0 if j == 5 else 1 / 11
            assert P[i, j] == pytest.approx(expected, rel=1e-12)
    x = torch.cat([torch.zeros(10, 2).double(), normal(30, 2)])
    P = perplexity_matched(x, perplexity=5.0)
    close(P[:10, :10], (1 - torch.eye(10).double()) / 9)
    assert P[:10, 10:].abs().max() == 0
    close(torch.special.entr(P[10:]).sum(1).exp(), torch.full((30,), 5.0).double(), rtol=1e-10)
    assert perplexity_matched(torch.zeros(9, 2), perplexity=3.0).isfinite().all()


def test_distances_equal_up_to_rounding_are_equal():
    """On a circle two are nearest: below perplexity 2 rounding must not choose between them."""
    angle = torch.arange(12).double() * math.pi / 6
    P = perplexity_matched(torch.stack([angle.cos(), angle.sin()], 1), perplexity=1.5)
    close(P, (torch.eye(12).double().roll(1, 0) + torch.eye(12).double().roll(-1, 0)) / 2)


MEMORY = """
import resource, sys, torch
from pathlib import Path
from sscl_core.affinities import sparse_perplexity_matched
def peak():
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
x = torch.randn(20_000, 20, generator=torch.Generator().manual_seed(0))
sparse_perplexity_matched(x[:200], perplexity=5.0)
before = peak()
P, truncation = sparse_perplexity_matched(x, perplexity=5.0, normalization="joint")
print(P.nnz, abs(P.sum() - 1), float(truncation.max()), peak() - before)
"""


def test_many_points_need_linear_memory():
    run = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    entries, off, truncation, grown = map(float, run.stdout.split())
    assert 300_000 < entries < 600_000
    assert off < 1e-10
    assert 0 < truncation < 0.5
    assert grown < 20_000**2 / 2, "bytes: a sixteenth of one dense P"


# --- densities -----------------------------------------------------------------------------------


def distribution(kind, scale):
    w = math.sqrt(3) * scale
    return {
        "gaussian": scipy.stats.norm(scale=scale),
        "laplace": scipy.stats.laplace(scale=scale / math.sqrt(2)),
        "uniform": scipy.stats.uniform(loc=-w, scale=2 * w),
    }[kind]


def difference(kind, scale, t):
    """The density of δ - δ' by numerical convolution."""
    pdf, w = distribution(kind, scale).pdf, math.sqrt(3) * scale
    ends = (
        sorted({-w, w, t - w, t + w})
        if kind == "uniform"
        else sorted({-30 * scale, 0.0, t, t / 2, 30 * scale})
    )
    return sum(
        quad(lambda s: pdf(s) * pdf(t - s), a, b, epsabs=0, epsrel=1e-10)[0]
        for a, b in itertools.pairwise(ends)
    )


@all_kinds
@pytest.mark.parametrize("scale", [0.01, 0.7, 5.0])
def test_noise_has_the_density_of_scipy(kind, scale):
    x, y = scale * normal(5, 3), scale * normal(6, 3, seed=1)
    log_p = log_noise(x, y, scale=scale, kind=kind)
    law = distribution(kind, scale)
    assert (log_p > -INF).any()
    for i, j in itertools.product(range(5), range(6)):
        assert log_p[i, j].item() == pytest.approx(
            sum(law.logpdf(float(y[j, k] - x[i, k])) for k in range(3)), rel=1e-12, abs=1e-12
        )


@all_kinds
def test_the_difference_of_two_noises_is_their_convolution(kind):
    scale, x, y = 0.7, normal(3, 2), normal(4, 2, seed=1)
    log_p = log_noise(x, y, scale=scale, kind=kind, twice=True)
    for i, j in itertools.product(range(3), range(4)):
        expected = math.prod(difference(kind, scale, float(y[j, k] - x[i, k])) for k in range(2))
        assert log_p[i, j].exp().item() == pytest.approx(expected, rel=1e-8, abs=1e-300)


@all_kinds
@pytest.mark.parametrize("twice", [False, True])
def test_noise_has_mass_one_and_the_scale_for_standard_deviation(kind, twice):
    scale, w = 0.7, 0.7 * math.sqrt(3)
    origin = torch.zeros(1, 1, dtype=torch.float64)

    def moment(power):
        ends = (-30, -2 * w, -w, 0, w, 2 * w, 30)

        def density(t):
            return (
                log_noise(origin, torch.tensor([[t]]).double(), scale=scale, kind=kind, twice=twice)
                .exp()
                .item()
            )

        return sum(
            quad(lambda t: density(t) * t**power, a, b)[0] for a, b in itertools.pairwise(ends)
        )

    assert moment(0) == pytest.approx(1, abs=1e-8)
    assert moment(2) == pytest.approx(scale**2 * (2 if twice else 1), rel=1e-6)


NODES = np.polynomial.legendre.leggauss(20)


def log_mixup_by_lambda(anchor, view, means, weights, std, strength):
    """log of the defining integral: composite Gauss in log λ, finer near its peak and the end."""
    x, y, mu = (np.asarray(t) for t in (anchor, view, means))
    r, v = y - x, mu - x
    cuts = [
        np.linspace(-45, math.log(strength), 3000),
        math.log(strength) - np.geomspace(1e-13, 1, 400),
    ]
    for product in v @ r:  # ‖(r - λv)/λ‖ is least at λ = ‖r‖²/(r·v)
        near = (
            r
            @ r
            / product
            * (1 + np.linspace(-40, 40, 321) * min(std * np.linalg.norm(r) / abs(product), 1))
        )
        cuts.append(np.log(near[(near > 0) & (near < strength)]))
    cuts = np.unique(np.concatenate(cuts))
    half = np.diff(cuts)[:, None] / 2
    u = cuts[:-1, None] + half * (1 + NODES[0])
    miss = ((r - np.exp(u)[..., None, None] * v) ** 2).sum(-1)
    log_density = -miss / (2 * np.exp(2 * u)[..., None] * std**2) - len(x) * (
        u[..., None] + math.log(std * math.sqrt(2 * math.pi))
    )
    return logsumexp(
        logsumexp(log_density, axis=-1, b=np.asarray(weights)) + u + np.log(half * NODES[1])
    ) - math.log(strength)


def views_near_and_far(anchor, means, *, seed):
    directions = torch.nn.functional.normalize(normal(6, len(anchor), seed=seed), dim=1)
    sizes = torch.tensor([1e-6, 1e-3, 0.1, 1, 3, 30]).double()
    return torch.cat(
        [
            anchor + sizes[:, None] * directions,
            anchor + torch.tensor([[0.2], [0.9], [-0.2]]).double() * (means[0] - anchor),
        ]
    )


@pytest.mark.parametrize("std", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("d", [1, 2, 5, 50, 500])
def test_mixup_is_its_integral(d, strength, std):
    means, weights = normal(3, d, seed=d), torch.tensor([0.2, 0.7, 0.1]).double()
    anchor = normal(1, d, seed=d + 1)
    views = views_near_and_far(anchor[0], means, seed=d + 2)
    log_p = log_mixup(anchor, views, means=means, std=std, strength=strength, weights=weights)[0]
    assert log_p.isfinite().all()
    for value, view in zip(log_p.tolist(), views, strict=True):
        if d < 500 or view is views[-3]:
            expected = log_mixup_by_lambda(anchor[0], view, means, weights, std, strength)
            assert value == pytest.approx(expected, rel=1e-9, abs=1e-8)


def test_mixup_rows_are_anchors_and_columns_views():
    anchors, views, means = normal(4, 2), normal(3, 2, seed=1), normal(5, 2, seed=2)
    log_p = log_mixup(anchors, views, means=means, std=0.3, strength=0.8)
    assert log_p.shape == (4, 3)
    for i, j in itertools.product(range(4), range(3)):
        expected = log_mixup_by_lambda(anchors[i], views[j], means, np.full(5, 0.2), 0.3, 0.8)
        assert log_p[i, j].item() == pytest.approx(expected, rel=1e-9)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.2])
    assert (
        log_mixup(anchors, views, means=means, std=0.3, strength=0.8, weights=weights)
        .isfinite()
        .all()
    ), "float32 sums are no exact 1"
    only_first = log_mixup(
        anchors, views, means=means, std=0.3, strength=0.8, weights=torch.eye(5)[0]
    )
    close(only_first, log_mixup(anchors, views, means=means[:1], std=0.3, strength=0.8))


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_mixup_has_mass_one_and_the_histogram_of_draws(strength):
    """In one dimension, in logarithmic steps on both sides of the pole, the anchor at 0."""
    means, weights, std = (
        torch.tensor([[-1.0], [2.0]]).double(),
        torch.tensor([0.25, 0.75]).double(),
        0.4,
    )
    edges = torch.linspace(-45, math.log(8), 1500).double()
    half = edges.diff()[:, None] / 2
    size = (edges[:-1, None] + half * (1 + torch.from_numpy(NODES[0]))).exp()
    views = torch.stack([-size, size]).reshape(-1, 1)
    density = (
        log_mixup(
            torch.zeros(1, 1).double(),
            views,
            means=means,
            std=std,
            strength=strength,
            weights=weights,
        )
        .exp()
        .view(2, *size.shape)
    )
    mass = (density * size * half * torch.from_numpy(NODES[1])).sum(2)
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)

    rng, n = np.random.default_rng(0), 200_000
    partner = rng.choice(means.numpy().ravel(), n, p=weights.numpy()) + std * rng.standard_normal(n)
    drawn = rng.uniform(0, strength, n) * partner
    limits = edges[[0, 900, 1200, 1300, 1350, 1400, 1430, 1460, -1]]
    for side, sign in enumerate((-1, 1)):
        counts, _ = np.histogram(sign * drawn, bins=limits.exp().numpy())
        steps = [
            mass[side, a:b].sum().item()
            for a, b in itertools.pairwise((0, 900, 1200, 1300, 1350, 1400, 1430, 1460, 1499))
        ]
        for count, p in zip(counts, steps, strict=True):
            assert abs(count - n * p) < 4.5 * math.sqrt(n * p) + 3


def test_mixup_has_a_pole_at_the_anchor():
    x = normal(6, 2)
    x[4] = x[1]
    log_p = log_mixup(x, x, means=MEANS, std=0.5, strength=1.0)
    assert torch.equal(
        log_p == INF,
        torch.eye(6).bool()
        | torch.tensor([[{i, j} == {1, 4} for j in range(6)] for i in range(6)]),
    )
    P = one_view(log_p)
    assert P.isfinite().all()
    assert (P[1, 4], P[4, 1]) == (1, 1)
    assert (P[0] > 0).sum() == 5
    with pytest.raises(ValueError, match=r"log_a must hold no pole, got \+inf .*: use one_view"):
        two_views(log_p)


def columns(table):
    return [sorted(set(column.tolist())) for column in table.T]


@pytest.mark.parametrize("mask", [-1.0, 0.0])
def test_all_views_of_masking(mask):
    """By a number that no column holds, and by one that some do."""
    table = torch.tensor([[0.0, 1, 5], [2, 1, 5], [2, 3, 5], [0, 0, 5]])
    views = torch.tensor(
        list(itertools.product(*(sorted({*values, mask}) for values in columns(table))))
    )
    P = log_masking(table, views, rate=0.3, mask=mask).exp()
    close(P.sum(1), torch.ones(4).double())
    assert (P > 0).sum() == (32 if mask else 4 + 8 + 8 + 2)
    for i, j in itertools.product(range(4), range(len(views))):
        expected = math.prod(
            0.7 * (views[j, k] == table[i, k]).item() + 0.3 * (views[j, k] == mask).item()
            for k in range(3)
        )
        assert P[i, j].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("own", [False, True])
def test_all_views_of_corruption(own):
    table = torch.tensor([[0, 1, 5], [2, 1, 5], [2, 3, 5], [0, 0, 5]])
    source = torch.tensor([[0, 4, 5], [7, 1, 5]]) if own else table
    views = torch.tensor(list(itertools.product(*columns(torch.cat([table, source])))))
    P = log_corruption(table, views, rate=0.4, table=source if own else None).exp()
    close(P.sum(1), torch.ones(4).double())
    for i, j in itertools.product(range(4), range(len(views))):
        expected = 1.0
        for k in range(3):
            frequency = sum(value == views[j, k] for value in source[:, k]) / len(source)
            expected *= 0.6 * (views[j, k] == table[i, k]).item() + 0.4 * float(frequency)
        assert P[i, j].item() == pytest.approx(expected, rel=1e-12)


# --- P from densities ----------------------------------------------------------------------------


def naive_normalized(W, normalization, *, average):
    W = W.clone().fill_diagonal_(0)
    P = torch.stack([row / row.sum() for row in W])
    if normalization == "conditional":
        return P
    return (P + P.T) / (2 * len(P)) if average else W / W.sum()


@both_normalizations
def test_one_view_is_the_loop(normalization):
    log_a = normal(7, 7)
    P = one_view(log_a, normalization=normalization)
    close(P, naive_normalized(log_a.exp(), normalization, average=True))
    assert log_a.diagonal().isfinite().all(), "the input stays as it is"
    assert torch.equal(log_a, normal(7, 7))
    close(one_view(log_a - 1e4, normalization=normalization), P, rtol=1e-9)


@both_normalizations
def test_two_views_are_the_triple_loop(normalization):
    log_a = normal(9, 6)
    W = torch.zeros(6, 6, dtype=torch.float64)
    for i, j, k in itertools.product(range(6), range(6), range(9)):
        W[i, j] += math.exp(log_a[k, i]) * math.exp(log_a[k, j])
    P = two_views(log_a, normalization=normalization)
    close(P, naive_normalized(W, normalization, average=False))
    for shift in (-1e4, 1e4):
        close(two_views(log_a + shift, normalization=normalization), P, rtol=1e-9)


@both_normalizations
def test_points_far_apart_share_anchors_still(normalization):
    """Points 60 standard deviations apart: a density of e^-900, of which only the log is left."""
    x = torch.tensor([[0.0, 0], [60, 0], [61, 5], [120, 1]]).double()
    log_a = log_noise(x, x, scale=1.0)
    W = np.array(
        [[logsumexp((log_a[:, i] + log_a[:, j]).numpy()) for j in range(4)] for i in range(4)]
    )
    np.fill_diagonal(W, -INF)
    norm = logsumexp(W) if normalization == "joint" else logsumexp(W, axis=1, keepdims=True)
    P = two_views(log_a, normalization=normalization)
    assert W[0].max() < -850
    close(P, torch.from_numpy(np.exp(W - norm)), rtol=1e-9, atol=1e-300)
    if normalization == "conditional":
        assert P[0, 1] > 0.99


@both_normalizations
def test_duplicates_are_as_near_as_can_be(normalization):
    x = torch.cat([normal(5, 2), normal(5, 2)[:2]])
    P = two_views(log_noise(x, x, scale=0.3), normalization=normalization)
    assert P.isfinite().all()
    assert P[0].argmax() == 5
    close(P[0, 1:5], P[5, 1:5])


def test_two_views_of_flat_anchors_are_the_noise_convolved():
    """Away from the ends of a dense grid; of anchors crowded in the middle they are not."""
    points, scale = torch.linspace(-3, 3, 41).double()[:, None], 0.2
    flat = one_view(log_noise(points, points, scale=scale, twice=True))
    grid = torch.linspace(-3, 3, 601).double()[:, None]
    middle, ends = points[:, 0].abs() < 1.2, points[:, 0].abs() > 2.9
    P = two_views(log_noise(grid, points, scale=scale), normalization="conditional")
    assert flat.max() > 0.2
    assert (P - flat)[middle].abs().max() < 1e-6
    assert (P - flat)[ends].abs().max() > 0.01
    crowded = torch.special.ndtri(torch.linspace(0.0005, 0.9995, 601).double())[:, None] * 0.7
    P = two_views(log_noise(crowded, points, scale=scale), normalization="conditional")
    assert (P - flat)[middle].abs().max() > 0.02


# --- masses --------------------------------------------------------------------------------------

EDGES = [[-1.0, 0.0, 0.5], [0.3], [-2.0, 2.0]]


@all_kinds
def test_noise_masses_are_products_of_scipy(kind):
    x, law = normal(5, 3), distribution(kind, 0.6)
    A = noise_masses(x, EDGES, scale=0.6, kind=kind)
    close(A.sum(1), torch.ones(5).double())
    cells = list(itertools.product(*(itertools.pairwise([-INF, *cuts, INF]) for cuts in EDGES)))
    assert A.shape == (5, len(cells)) == (5, 24)
    for i, (j, cell) in itertools.product(range(5), enumerate(cells)):
        expected = math.prod(
            law.cdf(upper - float(x[i, k])) - law.cdf(lower - float(x[i, k]))
            for k, (lower, upper) in enumerate(cell)
        )
        assert A[i, j].item() == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_both_tails_of_noise_masses_are_precise(kind):
    law = distribution(kind, 1.0)
    A = noise_masses(torch.zeros(1, 1).double(), [[-10.0, -9.0, 9.0, 10.0]], scale=1.0, kind=kind)[
        0
    ]
    close(A[3:], A[:2].flip(0))
    assert A[4].item() == pytest.approx(law.sf(10), rel=1e-12)
    assert A[3].item() == pytest.approx(law.sf(9) - law.sf(10), rel=1e-12)


def naive_mixup_masses(anchors, centers, strength):
    """Every segment is cut at every bisector; the middle of a piece says whose it is."""
    A = torch.zeros(len(anchors), len(centers), dtype=torch.float64)
    for i, j in itertools.permutations(range(len(anchors)), 2):
        step, cuts = anchors[j] - anchors[i], {0.0, strength}
        for a, b in itertools.combinations(centers, 2):
            fall = 2 * float(step @ (b - a))
            if fall != 0:
                crossing = (
                    float((anchors[i] - a).square().sum() - (anchors[i] - b).square().sum()) / -fall
                )
                cuts |= {crossing} if 0 < crossing < strength else set()
        for start, end in itertools.pairwise(sorted(cuts)):
            view = anchors[i] + (start + end) / 2 * step
            A[i, (view - centers).square().sum(1).argmin()] += end - start
    return A / (strength * (len(anchors) - 1))


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("d", [1, 2, 7])
def test_mixup_masses_are_those_of_segments_cut_at_all_bisectors(d, strength):
    anchors, centers = normal(6, d), normal(9, d, seed=1)
    A = mixup_masses(anchors, centers, strength=strength)
    assert (A > 0).sum() >= 12
    close(A.sum(1), torch.ones(6).double())
    close(A, naive_mixup_masses(anchors, centers, strength), atol=1e-12)
    close(mixup_masses(anchors + 1e6, centers + 1e6, strength=strength), A, rtol=0, atol=1e-7)


def test_mixup_masses_are_those_of_a_fine_grid():
    anchors, centers, steps = normal(5, 2), normal(7, 2, seed=1), 20_000
    weight = 0.8 * (torch.arange(steps).double() + 0.5) / steps
    A, cell = mixup_masses(anchors, centers, strength=0.8), nearest_cells(centers)
    for i in range(5):
        others = [anchors[j] - anchors[i] for j in range(5) if j != i]
        views = [anchors[i] + weight[:, None] * to_other for to_other in others]
        close(
            A[i],
            cell(torch.cat(views)).bincount(minlength=7).double() / (4 * steps),
            rtol=0,
            atol=1e-4,
        )


TIES = {
    "integers on a line": ([[0], [2], [6], [6]], [[1], [3], [5]]),
    "a center at each anchor": ([[0], [2], [6]], [[0], [2], [6]]),
    "two centers as far all along": ([[0, 0], [4, 0], [8, 0]], [[1, 1], [1, -1], [6, 2], [6, -2]]),
    "three cells meet on the segment": ([[-2, 0], [2, 0]], [[-1, 0], [0, 1], [1, 0], [0, -1]]),
    "equal centers": ([[0, 0], [3, 1], [1, 2]], [[1, 1], [1, 1], [2, 0], [2, 0]]),
}


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("name", TIES)
def test_ties_go_to_the_first(name, strength):
    anchors, centers = (torch.tensor(t).double() for t in TIES[name])
    A = mixup_masses(anchors, centers, strength=strength)
    close(A.sum(1), torch.ones(len(anchors)).double())
    close(A, naive_mixup_masses(anchors, centers, strength), atol=1e-12)


@pytest.mark.parametrize("d", [2, 7, 33])
def test_of_equal_centers_the_first_gets_all(d):
    """Whatever rounding does: a matrix product gives equal columns different bits."""
    for m in range(5, 30):
        centers = normal(m, d, seed=m)
        centers[-1] = centers[0]
        A = mixup_masses(normal(8, d), centers, strength=1.0)
        assert A[:, -1].max() == 0
        assert A[:, 0].sum() >= 0


# --- draws ---------------------------------------------------------------------------------------

REPLICATIONS, BASE = 24, normal(8, 2, seed=5)
DISCRETE = torch.randint(0, 3, (8, 2), generator=seeded(3)).double()


def tiled(x):
    return x.repeat(REPLICATIONS, 1)


def mixed(x):
    n = len(BASE)
    i = torch.arange(len(x)) % n
    partner = BASE[(i + torch.randint(1, n, i.shape)) % n]
    return x + 0.8 * torch.rand(len(x), 1, dtype=torch.float64) * (partner - x)


def masked(x):
    return x.where(torch.rand(x.shape) >= 0.4, -1.0)


def corrupted(x):
    rows = torch.randint(len(DISCRETE), x.shape)
    return x.where(torch.rand(x.shape) >= 0.4, DISCRETE.gather(0, rows))


GRID = torch.tensor(list(itertools.product([-1.0, 0, 1, 2], repeat=2))).double()
LAPLACE = torch.distributions.Laplace(0.0, 0.5 / math.sqrt(2))
AUGMENTATIONS = {
    "gaussian": (
        BASE,
        lambda x: x + 0.5 * torch.randn_like(x),
        box_cells([[-1.0, 0.0, 1.0]] * 2),
        partial(noise_masses, scale=0.5),
    ),
    "laplace": (
        BASE,
        lambda x: x + LAPLACE.sample(x.shape),
        box_cells([[-1.0, 0.0, 1.0]] * 2),
        partial(noise_masses, scale=0.5, kind="laplace"),
    ),
    "mixup": (BASE, mixed, nearest_cells(normal(9, 2, seed=6)), None),
    "masking": (DISCRETE, masked, nearest_cells(GRID), None),
    "corruption": (DISCRETE, corrupted, nearest_cells(GRID), None),
}


def exact_masses(name):
    if name in ("gaussian", "laplace"):
        return AUGMENTATIONS[name][3](BASE, [[-1.0, 0.0, 1.0]] * 2)
    if name == "mixup":
        return mixup_masses(BASE, normal(9, 2, seed=6), strength=0.8)
    if name == "masking":
        return log_masking(DISCRETE, GRID, rate=0.4, mask=-1.0).exp()
    return log_corruption(DISCRETE, GRID, rate=0.4).exp()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_draws_converge_to_the_masses_as_one_over_the_root(name):
    """24 replications side by side: the regression slope of log error on log draws is -1/2.

    Standard errors are what they say."""
    points, augment, cells, _ = AUGMENTATIONS[name]
    exact = exact_masses(name)
    torch.manual_seed(0)
    draws, errors = [16, 64, 256, 1024, 4096], []
    for number in draws:
        A, standard_error = empirical_masses(
            augment, tiled(points), cells, exact.shape[1], draws=number
        )
        replicated = A.view(REPLICATIONS, *exact.shape)
        close(A.sum(1), torch.ones(len(A)).double())
        errors.append((replicated - exact).square().mean((1, 2)).sqrt())
    slopes = np.polyfit(np.log(draws), torch.stack(errors).log().numpy(), 1)[0]
    assert slopes.shape == (REPLICATIONS,)
    low, high = scipy.stats.t.interval(
        0.95, REPLICATIONS - 1, slopes.mean(), scipy.stats.sem(slopes)
    )
    assert low < -0.5 < high, (low, high)
    assert high - low < 0.1
    assert (exact < 1e-12).logical_and(replicated > 0).sum() == 0, "what cannot be is not drawn"

    likely = (exact > 0.02) & (exact < 0.98)
    z = ((replicated - exact) / standard_error.view_as(replicated))[:, likely]
    assert z.numel() > 500
    assert 0.9 < z.std() < 1.1
    assert abs(z.mean()) < 0.1
    close(standard_error, (A * (1 - A) / draws[-1]).sqrt())


def test_box_cells_are_those_of_noise_masses():
    """With hardly any noise a point is in its own box; a point on an edge is in the box below."""
    x = 2 * normal(50, 3)
    A = noise_masses(x, EDGES, scale=1e-9)
    assert torch.equal(A.argmax(1), box_cells(EDGES)(x))
    assert len(A.argmax(1).unique()) > 10
    assert box_cells([[0.0, 1.0]])(torch.tensor([[-0.1], [0.0], [0.1], [1.0], [1.1]])).tolist() == [
        0,
        0,
        1,
        1,
        2,
    ]


def test_nearest_cells_far_from_the_origin():
    """At more points than those from which PyTorch takes distances from a matrix product."""
    centers = normal(60, 3) + 1e8
    assert torch.equal(
        nearest_cells(centers)(centers.repeat(3, 1) + 1e-3), torch.arange(60).repeat(3)
    )
    assert nearest_cells(torch.tensor([[1.0], [0.0], [1.0]]))(
        torch.tensor([[1.0], [0.5], [-1.0]])
    ).tolist() == [0, 0, 1]
    assert nearest_cells(torch.eye(4))(torch.eye(4).view(4, 2, 2)).tolist() == [0, 1, 2, 3], (
        "images are flattened"
    )


# --- spectrum ------------------------------------------------------------------------------------


def masses(n, m, seed=0):
    A = normal(n, m, seed=seed).exp()
    return A / A.sum(1, keepdim=True)


@pytest.mark.parametrize(("n", "m"), [(20, 12), (12, 20), (15, 15)])
def test_spectrum_is_that_of_the_dense_graph(n, m):
    A = masses(n, m)
    W = sum(torch.outer(row, row) for row in A) / n
    D = W.sum(1)
    assert W.sum().item() == pytest.approx(1)
    expected, vectors = np.linalg.eigh((W / (D[:, None] * D).sqrt()).numpy())
    values, ours = spectrum(A, 5)
    close(values, torch.from_numpy(expected[::-1][:5].copy()), rtol=1e-9)
    for k in range(5):
        close(
            abs(ours[:, k] @ torch.from_numpy(vectors[:, -1 - k])),
            torch.tensor(1.0).double(),
            rtol=1e-9,
        )
    close(values[0], torch.tensor(1.0).double())
    close(ours[:, 0], D.sqrt(), rtol=1e-9)
    for same in (
        A.numpy(),
        scipy.sparse.csr_array(A.numpy()),
        scipy.sparse.coo_matrix(A.numpy()),
        A.float().double(),
        A.requires_grad_(),
    ):
        again = spectrum(same, 5)
        close(again[0], values, rtol=1e-5)
        close(again[1], ours, rtol=1e-4, atol=1e-6)


def test_empty_cells_have_no_part_in_the_spectrum():
    A = masses(10, 8)
    padded = torch.zeros(10, 11, dtype=torch.float64)
    full = [0, 1, 3, 4, 5, 7, 8, 10]
    padded[:, full] = A
    (values, vectors), (expected, known) = spectrum(padded, 4), spectrum(A, 4)
    close(values, expected, rtol=1e-9)
    close(vectors[full].abs(), known.abs(), rtol=1e-7, atol=1e-9)
    assert vectors[[2, 6, 9]].abs().max() == 0


@pytest.mark.parametrize("m", [12, 40, 101])
def test_a_ring_has_fourier_modes(m):
    """Anchors around a ring, Gaussian noise wrapped around it: eigenvalues are |Â(k)|².

    One for k = 0, and two for each k after."""
    steps = np.arange(m)
    row = sum(np.exp(-(((steps + turn * m) / (0.08 * m)) ** 2) / 2) for turn in range(-4, 5))
    A = np.stack([np.roll(row / row.sum(), i) for i in range(m)])
    transform = np.abs(np.fft.fft(A[0])) ** 2
    values, vectors = spectrum(A, 7)
    close(values, torch.from_numpy(transform[[0, 1, 1, 2, 2, 3, 3]]), rtol=1e-9)
    close(vectors.T @ vectors, torch.eye(7).double(), rtol=0, atol=1e-9)
    for k in (1, 2, 3):
        modes = torch.from_numpy(
            np.stack([np.cos(2 * np.pi * k * steps / m), np.sin(2 * np.pi * k * steps / m)])
        ) * math.sqrt(2 / m)
        close(
            (modes @ vectors[:, 2 * k - 1 : 2 * k + 1]).square().sum(),
            torch.tensor(2.0).double(),
            rtol=1e-9,
        )
    assert all(torch.equal(a, b) for a, b in zip(spectrum(A, 7), (values, vectors), strict=True)), (
        "the same every time"
    )


# --- bad input -----------------------------------------------------------------------------------

BOTH, PERPLEXITIES = (
    (plain.one_view, plain.two_views),
    (plain.perplexity_matched, plain.sparse_perplexity_matched),
)
X, A = normal(8, 2), masses(8, 6)
LOGS = log_noise(X, X, scale=1.0)
MIX = {"anchors": X, "views": X, "means": X, "std": 1.0, "strength": 1.0}
NAN = math.nan


def shrinks(x):
    return x[:, :1]


def changed(x, value):
    return x.index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(value, dtype=x.dtype))


BAD = [
    *(
        (plain.positive_pairs, {"n": n}, ValueError, ["n must be at least 1", str(n)])
        for n in (0, -3)
    ),
    *(
        (plain.positive_pairs, {"n": n}, TypeError, ["n must be a whole number", str(n)])
        for n in (1.5, "2", True, None)
    ),
    *(
        (
            plain.positive_pairs,
            {"n": 2, "normalization": normalization},
            ValueError,
            ["normalization", repr(normalization)],
        )
        for normalization in ("rows", None)
    ),
    *(
        (
            function,
            {"x": X, "perplexity": value},
            ValueError,
            ["perplexity must be in (1, 7)", str(value)],
        )
        for function in PERPLEXITIES
        for value in (7, 7.0, 1, 0, -5.0, 1e9, NAN, INF)
    ),
    *(
        (
            plain.perplexity_matched,
            {"x": X[:n], "perplexity": 2},
            ValueError,
            ["perplexity", f"{n - 1}"],
        )
        for n in (1, 2)
    ),
    *(
        (
            plain.sparse_perplexity_matched,
            {"x": X, "perplexity": 1.5, "neighbors": k},
            ValueError,
            ["neighbors", "2..7", str(k)],
        )
        for k in (1, 8, -1)
    ),
    (
        plain.sparse_perplexity_matched,
        {"x": X, "perplexity": 4, "neighbors": 3},
        ValueError,
        ["perplexity must be in (1, 3)", "4"],
    ),
    (
        plain.sparse_perplexity_matched,
        {"x": X, "perplexity": 4, "checked": -1},
        ValueError,
        ["checked", "-1"],
    ),
    *(
        (
            function,
            {"x": X, "perplexity": 3, "normalization": "rows"},
            ValueError,
            ["normalization", "'rows'"],
        )
        for function in PERPLEXITIES
    ),
    *(
        (
            function,
            {"log_a": LOGS, "normalization": "rows"},
            ValueError,
            ["normalization", "'rows'"],
        )
        for function in BOTH
    ),
    *(
        (
            plain.log_noise,
            {"anchors": X, "views": X, "scale": s},
            ValueError,
            ["scale must be positive", str(s)],
        )
        for s in (0, -1.0, NAN, INF)
    ),
    *(
        (
            plain.noise_masses,
            {"anchors": X, "edges": [[0], [0]], "scale": s},
            ValueError,
            ["scale must be positive", str(s)],
        )
        for s in (0, NAN)
    ),
    (
        plain.log_noise,
        {"anchors": X, "views": X, "scale": 1.0, "kind": "cauchy"},
        ValueError,
        ["kind must be", "'cauchy'"],
    ),
    (
        plain.noise_masses,
        {"anchors": X, "edges": [[0], [0]], "scale": 1.0, "kind": None},
        ValueError,
        ["kind must be", "None"],
    ),
    *(
        (plain.log_mixup, {**MIX, "std": s}, ValueError, ["std must be positive", str(s)])
        for s in (0, -1.0, NAN, INF)
    ),
    *(
        (
            plain.log_mixup,
            {**MIX, "strength": s},
            ValueError,
            ["strength must be in (0, 1]", str(s)],
        )
        for s in (0, 1.1, NAN, -0.5)
    ),
    *(
        (
            plain.mixup_masses,
            {"anchors": X, "centers": X, "strength": s},
            ValueError,
            ["strength must be in (0, 1]", str(s)],
        )
        for s in (0, 1.1, NAN)
    ),
    (
        plain.mixup_masses,
        {"anchors": X[:1], "centers": X, "strength": 1.0},
        ValueError,
        ["anchors must be at least 2", "partner"],
    ),
    *(
        (
            plain.log_mixup,
            {**MIX, "weights": torch.tensor(w)},
            ValueError,
            ["weights must be 8 probabilities"],
        )
        for w in ([1.0], [0.2] * 8, [-1.0, 2.0, *[0.0] * 6], [NAN] * 8)
    ),
    *(
        (
            function,
            {"anchors": X, "views": X, "rate": r},
            ValueError,
            ["rate must be in (0, 1)", str(r)],
        )
        for function in (plain.log_masking, plain.log_corruption)
        for r in (0, 1, -0.1, 1.5, NAN)
    ),
    (
        plain.log_masking,
        {"anchors": X, "views": X, "rate": 0.5, "mask": NAN},
        ValueError,
        ["mask", "nan"],
    ),
    (
        plain.log_corruption,
        {"anchors": X, "views": X, "rate": 0.5, "table": X[:, :1]},
        ValueError,
        ["table", "(n, 2)", "(8, 1)"],
    ),
    *(
        (
            plain.noise_masses,
            {"anchors": X, "edges": edges, "scale": 1.0},
            ValueError,
            ["edges must be", "2 coordinates", str(edges)],
        )
        for edges in (
            [[0.0]],
            [[0.0]] * 3,
            [[1.0, 0.0], [0.0]],
            [[0.0, 0.0], [0.0]],
            [[NAN], [0.0]],
            [[INF], [0.0]],
        )
    ),
    (
        lambda x: plain.box_cells([[0.0]])(x),
        {"x": X},
        ValueError,
        ["edges must be", "2 coordinates"],
    ),
    (plain.one_view, {"log_a": LOGS[:3]}, ValueError, ["log_a must be of shape (n, n)", "(3, 8)"]),
    *((function, {"log_a": changed(LOGS, NAN)}, ValueError, ["log_a", "NaN"]) for function in BOTH),
    *(
        (function, {"log_a": LOGS.numpy()}, TypeError, ["log_a must be a tensor", "ndarray"])
        for function in BOTH
    ),
    *(
        (function, {"log_a": LOGS[0]}, ValueError, ["log_a must have shape (n, m)", "(8,)"])
        for function in BOTH
    ),
    (plain.spectrum, {"A": 2 * A, "k": 2}, ValueError, ["A must hold probabilities"]),
    (plain.spectrum, {"A": changed(A, NAN), "k": 2}, ValueError, ["A must hold probabilities"]),
    (
        plain.spectrum,
        {"A": A - 2 * torch.eye(8)[:, :6] + 2 * torch.eye(8).roll(1, 1)[:, :6], "k": 2},
        ValueError,
        ["A must hold probabilities"],
    ),
    *(
        (plain.spectrum, {"A": A, "k": k}, ValueError, ["k must be in 1..5", str(k)])
        for k in (0, 6, -1)
    ),
]
DRAWS = {"augment": lambda x: x, "anchors": X, "cells": lambda x: torch.arange(8), "n_cells": 8}
BAD += [
    (plain.empirical_masses, DRAWS | change, error, words)
    for change, error, words in [
        ({"draws": 1}, ValueError, ["draws must be at least 2", "1"]),
        ({"n_cells": 0}, ValueError, ["n_cells must be at least 1", "0"]),
        ({"augment": shrinks}, ValueError, ["augment must keep the shape (8, 2)", "(8, 1)"]),
        (
            {"augment": lambda x: x[:3]},
            ValueError,
            ["augment must keep the shape (8, 2)", "(3, 2)"],
        ),
        ({"augment": lambda x: (x, x)}, TypeError, ["augment", "tuple"]),
        ({"n_cells": 7}, ValueError, ["cells must give", "0..6", "7"]),
        ({"cells": lambda x: torch.arange(8) - 1}, ValueError, ["cells must give", "0..7", "-1"]),
        ({"cells": lambda x: torch.arange(3)}, ValueError, ["cells must give", "8 views", "(3,)"]),
        (
            {"cells": lambda x: torch.arange(8.0)},
            TypeError,
            ["cells must be an integer", "float32"],
        ),
        ({"cells": lambda x: x[:, 0] > 0}, TypeError, ["cells must be an integer", "bool"]),
        ({"augment": lambda x: x / 0 * 0}, ValueError, ["augment must give finite views"]),
        ({"anchors": X.numpy()}, TypeError, ["anchors must be a tensor", "ndarray"]),
    ]
]
TAKES = {  # function: its arguments that are points
    plain.perplexity_matched: {"x": X},
    plain.sparse_perplexity_matched: {"x": X},
    partial(plain.log_noise, scale=1.0): {"anchors": X, "views": X},
    partial(plain.log_mixup, std=1.0, strength=1.0): {"anchors": X, "views": X, "means": X},
    partial(plain.noise_masses, edges=[[0.0], [0.0]], scale=1.0): {"anchors": X},
    partial(plain.mixup_masses, strength=1.0): {"anchors": X, "centers": X},
    plain.nearest_cells: {"centers": X},
    partial(plain.log_masking, rate=0.5): {"anchors": X, "views": X},
    partial(plain.log_corruption, rate=0.5): {"anchors": X, "views": X, "table": X},
}
for function, points in TAKES.items():
    for name in points:
        BAD += [
            (function, {**points, name: value}, error, [f"{name} must", word])
            for value, error, word in [
                (X[:, 0], ValueError, "(8,)"),
                (X[:0], ValueError, "(0, 2)"),
                (changed(X, NAN), ValueError, "NaN"),
                (changed(X, -INF), ValueError, "infinity"),
                (X.numpy(), TypeError, "ndarray"),
                (X.tolist(), TypeError, "list"),
            ]
        ]
        if getattr(function, "func", None) not in (plain.log_masking, plain.log_corruption):
            BAD += [
                (
                    function,
                    {**points, name: X.long()},
                    TypeError,
                    [f"{name} must be floating-point", "torch.int64"],
                )
            ]
            BAD += [
                (
                    function,
                    {**points, name: changed(X, 1e160)},
                    ValueError,
                    [f"{name} must be finite and below 1e100"],
                )
            ]
        if len(points) > 1 and name != "anchors":
            BAD += [
                (
                    function,
                    {**points, name: X[:, :1]},
                    ValueError,
                    [f"{name} must have shape (n, 2)", "(8, 1)"],
                )
            ]


def label(value):
    function = getattr(value, "func", value)
    return getattr(function, "__name__", "") if callable(function) else value.__class__.__name__


@pytest.mark.parametrize(("function", "arguments", "error", "words"), BAD, ids=label)
def test_bad_input(function, arguments, error, words):
    with pytest.raises(error) as caught:
        function(**arguments)
    assert type(caught.value) is error
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


@pytest.mark.parametrize("function", [one_view, two_views])
def test_a_point_out_of_reach(function):
    x = torch.tensor([[0.0], [0.5], [9.0], [0.2], [-9.0]])
    with pytest.raises(
        ValueError, match=r"point 2 \(of 2 such\) has no neighbor at all: use a wider augmentation"
    ):
        function(log_noise(x, x, scale=0.5, kind="uniform"))


def test_two_views_where_the_diagonal_overflows():
    """Narrow noise in many dimensions: only at the point itself is a density beyond the largest
    float."""
    x = torch.randn(5, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_a = log_noise(x, x, scale=1e-3)
    assert 2 * log_a.max() > 710
    P = two_views(log_a)
    assert P.isfinite().all()
    assert P.sum() == pytest.approx(1)
    nearest = torch.cdist(x, x).fill_diagonal_(math.inf).argmin()
    assert P.argmax() in (nearest, nearest % 5 * 5 + nearest // 5)


# --- numbers and counts, of whatever kind --------------------------------------------------------

NUMBERS = {  # function: its settings that are numbers, each with a good value
    plain.perplexity_matched: ({"x": X}, {"perplexity": 3}),
    plain.sparse_perplexity_matched: ({"x": X}, {"perplexity": 2}),
    plain.log_noise: ({"anchors": X, "views": X}, {"scale": 2}),
    plain.log_mixup: (MIX, {"std": 2, "strength": 1}),
    plain.noise_masses: ({"anchors": X, "edges": [[0.0], [0.0]]}, {"scale": 2}),
    plain.mixup_masses: ({"anchors": X, "centers": X}, {"strength": 1}),
    plain.log_masking: ({"anchors": X, "views": X}, {"rate": Fraction(1, 2), "mask": 2}),
    plain.log_corruption: ({"anchors": X, "views": X}, {"rate": Fraction(1, 2)}),
}
EVERY_NUMBER = [(f, name) for f, (_, settings) in NUMBERS.items() for name in settings]
COUNTS = {
    plain.sparse_perplexity_matched: ({"x": X, "perplexity": 2}, ["neighbors", "checked"]),
    plain.empirical_masses: (DRAWS, ["draws", "n_cells"]),
    plain.spectrum: ({"A": A}, ["k"]),
}
EVERY_COUNT = [(f, name) for f, (_, names) in COUNTS.items() for name in names]


def as_tensors(result):
    if isinstance(result, plain.SparseAffinity):
        return torch.from_numpy(result.P.toarray())
    return result


@pytest.mark.parametrize(("function", "name"), EVERY_NUMBER, ids=label)
def test_any_real_number_is_a_setting(function, name):
    arguments, settings = NUMBERS[function]
    good = settings[name]
    expected = as_tensors(function(**arguments | settings | {name: float(good)}))
    others = [np.float32(float(good)), torch.tensor([float(good)]), Fraction(good)]
    if good == int(good):
        others += [np.int64(good), int(good)]
    for number in others:
        assert torch.equal(as_tensors(function(**arguments | settings | {name: number})), expected)


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ("2", TypeError, ["number", "str"]),
        (None, TypeError, ["number", "NoneType"]),
        (True, TypeError, ["number", "bool"]),
        ([2.0], TypeError, ["number", "list"]),
        (np.array([2.0, 2.0]), TypeError, ["number", "ndarray"]),
        (torch.ones(2), ValueError, ["scalar", "(2,)"]),
        (10**400, ValueError, ["range of a float"]),
    ],
    ids=lambda x: str(x)[:10],
)
@pytest.mark.parametrize(("function", "name"), EVERY_NUMBER, ids=label)
def test_what_is_no_number(function, name, bad, error, words):
    arguments, settings = NUMBERS[function]
    test_bad_input(function, arguments | settings | {name: bad}, error, [f"{name} must", *words])


@pytest.mark.parametrize("bad", [2.0, "2", True, torch.tensor(2), [2]], ids=str)
@pytest.mark.parametrize(("function", "name"), EVERY_COUNT, ids=label)
def test_what_is_no_count(function, name, bad):
    words = [f"{name} must be a whole number", repr(bad)]
    test_bad_input(function, COUNTS[function][0] | {name: bad}, TypeError, words)


def test_counts_of_numpy():
    assert torch.equal(plain.positive_pairs(np.int64(3)), positive_pairs(3))
    assert torch.equal(plain.spectrum(A, np.int32(2))[0], spectrum(A, 2)[0])


# --- ties ----------------------------------------------------------------------------------------


def test_nearly_equal_distances_are_no_ties():
    """Squared distances 1, 1 + 1e-8, …: four orders of magnitude above rounding, two below 1e-6.

    As ties they would be equally likely, with perplexity 4.
    """
    squared = 1 + 1e-8 * torch.arange(4, dtype=torch.float64)
    x = torch.cat([torch.zeros(1, 4, dtype=torch.float64), squared.sqrt().diag()])

    def entropy(log_beta):
        p = np.exp(-np.exp(log_beta) * 1e-8 * np.arange(4))
        p /= p.sum()
        return -(p * np.log(p)).sum(), p

    root = brentq(lambda log_beta: entropy(log_beta)[0] - math.log(2), math.log(1e7), math.log(1e9))
    exact = torch.from_numpy(entropy(root)[1])
    assert exact[0] > 2 * exact[1] > 0.3
    close(perplexity_matched(x, perplexity=2)[0, 1:], exact, rtol=1e-5)
    sparse = sparse_perplexity_matched(x, perplexity=2, neighbors=4).P.toarray()
    close(torch.from_numpy(sparse)[0, 1:], exact, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_cells_may_be_integers_of_any_width(dtype):
    found = empirical_masses(lambda x: x, X, lambda x: torch.arange(8).to(dtype), 8, draws=2)[0]
    assert torch.equal(found, torch.eye(8, dtype=torch.float64))
