"""The searches that fix the settings of notebook 5, on the part of the training images held out: `sscl tune`."""

from pathlib import Path

import pandas as pd

from sscl_core.config import InfoNCE
from sscl_experiments.runner import results

from .searches import search_space


def tune(image_set: str, *, runs: Path, data_dir: str | Path | None = None) -> pd.DataFrame:
    """A row a run of the search: form, d_z, temperature, and of the images held out the accuracies of 15-NN on z in the metric of the loss,
    by which `settings.tuned` chooses, of 15-NN (cosine) on h, and of the linear probe on h."""
    space = search_space(image_set)
    rows = []
    for (form, dim, temperature), record in zip(
        space, results(list(space.values()), runs=runs, data_dir=data_dir), strict=True
    ):
        own = "cosine" if isinstance(record.config.loss, InfoNCE) else "euclidean"
        scores = {
            "knn15_z": f"knn15_{own}_z",
            "knn15_h": "knn15_cosine_h",
            "probe_h": "linear_probe_h",
        }
        accuracies = {name: record.metrics[metric] for name, metric in scores.items()}
        rows.append({"form": form, "d_z": dim, "temperature": temperature, **accuracies})
    return pd.DataFrame(rows)
