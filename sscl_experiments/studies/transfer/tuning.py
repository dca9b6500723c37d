"""Making the table of the search: `python -m sscl_experiments.studies.transfer`."""

import csv
import io
from pathlib import Path

from sscl_core.files import write_text
from sscl_experiments.runner import results

from .methods import METHODS
from .searches import SEEDS, TABLE, SearchRow, best, searched_run, wanted


def tune(runs: Path, methods: tuple[str, ...] = tuple(METHODS)) -> list[SearchRow]:
    """Runs the search of every method to its end; what is under `runs` is not run again."""
    rows: list[SearchRow] = []
    for method in methods:
        while settings := wanted(method, rows):
            keys = [(setting, seed) for setting in settings for seed in SEEDS]
            configs = [searched_run(method, setting, seed) for setting, seed in keys]
            records = results(configs, runs=runs)
            for (setting, seed), record in zip(keys, records, strict=True):
                probe = round(record.metrics["probe_own"], 6)
                rows.append(SearchRow(method, setting.temperature, setting.lr, seed, probe))
        print(method, best(method, rows), flush=True)
    return rows


def write(rows: list[SearchRow], path: Path = TABLE) -> None:
    """As a table with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SearchRow._fields)
    writer.writerows(rows)
    write_text(path, text.getvalue())
