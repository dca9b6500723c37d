"""Runs that are judged on other images: targets and their files, training, measuring."""

import gzip
import hashlib
import re

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits

from sscl_core.batches import source
from sscl_core.config import (
    ConvNet,
    ImageAugmentation,
    InfoNCE,
    Optimizer,
    PairWeights,
    Projector,
    SpectralContrastive,
    TSimCLR,
)
from sscl_core.evaluate import embed, knn, linear_probe
from sscl_core.moco import train_moco
from sscl_core.train import TrainResult, computing, train
from sscl_experiments import runner, store
from sscl_experiments.datasets import canonical, targets
from sscl_experiments.datasets.images import ImageData
from sscl_experiments.runs import labels as supervision
from sscl_experiments.runs import transfer
from sscl_experiments.runs.images import image_sets
from sscl_experiments.runs.transfer_config import TransferImages, TransferRun

PLAIN = ImageAugmentation(crop_scale=(1.0, 1.0), flip=0.0)


def run(objective="pairs", **changes):
    small = {"backbone": ConvNet(width=4), "batch_size": 32, "epochs": 1}
    data = TransferImages(n_train=100, augmentation=PLAIN, targets=("digits",), shots=5)
    heads = {"labels": Projector(hidden=0, dim=10)}
    head = heads.get(objective, Projector(hidden=0, dim=4))
    fields = {"data": data, "projector": head, "groups": 4, "queue_size": 50, "momentum": 0.9}
    return TransferRun(objective=objective, **small | fields | changes)


def some(labels, classes=("a", "b", "c"), size=(1, 4, 4)):
    labels = torch.tensor(labels, dtype=torch.long)
    return ImageData(torch.zeros(len(labels), *size, dtype=torch.uint8), labels, classes)


# --- targets --------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_in_halves_of_equal_classes():
    found = targets.load_target("digits", (1, 8, 8))
    assert len(found.support) + len(found.query) == 1797
    counts = [part.labels.bincount() for part in (found.support, found.query)]
    assert (counts[0] - counts[1]).abs().max() <= 1
    own = load_digits()
    pixels = torch.cat([found.support.images, found.query.images])[:, 0].double() / 255 * 16
    expected = {
        (image.tobytes(), label) for image, label in zip(own.images, own.target, strict=True)
    }
    rounded = pixels.round().numpy()
    labels = torch.cat([found.support.labels, found.query.labels]).tolist()
    assert {(a.tobytes(), b) for a, b in zip(rounded, labels, strict=True)} == expected


def test_targets_are_resized_to_what_the_network_takes():
    found = targets.load_target("digits", (1, 28, 28), shots=3)
    assert found.support.images.shape == (30, 1, 28, 28)
    assert found.query.images.shape[1:] == (1, 28, 28)
    flat = ImageData(torch.full((2, 1, 8, 8), 77).byte(), torch.tensor([0, 1]), ("a", "b"))
    assert targets.fitted(flat, (1, 13, 20), "flat").images.eq(77).all()


