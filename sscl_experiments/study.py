"""Studies: a folder each in `studies/`, found there; one notebook, its sizes and its claims."""

import importlib
import json
import pkgutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import studies
from .claims import Claim
from .parameters import Parameters, explain
from .paths import committed, results_dir

SCALES = ("smoke", "quick", "full")


@dataclass(frozen=True)
class Study:
    """A notebook with the parameters that it takes and the claims that it decides.

    The sizes of each scale are `scales.toml` in the folder of the study.
    """

    notebook: str
    parameters: type[Parameters]
    claims: tuple[Claim, ...] = ()

    @property
    def package(self) -> str:
        return self.parameters.__module__.rpartition(".")[0]

    def sizes(self, scale: str) -> dict[str, Any]:
        """What the notebook runs with at a scale; nothing for an unknown one."""
        folder = Path(importlib.import_module(self.package).__file__ or "").parent
        return committed(folder / "scales.toml", tomllib.loads).get(scale, {})


@lru_cache
def all_studies() -> dict[str, Study]:
    """Every study by the name of its notebook, in reading order."""
    names = [module.name for module in pkgutil.iter_modules(studies.__path__)]
    modules = [importlib.import_module(f"{studies.__name__}.{name}") for name in names]
    found = [module.STUDY for module in modules]
    return {study.notebook: study for study in sorted(found, key=lambda study: study.notebook)}


def all_claims() -> dict[str, Claim]:
    """Every claim by its id, in the order of the notebooks."""
    return {claim.id: claim for study in all_studies().values() for claim in study.claims}


def study_of(notebook: str) -> Study:
    """`ValueError`: there is no such notebook."""
    if notebook not in all_studies():
        raise ValueError(f"notebook must be one of {list(all_studies())}, got {notebook!r}")
    return all_studies()[notebook]


def resolve(notebook: str, given: Mapping[str, Any]) -> Parameters:
    """The parameters of a notebook: the sizes of its scale, under what is given and not None.

    `ValueError` that names every unknown name, wrong type and value out of range, a value that a
    run cannot have or a folder that is not there, and the valid names.
    """
    study = study_of(notebook)
    scale = given.get("scale", "quick")
    sizes = study.sizes(scale) if isinstance(scale, str) else {}
    named = {name: value for name, value in given.items() if value is not None}
    try:
        text = json.dumps({"scale": "quick"} | sizes | named)
        parameters = study.parameters.model_validate_json(text)
        parameters.require_runs()
    except (ValueError, TypeError) as error:
        names = ", ".join(study.parameters.model_fields)
        what = f"parameters of {notebook}: {explain(error)}; valid names: {names}"
        raise ValueError(what) from None
    return parameters


def out_dir(notebook: str, parameters: Parameters) -> Path:
    """results/<scale>, or results/custom where the sizes are not the scale's own.

    Where it runs and writes does not matter.
    """
    where = {"device", "data_dir", "results_dir"}
    standard = resolve(notebook, {"scale": parameters.scale}).model_dump(exclude=where)
    own = parameters.model_dump(exclude=where) == standard
    return results_dir(parameters.results_dir) / (parameters.scale if own else "custom")
