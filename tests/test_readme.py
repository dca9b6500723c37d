"""Every command of the README is run, at scale smoke, but those of make: .ci/run does that."""

import functools
import html
import json
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


# --- the table of claims --------------------------------------------------------------------------

CLAIM = re.compile(r"<tr><th>([BC]\d+[a-c]?)</th>.*?<th>estimate</th><td>(.*?)</td>.*?<b>(.*?)</b>")
OF_EXPERIMENT = re.compile(r"<td>(C1[01])\. .*?</td>.*?<td>([a-z]+[a-z ]*)</td>", re.S)
ROW = re.compile(r"^\| \*\*(\w+)\*\*.* \| (.*?) \| ([a-z ]+) \|$", re.M)
INTERVAL = re.compile(r"\[([−\d.]+), ([−\d.]+)\]")
NOT_HERE = "not run at this scale"


def shown():
    """What the committed notebooks print: claim -> (verdict, low, high), None without interval."""
    found = {}
    for path in sorted((CHECKOUT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        for output in outputs:
            text = html.unescape("".join(output.get("data", {}).get("text/html", ())))
            for name, estimate, verdict in CLAIM.findall(text):
                ends = re.search(r"\[(.*), (.*)\]", estimate)
                low, high = map(float, ends.groups()) if ends else (None, None)
                found[name] = (verdict, low, high)
            found |= {name: (verdict, None, None) for name, verdict in OF_EXPERIMENT.findall(text)}
    return found


def recorded():
    """The same of the records of scale `full`."""
    found = {}
    for path in (CHECKOUT / "data" / "records" / "full").glob("*.json"):
        for outcome in json.loads(path.read_text(encoding="utf-8")).get("claims", ()):
            values = (outcome["verdict"], outcome["low"], outcome["high"])
            found[outcome["claim"]["id"]] = values
    return found


@functools.cache
def expected():
    """What the README says: the notebook's verdict, or the record's where it gives none."""
    found, records = shown(), recorded()
    for name in ("C8", "C12", "C13"):
        assert found[name][0] == NOT_HERE, "the README says so"
        found[name] = records[name]
    return found


def test_every_claim_is_in_the_readme():
    rows = [name for name, _, _ in ROW.findall(README)]
    assert len(rows) == len(set(rows))
    assert set(rows) == set(expected())


def is_rounded(text, value):
    """Whether `text` is the value, or a hundred times it, to the digits that it has."""
    digits = len(text.partition(".")[2])
    number = float(text.replace("−", "-"))
    # The value itself may be rounded to three digits.
    return any(abs(number - k * value) <= 0.5 * 10**-digits + 0.005 * abs(number) for k in (1, 100))


@pytest.mark.parametrize(
    ("name", "result", "verdict"), ROW.findall(README), ids=lambda text: text[:24]
)
def test_the_readme_says_what_the_notebooks_say(name, result, verdict):
    known, low, high = expected()[name]
    assert verdict == known
    if low is not None:
        ends = INTERVAL.search(result)
        assert ends, "no interval"
        for text, value in zip(ends.groups(), (low, high), strict=True):
            assert is_rounded(text, value), (text, value)
