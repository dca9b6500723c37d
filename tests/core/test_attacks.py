"""Attacks beat chance, grow with what they may do, and agree with others; Lipschitz from below."""

import inspect
import math

import pytest
import torch
from helpers import normal
from torch import nn
from torch.nn import functional as F

from sscl_core import attacks
from sscl_core.attacks import NORMS, displacement, local_lipschitz, mistake, pgd, random_start

SIZE = {"l2": 0.5, "linf": 0.03}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 5)).double()


@pytest.fixture(scope="module")
def images():
    return 0.1 + 0.8 * torch.rand(
        12, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def length(change, norm):
    flat = change.flatten(1)
    return flat.norm(dim=1) if norm == "l2" else flat.abs().amax(1)


@pytest.mark.parametrize("norm", NORMS)
def test_of_a_linear_loss_the_best_change_is_found_exactly(norm, images):
    w = normal(64, seed=3)
    radius = 0.05  # no pixel reaches 0 or 1
    found = pgd(lambda x: x.flatten(1) @ w, images, radius=radius, norm=norm, steps=20)
    best = w / w.norm() if norm == "l2" else w.sign()
    torch.testing.assert_close(found, images + radius * best.view(1, 8, 8))


@pytest.mark.parametrize("norm", NORMS)
def test_it_stays_in_the_ball_and_in_the_range_of_pixels(norm, network):
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64).round()  # at the ends of the range
    found = pgd(displacement(network, x), x, radius=SIZE[norm], norm=norm, restarts=2)
    assert (length(found - x, norm) <= SIZE[norm] + 1e-9).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert (length(found - x, norm) > 0.1 * SIZE[norm]).all()


