"""What a notebook does around its argument: parameters in, figures, tables and verdicts out."""

import base64
import html
import io
import json
import os
import tempfile
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, display
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from sscl_core.config import TrainConfig
from sscl_core.files import write_bytes, write_text

from . import plotting
from .claims import Outcome, decide
from .parameters import Parameters
from .paths import RECORDS, committed, results_dir
from .record import Record
from .runner import results
from .study import all_claims, all_studies, out_dir, resolve

# A library asks for progress bars that need ipywidgets; its complaint would stand in each notebook.
warnings.filterwarnings("ignore", message="IProgress not found")
_IPYTHON = {"In", "Out", "get_ipython", "exit", "quit", "open", "display"}
_begun: set[str] = set()
Name = TypeVar("Name")


class Notebook:
    """A run of one notebook: `p` are its parameters, `out` is where its results go.

    That is results/<scale>, or results/custom where a parameter is not the scale's own: then
    nothing that `make reproduce` wrote is overwritten.
    """

    def __init__(self, name: str, parameters: Parameters) -> None:
        self.name, self.p = name, parameters
        self.runs = results_dir(parameters.results_dir) / "runs"
        self.out = out_dir(name, parameters)

    def __str__(self) -> str:
        sizes = self.p.model_dump(exclude={"device", "data_dir", "results_dir"})
        return f"{self.name}: " + ", ".join(f"{key}={value}" for key, value in sizes.items())

    def results(self, configs: Sequence[TrainConfig]) -> list[Record]:
        """The records of these runs; what is missing is trained now."""
        return results(configs, runs=self.runs, device=self.p.device, data_dir=self.p.data_dir)

    def results_by(self, runs: Mapping[Name, Sequence[TrainConfig]]) -> dict[Name, list[Record]]:
        """The records of runs that are listed under names, under those names."""
        records = iter(self.results([config for configs in runs.values() for config in configs]))
        return {name: [next(records) for _ in configs] for name, configs in runs.items()}

    def figure(self, figure: Figure, name: str, data: pd.DataFrame | Mapping[str, Any]) -> None:
        """Shows the figure and keeps it as PNG and SVG, beside the data that it shows.

        The data are .csv where they are a table, else .npz.
        """
        stem = self.out / "figures" / f"{self.name}-{name}"
        png, svg = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", dpi=150)
        figure.savefig(svg, format="svg", metadata={"Date": None})
        write_bytes(stem.with_suffix(".png"), png.getvalue())
        write_bytes(stem.with_suffix(".svg"), svg.getvalue())
        if isinstance(data, pd.DataFrame):
            write_text(stem.with_suffix(".csv"), data.to_csv(index=False))
        else:
            _save_arrays(stem.with_suffix(".npz"), data)
        display(figure)
        plt.close(figure)

    def animation(
        self, figure: Figure, animation: FuncAnimation, name: str, data: Mapping[str, Any]
    ) -> None:
        """Shows the animation as a GIF and keeps it, beside the data (.npz)."""
        path = self.out / "figures" / f"{self.name}-{name}.gif"
        gif = _as_gif(animation)
        plt.close(figure)
        write_bytes(path, gif)
        _save_arrays(path.with_suffix(".npz"), data)
        content = base64.b64encode(gif).decode()
        display(HTML(f"<img src='data:image/gif;base64,{content}' alt='{html.escape(name)}'>"))

    def table(self, table: pd.DataFrame, name: str, *, digits: int = 3) -> None:
        """Shows the table and keeps it as CSV, at full precision."""
        write_text(self.out / "tables" / f"{self.name}-{name}.csv", table.to_csv(index=False))

        def short(x: float) -> str:
            return f"{x:.{digits}g}"

        display(HTML(table.to_html(index=False, na_rep="", float_format=short, border=0)))

    def record(self, scale: str) -> dict[str, Any] | None:
        """What this notebook found at a larger scale, as committed, with tables as data frames.

        `sscl reproduce --publish` makes such a record. None where there is none, and then it says
        so. `ValueError`: the file is damaged.
        """
        path = RECORDS / scale / f"{self.name}.json"
        if not path.exists():
            print(f"There is no record of scale {scale} yet.")
            return None
        content, made = committed(path, _record)
        release = f"PyTorch {content['versions']['torch']}"
        print(f"Record of scale {scale} ({made}), {release}: {content['parameters']}")
        return content

    def claim(
        self,
        claim_id: str,
        values: Sequence[float],
        *,
        withheld: str = "",
        estimate: tuple[float, float, float] | None = None,
    ) -> Outcome:
        """Decides a claim by its rule on one value a seed, shows the verdict and keeps it.

        `withheld`, `estimate`: as for `decide`.
        """
        claim, scale = all_claims()[claim_id], self.p.scale
        outcome = decide(claim, values, scale=scale, withheld=withheld, estimate=estimate)
        path = self.out / "claims" / f"{claim_id}.json"
        write_text(path, outcome.model_dump_json(indent=1) + "\n")
        display(HTML(_verdict_html(outcome)))
        return outcome


