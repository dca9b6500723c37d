"""What noise and mixup do to points before training: by formula, and counted."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sscl_core.affinities import (
    box_cells,
    empirical_masses,
    log_mixup,
    log_noise,
    mixup_masses,
    nearest_cells,
    noise_masses,
)
from sscl_core.augmentations import agnostic_views
from sscl_core.config import Mixup, Noise, Points, TrainConfig
from sscl_core.rng import SPLIT, stream
from sscl_experiments.datasets.synthetic import PointSet
from sscl_experiments.runs.points import point_set
from sscl_experiments.variance_ratio import unlabelled_groups, variance_ratio

from .parameters import PREMISE_CLOUDS, CloudKey

# --- masses, exact and counted -------------------------------------------------------------------


def counted_noise(
    steps: Sequence[Noise], anchor: float, edges: Sequence[float], *, draws: int, seed: int
) -> pd.DataFrame:
    """Views of a point on a line in the intervals between `edges`: counted beside exact masses.

    They are drawn as training draws them. A row for each kind of noise and interval.
    """
    x = torch.tensor([[anchor]], dtype=torch.float64)
    parts = []
    for step in steps:
        exact = noise_masses(x, [edges], scale=step.scale, kind=step.kind)[0]
        augment = partial(agnostic_views, steps=(step,), pool=x)
        with stream(seed, SPLIT, 3):
            counted, _ = empirical_masses(augment, x, box_cells([edges]), len(exact), draws=draws)
        columns = {"noise": step.kind, "cell": range(len(exact)), "exact": exact}
        columns |= {"counted": counted[0], "s.e.": _standard_error(exact, draws)}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts)


def training_masses(x: Float[Tensor, "n d"], *, strength: float) -> Float[Tensor, "n n"]:
    """Masses of mixup's views over the cells of the points, as training draws partners: exact.

    A partner is any of the n points, so with probability 1/n it is the point itself, and the view
    is the point. `mixup_masses` has partners among the others.
    """
    n = len(x)
    itself = torch.zeros(n, n, dtype=torch.float64)
    itself[torch.arange(n), nearest_cells(x)(x)] = 1
    return ((n - 1) * mixup_masses(x, x, strength=strength) + itself) / n


def counted_mixup(
    x: Float[Tensor, "n d"], *, draws: int, seed: int
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    """`training_masses`, and the same counted over views that are drawn as training draws them."""
    augment = partial(agnostic_views, steps=(Mixup(strength=1.0),), pool=x)
    with stream(seed, SPLIT, 5):
        counted, _ = empirical_masses(augment, x, nearest_cells(x), len(x), draws=draws)
    return training_masses(x, strength=1.0), counted


def within_two_errors(
    exact: Float[Tensor, "*n"], counted: Float[Tensor, "*n"], draws: int, *, least: float = 0.0
) -> tuple[int, float]:
    """The number of masses above `least`, and how many of them counting finds: a share of 1.

    It finds a mass where it is off by at most two standard errors.
    """
    likely = exact > least
    error = ((counted - exact) / _standard_error(exact, draws))[likely]
    return int(likely.sum()), (error.abs() <= 2).double().mean().item()


def _standard_error(mass: Tensor, draws: int) -> Tensor:
    return (mass * (1 - mass) / draws).sqrt()


# --- densities -----------------------------------------------------------------------------------


class Densities(NamedTuple):
    """Log densities of a view of `anchor` on a grid in the plane, and the means of the mixture."""

    means: Float[Tensor, "m 2"]
    anchor: Float[Tensor, "1 2"]
    ends: tuple[float, float]  # of the grid, on both axes
    log_p: dict[str, Float[Tensor, "k k"]]  # by augmentation; the first index is the first axis


def view_densities(*, std: float = 0.1, size: int = 120) -> Densities:
    """Mixup on a mixture of three components, beside noise of the same energy."""
    means = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]], dtype=torch.float64)
    ends = (-0.6, 1.6)
    line = torch.linspace(*ends, size, dtype=torch.float64)
    view = torch.cartesian_prod(line, line)
    anchor = means[:1] + torch.tensor([[0.05, -0.1]])
    to_means = (means - anchor).square().sum(1).mean()
    energy = to_means / 3 + 2 * std**2 / 3  # E λ² = 1/3
    log_p = {
        "mixup": log_mixup(anchor, view, means=means, std=std, strength=1.0),
        "noise": log_noise(anchor, view, scale=(energy / 2).sqrt().item()),
    }
    return Densities(means, anchor, ends, {name: p.view(size, size) for name, p in log_p.items()})


def energy_in_span(*, components: int = 5, std: float = 0.2) -> pd.DataFrame:
    """The part of a perturbation's energy in the span of the means, by dimension d, exactly.

    (m-1)/d for noise. For mixup on means at distance 1, a partner differs from the anchor by
    (m-1)/m in the span, and by 2 std² in each of the d directions.
    """
    m, dims = components, np.unique(np.geomspace(5, 1000, 40).astype(int))
    inside = (m - 1) / m + 2 * std**2 * (m - 1)
    outside = 2 * std**2 * (dims - m + 1)
    return pd.DataFrame({"d": dims, "noise": (m - 1) / dims, "mixup": inside / (inside + outside)})


# --- clouds --------------------------------------------------------------------------------------


def perturbation(config: TrainConfig, *, n: int = 100) -> dict[str, float]:
    """What the augmentation of a run on a cloud does to the test part.

    - "energy in span": the part of the energy ‖x' - x‖² in the span of the means.
    - "views at own mean": the share of views that are nearest to the mean of their own component.
    - "P within": the probability that two views of one of the first n points fall into cells of
      points of one component.
    - "selectivity": the blur of the widest direction outside the span, over the blur inside. Blur
      of a direction is the perturbation's variance there over the data's. Selectivity is 1 for
      mixup but for sampling; the strength of noise cancels in it.

    The test part is looked at because a direction that is wide in one sample by chance is not wide
    in another.
    """
    assert isinstance(config.data, Points)
    data, copies = point_set(config), 10
    x, labels = data.test.x, data.test.labels
    augment = partial(agnostic_views, steps=config.data.augmentation, pool=x)
    with stream(config.seed, SPLIT, 1):
        views = augment(x.repeat(copies, 1))
        A, _ = empirical_masses(augment, x[:n], nearest_cells(x[:n]), len(x[:n]), draws=50)
    means, span = _means_and_span(data)
    views, moved = views.double(), (views - x.repeat(copies, 1)).double()
    in_span = (moved @ span).square().sum() / moved.square().sum()
    nearest = torch.cdist(views, means).argmin(1)
    same_component = labels[:n, None] == labels[:n]
    outside, centred = _widest_outside(data.train.x.double(), span), (x - x.mean(0)).double()
    blur_outside, blur_inside = (
        ((moved @ v).square().mean() / (centred @ v).square().mean()).item()
        for v in (outside, span)
    )
    return {
        "energy in span": in_span.item(),
        "views at own mean": (nearest == labels.repeat(copies)).double().mean().item(),
        "P within": (A.T @ A / len(A) * same_component).sum().item(),
        "selectivity": blur_outside / blur_inside,
    }


def perturbations(
    runs: Mapping[CloudKey, Sequence[TrainConfig]], best: pd.DataFrame
) -> pd.DataFrame:
    """`perturbation` of the strengths that are in `best`, a row a cloud, augmentation and seed."""
    names = ["cloud", "augmentation", "strength"]
    rows = []
    for key in best[names].drop_duplicates().itertuples(index=False, name=None):
        known = dict(zip(names, key, strict=True))
        rows += [known | {"seed": c.seed} | perturbation(c) for c in runs[key]]
    return pd.DataFrame(rows)


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Their means, a row a cloud and augmentation."""
    groups = rows.groupby(["cloud", "augmentation", "strength"], sort=False)
    return groups.mean().drop(columns="seed").reset_index()


