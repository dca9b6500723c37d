"""A key holds the code that a kind of run reaches: no less, no more, and only what it means."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sscl_experiments import code, store
from sscl_experiments.code import closure, code_hash
from sscl_experiments.paths import PACKAGES
from sscl_experiments.store import KINDS

ROOTS = {kind.__name__: root for kind, root in KINDS.items()}


class Copy:
    """A copy of both packages that is changed, and hashed in place of ours."""

    def __init__(self, folder: Path) -> None:
        self.packages = {name: folder / name for name in PACKAGES}

    def path(self, module: str) -> Path:
        top, *rest = module.split(".")
        place = self.packages[top].joinpath(*rest)
        return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")

    def change(self, module: str, old: str, new: str) -> None:
        text = self.path(module).read_text(encoding="utf-8")
        assert old in text
        self.path(module).write_text(text.replace(old, new), encoding="utf-8")

    def append(self, module: str, text: str) -> None:
        with self.path(module).open("a", encoding="utf-8") as file:
            file.write(text)

    def hashes(self) -> dict[str, str]:
        code_hash.cache_clear()
        return {kind: code_hash(root) for kind, root in ROOTS.items()}

    def changed_by(self, module: str, text: str) -> set[str]:
        """The kinds whose hash is another with this at the end of a module."""
        before = self.hashes()
        self.append(module, text)
        return {kind for kind, found in self.hashes().items() if found != before[kind]}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    for name, package in PACKAGES.items():
        ignore = shutil.ignore_patterns("__pycache__", "resources")
        shutil.copytree(package, tmp_path / name, ignore=ignore)
    copied = Copy(tmp_path)
    monkeypatch.setattr(code, "PACKAGES", copied.packages)
    yield copied
    monkeypatch.undo()
    code_hash.cache_clear()


ALL = {"Images", "Mixture", "Points"}
REACHED_BY = {
    "sscl_core.train": ALL,
    "sscl_core.losses": ALL,
    "sscl_core.similarities": ALL,
    "sscl_core.checks": ALL,
    "sscl_core.models": ALL,
    "sscl_core.rng": ALL,
    "sscl_core.batches": ALL,
    "sscl_core.augmentations": ALL,
    "sscl_core.evaluate": ALL,
    "sscl_experiments.runs": ALL,
    "sscl_experiments.runs.making": ALL,
    "sscl_core.ensemble": {"Mixture", "Points"},
    "sscl_experiments.runs.together": {"Mixture", "Points"},
    "sscl_experiments.datasets.synthetic": {"Mixture", "Points"},
    "sscl_experiments.datasets.images": {"Images"},
    "sscl_experiments.datasets.tables": {"Points"},
    "sscl_experiments.runs.points": {"Points"},
    "sscl_experiments.runs.images": {"Images"},
    "sscl_experiments.runs.mixture": {"Mixture"},
    "sscl_experiments.runs.starts": {"Mixture"},
    "sscl_core.config": set(),  # in the key by its values
    "sscl_experiments.store": set(),
    "sscl_experiments.runner": set(),
    "sscl_experiments.grouping": set(),
    "sscl_experiments.carry": set(),
    "sscl_experiments.claims": set(),
    "sscl_experiments.plotting": set(),
    "sscl_experiments.study": set(),
    "sscl_experiments.studies.implicit_bias.analysis": set(),
}
# What studies brought reaches all that runs on images, or all that toy runs reach, and its own.
for reached in REACHED_BY.values():
    reached |= {"TransferImages", "StressedImages"} if "Images" in reached else set()
    reached |= {"UnseenMixture", "StressedImages"} if {"Mixture", "Points"} <= reached else set()
    reached |= {"WhitenedPoints"} if "Points" in reached else set()
REACHED_BY |= {
    "sscl_core.moco": {"TransferImages"},
    "sscl_core.fit": {"TransferImages", "StressedImages"},
    "sscl_experiments.runs.labels": {"TransferImages", "StressedImages"},
    "sscl_experiments.datasets.targets": {"TransferImages"},
    "sscl_experiments.runs.transfer": {"TransferImages"},
    "sscl_core.attacks": {"StressedImages"},
    "sscl_core.corruptions": {"StressedImages"},
    "sscl_experiments.runs.robust_images": {"StressedImages"},
    "sscl_experiments.runs.unseen": {"StressedImages", "UnseenMixture"},
    "sscl_experiments.covariance_noise": {"WhitenedPoints"},
    "sscl_experiments.covariance_config": set(),
}


@pytest.mark.parametrize("module", REACHED_BY)
def test_changed_code_changes_the_keys_of_the_kinds_that_reach_it_and_no_others(module, copy):
    assert copy.changed_by(module, "\nADDED = 1\n") == REACHED_BY[module]


@pytest.mark.parametrize("kind", ROOTS)
def test_the_closure_has_every_module_of_ours_that_python_imports(kind):
    """In a process of its own, without what is imported inside functions."""
    script = f"import sys, {ROOTS[kind]}; print(*sys.modules)"
    python = [sys.executable, "-c", script]
    loaded = subprocess.run(python, capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.partition(".")[0] in PACKAGES}
    assert ROOTS[kind] in ours
    assert ours <= set(closure([ROOTS[kind]]))


@pytest.mark.parametrize(
    "statement",
    [
        "from sscl_experiments import claims",
        "from sscl_experiments.claims import Claim",
        "from ..claims import Claim",
        "from .. import claims",
        "import sscl_experiments.claims as c",
    ],
)
def test_an_import_inside_a_function_counts(statement, copy):
    module = "sscl_experiments.runs.points"
    copy.append(module, f"\n\ndef late() -> None:\n    {statement}\n")
    assert "sscl_experiments.claims" in closure([module])
    changed = copy.changed_by("sscl_experiments.claims", "\nADDED = 1\n")
    assert changed == {"Points", "WhitenedPoints"}


def test_an_import_of_a_package_counts_its_parts_no_more_than_python_does(copy):
    module = "sscl_experiments.runs.points"
    copy.append(module, "\nimport sscl_experiments.studies\n")
    assert "sscl_experiments.studies" in closure([module])
    assert "sscl_experiments.studies.implicit_bias.analysis" not in closure([module])


SAME = {
    "comment": ("\nCHECK_EVERY = 20", "\n# Another comment.\nCHECK_EVERY = 20"),
    "comment at the end": ("CHECK_EVERY = 20 ", "CHECK_EVERY = 20  # another, "),
    "layout": ("\nCHECK_EVERY = 20", "\n\n\nCHECK_EVERY = (\n    20\n)"),
    "docstring of a module": ('"""The training loop.', '"""Other words.'),
    "docstring of a class": ('"""A trained network, on the', '"""Other words, on the'),
    "docstring of a function": ('"""One pass over the data', '"""Other words'),
}


@pytest.mark.parametrize("what", SAME)
def test_the_hash_is_blind_to_what_means_nothing(what, copy):
    before = copy.hashes()
    copy.change("sscl_core.train", *SAME[what])
    assert copy.hashes() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CHECK_EVERY = 20", "CHECK_EVERY = 21"),
        ("    checkpoint_seconds: float = 60", "    checkpoint_seconds: float = 61"),
        ("loss.sum().backward()", "loss.mean().backward()"),
        ("    seconds: float = 0.0", "    seconds: float = 1.0"),
    ],
)
def test_the_hash_sees_what_means_something(old, new, copy):
    before = copy.hashes()
    copy.change("sscl_core.train", old, new)
    assert not before.items() & copy.hashes().items()


def test_a_docstring_that_is_the_whole_body_is_one(copy):
    copy.append("sscl_core.train", '\n\nclass Empty:\n    """What it is."""\n')
    before = copy.hashes()
    copy.change("sscl_core.train", '"""What it is."""', '"""Other words."""')
    assert copy.hashes() == before


def test_a_text_that_is_no_docstring_counts(copy):
    copy.append("sscl_core.train", '\nTEXT = """What it is."""\n')
    before = copy.hashes()
    copy.change("sscl_core.train", '"""What it is."""', '"""Other words."""')
    assert not before.items() & copy.hashes().items()


def test_another_release_of_ours_is_no_other_code(copy):
    before = copy.hashes()
    copy.change("sscl_core", "__version__ = ", "__version__ = '9' + ")
    assert copy.hashes() == before
    assert copy.changed_by("sscl_core", "\nADDED = 1\n") == ALL


def test_modules_that_trade_their_contents_are_other_code(copy):
    """Two modules of the same texts under each other's names."""
    for name, text in (("one", "X = 1\n"), ("two", "X = 2\n")):
        copy.packages["sscl_core"].joinpath(f"{name}.py").write_text(text, encoding="utf-8")
    copy.append("sscl_core.rng", "\nfrom . import one, two\n")
    before = copy.hashes()
    for name, text in (("one", "X = 2\n"), ("two", "X = 1\n")):
        copy.packages["sscl_core"].joinpath(f"{name}.py").write_text(text, encoding="utf-8")
    assert not before.items() & copy.hashes().items()


@pytest.mark.parametrize("root", ["sscl_core.absent", "torch", "nothing"])
def test_a_root_that_is_not_ours_is_an_error(root):
    with pytest.raises(ValueError, match=f"roots must name modules of ours, got '{root}'"):
        closure([root])


def test_every_kind_has_a_module():
    assert set(ROOTS) == ALL
    for root in ROOTS.values():
        assert root in closure([root])
    assert len({store.code_hash(root) for root in ROOTS.values()}) == len(ALL)


def test_the_meaning_of_a_text_is_its_tree_and_nothing_else():
    """Not as `ast.unparse` writes it, which differs between versions of Python."""
    same = ["f\"{'.' * 5}\"", "f'{\".\" * 5}'", "(f'{\".\" * 5}')  # five"]
    assert len({code._meaning(text) for text in same}) == 1
    others = ["None", "0", "''", "False", "()", "[]", "f()", "f(None)", "f(a)", "f(*a)", "f(a=1)"]
    others += ["a: int", "a: int = None", "def f(a=None): 1", "def f(a): 1", "return_ = 1"]
    assert len({code._meaning(text) for text in others}) == len(others)
    assert "type_params" not in code._meaning("def f(a): return a")
