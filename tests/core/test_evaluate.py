"""Scores of frozen features and measures of how they lie, against scikit-learn, naive loops and
closed forms; and frozen means frozen.
"""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from sscl_core.config import ConvNet, Projector, TrainConfig
from sscl_core.evaluate import (
    _largest,
    _nearest_by_both,
    accuracy,
    alignment,
    backbone_scores,
    class_similarity,
    component_means,
    embed,
    feature_scores,
    knn,
    linear_probe,
    lipschitz,
    uniformity,
)
from sscl_core.models import build
from sscl_experiments.arrangements import (
    cyclic_order,
    preserves_order,
    regular_polygon,
    regular_simplex,
)
from sscl_experiments.studies.implicit_bias.class_groups import group_contrast, regroupings
from sscl_experiments.studies.implicit_bias.enumeration import placement_rank


def blobs(
    n: int, m: int, *, noise: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, ...]:
    """Train and test features of four overlapping classes in six dimensions, off the origin.

    Returns (train, labels, test, test labels).
    """
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
    expected = (
        KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(train, labels).predict(test)
    )
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
        votes = [
            sum(math.exp((similarity[j] - 1) / temperature) for j in nearest if labels[j] == c)
            for c in range(4)
        ]
        expected.append(int(np.argmax(votes)))
    found = knn(train, labels, test, k=k, temperature=temperature)
    assert found.tolist() == expected
    assert k < 60 or len(found.unique()) > 1, "with equal votes all of k = n is one answer"


def test_small_temperatures_do_not_underflow_where_it_matters():
    """In float32 exp(1/0.002) overflows: similarities are taken relative to 1 first."""
    train, labels, test, _ = blobs(60, 40, noise=0.1, dtype=torch.float32)
    assert torch.equal(
        knn(train, labels, test, k=20, temperature=0.002), knn(train, labels, test, k=1)
    )


@pytest.mark.parametrize("chunk", [1, 7, 40, 41])
@pytest.mark.parametrize("settings", [{}, {"metric": "euclidean"}, {"temperature": 0.1}], ids=str)
def test_chunks_change_nothing(settings, chunk):
    train, labels, test, _ = blobs(60, 40)
    assert torch.equal(
        knn(train, labels, test, k=6, chunk=chunk, **settings),
        knn(train, labels, test, k=6, **settings),
    )


@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("n", [16, 40, 500, 643])
def test_the_largest_of_groups_are_the_largest_of_all(n, k):
    """Where groups are used and where not, with columns left over and without; ties too."""
    k = min(n, k)
    scores = torch.randn(20, n, generator=torch.Generator().manual_seed(n))
    for rows in (scores, scores.round()):
        values, indices = _largest(rows, k)
        assert torch.equal(values, rows.sort(1, descending=True).values[:, :k])
        assert torch.equal(rows.gather(1, indices), values)
        assert (indices.sort(1).values.diff() > 0).all(), "no column twice"


def normalised_gap(found, expected):
    return ((found - expected).abs() / expected.abs().max()).max()


FEATURES = {
    "about the origin": lambda x: x - 1,
    "off the origin": lambda x: x + 3,
    "not negative": lambda x: x.relu() + 0.1,
    "one row is short": lambda x: torch.cat([x[:-1] + 3, 1e-4 * x[-1:]]),
    "a row of zeros": lambda x: torch.cat([x[:-1] + 3, 0 * x[-1:]]),
    "one row is long": lambda x: torch.cat([x[:-1], 100 * x[-1:]]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FEATURES)
def test_one_product_serves_both_metrics(name, dtype):
    """Neighbors and cosines as from float64 rows, in blocks of any size."""
    train, _, test, _ = blobs(300, 100)
    train, test = FEATURES[name](train), test + 3
    cosines = F.normalize(test) @ F.normalize(train).T
    near = cosines.topk(9).values
    squared = torch.cdist(test, train).square()
    close = squared.topk(9, largest=False).values
    eps = 100 * torch.finfo(dtype).eps
    for chunk in (7, 64, 100, 2048):
        both = _nearest_by_both(train.to(dtype), test.to(dtype), 9, chunk)
        scores, indices = both["cosine"]
        assert normalised_gap(scores.double(), near) < eps
        assert normalised_gap(cosines.gather(1, indices), near) < eps
        _, indices = both["euclidean"]
        assert normalised_gap(squared.gather(1, indices), close) < eps


def test_both_metrics_cost_one_product(monkeypatch):
    products, mm = [], torch.mm
    monkeypatch.setattr(torch, "mm", lambda *a, **out: products.append(0) or mm(*a, **out))
    train, labels, test, truth = blobs(150, 200)
    feature_scores(train, labels, test, truth)
    assert len(products) == 1


@pytest.mark.parametrize("shift", [1e3, 1e4])
def test_euclidean_knn_far_from_the_origin_in_float32(shift):
    train, labels, test, _ = (
        x.float() + shift if x.is_floating_point() else x for x in blobs(150, 200)
    )
    exact = (
        KNeighborsClassifier(5, algorithm="brute")
        .fit(train.double(), labels)
        .predict(test.double())
    )
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
        (
            {"temperature": 0.1, "metric": "euclidean"},
            "temperature must be positive and the metric cosine",
        ),
    ],
)
def test_bad_input_is_named(change, message):
    train, labels, test, _ = blobs(20, 10)
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(knn)(**{"train": train, "labels": labels, "test": test, "k": 3, **change})


