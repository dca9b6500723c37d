"""Every command of the README is run, at scale smoke, but those of make: .ci/run does that."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sscl_experiments.paths import CHECKOUT

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
pytestmark = [pytest.mark.xdist_group("readme")]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands():
    return [line for block in blocks("bash") for line in block.splitlines()]


@pytest.fixture
def environment(tmp_path):
    """The venv activated, and results away from the checkout's own."""
    places = {
        "SSCL_RESULTS_DIR": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return os.environ | places


def test_make_targets_come_first_and_ci_runs_them():
    assert (
        [line for line in commands() if line.startswith("make")]
        == ["make reproduce", "make test"]
        == commands()[:2]
    )
    ci = (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8")
    assert "\nmake test\n" in ci
    assert "\nmake reproduce\n" in ci


@pytest.mark.parametrize(
    "command", [line for line in commands() if not line.startswith(("make ", "source "))]
)
def test_command(command, environment, tmp_path):
    if command.startswith("papermill"):
        command = command.replace("out.ipynb", str(tmp_path / "out.ipynb")) + " -p scale smoke"
    run = subprocess.run(
        ["bash", "-c", command], cwd=CHECKOUT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.parametrize("code", blocks("python"))
def test_python(code, environment):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("tensor(") == 2


def test_links_and_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (CHECKOUT / target).exists(), target
    for name in re.findall(r"`([a-z_/]+\.(?:py|toml|yml|md))`", README):
        assert any(
            (CHECKOUT / folder / name).exists()
            for folder in ("", "sscl_core", "sscl_experiments", "workflow")
        ), name
