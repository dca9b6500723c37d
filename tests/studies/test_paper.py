"""Runs of scale paper, small and on the CPU: the plan, resuming, and what a record holds."""

import itertools
import json
import re

import numpy as np
import pytest
import torch

from sscl_core import train as loop
from sscl_core.config import ConvNet, InfoNCE, Projector
from sscl_experiments import cli, store
from sscl_experiments.datasets.images import ImageData
from sscl_experiments.record import Record
from sscl_experiments.runs import images as run_images
from sscl_experiments.studies.t_simclr import paper_scale

TINY = ConvNet(width=2)


@pytest.fixture
def images(monkeypatch, tmp_path):
    """2,000 random colour images for every set, a small network in place of the ResNets.

    Records go to a folder of the test's own.
    """
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2000, 3, 32, 32), generator=generator, dtype=torch.uint8)
    data = ImageData(pixels, torch.arange(2000) % 10, tuple("abcdefghij"))
    monkeypatch.setattr(run_images, "load_images", lambda *args, **settings: data)
    small = {
        name: run.replace(backbone=TINY, batch_size=500, epochs=2)
        for name, run in paper_scale.RUNS.items()
    }
    monkeypatch.setattr(paper_scale, "RUNS", small)
    original = paper_scale.plan_run
    monkeypatch.setattr(
        paper_scale, "plan_run", lambda *a, **k: original(*a, **k).replace(backbone=TINY)
    )
    monkeypatch.setattr(paper_scale, "FOLDER", tmp_path / "paper")
    return data


def test_the_plan_holds_what_the_paper_and_the_best_recipe_need():
    runs = paper_scale.RUNS
    assert len(set(runs.values())) == len(runs) == 18
    released = runs["authors-t_simclr-resnet50-1000"]
    optimizer = released.optimizer
    assert (released.batch_size, optimizer.lr, optimizer.weight_decay) == (1024, 0.4, 1e-4)
    assert (released.loss.temperature, released.loss.df) == (8, 5)
    assert (released.projector.hidden, released.projector.dim) == (2048, 128)
    assert runs["authors-simclr-resnet50-1000"].optimizer.lr == 0.5
    best = runs["best-simclr-resnet18-1000"]
    assert (best.batch_size, best.optimizer.lr, best.optimizer.weight_decay) == (512, 0.06, 5e-4)
    assert best.data.augmentation.grayscale == 0.1
    assert runs["best-simclr-resnet18-100"].optimizer.lr == 0.12


def test_the_plan_compares_three_kernels_alone():
    """On 45,000 images in the search, on all of them for 200 epochs at last."""
    point = paper_scale.Point
    for holdout, epochs in ((0.1, 30), (0.0, 200)):
        found = [
            paper_scale.plan_run(point(kernel, 8), epochs=epochs, holdout=holdout)
            for kernel in paper_scale.SHORT
        ]
        rest = {run.replace(loss=InfoNCE(), projector=Projector()) for run in found}
        assert len(rest) == 1
        run = rest.pop()
        assert (run.epochs, run.data.holdout, run.backbone.depth) == (epochs, holdout, 18)
        assert [run.projector.batchnorm for run in found] == [False, True, True]
        assert [getattr(run.loss, "normalization", "conditional") for run in found] == [
            "conditional"
        ] * 3
    assert {key[1:] for key in paper_scale.DECISIVE.values()} == {
        (dim, purpose) for dim in (2, 8, 128) for purpose in ("z", "h")
    }
    small = [name for name in paper_scale.names() if name.startswith("small-")]
    images = sum(paper_scale.RUNS[name].epochs for name in small) * 50_000
    assert paper_scale.names()[: len(small)] == small, "the smallest plan comes first"
    assert images / 10_000 + 60 * len(small) < 30 * 60, "half an hour at 10,000 images a second"


def searched(score) -> dict:
    """A search to its end, by a score of points."""
    found = {}
    while missing := [p for p in paper_scale.search_points("Gaussian", 8, found) if p not in found]:
        found |= {p: dict.fromkeys(("z", "h"), float(score(p))) for p in missing}
    return found


