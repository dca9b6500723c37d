"""All orders and assignments of a few points: their expected Lipschitz constant C, SNE's objective.

Errors, where no other is named: `TypeError` for what is no floating-point tensor, `ValueError` for
shapes and for values that are not finite.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sscl_core.checks import checked_features
from sscl_core.evaluate import distances_between, lipschitz
from sscl_core.losses import info_nce
from sscl_experiments.arrangements import circular_splits, cyclic_orders, regular_polygon

MOST = 9  # points of which all assignments, or all cyclic orders, are computed


def placement_rank(x: Float[Tensor, "m d"], z: Float[Tensor, "m d_z"]) -> float:
    """The share of all m! assignments of points x to places z that are smoother than this one.

    Smoother is: of smaller `lipschitz`. 0 is the smoothest; the mean over random assignments is
    about 1/2. `ValueError`: m > 9, or as `lipschitz`.
    """
    x, z = checked_features("x", x, least=2), checked_features("z", z, least=2)
    m = len(x)
    if m > MOST:
        raise ValueError(
            f"x must hold at most {MOST} points, got {m}: all {m}! assignments are computed"
        )
    if m != len(z):
        shapes = f"{tuple(x.shape)} and {tuple(z.shape)}"
        raise ValueError(f"x and z must hold the same m ≥ 2 points, got {shapes}")
    i, j = torch.triu_indices(m, m, 1)
    weights = 1 / distances_between(x, i, j)
    distances = torch.cdist(z, z)
    assignments = _assignments(m)
    cost = distances.new_zeros(assignments.shape[1])
    for weight, a, b in zip(weights, i, j, strict=True):
        assigned = distances[assignments[a], assignments[b]]
        cost = cost + weight * assigned
    return (cost < cost[0] * (1 - 1e-9)).double().mean().item()


@lru_cache
def _assignments(m: int) -> Int64[Tensor, "m f"]:
    """The m! permutations as columns, the identity first."""
    return torch.tensor(list(itertools.permutations(range(m)))).T.contiguous()


def order_name(order: Sequence[int] | Int64[Tensor, " m"], names: str) -> str:
    """A cyclic order as the names of what stands there."""
    return "".join(names[i] for i in order)


def natural_line(m: int) -> Float[Tensor, "m 1"]:
    """Points at 0, 1, …, m-1."""
    return torch.arange(m, dtype=torch.float64)[:, None]


def arranged(m: int) -> Float[Tensor, "k m 2"]:
    """m points on the corners of the regular polygon, in each of the k cyclic orders."""
    return regular_polygon(m)[cyclic_orders(m).argsort(1)]


def three_squares(names: str, *, temperature: float) -> pd.DataFrame:
    """The loss and C of four components, eight samples each, in the three orders of the square."""
    rows = []
    for order, places in zip(cyclic_orders(4), arranged(4), strict=True):
        z = places.repeat_interleave(8, 0)
        row: dict[str, Any] = {"around the circle": order_name(order, names)}
        row["InfoNCE"] = info_nce(z, z, temperature=temperature).item()
        row["C(f)"] = lipschitz(natural_line(4), places).item()
        rows.append(row)
    return pd.DataFrame(rows)


def order_costs(sizes: Sequence[int]) -> pd.DataFrame:
    """Of m points on a line at equal spacing: C of the natural order, the next best, the worst."""
    rows = []
    for m in sizes:
        costs = lipschitz(natural_line(m), arranged(m))
        natural, others = costs[0], costs[1:]
        row = {"m": m, "orders": len(costs), "C, natural order": natural.item()}
        row |= {"next best": others.min().item(), "worst": others.max().item()}
        rows.append(row)
    return pd.DataFrame(rows)


# --- The weights of C -----------------------------------------------------------------------------


def spacing(m: int, generator: torch.Generator) -> Float[Tensor, "m 1"]:
    """m sorted points, uniform on [0, 1]."""
    return torch.rand(m, 1, dtype=torch.float64, generator=generator).sort(0).values


def inverse_distances(x: Float[Tensor, "m d"]) -> Float[Tensor, "m m"]:
    """1 / ‖x_i - x_j‖, and 0 on the diagonal."""
    return (1 / torch.cdist(x, x)).fill_diagonal_(0)


# --- The natural order is the best ----------------------------------------------------------------


@dataclass(frozen=True)
class NaturalOrder:
    """Of random spacings: how far the next best order is behind, and how the proof is met.

    `margins`: for each seed the smallest over m of (next best C - C) / C. For every spacing,
    `ratios`: (next best C - C) / `proved_gap`. `errors` and `weights`, for every spacing and
    relative to the largest of w = 1 / ‖x_i - x_j‖: the error of -w as the sum of its splits, and
    the least weight of a split that separates no single point.
    """

    margins: list[float]
    ratios: list[float]
    errors: list[float]
    weights: list[float]


def natural_order(sizes: Sequence[int], seeds: Sequence[int]) -> NaturalOrder:
    """A random spacing for every size and seed, and all its orders."""
    found = NaturalOrder([], [], [], [])
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        spacings = [spacing(m, generator) for m in sizes]
        margins = []
        for x in spacings:
            natural, gap = next_best(x)
            margins.append(gap / natural)
            found.ratios.append(gap / proved_gap(x))
            error, weight = _splits(inverse_distances(x))
            found.errors.append(error)
            found.weights.append(weight)
        found.margins.append(min(margins))
    return found


def next_best(x: Float[Tensor, "m 1"]) -> tuple[float, float]:
    """C of the natural order of m points on a line, and how much more the best other order has."""
    C = lipschitz(x, arranged(len(x)))
    return C[0].item(), (C[1:].min() - C[0]).item()


def proved_gap(x: Float[Tensor, "m 1"]) -> float:
    """What the proof leaves between the natural order of m ≥ 4 points and any other.

    4 / (m (m-1)) · α · (b₂ - b₁): α the least weight of a split into two neighbors and the rest, b₁
    and b₂ the chords of the polygon over one and two steps.
    """
    m = len(x)
    alpha, sets = circular_splits(-inverse_distances(x))
    size = sets.sum(1)
    two_and_the_rest = (size == 2) | (size == m - 2)
    chord = [2 * math.sin(math.pi * steps / m) for steps in (1, 2)]
    return 4 / (m * (m - 1)) * alpha[two_and_the_rest].min().item() * (chord[1] - chord[0])


def _splits(w: Float[Tensor, "m m"]) -> tuple[float, float]:
    alpha, sets = circular_splits(-w)
    separated = sets[:, :, None] != sets[:, None, :]
    rebuilt = (alpha[:, None, None] * separated).sum(0)
    size = sets.sum(1)
    no_single_point = (size > 1) & (size < len(w) - 1)
    error = (rebuilt + w).abs().max()
    least = alpha[no_single_point].min()
    return (error / w.max()).item(), (least / w.max()).item()
