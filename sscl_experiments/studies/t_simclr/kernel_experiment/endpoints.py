"""The endpoints as functions of which test images each network tells right.

C10: the factor in d_z between two mean curves of accuracy, at equal accuracy. C11: the difference
of two accuracies. Both with intervals over seeds and test images together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from sscl_experiments.claims import MIN_SEEDS, Verdict
from sscl_experiments.statistics import smallest_effect, t_quantile

Correct = Bool[np.ndarray, "kernels dims seeds images"]
Curves = Float[np.ndarray, "kernels dims draws"]
Statistic = Callable[[Curves], Float[np.ndarray, " draws"]]
TARGETS = 200  # accuracies at which two curves are compared
DRAWS = 2000
BOUNDED = 0.025  # the most of draws without a common accuracy, for a factor in d_z
CHUNK = 250  # draws at a time


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval. `censored`: the share of draws in which it had to be bounded.

    `detectable`: how far from a threshold an effect must be to be seen with 80 % power.
    """

    value: float
    low: float
    high: float
    error: float
    df: float
    seeds: int
    images: int
    censored: float = 0.0

    @property
    def detectable(self) -> float:
        return smallest_effect(self.error, self.df)


def octaves(
    dims: Sequence[int], first: Float[np.ndarray, " dims"], second: Float[np.ndarray, " dims"]
) -> float:
    """log2 of the d_z that `first` needs over the d_z that `second` needs, for equal accuracy.

    The mean over all accuracies that both curves reach within `dims`, ascending. A curve is the
    best accuracy up to d_z, straight in log2 d_z between dimensions; what it needs for an accuracy
    is the smallest d_z at which it has it. NaN: no accuracy is reached by both.
    """
    best = [np.maximum.accumulate(curve) for curve in (first, second)]
    lowest, highest = max(curve[0] for curve in best), min(curve[-1] for curve in best)
    if not lowest < highest:
        return math.nan
    middles = (np.arange(TARGETS) + 0.5) / TARGETS
    targets = lowest + (highest - lowest) * middles
    needed = [np.interp(targets, curve, np.log2(dims)) for curve in best]
    return float((needed[0] - needed[1]).mean())


def factor(dims: Sequence[int]) -> Statistic:
    """`octaves` of the two curves of every draw.

    Where no accuracy is common, the one that is above at every dimension is ahead by all of them.
    """
    widest = math.log2(dims[-1] / dims[0])

    def statistic(curves: Curves) -> Float[np.ndarray, " draws"]:
        pairs = zip(*curves.transpose(0, 2, 1), strict=True)
        values = [octaves(dims, first, second) for first, second in pairs]
        ahead = np.sign(curves[1, :, :].mean(0) - curves[0, :, :].mean(0)) * widest
        return np.where(np.isnan(values), ahead, values)

    return statistic


def is_censored(curves: Curves) -> Bool[np.ndarray, " draws"]:
    """Whether two curves have no accuracy in common."""
    lowest = curves[:, 0].max(0)
    return ~(lowest < curves.max(1).min(0))


def difference(curves: Curves) -> Float[np.ndarray, " draws"]:
    """The second accuracy minus the first, at the one dimension there is."""
    return curves[1, 0] - curves[0, 0]


def estimate(correct: Correct, statistic: Statistic, *, seed: int = 0) -> Estimate:
    """A statistic of the mean curves, with an interval over seeds and test images together.

    Draws take S - 1 of S seeds, n of n images, or both, with replacement, alike for all networks:
    they are paired. With A, B and E the variances that seeds, images and what is left of both make
    in the mean, such draws have variance A + E, B + E and A + B + 3 E. The error's square is
    A + B + E. The interval is the value ± t errors, t with Satterthwaite's degrees of freedom,
    S - 1 for A + E and n - 1 for B (with few seeds percentiles would be too narrow).
    `ValueError`: fewer than two seeds.
    """
    _, _, seeds, images = correct.shape
    if seeds < 2:
        raise ValueError(f"correct must hold two seeds or more, got {seeds}")
    rng = np.random.default_rng(seed)
    value = float(statistic(correct.mean((2, 3))[:, :, None])[0])
    both = resampled(correct, rng, seeds=True, images=True)
    of_seeds = statistic(resampled(correct, rng, seeds=True, images=False)).var()
    of_images = statistic(resampled(correct, rng, seeds=False, images=True)).var()
    rest = statistic(both).var() - of_seeds - of_images
    of_images -= min(max(rest, 0.0), of_images)
    error = math.sqrt(of_seeds + of_images)
    return with_interval(value, error, (of_seeds, of_images), (seeds, images), both)


