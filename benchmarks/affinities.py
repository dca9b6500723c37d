"""The sparse perplexity-matched P of many points: time, peak memory, and the truncation error.
And the dense P beside those of scikit-learn and, where it is installed, openTSNE.

    python benchmarks/affinities.py [--n 100000] [--dim 50] [--perplexity 30] [--neighbors 90]
                                    [--threads 1] [--dense 1000 3000] [--repeats 5]

Dense: P of all pairs, joint. Times are processor time, medians of rounds in which every contender
runs in turn; ratios are medians of the rounds' ratios. The error is the largest relative one of the
perplexities that rows reach before they are symmetrised, which openTSNE alone does not show; for
scikit-learn they are those of its own search on the same squared distances.

Sparse: n = 0 leaves it out.
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
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch
from sklearn.manifold import _utils
from sklearn.manifold._t_sne import _joint_probabilities
from sklearn.metrics import pairwise_distances
from threadpoolctl import threadpool_limits
from torch import Tensor

from sscl_core.affinities import perplexity_matched, sparse_perplexity_matched
from sscl_experiments.studies.performance.measuring import seconds

CPU = torch.device("cpu")


def main() -> None:
    a = arguments()
    torch.set_num_threads(a.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores")
    with threadpool_limits(a.threads):
        for n in a.dense:
            compare_dense(normal(n, a.dim), a.perplexity, a.threads, a.repeats)
    if a.n:
        measure_sparse(normal(a.n, a.dim), a)


def normal(n: int, dim: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


def compare_dense(x: Tensor, perplexity: float, threads: int, repeats: int) -> None:
    ours = partial(perplexity_matched, x, perplexity=perplexity, normalization="joint")
    contenders: dict[str, Callable[[], object]] = {"ours": ours}
    contenders["scikit-learn"] = lambda: of_scikit_learn(x.numpy(), perplexity)
    contenders |= of_open_tsne(x.numpy(), perplexity, threads)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    errors = errors_of_perplexity(x, perplexity)
    print(f"\ndense P, n = {len(x)}, d = {x.shape[1]}, {threads} thread(s), {repeats} rounds")
    for name, taken in times.items():
        ratio = median(mine / theirs for mine, theirs in zip(times["ours"], taken, strict=True))
        error = f"; perplexity to {errors[name]:.0e}" if name in errors else ""
        print(f"{name:14}{median(taken):8.3f} s, ours / theirs {ratio:5.2f}{error}")


def of_scikit_learn(x: np.ndarray, perplexity: float) -> np.ndarray:
    """The entries above the diagonal, as it has them."""
    squared = pairwise_distances(x, metric="euclidean", squared=True)
    return _joint_probabilities(squared, perplexity, 0)


def of_open_tsne(x: np.ndarray, perplexity: float, threads: int) -> dict[str, Callable[[], object]]:
    """With all others as neighbors: its default, the three times perplexity nearest, is sparse."""
    try:
        from openTSNE.affinity import PerplexityBasedNN
    except ImportError:
        return {}
    k, exact = len(x) - 1, {"method": "exact", "n_jobs": threads}
    return {"openTSNE": lambda: PerplexityBasedNN(x, perplexity, k_neighbors=k, **exact)}


def errors_of_perplexity(x: Tensor, perplexity: float) -> dict[str, float]:
    squared = pairwise_distances(x.numpy(), metric="euclidean", squared=True).astype(np.float32)
    theirs = _utils._binary_search_perplexity(squared, perplexity, 0)
    rows = {"ours": perplexity_matched(x, perplexity=perplexity)}
    rows["scikit-learn"] = torch.from_numpy(theirs)
    reached = {name: torch.special.entr(P.double()).sum(1).exp() for name, P in rows.items()}
    return {name: float((p / perplexity - 1).abs().max()) for name, p in reached.items()}


def measure_sparse(x: Tensor, a: argparse.Namespace) -> None:
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
    print(f"\nsparse P, {points}; {a.threads} thread(s)\n")
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
    dense = "points of the dense P's that are compared (%(default)s)"
    parser.add_argument("--dense", type=int, nargs="*", default=[1000, 3000], help=dense)
    parser.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
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
