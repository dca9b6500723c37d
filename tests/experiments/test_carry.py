"""Records outlive a change of the code if, and only if, a sample trained again is the same."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import read_once

import sscl_experiments.carry as carrying
import sscl_experiments.runs.images as image_runs
from sscl_core.config import (
    MLP,
    Cloud,
    ConvNet,
    Images,
    InfoNCE,
    Mixture,
    Noise,
    PairWeights,
    Points,
    Projector,
    TrainConfig,
    TSimCLR,
)
from sscl_experiments import commands, store
from sscl_experiments.carry import carry, different, older_groups, sample_of
from sscl_experiments.record import Record
from sscl_experiments.runner import results
from sscl_experiments.runs.transfer_config import TransferImages, TransferRun


@pytest.fixture(autouse=True)
def _read_once(monkeypatch):
    monkeypatch.setattr(image_runs, "load_images", read_once)


def toy(seed: int = 0, **changes) -> TrainConfig:
    small = {"backbone": MLP(width=8), "projector": Projector(hidden=0, dim=2)}
    small |= {"data": Mixture(steps_per_epoch=2), "epochs": 1, "batch_size": 8}
    return TrainConfig(**small | changes, seed=seed)


def images(seed: int = 0) -> TrainConfig:
    small = {"backbone": ConvNet(width=2), "projector": Projector(hidden=8, dim=2)}
    data = Images(n_train=32, holdout=0.02)
    return TrainConfig(data=data, **small, epochs=1, batch_size=16, seed=seed)


ON_POINTS = Points(
    points=Cloud(dim=4, n_train=20), augmentation=(Noise(scale=0.1),), steps_per_epoch=2
)
BATCHNORM = Projector(hidden=0, dim=2, batchnorm=True)
# Three ensembles, the second of a kind in which stacked networks round otherwise than single ones.
CONFIGS = [
    *(toy(seed) for seed in range(3)),
    *(toy(seed, loss=TSimCLR(), projector=BATCHNORM) for seed in range(2)),
    *(toy(seed, data=ON_POINTS) for seed in range(2)),
    *(toy(seed, epochs=2) for seed in range(2)),
    *(toy(seed, epochs=3) for seed in range(2)),
    *(images(seed) for seed in range(4)),
]


def made_by_code(name: str, runs: Path, monkeypatch, configs: list[TrainConfig]) -> list[Record]:
    with monkeypatch.context() as patch:
        patch.setattr(store, "code_hash", lambda root: f"{name} of {root.rpartition('.')[2]}")
        return results(configs, runs=runs, progress=False)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_runs, "load_images", read_once)
        made_by_code("older", folder, patch, CONFIGS)
    return folder


@pytest.fixture
def runs(made_once, tmp_path) -> Path:
    """A folder with the runs of `CONFIGS` as older code made them."""
    return shutil.copytree(made_once, tmp_path / "runs")


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_equal_numbers_carry_all_records(runs, monkeypatch):
    before = contents(runs)
    done = carry(CONFIGS, runs=runs, progress=False)
    assert not done.differences
    assert 0 < done.others < len(CONFIGS)
    assert len(done.sample) + done.others == len(CONFIGS)
    assert before.items() <= contents(runs).items(), "what was there is still there"
    monkeypatch.setattr("sscl_experiments.runner.make", None)
    records = results(CONFIGS, runs=runs, progress=False)
    older = made_by_code("older", runs, monkeypatch, CONFIGS)
    for record, old in zip(records, older, strict=True):
        assert not different(record, old)
        carried = record.provenance.get("carried")
        assert (carried is None) == (record.config in done.sample)
        if carried:
            kind = {"mixture": "mixture", "points": "points"}.get(record.config.data.name, "images")
            assert carried.keys() == {"from", "sample", "date"}
            assert carried["from"] == f"older of {kind}"
            assert set(carried["sample"]) <= set(map(store.run_key, done.sample))
            assert len(carried["sample"]) >= 2
            rest = {name: record.provenance[name] for name in old.provenance}
            assert rest == old.provenance, "when and where it was trained stays as it was"
    assert carry(CONFIGS, runs=runs, progress=False) == carrying.Carried(), "nothing is left"


@pytest.mark.parametrize("what", ["metric loss", "array evaluation_loss"])
def test_one_bit_changes_nothing_and_is_named(what, runs, monkeypatch):
    """In the second run of an ensemble of the sample, which holds the fastest."""
    before = contents(runs)
    real, changed = carrying.make, []

    def make(configs, **settings):
        records, failure = real(configs, **settings)
        if isinstance(configs[0].data, Mixture) and not changed:
            changed.append(configs[1])
            kind, name = what.split()
            old = records[1]
            values = dict(old.metrics if kind == "metric" else old.arrays)
            values[name] = np.nextafter(values[name], np.inf)
            if kind == "metric":
                values[name] = float(values[name])
            records[1] = replace(old, **{f"{kind}s": values})
        return records, failure

    monkeypatch.setattr(carrying, "make", make)
    done = carry(CONFIGS, runs=runs, progress=False)
    assert done.differences == [f"run {store.run_key(changed[0])}: {what}"]
    assert done.others == 0
    assert contents(runs) == before


def test_a_run_that_diverges_now_is_a_difference(runs, monkeypatch):
    before = contents(runs)
    monkeypatch.setattr(carrying, "make", lambda configs, **settings: ([], None))
    # Which runs are in the sample depends on how long each took.
    sample = [config for group in sample_of(older_groups(CONFIGS, runs)) for config in group.runs]
    done = carry(CONFIGS, runs=runs, progress=False)
    assert done.differences == [f"run {store.run_key(one)}: it diverges now" for one in sample]
    assert contents(runs) == before


def test_only_records_of_the_same_run_and_libraries_are_carried(runs, monkeypatch):
    others = [config.replace(seed=9) for config in CONFIGS]
    assert carry(others, runs=runs, progress=False) == carrying.Carried()
    monkeypatch.setattr(store, "release", lambda name: "0")
    assert carry(CONFIGS, runs=runs, progress=False) == carrying.Carried()


def test_a_record_that_does_not_name_its_code_is_not_carried(tmp_path, monkeypatch):
    made_by_code("older", tmp_path / "runs", monkeypatch, [toy()])
    (path,) = (tmp_path / "runs").glob("*/record.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["identity"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert carry([toy()], runs=tmp_path / "runs", progress=False) == carrying.Carried()


def test_a_damaged_record_is_not_carried(tmp_path, monkeypatch):
    made_by_code("older", tmp_path / "runs", monkeypatch, [toy()])
    (path,) = (tmp_path / "runs").glob("*/arrays.npz")
    path.write_bytes(path.read_bytes()[:-1])
    assert carry([toy()], runs=tmp_path / "runs", progress=False) == carrying.Carried()


def timed(config: TrainConfig, seconds: float, code: str = "a") -> carrying.Group:
    return carrying.Group(code, (config,), {config: Record(config, {}, {}, {"seconds": seconds})})


def test_the_sample_has_the_two_fastest_of_every_stratum():
    losses = (InfoNCE(), TSimCLR())
    precisions = ("32-true", "bf16-mixed")
    groups = []
    for loss in losses:
        for precision in precisions:
            runs = [toy(seed, loss=loss, precision=precision) for seed in range(4)]
            groups += [timed(run, 10.0 - run.seed) for run in runs]
    sample = sample_of(groups)
    assert len(sample) == 8
    for loss in losses:
        for precision in precisions:
            alike = [group.runs[0] for group in sample if group.runs[0].loss == loss]
            seeds = [run.seed for run in alike if run.precision == precision]
            assert seeds == [3, 2]


def test_the_sample_has_trained_runs_and_every_objective_however_long_they_take():
    untrained = [toy(seed, epochs=0) for seed in range(4)]
    trained = [toy(seed) for seed in range(4)]
    weighted = [images(seed).replace(weights=PairWeights(temperature=1.0)) for seed in range(4)]
    pairs = [TransferRun(data=TransferImages(n_train=32), seed=seed) for seed in range(4)]
    queue = [run.replace(objective="queue") for run in pairs]
    kinds = [untrained, [images(seed) for seed in range(4)], trained, weighted, pairs, queue]
    groups = []
    for number, kind in enumerate(kinds):
        groups += [timed(run, 10.0**number + run.seed) for run in kind]
    sample = [group.runs[0] for group in sample_of(groups)]
    assert sample == [run for kind in kinds for run in kind[:2]]


@pytest.mark.parametrize(("n", "expected"), [(1, 1), (2, 2), (3, 3), (7, 3)])
def test_the_sample_has_three_runs_of_each_state_of_the_code(n, expected):
    groups = [timed(toy(seed), 1.0 + seed, code) for code in "ab" for seed in range(n)]
    sample = sample_of(groups)
    for code in "ab":
        seeds = [group.runs[0].seed for group in sample if group.code == code]
        assert seeds == list(range(expected))


def test_of_two_older_records_the_later_is_taken(tmp_path, monkeypatch):
    first = made_by_code("first", tmp_path / "runs", monkeypatch, [toy()])[0]
    with monkeypatch.context() as patch:
        patch.setattr(store, "code_hash", lambda root: "second")
        later = replace(first, provenance=first.provenance | {"date": "9999"})
        store.save(tmp_path / "runs", [later])
    (group,) = older_groups([toy()], tmp_path / "runs")
    assert group.code == "second"


@pytest.mark.parametrize("differ", [False, True])
def test_the_command_says_what_it_did(differ, tmp_path, monkeypatch, capsys):
    asked = []
    found = carrying.Carried([toy()], ["run 12: metric loss"] if differ else [], 0 if differ else 7)

    def spy(configs, **settings):
        asked.append((len(configs), settings["runs"]))
        return found

    monkeypatch.setattr(carrying, "carry", spy)
    arguments = ["carry", "--scale", "smoke", "--results-dir", str(tmp_path)]
    arguments += ["--notebooks", "03_implicit_bias"]
    parsed = commands.parser().parse_args(arguments)
    assert parsed.run(parsed) == (1 if differ else 0)
    assert asked[0][0] > 0
    assert asked[0][1] == tmp_path / "runs"
    said = capsys.readouterr().out
    assert ("run 12: metric loss" in said) == differ
    assert f"1 runs trained again, {0 if differ else 7} others carried" in said
