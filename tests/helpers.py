"""What several files of tests need."""

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType


class _RenamedLoader(SourceFileLoader):
    """Loads a module of ours with its imports from our packages renamed as it is itself."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        return compile(source.replace("sscl_", "unchecked_"), self.path, "exec")


class _RenamedFinder:
    """Finds `unchecked_core` and `unchecked_experiments` where ours are."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in ("unchecked_core", "unchecked_experiments"):
            return None
        spec = PathFinder.find_spec(name.replace("unchecked_", "sscl_"), path)
        if spec is None:
            return None
        spec.name = name
        spec.loader = _RenamedLoader(name, spec.origin)
        return spec


def unchecked(module: str) -> ModuleType:
    """A module as users get it, and all of ours that it imports, without conftest's type checks.

    They are other modules than the checked ones: their classes are not the same classes.
    """
    if not any(finder is _RenamedFinder for finder in sys.meta_path):
        sys.meta_path.insert(0, _RenamedFinder)
    return importlib.import_module(module.replace("sscl_", "unchecked_"))