def test_weighted_votes_do_not_underflow_far_from_every_neighbor():
    """Of two neighbors at cosines .6 and .8 the second has all the weight, e^-200 against 1."""
    train, labels, test = torch.eye(2), torch.tensor([0, 1]), torch.tensor([[0.6, 0.8]])
    for temperature in (1e-3, 1e-4, 1e-300):
        assert knn(train, labels, test, k=2, temperature=temperature).tolist() == [1]
        assert knn(train, labels, test.flip(1), k=2, temperature=temperature).tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.001])
def test_weighted_knn_with_many_neighbors_is_the_naive_loop_in_every_precision(dtype, temperature):
    """Ten classes, the best cosine of a row well below 1.

    Weights relative to cosine 1 are all 0 in half precision.
    """
    rng = torch.Generator().manual_seed(0)
    train, test = (torch.randn(n, 32, generator=rng).to(dtype) for n in (400, 100))
    labels = torch.randint(10, (400,), generator=rng)
    similarity = (F.normalize(test.double()) @ F.normalize(train.double()).T).tolist()
    expected = []
    for row in similarity:
        nearest = sorted(range(400), key=lambda j: -row[j])[:200]
        best = row[nearest[0]]
        votes = [
            math.fsum(math.exp((row[j] - best) / temperature) for j in nearest if labels[j] == c)
            for c in range(10)
        ]
        expected.append(int(np.argmax(votes)))
    assert len(set(expected)) == 10
    assert knn(train, labels, test, k=200, temperature=temperature).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_euclidean_knn_in_half_precision_finds_rows_whose_squares_overflow_it(dtype):
    far = torch.tensor([[260.0, 0.0], [-260.0, 0.0]]).to(dtype)
    assert knn(far, torch.tensor([0, 1]), far, k=1, metric="euclidean").tolist() == [0, 1]


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint64],
    ids=str,
)
def test_labels_are_integers_of_any_width(dtype):
    train, labels, test, truth = blobs(150, 200)
    narrow, narrow_truth = labels.to(dtype), truth.to(dtype)
    for settings in ({}, {"metric": "euclidean"}, {"temperature": 0.1}):
        found = knn(train, narrow, test, **settings)
        assert found.dtype == torch.int64
        assert torch.equal(found, knn(train, labels, test, **settings))
    assert torch.equal(linear_probe(train, narrow, test), linear_probe(train, labels, test))
    assert accuracy(narrow, labels) == 1
    assert torch.equal(class_similarity(train, narrow), class_similarity(train, labels))
    for scores in (feature_scores, backbone_scores):
        assert scores(train, narrow, test, narrow_truth) == scores(train, labels, test, truth)


def test_class_numbers_may_be_large_and_have_gaps():
    """Votes are counted for the classes that there are.

    A column for each number up to 10¹² would not fit.
    """
    train, labels, test, _ = blobs(150, 200)
    numbers = torch.tensor([3, 70_000, 10**12, 2**62])
    for settings in ({"k": 2}, {"k": 2, "temperature": 0.1}):
        assert torch.equal(
            knn(train, numbers[labels], test, **settings),
            numbers[knn(train, labels, test, **settings)],
        )
    with pytest.raises(
        ValueError, match=r"labels must cover 0\.\.4611686018427387904, got none of class 0"
    ):
        class_similarity(train, numbers[labels])


# --- features and labels that cannot be right ----------------------------------------------------

