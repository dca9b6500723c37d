"""What becomes of C10 and C11: by the records of the experiment, or else an estimate from here.

Runs of a notebook keep their accuracies, not which test images they tell right, so an estimate from
them takes the test images of each network for drawn apart. That is wider than pairing them would
be: networks that are right on mostly the same images differ by less.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from sscl_core.files import write_text
from sscl_experiments.claims import Outcome, Verdict
from sscl_experiments.study import all_claims

from .analysis import CHOSEN
from .kernel_experiment import endpoints
from .kernel_experiment.design import COMPARED
from .kernel_experiment.endpoints import Estimate, Statistic
from .kernel_experiment.reading import Reading
from .recorded import as_columns

Accuracies = Float[np.ndarray, "kernels dims seeds"]
UNDECIDED: Verdict = "not run at this scale"
PRIMARY = {"C10": "z", "C11": "h"}  # what the endpoint that decides is about


def accuracies_of(scores: pd.DataFrame, metric: str, dims: Sequence[int]) -> Accuracies:
    """Of cosine and Student's t, from rows of one length."""
    wide = scores.pivot_table(index=["method", "d_z"], columns="seed", values=metric)
    return np.stack([[wide.loc[(kernel, dim)] for dim in dims] for kernel in COMPARED])


def estimate(
    accuracies: Accuracies, statistic: Statistic, *, images: int, seed: int = 0
) -> Estimate:
    """A statistic of the mean curves, with an interval over seeds and test images together.

    As `endpoints.estimate`: draws take S - 1 of S seeds with replacement, the same for all
    networks, and add to each accuracy p of a kernel and d_z an error of variance p (1 - p) / n.
    One seed has the interval (-∞, ∞).
    """
    _, _, seeds = accuracies.shape
    rng = np.random.default_rng(seed)
    means = accuracies.mean(2, keepdims=True)
    value = float(statistic(means)[0])
    if seeds == 1:
        return Estimate(value, -math.inf, math.inf, math.inf, 1.0, 1, images)
    chosen = rng.integers(seeds, size=(endpoints.DRAWS, seeds - 1))
    of_seeds = accuracies[:, :, chosen].mean(3)
    spread = np.sqrt(means * (1 - means) / images)
    errors = spread * rng.standard_normal((*means.shape[:2], endpoints.DRAWS))
    variances = statistic(of_seeds).var(), statistic(means + errors).var()
    both = of_seeds + errors
    error = float(statistic(both).std())
    return endpoints.with_interval(value, error, variances, (seeds, images), both)


def estimates_here(scores: pd.DataFrame, dims: Sequence[int], images: int) -> pd.DataFrame:
    """The endpoints on the embedded set, of runs of one length."""
    rows = []
    cases = [("C10", "z"), ("C10", "h"), ("C11", "h")]
    for claim, purpose in cases:
        own = dims if claim == "C10" else dims[-1:]
        statistic = endpoints.factor(own) if claim == "C10" else endpoints.difference
        accuracies = accuracies_of(scores, CHOSEN[purpose], own)
        found = estimate(accuracies, statistic, images=images)
        rows.append({"claim": claim, "on": purpose} | as_columns(found))
    return pd.DataFrame(rows)


def primary(found_readings: Sequence[Reading], claim: str) -> Reading | None:
    """The one that decides a claim: on CIFAR-10; for C10 on z."""
    for reading in found_readings:
        is_own = (reading.endpoint.claim, reading.endpoint.purpose) == (claim, PRIMARY[claim])
        if is_own and reading.images.name == "cifar10":
            return reading
    return None


def outcome(
    claim: str, here: pd.DataFrame, found_readings: Sequence[Reading], *, scale: str, lacking: str
) -> Outcome:
    """The verdict of the experiment once it has one; until then, none, and the estimate from here.

    `here`: of `estimates_here`. `lacking`: what is said while the experiment is not there. No
    verdict is given from here: the experiment decides by its last two lengths, of which this one is
    the shortest or shorter.
    """
    reading = primary(found_readings, claim)
    if reading is not None and reading.verdict != UNDECIDED:
        last = reading.by_length[max(reading.by_length)]
        estimated = (last.value, last.low, last.high, last.seeds)
        verdict = reading.verdict
        note = "; ".join(filter(None, ("CIFAR-10, from the records of scale full", reading.note)))
    else:
        own = here[(here.claim == claim) & (here.on == PRIMARY[claim])].iloc[0]
        ends = [float(own[name]) for name in ("estimate", "95 % low", "95 % high")]
        estimated = (ends[0], ends[1], ends[2], int(own.seeds))
        verdict = UNDECIDED
        why = f"No verdict yet: {reading.note}. " if reading is not None and reading.note else ""
        where = "The estimate is that of the embedded images, which decides nothing"
        note = f"{lacking} {why}{where}"
    value, low, high, n = estimated
    return Outcome(
        claim=all_claims()[claim],
        scale=scale,
        values=(),
        estimate=value,
        low=low,
        high=high,
        n=n,
        verdict=verdict,
        note=note,
    )


def keep(found: Outcome, out: Path) -> None:
    """Where `Notebook.claim` keeps those that follow from one value a seed; `out` is its folder."""
    path = out / "claims" / f"{found.claim.id}.json"
    write_text(path, found.model_dump_json(indent=1) + "\n")


def verdict_table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "claim": f"{one.claim.id}. {one.claim.sentence}",
            "estimate": one.estimate,
            "95 % low": one.low,
            "95 % high": one.high,
            "seeds": one.n,
            "verdict": one.verdict,
            "why": one.note,
        }
        for one in outcomes
    )
