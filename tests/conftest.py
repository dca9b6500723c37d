"""Every tensor shape in the packages' signatures is checked while the tests run.

To reach the errors that a function raises by itself for bad input, tests take it out of that
wrapper with `inspect.unwrap`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from jaxtyping import install_import_hook

install_import_hook(("sscl_core", "sscl_experiments"), "beartype.beartype")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests that share the copied checkout of test_workflow.py go to one worker."""
    for item in items:
        if "checkout" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("workflow"))
