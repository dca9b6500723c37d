"""TODO"""

import json
from pathlib import Path

from sscl_core.files import write_bytes, write_json, write_text
from sscl_experiments import paths, store

from .planning import Job, Plan, notebook_path

README_FIGURES = {
    "03_implicit_bias-film.gif": "order.gif",
    "05_t_simclr-maps.png": "maps.png",
    "07_augmentation_graph-map.png": "map.png",
}


def publish(plan: Plan) -> list[Path]:
    """Commits what a finished plan found to the checkout: at scale quick the executed notebooks, in the place of the sources; of another
    scale, too long to repeat every time, a record that the notebooks show."""
    if plan.scale not in ("quick", "full"):
        raise ValueError(
            f"scale must be 'quick' or 'full' for what is committed, got {plan.scale!r}"
        )
    for job in plan.unfinished:
        raise ValueError(
            f"{job.notebook} is not finished: run `sscl reproduce --scale {plan.scale} --notebooks {job.notebook}` first"
        )
    if plan.scale == "quick":
        return _publish_notebooks(plan)
    return [_publish_record(plan, job) for job in plan.jobs]


def _publish_record(plan: Plan, job: Job) -> Path:
    """data/records/<scale>/<notebook>.json: parameters, claims, every table and the data of every figure that is a table, provenance."""
    runs = [
        json.loads((run / "record.json").read_text(encoding="utf-8"))["provenance"]
        for group in job.groups
        for run in plan.runs(group)
    ]
    content = {
        "schema": store.SCHEMA,
        "parameters": job.parameters.model_dump(
            mode="json", exclude={"device", "data_dir", "results_dir"}
        ),
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
        content[kind] = {
            path.stem.removeprefix(f"{job.notebook}-"): path.read_text(encoding="utf-8")
            for path in files
        }
    path = paths.RECORDS / plan.scale / f"{job.notebook}.json"
    write_json(path, content)
    return path


def _publish_notebooks(plan: Plan) -> list[Path]:
    """Without what changes from run to run."""
    import nbformat

    published = []
    for job in plan.jobs:
        executed = nbformat.read(plan.out / "notebooks" / f"{job.notebook}.ipynb", as_version=4)
        executed.cells = [
            cell
            for cell in executed.cells
            if "injected-parameters" not in cell.metadata.get("tags", [])
        ]
        for cell in executed.cells:
            cell.metadata = {
                key: value
                for key, value in cell.metadata.items()
                if key not in ("papermill", "execution")
            }
        for count, cell in enumerate(
            (cell for cell in executed.cells if cell.cell_type == "code"), 1
        ):
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
        write_text(notebook_path(job.notebook), nbformat.writes(executed) + "\n")
        published.append(notebook_path(job.notebook))
    for figure, target in README_FIGURES.items():
        if (source := plan.out / "figures" / figure).exists():
            place = notebook_path("").parents[1] / "docs" / target
            write_bytes(place, source.read_bytes())
            published.append(place)
    return published
