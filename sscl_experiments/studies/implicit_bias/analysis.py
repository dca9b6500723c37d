"""Which order the components of a mixture end in, read out of the records of runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from sscl_core.config import Mixture, TrainConfig
from sscl_core.evaluate import lipschitz
from sscl_core.losses import info_nce
from sscl_core.models import Encoder
from sscl_core.rng import INIT, stream
from sscl_core.train import train
from sscl_experiments.arrangements import (
    circle_gaps,
    cyclic_order,
    cyclic_orders,
    minimise_free,
    preserves_order,
    regular_polygon,
)
from sscl_experiments.frames import with_interval
from sscl_experiments.record import Record
from sscl_experiments.runs.mixture import first_network, mixture
from sscl_experiments.statistics import rate_interval

from .enumeration import arranged, natural_line, order_name, placement_rank

NAMES = "ABCDEFGHI"  # of the components
SAMPLES = 32  # of a component, whose features are followed
Runs = Mapping[tuple[str, str], Sequence[Record]]  # under (factor, level)


def in_order(records: Sequence[Record]) -> Bool[np.ndarray, "n t"]:
    """Whether the components of each run stand around the circle in their order along the line.

    Before training and after each epoch.
    """
    rows = []
    for record in records:
        rows.append([preserves_order(torch.tensor(means)) for means in record.arrays["means"]])
    return np.array(rows)


def well_separated(records: Sequence[Record]) -> Bool[np.ndarray, " n"]:
    """Whether every gap between neighbors on the circle is, at the end, at least 180°/m."""
    ends = [normalize(torch.tensor(record.arrays["means"][-1]), dim=1) for record in records]
    return np.array([bool(circle_gaps(z).min() >= 180 / len(z)) for z in ends])


def placement_ranks(records: Sequence[Record], t: int = -1) -> Float[np.ndarray, " n"]:
    """`placement_rank` of the components of each run after epoch `t`; 0 is before training."""
    ranks = []
    for record in records:
        assert isinstance(record.config.data, Mixture)
        x = torch.tensor(record.config.data.means, dtype=torch.float64)
        ranks.append(placement_rank(x, torch.tensor(record.arrays["means"][t])))
    return np.array(ranks)


def orders(records: Sequence[Record], names: str = NAMES, t: int = -1) -> list[str]:
    """The cyclic order of the components of each run after epoch `t`, as the components' names."""
    ends = [torch.tensor(record.arrays["means"][t]) for record in records]
    return [order_name(cyclic_order(means), names) for means in ends]


def point_labels(record: Record) -> Int64[Tensor, " n"]:
    """The component of every evaluation point, of both views."""
    return torch.tensor(record.arrays["labels"]).repeat(2)


def rate_columns(name: str, values: Bool[np.ndarray, " n"], **more: Any) -> dict[str, Any]:
    """A rate over seeds with its exact interval, n, and `more`, as columns of a table."""
    rate = rate_interval(int(values.sum()), len(values))
    return {**with_interval(name, rate), "n": len(values), **more}


def order_table(kept: Bool[np.ndarray, "n t"], separated: Bool[np.ndarray, " n"]) -> pd.DataFrame:
    """How many seeds are in the order of the line before and after training.

    The last row is what C5 asks: of those that were in another order before.
    """
    stages = {
        "before training": kept[:, 0],
        "after": kept[:, -1],
        "after, and well separated": kept[:, -1] & separated,
        "the same, of those in another order before": put_in_order(kept, separated),
    }
    rows = [
        {"": name, **rate_columns("in order", values, chance=1 / 3)}
        for name, values in stages.items()
    ]
    return pd.DataFrame(rows)


def put_in_order(
    kept: Bool[np.ndarray, "n t"], separated: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " k"]:
    """Of the k seeds that are in another order before training: who ends in order, well separated.

    `ValueError`: no seed is in another order.
    """
    ends = (kept[:, -1] & separated)[~kept[:, 0]]
    if len(ends) == 0:
        raise ValueError("kept must have a seed that is in another order before training, got none")
    return ends


# --- one network, step by step --------------------------------------------------------------------


class FeatureHistory(NamedTuple):
    """Features before training and after each epoch, the samples' components, and the network."""

    features: Float[Tensor, "t n d"]
    labels: Int64[Tensor, " n"]
    network: Encoder

    def final_order(self) -> str:
        """The cyclic order of the components' mean directions."""
        m = int(self.labels.max()) + 1
        means = normalize(self.features[-1], dim=1).unflatten(0, (m, -1)).mean(1)
        return order_name(cyclic_order(means), NAMES)


