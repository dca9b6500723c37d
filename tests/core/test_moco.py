"""MoCo and t-MoCo: the queue, the momentum, the loss, and the leak through BatchNorm."""

import inspect
import math
import re

import pytest
import torch
from helpers import normal
from torch import nn

from sscl_core import fit, moco
from sscl_core.config import (
    ConvNet,
    Images,
    InfoNCE,
    PairWeights,
    Projector,
    SpectralContrastive,
    TrainConfig,
    TSimCLR,
)
from sscl_core.divergence import NonFiniteLossError
from sscl_core.models import Encoder
from sscl_core.similarities import Cosine, Student
from sscl_core.train import computing, contrastive_loss, train

# --- the loss -------------------------------------------------------------------------------------


def naive(log_s, q, k, queue):
    """From the formula, one pair at a time, in Python's floats."""
    total = 0.0
    for i in range(len(q)):
        positive = log_s(q[i], k[i])
        terms = [positive, *(log_s(q[i], negative) for negative in queue)]
        total += -positive + math.log(sum(math.exp(term) for term in terms))
    return total / len(q)


def log_cosine(temperature):
    return lambda a, b: float(a @ b / (a.norm() * b.norm()) / temperature)


def log_student(temperature, df):
    def log_s(a, b):
        squared = float((a - b).square().sum())
        if math.isinf(df):
            return -squared / (2 * temperature)
        return -(df + 1) / 2 * math.log(1 + squared / (temperature * df))

    return log_s


@pytest.mark.parametrize("negatives", [0, 1, 7])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 3.0])
def test_moco_is_its_formula(negatives, temperature):
    q, k, queue = normal(5, 3), normal(5, 3, seed=1), normal(negatives, 3, seed=2)
    found = moco.moco(q, k, queue, temperature=temperature)
    assert found.item() == pytest.approx(naive(log_cosine(temperature), q, k, queue), rel=1e-12)


@pytest.mark.parametrize("negatives", [0, 1, 7])
@pytest.mark.parametrize(("temperature", "df"), [(0.2, 5.0), (3.0, 1.0), (0.5, math.inf)])
def test_t_moco_is_its_formula(negatives, temperature, df):
    q, k, queue = normal(5, 3), normal(5, 3, seed=1), normal(negatives, 3, seed=2)
    found = moco.t_moco(q, k, queue, temperature=temperature, df=df)
    assert found.item() == pytest.approx(
        naive(log_student(temperature, df), q, k, queue), rel=1e-11
    )


def test_t_moco_far_from_the_origin_in_float32():
    q, k, queue = (part.float() for part in (normal(5, 3), normal(5, 3, seed=1), normal(7, 3)))
    far = moco.t_moco(q + 1000, k + 1000, queue + 1000)
    # The inputs themselves are rounded by 3e-5 there.
    assert far.item() == pytest.approx(moco.t_moco(q, k, queue).item(), rel=1e-3)


@pytest.mark.parametrize("loss", [moco.moco, moco.t_moco])
def test_the_gradient_is_right_and_flows_into_queries_only(loss):
    q, k, queue = normal(4, 3), normal(4, 3, seed=1), normal(6, 3, seed=2)
    assert torch.autograd.gradcheck(lambda x: loss(x, k, queue), q.requires_grad_())
    k.requires_grad_()
    queue.requires_grad_()
    loss(q, k, queue).backward()
    assert q.grad.abs().max() > 1e-3
    assert k.grad is None
    assert queue.grad is None


