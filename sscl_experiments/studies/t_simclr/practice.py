"""What a practitioner can take from the records: purpose and dimension to kernel and settings."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from sscl_experiments.searches import RULE

from .analysis import method_differences, points
from .kernel_experiment import endpoints
from .kernel_experiment.design import (
    COMPARED,
    KERNELS,
    Design,
    Kernel,
    Point,
    Purpose,
    temperature,
)
from .kernel_experiment.endpoints import Correct, Estimate
from .kernel_experiment.ledger import Found
from .kernel_experiment.reading import correct_of
from .kernel_experiment.search import Condition, Incomplete, Score, best, chosen, known, search_of
from .recorded import longest

AT_RULE = Point(True, -1)  # of Student's t: τ = 0.033 d_z
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
FOR: dict[Purpose, str] = {"z": "z, to search in", "h": "backbone h"}
_METRICS = {"knn15_z": "15-NN on z", "linear_probe_h": "probe on h", "": ""}


def of_experiment(design: Design, found: Found) -> pd.DataFrame:
    """A row a purpose and d_z on CIFAR-10 of which all kernels are recorded, at `longest`.

    The kernel that is best on the mean, with its settings; the others that the 95 % interval of the
    difference does not show to be behind it, uncorrected for their number; and what Student's t
    gains over the cosine.
    """
    rows = []
    for purpose, epochs in longest(design, design.cifar10, found).items():
        condition = Condition(design.cifar10, epochs, purpose)
        for dim in condition.dims:
            try:
                rows.append(_measured(condition, dim, design, found))
            except Incomplete:
                continue
    return pd.DataFrame(rows)


def _measured(condition: Condition, dim: int, design: Design, found: Found) -> dict[str, Any]:
    """`Incomplete`: runs are lacking, or too many diverged."""

    def correct(*kernels: Kernel) -> Correct:
        return correct_of(condition, (dim,), found, seeds=design.seeds, kernels=kernels)

    def over(minus: Kernel, plus: Kernel) -> Estimate:
        return endpoints.estimate(correct(minus, plus), endpoints.difference)

    best = max(KERNELS, key=lambda kernel: correct(kernel).mean())
    level = [other for other in KERNELS if other != best and over(other, best).low <= 0]
    point = chosen(condition.images, best, dim, found)[condition.purpose].point
    gain = over(*COMPARED)
    return {
        "for": FOR[condition.purpose],
        "d_z": dim,
        "best on the mean": best,
        "not shown to be behind": ", ".join(level),
        "τ": temperature(best, point, dim),
        "ν": {"cosine": "", "Gaussian": "∞", "Student t": "5"}[best],
        "BatchNorm on z": "yes" if point.batchnorm else "no",
        "Student t − cosine, points": points(gain.value, gain.low, gain.high),
        "seeds": gain.seeds,
        "epochs": condition.epochs,
    }


def rule_beside_the_best(design: Design, found: Found) -> pd.DataFrame:
    """What the rule of thumb costs Student's t in the search on CIFAR-10, in points held out.

    Accuracy at its τ minus the best of all temperatures of the first rung, both with BatchNorm on
    z; `AT_RULE` stands for the rule. A row a d_z. The best of noisy figures is flattered.
    """
    images, rows = design.cifar10, []
    for dim in images.searched:
        search = search_of(images, "Student t", dim, found)
        by_z, by_h = search.scores(images.first)
        tried = [point for point in search.first if point.batchnorm]
        try:
            costs = {"15-NN on z": _cost(by_z, tried), "probe on h": _cost(by_h, tried)}
        except Incomplete:
            continue
        row: dict[str, Any] = {"d_z": dim, "temperatures": len(tried)}
        row |= {"epochs": images.first.epochs, "seeds": len(images.first.seeds)}
        rows.append(row | costs)
    return pd.DataFrame(rows)


def _cost(score: Score[Point], tried: list[Point]) -> float:
    """`Incomplete`: one of them is not recorded."""
    return 100 * (known(score, AT_RULE) - known(score, best(tried, score)))


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
    return points(*(own[name].item() for name in columns))
