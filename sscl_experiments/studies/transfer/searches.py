"""The search for each method's temperature and learning rate, the same for all.

On the embedded images, of which a fifth is held out: the targets are not looked at. First the
temperatures at the middle learning rate, then the rates at the best temperature; either list goes
on by a factor of two until its best value is inside, or `MOST` values were tried. Two seeds each.
What is best is what a linear probe on h says of the images held out: the endpoint's own measure.
No PyTorch: plans use it.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from sscl_experiments.paths import RECORDS, committed
from sscl_experiments.runs.transfer_config import TransferRun

from .methods import METHODS, RATES, Setting, transfer_run

TABLE = RECORDS / "search_transfer.csv"
SEEDS = (0, 1)
EPOCHS, IMAGES, HOLDOUT = 2, 3000, 0.2
MOST = 7  # values of one list, however far it goes on


class SearchRow(NamedTuple):
    """A run of the search, and the probe's accuracy on the images held out."""

    method: str
    temperature: float
    lr: float
    seed: int
    probe: float


Rows = Sequence[SearchRow]


def searched_run(method: str, setting: Setting, seed: int) -> TransferRun:
    return transfer_run(
        method,
        setting,
        "fashion_mnist_subset",
        epochs=EPOCHS,
        n_train=IMAGES,
        holdout=HOLDOUT,
        targets=(),
        seed=seed,
    )


def wanted(method: str, rows: Rows) -> list[Setting]:
    """The settings that the search of a method asks for next; none where it is done."""
    return _search(method, rows)[0]


def best(method: str, rows: Rows) -> Setting:
    """The setting with the best mean of those found so far, along the search's path."""
    return _search(method, rows)[1]


def _search(method: str, rows: Rows) -> tuple[list[Setting], Setting]:
    setting, scores = Setting(lr=RATES[1]), _scores(method, rows)
    if first := METHODS[method].temperatures:
        along = {s.temperature: score for s, score in scores.items() if s.lr == setting.lr}
        ask, value = _next(first, along)
        if ask:
            return [setting.replace(temperature=t) for t in ask], setting
        setting = setting.replace(temperature=value)
    along = {s.lr: score for s, score in scores.items() if s.temperature == setting.temperature}
    ask, value = _next(RATES, along)
    return [setting.replace(lr=lr) for lr in ask], setting.replace(lr=value)


def _scores(method: str, rows: Rows) -> dict[Setting, float]:
    """The mean over seeds of every setting that all seeds have."""
    found: dict[Setting, list[float]] = {}
    for row in rows:
        if row.method == method:
            setting = Setting(temperature=row.temperature, lr=row.lr)
            found.setdefault(setting, []).append(row.probe)
    means = {setting: sum(values) / len(values) for setting, values in found.items()}
    return {setting: means[setting] for setting in means if len(found[setting]) == len(SEEDS)}


def _next(first: Sequence[float], scores: Mapping[float, float]) -> tuple[list[float], float]:
    """The values to try next along a line, and the best so far.

    Those of `first` that are missing; then, while the best is at an end, one twice or half as far.
    """
    missing = [value for value in first if value not in scores]
    if missing:
        return missing, first[1]
    top = max(scores, key=lambda value: scores[value])
    if len(scores) >= MOST or min(scores) < top < max(scores):
        return [], top
    return [float(f"{top * (2 if top == max(scores) else 0.5):.3g}")], top


def tuned(method: str) -> Setting:
    """What the committed search says is best."""
    return best(method, search_table())


def inside(method: str, rows: Rows) -> bool:
    """Whether the best temperature and learning rate have tried values on either side."""
    chosen, scores = best(method, rows), _scores(method, rows)
    rates = [s.lr for s in scores if s.temperature == chosen.temperature]
    values = [s.temperature for s in scores if s.lr == RATES[1]]
    ends = {min(rates), max(rates)} & {chosen.lr}
    if METHODS[method].temperatures:
        ends |= {min(values), max(values)} & {chosen.temperature}
    return not ends


@lru_cache
def search_table() -> list[SearchRow]:
    """The rows of the committed search. `ValueError`, with the remedy: its file is damaged."""
    return committed(TABLE, _rows)


def _rows(text: str) -> list[SearchRow]:
    rows = [_row(row) for row in csv.DictReader(text.splitlines(), strict=True)]
    if not rows:
        raise ValueError("it has no rows")
    return rows


def _row(row: Mapping[str, str]) -> SearchRow:
    """`ValueError`: no method, or no number."""
    numbers = [float(row[name]) for name in ("temperature", "lr", "probe")]
    if row["method"] not in METHODS or not all(map(math.isfinite, numbers)):
        raise ValueError(f"no method, setting and accuracy: {dict(row)}")
    temperature, lr, probe = numbers
    return SearchRow(row["method"], temperature, lr, int(row["seed"]), probe)
