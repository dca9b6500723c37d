"""Puts the embedded data and the scales into the wheel; an editable install reads them from the checkout."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RESOURCES = ("data/fashion_mnist_subset.npz", "data/LICENSE-fashion-mnist")


class ResourcesHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"].update(
                {path: f"sscl_experiments/resources/{path}" for path in RESOURCES}
            )
