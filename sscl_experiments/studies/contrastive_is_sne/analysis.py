"""SNE's objective beside the contrastive losses, its gradient in two parts, and its exact optimum.

Runs are grouped by (m, d_z): `runs[5, 2]` are records of five components on the circle.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
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
from sscl_core.config import Images, Mixture, TrainConfig
from sscl_core.losses import info_nce, sne_objective, t_simclr
from sscl_core.similarities import Cosine, Similarity, Student, squared_distances
from sscl_core.train import initial_network
from sscl_experiments.arrangements import (
    circle_gaps,
    cyclic_order,
    minimise_free,
    uniform_arrangement,
)
from sscl_experiments.frames import with_interval
from sscl_experiments.record import Record
from sscl_experiments.runs.mixture import first_network
from sscl_experiments.searches import tuned
from sscl_experiments.settings import AUGMENTATION, image_run
from sscl_experiments.statistics import interval

from .parameters import SETTINGS

TEMPERATURE = 0.5
COSINE = Cosine(temperature=TEMPERATURE)
Runs = Mapping[tuple[int, int], Sequence[Record]]  # by (m, d_z)


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

    They are evaluation pairs of a run on the mixture: N = 2 · components · pairs. Rows are ordered
    by component, in the order around the circle that training found, the views of a pair together.
    """
    half = len(record.arrays["labels"])
    labels = torch.tensor(record.arrays["labels"])
    drawn = [
        torch.nonzero(labels == component)[:pairs, 0]
        for component in cyclic_order(_last_means(record))
    ]
    first = torch.cat(drawn)
    rows = torch.stack([first, first + half], 1).flatten()
    untrained, trained = torch.tensor(record.arrays["features"])
    together = torch.arange(len(rows)).view(-1, 2).T.flatten()  # [z1; z2] to pairs side by side
    P = torch.empty(len(rows), len(rows), dtype=torch.float64)
    P[together[:, None], together] = positive_pairs(len(first))
    return {
        "P": P,
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


def image_example(seed: int) -> TrainConfig:
    """SimCLR on the embedded images with 32 features, set as in notebook 5."""
    images = Images(n_train=8000, augmentation=AUGMENTATION)
    return image_run(tuned("SimCLR", 32), images, dim=32, epochs=3, seed=seed)


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


def spread_pairs() -> Float[Tensor, "N 2"]:
    """Three pairs in the plane, [z1; z2], far enough apart that their forces can be drawn."""
    degrees = torch.tensor([[0.0, 93, 181], [62, 150, 245]], dtype=torch.float64)
    radius = torch.tensor([[1.0, 1.4, 1.2], [1.5, 1.0, 0.8]], dtype=torch.float64)
    angle = degrees.deg2rad()
    return (radius[..., None] * torch.stack([angle.cos(), angle.sin()], -1)).flatten(0, 1)


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

    Neighbors in that P are all draws of the same component. A row for each (m, d_z): the value at
    the uniform arrangement, how far that is above `simplex_bound`, and how far the best and the
    worst of the random starts end above it.
    """
    return pd.DataFrame([_search(m, dim, seed, per_component, starts) for m, dim in SETTINGS])


def _search(m: int, dim: int, seed: int, per_component: int, starts: int) -> dict[str, object]:
    labels = torch.arange(m).repeat_interleave(per_component)
    objective = average_objective(labels)
    exact = objective(uniform_arrangement(m, dim)[labels]).item()
    generator = torch.Generator().manual_seed(seed)
    shape = (len(labels), dim)
    found, _ = minimise_free(objective, shape, starts=starts, generator=generator)
    best, worst = found.min().item(), found.max().item()
    assert best > exact - 1e-9, "a free arrangement below the exact one would refute it"
    return {
        "m": m,
        "d_z": dim,
        "exact": exact,
        "exact - proved bound": exact - simplex_bound(m, per_component),
        "best - exact": best - exact,
        "worst - exact": worst - exact,
        "starts": len(found),
    }


def average_objective(labels: Int64[Tensor, " N"]) -> Callable[[Tensor], Tensor]:
    """KL(P‖Q) of points with these components, cosine Q, P_ij the same for all j of i's own."""
    same = (labels[:, None] == labels).double().fill_diagonal_(0)
    P = same / same.sum(1, keepdim=True)

    def objective(z: Float[Tensor, "N d"]) -> Float[Tensor, ""]:
        return sne_objective(P, COSINE.log_q(z, normalization="conditional"))

    return objective


def simplex_bound(m: int, per_component: int) -> float:
    """What `average_objective` of m · per_component points cannot fall below, in any dimension.

    N (log[(r-1) e^{1/τ} + (N-r) e^{-1/((m-1)τ)}] - 1/τ - log(r-1)), r = `per_component`, N = m r.
    Jensen twice, and ‖Σ z‖² ≥ 0: the appendix of the notebook. The simplex attains it.
    """
    r, N, tau = per_component, m * per_component, TEMPERATURE
    own, others = math.exp(1 / tau), math.exp(-1 / ((m - 1) * tau))
    total = math.log((r - 1) * own + (N - r) * others)
    return N * (total - 1 / tau - math.log(r - 1))


def component_cosines(records: Sequence[Record]) -> Float[Tensor, "seeds m m"]:
    """Cosines between the components' mean features after training, one matrix a run."""
    return torch.stack([means @ means.T for means in map(_last_means, records)])


# --- how near training comes ---------------------------------------------------------------------


def exact_angle(m: int, dim: int) -> float:
    """Degrees between neighbors at the optimum: a polygon in the plane, else a simplex."""
    return 360 / m if dim == 2 else math.degrees(math.acos(-1 / (m - 1)))


def angle_error(means: Float[Tensor, "m d"]) -> float:
    """The largest error of an angle between components, in degrees.

    On the circle of the angles between neighbors, elsewhere of those between any two.
    """
    m, dim = means.shape
    if dim == 2:
        angles = circle_gaps(means)
    else:
        u = normalize(means, dim=1)
        i, j = torch.triu_indices(m, m, 1)
        angles = (u @ u.T)[i, j].clamp(-1, 1).acos().rad2deg()
    return (angles - exact_angle(m, dim)).abs().max().item()


def view_angle(alignment: float) -> float:
    """Degrees of the chord √alignment: the root mean square distance of two views on the sphere."""
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(alignment) / 2)))


