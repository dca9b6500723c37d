"""Runs that measure what training did not see: labels, probe, detection, shapes, bad input."""

import itertools

import pytest
import torch
from helpers import normal, read_once
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve

from sscl_core.config import MLP, ConvNet, Projector
from sscl_core.corruptions import CONSTANTS, SEVERITIES
from sscl_core.evaluate import linear_probe
from sscl_experiments import store
from sscl_experiments.runner import results
from sscl_experiments.runs import robust_images, unseen
from sscl_experiments.runs.labels import train_with_labels
from sscl_experiments.runs.robust_config import (
    RobustRun,
    StressedImages,
    UnseenMixture,
    UnseenRun,
)
from sscl_experiments.runs.unseen import separation, world_means

SMALL = RobustRun(
    data=StressedImages(n_train=60, tested=12, attacked=2),
    backbone=ConvNet(width=2),
    projector=Projector(hidden=0, dim=10),
    epochs=1,
    batch_size=32,
)
PLANE = UnseenMixture(
    means=((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), unseen=((2.0, 2.0),), steps_per_epoch=3
)
ON_PLANE = UnseenRun(
    data=PLANE,
    backbone=MLP(width=8, depth=1),
    projector=Projector(hidden=0, dim=2),
    epochs=1,
    batch_size=8,
)


def test_training_on_labels_learns_them_and_follows_its_seed():
    data = read_once("fashion_mnist_subset", "train").select(slice(300))
    config = SMALL.replace(supervised=True, epochs=6, backbone=ConvNet(width=8))
    trained = train_with_labels(config, data, device="cpu")
    again = train_with_labels(config, data, device="cpu")
    assert trained.losses == again.losses
    assert sum(trained.losses[-5:]) < 0.75 * sum(trained.losses[:5])
    with torch.no_grad():
        logits = trained.model(robust_images.pixels(data.images))[1]
    assert (logits.argmax(1) == data.labels).double().mean() > 0.5


def test_the_metric_is_judged_between_the_halves_of_the_training_images():
    """Classes that differ in length alone: no other than the Euclidean metric tells them apart."""
    labels = torch.arange(400) % 2
    direction = normal(400, 3).float()
    far = 1 + 9 * labels[:, None]
    h = far * (torch.tensor([1.0, 0.0, 0.0]) + 0.01 * direction)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    found = robust_images.halves(h[order], labels[order])
    assert found["halves_euclidean_h"] == 1
    assert found["halves_cosine_h"] == pytest.approx(0.5, abs=0.12)
    # Those that are asked have neighbors among the others only: alone of their kind, they are lost.
    alone = robust_images.halves(h, labels)
    assert alone["halves_euclidean_h"] == 0


def test_what_is_right_has_the_accuracies_as_its_means():
    data = read_once("fashion_mnist_subset", "train")
    train, test = data.select(slice(60)), data.select(slice(100, 115))
    embed = robust_images.raw
    arrays = robust_images.corruption_scores(embed, embed(train.images), train.labels, test)[1]
    for how in ("cosine_h", "euclidean_h", "probe_h"):
        right = arrays[f"right_{how}"]
        assert right.dtype == bool
        assert right.shape == (len(robust_images.conditions()), 15)
        assert right.mean(1) == pytest.approx(arrays[f"accuracy_{how}"])
    assert arrays["right_cosine_h"].any(0).any()


def test_the_probe_that_is_attacked_is_the_linear_probe():
    x, test = normal(300, 20).float(), normal(200, 20, seed=1).float()
    labels = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    layer = robust_images.fitted_probe(x, labels)
    agrees = layer(test).argmax(1) == linear_probe(x, labels, test)
    assert agrees.double().mean() > 0.98
    reference = LogisticRegression(C=1 / (300 * robust_images.PENALTY), tol=1e-8, max_iter=1000)
    standard = (x - x.mean(0)) / x.std(0)
    reference.fit(standard.numpy(), labels.numpy())
    theirs = reference.decision_function(((test - x.mean(0)) / x.std(0)).numpy())
    ours = layer(test)
    ours, theirs = ours - ours.mean(1, keepdim=True), torch.tensor(theirs).float()
    torch.testing.assert_close(ours, theirs - theirs.mean(1, keepdim=True), atol=0.02, rtol=0.02)


def test_separation_is_what_scikit_learn_finds():
    new, old = normal(200).round(decimals=1) + 1, normal(300, seed=1).round(decimals=1)
    auroc, fpr95 = separation(new, old)
    truth = [1] * 200 + [0] * 300
    scores = torch.cat([new, old]).numpy()
    assert auroc == pytest.approx(roc_auc_score(truth, scores))
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert fpr95 == pytest.approx(fpr[(tpr >= 0.95).argmax()])


def test_worlds_move_the_means_as_they_say():
    worlds = world_means(PLANE)
    means = torch.tensor(PLANE.means)
    assert torch.equal(worlds["new"][:3], means)
    assert worlds["new"][3].tolist() == [2.0, 2.0]
    torch.testing.assert_close((worlds["shifted"] - means).norm(dim=1), torch.ones(3))
    for world, factor in (("rotated", 1.0), ("rescaled", unseen.GROWTH)):
        torch.testing.assert_close(worlds[world].mean(0), means.mean(0))
        torch.testing.assert_close(torch.pdist(worlds[world]), factor * torch.pdist(means))
    assert not torch.allclose(worlds["rotated"], means)


def test_records_of_both_kinds_are_kept_and_found_again(tmp_path):
    images = [SMALL, SMALL.replace(supervised=True), SMALL.replace(epochs=0)]
    points = [ON_PLANE.replace(seed=seed) for seed in (0, 1)]
    made = results([*images, *points], runs=tmp_path, progress=False)
    rows = 1 + len(CONSTANTS) * len(SEVERITIES)
    for record in made[:3]:
        assert record.arrays["accuracy_cosine_h"].shape == (rows,)
        assert record.arrays["displacement"][0] == 0
        assert record.arrays["probe_attacked"].shape == (2, len(robust_images.RADII["l2"]))
        assert record.metrics["moved_attacked"] >= record.metrics["moved_noise"]
        assert record.metrics["lipschitz"] > 0
    for record in made[3:]:
        assert record.arrays["z"].shape == (4 * PLANE.queries, 2)
        assert 0 <= record.metrics["new_cosine"] <= 1
    again = [store.load(tmp_path, record.config) for record in made]
    for before, after in zip(made, again, strict=True):
        assert after is not None
        assert after.metrics == before.metrics
    assert len({store.run_key(config) for config in [*images, *points]}) == 5


def test_the_unseen_are_never_drawn_from_in_training():
    sampler = unseen.seen(ON_PLANE)
    assert sampler.means.tolist() == [list(mean) for mean in PLANE.means]


def test_support_and_queries_are_other_draws_and_follow_the_seed():
    found = [
        unseen.draws(ON_PLANE.replace(seed=seed), world, 5, part)[0]
        for seed, world, part in itertools.product((0, 1), ("seen", "shifted"), (0, 1))
    ]
    for first, second in itertools.combinations(found, 2):
        assert not torch.equal(first, second)
    assert torch.equal(found[0], unseen.draws(ON_PLANE, "seen", 5, 0)[0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: StressedImages(tested=20, attacked=21), "attacked must be at most tested, 20"),
        (lambda: SMALL.replace(supervised=True, projector=Projector()), "projector must be linear"),
        (lambda: UnseenMixture(unseen=()), "unseen"),
    ],
)
def test_configurations_that_cannot_be_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_more_images_than_there_are_cannot_be_tested():
    test = read_once("fashion_mnist_subset", "test").select(slice(20))
    config = SMALL.replace(data=SMALL.data.replace(tested=21))
    with pytest.raises(ValueError, match="tested must be at most 20, the test images there are"):
        robust_images.tested(config, test)
