"""The whole way, at scale smoke, and the commands of sscl.

Every notebook runs once, in a copy of the checkout: what a reproduction leaves is looked at there.
What happens to a notebook that is broken, mended, published or left alone is asked of two small
studies in another copy (see throwaway.py). The tests that share a copy (the fixtures `checkout` and
`small`) run in one worker and in order.
"""

import csv
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib.metadata import version
from unittest import mock

import nbformat
import pytest
import throwaway

from sscl_core import files
from sscl_core.config import Images, TrainConfig
from sscl_core.divergence import NonFiniteLossError
from sscl_experiments import cli, commands, flock, paths, settings, store
from sscl_experiments.claims import decide
from sscl_experiments.record import Record
from sscl_experiments.studies.t_simclr import parameters, tuning
from sscl_experiments.study import all_claims
from sscl_experiments.workflow import execution, kernels, locks, planning, publishing, report
from sscl_experiments.workflow.state import look

CLAIMS = all_claims()


def shrink(root):
    """Gives the sizes of smoke to the scales that are published, and as many trainings to a job."""
    for scales in root.glob("sscl_experiments/studies/*/scales.toml"):
        give_smoke(scales)
    plan = root / "sscl_experiments" / "workflow" / "planning.py"
    text = plan.read_text(encoding="utf-8")
    number = planning.TRAININGS_PER_JOB["smoke"]
    text, changed = re.subn('"quick": [0-9]+', f'"quick": {number}', text)
    assert changed == 1
    plan.write_text(text, encoding="utf-8")


def give_smoke(scales):
    text = scales.read_text(encoding="utf-8")
    smoke = re.search(r"\[smoke\].*?(?=\[quick\])", text, re.S).group()
    others = (smoke.replace("[smoke", f"[{scale}") for scale in ("quick", "full"))
    scales.write_text("".join((smoke, *others)), encoding="utf-8")


