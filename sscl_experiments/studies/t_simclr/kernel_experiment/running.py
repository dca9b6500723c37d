"""Makes the runs of the experiment, one after the other, until all are recorded or time is up."""

import itertools
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from sscl_core.divergence import NonFiniteLossError
from sscl_experiments import store
from sscl_experiments.runs.making import now

from .design import Design
from .ledger import Entry, Ledger
from .measuring import checkpoints, make
from .phases import Phase, pending, shares
from .reading import Reading, means, readings
from .tasks import Task, seconds

MEASURING = "sscl_experiments.studies.t_simclr.kernel_experiment.measuring"
AGAIN = 20.0  # seconds until what other processes are at is looked for again
TELL = 300.0  # seconds until what is left is told again
Say = Callable[[str], None]


def go_on(
    design: Design,
    ledger: Ledger,
    *,
    results: Path,
    data_dir: str | None = None,
    hours: float | None = None,
    say: Say | None = None,
) -> int:
    """Makes runs that are not recorded yet, and records each. Returns how many it made.

    What another process is at is left to it. With `hours` none begins that would not end in time.
    Interrupted, by SIGTERM too, at most the run in progress is lost, and that goes on from its
    checkpoint under `results`.
    """
    sitting = _Sitting(design, ledger, results, data_dir, hours, say or log)
    with terminating():
        while (outcome := sitting.go_on()) in ("made", "waiting"):
            if outcome == "waiting":
                time.sleep(AGAIN)
    sitting.say(f"{outcome}: {sitting.made} runs made in {sitting.elapsed / 3600:.2f} h")
    return sitting.made


class _Sitting:
    """A process at work: since when, how many runs it has made, and at which pace."""

    def __init__(
        self,
        design: Design,
        ledger: Ledger,
        results: Path,
        data_dir: str | None,
        hours: float | None,
        say: Say,
    ) -> None:
        self.design, self.ledger, self.say = design, ledger, say
        self.results, self.data_dir = results, data_dir
        self.seconds = math.inf if hours is None else 3600 * hours
        self.began = time.monotonic()
        self.made, self.told = 0, -math.inf
        self.took = self.expected = 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    @property
    def pace(self) -> float:
        """How much longer runs take here than the plan says, on the mean of the sitting."""
        return self.took / self.expected if self.expected else 1.0

    def go_on(self) -> str:
        """Makes what it can of the first phase of which it can make a run; says how that ended."""
        outcome = "all is recorded"
        waiting = pending(self.design, self.ledger.found())
        for _, group in itertools.groupby(waiting, key=lambda pair: pair[0].name):
            outcomes = {self._try(phase, task) for phase, task in group}
            if "made" in outcomes:
                return "made"
            if outcome != "waiting":
                outcome = "waiting" if "waiting" in outcomes else "time is up"
        return outcome

    def _try(self, phase: Phase, task: Task) -> str:
        """Makes a run, unless it would not end in time, or another process is at it."""
        expected = seconds(task, phase.images)
        if self.elapsed + expected * self.pace > self.seconds:
            return "time is up"
        with store.lock(self.results / "runs", _named(task), wait=False) as ours:
            if not ours:
                return "waiting"
            if self.ledger.has(task.id):
                return "made"
            began = time.monotonic()
            entry = record(task, self.results, self.data_dir)
            took = time.monotonic() - began
            self.ledger.append(phase.name, entry)
        _forget(task, self.results)
        self.took, self.expected = self.took + took, self.expected + expected
        self.made += 1
        self.say(_line(phase, task, entry, took))
        self._tell()
        return "made"

    def _tell(self) -> None:
        """What is left, every few minutes."""
        if self.elapsed - self.told < TELL:
            return
        self.told = self.elapsed
        left = sum(share.left for share in shares(self.design, self.ledger.found()))
        hours = f"about {left * self.pace:.1f} core hours are left"
        self.say(f"{hours}, at the pace of this sitting")


def _named(task: Task) -> Any:
    """The configuration whose lock stands for the run: two runs may share one, and then wait."""
    return task.stages[-1]


