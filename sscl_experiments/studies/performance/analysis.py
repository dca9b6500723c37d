"""All tables of the study, fitted exponents, and what a machine of these numbers is."""

import datetime
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

from sscl_core.files import write_json, write_text
from sscl_core.train import device_of, on_threads
from sscl_experiments.parameters import Parameters
from sscl_experiments.record import release
from sscl_experiments.statistics import t_quantile
from sscl_experiments.store import SCHEMA

from .contenders import FLOOR, IDIOM, OURS
from .losses import FASTER_PEER, FLOORS, loss_times, spending, threads_on
from .measuring import bandwidth, matrix_rate
from .parameters import Performance, usual
from .parts import part_times
from .steps import step_times
from .targets import Tables, target_table

LEAST_SIZES = 4  # of a fitted exponent


def measure(p: Performance) -> dict[str, pd.DataFrame]:
    """All that is measured, in turn; a line on the progress of each."""
    device = device_of(p.device)
    kinds: dict[str, Callable[[Performance, torch.device], pd.DataFrame]]
    kinds = {
        "machine": machine,
        "spending": spending,
        "parts": part_times,
        "steps": step_times,
        "losses": loss_times,  # last, as it takes longest
    }
    tables = {}
    for name, make in kinds.items():
        began = time.monotonic()
        tables[name] = make(p, device)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return tables


def machine(p: Performance, device: torch.device) -> pd.DataFrame:
    """What it is, and what it can do in float32 on each number of threads."""
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.machine()
    rows = []
    for number in threads_on(device, p):
        with on_threads(number):
            rate, transfer = matrix_rate(device), bandwidth(device)
        row = {"device": name, "cores": os.cpu_count(), "threads": number}
        rows.append(row | {"GFLOP/s": rate / 1e9, "GB/s": transfer / 1e9})
    return pd.DataFrame(rows)


def record_of(p: Performance, tables: Tables, seconds: float) -> dict[str, Any]:
    """As a notebook's record of a larger scale is, and is read by `Notebook.record`."""
    where = {"device", "data_dir", "results_dir"}
    texts = {name: table.to_csv(index=False) for name, table in tables.items()}
    return {
        "schema": SCHEMA,
        "parameters": p.model_dump(mode="json", exclude=where),
        "runs": 0,
        "core_hours": round(seconds / 3600, 2),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "devices": [str(tables["machine"].device.iloc[0])],
        "versions": {
            "torch": release("torch"),
            "numpy": release("numpy"),
            "python": platform.python_version(),
        },
        "claims": [],
        "tables": texts,
        "figures": {},
    }


def keep(tables: Tables, folder: Path, notebook: str) -> None:
    """As CSV files in `folder`, where records of a notebook look for its tables."""
    for name, table in tables.items():
        write_text(folder / f"{notebook}-{name}.csv", table.to_csv(index=False))


def bench(p: Parameters, out: Path | None) -> None:
    """Measures, prints every table, and keeps them in the file `out`."""
    assert isinstance(p, Performance)
    began = time.monotonic()
    tables = measure(p)
    if out:
        write_json(out, record_of(p, tables, time.monotonic() - began))
    shown = {
        f"Losses, d = {p.main_dim}: times as long as ours": ratios(tables["losses"]),
        "Ours over three products, by threads": by_threads(tables["losses"]),
        "Ours, absolute": absolute(tables),
        "Exponents of 2n": exponents(tables["losses"], p.fit_from),
        "Where the time of a loss goes": tables["spending"],
        "Other parts": tables["parts"].drop(columns=["ms_low", "ms_high"]),
        "Where a training step's time goes": tables["steps"],
        "Targets": target_table(tables),
        "Machine": tables["machine"],
    }
    for title, table in shown.items():
        print(f"\n{title}\n{table.to_string(index=False, float_format=_short, na_rep='')}")


def _short(x: float) -> str:
    return f"{x:.3g}"


def largest(tables: Tables, record: Mapping[str, Any] | None) -> Tables:
    """The record's tables where there is a record, else those just measured."""
    return record["tables"] if record else tables


def main_dim(losses: pd.DataFrame) -> int:
    """The number of features that is shown where only one is."""
    return usual(losses.dim.unique().tolist())


def shown(losses: pd.DataFrame, *methods: str) -> pd.DataFrame:
    """The rows of that dimension, on one thread; of all methods, or of those named."""
    some = losses[(losses.dim == main_dim(losses)) & (losses.threads == losses.threads.min())]
    return some[some.method.isin(methods)] if methods else some


def ratios(losses: pd.DataFrame) -> pd.DataFrame:
    """Loss and method by 2n: how many times as long as ours it takes, median and quartiles.

    What was not run has what it would need.
    """
    some = shown(losses)
    some = some[some.method != OURS]
    texts = [_ratio(row) for row in some.to_dict("records")]
    return _by_size(some.assign(text=texts))


def _ratio(row: Mapping[Any, Any]) -> str:
    if not np.isnan(row["ratio"]):
        return f"{row['ratio']:.3g} [{row['ratio_low']:.3g}, {row['ratio_high']:.3g}]"
    return str(row["why"]) if np.isnan(row["ms"]) else f"{row['ms']:.3g} ms"


