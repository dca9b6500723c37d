"""Intervals against scipy and by their coverage; verdicts by hand."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from sscl_experiments.claims import Claim, Outcome, decide
from sscl_experiments.statistics import detectable, interval, rate_interval
from sscl_experiments.study import all_claims, all_studies


def claim(direction="at least", threshold=1.0):
    return Claim(
        id="X",
        sentence="s",
        source="t",
        estimand="e",
        direction=direction,
        threshold=threshold,
    )


def test_t_interval_below_twenty():
    x = [1.0, 2.0, 4.0]
    assert interval(x)[1:] == pytest.approx(stats.t.interval(0.95, 2, np.mean(x), stats.sem(x)))


def test_bootstrap_from_twenty():
    x = np.random.default_rng(0).exponential(size=30)
    mean, low, high = interval(list(x))
    t_low, t_high = stats.t.interval(0.95, 29, x.mean(), stats.sem(x))
    assert low < mean < high
    assert (low, high) != (t_low, t_high)
    assert high - mean > mean - low  # skewed to the right, as the data are
    assert interval(list(x)) == interval(list(x))


def test_t_interval_covers():
    rng = np.random.default_rng(1)
    covered = [
        low <= 3 <= high
        for _ in range(400)
        for _, low, high in [interval(list(rng.normal(3, 2, 5)))]
    ]
    assert stats.binomtest(sum(covered), 400, 0.95).pvalue > 1e-3


@pytest.mark.parametrize("n", [2, 5, 20, 40])
def test_equal_values_have_an_empty_interval(n):
    assert interval([0.3] * n) == (pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.3))


def test_one_value_says_nothing():
    assert interval([2.0]) == (2.0, -math.inf, math.inf)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_interval_rejects(values):
    with pytest.raises(ValueError, match="values must be finite"):
        interval(values)


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (1, 20), (7, 20), (480, 512)]
)
def test_a_rate_has_the_interval_of_clopper_and_pearson(successes, n):
    """Quantiles of Beta(k, n-k+1) and Beta(k+1, n-k).

    With none or all of n the open end is 0 or 1.
    """
    low = stats.beta.ppf(0.025, successes, n - successes + 1) if successes else 0.0
    high = stats.beta.ppf(0.975, successes + 1, n - successes) if successes < n else 1.0
    assert rate_interval(successes, n) == (
        successes / n,
        pytest.approx(low, abs=1e-9),
        pytest.approx(high, abs=1e-9),
    )


def test_none_of_n_is_no_proof_of_never():
    """The other end is where n failures have a probability of 2.5 %."""
    assert rate_interval(0, 30) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 30)))
    assert rate_interval(30, 30) == (1, pytest.approx(0.025 ** (1 / 30)), 1)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5), (0, -1)])
def test_a_rate_rejects(successes, n):
    with pytest.raises(
        ValueError, match=f"successes must be in 0..n and n at least 1, got {successes} of {n}"
    ):
        rate_interval(successes, n)


@pytest.mark.parametrize(
    ("direction", "values", "verdict"),
    [
        ("at least", [2.0, 2.1, 1.9, 2.0, 2.0], "replicates"),
        ("at least", [0.0, 0.1, -0.1, 0.0, 0.0], "does not replicate"),
        ("at least", [0.0, 2.0, 1.0, 1.5, 0.5], "mixed"),
        ("at most", [2.0, 2.1, 1.9, 2.0, 2.0], "does not replicate"),
        ("at most", [0.0, 0.1, -0.1, 0.0, 0.0], "replicates"),
        ("at most", [0.0, 2.0, 1.0, 1.5, 0.5], "mixed"),
        ("at least", [1.0] * 5, "replicates"),
        ("at most", [1.0] * 5, "replicates"),
    ],
)
def test_verdicts(direction, values, verdict):
    outcome = decide(claim(direction), values, scale="quick")
    assert outcome.verdict == verdict
    assert (outcome.n, outcome.note) == (5, "")


@pytest.mark.parametrize("n", [5, 20, 33])
@pytest.mark.parametrize("base", [0.3, 1.0, -0.77, 1e-17])
@pytest.mark.parametrize("direction", ["at least", "at most"])
def test_values_that_differ_by_rounding_are_equal(n, base, direction):
    """One unit in the last place: BCa divides 0 by 0 there."""
    for moved in (1, n // 2, n - 1):
        values = np.full(n, base)
        values[:moved] += np.spacing(base)
        outcome = decide(
            claim(direction, base + (1e-9 if direction == "at most" else -1e-9)),
            values.tolist(),
            scale="quick",
        )
        assert outcome.low == outcome.estimate == outcome.high == pytest.approx(base, rel=1e-12)
        assert outcome.verdict == "replicates"


@pytest.mark.parametrize("scale", [1e-120, 1.0, 1e120])
def test_the_bootstrap_knows_no_unit(scale):
    """At 1e-120 the third power of the spread, by which BCa divides, is 0."""
    x = np.random.default_rng(0).exponential(size=30)
    assert np.array(interval(list(scale * x))) / scale == pytest.approx(np.array(interval(list(x))))


@pytest.mark.parametrize(
    "values",
    [
        [0.4] * 5,
        [1.0, 1.0, 1.0, 1.0, 2.0],
        [1.0, -1.0, 0.0, 0.0, 0.0],
        [1.0, 0.0, 1.0, math.nan, 1.0],
    ],
    ids=str,
)
def test_a_rate_is_of_outcomes_that_are_0_or_1(values):
    rate = claim().replace(rate=True)
    with pytest.raises(ValueError, match="a rate, must be 0 or 1"):
        decide(rate, values, scale="quick")
    assert decide(rate, [1.0, 0.0, 1.0, 1.0, 1.0], scale="quick").estimate == 0.8


@pytest.mark.parametrize(
    ("direction", "values", "worst", "verdict"),
    [
        ("at most", [0.1, 0.2, 0.9, 0.3, 0.2], 0.9, "replicates"),
        ("at most", [0.1, 0.2, 1.1, 0.3, 0.2], 1.1, "does not replicate"),
        ("at least", [2.0, 1.2, 3.0, 4.0, 5.0], 1.2, "replicates"),
        ("at least", [2.0, 0.9, 3.0, 4.0, 5.0], 0.9, "does not replicate"),
    ],
)
def test_a_statement_about_every_case_is_decided_by_the_worst(direction, values, worst, verdict):
    outcome = decide(claim(direction).replace(worst=True), values, scale="quick")
    assert (outcome.estimate, outcome.low, outcome.high) == (worst, worst, worst)
    assert (outcome.verdict, outcome.n) == (verdict, 5)


def test_the_worst_of_values_that_are_no_numbers_is_refused():
    """Wherever it stands: max and min of a list with NaN depend on its order."""
    for values in ([math.nan, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, math.nan, 0.0, 0.0]):
        with pytest.raises(ValueError, match="values must be finite"):
            decide(claim("at most").replace(worst=True), values, scale="quick")


def test_a_value_that_is_no_number_is_not_mixed():
    with pytest.raises(ValueError, match="values must be finite"):
        decide(claim(), [1.0, 1.0, 1.0, 1.0, math.nan], scale="quick")


def test_too_few_seeds_or_an_unmet_precondition_give_no_verdict():
    few = decide(claim(), [2.0] * 4, scale="quick")
    assert few.verdict == "not run at this scale"
    assert "4 seeds" in few.note
    withheld = decide(claim(), [2.0] * 9, scale="quick", withheld="the gate is shut")
    assert withheld.verdict == "not run at this scale"
    assert withheld.note == "the gate is shut"


def test_every_claim_has_its_own_key_and_a_rule():
    claims = [claim for study in all_studies().values() for claim in study.claims]
    assert len({claim.id for claim in claims}) == len(claims) == len(all_claims()) >= 10
    assert all(key == value.id for key, value in all_claims().items())
    words = {False: "95 %", True: "every seed"}
    assert all(words[value.worst] in value.rule for value in all_claims().values())


def test_an_outcome_of_one_seed_survives_json():
    outcome = decide(claim(), [2.0], scale="quick")
    text = outcome.model_dump_json()
    assert Outcome.model_validate_json(text) == outcome
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_more_is_never_worse():
    """A verdict must not fall when every value rises: what discrete estimands get wrong."""
    ranks = ["does not replicate", "mixed", "replicates"]
    values = np.random.default_rng(0).normal(size=5)
    verdicts = [
        decide(claim(), list(values + shift), scale="quick").verdict
        for shift in np.linspace(-3, 5, 50)
    ]
    assert [ranks.index(v) for v in verdicts] == sorted(ranks.index(v) for v in verdicts)
    assert set(verdicts) == set(ranks)


def test_what_n_seeds_detect_four_times_in_five():
    """By hand: t(4) has its .975 quantile at 2.776 and its .8 quantile at 0.941."""
    assert detectable(-2.776, 2.776, 5) == pytest.approx(2.776 + 0.941, abs=1e-3)
    assert detectable(0.9, 1.1, 5) == pytest.approx(0.1 * (1 + 0.941 / 2.776), abs=1e-4)
    assert detectable(0.0, 1.0, 1) == math.inf


def test_four_of_five_such_experiments_find_it():
    rng, n = np.random.default_rng(0), 5
    half = stats.t.ppf(0.975, n - 1) / n**0.5
    draws = rng.normal(detectable(-half, half, n), 1, (20_000, n))
    lower = draws.mean(1) - stats.t.ppf(0.975, n - 1) * draws.std(1, ddof=1) / n**0.5
    assert (lower > 0).mean() == pytest.approx(0.8, abs=0.04)
