"""The arrows between modules: one way, without a circle, and none from one study to another."""

import ast
import sys

import pytest
from packaging.requirements import Requirement
from test_environment import PROJECT, canonical

from sscl_experiments.code import imported_by, path_of
from sscl_experiments.paths import PACKAGES

# From what stands at the top to what all rest on; a module belongs to the longest name it fits.
FLOORS = {
    "sscl_experiments.cli": 0,
    "sscl_experiments.__main__": 0,
    "sscl_experiments.commands": 1,
    "sscl_experiments.workflow": 2,
    "sscl_experiments.notebook": 2,
    "sscl_experiments.studies": 3,
    "sscl_experiments": 4,
    "sscl_experiments.runner": 4,
    "sscl_experiments.runs": 5,
    "sscl_experiments.datasets": 6,
    "sscl_experiments.arrangements": 6,
    "sscl_experiments.paths": 6,
    "sscl_experiments.record": 6,
    "sscl_core": 7,
}
# These find the studies, so they may name their package; what they import there is no study.
DISCOVER = {"sscl_experiments.study": {"sscl_experiments.studies"}}
GROUND = {"sscl_core.similarities", "sscl_core.affinities", "sscl_core.rng"}


def modules():
    for top, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((top, *(part for part in parts if part != "__init__")))


def imports(name, *, inside_functions):
    """Our modules that a module imports, at its own level or anywhere, without those around it."""
    path = path_of(name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not inside_functions:
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set(imported_by(ast.unparse(tree), package))
    above = {other for other in found if f"{name}.".startswith(f"{other}.")}
    return found - above - DISCOVER.get(name, set())


MODULES = list(modules())


def floor(name):
    return FLOORS[max((top for top in FLOORS if f"{name}.".startswith(f"{top}.")), key=len)]


def study_of(name):
    parts = name.split(".")
    return parts[2] if parts[1:2] == ["studies"] and len(parts) > 2 else None


def test_the_modules_are_found():
    assert {"sscl_core.losses", "sscl_experiments.workflow.planning"} <= set(MODULES)
    assert any(study_of(name) for name in MODULES)
    assert "sscl_core.similarities" in imports("sscl_core.losses", inside_functions=False)


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("sscl_core")])
def test_the_core_knows_nothing_of_the_experiments(name):
    found = imports(name, inside_functions=True)
    assert not [other for other in found if not other.startswith("sscl_core")]


@pytest.mark.parametrize("name", [name for name in MODULES if study_of(name)])
def test_studies_do_not_import_each_other(name):
    others = {study_of(other) for other in imports(name, inside_functions=True)}
    assert others <= {study_of(name), None}


@pytest.mark.parametrize("name", MODULES)
def test_arrows_point_down(name):
    for other in imports(name, inside_functions=False):
        assert floor(name) <= floor(other), f"{name} imports {other}"


@pytest.mark.parametrize("ground", sorted(GROUND))
def test_the_ground_floor_imports_only_checks_and_itself(ground):
    names = [name for name in MODULES if f"{name}.".startswith(f"{ground}.")]
    assert names
    for name in names:
        found = imports(name, inside_functions=True)
        allowed = {"sscl_core.checks", "sscl_core.similarities", *names}
        assert found <= allowed, f"{name} imports {found - allowed}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: imports(name, inside_functions=False) for name in MODULES}
    free = set()
    while ready := {name for name in graph if name not in free and graph[name] <= free}:
        free |= ready
    assert not {name: graph[name] - free for name in graph.keys() - free}


def test_the_core_imports_only_what_is_installed_with_it():
    names = {"sklearn": "scikit-learn"}
    needed = set()
    for name in MODULES:
        if name.startswith("sscl_core"):
            needed |= third_party(name)
    given = {canonical(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert {canonical(names.get(name, name)) for name in needed} == given


def third_party(name):
    tree = ast.parse(path_of(name).read_text(encoding="utf-8"))
    tops = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            tops |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            tops.add(node.module.partition(".")[0])
    return tops - set(sys.stdlib_module_names) - set(PACKAGES)
