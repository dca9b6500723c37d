"""What a reproduction ends with: claims.json, runs.csv, report.html, and the table of claims in the terminal."""

import csv
import html
import io
import json
import shutil
import textwrap
from pathlib import Path

from sscl_core.files import write_json, write_text
from sscl_experiments import store
from sscl_experiments.claims import Outcome
from sscl_experiments.study import all_claims, all_studies

from .planning import Plan, read_mark, sha256

COLUMNS = (
    ("claim", 5),
    ("what it says", 0),
    ("estimate [95 % interval]", 27),
    ("n", 3),
    ("rule", 13),
    ("verdict", 16),
)


def outcomes(out: Path) -> list[Outcome]:
    """The claims decided so far under results/<scale>, in the order of CLAIMS. `ValueError` names a file that is damaged."""
    files = {claim_id: out / "claims" / f"{claim_id}.json" for claim_id in all_claims()}
    return [_outcome(path, claim_id) for claim_id, path in files.items() if path.exists()]


def _outcome(path: Path, claim_id: str) -> Outcome:
    try:
        outcome = Outcome.model_validate_json(path.read_bytes())
        if outcome.claim.id != claim_id:
            raise ValueError(f"it holds claim {outcome.claim.id}")
    except ValueError as error:
        raise _damaged(path, _notebook_of(claim_id), error) from error
    return outcome


def _damaged(path: Path, notebook: str, error: Exception) -> ValueError:
    scale = path.parents[1].name
    remedy = f"`sscl reproduce --scale {scale} --notebooks {notebook}` makes it again"
    cause = str(error).partition("\n")[0]
    return ValueError(f"{path} is damaged: delete it, and {remedy} ({cause})")


def _notebook_of(claim_id: str) -> str:
    """The notebook that decides a claim."""
    decided_by = {
        claim.id: study.notebook for study in all_studies().values() for claim in study.claims
    }
    return decided_by[claim_id]


def write(plan: Plan) -> None:
    decided = outcomes(plan.out)
    content = {
        "schema": store.SCHEMA,
        "scale": plan.scale,
        "claims": [outcome.model_dump(mode="json") for outcome in decided],
    }
    write_json(plan.out / "claims.json", content)
    write_text(plan.out / "runs.csv", runs_csv(plan))
    write_text(plan.out / "report.html", report_html(plan, decided))


