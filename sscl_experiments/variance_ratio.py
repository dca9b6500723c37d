"""How wide the data are where groups do not differ, over how wide they are where groups do.

That ratio says which augmentation can harm: isotropic noise that is strong enough for the widest
direction erases all that are narrower. Without labels groups are sought by k-means.
"""

import numpy as np
import torch
from jaxtyping import Float, Integer
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from torch import Tensor

from .covariance_noise import whitening


def variance_ratio(x: Float[Tensor, "n d"], groups: Integer[Tensor, " n"]) -> float:
    """Variance along the widest direction outside the span of the groups' means, over the mean
    variance inside it.

    Of few points it is too small where it is large: means of a sample tilt towards wide directions.
    `ValueError`: the means span all directions, or there is one group only.
    """
    x = x.double()
    means = torch.stack([x[groups == group].mean(0) for group in groups.unique()])
    spanned = len(means) - 1
    if not 0 < spanned < x.shape[1]:
        rule = f"2..{x.shape[1]}, or nothing lies outside the span of their means"
        raise ValueError(f"groups must be in number {rule}, got {len(means)}")
    span = torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh[:spanned].T
    centred = x - x.mean(0)
    inside = (centred @ span).square().mean()
    outside = torch.linalg.svdvals(centred - centred @ span @ span.T)[0].square() / len(x)
    return (outside / inside).item()


def unlabelled_groups(
    x: Float[Tensor, "n d"], k: int, *, seed: int = 0
) -> tuple[Integer[Tensor, " n"], dict[str, float]]:
    """Groups by k-means, of the points as they are or whitened: those with the better silhouette.

    And the mean silhouette of either ("raw", "whitened"), each in its own coordinates. The first is
    blind to groups that a wide nuisance hides, the second to groups among many narrow directions.
    """
    spaces = {"raw": x.double(), "whitened": whitening(x.double())(x.double())}
    found: dict[str, np.ndarray] = {}
    silhouettes: dict[str, float] = {}
    for name, points in spaces.items():
        groups = KMeans(k, n_init=4, random_state=seed).fit_predict(points.numpy())
        found[name] = groups
        silhouettes[name] = float(silhouette_score(points.numpy(), groups))
    best = max(silhouettes, key=lambda name: silhouettes[name])
    return torch.from_numpy(found[best]).long(), silhouettes
