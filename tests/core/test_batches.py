"""What training sees of data handed in: shapes, order, repetition; errors for what is no data."""

import pytest
import torch
from helpers import normal

from sscl_core.batches import PairSampler, epoch_pairs, epoch_shape, source
from sscl_core.config import (
    MLP,
    Cloud,
    ConvNet,
    Images,
    Mixture,
    Noise,
    Points,
    TrainConfig,
    scattered,
)

CPU = torch.device("cpu")


def on_images(**changes) -> TrainConfig:
    return TrainConfig(**{"data": Images(), "backbone": ConvNet(width=2), **changes})


def on_points(**changes) -> TrainConfig:
    small = Noise(scale=1e-4)
    data = Points(points=Cloud(dim=4), augmentation=(small,), steps_per_epoch=3)
    return TrainConfig(**{"data": data, "backbone": MLP(), "batch_size": 8, **changes})


def on_sampler(**changes) -> TrainConfig:
    data = Mixture(means=scattered(3), steps_per_epoch=3)
    return TrainConfig(**{"data": data, "backbone": MLP(), "batch_size": 8, **changes})


def pictures(n: int) -> torch.Tensor:
    """Image i is i everywhere, so that a view says which one it is of."""
    return torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 28, 28).contiguous()


class Pairs:
    """Pairs that count: both views of the k-th pair drawn are 2k and 2k + 1, in two columns."""

    dim = 2

    def pairs(self, n, *, generator):
        first = torch.arange(2 * n, dtype=torch.float32).view(n, 2)
        return first, first + torch.rand(1, generator=generator), "what else is known"


DATA = {"images": (on_images, pictures(20)), "points": (on_points, normal(30, 4).float())}
DATA["sampler"] = (on_sampler, Pairs())
every_kind = pytest.mark.parametrize(("make", "data"), DATA.values(), ids=DATA)


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (20, 8, [8, 8, 4]),
        (16, 8, [8, 8]),
        (18, 8, [8, 8, 2]),
        (17, 8, [8, 8]),  # a single image has no negatives
        (5, 8, [5]),
        (2, 2, [2]),
    ],
)
def test_images_come_in_batches_and_a_last_short_one(n, batch_size, sizes):
    found = source(on_images(batch_size=batch_size), pictures(n), CPU)
    steps = list(found.batches(0))
    assert [len(step.x1) for step in steps] == sizes
    assert (found.steps_per_epoch, found.images_per_epoch) == (len(sizes), sum(sizes))
    assert found.sample_shape == (1, 28, 28)
    for step, size in zip(steps, sizes, strict=True):
        assert step.x1.shape == step.x2.shape == (size, 1, 28, 28)
        assert step.x1.dtype == torch.float32
        assert step.overlap.shape == (size,)
        assert ((step.overlap >= 0) & (step.overlap <= 1)).all()


def numbers(views: torch.Tensor) -> list[int]:
    """Which images views are of: crops and flips leave an image of one grey as it is."""
    return (views.flatten(1).amax(1) * 255).round().int().tolist()


@pytest.mark.parametrize(("n", "seen"), [(20, 20), (17, 16)])
def test_every_image_is_seen_once_an_epoch_in_an_order_of_its_own(n, seen):
    """But for the one that would be alone in the last batch, another one every time."""
    found, orders = source(on_images(batch_size=8), pictures(n), CPU), []
    for epoch in range(8):
        steps = list(found.batches(epoch))
        order = [number for step in steps for number in numbers(step.x1)]
        assert order == [number for step in steps for number in numbers(step.x2)]
        assert len(order) == len(set(order)) == seen
        orders.append(tuple(order))
    assert len(set(orders)) == 8
    assert set().union(*orders) == set(range(n))


