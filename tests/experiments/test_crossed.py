"""Intervals over seeds and images together."""

import math

import numpy as np
import pytest
from scipy import stats

from sscl_experiments.crossed import crossed_interval, detectable
from sscl_experiments.statistics import interval


def drawn(rng, seeds, images, *, of_seeds, of_images, rest):
    return (
        of_seeds * rng.standard_normal((seeds, 1))
        + of_images * rng.standard_normal((1, images))
        + rest * rng.standard_normal((seeds, images))
    )


@pytest.mark.parametrize(
    "parts",
    [
        {"of_seeds": 0.0, "of_images": 1.0, "rest": 1.0},
        {"of_seeds": 0.2, "of_images": 1.0, "rest": 1.0},
        {"of_seeds": 1.0, "of_images": 1.0, "rest": 1.0},
    ],
)
def test_about_95_of_100_intervals_hold_the_truth(parts):
    rng = np.random.default_rng(0)
    held = []
    for _ in range(1500):
        sets = [drawn(rng, 5, images, **parts) for images in (30, 60)]
        low, high = crossed_interval(sets)[1:]
        held.append(low <= 0 <= high)
    assert 0.93 <= np.mean(held) <= 0.985


def test_an_interval_over_seeds_alone_is_too_narrow_where_images_decide():
    rng, held = np.random.default_rng(1), []
    for _ in range(400):
        values = drawn(rng, 5, 30, of_seeds=0.0, of_images=1.0, rest=0.3)
        low, high = interval(list(values.mean(1)))[1:]
        held.append(low <= 0 <= high)
    assert np.mean(held) < 0.5


def test_variance_is_that_of_the_mean_squares():
    """Against sums written out, where the image part is positive."""
    values = drawn(np.random.default_rng(2), 4, 50, of_seeds=0.5, of_images=2.0, rest=0.5)
    seeds, images = values.shape
    grand = values.mean()
    ms_images = sum(seeds * (values[:, i].mean() - grand) ** 2 for i in range(images)) / (
        images - 1
    )
    rest = sum(
        (values[s, i] - values[s].mean() - values[:, i].mean() + grand) ** 2
        for s in range(seeds)
        for i in range(images)
    ) / ((seeds - 1) * (images - 1))
    ms_seeds = sum(images * (values[s].mean() - grand) ** 2 for s in range(seeds)) / (seeds - 1)
    variance = (ms_seeds + ms_images - rest) / (seeds * images)
    mean, low, high = crossed_interval([values])
    assert mean == pytest.approx(grand)
    # Satterthwaite's degrees of freedom: (Σ a MS)² / Σ (a MS)²/df, over the three mean squares.
    squares = [(ms_seeds, seeds - 1), (ms_images, images - 1), (rest, (seeds - 1) * (images - 1))]
    df = (ms_seeds + ms_images - rest) ** 2 / sum(ms**2 / own for ms, own in squares)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, df) * math.sqrt(variance))


def test_it_is_the_interval_over_seeds_where_all_images_are_alike():
    by_seed = np.array([0.1, 0.3, 0.2, 0.25, 0.0])
    values = np.repeat(by_seed[:, None], 40, 1)
    assert crossed_interval([values]) == pytest.approx(interval(list(by_seed)))


def test_equal_values_and_one_seed():
    assert crossed_interval([np.ones((3, 4))]) == (1.0, 1.0, 1.0)
    assert crossed_interval([np.ones((1, 4))]) == (1.0, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([], "must hold a test set or more"),
        ([np.ones((2, 0))], r"got shape \(2, 0\)"),
        ([np.full((2, 2), np.nan)], "must be finite"),
        ([np.ones((2, 3)), np.ones((3, 3))], "the same seeds in every set, got 2, 3"),
    ],
)
def test_wrong_arguments_are_named(sets, message):
    with pytest.raises(ValueError, match=message):
        crossed_interval(sets)


def test_an_effect_that_is_detectable_is_found_four_times_in_five():
    rng, parts = np.random.default_rng(3), {"of_seeds": 0.5, "of_images": 2.0, "rest": 1.0}
    least = np.median([detectable([drawn(rng, 8, 40, **parts)]) for _ in range(200)])
    found = []
    for _ in range(600):
        values = drawn(rng, 8, 40, **parts) + least
        found.append(crossed_interval([values])[1] > 0)
    assert 0.72 <= np.mean(found) <= 0.88


def test_the_detectable_effect_by_hand():
    """Equal images: five seeds, (2.776 + 0.941) standard errors of their mean."""
    seeds = np.arange(5.0)[:, None].repeat(7, 1)
    error = (2.5 / 5) ** 0.5
    assert detectable([seeds]) == pytest.approx((2.7764 + 0.9410) * error, rel=1e-4)
    assert detectable([np.ones((5, 7))]) == 0
    assert detectable([np.ones((1, 7))]) == math.inf
