"""What frozen features are worth and how they lie: nearest neighbors, a linear probe, alignment and uniformity, order and Lipschitz
constants, similarities of classes and of groups of classes.

Errors, the same for every function here: `TypeError` for features that are no floating-point tensor
and labels that are no integer tensor (of any width); `ValueError` for features that are not (n, d),
not finite, or so large that squares overflow, and for labels that are negative or not one for each
row. float16 and bfloat16 features are computed in float32.
"""

import itertools
import math
import numbers
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer, UInt8
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.func import jvp
from torch.nn import functional as F

from .losses import _holds, squared_distances
from .theory import component_means

Metric = Literal["cosine", "euclidean"]


def knn(
    train: Float[Tensor, "n d"],
    labels: Integer[Tensor, " n"],
    test: Float[Tensor, "m d"],
    *,
    k: int = 10,
    metric: Metric = "cosine",
    temperature: float | None = None,
    chunk: int = 2048,
) -> Int64[Tensor, " m"]:
    """The labels that the k nearest training features vote for; equal votes go to the smaller label.

    `temperature` weighs each vote by exp(cosine similarity / temperature) (the field's form: k=200, T=0.1), else votes are equal.
    A row of zeros has cosine 0 with every other. Exact: all distances are computed, `chunk` test
    rows at a time, m·n·d operations and chunk·n memory. Raises `ValueError` for k outside 1..n, an
    unknown metric, features of different width, a temperature that is not positive, weights under
    the Euclidean metric, or a chunk below 1; else what the module says.
    """
    train, labels, test = _training_and_test(train, labels, test)
    if not (isinstance(k, numbers.Integral) and 1 <= k <= len(train)):
        raise ValueError(f"k must be in 1..{len(train)}, the number of training features, got {k}")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be 'cosine' or 'euclidean', got {metric!r}")
    if temperature is not None and (metric != "cosine" or not temperature > 0):
        raise ValueError(f"temperature must be positive and the metric cosine, got {temperature} and {metric!r}")
    if not (isinstance(chunk, numbers.Integral) and chunk >= 1):
        raise ValueError(f"chunk must be a whole number of test rows from 1, got {chunk}")
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
    classes, columns = labels.unique(return_inverse=True)  # ascending, so that the first of equal votes is the smaller label
    weights = torch.ones_like(scores)
    if temperature is not None:
        # Relative to each row's best, whose vote is then 1: relative to anything else, all may
        # underflow to 0.
        below_best = scores - scores[:, :1]
        weights = (below_best / max(temperature, torch.finfo(scores.dtype).tiny)).exp()
    votes = scores.new_zeros(len(scores), len(classes)).scatter_add_(1, columns[indices], weights)
    return classes[votes.argmax(1)]


