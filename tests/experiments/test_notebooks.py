"""The committed notebooks: how they are made, that their outputs are fresh, what they refuse.

test_workflow.py runs them.
"""

import errno
import json
import os
import pathlib

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sscl_core.files import write_json, write_text
from sscl_experiments import code, notebook, study
from sscl_experiments.notebook import begin
from sscl_experiments.studies.implicit_bias import figures
from sscl_experiments.workflow import planning

matplotlib.use("Agg")
BOOKS = {
    name: nbformat.read(planning.notebook_path(name), as_version=4) for name in study.all_studies()
}


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", sorted(BOOKS))
def test_structure(name):
    book = BOOKS[name]
    nbformat.validate(book)
    (parameters,) = [
        cell for cell in code_cells(book) if "parameters" in cell.metadata.get("tags", [])
    ]
    namespace = {}
    exec(parameters.source, namespace)
    declared = namespace["__annotations__"]
    assert set(declared) == set(study.study_of(name).parameters.model_fields), (
        "the parameters cell has the names that are checked, all of them"
    )
    assert study.resolve(name, {key: namespace[key] for key in declared}) == study.resolve(name, {})
    assert all(
        " # " in line
        for line in parameters.source.splitlines()
        if "=" in line and "steps_per_epoch" not in line and "epochs" not in line
    )
    assert "begin(" in code_cells(book)[1].source, "parameters are checked before anything runs"
    assert book.cells[0].cell_type == "markdown"
    assert "claim" in book.cells[0].source.lower()
    assert "What this does not show" in book.cells[-1].source
    for cell in code_cells(book):
        assert len(cell.source.splitlines()) <= 25, cell.source


@pytest.mark.parametrize("name", sorted(BOOKS))
def test_outputs_are_committed_and_fresh(name):
    book = BOOKS[name]
    cells = code_cells(book)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), (
        "run from top to bottom"
    )
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [
        output
        for output in outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]
    current = planning.notebook_key(name, study.resolve(name, {}))
    assert book.metadata["sscl"]["key"] == current, (
        "the code or the notebook changed since its outputs were made: make notebooks"
    )


@pytest.mark.parametrize(
    ("scale", "record", "matters"),
    [
        ("quick", "full/05_t_simclr.json", True),
        ("full", "full/05_t_simclr.json", False),  # what it writes itself does not make it stale
        ("quick", "search_fashion_mnist_subset.csv", True),
        ("quick", "full/kernel_experiment/cifar10-baselines.jsonl", True),
        ("full", "full/kernel_experiment/cifar10-baselines.jsonl", True),
        ("quick", "paper/best-simclr-resnet18-100-seed0.json", False),
        ("quick", "full/03_implicit_bias.json", False),
    ],
)
def test_a_record_that_a_notebook_shows_makes_its_outputs_stale(
    tmp_path, monkeypatch, scale, record, matters
):
    monkeypatch.setattr(planning.paths, "RECORDS", tmp_path)
    parameters = study.resolve("05_t_simclr", {"scale": scale, "seeds": 1})
    before = planning.notebook_key("05_t_simclr", parameters)
    write_text(tmp_path / record, "{}")
    assert (planning.notebook_key("05_t_simclr", parameters) != before) == matters


def test_code_of_configurations_makes_outputs_stale_and_no_run(monkeypatch, request):
    def keys():
        code.code_hash.cache_clear()
        job = planning.job("01_contrastive_is_sne", "smoke")
        return job.mark, job.groups[0].keys

    def changed(name):
        return real(name) + ("EXTRA = 1\n" if name == "sscl_core.config" else "")

    request.addfinalizer(code.code_hash.cache_clear)
    before, real = keys(), code.source_of
    monkeypatch.setattr(code, "source_of", changed)
    mark, runs = keys()
    assert mark != before[0]
    assert runs == before[1]


def begin_with(**values):
    notebook._begun.clear()
    return begin(
        "05_t_simclr", {"__name__": "__main__", "In": [], "begin": begin, "json": json, **values}
    )


def test_begin_takes_the_parameters_and_nothing_else(tmp_path):
    nb = begin_with(scale="smoke", seeds=3, results_dir=str(tmp_path), dims=None)
    assert (nb.p.scale, nb.p.seeds) == ("smoke", 3)
    assert nb.out == tmp_path / "custom", (
        "other sizes than the scale's own do not overwrite its results"
    )
    assert begin_with(scale="smoke", results_dir=str(tmp_path)).out == tmp_path / "smoke"


