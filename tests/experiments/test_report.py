"""The table in the terminal, claims.json, runs.csv and report.html, from outcomes made by hand."""

import csv
import json
import os

import nbformat
import pytest

from sscl_core.files import write_text
from sscl_experiments import store
from sscl_experiments.claims import decide
from sscl_experiments.record import Record
from sscl_experiments.study import all_claims
from sscl_experiments.workflow import execution, planning, report
from sscl_experiments.workflow.state import look

CLAIMS = all_claims()


@pytest.fixture
def plan(tmp_path):
    plan = planning.plan("smoke", tmp_path)
    decided = [
        decide(CLAIMS["C2"], [0.01, 0.02, 0.01, 0.02, 0.01], scale="smoke"),
        decide(CLAIMS["C3"], [0.5], scale="smoke"),
    ]
    for outcome in decided:
        write_text(plan.out / "claims" / f"{outcome.claim.id}.json", outcome.model_dump_json())
    config = plan.jobs[0].parameters.runs()[0]
    store.save(tmp_path / "runs", [Record(config, {"accuracy": 0.25, "loss": 1.5})])
    figure = plan.out / "figures" / "a-<b>.png"
    write_text(figure, "")
    write_text(figure.with_suffix(".csv"), "x\n1\n")
    write_text(plan.out / "failed" / "05_t_simclr.txt", "Traceback\nValueError: no")
    return plan


def test_outcomes_round_trip_in_the_order_of_the_claims(plan):
    first, second = report.outcomes(plan.out)
    assert (first.claim.id, second.claim.id) == ("C2", "C3")
    assert first.verdict == "replicates"
    assert second.low == float("-inf")  # one seed: the interval is everything


@pytest.mark.parametrize("width", [80, 120, 200])
def test_table_fits_the_terminal_and_loses_no_word(plan, width):
    table = report.claims_table(report.outcomes(plan.out), width)
    assert max(map(len, table.splitlines())) <= max(width, 106)
    for word in f"{CLAIMS['C2'].sentence} {CLAIMS['C3'].sentence} replicates 5".split():
        assert word in table


def test_files(plan):
    report.write(look(plan))
    content = json.loads((plan.out / "claims.json").read_text(encoding="utf-8"))
    assert (content["schema"], content["scale"], len(content["claims"])) == (
        store.SCHEMA,
        "smoke",
        2,
    )
    rows = list(csv.DictReader((plan.out / "runs.csv").open()))
    assert [(row["metric"], float(row["value"]), row["seed"]) for row in rows] == [
        ("accuracy", 0.25, "0"),
        ("loss", 1.5, "0"),
    ]
    page = (plan.out / "report.html").read_text(encoding="utf-8")
    assert "replicates" in page
    assert "05_t_simclr failed" in page
    assert "a-&lt;b&gt;: <a href" in page
    assert "<b>.png" not in page.replace("src='figures/a-<b>.png'", "")


def test_failures_say_where_to_look(plan):
    assert any(
        "05_t_simclr: ValueError: no" in line and "traceback" in line
        for line in execution.failures(plan, plan.jobs)
    )
    mark = plan.jobs[0].groups[0].mark
    write_text(plan.out / "logs" / f"{mark}.log", "step 1\nsscl: it broke\n")
    assert any(
        "training runs of 01_contrastive_is_sne: sscl: it broke" in line
        for line in execution.failures(plan, plan.jobs)
    )


def test_marks_name_what_they_depend_on(tmp_path, monkeypatch):
    before = {job.notebook: job.mark for job in planning.plan("smoke", tmp_path).jobs}
    assert before == {
        job.notebook: job.mark for job in planning.plan("smoke", tmp_path / "elsewhere").jobs
    }
    assert before != {job.notebook: job.mark for job in planning.plan("quick", tmp_path).jobs}
    real = planning.notebook_path
    copy = tmp_path / "01_contrastive_is_sne.ipynb"

    def with_copy(name):
        return copy if name == copy.stem else real(name)

    book = json.loads(real(copy.stem).read_text(encoding="utf-8"))
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    copy.write_text(json.dumps(book), encoding="utf-8")
    monkeypatch.setattr(planning, "notebook_path", with_copy)
    assert before == {job.notebook: job.mark for job in planning.plan("smoke", tmp_path).jobs}, (
        "outputs are not source"
    )
    book["cells"][-1]["source"] = "another last word"
    copy.write_text(json.dumps(book), encoding="utf-8")
    after = {job.notebook: job.mark for job in planning.plan("smoke", tmp_path).jobs}
    assert [name for name in after if after[name] != before[name]] == ["01_contrastive_is_sne"]


def test_looking_again_at_what_is_to_do_hashes_nothing(plan, monkeypatch):
    """The bar looks twice a second, beside the jobs that it watches.

    Hashing anew took a tenth of a second each time.
    """
    before = execution._todo(plan)
    monkeypatch.setattr(store, "run_key", lambda config: pytest.fail("hashed a run again"))
    monkeypatch.setattr(
        planning, "notebook_key", lambda *of: pytest.fail("hashed a notebook again")
    )
    assert execution._todo(plan) == before
    assert before[0] > 0


def test_a_page_is_made_anew_when_it_or_its_notebook_is_another(plan):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("first words")])
    path = plan.out / "notebooks" / f"{plan.jobs[0].notebook}.ipynb"
    write_text(path, nbformat.writes(book))
    report.write(look(plan))
    page = path.with_suffix(".html")
    content = page.read_text(encoding="utf-8")
    assert "first words" in content
    time = page.stat().st_mtime_ns
    report.write(look(plan))
    assert page.stat().st_mtime_ns == time, "nothing changed"
    page.write_text(content[:-9], encoding="utf-8")
    report.write(look(plan))
    assert page.read_text(encoding="utf-8") == content
    book.cells[0].source = "other words"
    old = path.stat()
    write_text(path, nbformat.writes(book))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    report.write(look(plan))
    assert "other words" in page.read_text(encoding="utf-8")
    write_text(path, path.read_text(encoding="utf-8")[:50])
    with pytest.raises(
        ValueError,
        match=f"{path} is damaged: delete it, and `sscl reproduce --scale smoke --notebooks 01_",
    ):
        report.write(look(plan))


def test_a_damaged_record_counts_as_none(plan):
    assert len(report.runs_csv(look(plan)).splitlines()) == 3
    (folder,) = (plan.results / "runs").iterdir()
    (folder / "record.json").write_text("{}", encoding="utf-8")
    assert len(report.runs_csv(look(plan)).splitlines()) == 1
