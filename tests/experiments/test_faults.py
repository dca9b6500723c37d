"""What happens to real processes: signals, odd paths, other locales, no home, a foreign kernel.

All at scale smoke.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
import venv
from contextlib import suppress
from pathlib import Path

import pytest
import throwaway

from sscl_core.files import write_json, write_text
from sscl_experiments import surroundings
from sscl_experiments.claims import decide
from sscl_experiments.study import all_claims
from sscl_experiments.workflow import execution, guard, locks, planning
from sscl_experiments.workflow.state import look

NOTEBOOK = "01_contrastive_is_sne"
SSCL = [sys.executable, "-P", "-m", "sscl_experiments"]
REPRODUCE = ["reproduce", "--scale", "smoke", "--cores", "1", "--notebooks"]
# Studies that are thrown away: one whose notebook does what notebooks do, one whose notebook, and
# one whose training lasts until it is stopped.
QUICK, SLOW_NOTEBOOK, SLOW_TRAINING = (f"{number}_throwaway" for number in (99, 98, 97))
SLOW = {"training": SLOW_TRAINING, "notebook": SLOW_NOTEBOOK}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A copy of the checkout with these studies."""
    root = tmp_path_factory.mktemp("small")
    throwaway.copy_without_studies(root)
    for number in (97, 98, 99):
        throwaway.add_study(root, number)
    throwaway.write_notebook(
        root, SLOW_NOTEBOOK, [throwaway.CELLS[0], "import time\ntime.sleep(600)"]
    )
    sizes = root / "sscl_experiments" / "studies" / "throwaway_97" / "scales.toml"
    sizes.write_text("[smoke]\nseeds = 5\nsteps = 100_000\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """The runs of the notebook that lasts, which the other quick one has too."""
    results = tmp_path_factory.mktemp("trained")
    run = sscl("prefetch", QUICK, "--scale", "smoke", PYTHONPATH=small, SSCL_RESULTS_DIR=results)
    assert run.returncode == 0, run.stderr
    return results


def environment(**variables):
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SSCL_", "LC_", "LANG"))
    }
    return kept | {"COLUMNS": "120"} | {key: str(value) for key, value in variables.items()}


def sscl(*arguments, python=sys.executable, cwd=None, **variables):
    command = [python, *SSCL[1:], *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(**variables), capture_output=True, timeout=300
    )


def until(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return found


# Signals.


class Reproduction:
    """`sscl reproduce` in a process; a variable in the environment tells its descendants."""

    def __init__(self, small, results, stage, before=()):
        self.out, self.stage, self.mark = results / "smoke", stage, uuid.uuid4().hex
        places = {"PYTHONPATH": small, "SSCL_RESULTS_DIR": results}
        variables = environment(SSCL_TEST=self.mark, **places)
        self.main = subprocess.Popen(
            [*before, *SSCL, *REPRODUCE, SLOW[stage]],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def processes(self):
        """All that are alive, without the main process."""
        return {
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal() and self._is_one(entry)
        } - {self.main.pid}

    def _is_one(self, entry):
        try:
            return self.mark.encode() in (entry / "environ").read_bytes()
        except OSError:
            return False

    def wait(self):
        """Until training runs are made, or the notebook's kernel runs."""
        mark = "*.runs-*.log" if self.stage == "training" else "*.notebook.*.log"
        until(lambda: list((self.out / "logs").glob(mark)))
        until(lambda: len(self.processes()) >= (4 if self.stage == "training" else 5))


@pytest.fixture
def begun(small, tmp_path):
    running = []

    def begin(stage="training", **options):
        running.append(Reproduction(small, tmp_path, stage, **options))
        running[-1].wait()
        return running[-1]

    yield begin
    for one in running:
        for pid in (one.main.pid, *one.processes()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        one.main.communicate()


# Each signal, and each stage with a signal that is caught and with the one that is not.
@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("training", signal.SIGINT),
        ("training", signal.SIGHUP),
        ("training", signal.SIGKILL),
        ("notebook", signal.SIGTERM),
        ("notebook", signal.SIGKILL),
    ],
)
def test_nothing_survives_a_stopped_reproduction(stage, number, trained, begun, tmp_path):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    reproduction = begun(stage)
    os.kill(reproduction.main.pid, number)
    said, _ = reproduction.main.communicate(timeout=20)
    if number == signal.SIGKILL:
        # Until the last has ended no other reproduction begins, and it waits long enough for that.
        with locks.alone(reproduction.out):
            left = [commandline(pid) for pid in reproduction.processes()]
            assert not [words for words in left if words and guard.__name__ not in words], (
                "but the guard, about to end"
            )
        until(lambda: not reproduction.processes(), 2)
    else:
        assert reproduction.main.returncode == 130
        assert surroundings.INTERRUPTED.encode() in said
        assert b"Traceback" not in said
        assert not reproduction.processes()