@pytest.mark.parametrize(("tau", "lr"), [(0, 0), (-1, 1), (4, -2)])
def test_the_search_goes_on_until_the_best_is_inside(tau, lr):
    found = searched(lambda p: -abs(p.tau - tau) - abs(p.lr - lr))
    best = paper_scale.chosen("Gaussian", 8, "z", found)
    assert (best.tau, best.lr) == (tau, lr)
    assert {best._replace(tau=tau - 1, lr=0), best._replace(tau=tau + 1, lr=0)} <= found.keys()
    assert {best._replace(lr=lr - 1), best._replace(lr=lr + 1)} <= found.keys()
    del found[best]
    with pytest.raises(ValueError, match="the search comes first, it lacks search-gaussian-d8-tau"):
        paper_scale.chosen("Gaussian", 8, "z", found)


def test_what_one_purpose_adds_is_bracketed_for_the_other_too():
    """By h the best is at 3, which makes 4 known: by z that is the best, and needs 5 beside it."""
    by = {"z": {4: 9.0, 0: 1.0}, "h": {3: 9.0, 2: 8.0}}
    found = {}
    while missing := [p for p in paper_scale.search_points("Gaussian", 8, found) if p not in found]:
        found |= {p: {k: v.get(p.tau, 0.0) - abs(p.lr) for k, v in by.items()} for p in missing}
    best = paper_scale.chosen("Gaussian", 8, "z", found)
    assert best == paper_scale.Point("Gaussian", 8, 4, 0)
    assert {best._replace(tau=5), best._replace(lr=1), best._replace(lr=-1)} <= found.keys()


def test_what_decides_follows_from_the_records_of_the_search(monkeypatch):
    found = searched(lambda p: -abs(p.tau - 1) - abs(p.lr))
    kept = [
        {
            "name": paper_scale.search_name(p),
            "metrics": {
                "knn15_cosine_z": -9.0,
                "knn15_euclidean_z": s["z"],
                "linear_probe_h": s["h"],
            },
        }
        for p, s in found.items()
    ]
    monkeypatch.setattr(paper_scale, "records", lambda: kept)
    run = paper_scale.config_of("decide-gaussian-d8-z")
    assert run == paper_scale.plan_run(paper_scale.Point("Gaussian", 8, 1, 0), epochs=200)
    with pytest.raises(ValueError, match="the search comes first"):
        paper_scale.config_of("decide-student-d8-z")
    supposed = paper_scale.config_of("decide-student-d8-z", supposed=True)
    assert supposed == paper_scale.plan_run(paper_scale.Point("Student t", 8), epochs=200)


def test_the_gate_is_simclrs_backbone(monkeypatch):
    def recorded(values):
        own = [
            {"name": "decide-cosine-d128-h", "metrics": {"knn_cosine_h": value}} for value in values
        ]
        monkeypatch.setattr(paper_scale, "records", lambda: own)
        return paper_scale.gate()

    assert recorded([0.9] * 4) == "decide-cosine-d128-h has 4 of 5 seeds"
    assert recorded([0.86] * 5) == ""
    assert "reaches 0.840" in recorded([0.84] * 5)


def test_a_run_leaves_its_record(images, tmp_path, capsys):
    name = "best-t_simclr-resnet18-100"
    where = ["--results-dir", str(tmp_path), "--no-compile", "--device", "cpu"]
    assert cli.main(["paper", name, "--seed", "3", *where]) == 0
    path = tmp_path / "paper" / f"{name}-seed3.json"
    assert capsys.readouterr().out.strip() == str(path)
    (content,) = paper_scale.records()
    assert content == json.loads(path.read_text(encoding="utf-8"))
    assert (content["name"], content["config"]["seed"], content["schema"]) == (
        name,
        3,
        store.SCHEMA,
    )
    assert {
        "knn_cosine_h",
        "linear_probe_h",
        "knn_cosine_transfer",
        "linear_probe_transfer",
    } <= content["metrics"].keys()
    assert {"seconds", "date", "device", "versions"} <= content["provenance"].keys()
    assert len(content["arrays"]["loss"]) == 8
    assert np.shape(content["arrays"]["classes_transfer"]) == (10, 10)
    assert cli.main(["paper"]) == 0
    *lines, gate = capsys.readouterr().out.splitlines()
    assert gate == "No verdict yet: decide-cosine-d128-h has 0 of 5 seeds."
    listed = dict(line.split(maxsplit=1) for line in lines)
    assert listed.pop(name) == "seeds 3"
    assert set(listed.values()) == {"no record yet"}
    assert listed.keys() == set(paper_scale.names()) - {name}


