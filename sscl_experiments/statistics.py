"""TODO"""

import math
import warnings
from collections.abc import Sequence

import numpy as np
from scipy import stats

ROUNDING = 1e-12  # values this close, in units of the largest, are equal


def interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds: Student's t below 20 values, BCa bootstrap from 20; the mean itself where all are equal up to
    rounding.

    `ValueError` for no values or a value that is not finite; one value has the interval (-∞, ∞).
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"values must be finite and at least one, got {list(values)}")
    mean = float(x.mean())
    if x.size == 1:
        return mean, -math.inf, math.inf
    if np.ptp(x) <= ROUNDING * np.abs(x).max():
        return mean, mean, mean
    if x.size < 20:
        half = float(stats.t.ppf(0.975, x.size - 1) * stats.sem(x))
        return mean, mean - half, mean + half
    return mean, *_bootstrap(x, seed)


def _bootstrap(x: np.ndarray, seed: int) -> tuple[float, float]:
    """BCa (Efron 1987); percentiles where no resampled mean lies below, or above, the mean, and BCa is not defined."""
    centre, scale = x.mean(), np.ptp(x)
    y = (x - centre) / scale  # or the third power of a small spread is 0
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            found = stats.bootstrap((y,), np.mean, method=method, rng=np.random.default_rng(seed))
        low, high = found.confidence_interval
        if np.isfinite([low, high]).all():
            break
    return float(centre + scale * low), float(centre + scale * high)


def rate_interval(successes: int, n: int) -> tuple[float, float, float]:
    """successes / n with the exact binomial 95 % interval (Clopper & Pearson 1934). `ValueError`: not 0 ≤ successes ≤ n, or n < 1."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes must be in 0..n and n at least 1, got {successes} of {n}")
    ends = stats.binomtest(successes, n).proportion_ci(0.95, method="exact")
    return successes / n, float(ends.low), float(ends.high)
