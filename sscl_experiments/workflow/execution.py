"""TODO"""

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
from sscl_experiments import store
from sscl_experiments.surroundings import UTF8

from . import guard
from .kernels import last_line, one_thread
from .locks import LOCK, SETTINGS
from .planning import Group, Job, Plan, notebook_path, plan

BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}] {desc}"


def run_snakemake(plan: Plan, *, cores: int, profile: str, data_dir: str | None) -> int:
    """Runs what is not finished, every job in its own process with one thread; the exit status is Snakemake's.

    The bar counts finished trainings and notebooks; what Snakemake itself says goes to logs/snakemake.log.
    """
    workflow = notebook_path("").parents[1] / "workflow"
    folder = next(
        (path for path in (workflow / "profiles" / profile, Path(profile)) if path.is_dir()), None
    )
    if folder is None:
        raise ValueError(
            f"profile must be a folder, or the name of one in {workflow / 'profiles'}, got {profile!r}"
        )
    command = [
        *(
            sys.executable,
            "-P",
            "-m",
            "snakemake",
            "--snakefile",
            str(workflow / "Snakefile"),
            "--directory",
            str(plan.out),
        ),
        *("--workflow-profile", str(folder.resolve()), "--cores", str(cores)),
    ]
    for job in plan.unfinished:
        clear(plan, job)
        for group in (
            job.groups
        ):  # runs that are there already, from another scale or notebook, need no process
            if _is_there(plan, group):
                plan.marks.mkdir(parents=True, exist_ok=True)
                (plan.marks / group.mark).touch()
    todo = sum(_todo(plan))
    with (
        _stoppable(),
        _guarded(command, plan, _environment(plan, data_dir)) as process,
        tqdm(
            total=todo, unit="job", mininterval=0 if sys.stderr.isatty() else 20, bar_format=BAR
        ) as bar,
    ):
        while process.poll() is None:
            trainings, notebooks = _todo(plan)
            bar.set_description_str(
                f"to do: {trainings} trainings, {notebooks} notebooks", refresh=False
            )
            bar.update(todo - trainings - notebooks - bar.n)
            _wait(process, 0.5)
        bar.update(todo - sum(_todo(plan)) - bar.n)
    return process.returncode


def _environment(plan: Plan, data_dir: str | None) -> dict[str, str]:
    """Of Snakemake and its jobs."""
    names = [job.notebook for job in plan.jobs]
    settings = {
        "scale": plan.scale,
        "notebooks": names,
        "data_dir": data_dir,
        "process": str(os.getpid()),
    }
    return (
        os.environ
        | one_thread()
        | UTF8
        | {"SSCL_RESULTS_DIR": str(plan.results), SETTINGS: json.dumps(settings)}
    )


def handed_over() -> tuple[Plan, str]:
    """In Snakemake: the plan of the process that started it, and where its jobs find scale and data, as words of a shell."""
    settings = json.loads(os.environ[SETTINGS])
    where = f"--scale {settings['scale']}"
    if settings["data_dir"]:
        where += f" --data-dir {quote(settings['data_dir'])}"
    return plan(settings["scale"], notebooks=settings["notebooks"]), where


def clear(plan: Plan, job: Job) -> None:
    """Removes what an earlier version of a notebook left, so that nothing stale stands beside what is new; its training runs stay."""
    notebook = job.notebook
    patterns = (
        f".done/{notebook}.notebook.*",
        f"figures/{notebook}-*",
        f"tables/{notebook}-*",
        f"notebooks/{notebook}.*",
        f"failed/{notebook}.*",
        f"*/.{notebook}*.part",
    )
    incomplete = [plan.marks / group.mark for group in job.groups if not _is_there(plan, group)]
    for path in (
        *(path for pattern in patterns for path in plan.out.glob(pattern)),
        *plan.claims(job),
        *incomplete,
    ):
        remove(path)


def _is_there(plan: Plan, group: Group) -> bool:
    return all(store.intact(plan.results / "runs", key) for key in group.keys)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Meanwhile SIGTERM and SIGHUP (a closed terminal) interrupt as Ctrl-C does, unless they are ignored, as under nohup."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    replaced = {
        number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN
    }
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
    """A command that ends, with all that it started, when this block or this process does; its output goes to the plan's log."""
    plan.log.parent.mkdir(parents=True, exist_ok=True)
    watched, held = os.pipe()
    with (
        os.fdopen(held, "wb") as ours,
        os.fdopen(watched, "rb") as theirs,
        plan.log.open("w", encoding="utf-8") as log,
    ):
        watch = [
            sys.executable,
            "-P",
            "-m",
            guard.__name__,
            str(theirs.fileno()),
            str(plan.out / LOCK),
        ]
        with subprocess.Popen(
            [*watch, *command],
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
    """How many trainings, an ensemble being one, and notebooks are not finished: counted by what takes about as long, for the bar."""
    trainings = {keys for job in plan.jobs for group in job.groups for keys in group.together}
    unfinished = sum(
        not all((plan.results / "runs" / key).is_dir() for key in keys) for keys in trainings
    )
    return unfinished, sum(not (plan.marks / job.mark).exists() for job in plan.jobs)


def failures(plan: Plan) -> list[str]:
    """A line for each job that did not finish: what it was, where its output is, and the last thing that it said."""
    lines = []
    for job in plan.unfinished:
        partial = plan.out / "failed" / f"{job.notebook}.ipynb"
        traceback = partial.with_suffix(".txt")
        logs = [
            log
            for group in job.groups
            if not (plan.marks / group.mark).exists() and (log := _log(plan, group.mark)).exists()
        ]
        if traceback.exists():
            lines.append(
                f"notebook {job.notebook}: {last_line(traceback)}\n  as far as it got: {partial}\n  traceback: {traceback}"
            )
        elif logs:
            lines += [
                f"training runs of {job.notebook}: {last_line(log)}\n  log: {log}" for log in logs
            ]
        elif (log := _log(plan, job.mark)).exists():
            lines.append(f"notebook {job.notebook}: {last_line(log)}\n  log: {log}")
    return lines or [f"the workflow: {last_line(plan.log)}\n  log: {plan.log}"]


def _log(plan: Plan, mark: str) -> Path:
    return plan.out / "logs" / f"{mark}.log"