@pytest.mark.parametrize("wrong", [{"sedes": 3}, {"seeds": "x"}, {"seeds": -1}, {"dims": [0]}])
def test_begin_refuses_wrong_parameters_and_names_the_valid_ones(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*valid names: scale, seeds"):
        begin_with(**wrong)


def test_begin_can_be_run_again_beside_the_notebooks_own_variables():
    begin_with(scale="smoke")
    assert begin("05_t_simclr", {"scale": "smoke", "rows": [1], "table": 3}).p.scale == "smoke"


def test_figures_tables_and_verdicts_are_kept_with_their_data(tmp_path, capsys):
    nb = begin_with(scale="smoke", results_dir=str(tmp_path))

    def line():
        figure = Figure()
        figure.subplots().plot([1, 2])
        return figure

    nb.figure(line(), "line", pd.DataFrame({"x": [1, 2]}))
    nb.figure(Figure(), "empty", {"a": np.arange(3)})
    nb.table(pd.DataFrame({"x": [1 / 3]}), "thirds")
    outcome = nb.claim("C10", [2.0, 2.0, 2.0, 2.0, 2.0], withheld="it was told to")
    assert outcome.verdict == "not run at this scale"
    names = {str(path.relative_to(nb.out)) for path in nb.out.rglob("*") if path.is_file()}
    kept = [
        f"figures/05_t_simclr-{name}"
        for name in ("line.png", "line.svg", "line.csv", "empty.png", "empty.svg", "empty.npz")
    ]
    assert names == {*kept, "tables/05_t_simclr-thirds.csv", "claims/C10.json"}
    assert float(pd.read_csv(nb.out / "tables/05_t_simclr-thirds.csv").x[0]) == 1 / 3
    assert np.array_equal(np.load(nb.out / "figures/05_t_simclr-empty.npz")["a"], [0, 1, 2])
    svg = (nb.out / "figures/05_t_simclr-line.svg").read_bytes()
    nb.figure(line(), "line", pd.DataFrame({"x": [1, 2]}))
    assert (nb.out / "figures/05_t_simclr-line.svg").read_bytes() == svg, (
        "the same figure is the same file"
    )


def test_an_animation_is_shown_and_kept_with_its_data(tmp_path, capsys):
    nb = begin_with(scale="smoke", results_dir=str(tmp_path))
    z = np.random.default_rng(0).standard_normal((3, 8, 2))
    panels, labels = {"one": z, "two": z}, np.repeat([0, 1], 4)
    figure, animation = figures.training_animation(panels, labels, [0, 5, 10])
    nb.animation(figure, animation, "film", {"z": z})
    path = nb.out / "figures" / "05_t_simclr-film.gif"
    assert path.read_bytes().startswith(b"GIF8")
    assert np.array_equal(np.load(path.with_suffix(".npz"))["z"], z)
    with Image.open(path) as film:
        assert film.n_frames >= 3


def test_a_record_is_read_back_and_a_missing_one_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebook, "RECORDS", tmp_path / "records")
    nb = begin_with(scale="smoke", results_dir=str(tmp_path))
    assert nb.record("full") is None
    assert "no record of scale full" in capsys.readouterr().out
    content = {
        "date": "2026-01-01",
        "runs": 3,
        "core_hours": 0.5,
        "devices": ["x86_64"],
        "versions": {"torch": "2"},
        "parameters": {"seeds": 3},
    }
    write_json(
        tmp_path / "records" / "full" / "05_t_simclr.json",
        content | {"claims": [], "tables": {"t": "a,b\n1,2\n"}, "figures": {}},
    )
    assert nb.record("full")["tables"]["t"].b.tolist() == [2]
    assert "2026-01-01, 3 runs, 0.5 core hours on x86_64" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", ["", '{"date": "2026', "[1]", '{"tables": {"t": ""}, "figures": {}}', "{}"]
)
def test_a_damaged_record_is_named_with_the_remedy(content, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebook, "RECORDS", tmp_path)
    nb = begin_with(scale="smoke", results_dir=str(tmp_path))
    path = tmp_path / "full" / "05_t_simclr.json"
    write_text(path, content)
    with pytest.raises(
        ValueError,
        match=rf"{path} is damaged: `git checkout -- {path}`, in the checkout, brings it back",
    ):
        nb.record("full")


@pytest.mark.parametrize("kind", ["notebook", "record"])
def test_damage_of_what_is_committed_is_named_where_keys_are_made(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(planning.paths, "RECORDS", tmp_path)
    parameters = study.resolve("05_t_simclr", {"scale": "smoke"})
    if kind == "notebook":
        path = tmp_path / "05_t_simclr.ipynb"
        path.write_bytes(planning.notebook_path("05_t_simclr").read_bytes()[:999])
        monkeypatch.setattr(planning, "notebook_path", lambda name: path)
    else:
        path = tmp_path / "search_of_settings.csv"
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=f"{path} is damaged: `git checkout"):
        planning.notebook_key("05_t_simclr", parameters)


def test_a_full_disk_names_file_and_cause_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    nb = begin_with(scale="smoke", results_dir=str(tmp_path))

    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(
        OSError, match=r"05_t_simclr-line\.png could not be written.*No space left on device"
    ):
        nb.figure(Figure(), "line", {"a": np.arange(3)})
    with pytest.raises(OSError, match=r"05_t_simclr-t\.csv could not be written.*No space left"):
        nb.table(pd.DataFrame({"x": [1]}), "t")
    assert not [path for path in nb.out.rglob("*") if path.is_file()]