def feature_history(config: TrainConfig) -> FeatureHistory:
    """Trains a run and keeps the features of 32 training samples a component at every epoch."""
    assert isinstance(config.data, Mixture)
    components = mixture(config.data)
    labels = torch.arange(components.m).repeat_interleave(SAMPLES)
    with stream(config.seed, INIT, 1) as generator:
        x = components.sample_given(labels, generator=generator)
    history: list[Tensor] = []

    def watch(_: int, network: Encoder) -> None:
        history.append(network(x)[1].detach())

    network = first_network(config)
    trained = train(config, components, network=network, device="cpu", on_epoch=watch)
    return FeatureHistory(torch.stack(history), labels, trained.model)


class AngleCurve(NamedTuple):
    """The angle of a network's feature along the line, in degrees, without jumps.

    Before and after training, at the positions x; 0 and rising on average where the line begins.
    """

    seed: int
    x: Float[np.ndarray, " n"]
    before: Float[np.ndarray, " n"]
    after: Float[np.ndarray, " n"]


def angle_curve(config: TrainConfig, *, beyond: float = 0.3, points: int = 800) -> AngleCurve:
    """Trains a run on a line, features on the circle, and follows its angle from end to end."""
    assert isinstance(config.data, Mixture)
    means = [mean for (mean,) in config.data.means]
    x = torch.linspace(min(means) - beyond, max(means) + beyond, points)[:, None]
    network = first_network(config)
    before = _angles(network(x)[1])
    trained = train(config, mixture(config.data), network=network, device="cpu")
    return AngleCurve(config.seed, x[:, 0].numpy(), before, _angles(trained.model(x)[1]))


def _angles(z: Float[Tensor, "n 2"]) -> Float[np.ndarray, " n"]:
    first, second = z.detach().double().numpy().T
    angles = np.rad2deg(np.unwrap(np.arctan2(second, first)))
    turned = angles - angles[0]
    return turned if turned.mean() >= 0 else -turned


def example_runs(
    records: Sequence[Record], kept: Bool[np.ndarray, "n t"]
) -> dict[str, TrainConfig]:
    """The first seed in the order of the line before training, and the first in another."""
    first = {"in order before": kept[:, 0], "in another order before": ~kept[:, 0]}
    return {name: records[int(found.argmax())].config for name, found in first.items()}


# --- other settings -------------------------------------------------------------------------------


def without_cyclic_order(found: Runs) -> dict[tuple[str, str], Sequence[Record]]:
    """The runs whose features are in no order around a circle, and are judged by their rank."""
    return {name: runs for name, runs in found.items() if name[0] in ("grid", "loss")}


def generality(base: Sequence[Record], found: Runs) -> pd.DataFrame:
    """How many seeds end in the order of the line, a row a factor and level."""
    ranked = without_cyclic_order(found)
    rows = [_generality_row("base", "", base)]
    for (factor, level), runs in found.items():
        if (factor, level) not in ranked:
            rows.append(_generality_row(factor, level, runs))
    return pd.DataFrame(rows)


def _generality_row(factor: str, level: str, runs: Sequence[Record]) -> dict[str, Any]:
    kept, separated = in_order(runs), well_separated(runs)
    m = int(level) if factor == "components" else 4
    chance = 2 / math.factorial(m - 1)
    return {
        "factor": factor,
        "level": level,
        **rate_columns("in order", kept[:, -1], chance=chance),
        "before training": kept[:, 0].mean(),
        "in order, well separated": (kept[:, -1] & separated).mean(),
    }


def rank_table(ranked: Runs) -> pd.DataFrame:
    """How many placements are among the smoothest tenth, a row a setting."""
    rows = []
    for name, runs in ranked.items():
        ranks, before = placement_ranks(runs), placement_ranks(runs, 0)
        # A line of four and its reverse are one placement: 12 ranks, of which two are below 0.1.
        chance = 2 / 12 if name == ("loss", "t-SimCLR") else 0.1
        row = {"": " ".join(name)}
        row |= rate_columns("among the smoothest tenth", ranks < 0.1, chance=chance)
        row |= {"before training": (before < 0.1).mean()}
        rows.append(row | {"median rank": np.median(ranks), "largest": ranks.max()})
    return pd.DataFrame(rows)


class Ranking(NamedTuple):
    """C of every order, and the rank (1: the smoothest) of the order of each run at two times."""

    costs: Float[np.ndarray, " orders"]
    ranks: dict[str, Int64[np.ndarray, " n"]]

    def summary(self) -> dict[str, str]:
        """A line on each time: the share at rank 1, the median rank and the worst."""
        return {name: self._line(ranks) for name, ranks in self.ranks.items()}

    def _line(self, ranks: Int64[np.ndarray, " n"]) -> str:
        first, median = (ranks == 1).mean(), np.median(ranks)
        worst = f"worst {ranks.max()} of {len(self.costs)}, n = {len(ranks)}"
        return f"rank 1: {first:.2f}, median {median:.0f}, {worst}"