class Checkout:
    def __init__(self, root):
        self.root, self.out = root, root / "results" / "quick"

    def sscl(self, *arguments):
        return throwaway.run(self.root, "sscl_experiments", *arguments)

    def records(self):
        runs = self.root / "results" / "runs"
        return {path.name: path.stat().st_mtime_ns for path in runs.iterdir()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy with every study."""
    root = tmp_path_factory.mktemp("checkout")
    throwaway.copy_of_the_checkout(root)
    shrink(root)
    return Checkout(root)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A copy with two studies that are thrown away."""
    root = tmp_path_factory.mktemp("small")
    throwaway.copy_without_studies(root)
    throwaway.add_study(root, 98)
    throwaway.add_study(root, 99)
    return Checkout(root)


SOUND, BROKEN = "98_throwaway", "99_throwaway"


# What is broken, mended, published or left alone.


@pytest.fixture(scope="module")
def broken(small):
    """One notebook fails halfway."""
    sources = [*throwaway.CELLS[:2], "raise RuntimeError('broken on purpose')", throwaway.CELLS[2]]
    throwaway.write_notebook(small.root, BROKEN, sources)
    return small.sscl("reproduce", "--cores", "1")


def test_a_failing_notebook_leaves_the_others_and_its_own_traceback(small, broken):
    assert broken.returncode != 0
    assert "FAILED" in broken.stdout
    partial, traceback = (
        small.out / "failed" / f"{BROKEN}.{suffix}" for suffix in ("ipynb", "txt")
    )
    assert str(partial) in broken.stdout
    assert str(traceback) in broken.stdout
    assert "RuntimeError: broken on purpose" in broken.stdout
    assert "broken on purpose" in traceback.read_text(encoding="utf-8")
    assert any(cell.get("outputs") for cell in nbformat.read(partial, as_version=4).cells), (
        "as far as it got"
    )
    assert (small.out / "notebooks" / f"{SOUND}.ipynb").exists()
    assert "A throw-away claim" in broken.stdout, (
        "the claims that were decided are shown all the same"
    )
    assert (small.out / "claims" / "T98.json").exists()
    assert not (small.out / "claims" / "T99.json").exists()
    assert not re.search(r"^T99 ", broken.stdout, re.M)


@pytest.fixture(scope="module")
def mended(small, broken):
    before = small.records()
    finished = (small.out / "notebooks" / f"{SOUND}.ipynb").stat().st_mtime_ns
    throwaway.write_notebook(small.root, BROKEN, throwaway.CELLS)
    return small.sscl("reproduce", "--cores", "2"), before, finished


def test_mended_it_runs_alone_and_redoes_nothing(small, mended):
    run, before, finished = mended
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(before) == 5
    assert small.records() == before, "no training run was made twice"
    assert (small.out / "notebooks" / f"{SOUND}.ipynb").stat().st_mtime_ns == finished
    assert not list((small.out / "failed").iterdir())
    for claim in ("T98", "T99"):
        assert re.search(rf"^{claim} .*", run.stdout, re.M)


def test_a_longer_scale_is_published_as_a_record(small, mended):
    run = small.sscl("reproduce", "--scale", "full", "--notebooks", SOUND, "--publish")
    assert run.returncode == 0, run.stdout + run.stderr
    logs = [log.name for log in (small.root / "results" / "full" / "logs").iterdir()]
    assert len(logs) == 2, (
        "Snakemake's and the notebook's: its runs are those of quick, and need no process"
    )
    path = small.root / "data" / "records" / "full" / f"{SOUND}.json"
    text = path.read_text(encoding="utf-8")
    path.unlink()  # a record is something that notebooks depend on
    record = json.loads(text)
    assert [claim["claim"]["id"] for claim in record["claims"]] == ["T98"]
    assert record["runs"] == 5
    assert record["parameters"]["scale"] == "full"
    assert record["tables"]["seeds"] == "seed\n0\n1\n2\n3\n4\n"
    assert str(small.root) not in text
    assert "Nothing changed" in small.sscl("reproduce").stdout


def test_changed_code_is_run_again_and_a_comment_is_not(small, mended):
    code = """
from sscl_experiments.workflow import planning
print(*sorted(job.mark for job in planning.plan("quick").jobs))
"""

    def marks():
        environment = os.environ | {"PYTHONPATH": str(small.root)}
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=small.root, env=environment, capture_output=True, text=True, check=True
        ).stdout

    before, source = marks(), (small.root / "sscl_core" / "losses.py")
    assert before.count("throwaway") == 2
    text = source.read_text(encoding="utf-8")
    source.write_text(text + "\n# nothing\n", encoding="utf-8")
    assert marks() == before
    source.write_text(text + "\nEXTRA = 1\n", encoding="utf-8")
    assert not set(marks().split()) & set(before.split())
    source.write_text(text, encoding="utf-8")
    assert marks() == before


def test_notebook_command_with_other_parameters(small, mended, tmp_path):
    """With one seed, of which no interval can be made; its run is among those that are there."""
    shutil.copytree(small.root / "results" / "runs", tmp_path / "runs")
    before = set((tmp_path / "runs").iterdir())
    places = ["--results-dir", str(tmp_path)]
    run = small.sscl("notebook", SOUND, "--scale", "smoke", "-p", "seeds", "1", *places)
    assert run.returncode == 0, run.stdout + run.stderr
    path = tmp_path / "custom" / "notebooks" / f"{SOUND}.ipynb"
    assert str(path) in run.stdout
    assert path.exists()
    assert not (tmp_path / "smoke").exists()
    assert set((tmp_path / "runs").iterdir()) == before


def test_a_notebook_run_by_papermill_refuses_an_unknown_parameter(small, tmp_path):
    places = [str(throwaway.notebook(small.root, SOUND)), str(tmp_path / "out.ipynb")]
    run = throwaway.run(small.root, "papermill", *places, "-p", "sedes", "3")
    assert run.returncode != 0
    assert "ValueError" in run.stderr
    assert "valid names: scale, seeds" in run.stderr
    assert not (small.root / "results" / "custom").exists()


# Every notebook, once.


@pytest.fixture(scope="module")
def made(checkout):
    return checkout.sscl("reproduce", "--cores", "1")


