"""Runs a plan by Snakemake: hands it over, watches how far it is, ends it, and says what failed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote

from tqdm import tqdm

from sscl_core.files import remove
from sscl_experiments.surroundings import UTF8

from . import guard
from .kernels import last_line, one_thread
from .locks import LOCK, SETTINGS
from .planning import Job, Plan, notebook_path, plan
from .state import State

BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}] {desc}"


def run_snakemake(
    plan: Plan, state: State, *, cores: int, profile: str, data_dir: str | None
) -> int:
    """Runs what is not finished, each job a process of one thread; the exit status is Snakemake's.

    The bar counts finished trainings and notebooks. What Snakemake itself says goes to
    logs/snakemake.log. `ValueError`: there is no such profile.
    """
    command = _command(plan, cores, profile)
    prepare(plan, state)
    todo = sum(_todo(plan))
    every = 0 if sys.stderr.isatty() else 20
    with (
        _stoppable(),
        _guarded(command, plan, os.environ | environment(plan, data_dir)) as process,
        tqdm(total=todo, unit="job", mininterval=every, bar_format=BAR) as bar,
    ):
        while process.poll() is None:
            trainings, notebooks = _todo(plan)
            left = f"to do: {trainings} trainings, {notebooks} notebooks"
            bar.set_description_str(left, refresh=False)
            bar.update(todo - trainings - notebooks - bar.n)
            _wait(process, 0.5)
        bar.update(todo - sum(_todo(plan)) - bar.n)
    return process.returncode


def _command(plan: Plan, cores: int, profile: str) -> list[str]:
    workflow = notebook_path("").parents[1] / "workflow"
    places = (workflow / "profiles" / profile, Path(profile))
    folder = next((path for path in places if path.is_dir()), None)
    if folder is None:
        rule = f"a folder, or the name of one in {workflow / 'profiles'}"
        raise ValueError(f"profile must be {rule}, got {profile!r}")
    options = {
        "--snakefile": workflow / "Snakefile",
        "--directory": plan.out,
        "--workflow-profile": folder.resolve(),
        "--cores": cores,
    }
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-P", "-m", "snakemake", *words]


def prepare(plan: Plan, state: State) -> None:
    """Clears what is to be made anew, and marks groups of runs as done that are there already.

    They may come from another scale or notebook, and then need no process.
    """
    for job in state.unfinished(plan.jobs):
        clear(state, job)
        for group in job.groups:
            if state.has(group):
                plan.marks.mkdir(parents=True, exist_ok=True)
                (plan.marks / group.mark).touch()


def environment(plan: Plan, data_dir: str | None) -> dict[str, str]:
    """The variables in which this process hands `plan` over to Snakemake and its jobs."""
    settings = {
        "scale": plan.scale,
        "notebooks": [job.notebook for job in plan.jobs],
        "data_dir": data_dir,
        "process": str(os.getpid()),
    }
    ours = {"SSCL_RESULTS_DIR": str(plan.results), SETTINGS: json.dumps(settings)}
    return one_thread() | UTF8 | ours


def is_handed_over() -> bool:
    """Whether a process that made a plan has started this one."""
    return SETTINGS in os.environ


def handed_over() -> tuple[Plan, str]:
    """In Snakemake: the plan that was handed over, and options for its jobs, as words of a shell.

    The options say which scale it is, and where data are.
    """
    settings = json.loads(os.environ[SETTINGS])
    where = f"--scale {settings['scale']}"
    if settings["data_dir"]:
        where += f" --data-dir {quote(settings['data_dir'])}"
    return plan(settings["scale"], notebooks=settings["notebooks"]), where


def clear(state: State, job: Job) -> None:
    """Removes what an earlier version of a notebook left; its training runs stay.

    So nothing stale stands beside what is new.
    """
    plan, notebook = state.plan, job.notebook
    patterns = (
        f".done/{notebook}.notebook.*",
        f"figures/{notebook}-*",
        f"tables/{notebook}-*",
        f"notebooks/{notebook}.*",
        f"failed/{notebook}.*",
        f"*/.{notebook}*.part",
    )
    stale = [path for pattern in patterns for path in plan.out.glob(pattern)]
    incomplete = [plan.marks / group.mark for group in job.groups if not state.has(group)]
    for path in (*stale, *plan.claims(job), *incomplete):
        remove(path)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Meanwhile SIGTERM and SIGHUP (a closed terminal) interrupt as Ctrl-C does.

    Not those that are ignored, as under nohup.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    ignored = {number for number, handler in handlers.items() if handler is signal.SIG_IGN}
    replaced = {number: handlers[number] for number in handlers.keys() - ignored}
    try:
        for number in replaced:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


@contextmanager
def _guarded(
    command: Sequence[str], plan: Plan, environment: dict[str, str]
) -> "Iterator[subprocess.Popen[bytes]]":
    """A command that ends, with all that it started, when this block or this process does.

    Its output goes to the plan's log.
    """
    plan.log.parent.mkdir(parents=True, exist_ok=True)
    watched, held = os.pipe()
    with (
        os.fdopen(held, "wb") as ours,
        os.fdopen(watched, "rb") as theirs,
        plan.log.open("w", encoding="utf-8") as log,
    ):
        watch = (guard.__name__, str(theirs.fileno()), str(plan.out / LOCK))
        with subprocess.Popen(
            [sys.executable, "-P", "-m", *watch, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                ours.close()
                process.wait()


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _todo(plan: Plan) -> tuple[int, int]:
    """How many trainings, an ensemble being one, and how many notebooks are not finished.

    The bar counts what takes about equally long.
    """
    trainings = {keys for job in plan.jobs for group in job.groups for keys in group.together}
    runs = plan.results / "runs"
    unfinished = sum(not all((runs / key).is_dir() for key in keys) for keys in trainings)
    return unfinished, sum(not (plan.marks / job.mark).exists() for job in plan.jobs)


def failures(plan: Plan, unfinished: Sequence[Job]) -> list[str]:
    """What each job was that did not finish, where its output is, and the last thing it said."""
    lines = [line for job in unfinished for line in _failures_of(plan, job)]
    return lines or [f"the workflow: {last_line(plan.log)}\n  log: {plan.log}"]


def _failures_of(plan: Plan, job: Job) -> list[str]:
    name = job.notebook
    partial = plan.out / "failed" / f"{name}.ipynb"
    traceback = partial.with_suffix(".txt")
    if traceback.exists():
        where = f"  as far as it got: {partial}\n  traceback: {traceback}"
        return [f"notebook {name}: {last_line(traceback)}\n{where}"]
    unfinished = [group for group in job.groups if not (plan.marks / group.mark).exists()]
    logs = [_log(plan, group.mark) for group in unfinished]
    found = [log for log in logs if log.exists()]
    if found:
        return [f"training runs of {name}: {last_line(log)}\n  log: {log}" for log in found]
    log = _log(plan, job.mark)
    return [f"notebook {name}: {last_line(log)}\n  log: {log}"] if log.exists() else []


def _log(plan: Plan, mark: str) -> Path:
    return plan.out / "logs" / f"{mark}.log"
