"""The losses against the direct formula, which forms the (2n)² × d differences: time and memory.

    python benchmarks/losses.py [--n 1024] [--dim 128] [--repeats 5] [--threads 1]

Both are of forward and backward. Times are the best of rounds in which every contender runs in
turn: what else the machine does only adds. `kernel` is the share of all rounds' processor time that
page faults took. It depends on the allocator: MALLOC_MMAP_THRESHOLD_=100000000000 with
MALLOC_TRIM_THRESHOLD_=1000000000000 (glibc) take it out of both sides. Memory is the growth of the
peak resident set in a process of its own, from after imports, inputs and a small warm-up. On Linux
that is the kernel's high-water mark, reset through /proc/self/clear_refs; elsewhere `ru_maxrss`,
which counts too little when importing took more. The floor is three matrix products (the Gram
matrix, and its gradient by either factor) of 2·(2n)²·d operations, at the rate measured here.
"""

import argparse
import math
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

from sscl_core.losses import info_nce, t_simclr


def direct_loss(
    z1: Tensor, z2: Tensor, *, temperature: float, df: float | None, normalization: str
) -> Tensor:
    """The formula as it is written: Student's kernel, or with df None the cosine kernel.

    The cosine of unit vectors is 1 - ‖u - v‖²/2.
    """
    z = torch.cat([z1, z2])
    if df is None:
        z = z / z.norm(dim=1, keepdim=True)
    squared = (z[:, None] - z[None]).square().sum(2)
    if df is None:
        logits = (1 - squared / 2) / temperature
    else:
        logits = -(df + 1) / 2 * (squared / (temperature * df)).log1p()
    n = len(z1)
    positive = torch.cat([logits.diagonal(n), logits.diagonal(-n)])
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool), -math.inf)
    if normalization == "conditional":
        return (logits.logsumexp(1) - positive).mean()
    return logits.logsumexp((0, 1)) - positive.mean()


CONTENDERS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "t_simclr joint": (
        t_simclr,
        partial(direct_loss, temperature=1.0, df=5.0, normalization="joint"),
    ),
    "t_simclr conditional": (
        partial(t_simclr, normalization="conditional"),
        partial(direct_loss, temperature=1.0, df=5.0, normalization="conditional"),
    ),
    "info_nce": (
        info_nce,
        partial(direct_loss, temperature=0.5, df=None, normalization="conditional"),
    ),
}


def inputs(n: int, dim: int) -> list[Tensor]:
    torch.manual_seed(0)
    z1 = torch.randn(n, dim)
    return [z1.requires_grad_(), (z1.detach() + 0.5 * torch.randn(n, dim)).requires_grad_()]


def gradient(loss: Callable[..., Tensor], z: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(*z), z)


def kernel_and_total() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_stime, usage.ru_stime + usage.ru_utime


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        mark = next(line for line in lines if line.startswith("VmHWM"))
        return int(mark.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_memory(name: str, which: int, n: int, dim: int, threads: int) -> int:
    """Bytes above the baseline; to be run in a fresh process."""
    torch.set_num_threads(threads)
    z, loss = inputs(n, dim), CONTENDERS[name][which]
    gradient(loss, inputs(16, dim))  # libraries and threads allocate once
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    baseline = peak_bytes()
    gradient(loss, z)
    return peak_bytes() - baseline


def in_fresh_process(*args: object) -> int:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_memory, args)


def check_agreement(dim: int) -> None:
    """`AssertionError`: the contenders are not the same function, and nothing can be compared."""
    small = inputs(64, dim)
    for ours, direct in CONTENDERS.values():
        for a, b in zip(gradient(ours, small), gradient(direct, small), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


class Timing:
    """Seconds of every call of one contender, and its processor time: in the kernel, in all."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.kernel = self.total = 0.0

    def add(self, call: Callable[[], object], times: int) -> None:
        before = kernel_and_total()
        self.seconds += [seconds(call) for _ in range(times)]
        after = kernel_and_total()
        self.kernel += after[0] - before[0]
        self.total += after[1] - before[1]

    @property
    def share(self) -> str:
        return f"{self.kernel / self.total:.0%}"


def measure_times(n: int, dim: int, rounds: int) -> tuple[dict[tuple[str, int], Timing], float]:
    """Of every contender, ours 0 and direct 1; and the best time of one matrix product."""
    z, x = inputs(n, dim), torch.randn(2 * n, dim)
    times = {(name, which): Timing() for name in CONTENDERS for which in (0, 1)}
    products: list[float] = []
    for _ in range(rounds):
        products += [seconds(lambda: x @ x.T) for _ in range(3)]
        for (name, which), timing in times.items():
            timing.add(partial(gradient, CONTENDERS[name][which], z), 1 if which else 5)
    return times, min(products)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--n", type=int, default=1024, help="pairs; 2n rows (1024)")
    parser.add_argument("--dim", type=int, default=128, help="features a row (128)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (1)")
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    n, dim, rows = args.n, args.dim, 2 * args.n
    check_agreement(dim)
    times, product = measure_times(n, dim, args.repeats)
    how = f"{args.threads} thread(s), {args.repeats} rounds"
    print(f"2n = {rows}, d = {dim}, float32, forward and backward; {how}")
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores\n")
    header = f"{'loss':22}{'ours ms':>10}{'kernel':>8}{'direct ms':>12}{'kernel':>8}{'ratio':>8}"
    print(f"{header}{'× floor':>9}{'ours MB':>10}{'direct MB':>12}{'ratio':>8}")
    for name in CONTENDERS:
        ours, direct = times[name, 0], times[name, 1]
        fast, slow = min(ours.seconds), min(direct.seconds)
        small, large = (in_fresh_process(name, i, n, dim, args.threads) for i in (0, 1))
        line = f"{name:22}{fast * 1e3:10.1f}{ours.share:>8}{slow * 1e3:12.0f}{direct.share:>8}"
        ratios = f"{slow / fast:8.0f}{fast / (3 * product):9.1f}"
        memory = f"{small / 1e6:10.0f}{large / 1e6:12.0f}{large / max(small, 1):8.0f}"
        print(line + ratios + memory)
    flops = 2 * rows**2 * dim
    rate = f"{flops / 1e9:.2f} Gflop at {flops / product / 1e9:.0f} Gflop/s"
    print(f"\nfloor: 3 products of {rate} = {3 * product * 1e3:.1f} ms;", end=" ")
    array, tensor = 4 * rows**2 / 1e6, 4 * rows**2 * dim / 1e6
    print(f"one (2n)² array is {array:.1f} MB, one (2n)² × d tensor {tensor:.0f} MB")


if __name__ == "__main__":
    main()
