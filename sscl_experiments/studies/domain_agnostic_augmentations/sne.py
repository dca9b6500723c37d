"""SNE without a network on the P of noise, and how far the maps of runs agree with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.spatial import procrustes
from scipy.stats import rankdata
from sklearn.manifold import trustworthiness
from torch import Tensor

from sscl_core.affinities import log_noise, two_views
from sscl_core.checks import checked_features
from sscl_core.config import Noise, Points
from sscl_core.losses import sne_objective
from sscl_core.similarities import log_q_gaussian
from sscl_experiments.arrangements import minimise_free
from sscl_experiments.frames import by_seed, with_interval
from sscl_experiments.record import Record
from sscl_experiments.runs.points import point_set, train_points
from sscl_experiments.statistics import interval

from .parameters import BASE

# --- two maps of the same points -----------------------------------------------------------------


def rank_correlation(a: Float[Tensor, "n d"], b: Float[Tensor, "n e"]) -> float:
    """Whether each point has the others at the same ranks of distance in both maps.

    Spearman's correlation of the distances from a point, averaged over points.
    Raises as `evaluate` says, and `ValueError` for maps of different points, of fewer than three,
    or with a point from which all others are equally far, which gives no ranks.
    """
    ra, rb = _centred_ranks("a", a), _centred_ranks("b", b)
    if len(ra) != len(rb):
        raise ValueError(f"a and b must be maps of the same points, got {len(ra)} and {len(rb)}")
    covariance = (ra * rb).sum(1)
    return float(np.mean(covariance / np.sqrt((ra**2).sum(1) * (rb**2).sum(1))))


def _centred_ranks(name: str, z: Tensor) -> np.ndarray:
    """Ranks of each point's distances to the others, (n, n - 1), around their mean."""
    z = checked_features(name, z, least=3).double()
    others = ~np.eye(len(z), dtype=bool)
    distances = torch.cdist(z, z).numpy()[others].reshape(len(z), -1)
    ranks = rankdata(distances, axis=1)
    tied = (ranks == ranks[:, :1]).all(1)
    if tied.any():
        what = f"from point {int(tied.argmax())} all others are equally far"
        many = f"so from {int(tied.sum())} of {len(z)}"
        raise ValueError(f"{name} has no ranks of distance: {what}, {many}")
    return ranks - ranks.mean(1, keepdims=True)


