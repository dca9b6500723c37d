"""pyproject.toml, constraints.txt and environment.yml agree; the wheel carries what it needs; nothing committed names this machine."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version

import pytest
import yaml
from packaging.requirements import Requirement

from sscl_experiments.paths import CHECKOUT

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(
    line.split("==")
    for line in (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [
        Requirement(line) for group in groups for line in group if not line.startswith("sscl-core")
    ]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_dependency_is_pinned_within_its_range(requirement):
    pins = {canonical(name): pin for name, pin in PINS.items()}
    assert canonical(requirement.name) in pins, "add it to constraints.txt"
    assert requirement.specifier.contains(pins[canonical(requirement.name)])


def test_pins_are_plain_versions_that_any_index_serves():
    for name, pin in PINS.items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*(post[0-9]+)?", pin), (
            f"{name}=={pin}: no local version, path or address"
        )


def test_what_runs_here_is_what_is_pinned():
    for name in ("torch", "numpy", "kornia", "snakemake", "papermill", "pytest"):
        assert version(name).split("+")[0] == PINS[name]


def test_conda_environment_installs_the_same():
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip[0] == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[(.*)\]", pip[1]).group(1).split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    python = next(
        item
        for item in environment["dependencies"]
        if isinstance(item, str) and item.startswith("python=")
    )
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        python.split("=")[1]
    )


def test_citation_prefers_the_paper():
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["preferred-citation"]["identifiers"][0]["value"] == "arXiv:2205.14814"
    assert citation["license"] == "MIT"
    assert citation["version"] == version("sscl_core")


def test_the_wheel_stands_alone(tmp_path):
    """Built, unpacked somewhere else, and imported from there: the embedded images and the scales come along."""
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(CHECKOUT),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sscl_core; from sscl_experiments import paths, study; from sscl_experiments.datasets.images import load_images;"
        "assert paths.CHECKOUT is None, paths.CHECKOUT;"
        "print(sscl_core.__file__, len(load_images('fashion_mnist_subset')), study.resolve('05_t_simclr', {}).seeds)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
    )
    assert run.stdout.decode().split() == [
        str(tmp_path / "site/sscl_core/__init__.py"),
        "10000",
        "5",
    ], run.stderr.decode()


def committed_files():
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [CHECKOUT / name for name in names if name and (CHECKOUT / name).is_file()]


def test_nothing_committed_holds_an_absolute_path_or_bulk():
    home = re.compile(rb"/(home|root|Users|work|private)/[A-Za-z0-9_.-]+")
    files = committed_files()
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        assert len(content) < 6e6, f"{path} is too large to commit"
        if path.suffix not in (".npz", ".png") and path.name != "test_environment.py":
            assert not home.search(content), f"{path}: {home.search(content)}"
