"""What a practitioner can take from the records: purpose and dimension to kernel and settings."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sscl_experiments.searches import RULE

from .analysis import method_differences, points
from .kernel_experiment import endpoints
from .kernel_experiment.design import (
    COMPARED,
    KERNELS,
    REACH,
    STEPS,
    Design,
    Kernel,
    Point,
    Purpose,
    temperature,
)
from .kernel_experiment.endpoints import Estimate
from .kernel_experiment.ledger import Found
from .kernel_experiment.reading import correct_of, is_recorded
from .kernel_experiment.search import Condition, Score, chosen, search_of
from .recorded import lengths

EVERY_STEP = range(STEPS[0] - REACH, STEPS[-1] + REACH + 1)  # of temperature, in the search
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
    """A row a purpose and d_z on CIFAR-10, at the longest training that is recorded for it.

    The kernel that is best on the mean, with its settings; the others that are not behind it, by
    the 95 % interval of the difference; and what Student's t gains over the cosine.
    """
    rows = []
    for purpose, epochs in lengths(design, design.cifar10, found).items():
        condition = Condition(design.cifar10, epochs, purpose)
        for dim in condition.dims:
            kernels = [one for one in KERNELS if is_recorded(condition, one, dim, design, found)]
            if set(COMPARED) <= set(kernels):
                rows.append(_measured(condition, dim, kernels, design, found))
    return pd.DataFrame(rows)


def _measured(
    condition: Condition, dim: int, kernels: Sequence[Kernel], design: Design, found: Found
) -> dict[str, Any]:
    where = (condition, (dim,), found)
    correct = correct_of(*where, seeds=design.seeds, kernels=kernels)
    told = dict(zip(kernels, correct, strict=True))
    best = max(kernels, key=lambda kernel: told[kernel].mean())

    def over(minus: Kernel, plus: Kernel) -> Estimate:
        pair = np.stack([told[minus], told[plus]])
        return endpoints.estimate(pair, endpoints.difference)

    level = [other for other in kernels if other != best and over(other, best).low <= 0]
    point = chosen(condition.images, best, dim, found)[condition.purpose].point
    gain = over(*COMPARED)
    return {
        "for": FOR[condition.purpose],
        "d_z": dim,
        "best on the mean": best,
        "not behind it": ", ".join(level),
        "τ": temperature(best, point, dim),
        "ν": {"cosine": "", "Gaussian": "∞", "Student t": "5"}[best],
        "BatchNorm on z": "yes" if point.batchnorm else "no",
        "Student t − cosine, points": points(gain.value, gain.low, gain.high),
        "epochs": condition.epochs,
    }


def rule_beside_the_best(design: Design, found: Found) -> pd.DataFrame:
    """What the rule of thumb costs Student's t in the search on CIFAR-10, in points held out.

    Accuracy at its τ minus the best that was tried, both with BatchNorm on z; `AT_RULE` stands for
    the rule. A row a d_z and length at which that was tried. The best of noisy figures is
    flattered, so the rule costs less rather than more.
    """
    images, rows = design.cifar10, []
    for dim, rung in itertools.product(images.searched, (images.first, images.second)):
        by_z, by_h = search_of(images, "Student t", dim, found).scores(rung)
        if by_z(AT_RULE) is not None:
            row: dict[str, Any] = {"d_z": dim, "epochs": rung.epochs, "seeds": len(rung.seeds)}
            row["temperatures"] = len(_tried(by_z))
            rows.append(row | {"15-NN on z": _cost(by_z), "probe on h": _cost(by_h)})
    return pd.DataFrame(rows)


def _cost(score: Score) -> float:
    tried = _tried(score)
    return 100 * (tried[AT_RULE] - max(tried.values()))


def _tried(score: Score) -> dict[Point, float]:
    """The scores of all temperatures with BatchNorm on z that are recorded."""
    points = [Point(True, step) for step in EVERY_STEP]
    return {point: own for point in points if (own := score(point)) is not None}


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