ON_FEATURES = {
    "knn, train": lambda z: knn(z, torch.arange(6) % 2, normals(3, 2).to(z.dtype), k=3),
    "knn, test": lambda z: knn(
        normals(6, 2).to(z.dtype), torch.arange(6) % 2, z, k=3, metric="euclidean"
    ),
    "linear_probe, train": lambda z: linear_probe(
        z, torch.arange(6) % 2, normals(3, 2).to(z.dtype)
    ),
    "linear_probe, test": lambda z: linear_probe(normals(6, 2).to(z.dtype), torch.arange(6) % 2, z),
    "feature_scores": lambda z: list(
        feature_scores(z, torch.arange(6) % 2, z, torch.arange(6) % 3 % 2).values()
    ),
    "backbone_scores": lambda z: list(
        backbone_scores(z, torch.arange(6) % 2, z, torch.arange(6) % 3 % 2).values()
    ),
    "alignment": lambda z: alignment(z, z.flip(0)),
    "uniformity": lambda z: uniformity(z, t=1e-6),
    "class_similarity": lambda z: class_similarity(z, torch.arange(6) % 2),
    "lipschitz": lambda z: lipschitz(z, z.flip(1)),
    "lipschitz of a batch": lambda z: lipschitz(normals(6, 1).to(z.dtype), torch.stack([z, 2 * z])),
    "placement_rank": lambda z: placement_rank(normals(6, 1).to(z.dtype), z),
    "cyclic_order": cyclic_order,
    "preserves_order": preserves_order,
    "group_contrast": lambda z: group_contrast(
        torch.cat([z, z.flip(0), -z], 1), torch.arange(6) % 2
    ),
}
on_features = pytest.mark.parametrize("measure", ON_FEATURES.values(), ids=ON_FEATURES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@on_features
def test_half_precision_is_computed_in_float32(measure, dtype):
    """On features whose squares overflow float16.

    What comes out is at least float32, and what float64 has.
    """
    z = (300 * normals(6, 2)).to(dtype)
    assert (z.half().square().sum(1) == math.inf).any()
    found, exact = (
        torch.as_tensor(measure(x))
        if not isinstance(measure(x), tuple)
        else torch.stack(measure(x))
        for x in (z, z.double())
    )
    assert found.dtype not in (torch.float16, torch.bfloat16)
    inputs_are_rounded_too = 0.05 if dtype == torch.bfloat16 else 0.01
    torch.testing.assert_close(
        found.double(), exact.double(), rtol=inputs_are_rounded_too, atol=1e-3
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@on_features
def test_features_that_are_not_finite_are_named_with_their_row(measure, value):
    z = normals(6, 2)
    z[4, 0] = value
    found = r"NaN or infinity in \d of \d+ rows, first in row (1|4|0)"
    message = rf"must be finite, got {found}: look for it in what made"
    with pytest.raises(ValueError, match=message):
        measure(z)


@on_features
def test_features_whose_squares_overflow_are_refused_and_right_in_float64(measure):
    z = 1e20 * normals(6, 2).float()
    found = r"holds entries up to \S*e\+20, whose squares overflow torch.float32"
    try:
        with pytest.raises(ValueError, match=rf"{found}: .* \.double\(\)"):
            measure(z)
    finally:
        assert torch.as_tensor(measure(z.double())).isfinite().all()


def unwrapped(function, *args, **settings):
    """What `function` itself raises, without the shape checks that the tests install."""
    return inspect.unwrap(function)(*args, **settings)


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (
            np.eye(3),
            TypeError,
            "must be a floating-point tensor, got ndarray: convert it with torch.as_tensor",
        ),
        ([[1.0]], TypeError, "must be a floating-point tensor, got list"),
        (
            torch.eye(3, dtype=torch.int64),
            TypeError,
            r"must be a floating-point tensor, got torch.int64: convert it with \.float\(\)",
        ),
        (
            torch.zeros(3, dtype=torch.complex64),
            TypeError,
            "must be a floating-point tensor, got torch.complex64",
        ),
        (
            torch.zeros(3),
            ValueError,
            r"must have shape \(n, d\) with n >= 1 and d >= 1, got \(3,\)",
        ),
        (torch.zeros(3, 0), ValueError, r"must have shape \(n, d\) .*got \(3, 0\)"),
        (torch.zeros(0, 3), ValueError, r"must have shape \(n, d\) .*got \(0, 3\)"),
        (torch.zeros(2, 3, 3), ValueError, r"must have shape \(n, d\) .*got \(2, 3, 3\)"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_features_of_a_wrong_kind_or_shape_are_named(features, error, message):
    good, labels = torch.eye(3), torch.arange(3)
    for function in (knn, linear_probe):
        for name, args in (("train", (features, labels, good)), ("test", (good, labels, features))):
            with pytest.raises(error, match=f"^{name} {message}"):
                unwrapped(function, *args)
    for scores in (feature_scores, backbone_scores):
        with pytest.raises(error, match=f"^test {message}"):
            unwrapped(scores, good, labels, features, labels)
    with pytest.raises(error, match=f"^z2 {message}"):
        unwrapped(alignment, good, features)
    with pytest.raises(error, match=f"^z {message.replace('n >= 1', 'n >= 2')}"):
        unwrapped(uniformity, features)
    with pytest.raises(error, match=f"^features {message}"):
        unwrapped(class_similarity, features, labels)
    for function in (cyclic_order, preserves_order):
        with pytest.raises(error, match=f"^z {message}"):
            unwrapped(function, features)
    with pytest.raises(error, match=f"^x {message}"):
        unwrapped(lipschitz, features, good)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (
            [0, 1, 2],
            TypeError,
            "must be an integer tensor, got list: convert it with torch.as_tensor",
        ),
        (np.arange(3), TypeError, "must be an integer tensor, got ndarray"),
        (
            torch.arange(3.0),
            TypeError,
            r"must be an integer tensor, got torch.float32: convert it with \.long\(\)",
        ),
        (torch.ones(3, dtype=torch.bool), TypeError, "must be an integer tensor, got torch.bool"),
        (torch.arange(4), ValueError, r"must be one for each row of \w+, 3, got 4"),
        (torch.arange(2), ValueError, r"must be one for each row of \w+, 3, got 2"),
        (torch.arange(1), ValueError, r"must be one for each row of \w+, 3, got 1"),
        (
            torch.eye(3, dtype=torch.int64),
            ValueError,
            r"must have shape \(n,\), got \(3, 3\): pass class numbers, not one-hot rows",
        ),
        (
            torch.tensor([0, -1, -1]),
            ValueError,
            "must be class numbers from 0, got -1: leave the 2 negative ones out",
        ),
    ],
    ids=lambda value: str(value)[:20],
)
def test_labels_of_a_wrong_kind_number_or_sign_are_named(labels, error, message):
    good, right = torch.eye(3), torch.arange(3)
    for function in (knn, linear_probe):
        with pytest.raises(error, match=f"^labels {message}"):
            unwrapped(function, good, labels, good)
    for scores in (feature_scores, backbone_scores):
        for name, args in (
            ("labels", (good, labels, good, right)),
            ("test_labels", (good, right, good, labels)),
        ):
            with pytest.raises(error, match=f"^{name} {message}"):
                unwrapped(scores, *args)
    with pytest.raises(error, match=f"^labels {message}"):
        unwrapped(class_similarity, good, labels)
    with pytest.raises(error, match=f"^labels {message}"):
        unwrapped(accuracy, right, labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: unwrapped(accuracy, torch.arange(0), torch.arange(0)),
            "^labels must hold one or more, got none",
        ),
        (
            lambda: unwrapped(accuracy, torch.tensor([0, -1]), torch.arange(2)),
            "^predicted must be class numbers from 0",
        ),
        (
            lambda: unwrapped(alignment, torch.eye(3), torch.eye(2)),
            r"^z1 and z2 must have the same shape .*\(3, 3\) and \(2, 2\)",
        ),
        (
            lambda: unwrapped(uniformity, torch.eye(3)[:1]),
            r"^z must have shape \(n, d\) with n >= 2",
        ),
        (lambda: uniformity(torch.eye(3), t=0.0), "^t must be positive and finite, got 0.0"),
        (lambda: uniformity(torch.eye(3), t=math.nan), "^t must be positive and finite, got nan"),
        (
            lambda: linear_probe(torch.eye(3), torch.tensor([7, 7, 7]), torch.eye(3)),
            "^labels must be of two classes .*got 7 alone",
        ),
        (
            lambda: linear_probe(torch.eye(3), torch.arange(3), torch.eye(3), penalty=0.0),
            "^penalty must be positive .*got 0.0",
        ),
        (
            lambda: linear_probe(torch.eye(3), torch.arange(3), torch.eye(3), tolerance=0.0),
            "^tolerance must be .*got 0",
        ),
        (
            lambda: linear_probe(torch.eye(3), torch.arange(3), torch.eye(3), max_iter=0),
            "^max_iter must be .*got 0",
        ),
        (
            lambda: unwrapped(linear_probe, torch.eye(3), torch.arange(3), torch.eye(2)),
            "^train and test must have one width, got 3 and 2",
        ),
        (
            lambda: unwrapped(knn, torch.eye(3), torch.arange(3), torch.eye(3), k=1.5),
            "^k must be in 1..3, .*got 1.5",
        ),
        (
            lambda: unwrapped(knn, torch.eye(3), torch.arange(3), torch.eye(3), k=1, chunk=0),
            "^chunk must be .*got 0",
        ),
        (
            lambda: unwrapped(cyclic_order, torch.eye(3)),
            r"^z must have shape \(m, 2\), m >= 2 points in the plane, got \(3, 3\)",
        ),
        (
            lambda: unwrapped(cyclic_order, torch.zeros(1, 2)),
            r"^z must have shape \(m, 2\), m >= 2 .*got \(1, 2\)",
        ),
        (lambda: unwrapped(preserves_order, torch.eye(3)), r"^z must have shape \(m, 2\)"),
        (
            lambda: unwrapped(preserves_order, torch.zeros(1, 2)),
            r"^z must have shape \(m, 2\), m >= 2",
        ),
        (
            lambda: unwrapped(placement_rank, torch.eye(3), torch.eye(2)),
            "^x and z must hold the same m ≥ 2 points",
        ),
        (lambda: placement_rank(torch.zeros(3, 1), torch.eye(3)), "^x must be distinct points"),
        (
            lambda: unwrapped(placement_rank, torch.zeros(1, 1), torch.eye(1)),
            "^x must have shape .*n >= 2",
        ),
        (
            lambda: unwrapped(group_contrast, torch.zeros(2, 3), torch.arange(3)),
            r"^similarity must be square.*\(2, 3\) and \(3,\)",
        ),
        (
            lambda: unwrapped(group_contrast, torch.eye(3), torch.arange(4)),
            r"one number for each of its .*\(3, 3\) and \(4,\)",
        ),
        (
            lambda: unwrapped(regroupings, torch.zeros(2, 3, dtype=torch.int64)),
            r"^groups must have shape \(k,\) .*\(2, 3\)",
        ),
        (
            lambda: unwrapped(regroupings, torch.zeros(0, dtype=torch.int64)),
            r"^groups must have shape \(k,\) .*\(0,\)",
        ),
        (
            lambda: regroupings(torch.arange(3), at_most=0),
            "^at_most must be at least 1, the given grouping, got 0",
        ),
    ],
    ids=range(25),
)
def test_what_has_no_answer_is_an_error_that_says_so(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_two_points_have_one_order_and_a_float16_polygon_keeps_its_own():
    assert cyclic_order(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist() == [0, 1]
    assert preserves_order((1000 * regular_polygon(7)).half())


# --- the linear probe ----------------------------------------------------------------------------


def minimised_by_hand(
    train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, penalty: float
) -> torch.Tensor:
    """Margins between the two best classes and the predictions, from the objective as the
    docstring states it.
    """
    mean, std = train.mean(0), train.std(0)
    x = (train - mean) / std
    w = torch.zeros(4, x.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [w, b],
        max_iter=500,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

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
    clear = best.values[:, 0] - best.values[:, 1] > 1e-4
    assert clear.float().mean() > 0.99
    found = linear_probe(train, labels, test, penalty=penalty, tolerance=1e-6)
    assert torch.equal(found[clear], best.indices[clear, 0])
    other = minimised_by_hand(
        train, labels, test, penalty / 100 if penalty > 0.01 else penalty * 100
    ).argmax(1)
    assert (other[clear] != found[clear]).sum() > 10, "a penalty on another scale would show"


def test_the_probe_standardises_by_the_unbiased_deviation():
    """Of six samples the biased one is smaller by a tenth, as if the penalty were 5/6 of it."""
    train, labels, test, _ = blobs(6, 20_000, noise=2.0)
    best = minimised_by_hand(train, labels, test, 1.0).topk(2)
    clear = best.values[:, 0] - best.values[:, 1] > 1e-4
    found = linear_probe(train, labels, test, penalty=1.0, tolerance=1e-6)
    assert torch.equal(found[clear], best.indices[clear, 0])
    other = minimised_by_hand(train, labels, test, 1.0 * 5 / 6).argmax(1)
    assert (other[clear] != found[clear]).sum() > 10, "the other deviation would show"


@pytest.mark.parametrize("penalty", [1e-4, 1e-2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_probe_is_scikit_learns_at_a_tolerance_of_1e_10(penalty, dtype):
    """By another solver, on features that differ in scale by 10⁵ and are nearly dependent."""
    train, labels, test, _ = blobs(400, 4000, noise=2.0, dtype=dtype)
    mix = torch.eye(6, dtype=dtype) + 20  # the sum of all, and little else
    train, test = (part @ mix * 10.0 ** torch.arange(6).to(dtype) for part in (train, test))
    mean, std = train.mean(0), train.std(0)
    x, x_test = (((part - mean) / std).double().numpy() for part in (train, test))
    tight = LogisticRegression(
        C=1 / (penalty * 400), solver="newton-cholesky", tol=1e-10, max_iter=100
    ).fit(x, labels.numpy())
    best = torch.from_numpy(tight.decision_function(x_test)).topk(2)
    clear = best.values[:, 0] - best.values[:, 1] > 1e-2 * penalty**0.25
    assert clear.float().mean() > 0.98
    found = linear_probe(train, labels, test, penalty=penalty, tolerance=1e-6)
    assert torch.equal(found[clear], best.indices[clear, 0])
    loose = LogisticRegression(C=1 / (penalty * 400), tol=1e-2).fit(x, labels.numpy())
    assert (loose.predict(x_test)[clear] != found[clear].numpy()).any()


def test_a_probe_that_has_not_converged_is_an_error():
    train, labels, test, _ = blobs(150, 20, noise=2.0)
    remedy = r"the probe has not converged after max_iter = 3 steps: raise max_iter, or the penalty"
    with pytest.raises(RuntimeError, match=remedy):
        linear_probe(train, labels, test, max_iter=3)


def test_the_probe_separates_what_is_separable():
    train, labels, test, truth = blobs(200, 300, noise=0.05)
    assert accuracy(linear_probe(train, labels, test), truth) == 1.0


def test_the_probe_copes_with_a_constant_feature_and_labels_that_are_not_all_there():
    train, labels, test, truth = (
        x.float() if x.is_floating_point() else 2 * x + 3 for x in blobs(200, 300, noise=0.05)
    )
    train[:, 0] = test[:, 0] = 7
    found = linear_probe(train, labels, test)
    assert found.dtype == torch.int64
    assert accuracy(found, truth) > 0.95


@pytest.mark.parametrize("training", [True, False])
def test_the_backbone_is_left_as_it_was(training):
    """Parameters and BatchNorm's statistics, bit for bit, and the mode."""
    torch.manual_seed(0)
    model = build(
        TrainConfig(
            backbone=ConvNet(width=2), projector=Projector(hidden=8, dim=4, batchnorm=True)
        ),
        (1, 28, 28),
    )
    images = torch.randint(256, (40, 1, 28, 28), dtype=torch.uint8)
    model(images / 255)  # statistics that are not the initial ones
    model.train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert any(
        "running_var" in key and not torch.equal(value, torch.ones_like(value))
        for key, value in before.items()
    )
    h, z = embed(model, images)
    backbone_scores(h, torch.arange(40) % 3, h, torch.arange(40) % 3)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {module.training for module in model.modules()} == {training}
    assert all(p.grad is None for p in model.parameters())
    assert (h.requires_grad, z.requires_grad) == (False, False)


@pytest.mark.parametrize("batch_size", [1, 7, 1024])
def test_embedding_is_the_evaluated_network_whatever_the_batches(batch_size):
    torch.manual_seed(0)
    model = build(
        TrainConfig(backbone=ConvNet(width=2), projector=Projector(dim=4, batchnorm=True)),
        (1, 28, 28),
    )
    images = torch.randint(256, (20, 1, 28, 28), dtype=torch.uint8)
    model(images / 255)
    h, z = embed(model.train(), images, batch_size=batch_size)
    expected_h, expected_z = model.eval()(images.float() / 255)
    torch.testing.assert_close(
        (h, z), (expected_h.detach(), expected_z.detach()), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(expected_z, model.train()(images / 255)[1], atol=0.1), (
        "the mode matters here"
    )


def test_embedding_takes_bytes_alone_and_leaves_the_mode_whatever_happens():
    model = build(TrainConfig(backbone=ConvNet(width=2)), (1, 28, 28)).train()
    with pytest.raises(TypeError, match=r"images must be uint8, bytes from 0 to 255, got .*32"):
        unwrapped(embed, model=model, images=torch.rand(3, 1, 28, 28))
    with pytest.raises(RuntimeError):
        embed(model, torch.zeros(3, 2, 28, 28, dtype=torch.uint8))
    assert model.training


@pytest.mark.parametrize("score", [knn, linear_probe])
def test_training_and_test_features_may_differ_in_precision(score):
    train, test, labels = normals(40, 3), normals(9, 3, seed=1), torch.arange(40) % 3
    expected = score(train, labels, test)
    assert torch.equal(score(train, labels, test.float()), expected)
    assert torch.equal(score(train.float(), labels, test), expected)


def test_the_probe_does_not_depend_on_the_size_of_features():
    """A column that is constant but for rounding says nothing, however small features are."""
    labels = torch.arange(60) % 3
    train, test = normals(60, 3) + labels[:, None], normals(40, 3, seed=1) + 1
    expected = linear_probe(train, labels, test)
    assert len(expected.unique()) == 3
    for size in (1e-9, 1e9):
        assert torch.equal(linear_probe(size * train, labels, size * test), expected)
    constant = 0.1 + 1e-17 * normals(60, 1)
    with_constant = torch.cat([train, constant], 1)
    also = torch.cat([test, torch.full((40, 1), 0.1).double()], 1)
    assert torch.equal(linear_probe(with_constant, labels, also), expected)


# --- alignment and uniformity --------------------------------------------------------------------


def sphere(n: int, d: int, seed: int) -> torch.Tensor:
    return F.normalize(
        torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1
    )


def test_alignment_is_the_naive_loop_and_known_where_it_is():
    z1, z2 = sphere(20, 3, 0), sphere(20, 3, 1)
    expected = (
        sum(
            sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
            for x, y in zip(z1.tolist(), z2.tolist(), strict=True)
        )
        / 20
    )
    assert alignment(z1, z2).item() == pytest.approx(expected, rel=1e-12)
    assert alignment(z1, z1) == 0
    assert alignment(z1, -z1).item() == pytest.approx(4)


@pytest.mark.parametrize("t", [0.5, 2.0, 10.0])
def test_uniformity_is_the_naive_loop(t):
    z = sphere(20, 3, 0)
    pairs = [
        math.exp(-t * float((z[i] - z[j]).square().sum()))
        for i in range(20)
        for j in range(20)
        if i != j
    ]
    assert uniformity(z, t=t).item() == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-12)


@pytest.mark.parametrize("m", [2, 3, 5, 12])
def test_uniformity_of_a_regular_polygon_and_a_simplex(m):
    """Distances from one corner: 2 - 2cos(2πk/m); and in the simplex all 2m/(m-1)."""
    kernel = [math.exp(-2 * (2 - 2 * math.cos(2 * math.pi * k / m))) for k in range(1, m)]
    assert uniformity(regular_polygon(m)).item() == pytest.approx(
        math.log(sum(kernel) / (m - 1)), rel=1e-12
    )
    assert uniformity(regular_simplex(m, m - 1)).item() == pytest.approx(
        -4 * m / (m - 1), rel=1e-12
    )


def test_uniformity_of_one_point_and_of_two_poles():
    assert uniformity(sphere(1, 3, 0).repeat(9, 1)).item() == pytest.approx(0, abs=1e-12)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), t=3.0).item() == pytest.approx(-12)


# --- accuracy and the table ----------------------------------------------------------------------


def test_accuracy():
    assert accuracy(torch.tensor([1, 2, 3]), torch.tensor([1, 0, 3])) == 2 / 3


def test_scores_are_the_protocols_by_name():
    train, labels, test, truth = blobs(250, 300, noise=1.2)
    neighbors = {"knn": 10, "knn1": 1, "knn15": 15}
    predictions = {
        **{f"{name}_cosine": knn(train, labels, test, k=k) for name, k in neighbors.items()},
        **{
            f"{name}_euclidean": knn(train, labels, test, k=k, metric="euclidean")
            for name, k in neighbors.items()
        },
        "knn_weighted": knn(train, labels, test, k=200, temperature=0.1),
        "linear_probe": linear_probe(train, labels, test),
    }
    expected = {name: accuracy(predicted, truth) for name, predicted in predictions.items()}
    assert len(set(expected.values())) == 8
    of_features, of_backbone = (
        scores(train, labels, test, truth) for scores in (feature_scores, backbone_scores)
    )
    assert of_features | of_backbone == expected
    assert of_features.keys() & of_backbone.keys() == {f"{name}_cosine" for name in neighbors}


def test_weighted_votes_of_a_backbone_are_those_of_200_neighbors():
    train, labels, test, truth = blobs(250, 3000, noise=2.0)
    train, test = train + 4, test + 4  # cosines that lie close together: all neighbors count
    found = backbone_scores(train, labels, test, truth)["knn_weighted"]
    accuracies = {
        k: accuracy(knn(train, labels, test, k=k, temperature=0.1), truth)
        for k in (50, 100, 150, 200, 250)
    }
    assert found == accuracies.pop(200)
    assert found not in accuracies.values()


@pytest.mark.parametrize("n", [5, 12])
def test_fewer_features_than_neighbors_all_vote(n):
    train, labels, test, truth = blobs(n, 200, noise=1.2)
    all_vote = accuracy(knn(train, labels, test, k=n), truth)
    nearest, ten = (accuracy(knn(train, labels, test, k=k), truth) for k in (1, min(n, 10)))
    assert nearest != all_vote
    for scores in (feature_scores, backbone_scores):
        found = scores(train, labels, test, truth)
        assert (found["knn1_cosine"], found["knn_cosine"], found["knn15_cosine"]) == (
            nearest,
            ten,
            all_vote,
        )


# --- order on the circle -------------------------------------------------------------------------


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(degrees: float) -> torch.Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, s], [-s, c]], dtype=torch.float64)