def test_a_few_of_every_class_are_the_same_for_every_run():
    images = some([0, 1, 2] * 6)
    first, again = targets.few(images, 2, "it"), targets.few(images, 2, "it")
    assert first.labels.bincount().tolist() == [2, 2, 2]
    assert first.labels.equal(again.labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: targets.Target("it", some([0, 1]), some([0], ("a", "b"))), "differ in ['c']"),
        (
            lambda: targets.Target("it", some([0, 1]), some([0, 2])),
            "every class of the query of it must have support, got none for c",
        ),
        (lambda: targets.Target("it", some([0, 3]), some([0])), "support of it must be in 0..2"),
        (lambda: targets.Target("it", some([0]), some([])), "the query of it must hold an image"),
        (lambda: targets.few(some([0, 0, 1, 2]), 2, "it"), "at most 1, the support of b in it"),
        (lambda: targets.load_target("letters", (1, 8, 8)), "name is 'letters', must be one of"),
        (
            lambda: targets.load_target("digits", (3, 32, 32)),
            "digits has images of 1 channels and the network takes 3",
        ),
        (lambda: targets.load_target("digits", (1, 0, 8)), "shape is (1, 0, 8), must be the"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


# --- MNIST and USPS: files that stand for the published ones --------------------------------------


def usps_text(n, layout="{:.4f}"):
    """Labels, values in thousandths, and their text as the published files have it."""
    rng = np.random.default_rng(0)
    labels = (np.arange(n) % 10).astype(np.uint8)
    values = rng.integers(-1000, 1001, (n, 256)).astype("<i2")
    lines = []
    for label, row in zip(labels, values, strict=True):
        numbers = " ".join(layout.format(value / 1000) for value in row)
        lines.append(f"{label}.0000 {numbers} ")
    return labels, values, "\n".join(lines).encode()


@pytest.fixture
def usps_files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SSCL_DATA_DIR", raising=False)
    labels, values, text = usps_text(20)
    checksum = hashlib.sha256(values.tobytes() + labels.tobytes()).hexdigest()
    known = {split: (f"zip.{split}.gz", 20, checksum) for split in ("train", "test")}
    monkeypatch.setattr(targets, "USPS", known)
    targets._usps_values.cache_clear()
    (tmp_path / "usps").mkdir()
    (tmp_path / "usps" / "zip.test.gz").write_bytes(gzip.compress(text))
    return tmp_path, labels, values


def test_usps_is_read_by_its_values_however_it_is_packed(usps_files, monkeypatch):
    root, labels, values = usps_files
    found = targets.usps("test", root)
    assert found.labels.tolist() == labels.tolist()
    expected = np.round((values.astype(float) + 1000) / 2000 * 255)
    assert np.array_equal(found.images[:, 0].flatten(1).numpy(), expected)
    monkeypatch.setenv("SSCL_DATA_DIR", str(root / "other"))
    (root / "other" / "usps").mkdir(parents=True)
    _, _, text = usps_text(20, "{:.3f}")
    (root / "other" / "usps" / "zip.test").write_bytes(text)
    assert targets.usps("test").images.equal(found.images), "not gzipped, three decimals"


def test_usps_with_a_changed_value_or_cut_off_is_named(usps_files):
    root, _, _ = usps_files
    path = root / "usps" / "zip.test.gz"
    text = gzip.decompress(path.read_bytes())
    first = text.split()[1]
    for changed, message in (
        (text.replace(first, b"0.5555", 1), "does not hold the 20 published images of USPS"),
        (text[: len(text) // 2], "cannot be read as lines of a label and 256 numbers"),
    ):
        targets._usps_values.cache_clear()
        path.write_bytes(gzip.compress(changed))
        with pytest.raises(ValueError, match=message) as error:
            targets.usps("test", root)
        assert str(path) in str(error.value)


def test_usps_that_is_nowhere_says_where_it_was_looked_for(usps_files):
    root, _, _ = usps_files
    with pytest.raises(FileNotFoundError, match=r"USPS's zip\.train\.gz is in none of .*usps.*set"):
        targets.usps("train", root)


def test_mnist_is_its_test_set_in_halves(monkeypatch):
    """Its published files are not here: what is read of them is put in their place."""
    images = np.zeros((40, 1, 28, 28), np.uint8)
    labels = (np.arange(40) % 10).astype(np.uint8)[:, None]
    asked = []

    def load(source, split, root):
        asked.append((source.name, split))
        return images, labels

    monkeypatch.setattr(canonical, "load", load)
    found = targets.load_target("mnist", (1, 28, 28))
    assert asked == [("mnist", "test")]
    assert found.support.labels.bincount().tolist() == [2] * 10
    assert found.query.labels.bincount().tolist() == [2] * 10
    assert targets.MNIST.all_files.keys() == {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}


# --- configurations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 7}, "batch_size must be at least 8, two images for each of 4 groups"),
        ({"loss": SpectralContrastive()}, "loss must be info_nce or t_simclr"),
        ({"loss": TSimCLR(learn_df=True)}, "without weights and learn_df"),
        ({"weights": PairWeights(temperature=1.0)}, "without weights and learn_df"),
        ({"momentum": 1.0}, "less than 1"),
    ],
)
def test_a_queue_refuses_what_it_cannot_do(changes, message):
    with pytest.raises(ValidationError, match=message):
        run("queue", **changes)


def test_kinds_have_keys_of_their_own():
    assert store.KINDS[TransferImages] == "sscl_experiments.runs.transfer"
    keys = {store.run_key(run(objective)) for objective in ("pairs", "queue", "labels")}
    assert len(keys) == 3
    plain = store.KINDS[type(run().data).__mro__[1]]
    assert plain == "sscl_experiments.runs.images"


# --- training and measuring -----------------------------------------------------------------------


def test_labels_are_those_of_the_batch(monkeypatch):
    """Images whose grey level is their label, through views that change nothing."""
    labels = torch.arange(100) % 10
    images = (labels * 20).byte()[:, None, None, None].expand(-1, 1, 28, 28).contiguous()
    config = run("labels", epochs=2)
    made, seen = {}, []
    real = supervision.labels_by_step

    def kept(config, labels):
        made["labels"] = real(config, labels)
        return made["labels"]

    def fit(config, data, network, loss_of, *, progress):
        batches, step = source(config, data, torch.device("cpu")), 0
        for epoch in range(config.epochs):
            for batch in batches.batches(epoch):
                step += 1
                grey = (batch.x1.mean((1, 2, 3)) * 255 / 20).round().long()
                assert made["labels"](step, len(batch.x1)).equal(grey)
                seen.append(len(grey))
        return TrainResult(config, network)

    monkeypatch.setattr(supervision, "labels_by_step", kept)
    monkeypatch.setattr(supervision, "fit", fit)
    supervision.train_with_labels(config, ImageData(images, labels, tuple("0123456789")))
    assert sum(seen) == 200


def test_labels_can_be_learned():
    labels = torch.arange(64) % 2
    images = (labels * 255).byte()[:, None, None, None].expand(-1, 1, 28, 28).contiguous()
    config = run("labels", epochs=40, optimizer=Optimizer(lr=1e-2))
    trained = supervision.train_with_labels(config, ImageData(images, labels, tuple("0123456789")))
    assert trained.losses[-1] < 0.1 < trained.losses[0]
    logits = embed(trained.model, images)[1]
    assert logits.argmax(1).equal(labels)


def test_too_few_logits_are_refused():
    config = run("labels", projector=Projector(hidden=0, dim=9))
    with pytest.raises(ValueError, match=r"projector\.dim is 9, must be 10 or more"):
        supervision.train_with_labels(config, image_sets(config).train)


@pytest.mark.parametrize("objective", ["pairs", "queue", "labels"])
def test_a_run_is_trained_and_judged(objective, tmp_path):
    config = run(objective)
    record = runner.run(config, runs=tmp_path / "runs", device="cpu")
    for target, images in (("own", 2000), ("digits", 1797 - 899)):
        for measure in ("knn_cosine", "knn_euclidean", "knn_weighted", "probe"):
            right = record.arrays[f"{measure}_{target}"]
            assert right.dtype == bool
            assert abs(len(right) - images) <= 2
            assert record.metrics[f"{measure}_{target}"] == pytest.approx(right.mean())
    assert record.metrics["probe_digits"] > 0.3, "five shots of each digit"
    assert len(record.arrays["loss"]) == 4
    assert store.load(tmp_path / "runs", config).metrics == record.metrics


def test_what_is_trained_is_what_the_objective_says(monkeypatch, tmp_path):
    """The same weights as by calling the objective's own function."""
    config = run("queue", loss=TSimCLR(temperature=0.5))
    images = image_sets(config).train.images
    made = {}

    def keep(trained, targets):
        made["model"] = trained.model
        return {}, {}

    monkeypatch.setattr(transfer, "measure", keep)
    transfer.make(config, device="cpu", data_dir=None, checkpoint=tmp_path / "run.pt")
    expected = train_moco(config, images, queue_size=50, momentum=0.9, groups=4, device="cpu")
    assert _same(made["model"], expected.model)
    pairs = run("pairs", loss=InfoNCE(temperature=0.5))
    transfer.make(pairs, device="cpu", data_dir=None, checkpoint=tmp_path / "run.pt")
    assert _same(made["model"], train(pairs, images, device="cpu").model)
    assert not _same(made["model"], expected.model)


def _same(a, b):
    return all(x.equal(y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_judges_are_neighbors_and_probe():
    generator = torch.Generator().manual_seed(0)
    h, h_query = (torch.randn(n, 5, generator=generator) for n in (60, 30))
    labels, truth = (torch.randint(0, 3, (n,), generator=generator) for n in (60, 30))
    with computing(run()):
        found = transfer.judge(h, labels, h_query, truth)
    expected = {
        "knn_cosine": knn(h, labels, h_query, k=10, metric="cosine"),
        "knn_euclidean": knn(h, labels, h_query, k=10, metric="euclidean"),
        "knn_weighted": knn(h, labels, h_query, k=60, metric="cosine", temperature=0.1),
        "probe": linear_probe(h, labels, h_query),
    }
    for name, votes in expected.items():
        assert found[name].equal(votes == truth)
    assert not found["knn_cosine"].equal(found["knn_euclidean"])