def test_results_contract(checkout, made):
    out = checkout.out
    assert made.returncode == 0, made.stdout + made.stderr
    for claim in CLAIMS:
        assert re.search(rf"^{claim} .*", made.stdout, re.M)
    content = json.loads((out / "claims.json").read_text(encoding="utf-8"))
    assert [claim["claim"]["id"] for claim in content["claims"]] == list(CLAIMS)
    assert content["schema"] == store.SCHEMA
    rows = (out / "runs.csv").read_text(encoding="utf-8").splitlines()
    groups = [group for job in planning.plan("smoke").jobs for group in job.groups]
    here = {key for group in groups for key in group.keys}
    assert here == set(checkout.records()), "keys do not depend on where the code is"
    assert {row.split(",")[1] for row in rows[1:]} == here
    for png in (out / "figures").glob("*.png"):
        assert png.with_suffix(".svg").exists()
        assert png.with_suffix(".csv").exists() or png.with_suffix(".npz").exists()
    assert len(list((out / "figures").glob("*.png"))) >= 11
    assert (out / "figures" / "03_implicit_bias-training.gif").read_bytes().startswith(b"GIF8")
    assert "03_implicit_bias-training.gif" in (out / "report.html").read_text(encoding="utf-8")
    page = (out / "report.html").read_text(encoding="utf-8")
    for link in re.findall(r"(?:href|src)='([^']+)'", page):
        assert (out / link).exists(), link


def test_recorded_scalars_are_what_theory_says(checkout, made):
    content = json.loads((checkout.out / "claims.json").read_text(encoding="utf-8"))
    by_id = {claim["claim"]["id"]: claim for claim in content["claims"]}
    assert 0 < max(by_id["C1"]["values"]) < 1e-12, "something was computed, and it agrees"
    assert all(0 < value < 1.5 for value in by_id["C2"]["values"])
    assert by_id["C10"]["n"] == 2
    assert all(value in (0, 1) for value in by_id["C5"]["values"])
    assert all(value > 0 for value in by_id["C6"]["values"]), "a theorem"
    assert all(claim["verdict"] == "not run at this scale" for claim in by_id.values()), (
        "two seeds decide nothing"
    )


def test_nothing_changed_takes_seconds_and_says_so(checkout, made):
    began = time.monotonic()
    run = checkout.sscl("reproduce")
    assert time.monotonic() - began < 20  # about 2 s on an idle core
    assert run.returncode == 0
    assert "Nothing changed" in run.stdout
    assert re.search(r"^C10 ", run.stdout, re.M)


def test_publish_is_byte_stable_and_without_machine_or_time(checkout, made):
    def publish():
        run = checkout.sscl("reproduce", "--publish")
        assert run.returncode == 0, run.stderr
        return throwaway.notebook(checkout.root, "05_t_simclr").read_text(encoding="utf-8")

    first = publish()
    assert publish() == first
    assert str(checkout.root) not in first
    assert "papermill" not in json.dumps([cell["metadata"] for cell in json.loads(first)["cells"]])
    assert "injected" not in first
    # The outputs are not source: publishing does not make the notebook stale.
    assert "Nothing changed" in checkout.sscl("reproduce").stdout


