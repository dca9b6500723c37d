"""The plan of a reproduction: which jobs a scale needs and what each depends on. The Snakefile reads it; nothing here imports torch.

A finished job leaves a mark whose name holds the hash of all that it depends on, so that finished means: finished with this code, these
parameters and this notebook. A changed comment, a touched file or a fresh clone changes no mark. The mark of a notebook lists what it left
with checksums, so that finished also means: all of it is still there, and is what was written.
"""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from time import monotonic, sleep
from typing import IO, Any

from tqdm import tqdm

from . import guard, paths, store, studies
from .claims import CLAIMS
from .config import TrainConfig, ensembles
from .files import remove
from .surroundings import UTF8

# What only runs notebooks and collects their results does not enter the numbers in them.
NOTEBOOK_CODE = (
    *store.RUN_CODE,
    "affinities",
    "agreement",
    "analysis",
    "claims",
    "crowding",
    "family",
    "notebook",
    "paths",
    "plots",
    "settings",
    "store",
    "studies",
)
README_FIGURES = {"03_implicit_bias-film.gif": "order.gif", "05_t_simclr-maps.png": "maps.png", "07_augmentation_graph-map.png": "map.png"}
SETTINGS = "SSCL_REPRODUCTION"  # in the environment of Snakemake: paths of any characters arrive there as they are
LOCK = ".lock"
PATIENCE = 3.0  # seconds that a reproduction which was killed has to end its jobs
BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}] {desc}"


@dataclass(frozen=True)
class Group:
    """Training runs that one job makes."""

    notebook: str
    index: int
    configs: tuple[TrainConfig, ...]

    @cached_property
    def together(self) -> tuple[tuple[str, ...], ...]:
        """The keys of runs that are trained at once."""
        return tuple(tuple(map(store.run_key, runs)) for runs in ensembles(self.configs))

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for keys in self.together for key in keys)

    @cached_property
    def mark(self) -> str:
        return f"{self.notebook}.runs-{self.index}.{store.digest(*self.keys)}"


@dataclass(frozen=True)
class Job:
    """A notebook with the groups of runs that it shows."""

    notebook: str
    parameters: studies.Parameters
    groups: tuple[Group, ...]

    @cached_property
    def mark(self) -> str:
        return f"{self.notebook}.notebook.{notebook_key(self.notebook, self.parameters)}"


@dataclass(frozen=True)
class Plan:
    """What is to be done, as the code and the notebooks were when it was made: hashes are taken once, files are looked for each time."""

    scale: str
    results: Path
    jobs: tuple[Job, ...]

    @property
    def out(self) -> Path:
        return self.results / self.scale

    @property
    def marks(self) -> Path:
        return self.out / ".done"

    @property
    def log(self) -> Path:
        return self.out / "logs" / "snakemake.log"

    @property
    def unfinished(self) -> list[Job]:
        """Jobs without a mark, and those that left one but whose results are not all there and as they were written."""
        return [job for job in self.jobs if not (self.marks / job.mark).exists() or self.damaged(job)]

    def damaged(self, job: Job) -> list[Path]:
        """What a finished job left and is not as it was written any more, or is gone; and damaged runs, whoever made them."""
        mark = self.marks / job.mark
        finished = mark.exists()
        keys = [key for group in job.groups for key in group.keys]
        suspect = [key for key in keys if finished or (self.results / "runs" / key).exists()]
        runs = [self.results / "runs" / key for key in suspect if not store.intact(self.results / "runs", key)]
        return (self._changed(job, mark) if finished else []) + runs

    def _changed(self, job: Job, mark: Path) -> list[Path]:
        listed = read_mark(mark)
        needed = [self.out / "notebooks" / f"{job.notebook}.ipynb", *self.claims(job)]
        if listed is None or not {str(path.relative_to(self.out)) for path in needed} <= listed.keys():
            return [mark]
        return [self.out / name for name, checksum in listed.items() if sha256(self.out / name) != checksum]

    def claims(self, job: Job) -> list[Path]:
        return claim_files(self.out, job.notebook)

    def runs(self, group: Group) -> list[Path]:
        return [self.results / "runs" / key for key in group.keys]


def claim_files(out: Path, notebook: str) -> list[Path]:
    return [out / "claims" / f"{claim.id}.json" for claim in CLAIMS.values() if claim.notebook == notebook]


def write_mark(mark: Path, out: Path, notebook: str) -> None:
    """Lists what a notebook left under `out`: {path relative to `out`: sha256}."""
    patterns = (f"figures/{notebook}-*", f"tables/{notebook}-*", f"notebooks/{notebook}.ipynb")
    files = [path for pattern in patterns for path in out.glob(pattern)]
    files += [path for path in claim_files(out, notebook) if path.exists()]
    store.write_json(mark, {str(path.relative_to(out)): sha256(path) for path in sorted(files)})


