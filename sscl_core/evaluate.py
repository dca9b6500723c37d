"""What frozen features are worth: nearest neighbors and a linear probe. And how they lie: alignment
and uniformity, Lipschitz constants, similarities of classes.

Errors are the same for every function here. `TypeError`: features that are no floating-point
tensor, labels that are no integer tensor (of any width). `ValueError`: features that are not
(n, d), not finite, or so large that squares overflow; labels that are negative, or not one for each
row. float16 and bfloat16 features are computed in float32.
"""

import math
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from . import checks
from .checks import Metric, checked_features, checked_labels
from .similarities import squared_distances

METRICS: tuple[Metric, ...] = ("cosine", "euclidean")
CHUNK = 2048  # test rows of one product with all training rows
AT_A_TIME = 64  # of them that are searched together, in the cache
LONGER = 100  # the center of the rows than the shortest of them, for one product to serve both


def component_means(
    u: Float[Tensor, "n d"], labels: Integer[Tensor, " n"], m: int
) -> Float[Tensor, "m d"]:
    """The mean feature of each of m components.

    `ValueError` unless every one of them occurs in `labels`. Else what the module says.
    """
    u = checked_features("u", u)
    labels = checked_labels("labels", labels, u, of="u")
    checks.check_whole("m", m, 1)
    found = labels.unique().tolist()
    if found != list(range(m)):
        raise ValueError(f"labels must be 0..{m - 1}, each at least once, got {found}: change m")
    sums = torch.zeros(m, u.shape[1], dtype=u.dtype, device=u.device).index_add(0, labels, u)
    return sums / labels.bincount(minlength=m)[:, None]


def knn(
    train: Float[Tensor, "n d"],
    labels: Integer[Tensor, " n"],
    test: Float[Tensor, "m d"],
    *,
    k: int = 10,
    metric: Metric = "cosine",
    temperature: float | None = None,
    chunk: int = CHUNK,
) -> Int64[Tensor, " m"]:
    """The labels that the k nearest training features vote for.

    Equal votes go to the smaller label. `temperature` weighs each vote by
    exp(cosine similarity / temperature), as the field does with k = 200 and T = 0.1; without it
    votes are equal. A row of zeros has cosine 0 with every other. Exact: all distances are
    computed, `chunk` test rows at a time, m·n·d operations and chunk·n memory. Of neighbors whose
    distances differ by less than rounding (float32's for float32 features) either may be the
    nearer; the same call has the same answer.

    `ValueError`: k outside 1..n, an unknown metric, features of different width, a temperature that
    is not positive, weights under the Euclidean metric, a chunk below 1. Else what the module says.
    """
    train, labels, test = _training_and_test(train, labels, test)
    _check_knn(len(train), k, metric, temperature, chunk)
    return _vote(*_nearest(train, test, k, metric, chunk), labels, temperature)


def _check_knn(n: int, k: Any, metric: Any, temperature: float | None, chunk: Any) -> None:
    if not (isinstance(k, numbers.Integral) and 1 <= k <= n):  # type: ignore[operator]
        raise ValueError(f"k must be in 1..{n}, the number of training features, got {k}")
    if metric not in METRICS:
        raise ValueError(f"metric must be 'cosine' or 'euclidean', got {metric!r}")
    if temperature is not None and (metric != "cosine" or not temperature > 0):
        raise ValueError(
            f"temperature must be positive and the metric cosine, got {temperature} and {metric!r}"
        )
    if not (isinstance(chunk, numbers.Integral) and chunk >= 1):  # type: ignore[operator]
        raise ValueError(f"chunk must be a whole number of test rows from 1, got {chunk}")


