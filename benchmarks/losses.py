"""The losses against the direct formula, which forms the (2n)² × d differences: time and peak memory, forward and backward.

    python benchmarks/losses.py [--n 1024] [--dim 128] [--repeats 5] [--threads 1]

Times are the best of rounds in which every contender runs in turn: what else the machine does only adds. `kernel` is the share of
all rounds' processor time that page faults took: it depends on the allocator, and MALLOC_MMAP_THRESHOLD_=100000000000 with
MALLOC_TRIM_THRESHOLD_=1000000000000 (glibc) take it out of both sides. Memory is the growth of the peak resident set in a process
of its own, from after imports, inputs and a small warm-up: on Linux the kernel's high-water mark, reset through
/proc/self/clear_refs; elsewhere `ru_maxrss`, which counts too little when importing took more. The floor is three
matrix products (the Gram matrix, and its gradient by either factor) of 2·(2n)²·d operations, at the rate measured here.
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
    """The formula as it is written: Student's kernel, or (df None) the cosine one, 1 - ‖u - v‖²/2 for unit vectors."""
    z = torch.cat([z1, z2])
    if df is None:
        z = z / z.norm(dim=1, keepdim=True)
    squared = (z[:, None] - z[None]).square().sum(2)
    logits = (
        (1 - squared / 2) / temperature
        if df is None
        else -(df + 1) / 2 * (squared / (temperature * df)).log1p()
    )
    n = len(z1)
    positive = torch.cat([logits.diagonal(n), logits.diagonal(-n)])
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool), -math.inf)
    return (
        (logits.logsumexp(1) - positive).mean()
        if normalization == "conditional"
        else logits.logsumexp((0, 1)) - positive.mean()
    )


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
    if Path("/proc/self/status").exists():
        return (
            next(
                int(line.split()[1])
                for line in open("/proc/self/status", encoding="utf-8")
                if line.startswith("VmHWM")
            )
            * 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1024, help="pairs; 2n rows (1024)")
    parser.add_argument("--dim", type=int, default=128, help="features a row (128)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    n, dim, rows = args.n, args.dim, 2 * args.n

    small, z, x = inputs(64, dim), inputs(n, dim), torch.randn(rows, dim)
    for ours, direct in CONTENDERS.values():  # the same function, or there is nothing to compare
        for a, b in zip(gradient(ours, small), gradient(direct, small), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

    times: dict[tuple[str, int], list[float]] = {
        (name, which): [] for name in CONTENDERS for which in (0, 1)
    }
    processor = {key: [0.0, 0.0] for key in times}
    products: list[float] = []
    for _ in range(args.repeats):
        products += [seconds(lambda: x @ x.T) for _ in range(3)]
        for (name, which), record in times.items():
            call = partial(gradient, CONTENDERS[name][which], z)
            before = kernel_and_total()
            record += [seconds(call) for _ in range(1 if which else 5)]
            used = (now - then for now, then in zip(kernel_and_total(), before, strict=True))
            processor[name, which] = [
                a + b for a, b in zip(processor[name, which], used, strict=True)
            ]
    matmul = min(products)

    print(
        f"2n = {rows}, d = {dim}, float32, forward and backward; {args.threads} thread(s), {args.repeats} rounds"
    )
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores\n")
    print(
        f"{'loss':22}{'ours ms':>10}{'kernel':>8}{'direct ms':>12}{'kernel':>8}{'ratio':>8}{'× floor':>9}",
        end="",
    )
    print(f"{'ours MB':>10}{'direct MB':>12}{'ratio':>8}")
    for name in CONTENDERS:
        fast, slow = (min(times[name, which]) for which in (0, 1))
        kernel = [
            f"{part / whole:.0%}" for part, whole in (processor[name, which] for which in (0, 1))
        ]
        small_peak, large_peak = (
            in_fresh_process(name, which, n, dim, args.threads) for which in (0, 1)
        )
        print(
            f"{name:22}{fast * 1e3:10.1f}{kernel[0]:>8}{slow * 1e3:12.0f}{kernel[1]:>8}{slow / fast:8.0f}{fast / (3 * matmul):9.1f}"
            f"{small_peak / 1e6:10.0f}{large_peak / 1e6:12.0f}{large_peak / max(small_peak, 1):8.0f}"
        )
    flops = 2 * rows**2 * dim
    print(
        f"\nfloor: 3 products of {flops / 1e9:.2f} Gflop at {flops / matmul / 1e9:.0f} Gflop/s = {3 * matmul * 1e3:.1f} ms;",
        end=" ",
    )
    print(
        f"one (2n)² array is {4 * rows**2 / 1e6:.1f} MB, one (2n)² × d tensor {4 * rows**2 * dim / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