def test_an_interrupted_run_goes_on_where_it_was(images, tmp_path, monkeypatch):
    """Killed in the second epoch, with a checkpoint after the first.

    The record is that of a run that was not interrupted.
    """
    name = "best-simclr-resnet18-100"
    straight = paper_scale.make(name, 0, results=tmp_path / "a", device="cpu", compiled=False)
    expected = json.loads(straight.read_text(encoding="utf-8"))
    straight.unlink()
    original, steps = loop.contrastive_loss, []

    def killed(*args, **settings):
        steps.append(1)
        if len(steps) == 6:
            raise KeyboardInterrupt
        return original(*args, **settings)

    monkeypatch.setattr(loop, "contrastive_loss", killed)
    clock = itertools.count(0.0, 100.0)
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    again = {"results": tmp_path / "b", "device": "cpu", "compiled": False}
    with pytest.raises(KeyboardInterrupt):
        paper_scale.make(name, 0, **again)
    assert not paper_scale.record_path(name, 0).exists(), "nothing half-written"
    assert len(list((tmp_path / "b" / "checkpoints").glob("*.pt"))) == 1
    content = json.loads(paper_scale.make(name, 0, **again).read_text(encoding="utf-8"))
    assert len(steps) == 6 + 4, "the first epoch was not trained again"
    timed = {"images_per_second"}
    assert {k: v for k, v in content["metrics"].items() if k not in timed} == {
        k: v for k, v in expected["metrics"].items() if k not in timed
    }
    assert content["arrays"] == expected["arrays"]


@pytest.mark.parametrize(
    "name", ["small-student-d2", "search-cosine-d8-tau-1-lr+0", "decide-gaussian-d128-h"]
)
def test_a_rehearsal_is_small_and_no_record(images, tmp_path, name):
    path = paper_scale.make(name, 0, results=tmp_path, device="cpu", compiled=False, rehearse=True)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert path == tmp_path / "rehearsal" / f"{name}-seed0.json"
    assert paper_scale.records() == []
    assert (
        content["config"]["epochs"],
        content["config"]["data"]["n_train"],
        content["config"]["batch_size"],
    ) == (2, 64, 32)
    assert content["config"]["data"]["holdout"] > 0, "the test set is not looked at"


def test_a_record_keeps_the_loss_in_a_thousand_points():
    losses = np.arange(12_345, dtype=np.float32)
    record = Record(
        paper_scale.RUNS["best-simclr-resnet18-100"],
        {},
        {"loss": losses, "z_views": np.zeros((9, 9))},
        {},
    )
    kept = paper_scale.content("x", record)["arrays"]
    assert list(kept) == ["loss"]
    assert len(kept["loss"]) == 1000
    assert kept["loss"][0] == pytest.approx(losses[:13].mean())
    assert kept["loss"][-1] == pytest.approx(losses[-12:].mean())


def test_unknown_run(capsys):
    assert cli.main(["paper", "resnet19"]) == 1
    assert "best-simclr-resnet18-100" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", '{"name": "best-simclr-resnet18-100"}'])
def test_a_damaged_record_is_named_with_the_remedy(text, monkeypatch, tmp_path):
    file = tmp_path / "best-simclr-resnet18-100-seed0.json"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(paper_scale, "FOLDER", tmp_path)
    remedy = rf"^{re.escape(str(file))} is damaged: `git checkout -- "
    with pytest.raises(ValueError, match=remedy):
        paper_scale.records()
