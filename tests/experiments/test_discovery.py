"""A study is found in its folder: one that is thrown away afterwards; and Snakemake by itself."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

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
        id="T1",
        sentence="A throw-away claim is decided like any other.",
        source="ours",
        estimand="seeds",
        direction="at least",
        threshold=0,
    ),
)
''',
    "scales.toml": "[smoke]\nseeds = 5\nsteps = 2\n",
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
records = nb.results(nb.p.runs())""",
    """_ = nb.claim("T1", [record.config.seed + 1 for record in records])""",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A copy of the checkout to which the study and its notebook are added, and nothing else."""
    root = tmp_path_factory.mktemp("discovery")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("sscl_core", "sscl_experiments", "workflow", "notebooks", "data", "docs"):
        shutil.copytree(paths.CHECKOUT / name, root / name, ignore=ignored)
    folder = root / "sscl_experiments" / "studies" / "throwaway"
    folder.mkdir()
    for name, content in STUDY.items():
        (folder / name).write_text(content, encoding="utf-8")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, root / "notebooks" / f"{NAME}.ipynb")
    return root


def run(root, *command):
    environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "120"}
    environment.pop("SSCL_RESULTS_DIR", None)
    command = [sys.executable, "-m", *command]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def reproduced(root):
    options = ("--scale", "smoke", "--cores", "1", "--notebooks", NAME)
    return run(root, "sscl_experiments", "reproduce", *options)


def test_a_study_is_found_in_its_folder(root, reproduced):
    assert reproduced.returncode == 0, reproduced.stdout + reproduced.stderr
    assert "5 training runs" in reproduced.stdout
    (line,) = [line for line in reproduced.stdout.splitlines() if line.startswith("T1 ")]
    assert "A throw-away claim" in line
    assert "replicates" in line
    out = root / "results" / "smoke"
    claims = json.loads((out / "claims.json").read_text(encoding="utf-8"))["claims"]
    assert [claim["claim"]["id"] for claim in claims] == ["T1"]
    assert (out / "notebooks" / f"{NAME}.ipynb").exists()


SNAKEMAKE = ("snakemake", "--cores", "1", "--config", "scale=smoke", f"notebooks={NAME}")


def content(folder, *without):
    files = [path for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in files if path.parts[len(folder.parts)] not in without]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def test_snakemake_by_itself_does_the_same(root, reproduced):
    """It finds Snakefile and profile; marks have the same names, so that both know what is done."""
    out = root / "results" / "smoke"
    same = ("claims", "claims.json", "runs.csv")
    expected = {name: text for name, text in content(out).items() if name.startswith(same)}
    marks = {path.name for path in (out / ".done").iterdir()}
    shutil.rmtree(root / "results")
    dry = run(root, *SNAKEMAKE, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert not (root / "results" / "runs").exists()
    by_itself = run(root, *SNAKEMAKE)
    assert by_itself.returncode == 0, by_itself.stdout + by_itself.stderr
    assert "\nT1 " in by_itself.stdout
    found = content(out)
    assert {path.name for path in (out / ".done").iterdir()} == marks
    assert expected.keys() <= found.keys()
    assert found["claims.json"] == expected["claims.json"]
    again = run(root, "sscl_experiments", "reproduce", "--scale", "smoke", "--notebooks", NAME)
    assert "Nothing changed" in again.stdout
    before = content(out, "logs", ".snakemake", ".lock")
    assert run(root, *SNAKEMAKE).returncode == 0
    assert content(out, "logs", ".snakemake", ".lock") == before


def test_snakemake_by_itself_says_what_failed(root, reproduced):
    path = Path(root / "notebooks" / f"{NAME}.ipynb")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("_ = nb.claim", "1 / 0; _ = nb.claim"), encoding="utf-8")
    failed = run(root, *SNAKEMAKE)
    path.write_text(text, encoding="utf-8")
    assert failed.returncode != 0
    assert f"FAILED\nnotebook {NAME}: ZeroDivisionError" in failed.stdout
    assert not (root / "results" / "smoke" / "claims" / "T1.json").exists()


@pytest.mark.parametrize("config", ["scale=huge", "notebook=x"])
def test_snakemake_by_itself_refuses_what_it_does_not_know(config, root):
    refused = run(root, "snakemake", "--cores", "1", "--config", config)
    assert refused.returncode != 0
    assert "--config takes scale (smoke, quick, full), notebooks" in refused.stdout + refused.stderr
