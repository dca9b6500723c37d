"""Puts the embedded images and the tables of searches into the wheel.

The sizes of each scale are in the package anyway; an editable install reads all from the checkout.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RESOURCES = ("data/fashion_mnist_subset.npz", "data/LICENSE-fashion-mnist")


class ResourcesHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        tables = [str(path.relative_to(root)) for path in root.glob("data/records/search_*.csv")]
        places = {path: f"sscl_experiments/resources/{path}" for path in (*RESOURCES, *tables)}
        build_data["force_include"].update(places)
