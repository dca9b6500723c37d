"""Puts what a finished plan found into the checkout, to be committed."""

import datetime
import json
import platform
from pathlib import Path
from typing import Any

from sscl_core.files import write_bytes, write_json, write_text
from sscl_experiments import paths, store
from sscl_experiments.record import release

from .planning import Job, Plan, notebook_path
from .state import State

README_FIGURES = {
    "03_implicit_bias-training.gif": "order.gif",
    "05_t_simclr-maps.png": "maps.png",
    "07_augmentation_graph-map.png": "map.png",
    "07_augmentation_graph-thesis.png": "thesis.png",
}


def publish(plan: Plan, state: State) -> list[Path]:
    """The files that were written. `ValueError`: scale smoke, or the plan is not finished.

    At scale quick they are the executed notebooks, in the place of the sources. Another scale takes
    too long to be repeated every time: it leaves a record, which the notebooks show.
    """
    if plan.scale not in ("quick", "full"):
        rule = "'quick' or 'full' for what is committed"
        raise ValueError(f"scale must be {rule}, got {plan.scale!r}")
    for job in state.unfinished(plan.jobs):
        remedy = f"sscl reproduce --scale {plan.scale} --notebooks {job.notebook}"
        raise ValueError(f"{job.notebook} is not finished: run `{remedy}` first")
    if plan.scale == "quick":
        notebooks = [_publish_notebook(plan, job) for job in plan.jobs]
        return notebooks + _publish_figures(plan)
    return [_publish_record(state, job) for job in plan.jobs]


def _publish_record(state: State, job: Job) -> Path:
    """data/records/<scale>/<notebook>.json.

    Parameters, provenance, claims, every table, and the data of every figure that are a table.
    """
    plan = state.plan
    sizes = job.parameters.model_dump(mode="json", exclude={"device", "data_dir", "results_dir"})
    content = {
        "schema": store.SCHEMA,
        "parameters": sizes,
        **_provenance(state, job),
        "key": key_of(job),
        "claims": [json.loads(path.read_text(encoding="utf-8")) for path in plan.claims(job)],
        "tables": _tables(plan, job, "tables"),
        "figures": _tables(plan, job, "figures"),
    }
    path = paths.RECORDS / plan.scale / f"{job.notebook}.json"
    write_json(path, content)
    return path


def _provenance(state: State, job: Job) -> dict[str, Any]:
    records = [state.records[key] for group in job.groups for key in group.keys]
    runs = [record["provenance"] for record in records if record is not None]
    if not runs:
        return _of_today()
    seconds = sum(run["seconds"] * run["threads"] for run in runs)
    return {
        "runs": len(runs),
        "core_hours": round(seconds / 3600, 2),
        "date": max(run["date"] for run in runs)[:10],
        "devices": sorted({run["device"] for run in runs}),
        "versions": runs[0]["versions"],
    }


def _of_today() -> dict[str, Any]:
    """Of a notebook that trains nothing: it was run here, by the libraries that are here."""
    return {
        "runs": 0,
        "core_hours": 0.0,
        "date": datetime.date.today().isoformat(),
        "devices": [platform.machine()],
        "versions": {name: release(name) for name in ("torch", "numpy")},
    }


def _tables(plan: Plan, job: Job, kind: str) -> dict[str, str]:
    prefix = f"{job.notebook}-"
    files = sorted((plan.out / kind).glob(f"{prefix}*.csv"))
    return {path.stem.removeprefix(prefix): path.read_text(encoding="utf-8") for path in files}


def key_of(job: Job) -> str:
    return job.mark.rsplit(".", 1)[1]


def _publish_notebook(plan: Plan, job: Job) -> Path:
    """The executed notebook without what changes from run to run."""
    import nbformat

    executed = nbformat.read(plan.out / "notebooks" / f"{job.notebook}.ipynb", as_version=4)
    executed.cells = [cell for cell in executed.cells if not _is_injected(cell)]
    for cell in executed.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        _set_count(cell, count)
    executed.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
        "sscl": {"key": key_of(job)},
    }
    write_text(notebook_path(job.notebook), nbformat.writes(executed) + "\n")
    return notebook_path(job.notebook)


def _is_injected(cell: Any) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", [])


def _set_count(cell: Any, count: int) -> None:
    """As if the injected parameters had not been there."""
    cell.execution_count = count
    for output in cell.outputs:
        if "execution_count" in output:
            output.execution_count = count


def _publish_figures(plan: Plan) -> list[Path]:
    """What the README shows, of the notebooks that ran."""
    published = []
    names = [job.notebook for job in plan.jobs]
    for figure, target in README_FIGURES.items():
        source = plan.out / "figures" / figure
        if figure.startswith(tuple(names)) and source.exists():
            place = notebook_path("").parents[1] / "docs" / target
            write_bytes(place, source.read_bytes())
            published.append(place)
    return published
