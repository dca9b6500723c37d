"""The plan of a reproduction: which jobs a scale needs, and what each depends on.

The Snakefile reads it; nothing here imports torch. A finished job leaves a mark whose name holds
the hash of all that it depends on, so that finished means: finished with this code, these
parameters and this notebook. A changed comment, a touched file or a fresh clone changes no mark.
The mark of a notebook lists what it left with checksums, so that finished also means: all of it is
still there, and is what was written.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sscl_core.config import TrainConfig
from sscl_core.files import write_json
from sscl_experiments import paths, store, study
from sscl_experiments.code import code_hash, digest, imported_by
from sscl_experiments.grouping import ensembles
from sscl_experiments.parameters import Parameters
from sscl_experiments.record import release

# Other releases of these can give a notebook other numbers.
COMPUTING = ("torch", "numpy", "scipy", "scikit-learn", "pandas")
# How many trainings one job makes at most, one after the other: starting up costs seconds, and at
# scale quick a training takes not much more. An ensemble of seeds, trained at once, counts as one.
TRAININGS_PER_JOB = {"smoke": 100, "quick": 32, "full": 1}


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
        return f"{self.notebook}.runs-{self.index}.{digest(*self.keys)}"


@dataclass(frozen=True)
class Job:
    """A notebook with the groups of runs that it shows."""

    notebook: str
    parameters: Parameters
    groups: tuple[Group, ...]

    @cached_property
    def mark(self) -> str:
        return f"{self.notebook}.notebook.{notebook_key(self.notebook, self.parameters)}"


@dataclass(frozen=True)
class Plan:
    """What is to be done, as the code and the notebooks were when it was made.

    Hashes are taken once; what there is of it already, `state.look` says.
    """

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

    def only(self, notebooks: Sequence[str]) -> "Plan":
        """That of these notebooks; of all, where none is named."""
        jobs = [job for job in self.jobs if not notebooks or job.notebook in notebooks]
        return replace(self, jobs=tuple(jobs))

    def claims(self, job: Job) -> list[Path]:
        return claim_files(self.out, job.notebook)


def claim_files(out: Path, notebook: str) -> list[Path]:
    claims = study.study_of(notebook).claims
    return [out / "claims" / f"{claim.id}.json" for claim in claims]


def write_mark(mark: Path, out: Path, notebook: str) -> None:
    """Lists what a notebook left under `out`: {path relative to `out`: sha256}."""
    patterns = (f"figures/{notebook}-*", f"tables/{notebook}-*", f"notebooks/{notebook}.ipynb")
    files = [path for pattern in patterns for path in out.glob(pattern)]
    files += [path for path in claim_files(out, notebook) if path.exists()]
    write_json(mark, {str(path.relative_to(out)): sha256(path) for path in sorted(files)})


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
    names = notebooks or list(study.all_studies())
    return Plan(scale, paths.results_dir(results), tuple(job(name, scale) for name in names))


def job(notebook: str, scale: str) -> Job:
    parameters = study.resolve(notebook, {"scale": scale})
    parts = _parts(ensembles(parameters.runs()), TRAININGS_PER_JOB[scale])
    groups = [Group(notebook, index, configs) for index, configs in enumerate(parts)]
    return Job(notebook, parameters, tuple(groups))


def _parts(
    together: Sequence[Sequence[TrainConfig]], largest: int
) -> list[tuple[TrainConfig, ...]]:
    """Trainings dealt out like cards to as few jobs as `largest` allows.

    Neighbors in the list take about equally long, so jobs do too.
    """
    number = math.ceil(len(together) / largest)
    hands = [together[first::number] for first in range(number)]
    return [tuple(config for runs in hand for config in runs) for hand in hands]


def notebook_path(name: str) -> Path:
    if paths.CHECKOUT is None:
        where = "notebooks are in a checkout of the repository, not in the installed package"
        raise ValueError(f"{where}: clone it and run there")
    return paths.CHECKOUT / "notebooks" / f"{name}.ipynb"


def notebook_key(name: str, parameters: Parameters) -> str:
    """Of all that the outputs of a notebook depend on.

    Its cells without outputs, its parameters, its runs, the code that its cells and its study
    reach, the libraries that compute, and the records it may show: those that it names and its own
    of other scales.
    """
    cells = paths.committed(notebook_path(name), lambda text: json.loads(text)["cells"])
    source = json.dumps([[cell["cell_type"], "".join(cell["source"])] for cell in cells])
    patterns = (f"**/*{name}*", *parameters.records)
    shown = {path for pattern in patterns for path in paths.RECORDS.glob(pattern)}
    records = sorted(path for path in shown if path.parent.name != parameters.scale)
    texts = [paths.committed(path, str) for path in records]
    runs = [store.run_key(config) for config in parameters.runs()]
    releases = [release(library).partition("+")[0] for library in COMPUTING]  # of any build
    behind = (_code_behind(name, cells), *releases)
    return digest(source, parameters.model_dump_json(), *behind, *runs, *texts)


def _code_behind(name: str, cells: Sequence[Mapping[str, Any]]) -> str:
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    imported = {module for source in code for module in imported_by("".join(source))}
    # With sscl_core.config: it stands in the keys of runs by the values of its fields, but what
    # else a notebook computes may depend on its functions and defaults.
    return code_hash(study.study_of(name).package, *sorted(imported), without=())
