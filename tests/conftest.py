"""Every tensor shape in the packages' signatures is checked while the tests run.

To reach the errors that a function raises by itself for bad input, tests take it out of that
wrapper with `inspect.unwrap`.
"""

import inspect
import os
import typing

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import beartype
import jaxtyping
import pytest


def names_shapes(annotation) -> bool:
    """Whether a shape stands in it. Of a text that is not known: it may."""
    if isinstance(annotation, str):
        return True
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(names_shapes, typing.get_args(annotation)))


def checked(typechecker, jaxtyped=jaxtyping.jaxtyped):
    """The decorator of the import hook. A function without shapes is spared their bookkeeping.

    It takes many times as long as beartype's own checks, which all functions have.
    """

    def decorate(fn):
        shapes = not inspect.isfunction(fn) or any(map(names_shapes, fn.__annotations__.values()))
        return jaxtyped(fn, typechecker=typechecker) if shapes else beartype.beartype(fn)

    return decorate


jaxtyping.jaxtyped = checked
jaxtyping.install_import_hook(("sscl_core", "sscl_experiments"), "beartype.beartype")

# Where the tests take longest: they come first, or one worker would be at them alone in the end.
LONGEST = ("test_workflow.py", "test_compile.py", "test_readme.py", "test_faults.py")
# What tests share and costs most to make: tests that use it go to one worker.
SHARED = ("checkout", "small", "root", "finished")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        for name in SHARED:
            if name in item.fixturenames:
                item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{name}"))
    items.sort(key=_place)


def _place(item):
    name = item.path.name
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)
