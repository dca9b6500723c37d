"""SNE's objective beside the contrastive losses, its gradient in two parts, and its exact optimum.

Runs are grouped by their number of features: `runs[2]` are records with features on the circle.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from sscl_core import checks
from sscl_core.affinities import positive_pairs
from sscl_core.batches import Data, source
from sscl_core.checks import (
    Normalization,
    Scalar,
    check_directions,
    check_like,
    check_points,
    check_square,
)
from sscl_core.config import Mixture, TrainConfig
from sscl_core.losses import info_nce, sne_objective, t_simclr
from sscl_core.similarities import Cosine, Similarity, Student, squared_distances
from sscl_core.train import initial_network
from sscl_experiments.arrangements import circle_gaps, minimise_free, uniform_arrangement
from sscl_experiments.frames import with_interval
from sscl_experiments.record import Record
from sscl_experiments.runs.mixture import PER_COMPONENT, first_network
from sscl_experiments.statistics import interval

from .parameters import COMPONENTS, DIMS

COSINE = Cosine(temperature=0.5)
Runs = Mapping[int, Sequence[Record]]


class Identity(NamedTuple):
    """KL(P‖Q) = 2n · loss where P and Q are conditional, loss - log 2n where they are joint."""

    normalization: Normalization
    similarity: Similarity
    loss: Callable[[Tensor, Tensor], Tensor]  # of n rows of z1 and of z2

    def log_q(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N N"]:
        return self.similarity.log_q(z, normalization=self.normalization)

    def factor(self, n: int) -> int:
        return 2 * n if self.normalization == "conditional" else 1

    def constant(self, n: int) -> float:
        return 0.0 if self.normalization == "conditional" else -math.log(2 * n)


# Similarities as the losses have them by default.
IDENTITIES = {
    "SimCLR": Identity("conditional", COSINE, info_nce),
    "t-SimCLR, conditional": Identity(
        "conditional", Student(), partial(t_simclr, normalization="conditional")
    ),
    "t-SimCLR, joint": Identity("joint", Student(), t_simclr),
}


# --- P and Q of a batch --------------------------------------------------------------------------


def batch_matrices(record: Record, pairs: int = 2) -> dict[str, Float[Tensor, "N N"]]:
    """P, and Q (cosine) before and after training, of the first `pairs` of every component.

    They are evaluation pairs of a run on the mixture: N = 2 · components · pairs.
    """
    half = len(record.arrays["labels"])
    place = torch.arange(half)
    picked = place[place % PER_COMPONENT < pairs]
    rows = torch.cat([picked, picked + half])
    untrained, trained = torch.tensor(record.arrays["features"])
    return {
        "P": positive_pairs(len(picked)),
        "Q_untrained": COSINE.log_q(untrained[rows], normalization="conditional").exp(),
        "Q_trained": COSINE.log_q(trained[rows], normalization="conditional").exp(),
    }


# --- the identity --------------------------------------------------------------------------------


def first_batch(
    config: TrainConfig, data: Data, n: int
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """What the first step of a run compares: features of n pairs of views, in float64.

    The network is the one that training begins with; `data` are those that `train` takes.
    """
    config = config.replace(batch_size=n)
    batches = source(config, data, torch.device("cpu"))
    if isinstance(config.data, Mixture):
        network = first_network(config)
    else:
        network = initial_network(config, batches.sample_shape)
    batch = next(batches.batches(0))
    views = torch.cat([batch.x1, batch.x2]).double()
    z1, z2 = network.double()(views)[1].detach().chunk(2)
    return z1, z2


def value_and_gradient(
    function: Callable[[Tensor, Tensor], Tensor], z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]
) -> tuple[float, Float[Tensor, "N d"]]:
    """The value of a function of two views, and its gradient with respect to Z = [z1; z2]."""
    views = [z.clone().requires_grad_() for z in (z1, z2)]
    value = function(*views)
    return value.item(), torch.cat(torch.autograd.grad(value, views))


def compare(name: str, z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]) -> dict[str, object]:
    """A row: KL as computed, KL as expected from the loss, and the differences.

    The gradients' difference is the largest entry's, over the largest entry of the gradient of KL.
    """
    identity, n = IDENTITIES[name], len(z1)
    P = positive_pairs(n, normalization=identity.normalization)

    def divergence(a: Tensor, b: Tensor) -> Tensor:
        return sne_objective(P, identity.log_q(torch.cat([a, b])))

    kl, kl_gradient = value_and_gradient(divergence, z1, z2)
    loss, loss_gradient = value_and_gradient(identity.loss, z1, z2)
    expected = identity.factor(n) * loss + identity.constant(n)
    difference = kl_gradient - identity.factor(n) * loss_gradient
    return {
        "loss": name,
        "computed": kl,
        "expected": expected,
        "difference": kl - expected,
        "gradient difference": _relative(difference, kl_gradient),
    }


def identities(
    sources: Mapping[str, tuple[TrainConfig, Data]], seeds: Iterable[int], n: int
) -> pd.DataFrame:
    """`compare` for every seed, source and identity, on the first n pairs that training draws."""
    rows = []
    for seed in seeds:
        for name, (config, data) in sources.items():
            z1, z2 = first_batch(config.replace(seed=seed), data, n)
            known = {"seed": seed, "batch": name}
            rows += [known | compare(identity, z1, z2) for identity in IDENTITIES]
    return pd.DataFrame(rows)


def largest_differences(table: pd.DataFrame) -> list[float]:
    """A number a seed of `identities`: the largest relative difference of value or gradient."""
    values = (table.difference / table.expected).abs()
    both = pd.concat([values, table["gradient difference"]], axis=1)
    return both.max(axis=1).groupby(table.seed).max().tolist()


def _relative(difference: Tensor, whole: Tensor) -> float:
    return (difference.abs().max() / whole.abs().max()).item()


# --- attraction and repulsion --------------------------------------------------------------------


def attraction_repulsion(
    P: Float[Tensor, "N N"],
    Q: Float[Tensor, "N N"],
    z: Float[Tensor, "N d"],
    slope: Float[Tensor, "N N"] | Scalar,
) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N d"]]:
    """∂KL(P‖Q)/∂z in two, for a Q that depends on squared distances D through its logits l.

    attraction_i =  2 Σ_j slope_ij (P_ij + P_ji)(z_i - z_j)
    repulsion_i  = -2 Σ_j slope_ij (Q_ij + Q_ji)(z_i - z_j),   slope = -dl/dD

    The slope of a similarity is its method of that name; z are unit rows where it is the cosine.
    Both directions of a pair enter: where P and Q are conditional, the sum over one direction is
    not the gradient.
    """
    z = check_points("z", z)
    for name, value in (("P", P), ("Q", Q)):
        check_square(name, value, len(z))
    if isinstance(slope, Tensor) and slope.numel() != 1:
        check_square("slope", slope, len(z))
    else:
        checks.check_number("slope", slope)
        slope = checks.scalar(slope)

    def pull(weights: Tensor) -> Tensor:
        return 2 * (weights.sum(1, keepdim=True) * z - weights @ z)

    return pull(slope * (P + P.T)), -pull(slope * (Q + Q.T))


def through_normalization(
    z: Float[Tensor, "N d"], gradient: Float[Tensor, "N d"]
) -> Float[Tensor, "N d"]:
    """(I - u uᵀ) g / ‖z‖, the gradient with respect to z of a function of u = z/‖z‖.

    g is the gradient with respect to u. `ValueError`: a row of zeros, which has no direction.
    """
    z = check_directions("z", z)
    check_like("gradient", gradient, z)
    norm = z.norm(dim=1, keepdim=True)
    u = z / norm
    return (gradient - (gradient * u).sum(1, keepdim=True) * u) / norm


def free_forces(
    name: str, z: Float[Tensor, "N 2"]
) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]]:
    """Attraction and repulsion of 2n free points Z = [z1; z2] under an identity's KL."""
    identity = IDENTITIES[name]
    P = positive_pairs(len(z) // 2, normalization=identity.normalization)
    on_sphere = identity.similarity.metric == "cosine"
    u = normalize(z, dim=1) if on_sphere else z
    slope = identity.similarity.slope(squared_distances(u))
    forces = attraction_repulsion(P, identity.log_q(z).exp(), u, slope)
    if not on_sphere:
        return forces
    attraction, repulsion = (through_normalization(z, force) for force in forces)
    return attraction, repulsion


def free_points(n: int, seed: int) -> Float[Tensor, "N 2"]:
    """n random pairs in the plane, [z1; z2]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2 * n, 2, generator=generator, dtype=torch.float64)


def formula_errors(z: Float[Tensor, "N 2"]) -> pd.DataFrame:
    """How far attraction + repulsion is from what autograd makes of the loss itself."""
    z1, z2 = z.chunk(2)
    errors = []
    for name, identity in IDENTITIES.items():
        gradient = identity.factor(len(z1)) * value_and_gradient(identity.loss, z1, z2)[1]
        errors.append(_relative(sum(free_forces(name, z)) - gradient, gradient))
    return pd.DataFrame({"loss": list(IDENTITIES), "relative difference to autograd": errors})


def example_forces(z: Float[Tensor, "N 2"], pairs: int = 3) -> dict[str, Tensor]:
    """The first pairs, on the circle for SimCLR, with both forces on each point: for a figure."""
    n = len(z) // 2
    if n > pairs:
        z = torch.cat([z[:pairs], z[n : n + pairs]])
    arrays: dict[str, Tensor] = {}
    for name, places in (("SimCLR", normalize(z, dim=1)), ("t-SimCLR, joint", z)):
        attraction, repulsion = free_forces(name, places)
        parts = {"z": places, "attraction": attraction, "repulsion": repulsion}
        arrays |= {f"{name} {part}": value for part, value in parts.items()}
    return arrays


# --- the optimum ---------------------------------------------------------------------------------


def search_for_lower(seed: int, *, per_component: int = 4, starts: int = 20) -> pd.DataFrame:
    """Free points, no network, that minimise KL with the P that training sees on average.

    Neighbors in that P are all draws of the same component. A row for each d_z: the value at the
    uniform arrangement, and how far the best and the worst of the random starts end above it.
    """
    labels = torch.arange(COMPONENTS).repeat_interleave(per_component)
    same = (labels[:, None] == labels).double().fill_diagonal_(0)
    P = same / same.sum(1, keepdim=True)

    def objective(z: Tensor) -> Tensor:
        return sne_objective(P, COSINE.log_q(z, normalization="conditional"))

    rows = []
    for dim in DIMS:
        exact = objective(uniform_arrangement(COMPONENTS, dim)[labels]).item()
        generator = torch.Generator().manual_seed(seed)
        shape = (len(labels), dim)
        found, _ = minimise_free(objective, shape, starts=starts, generator=generator)
        best, worst = found.min().item(), found.max().item()
        assert best > exact - 1e-9, "a free arrangement below the exact one would refute it"
        row = {"d_z": dim, "exact": exact, "best - exact": best - exact}
        rows.append(row | {"worst - exact": worst - exact, "starts": len(found)})
    return pd.DataFrame(rows)


def component_cosines(records: Sequence[Record]) -> Float[Tensor, "seeds m m"]:
    """Cosines between the components' mean features after training, one matrix a run."""
    return torch.stack([means @ means.T for means in map(_last_means, records)])


def histories(runs: Runs) -> dict[str, Float[Tensor, "seeds t"]]:
    """Alignment, uniformity and loss before training and after each epoch, by number of features.

    The keys are such as "alignment, d_z=2".
    """
    arrays = {}
    for dim, records in runs.items():
        for name in ("alignment", "uniformity", "evaluation_loss"):
            values = [torch.tensor(record.arrays[name]) for record in records]
            arrays[f"{name}, d_z={dim}"] = torch.stack(values)
    return arrays


def beside_the_optimum(runs: Runs) -> pd.DataFrame:
    """Quantities after training, with 95 % intervals over seeds, beside those of the optimum."""
    gaps = torch.stack([circle_gaps(_last_means(record)) for record in runs[2]])
    cosines = component_cosines(runs[4])
    off_diagonal = cosines[:, ~torch.eye(COMPONENTS, dtype=torch.bool)]
    angle = "largest error of an angle between neighbors, d_z=2 (degrees; 72 exact)"
    cosine = "largest error of a cosine, d_z=4 (−1/4 exact)"
    rows = [
        _beside(angle, (gaps - 72).abs().amax(1).tolist(), 0.0),
        _beside(cosine, (off_diagonal + 0.25).abs().amax(1).tolist(), 0.0),
    ]
    metrics = {"alignment": "alignment", "uniformity": "uniformity", "InfoNCE": "loss"}
    for quantity, metric in metrics.items():
        for dim, records in runs.items():
            values = [record.metrics[metric] for record in records]
            expected = records[0].metrics.get(f"{metric}_exact", 0.0)  # alignment has none: 0
            rows.append(_beside(f"{quantity}, d_z={dim}", values, expected))
    return pd.DataFrame(rows)


def largest_gaps(runs: Runs) -> list[float]:
    """A number a seed: the larger `loss_gap` of the numbers of features."""
    by_seed = zip(*runs.values(), strict=True)
    return [max(record.metrics["loss_gap"] for record in records) for records in by_seed]


def _beside(quantity: str, values: Sequence[float], expected: float) -> dict[str, object]:
    return {
        "quantity": quantity,
        **with_interval("computed", interval(values)),
        "expected": expected,
    }


def _last_means(record: Record) -> Float[Tensor, "m d"]:
    return torch.tensor(record.arrays["means"][-1])
