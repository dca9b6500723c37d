"""SNE without a network on the P of noise, and how far the maps of runs agree with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

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

Form = Literal["ratio", "joint"]
FORMS: tuple[Form, ...] = ("ratio", "joint")
NULLS = ("input", "untrained", "mixup")

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


def noise_P(points: Points, seed: int, form: Form = "ratio") -> Float[Tensor, "n n"]:
    """The analytic P, both views augmented, that the noise of a run gives its training points.

    "joint": P_ij ∝ (K Kᵀ)_ij, as SNE on a finite set of equally weighted points has it.
    "ratio": P_ij / (p_i p_j), normalised, with p_i = Σ_k K_ik the density of views at x_i. That is
    what training approaches: its negatives are views, so they follow p.
    """
    log_density = _log_density(points, seed)
    P = two_views(log_density)
    if form == "joint":
        return P
    marginal = log_density.logsumexp(0)
    log_ratio = P.log() - marginal[:, None] - marginal
    return log_ratio.flatten().softmax(0).view_as(P)


@lru_cache(maxsize=256)
def sne_maps(points: Points, seed: int, form: Form = "ratio") -> tuple[Tensor, Tensor]:
    """Two maps by SNE from different random starts: how far does SNE agree with itself?"""
    P = noise_P(points, seed, form)
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
    P, others = noise_P(points, seed, "joint"), ~torch.eye(len(x), dtype=torch.bool)
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
def _reference(points: Points, seed: int, form: Form) -> _Reference:
    P, x = noise_P(points, seed, form), train_points(points, seed)
    first, second = sne_maps(points, seed, form)
    K = _log_density(points, seed).exp()
    agrees = {f"{name}, SNE": value for name, value in agreement(second, first).items()}
    agrees["rank correlation, input"] = rank_correlation(x, first)
    objective = {"KL, SNE": scaled_kl(P, first), "KL, input": scaled_kl(P, x)}
    objective["same point"] = ((K * K).sum() / (K.sum(0) ** 2).sum()).item()
    return _Reference(P, first, agrees, objective)


def sne_agreement(
    record: Record, points: Points | None = None, form: Form = "ratio"
) -> dict[str, float]:
    """How far the map z of a run agrees with SNE on the analytic P of `points`, by default its own.

    Beside it SNE's second map and the input, compared with the first map in the same way, and "same
    point": the part of two views' P on the diagonal, where both fall on the same point. SNE's P
    has no diagonal. `form`: see `noise_P`.
    """
    assert isinstance(record.config.data, Points)
    reference = _reference(points or record.config.data, record.config.seed, form)
    z = torch.from_numpy(record.arrays["z"])
    own = agreement(z.double(), reference.map)
    kl = {"KL": scaled_kl(reference.P, z)}
    return own | reference.agreement | kl | reference.objective


def agreement_by_factor(
    records: Mapping[tuple[str, str], Sequence[Record]], form: Form = "ratio"
) -> pd.DataFrame:
    """`sne_agreement`, a row a run; for controls the P is that of the base setting's noise."""
    base = records[BASE][0].config.data
    assert isinstance(base, Points)
    rows = []
    for (factor, level), group in records.items():
        points = base if factor == "control" else None
        for record in group:
            known = {"factor": factor, "level": level, "seed": record.config.seed}
            rows.append(known | sne_agreement(record, points, form))
    return pd.DataFrame(rows)


def base_values(agree: pd.DataFrame, column: str) -> pd.Series:
    """A column of the base setting, by seed."""
    factor, level = BASE
    return by_seed(agree, column, factor=factor, level=level)


def null_values(agree: pd.DataFrame, name: str) -> pd.Series:
    """KL to the base setting's P of a map that was not trained with noise, by seed."""
    if name == "input":
        return base_values(agree, "KL, input")
    return by_seed(agree, "KL", factor="control", level=name)


def over_best_null(agree: pd.DataFrame) -> list[float]:
    """KL of the map trained with noise over the least KL of `NULLS`, a number a seed.

    By its definition no null can be below 1.
    """
    nulls = pd.concat([null_values(agree, name) for name in NULLS], axis=1)
    return (base_values(agree, "KL") / nulls.min(axis=1)).tolist()


def kl_ratios(agree: Mapping[Form, pd.DataFrame]) -> pd.DataFrame:
    """KL of the map trained with noise over that of each null, paired by seed, for either P."""
    rows = []
    for form, table in agree.items():
        ours = base_values(table, "KL")
        for name in NULLS:
            theirs = null_values(table, name)
            row = {"P": form, "noise over": name, "KL, noise": ours.mean()}
            row |= {"KL, other": theirs.mean()}
            row |= with_interval("ratio", interval((ours / theirs).tolist()))
            rows.append(row | {"n": len(ours)})
    return pd.DataFrame(rows)


def over_input(agree: pd.DataFrame, most: float) -> pd.DataFrame:
    """KL of trained map, SNE and input, and the first over the last, a row a setting.

    Means over seeds; the ratio is paired. The input is the one null that every setting has.
    "at most …": whether the whole interval is.
    """
    rows = []
    own = agree[agree.factor != "control"]
    for (factor, level), group in own.groupby(["factor", "level"], sort=False):
        ends = interval((group["KL"] / group["KL, input"]).tolist())
        row: dict[str, Any] = {"factor": factor, "level": level}
        row |= {name: group[name].mean() for name in ("KL", "KL, SNE", "KL, input")}
        row |= with_interval("KL over the input's", ends)
        row |= {"n": len(group), f"at most {most:g}": "yes" if ends[2] <= most else "no"}
        rows.append(row)
    return pd.DataFrame(rows)


def aligned_maps(record: Record) -> dict[str, Float[Tensor, "n 2"]]:
    """The points of a run, SNE's map of them and the run's own, each turned onto the points."""
    assert isinstance(record.config.data, Points)
    x = point_set(record.config).train.x.double()
    maps = {
        "input": x,
        "SNE on P/(p p′), no network": sne_maps(record.config.data, record.config.seed)[0],
        "SSCL with noise": torch.from_numpy(record.arrays["z"]).double(),
    }
    return {name: procrustes_aligned(z, x) for name, z in maps.items()}