@pytest.mark.parametrize("norm", NORMS)
def test_it_beats_random_changes_of_the_same_size(norm, network, images):
    labels = network(images).argmax(1)
    for loss in (displacement(network, images), mistake(network, labels)):
        found = loss(pgd(loss, images, radius=SIZE[norm], norm=norm))
        generator = torch.Generator().manual_seed(2)
        for _ in range(20):
            noisy = random_start(images, SIZE[norm], norm, generator)
            assert (found > loss(noisy)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_it_grows_with_radius_steps_and_restarts(norm, network, images):
    loss = displacement(network, images)

    def reached(**changes):
        settings = {"radius": SIZE[norm], "norm": norm, "steps": 10} | changes
        return loss(pgd(loss, images, generator=torch.Generator().manual_seed(0), **settings))

    assert (reached(radius=2 * SIZE[norm]) > reached()).all()
    assert (reached(restarts=3) >= reached()).all()
    assert (reached(restarts=3) > reached()).any()
    step = SIZE[norm] / 10
    assert (reached(step_size=step, steps=8) > reached(step_size=step, steps=2)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_it_agrees_with_foolbox(norm, network, images):
    foolbox = pytest.importorskip("foolbox")
    labels = network(images).argmax(1)
    model = foolbox.PyTorchModel(network.eval(), bounds=(0, 1))
    radius, steps = SIZE[norm], 20
    name = {"l2": "L2", "linf": "Linf"}[norm]
    attack = getattr(foolbox.attacks, f"{name}ProjectedGradientDescentAttack")(
        abs_stepsize=2.5 * radius / steps, steps=steps, random_start=False
    )
    with_loss = mistake(network, labels)
    _, theirs, _ = attack(model, images, labels, epsilons=radius)
    ours = pgd(with_loss, images, radius=radius, norm=norm, steps=steps)
    torch.testing.assert_close(with_loss(ours), with_loss(theirs), rtol=0.02, atol=0.01)


def test_the_local_lipschitz_constant_is_bounded_from_below_and_reached(network, images):
    exact = torch.linalg.matrix_norm(
        torch.func.vmap(torch.func.jacrev(lambda x: network(x[None])[0]))(images).flatten(2), ord=2
    )
    few, many = (
        local_lipschitz(network, images, iterations=k, generator=torch.Generator().manual_seed(0))
        for k in (1, 100)
    )
    assert (few <= exact * (1 + 1e-9)).all()
    assert (few < 0.999 * exact).any()
    torch.testing.assert_close(many, exact, rtol=1e-4, atol=0)


def test_cross_entropy_and_displacement_are_what_they_say(network, images):
    labels = torch.arange(12) % 5
    expected = -network(images).log_softmax(1)[range(12), labels]
    torch.testing.assert_close(mistake(network, labels)(images), expected)
    moved = (images + 0.01).clamp(0, 1)
    by_hand = [(network(a[None]) - network(b[None])).norm() for a, b in zip(moved, images)]  # noqa: B905
    torch.testing.assert_close(displacement(network, images)(moved), torch.stack(by_hand))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"radius": 0.0}, ValueError, "radius must be positive and finite, got 0.0"),
        ({"radius": -1.0}, ValueError, "radius must be positive and finite, got -1.0"),
        ({"radius": math.nan}, ValueError, "radius must be positive and finite, got nan"),
        ({"norm": "l1"}, ValueError, r"norm must be one of \('l2', 'linf'\), got 'l1'"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": 2.0}, TypeError, "steps must be a whole number, got 2.0"),
        ({"restarts": 0}, ValueError, "restarts must be at least 1, got 0"),
        ({"step_size": 0.0}, ValueError, "step_size must be positive and finite, got 0.0"),
        ({"x": torch.ones(2, 3) * 2}, ValueError, r"x must be in \[0, 1\], got 2 to 2: divide"),
        ({"x": torch.full((2, 3), math.nan)}, ValueError, r"x must be in \[0, 1\], got nan"),
        ({"x": torch.ones(3)}, ValueError, r"x must have shape \(n, ...\) .* got \(3,\)"),
        ({"x": torch.ones(2, 3).byte()}, TypeError, "x must be a floating-point tensor"),
        ({"loss": lambda x: x.sum()}, ValueError, r"loss must give one number a row, shape \(2,\)"),
    ],
)
def test_bad_input_is_named(changes, error, words):
    settings = {"loss": lambda x: x.sum(1), "x": torch.full((2, 3), 0.5), "radius": 0.1} | changes
    with pytest.raises(error, match=words):
        inspect.unwrap(pgd)(settings.pop("loss"), settings.pop("x"), **settings)


def test_iterations_below_one_are_refused():
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        local_lipschitz(lambda x: x, torch.ones(1, 2), iterations=0)


def test_an_attack_without_a_slope_still_moves(images):
    """The displacement has a zero gradient at 0, where the attack begins."""
    found = attacks.pgd(displacement(lambda x: x, images), images, radius=0.1, norm="l2")
    assert (length(found - images, "l2") > 0.099).all()
    assert F.mse_loss(found, images) > 0


def test_steps_keep_their_length_where_the_slope_is_tiny(images):
    """As that of a cross-entropy is on a confident network, in float32."""
    x, w = images.float(), normal(64, seed=3).float()
    for size in (1.0, 1e-20, 1e-35):
        found = pgd(lambda x, s=size: s * (x.flatten(1) @ w), x, radius=0.05, steps=20)
        best = x + 0.05 * (w / w.norm()).view(1, 8, 8)
        torch.testing.assert_close(found, best, rtol=0, atol=1e-5)


def test_the_lipschitz_constant_of_a_flat_function_is_found(images):
    found = local_lipschitz(lambda x: 1e-9 * x, images.float(), iterations=8)
    torch.testing.assert_close(found, torch.full((12,), 1e-9), rtol=1e-5, atol=0)


def test_an_attack_needs_no_graph_and_leaves_none(network, images):
    loss = displacement(network, images)
    with torch.no_grad():
        found = pgd(loss, images, radius=0.5)
    x = images.clone().requires_grad_()
    assert torch.equal(pgd(loss, x, radius=0.5), found)
    assert not pgd(loss, x, radius=0.5).requires_grad