def test_half_precision_is_computed_in_single():
    q, k, queue = (part.bfloat16() for part in (normal(4, 3), normal(4, 3, seed=1), normal(6, 3)))
    found = moco.t_moco(q, k, queue)
    assert found.dtype == torch.float32
    assert found == moco.t_moco(q.float(), k.float(), queue.float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": normal(3, 3)}, "q, k and queue must have shapes (n, d), (n, d) and (K, d)"),
        ({"queue": normal(6, 2)}, "got (4, 3), (4, 3) and (6, 2)"),
        ({"q": normal(4, 3) * math.nan}, "q must be finite"),
        ({"queue": normal(6, 3) * math.nan}, "queue must be finite"),
        ({"temperature": 0.0}, "temperature must be positive"),
    ],
)
@pytest.mark.parametrize("loss", [moco.moco, moco.t_moco])
def test_wrong_arguments_are_named(loss, change, message):
    arguments = {"q": normal(4, 3), "k": normal(4, 3), "queue": normal(6, 3)} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        inspect.unwrap(loss)(**arguments)


def test_a_queue_that_was_never_filled_is_named():
    with pytest.raises(ValueError, match="queue has a row of zeros"):
        moco.moco(normal(4, 3), normal(4, 3, seed=1), torch.zeros(6, 3).double())


# --- the queue ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(3, 3, 3), (4, 4, 4, 4), (7, 1, 2), (5,), (11, 2), (1,) * 12])
def test_the_queue_keeps_the_last_keys_in_their_order(sizes):
    """Against a list, for sizes that do not divide the queue's, and larger ones."""
    queue, expected, number = moco.Queue(5, 2), [], 0
    for size in sizes:
        keys = torch.arange(number, number + size, dtype=torch.float32)
        queue.push(torch.stack([keys, -keys], 1))
        expected = (expected + keys.tolist())[-5:]
        number += size
        assert queue.in_order()[:, 0].tolist() == expected
        assert sorted(queue.keys()[:, 0].tolist()) == sorted(expected)
        assert queue.in_order()[:, 1].tolist() == [-key for key in expected]


def test_the_queue_travels_in_the_state():
    queue, other = moco.Queue(5, 2), moco.Queue(5, 2)
    queue.push(normal(7, 2).float())
    other.load_state_dict(queue.state_dict())
    assert other.in_order().equal(queue.in_order())
    assert len(other) == 5


def test_keys_in_the_queue_are_copies_without_history():
    queue, keys = moco.Queue(5, 2), torch.ones(2, 2, requires_grad=True)
    queue.push(keys * 2)
    assert not queue.keys().requires_grad
    kept = queue.keys()
    queue.push(torch.zeros(5, 2))
    assert kept.eq(2).all()


def test_a_queue_refuses_other_widths_and_sizes():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        moco.Queue(0, 2)
    with pytest.raises(ValueError, match=r"keys is a tensor of shape \(3, 4\).*the queue's width"):
        moco.Queue(5, 2).push(torch.zeros(3, 4))


# --- the key encoder ------------------------------------------------------------------------------


