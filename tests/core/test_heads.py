"""Heads: projector, BatchNorm and loss against the parts written out by hand."""

import math

import numpy as np
import pytest
import torch
from helpers import unchecked
from torch.nn import functional as F

from sscl_core.heads import DF, TEMPERATURE_PER_DIM, simclr_head, t_simclr_head
from sscl_experiments.searches import RULE


def views(n: int = 32, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(n, width, generator=generator, dtype=torch.float64)
    return h, h + 0.1 * torch.randn(n, width, generator=generator, dtype=torch.float64)


def by_hand(z: torch.Tensor, tau: float, df: float) -> torch.Tensor:
    """The joint loss of rows z = [z1; z2] by loops."""
    n = len(z) // 2
    attraction, total = 0.0, 0.0
    for j in range(2 * n):
        for k in range(2 * n):
            if j == k:
                continue
            s = (1 + (z[j] - z[k]).square().sum() / (tau * df)) ** (-(df + 1) / 2)
            total = total + s
            if (j - k) % n == 0:
                attraction = attraction + s.log()
    return -attraction / (2 * n) + total.log()


@pytest.mark.parametrize("hidden", [0, 20])
def test_the_loss_is_that_of_standardised_features_at_a_temperature_by_dimension(hidden):
    h1, h2 = views()
    head = t_simclr_head(12, 8, hidden=hidden).double()
    layers = [layer for layer in head.projector if isinstance(layer, torch.nn.Linear)]
    z = layers[0](torch.cat([h1, h2]))
    if hidden:
        z = layers[1](z.clamp_min(0))
    z = (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()
    assert head(h1, h2).item() == pytest.approx(by_hand(z, 0.03 * 8, 5.0).item(), rel=1e-9)


def test_the_temperature_follows_the_dimension_and_the_rule_of_notebook_9():
    assert (RULE.temperature_per_dim, RULE.df) == (TEMPERATURE_PER_DIM, DF)
    for dim in (2, 128):
        assert t_simclr_head(16, dim).loss.temperature == pytest.approx(0.03 * dim)
    assert t_simclr_head(16, 4, temperature_per_dim=0.2).loss.temperature == pytest.approx(0.8)
    assert t_simclr_head(16, 4, df=math.inf).loss.df == math.inf


def test_the_size_of_features_does_not_matter():
    """Which it does in t-SimCLR without BatchNorm, where τ is then no temperature."""
    h1, h2 = views()
    head = t_simclr_head(12, 8, hidden=0).double()
    assert head(10 * h1, 10 * h2).item() == pytest.approx(head(h1, h2).item(), rel=1e-4)


def test_simclr_compares_cosines_without_batchnorm():
    h1, h2 = views(n=8)
    head = simclr_head(12, 8, hidden=20, temperature=0.5).double()
    assert not any(isinstance(layer, torch.nn.BatchNorm1d) for layer in head.projector)
    z = F.normalize(head.project(torch.cat([h1, h2])))
    logits = (z @ z.T / 0.5).fill_diagonal_(-math.inf)
    positives = torch.arange(16).roll(8)
    assert head(h1, h2).item() == pytest.approx(F.cross_entropy(logits, positives).item())


def test_it_trains_and_projects():
    torch.manual_seed(0)
    h1, h2 = (h.float() for h in views())
    head = t_simclr_head(12, 2, hidden=16)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    before = head(h1, h2).item()
    for _ in range(50):
        optimizer.zero_grad()
        head(h1, h2).backward()
        optimizer.step()
    assert head(h1, h2).item() < before - 0.1
    assert head.eval().project(h1).shape == (32, 2)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"width": 0}, ValueError, "width must be"),
        ({"dim": 0}, ValueError, "dim must be"),
        ({"dim": None}, TypeError, "dim must be"),
        ({"dim": True}, TypeError, "dim must be"),
        ({"hidden": -1}, ValueError, "hidden must be"),
        ({"df": 0.0}, ValueError, "df must be"),
        ({"temperature_per_dim": 0.0}, ValueError, "temperature_per_dim must be"),
    ],
)
def test_wrong_settings_are_named(wrong, error, words):
    with pytest.raises(error, match=words):
        unchecked("sscl_core.heads").t_simclr_head(**({"width": 12, "dim": 2} | wrong))


def test_sizes_may_be_numpy_integers():
    make = unchecked("sscl_core.heads").t_simclr_head
    head = make(np.int64(12), np.int32(8), hidden=np.int64(16))
    assert head.project(torch.randn(4, 12)).shape == (4, 8)


def test_views_of_other_shapes_are_refused():
    heads = unchecked("sscl_core.heads")
    h1, h2 = views()
    with pytest.raises(ValueError, match=r"h1 and h2 must have the same shape .* got \(32, 12\)"):
        heads.t_simclr_head(12, 8).double()(h1, h2[:5])
