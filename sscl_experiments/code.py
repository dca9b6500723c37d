"""What code a module reaches: its import closure, computed from the sources, and a hash of it.

The hash sees what code means, not how it is written down: comments, docstrings and layout do not
enter. `sscl_core.config` is left out, because a configuration is in the key of a result by itself,
field by field (see `store.run_key`).
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from .paths import PACKAGES

# Of syntax trees: what says nothing here, and what versions after 3.11 have.
LATER_FIELDS = ("kind", "type_comment", "type_ignores", "type_params")

DECLARATIVE = ("sscl_core.config",)  # what a test freezes, defaults and all


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


@lru_cache
def code_hash(*roots: str, without: tuple[str, ...] = DECLARATIVE) -> str:
    """Of all our modules that the modules `roots` reach, but for those in `without`."""
    modules = [name for name in closure(roots) if name not in without]
    return digest(*(f"{name}\0{_meaning(source_of(name))}" for name in modules))


def closure(roots: Iterable[str]) -> list[str]:
    """The modules named, and all of ours that they import, directly or not, in alphabetical order.

    An import inside a function counts. `ValueError`: a root that is not one of our modules.
    """
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if path_of(name) is None:
            raise ValueError(f"roots must name modules of ours, got {name!r}")
        if name not in found:
            found.add(name)
            waiting += _imported(name)
    return sorted(found)


def imported_by(source: str, package: str = "") -> Iterator[str]:
    """Our modules that a source text imports; `package` is what its relative imports start from."""
    return (name for name in _named(source, package) if path_of(name) is not None)


@cache
def _named(source: str, package: str) -> tuple[str, ...]:
    """All that may be a module among the names that a source text imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _imported(name: str) -> tuple[str, ...]:
    """Its packages count as imported: Python runs their `__init__` first."""
    is_package = path_of(name).name == "__init__.py"  # type: ignore[union-attr]
    above = name.rpartition(".")[0]
    parents = (above,) if above else ()
    return (*imported_by(source_of(name), name if is_package else above), *parents)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def path_of(name: str) -> Path | None:
    """The file of one of our modules; None for any other name."""
    top, *rest = name.split(".")
    if top not in PACKAGES:
        return None
    place = PACKAGES[top].joinpath(*rest)
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def source_of(name: str) -> str:
    path = path_of(name)
    assert path is not None
    return path.read_text(encoding="utf-8")


@cache  # by text: modules that several studies reach are read once a process
def _meaning(source: str) -> str:
    """The text without comments, docstrings, layout and the number of our own release."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not _is_version(node)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return _written(tree)


def _written(node: Any) -> str:
    """A syntax tree in one line, alike in all versions of Python: they unparse in several ways."""
    if isinstance(node, list):
        return f"[{','.join(map(_written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name not in LATER_FIELDS and value is not None and value != []:
            fields.append(f"{name}={_written(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_version(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
