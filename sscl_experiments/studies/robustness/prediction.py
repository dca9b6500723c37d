"""What P of an augmentation says about a corruption, before any network is trained."""

from itertools import product

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from scipy import stats
from torch import Tensor

from sscl_core.augmentations import ImageViews
from sscl_core.config import ImageAugmentation
from sscl_core.corruptions import CONSTANTS, SEVERITIES, corrupted
from sscl_core.rng import EVALUATION, VIEWS, stream

VIEWED, VIEWS_EACH, FRESH = 100, 16, 4  # images, views that stand for P, and views to compare with
DRAWS = 2000


def covered(
    images: UInt8[Tensor, "n c h w"], augmentation: ImageAugmentation
) -> dict[tuple[str, int], float]:
    """For each corruption and severity: how much of P's mass is farther out than the corruption.

    The share of fresh views of an image that lie farther from a set of its views (in ℓ2 of pixels,
    from the nearest of them) than the corrupted image does. 1: well inside of what training saw;
    0: outside. In noise P depends on the ℓ2 distance alone (C3 of notebook 2).
    """
    images = images[:VIEWED]
    with stream(0, VIEWS, EVALUATION + 4), torch.no_grad():
        augment = ImageViews(augmentation, images.shape[1:])
        views = torch.stack([augment(images)[0].flatten(1) for _ in range(VIEWS_EACH)], 1)
        fresh = torch.stack([augment(images)[0].flatten(1) for _ in range(FRESH)], 1)
    own = torch.cdist(fresh, views).amin(2)
    found = {}
    for name, level in product(CONSTANTS, SEVERITIES):
        changed = corrupted(images, name, level).float().flatten(1) / 255
        distance = torch.cdist(changed[:, None], views).amin(2)
        found[name, level] = (own > distance).double().mean().item()
    return found


def agreement(table: pd.DataFrame) -> tuple[float, float, float]:
    """Spearman's ρ of prediction and measurement, each without the mean of its corruption.

    The rule, fixed before the run: P predicts robustness where the whole interval is above 0.
    95 % interval: percentiles over 2,000 draws of augmentations and corruptions, both with
    replacement, crossed.
    """
    wide = [table.pivot(index="augmentation", columns="corruption", values=v) for v in COLUMNS]
    parts = [part.to_numpy() for part in wide]
    draws, rng = [], np.random.default_rng(0)
    rows, columns = parts[0].shape
    for _ in range(DRAWS):
        i, j = rng.integers(rows, size=rows), rng.integers(columns, size=columns)
        if len(set(i)) > 1:
            draws.append(_correlation(*(part[np.ix_(i, j)] for part in parts)))
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return _correlation(*parts), float(low), float(high)


COLUMNS = ("predicted", "measured")


def _correlation(a: Float[np.ndarray, "r c"], b: Float[np.ndarray, "r c"]) -> float:
    centred = [part - part.mean(0) for part in (a, b)]
    if any(np.ptp(part) < 1e-12 for part in centred):
        return float("nan")
    return float(stats.spearmanr(centred[0].ravel(), centred[1].ravel()).statistic)
