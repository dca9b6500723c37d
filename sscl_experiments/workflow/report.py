"""What a reproduction ends with: claims.json, runs.csv, report.html, and the table of claims."""

import csv
import html
import io
import itertools
import shutil
import textwrap
from pathlib import Path

from sscl_core.config import TrainConfig
from sscl_core.files import write_json, write_text
from sscl_experiments import store
from sscl_experiments.claims import Outcome
from sscl_experiments.study import all_claims, all_studies

from .planning import Plan, read_mark, sha256
from .state import State

COLUMNS = (
    ("claim", 5),
    ("what it says", 0),
    ("estimate [95 % interval]", 27),
    ("n", 3),
    ("rule", 13),
    ("verdict", 16),
)
RUN_COLUMNS = (
    *("notebook", "run", "data", "loss", "temperature"),
    *("d_z", "epochs", "seed", "metric", "value"),
)
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "img{max-width:100%}"
    "td,th{padding:.3rem .6rem;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}"
    ".failed{color:#b00}"
)


def outcomes(out: Path) -> list[Outcome]:
    """The claims decided so far under results/<scale>, in the order of the notebooks.

    `ValueError` names a file that is damaged.
    """
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
    studies = all_studies().values()
    return next(s.notebook for s in studies if claim_id in {claim.id for claim in s.claims})


def conclude(state: State) -> bool:
    """Writes and prints what is there of all notebooks of a plan, finished or not.

    False, after saying why, where something is damaged.
    """
    try:
        table = claims_table(write(state))
    except ValueError as error:
        print(f"\nNo report: {error}")
        return False
    print(f"\n{table}\n\nFigures, tables and report.html: {state.plan.out}")
    return True


def write(state: State) -> list[Outcome]:
    """Writes claims.json, runs.csv and report.html, and returns the claims that were decided."""
    plan, decided = state.plan, outcomes(state.plan.out)
    content = {
        "schema": store.SCHEMA,
        "scale": plan.scale,
        "claims": [outcome.model_dump(mode="json") for outcome in decided],
    }
    write_json(plan.out / "claims.json", content)
    write_text(plan.out / "runs.csv", runs_csv(state))
    write_text(plan.out / "report.html", report_html(plan, decided))
    return decided


def runs_csv(state: State) -> str:
    """A row per finished run and metric; a damaged record counts as none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(RUN_COLUMNS)
    for job in state.plan.jobs:
        for config in job.parameters.runs():
            key = store.run_key(config)
            if record := state.records.get(key):
                writer.writerows(_run_rows(job.notebook, config, key, record["metrics"]))
    return file.getvalue()


def _run_rows(
    notebook: str, config: TrainConfig, key: str, metrics: dict[str, float]
) -> list[list[object]]:
    temperature = getattr(config.loss, "temperature", "")
    what = [notebook, key, config.data.name, config.loss.name, temperature]
    sizes = [config.projector.dim, config.epochs, config.seed]
    return [[*what, *sizes, metric, value] for metric, value in metrics.items()]


def claims_table(decided: list[Outcome], width: int | None = None) -> str:
    """The claims as lines of text, the sentence wrapped to what the terminal leaves it."""
    width = width or shutil.get_terminal_size((120, 40)).columns
    gaps = 2 * (len(COLUMNS) - 1)
    free = max(24, width - sum(size for _, size in COLUMNS) - gaps)
    sizes = [size or free for _, size in COLUMNS]
    header = [[name for name, _ in COLUMNS], ["-" * size for size in sizes]]
    rows = header + [_row(outcome) for outcome in decided]
    return "\n".join(_wrapped(row, sizes) for row in rows)


def _row(outcome: Outcome) -> list[str]:
    claim = outcome.claim
    ends = "worst case" if claim.worst else f"[{outcome.low:.3g}, {outcome.high:.3g}]"
    estimate = f"{outcome.estimate:.3g} {ends}"
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
    columns = [textwrap.wrap(text, size) for text, size in zip(row, sizes, strict=True)]
    lines = []
    for words in itertools.zip_longest(*columns, fillvalue=""):
        padded = [text.ljust(size) for text, size in zip(words, sizes, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def report_html(plan: Plan, decided: list[Outcome]) -> str:
    """One page: the claims, every figure with the data behind it, and the executed notebooks."""
    header = [name for name, _ in COLUMNS]
    failed = sorted((plan.out / "failed").glob("*.txt"))
    sections = [
        "<h1>Contrastive learning is stochastic neighbor embedding</h1>",
        f"<p>Scale: {plan.scale}. Intervals are 95 %: over seeds, and over test images too where "
        "the estimand says so. Rules were fixed before the runs that decide.</p>",
        _html_table(header, [_row(outcome) for outcome in decided]),
        *map(_failure_html, failed),
        "<h2>Notebooks</h2>",
        *(_link(_as_html(plan, path), plan.out) for path in _executed(plan)),
        "<h2>Figures</h2>",
        *(_figure_html(path, plan.out) for path in _figures(plan)),
    ]
    title = f"<title>sscl, {plan.scale}</title>"
    head = f"<head><meta charset=utf-8>{title}<style>{STYLE}</style></head>"
    body = "<body>" + "\n".join(sections) + "</body>"
    return f"<!doctype html><html lang=en>{head}{body}</html>\n"


def _executed(plan: Plan) -> list[Path]:
    places = [plan.out / "notebooks" / f"{job.notebook}.ipynb" for job in plan.jobs]
    return [path for path in places if path.exists()]


def _figures(plan: Plan) -> list[Path]:
    found = sorted((plan.out / "figures").glob("*.*"))
    return [path for path in found if path.suffix in (".png", ".gif")]


def _failure_html(traceback: Path) -> str:
    link = f"<a href='failed/{traceback.name}'>traceback</a>"
    return f"<p class=failed>{html.escape(traceback.stem)} failed: {link}</p>"


def _html_table(header: list[str], rows: list[list[str]]) -> str:
    def line(tag: str, cells: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line("th", header) + "".join(line("td", row) for row in rows) + "</table>"


def _link(path: Path, base: Path) -> str:
    return f"<p><a href='{path.relative_to(base)}'>{html.escape(path.stem)}</a></p>"


def _figure_html(path: Path, base: Path) -> str:
    others = [path.with_suffix(suffix) for suffix in (".svg", ".csv", ".npz")]
    data = [other for other in others if other.exists()]
    links = " ".join(f"<a href='{p.relative_to(base)}'>{p.suffix[1:]}</a>" for p in data)
    image = f"<img src='{path.relative_to(base)}' alt='{path.stem}'>"
    caption = f"<figcaption>{html.escape(path.stem)}: {links}</figcaption>"
    return f"<figure>{image}{caption}</figure>"


def _as_html(plan: Plan, path: Path) -> Path:
    """The executed notebook as a page beside it, made anew unless both are as they were."""
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
