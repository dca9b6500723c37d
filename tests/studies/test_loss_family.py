"""Every row of the family against loops written from its formula, finite differences, other
people's code, and closed forms.

Compared with, where a library has the row:
  pytorch-metric-learning (a test dependency): InfoNCE, t-SimCLR conditional, SNE, VICReg
  scikit-learn: t-SimCLR joint, t-SNE
  torch's cross-entropy with soft targets: SNE, any P
  lightly: DCL, Barlow Twins, VICReg
  open_clip: SigLIP
  contrastive-ne: Neg-t-SNE, UMAP
SNE is compared for positive pairs with the first. The last three need torchvision to import as
packages. Their files with the losses do not, so those are loaded by themselves, and skipped where
they are absent. No installable library was found that has the spectral contrastive loss.
"""

import importlib.util
import math
from fractions import Fraction
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import unchecked
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import NTXentLoss, VICRegLoss
from scipy.spatial.distance import squareform
from sklearn.manifold._t_sne import _kl_divergence
from torch import Tensor
from torch.nn import functional as F

from sscl_core.affinities import positive_pairs
from sscl_core.losses import info_nce, spectral_contrastive, t_simclr
from sscl_core.similarities import (
    Student,
    log_q_cosine,
    log_q_gaussian,
    log_q_student,
    squared_distances,
)
from sscl_core.train import train
from sscl_experiments.runs.points import point_set
from sscl_experiments.studies.contrastive_is_sne import analysis
from sscl_experiments.studies.loss_family import analysis as family
from sscl_experiments.studies.loss_family import figures as family_figures
from sscl_experiments.studies.loss_family.losses import LOSSES, Terms, forces
from sscl_experiments.study import resolve

INF = math.inf
JOINT, CONDITIONAL = "t-SimCLR", "t-SimCLR, conditional"


plain = unchecked("sscl_experiments.studies.loss_family.losses")
all_rows = pytest.mark.parametrize("name", LOSSES)


def views(
    n: int = 5, d: int = 3, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    z1, noise = torch.randn(
        2, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return z1.to(dtype), (z1 + 0.5 * noise).to(dtype)


def some_P(n: int, normalization: str) -> Tensor:
    """Over 2n points, neither symmetric nor positive everywhere."""
    P = torch.rand(
        2 * n, 2 * n, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).fill_diagonal_(0)
    P[0, 1:3] = P[3, 0] = 0
    return P / (P.sum() if normalization == "joint" else P.sum(1, keepdim=True))


def values_and_grads(loss, z1: Tensor, z2: Tensor) -> list[Tensor]:
    """Of each output of `loss`: its value, and its gradients with respect to both views."""
    z1, z2 = (z.detach().clone().requires_grad_() for z in (z1, z2))
    outputs = loss(z1, z2)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [
        x
        for y in outputs
        for x in (y.detach(), *torch.autograd.grad(y, (z1, z2), retain_graph=True))
    ]


def assert_same(ours: list[Tensor], theirs: list[Tensor], *, rtol: float) -> None:
    """Values and gradients agree, and there was something to agree on."""
    assert all(x.isfinite().all() for x in ours)
    assert any(x.abs().max() > 1e-3 for x in ours if x.ndim)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=rtol * max(float(y.abs().max()), 1e-3))


def total(name: str, **settings):
    return lambda z1, z2: LOSSES[name].loss(z1, z2, **settings).loss


# ---- the formulas, as loops


def dot(a: Tensor, b: Tensor) -> Tensor:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a: Tensor, b: Tensor) -> Tensor:
    return dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()


def student(a: Tensor, b: Tensor, temperature: float, df: float) -> Tensor:
    """log s"""
    distance = dot(a - b, a - b)
    return (
        -distance / (2 * temperature)
        if df == INF
        else -(df + 1) / 2 * torch.log(1 + distance / (temperature * df))
    )


def other_view(i: int, n: int) -> int:
    return i + n if i < n else i - n


