"""Scores of frozen features against scikit-learn, naive loops and closed forms; and frozen means frozen."""

import inspect
import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from sscl_core.config import ConvNet, Projector, TrainConfig
from sscl_core.evaluate import accuracy, alignment, backbone_scores, embed, feature_scores, knn, linear_probe, uniformity
from sscl_core.models import build
from sscl_core.theory import regular_polygon, regular_simplex


def blobs(n: int, m: int, *, noise: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Train and test features of four overlapping classes in six dimensions, off the origin: (train, labels, test, test labels)."""
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(4, 6, generator=rng, dtype=dtype) + 1
    labels = torch.randint(4, (n + m,), generator=rng)
    x = means[labels] + noise * torch.randn(n + m, 6, generator=rng, dtype=dtype)
    return x[:n], labels[:n], x[n:], labels[n:]


# --- k-NN ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5, 10, 150])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_knn_is_scikit_learns(metric, k):
    """Even k has many equal votes: both give them to the smaller label."""
    train, labels, test, truth = blobs(150, 200)
    expected = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(train, labels).predict(test)
    found = knn(train, labels, test, k=k, metric=metric)
    assert found.tolist() == expected.tolist()
    if k < 150:
        assert 0.4 < accuracy(found, truth) < 0.95, "neither chance nor trivial"


def test_the_metrics_differ():
    train, labels, test, _ = blobs(150, 200)
    assert not torch.equal(knn(train, labels, test), knn(train, labels, test, metric="euclidean"))


@pytest.mark.parametrize("labels", [[3, 1, 0], [1, 3, 0]], ids=str)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_equal_votes_go_to_the_smaller_label(metric, labels):
    """Even if the larger one is nearer."""
    train = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]])
    test = torch.tensor([[1.0, 0.0], [0.9, 0.1]])
    assert knn(train, torch.tensor(labels), test, k=1, metric=metric).tolist() == labels[:2]
    assert knn(train, torch.tensor(labels), test, k=2, metric=metric).tolist() == [1, 1]


@pytest.mark.parametrize(("k", "temperature"), [(7, 0.1), (60, 0.1), (60, 1.0), (60, 0.002)])
def test_weighted_knn_is_the_naive_loop(k, temperature):
    train, labels, test, _ = blobs(60, 40)
    expected = []
    for x in test:
        similarity = [float(x @ y / x.norm() / y.norm()) for y in train]
        nearest = sorted(range(len(train)), key=lambda j: -similarity[j])[:k]
        votes = [sum(math.exp((similarity[j] - 1) / temperature) for j in nearest if labels[j] == c) for c in range(4)]
        expected.append(int(np.argmax(votes)))
    found = knn(train, labels, test, k=k, temperature=temperature)
    assert found.tolist() == expected
    assert k < 60 or len(found.unique()) > 1, "with equal votes all of k = n is one answer"


def test_small_temperatures_do_not_underflow_where_it_matters():
    """In float32 exp(1/0.002) overflows: similarities are taken relative to 1 first."""
    train, labels, test, _ = blobs(60, 40, noise=0.1, dtype=torch.float32)
    assert torch.equal(knn(train, labels, test, k=20, temperature=0.002), knn(train, labels, test, k=1))


@pytest.mark.parametrize("chunk", [1, 7, 40, 41])
@pytest.mark.parametrize("settings", [{}, {"metric": "euclidean"}, {"temperature": 0.1}], ids=str)
def test_chunks_change_nothing(settings, chunk):
    train, labels, test, _ = blobs(60, 40)
    assert torch.equal(knn(train, labels, test, k=6, chunk=chunk, **settings), knn(train, labels, test, k=6, **settings))


@pytest.mark.parametrize("shift", [1e3, 1e4])
def test_euclidean_knn_far_from_the_origin_in_float32(shift):
    train, labels, test, _ = (x.float() + shift if x.is_floating_point() else x for x in blobs(150, 200))
    exact = KNeighborsClassifier(5, algorithm="brute").fit(train.double(), labels).predict(test.double())
    gram = (test @ train.T - train.square().sum(1) / 2).topk(5).indices  # what the code must not do
    truth = torch.cdist(test.double(), train.double()).topk(5, largest=False).indices
    assert (gram.sort().values != truth.sort().values).any(1).float().mean() > 0.05
    assert knn(train, labels, test, k=5, metric="euclidean").tolist() == exact.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be in 1..20, .*got 0"),
        ({"k": 21}, "k must be in 1..20, .*got 21"),
        ({"metric": "manhattan"}, "metric must be .*'manhattan'"),
        ({"test": torch.zeros(3, 5)}, "one width, got 6 and 5"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": math.nan}, "temperature must be positive"),
        ({"temperature": 0.1, "metric": "euclidean"}, "temperature must be positive and the metric cosine"),
    ],
)
def test_bad_input_is_named(change, message):
    train, labels, test, _ = blobs(20, 10)
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(knn)(**{"train": train, "labels": labels, "test": test, "k": 3, **change})


# --- the linear probe ----------------------------------------------------------------------------


def minimised_by_hand(train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, penalty: float) -> torch.Tensor:
    """Margins between the two best classes and the predictions, from the objective as the docstring states it."""
    mean, std = train.mean(0), train.std(0)
    x = (train - mean) / std
    w = torch.zeros(4, x.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w, b], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ w.T + b, labels) + penalty / 2 * w.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (((test - mean) / std) @ w.T + b).detach()


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 1.0])
def test_the_probe_minimises_the_objective_of_its_docstring(penalty):
    train, labels, test, _ = blobs(150, 2000, noise=2.0)
    train, test = train * torch.arange(1, 7), test * torch.arange(1, 7)  # standardisation matters
    best = minimised_by_hand(train, labels, test, penalty).topk(2)
    clear = best.values[:, 0] - best.values[:, 1] > 0.02  # scikit-learn stops at tol=1e-3
    assert clear.float().mean() > 0.9
    found = linear_probe(train, labels, test, penalty=penalty)
    assert torch.equal(found[clear], best.indices[clear, 0])
    other = minimised_by_hand(train, labels, test, penalty / 100 if penalty > 0.01 else penalty * 100).argmax(1)
    assert (other[clear] != found[clear]).sum() > 10, "a penalty on another scale would show"


def test_the_probe_separates_what_is_separable():
    train, labels, test, truth = blobs(200, 300, noise=0.05)
    assert accuracy(linear_probe(train, labels, test), truth) == 1.0


def test_the_probe_copes_with_a_constant_feature_and_labels_that_are_not_all_there():
    train, labels, test, truth = (x.float() if x.is_floating_point() else 2 * x + 3 for x in blobs(200, 300, noise=0.05))
    train[:, 0] = test[:, 0] = 7
    found = linear_probe(train, labels, test)
    assert found.dtype == torch.int64
    assert accuracy(found, truth) > 0.95


@pytest.mark.parametrize("training", [True, False])
def test_the_backbone_is_left_as_it_was(training):
    """Parameters and BatchNorm's statistics, bit for bit, and the mode."""
    torch.manual_seed(0)
    model = build(TrainConfig(backbone=ConvNet(width=2), projector=Projector(hidden=8, dim=4, batchnorm=True)), (1, 28, 28))
    images = torch.randint(256, (40, 1, 28, 28), dtype=torch.uint8)
    model(images / 255)  # statistics that are not the initial ones
    model.train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert any("running_var" in key and not torch.equal(value, torch.ones_like(value)) for key, value in before.items())
    h, z = embed(model, images)
    backbone_scores(h, torch.arange(40) % 3, h, torch.arange(40) % 3)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {module.training for module in model.modules()} == {training}
    assert all(p.grad is None for p in model.parameters())
    assert (h.requires_grad, z.requires_grad) == (False, False)


@pytest.mark.parametrize("batch_size", [1, 7, 1024])
def test_embedding_is_the_evaluated_network_whatever_the_batches(batch_size):
    torch.manual_seed(0)
    model = build(TrainConfig(backbone=ConvNet(width=2), projector=Projector(dim=4, batchnorm=True)), (1, 28, 28))
    images = torch.randint(256, (20, 1, 28, 28), dtype=torch.uint8)
    model(images / 255)
    h, z = embed(model.train(), images, batch_size=batch_size)
    expected_h, expected_z = model.eval()(images.float() / 255)
    torch.testing.assert_close((h, z), (expected_h.detach(), expected_z.detach()), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected_z, model.train()(images / 255)[1], atol=0.1), "the mode matters here"


# --- alignment and uniformity --------------------------------------------------------------------


def sphere(n: int, d: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def test_alignment_is_the_naive_loop_and_known_where_it_is():
    z1, z2 = sphere(20, 3, 0), sphere(20, 3, 1)
    expected = sum(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for x, y in zip(z1.tolist(), z2.tolist(), strict=True)) / 20
    assert alignment(z1, z2).item() == pytest.approx(expected, rel=1e-12)
    assert alignment(z1, z1) == 0
    assert alignment(z1, -z1).item() == pytest.approx(4)


@pytest.mark.parametrize("t", [0.5, 2.0, 10.0])
def test_uniformity_is_the_naive_loop(t):
    z = sphere(20, 3, 0)
    pairs = [math.exp(-t * float((z[i] - z[j]).square().sum())) for i in range(20) for j in range(20) if i != j]
    assert uniformity(z, t=t).item() == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-12)


@pytest.mark.parametrize("m", [2, 3, 5, 12])
def test_uniformity_of_a_regular_polygon_and_a_simplex(m):
    """Distances from one corner: 2 - 2cos(2πk/m); and in the simplex all 2m/(m-1)."""
    kernel = [math.exp(-2 * (2 - 2 * math.cos(2 * math.pi * k / m))) for k in range(1, m)]
    assert uniformity(regular_polygon(m)).item() == pytest.approx(math.log(sum(kernel) / (m - 1)), rel=1e-12)
    assert uniformity(regular_simplex(m, m - 1)).item() == pytest.approx(-4 * m / (m - 1), rel=1e-12)


def test_uniformity_of_one_point_and_of_two_poles():
    assert uniformity(sphere(1, 3, 0).repeat(9, 1)).item() == pytest.approx(0, abs=1e-12)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), t=3.0).item() == pytest.approx(-12)


# --- accuracy and the table ----------------------------------------------------------------------


def test_accuracy():
    assert accuracy(torch.tensor([1, 2, 3]), torch.tensor([1, 0, 3])) == 2 / 3


def test_scores_are_the_protocols_by_name():
    train, labels, test, truth = blobs(250, 100, noise=1.5)
    predictions = {
        "knn_cosine": knn(train, labels, test, k=10),
        "knn_euclidean": knn(train, labels, test, k=10, metric="euclidean"),
        "knn_weighted": knn(train, labels, test, k=200, temperature=0.1),
        "linear_probe": linear_probe(train, labels, test),
    }
    expected = {name: accuracy(predicted, truth) for name, predicted in predictions.items()}
    assert len(set(expected.values())) == 4
    of_features, of_backbone = (scores(train, labels, test, truth) for scores in (feature_scores, backbone_scores))
    assert of_features | of_backbone == expected
    assert of_features.keys() & of_backbone.keys() == {"knn_cosine"}


def test_fewer_features_than_neighbors_all_vote():
    train, labels, test, truth = blobs(5, 10)
    for scores in (feature_scores, backbone_scores):
        assert scores(train, labels, test, truth)["knn_cosine"] == accuracy(knn(train, labels, test, k=5), truth)
