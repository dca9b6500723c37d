"""What frozen features are worth: nearest neighbors, a linear probe, alignment and uniformity."""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int64, UInt8
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from .losses import squared_distances

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
    """Accuracy of k-NN, k = 10, under either metric: for features that are compared as they are."""
    metrics: tuple[Metric, ...] = ("cosine", "euclidean")
    return {f"knn_{name}": accuracy(knn(train, labels, test, k=min(10, len(train)), metric=name), test_labels) for name in metrics}


def backbone_scores(
    train: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], test: Float[Tensor, "m d"], test_labels: Int64[Tensor, " m"]
) -> dict[str, float]:
    """Accuracy as the field reports a backbone: k-NN by cosine with k = 10 and weighted (k = 200, T = 0.1), and the linear probe."""
    cosines, indices = _nearest(train, test, min(200, len(train)), "cosine")
    predictions = {
        "knn_cosine": _vote(cosines[:, :10], indices[:, :10], labels),
        "knn_weighted": _vote(cosines, indices, labels, 0.1),
        "linear_probe": linear_probe(train, labels, test),
    }
    return {name: accuracy(predicted, test_labels) for name, predicted in predictions.items()}
