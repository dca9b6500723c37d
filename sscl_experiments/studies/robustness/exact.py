"""Where the optimum of each similarity puts points, seen and unseen, when P is known.

No network: features are free vectors. What a network adds, its smoothness, is the difference.
"""

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from sscl_core.evaluate import accuracy, knn
from sscl_core.losses import sne_objective
from sscl_core.rng import EVALUATION, SAMPLE, stream
from sscl_core.similarities import Cosine, Similarity, Student
from sscl_experiments.arrangements import descend
from sscl_experiments.datasets.synthetic import GaussianMixture
from sscl_experiments.runs.robust_config import UnseenMixture
from sscl_experiments.runs.unseen import world_means

SEEN_EACH, UNSEEN_EACH = 8, 12  # points of a component: placed by the optimum, and after it
# Of L-BFGS: features on the sphere have no scale, so there is no last digit to wait for.
SEARCH: dict = {"max_iter": 60, "tolerance_grad": 1e-7, "tolerance_change": 1e-9}
# The Gaussian and Student t have a scale of their own, so their temperature is free.
SIMILARITIES: dict[str, Similarity] = {
    "cosine": Cosine(temperature=0.3),
    "Gaussian": Student(temperature=1.0, df=float("inf")),
    "t conditional": Student(temperature=1.0, df=5.0),
}


def posterior(x: Float[Tensor, "n d"], data: UnseenMixture) -> Float[Tensor, "n m"]:
    """p(component | x) over the seen components, by Bayes' rule, wherever x is."""
    means = torch.tensor(data.means, dtype=x.dtype)
    return (-torch.cdist(x, means).square() / (2 * data.std**2)).softmax(1)


def density_ratio(
    x: Float[Tensor, "n d"], y: Float[Tensor, "k d"], data: UnseenMixture
) -> Float[Tensor, "n k"]:
    """P(x, y) / (p(x) p(y)) = m Σ_c p(c|x) p(c|y), for two independent draws from one component."""
    return len(data.means) * posterior(x, data) @ posterior(y, data).T


def optimum(
    similarity: Similarity, P: Float[Tensor, "n n"], dim: int, generator: torch.Generator
) -> Float[Tensor, "n d_z"]:
    """Features that minimise Σ KL(P_i ‖ Q_i), rows of P summing to 1: the better of two starts."""

    def objective(z: Tensor) -> Tensor:
        return sne_objective(P, similarity.log_q(z, normalization="conditional"))

    starts = [torch.randn(len(P), dim, generator=generator, dtype=P.dtype) for _ in range(2)]
    found = [descend(objective, start, **SEARCH) for start in starts]
    return min(found, key=lambda z: objective(z).item())


def placed(
    similarity: Similarity, z: Float[Tensor, "n d_z"], rows: Float[Tensor, "k n"]
) -> Float[Tensor, "k d_z"]:
    """For each row P_x the feature that minimises KL(P_x ‖ Q_x), beside features z that stay.

    L-BFGS from the best of all z and their mean in the weights of the row: on the sphere there are
    local minima.
    """

    def each(new: Tensor) -> Tensor:
        logits = log_s(similarity, new, z)
        return logits.logsumexp(1) - (rows * logits).sum(1)

    weighted = rows @ z
    among = log_s(similarity, z, z)
    at_each = among.logsumexp(1) - rows @ among.T  # of a new point at the place of a seen one
    nearest = z[at_each.argmin(1)]
    best = torch.where((each(weighted) < at_each.amin(1))[:, None], weighted, nearest)
    return descend(lambda new: each(new).sum(), best, **SEARCH)


def log_s(similarity: Similarity, a: Tensor, b: Tensor) -> Float[Tensor, "k n"]:
    """log s of each row of a with each row of b."""
    if isinstance(similarity, Cosine):
        return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / similarity.temperature  # type: ignore[return-value]
    squared = (a[:, None] - b).square().sum(2)
    return similarity.log_s_of_squared(squared)


def points(
    data: UnseenMixture, world: str, each: int, seed: int, part: int
) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]:
    mixture = GaussianMixture(world_means(data)[world].double(), data.std)
    labels = torch.arange(mixture.m).repeat_interleave(each)
    with stream(seed, SAMPLE, EVALUATION, 99, part) as generator:
        return mixture.sample_given(labels, generator=generator), labels


class Placement:
    """Seen points at the optimum of a similarity, and points of all components placed after it."""

    def __init__(self, name: str, data: UnseenMixture, dim: int, seed: int) -> None:
        self.data, self.similarity = data, SIMILARITIES[name]
        self.x, self.labels = points(data, "seen", SEEN_EACH, seed, 0)
        P = density_ratio(self.x, self.x, data).fill_diagonal_(0)
        with stream(seed, SAMPLE, EVALUATION, 98) as generator:
            rows = P / P.sum(1, keepdim=True)
            self.z = optimum(self.similarity, rows, dim, generator)

    def of(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d_z"]:
        rows = density_ratio(x, self.x, self.data)
        return placed(self.similarity, self.z, rows / rows.sum(1, keepdim=True))

    def new(self, seed: int) -> dict[str, Tensor]:
        """Two samples of all components, unseen ones too: support and queries."""
        support, labels = points(self.data, "new", UNSEEN_EACH // 2, seed, 1)
        queries, truth = points(self.data, "new", UNSEEN_EACH, seed, 2)
        return {
            "support": self.of(support),
            "labels": labels,
            "queries": self.of(queries),
            "truth": truth,
        }


def predicted(data: UnseenMixture, dims: tuple[int, ...], seeds: range) -> pd.DataFrame:
    """1-NN accuracy on unseen components at the optimum, a row a similarity, d_z and seed."""
    rows = []
    for name, similarity in SIMILARITIES.items():
        for dim in dims:
            for seed in seeds:
                new = Placement(name, data, dim, seed).new(seed)
                unseen = new["truth"] >= len(data.means)
                voted = knn(
                    new["support"],
                    new["labels"],
                    new["queries"][unseen],
                    k=1,
                    metric=similarity.metric,
                )
                found = accuracy(voted, new["truth"][unseen])
                rows.append({"kernel": name, "d_z": dim, "seed": seed, "new": found})
    return pd.DataFrame(rows)