def error_shares(record: Record) -> Float[np.ndarray, "t 2"]:
    """`angle_error` and `view_angle` as shares of `exact_angle`, at each look of a run."""
    history = torch.tensor(record.arrays["means"])
    exact = exact_angle(*history.shape[1:])
    angles = [angle_error(means) for means in history]
    views = [view_angle(value) for value in record.arrays["alignment"]]
    return np.array([angles, views]).T / exact


def share_histories(runs: Runs) -> dict[str, Float[np.ndarray, "seeds t"]]:
    """The larger of both shares before training and after each epoch, by setting.

    The keys are such as "m=5, d_z=2".
    """
    return {
        f"m={m}, d_z={dim}": np.stack([error_shares(record).max(1) for record in records])
        for (m, dim), records in runs.items()
    }


def largest_shares(runs: Runs) -> list[float]:
    """A number a seed: the larger share after training in the worst of the settings."""
    ends = [curves[:, -1] for curves in share_histories(runs).values()]
    return np.max(ends, axis=0).tolist()


def beside_the_optimum(runs: Runs) -> pd.DataFrame:
    """A row a setting after training: both errors in degrees, and the larger one's share.

    The share with its interval over seeds; last what C2 was decided by before, the `loss_gap`.
    """
    return pd.DataFrame([_beside(m, dim, records) for (m, dim), records in runs.items()])


def _beside(m: int, dim: int, records: Sequence[Record]) -> dict[str, object]:
    exact = exact_angle(m, dim)
    shares = np.stack([error_shares(record)[-1] for record in records])
    angle, views = exact * shares.mean(0)
    return {
        "m": m,
        "d_z": dim,
        "exact angle (°)": exact,
        "largest error of an angle (°)": angle,
        "angle between views (°)": views,
        **with_interval("larger, share", interval(shares.max(1).tolist())),
        "loss gap": np.mean([record.metrics["loss_gap"] for record in records]),
    }


def null_shares(runs: Runs) -> pd.DataFrame:
    """What the rule of C2 says of five components on the circle that are not at the optimum."""
    pentagon = uniform_arrangement(5, 2)
    labels = torch.arange(5).repeat_interleave(4)
    objective = average_objective(labels)
    collapsed = objective(torch.ones(len(labels), 2).double()).item()
    exact = objective(pentagon[labels]).item()
    moved = {
        "one corner 30° off": _turned(pentagon, 30.0),
        "two corners merged": _turned(pentagon, 72.0),
    }
    rows = []
    for name, means in moved.items():
        gap = (objective(means[labels]).item() - exact) / (collapsed - exact)
        share = angle_error(means) / exact_angle(5, 2)
        rows.append({"": name, "larger share": share, "loss gap": gap})
    before = [error_shares(record)[0].max() for record in runs[5, 2]]
    return pd.DataFrame([*rows, {"": "untrained networks", "larger share": np.mean(before)}])


def _turned(means: Float[Tensor, "m 2"], degrees: float) -> Float[Tensor, "m 2"]:
    """The first point turned towards the second."""
    a = math.radians(degrees)
    turn = torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]).double()
    return torch.cat([means[:1] @ turn, means[1:]])


def _last_means(record: Record) -> Float[Tensor, "m d"]:
    return torch.tensor(record.arrays["means"][-1])