def read_mark(mark: Path) -> dict[str, str] | None:
    """What `write_mark` wrote; None where that cannot be read."""
    try:
        listed = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return listed if isinstance(listed, dict) else None


def sha256(path: Path) -> str | None:
    """None where there is no such file, or it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def plan(scale: str, results: str | Path | None = None, notebooks: Sequence[str] = ()) -> Plan:
    """The jobs of `scale` for these notebooks (all: none given), under `results`."""
    names = notebooks or sorted(studies.NOTEBOOKS)
    return Plan(scale, paths.results_dir(results), tuple(job(name, scale) for name in names))


def job(notebook: str, scale: str) -> Job:
    parameters = studies.resolve(notebook, {"scale": scale})
    size = studies.scales()[scale]["runs_per_job"]
    together = ensembles(parameters.runs())
    parts = [together[start : start + size] for start in range(0, len(together), size)]
    groups = [Group(notebook, i, tuple(config for runs in part for config in runs)) for i, part in enumerate(parts)]
    return Job(notebook, parameters, tuple(groups))


def notebook_path(name: str) -> Path:
    if paths.CHECKOUT is None:
        raise ValueError("notebooks are in a checkout of the repository, not in the installed package: clone it and run there")
    return paths.CHECKOUT / "notebooks" / f"{name}.ipynb"


def notebook_key(name: str, parameters: studies.Parameters) -> str:
    """Of the notebook's cells without their outputs, its parameters, its runs, the code behind it, and the records it may show: those
    that it names and its own of other scales."""
    cells = paths.committed(notebook_path(name), lambda text: json.loads(text)["cells"])
    source = json.dumps([[cell["cell_type"], "".join(cell["source"])] for cell in cells])
    shown = {path for pattern in (f"**/*{name}*", *parameters.records) for path in paths.RECORDS.glob(pattern)}
    records = sorted(path for path in shown if path.parent.name != parameters.scale)
    runs = map(store.run_key, parameters.runs())
    texts = (paths.committed(path, str) for path in records)
    return store.digest(source, parameters.model_dump_json(), store.code_hash(NOTEBOOK_CODE), *runs, *texts)


def run_snakemake(plan: Plan, *, cores: int, profile: str, data_dir: str | None) -> int:
    """Runs what is not finished, every job in its own process with one thread; the exit status is Snakemake's.

    The bar counts finished trainings and notebooks; what Snakemake itself says goes to logs/snakemake.log.
    """
    workflow = notebook_path("").parents[1] / "workflow"
    folder = next((path for path in (workflow / "profiles" / profile, Path(profile)) if path.is_dir()), None)
    if folder is None:
        raise ValueError(f"profile must be a folder, or the name of one in {workflow / 'profiles'}, got {profile!r}")
    command = [
        *(sys.executable, "-P", "-m", "snakemake", "--snakefile", str(workflow / "Snakefile"), "--directory", str(plan.out)),
        *("--workflow-profile", str(folder.resolve()), "--cores", str(cores)),
    ]
    for job in plan.unfinished:
        clear(plan, job)
        for group in job.groups:  # runs that are there already, from another scale or notebook, need no process
            if _is_there(plan, group):
                plan.marks.mkdir(parents=True, exist_ok=True)
                (plan.marks / group.mark).touch()
    todo = sum(_todo(plan))
    with (
        _stoppable(),
        _guarded(command, plan, _environment(plan, data_dir)) as process,
        tqdm(total=todo, unit="job", mininterval=0 if sys.stderr.isatty() else 20, bar_format=BAR) as bar,
    ):
        while process.poll() is None:
            trainings, notebooks = _todo(plan)
            bar.set_description_str(f"to do: {trainings} trainings, {notebooks} notebooks", refresh=False)
            bar.update(todo - trainings - notebooks - bar.n)
            _wait(process, 0.5)
        bar.update(todo - sum(_todo(plan)) - bar.n)
    return process.returncode


def _environment(plan: Plan, data_dir: str | None) -> dict[str, str]:
    """Of Snakemake and its jobs."""
    names = [job.notebook for job in plan.jobs]
    settings = {"scale": plan.scale, "notebooks": names, "data_dir": data_dir, "process": str(os.getpid())}
    return os.environ | one_thread() | UTF8 | {"SSCL_RESULTS_DIR": str(plan.results), SETTINGS: json.dumps(settings)}


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
    for path in (*(path for pattern in patterns for path in plan.out.glob(pattern)), *plan.claims(job), *incomplete):
        remove(path)


def _is_there(plan: Plan, group: Group) -> bool:
    return all(store.intact(plan.results / "runs", key) for key in group.keys)


@contextmanager
def alone(plan: Plan) -> Iterator[None]:
    """Holds results/<scale> for this process and what it starts; the system lets go of it however they end.

    `RuntimeError` where another reproduction holds it, or jobs of one that was killed. The lock is
    then shared with whoever takes part, and until the last of them ended none gets it alone.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    with (plan.out / LOCK).open("a+", encoding="utf-8") as file:
        deadline = monotonic() + PATIENCE
        while not _is_ours(file):
            if monotonic() > deadline:
                holder = f"process {_owner(file)}, or what it started"
                raise RuntimeError(f"another reproduction is writing {plan.out} ({holder}): wait for it, or choose another --results-dir")
            sleep(0.1)
        yield


