"""What the project set out to reach, as data, and what of it a measurement has reached."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from .contenders import DIRECT, FLOOR, OURS
from .losses import FASTER_PEER
from .parts import FAISS, KORNIA, LOOP, OPENTSNE, PRODUCT, SKLEARN
from .steps import READY

Tables = Mapping[str, pd.DataFrame]
NOT_RUN = "not measured"
INFO_NCE, JOINT, CONDITIONAL = "info_nce", "t_simclr joint", "t_simclr conditional"


@dataclass(frozen=True)
class Target:
    """The worst of a column, over all rows of a table in which the columns `where` are so.

    A value of `where` is what the column holds, or (least,) of a number. `inverse`: the column has
    theirs over ours, the target is about ours over theirs.
    """

    what: str
    table: str
    where: Mapping[str, Any]
    column: str
    rule: Literal["at least", "at most"]
    threshold: float
    unit: str = "×"
    inverse: bool = False

    @property
    def text(self) -> str:
        return f"{self.rule} {self.threshold:,g} {self.unit}"


def _against_floor(loss: str, most: float) -> Target:
    where = {"loss": loss, "method": FLOOR, "rows": 8192, "dim": 128}
    what = f"{loss}, 2n = 8,192, d = 128: time over three products"
    return Target(what, "losses", where, "ratio", "at most", most, inverse=True)


def _large(loss: str) -> Target:
    where = {"loss": loss, "method": OURS, "rows": 65_536, "dim": 128}
    what = f"{loss}, 2n = 65,536, d = 128: peak extra memory"
    return Target(what, "losses", where, "MiB", "at most", 512.0, "MiB")


_FASTER = {"loss": INFO_NCE, "method": FASTER_PEER}
_SMALL_BATCH = {"loss": JOINT, "method": DIRECT, "rows": 2048, "dim": 128}
_KNN = {"part": "k-NN", "size": "50,000 × 10,000, 512-d"}
_VIEWS = {"part": "SimCLR's views", "size": "256 of 3 × 32 × 32"}
_CONV_NET = {"network": "conv net, 28×28", "pairs": 128}
_TOYS = {"part": "toy ensembles"}
_P = {"part": "perplexity matching"}


def _part(what: str, where: Mapping[str, Any], least: float, column: str = "ratio") -> Target:
    return Target(what, "parts", where, column, "at least", least)


def _toys(pairs: int, least: float) -> Target:
    where = _TOYS | {"method": LOOP, "size": f"256 seeds, {pairs} pairs a batch"}
    return _part(
        f"256 toy networks at once, {pairs} pairs a batch: faster than a loop", where, least
    )


TARGETS = (
    Target(
        "t_simclr joint, 2n = 2,048, d = 128: faster than the direct formula",
        *("losses", _SMALL_BATCH, "ratio", "at least", 800.0),
    ),
    Target(
        "the same: times less peak extra memory",
        *("losses", _SMALL_BATCH, "memory_ratio", "at least", 500.0),
    ),
    Target(
        "info_nce, every size from 2n = 512: faster than the faster peer",
        *("losses", _FASTER | {"rows": (512,)}, "ratio", "at least", 1.0),
    ),
    Target(
        "info_nce, every size from 2n = 8,192: faster than the faster peer",
        *("losses", _FASTER | {"rows": (8192,)}, "ratio", "at least", 3.0),
    ),
    _against_floor(INFO_NCE, 0.55),
    _against_floor(JOINT, 0.4),
    _against_floor(CONDITIONAL, 0.65),
    _large(INFO_NCE),
    _large(JOINT),
    _large(CONDITIONAL),
    Target(
        "k-NN, 50,000 × 10,000, 512-d: time over one product and top-k",
        *("parts", _KNN | {"method": PRODUCT}, "ratio", "at most", 1.3, "×", True),
    ),
    _part("the same: faster than scikit-learn's brute force", _KNN | {"method": SKLEARN}, 1.0),
    _part("the same: faster than faiss-cpu, flat", _KNN | {"method": FAISS}, 1.0),
    _part("perplexity matching: faster than scikit-learn", _P | {"method": SKLEARN}, 1.0),
    _part("perplexity matching: faster than openTSNE, exact", _P | {"method": OPENTSNE}, 1.0),
    Target(
        "SimCLR's views for 32×32 colour, one core",
        *("parts", _VIEWS | {"method": OURS}, "rate", "at least", 30_000.0, "views a second"),
    ),
    _part("the same: faster than kornia", _VIEWS | {"method": KORNIA}, 3.5),
    Target(
        "training step, conv net on 28×28: rate over that on ready-made views",
        *("steps", _CONV_NET | {"part": READY}, "share", "at least", 0.9),
    ),
    _toys(16, 12.0),
    _toys(64, 5.0),
)


@dataclass(frozen=True)
class Reached:
    """The worst value found, its quartiles, and the row that it is from; NaN where none is."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    row: Mapping[Any, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        if math.isnan(self.value):
            return NOT_RUN
        spread = "" if math.isnan(self.low) else f" [{self.low:,.3g}, {self.high:,.3g}]"
        return f"{self.value:,.3g}{spread}"


def reached(target: Target, tables: Tables) -> Reached:
    """What the tables have of it, by the median of the worst row."""
    table = tables[target.table]
    for name, value in target.where.items():
        column = table[name]
        table = table[column >= value[0] if isinstance(value, tuple) else column == value]
    if target.column not in table or table[target.column].isna().all():
        return Reached()
    values = 1 / table[target.column] if target.inverse else table[target.column]
    worst = values.argmin() if target.rule == "at least" else values.argmax()
    row: dict[Any, Any] = table.iloc[int(worst)].to_dict()
    low, high = (row.get(f"{target.column}_{end}", math.nan) for end in ("low", "high"))
    if target.inverse:
        low, high = 1 / high, 1 / low
    return Reached(float(values.iloc[int(worst)]), low, high, row)


def is_met(target: Target, found: Reached) -> bool:
    if target.rule == "at least":
        return found.value >= target.threshold
    return found.value <= target.threshold


def target_table(tables: Tables) -> pd.DataFrame:
    """Every target: what was measured (median and quartiles), where it was worst, met or not."""
    rows = []
    for target in TARGETS:
        found = reached(target, tables)
        known = {"what": target.what, "target": target.text, "measured": found.text}
        met = "yes" if is_met(target, found) else "no"
        verdict = NOT_RUN if math.isnan(found.value) else met
        rows.append(known | {"met": verdict, "worst at": _place(found.row)})
    return pd.DataFrame(rows)


def _place(row: Mapping[Any, Any]) -> str:
    """Threads, and sizes of a batch."""
    names = {"rows": "2n = {:,}", "dim": "d = {}", "threads": "threads: {}", "size": "{}"}
    return ", ".join(text.format(row[name]) for name, text in names.items() if name in row)