def _by_size(table: pd.DataFrame) -> pd.DataFrame:
    wide = table.pivot(index=["loss", "method"], columns="rows", values="text")
    order = table[["loss", "method"]].drop_duplicates()
    ordered = wide.reindex(pd.MultiIndex.from_frame(order)).fillna("").reset_index()
    return ordered.rename(columns={name: f"2n = {name}" for name in wide})


def by_threads(losses: pd.DataFrame) -> pd.DataFrame:
    """Ours over three products by loss, 2n and number of threads: median and quartiles."""
    some = losses[(losses.dim == main_dim(losses)) & (losses.method == FLOOR)]
    some = some.dropna(subset="ratio")
    ends = [1 / some[name] for name in ("ratio", "ratio_high", "ratio_low")]
    texts = [f"{x:.2f} [{low:.2f}, {high:.2f}]" for x, low, high in zip(*ends, strict=True)]
    wide = some.assign(text=texts).pivot(index=["loss", "rows"], columns="threads", values="text")
    return wide.rename(columns=lambda number: f"threads: {number}").reset_index()


def absolute(tables: Tables) -> pd.DataFrame:
    """Ours: milliseconds, MiB, and what the machine does in that time, of what it can do.

    "matrix rate": three products of the shape in that time, over the measured rate. "bandwidth": an
    array of (2n)² numbers written and read, forward and backward, over the measured one. A method
    that computes each similarity once, or never writes such an array, can go beyond 1.
    """
    some = shown(tables["losses"], OURS).dropna(subset="ms")
    can = tables["machine"].iloc[0]
    per_second = some["rows"] ** 2 / (some.ms / 1e3)
    rate = 3 * 2 * some.dim * per_second / (1e9 * can["GFLOP/s"])
    transfer = 4 * 4 * per_second / (1e9 * can["GB/s"])
    columns = some[["loss", "rows", "ms", "MiB"]]
    return columns.assign(**{"matrix rate": rate, "bandwidth": transfer})


def exponents(losses: pd.DataFrame, fit_from: int) -> pd.DataFrame:
    """The slopes of log time and log memory against log 2n, from `fit_from` on.

    95 % intervals by Student's t of least squares, one point a size. Fewer than `LEAST_SIZES` sizes
    have no exponent: through three points an interval is wider than what it is to tell apart.
    """
    some = shown(losses)
    some = some[(some.rows >= fit_from) & (some.method != FASTER_PEER)]
    again = some.method.isin(FLOORS) & (some.loss != some.loss.iloc[0])
    rows = []
    for (loss, method), group in some[~again].groupby(["loss", "method"], sort=False):
        row = {"loss": "" if method in FLOORS else loss, "method": method}
        row |= {"sizes": str(group.ms.notna().sum())}
        row |= {"time exponent": _exponent(group.rows, group.ms)}
        rows.append(row | {"memory exponent": _exponent(group.rows, group.MiB)})
    return pd.DataFrame(rows)


def _exponent(x: pd.Series, y: pd.Series) -> str:
    """`slope` in words, or that there are too few sizes for it."""
    number = int(y.notna().sum())
    if number < LEAST_SIZES:
        words = {0: "not run", 1: "not from one size", 2: "not from two sizes"}
        return words.get(number, "not from three sizes")
    exponent, low, high = slope(x, y)
    return f"{exponent:.2f} [{low:.2f}, {high:.2f}]"


def slope(x: pd.Series, y: pd.Series) -> tuple[float, float, float]:
    """Of log y against log x, with its 95 % interval; NaN below `LEAST_SIZES` points above 0."""
    there = y.notna() & (y > 0)
    if there.sum() < LEAST_SIZES:
        return (np.nan, np.nan, np.nan)
    fit = stats.linregress(np.log(x[there]), np.log(y[there]))
    half = t_quantile(0.975, float(there.sum() - 2)) * fit.stderr
    return fit.slope, fit.slope - half, fit.slope + half


def answer(losses: pd.DataFrame) -> str:
    """A sentence a loss, in Markdown: at the largest 2n where ours and the floor were both run."""
    some = shown(losses, FLOOR, IDIOM).dropna(subset="ratio")
    lines = []
    for loss, group in some.groupby("loss", sort=False):
        at = group[group["rows"] == group["rows"].max()].set_index("method")
        if FLOOR not in at.index:
            continue
        floor = at.loc[FLOOR]
        ends = f"quartiles {1 / floor.ratio_high:.2f} to {1 / floor.ratio_low:.2f}"
        text = f"takes {1 / floor.ratio:.2f} times as long as three products ({ends}"
        size = f"2n = {floor['rows']:,}, d = {floor.dim}"
        lines.append(f"- **{loss}** at {size} {text}, {floor.repeats:.0f} rounds){_peer(at)}.")
    return "\n".join(lines)


def _peer(at: pd.DataFrame) -> str:
    if IDIOM not in at.index:
        return ""
    peer = at.loc[IDIOM]
    times, memory = f"{peer.ratio:.2g} times as long", f"{peer.memory_ratio:.2g} times as much"
    return f"; the ten-line form takes {times} as ours and {memory} memory"