def naive_kl(log_s, z1, z2, *, joint: bool, positive_in_sum: bool = True) -> tuple[Tensor, Tensor]:
    z, N = [*z1, *z2], 2 * len(z1)
    pull = push = 0
    for i in range(N):
        j = other_view(i, N // 2)
        pull = pull - log_s(z[i], z[j]) / N
        row = sum(
            log_s(z[i], z[k]).exp() for k in range(N) if k != i and (positive_in_sum or k != j)
        )
        push = push + (row if joint else row.log() / N)
    return pull, push.log() if joint else push


def naive_kl_of_P(log_s, z1, z2, *, P: Tensor | None, joint: bool) -> tuple[Tensor, Tensor]:
    z, N = [*z1, *z2], 2 * len(z1)
    if P is None:
        P = torch.tensor(
            [
                [(j == other_view(i, N // 2)) / (N if joint else 1) for j in range(N)]
                for i in range(N)
            ],
            dtype=z1.dtype,
        )
    off = [(i, j) for i, j in product(range(N), repeat=2) if i != j]
    pull = sum(P[i, j] * (math.log(P[i, j]) - log_s(z[i], z[j])) for i, j in off if P[i, j] > 0)
    rows = [sum(log_s(z[i], z[k]).exp() for k in range(N) if k != i) for i in range(N)]
    return pull, sum(rows).log() if joint else sum(row.log() for row in rows)


def naive_binary(probability, z1, z2) -> tuple[Tensor, Tensor]:
    z, N = [*z1, *z2], 2 * len(z1)
    pull = push = 0
    for i, k in product(range(N), repeat=2):
        if k == other_view(i, N // 2):
            pull = pull - probability(z[i], z[k]).log() / N
        elif k != i:
            push = push - (1 - probability(z[i], z[k])).log() / N
    return pull, push


def naive_siglip(z1, z2, *, temperature=0.1, bias=-10.0) -> tuple[Tensor, Tensor]:
    n = range(len(z1))
    log_odds = [[cos(z1[i], z2[j]) / temperature + bias for j in n] for i in n]
    pull = sum(torch.log1p((-log_odds[i][i]).exp()) for i in n) / len(z1)
    return pull, sum(torch.log1p(log_odds[i][j].exp()) for i in n for j in n if i != j) / len(z1)


def naive_spectral(z1, z2) -> tuple[Tensor, Tensor]:
    z, n = [*z1, *z2], len(z1)
    squares = [dot(z[i], z[j]) ** 2 for i in range(2 * n) for j in range(2 * n) if i % n != j % n]
    assert len(squares) == 2 * n * (2 * n - 2)
    return -2 * sum(map(dot, z1, z2)) / n, sum(squares) / len(squares)


def column(z: Tensor, a: int) -> list[Tensor]:
    mean = sum(z[:, a]) / len(z)
    return [x - mean for x in z[:, a]]


def naive_barlow_twins(z1, z2, *, redundancy=5e-3) -> tuple[Tensor, Tensor]:
    n, d = z1.shape

    def standard(z, a):
        x = column(z, a)
        return [y / (dot(x, x) / n + 1e-5).sqrt() for y in x]

    C = [[dot(standard(z1, a), standard(z2, b)) / n for b in range(d)] for a in range(d)]
    pull = sum((1 - C[a][a]) ** 2 for a in range(d))
    return pull, redundancy * sum(C[a][b] ** 2 for a in range(d) for b in range(d) if a != b)


def naive_vicreg(
    z1, z2, *, invariance=25.0, variance=25.0, covariance=1.0
) -> tuple[Tensor, Tensor]:
    n, d = z1.shape
    push = 0
    for z in (z1, z2):
        C = [[dot(column(z, a), column(z, b)) / (n - 1) for b in range(d)] for a in range(d)]
        push = (
            push
            + variance / 2 * sum((1 - (C[a][a] + 1e-4).sqrt()).clamp_min(0) for a in range(d)) / d
        )
        push = (
            push + covariance * sum(C[a][b] ** 2 for a in range(d) for b in range(d) if a != b) / d
        )
    return invariance * sum(dot(a - b, a - b) for a, b in zip(z1, z2, strict=True)) / (n * d), push


def naive(name: str, z1: Tensor, z2: Tensor, **settings) -> tuple[Tensor, Tensor]:
    P, t, df = settings.get("P"), settings.get("temperature"), settings.get("df")
    match name:
        case "InfoNCE" | "DCL":
            return naive_kl(
                lambda a, b: cos(a, b) / (t or 0.5),
                z1,
                z2,
                joint=False,
                positive_in_sum=name == "InfoNCE",
            )
        case "t-SimCLR" | "t-SimCLR, conditional":
            return naive_kl(
                partial(student, temperature=t or 1.0, df=df or 5.0), z1, z2, joint=name == JOINT
            )
        case "SNE":
            return naive_kl_of_P(
                partial(student, temperature=t or 0.5, df=INF), z1, z2, P=P, joint=False
            )
        case "t-SNE":
            return naive_kl_of_P(
                partial(student, temperature=t or 1.0, df=df or 1.0), z1, z2, P=P, joint=True
            )
        case "Neg-t-SNE":
            log_s = partial(student, temperature=t or 1.0, df=df or 1.0)
            odds = settings.get("odds", 1)
            return naive_binary(lambda a, b: log_s(a, b).exp() / (log_s(a, b).exp() + odds), z1, z2)
        case "UMAP":
            return naive_binary(lambda a, b: 1 / (1 + dot(a - b, a - b)), z1, z2)
    rest = {
        "SigLIP": naive_siglip,
        "spectral contrastive": naive_spectral,
        "Barlow Twins": naive_barlow_twins,
        "VICReg": naive_vicreg,
    }
    return rest[name](z1, z2, **settings)


SETTINGS = {
    "InfoNCE": [{"temperature": 0.1}],
    JOINT: [{"temperature": 0.3, "df": 1.5}, {"df": INF}],
    CONDITIONAL: [{"temperature": 0.3, "df": 1.5}, {"df": INF}],
    "SNE": [{"temperature": 0.2}, {"P": "conditional"}],
    "t-SNE": [{"temperature": 0.2, "df": 3.0}, {"P": "joint"}],
    "DCL": [{"temperature": 0.1}],
    "SigLIP": [{"temperature": 0.4, "bias": 1.5}],
    "Neg-t-SNE": [{"temperature": 0.2, "df": 3.0, "odds": 0.2}, {"df": INF}],
    "Barlow Twins": [{"redundancy": 0.7}],
    "VICReg": [{"invariance": 2.0, "variance": 3.0, "covariance": 5.0}],
}
ROWS = [(name, settings) for name in LOSSES for settings in ({}, *SETTINGS.get(name, []))]


def realised(settings: dict, n: int) -> dict:
    return settings | {"P": some_P(n, settings["P"])} if "P" in settings else settings


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize(("name", "settings"), ROWS, ids=str)
def test_both_terms_are_the_loops(name, settings, n):
    (z1, z2), settings = views(n), realised(settings, n)
    if name == "VICReg":
        z1, z2 = 0.6 * z1, z2  # hinges of both kinds
    ours = values_and_grads(partial(LOSSES[name].loss, **settings), z1, z2)
    assert len(ours) == 6
    assert_same(ours, values_and_grads(partial(naive, name, **settings), z1, z2), rtol=1e-9)


@pytest.mark.parametrize(("name", "settings"), ROWS, ids=str)
def test_derivatives_are_those_of_finite_differences(name, settings):
    inputs = [z.requires_grad_() for z in views(3, 2)]
    P = {"P": some_P(3, settings["P"])} if "P" in settings else {}
    numbers = {
        k: torch.tensor(v, dtype=torch.float64).requires_grad_()
        for k, v in settings.items()
        if k != "P" and v != INF
    }
    rest = P | {k: v for k, v in settings.items() if v == INF and k != "P"}

    def terms(z1, z2, *values):
        return tuple(LOSSES[name].loss(z1, z2, **dict(zip(numbers, values, strict=True)), **rest))

    assert torch.autograd.gradcheck(terms, (*inputs, *numbers.values()))
    assert torch.autograd.gradgradcheck(terms, (*inputs, *numbers.values()))


def test_the_table_is_complete_and_told_in_words():
    assert len(LOSSES) == 12
    for name, row in LOSSES.items():
        assert all(isinstance(text, str) and 2 < len(text) < 110 for text in row[:4]), name
        terms = row.loss(*views())
        assert isinstance(terms, Terms)
        assert terms.loss == terms.attraction + terms.repulsion
    assert len({row.loss for row in LOSSES.values()}) == 12


# ---- the family's own losses, and its theory


@pytest.mark.parametrize(
    ("name", "loss", "settings"),
    [
        ("InfoNCE", info_nce, {}),
        ("InfoNCE", info_nce, {"temperature": 0.07}),
        (JOINT, t_simclr, {"temperature": 3.0, "df": 2.0}),
        (CONDITIONAL, partial(t_simclr, normalization="conditional"), {"df": INF}),
        ("spectral contrastive", spectral_contrastive, {}),
    ],
)
def test_the_sum_is_the_loss_that_is_trained(name, loss, settings):
    ours = values_and_grads(total(name, **settings), *views())
    assert_same(ours, values_and_grads(partial(loss, **settings), *views()), rtol=1e-12)


@pytest.mark.parametrize("n", [2, 6])
def test_positive_pairs_make_sne_and_t_sne_contrastive(n):
    z1, z2 = views(n)
    conditional, joint = (values_and_grads(LOSSES[name].loss, z1, z2) for name in ("SNE", "t-SNE"))
    contrastive = values_and_grads(
        partial(LOSSES[CONDITIONAL].loss, temperature=0.5, df=INF), z1, z2
    )
    assert_same(conditional, [2 * n * x for x in contrastive], rtol=1e-12)
    contrastive = values_and_grads(partial(LOSSES[JOINT].loss, df=1.0), z1, z2)
    contrastive[0] = contrastive[0] - math.log(2 * n)
    assert_same(joint, contrastive, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "with_P"),
    [
        ("InfoNCE", False),
        (JOINT, False),
        (CONDITIONAL, False),
        ("SNE", False),
        ("t-SNE", False),
        ("SNE", True),
        ("t-SNE", True),
    ],
)
def test_forces_are_those_of_the_theory(name, with_P):
    n, (z1, z2) = 5, views(5)
    z, t = torch.cat([z1, z2]), 0.7
    joint = name in (JOINT, "t-SNE")
    normalization = "joint" if joint else "conditional"
    P = some_P(n, normalization) if with_P else positive_pairs(n, normalization=normalization)
    scale = 2 * n if name in ("InfoNCE", CONDITIONAL) else 1
    if name == "InfoNCE":
        u = F.normalize(z, dim=1)
        theirs = analysis.attraction_repulsion(
            P, log_q_cosine(u, temperature=t).exp(), u, 1 / (2 * t)
        )
        theirs = [analysis.through_normalization(z, g) for g in theirs]
    elif name == "SNE":
        theirs = analysis.attraction_repulsion(
            P, log_q_gaussian(z, temperature=t).exp(), z, 1 / (2 * t)
        )
    else:
        df = 1.0 if name == "t-SNE" else 5.0
        Q = log_q_student(z, temperature=t, df=df, normalization=normalization).exp()
        theirs = analysis.attraction_repulsion(P, Q, z, Student(t, df).slope(squared_distances(z)))
    ours = forces(LOSSES[name].loss, z1, z2, temperature=t, **({"P": P} if with_P else {}))
    for x, y in zip(ours, theirs, strict=True):
        assert x.abs().max() > 1e-2
        torch.testing.assert_close(scale * x, y, rtol=1e-10, atol=1e-12)


@all_rows
def test_forces_sum_to_the_gradient_and_leave_the_views_alone(name):
    z1, z2 = (z.requires_grad_() for z in views())
    gradient = torch.cat(torch.autograd.grad(LOSSES[name].loss(z1, z2).loss, (z1, z2)))
    with torch.no_grad():
        attraction, repulsion = forces(LOSSES[name].loss, z1, z2)
    assert attraction.shape == repulsion.shape == (10, 3)
    assert min(attraction.abs().max(), repulsion.abs().max()) > 1e-4
    torch.testing.assert_close(attraction + repulsion, gradient, rtol=1e-10, atol=1e-12)
    assert z1.grad is None
    assert not attraction.requires_grad


@all_rows
def test_a_step_down_the_attraction_brings_pairs_together(name):
    """In what the row's similarity sees of them."""
    z1, z2 = views(6, 4)
    attraction, _ = forces(LOSSES[name].loss, z1, z2)
    x1, x2 = (torch.cat([z1, z2]) - 1e-4 / attraction.abs().max() * attraction).chunk(2)

    def closeness(a, b):
        if name == "Barlow Twins":
            a, b = ((z - z.mean(0)) / z.std(0) for z in (a, b))
        if name in ("InfoNCE", "DCL", "SigLIP"):
            a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
        return (a * b).sum() if name == "spectral contrastive" else -(a - b).square().sum()

    assert closeness(x1, x2) > closeness(z1, z2) + 1e-6


# ---- other people's code


class LogStudent(LpDistance):
    """-log s for a loss that reads distances as negative logits."""

    def __init__(self, temperature: float, df: float) -> None:
        super().__init__(p=2, normalize_embeddings=False)
        self.temperature, self.df = temperature, df

    def compute_mat(self, query_emb, ref_emb):
        squared = super().compute_mat(query_emb, ref_emb).square()
        return (self.df + 1) / 2 * torch.log1p(squared / (self.temperature * self.df))


def nt_xent(temperature: float, distance=None):
    loss = (
        NTXentLoss(temperature) if distance is None else NTXentLoss(temperature, distance=distance)
    )
    return lambda z1, z2: loss(torch.cat([z1, z2]), torch.arange(len(z1)).repeat(2))


PLAIN_DISTANCE = LpDistance(p=2, power=2, normalize_embeddings=False)


@pytest.mark.parametrize(
    ("ours", "theirs", "scale"),
    [
        (total("InfoNCE", temperature=0.2), nt_xent(0.2), 1),
        (total(CONDITIONAL, temperature=0.6, df=3.0), nt_xent(1.0, LogStudent(0.6, 3.0)), 1),
        (total(CONDITIONAL, temperature=0.6, df=INF), nt_xent(1.2, PLAIN_DISTANCE), 1),
        (total("SNE"), nt_xent(1.0, PLAIN_DISTANCE), 12),
    ],
    ids=["InfoNCE", CONDITIONAL, f"{CONDITIONAL}, Gaussian", "SNE of positive pairs"],
)
def test_conditional_rows_are_nt_xent_of_pytorch_metric_learning(ours, theirs, scale):
    expected = [scale * x for x in values_and_grads(theirs, *views(6))]
    assert_same(values_and_grads(ours, *views(6)), expected, rtol=1e-9)


@pytest.mark.parametrize("df", [1.0, 3.0])
@pytest.mark.parametrize(("name", "with_P"), [(JOINT, False), ("t-SNE", False), ("t-SNE", True)])
def test_joint_rows_are_exact_tsne_of_scikit_learn(name, with_P, df):
    (z1, z2), n = views(5, 2), 5
    P = some_P(n, "joint") if with_P else positive_pairs(n, normalization="joint")
    P = (P + P.T) / 2  # scikit-learn keeps one half of it
    settings = {"P": P} if with_P else {}
    z = torch.cat([z1, z2]).numpy().ravel()
    value, gradient = _kl_divergence(z, squareform(P.numpy(), checks=False), df, 2 * n, 2)
    value += math.log(2 * n) if name == JOINT else 0
    theirs = [torch.tensor(value), *torch.from_numpy(gradient).view(2, n, 2)]
    ours = values_and_grads(total(name, df=df, **settings), z1, z2)
    if df == 1:
        assert_same(ours, theirs, rtol=1e-9)
    else:  # its gradient is that of its value for df = 1 only
        assert value > 0.1
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=0)


def test_sne_of_any_P_is_cross_entropy_less_entropy_of_torch():
    """F.cross_entropy with soft targets, on the logits and the P off the diagonal."""
    z1, z2 = views(5)
    P = some_P(5, "conditional")
    off = ~torch.eye(10, dtype=torch.bool)
    targets = P[off].view(10, 9)
    entropy = torch.special.entr(targets).sum()

    def theirs(z1, z2):
        logits = -torch.cdist(
            *[torch.cat([z1, z2])] * 2, compute_mode="donot_use_mm_for_euclid_dist"
        )[off].square()
        return F.cross_entropy(logits.view(10, 9), targets, reduction="sum") - entropy

    assert_same(
        values_and_grads(total("SNE", P=P), z1, z2), values_and_grads(theirs, z1, z2), rtol=1e-10
    )


def loaded(package: str, pin: str, file: str) -> ModuleType:
    """One file of an installed library, without the imports of its package."""
    try:
        path = distribution(package).locate_file(file)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed: pip install --no-deps {package}=={pin}")
    spec = importlib.util.spec_from_file_location(Path(file).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lightly = partial(loaded, "lightly", "1.6.0")


def test_dcl_is_that_of_lightly():
    theirs = lightly("lightly/loss/dcl_loss.py").DCLLoss(temperature=0.2)
    assert_same(
        values_and_grads(total("DCL", temperature=0.2), *views()),
        values_and_grads(theirs, *views()),
        rtol=1e-10,
    )


def test_barlow_twins_is_that_of_lightly():
    theirs = lightly("lightly/loss/barlow_twins_loss.py").BarlowTwinsLoss(lambda_param=0.3)
    assert_same(
        values_and_grads(total("Barlow Twins", redundancy=0.3), *views()),
        values_and_grads(theirs, *views()),
        rtol=1e-10,
    )


def test_vicreg_is_that_of_lightly():
    theirs = lightly("lightly/loss/vicreg_loss.py").VICRegLoss(2.0, 3.0, 5.0)
    ours = values_and_grads(total("VICReg", invariance=2.0, variance=3.0, covariance=5.0), *views())
    assert_same(ours, values_and_grads(theirs, *views()), rtol=1e-10)


def test_vicreg_is_that_of_pytorch_metric_learning():
    theirs = VICRegLoss(2.0, 3.0, 5.0)
    ours = values_and_grads(total("VICReg", invariance=2.0, variance=3.0, covariance=5.0), *views())
    assert_same(ours, values_and_grads(lambda z1, z2: theirs(z1, ref_emb=z2), *views()), rtol=1e-10)


def test_siglip_is_that_of_open_clip():
    """It takes unit features and the inverse temperature."""
    loss = loaded("open_clip_torch", "3.3.0", "open_clip/loss.py").SigLipLoss()

    def theirs(z1, z2):
        return loss(F.normalize(z1, dim=1), F.normalize(z2, dim=1), 1 / 0.4, -1.5)

    assert_same(
        values_and_grads(total("SigLIP", temperature=0.4, bias=-1.5), *views()),
        values_and_grads(theirs, *views()),
        rtol=1e-10,
    )


@pytest.mark.parametrize(("name", "mode"), [("Neg-t-SNE", "neg"), ("UMAP", "umap")])
def test_negative_sampling_is_that_of_contrastive_ne_with_the_whole_batch_as_negatives(name, mode):
    """Its anchors are the first view only, so both orders are averaged.

    Its clamps are set out of reach.
    """
    n = 5
    criterion = loaded("contrastive_ne", "0.4.0", "cne/cne.py").ContrastiveLoss(
        negative_samples=2 * n - 2,
        loss_mode=mode,
        clamp_low=0.0,
        clamp_high=1.0,
        loss_aggregation="sum",
    )

    def theirs(z1, z2):
        return (criterion(torch.cat([z1, z2])) + criterion(torch.cat([z2, z1]))) / (2 * n)

    with torch.random.fork_rng():
        assert_same(
            values_and_grads(total(name), *views(n)), values_and_grads(theirs, *views(n)), rtol=1e-9
        )


# ---- closed forms


@pytest.mark.parametrize("n", [2, 7])
@all_rows
def test_equal_points(name, n):
    z = torch.tensor([0.6, -0.3, 1.0], dtype=torch.float64).expand(n, 3)
    norm = 1.45  # squared
    rows, candidates = 2 * n, 2 * n - 1
    expected = {
        "InfoNCE": (-2.0, 2.0 + math.log(candidates)),
        JOINT: (0.0, math.log(rows * candidates)),
        CONDITIONAL: (0.0, math.log(candidates)),
        "SNE": (0.0, rows * math.log(candidates)),
        "t-SNE": (-math.log(rows), math.log(rows * candidates)),
        "DCL": (-2.0, 2.0 + math.log(candidates - 1)),
        "SigLIP": (math.log(2), (n - 1) * math.log(2)),  # 1/0.1 - 10 is even odds
        "Neg-t-SNE": (math.log(2), (candidates - 1) * math.log(2)),
        "UMAP": (0.0, INF),
        "spectral contrastive": (-2 * norm, norm**2),
        "Barlow Twins": (3.0, 0.0),
        "VICReg": (0.0, 25 * (1 - 0.01)),
    }[name]
    assert LOSSES[name].loss(z, z) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("n", [2, 4])
def test_orthonormal_samples_with_equal_views(n):
    """Row i is √c e_i.

    The spectral loss is -2c without bound; Barlow Twins and VICReg know the columns' covariance.
    """
    for c in (1.0, 9.0, 1e4):
        z = math.sqrt(c) * torch.eye(n, 5, dtype=torch.float64)
        assert spectral_contrastive(z, z) == pytest.approx(-2 * c, rel=1e-12)
    z = torch.eye(n, dtype=torch.float64)
    variance, covariance = (
        1 / n,
        -1 / (n * (n - 1)),
    )  # over n - 1: (1 - 1/n)/(n - 1) and -(1/n)/(n - 1)
    hinge = 1 - math.sqrt(variance + 1e-4)
    assert LOSSES["VICReg"].loss(z, z) == pytest.approx(
        (0, 25 * hinge + 2 * (n - 1) * covariance**2), abs=1e-12
    )
    scale = (n - 1) / n**2 + 1e-5
    own, cross = (n - 1) / n**2 / scale, -1 / n**2 / scale
    assert LOSSES["Barlow Twins"].loss(z, z) == pytest.approx(
        (n * (1 - own) ** 2, 5e-3 * n * (n - 1) * cross**2), rel=1e-9, abs=1e-15
    )


def test_extremes_of_binary_rows_are_not_rounded_away():
    """Log-odds of ±40 leave probabilities that differ from 0 and 1 by less than rounding."""
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    attraction, repulsion = LOSSES["SigLIP"].loss(z, z, temperature=1 / 40, bias=0.0)
    assert attraction == pytest.approx(math.exp(-40), rel=1e-12)
    assert repulsion == pytest.approx(math.exp(-40), rel=1e-12)


def test_views_that_coincide_have_finite_forces():
    z, _ = views()
    for name in LOSSES:
        assert all(force.isfinite().all() for force in forces(LOSSES[name].loss, z, z)), name


# ---- what the table says of the squared errors


def test_spectral_is_the_squared_error_for_the_normalised_P():
    """Over all pairs with p = 1/(2n).

    Equal rows and positives are then taken out of the squares.
    """
    (z1, z2), n = views(), 5
    z = torch.cat([z1, z2])
    G, P, p = (
        z @ z.T,
        positive_pairs(n, normalization="joint"),
        torch.full((2 * n,), 1 / (2 * n), dtype=torch.float64),
    )
    weights = torch.outer(p, p)
    error = (weights * (P / weights - G).square()).sum()
    constant = (weights * (P / weights).square()).sum()
    own = (torch.eye(2 * n, dtype=torch.bool) | (P > 0)).double()
    attraction, repulsion = LOSSES["spectral contrastive"].loss(z1, z2)
    assert constant == pytest.approx(2 * n)
    assert repulsion > 0.1
    squares = attraction + (2 * n - 2) / (2 * n) * repulsion
    torch.testing.assert_close(
        error - constant - (weights * own * G.square()).sum(), squares, rtol=1e-12, atol=0
    )


def test_spectral_has_no_lower_bound_on_a_batch_where_one_sample_is_alone():
    z1, z2 = (torch.zeros(5, 3, dtype=torch.float64) for _ in range(2))
    z1[0] = z2[0] = torch.tensor([1e3, 0, 0])
    assert spectral_contrastive(z1, z2) == pytest.approx(-2e6 / 5)


def test_barlow_twins_and_vicreg_on_the_side_of_the_samples():
    """Σ off-diagonal² of the d × d matrix is the same of Gram matrices, less the squares on its
    diagonal.
    """
    (z1, z2), n, d = views(6, 4), 6, 4
    x1, x2 = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (z1, z2))
    own = (x1 * x2).mean(0)
    gram = ((x1 @ x1.T) * (x2 @ x2.T)).sum() / n**2 - own.square().sum()
    repulsion = LOSSES["Barlow Twins"].loss(z1, z2, redundancy=1.0).repulsion
    assert repulsion > 0.1
    torch.testing.assert_close(repulsion, gram, rtol=1e-10, atol=0)
    repulsion = LOSSES["VICReg"].loss(z1, z2, variance=1e-30).repulsion
    centred = [z - z.mean(0) for z in (z1, z2)]
    gram = (
        sum((x @ x.T).square().sum() / (n - 1) ** 2 - x.var(0).square().sum() for x in centred) / d
    )
    assert repulsion > 0.1
    torch.testing.assert_close(repulsion, gram, rtol=1e-10, atol=0)


# ---- as it is trained


def test_spectral_under_vmap_and_compile_and_grad():
    z1, z2 = (torch.stack(z) for z in zip(*(views(seed=s) for s in range(4)), strict=True))
    loss = partial(plain.losses.spectral_contrastive, validate=False)
    grads, values = torch.vmap(torch.func.grad_and_value(loss))(z1, z2)
    one_by_one = [values_and_grads(loss, *pair) for pair in zip(z1, z2, strict=True)]
    assert values.std() > 0.01
    torch.testing.assert_close(values, torch.stack([x[0] for x in one_by_one]), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        grads, torch.stack([x[1] for x in one_by_one]), rtol=1e-12, atol=1e-14
    )
    torch.compiler.reset()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert_same(values_and_grads(compiled, z1[0], z2[0]), one_by_one[0], rtol=1e-12)
    vmapped = torch.compile(torch.vmap(loss), backend="eager", fullgraph=True)
    torch.testing.assert_close(vmapped(z1, z2), values, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@all_rows
def test_half_precision_is_computed_in_float32(name, dtype):
    z1, z2 = (z.to(dtype) for z in views(8, 16))
    loss = total(name)
    ours, single = values_and_grads(loss, z1, z2), values_and_grads(loss, z1.float(), z2.float())
    assert [x.dtype for x in ours] == [torch.float32, dtype, dtype]
    assert torch.equal(ours[0], single[0])
    assert all(
        torch.equal(x, y.to(dtype)) and x.abs().max() > 0
        for x, y in zip(ours[1:], single[1:], strict=True)
    )


@all_rows
def test_autocast_does_not_reach_inside(name):
    def under_autocast(z1, z2):
        with torch.autocast("cpu", torch.bfloat16):
            assert (z1 @ z2.T).dtype == torch.bfloat16
            return total(name)(z1, z2)

    z1, z2 = views(8, 16, dtype=torch.float32)
    inside, outside = (
        values_and_grads(under_autocast, z1, z2),
        values_and_grads(total(name), z1, z2),
    )
    assert all(
        x.dtype == torch.float32 and torch.equal(x, y) for x, y in zip(inside, outside, strict=True)
    )


# ---- beyond the range of float32


SCALE_FREE = [
    "InfoNCE",
    JOINT,
    CONDITIONAL,
    "t-SNE",
    "DCL",
    "SigLIP",
    "Neg-t-SNE",
    "UMAP",
    "Barlow Twins",
]


@pytest.mark.parametrize("scale", [1e10, 1e20, 1e37])
@pytest.mark.parametrize("name", SCALE_FREE)
def test_features_whose_squares_overflow_in_float32(name, scale):
    """Both terms are small all the same: cosines, logarithms, what is divided by a deviation."""
    z1, z2 = (scale * z for z in views(dtype=torch.float32))
    ours = LOSSES[name].loss(z1, z2)
    exact = naive(name, z1.double(), z2.double())
    assert max(map(abs, exact)) > 5e-3
    for x, y in zip(ours, exact, strict=True):
        assert x.dtype == torch.float32
        assert float(x) == pytest.approx(float(y), rel=1e-5, abs=1e-5 * float(max(map(abs, exact))))


@pytest.mark.parametrize("name", ["SNE", "spectral contrastive", "VICReg"])
def test_terms_beyond_the_range_of_the_features_are_refused(name):
    z1, z2 = views(dtype=torch.float32)
    with pytest.raises(
        ValueError, match=r"reaches .*e\+\d\d, beyond torch.float32: pass features as"
    ):
        plain.LOSSES[name].loss(1e20 * z1, 1e20 * z2)
    ours = plain.LOSSES[name].loss(1e20 * z1.double(), 1e20 * z2.double())
    exact = naive(name, 1e20 * z1.double(), 1e20 * z2.double())
    known = 1 if name == "SNE" else 2  # the loop's exp(-1e40) is 0
    for x, y in list(zip(ours, exact, strict=True))[:known]:
        assert float(x) == pytest.approx(float(y), rel=1e-6)


# ---- bad input, as users meet it

GOOD = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
BAD = [
    ([[1.0, 2.0]], TypeError, "floating-point tensor, got list"),
    (GOOD.long(), TypeError, "floating-point tensor, got torch.int64"),
    (GOOD[0], ValueError, r"shape \(n, d\)"),
    (GOOD[:1], ValueError, "n >= 2"),
    (GOOD[:2], ValueError, "same shape"),
    (GOOD * math.nan, ValueError, "must be finite"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD)
@all_rows
def test_bad_features(name, bad, error, message):
    loss = plain.LOSSES[name].loss
    assert loss(GOOD, GOOD + 1).loss.isfinite()
    for args in ((bad, GOOD), (GOOD, bad)):
        with pytest.raises(error, match=message):
            loss(*args)
    if name == "spectral contrastive":
        with pytest.raises(error, match=message):
            plain.losses.spectral_contrastive(GOOD, bad)


NUMBERS = [(name, key) for name, rows in SETTINGS.items() for key in rows[0] if key != "P"]
BAD_NUMBERS = [
    (math.nan, ValueError),
    (torch.ones(2), ValueError),
    (10**400, ValueError),
    ("1", TypeError),
    (None, TypeError),
    (True, TypeError),
    (torch.tensor(True), TypeError),
]
BAD_POSITIVE = [(0.0, ValueError), (-1.0, ValueError), (Fraction(-1, 2), ValueError)]


@pytest.mark.parametrize(("bad", "error"), BAD_NUMBERS + BAD_POSITIVE, ids=lambda x: str(x)[:10])
@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_bad_settings(name, setting, bad, error):
    if setting == "bias" and any(bad is value for value, _ in BAD_POSITIVE):
        assert plain.LOSSES[name].loss(GOOD, GOOD, bias=bad).loss.isfinite()
        return
    with pytest.raises(error, match=f"{setting} must be"):
        plain.LOSSES[name].loss(GOOD, GOOD, **{setting: bad})


def test_an_infinite_bias():
    with pytest.raises(ValueError, match="bias must be finite, got -inf"):
        plain.LOSSES["SigLIP"].loss(GOOD, GOOD, bias=-INF)


@pytest.mark.parametrize(
    "number", [np.float32(1.5), np.int64(3), Fraction(3, 2)], ids=lambda x: type(x).__name__
)
@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_any_real_number_is_a_setting(name, setting, number):
    z1, z2 = views(dtype=torch.float32)
    ours = LOSSES[name].loss(z1, z2, **{setting: number})
    assert ours == LOSSES[name].loss(z1, z2, **{setting: float(number)})
    assert [x.dtype for x in ours] == [torch.float32, torch.float32]
    assert ours != LOSSES[name].loss(z1, z2)


@pytest.mark.parametrize("name", ["InfoNCE", "DCL", "SigLIP"])
def test_rows_without_direction(name):
    with pytest.raises(ValueError, match="z2 has a row of zeros"):
        plain.LOSSES[name].loss(GOOD, GOOD * torch.tensor([[1.0], [1.0], [0.0]]))


@pytest.mark.parametrize(
    ("P", "error", "message"),
    [
        (torch.ones(6, 6).tolist(), TypeError, "P must be a floating-point tensor, got list"),
        (torch.ones(3, 3) / 3, ValueError, r"\(3, 3\)"),
        (-torch.eye(6).roll(3, 0), ValueError, "nonnegative"),
        (
            torch.eye(6),
            ValueError,
            r"P must sum to 1.* off the diagonal, got rows that sum to 0\.\.0",
        ),
        (torch.full((6, 6), 1 / 4), ValueError, "divide by the sum"),
    ],
    ids=["list", "shape", "sign", "diagonal", "sum"],
)
@pytest.mark.parametrize("name", ["SNE", "t-SNE"])
def test_bad_P(name, P, error, message):
    with pytest.raises(error, match=message):
        plain.LOSSES[name].loss(GOOD, GOOD + 1, P=P)


def test_spectral_unvalidated_lets_values_through():
    assert not plain.losses.spectral_contrastive(GOOD * math.nan, GOOD, validate=False).isfinite()


# ---- forces in the notebook


def small(**changes):
    return resolve("08_loss_family", {"scale": "smoke", "pairs": 5, "steps": 2, **changes})


@all_rows
def test_forces_are_parts_of_the_gradient(name):
    Z, pull, push = family.default_forces(name, *family.random_pairs(3, 4))
    Z = Z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[name].loss(*Z.chunk(2)).loss, Z)
    torch.testing.assert_close(pull + push, gradient)


@pytest.mark.parametrize("name", ["Neg-t-SNE", "UMAP"])
def test_a_few_negatives_are_the_mean_over_their_draws(name):
    """Each of the six is among five drawn ones five times in six."""
    z1, z2 = family.random_pairs(0, 4)
    usual = family.usual_forces(name, z1, z2)
    everything = family.default_forces(name, z1, z2)
    torch.testing.assert_close(usual.pull, everything.pull)
    torch.testing.assert_close(usual.push, everything.push * 5 / 6)
    assert usual.ratio == pytest.approx(everything.ratio * 5 / 6)


def test_methods_that_standardise_are_measured_on_standardised_features():
    found = family.usual_forces(CONDITIONAL, *family.random_pairs(0, 30))
    assert found.Z.std(0).tolist() == pytest.approx([1, 1])
    assert found.Z.mean(0).tolist() == pytest.approx([0, 0], abs=1e-12)


def test_the_ratio_is_of_lengths():
    z = torch.zeros(2, 2)
    found = family.Forces(z, torch.tensor([[3.0, 0], [0, 4]]), torch.tensor([[0.0, 0], [0, 10]]))
    assert found.ratio == pytest.approx(2)


def test_forces_of_trained_features_are_on_fresh_views_of_a_trained_network():
    p = small()
    found = family.trained_forces(p, "InfoNCE", 0)
    assert found.Z.shape == (10, 2)
    untrained = family.trained_forces(small(steps=1), "InfoNCE", 0)
    assert not torch.allclose(found.Z, untrained.Z)
    again = family.trained_forces(p, "InfoNCE", 0)
    assert torch.equal(found.Z, again.Z)
    many = family.trained_forces(small(pairs=40), "InfoNCE", 0)
    assert many.Z.shape == (80, 2), "more than a batch of training"


def test_the_loop_of_the_family_is_that_of_the_runs():
    """InfoNCE at the run's own temperature: the same weights as the ordinary loop."""
    config = small(steps=4).training(0, batchnorm=False)
    x = point_set(config).train.x
    loss = partial(LOSSES["InfoNCE"].loss, temperature=config.loss.temperature)
    ours = family._trained(config, loss, x)
    theirs = train(config, x, device="cpu").model
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_tables_and_figures_have_a_row_and_a_panel_a_loss():
    p = small()
    measured = family.measured(p)
    table = family.ratios(measured)
    assert table.loss.tolist() == list(LOSSES)
    assert table["cosine with t-SNE"][4] == pytest.approx(1)
    first = [found.ratio for found in measured.trained["InfoNCE"]]
    assert table["own features"][0] == pytest.approx(np.mean(first))
    assert family.family().P.str.contains("kNN").sum() == 2
    family_figures.forces(measured.trained).draw_without_rendering()
    scales = family.by_scale(p, ["InfoNCE", "UMAP"])
    assert len(scales) == 2 * len(family.SCALES) * 2
    family_figures.by_scale(scales).draw_without_rendering()
    means = family.by_scale_means(scales)
    assert means.loss.tolist() == ["InfoNCE", "UMAP"]
    some = scales[(scales.loss == "UMAP") & (scales.scale == family.SCALES[0])]
    assert means.iloc[1, 1] == pytest.approx(some[family.RATIO].mean())


def test_more_odds_pull_a_map_together():
    places = family.spectrum(small(steps=200, seeds=1))
    spreads = [place.spread[0] for place in places.values()]
    assert list(places) == sorted(places)
    table = family.spreads(places)
    assert table.spread.tolist() == spreads
    assert spreads[0] > 2 * spreads[-1]
    family_figures.spectrum(places).draw_without_rendering()
