"""What frozen features are worth and how they lie: nearest neighbors, a linear probe, alignment and uniformity, order and Lipschitz
constants, similarities of classes and of groups of classes."""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.func import jvp
from torch.nn import functional as F

from .losses import squared_distances
from .theory import component_means

Metric = Literal["cosine", "euclidean"]


def knn(
    train: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    test: Float[Tensor, "m d"],
    *,
    k: int = 10,
    metric: Metric = "cosine",
    temperature: float | None = None,
    chunk: int = 2048,
) -> Int64[Tensor, " m"]:
    """The labels that the k nearest training features vote for; equal votes go to the smaller label.

    `temperature` weighs each vote by exp(cosine similarity / temperature) (the field's form: k=200, T=0.1), else votes are equal.
    Exact: all distances are computed, `chunk` test rows at a time, m·n·d operations and chunk·n memory.
    Raises `ValueError` for k outside 1..n, an unknown metric, features of different width, or weights under the Euclidean metric.
    """
    if not 1 <= k <= len(train):
        raise ValueError(f"k must be in 1..{len(train)}, the number of training features, got {k}")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be 'cosine' or 'euclidean', got {metric!r}")
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"train and test must have one width, got {train.shape[1]} and {test.shape[1]}")
    if temperature is not None and (metric != "cosine" or not temperature > 0):
        raise ValueError(f"temperature must be positive and the metric cosine, got {temperature} and {metric!r}")
    return _vote(*_nearest(train, test, k, metric, chunk), labels, temperature)


def _nearest(train: Tensor, test: Tensor, k: int, metric: Metric, chunk: int = 2048) -> tuple[Tensor, Tensor]:
    """Scores, best first, and indices (m, k) of the k nearest training rows."""
    if metric == "cosine":
        train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
        offset = train.new_zeros(len(train))
    else:
        center = train.mean(0)
        train, test = train - center, test - center
        # The nearest under ‖x - y‖² are the largest of x·y - ‖y‖²/2: the term of x alone ranks nothing.
        offset = -train.square().sum(1) / 2
    scores, indices = zip(*(torch.addmm(offset, rows, train.T).topk(k, dim=1) for rows in test.split(chunk)), strict=True)
    return torch.cat(scores), torch.cat(indices)


def _vote(scores: Tensor, indices: Tensor, labels: Tensor, temperature: float | None = None) -> Int64[Tensor, " m"]:
    weights = torch.ones_like(scores) if temperature is None else ((scores - 1) / temperature).exp()
    votes = scores.new_zeros(len(scores), int(labels.max()) + 1).scatter_add_(1, labels[indices], weights)
    return votes.argmax(1)


def _votes(scores: Tensor, indices: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What the 10, 1 and 15 nearest of those given vote for, each as `knn` has it."""
    return {name: _vote(scores[:, :k], indices[:, :k], labels) for name, k in (("knn", 10), ("knn1", 1), ("knn15", 15))}


def linear_probe(
    train: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    test: Float[Tensor, "m d"],
    *,
    penalty: float = 1e-2,
    max_iter: int = 200,
) -> Int64[Tensor, " m"]:
    """The labels that multinomial logistic regression predicts: mean cross-entropy + penalty/2 · ‖W‖², on features standardised
    by the training part. The features are numbers by now: nothing can reach the backbone. `penalty` is fixed, not tuned."""
    mean, std = train.mean(0), train.std(0).clamp_min(1e-6)
    probe = LogisticRegression(C=1 / (penalty * len(train)), max_iter=max_iter, tol=1e-3)
    probe.fit(((train - mean) / std).numpy(force=True), labels.numpy(force=True))
    return torch.as_tensor(probe.predict(((test - mean) / std).numpy(force=True)), device=test.device)


def accuracy(predicted: Int64[Tensor, " m"], labels: Int64[Tensor, " m"]) -> float:
    return (predicted == labels).double().mean().item()


def alignment(z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """E ‖z1 - z2‖² over positive pairs of features on the unit sphere; 0 is perfect (Wang & Isola 2020, α = 2)."""
    return (z1 - z2).square().sum(1).mean()


def uniformity(z: Float[Tensor, "n d"], *, t: float = 2.0) -> Float[Tensor, ""]:
    """log of the mean of exp(-t ‖z_i - z_j‖²) over i ≠ j, features on the unit sphere; lower is more uniform (Wang & Isola 2020)."""
    n = len(z)
    kernel = (-t * squared_distances(z)).fill_diagonal_(-math.inf)
    return kernel.logsumexp(1).logsumexp(0) - math.log(n * (n - 1))


@torch.no_grad()
def embed(
    model: nn.Module, images: UInt8[Tensor, "n c h w"], *, batch_size: int = 1024
) -> tuple[Float[Tensor, "n d_h"], Float[Tensor, "n d_z"]]:
    """Backbone and projected features (h, z) of images without augmentation, float32, in evaluation mode."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    pixels = (batch.to(device).float().div_(255).contiguous(memory_format=torch.channels_last) for batch in images.split(batch_size))
    parts = [model(x) for x in pixels]
    model.train(training)
    h, z = zip(*parts, strict=True)
    return torch.cat(h), torch.cat(z)


def feature_scores(
    train: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], test: Float[Tensor, "m d"], test_labels: Int64[Tensor, " m"]
) -> dict[str, float]:
    """Accuracy of k-NN under either metric, k = 10, 1 and 15: for features that are compared as they are."""
    metrics: tuple[Metric, ...] = ("cosine", "euclidean")
    found = {name: _nearest(train, test, min(15, len(train)), name) for name in metrics}
    predicted = {f"{knn}_{name}": votes for name, near in found.items() for knn, votes in _votes(*near, labels).items()}
    return {name: accuracy(votes, test_labels) for name, votes in predicted.items()}


