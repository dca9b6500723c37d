"""A copy of the packages in which a study that is thrown away afterwards stands for the real ones.

Its notebook is a kernel's start and three cells: what a test asks of processes, folders and the
workflow costs seconds.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from sscl_experiments import paths

NAME = "99_throwaway"
STUDY = {
    "__init__.py": '''"""Is a number what it was put in as?"""

from sscl_experiments.study import Study

from .claims import CLAIMS
from .parameters import Throwaway

STUDY = Study("99_throwaway", Throwaway, CLAIMS)
''',
    "parameters.py": '''"""What it takes, and its one run a seed."""

from pydantic import PositiveInt

from sscl_core.config import MLP, Mixture, Projector, TrainConfig, scattered
from sscl_experiments.parameters import Parameters


class Throwaway(Parameters):
    steps: PositiveInt

    def runs(self):
        data = Mixture(means=scattered(3), steps_per_epoch=self.steps)
        small = {"backbone": MLP(width=8), "projector": Projector(hidden=0, dim=2)}
        how = {"epochs": 1, "batch_size": 8}
        return [TrainConfig(data=data, **small, **how, seed=seed) for seed in self.seed_range]
''',
    "claims.py": '''"""Its claim."""

from sscl_experiments.claims import Claim

CLAIMS = (
    Claim(
        id="T99",
        sentence="A throw-away claim is decided like any other.",
        source="ours",
        estimand="seeds",
        direction="at least",
        threshold=0,
    ),
)
''',
    "scales.toml": "".join(
        f"[{scale}]\nseeds = 5\nsteps = 2\n" for scale in ("smoke", "quick", "full")
    ),
}
CELLS = [
    """scale: str = "quick"
seeds: int = None
seed: int = 0
device: str = "auto"
data_dir: str = None
results_dir: str = None
steps: int = None""",
    f"""from sscl_experiments.notebook import begin
nb = begin("{NAME}", globals())
print(nb)
records = nb.results(nb.p.runs())""",
    """import pandas as pd
nb.table(pd.DataFrame({"seed": [record.config.seed for record in records]}), "seeds")
_ = nb.claim("T99", [record.config.seed + 1 for record in records])""",
]
IGNORED = shutil.ignore_patterns("__pycache__")


def copy_of_the_checkout(root: Path) -> None:
    """All that a reproduction needs of it."""
    for name in ("sscl_core", "sscl_experiments", "workflow", "notebooks", "data", "docs"):
        shutil.copytree(paths.CHECKOUT / name, root / name, ignore=IGNORED)


def copy_without_studies(root: Path) -> None:
    """The packages and the workflow, to which studies are added."""
    for name in ("sscl_core", "sscl_experiments", "workflow"):
        shutil.copytree(paths.CHECKOUT / name, root / name, ignore=IGNORED)
    studies = root / "sscl_experiments" / "studies"
    for study in studies.iterdir():
        if study.is_dir():
            shutil.rmtree(study)
    for name in ("notebooks", "data"):
        (root / name).mkdir()


def add_study(root: Path, number: int = 99) -> None:
    """The study and its notebook, `<number>_throwaway`, which decides claim T<number>."""

    def renumbered(text: str) -> str:
        name = NAME.replace("99", str(number))
        return text.replace(NAME, name).replace("T99", f"T{number}")

    folder = root / "sscl_experiments" / "studies" / f"throwaway_{number}"
    folder.mkdir()
    for name, content in STUDY.items():
        (folder / name).write_text(renumbered(content), encoding="utf-8")
    write_notebook(root, renumbered(NAME), [renumbered(source) for source in CELLS])


def write_notebook(root: Path, name: str, sources: list[str]) -> None:
    """One of code cells, of which the first holds the parameters."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for index, cell in enumerate(cells):
        cell["id"] = f"cell-{index}"
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, notebook(root, name))


def notebook(root: Path, name: str = NAME) -> Path:
    return root / "notebooks" / f"{name}.ipynb"


def run(root: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m COMMAND` in the copy, with its packages."""
    environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "120"} | variables
    environment.pop("SSCL_RESULTS_DIR", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # tens of processes, each of which compiles
    command = [sys.executable, "-m", *command]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
