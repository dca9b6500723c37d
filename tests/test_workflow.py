"""The whole way, in a copy of the checkout at scale smoke: one notebook broken, then mended, then nothing left to do.

And the commands of sscl. The tests that share the copy (the fixture `checkout`) run in one worker and in order."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import nbformat
import pytest

from sscl_core import cli, paths, report, reproduce, store, studies, tuning
from sscl_core.claims import CLAIMS


class Checkout:
    def __init__(self, root):
        self.root, self.out = root, root / "results" / "quick"
        for name in ("sscl_core", "workflow", "notebooks", "data", "docs"):
            shutil.copytree(paths.CHECKOUT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        scales = root / "workflow" / "scales.toml"  # the sizes of smoke under the names of the scales that are published
        smoke = re.search(r"\[smoke\].*?(?=\[quick\])", scales.read_text(encoding="utf-8"), re.S).group()
        scales.write_text(smoke.replace("[smoke", "[quick") + smoke.replace("[smoke", "[full"), encoding="utf-8")

    def sscl(self, *arguments, **environment):
        variables = os.environ | {"PYTHONPATH": str(self.root), "COLUMNS": "120"} | environment
        variables.pop("SSCL_RESULTS_DIR", None)
        command = [sys.executable, "-m", "sscl_core", *arguments]
        return subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True)

    def notebook(self, name):
        return self.root / "notebooks" / f"{name}.ipynb"

    def edit(self, name, change):
        book = nbformat.read(self.notebook(name), as_version=4)
        change(book)
        nbformat.write(book, self.notebook(name))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("checkout"))


def records(checkout):
    return {path.name: path.stat().st_mtime_ns for path in (checkout.root / "results" / "runs").iterdir()}


@pytest.fixture(scope="module")
def broken(checkout):
    """One notebook fails halfway."""
    cell = nbformat.v4.new_code_cell("raise RuntimeError('broken on purpose')")
    checkout.edit("05_t_simclr", lambda book: book.cells.insert(6, cell))
    return checkout.sscl("reproduce", "--cores", "1")


def test_a_failing_notebook_leaves_the_others_and_its_own_traceback(checkout, broken):
    assert broken.returncode != 0
    assert "FAILED" in broken.stdout
    partial, traceback = (checkout.out / "failed" / f"05_t_simclr.{suffix}" for suffix in ("ipynb", "txt"))
    assert str(partial) in broken.stdout
    assert str(traceback) in broken.stdout
    assert "RuntimeError: broken on purpose" in broken.stdout
    assert "broken on purpose" in traceback.read_text(encoding="utf-8")
    assert any(cell.get("outputs") for cell in nbformat.read(partial, as_version=4).cells), "as far as it got"
    assert (checkout.out / "notebooks" / "01_contrastive_is_sne.ipynb").exists()
    assert "InfoNCE is the SNE objective" in broken.stdout, "the claims that were decided are shown all the same"
    assert not (checkout.out / "claims" / "C10.json").exists()
    assert not re.search(r"^C10 ", broken.stdout, re.M)


@pytest.fixture(scope="module")
def mended(checkout, broken):
    before = records(checkout)
    finished = (checkout.out / "notebooks" / "01_contrastive_is_sne.ipynb").stat().st_mtime_ns
    checkout.edit("05_t_simclr", lambda book: book.cells.pop(6))
    return checkout.sscl("reproduce", "--cores", "2"), before, finished


def test_mended_it_runs_alone_and_redoes_nothing(checkout, mended):
    run, before, finished = mended
    assert run.returncode == 0, run.stdout + run.stderr
    assert records(checkout) == before, "no training run was made twice"
    assert (checkout.out / "notebooks" / "01_contrastive_is_sne.ipynb").stat().st_mtime_ns == finished
    assert not list((checkout.out / "failed").iterdir())
    for claim in CLAIMS:
        assert re.search(rf"^{claim} .*", run.stdout, re.M)


def test_results_contract(checkout, mended):
    out = checkout.out
    content = json.loads((out / "claims.json").read_text(encoding="utf-8"))
    assert [claim["claim"]["id"] for claim in content["claims"]] == list(CLAIMS)
    assert content["schema"] == store.SCHEMA
    rows = (out / "runs.csv").read_text(encoding="utf-8").splitlines()
    assert {row.split(",")[1] for row in rows[1:]} == set(records(checkout))
    for png in (out / "figures").glob("*.png"):
        assert png.with_suffix(".svg").exists()
        assert png.with_suffix(".csv").exists() or png.with_suffix(".npz").exists()
    assert len(list((out / "figures").glob("*.png"))) >= 11
    assert (out / "figures" / "03_implicit_bias-film.gif").read_bytes().startswith(b"GIF8")
    assert "03_implicit_bias-film.gif" in (out / "report.html").read_text(encoding="utf-8")
    page = (out / "report.html").read_text(encoding="utf-8")
    for link in re.findall(r"(?:href|src)='([^']+)'", page):
        assert (out / link).exists(), link


def test_recorded_scalars_are_what_theory_says(checkout, mended):
    content = json.loads((checkout.out / "claims.json").read_text(encoding="utf-8"))
    by_id = {claim["claim"]["id"]: claim for claim in content["claims"]}
    assert 0 < max(by_id["C1"]["values"]) < 1e-12, "something was computed, and it agrees"
    assert all(0 < value < 1.5 for value in by_id["C2"]["values"])
    assert by_id["C10"]["n"] == 2
    assert all(value in (0, 1) for value in by_id["C5"]["values"])
    assert all(value > 0 for value in by_id["C6"]["values"]), "a theorem"
    assert all(claim["verdict"] == "not run at this scale" for claim in by_id.values()), "two seeds decide nothing"


def test_nothing_changed_takes_seconds_and_says_so(checkout, mended):
    began = time.monotonic()
    run = checkout.sscl("reproduce")
    assert time.monotonic() - began < 20  # about 2 s on an idle core
    assert run.returncode == 0
    assert "Nothing changed" in run.stdout
    assert re.search(r"^C10 ", run.stdout, re.M)


def test_publish_is_byte_stable_and_without_machine_or_time(checkout, mended):
    def publish():
        run = checkout.sscl("reproduce", "--publish")
        assert run.returncode == 0, run.stderr
        return checkout.notebook("05_t_simclr").read_text(encoding="utf-8")

    first = publish()
    assert publish() == first
    assert str(checkout.root) not in first
    assert "papermill" not in json.dumps([cell["metadata"] for cell in json.loads(first)["cells"]])
    assert "injected" not in first
    # The outputs are not source: publishing does not make the notebook stale.
    assert "Nothing changed" in checkout.sscl("reproduce").stdout


def test_a_longer_scale_is_published_as_a_record(checkout, mended):
    run = checkout.sscl("reproduce", "--scale", "full", "--notebooks", "01_contrastive_is_sne", "--publish")
    assert run.returncode == 0, run.stdout + run.stderr
    logs = [log.name for log in (checkout.root / "results" / "full" / "logs").iterdir()]
    assert len(logs) == 2, "Snakemake's and the notebook's: its runs are those of quick here, and no process is started for them"
    path = checkout.root / "data" / "records" / "full" / "01_contrastive_is_sne.json"
    text = path.read_text(encoding="utf-8")
    path.unlink()  # a record is something that notebooks depend on
    record = json.loads(text)
    assert [claim["claim"]["id"] for claim in record["claims"]] == ["C1", "C2"]
    assert record["runs"] == 4
    assert record["parameters"]["scale"] == "full"
    assert record["tables"]["identities"].startswith("batch,form,")
    assert str(checkout.root) not in text
    assert not checkout.sscl("reproduce").stderr


def test_changed_code_is_run_again_and_a_comment_is_not(checkout, mended):
    code = """
