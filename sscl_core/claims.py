"""The claims under test: for each an estimand and a rule fixed before the run, and what the numbers then say."""

import math
import warnings
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field
from scipy import stats

from .config import Frozen

# The interval of one seed is everything; JSON has no number for that.
Bound = Annotated[float, Field(allow_inf_nan=True), BeforeValidator(lambda value: float(value))]
Verdict = Literal["replicates", "mixed", "does not replicate", "not run at this scale"]
MIN_SEEDS = 5
ROUNDING = 1e-12  # values this close, in units of the largest, are equal


class Claim(Frozen):
    """`estimand` is one number a seed; the claim holds where its mean is `direction` `threshold`. With `rate` the numbers are 0 or 1."""

    id: str
    notebook: str
    sentence: str
    source: str
    estimand: str
    direction: Literal["at least", "at most"]
    threshold: float
    rate: bool = False

    @property
    def rule(self) -> str:
        return f"{self.direction} {self.threshold:g}, the whole 95 % interval, from {MIN_SEEDS} seeds on"


class Outcome(Frozen):
    """A claim with its estimate, 95 % interval over seeds, number of seeds and verdict."""

    claim: Claim
    scale: str
    values: tuple[float, ...]
    estimate: float
    low: Bound
    high: Bound
    n: int
    verdict: Verdict
    note: str = ""


CLAIMS = {
    claim.id: claim
    for claim in (
        Claim(
            id="C1",
            notebook="01_contrastive_is_sne",
            sentence="InfoNCE is the SNE objective on the augmented set, in value and in gradient.",
            source="abstract; reading note, section 2",
            estimand="largest relative difference of value or gradient between the two objectives, over all forms and batches of a seed",
            direction="at most",
            threshold=1e-10,
        ),
        Claim(
            id="C2",
            notebook="01_contrastive_is_sne",
            sentence="SimCLR on the mixture nearly attains alignment and uniformity: polygon on the circle, simplex in d_z ≥ m-1.",
            source="reading note, section 3",
            estimand="share of the way from a collapsed network to the exact minimiser that is left of the loss; the worse of d_z 2 and 4",
            direction="at most",
            threshold=0.05,
        ),
        Claim(
            id="C3",
            notebook="02_domain_agnostic_augmentations",
            sentence="Isotropic noise makes similarity a function of ℓ2 distance: training with it is SNE on the analytic P of the noise.",
            source="reading note, section 3",
            estimand="rank correlation of distances, trained map against SNE's on the analytic P; noise of twice the components' spread",
            direction="at least",
            threshold=0.9,
        ),
        Claim(
            id="C4",
            notebook="02_domain_agnostic_augmentations",
            sentence="Mixup follows the span of the means, noise spends itself on all d dimensions (so mixup should give better features).",
            source="reading note, section 3, on the density; its reading as accuracy is ours",
            estimand="10-NN accuracy on h, mixup minus noise, each at the strength best in validation; mean over the isotropic clouds",
            direction="at least",
            threshold=0.0,
        ),
        Claim(
            id="C5",
            notebook="03_implicit_bias",
            sentence="Of the orders that a square allows, training picks the one in which neighbors on the line stay neighbors.",
            source="recollection: a hypothesis here",
            estimand="1 if the four components end in the order of the line, every gap at least half a right angle, else 0; by chance 1/3",
            direction="at least",
            threshold=0.9,
            rate=True,
        ),
        Claim(
            id="C6",
            notebook="03_implicit_bias",
            sentence="Among uniform arrangements the order-preserving one has the smallest expected Lipschitz constant.",
            source="recollection: a hypothesis here",
            estimand="(best other order - natural) / natural, all enumerated; smallest over m = 4…9 points, spaced at random",
            direction="at least",
            threshold=0.0,
        ),
        Claim(
            id="C7",
            notebook="03_implicit_bias",
            sentence="On images, without labels, classes that are close in meaning have features more alike than others.",
            source="recollection: a hypothesis here",
            estimand="SimCLR's backbone: similarity within groups minus across, less its 95th percentile over all groupings of these sizes",
            direction="at least",
            threshold=0.0,
        ),
        Claim(
            id="C9",
            notebook="05_t_simclr",
            sentence="Weighting positive pairs by the overlap of their crops, w ∝ exp(IoU/τ'), improves nearest-neighbor accuracy.",
            source="recollection: a hypothesis here",
            estimand="15-NN accuracy (cosine) on h of SimCLR, weighted with τ' = 0.3 minus unweighted, paired by seed",
            direction="at least",
            threshold=0.0,
        ),
        Claim(
            id="C10",
            notebook="05_t_simclr",
            sentence="t-SimCLR needs far fewer feature dimensions than SimCLR for the same accuracy.",
            source="recollection: a hypothesis here",
            estimand="log2 of the smallest d_z with 15-NN on z within a point of SimCLR's at its best d_z: SimCLR's over t-SimCLR's",
            direction="at least",
            threshold=2.0,
        ),
        Claim(
            id="C11",
            notebook="05_t_simclr",
            sentence="t-SimCLR improves in-distribution accuracy.",
            source="abstract",
            estimand="linear probe on h, t-SimCLR minus SimCLR, paired by seed: d_z = 32, subset (quick); 128, all of Fashion-MNIST (full)",
            direction="at least",
            threshold=0.0,
        ),
    )
}


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


def decide(claim: Claim, values: Sequence[float], *, scale: str, withheld: str = "") -> Outcome:
    """The verdict: *replicates* if the whole interval satisfies the rule, *does not replicate* if none of it does, else *mixed*.

    `ValueError` for values that `interval` refuses, and for those of a rate that are neither 0 nor 1.
    Below 5 seeds, or where a precondition fixed in advance is not met (`withheld` says which), there is none: *not run at this scale*.
    """
    if claim.rate and not set(values) <= {0, 1}:
        raise ValueError(f"values of {claim.id}, a rate, must be 0 or 1, got {sorted(set(values) - {0, 1})}")
    mean, low, high = rate_interval(int(sum(values)), len(values)) if claim.rate else interval(values)
    few = f"{len(values)} seeds, a verdict needs {MIN_SEEDS}" if len(values) < MIN_SEEDS else ""
    note = "; ".join(filter(None, (few, withheld)))
    verdict: Verdict = "not run at this scale" if note else _verdict(claim, low, high)
    outcome = {"estimate": mean, "low": low, "high": high, "n": len(values), "verdict": verdict, "note": note}
    return Outcome(claim=claim, scale=scale, values=tuple(map(float, values)), **outcome)  # type: ignore[arg-type]


def _verdict(claim: Claim, low: float, high: float) -> Verdict:
    if claim.direction == "at most":
        low, high, threshold = -high, -low, -claim.threshold
    else:
        threshold = claim.threshold
    return "replicates" if low >= threshold else "does not replicate" if high < threshold else "mixed"
