"""The augmentation graph and what features learn of it, in which order; scores of maps."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64, Integer
from scipy.stats import spearmanr
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F

from sscl_core.affinities import empirical_masses, log_noise, spectrum
from sscl_core.augmentations import agnostic_views
from sscl_core.checks import checked_features, checked_labels
from sscl_core.config import Noise, Points, TrainConfig
from sscl_core.ensemble import Ensemble, train_ensemble
from sscl_core.rng import SPLIT, stream
from sscl_experiments.frames import with_interval
from sscl_experiments.record import Record
from sscl_experiments.runs.points import point_set, train_points
from sscl_experiments.statistics import interval

EIGENVECTORS = 16  # of a graph, that features are compared with
T_SNE = "t-SNE of pixels"
WHEN = ("first", "stays")  # definitions of the step at which an eigenvector is learned

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
def cell_graph(points: Points, seed: int, k: int, *, draws: int, again: bool = False) -> Graph:
    """Nodes: the training points, each for the views that are nearest to it.

    Edges by Monte Carlo, from `draws` views of each point; `again`: from other views, which gives
    an independent estimate of the same graph.
    """
    x = train_points(points, seed)
    augment = partial(agnostic_views, steps=points.augmentation, pool=x)
    with stream(seed, SPLIT, 3 if again else 2):
        A, _ = empirical_masses(augment, x, _nearest(x), len(x), draws=draws)
    return Graph(x.float(), A.mean(0), *spectrum(A, k))


def _nearest(centers: Float[Tensor, "m d"]) -> Callable[[Tensor], Int64[Tensor, " n"]]:
    """The cells of `affinities.nearest_cells`, by a product of matrices.

    A tenth of the time; which of two equally near centers, up to rounding, is left to chance.
    """
    half_squares = centers.square().sum(1) / 2
    return lambda x: (x @ centers.T - half_squares).argmax(1)


def graph_of(config: TrainConfig, k: int, *, draws: int) -> Graph:
    """The graph of a run: `noise_graph` where its augmentation is noise, else `cell_graph`."""
    assert isinstance(config.data, Points)
    if isinstance(config.data.augmentation[0], Noise):
        return noise_graph(config.data, config.seed, k)
    return cell_graph(config.data, config.seed, k, draws=draws)


def eigengap(values: Float[Tensor, " k"], least: int = 3) -> int:
    """How many eigenvalues stand before the largest ratio of two consecutive ones.

    At least `least` of them; the last is not looked at, as what follows it is not known.
    """
    ratios = values[least - 1 : -1] / values[least:]
    return least + int(ratios.argmax())


def self_agreement(
    configs: Sequence[TrainConfig], draws: Sequence[int], *, dim: int
) -> pd.DataFrame:
    """How far two independent estimates of a graph agree, by the number of draws.

    A row a run and number: the largest principal angle, in degrees, between the spaces of the top
    `dim` eigenvectors, and between those cut at the eigengap of the first estimate.
    """
    rows = []
    for config, number in itertools.product(configs, draws):
        assert isinstance(config.data, Points)
        make = partial(cell_graph, config.data, config.seed, EIGENVECTORS, draws=number)
        first, second = make(), make(again=True)
        gap = eigengap(first.values)
        angles = {
            f"top {dim}": largest_angle(first, second, dim),
            "gap after": gap,
            "up to the gap": largest_angle(first, second, gap),
        }
        rows.append({"seed": config.seed, "draws": number} | angles)
    return pd.DataFrame(rows)


def largest_angle(a: Graph, b: Graph, k: int) -> float:
    """Between the spaces of the top k eigenvectors of two graphs on the same nodes, in degrees."""
    cosines = torch.linalg.svdvals(a.vectors[:, :k].T @ b.vectors[:, :k]).clamp(max=1)
    return cosines[-1].acos().rad2deg().item()


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


def energies(
    z: Float[Tensor, "n d"], vectors: Float[Tensor, "n k"], mass: Float[Tensor, " n"]
) -> Float[Tensor, " k"]:
    """The part of the features' variance that lies along each eigenvector: ‖v_kᵀ √D z‖²."""
    z = checked_features("z", z).double()
    return (vectors.T @ (mass.sqrt()[:, None] * z)).square().sum(1)


class Learned(NamedTuple):
    """What runs learn of the eigenvectors of their graphs.

    `spectra`: a row for each run, step of training and eigenvector, with its eigenvalue, the
    squared cosine of `squared_cosines`, and its energy. `angles`: a row a run, its principal angles
    after training, in degrees, to the top d_z eigenvectors; the first, that of the constant, is
    left out.
    """

    spectra: pd.DataFrame
    angles: pd.DataFrame


