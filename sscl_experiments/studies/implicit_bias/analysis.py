"""TODO"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor
from torch.nn.functional import normalize

from sscl_core.checks import checked_features, whole_numbers
from sscl_core.config import Mixture, TrainConfig
from sscl_core.evaluate import distances_between
from sscl_core.models import Encoder
from sscl_core.rng import INIT, stream
from sscl_core.train import train
from sscl_experiments.arrangements import circle_gaps, cyclic_order, preserves_order
from sscl_experiments.record import Record
from sscl_experiments.runs.mixture import first_network, mixture


def placement_rank(x: Float[Tensor, "m d"], z: Float[Tensor, "m d_z"]) -> float:
    """The share of all m! assignments of the points x to the places z with a smaller `lipschitz` than the one at hand: 0 is the smoothest,
    and the expectation over random assignments is about 1/2. Raises `ValueError` for m > 9, and as
    `lipschitz`."""
    x, z = checked_features("x", x, least=2), checked_features("z", z, least=2)
    if len(x) > 9:
        raise ValueError(
            f"x must hold at most 9 points, got {len(x)}: all {len(x)}! assignments are computed"
        )
    if len(x) != len(z):
        raise ValueError(
            f"x and z must hold the same m ≥ 2 points, got {tuple(x.shape)} and {tuple(z.shape)}"
        )
    i, j = torch.triu_indices(len(x), len(x), 1)
    slopes, distances = 1 / distances_between(x, i, j), torch.cdist(z, z)
    assignments = _assignments(len(x))
    total = sum(
        slope * distances[assignments[a], assignments[b]]
        for slope, a, b in zip(slopes, i, j, strict=True)
    )
    assert isinstance(total, Tensor)
    return (total < total[0] * (1 - 1e-9)).double().mean().item()


@lru_cache
def _assignments(m: int) -> Int64[Tensor, "m f"]:
    """The m! permutations as columns, the identity first."""
    return torch.tensor(list(itertools.permutations(range(m)))).T.contiguous()


def lipschitz_monte_carlo(
    f: Callable[[Tensor], Tensor], x1: Float[Tensor, "n d"], x2: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The mean of ‖f(x) - f(x')‖ / ‖x - x'‖ over n independent pairs (x, x'), and its standard error.

    f sees the points as they are given. Raises `ValueError` where a pair coincides, or for n < 2;
    else what the module says, of f(x) too.
    """
    a, b = checked_features("x1", x1), checked_features("x2", x2)
    if a.shape != b.shape:
        raise ValueError(
            f"x1 and x2 must have the same shape (n, d), got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    distance = (a - b).norm(dim=1)
    if len(a) < 2 or not (distance > 0).all():
        raise ValueError(
            f"x1 and x2 must be n ≥ 2 pairs of distinct points, got {len(a)} pairs, {int((distance == 0).sum())} coinciding"
        )
    ratio = (checked_features("f(x1)", f(x1)) - checked_features("f(x2)", f(x2))).norm(
        dim=1
    ) / distance
    return ratio.mean(), ratio.std() / len(a) ** 0.5


def group_contrast(
    similarity: Float[Tensor, "k k"], groups: Integer[Tensor, "*batch k"]
) -> Float[Tensor, "*batch"]:
    """The mean similarity of two classes of one group, minus that of all other pairs; the diagonal is left out.

    `groups`: the group of each class, negative for none. Raises `ValueError` where there is no pair
    of either kind, or for groups that are not one for each class; else what the module says.
    """
    similarity = checked_features("similarity", similarity)
    k = len(similarity)
    if similarity.shape[1] != k or groups.shape[-1:] != (k,):
        shapes = f"{tuple(similarity.shape)} and {tuple(groups.shape)}"
        raise ValueError(
            f"similarity must be square, (k, k), and groups one number for each of its k classes, got {shapes}"
        )
    groups = whole_numbers("groups", groups).to(similarity.device)
    i, j = torch.triu_indices(k, k, 1)
    within = (groups[..., i] == groups[..., j]) & (groups[..., i] >= 0)
    if not (within.any(-1) & ~within.all(-1)).all():
        raise ValueError(
            f"groups must put two classes into one group and not all into one, got {groups.tolist()}"
        )
    pairs, weights = similarity[i, j], within.to(similarity.dtype)
    return weights @ pairs / weights.sum(-1) - (1 - weights) @ pairs / (1 - weights).sum(-1)


def regroupings(
    groups: Integer[Tensor, " k"], *, at_most: int = 10_000, seed: int = 0
) -> Int64[Tensor, "r k"]:
    """Every way to deal the same group labels to the classes, the given one first; of more than
    `at_most` that many, at random.

    Raises `TypeError` for groups that are no integer tensor, `ValueError` for groups that are not
    (k,), k ≥ 1, or `at_most` below 1.
    """
    groups = whole_numbers("groups", groups).cpu()
    if groups.ndim != 1 or len(groups) == 0:
        raise ValueError(
            f"groups must have shape (k,) with k >= 1, one number for each class, got {tuple(groups.shape)}"
        )
    if at_most < 1:
        raise ValueError(f"at_most must be at least 1, the given grouping, got {at_most}")
    number = math.factorial(len(groups))
    for count in groups.unique(return_counts=True)[1].tolist():
        number //= math.factorial(count)
    if number <= at_most:
        dealt = {tuple(groups.tolist()): None} | dict.fromkeys(
            _distinct_permutations(sorted(groups.tolist()))
        )
        return torch.tensor(list(dealt))
    rng = np.random.default_rng(seed)
    return torch.cat(
        [
            groups[None],
            torch.from_numpy(rng.permuted(groups.repeat(at_most - 1, 1).numpy(), axis=1)),
        ]
    )


def _distinct_permutations(items: list[int]) -> Iterator[tuple[int, ...]]:
    if not items:
        yield ()
    for first in dict.fromkeys(items):
        rest = items.copy()
        rest.remove(first)
        yield from ((first, *others) for others in _distinct_permutations(rest))


def in_order(records: Sequence[Record]) -> Bool[np.ndarray, "n t"]:
    """For each run on means along a line, before training and after each epoch: whether components keep their order around the circle."""
    return np.array(
        [
            [preserves_order(torch.tensor(means)) for means in record.arrays["means"]]
            for record in records
        ]
    )


def evenly(records: Sequence[Record]) -> Bool[np.ndarray, " n"]:
    """Whether the components end apart: every gap between neighbors on the circle at least half of an even one."""
    means = [normalize(torch.tensor(record.arrays["means"][-1]), dim=1) for record in records]
    return np.array([bool(circle_gaps(z).min() >= 180 / len(z)) for z in means])


def placement_ranks(records: Sequence[Record], t: int = -1) -> Float[np.ndarray, " n"]:
    """`placement_rank` of the components of each run after epoch `t`: 0 is before training, -1 the end."""
    ranks = []
    for record in records:
        assert isinstance(record.config.data, Mixture)
        x = torch.tensor(record.config.data.means, dtype=torch.float64)
        ranks.append(placement_rank(x, torch.tensor(record.arrays["means"][t])))
    return np.array(ranks)


def orders(records: Sequence[Record], names: str, t: int = -1) -> list[str]:
    """The cyclic order of the components of each run after epoch `t`, as the components' names."""
    return [
        "".join(names[i] for i in cyclic_order(torch.tensor(record.arrays["means"][t])))
        for record in records
    ]


def leaving(records: Sequence[Record], names: str, wall: float) -> dict[str, float]:
    """Where runs from one order end: the share that leave it, and of those the share in the natural order; the largest loss on the way
    above `wall`, the start left out, and the median loss gap at the end, for those that leave and those that stay."""
    began, ended = orders(records, names, 0), orders(records, names)
    left = np.array([a != b for a, b in zip(began, ended, strict=True)])
    natural = np.array([order == names[: len(order)] for order in ended])
    over = np.array([record.arrays["evaluation_loss"][1:].max() > wall for record in records])
    gap = np.array([record.metrics["loss_gap"] for record in records])
    return {
        "leave": left.mean(),
        "of these in natural order": _mean(natural[left]),
        "over the wall, leaving": _mean(over[left]),
        "over the wall, staying": _mean(over[~left]),
        "loss gap, leaving": _median(gap[left]),
        "loss gap, staying": _median(gap[~left]),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def film(config: TrainConfig) -> tuple[Float[Tensor, "t n d"], Int64[Tensor, " n"], Encoder]:
    """The features of 32 training samples a component, before training and after each epoch; their components; the trained network."""
    assert isinstance(config.data, Mixture)
    m = len(config.data.means)
    labels = torch.arange(m).repeat_interleave(32)
    with stream(config.seed, INIT, 1) as generator:
        x = mixture(config.data).sample_given(labels, generator=generator)
    history: list[Tensor] = []

    def watch(_: int, model: Encoder) -> None:
        history.append(model(x)[1].detach())

    components = mixture(config.data)
    trained = train(config, components, network=first_network(config), device="cpu", on_epoch=watch)
    return torch.stack(history), labels, trained.model


def grouping_test(
    similarity: Float[np.ndarray, "k k"], groups: Int64[Tensor, " k"]
) -> dict[str, float]:
    """Similarity within groups minus across; the 95th percentile of that over groupings of the same sizes, and the share of them, this
    one included, that reach it."""
    contrasts = group_contrast(torch.as_tensor(similarity), regroupings(groups))
    contrast = contrasts[0].item()
    reached = (contrasts >= contrast - 1e-12).double().mean().item()
    return {
        "within − across": contrast,
        "95th percentile": contrasts.quantile(0.95).item(),
        "p": reached,
    }


def class_groups(classes: Sequence[str], groups: dict[str, tuple[str, ...]]) -> Int64[Tensor, " k"]:
    """The number of each class's group, -1 for none. `ValueError`: a group names a class that there is not."""
    number = {name: i for i, members in enumerate(groups.values()) for name in members}
    if unknown := number.keys() - set(classes):
        raise ValueError(f"groups must name classes among {list(classes)}, got {sorted(unknown)}")
    return torch.tensor([number.get(name, -1) for name in classes])