def test_a_record_of_a_notebook_that_trains_nothing_has_day_and_versions(monkeypatch, tmp_path):
    plan = planning.plan("smoke", tmp_path, ["12_performance"])
    (job,) = plan.jobs
    found = publishing._provenance(look(plan), job)
    assert (found["runs"], found["core_hours"]) == (0, 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    assert found["versions"]["torch"] == version("torch")


def test_failing_training_runs_are_reported_with_their_log(checkout, made):
    """Data that cannot be read: the run fails, and the message has the reason.

    The notebook that needs it does not start.
    """
    data = checkout.root / "data" / "fashion_mnist_subset.npz"
    runs = checkout.root / "results" / "runs"
    content, kept = data.read_bytes(), runs.with_name("kept")
    data.write_bytes(b"broken")
    runs.rename(kept)  # or there is nothing to train: what was trained was trained on sound data
    run = checkout.sscl("reproduce", "--notebooks", "05_t_simclr")
    data.write_bytes(content)
    shutil.rmtree(runs, ignore_errors=True)
    kept.rename(runs)
    assert run.returncode != 0
    log = re.search(r"training runs of 05_t_simclr: .*\n  log: (.*\.log)", run.stdout)
    assert log, run.stdout
    assert os.path.getsize(log.group(1)) > 0
    assert not re.search(r"^C10 ", run.stdout, re.M), (
        "the verdict of other data is not shown as this one's"
    )
    assert re.search(r"^C1 ", run.stdout, re.M), (
        "and the notebook that was not asked for keeps its place"
    )


# The commands, in process.


def test_notebook_command_refuses_before_it_starts(tmp_path, capsys):
    assert (
        cli.main(
            [
                "notebook",
                "01_contrastive_is_sne",
                "-p",
                "sedes",
                "1",
                "--results-dir",
                str(tmp_path),
            ]
        )
        == 1
    )
    assert "valid names: scale, seeds" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_kernel_that_never_started_is_tried_once_more(tmp_path, monkeypatch):
    import papermill

    calls = []

    def dying(*args, **kwargs):
        calls.append(1)
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(papermill, "execute_notebook", dying)
    with pytest.raises(RuntimeError, match="notebook 01_contrastive_is_sne failed: Kernel died"):
        kernels.run_notebook(
            "01_contrastive_is_sne", {"scale": "smoke", "results_dir": str(tmp_path)}
        )
    assert len(calls) == 2


def test_train_command_keeps_its_run_and_takes_a_file(tmp_path, capsys):
    config = tmp_path / "run.toml"
    config.write_text(
        "epochs = 1\nbatch_size = 16\n[data]\nn_train = 64\n[loss]\nname = 't_simclr'\ndf = inf\n",
        encoding="utf-8",
    )
    arguments = [
        "train",
        "--config",
        str(config),
        "--set",
        "projector.dim=2",
        "--results-dir",
        str(tmp_path),
    ]
    assert cli.main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert 0 <= first["knn_euclidean_z"] <= 1
    assert cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first, "the second time it is read, not trained"
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("epoch=3", "epoch"),
        ("loss.temperature=-1", "greater than 0"),
        ("loss.name=nce", "nce"),
        ("epochs", "KEY=VALUE"),
        ("data.augmentation.crop_scale=[0.9,0.2]", "smallest"),
        ("epochs=many", "valid integer"),
        ("data=cifar10", "data"),
        ("seed.x=1", "seed has no parts"),
    ],
)
def test_train_command_rejects(assignment, words, capsys):
    assert cli.main(["train", "--show", "--set", "seed=0", assignment]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("run.yaml", b"epochs: 1", ["must be a file .toml or .json", "run.yaml"]),
        ("run", b"epochs = 1", ["must be a file .toml or .json", "without suffix"]),
        (
            "run.toml",
            b"epochs = 1\nseed = 2024-01-01",
            ["run.toml", "seed = 2024-01-01 is a date or time", "accepted are numbers"],
        ),
        (
            "run.toml",
            b"[optimizer]\nlr = 07:32:00",
            ["run.toml", "optimizer.lr = 07:32:00 is a date"],
        ),
        ("run.toml", b"betas = [1, 2024-01-01T00:00:00Z]", ["run.toml", "betas.1 = 2024-01-01"]),
        ("run.toml", b"epochs = ", ["run.toml is not TOML"]),
        ("run.json", b"{", ["run.json is not JSON"]),
        ("run.json", b"[" * 100_000, ["run.json is not JSON"]),
        ("run.json", b"[1]", ["run.json must hold a mapping"]),
        ("run.toml", "name = 'é'".encode("latin-1"), ["run.toml must be text in UTF-8"]),
        ("run.toml", None, ["must be a file .toml or .json", "a folder"]),
    ],
)
def test_a_configuration_file_that_is_none_is_named(name, content, words, tmp_path, capsys):
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    assert cli.main(["train", "--show", "--config", str(path)]) == 1
    said = capsys.readouterr().err
    assert all(word in said for word in (*words, str(path))), said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("name", "text"), [("run.toml", "seed = 7"), ("run.JSON", '{"seed": 7}')])