def learned(runs: Mapping[tuple[str, str], Sequence[TrainConfig]], *, draws: int) -> Learned:
    """Trains the runs, which are listed under (data, loss).

    `draws` are those of `cell_graph`. Energies are those of the features as the loss sees them:
    unit vectors where it compares cosines.
    """
    spectra: list[dict[str, Any]] = []
    angles: list[dict[str, Any]] = []
    for (data, loss), configs in runs.items():
        graphs = [graph_of(config, EIGENVECTORS, draws=draws) for config in configs]
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
        seen = F.normalize(z, dim=1) if config.loss.metric == "cosine" else z
        columns = (graph.values, cosines, energies(seen, graph.vectors, graph.mass))
        numbers = zip(*(column.tolist() for column in columns), strict=True)
        for number, (value, cosine, energy) in enumerate(numbers, 1):
            row = {"eigenvector": number, "eigenvalue": value, "squared cosine": cosine}
            rows.append(known | row | {"energy": energy})
    return rows


def _angles(config: TrainConfig, graph: Graph, z: Float[Tensor, "n d_z"]) -> dict[str, float]:
    top = graph.vectors[:, : config.projector.dim]
    cosines = principal_cosines(z, top, graph.mass).clamp(max=1)
    degrees = cosines.acos().rad2deg().tolist()
    return {str(number): angle for number, angle in enumerate(degrees, 1) if number > 1}


def half_times(spectra: pd.DataFrame) -> pd.DataFrame:
    """When each of the eigenvectors 2 to d_z is learned, by both of `WHEN`.

    A row a run and eigenvector: the first step at which its energy is at least half of what it is
    after training, and the first from which on it stays so. They differ where an energy rises above
    its last value and falls again, as it can early in training.
    """
    learnable = spectra[spectra.eigenvector.between(2, spectra.d_z)]
    keys = ["data", "loss", "seed", "eigenvector"]
    rows = []
    for key, own in learnable.groupby(keys, sort=False):
        own = own.sort_values("step")
        below = (own.energy < own.energy.iloc[-1] / 2).to_numpy()
        stays = int(below.nonzero()[0].max()) + 1 if below.any() else 0
        found = (own.step.iloc[int((~below).argmax())], own.step.iloc[stays])
        rows.append(dict(zip(keys, key, strict=True)) | dict(zip(WHEN, found, strict=True)))
    return pd.DataFrame(rows)


def order_of_learning(times: pd.DataFrame) -> pd.DataFrame:
    """Of `half_times`: the mean step by eigenvector, and how far it grows with the number.

    A row for each graph, loss and definition of the step. How far it grows is Spearman's
    correlation in each run, its mean and 95 % interval; 0 where all steps of a run are equal.
    """
    rows = []
    for (data, loss), group in times.groupby(["data", "loss"], sort=False):
        for when in WHEN:
            steps = group.groupby("eigenvector")[when].mean()
            orders = [_rank_correlation(own, when) for _, own in group.groupby("seed")]
            row = {"data": data, "loss": loss, "step": when}
            row |= with_interval("rank correlation", interval(orders))
            rows.append(row | {str(number): step for number, step in steps.items()})
    return pd.DataFrame(rows)


def _rank_correlation(own: pd.DataFrame, when: str) -> float:
    if own[when].nunique() == 1:
        return 0.0
    return float(spearmanr(own.eigenvector, own[when]).statistic)


def two_by_two(spectra: pd.DataFrame) -> pd.DataFrame:
    """Kernel by BatchNorm: mean squared cosine after training, and that of the untrained network.

    A row a graph, loss and part of the spectrum: the eigenvectors from the second to the eigengap
    of the run's own graph, and those after it up to d_z; 95 % intervals.
    """
    gaps = {run: _gap(own) for run, own in spectra.groupby(["data", "seed"])}
    table = spectra[spectra.eigenvector.between(2, spectra.d_z)]
    gap = np.array([gaps[run] for run in zip(table.data, table.seed, strict=True)])
    parts = np.where(table.eigenvector <= gap, "up to the gap", "after it")
    table = table.assign(eigenvectors=parts)
    first = table[(table.step == 0) & (table.loss == table.loss.iloc[0])]
    last = table[table.step == table.step.max()]
    keys = ["data", "loss", "eigenvectors"]
    both = pd.concat([first.assign(loss="untrained"), last])
    means = both.groupby([*keys, "seed"], sort=False)["squared cosine"].mean()
    rows = []
    for key, values in means.groupby(keys, sort=False):
        ends = with_interval("squared cosine", interval(values.tolist()))
        rows.append(dict(zip(keys, key, strict=True)) | ends | {"n": len(values)})
    return pd.DataFrame(rows)


def _gap(run: pd.DataFrame) -> int:
    values = run.drop_duplicates("eigenvector").sort_values("eigenvector").eigenvalue
    return eigengap(torch.tensor(values.to_numpy()))


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
