"""P without a network: what an augmentation does to points before training, the map that SNE makes of its P, the eigenvectors of its graph;
and how far features agree with these."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.spatial import procrustes
from scipy.stats import rankdata
from sklearn.manifold import trustworthiness
from torch import Tensor

from sscl_core.affinities import (
    box_cells,
    empirical_masses,
    log_noise,
    mixup_masses,
    nearest_cells,
    noise_masses,
    two_views,
)
from sscl_core.augmentations import agnostic_views
from sscl_core.checks import checked_features
from sscl_core.config import Noise, Points, TrainConfig
from sscl_core.evaluate import accuracy, knn, linear_probe
from sscl_core.losses import sne_objective
from sscl_core.rng import SPLIT, stream
from sscl_core.similarities import log_q_gaussian
from sscl_experiments.arrangements import minimise_free
from sscl_experiments.datasets.synthetic import PointSet
from sscl_experiments.record import Record
from sscl_experiments.runs.points import point_set, train_points


def chosen(table: pd.DataFrame, by: Sequence[str], setting: str, score: str) -> pd.DataFrame:
    """The rows of the `setting` that has, within each group, the best mean `score` over seeds; of equal ones the first."""
    means = table.groupby([*by, setting], sort=False)[score].mean().reset_index()
    best = means.loc[means.groupby(list(by), sort=False)[score].idxmax(), [*by, setting]]
    return table.merge(best, on=[*by, setting])


def raw_scores(config: TrainConfig, dim: int | None = None) -> list[dict[str, Any]]:
    """What features are held against on the points of a run, by the same 10-NN (cosine) and linear probe: the data as they are, and their
    `dim` principal components, by default half as many as there are columns, at most 16."""
    data = point_set(config)
    mean = data.train.x.mean(0)
    axes = (
        torch.linalg.svd(data.train.x - mean, full_matrices=False)
        .Vh[: dim or min(16, max(1, len(mean) // 2))]
        .T
    )
    rows = []
    for name, project in (("raw", lambda x: x), ("PCA", lambda x: (x - mean) @ axes)):
        x, x_test, labels = project(data.train.x), project(data.test.x), data.train.labels
        scores = {
            "knn_h_test": knn(x, labels, x_test),
            "probe_h_test": linear_probe(x, labels, x_test),
        }
        rows.append(
            {"method": name, "seed": config.seed}
            | {key: accuracy(value, data.test.labels) for key, value in scores.items()}
        )
    return rows


def rank_correlation(a: Float[Tensor, "n d"], b: Float[Tensor, "n e"]) -> float:
    """Whether each point has the others at the same ranks of distance in both maps: Spearman's
    correlation, averaged over points.

    Raises as `evaluate` says, and `ValueError` for maps of different points, of fewer than three,
    or with a point from which all others are equally far, which gives no ranks.
    """
    ra, rb = _centred_ranks("a", a), _centred_ranks("b", b)
    if len(ra) != len(rb):
        raise ValueError(f"a and b must be maps of the same points, got {len(ra)} and {len(rb)}")
    return float(np.mean((ra * rb).sum(1) / np.sqrt((ra**2).sum(1) * (rb**2).sum(1))))


def _centred_ranks(name: str, z: Tensor) -> np.ndarray:
    """Of each point's distances to the others, (n, n - 1), around their mean."""
    z = checked_features(name, z, least=3).double()
    off = ~np.eye(len(z), dtype=bool)
    ranks = rankdata(torch.cdist(z, z).numpy()[off].reshape(len(z), -1), axis=1)
    tied = (ranks == ranks[:, :1]).all(1)
    if tied.any():
        point, many = int(tied.argmax()), int(tied.sum())
        raise ValueError(
            f"{name} has no ranks of distance: from point {point} all others are equally far, so from {many} of {len(z)}"
        )
    return ranks - ranks.mean(1, keepdims=True)


