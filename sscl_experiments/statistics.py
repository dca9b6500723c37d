"""Means and rates over seeds, with their 95 % intervals."""

import math
import warnings
from collections.abc import Sequence

import numpy as np

ROUNDING = 1e-12  # values this close, in units of the largest, are equal


def interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds: Student's t below 20 values, BCa bootstrap from 20.

    Both ends are the mean where all values are equal up to rounding; one value has the interval
    (-∞, ∞). `ValueError`: no values, or one that is not finite.
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
        from scipy import stats  # here: whoever only reads claims does without

        half = float(t_quantile(0.975, x.size - 1.0) * stats.sem(x))
        return mean, mean - half, mean + half
    return mean, *_bootstrap(x, seed)


def _bootstrap(x: np.ndarray, seed: int) -> tuple[float, float]:
    """BCa (Efron 1987); percentiles where BCa is not defined.

    That is where no resampled mean lies below, or above, the mean.
    """
    from scipy import stats

    centre, unit = x.mean(), np.ptp(x)
    y = (x - centre) / unit  # or the third power of small differences is 0
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            found = stats.bootstrap((y,), np.mean, method=method, rng=np.random.default_rng(seed))
        low, high = found.confidence_interval
        if np.isfinite([low, high]).all():
            break
    return float(centre + unit * low), float(centre + unit * high)


def smallest_effect(error: float, df: float) -> float:
    """The smallest true effect that a design with this standard error finds four times in five.

    (t_.975 + t_.8) standard errors, t with `df` degrees of freedom.
    """
    return (t_quantile(0.975, df) + t_quantile(0.8, df)) * error


def detectable(low: float, high: float, n: int) -> float:
    """`smallest_effect` of n seeds whose 95 % interval, Student's, is [low, high].

    Infinite for one seed.
    """
    if n < 2:
        return math.inf
    df = n - 1.0
    return smallest_effect((high - low) / 2 / t_quantile(0.975, df), df)


def t_quantile(p: float, df: float) -> float:
    """Of Student's t."""
    from scipy import stats  # here: whoever only reads claims does without

    return float(stats.t.ppf(p, df))


def rate_interval(successes: int, n: int) -> tuple[float, float, float]:
    """successes / n with the exact binomial 95 % interval (Clopper & Pearson 1934).

    `ValueError`: not 0 ≤ successes ≤ n, or n < 1.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes must be in 0..n and n at least 1, got {successes} of {n}")
    from scipy import stats

    ends = stats.binomtest(successes, n).proportion_ci(0.95, method="exact")
    return successes / n, float(ends.low), float(ends.high)