def with_interval(
    value: float,
    error: float,
    variances: tuple[float, float],
    numbers: tuple[int, int],
    draws: Curves,
) -> Estimate:
    """Of the variances that so many seeds and images make: t by Satterthwaite's formula.

    `draws`: curves among which those without a common accuracy are counted.
    """
    seeds, images = numbers
    lost = sum(part**2 / (number - 1) for part, number in zip(variances, numbers, strict=True))
    df = float(sum(variances) ** 2 / lost) if lost > 0 else float(seeds - 1)
    half = t_quantile(0.975, df) * error
    share = float(is_censored(draws).mean()) if draws.shape[1] > 1 else 0.0
    return Estimate(value, value - half, value + half, error, df, seeds, images, share)


def resampled(correct: Correct, rng: np.random.Generator, *, seeds: bool, images: bool) -> Curves:
    """Accuracies of resampled seeds and images; each is as it was where it is not resampled."""
    *_, n_seeds, n_images = correct.shape
    parts = []
    values = correct.astype(np.float32)
    for start in range(0, DRAWS, CHUNK):
        number = min(CHUNK, DRAWS - start)
        by_image = _weights(rng, n_images, n_images, number, images)
        by_seed = _weights(rng, n_seeds, n_seeds - 1, number, seeds)
        parts.append(np.einsum("kdsb,sb->kdb", values @ by_image, by_seed))
    return np.concatenate(parts, axis=2).astype(np.float64)


def _weights(
    rng: np.random.Generator, n: int, drawn: int, draws: int, resample: bool
) -> Float[np.ndarray, "n draws"]:
    """What each of n counts in every draw; the sum is 1."""
    if not resample:
        return np.full((n, draws), 1 / n, dtype=np.float32)
    chosen = rng.integers(n, size=(draws, drawn)) + n * np.arange(draws)[:, None]
    counts = np.bincount(chosen.ravel(), minlength=n * draws).reshape(draws, n)
    return (counts.T / drawn).astype(np.float32)


# --- verdicts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """A claim that an effect is at least `threshold`.

    With `margin`, effects within it count as none: the claim replicates only if the interval lies
    above the threshold and reaches beyond the margin, and fails if it lies below the margin.
    """

    threshold: float
    margin: float = 0.0

    def verdict(self, found: Estimate) -> Verdict:
        if found.seeds < MIN_SEEDS:
            return "not run at this scale"
        bar = self.threshold + self.margin
        if found.high < bar:
            return "does not replicate"
        above = found.low >= self.threshold and not self.by_height(found)
        return "replicates" if above else "mixed"

    def by_height(self, found: Estimate) -> bool:
        """Whether it is above because one curve is higher everywhere.

        That is another accuracy, not the same one in fewer dimensions.
        """
        return found.low >= self.threshold and found.censored > BOUNDED

    def equal(self, found: Estimate) -> bool:
        """Whether the whole interval lies within the margin: no difference, as a finding."""
        return -self.margin < found.low and found.high < self.margin


# Two octaves, a quarter of the dimensions, are "far fewer"; that is the threshold of the endpoint
# before this one.
C10 = Rule(threshold=2.0)
FEWER = Rule(threshold=0.0)  # fewer at all: shown beside
C11 = Rule(threshold=0.0, margin=0.005)


def final_verdict(rule: Rule, shorter: Estimate, longer: Estimate) -> tuple[Verdict, str]:
    """That of the longer training, if the shorter agrees; else it is mixed. And a note."""
    before, verdict = rule.verdict(shorter), rule.verdict(longer)
    if "not run at this scale" in (before, verdict):
        return "not run at this scale", f"a verdict needs {MIN_SEEDS} seeds at both lengths"
    if before != verdict:
        return "mixed", f"at the shorter length: {before}; at the longer: {verdict}"
    if rule.by_height(longer):
        share = f"{longer.censored:.0%} of draws"
        return verdict, f"in {share} one curve is higher at every d_z, which is no factor in d_z"
    if verdict == "mixed":
        effect = f"{longer.detectable:.3g} beyond the threshold"
        return verdict, f"the smallest effect seen with 80 % power is {effect}"
    if rule.margin and rule.equal(shorter) and rule.equal(longer):
        return verdict, f"no difference: within ±{rule.margin:g}"
    return verdict, ""