def encoder(width=4, inputs=6, batchnorm=False, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(inputs, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()]
    norm = [nn.BatchNorm1d(width, affine=False)] if batchnorm else []
    return Encoder(nn.Sequential(*layers), nn.Sequential(nn.Linear(16, width), *norm))


def test_the_momentum_update_is_exact():
    slow, fast = encoder(seed=1).double(), encoder(seed=2).double()
    expected = [
        0.9 * a.detach() + (1 - 0.9) * b.detach()
        for a, b in zip(slow.parameters(), fast.parameters(), strict=True)
    ]
    moco.momentum_update(slow, fast, 0.9)
    for found, wanted in zip(slow.parameters(), expected, strict=True):
        assert (found - wanted).abs().max() <= 2e-16


def test_running_statistics_are_the_key_encoders_own():
    slow, fast = encoder(seed=1), encoder(seed=2)
    before = slow.backbone[1].running_mean.clone()
    fast.backbone[1].running_mean.fill_(7.0)
    moco.momentum_update(slow, fast, 0.5)
    assert slow.backbone[1].running_mean.equal(before)


@pytest.mark.parametrize("batchnorm", [False, True])
def test_a_step_is_query_then_momentum_then_keys_then_queue(batchnorm):
    """Two steps beside what they are by hand, without groups, where nothing is shuffled."""
    settings = {"similarity": Cosine(0.2), "momentum": 0.7, "groups": 1}
    model = moco.MoCo(encoder(batchnorm=batchnorm), 4, queue_size=9, **settings)
    queries, keys = encoder(batchnorm=batchnorm), encoder(batchnorm=batchnorm)
    queries.load_state_dict(model.queries.state_dict())
    keys.load_state_dict(model.queries.state_dict())
    own = torch.optim.SGD(model.queries.parameters(), 0.1)
    by_hand = torch.optim.SGD(queries.parameters(), 0.1)
    stored = torch.zeros(0, 4)
    for step in range(3):
        x1, x2 = (normal(8, 6, seed=10 * step + view).float() for view in range(2))
        loss = model(x1, x2)
        q = queries(x1)[1]
        with torch.no_grad():
            for a, b in zip(keys.parameters(), queries.parameters(), strict=True):
                a.copy_(0.7 * a + 0.3 * b)
            k = keys(x2)[1]
        expected = moco.moco(q, k, stored, temperature=0.2)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
        stored = torch.cat([stored, k])[-9:]
        assert (model.queue.in_order() - stored).abs().max() < 1e-5
        assert all(p.grad is None for p in model.key_encoder.parameters())
        for value, optimizer in ((loss, own), (expected, by_hand)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    moved = zip(model.queries.parameters(), model.key_encoder.parameters(), strict=True)
    assert any((a - b).abs().max() > 1e-3 for a, b in moved)


@pytest.mark.parametrize(("n", "groups"), [(12, 3), (13, 4), (8, 1), (7, 3)])
def test_dealt_groups_share_as_few_images_with_a_part_as_can_be(n, groups):
    dealt, parts = moco.dealt(n, groups), moco.contiguous(n, groups)
    for split in (dealt, parts):
        assert torch.cat(split).sort().values.equal(torch.arange(n))
        assert max(map(len, split)) - min(map(len, split)) <= 1
    for hand in dealt:
        for part in parts:
            shared = len(set(hand.tolist()) & set(part.tolist()))
            assert shared <= math.ceil(len(part) / groups)


def test_keys_come_back_in_the_order_of_their_images():
    """In evaluation mode groups change nothing: z of every row is as if it were alone."""
    network = encoder().eval()
    x = normal(13, 6).float()
    for groups in (moco.dealt(13, 4), moco.contiguous(13, 4)):
        z = moco.in_groups(network, x, groups)
        assert (z - network(x)[1]).abs().max() < 1e-6


# --- the leak -------------------------------------------------------------------------------------


class Around(nn.Module):
    """BatchNorm with a path around it, as in a residual network."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x):
        return torch.cat([x, self.norm(x)], 1)


def strangers(n=64, groups=8, width=16):
    """Images of noise, and as "other view" of each the image of its neighbor in its group."""
    x1 = torch.randn(n, width)
    return x1, x1.view(groups, n // groups, width).roll(1, 1).reshape(n, width)


def recognised(*, shuffle, steps=150):
    """How often the positive is told from 64 keys of other batches, where only BatchNorm can tell.

    The two views of a pair are independent, so that no network can tell the positive by the image.
    What the two share is the group that the queries are normalised in. The networks are frozen
    when this is measured, so that keys of the queue are not told by their age.
    """
    torch.manual_seed(0)
    network = Encoder(Around(16), nn.Linear(32, 16))
    settings = {"similarity": Cosine(0.1), "momentum": 0.9, "groups": 8, "shuffle": shuffle}
    model = moco.MoCo(network, 16, queue_size=64, **settings)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(*strangers()).backward()
        optimizer.step()
    return _share(model, [strangers() for _ in range(12)])


@torch.no_grad()
def _share(model, batches):
    split = moco.dealt if model.shuffle else moco.contiguous
    hits, others = [], None
    for x1, x2 in batches:
        q = moco.in_groups(model.queries, x1, moco.contiguous(64, 8))
        k = moco.in_groups(model.key_encoder, x2, split(64, 8))
        q, k = (nn.functional.normalize(z, dim=1) for z in (q, k))
        if others is not None:
            hits.append(((q * k).sum(1) > (q @ others.T).amax(1)).float().mean().item())
        others = k
    return sum(hits) / len(hits)


def test_batchnorm_tells_the_positive_unless_keys_are_shuffled():
    """Chance is 1/65 = .015. Without the shuffle the statistics of the group give it away."""
    assert recognised(shuffle=False) > 0.2
    assert recognised(shuffle=True) < 0.04


# --- training -------------------------------------------------------------------------------------


def run(**changes):
    small = {"backbone": ConvNet(width=4), "projector": Projector(hidden=0, dim=4)}
    return TrainConfig(data=Images(), **small | {"batch_size": 16, "epochs": 2} | changes)


def pictures(n=40):
    return torch.randint(0, 256, (n, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": InfoNCE(temperature=0.2)},
        {"loss": TSimCLR(temperature=0.2), "projector": Projector(hidden=0, dim=4, batchnorm=True)},
    ],
)
def test_training_learns_and_is_the_same_again(changes):
    """40 images in batches of 16: the last batch, of 8, has fewer groups."""
    settings = {"queue_size": 21, "momentum": 0.9, "device": "cpu"}
    first, again = (moco.train_moco(run(**changes), pictures(), **settings) for _ in range(2))
    assert len(first.losses) == 6
    assert first.losses == again.losses
    start = moco.initial_network(run(**changes), torch.Size([1, 28, 28]))
    moved = zip(first.model.parameters(), start.parameters(), strict=True)
    assert all((a - b).abs().max() > 1e-4 for a, b in moved if a.ndim > 1)
    other = moco.train_moco(run(**changes, seed=1), pictures(), **settings)
    assert other.losses != first.losses


def test_the_loop_is_that_of_train():
    """With the loss of `train` it gives what `train` gives."""
    config = run()
    network = moco.initial_network(config, torch.Size([1, 28, 28]))

    def loss_of(batch, step):
        z1, z2 = network(torch.cat([batch.x1, batch.x2]))[1].chunk(2)
        return contrastive_loss(config, z1, z2)

    with computing(config):
        found = fit.fit(config, pictures(), network, loss_of)
    expected = train(config, pictures(), device="cpu")
    assert found.losses == expected.losses
    for a, b in zip(found.model.parameters(), expected.model.parameters(), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"loss": SpectralContrastive()}, {}, "loss must be info_nce or t_simclr, without weights"),
        ({"weights": PairWeights(temperature=1.0)}, {}, "without weights"),
        ({"loss": TSimCLR(learn_df=True)}, {}, "learn_df is True, must be False"),
        ({}, {"groups": 9}, "batch_size is 16, must be 18 or more"),
        ({}, {"momentum": 1.0}, r"momentum is 1.0, must be in \[0, 1\)"),
        ({}, {"queue_size": 0}, "size must be at least 1, got 0"),
    ],
)
def test_what_this_objective_does_not_have_is_refused(changes, settings, message):
    with pytest.raises(ValueError, match=message):
        moco.train_moco(run(**changes), pictures(), device="cpu", **settings)


def test_a_loss_that_is_not_finite_is_said():
    config = run()
    network = moco.initial_network(config, torch.Size([1, 28, 28]))

    def loss_of(batch, step):
        return network(batch.x1)[1].sum() * math.inf

    with pytest.raises(NonFiniteLossError, match="the loss became NaN or infinite in seed 0"):
        fit.fit(config, pictures(), network, loss_of)


def test_student_similarity_is_the_configs():
    assert moco.similarity_of(run(loss=TSimCLR(temperature=0.3, df=4.0))) == Student(0.3, 4.0)
