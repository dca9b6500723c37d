"""Time and memory of calls that are compared: side by side, in one process."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]
T = TypeVar("T")
SHORTEST = 0.02  # seconds of a turn: a shorter call is made several times in it
MOST_CALLS = 100  # in one turn
FEWEST = 3  # rounds, however long they take


def installed(makers: Mapping[str, Callable[[], T]]) -> tuple[dict[str, T], dict[str, str]]:
    """What can be made here, and why the rest cannot."""
    made, missing = {}, {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except ImportError as error:
            missing[name] = f"{error.name or name} is not installed"
    return made, missing


def seconds(call: Call, device: torch.device, times: int = 1) -> float:
    """Of one call among `times`: by the clock on a CPU, between two events on a GPU."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        _repeat(call, times)
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end) / 1e3 / times
    began = time.perf_counter()
    _repeat(call, times)
    return (time.perf_counter() - began) / times


def _repeat(call: Call, times: int) -> None:
    for _ in range(times):
        call()


def peak_bytes(call: Call, device: torch.device) -> float:
    """The most that PyTorch's allocator has given out at a time during a call, above before it.

    Temporaries inside operations count, buffers that BLAS keeps for itself and arrays of other
    libraries do not. On a GPU the allocator keeps count; on a CPU its allocations and releases are
    added up from PyTorch's profiler, which takes some 10 kB an operation itself.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device) - before)
    with quiet_profile([ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    results = profiler.profiler.kineto_results
    events = [event for event in results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    held = np.cumsum([event.nbytes() for event in events])
    return float(held.max(initial=0))


def quiet_profile(
    activities: Sequence[ProfilerActivity], *, profile_memory: bool = False
) -> profile:
    """PyTorch's profiler, which else prints when it begins."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    return profile(activities=activities, profile_memory=profile_memory)


def interleaved(
    calls: Mapping[Any, Call],
    device: torch.device,
    *,
    repeats: int,
    patience: float,
    once: Mapping[Any, float] | None = None,
) -> dict[Any, np.ndarray]:
    """Seconds of each call in every round; in a round each has its turn, first another each time.

    So what else the machine does meanwhile meets all alike, and ratios within a round are fair.
    Rounds: `repeats`, fewer where they would take more than `patience` seconds, at least three.
    `once`: about how long each takes; without it that is found out, which warms up too.
    """
    if not calls:
        return {}
    once = once or {name: seconds(call, device) for name, call in calls.items()}
    times = {name: _calls_in_a_turn(once[name]) for name in calls}
    one_round = sum(once[name] * times[name] for name in calls)
    rounds = min(repeats, max(FEWEST, int(patience / one_round)))
    names, found = list(calls), np.empty((len(calls), rounds))
    for number in range(rounds):
        for turn in range(len(names)):
            place = (turn + number) % len(names)
            name = names[place]
            found[place, number] = seconds(calls[name], device, times[name])
    return dict(zip(names, found, strict=True))


def _calls_in_a_turn(took: float) -> int:
    return int(np.clip(SHORTEST / max(took, 1e-9), 1, MOST_CALLS))


def spread(name: str, values: np.ndarray) -> dict[str, float]:
    """Median and quartiles, as three columns of a table."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return {name: median, f"{name}_low": low, f"{name}_high": high}


def compared(times: np.ndarray, ours: np.ndarray) -> dict[str, float]:
    """Columns: milliseconds, and how many times as long as ours it takes, round by round."""
    columns = spread("ms", 1e3 * times) | spread("ratio", times / ours)
    return columns | {"repeats": len(times)}


def matrix_rate(device: torch.device) -> float:
    """Operations a second of a product of square float32 matrices, the best of five."""
    size = 8192 if device.type == "cuda" else 1024
    x = torch.randn(size, size, device=device)
    out = torch.empty_like(x)

    def product() -> None:
        torch.mm(x, x, out=out)

    return 2 * size**3 / min(seconds(product, device) for _ in range(5))


def bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of copying an array larger than any cache, best of five."""
    x = torch.zeros(1 << 25, device=device)
    out = torch.empty_like(x)
    return 2 * x.nbytes / min(seconds(lambda: out.copy_(x), device) for _ in range(5))
