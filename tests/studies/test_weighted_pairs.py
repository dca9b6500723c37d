"""SimCLR with weighted pairs: weights, differences, and a rule that nothing passes for free."""

import math

import pandas as pd
import pytest
import torch

from sscl_core.train import train
from sscl_experiments.claims import decide
from sscl_experiments.runs.images import image_sets
from sscl_experiments.studies.weighted_pairs.analysis import (
    answer,
    gains,
    weight_dose,
    weight_effects,
    withheld,
)
from sscl_experiments.studies.weighted_pairs.claims import CLAIMS
from sscl_experiments.studies.weighted_pairs.parameters import CROPS, MILD_CROPS
from sscl_experiments.study import resolve


def test_pairs_may_be_weighted_by_any_temperature_but_zero():
    given = [0.3, -0.3, math.inf, "inf", "-inf", 1]
    assert resolve("10_weighted_pairs", {"weights": given}).weights == (
        0.3,
        -0.3,
        math.inf,
        math.inf,
        -math.inf,
        1.0,
    )


def effects_frame(*, gain: float, harder: float, epochs=(3,), backbone=0.5) -> pd.DataFrame:
    """A row a run of five seeds, at large and small crops."""
    rows = [
        {
            "epochs": length,
            "crops": crops,
            "score": score,
            "τ'": t,
            "seed": seed,
            "knn15_cosine_h": backbone + 0.1 * seed + shift + (0.2 if crops != MILD_CROPS else 0),
        }
        for length in epochs
        for crops in CROPS
        for score, t, shift in (
            ("none", math.inf, 0.0),
            ("iou", 0.3, gain),
            ("iou", -0.3, harder),
            ("features", 0.3, 0.3),
        )
        for seed in range(5)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_effects_of_weights_are_paired_by_seed_crops_and_length():
    found = weight_effects(
        effects_frame(gain=0.01, harder=-0.02, epochs=(1, 3)), ["knn15_cosine_h"]
    ).set_index(["epochs", "crops", "score", "τ'"])
    assert found.difference.loc[(1, "20–100 %", "iou", 0.3)] == pytest.approx(0.01)
    assert found.difference.loc[(3, MILD_CROPS, "iou", -0.3)] == pytest.approx(-0.02)
    assert (found.high - found.low).max() < 1e-9, "the seeds' own differences cancel"
    assert len(found) == 12


def test_gains_are_those_of_overlap_and_mild_crops():
    table = effects_frame(gain=0.02, harder=-0.01)
    assert gains(table, temperature=0.3, epochs=3) == pytest.approx([0.02] * 5)
    assert gains(table, temperature=-0.3, epochs=3) == pytest.approx([-0.01] * 5)
    assert gains(table, temperature=0.7, epochs=3) == []


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(0.0, "does not replicate"), (0.006, "replicates"), (-0.1, "does not replicate")],
)
def test_weights_that_change_nothing_do_not_pass(gain, verdict):
    values = gains(effects_frame(gain=gain, harder=0), temperature=0.3, epochs=3)
    for claim in CLAIMS:
        assert decide(claim, values, scale="quick").verdict == verdict


def test_a_verdict_needs_a_trained_backbone_and_lengths_that_agree():
    one = effects_frame(gain=0.02, harder=0.0)
    assert withheld(one, 0.69, temperature=0.3) == ""
    assert "not as good as raw pixels" in withheld(one, 0.71, temperature=0.3)
    assert "not as good" in withheld(one, math.nan, temperature=0.3)
    shorter = effects_frame(gain=0.0, harder=0.0, epochs=(1,))
    both = pd.concat([one, shorter])
    assert "do not agree" in withheld(both, 0.69, temperature=0.3)
    assert withheld(both, 0.69, temperature=-0.3) == ""


def test_the_words_of_the_answer_are_the_verdicts():
    effects = weight_effects(effects_frame(gain=0.02, harder=-0.01), ["knn15_cosine_h"])
    said = answer(effects)
    assert "+2.0 points" in said
    assert "-1.0 points" in said
    assert "n = 5" in said


def test_weights_at_infinite_temperature_are_none_at_all():
    """Bit for bit: which the rule must not take for an improvement."""
    p = resolve("10_weighted_pairs", {"scale": "smoke", "weights": [math.inf, 0.3]})
    runs = {key[-1]: group[0] for key, group in p.weight_runs().items() if key[2] != "none"}
    runs[None] = p.unweighted(1)
    images = image_sets(p.unweighted(1), None).train.images
    losses = {key: train(run, images).losses for key, run in runs.items()}
    assert losses[None] == losses[math.inf]
    assert losses[None] != losses[0.3]


def test_runs_of_a_seed_differ_in_their_weights_alone():
    p = resolve("10_weighted_pairs", {"scale": "full", "seeds": 2})
    runs = p.weight_runs()
    assert set(p.runs()) == {run for group in runs.values() for run in group}
    for (epochs, crops, score, _), group in runs.items():
        plain = runs[epochs, crops, "none", math.inf]
        assert [run.replace(weights=None) for run in group] == plain
        assert (score == "none") == (group[0].weights is None)
    with pytest.raises(ValueError, match="lengths must ascend"):
        resolve("10_weighted_pairs", {"lengths": [10, 3]})


def test_the_dose_of_weights_by_hand():
    """Half of the pairs with overlap 1, half with none: weights 2e/(1+e) and 2/(1+e) at τ' = 1."""
    table = weight_dose(torch.tensor([0.0, 1.0]).repeat(64 * 64)).set_index("τ'")
    large, small = 2 * math.e / (1 + math.e), 2 / (1 + math.e)
    row = table.loc[1.0]
    assert row["standard deviation of w"] == pytest.approx((large - small) / 2, rel=1e-3)
    assert row["effective pairs of 128"] == pytest.approx(2 * 128 / (large**2 + small**2))
    assert table.loc[0.03]["effective pairs of 128"] == pytest.approx(64)
