"""A study is found in its folder: one that is thrown away afterwards; and Snakemake by itself."""

import json
import shutil

import pytest
import throwaway
from throwaway import NAME, run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A copy of the checkout to which the study and its notebook are added, and nothing else."""
    root = tmp_path_factory.mktemp("discovery")
    throwaway.copy_of_the_checkout(root)
    throwaway.add_study(root)
    return root


@pytest.fixture(scope="module")
def reproduced(root):
    options = ("--scale", "smoke", "--cores", "1", "--notebooks", NAME)
    return run(root, "sscl_experiments", "reproduce", *options)


def test_a_study_is_found_in_its_folder(root, reproduced):
    assert reproduced.returncode == 0, reproduced.stdout + reproduced.stderr
    assert "5 training runs" in reproduced.stdout
    (line,) = [line for line in reproduced.stdout.splitlines() if line.startswith("T99 ")]
    assert "A throw-away claim" in line
    assert "replicates" in line
    out = root / "results" / "smoke"
    claims = json.loads((out / "claims.json").read_text(encoding="utf-8"))["claims"]
    assert [claim["claim"]["id"] for claim in claims] == ["T99"]
    assert (out / "notebooks" / f"{NAME}.ipynb").exists()


SNAKEMAKE = ("snakemake", "--cores", "1", "--config", "scale=smoke", f"notebooks={NAME}")


def content(folder, *without):
    files = [path for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in files if path.parts[len(folder.parts)] not in without]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def test_snakemake_by_itself_does_the_same(root, reproduced):
    """It finds Snakefile and profile; marks have the same names, so that both know what is done."""
    out = root / "results" / "smoke"
    same = ("claims", "claims.json", "runs.csv")
    expected = {name: text for name, text in content(out).items() if name.startswith(same)}
    marks = {path.name for path in (out / ".done").iterdir()}
    shutil.rmtree(root / "results")
    dry = run(root, *SNAKEMAKE, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert not (root / "results" / "runs").exists()
    by_itself = run(root, *SNAKEMAKE)
    assert by_itself.returncode == 0, by_itself.stdout + by_itself.stderr
    assert "\nT99 " in by_itself.stdout
    found = content(out)
    assert {path.name for path in (out / ".done").iterdir()} == marks
    assert expected.keys() <= found.keys()
    assert found["claims.json"] == expected["claims.json"]
    again = run(root, "sscl_experiments", "reproduce", "--scale", "smoke", "--notebooks", NAME)
    assert "Nothing changed" in again.stdout
    before = content(out, "logs", ".snakemake", ".lock")
    assert run(root, *SNAKEMAKE).returncode == 0
    assert content(out, "logs", ".snakemake", ".lock") == before


def test_snakemake_by_itself_says_what_failed(root, reproduced):
    path = throwaway.notebook(root)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("_ = nb.claim", "1 / 0; _ = nb.claim"), encoding="utf-8")
    failed = run(root, *SNAKEMAKE)
    path.write_text(text, encoding="utf-8")
    assert failed.returncode != 0
    assert f"FAILED\nnotebook {NAME}: ZeroDivisionError" in failed.stdout
    assert not (root / "results" / "smoke" / "claims" / "T99.json").exists()


@pytest.mark.parametrize("config", ["scale=huge", "notebook=x"])
def test_snakemake_by_itself_refuses_what_it_does_not_know(config, root):
    refused = run(root, "snakemake", "--cores", "1", "--config", config)
    assert refused.returncode != 0
    assert "--config takes scale (smoke, quick, full), notebooks" in refused.stdout + refused.stderr
