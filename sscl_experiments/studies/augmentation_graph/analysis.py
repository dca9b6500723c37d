"""TODO"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Integer
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F

from sscl_core.affinities import empirical_masses, log_noise, nearest_cells, spectrum
from sscl_core.augmentations import agnostic_views
from sscl_core.checks import checked_features, checked_labels
from sscl_core.config import Noise, Points, TrainConfig
from sscl_core.ensemble import Ensemble, train_ensemble
from sscl_core.rng import SPLIT, stream
from sscl_experiments.runs.points import point_set, train_points


def leave_one_out(
    z: Float[np.ndarray, "n d"], labels: Integer[np.ndarray, " n"], k: int = 10
) -> float:
    """Accuracy of k-NN (Euclidean) when every point is classified by the others: for maps that
    cannot place new points.

    Raises as `evaluate` says, and `ValueError` for one point alone.
    """
    features = checked_features("z", torch.as_tensor(z), least=2)
    labels = checked_labels("labels", torch.as_tensor(labels), features, of="z").numpy()
    near = (
        NearestNeighbors(n_neighbors=min(k, len(z) - 1))
        .fit(features.numpy())
        .kneighbors(return_distance=False)
    )
    votes = np.stack([(labels[near] == label).sum(1) for label in range(labels.max() + 1)], 1)
    return float((votes.argmax(1) == labels).mean())


def feature_history(
    configs: Sequence[TrainConfig], x: Float[Tensor, "s n d"]
) -> Float[Tensor, "t s n d_z"]:
    """The features z of x_i by the network of run i, before training and after each epoch; trains the runs."""
    history: list[Tensor] = []

    def watch(_: int, ensemble: Ensemble) -> None:
        history.append(ensemble(x).detach())

    data = [point_set(config).train.x for config in configs]
    train_ensemble(configs, data, device="cpu", on_epoch=watch)
    return torch.stack(history)


def captured(
    z: Float[Tensor, "n d"], vectors: Float[Tensor, "n k"], mass: Float[Tensor, " n"]
) -> Float[Tensor, " k"]:
    """cos² of the angle between each eigenvector of the graph and the span of the features and a constant, weighted by the nodes' mass:
    1 where the eigenvector is a linear function of the features."""
    return (_span(z, mass).T @ vectors).square().sum(0)


def principal_cosines(
    z: Float[Tensor, "n d"], vectors: Float[Tensor, "n k"], mass: Float[Tensor, " n"]
) -> Float[Tensor, " r"]:
    """Cosines of the principal angles between that span and the one of the eigenvectors, largest first."""
    return torch.linalg.svdvals(_span(z, mass).T @ vectors)


def _span(z: Float[Tensor, "n d"], mass: Float[Tensor, " n"]) -> Float[Tensor, "n r"]:
    """An orthonormal basis of the features and a constant, in the weights of the graph; features that depend on others add nothing."""
    z = checked_features("z", z).double()
    U, S, _ = torch.linalg.svd(
        F.pad(z, (1, 0), value=1.0) * mass.sqrt()[:, None], full_matrices=False
    )
    return U[:, 1e-6 * S[0] < S]


class Graph(NamedTuple):
    """Nodes of an augmentation graph, the share of views that each stands for, and the top eigenvalues and eigenvectors."""

    nodes: Float[Tensor, "m d"]
    mass: Float[Tensor, " m"]
    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "m k"]


@lru_cache(maxsize=64)
def noise_graph(points: Points, seed: int, k: int, *, views: int = 5) -> Graph:
    """Nodes: `views` draws of views of each training point x̄. Edges from the density: A_kj ∝ a(x_j | x̄_k) / Σ_l a(x_j | x̄_l), rows
    scaled to sum 1; divided by the density that nodes were drawn from, sums over nodes are integrals."""
    (step,), x = points.augmentation, train_points(points, seed)
    assert isinstance(step, Noise)
    with stream(seed, SPLIT, 2):
        nodes = agnostic_views(x.repeat(views, 1), (step,), x)
    log_a = log_noise(x, nodes, scale=step.scale, kind=step.kind)
    A = (log_a - log_a.logsumexp(0)).softmax(1)
    return Graph(nodes.float(), A.mean(0), *spectrum(A, k))


@lru_cache(maxsize=64)
def cell_graph(points: Points, seed: int, k: int, *, draws: int = 50) -> Graph:
    """Nodes: the training points, each with the views that are nearest to it. Edges by Monte Carlo, `draws` views of each point."""
    x = train_points(points, seed)
    with stream(seed, SPLIT, 2):
        A, _ = empirical_masses(
            partial(agnostic_views, steps=points.augmentation, pool=x),
            x,
            nearest_cells(x),
            len(x),
            draws=draws,
        )
    return Graph(x.float(), A.mean(0), *spectrum(A, k))