def _votes(scores: Tensor, indices: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What the 10, 1 and 15 nearest of those given vote for, each as `knn` has it."""
    return {name: _vote(scores[:, :k], indices[:, :k], labels) for name, k in (("knn", 10), ("knn1", 1), ("knn15", 15))}


def linear_probe(
    train: Float[Tensor, "n d"],
    labels: Integer[Tensor, " n"],
    test: Float[Tensor, "m d"],
    *,
    penalty: float = 1e-2,
    max_iter: int = 200,
) -> Int64[Tensor, " m"]:
    """The labels that multinomial logistic regression predicts: mean cross-entropy + penalty/2 · ‖W‖², on features standardised
    by the training part. The features are numbers by now: nothing can reach the backbone. `penalty`
    is fixed, not tuned.

    Raises `ValueError` for labels of one class only, a penalty that is not positive and finite, or
    `max_iter` below 1; else what the module says.
    """
    train, labels, test = _training_and_test(train, labels, test)
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalty must be positive and finite, got {penalty}")
    if not (isinstance(max_iter, numbers.Integral) and max_iter >= 1):
        raise ValueError(f"max_iter must be a whole number from 1, got {max_iter}")
    if (labels == labels[0]).all():
        raise ValueError(f"labels must be of two classes or more, or there is nothing to tell apart: got {int(labels[0])} alone")
    mean, std = train.mean(0), train.std(0).clamp_min(1e-6)
    probe = LogisticRegression(C=1 / (penalty * len(train)), max_iter=max_iter, tol=1e-3)
    probe.fit(((train - mean) / std).numpy(force=True), labels.numpy(force=True))
    return torch.as_tensor(probe.predict(((test - mean) / std).numpy(force=True)), device=test.device)


def accuracy(predicted: Integer[Tensor, " m"], labels: Integer[Tensor, " m"]) -> float:
    """The share of equal entries. Raises as the module says, and `ValueError` for none."""
    predicted = checked_labels("predicted", predicted)
    labels = checked_labels("labels", labels, predicted, of="predicted")
    if len(labels) == 0:
        raise ValueError("labels must hold one or more, got none: of no predictions there is no accuracy")
    return (predicted == labels).double().mean().item()


def alignment(z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """E ‖z1 - z2‖² over positive pairs of features on the unit sphere; 0 is perfect (Wang & Isola
    2020, α = 2).

    Raises as the module says, and `ValueError` for views of two shapes.
    """
    z1, z2 = checked_features("z1", z1), checked_features("z2", z2)
    if z1.shape != z2.shape:
        raise ValueError(f"z1 and z2 must have the same shape (n, d), got {tuple(z1.shape)} and {tuple(z2.shape)}")
    return (z1 - z2).square().sum(1).mean()


def uniformity(z: Float[Tensor, "n d"], *, t: float = 2.0) -> Float[Tensor, ""]:
    """log of the mean of exp(-t ‖z_i - z_j‖²) over i ≠ j, features on the unit sphere; lower is
    more uniform (Wang & Isola 2020).

    Raises as the module says, and `ValueError` for n < 2 or a t that is not positive and finite.
    """
    z = checked_features("z", z, least=2)
    if not 0 < t < math.inf:
        raise ValueError(f"t must be positive and finite, got {t}")
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
    train: Float[Tensor, "n d"], labels: Integer[Tensor, " n"], test: Float[Tensor, "m d"], test_labels: Integer[Tensor, " m"]
) -> dict[str, float]:
    """Accuracy of k-NN under either metric, k = 10, 1 and 15: for features that are compared as
    they are.

    Raises as the module says.
    """
    train, labels, test = _training_and_test(train, labels, test)
    test_labels = checked_labels("test_labels", test_labels, test, of="test")
    metrics: tuple[Metric, ...] = ("cosine", "euclidean")
    found = {name: _nearest(train, test, min(15, len(train)), name) for name in metrics}
    predicted = {f"{knn}_{name}": votes for name, near in found.items() for knn, votes in _votes(*near, labels).items()}
    return {name: accuracy(votes, test_labels) for name, votes in predicted.items()}


def backbone_scores(
    train: Float[Tensor, "n d"], labels: Integer[Tensor, " n"], test: Float[Tensor, "m d"], test_labels: Integer[Tensor, " m"]
) -> dict[str, float]:
    """Accuracy as the field reports a backbone: k-NN by cosine with k = 10, 1, 15 and weighted (k =
    200, T = 0.1), and the linear probe.

    Raises as the module and `linear_probe` say.
    """
    train, labels, test = _training_and_test(train, labels, test)
    test_labels = checked_labels("test_labels", test_labels, test, of="test")
    cosines, indices = _nearest(train, test, min(200, len(train)), "cosine")
    predictions = {
        **{f"{name}_cosine": votes for name, votes in _votes(cosines, indices, labels).items()},
        "knn_weighted": _vote(cosines, indices, labels, 0.1),
        "linear_probe": linear_probe(train, labels, test),
    }
    return {name: accuracy(predicted, test_labels) for name, predicted in predictions.items()}


def cyclic_order(z: Float[Tensor, "m 2"]) -> Int64[Tensor, " m"]:
    """The points in the order in which they are met on going round their centroid, from point 0 on and towards the smaller of its two
    neighbors: the same for every rotation and reflection, so (m-1)!/2 values for m ≥ 3.

    Raises as the module says, and `ValueError` for what is not in the plane, or m < 2.
    """
    z = _in_the_plane(z)
    x, y = (z - z.mean(0)).T
    order = torch.atan2(y, x).argsort()
    order = order.roll(-int((order == 0).nonzero()))
    return order if order[1] <= order[-1] else torch.cat([order[:1], order[1:].flip(0)])


def preserves_order(z: Float[Tensor, "m 2"]) -> bool:
    """Whether points that were numbered along a line keep their neighbors on the circle: 0, 1, …, m-1, in either sense. Coinciding
    points (to 1e-6 of the largest distance) are in no order. Raises as `cyclic_order`."""
    z = _in_the_plane(z)
    distances = torch.pdist(z)
    natural = torch.arange(len(z), device=z.device)
    return bool(distances.min() > 1e-6 * distances.max()) and torch.equal(cyclic_order(z), natural)


def lipschitz(x: Float[Tensor, "m d"], z: Float[Tensor, "*batch m d_z"]) -> Float[Tensor, "*batch"]:
    """The expected Lipschitz constant over a finite set, exactly: the mean over i < j of ‖z_i - z_j‖ / ‖x_i - x_j‖ (distances not squared).

    Over component means; over raw samples E 1/‖x - x'‖ is infinite for d = 1. Raises `ValueError`
    where two x coincide, or for m < 2; else what the module says.
    """
    x, z = checked_features("x", x), checked_features("z", z, batched=True)
    if len(x) < 2 or x.shape[0] != z.shape[-2]:
        raise ValueError(f"x and z must hold the same m ≥ 2 points, got {tuple(x.shape)} and {tuple(z.shape)}")
    i, j = torch.triu_indices(len(x), len(x), 1)
    return ((z[..., i, :] - z[..., j, :]).norm(dim=-1) / _distances(x, i, j)).mean(-1)


def _distances(x: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """‖x_i - x_j‖ of pairs, all above 0."""
    distance = (x[i] - x[j]).norm(dim=1)
    if not (distance > 0).all():
        raise ValueError("x must be distinct points: between equal ones there is no slope")
    return distance


def placement_rank(x: Float[Tensor, "m d"], z: Float[Tensor, "m d_z"]) -> float:
    """The share of all m! assignments of the points x to the places z with a smaller `lipschitz` than the one at hand: 0 is the smoothest,
    and the expectation over random assignments is about 1/2. Raises `ValueError` for m > 9, and as
    `lipschitz`."""
    x, z = checked_features("x", x, least=2), checked_features("z", z, least=2)
    if len(x) > 9:
        raise ValueError(f"x must hold at most 9 points, got {len(x)}: all {len(x)}! assignments are computed")
    if len(x) != len(z):
        raise ValueError(f"x and z must hold the same m ≥ 2 points, got {tuple(x.shape)} and {tuple(z.shape)}")
    i, j = torch.triu_indices(len(x), len(x), 1)
    slopes, distances = 1 / _distances(x, i, j), torch.cdist(z, z)
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

    f sees the points as they are given. Raises `ValueError` where a pair coincides, or for n < 2;
    else what the module says, of f(x) too.
    """
    a, b = checked_features("x1", x1), checked_features("x2", x2)
    if a.shape != b.shape:
        raise ValueError(f"x1 and x2 must have the same shape (n, d), got {tuple(a.shape)} and {tuple(b.shape)}")
    distance = (a - b).norm(dim=1)
    if len(a) < 2 or not (distance > 0).all():
        raise ValueError(f"x1 and x2 must be n ≥ 2 pairs of distinct points, got {len(a)} pairs, {int((distance == 0).sum())} coinciding")
    ratio = (checked_features("f(x1)", f(x1)) - checked_features("f(x2)", f(x2))).norm(dim=1) / distance
    return ratio.mean(), ratio.std() / len(a) ** 0.5


def lipschitz_local(f: Callable[[Tensor], Tensor], x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """The largest singular value of the Jacobian of f at each x, which d Jacobian–vector products
    give in full; f acts on rows.

    f sees the points as they are given. Raises as the module says, of the products too.
    """
    checked_features("x", x)
    directions = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    columns = [checked_features("f's slope at x", jvp(f, (x,), (direction.expand_as(x),))[1]) for direction in directions]
    return torch.linalg.matrix_norm(torch.stack(columns, 2), ord=2)


def class_similarity(features: Float[Tensor, "n d"], labels: Integer[Tensor, " n"]) -> Float[Tensor, "k k"]:
    """S_ab: the mean cosine between a sample of class a and one of class b, after the mean of all samples is subtracted.

    The diagonal holds every sample with itself, and is not meant to be used. Raises `ValueError`
    for a class without a sample; else what the module says.
    """
    features = checked_features("features", features)
    labels = checked_labels("labels", labels, features, of="features")
    classes = labels.unique()
    absent = (classes != torch.arange(len(classes), device=classes.device)).nonzero()
    if len(absent):
        raise ValueError(f"labels must cover 0..{int(classes[-1])}, got none of class {int(absent[0])}")
    u = F.normalize(features.double() - features.double().mean(0), dim=1)
    means = component_means(u, labels, len(classes))
    return means @ means.T


def group_contrast(similarity: Float[Tensor, "k k"], groups: Integer[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
    """The mean similarity of two classes of one group, minus that of all other pairs; the diagonal is left out.

    `groups`: the group of each class, negative for none. Raises `ValueError` where there is no pair
    of either kind, or for groups that are not one for each class; else what the module says.
    """
    similarity = checked_features("similarity", similarity)
    k = len(similarity)
    if similarity.shape[1] != k or groups.shape[-1:] != (k,):
        shapes = f"{tuple(similarity.shape)} and {tuple(groups.shape)}"
        raise ValueError(f"similarity must be square, (k, k), and groups one number for each of its k classes, got {shapes}")
    groups = _whole_numbers("groups", groups).to(similarity.device)
    i, j = torch.triu_indices(k, k, 1)
    within = (groups[..., i] == groups[..., j]) & (groups[..., i] >= 0)
    if not (within.any(-1) & ~within.all(-1)).all():
        raise ValueError(f"groups must put two classes into one group and not all into one, got {groups.tolist()}")
    pairs, weights = similarity[i, j], within.to(similarity.dtype)
    return weights @ pairs / weights.sum(-1) - (1 - weights) @ pairs / (1 - weights).sum(-1)


def regroupings(groups: Integer[Tensor, " k"], *, at_most: int = 10_000, seed: int = 0) -> Int64[Tensor, "r k"]:
    """Every way to deal the same group labels to the classes, the given one first; of more than
    `at_most` that many, at random.

    Raises `TypeError` for groups that are no integer tensor, `ValueError` for groups that are not
    (k,), k ≥ 1, or `at_most` below 1.
    """
    groups = _whole_numbers("groups", groups).cpu()
    if groups.ndim != 1 or len(groups) == 0:
        raise ValueError(f"groups must have shape (k,) with k >= 1, one number for each class, got {tuple(groups.shape)}")
    if at_most < 1:
        raise ValueError(f"at_most must be at least 1, the given grouping, got {at_most}")
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


def _training_and_test(train: Any, labels: Any, test: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Features and labels, checked and on one device."""
    train, test = checked_features("train", train), checked_features("test", test)
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"train and test must have one width, got {train.shape[1]} and {test.shape[1]}")
    return train, checked_labels("labels", labels, train, of="train"), test


def checked_features(name: str, z: Any, *, least: int = 1, batched: bool = False) -> Tensor:
    """z, checked, in at least float32: (n, d), n ≥ `least`, behind any number of further axes if
    `batched`."""
    if not isinstance(z, Tensor):
        raise TypeError(f"{name} must be a floating-point tensor, got {type(z).__name__}: convert it with torch.as_tensor")
    if not z.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {z.dtype}: convert it with .float()")
    if z.ndim < 2 or (z.ndim > 2 and not batched) or z.shape[-2] < least or z.shape[-1] < 1:
        raise ValueError(f"{name} must have shape (n, d) with n >= {least} and d >= 1, got {tuple(z.shape)}")
    z = z.float() if z.dtype.itemsize < 4 else z
    # What is computed from features are squares of differences, and their sums.
    if not _holds((2 * torch.linalg.vector_norm(z.detach())).square().isfinite()):
        raise ValueError(_not_finite(name, z))
    return z


def _not_finite(name: str, z: Tensor) -> str:
    bad = (~z.isfinite()).any(-1).flatten()
    if bad.any():
        first, count = int(bad.nonzero()[0]), int(bad.sum())
        found = f"NaN or infinity in {count} of {len(bad)} rows, first in row {first}"
        return f"{name} must be finite, got {found}: look for it in what made the features, or leave such rows out"
    largest = z.abs().max().item()
    return f"{name} holds entries up to {largest:.3g}, whose squares overflow {z.dtype}: scale it, or convert it with .double()"


def _in_the_plane(z: Any) -> Tensor:
    z = checked_features("z", z)
    if z.shape[1] != 2 or len(z) < 2:
        raise ValueError(f"z must have shape (m, 2), m >= 2 points in the plane, got {tuple(z.shape)}")
    return z


def checked_labels(name: str, labels: Any, rows: Tensor | None = None, *, of: str = "") -> Int64[Tensor, " n"]:
    """Labels, checked, as int64: with `rows`, one for each of them and on their device."""
    labels = _whole_numbers(name, labels)
    if labels.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), got {tuple(labels.shape)}: pass class numbers, not one-hot rows")
    if rows is not None and len(labels) != len(rows):
        raise ValueError(f"{name} must be one for each row of {of}, {len(rows)}, got {len(labels)}")
    if (labels < 0).any():
        negative = int((labels < 0).sum())
        raise ValueError(f"{name} must be class numbers from 0, got {int(labels.min())}: leave the {negative} negative ones out")
    return labels if rows is None else labels.to(rows.device)


def _whole_numbers(name: str, values: Any) -> Tensor:
    """As int64, whatever their width."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be an integer tensor, got {type(values).__name__}: convert it with torch.as_tensor")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{name} must be an integer tensor, got {values.dtype}: convert it with .long()")
    return values.long()
