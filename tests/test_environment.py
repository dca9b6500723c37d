"""pyproject.toml, constraints.txt and environment.yml agree, and the wheel carries what it needs.

Nothing committed names a machine.
"""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires, version

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
CHECKSUMS = (CHECKOUT / "checksums.txt").read_text(encoding="utf-8")
SUMS = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(?: \\\n    --hash=sha256:[0-9a-f]{64})+$", re.M)


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


def test_every_pin_has_checksums_and_nothing_else_is_there():
    assert dict(SUMS.findall(CHECKSUMS)) == PINS
    rest = SUMS.sub("", CHECKSUMS)
    assert all(line.startswith("#") for line in rest.splitlines() if line)
    assert not any("lightning" in name for name in PINS)


def test_make_installs_all_that_the_extra_test_needs_by_checksum():
    """The first part of the pins is installed without looking for anything else: it is complete."""
    first, beyond = CHECKSUMS.split("\n# Beyond the extra test")
    pins = {canonical(name) for name, _ in SUMS.findall(first)}
    needed = {("editables",)}  # by which hatchling makes an editable install
    waiting = [Requirement("sscl-core[test]"), Requirement("hatchling")]
    while waiting:
        requirement = waiting.pop()
        key = (canonical(requirement.name), *sorted(requirement.extras))
        if key not in needed:
            needed.add(key)
            waiting += needs(requirement)
    assert {name for name, *_ in needed} - {"sscl-core"} <= pins
    assert SUMS.findall(beyond)
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    assert "--no-deps --require-hashes" in makefile
    assert "/^# Beyond the extra test/" in makefile


def needs(requirement):
    """What an installed distribution requires here, with the extras that are asked for."""
    for line in map(Requirement, requires(requirement.name) or ()):
        environments = [{"extra": extra} for extra in requirement.extras or {""}]
        if not line.marker or any(map(line.marker.evaluate, environments)):
            yield line


@pytest.mark.parametrize("arguments", [["--help"], ["reproduce", "--help"]])
def test_help_comes_without_pytorch(arguments):
    code = (
        "import sys; from sscl_experiments.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print(*sorted({'torch', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *arguments]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("usage: sscl")
    assert said.splitlines()[-1] == "", "imported"


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
    """Built, unpacked somewhere else, and imported from there, with embedded images and sizes."""
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
        "import sscl_core; from sscl_experiments import paths, study\n"
        "from sscl_experiments.datasets.images import load_images\n"
        "assert paths.CHECKOUT is None, paths.CHECKOUT\n"
        "images = load_images('fashion_mnist_subset')\n"
        "seeds = study.resolve('05_t_simclr', {}).seeds\n"
        "print(sscl_core.__file__, len(images), seeds)"
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