def runs_csv(plan: Plan) -> str:
    """A row per finished run and metric; a damaged record counts as none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            "notebook",
            "run",
            "data",
            "loss",
            "temperature",
            "d_z",
            "epochs",
            "seed",
            "metric",
            "value",
        ]
    )
    for job in plan.jobs:
        for config in job.parameters.runs():
            path = plan.results / "runs" / store.run_key(config) / "record.json"
            sound = path.exists() and store.intact(plan.results / "runs", path.parent.name)
            metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"] if sound else {}
            what = [
                job.notebook,
                store.run_key(config),
                config.data.name,
                config.loss.name,
                getattr(config.loss, "temperature", ""),
            ]
            for metric, value in metrics.items():
                writer.writerow(
                    [*what, config.projector.dim, config.epochs, config.seed, metric, value]
                )
    return file.getvalue()


def claims_table(decided: list[Outcome], width: int | None = None) -> str:
    """The claims as lines of text, the sentence wrapped to what the terminal leaves it."""
    width = width or shutil.get_terminal_size((120, 40)).columns
    free = max(24, width - sum(size for _, size in COLUMNS) - 2 * (len(COLUMNS) - 1))
    sizes = [size or free for _, size in COLUMNS]
    rows = [
        [name for name, _ in COLUMNS],
        ["-" * size for size in sizes],
        *(_row(outcome) for outcome in decided),
    ]
    return "\n".join(_wrapped(row, sizes) for row in rows)


def _row(outcome: Outcome) -> list[str]:
    claim = outcome.claim
    estimate = f"{outcome.estimate:.3g} [{outcome.low:.3g}, {outcome.high:.3g}]"
    verdict = outcome.verdict + (f" ({outcome.note})" if outcome.note else "")
    return [
        claim.id,
        claim.sentence,
        estimate,
        str(outcome.n),
        f"{claim.direction} {claim.threshold:g}",
        verdict,
    ]


def _wrapped(row: list[str], sizes: list[int]) -> str:
    cells = [textwrap.wrap(text, size) or [""] for text, size in zip(row, sizes, strict=True)]
    height = max(map(len, cells))
    lines = [
        [(cell + [""] * height)[i].ljust(size) for cell, size in zip(cells, sizes, strict=True)]
        for i in range(height)
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def report_html(plan: Plan, decided: list[Outcome]) -> str:
    """One page: the claims, every figure with the data behind it, and the executed notebooks."""
    figures = sorted(
        path for path in (plan.out / "figures").glob("*.*") if path.suffix in (".png", ".gif")
    )
    notebooks = [
        path
        for job in plan.jobs
        if (path := plan.out / "notebooks" / f"{job.notebook}.ipynb").exists()
    ]
    failed = sorted((plan.out / "failed").glob("*.txt"))
    sections = [
        f"<h1>Contrastive learning is stochastic neighbor embedding</h1><p>Scale: {plan.scale}. "
        "Intervals are 95 % over seeds, conditional on the test set; rules were fixed before the runs.</p>",
        _html_table([name for name, _ in COLUMNS], [_row(outcome) for outcome in decided]),
        *(
            f"<p class=failed>{html.escape(path.stem)} failed: <a href='failed/{path.name}'>traceback</a></p>"
            for path in failed
        ),
        "<h2>Notebooks</h2>",
        *(_link(_as_html(plan, path), plan.out) for path in notebooks),
        "<h2>Figures</h2>",
        *(_figure_html(path, plan.out) for path in figures),
    ]
    style = (
        "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}img{max-width:100%}"
        "td,th{padding:.3rem .6rem;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}.failed{color:#b00}"
    )
    head = f"<meta charset=utf-8><title>sscl, {plan.scale}</title><style>{style}</style>"
    return (
        f"<!doctype html><html lang=en><head>{head}</head><body>"
        + "\n".join(sections)
        + "</body></html>\n"
    )


def _html_table(header: list[str], rows: list[list[str]]) -> str:
    def line(tag: str, cells: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line("th", header) + "".join(line("td", row) for row in rows) + "</table>"


def _link(path: Path, base: Path) -> str:
    return f"<p><a href='{path.relative_to(base)}'>{html.escape(path.stem)}</a></p>"


def _figure_html(path: Path, base: Path) -> str:
    others = [p for suffix in (".svg", ".csv", ".npz") if (p := path.with_suffix(suffix)).exists()]
    links = " ".join(f"<a href='{p.relative_to(base)}'>{p.suffix[1:]}</a>" for p in others)
    source = path.relative_to(base)
    return f"<figure><img src='{source}' alt='{path.stem}'><figcaption>{html.escape(path.stem)}: {links}</figcaption></figure>"


def _as_html(plan: Plan, path: Path) -> Path:
    """The executed notebook as a page beside it, made anew unless both are those of the last time."""
    page, made = path.with_suffix(".html"), plan.marks / f"{path.stem}.page"
    if read_mark(made) != _checksums(path, page):
        import nbformat
        from nbconvert import HTMLExporter

        try:
            book = nbformat.read(path, as_version=4)
        except Exception as error:  # of what kind depends on what is wrong
            raise _damaged(path, path.stem, error) from error
        resources = {"metadata": {"name": path.stem}}
        write_text(page, HTMLExporter(embed_images=True).from_notebook_node(book, resources)[0])
        write_json(made, _checksums(path, page))
    return page


def _checksums(*paths: Path) -> dict[str, str | None]:
    return {path.name: sha256(path) for path in paths}