def record(task: Task, results: Path, data_dir: str | None) -> Entry:
    """Trains and measures a run: its line in the records. One that diverged says so."""
    began = time.monotonic()
    try:
        outcome = make(task, checkpoint=_checkpoint(task, results), data_dir=data_dir)
    except NonFiniteLossError as error:
        outcome = {"diverged": str(error)}
    who = store.identity(task.stages[0])
    origin: Entry = {"code": who.code, "libraries": who.libraries, "date": now()}
    origin["measuring"] = store.code_hash(MEASURING)
    origin["cpu"] = torch.backends.cpu.get_cpu_capability()
    configs = [json.loads(store.essence(stage)) for stage in task.stages]
    entry = {"id": task.id, "seed": task.seed, "stages": configs, **outcome}
    return entry | {"made": origin | {"seconds": round(time.monotonic() - began, 1)}}


def _checkpoint(task: Task, results: Path) -> Path:
    return results / "checkpoints" / f"kernel-{task.id}.pt"


def _forget(task: Task, results: Path) -> None:
    for path in checkpoints(task, _checkpoint(task, results)):
        path.unlink(missing_ok=True)


def _line(phase: Phase, task: Task, entry: Entry, took: float) -> str:
    config = task.stages[-1]
    if task.pixels:
        what = "pixels"
    else:
        loss = f"{config.loss.name} τ={getattr(config.loss, 'temperature', 1.0):g}"
        loss += f" df={df:g}" if (df := getattr(config.loss, "df", None)) else ""
        form = ", BatchNorm" if config.projector.batchnorm else ""
        what = f"{loss}{form}, d_z={config.projector.dim}, seed {task.seed}"
    found = entry.get("metrics", {})
    shown = [f"{name} {found[name]:.3f}" for name in ("knn15_cosine_z", "probe_h") if name in found]
    outcome = ", ".join(shown) if "metrics" in entry else "diverged"
    return f"{phase.name}: {what}: {outcome} ({took:.0f} s)"


def log(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


@contextmanager
def terminating() -> Iterator[None]:
    """Meanwhile SIGTERM does what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def plan_table(design: Design, ledger: Ledger) -> str:
    """The plan: phases in their order, runs, core hours, what is recorded."""
    lines = [f"{'phase':44} {'runs':>6} {'done':>6} {'hours':>6} {'left':>6}  what"]
    total = left = 0.0
    for share in shares(design, ledger.found()):
        total, left = total + share.hours, left + share.left
        about = "" if share.certain else "~"
        runs = f"{about}{share.runs}"
        numbers = f"{runs:>6} {share.done:>6} {share.hours:6.2f} {share.left:6.2f}"
        lines.append(f"{share.phase.name:44} {numbers}  {share.phase.says}")
    lines.append(f"{'all':44} {'':6} {'':6} {total:6.2f} {left:6.2f}  core hours")
    return "\n".join(lines)


def report(design: Design, ledger: Ledger) -> str:
    """The endpoints and mean accuracies by what is recorded."""
    found = ledger.found()
    lines = []
    for reading in readings(design, found):
        lines += _reading_lines(reading)
    rows = means(design, found)
    if rows:
        lines += ["", "  ".join(f"{name:>10}" for name in map(_short, rows[0]))]
        lines += ["  ".join(f"{_cell(value):>10}" for value in row.values()) for row in rows]
    return "\n".join(lines) or "no final run is recorded yet"


def _reading_lines(reading: Reading) -> list[str]:
    endpoint = reading.endpoint
    head = f"{endpoint.claim} on {endpoint.purpose}, {reading.images.name}: {endpoint.says}"
    lines = [f"{head}, Student t beside cosine, d_z = {', '.join(map(str, reading.dims))}"]
    for epochs, found in reading.by_length.items():
        interval = f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
        censored = f", bounded in {found.censored:.1%} of draws" if found.censored else ""
        verdict = endpoint.rule.verdict(found)
        lines.append(f"  {epochs} epochs: {interval}, {found.seeds} seeds{censored}: {verdict}")
    note = f" ({reading.note})" if reading.note else ""
    also = f"; fewer dimensions at all: {reading.also}" if reading.also else ""
    return [*lines, f"  both lengths: {reading.verdict}{note}{also}"]


def _short(name: str) -> str:
    return name.replace("euclidean", "eucl").replace("cosine", "cos")[:10]


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:10]