def ranking(records: Sequence[Record]) -> Ranking:
    """Where runs on components at 1, 2, …, m on a line stand among all orders."""
    m = len(records[0].arrays["means"][0])
    names = [order_name(order, NAMES) for order in cyclic_orders(m)]
    costs = lipschitz(natural_line(m), arranged(m)).numpy()
    rank = dict(zip(names, costs.argsort().argsort() + 1, strict=True))
    times = {"before training": 0, "after training": -1}
    ranks = {
        name: np.array([rank[order] for order in orders(records, t=t)]) for name, t in times.items()
    }
    return Ranking(costs, ranks)


# --- fitted starts --------------------------------------------------------------------------------


def square_loss(labels: Int64[Tensor, " n"]) -> float:
    """InfoNCE at τ = 0.5 of four components on the corners of a square."""
    corners = regular_polygon(4)[labels]
    return info_nce(corners, corners, temperature=0.5).item()


def barrier(labels: Int64[Tensor, " n"]) -> float:
    """The least InfoNCE at τ = 0.5 with two of four components at one place, found by search."""
    place = torch.tensor([0, 0, 1, 2])

    def coincident(z: Tensor) -> Tensor:
        points = z[place][labels]
        return info_nce(points, points, temperature=0.5)

    generator = torch.Generator().manual_seed(0)
    values, _ = minimise_free(coincident, (3, 2), starts=5, generator=generator)
    return values.min().item()


def changed_order(records: Sequence[Record]) -> Bool[np.ndarray, " n"]:
    """Whether a run ends in another order than it began in."""
    pairs = zip(orders(records, t=0), orders(records), strict=True)
    return np.array([began != ended for began, ended in pairs])


def in_natural_order(records: Sequence[Record]) -> Bool[np.ndarray, " n"]:
    """Whether a run ends in the order A, B, C, …"""
    return np.array([NAMES.startswith(order) for order in orders(records)])


def start_outcomes(records: Sequence[Record], barrier: float) -> dict[str, float]:
    """Where runs from one order end.

    The fraction that change it, and of those the fraction in the natural order. Then for those that
    change it and those that do not: how many have, after the start, a loss above `barrier`; the
    median of the loss gap at the end.
    """
    changed, natural = changed_order(records), in_natural_order(records)
    highest = np.array([record.arrays["evaluation_loss"][1:].max() for record in records])
    gap = np.array([record.metrics["loss_gap"] for record in records])
    above = highest > barrier
    return {
        "order changed": changed.mean(),
        "of these in natural order": _or_nan(np.mean, natural[changed]),
        "above the barrier, changed": _or_nan(np.mean, above[changed]),
        "above the barrier, unchanged": _or_nan(np.mean, above[~changed]),
        "loss gap, changed": _or_nan(np.median, gap[changed]),
        "loss gap, unchanged": _or_nan(np.median, gap[~changed]),
    }


def _or_nan(summary: Callable[[np.ndarray], Any], values: np.ndarray) -> float:
    return float(summary(values)) if len(values) else math.nan


def start_table(begun: Mapping[str, Sequence[Record]], barrier: float) -> pd.DataFrame:
    """`start_outcomes` of every start; that of a changed order with its exact 95 % interval."""
    rows = []
    for name, runs in begun.items():
        changed = rate_columns("order changed", changed_order(runs))
        rows.append({"start": name, **changed, **start_outcomes(runs, barrier)})
    return pd.DataFrame(rows)


VARIED = ("depth", "width", "activation", "optimiser", "temperature", "spacing")
CONTROLS = ("×30, tanh", "one-hot codes", "no network")  # levels


def recorded_generality(record: Mapping[str, Any]) -> pd.DataFrame:
    """What a record says of factors: a row a factor with its lowest rate, and a row a control."""
    table = record["tables"]["generality"]
    parts = {factor: table[table.factor == factor] for factor in VARIED}
    parts |= {level: table[table.level == level] for level in CONTROLS}
    rows = []
    for name, part in parts.items():
        row: dict[str, Any] = {"": name, "levels": len(part)}
        row |= {"lowest share in order": part["in order"].min()}
        row |= {
            "95 % low": part["95 % low"].min(),
            "before training": part["before training"].min(),
        }
        rows.append(row | {"n": part.n.min()})
    return pd.DataFrame(rows)


def recorded_starts(record: Mapping[str, Any]) -> pd.DataFrame:
    """What a record says of step size and weight decay, beside what they are compared with."""
    outcomes, paired = record["tables"]["starts"], record["tables"]["paired_starts"]
    names = outcomes.start.str.startswith(("wrong order", "step size", "weight decay"))
    columns = ["start", "n", "order changed", "of these in natural order"]
    return outcomes.loc[names, columns].merge(paired[["start", "p"]], on="start", how="left")