@torch.no_grad()
def _nearest(
    train: Tensor, test: Tensor, k: int, metric: Metric, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Scores, best first, and indices (m, k) of the k nearest training rows.

    Scores are cosines, or x·y - ‖y‖²/2 of centred rows, which differs from -‖x - y‖²/2 by a number
    for each x.
    """
    if metric == "cosine":
        train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
        offset = train.new_zeros(())
    else:
        center = train.mean(0)
        train, test = train - center, test - center
        offset = -train.square().sum(1) / 2
    parts = []
    for products in _products(test, train, chunk):
        parts += [_largest(part.add_(offset), k) for part in products.split(AT_A_TIME)]
    return _joined(parts)


@torch.no_grad()
def _nearest_by_both(
    train: Tensor, test: Tensor, k: int, chunk: int = CHUNK
) -> dict[Metric, tuple[Tensor, Tensor]]:
    """`_nearest` by either metric, from one product of the centred rows x - c and y - c.

    x·y = (x - c)·(y - c) + c·(y - c) + x·c, and so cosines follow from it. A row far shorter than c
    would lose digits by that: where there is one, each metric has a product of its own.
    """
    norms, test_norms = train.norm(dim=1), test.norm(dim=1)
    center = train.mean(0)
    shortest = torch.minimum(norms.min(), test_norms.min())
    if shortest <= center.norm() / LONGER:
        return {metric: _nearest(train, test, k, metric, chunk) for metric in METRICS}
    shifted, shifted_test = train - center, test - center
    offset = -shifted.square().sum(1) / 2
    of_train, of_test = shifted @ center, (test @ center)[:, None]
    found: dict[Metric, list[tuple[Tensor, Tensor]]] = {metric: [] for metric in METRICS}
    blocks = zip(_products(shifted_test, shifted, chunk), of_test.split(chunk), strict=True)
    for products, own in blocks:
        for part, x in zip(products.split(AT_A_TIME), own.split(AT_A_TIME), strict=True):
            found["euclidean"].append(_largest(part + offset, k))
            found["cosine"].append(_largest(part.add_(of_train).add_(x).div_(norms), k))
    nearest = {metric: _joined(parts) for metric, parts in found.items()}
    along, indices = nearest["cosine"]
    return nearest | {"cosine": (along / test_norms[:, None], indices)}


def _products(rows: Tensor, train: Tensor, chunk: int) -> Iterator[Tensor]:
    """rows · trainᵀ, `chunk` rows at a time, all in the same memory: it is overwritten."""
    memory = train.new_empty(min(chunk, len(rows)), len(train))
    for part in rows.split(chunk):
        yield torch.mm(part, train.T, out=memory[: len(part)])


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`scores.topk(k)`, and faster where k is small beside the number n of columns.

    Columns are put into groups. The k groups of largest maxima hold the k largest scores, so these
    are sought among k √(n/k) candidates only.
    """
    n = scores.shape[1]
    size = math.isqrt(n // k)
    count = n // size
    if size < 4:
        return scores.topk(k)
    grouped = scores[:, : size * count].unflatten(1, (size, count))
    best = grouped.amax(1).topk(k, sorted=False).indices[:, None].expand(-1, size, -1)
    first = count * torch.arange(size, device=scores.device)[:, None]
    rest = torch.arange(size * count, n, device=scores.device).expand(len(scores), -1)
    columns = torch.cat([(best + first).flatten(1), rest], 1)
    values, places = scores.gather(1, columns).topk(k)
    return values, columns.gather(1, places)


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    scores, indices = zip(*parts, strict=True)
    return torch.cat(scores), torch.cat(indices)


def _vote(
    scores: Tensor, indices: Tensor, labels: Tensor, temperature: float | None = None
) -> Int64[Tensor, " m"]:
    # Ascending, so that the first of equal votes is the smaller label.
    classes, columns = labels.unique(return_inverse=True)
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
    counts = {"knn": 10, "knn1": 1, "knn15": 15}
    return {name: _vote(scores[:, :k], indices[:, :k], labels) for name, k in counts.items()}


def linear_probe(
    train: Float[Tensor, "n d"],
    labels: Integer[Tensor, " n"],
    test: Float[Tensor, "m d"],
    *,
    penalty: float = 1e-2,
    tolerance: float = 3e-4,
    max_iter: int = 1000,
) -> Int64[Tensor, " m"]:
    """The labels that multinomial logistic regression predicts.

    It minimises  mean cross-entropy + penalty/2 · ‖W‖²  on features standardised by the training
    part. They are numbers by now: nothing can reach the backbone. `penalty` is fixed, not tuned.
    L-BFGS, in coordinates in which the Hessian is near the identity, stops where no entry of the
    gradient exceeds `tolerance`. It works in the precision of the features, and in float64
    from where rounding stops it.

    `ValueError`: labels of one class only, a penalty or a tolerance that is not positive and
    finite, `max_iter` below 1. `RuntimeError`: not there after `max_iter` steps in either
    precision. Else what the module says.
    """
    train, labels, test = _training_and_test(train, labels, test)
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalty must be positive and finite, got {penalty}")
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be positive and finite, got {tolerance}")
    if not (isinstance(max_iter, numbers.Integral) and max_iter >= 1):
        raise ValueError(f"max_iter must be a whole number from 1, got {max_iter}")
    classes, columns = labels.unique(return_inverse=True)
    if len(classes) == 1:
        raise ValueError(
            "labels must be of two classes or more, or there is nothing to tell apart: "
            f"got {int(labels[0])} alone"
        )
    mean, std = train.mean(0), _spread(train)
    one_hot = F.one_hot(columns, len(classes)).T.to(train.dtype)
    x = _with_one((train - mean) / std)
    weights = _probe_weights(x, one_hot, penalty, tolerance, int(max_iter))
    return classes[(_with_one((test - mean) / std).to(weights.dtype) @ weights.T).argmax(1)]


def _spread(x: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """The standard deviation of each column, where that is not tiny beside the largest.

    At least a thousandth of that, or 1e-6 if that is less: a column that is constant but for
    rounding stays small.
    """
    std = x.std(0)
    least = (1e-3 * std.max()).clamp(torch.finfo(x.dtype).tiny, 1e-6)
    return std.clamp_min(least.item())


def _with_one(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d_plus_1"]:
    """The features and, for the intercept, a 1."""
    return torch.cat([x, x.new_ones(len(x), 1)], 1)


def _probe_weights(
    x: Float[Tensor, "n D"],
    one_hot: Float[Tensor, "k n"],
    penalty: float,
    tolerance: float,
    max_iter: int,
) -> Float[Tensor, "k D"]:
    start = np.zeros(one_hot.shape[0] * x.shape[1])
    for dtype in sorted({x.dtype, torch.float64}, key=lambda dtype: dtype.itemsize):
        weights, last, converged = _minimised(
            x.to(dtype), one_hot.to(dtype), start, penalty, tolerance, max_iter
        )
        if converged:
            return weights
        start = last
    raise RuntimeError(
        f"the probe has not converged after max_iter = {max_iter} steps: "
        "raise max_iter, or the penalty"
    )


def _minimised(
    x: Tensor, one_hot: Tensor, start: np.ndarray, penalty: float, tolerance: float, max_iter: int
) -> tuple[Tensor, np.ndarray, bool]:
    """Weights, the coordinates u that they come from, and whether the gradient at u is small.

    W = u L⁻¹ with  L Lᵀ = 0.1 xᵀx / n + penalty, about the Hessian: that of cross-entropy is
    between 0 and ¼ xᵀx / n. Without it, features whose variances differ take hundreds of steps.
    """
    from scipy.optimize import minimize  # a part of a second, for who needs no probe

    n, (k, width) = len(x), (len(one_hot), x.shape[1])
    x_t = x.T.contiguous()
    penalties = x.new_full((width,), penalty)
    hessian = 0.1 / n * (x_t @ x) + penalties.diag()
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if failed:
        return x, start, False
    penalties[-1] = 0  # the intercept's

    def weights_of(u: np.ndarray) -> Tensor:
        rows = torch.as_tensor(u, dtype=x.dtype, device=x.device).view(k, width)
        return torch.linalg.solve_triangular(factor, rows, upper=False, left=False)

    def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
        w = weights_of(u)
        logits = w @ x_t
        normaliser = logits.logsumexp(0)
        loss = (normaliser - (logits * one_hot).sum(0)).double().mean()
        value = loss + (penalties * w.square()).double().sum() / 2
        slope = ((logits - normaliser).exp() - one_hot) @ x / n + penalties * w
        at_u = torch.linalg.solve_triangular(factor.T, slope, upper=True, left=False)
        return value.item(), at_u.double().numpy(force=True).ravel()

    limits = {"maxiter": max_iter, "maxfun": 2 * max_iter, "gtol": tolerance, "ftol": 0.0}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=limits)
    return weights_of(found.x), found.x, bool(np.abs(found.jac).max() <= tolerance)


def accuracy(predicted: Integer[Tensor, " m"], labels: Integer[Tensor, " m"]) -> float:
    """The fraction of equal entries. Raises as the module says, and `ValueError` for none."""
    predicted = checked_labels("predicted", predicted)
    labels = checked_labels("labels", labels, predicted, of="predicted")
    if len(labels) == 0:
        raise ValueError(
            "labels must hold one or more, got none: of no predictions there is no accuracy"
        )
    return (predicted == labels).double().mean().item()


def alignment(z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """E ‖z1 - z2‖² over positive pairs of features on the unit sphere; 0 is perfect.

    Raises as the module says, and `ValueError` for views of two shapes.
    Source: Wang & Isola 2020, with α = 2.
    """
    z1, z2 = checked_features("z1", z1), checked_features("z2", z2)
    if z1.shape != z2.shape:
        shapes = f"{tuple(z1.shape)} and {tuple(z2.shape)}"
        raise ValueError(f"z1 and z2 must have the same shape (n, d), got {shapes}")
    return (z1 - z2).square().sum(1).mean()


def uniformity(z: Float[Tensor, "n d"], *, t: float = 2.0) -> Float[Tensor, ""]:
    """log of the mean of exp(-t ‖z_i - z_j‖²) over i ≠ j, for features on the unit sphere.

    Lower is more uniform. Raises as the module says, and `ValueError` for n < 2 or a t that is not
    positive and finite. Source: Wang & Isola 2020.
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
    """Backbone and projected features (h, z) of images, without augmentation.

    They are float32, computed in evaluation mode; the model's mode comes back afterwards.
    `TypeError` for images that are not bytes.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, bytes from 0 to 255, got {images.dtype}")
    device, training = next(model.parameters()).device, model.training
    model.eval()
    pixels = (
        batch.to(device).float().div_(255).contiguous(memory_format=torch.channels_last)
        for batch in images.split(batch_size)
    )
    try:
        parts = [model(x) for x in pixels]
    finally:
        model.train(training)
    h, z = zip(*parts, strict=True)
    return torch.cat(h), torch.cat(z)


def feature_scores(
    train: Float[Tensor, "n d"],
    labels: Integer[Tensor, " n"],
    test: Float[Tensor, "m d"],
    test_labels: Integer[Tensor, " m"],
) -> dict[str, float]:
    """Accuracy of k-NN under either metric, for k = 10, 1 and 15. Raises as the module says."""
    train, labels, test = _training_and_test(train, labels, test)
    test_labels = checked_labels("test_labels", test_labels, test, of="test")
    scores = {}
    for metric, nearest in _nearest_by_both(train, test, min(15, len(train))).items():
        for name, votes in _votes(*nearest, labels).items():
            scores[f"{name}_{metric}"] = accuracy(votes, test_labels)
    return scores


def backbone_scores(
    train: Float[Tensor, "n d"],
    labels: Integer[Tensor, " n"],
    test: Float[Tensor, "m d"],
    test_labels: Integer[Tensor, " m"],
) -> dict[str, float]:
    """Accuracy as the field reports a backbone.

    k-NN by cosine with k = 10, 1, 15; the same weighted, with k = 200 and T = 0.1; and the linear
    probe. Raises as the module and `linear_probe` say.
    """
    train, labels, test = _training_and_test(train, labels, test)
    test_labels = checked_labels("test_labels", test_labels, test, of="test")
    cosines, indices = _nearest(train, test, min(200, len(train)), "cosine")
    votes = _votes(cosines, indices, labels)
    predictions = {f"{name}_cosine": voted for name, voted in votes.items()}
    predictions["knn_weighted"] = _vote(cosines, indices, labels, 0.1)
    predictions["linear_probe"] = linear_probe(train, labels, test)
    return {name: accuracy(predicted, test_labels) for name, predicted in predictions.items()}


def lipschitz(x: Float[Tensor, "m d"], z: Float[Tensor, "*batch m d_z"]) -> Float[Tensor, "*batch"]:
    """The mean over i < j of ‖z_i - z_j‖ / ‖x_i - x_j‖, distances not squared.

    That is the expected Lipschitz constant over a finite set, exactly. It is meant for component
    means: over raw samples E 1/‖x - x'‖ is infinite for d = 1. `ValueError`: two x coincide, or
    m < 2. Else what the module says.
    """
    x, z = checked_features("x", x), checked_features("z", z, batched=True)
    if len(x) < 2 or x.shape[0] != z.shape[-2]:
        raise ValueError(
            f"x and z must hold the same m ≥ 2 points, got {tuple(x.shape)} and {tuple(z.shape)}"
        )
    i, j = torch.triu_indices(len(x), len(x), 1)
    moved = (z[..., i, :] - z[..., j, :]).norm(dim=-1)
    return (moved / distances_between(x, i, j)).mean(-1)


def distances_between(x: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """‖x_i - x_j‖ of pairs, all above 0."""
    distance = (x[i] - x[j]).norm(dim=1)
    if not (distance > 0).all():
        raise ValueError("x must be distinct points: between equal ones there is no slope")
    return distance


def class_similarity(
    features: Float[Tensor, "n d"], labels: Integer[Tensor, " n"]
) -> Float[Tensor, "k k"]:
    """S_ab: the mean cosine between a sample of class a and one of class b.

    The mean of all samples is subtracted first. The diagonal holds every sample with itself, and is
    not meant to be used. `ValueError`: a class without a sample. Else what the module says.
    """
    features = checked_features("features", features)
    labels = checked_labels("labels", labels, features, of="features")
    classes = labels.unique()
    absent = (classes != torch.arange(len(classes), device=classes.device)).nonzero()
    if len(absent):
        raise ValueError(
            f"labels must cover 0..{int(classes[-1])}, got none of class {int(absent[0])}"
        )
    u = F.normalize(features.double() - features.double().mean(0), dim=1)
    means = component_means(u, labels, len(classes))
    return means @ means.T


def _training_and_test(train: Any, labels: Any, test: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Features and labels, checked, of one precision and on the device of the former."""
    train, test = checked_features("train", train), checked_features("test", test)
    precision = torch.promote_types(train.dtype, test.dtype)
    train, test = train.to(precision), test.to(train.device, precision)
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            f"train and test must have one width, got {train.shape[1]} and {test.shape[1]}"
        )
    return train, checked_labels("labels", labels, train, of="train"), test