def _is_ours(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # another may come in between, and then it is theirs
    except BlockingIOError:
        return False
    return True


def _owner(file: IO[str]) -> str:
    """The number of the process that last had the lock alone."""
    file.seek(0)
    return file.read()


@contextmanager
def taking_part(out: Path) -> Iterator[None]:
    """Meanwhile no reproduction begins that writes to `out`; one that is at work may be what started this process.

    Where a file system has no locks, nothing is held. `RuntimeError` in a job of the workflow: the
    reproduction that it belongs to was killed, and another has begun.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a+", encoding="utf-8") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
        ours = json.loads(os.environ.get(SETTINGS, "{}"))
        if ours and ours["process"] != _owner(file):
            raise RuntimeError(f"this job is of reproduction {ours['process']}, which ended; {_owner(file)} has taken over {out}")
        yield


@contextmanager
def _stoppable() -> Iterator[None]:
    """Meanwhile SIGTERM and SIGHUP (a closed terminal) interrupt as Ctrl-C does, unless they are ignored, as under nohup."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    replaced = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    try:
        for number in replaced:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


@contextmanager
def _guarded(command: Sequence[str], plan: Plan, environment: dict[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    """A command that ends, with all that it started, when this block or this process does; its output goes to the plan's log."""
    plan.log.parent.mkdir(parents=True, exist_ok=True)
    watched, held = os.pipe()
    with os.fdopen(held, "wb") as ours, os.fdopen(watched, "rb") as theirs, plan.log.open("w", encoding="utf-8") as log:
        watch = [sys.executable, "-P", "-m", guard.__name__, str(theirs.fileno()), str(plan.out / LOCK)]
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
    unfinished = sum(not all((plan.results / "runs" / key).is_dir() for key in keys) for keys in trainings)
    return unfinished, sum(not (plan.marks / job.mark).exists() for job in plan.jobs)


def failures(plan: Plan) -> list[str]:
    """A line for each job that did not finish: what it was, where its output is, and the last thing that it said."""
    lines = []
    for job in plan.unfinished:
        partial = plan.out / "failed" / f"{job.notebook}.ipynb"
        traceback = partial.with_suffix(".txt")
        logs = [log for group in job.groups if not (plan.marks / group.mark).exists() and (log := _log(plan, group.mark)).exists()]
        if traceback.exists():
            lines.append(f"notebook {job.notebook}: {_last_line(traceback)}\n  as far as it got: {partial}\n  traceback: {traceback}")
        elif logs:
            lines += [f"training runs of {job.notebook}: {_last_line(log)}\n  log: {log}" for log in logs]
        elif (log := _log(plan, job.mark)).exists():
            lines.append(f"notebook {job.notebook}: {_last_line(log)}\n  log: {log}")
    return lines or [f"the workflow: {_last_line(plan.log)}\n  log: {plan.log}"]


def _log(plan: Plan, mark: str) -> Path:
    return plan.out / "logs" / f"{mark}.log"


def one_thread() -> dict[str, str]:
    """Jobs side by side: OpenMP threads that spin while they wait make each several times slower.

    Not "PASSIVE": where Turkish is spoken the small letter of I is another one than i.
    """
    return {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "MKL_NUM_THREADS": "1"}


def execute(name: str, parameters: dict[str, Any], output: Path) -> None:
    """Runs a notebook by papermill in this Python; `output` grows by cells. A kernel that fails to start is tried again, once."""
    import papermill

    output.parent.mkdir(parents=True, exist_ok=True)
    how = {"kernel_name": "python3", "kernel_manager_class": _own_kernel(), "progress_bar": False, "log_output": True}
    source, target = (_literally(path) for path in (notebook_path(name), output))
    for attempt in (1, 2):
        try:
            papermill.execute_notebook(source, target, parameters, **how)
            return
        except RuntimeError as error:
            if attempt == 2 or "Kernel died before replying" not in str(error):
                raise


def _literally(path: Path) -> str:
    """For papermill, which fills parameters into paths."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _own_kernel() -> type:
    """Starts kernels in this Python, whatever kernel of that name the user has installed elsewhere."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = KernelSpec(argv=argv, env=UTF8, display_name="Python 3", language="python", metadata={"debugger": True})

    class OwnKernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

    return OwnKernel


def run_notebook(name: str, given: dict[str, Any], mark: Path | None = None) -> Path:
    """A notebook with the parameters `given`, checked first. Where they are the scale's own, it goes with the results of that scale.

    While it runs, and if it fails, what there is of it is results/<scale>/failed/<name>.ipynb; then it moves to notebooks/. At last
    `mark` lists what it left. `RuntimeError`: it failed.
    """
    parameters = studies.resolve(name, given)
    out = studies.out_dir(name, parameters)
    with taking_part(out):
        return _run_notebook(name, given, out, mark)


def _run_notebook(name: str, given: dict[str, Any], out: Path, mark: Path | None) -> Path:
    partial, final = out / "failed" / f"{name}.ipynb", out / "notebooks" / f"{name}.ipynb"
    for stale in (out / ".done").glob(f"{name}.notebook.*"):
        stale.unlink()
    set_by_user = {key: value for key, value in given.items() if value is not None and (key, value) != ("scale", "quick")}
    try:
        execute(name, set_by_user, partial)
    except Exception as error:
        traceback = partial.with_suffix(".txt")
        store.write_text(traceback, f"{error}\n")
        message = f"notebook {name} failed: {_last_line(traceback)}\n  as far as it got: {partial}\n  traceback: {traceback}"
        raise RuntimeError(message) from error
    store.write_bytes(final, partial.read_bytes())
    partial.unlink()
    partial.with_suffix(".txt").unlink(missing_ok=True)
    if mark:
        write_mark(mark, out, name)
    return final


def _last_line(path: Path) -> str:
    return (path.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["(no output)"])[-1].strip()


def publish(plan: Plan) -> list[Path]:
    """Commits what a finished plan found to the checkout: at scale quick the executed notebooks, in the place of the sources; of another
    scale, too long to repeat every time, a record that the notebooks show."""
    if plan.scale not in ("quick", "full"):
        raise ValueError(f"scale must be 'quick' or 'full' for what is committed, got {plan.scale!r}")
    for job in plan.unfinished:
        raise ValueError(f"{job.notebook} is not finished: run `sscl reproduce --scale {plan.scale} --notebooks {job.notebook}` first")
    if plan.scale == "quick":
        return _publish_notebooks(plan)
    return [_publish_record(plan, job) for job in plan.jobs]


def _publish_record(plan: Plan, job: Job) -> Path:
    """data/records/<scale>/<notebook>.json: parameters, claims, every table and the data of every figure that is a table, provenance."""
    runs = [json.loads((run / "record.json").read_text(encoding="utf-8"))["provenance"] for group in job.groups for run in plan.runs(group)]
    content = {
        "schema": store.SCHEMA,
        "parameters": job.parameters.model_dump(mode="json", exclude={"device", "data_dir", "results_dir"}),
        "runs": len(runs),
        "core_hours": round(sum(run["seconds"] * run["threads"] for run in runs) / 3600, 2),
        "date": max(run["date"] for run in runs)[:10],
        "devices": sorted({run["device"] for run in runs}),
        "versions": runs[0]["versions"],
        "key": job.mark.rsplit(".", 1)[1],
        "claims": [json.loads(path.read_text(encoding="utf-8")) for path in plan.claims(job)],
    }
    for kind in ("tables", "figures"):
        files = sorted((plan.out / kind).glob(f"{job.notebook}-*.csv"))
        content[kind] = {path.stem.removeprefix(f"{job.notebook}-"): path.read_text(encoding="utf-8") for path in files}
    path = paths.RECORDS / plan.scale / f"{job.notebook}.json"
    store.write_json(path, content)
    return path


def _publish_notebooks(plan: Plan) -> list[Path]:
    """Without what changes from run to run."""
    import nbformat

    published = []
    for job in plan.jobs:
        executed = nbformat.read(plan.out / "notebooks" / f"{job.notebook}.ipynb", as_version=4)
        executed.cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
        for cell in executed.cells:
            cell.metadata = {key: value for key, value in cell.metadata.items() if key not in ("papermill", "execution")}
        for count, cell in enumerate((cell for cell in executed.cells if cell.cell_type == "code"), 1):
            cell.execution_count = count  # as if the injected parameters had not been there
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = count
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        executed.metadata = {
            "kernelspec": kernel,
            "language_info": {"name": "python"},
            "sscl": {"key": job.mark.rsplit(".", 1)[1]},
        }
        store.write_text(notebook_path(job.notebook), nbformat.writes(executed) + "\n")
        published.append(notebook_path(job.notebook))
    for figure, target in README_FIGURES.items():
        if (source := plan.out / "figures" / figure).exists():
            place = notebook_path("").parents[1] / "docs" / target
            store.write_bytes(place, source.read_bytes())
            published.append(place)
    return published
