"""Forward and backward of every loss by every method, over sizes of batches; and what it spends."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity

from sscl_core.train import on_threads

from .contenders import (
    CONTESTS,
    DENSE,
    FLOOR,
    FLOOR_IN_BLOCKS,
    IDIOM,
    METRIC_LEARNING,
    OURS,
    T_SNE,
    TILES,
    TORCHDR,
    check_agreement,
    contenders,
    gradient,
    three_products,
    three_products_in_blocks,
    views_of,
)
from .measuring import (
    Call,
    compared,
    interleaved,
    peak_bytes,
    quiet_profile,
    seconds,
)
from .parameters import Performance

GIB, MIB = 2**30, 2**20
FASTER_PEER = "the faster peer"  # of those that code bases use for InfoNCE
FLOORS = {FLOOR: three_products, FLOOR_IN_BLOCKS: three_products_in_blocks}
Key = tuple[str, str]  # loss, method; floors belong to no loss


class Reach:
    """Up to which batch each method goes: cost is expected to grow as the square of the rows."""

    def __init__(self, p: Performance) -> None:
        self.p = p
        self.last: dict[Key, tuple[int, float, float]] = {}

    def why_not(self, key: Key, rows: int) -> str:
        """What it would need; nothing where the method can be run at that size."""
        if key not in self.last:
            return ""
        before, held, took = self.last[key]
        growth = (rows / before) ** 2
        gib, expected = held * growth / GIB, took * growth
        if gib > self.p.most_gib:
            return f"≈ {gib:.2g} GiB"
        return f"≈ {expected:.2g} s" if expected > self.p.most_seconds else ""


def loss_times(p: Performance, device: torch.device) -> pd.DataFrame:
    """A row for each loss, method, 2n, d and number of threads.

    "ms" of forward and backward, "ratio" to ours in the same round, both with quartiles; "MiB" of
    peak extra memory, and "memory_ratio" to ours; "why" says what it would need where it was not
    run. Floors have a row
    for each loss. `AssertionError`: two methods do not agree in value or gradient.
    """
    check_agreement()
    rows = []
    for dim in p.dims:
        for number in threads_on(device, p):
            with on_threads(number):
                found = _over_sizes(p, dim, device)
            rows += [row | {"dim": dim, "threads": number} for row in found]
    first = ["loss", "method", "rows", "dim", "threads"]
    table = pd.DataFrame(rows)
    return table[first + [name for name in table if name not in first]]


def threads_on(device: torch.device, p: Performance) -> tuple[int, ...]:
    """A GPU computes by itself: threads of the CPU are as they are."""
    return p.threads if device.type == "cpu" else (torch.get_num_threads(),)


def _over_sizes(p: Performance, dim: int, device: torch.device) -> list[dict[str, Any]]:
    reach: Reach = Reach(p)
    rows: list[dict[str, Any]] = []
    for call in _calls(views_of(16, dim, p.seed, device)).values():
        call()  # libraries set themselves up once
    for size in sorted(p.rows):
        rows += _at_size(p, size, dim, device, reach)
    return rows


def _calls(views: list[Tensor]) -> dict[Key, Call]:
    z = torch.cat(views).detach()
    calls: dict[Key, Call] = {("", name): partial(floor, z) for name, floor in FLOORS.items()}
    for name in CONTESTS:
        for method, loss in contenders(name)[0].items():
            calls[name, method] = partial(gradient, loss, views)
    return calls


def _at_size(
    p: Performance, size: int, dim: int, device: torch.device, reach: Reach
) -> list[dict[str, Any]]:
    calls = _calls(views_of(size, dim, p.seed, device))
    excluded = {key: reach.why_not(key, size) for key in calls}
    excluded[("", FLOOR)] = excluded[("", FLOOR)] or _too_large(p, size)
    for key in calls:
        other = _only_beside(key)
        if other and excluded.get(other, "absent"):
            excluded[key] = excluded[key] or f"without {other[1]}"
    calls = {key: call for key, call in calls.items() if not excluded[key]}
    held, once = {}, {}
    for key, call in calls.items():
        held[key], once[key] = _first_run(call, device)
        reach.last[key] = (size, held[key], once[key])
    how: dict[str, Any] = {"repeats": p.seeds, "patience": p.patience, "once": once}
    times = interleaved(calls, device, **how)
    rows = []
    for name in CONTESTS:
        rows += _rows_of(name, times, held, excluded)
    return [row | {"rows": size} for row in rows]


def _only_beside(key: Key) -> Key | None:
    """What a method is compared with and nothing else: it is not run where that one is not."""
    loss, method = key
    if loss == T_SNE and method != TORCHDR:
        return loss, TORCHDR
    return (loss, DENSE) if method == TILES else None


def _too_large(p: Performance, size: int) -> str:
    gib = 4 * size**2 / GIB
    return f"≈ {gib:.2g} GiB" if gib > p.most_gib else ""


def _first_run(call: Call, device: torch.device) -> tuple[float, float]:
    """Bytes and seconds."""
    took: list[float] = []
    held = peak_bytes(lambda: took.append(seconds(call, device)), device)
    return held, took[0]


def _rows_of(
    name: str,
    times: Mapping[Key, np.ndarray],
    held: Mapping[Key, float],
    excluded: Mapping[Key, str],
) -> list[dict[str, Any]]:
    """Of one loss: every method, the floors, and what is missing."""
    here, missing = contenders(name)
    keys = [(name, method) for method in here] + [("", floor) for floor in FLOORS]
    rows: list[dict[str, Any]]
    ours = times.get((name, OURS))
    rows = [{"loss": name, "method": method, "why": why} for method, why in missing.items()]
    for key in keys:
        row: dict[str, Any] = {"loss": name, "method": key[1], "why": excluded[key]}
        if key in times:
            row |= _columns(times[key], ours) | {"MiB": held[key] / MIB}
            row["memory_ratio"] = _over(held[key], held.get((name, OURS)))
        rows.append(row)
    peers = [times[name, peer] for peer in (IDIOM, METRIC_LEARNING) if (name, peer) in times]
    if name == "info_nce" and peers:
        faster = _columns(np.min(peers, axis=0), ours)
        rows.append({"loss": name, "method": FASTER_PEER, "why": ""} | faster)
    return rows


def _columns(times: np.ndarray, ours: np.ndarray | None) -> dict[str, float]:
    return compared(times, np.full_like(times, np.nan) if ours is None else ours)


def _over(value: float, ours: float | None) -> float:
    return value / ours if ours else np.nan


# --- where the time goes -------------------------------------------------------------------------

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "matmul"),
    "copies": (
        "copy_",
        "fill_",
        "cat",
        "clone",
        "zero_",
        "masked_fill_",
        "masked_fill",
        "fill_diagonal_",
    ),
    "sums": ("sum", "logsumexp", "mean", "amax", "amin", "max", "norm", "linalg_vector_norm"),
}
PROFILED = 2048  # 2n at most
ELEMENTWISE, REST = "element by element", "Python and overhead"


def spending(p: Performance, device: torch.device) -> pd.DataFrame:
    """Shares of the time of our losses by kind of operation, at 2n = 2,048 or the largest below.

    A kind's time is that of its operations themselves, as PyTorch's profiler has it; the rest, up
    to the time of the call, is Python, launches and the profiler.
    """
    size = min(PROFILED, max(p.rows))
    views = views_of(size, p.main_dim, p.seed, device)
    rows = []
    with on_threads(1):
        for name in list(CONTESTS)[:3]:
            shares = _shares(partial(gradient, CONTESTS[name][0], views), device)
            rows.append({"loss": name, "rows": size, "dim": p.main_dim} | shares)
    return pd.DataFrame(rows)


def _shares(call: Call, device: torch.device) -> dict[str, float]:
    call()
    cuda = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with quiet_profile([ProfilerActivity.CPU, *cuda]) as profiler:
        took = 1e6 * seconds(call, device)
    spent = dict.fromkeys([*KINDS, ELEMENTWISE], 0.0)
    for event in profiler.key_averages():
        own = event.self_device_time_total if cuda else event.self_cpu_time_total
        if event.key.startswith("aten::"):
            spent[_kind(event.key.removeprefix("aten::"))] += own
    spent[REST] = max(0.0, took - sum(spent.values()))
    return {kind: value / max(took, sum(spent.values())) for kind, value in spent.items()}


def _kind(operation: str) -> str:
    found = [kind for kind, names in KINDS.items() if operation in names]
    return found[0] if found else ELEMENTWISE