def test_a_byte_order_mark_is_no_error(name, text, tmp_path, capsys):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8-sig")
    assert cli.main(["train", "--show", "--config", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7


def test_train_show_prints_a_configuration_that_reads_back(capsys, tmp_path):
    assert cli.main(["train", "--show", "--set", "loss.name=t_simclr", "seed=4"]) == 0
    path = tmp_path / "run.json"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert cli.main(["train", "--show", "--config", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text(encoding="utf-8"))


def test_prefetch_makes_one_group(tmp_path):
    assert (
        cli.main(
            [
                "prefetch",
                "01_contrastive_is_sne",
                "--group",
                "0",
                "--scale",
                "smoke",
                "--results-dir",
                str(tmp_path),
            ]
        )
        == 0
    )
    configs = planning.job("01_contrastive_is_sne", "smoke").groups[0].configs
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        store.run_key(config) for config in configs
    }


def test_a_failing_run_takes_no_other_of_its_job_with_it(tmp_path):
    """Two fail, each for its own reason, and are named; what stands behind them is made."""
    good = planning.job("01_contrastive_is_sne", "smoke").groups[0].configs
    wrong = TrainConfig(data=Images(n_train=20_000))
    other = TrainConfig(data=Images(n_train=9_000, holdout=0.2))
    failed = commands.make_all([wrong, other, *good], tmp_path / "runs", None)
    assert len(failed) == 2
    assert "ValueError: n_train must be at most 10000" in failed[0]
    assert "ValueError: n_train must be at most 8000" in failed[1]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == set(map(store.run_key, good))


def test_runs_that_diverge_are_not_trained_again(tmp_path, monkeypatch):
    asked = []

    def results(configs, **settings):
        asked.append(configs)
        raise NonFiniteLossError("seeds 3 and 5 became NaN")

    monkeypatch.setattr("sscl_experiments.runner.results", results)
    said = commands.make_all([TrainConfig()], tmp_path, None)
    assert said == ["NonFiniteLossError: seeds 3 and 5 became NaN"]
    assert len(asked) == 1


def test_parameters_of_a_bench_win(monkeypatch, tmp_path):
    seen = []
    bench = "sscl_experiments.studies.performance.analysis.bench"
    monkeypatch.setattr(bench, lambda p, out: seen.append(p))
    assert (
        cli.main(["bench", "--scale", "smoke", "-p", "scale", "quick", "-p", "device", "cpu"]) == 0
    )
    assert (seen[0].scale, seen[0].device) == ("quick", "cpu")


def test_prefetch_refuses_a_group_that_is_not_there(capsys):
    assert cli.main(["prefetch", "01_contrastive_is_sne", "--group", "9", "--scale", "smoke"]) == 1
    assert "group must be in 0..0" in capsys.readouterr().err


def test_a_second_reproduction_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    with locks.alone(tmp_path / "smoke"):
        assert cli.main(["reproduce", "--scale", "smoke", "--results-dir", str(tmp_path)]) == 1
    assert (
        f"another reproduction is writing {tmp_path / 'smoke'} (process {os.getpid()}, or"
        in capsys.readouterr().err
    )


def test_where_a_file_system_has_no_locks_nothing_is_held(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(flock.fcntl, "flock", unsupported)
    with locks.alone(tmp_path), locks.alone(tmp_path), locks.taking_part(tmp_path):
        pass


def test_no_reproduction_begins_while_a_job_of_an_earlier_one_is_at_work(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    out = tmp_path / "smoke"
    with locks.alone(out), locks.taking_part(out):
        pass  # its jobs hold it beside it
    with (
        locks.taking_part(out),
        pytest.raises(RuntimeError, match="another reproduction"),
        locks.alone(out),
    ):
        pass
    with locks.alone(out):
        pass


def test_an_unknown_profile_and_a_foreign_scale_are_refused(tmp_path, capsys):
    assert (
        cli.main(
            ["reproduce", "--scale", "smoke", "--results-dir", str(tmp_path), "--profile", "pbs"]
        )
        == 1
    )
    assert "profile must be a folder" in capsys.readouterr().err

    def publish(plan):
        publishing.publish(plan, look(plan))

    with pytest.raises(ValueError, match="scale must be 'quick' or 'full'"):
        publish(planning.plan("smoke", tmp_path))
    with pytest.raises(
        ValueError, match="01_contrastive_is_sne is not finished: run `sscl reproduce --scale full"
    ):
        publish(planning.plan("full", tmp_path))


def test_data_and_claims_commands(tmp_path, capsys):
    assert cli.main(["data"]) == 0
    assert "fashion_mnist_subset" in capsys.readouterr().out
    assert cli.main(["data", "fashion_mnist_subset"]) == 0
    assert "(10000, 1, 28, 28)" in capsys.readouterr().out
    assert cli.main(["claims", "--scale", "smoke", "--results-dir", str(tmp_path)]) == 1
    assert "run `sscl reproduce --scale smoke` first" in capsys.readouterr().err


def test_claims_command_shows_what_ran(checkout, made, capsys):
    assert cli.main(["claims", "--results-dir", str(checkout.root / "results")]) == 0
    assert re.search(r"^C1 ", capsys.readouterr().out, re.M)


def test_tune_command(tmp_path, monkeypatch):
    """Two tiny settings: the table has a row for each, with the accuracies of its own run.

    Those on z are in the metric of its loss.
    """
    images = Images(n_train=40, holdout=0.2, augmentation=settings.AUGMENTATION)
    space = {
        (m, 2, s.loss.temperature): settings.image_run(s, images, dim=2, epochs=0, seed=0)
        for m, s in settings.METHODS.items()
    }
    monkeypatch.setattr(
        tuning, "search_space", lambda image_set: space if image_set == "cifar10" else {}
    )
    table = tmp_path / "table.csv"
    assert (
        cli.main(
            ["tune", "--image-set", "cifar10", "--out", str(table), "--results-dir", str(tmp_path)]
        )
        == 0
    )
    rows = list(csv.DictReader(table.open()))
    assert [(row["loss"], int(row["d_z"]), float(row["temperature"])) for row in rows] == list(
        space
    )
    for row, config, metric in zip(rows, space.values(), ("cosine", "euclidean"), strict=True):
        metrics = store.load(tmp_path / "runs", config).metrics
        assert float(row["knn15_z"]) == pytest.approx(metrics[f"knn15_{metric}_z"], abs=1e-4)
        assert float(row["probe_h"]) == pytest.approx(metrics["linear_probe_h"], abs=1e-4)


def names_of_commands():
    """As the parser has them."""
    parser = commands.parser()
    (choices,) = [action.choices for action in parser._actions if action.choices]
    return sorted(choices)


@pytest.mark.parametrize("command", [[], *([name] for name in names_of_commands())], ids=str)
def test_help_everywhere(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: sscl" in capsys.readouterr().out


def finish(plan):
    """What a finished plan leaves, in little."""
    for job in plan.jobs:
        made = ("notebooks/{}.ipynb", "figures/{}-a.png", "tables/{}-a.csv")
        for path in (*(plan.out / name.format(job.notebook) for name in made), *plan.claims(job)):
            files.write_text(path, path.name)
        store.save(
            plan.results / "runs",
            [Record(config, {"accuracy": 0.5}) for config in job.parameters.runs()],
        )
        planning.write_mark(plan.marks / job.mark, plan.out, job.notebook)


def test_reproduce_in_process_with_nothing_to_do(tmp_path, capsys, monkeypatch):
    finish(planning.plan("smoke", tmp_path))
    monkeypatch.setattr(report, "write", lambda state: [])
    assert cli.main(["reproduce", "--scale", "smoke", "--results-dir", str(tmp_path)]) == 0
    assert "Nothing changed" in capsys.readouterr().out
    assert (
        cli.main(
            [
                "reproduce",
                "--scale",
                "smoke",
                "--results-dir",
                str(tmp_path),
                "--notebooks",
                "01_contrastive_is_sne",
            ]
        )
        == 0
    )


@pytest.mark.parametrize("missing", [False, True])
def test_each_result_is_read_once_and_once_more_after_work(missing, tmp_path, monkeypatch):
    names = ["01_contrastive_is_sne", "07_augmentation_graph"]
    studies = {name: planning.study.study_of(name) for name in names}
    monkeypatch.setattr(planning.study, "all_studies", lambda: studies)
    plan = planning.plan("smoke", tmp_path)
    finish(plan)
    if missing:
        (plan.marks / plan.jobs[0].mark).unlink()
    read = []
    real = pathlib.Path.open

    def watched(path, mode="r", *arguments, **named):
        if "r" in mode and tmp_path in path.parents:
            read.append(str(path.relative_to(tmp_path)))
        return real(path, mode, *arguments, **named)

    monkeypatch.setattr(pathlib.Path, "open", watched)
    monkeypatch.setattr(report, "write", lambda state: [])
    monkeypatch.setattr(execution, "_guarded", lambda *_: nullcontext(mock.Mock(returncode=0)))
    assert cli.main(["reproduce", "--scale", "smoke", "--results-dir", str(tmp_path)]) == missing
    results = [path for path in read if path.startswith(("runs", "smoke/figures"))]
    keys = {key for job in plan.jobs for group in job.groups for key in group.keys}
    assert {f"runs/{key}/record.json" for key in keys} <= set(results)
    assert max(map(results.count, results)) == 1 + missing


KINDS = (".done", "notebooks", "claims", "figures", "tables", "runs")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "deleted": files.remove,
    "truncated": lambda path: truncate(path / "record.json" if path.is_dir() else path),
    "emptied": lambda path: (
        files.remove(path),
        path.mkdir() if path.parent.name == "runs" else path.touch(),
    ),
    "replaced": lambda path: (
        files.remove(path),
        shutil.copytree(other(path), path)
        if other(path).is_dir()
        else shutil.copy(other(path), path),
    ),
}


def other(path):
    """Another file, or run, of the same kind."""
    return next(
        place
        for place in sorted(path.parent.iterdir())
        if place != path and "runs-" not in place.name
    )


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_as_it_was_written_is_not_taken_for_finished(
    kind, damage, tmp_path, monkeypatch, capsys
):
    names = ["01_contrastive_is_sne", "05_t_simclr"]
    plan = planning.plan("smoke", tmp_path, names[:1])
    both = planning.plan("smoke", tmp_path, names)
    monkeypatch.setattr(parameters.TSimCLRFeatures, "runs", lambda self: [TrainConfig(seed=1)])
    both = planning.plan("smoke", tmp_path, names)
    finish(both)
    assert look(both).unfinished(both.jobs) == []
    job, untouched = both.jobs
    group = plan.marks / job.groups[0].mark
    files.write_text(group, "")
    places = {
        ".done": plan.marks / job.mark,
        "claims": plan.out / "claims" / "C1.json",
        "runs": tmp_path / "runs" / job.groups[0].keys[0],
    }
    place = places.get(kind) or next(
        path for path in (plan.out / kind).iterdir() if path.name.startswith(job.notebook)
    )
    DAMAGES[damage](place)
    found = look(both)
    assert found.unfinished(both.jobs) == [job]
    if (kind, damage) != (".done", "deleted"):
        assert found.damaged(job) == [place], "and it is named"
    monkeypatch.setattr(execution, "run_snakemake", lambda *_, **__: 0)
    cli.main(
        ["reproduce", "--scale", "smoke", "--results-dir", str(tmp_path), "--notebooks", *names]
    )
    said = capsys.readouterr().out
    assert "Nothing changed" not in said
    assert (f"{place} is not as it was written: it is made again." in said) == (
        (kind, damage) != (".done", "deleted")
    )
    execution.clear(found, job)
    assert not (plan.marks / job.mark).exists(), "without its mark it is run again"
    assert group.exists() == (kind != "runs"), (
        "and so are training runs, but only where one is missing"
    )
    assert (plan.marks / untouched.mark).exists()


def test_a_mark_lists_all_that_its_notebook_left(tmp_path):
    plan = planning.plan("smoke", tmp_path, ["01_contrastive_is_sne"])
    finish(plan)
    (job,) = plan.jobs
    listed = json.loads((plan.marks / job.mark).read_text(encoding="utf-8"))
    left = [path for path in plan.out.rglob("*") if path.is_file() and ".done" not in path.parts]
    assert listed == {
        str(path.relative_to(plan.out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in left
    }
    assert len(listed) == 5


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"schema": 1}', "\udcff"])
def test_damaged_claims_are_named_with_the_remedy(content, tmp_path, capsys):
    path = tmp_path / "smoke" / "claims" / "C9.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert cli.main(["claims", "--scale", "smoke", "--results-dir", str(tmp_path)]) == 1
    remedy = "`sscl reproduce --scale smoke --notebooks 10_weighted_pairs`"
    assert f"{path} is damaged: delete it, and {remedy}" in capsys.readouterr().err


def test_another_claims_file_in_its_place_is_refused(tmp_path, capsys):
    outcome = decide(CLAIMS["C1"], [1e-12], scale="smoke").model_dump_json()
    files.write_text(tmp_path / "smoke" / "claims" / "C2.json", outcome)
    assert cli.main(["claims", "--scale", "smoke", "--results-dir", str(tmp_path)]) == 1
    assert "it holds claim C1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["reproduce", "--cores", "0"], ["reproduce", "--cores", "-3"], ["reproduce", "--cores", "x"]],
)
def test_counts_start_at_one(arguments, capsys):
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert "must be a whole number from 1" in capsys.readouterr().err


def test_a_results_folder_that_is_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert cli.main(["claims", "--results-dir", str(tmp_path / "file")]) == 1
    assert cli.main(["reproduce", "--scale", "smoke", "--results-dir", str(tmp_path / "file")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(
        f"--results-dir must name a folder, got '{tmp_path / 'file'}', which is a file" in line
        for line in said
    )


@pytest.mark.parametrize("variable", [True, False])
@pytest.mark.parametrize("what", ["is not there", "is a file"])
def test_a_data_folder_that_is_none_is_refused_at_once(
    variable, what, tmp_path, capsys, monkeypatch
):
    (tmp_path / "is a file").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    if variable:
        monkeypatch.setenv("SSCL_DATA_DIR", what)
    for command in (
        ["data", "fashion_mnist"],
        ["reproduce", "--scale", "smoke", "--results-dir", "r"],
        ["train", "--show"],
    ):
        assert cli.main([*command, *([] if variable else ["--data-dir", what])]) == 1
        name = "SSCL_DATA_DIR" if variable else "--data-dir"
        assert f"sscl: {name} must name a folder" in capsys.readouterr().err


def test_relative_folders_are_those_of_the_working_directory_for_children_too(
    tmp_path, monkeypatch
):
    seen = {}

    def run_snakemake(plan, found, **places):
        variables = os.environ | execution.environment(plan, places["data_dir"])
        seen.update(places, plan=plan, **variables)
        return 1

    for name in ("data", "other data"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSCL_DATA_DIR", "other data")
    monkeypatch.setattr(execution, "run_snakemake", run_snakemake)
    before = dict(os.environ)
    cli.main(["reproduce", "--scale", "smoke", "--results-dir", "results", "--data-dir", "data"])
    assert seen["plan"].results == tmp_path / "results"
    assert seen["data_dir"] == str(tmp_path / "data")
    assert seen["SSCL_DATA_DIR"] == str(tmp_path / "other data")
    assert seen["SSCL_RESULTS_DIR"] == str(tmp_path / "results")
    monkeypatch.setenv("SSCL_RESULTS_DIR", "there")
    cli.main(["reproduce", "--scale", "smoke"])
    assert seen["SSCL_RESULTS_DIR"] == str(tmp_path / "there")
    monkeypatch.undo()
    assert {key: value for key, value in os.environ.items() if key.startswith("SSCL")} == {
        key: value
        for key, value in before.items()
        if key.startswith("SSCL") and key != "SSCL_DATA_DIR"
    }


def test_without_a_checkout_the_message_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(paths, "CHECKOUT", None)
    assert cli.main(["notebook", "01_contrastive_is_sne"]) == 1
    assert "clone it" in capsys.readouterr().err