def backbone_scores(
    train: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], test: Float[Tensor, "m d"], test_labels: Int64[Tensor, " m"]
) -> dict[str, float]:
    """Accuracy as the field reports a backbone: k-NN by cosine with k = 10, 1, 15 and weighted (k = 200, T = 0.1), and the linear probe."""
    cosines, indices = _nearest(train, test, min(200, len(train)), "cosine")
    predictions = {
        **{f"{name}_cosine": votes for name, votes in _votes(cosines, indices, labels).items()},
        "knn_weighted": _vote(cosines, indices, labels, 0.1),
        "linear_probe": linear_probe(train, labels, test),
    }
    return {name: accuracy(predicted, test_labels) for name, predicted in predictions.items()}


def cyclic_order(z: Float[Tensor, "m 2"]) -> Int64[Tensor, " m"]:
    """The points in the order in which they are met on going round their centroid, from point 0 on and towards the smaller of its two
    neighbors: the same for every rotation and reflection, so (m-1)!/2 values for m ≥ 3."""
    x, y = (z - z.mean(0)).T
    order = torch.atan2(y, x).argsort()
    order = order.roll(-int((order == 0).nonzero()))
    return order if order[1] <= order[-1] else torch.cat([order[:1], order[1:].flip(0)])


def preserves_order(z: Float[Tensor, "m 2"]) -> bool:
    """Whether points that were numbered along a line keep their neighbors on the circle: 0, 1, …, m-1, in either sense. Coinciding
    points (to 1e-6 of the largest distance) are in no order."""
    distances = torch.pdist(z)
    return bool(distances.min() > 1e-6 * distances.max()) and torch.equal(cyclic_order(z), torch.arange(len(z)))


def lipschitz(x: Float[Tensor, "m d"], z: Float[Tensor, "*batch m d_z"]) -> Float[Tensor, "*batch"]:
    """The expected Lipschitz constant over a finite set, exactly: the mean over i < j of ‖z_i - z_j‖ / ‖x_i - x_j‖ (distances not squared).

    Over component means; over raw samples E 1/‖x - x'‖ is infinite for d = 1. Raises `ValueError` where two x coincide, or for m < 2.
    """
    if len(x) < 2 or x.shape[0] != z.shape[-2]:
        raise ValueError(f"x and z must hold the same m ≥ 2 points, got {tuple(x.shape)} and {tuple(z.shape)}")
    i, j = torch.triu_indices(len(x), len(x), 1)
    distance = (x[i] - x[j]).norm(dim=1)
    if not (distance > 0).all():
        raise ValueError("x must be distinct points: between equal ones there is no slope")
    return ((z[..., i, :] - z[..., j, :]).norm(dim=-1) / distance).mean(-1)