@pytest.mark.parametrize("m", [3, 4, 5, 7])
def test_every_cyclic_order_of_a_polygon_is_recovered(m):
    """Whichever corner it begins at and whichever way round it goes.

    There are (m-1)!/2 orders, each from 2m ways to write it.
    """
    found = {}
    for written in itertools.permutations(range(m)):
        z = torch.empty(m, 2, dtype=torch.float64)
        z[list(written)] = regular_polygon(m)
        order = cyclic_order(z).tolist()
        turns = [
            turn
            for way in (order, order[::-1])
            for turn in (tuple(way[i:] + way[:i]) for i in range(m))
        ]
        assert written in turns
        assert order[0] == 0
        assert order[1] < order[-1]
        found[tuple(order)] = found.get(tuple(order), 0) + 1
    assert len(found) == math.factorial(m - 1) // 2
    assert set(found.values()) == {2 * m}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("degrees", [0.0, 33.0, 180.0, -101.0])
@pytest.mark.parametrize("mirror", [1.0, -1.0])
@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (1.0, 50.0), (1e3, -7.0)])
def test_the_order_does_not_depend_on_how_the_plane_is_turned(seed, degrees, mirror, scale, shift):
    z = normals(8, 2, seed=seed)
    seen = z * torch.tensor([1.0, mirror]) @ rotation(degrees) * scale + shift
    assert torch.equal(cyclic_order(seen), cyclic_order(z))
    assert len({tuple(cyclic_order(normals(8, 2, seed=s)).tolist()) for s in range(5)}) == 5