from sscl_core import reproduce
print(*sorted(job.mark for job in reproduce.plan("quick").jobs))
"""

    def marks():
        environment = os.environ | {"PYTHONPATH": str(checkout.root)}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=checkout.root, env=environment, capture_output=True, text=True, check=True).stdout

    before, source = marks(), (checkout.root / "sscl_core" / "losses.py")
    text = source.read_text(encoding="utf-8")
    source.write_text(text + "\n# nothing\n", encoding="utf-8")
    assert marks() == before
    source.write_text(text + "\nEXTRA = 1\n", encoding="utf-8")
    assert marks() != before
    source.write_text(text, encoding="utf-8")
    assert marks() == before


def test_failing_training_runs_are_reported_with_their_log(checkout, mended):
    """Data that cannot be read: the run fails, the notebook that needs it does not start, the message has the reason."""
    data = checkout.root / "data" / "fashion_mnist_subset.npz"
    content = data.read_bytes()
    data.write_bytes(b"broken")
    run = checkout.sscl("reproduce", "--notebooks", "05_t_simclr")
    data.write_bytes(content)
    assert run.returncode != 0
    log = re.search(r"training runs of 05_t_simclr: .*\n  log: (.*\.log)", run.stdout)
    assert log, run.stdout
    assert os.path.getsize(log.group(1)) > 0
    assert not re.search(r"^C10 ", run.stdout, re.M), "the verdict of other data is not shown as this one's"
    assert re.search(r"^C1 ", run.stdout, re.M), "and the notebook that was not asked for keeps its place"


def test_a_notebook_run_by_papermill_refuses_an_unknown_parameter(checkout, tmp_path):
    command = [sys.executable, "-m", "papermill", str(checkout.notebook("01_contrastive_is_sne")), str(tmp_path / "out.ipynb")]
    environment = os.environ | {"PYTHONPATH": str(checkout.root), "SSCL_RESULTS_DIR": str(tmp_path)}
    run = subprocess.run([*command, "-p", "sedes", "3"], env=environment, capture_output=True, text=True)
    assert run.returncode != 0
    assert "ValueError" in run.stderr
    assert "valid names: scale, seeds" in run.stderr
    assert not (tmp_path / "custom").exists()


# The commands, in process.


def test_notebook_command_with_other_parameters(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SSCL_RESULTS_DIR", str(tmp_path))
    """With one seed too, of which no interval can be made."""
    assert cli.main(["notebook", "05_t_simclr", "--scale", "smoke", "-p", "seeds", "1"]) == 0
    assert cli.main(["notebook", "01_contrastive_is_sne", "--scale", "smoke", "-p", "seeds", "1", "-p", "batch", "3"]) == 0
    path = tmp_path / "custom" / "notebooks" / "01_contrastive_is_sne.ipynb"
    assert str(path) in capsys.readouterr().out
    assert path.exists()
    assert not (tmp_path / "smoke").exists()


def test_notebook_command_refuses_before_it_starts(tmp_path, capsys):
    assert cli.main(["notebook", "01_contrastive_is_sne", "-p", "sedes", "1", "--results-dir", str(tmp_path)]) == 1
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
        reproduce.run_notebook("01_contrastive_is_sne", {"scale": "smoke", "results_dir": str(tmp_path)})
    assert len(calls) == 2


def test_train_command_keeps_its_run_and_takes_a_file(tmp_path, capsys):
    config = tmp_path / "run.toml"
    config.write_text("epochs = 1\nbatch_size = 16\n[data]\nn_train = 64\n[loss]\nname = 't_simclr'\ndf = inf\n", encoding="utf-8")
    arguments = ["train", "--config", str(config), "--set", "projector.dim=2", "--results-dir", str(tmp_path)]
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


def test_train_show_prints_a_configuration_that_reads_back(capsys, tmp_path):
    assert cli.main(["train", "--show", "--set", "loss.name=t_simclr", "seed=4"]) == 0
    path = tmp_path / "run.json"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert cli.main(["train", "--show", "--config", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text(encoding="utf-8"))


def test_prefetch_makes_one_group(tmp_path):
    assert cli.main(["prefetch", "01_contrastive_is_sne", "--group", "0", "--scale", "smoke", "--results-dir", str(tmp_path)]) == 0
    configs = reproduce.job("01_contrastive_is_sne", "smoke").groups[0].configs
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {store.run_key(config) for config in configs}


def test_prefetch_refuses_a_group_that_is_not_there(capsys):
    assert cli.main(["prefetch", "01_contrastive_is_sne", "--group", "9", "--scale", "smoke"]) == 1
    assert "group must be in 0..0" in capsys.readouterr().err


def test_a_second_reproduction_waits_for_the_first(tmp_path, capsys):
    with reproduce.alone(reproduce.plan("smoke", tmp_path)):
        assert cli.main(["reproduce", "--scale", "smoke", "--results-dir", str(tmp_path)]) == 1
    assert "another reproduction is writing" in capsys.readouterr().err


def test_an_unknown_profile_and_a_foreign_scale_are_refused(tmp_path, capsys):
    assert cli.main(["reproduce", "--scale", "smoke", "--results-dir", str(tmp_path), "--profile", "pbs"]) == 1
    assert "profile must be a folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="scale must be 'quick' or 'full'"):
        reproduce.publish(reproduce.plan("smoke", tmp_path))
    with pytest.raises(ValueError, match="01_contrastive_is_sne is not finished: run `sscl reproduce --scale full"):
        reproduce.publish(reproduce.plan("full", tmp_path))


def test_data_and_claims_commands(tmp_path, capsys):
    assert cli.main(["data"]) == 0
    assert "fashion_mnist_subset" in capsys.readouterr().out
    assert cli.main(["data", "fashion_mnist_subset"]) == 0
    assert "(10000, 1, 28, 28)" in capsys.readouterr().out
    assert cli.main(["claims", "--scale", "smoke", "--results-dir", str(tmp_path)]) == 1
    assert "run `sscl reproduce --scale smoke` first" in capsys.readouterr().err


def test_claims_command_shows_what_ran(checkout, mended, capsys):
    assert cli.main(["claims", "--results-dir", str(checkout.root / "results")]) == 0
    assert re.search(r"^C1 ", capsys.readouterr().out, re.M)


def test_tune_command(tmp_path, monkeypatch):
    """Two tiny settings: the table has a row for each, with the accuracies of its own run, on z in the metric of its loss."""
    images = studies.Images(n_train=40, holdout=0.2, augmentation=studies.AUGMENTATION)
    space = {(m, 2, s.loss.temperature): studies.image_run(s, images, dim=2, epochs=0, seed=0) for m, s in studies.METHODS.items()}
    monkeypatch.setattr(tuning, "search_space", lambda image_set: space if image_set == "cifar10" else {})
    table = tmp_path / "table.csv"
    assert cli.main(["tune", "--image-set", "cifar10", "--out", str(table), "--results-dir", str(tmp_path)]) == 0
    rows = list(csv.DictReader(table.open()))
    assert [(row["form"], int(row["d_z"]), float(row["temperature"])) for row in rows] == list(space)
    for row, config, metric in zip(rows, space.values(), ("cosine", "euclidean"), strict=True):
        metrics = store.load(tmp_path / "runs", config).metrics
        assert float(row["knn15_z"]) == pytest.approx(metrics[f"knn15_{metric}_z"], abs=1e-4)
        assert float(row["probe_h"]) == pytest.approx(metrics["linear_probe_h"], abs=1e-4)


@pytest.mark.parametrize("command", [[], *([name] for name in ("reproduce", "notebook", "prefetch", "train", "tune", "data", "claims"))])
def test_help_everywhere(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage: sscl" in capsys.readouterr().out


def finish(plan):
    """What a finished plan leaves, all of it empty."""
    for job in plan.jobs:
        for path in plan._leaves(job):
            path.mkdir(parents=True, exist_ok=True) if path.parent.name == "runs" else store.write_text(path, "")


def test_reproduce_in_process_with_nothing_to_do(tmp_path, capsys, monkeypatch):
    finish(reproduce.plan("smoke", tmp_path))
    monkeypatch.setattr(report, "write", lambda plan: None)
    monkeypatch.setattr(report, "outcomes", lambda out: [])
    assert cli.main(["reproduce", "--scale", "smoke", "--results-dir", str(tmp_path)]) == 0
    assert "Nothing changed" in capsys.readouterr().out
    assert cli.main(["reproduce", "--scale", "smoke", "--results-dir", str(tmp_path), "--notebooks", "01_contrastive_is_sne"]) == 0


@pytest.mark.parametrize("kind", [".done", "notebooks", "claims", "runs"])
def test_what_is_deleted_is_not_taken_for_finished(kind, tmp_path):
    plan = reproduce.plan("smoke", tmp_path)
    finish(plan)
    assert plan.unfinished == []
    job = plan.jobs[0]
    gone = next(path for path in plan._leaves(job) if path.parent.name == kind)
    group = plan.marks / job.groups[0].mark
    store.write_text(group, "")
    gone.rmdir() if kind == "runs" else gone.unlink()
    assert plan.unfinished == [job]
    reproduce.clear(plan, job)
    assert not (plan.marks / job.mark).exists(), "without its mark it is run again"
    assert group.exists() == (kind != "runs"), "and so are training runs, but only where one is missing"
    assert (plan.marks / plan.jobs[1].mark).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_reproduction_stops_what_it_started(number):
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background job it is ignored
    try:
        _stop(number)
    finally:
        signal.signal(signal.SIGINT, previous)


def _stop(number):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as child:
        assert reproduce._running(child)
        timer = threading.Timer(0.2, os.kill, (os.getpid(), number))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            reproduce._running(child)
        assert child.poll() == -signal.SIGTERM, "no orphan"


def test_a_process_that_ended_is_not_running():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        assert not reproduce._running(child)


@pytest.mark.parametrize("arguments", [["reproduce", "--cores", "0"], ["reproduce", "--cores", "-3"], ["reproduce", "--cores", "x"]])
def test_counts_start_at_one(arguments, capsys):
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert "must be a whole number from 1" in capsys.readouterr().err


def test_a_results_folder_that_is_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert cli.main(["claims", "--results-dir", str(tmp_path / "file")]) == 1
    assert cli.main(["reproduce", "--scale", "smoke", "--results-dir", str(tmp_path / "file")]) == 1
    assert "sscl: " in capsys.readouterr().err


def test_without_a_checkout_the_message_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(paths, "CHECKOUT", None)
    assert cli.main(["notebook", "01_contrastive_is_sne"]) == 1
    assert "clone it" in capsys.readouterr().err
