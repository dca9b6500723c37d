"""What a practitioner can take from the records: purpose and dimension to kernel and settings."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from sscl_experiments.searches import RULE

from .analysis import method_differences

NOT_YET = "not measured yet"
RECORDED = "accuracy_by_dimension"


class Advice(NamedTuple):
    """A row: what features are for, how many there are, and what to take.

    `images`, `at` and `metric` say where the gain of Student's t was measured; none: it was not.
    """

    purpose: str
    dims: str
    kernel: str
    images: str
    at: int
    metric: str


_ROWS = (
    Advice("a map to look at", "2", "Student t or Gaussian", RECORDED, 2, "knn15_z"),
    Advice("a map to look at", "2", "Student t or Gaussian", "cifar10", 2, "knn15_z"),
    Advice("compact z, to search in", "3 to 8", "Student t or Gaussian", RECORDED, 4, "knn15_z"),
    Advice("compact z, to search in", "3 to 8", "Student t or Gaussian", RECORDED, 8, "knn15_z"),
    Advice("z, to search in", "64 and more", "cosine", RECORDED, 128, "knn15_z"),
    Advice("z, to search in", "64 and more", "cosine", "cifar10", 64, "knn15_z"),
    Advice("backbone h", "64 and more", "cosine", "fashion_mnist", 128, "linear_probe_h"),
    Advice("backbone h", "64 and more", "cosine", "cifar10", 64, "linear_probe_h"),
    Advice("backbone h", "2", "Student t or Gaussian", "cifar10", 2, "linear_probe_h"),
    Advice("backbone h, hundreds of epochs, ResNet", "any", NOT_YET, "", 0, ""),
)
_IMAGES = {
    RECORDED: "Fashion-MNIST, 8,000 images",
    "fashion_mnist": "Fashion-MNIST, all",
    "cifar10": "CIFAR-10, all",
}
_METRICS = {"knn15_z": "15-NN on z", "linear_probe_h": "probe on h", "": ""}


def table(record: Mapping[str, Any]) -> pd.DataFrame:
    """A row an advice, with the gain of t-SimCLR over SimCLR in points that the record holds."""
    on_subset = method_differences(record["figures"][RECORDED], ["d_z"])
    on_subset = on_subset.assign(image_set=RECORDED)
    differences = pd.concat([on_subset, record["tables"]["larger_sets_differences"]])
    return pd.DataFrame(_row(advice, differences) for advice in _ROWS)


def _row(advice: Advice, differences: pd.DataFrame) -> dict[str, Any]:
    row = {"for": advice.purpose, "d_z": advice.dims, "kernel": advice.kernel}
    row |= _settings(advice.kernel)
    gain, where = NOT_YET, ""
    if advice.images:
        gain = _gain(differences, advice)
        where = f"{_IMAGES[advice.images]}, d_z = {advice.at}, {_METRICS[advice.metric]}"
    return row | {"t-SimCLR over SimCLR, points": gain, "measured on": where}


def _settings(kernel: str) -> dict[str, str]:
    """τ, ν and BatchNorm of a kernel: the rule of thumb, and for cosines what searches chose."""
    if kernel == NOT_YET:
        return {"τ": "", "ν": "", "BatchNorm on z": ""}
    if kernel == "cosine":
        return {"τ": "0.1 to 0.2", "ν": "", "BatchNorm on z": "either"}
    tau = f"{RULE.temperature_per_dim:g} d_z"
    return {"τ": tau, "ν": f"{RULE.df:g} (or ∞)", "BatchNorm on z": "yes"}


def _gain(differences: pd.DataFrame, advice: Advice) -> str:
    own = differences[differences.image_set == advice.images]
    own = own[(own.d_z == advice.at) & (own.metric == advice.metric)]
    columns = ["t-SimCLR − SimCLR", "95 % low", "95 % high"]
    value, low, high = (100 * own[name].item() for name in columns)
    return f"{value:+.1f} [{low:.1f}, {high:.1f}]"