def test_order_is_preserved_in_either_sense_from_any_corner():
    corners = regular_polygon(6)
    for way, turn in itertools.product((corners, corners.flip(0)), range(6)):
        assert preserves_order(way.roll(turn, 0))
    for i, j in itertools.combinations(range(6), 2):
        swapped = torch.arange(6)
        swapped[i], swapped[j] = j, i
        assert not preserves_order(corners[swapped])
    assert preserves_order(corners[:3][torch.tensor([1, 0, 2])]), "three points have one order"


# --- Lipschitz constants -------------------------------------------------------------------------


def naive_lipschitz(x: torch.Tensor, z: torch.Tensor) -> float:
    slopes = [
        math.dist(z[i].tolist(), z[j].tolist()) / math.dist(x[i].tolist(), x[j].tolist())
        for i in range(len(x))
        for j in range(i)
    ]
    return sum(slopes) / len(slopes)


@pytest.mark.parametrize(("m", "d", "d_z"), [(2, 1, 1), (5, 1, 2), (6, 3, 2), (9, 2, 5)])
def test_the_lipschitz_constant_is_the_naive_loop(m, d, d_z):
    x, z = normals(m, d), normals(3, 4, m, d_z, seed=1)
    found = lipschitz(x, z)
    assert found.shape == (3, 4)
    for i, j in itertools.product(range(3), range(4)):
        assert found[i, j].item() == pytest.approx(naive_lipschitz(x, z[i, j]), rel=1e-12)
        assert lipschitz(x, z[i, j]).item() == pytest.approx(found[i, j].item(), rel=1e-12)