def agreement(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> dict[str, float]:
    """Of two maps of the same points: `rank_correlation`; the trustworthiness of a for the neighbors in b (10 of them; Venna & Kaski 2001);
    what is left of b's variance after a is moved, turned and scaled onto it (Procrustes).

    Raises as `rank_correlation`, and `ValueError` for fewer than four points."""
    a, b = (checked_features(name, z, least=4) for name, z in (("a", a), ("b", b)))
    return {
        "rank correlation": rank_correlation(a, b),
        "trustworthiness": trustworthiness(
            b.numpy(), a.numpy(), n_neighbors=min(10, len(a) // 2 - 1)
        ),
        "Procrustes": procrustes(b.numpy(), a.numpy())[2],
    }


def counted_noise(
    steps: Sequence[Noise], anchor: float, edges: Sequence[float], *, draws: int, seed: int
) -> pd.DataFrame:
    """Views of a point on a line, drawn as training draws them and counted in the cells between `edges`, beside their exact masses."""
    x, rows = torch.tensor([[anchor]], dtype=torch.float64), []
    for step in steps:
        exact = noise_masses(x, [edges], scale=step.scale, kind=step.kind)[0]
        with stream(seed, SPLIT, 3):
            augment = partial(agnostic_views, steps=(step,), pool=x)
            shares = empirical_masses(augment, x, box_cells([edges]), len(exact), draws=draws)[0][0]
        error = (exact * (1 - exact) / draws).sqrt()
        rows.append(
            pd.DataFrame(
                {
                    "noise": step.kind,
                    "cell": range(len(exact)),
                    "exact": exact,
                    "counted": shares,
                    "s.e.": error,
                }
            )
        )
    return pd.concat(rows)


def turned_onto(z: Float[Tensor, "n d"], target: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """z moved, turned or mirrored, and scaled as a whole so that it lies nearest to the target: for
    the eye.

    Raises as `evaluate` says.
    """
    z, target = checked_features("z", z), checked_features("target", target)
    z, target = z - z.mean(0), target - target.mean(0)
    U, S, Vh = torch.linalg.svd(z.T @ target)
    return S.sum() / z.square().sum() * z @ U @ Vh


def sne(P: Float[Tensor, "n n"], *, dim: int = 2, seed: int = 0) -> Float[Tensor, "n dim"]:
    """Points, no network, that minimise KL(P ‖ Q), P joint, Q ∝ exp(-‖z_i - z_j‖²) over all pairs, from a random start (L-BFGS)."""

    def objective(z: Tensor) -> Tensor:
        return sne_objective(P, log_q_gaussian(z, normalization="joint"))

    return minimise_free(
        objective, (len(P), dim), starts=1, generator=torch.Generator().manual_seed(seed)
    )[1]


def scaled_kl(P: Float[Tensor, "n n"], z: Float[Tensor, "n d"]) -> float:
    """KL(P ‖ Q) of a map at the best of all its scalings: how well its shape solves SNE's problem.

    Raises as `evaluate` says, and `ValueError` for a map that is one point.
    """
    z = checked_features("z", z, least=2).double()
    if (z == z[0]).all():
        raise ValueError(
            f"z must be a map of points apart, got {len(z)} that coincide: no scaling moves them"
        )
    z = z / z.std()
    found = minimize_scalar(
        lambda s: sne_objective(P, log_q_gaussian(np.exp(s) * z, normalization="joint")).item(),
        bounds=(-5, 7),
        method="bounded",
    )
    return float(found.fun)


def noise_P(points: Points, seed: int) -> Float[Tensor, "n n"]:
    """The analytic P, both views augmented, that the noise of a run gives its training points."""
    (step,) = points.augmentation
    assert isinstance(step, Noise)
    x = train_points(points, seed)
    return two_views(log_noise(x, x, scale=step.scale, kind=step.kind))


@lru_cache(maxsize=256)
def sne_maps(points: Points, seed: int) -> tuple[Tensor, Tensor]:
    """Two maps by SNE from different random starts, so that it is seen how far SNE agrees with itself."""
    P = noise_P(points, seed)
    return sne(P, seed=2 * seed), sne(P, seed=2 * seed + 1)


def sne_agreement(record: Record, points: Points | None = None) -> dict[str, float]:
    """How far the map z of a run agrees with SNE on the analytic P of `points` (by default its own); SNE with itself, and the input with
    SNE; and the share of two views' P in which they fall on one and the same point, which a P off the diagonal leaves out."""
    assert isinstance(record.config.data, Points)
    points, seed = points or record.config.data, record.config.seed
    first, second = sne_maps(points, seed)
    (step,), x = points.augmentation, train_points(points, seed)
    assert isinstance(step, Noise)
    K = log_noise(x, x, scale=step.scale, kind=step.kind).exp()
    own = (K * K).sum() / (K.sum(0) ** 2).sum()
    ours = agreement(torch.from_numpy(record.arrays["z"]).double(), first)
    others = {f"{name}, SNE": value for name, value in agreement(second, first).items()}
    P, z = noise_P(points, seed), torch.from_numpy(record.arrays["z"])
    inputs = {"rank correlation, input": rank_correlation(x, first)}
    kl = {"KL": scaled_kl(P, z), "KL, SNE": scaled_kl(P, first), "KL, input": scaled_kl(P, x)}
    return ours | others | inputs | kl | {"same point": own.item()}


def perturbation(config: TrainConfig, *, n: int = 100) -> dict[str, float]:
    """What the augmentation of a run on a cloud does, looked at on the test part (a direction that is wide in one sample by chance is not
    wide in another): the share of the energy ‖x' - x‖² in the span of the means; the share of views nearest to the mean of their own
    component; the probability that two views of one of the first n points fall into cells of points of one component; and the
    `selectivity`. Blur of a direction is the perturbation's variance there over the data's; selectivity is the blur of the widest direction
    outside the span of the means over the blur inside. For mixup it is 1 but for sampling; of noise the strength cancels."""
    assert isinstance(config.data, Points)
    data = point_set(config)
    x, labels = data.test.x, data.test.labels
    with stream(config.seed, SPLIT, 1):
        augment = partial(agnostic_views, steps=config.data.augmentation, pool=x)
        views = augment(x.repeat(10, 1))
        A, _ = empirical_masses(augment, x[:n], nearest_cells(x[:n]), len(x[:n]), draws=50)
    means, span = _means_and_span(data)
    views, delta = views.double(), (views - x.repeat(10, 1)).double()
    inside = (delta @ span).square().sum() / delta.square().sum()
    own = (torch.cdist(views, means).argmin(1) == labels.repeat(10)).double().mean()
    within = (A.T @ A / len(A) * (labels[:n, None] == labels[:n])).sum()
    outside, centred = _widest_outside(data.train.x.double(), span), (x - x.mean(0)).double()
    blur = [
        ((delta @ v).square().mean() / (centred @ v).square().mean()).item()
        for v in (outside, span)
    ]
    scores = {
        "energy in span": inside.item(),
        "views at own mean": own.item(),
        "P within": within.item(),
    }
    return scores | {"selectivity": blur[0] / blur[1]}


def counted_mixup(
    x: Float[Tensor, "n d"], *, draws: int, seed: int
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    """Masses of mixup's views of each point over the cells of the points: exact, and counted, partners drawn among the others."""
    exact, others = mixup_masses(x, x, strength=1.0), torch.arange(1, len(x))

    def augment(rows: Tensor) -> Tensor:
        partner = rows[
            (torch.arange(len(rows)) + others[torch.randint(len(others), (len(rows),))]) % len(rows)
        ]
        return torch.lerp(rows, partner, torch.rand(len(rows), 1, dtype=rows.dtype))

    with stream(seed, SPLIT, 5):
        return exact, empirical_masses(augment, x, nearest_cells(x), len(x), draws=draws)[0]


def _widest_outside(x: Float[Tensor, "n d"], span: Float[Tensor, "d r"]) -> Float[Tensor, " d"]:
    """The direction of largest variance among those orthogonal to the span."""
    x = x - x.mean(0)
    return torch.linalg.svd(x - x @ span @ span.T, full_matrices=False).Vh[0]


def _means_and_span(data: PointSet) -> tuple[Float[Tensor, "m d"], Float[Tensor, "d r"]]:
    """The components' means, and an orthonormal basis of their differences."""
    assert data.means is not None
    means = data.means.double()
    return means, torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh[
        : len(means) - 1
    ].T
