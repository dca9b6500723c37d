"""The variance ratio, by labels and by groups that are found."""

import numpy as np
import pytest
import torch
from helpers import normal
from sklearn.metrics import adjusted_rand_score

from sscl_experiments.variance_ratio import unlabelled_groups, variance_ratio


def groups_beside_a_nuisance(width: float, n: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Three groups in the plane, 1 apart, and two directions of this standard deviation."""
    labels = torch.arange(n) % 3
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]]).double()
    spread = torch.cat([corners[labels], normal(n, 2) * width], 1)
    spread[:, :2] += 0.05 * normal(n, 2, seed=1)
    turn = torch.linalg.qr(normal(4, 4, seed=2)).Q
    return spread @ turn + 3, labels


@pytest.mark.parametrize(("width", "n"), [(0.2, 300), (3.0, 60_000)])
def test_the_ratio_by_hand(width, n):
    """Means 1 apart have the variance 1/6 in either direction of their plane.

    Beside a wide nuisance it takes many points: means of few tilt towards it.
    """
    x, labels = groups_beside_a_nuisance(width, n)
    assert variance_ratio(x, labels) == pytest.approx(width**2 / (1 / 6 + 0.05**2), rel=0.15)
    assert variance_ratio(5 * x - 2, labels) == pytest.approx(variance_ratio(x, labels))


@pytest.mark.parametrize(("width", "better"), [(0.2, "raw"), (3.0, "whitened")])
def test_groups_are_found_beside_a_narrow_and_a_wide_nuisance(width, better):
    x, labels = groups_beside_a_nuisance(width)
    groups, silhouettes = unlabelled_groups(x, 3)
    assert adjusted_rand_score(labels, groups) > 0.95
    assert max(silhouettes, key=silhouettes.get) == better
    assert variance_ratio(x, groups) == pytest.approx(variance_ratio(x, labels), rel=0.02)


def test_one_group_and_groups_that_span_everything_have_no_ratio():
    x = normal(20, 2)
    for labels in (torch.zeros(20, dtype=torch.int64), torch.arange(20) % 3):
        with pytest.raises(ValueError, match=r"^groups must be in number 2\.\.2"):
            variance_ratio(x, labels)
    assert np.isfinite(variance_ratio(x, torch.arange(20) % 2))
