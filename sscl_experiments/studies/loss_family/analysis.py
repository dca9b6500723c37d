"""Attraction and repulsion of every loss: on the same features, and on those that it trains."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from sscl_core.batches import epoch_pairs
from sscl_core.config import Points, TrainConfig
from sscl_core.models import Encoder
from sscl_core.train import computing, initial_network, optimizer_of, set_lr
from sscl_experiments.runs.points import point_set
from sscl_experiments.statistics import interval

from .losses import LOSSES, Terms, forces, negative_sampling_terms
from .parameters import LossFamily

RATIO = "repulsion / attraction"
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # that the same features are multiplied by
ODDS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # places on the spectrum, from repulsion to attraction


class Usual(NamedTuple):
    """How a method is used: settings of its loss, and how many negatives a row draws (None: all).

    With `batchnorm` its features are standardised over the batch.
    """

    settings: Mapping[str, Any] = {}
    negatives: int | None = None
    batchnorm: bool = False


# Settings that differ from the defaults of `LOSSES`. Those of t-SimCLR are the authors' code's.
USUAL = {
    "t-SimCLR": Usual({"temperature": 8.0, "df": 5.0}),
    "t-SimCLR, conditional": Usual({"temperature": 0.2, "df": 5.0}, batchnorm=True),
    "Neg-t-SNE": Usual(negatives=5),
    "UMAP": Usual(negatives=5),
}


class Forces(NamedTuple):
    """Pairs of features Z = [z1; z2], and both parts of a gradient: ∂/∂Z of each term."""

    Z: Float[Tensor, "2*n 2"]
    pull: Float[Tensor, "2*n 2"]
    push: Float[Tensor, "2*n 2"]

    @property
    def ratio(self) -> float:
        """The length of the repulsion over that of the attraction."""
        return (self.push.norm() / self.pull.norm()).item()

    @property
    def gradient(self) -> Float[Tensor, " k"]:
        return (self.pull + self.push).flatten()


def usual_terms(name: str, z1: Tensor, z2: Tensor) -> Terms:
    """The loss as it is used.

    Where m of the 2n - 2 negatives are drawn, repulsion is the mean over the draws:
    m / (2n - 2) of the whole.
    """
    usual = USUAL.get(name, Usual())
    terms = LOSSES[name].loss(z1, z2, **usual.settings)
    drawn = len(z1) * 2 - 2 if usual.negatives is None else usual.negatives
    return Terms(terms.attraction, terms.repulsion * (drawn / (2 * len(z1) - 2)))


def random_pairs(seed: int, n: int) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """n pairs in the plane: means of standard deviation 1.5, views 0.4 about them."""
    generator = torch.Generator().manual_seed(seed)
    means, first, second = (
        torch.randn(n, 2, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    return 1.5 * means + 0.4 * first, 1.5 * means + 0.4 * second


def default_forces(name: str, z1: Tensor, z2: Tensor) -> Forces:
    """With all negatives, at the defaults of `LOSSES`."""
    return Forces(torch.cat([z1, z2]), *forces(LOSSES[name].loss, z1, z2))


def usual_forces(name: str, z1: Tensor, z2: Tensor) -> Forces:
    """As the method is used; standardised features where it standardises them."""
    if USUAL.get(name, Usual()).batchnorm:
        both = torch.cat([z1, z2])
        z1, z2 = ((z - both.mean(0)) / both.std(0) for z in (z1, z2))
    return Forces(torch.cat([z1, z2]), *forces(partial(usual_terms, name), z1, z2))


# --- features that each loss trains --------------------------------------------------------------


def trained_forces(p: LossFamily, name: str, seed: int) -> Forces:
    """On fresh views, by a network that was trained with the loss as it is used."""
    config = p.training(seed, batchnorm=USUAL.get(name, Usual()).batchnorm)
    x = point_set(config).train.x
    with computing(config):
        network = _trained(config, partial(usual_terms, name), x)
        batches = math.ceil(p.pairs / config.batch_size)
        views = epoch_pairs(config, x, config.epochs)
        x1, x2 = (view[:batches].flatten(0, 1) for view in views)
        with torch.no_grad():
            z = network(torch.cat([x1, x2]))[1].double()
    z1, z2 = (view[: p.pairs] for view in z.chunk(2))
    return Forces(torch.cat([z1, z2]), *forces(partial(usual_terms, name), z1, z2))


def _trained(
    config: TrainConfig, loss: Callable[[Tensor, Tensor], Terms], x: Float[Tensor, "n d"]
) -> Encoder:
    assert isinstance(config.data, Points)
    network = initial_network(config, x.shape[1:])
    optimizer = optimizer_of(config, [{"params": list(network.parameters())}])
    per_epoch = config.data.steps_per_epoch
    for epoch in range(config.epochs):
        batches = zip(*epoch_pairs(config, x, epoch), strict=True)
        for step, views in enumerate(batches):
            set_lr(optimizer, config, epoch * per_epoch + step, per_epoch)
            z1, z2 = network(torch.cat(views))[1].chunk(2)
            loss(z1, z2).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return network.eval()


# --- tables --------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """Forces by loss, one a seed: on the same features by default and as used; on its own."""

    default: dict[str, list[Forces]]
    usual: dict[str, list[Forces]]
    trained: dict[str, list[Forces]]

    @property
    def arrays(self) -> dict[str, Tensor]:
        """The trained features of the first seed and their forces, which a figure shows."""
        arrays = {}
        for name, found in self.trained.items():
            for part, value in found[0]._asdict().items():
                arrays[f"{name}: {part}"] = value
        return arrays


def measured(p: LossFamily) -> Measured:
    """Of every loss and seed. It trains a network for each."""
    features = [random_pairs(seed, p.pairs) for seed in p.seed_range]
    return Measured(
        {name: [default_forces(name, *z) for z in features] for name in LOSSES},
        {name: [usual_forces(name, *z) for z in features] for name in LOSSES},
        {name: [trained_forces(p, name, seed) for seed in p.seed_range] for name in LOSSES},
    )


def family() -> pd.DataFrame:
    """Every loss in words."""
    rows = []
    for name, member in LOSSES.items():
        words = member._asdict()
        words.pop("loss")
        rows.append({"loss": name} | words)
    return pd.DataFrame(rows)


def ratios(found: Measured) -> pd.DataFrame:
    """A row a loss: `RATIO` in the three situations, and the likeness of its gradient to t-SNE's.

    Means over seeds; of the trained features also the 95 % interval.
    """
    rows = []
    for name in LOSSES:
        usual, default = found.usual[name], found.default[name]
        pairs = zip(usual, found.usual["t-SNE"], strict=True)
        mean, low, high = interval([forces.ratio for forces in found.trained[name]])
        row = {
            "loss": name,
            "all negatives": _mean([forces.ratio for forces in default]),
            "as used": _mean([forces.ratio for forces in usual]),
            "cosine with t-SNE": _mean([_likeness(ours, other) for ours, other in pairs]),
            "own features": mean,
            "95 % low": low,
            "95 % high": high,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def by_scale(p: LossFamily, names: Sequence[str]) -> pd.DataFrame:
    """`RATIO` as used, on the same features times each of `SCALES`."""
    rows = []
    for name in names:
        for scale in SCALES:
            for seed in p.seed_range:
                z1, z2 = random_pairs(seed, p.pairs)
                ratio = usual_forces(name, scale * z1, scale * z2).ratio
                rows.append({"loss": name, "scale": scale, "seed": seed, RATIO: ratio})
    return pd.DataFrame(rows)


def by_scale_means(table: pd.DataFrame) -> pd.DataFrame:
    """Of `by_scale` the mean over seeds: a row a loss, a column a scale."""
    means = table.pivot_table(index="loss", columns="scale", values=RATIO, sort=False)
    return means.rename(columns=lambda scale: f"× {scale:g}").reset_index()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _likeness(a: Forces, b: Forces) -> float:
    return F.cosine_similarity(a.gradient, b.gradient, 0).item()


# --- the spectrum between attraction and repulsion -----------------------------------------------


class Place(NamedTuple):
    """A place on the spectrum: a map of points, their components, and a number for each seed."""

    z: Float[Tensor, "n 2"]
    labels: Tensor
    spread: list[float]


def spectrum(p: LossFamily, *, negatives: int = 5) -> dict[float, Place]:
    """Networks trained with Neg-t-SNE at each of `ODDS`; `spread` is the map's root mean square."""
    places = {}
    for odds in ODDS:
        maps = [_place(p, seed, odds, negatives) for seed in p.seed_range]
        labels = point_set(p.training(p.seed, batchnorm=False)).train.labels
        spread = [(z - z.mean(0)).square().sum(1).mean().sqrt().item() for z in maps]
        places[odds] = Place(maps[0], labels, spread)
    return places


def spreads(places: Mapping[float, Place]) -> pd.DataFrame:
    """A row a place on the spectrum: the mean spread of its maps over seeds."""
    rows = []
    for odds, place in places.items():
        mean, low, high = interval(place.spread)
        row = {"odds": odds, "spread": mean, "95 % low": low, "95 % high": high}
        rows.append(row | {"n": len(place.spread)})
    return pd.DataFrame(rows)


def _place(p: LossFamily, seed: int, odds: float, negatives: int) -> Float[Tensor, "n 2"]:
    config = p.training(seed, batchnorm=False)
    x = point_set(config).train.x
    with computing(config):
        network = _trained(config, partial(_drawn, odds, negatives), x)
        with torch.no_grad():
            return network(x)[1]


def _drawn(odds: float, negatives: int, z1: Tensor, z2: Tensor) -> Terms:
    terms = negative_sampling_terms(z1, z2, odds=odds)
    return Terms(terms.attraction, terms.repulsion * (negatives / (2 * len(z1) - 2)))