def placement_rank(x: Float[Tensor, "m d"], z: Float[Tensor, "m d_z"]) -> float:
    """The share of all m! assignments of the points x to the places z with a smaller `lipschitz` than the one at hand: 0 is the smoothest,
    and the expectation over random assignments is about 1/2. Raises `ValueError` for m > 9."""
    if len(x) > 9:
        raise ValueError(f"x must hold at most 9 points, got {len(x)}: all {len(x)}! assignments are computed")
    i, j = torch.triu_indices(len(x), len(x), 1)
    slopes, distances = 1 / (x[i] - x[j]).norm(dim=1), torch.cdist(z, z)
    assignments = _assignments(len(x))
    total = sum(slope * distances[assignments[a], assignments[b]] for slope, a, b in zip(slopes, i, j, strict=True))
    assert isinstance(total, Tensor)
    return (total < total[0] * (1 - 1e-9)).double().mean().item()


@lru_cache
def _assignments(m: int) -> Int64[Tensor, "m f"]:
    """The m! permutations as columns, the identity first."""
    return torch.tensor(list(itertools.permutations(range(m)))).T.contiguous()


def lipschitz_monte_carlo(
    f: Callable[[Tensor], Tensor], x1: Float[Tensor, "n d"], x2: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The mean of ‖f(x) - f(x')‖ / ‖x - x'‖ over n independent pairs (x, x'), and its standard error.

    Raises `ValueError` where a pair coincides, or for n < 2.
    """
    distance = (x1 - x2).norm(dim=1)
    if len(x1) < 2 or not (distance > 0).all():
        raise ValueError(f"x1 and x2 must be n ≥ 2 pairs of distinct points, got {len(x1)} pairs, {int((distance == 0).sum())} coinciding")
    ratio = (f(x1) - f(x2)).norm(dim=1) / distance
    return ratio.mean(), ratio.std() / len(x1) ** 0.5


def lipschitz_local(f: Callable[[Tensor], Tensor], x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """The largest singular value of the Jacobian of f at each x, which d Jacobian–vector products give in full; f acts on rows."""
    columns = [jvp(f, (x,), (direction.expand_as(x),))[1] for direction in torch.eye(x.shape[1], dtype=x.dtype, device=x.device)]
    return torch.linalg.matrix_norm(torch.stack(columns, 2), ord=2)


def class_similarity(features: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]) -> Float[Tensor, "k k"]:
    """S_ab: the mean cosine between a sample of class a and one of class b, after the mean of all samples is subtracted.

    The diagonal holds every sample with itself, and is not meant to be used. Raises `ValueError` for a class without a sample.
    """
    counts = labels.bincount()
    if not (counts > 0).all():
        raise ValueError(f"labels must cover 0..{len(counts) - 1}, got none of class {int(counts.argmin())}")
    u = F.normalize(features.double() - features.double().mean(0), dim=1)
    means = component_means(u, labels.to(u.device), len(counts))
    return means @ means.T


def group_contrast(similarity: Float[Tensor, "k k"], groups: Int64[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
    """The mean similarity of two classes of one group, minus that of all other pairs; the diagonal is left out.

    `groups`: the group of each class, negative for none. Raises `ValueError` where there is no pair of either kind.
    """
    k = len(similarity)
    i, j = torch.triu_indices(k, k, 1)
    within = (groups[..., i] == groups[..., j]) & (groups[..., i] >= 0)
    if not (within.any(-1) & ~within.all(-1)).all():
        raise ValueError(f"groups must put two classes into one group and not all into one, got {groups.tolist()}")
    pairs, weights = similarity[i, j], within.to(similarity.dtype)
    return weights @ pairs / weights.sum(-1) - (1 - weights) @ pairs / (1 - weights).sum(-1)


def regroupings(groups: Int64[Tensor, " k"], *, at_most: int = 10_000, seed: int = 0) -> Int64[Tensor, "r k"]:
    """Every way to deal the same group labels to the classes, the given one first; of more than `at_most` that many, at random."""
    number = math.factorial(len(groups))
    for count in groups.unique(return_counts=True)[1].tolist():
        number //= math.factorial(count)
    if number <= at_most:
        dealt = {tuple(groups.tolist()): None} | dict.fromkeys(_distinct_permutations(sorted(groups.tolist())))
        return torch.tensor(list(dealt))
    rng = np.random.default_rng(seed)
    return torch.cat([groups[None], torch.from_numpy(rng.permuted(groups.repeat(at_most - 1, 1).numpy(), axis=1))])


def _distinct_permutations(items: list[int]) -> Iterator[tuple[int, ...]]:
    if not items:
        yield ()
    for first in dict.fromkeys(items):
        rest = items.copy()
        rest.remove(first)
        yield from ((first, *others) for others in _distinct_permutations(rest))
