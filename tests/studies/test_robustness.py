"""Notebook 04: the exact optimum, what an augmentation covers, a rule that nulls do not pass."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import normal, read_once

from sscl_experiments.claims import decide
from sscl_experiments.record import Record
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


def record(corrupt):
    how = {f"corrupt_{name}": corrupt for name in analysis.ON_H}
    return Record(resolve("04_robustness", {}).image_run("SimCLR", 2, 0), how)


def test_the_rule_of_c8_is_passed_by_a_better_method_and_not_by_the_nulls():
    (claim,) = STUDY.claims
    runs = {
        "SimCLR": [record(0.70 + 0.001 * i) for i in range(5)],
        "untrained": [record(0.75 + 0.001 * i) for i in range(5)],
        "t-SimCLR": [record(0.80 + 0.001 * i) for i in range(5)],
    }
    pixels = record(0.78)
    others = [runs["SimCLR"], runs["untrained"], [pixels] * 5]
    values = analysis.c8_values(runs["t-SimCLR"], others)
    assert values == pytest.approx([0.02, 0.021, 0.022, 0.023, 0.024])
    assert decide(claim, values, scale="quick").verdict == "replicates"
    for null in analysis.nulls(runs, pixels).values():
        assert max(null) <= 0
        assert decide(claim, null, scale="quick").verdict == "does not replicate"


def test_a_verdict_is_withheld_where_half_the_training_says_the_opposite():
    def runs(difference):
        return {"SimCLR": [record(0.7)], "t-SimCLR": [record(0.7 + difference)]}

    assert analysis.lengths_disagree(runs(0.1), runs(0.2)) == ""
    assert "-0.100 at half" in analysis.lengths_disagree(runs(-0.1), runs(0.2))


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
        ({"attacked": 1}, "attacked = 1"),
        ({"tested": 10, "attacked": 20}, "attacked must be at most tested"),
        ({"image_set": "imagenet"}, "image_set = 'imagenet'"),
        ({"augmentations": ["fog"]}, "augmentations must be among"),
    ],
)
def test_wrong_parameters_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        resolve("04_robustness", given)
