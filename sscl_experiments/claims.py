"""Claims under test: an estimand and a rule fixed before the run, and what the numbers then say."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from sscl_core.config import Frozen

from .statistics import interval, rate_interval

# The interval of one seed is everything; JSON has no number for that.
Bound = Annotated[float, Field(allow_inf_nan=True), BeforeValidator(lambda value: float(value))]
Verdict = Literal["replicates", "mixed", "does not replicate", "not run at this scale"]
MIN_SEEDS = 5


class Claim(Frozen):
    """A statement that holds where the mean of its estimand is `direction` `threshold`.

    The estimand is one number a seed; with `rate` it is 0 or 1. With `worst` the statement is about
    every case, so it is decided by the value that speaks most against it, which has no interval.
    """

    id: str
    sentence: str
    source: str
    estimand: str
    direction: Literal["at least", "at most"]
    threshold: float
    rate: bool = False
    worst: bool = False

    @property
    def rule(self) -> str:
        if self.worst:
            return f"{self.direction} {self.threshold:g}, every seed, from {MIN_SEEDS} seeds on"
        where = f"the whole 95 % interval, from {MIN_SEEDS} seeds on"
        return f"{self.direction} {self.threshold:g}, {where}"


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


def decide(
    claim: Claim,
    values: Sequence[float],
    *,
    scale: str,
    withheld: str = "",
    estimate: tuple[float, float, float] | None = None,
) -> Outcome:
    """The verdict on a claim by its values, one a seed.

    `estimate`: mean and interval where that is over more than seeds, as over test images too.

    *Replicates* if the whole interval satisfies the rule, *does not replicate* if none of it does,
    else *mixed*. Below 5 seeds, or where a precondition fixed in advance is not met (`withheld`
    says which), there is no verdict: *not run at this scale*. `ValueError`: values that `interval`
    refuses, or values of a rate that are neither 0 nor 1.
    """
    mean, low, high = estimate or _estimate(claim, values)
    few = f"{len(values)} seeds, a verdict needs {MIN_SEEDS}" if len(values) < MIN_SEEDS else ""
    note = "; ".join(filter(None, (few, withheld)))
    verdict: Verdict = "not run at this scale" if note else _verdict(claim, low, high)
    return Outcome(
        claim=claim,
        scale=scale,
        values=tuple(map(float, values)),
        estimate=mean,
        low=low,
        high=high,
        n=len(values),
        verdict=verdict,
        note=note,
    )


def _estimate(claim: Claim, values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its interval; of a statement about every case the worst value, three times."""
    if claim.worst:
        interval(values)  # refuses what is not finite, wherever it stands
        worst = float(max(values) if claim.direction == "at most" else min(values))
        return worst, worst, worst
    if not claim.rate:
        return interval(values)
    others = sorted(set(values) - {0, 1})
    if others:
        raise ValueError(f"values of {claim.id}, a rate, must be 0 or 1, got {others}")
    return rate_interval(int(sum(values)), len(values))


def _verdict(claim: Claim, low: float, high: float) -> Verdict:
    threshold = claim.threshold
    if claim.direction == "at most":
        low, high, threshold = -high, -low, -threshold
    if low >= threshold:
        return "replicates"
    return "does not replicate" if high < threshold else "mixed"
