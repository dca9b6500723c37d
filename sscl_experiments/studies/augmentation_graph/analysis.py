"""The augmentation graph and what features learn of it; forces of losses; scores of maps."""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Integer
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F

from sscl_core.affinities import empirical_masses, log_noise, nearest_cells, spectrum
from sscl_core.augmentations import agnostic_views
from sscl_core.checks import checked_features, checked_labels
from sscl_core.config import Noise, Points, TrainConfig
from sscl_core.ensemble import Ensemble, train_ensemble
from sscl_core.rng import SPLIT, stream
from sscl_experiments.frames import with_interval
from sscl_experiments.record import Record
from sscl_experiments.runs.points import point_set, train_points
from sscl_experiments.statistics import interval

from .loss_family import LOSSES, forces

EIGENVECTORS = 16  # of a graph, that features are compared with
T_SNE = "t-SNE of pixels"

# --- graphs --------------------------------------------------------------------------------------


class Graph(NamedTuple):
    """Nodes, the probability that a view is each, and the top eigenvectors of the graph."""

    nodes: Float[Tensor, "m d"]
    mass: Float[Tensor, " m"]
    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "m k"]


@lru_cache(maxsize=64)
def noise_graph(points: Points, seed: int, k: int, *, views: int = 5) -> Graph:
    """Nodes: `views` draws of views of each training point x̄. Edges from the density of the noise.

    A_kj ∝ a(x_j | x̄_k) / Σ_l a(x_j | x̄_l), rows scaled to sum 1. The density is divided by that
    from which the nodes were drawn, so sums over nodes are integrals.
    """
    (step,), x = points.augmentation, train_points(points, seed)
    assert isinstance(step, Noise)
    with stream(seed, SPLIT, 2):
        nodes = agnostic_views(x.repeat(views, 1), (step,), x)
    log_a = log_noise(x, nodes, scale=step.scale, kind=step.kind)
    A = (log_a - log_a.logsumexp(0)).softmax(1)
    return Graph(nodes.float(), A.mean(0), *spectrum(A, k))


@lru_cache(maxsize=64)
def cell_graph(points: Points, seed: int, k: int, *, draws: int = 50) -> Graph:
    """Nodes: the training points, each for the views that are nearest to it.

    Edges by Monte Carlo, from `draws` views of each point.
    """
    x = train_points(points, seed)
    augment = partial(agnostic_views, steps=points.augmentation, pool=x)
    with stream(seed, SPLIT, 2):
        A, _ = empirical_masses(augment, x, nearest_cells(x), len(x), draws=draws)
    return Graph(x.float(), A.mean(0), *spectrum(A, k))


def graph_of(config: TrainConfig, k: int) -> Graph:
    """The graph of a run: `noise_graph` where its augmentation is noise, else `cell_graph`."""
    assert isinstance(config.data, Points)
    make = noise_graph if isinstance(config.data.augmentation[0], Noise) else cell_graph
    return make(config.data, config.seed, k)


# --- features and eigenvectors -------------------------------------------------------------------


def feature_history(
    configs: Sequence[TrainConfig], x: Float[Tensor, "s n d"]
) -> Float[Tensor, "t s n d_z"]:
    """The features z of x_i by the network of run i, before training and after each epoch.

    It trains the runs.
    """
    history: list[Tensor] = []

    def watch(_: int, ensemble: Ensemble) -> None:
        history.append(ensemble(x).detach())

    data = [point_set(config).train.x for config in configs]
    train_ensemble(configs, data, device="cpu", on_epoch=watch)
    return torch.stack(history)


def squared_cosines(
    z: Float[Tensor, "n d"], vectors: Float[Tensor, "n k"], mass: Float[Tensor, " n"]
) -> Float[Tensor, " k"]:
    """cos² of the angle between each eigenvector and the span of the features and a constant.

    Weighted by the nodes' mass; 1 where the eigenvector is a linear function of the features.
    """
    return (_span(z, mass).T @ vectors).square().sum(0)


def principal_cosines(
    z: Float[Tensor, "n d"], vectors: Float[Tensor, "n k"], mass: Float[Tensor, " n"]
) -> Float[Tensor, " r"]:
    """Cosines of the principal angles between that span and the eigenvectors', largest first."""
    return torch.linalg.svdvals(_span(z, mass).T @ vectors)


def _span(z: Float[Tensor, "n d"], mass: Float[Tensor, " n"]) -> Float[Tensor, "n r"]:
    """An orthonormal basis of the features and a constant, in the weights of the graph.

    Features that depend on others add nothing.
    """
    z = checked_features("z", z).double()
    with_constant = F.pad(z, (1, 0), value=1.0)
    U, S, _ = torch.linalg.svd(with_constant * mass.sqrt()[:, None], full_matrices=False)
    return U[:, 1e-6 * S[0] < S]


class Learned(NamedTuple):
    """What runs learn of the eigenvectors of their graphs.

    `spectra`: a row for each run, step of training and eigenvector, with its eigenvalue and the
    squared cosine of `squared_cosines`. `angles`: a row a run, its principal angles after training,
    in degrees, to the top d_z eigenvectors; the first, that of the constant, is left out.
    """

    spectra: pd.DataFrame
    angles: pd.DataFrame


def learned(runs: Mapping[tuple[str, str], Sequence[TrainConfig]]) -> Learned:
    """Trains the runs, which are listed under (data, loss)."""
    spectra: list[dict[str, Any]] = []
    angles: list[dict[str, Any]] = []
    for (data, loss), configs in runs.items():
        graphs = [graph_of(config, EIGENVECTORS) for config in configs]
        history = feature_history(configs, torch.stack([graph.nodes for graph in graphs]))
        for i, (config, graph) in enumerate(zip(configs, graphs, strict=True)):
            known = {"data": data, "loss": loss, "seed": config.seed}
            spectra += [known | row for row in _spectrum_rows(config, graph, history[:, i])]
            angles.append(known | _angles(config, graph, history[-1, i]))
    return Learned(pd.DataFrame(spectra), pd.DataFrame(angles))


