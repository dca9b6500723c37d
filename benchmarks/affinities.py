"""The sparse perplexity-matched P of many points: time, peak memory, and what leaving out far points costs.

    python benchmarks/affinities.py [--n 100000] [--dim 50] [--perplexity 30] [--neighbors 90] [--threads 1]

Points are standard normal, so that few of them are near to each other: for the truncation error a hard case. Memory is the peak
resident set of the whole process and its growth since the inputs and a small warm-up. The floor of the time is one Gram matrix, n²·d
multiplications and additions, at the rate that a product of two n'·d matrices is measured at here.
"""

import argparse
import os
import platform
import time

import torch
from losses import peak_bytes, seconds  # and with it the path to the checkout

from sscl_core.affinities import perplexity_matched, sparse_perplexity_matched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100_000, help="points (100000)")
    parser.add_argument("--dim", type=int, default=50, help="features (50)")
    parser.add_argument("--perplexity", type=float, default=30.0, help="perplexity (30)")
    parser.add_argument(
        "--neighbors",
        type=int,
        default=None,
        help="neighbors a point keeps (three times the perplexity)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="threads of PyTorch (1); those of the search are OMP_NUM_THREADS",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    x = torch.randn(args.n, args.dim, generator=torch.Generator().manual_seed(0))
    few = x[:500]
    dense = perplexity_matched(
        few, perplexity=args.perplexity
    )  # the same function, or there is nothing to measure
    sparse = sparse_perplexity_matched(few, perplexity=args.perplexity, neighbors=len(few) - 1).P
    torch.testing.assert_close(torch.from_numpy(sparse.toarray()), dense, rtol=1e-9, atol=1e-300)

    block = x[: min(args.n, 4096)].double()
    gram = min(seconds(lambda: block @ block.T) for _ in range(5)) * (args.n / len(block)) ** 2
    baseline, start = peak_bytes(), time.perf_counter()
    P, truncation = sparse_perplexity_matched(
        x, perplexity=args.perplexity, neighbors=args.neighbors, normalization="joint"
    )
    took, peak = time.perf_counter() - start, peak_bytes()

    print(
        f"n = {args.n}, d = {args.dim}, perplexity {args.perplexity:g}, joint; {args.threads} thread(s)"
    )
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores\n")
    print(f"time        {took:10.1f} s, {took / gram:.1f} × floor ({gram:.1f} s)")
    print(
        f"peak memory {peak / 2**30:10.2f} GiB, grown by {(peak - baseline) / 2**30:.2f}; one dense P is {8 * args.n**2 / 2**30:.1f} GiB"
    )
    print(f"entries     {P.nnz:10d}, {P.nnz / args.n:.0f} a row; they sum to 1 {P.sum() - 1:+.0e}")
    print(
        f"truncation  {truncation.mean():10.3f} total variation, mean of {len(truncation)} rows; largest {truncation.max():.3f}"
    )


if __name__ == "__main__":
    main()