def test_jobs_whose_guard_was_killed_too_keep_the_next_reproduction_out(begun, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    reproduction = begun()
    by_parent = {pid: commandline(pid) for pid in reproduction.processes()}
    guards = [
        pid for pid, words in by_parent.items() if guard.__name__ in words or "snakemake" in words
    ]
    assert len(guards) == 2
    for pid in (reproduction.main.pid, *guards):
        os.kill(pid, signal.SIGKILL)
    reproduction.main.wait()
    until(lambda: not any(map(commandline, guards)))
    assert reproduction.processes(), "jobs are left"
    out = reproduction.out
    until(lambda: is_held(out / locks.LOCK))
    with pytest.raises(RuntimeError, match="another reproduction is writing"), locks.alone(out):
        pass


def is_held(path):
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_job_that_comes_too_late_does_nothing(tmp_path, monkeypatch):
    """Its reproduction was killed before the job held anything, and another began."""
    plan = planning.plan("smoke", tmp_path, [NOTEBOOK])
    with locks.alone(plan.out):
        late = json.loads(execution.environment(plan, None)[locks.SETTINGS])
        run = sscl(
            "prefetch",
            NOTEBOOK,
            "--scale",
            "smoke",
            SSCL_RESULTS_DIR=tmp_path,
            SSCL_REPRODUCTION=json.dumps(late | {"process": "1"}),
        )
        assert run.returncode == 1
        assert b"this job is of reproduction 1, which ended" in run.stderr
        assert not (tmp_path / "runs").exists()


def commandline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


def test_a_signal_while_the_progress_is_counted(tmp_path, monkeypatch):
    """The whole time that the jobs live counts, not only that in which they are waited for."""
    plan = planning.plan("smoke", tmp_path, [NOTEBOOK])
    mark, counted = uuid.uuid4().hex, []
    monkeypatch.setenv("SSCL_TEST", mark)

    def counting(_):
        counted.append(1)
        if len(counted) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        return 1, 1

    monkeypatch.setattr(execution, "_todo", counting)
    before = signal.getsignal(signal.SIGTERM)
    with locks.alone(plan.out), pytest.raises(KeyboardInterrupt):
        execution.run_snakemake(plan, look(plan), cores=1, profile="default", data_dir=None)
    assert signal.getsignal(signal.SIGTERM) == before
    alive = [
        entry
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and Reproduction._is_one(_Marked(mark), entry)
    ]
    assert not alive


class _Marked:
    def __init__(self, mark):
        self.mark = mark


def test_under_nohup_a_closed_terminal_is_nothing(begun):
    reproduction = begun(before=["nohup"])
    before = reproduction.processes()
    os.kill(reproduction.main.pid, signal.SIGHUP)
    time.sleep(1)
    assert reproduction.main.poll() is None
    assert before & reproduction.processes()


def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path):
    """A module that takes its time stands in for slow ones."""
    (tmp_path / "pydantic.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)\n", encoding="utf-8"
    )
    variables = environment(PYTHONPATH=tmp_path)
    with subprocess.Popen(
        [*SSCL, "claims"], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read().decode() == f"{surroundings.INTERRUPTED}\n"


# Paths and locales.

ODD = "ü é #1 \"q\" 'a' \\n {a} $HOME"


def test_paths_of_any_characters(tmp_path):
    """In checkout, Python, results and data: all that is written is under the results."""
    checkout, python = tmp_path / f"checkout {ODD}: b", tmp_path / f"python {ODD}"
    throwaway.copy_without_studies(checkout)
    throwaway.add_study(checkout)
    venv.create(python, symlinks=True)
    shutil.rmtree(python / "share", ignore_errors=True)
    (python / "share").symlink_to(Path(sys.prefix) / "share")
    (packages,) = python.glob("lib/python*/site-packages")
    (packages / "here.pth").write_text(
        f"{checkout}\n{Path(pytest.__file__).parents[1]}\n", encoding="utf-8"
    )
    work = tmp_path / "work"
    (work / f"data {ODD}: b").mkdir(parents=True)
    where = ["--results-dir", f"results {ODD}: b", "--data-dir", f"data {ODD}: b"]
    # The packages are those that this Python finds by itself.
    how = {"python": str(python / "bin" / "python"), "cwd": work, "PYTHONPATH": ""}
    run = sscl(*REPRODUCE, QUICK, *where, **how)
    assert run.returncode == 0, (run.stdout + run.stderr).decode()
    results = work / f"results {ODD}: b"
    assert {path.name for path in work.iterdir()} == {results.name, f"data {ODD}: b"}
    assert (results / "smoke" / "claims" / "T99.json").exists()
    assert not any((work / f"data {ODD}: b").iterdir())
    page = (results / "smoke" / "report.html").read_text(encoding="utf-8")
    assert all(
        (results / "smoke" / link).exists() for link in re.findall(r"(?:href|src)='([^']+)'", page)
    )
    run = sscl(*REPRODUCE, QUICK, *where, **how)
    assert b"Nothing changed" in run.stdout


@pytest.fixture(scope="module")
def locales(tmp_path_factory):
    """A folder of locales that are not in UTF-8."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("no localedef")
    for name, encoding in LOCALES.items():
        subprocess.run(
            ["localedef", "-i", name, "-f", encoding, folder / name], capture_output=True
        )
        if not (folder / name).exists():
            pytest.skip(f"localedef does not make {name}.{encoding}")
    return folder


LOCALES = {"tr_TR": "ISO-8859-9", "en_US": "ISO-8859-1", "zh_CN": "GBK"}
FORCED = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}


def under(name, locales):
    return FORCED if name == "ascii" else {"LOCPATH": locales, "LC_ALL": name, "PYTHONUTF8": "0"}


@pytest.mark.parametrize("name", ["tr_TR", "zh_CN", "ascii"])
def test_commands_under_another_locale(name, locales, tmp_path):
    outcome = decide(all_claims()["C3"], [0.5] * 5, scale="smoke", withheld="ν − ℓ")
    place = tmp_path / "ü"
    write_text(place / "smoke" / "claims" / "C3.json", outcome.model_dump_json())
    run = sscl(
        "claims", "--scale", "smoke", "--results-dir", "ü", cwd=tmp_path, **under(name, locales)
    )
    assert run.returncode == 0, run.stderr
    assert rb"\u2113" in run.stdout, "what the terminal cannot show is shown as its code"
    run = sscl("train", "--show", **under(name, locales))
    assert json.loads(run.stdout)["seed"] == 0
    code = (
        "from sscl_experiments.workflow import planning; print(planning.plan('smoke').jobs[0].mark)"
    )
    marks = {
        subprocess.check_output([sys.executable, "-c", code], env=environment(**given))
        for given in ({}, under(name, locales))
    }
    assert len(marks) == 1, "what is finished does not depend on the locale"
    assert [path.name for path in tmp_path.iterdir()] == ["ü"]


def test_a_reproduction_under_another_locale_is_the_same(small, locales, tmp_path):
    """Into a folder whose name it cannot decode.

    What is finished there is finished in UTF-8 too, and under a third one.
    """
    command = [*REPRODUCE, QUICK, "--results-dir", "ü"]
    place = {"cwd": tmp_path, "PYTHONPATH": small}
    run = sscl(*command, **place, **under("zh_CN", locales))
    assert run.returncode == 0, (run.stdout + run.stderr).decode("latin-1")
    assert [path.name for path in tmp_path.iterdir()] == ["ü"]
    for variables in ({"PYTHONUTF8": "1"}, under("en_US", locales)):
        assert b"Nothing changed" in sscl(*command, **place, **variables).stdout


# What belongs to the user: a home, kernels.


def test_a_users_own_kernel_does_not_run_the_notebooks(small, tmp_path):
    spec = {"argv": ["false"], "display_name": "mine", "language": "python"}
    for folder in ("jupyter", "data/jupyter"):
        write_json(tmp_path / folder / "kernels" / "python3" / "kernel.json", spec)
    mine = {
        "PYTHONPATH": small,
        "JUPYTER_PATH": tmp_path / "jupyter",
        "XDG_DATA_HOME": tmp_path / "data",
        "JUPYTER_PREFER_ENV_PATH": "0",
    }
    run = sscl("notebook", QUICK, "--scale", "smoke", "--results-dir", tmp_path / "results", **mine)
    assert run.returncode == 0, run.stderr.decode()


def test_libraries_get_folders_where_the_users_cannot_be_written(tmp_path, monkeypatch):
    user = tmp_path / "user"
    (user / ".cache" / "sscl").mkdir(parents=True)
    monkeypatch.setattr(
        surroundings, "FOLDERS", {"XDG_CACHE_HOME": ".cache", "IPYTHONDIR": ".ipython"}
    )
    monkeypatch.setenv("HOME", str(user))
    for name in surroundings.FOLDERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("USER", "me")
    assert surroundings.home(tmp_path / "results") == {}
    assert not (tmp_path / "results").exists()
    forbidden = {user / ".cache"}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in forbidden)
    own = tmp_path / "results" / ".home"
    assert surroundings.home(tmp_path / "results") == {"XDG_CACHE_HOME": str(own / ".cache")}, (
        "only what cannot be written"
    )
    assert (own / ".cache" / "sscl").resolve() == user / ".cache" / "sscl", (
        "data that were there are still found"
    )
    forbidden.add(user)
    everything = {
        "HOME": str(own),
        "XDG_CACHE_HOME": str(own / ".cache"),
        "IPYTHONDIR": str(own / ".ipython"),
    }
    assert surroundings.home(tmp_path / "results") == everything
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("USER")
    monkeypatch.delenv("LOGNAME", raising=False)
    monkeypatch.setattr(surroundings, "_account_home", lambda: None)
    named = {"USER": f"uid{os.getuid()}", "LOGNAME": f"uid{os.getuid()}"}
    assert surroundings.home(tmp_path / "results") == everything | named


def test_without_a_home_or_a_name_in_the_system(small, tmp_path):
    """As in `docker run -u 54321`: a user namespace makes it so."""
    other = ["unshare", "--user", "--map-user=54321"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*other, "true"], capture_output=True).returncode
    ):
        pytest.skip("no user namespaces here")
    variables = environment(PYTHONPATH=small, SSCL_RESULTS_DIR=tmp_path)
    variables = {
        key: value for key, value in variables.items() if key not in ("HOME", "USER", "LOGNAME")
    }
    run = subprocess.run([*other, *SSCL, *REPRODUCE, QUICK], env=variables, capture_output=True)
    assert run.returncode == 0, (run.stdout + run.stderr).decode()
    assert {path.name for path in tmp_path.iterdir()} == {".home", "locks", "runs", "smoke"}
    run = subprocess.run([*other, *SSCL, *REPRODUCE, QUICK], env=variables, capture_output=True)
    assert b"Nothing changed" in run.stdout