def _spectrum_rows(
    config: TrainConfig, graph: Graph, history: Float[Tensor, "t n d_z"]
) -> list[dict[str, Any]]:
    assert isinstance(config.data, Points)
    rows = []
    for epoch, z in enumerate(history):
        known = {"step": epoch * config.data.steps_per_epoch, "d_z": config.projector.dim}
        cosines = squared_cosines(z, graph.vectors, graph.mass)
        pairs = zip(graph.values.tolist(), cosines.tolist(), strict=True)
        for number, (value, cosine) in enumerate(pairs, 1):
            row = {"eigenvector": number, "eigenvalue": value, "squared cosine": cosine}
            rows.append(known | row)
    return rows


def _angles(config: TrainConfig, graph: Graph, z: Float[Tensor, "n d_z"]) -> dict[str, float]:
    top = graph.vectors[:, : config.projector.dim]
    cosines = principal_cosines(z, top, graph.mass).clamp(max=1)
    degrees = cosines.acos().rad2deg().tolist()
    return {str(number): angle for number, angle in enumerate(degrees, 1) if number > 1}


def mean_angles(angles: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds."""
    groups = angles.groupby(["data", "loss"], sort=False)
    return groups.mean().drop(columns="seed").reset_index()


# --- forces of losses ----------------------------------------------------------------------------


class Forces(NamedTuple):
    """Pairs of features Z = [z1; z2], and by loss both parts of its gradient: ∂/∂Z of each term."""

    Z: Float[Tensor, "2*n 2"]
    parts: dict[str, tuple[Float[Tensor, "2*n 2"], Float[Tensor, "2*n 2"]]]

    @property
    def arrays(self) -> dict[str, Tensor]:
        arrays = {"Z": self.Z}
        for name, pair in self.parts.items():
            for part, force in zip(("attraction", "repulsion"), pair, strict=True):
                arrays[f"{name}: {part}"] = force
        return arrays


def measured_forces(seed: int, *, n: int = 16) -> Forces:
    """Of every loss at default settings, on the same n random pairs in the plane."""
    generator = torch.Generator().manual_seed(seed)
    means, first, second = (
        torch.randn(n, 2, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    z1, z2 = 1.5 * means + 0.4 * first, 1.5 * means + 0.4 * second
    parts = {name: forces(member.loss, z1, z2) for name, member in LOSSES.items()}
    return Forces(torch.cat([z1, z2]), parts)


def force_table(measured: Forces) -> pd.DataFrame:
    """Every loss in words, and three numbers.

    - "repulsion / attraction": the ratio of their lengths.
    - "outward": the share of features that repulsion by itself moves away from the centre.
    - "like InfoNCE": the cosine of the whole gradient with that of InfoNCE.
    """
    centred = measured.Z - measured.Z.mean(0)
    gradients = {name: (pull + push).flatten() for name, (pull, push) in measured.parts.items()}
    rows = []
    for name, (pull, push) in measured.parts.items():
        outward = (-push * centred).sum(1) > 0
        words = LOSSES[name]._asdict()
        words.pop("loss")
        numbers = {
            "repulsion / attraction": (push.norm() / pull.norm()).item(),
            "outward": outward.double().mean().item(),
            "like InfoNCE": F.cosine_similarity(gradients[name], gradients["InfoNCE"], 0).item(),
        }
        rows.append({"loss": name} | words | numbers)
    return pd.DataFrame(rows)


# --- maps ----------------------------------------------------------------------------------------


def leave_one_out(
    z: Float[np.ndarray, "n d"], labels: Integer[np.ndarray, " n"], k: int = 10
) -> float:
    """Accuracy of k-NN (Euclidean) when every point is classified by the others.

    It is for maps that cannot place new points.
    Raises as `evaluate` says, and `ValueError` for one point only.
    """
    features = checked_features("z", torch.as_tensor(z), least=2)
    labels = checked_labels("labels", torch.as_tensor(labels), features, of="z").numpy()
    neighbors = NearestNeighbors(n_neighbors=min(k, len(z) - 1)).fit(features.numpy())
    near = labels[neighbors.kneighbors(return_distance=False)]
    votes = np.stack([(near == label).sum(1) for label in range(labels.max() + 1)], 1)
    return float((votes.argmax(1) == labels).mean())


def maps(
    records: Mapping[str, Sequence[Record]], pixels: Float[np.ndarray, "n d"], seed: int
) -> dict[str, list[Float[np.ndarray, "n 2"]]]:
    """Maps of the test images by method, one a seed: those of runs, and t-SNE of the pixels.

    SimCLR's are on the circle. The perplexity of t-SNE is 30.
    """
    found = {name: [run.arrays["z_test"] for run in group] for name, group in records.items()}
    found["SimCLR"] = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in found["SimCLR"]]
    return found | {T_SNE: [TSNE(random_state=seed).fit_transform(pixels)]}


def map_scores(
    features: Mapping[str, Sequence[Float[np.ndarray, "n _"]]], labels: Integer[np.ndarray, " n"]
) -> pd.DataFrame:
    """10-NN, each image classified by the others; with an interval if there are several seeds."""
    rows = []
    for name, group in features.items():
        scores = [leave_one_out(z, labels) for z in group]
        ends = interval(scores) if len(scores) > 1 else (scores[0], np.nan, np.nan)
        row = {"map": name} | with_interval("10-NN", ends)
        rows.append(row | {"n": len(scores), "images": len(labels)})
    return pd.DataFrame(rows)
