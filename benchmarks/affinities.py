"""The sparse perplexity-matched P of many points: time, peak memory, and the truncation error.

    python benchmarks/affinities.py [--n 100000] [--dim 50] [--perplexity 30] [--neighbors 90]
                                    [--threads 1]

Points are standard normal, so that few of them are near to each other: for the truncation error a
hard case. Memory is the growth of the peak resident set since the inputs and a small warm-up. The
floor of the time is one matrix of inner products, n²·d multiplications and additions, at the speed
that a product of two n'·d matrices is measured at here.
"""

import argparse
import os
import platform
import resource
import sys
import time

import torch
from torch import Tensor

from sscl_core.affinities import perplexity_matched, sparse_perplexity_matched
from sscl_experiments.studies.performance.measuring import seconds

CPU = torch.device("cpu")


def main() -> None:
    a = arguments()
    torch.set_num_threads(a.threads)
    x = torch.randn(a.n, a.dim, generator=torch.Generator().manual_seed(0))
    check_few(x[:500], a.perplexity)
    floor = floor_seconds(x)

    how = {"perplexity": a.perplexity, "neighbors": a.neighbors, "normalization": "joint"}
    start = time.perf_counter()
    before = peak_resident()
    P, truncation = sparse_perplexity_matched(x, **how)
    grown = peak_resident() - before
    took = time.perf_counter() - start

    points = f"n = {a.n}, d = {a.dim}, perplexity {a.perplexity:g}, joint"
    dense = 8 * a.n**2 / 2**30
    rows = f"mean of {len(truncation)} rows; largest {truncation.max():.3f}"
    print(f"{points}; {a.threads} thread(s)")
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores\n")
    print(f"time        {took:10.1f} s, {took / floor:.1f} × floor ({floor:.1f} s)")
    print(f"peak memory {grown / 2**30:10.2f} GiB; a dense P is {dense:.1f} GiB")
    print(f"entries     {P.nnz:10d}, {P.nnz / a.n:.0f} a row; they sum to 1 {P.sum() - 1:+.0e}")
    print(f"truncation  {truncation.mean():10.3f} total variation, {rows}")


def peak_resident() -> int:
    """Bytes, of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100_000, help="points (%(default)s)")
    parser.add_argument("--dim", type=int, default=50, help="features (%(default)s)")
    parser.add_argument("--perplexity", type=float, default=30.0, help="(%(default)s)")
    neighbors = "neighbors a point keeps (three times the perplexity)"
    parser.add_argument("--neighbors", type=int, default=None, help=neighbors)
    threads = "threads of PyTorch (%(default)s); those of the search are OMP_NUM_THREADS"
    parser.add_argument("--threads", type=int, default=1, help=threads)
    return parser.parse_args()


def check_few(x: Tensor, perplexity: float) -> None:
    """With all points as neighbors it is the dense P, or there is nothing to measure."""
    dense = perplexity_matched(x, perplexity=perplexity)
    sparse = sparse_perplexity_matched(x, perplexity=perplexity, neighbors=len(x) - 1).P
    torch.testing.assert_close(torch.from_numpy(sparse.toarray()), dense, rtol=1e-9, atol=1e-300)


def floor_seconds(x: Tensor) -> float:
    block = x[:4096].double()
    fastest = min(seconds(lambda: block @ block.T, CPU) for _ in range(5))
    return fastest * (len(x) / len(block)) ** 2


if __name__ == "__main__":
    main()