def agreement(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> dict[str, float]:
    """Three measures of how far map a agrees with map b.

    - `rank_correlation`.
    - Trustworthiness of a for the 10 nearest neighbors in b (Venna & Kaski 2001).
    - Procrustes: the part of b's variance that is left after a is moved, turned and scaled onto it.

    Raises as `rank_correlation`, and `ValueError` for fewer than four points.
    """
    a, b = (checked_features(name, z, least=4) for name, z in (("a", a), ("b", b)))
    near = min(10, len(a) // 2 - 1)
    return {
        "rank correlation": rank_correlation(a, b),
        "trustworthiness": trustworthiness(b.numpy(), a.numpy(), n_neighbors=near),
        "Procrustes": procrustes(b.numpy(), a.numpy())[2],
    }


def procrustes_aligned(
    z: Float[Tensor, "n d"], target: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """z moved, turned or mirrored, and scaled as a whole so that it lies nearest to the target.

    It is centred at 0. Raises as `evaluate` says.
    """
    z, target = checked_features("z", z), checked_features("target", target)
    z, target = z - z.mean(0), target - target.mean(0)
    U, S, Vh = torch.linalg.svd(z.T @ target)
    return S.sum() / z.square().sum() * z @ U @ Vh


# --- SNE -----------------------------------------------------------------------------------------


def sne(P: Float[Tensor, "n n"], *, dim: int = 2, seed: int = 0) -> Float[Tensor, "n dim"]:
    """Points that minimise KL(P ‖ Q), Q ∝ exp(-‖z_i - z_j‖²) over all pairs, P joint.

    By L-BFGS, without a network, from the random start of the seed.
    """

    def objective(z: Tensor) -> Tensor:
        return sne_objective(P, log_q_gaussian(z, normalization="joint"))

    generator = torch.Generator().manual_seed(seed)
    return minimise_free(objective, (len(P), dim), starts=1, generator=generator)[1]


def scaled_kl(P: Float[Tensor, "n n"], z: Float[Tensor, "n d"]) -> float:
    """KL(P ‖ Q) of a map at the best of all its scalings: how well its shape solves SNE's problem.

    Raises as `evaluate` says, and `ValueError` for a map that is one point.
    """
    z = checked_features("z", z, least=2).double()
    if (z == z[0]).all():
        found = f"got {len(z)} that coincide: no scaling moves them"
        raise ValueError(f"z must be a map of points apart, {found}")
    z = z / z.std()

    def objective(log_scale: float) -> float:
        log_q = log_q_gaussian(np.exp(log_scale) * z, normalization="joint")
        return sne_objective(P, log_q).item()

    return float(minimize_scalar(objective, bounds=(-5, 7), method="bounded").fun)


def noise_P(points: Points, seed: int) -> Float[Tensor, "n n"]:
    """The analytic P, both views augmented, that the noise of a run gives its training points."""
    return two_views(_log_density(points, seed))


@lru_cache(maxsize=256)
def sne_maps(points: Points, seed: int) -> tuple[Tensor, Tensor]:
    """Two maps by SNE from different random starts: how far does SNE agree with itself?"""
    P = noise_P(points, seed)
    return sne(P, seed=2 * seed), sne(P, seed=2 * seed + 1)


def _log_density(points: Points, seed: int) -> Float[Tensor, "n n"]:
    """log φ(x_i - x_j), φ the density of the noise, at the training points."""
    (step,), x = points.augmentation, train_points(points, seed)
    assert isinstance(step, Noise)
    return log_noise(x, x, scale=step.scale, kind=step.kind)


def distance_and_flat_limit(points: Points, seed: int) -> pd.DataFrame:
    """A row for each pair of training points: its distance, P, and "flat".

    The latter is P where anchors lie equally dense: φ∗φ, normalised over the pairs.
    """
    (step,), x = points.augmentation, train_points(points, seed)
    assert isinstance(step, Noise)
    P, others = noise_P(points, seed), ~torch.eye(len(x), dtype=torch.bool)
    log_flat = log_noise(x, x, scale=step.scale, kind=step.kind, twice=True)
    flat = log_flat.masked_fill(~others, -torch.inf).flatten().softmax(0).view_as(P)
    distance = torch.cdist(x, x)
    return pd.DataFrame({"distance": distance[others], "P": P[others], "flat": flat[others]})


# --- runs beside SNE -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Reference:
    """What every run on the same points with the same noise is compared with."""

    P: Float[Tensor, "n n"]
    map: Float[Tensor, "n 2"]
    agreement: dict[str, float]  # of SNE's second map, and of the input, with the map
    objective: dict[str, float]  # KL of the map and of the input; the diagonal of P


@lru_cache(maxsize=256)
def _reference(points: Points, seed: int) -> _Reference:
    P, x = noise_P(points, seed), train_points(points, seed)
    first, second = sne_maps(points, seed)
    K = _log_density(points, seed).exp()
    agrees = {f"{name}, SNE": value for name, value in agreement(second, first).items()}
    agrees["rank correlation, input"] = rank_correlation(x, first)
    objective = {"KL, SNE": scaled_kl(P, first), "KL, input": scaled_kl(P, x)}
    objective["same point"] = ((K * K).sum() / (K.sum(0) ** 2).sum()).item()
    return _Reference(P, first, agrees, objective)


def sne_agreement(record: Record, points: Points | None = None) -> dict[str, float]:
    """How far the map z of a run agrees with SNE on the analytic P of `points`, by default its own.

    Beside it SNE's second map and the input, compared with the first map in the same way, and "same
    point": the part of two views' P on the diagonal, where both fall on the same point. SNE's P
    has no diagonal.
    """
    assert isinstance(record.config.data, Points)
    reference = _reference(points or record.config.data, record.config.seed)
    z = torch.from_numpy(record.arrays["z"])
    own = agreement(z.double(), reference.map)
    kl = {"KL": scaled_kl(reference.P, z)}
    return own | reference.agreement | kl | reference.objective


def agreement_by_factor(records: Mapping[tuple[str, str], Sequence[Record]]) -> pd.DataFrame:
    """`sne_agreement`, a row a run; for controls the P is that of the base setting's noise."""
    base = records[BASE][0].config.data
    assert isinstance(base, Points)
    rows = []
    for (factor, level), group in records.items():
        points = base if factor == "control" else None
        for record in group:
            known = {"factor": factor, "level": level, "seed": record.config.seed}
            rows.append(known | sne_agreement(record, points))
    return pd.DataFrame(rows)


def agreement_means(agree: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, and the 95 % interval of the rank correlation."""
    groups = agree.groupby(["factor", "level"], sort=False)
    means = groups.mean().drop(columns="seed").reset_index()
    ends = [interval(values.tolist()) for _, values in groups["rank correlation"]]
    means.insert(3, "95 % interval", [f"[{low:.2f}, {high:.2f}]" for _, low, high in ends])
    return means


def base_values(agree: pd.DataFrame, column: str) -> pd.Series:
    """A column of the base setting, by seed."""
    factor, level = BASE
    return by_seed(agree, column, factor=factor, level=level)


def kl_ratios(agree: pd.DataFrame) -> pd.DataFrame:
    """KL to the noise's P: networks trained with noise over the controls, paired by seed."""
    ours, rows = base_values(agree, "KL"), []
    for level in ("mixup", "untrained"):
        ratios = ours / by_seed(agree, "KL", level=level)
        name = {"KL to the noise's P": f"trained with noise ÷ {level}"}
        rows.append(name | with_interval("ratio", interval(ratios.tolist())) | {"n": len(ours)})
    return pd.DataFrame(rows)


def aligned_maps(record: Record) -> dict[str, Float[Tensor, "n 2"]]:
    """The points of a run, SNE's map of them and the run's own, each turned onto the points."""
    assert isinstance(record.config.data, Points)
    x = point_set(record.config).train.x.double()
    maps = {
        "input": x,
        "SNE on P, no network": sne_maps(record.config.data, record.config.seed)[0],
        "SSCL with noise": torch.from_numpy(record.arrays["z"]).double(),
    }
    return {name: procrustes_aligned(z, x) for name, z in maps.items()}
