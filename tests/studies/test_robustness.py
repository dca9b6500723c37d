"""Notebook 04: the exact optimum, what an augmentation covers, a rule that nulls do not pass."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import normal, read_once

from sscl_core.corruptions import CONSTANTS
from sscl_experiments.crossed import crossed_interval
from sscl_experiments.record import Record
from sscl_experiments.runs.robust_images import conditions
from sscl_experiments.runs.unseen import WORLDS
from sscl_experiments.statistics import interval
from sscl_experiments.studies.robustness import STUDY, analysis, exact, prediction
from sscl_experiments.studies.robustness.parameters import (
    AUGMENTATIONS,
    KERNELS,
    MIXTURE,
    SEARCH_DIMS,
    TEMPERATURES,
    search_table,
    temperatures,
    tuned,
)
from sscl_experiments.study import resolve


def test_the_density_ratio_is_that_of_pairs_of_the_mixture():
    """Against sums over the components' densities."""
    x = normal(6, 2)
    means = torch.tensor(MIXTURE.means, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(means, MIXTURE.std**2 * torch.eye(2).double())
    each = law.log_prob(x[:, None]).exp()  # p(x | c)
    joint = each @ each.T / len(means)
    marginal = each.mean(1)
    expected = joint / marginal[:, None] / marginal
    torch.testing.assert_close(exact.density_ratio(x, x, MIXTURE), expected)


@pytest.mark.parametrize("name", exact.SIMILARITIES)
def test_the_optimum_has_no_slope_and_beats_its_starts(name):
    similarity = exact.SIMILARITIES[name]
    x, _ = exact.points(MIXTURE, "seen", 4, 0, 0)
    P = exact.density_ratio(x, x, MIXTURE).fill_diagonal_(0)
    P /= P.sum(1, keepdim=True)
    z = exact.optimum(similarity, P, 2, torch.Generator().manual_seed(0))
    z.requires_grad_()
    value = exact.sne_objective(P, similarity.log_q(z, normalization="conditional"))
    (slope,) = torch.autograd.grad(value, z)
    assert slope.abs().max() < 0.05 * value
    start = normal(20, 2)
    begun = exact.sne_objective(P, similarity.log_q(start, normalization="conditional"))
    assert value < 0.9 * begun


def test_a_point_as_near_to_all_lands_in_the_middle_which_the_circle_does_not_have():
    angle = 2 * torch.pi * torch.arange(5, dtype=torch.float64) / 5
    corners = torch.stack([angle.cos(), angle.sin()], 1)
    even = torch.full((1, 5), 0.2, dtype=torch.float64)
    for name in ("Gaussian", "t conditional"):
        found = exact.placed(exact.SIMILARITIES[name], corners, even)
        torch.testing.assert_close(found, torch.zeros(1, 2).double(), atol=1e-4, rtol=0)
    found = exact.placed(exact.SIMILARITIES["cosine"], corners, even)
    at_it, at_most = (
        -exact.log_s(exact.SIMILARITIES["cosine"], place, corners).log_softmax(1).mean()
        for place in (found, corners[:1])
    )
    assert at_it <= at_most


def test_a_point_of_one_component_lands_on_it_on_the_circle():
    corners = torch.eye(2, dtype=torch.float64)
    row = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    cosine = exact.SIMILARITIES["cosine"]
    found = torch.nn.functional.normalize(exact.placed(cosine, corners, row), dim=1)
    grid = torch.linspace(0, 2 * torch.pi, 10_001, dtype=torch.float64)
    circle = torch.stack([grid.cos(), grid.sin()], 1)
    losses = -exact.log_s(cosine, circle, corners).log_softmax(1)[:, 0]
    torch.testing.assert_close(found[0], circle[losses.argmin()], atol=1e-3, rtol=0)


def test_noise_covers_smaller_noise_and_not_larger():
    images = read_once("fashion_mnist_subset", "test").images[:20]
    little, much = (
        prediction.covered(images, AUGMENTATIONS[name]) for name in ("noise 0.05", "noise 0.2")
    )
    assert little["gaussian_noise", 5] < 0.05
    assert much["gaussian_noise", 5] > 0.95
    crops = prediction.covered(images, AUGMENTATIONS["crops 20–100 %"])
    assert crops["translation", 2] > little["translation", 2]


def pairs(predicted, measured):
    names = [(f"a{i}", f"c{j}") for i in range(6) for j in range(10)]
    table = pd.DataFrame(names, columns=["augmentation", "corruption"])
    return table.assign(predicted=predicted.ravel(), measured=measured.ravel())


def test_pairs_are_shown_with_what_was_predicted():
    values = np.arange(60.0).reshape(6, 10) / 100
    table = pairs(values, values + 1)
    table["corruption"] = [list(CONSTANTS)[int(name[1:])] for name in table.corruption]
    shown = analysis.pair_table(table)
    assert shown.shape == (6, 11)
    assert shown.set_index("augmentation")["translation"]["a2"] == "1.29 (0.29)"


def test_agreement_sees_the_augmentation_and_not_the_difficulty_of_the_corruption():
    rng = np.random.default_rng(0)
    difficulty = 10 * rng.normal(size=(1, 10))
    a, b = rng.normal(size=(2, 6, 10))
    rho, low, high = prediction.agreement(pairs(a + difficulty, np.exp(0.1 * a) + 5 * difficulty))
    assert rho > 0.9
    assert 0 < low <= rho <= high
    rho, low, high = prediction.agreement(pairs(a + difficulty, b + difficulty))
    assert low < 0 < high
    assert abs(rho) < 0.4


N_IMAGES = 300


def stressed(corrupt, *, seed=0, better="euclidean", clean=0.9):
    """A record whose 10-NN is right at that rate under corruption, in its better metric."""
    rng = np.random.default_rng(seed)
    ease = np.random.default_rng(99).random(N_IMAGES)  # the images are the same for all
    metrics, arrays = {}, {}
    for how in analysis.ON_H:
        rate = corrupt if how == f"{better}_h" else corrupt - 0.3
        noise = 0.02 * rng.standard_normal((len(conditions()), N_IMAGES))
        right = ease + noise < rate
        metrics |= {f"halves_{how}": rate, f"clean_{how}": clean}
        arrays[f"right_{how}"] = right
    config = resolve("04_robustness", {}).image_run("SimCLR", 2, 0).replace(seed=seed)
    return Record(config, metrics, arrays)


def trained(simclr, t, untrained, better="euclidean"):
    levels = {"SimCLR": simclr, "t-SimCLR": t, "untrained": untrained}
    return {
        name: [stressed(level, seed=10 * place + i, better=better) for i in range(5)]
        for place, (name, level) in enumerate(levels.items())
    }


def test_the_rule_of_c8_is_passed_by_a_better_method_and_not_by_the_nulls():
    (claim,) = STUDY.claims
    runs, pixels = trained(0.5, 0.7, 0.4), stressed(0.6, seed=50)
    decided = analysis.decision(claim, runs, runs, pixels)
    assert decided.withheld == ""
    assert len(decided.values) == 5
    assert np.mean(decided.values) == pytest.approx(0.1, abs=0.03)  # pixels are the best other
    table = analysis.rule_table(claim, runs, runs, pixels).set_index("in the place of t-SimCLR")
    assert table["the rule says"]["t-SimCLR"] == "replicates"
    for null in ("untrained", "raw pixels"):
        assert table.points[null] <= 0
        assert table["the rule says"][null] == "does not replicate"


def test_every_method_is_read_in_the_metric_that_its_training_images_say():
    """Both are as good in the metric that suits them: no lead is left."""
    runs, pixels = trained(0.6, 0.6, 0.3), stressed(0.3, seed=50)
    runs["SimCLR"] = [stressed(0.6, seed=20 + i, better="cosine") for i in range(5)]
    assert analysis.better_metric(runs["SimCLR"]) == "cosine_h"
    assert analysis.better_metric(runs["t-SimCLR"]) == "euclidean_h"
    (claim,) = STUDY.claims
    decided = analysis.decision(claim, runs, runs, pixels)
    assert abs(np.mean(decided.values)) < 0.02
    same = [stressed(0.6, seed=i) for i in range(5)]
    for record in same:
        record.metrics["halves_cosine_h"] = record.metrics["halves_euclidean_h"] + 1e-12
    assert analysis.better_metric(same) == "euclidean_h"


def test_the_interval_of_c8_is_over_images_too():
    runs, pixels = trained(0.5, 0.55, 0.3), stressed(0.3, seed=50)
    (claim,) = STUDY.claims
    decided = analysis.decision(claim, runs, runs, pixels)
    others = [runs["SimCLR"], runs["untrained"], [pixels] * 5]
    values = analysis.c8_values(runs["t-SimCLR"], others)
    assert values.shape == (5, N_IMAGES)
    assert decided.estimate == crossed_interval([values])
    assert decided.values == pytest.approx(values.mean(1).tolist())
    _, low, high = interval(decided.values)
    assert decided.estimate[2] - decided.estimate[1] > high - low


def test_a_verdict_is_withheld_where_half_the_training_says_otherwise_or_pixels_are_better():
    (claim,) = STUDY.claims
    long, short = trained(0.5, 0.7, 0.4), trained(0.7, 0.5, 0.4)
    pixels = stressed(0.3, seed=50)
    withheld = analysis.decision(claim, long, short, pixels).withheld
    assert withheld == "half the training says 'does not replicate', all of it 'replicates'"
    pixels.metrics["clean_cosine_h"] = 0.95
    withheld = analysis.decision(claim, long, long, pixels).withheld
    assert withheld.count("below raw pixels, 0.900 < 0.950, 10-NN cosine") == 2


def on_mixture(seen_cosine, new_cosine, new_euclidean):
    metrics = {f"{world}_{m}": 0.5 for world in WORLDS for m in ("cosine", "euclidean")}
    metrics |= {"seen_cosine": seen_cosine, "seen_euclidean": 0.9}
    metrics |= {"new_cosine": new_cosine, "new_euclidean": new_euclidean}
    scores = ("auroc_norm", "fpr95_norm", "auroc_distance", "fpr95_distance")
    return metrics | dict.fromkeys(scores, 0.5)


def test_gaps_on_the_mixture_in_three_readings():
    """Cosine is better on seen components in Euclidean distance, the others in their own."""
    p = resolve("04_robustness", {"dims": [2], "seeds": 5})
    found = {}
    for (kernel, dim), group in p.mixture_runs().items():
        values = (0.8, 0.4, 0.7) if kernel.startswith("cosine") else (0.8, 0.3, 0.9)
        found[kernel, dim] = [Record(config, on_mixture(*values)) for config in group]
    table = analysis.worlds(found)
    for column, gap in (("new", 0.5), ("new_better", 0.2), ("new_euclidean", 0.2)):
        assert analysis.gaps(table, column).gap.tolist() == pytest.approx([gap] * 6)
    shown = analysis.readings(table, (2,))
    assert shown["own metric"].str.startswith("50 [").all()
    assert shown["better metric"].str.startswith("20 [").all()
    assert set(shown["better for cosine"]) == {"euclidean"}
    found["cosine", 2] = [
        Record(record.config, on_mixture(0.95, 0.4, 0.7)) for record in found["cosine", 2]
    ]
    plain = analysis.readings(analysis.worlds(found), (2,)).set_index("kernel")
    assert plain["better metric"]["Gaussian"].startswith("50 [")
    assert plain["better for cosine"]["Gaussian"] == "cosine"
    assert plain["better metric"]["Gaussian, BatchNorm"].startswith("20 [")


def test_gaps_are_paired_by_seed_with_cosine_of_the_same_batchnorm():
    rows = [
        {"kernel": kernel, "d_z": 2, "seed": seed, "new": float(number + 10 * seed)}
        for number, kernel in enumerate(KERNELS)
        for seed in range(5)
    ]
    found = analysis.gaps(pd.DataFrame(rows)).set_index("kernel").gap
    names = list(KERNELS)
    assert found["t joint"] == names.index("t joint") - names.index("cosine")
    plus = ", BatchNorm"
    assert found[f"t joint{plus}"] == names.index(f"t joint{plus}") - names.index(f"cosine{plus}")
    assert len(found) == len(KERNELS) - 2


def test_every_kernel_is_searched_alike_and_by_what_it_saw():
    table = search_table()
    assert len(table) == len(KERNELS) * len(SEARCH_DIMS) * len(TEMPERATURES)
    for kernel in KERNELS:
        own = [row for row in table if (row["kernel"], row["d_z"]) == (kernel, 2)]
        best = max(own, key=lambda row: row["seen"])
        assert tuned(kernel, 2) == best["temperature"]
        assert tuned(kernel, 3) in temperatures(kernel, 3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dims": [1]}, "dims.0 = 1"),
        ({"epochs": 3}, "epochs = 3"),
        ({"tested": 10}, "tested = 10"),
        ({"image_set": "imagenet"}, "image_set = 'imagenet'"),
        ({"augmentations": ["fog"]}, "augmentations must be among"),
    ],
)
def test_wrong_parameters_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        resolve("04_robustness", given)
