"""The search for the temperatures of the networks on the mixture: `python -m` this module."""

import itertools
import sys
from pathlib import Path

import pandas as pd

from sscl_core.files import write_text
from sscl_experiments.paths import RECORDS
from sscl_experiments.runner import results
from sscl_experiments.variants import with_seeds

from .parameters import KERNELS, SEARCH, SEARCH_DIMS, SEARCH_SEEDS, mixture_run, temperatures

STEPS, FIRST_SEED = 150, 1000  # seeds that no run of the notebook has


def search(runs: Path) -> pd.DataFrame:
    """Mean accuracy on seen components, by which the temperature is chosen, and on unseen ones.

    The latter decides nothing. Accuracies are 1-NN in the metric of the kernel.
    """
    rows = []
    for kernel, dim in itertools.product(KERNELS, SEARCH_DIMS):
        metric = KERNELS[kernel].loss.metric
        for temperature in temperatures(kernel, dim):
            first = mixture_run(kernel, dim, temperature, STEPS)
            seeds = range(FIRST_SEED, FIRST_SEED + SEARCH_SEEDS)
            found = results(with_seeds(first, seeds), runs=runs, progress=False)
            row = {"kernel": kernel, "d_z": dim, "temperature": temperature}
            for world in ("seen", "new"):
                values = [record.metrics[f"{world}_{metric}"] for record in found]
                row[world] = sum(values) / len(values)
            rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    table = search(Path(sys.argv[1]) / "runs")
    write_text(RECORDS / SEARCH, table.to_csv(index=False, float_format="%.5g"))