@every_kind
def test_the_same_seed_and_epoch_have_the_same_batches_and_no_other_has(make, data):
    def views(seed: int, epoch: int) -> torch.Tensor:
        steps = source(make(seed=seed, batch_size=8), data, CPU).batches(epoch)
        return torch.cat([torch.cat([step.x1, step.x2]) for step in steps])

    torch.manual_seed(1)
    first = views(0, 3)
    torch.manual_seed(2)
    assert torch.equal(views(0, 3), first)
    for other in (views(0, 4), views(1, 3)):
        assert other.shape == first.shape
        assert not torch.equal(other, first)


@every_kind
def test_batches_leave_the_data_and_the_global_state_alone(make, data):
    before, kept = torch.get_rng_state(), data.clone() if isinstance(data, torch.Tensor) else None
    for _ in source(make(batch_size=8), data, CPU).batches(0):
        assert torch.equal(torch.get_rng_state(), before)
    assert kept is None or torch.equal(data, kept)


@every_kind
def test_an_epoch_can_begin_before_another_has_ended(make, data):
    """Batches taken in turn from two epochs are those of the epochs one by one."""
    found = source(make(batch_size=8), data, CPU)
    in_turn = zip(found.batches(0), found.batches(1), strict=True)
    alone = zip(list(found.batches(0)), list(found.batches(1)), strict=True)
    for both, expected in zip(in_turn, alone, strict=True):
        for step, other in zip(both, expected, strict=True):
            assert torch.equal(step.x1, other.x1)
            assert torch.equal(step.x2, other.x2)


def test_an_epoch_of_a_sampler_is_one_draw_dealt_to_its_steps():
    assert isinstance(Pairs(), PairSampler)
    assert epoch_shape(on_sampler(), Pairs()) == (2, 3, 8)
    x1, x2 = epoch_pairs(on_sampler(), Pairs(), 5)
    assert x1.shape == x2.shape == (3, 8, 2)
    assert torch.equal(x1.flatten(), torch.arange(48.0))
    assert torch.allclose(x2 - x1, (x2 - x1)[0, 0, 0], atol=1e-4)
    steps = list(source(on_sampler(), Pairs(), CPU).batches(5))
    assert torch.equal(torch.stack([step.x1 for step in steps]), x1)
    assert torch.equal(torch.stack([step.x2 for step in steps]), x2)
    assert all(step.overlap is None for step in steps)


@pytest.mark.parametrize(("n", "batch"), [(30, 8), (8, 8), (5, 5)])
def test_a_batch_of_points_has_no_point_twice(n, batch):
    pool = normal(n, 4).float()
    assert epoch_shape(on_points(), pool) == (4, 3, batch)
    x1, x2 = epoch_pairs(on_points(), pool, 0)
    assert x1.shape == x2.shape == (3, batch, 4)
    first, second = (torch.cdist(x, pool).min(2) for x in (x1, x2))
    assert max(first.values.max(), second.values.max()) < 0.01
    assert torch.equal(first.indices, second.indices)
    assert all(len(step.unique()) == batch for step in first.indices)
    assert not torch.equal(x1, x2)


@pytest.mark.parametrize(
    ("make", "data", "message"),
    [
        (on_images, normal(5, 3), r"a tensor of images with 4 dimensions, got \(5, 3\)"),
        (on_images, Pairs(), "a tensor of images with 4 dimensions, got Pairs"),
        (on_points, pictures(3), r"a tensor of points with 2 dimensions, got \(3, 1, 28, 28\)"),
        (on_points, Pairs(), "a tensor of points with 2 dimensions, got Pairs"),
        (on_sampler, normal(5, 3), r"a sampler of pairs, got a tensor of shape \(5, 3\)"),
    ],
)
def test_data_of_another_kind_are_named(make, data, message):
    with pytest.raises(TypeError, match=f"data must be {message}"):
        source(make(), data, CPU)


@pytest.mark.parametrize("n", [0, 1])
def test_a_single_image_has_no_negatives(n):
    with pytest.raises(ValueError, match=r"data is .* must be two images or more"):
        source(on_images(), pictures(n), CPU)
