"""Means over seeds and test images together, with their 95 % intervals."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .statistics import smallest_effect, t_quantile


def crossed_interval(
    differences: Sequence[Float[np.ndarray, "_ _"]],
) -> tuple[float, float, float]:
    """The mean over test sets of the mean over seeds and images, and its 95 % interval.

    One array (seeds, images) a test set: a number for each seed and image, usually the difference
    of two methods' being right there. Every seed is judged on the same images, so seeds (S) and
    images (I) are crossed, and both are random:

        x_si = μ + a_s + b_i + e_si,   Var(x̄) = σ²_a/S + σ²_b/I + σ²_e/(S I).

    The first and the last term are the variance of the seeds' means over S, seeds being the same
    for all sets; the second is (MS_images - MS_rest)/(S I) of each set, by the mean squares of the
    two-way analysis of variance, or 0 where that is negative. The interval is Student's t, its
    degrees of freedom by Satterthwaite's formula for these mean squares. One seed has the interval
    (-∞, ∞).

    `ValueError`: no set, sets with different numbers of seeds, an empty or non-finite one.
    """
    mean, error, df = _spread(differences)
    if error in (0, math.inf):
        return mean, mean - error, mean + error
    half = t_quantile(0.975, df) * error
    return mean, mean - half, mean + half


def detectable(differences: Sequence[Float[np.ndarray, "_ _"]]) -> float:
    """The smallest true mean that such a design would find four times in five.

    `smallest_effect`, error and degrees of freedom those of `crossed_interval`. With one
    seed it is infinite.
    """
    _, error, df = _spread(differences)
    if error in (0, math.inf):
        return error
    return smallest_effect(error, df)


def _spread(differences: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """The mean, its standard error, and the degrees of freedom of that."""
    sets = [np.asarray(values, dtype=np.float64) for values in differences]
    _check(sets)
    by_seed = np.mean([values.mean(1) for values in sets], axis=0)
    mean, seeds = float(by_seed.mean()), len(by_seed)
    if seeds == 1:
        return mean, math.inf, 0.0
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    of_images = [_image_squares(values) / len(sets) ** 2 for values in sets]
    total = of_seeds + sum(max(0.0, images - rest) for images, rest in of_images)
    if total == 0:
        return mean, 0.0, seeds - 1.0
    lost = of_seeds**2 / (seeds - 1)
    for values, (images, rest) in zip(sets, of_images, strict=True):
        if images > rest:
            df = values.shape[1] - 1
            lost += images**2 / df + rest**2 / (df * (seeds - 1))
    return mean, math.sqrt(total), total**2 / lost


def _image_squares(values: np.ndarray) -> Float[np.ndarray, " 2"]:
    """MS_images and MS_rest over S I. Their difference is σ²_b/I: E MS_images = S σ²_b + σ²_e."""
    seeds, images = values.shape
    if images == 1:
        return np.zeros(2)
    rows, columns = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    rest = values - rows - columns + values.mean()
    ms_images = seeds * float(columns.var(ddof=1))
    ms_rest = float(np.square(rest).sum()) / ((seeds - 1) * (images - 1))
    return np.array([ms_images, ms_rest]) / (seeds * images)


def _check(sets: Sequence[np.ndarray]) -> None:
    if not sets:
        raise ValueError("differences must hold a test set or more, got none")
    for values in sets:
        if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
            found = f"shape {values.shape}"
            raise ValueError(f"differences must be finite, (seeds, images), got {found}")
    if len({len(values) for values in sets}) > 1:
        found = ", ".join(str(len(values)) for values in sets)
        raise ValueError(f"differences must have the same seeds in every set, got {found}")