@pytest.mark.parametrize("slope", [0.0, 2.5, -3.0])
def test_the_lipschitz_constant_of_a_line_is_its_slope(slope):
    x = normals(7, 1)
    assert lipschitz(x, slope * x + 4).item() == pytest.approx(abs(slope), abs=1e-12)


@pytest.mark.parametrize(
    ("x", "z", "message"),
    [
        (torch.zeros(1, 1), torch.zeros(1, 2), "the same m ≥ 2 points"),
        (torch.zeros(3, 1), torch.zeros(4, 2), r"the same m ≥ 2 points, got \(3, 1\) and \(4, 2\)"),
        (torch.zeros(3, 1), torch.zeros(3, 4, 2), "the same m ≥ 2 points"),
        (torch.tensor([[1.0], [2.0], [1.0]]), torch.zeros(3, 2), "x must be distinct"),
    ],
)
def test_a_lipschitz_constant_needs_distinct_points(x, z, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(lipschitz)(x, z)


# --- classes and groups --------------------------------------------------------------------------


def test_the_similarity_of_classes_is_the_naive_loop():
    """A shift of all features changes nothing, the length of one only by way of the mean."""
    features, labels = normals(30, 4) + 3, torch.arange(30) % 4 % 3  # twice as many of class 0
    rows = [(row / row.norm()).tolist() for row in features - features.mean(0)]
    expected = torch.empty(3, 3, dtype=torch.float64)
    for a, b in itertools.product(range(3), repeat=2):
        pairs = [
            (i, j)
            for i, j in itertools.product(range(30), repeat=2)
            if (labels[i], labels[j]) == (a, b)
        ]
        cosines = [sum(p * q for p, q in zip(rows[i], rows[j], strict=True)) for i, j in pairs]
        expected[a, b] = sum(cosines) / len(cosines)
    assert torch.allclose(class_similarity(features, labels), expected, atol=1e-12)
    assert torch.allclose(class_similarity(features.float() + 5, labels), expected, atol=1e-5)


def test_the_similarity_of_an_absent_class_is_an_error():
    with pytest.raises(ValueError, match=r"labels must cover 0..3, got none of class 2"):
        class_similarity(normals(4, 2), torch.tensor([0, 1, 3, 1]))


def test_component_means():
    u = torch.tensor([[1.0, 0], [3, 0], [0, 5]])
    assert torch.equal(
        component_means(u, torch.tensor([0, 0, 1]), 2), torch.tensor([[2.0, 0], [0, 5]])
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [torch.uint8, torch.int32])
def test_component_means_of_half_precision_and_narrow_labels(dtype, width):
    """In half precision the sum of so many ones would stop at 2,048, or at 256."""
    u, labels = torch.ones(5000, 2, dtype=dtype), torch.zeros(5000, dtype=width)
    assert torch.equal(component_means(u, labels, 1), torch.ones(1, 2))


MEANS_OF = {"u": normals(5, 3), "labels": torch.tensor([0, 1, 0, 1, 2]), "m": 3}
BAD_MEANS = [
    (
        {"m": 2},
        ValueError,
        "labels must be 0..1, each at least once, got [0, 1, 2]: change m",
    ),
    (
        {"m": 4},
        ValueError,
        "labels must be 0..3, each at least once, got [0, 1, 2]: change m",
    ),
    ({"m": 0}, ValueError, "m must be at least 1, got 0"),
    (
        {"labels": torch.tensor([0, 1])},
        ValueError,
        "labels must be one for each row of u, 5, got 2",
    ),
    (
        {"labels": torch.zeros(5)},
        TypeError,
        "labels must be an integer tensor, got torch.float32",
    ),
    ({"labels": [0, 1, 0, 1, 2]}, TypeError, "labels must be an integer tensor, got list"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_MEANS, ids=range(len(BAD_MEANS)))
def test_means_of_bad_input(change, error, message):
    with pytest.raises(error) as caught:
        unwrapped(component_means, **MEANS_OF | change)
    assert type(caught.value) is error
    assert message in str(caught.value)