def span_ratios(rows: pd.DataFrame) -> list[float]:
    """A number a seed: the share of mixup's energy in the span of the means over that of noise, the
    least over `PREMISE_CLOUDS`."""
    names = ["cloud", "seed"]
    wide = rows.pivot(index=names, columns="augmentation", values="energy in span")
    own = wide.loc[list(PREMISE_CLOUDS)]
    return (own["mixup"] / own["noise"]).groupby("seed").min().tolist()


def ratios_without_labels(
    runs: Mapping[str, Sequence[TrainConfig]], clouds: Sequence[str]
) -> pd.DataFrame:
    """The variance ratio of the first seed of each cloud by its labels, and by groups found."""
    rows = []
    for cloud in clouds:
        part = point_set(runs[cloud][0]).train
        groups, silhouettes = unlabelled_groups(part.x, len(part.labels.unique()))
        row = {"cloud": cloud, "by labels": variance_ratio(part.x, part.labels)}
        row |= {"without labels": variance_ratio(part.x, groups)}
        rows.append(row | {f"silhouette, {name}": s for name, s in silhouettes.items()})
    return pd.DataFrame(rows)


def _widest_outside(x: Float[Tensor, "n d"], span: Float[Tensor, "d r"]) -> Float[Tensor, " d"]:
    """The direction of largest variance among those orthogonal to the span."""
    x = x - x.mean(0)
    return torch.linalg.svd(x - x @ span @ span.T, full_matrices=False).Vh[0]


def _means_and_span(data: PointSet) -> tuple[Float[Tensor, "m d"], Float[Tensor, "d r"]]:
    """The components' means, and an orthonormal basis of their differences."""
    assert data.means is not None
    means = data.means.double()
    basis = torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh
    return means, basis[: len(means) - 1].T