def begin(name: str, namespace: Mapping[str, Any]) -> Notebook:
    """Checks the parameters in a notebook's `globals()` and sets the style of its figures.

    Call it before anything else: a name that is not a parameter can only be told from a variable of
    the notebook on the first call in a kernel. `ValueError`: an unknown name, a wrong type or a
    value out of range.
    """
    study = all_studies().get(name)
    valid = study.parameters.model_fields if study else {}
    given = {
        key: value
        for key, value in namespace.items()
        if key in valid or (name not in _begun and _is_value(key, value))
    }
    notebook = Notebook(name, resolve(name, given))
    notebook.p.require_data()
    _begun.add(name)
    plt.style.use(plotting.STYLE)
    os.environ.setdefault("TQDM_MININTERVAL", "5")
    return notebook


def _save_arrays(path: Path, data: Mapping[str, Any]) -> None:
    arrays: dict[str, Any] = {key: np.asarray(value) for key, value in data.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def _as_gif(animation: FuncAnimation) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "animation.gif"
        animation.save(path, writer=PillowWriter(fps=10), dpi=80)
        return path.read_bytes()


def _record(text: str) -> tuple[dict[str, Any], str]:
    """The content, with tables as data frames, and a line on how it was made."""
    content = json.loads(text)
    for kind in ("tables", "figures"):
        content[kind] = {
            name: pd.read_csv(io.StringIO(table)) for name, table in content[kind].items()
        }
    where = f"{content['core_hours']} core hours on {', '.join(content['devices'])}"
    made = f"{content['date']}, {content['runs']} runs, {where}"
    needed = ("claims", "parameters", "versions")
    if missing := [name for name in needed if name not in content]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    return content, made


def _is_value(name: str, value: Any) -> bool:
    return not (
        name.startswith("_")
        or name in _IPYTHON
        or callable(value)
        or isinstance(value, types.ModuleType)
    )


def _verdict_html(outcome: Outcome) -> str:
    claim = outcome.claim
    note = f" ({html.escape(outcome.note)})" if outcome.note else ""
    ends = f"95 % interval [{outcome.low:.3g}, {outcome.high:.3g}]"
    interval = f"{'the worst case' if claim.worst else ends}, n = {outcome.n} seeds"
    rows = {
        claim.id: f"{html.escape(claim.sentence)} <i>[{html.escape(claim.source)}]</i>",
        "estimand": html.escape(claim.estimand),
        "rule": html.escape(claim.rule),
        "estimate": f"{outcome.estimate:.3g}, {interval}",
        "verdict": f"<b>{outcome.verdict}</b>{note}",
    }
    lines = [f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in rows.items()]
    return "<table>" + "".join(lines) + "</table>"
