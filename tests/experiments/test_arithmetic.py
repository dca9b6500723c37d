"""What a recipe takes: against counts that are known, and by hand."""

import pytest
from torch import nn

from sscl_experiments.arithmetic import IMAGENET, cost, macs
from sscl_experiments.pretrain import imagenet_resnet
from sscl_experiments.recipes import RECIPES


def test_multiplications_of_a_small_network_by_hand():
    """A 3×3 convolution to 5 channels on 8×8 places, and a layer from 320 to 7."""
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(320, 7))
    assert macs(network, 8) == 8 * 8 * 5 * 27 + 320 * 7
    assert network.training


def test_resnet_50_takes_four_thousand_million():
    """4.09·10⁹ with the head of 1000 classes, as it is commonly given: .002 of them the head."""
    network = imagenet_resnet(50)[0]
    assert macs(network, 224) / 1e9 == pytest.approx(4.087, abs=0.005)


def test_the_cost_of_the_authors_recipe_by_hand():
    found = cost(RECIPES["t-moco-v2"], gpus=8, sustained=100.0)
    steps = IMAGENET // 256 * 200
    assert found["images seen, millions"] == pytest.approx(steps * 256 / 1e6)
    each = (4.087e9 + 2048 * 2048 + 2048 * 128) * 2 * 4
    assert found["GPU hours"] == pytest.approx(each * steps * 256 / 1e14 / 3600, rel=1e-3)
    assert found["queue, MB"] == pytest.approx(33.55, abs=0.01)
    moved = 256 * (3 * 224 * 224 + 128) * 4 * 7 / 8 / 1e6
    assert found["images and keys to each GPU, MB a step"] == pytest.approx(moved)


def test_pairs_see_both_views_with_a_gradient():
    pairs, queue = (cost(RECIPES[name], gpus=8, sustained=100.0) for name in ("simclr", "moco-v2"))
    ratio = pairs["operations, 10¹⁸"] / queue["operations, 10¹⁸"]
    assert ratio == pytest.approx(1.5, rel=1e-3)
