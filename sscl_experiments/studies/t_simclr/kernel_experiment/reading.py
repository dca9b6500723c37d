"""What the records say: the endpoints at every length, and mean accuracies."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from sscl_experiments.claims import Verdict

from . import endpoints
from .design import COMPARED, KERNELS, PURPOSES, Design, ImageDesign, Kernel, Purpose
from .endpoints import Correct, Estimate, Rule
from .ledger import Found, unpacked
from .search import Condition, Incomplete, chosen, runs
from .tasks import Task, baseline

# Accuracies as tables name them.
SHOWN = {
    "knn15_cosine_z": "15-NN on z, cosine",
    "knn15_euclidean_z": "15-NN on z, Euclidean",
    "knn15_cosine_h": "15-NN on h, cosine",
    "knn15_euclidean_h": "15-NN on h, Euclidean",
    "probe_h": "probe on h",
}


class TooFewSeeds(Incomplete):
    """Runs that are recorded, of which all but one or none diverged."""


@dataclass(frozen=True)
class Endpoint:
    """A claim as it is decided: by the factor in d_z, or by the difference at the largest d_z."""

    claim: str
    purpose: Purpose
    says: str
    rule: Rule

    @property
    def is_factor(self) -> bool:
        return self.claim == "C10"

    def dims(self, images: ImageDesign) -> tuple[int, ...]:
        """Those of both last lengths, so that the two can agree."""
        shorter, longer = (set(grid.dims) for grid in images.grids(self.purpose)[-2:])
        common = tuple(sorted(shorter & longer))
        return common if self.is_factor else common[-1:]

    def estimate(self, correct: Correct, dims: Sequence[int]) -> Estimate:
        statistic = endpoints.factor(dims) if self.is_factor else endpoints.difference
        return endpoints.estimate(correct, statistic)

    def is_open(self, found: Estimate) -> bool:
        """Whether more seeds are needed: the rule says "mixed", or some of the seeds diverged.

        Where one curve is higher everywhere, more seeds would say the same.
        """
        decided = self.rule.verdict(found) in ("replicates", "does not replicate")
        return not (decided or self.rule.by_height(found))


ENDPOINTS = (
    Endpoint("C10", "z", "octaves in d_z at equal 15-NN accuracy on z", endpoints.C10),
    Endpoint("C10", "h", "octaves in d_z at equal accuracy of the probe on h", endpoints.C10),
    Endpoint("C11", "h", "probe on h at the largest d_z, difference", endpoints.C11),
)


@dataclass(frozen=True)
class Reading:
    """An endpoint on a set of images: its estimate at every length, and what they come to.

    `also`: that of its finer reading, "fewer dimensions at all", for C10.
    """

    endpoint: Endpoint
    images: ImageDesign
    dims: tuple[int, ...]
    by_length: dict[int, Estimate]
    verdict: Verdict
    note: str
    also: Verdict | None


def endpoint_dims(images: ImageDesign, purpose: Purpose) -> list[int]:
    """The dimensions whose final runs an endpoint reads."""
    own = [one.dims(images) for one in ENDPOINTS if one.purpose == purpose]
    return sorted(set(itertools.chain.from_iterable(own)))


def readings(design: Design, found: Found) -> list[Reading]:
    """Of every endpoint and set whose runs at one length at least are all recorded."""
    made = []
    for images in (design.cifar10, design.fashion):
        for endpoint in ENDPOINTS:
            reading = read(design, images, endpoint, found)
            if reading.by_length:
                made.append(reading)
    return made


def read(design: Design, images: ImageDesign, endpoint: Endpoint, found: Found) -> Reading:
    """By the first seeds; by all where those leave it open and the others are all recorded."""
    grids = images.grids(endpoint.purpose)
    lengths = [grid.epochs for grid in grids]
    estimates = _estimates(images, endpoint, lengths, found, design.seeds)
    last = lengths[-2:]
    lacking = withheld(design, images, found)
    if any(epochs in estimates and endpoint.is_open(estimates[epochs]) for epochs in last):
        again = _estimates(images, endpoint, last, found, (*design.seeds, *design.more))
        if len(again) == len(last):
            estimates |= again
        elif images == design.cifar10 and not lacking:
            lacking = f"{len(design.seeds)} seeds leave it open, and more are made"
    verdict, note, also = _concluded(endpoint, [estimates.get(epochs) for epochs in last], lacking)
    return Reading(endpoint, images, endpoint.dims(images), estimates, verdict, note, also)


def _estimates(
    images: ImageDesign,
    endpoint: Endpoint,
    lengths: Sequence[int],
    found: Found,
    seeds: Sequence[int],
) -> dict[int, Estimate]:
    """By length, of those at which the runs of all these seeds are recorded."""
    made, dims = {}, endpoint.dims(images)
    for epochs in lengths:
        condition = Condition(images, epochs, endpoint.purpose)
        try:
            correct = correct_of(condition, dims, found, seeds=seeds)
        except Incomplete:
            continue
        made[epochs] = endpoint.estimate(correct, dims)
    return made


def _concluded(
    endpoint: Endpoint, last: list[Estimate | None], lacking: str
) -> tuple[Verdict, str, Verdict | None]:
    shorter, longer = last
    if lacking:
        return "not run at this scale", lacking, None
    if shorter is None or longer is None:
        return "not run at this scale", "runs of the last two lengths are lacking", None
    verdict, note = endpoints.final_verdict(endpoint.rule, shorter, longer)
    also = None
    if endpoint.is_factor:
        also, _ = endpoints.final_verdict(endpoints.FEWER, shorter, longer)
    return verdict, note, also


def withheld(design: Design, images: ImageDesign, found: Found) -> str:
    """Why no verdict can be given; empty where one can.

    The backbone that cosine trains, at the largest d_z and last length of the settings for h, must
    be as good as raw pixels by 15-NN (cosine).
    """
    last = images.probed[-1]
    beside = found.get(baseline(images).id)
    row = _row(design, Condition(images, last.epochs, "h"), "cosine", max(last.dims), found)
    if beside is None or row is None:
        return "the backbone cannot be held against raw pixels yet"
    backbone, raw = row["knn15_cosine_h"], beside["metrics"]["knn15_cosine_pixels"]
    if backbone >= raw:
        return ""
    return f"cosine's backbone ({backbone:.3f}) is not as good as raw pixels ({raw:.3f})"


def correct_of(
    condition: Condition,
    dims: Sequence[int],
    found: Found,
    *,
    seeds: Sequence[int],
    kernels: Sequence[Kernel] = COMPARED,
) -> Correct:
    """Which test images each network tells right: on z by 15-NN in the metric chosen in validation,
    on h by the probe.

    Errors: those of `told_right`.
    """
    networks, measures = [], []
    for kernel, dim in itertools.product(kernels, dims):
        setting = chosen(condition.images, kernel, dim, found)[condition.purpose]
        networks.append(runs(condition, kernel, dim, seeds, found))
        measures.append(setting.measure(condition.purpose))
    correct = told_right(networks, measures, found)
    return correct.reshape(len(kernels), len(dims), *correct.shape[1:])


def is_recorded(
    condition: Condition, kernel: Kernel, dim: int, design: Design, found: Found
) -> bool:
    """Whether the runs of the first seeds all are, those that diverged among them."""
    try:
        return all(task.id in found for task in runs(condition, kernel, dim, design.seeds, found))
    except Incomplete:
        return False


def told_right(
    networks: Sequence[Sequence[Task]], measures: Sequence[str], found: Found
) -> Bool[np.ndarray, "networks seeds images"]:
    """Which test images networks tell right, each by its measure; of each the runs of all seeds.

    A seed that diverged anywhere is left out everywhere. `Incomplete`: a run is not recorded;
    `TooFewSeeds`: fewer than two are left.
    """
    kept = []
    for tasks in zip(*networks, strict=True):
        if lacking := [task.id for task in tasks if task.id not in found]:
            raise Incomplete(f"run {lacking[0]} is lacking")
        entries = [found[task.id] for task in tasks]
        if all("correct" in entry for entry in entries):
            pairs = zip(entries, measures, strict=True)
            kept.append([unpacked(one["correct"][name], one["images"]) for one, name in pairs])
    if len(kept) < 2:
        raise TooFewSeeds(f"{len(kept)} of {len(networks[0])} seeds did not diverge")
    return np.stack(kept, axis=1)


def undecided(
    design: Design, images: ImageDesign, found: Found
) -> Iterator[tuple[Condition, tuple[int, ...]]]:
    """Conditions and d_z of every endpoint that the first seeds leave open.

    By the first seeds alone, so that it stays what it is when more are there. `Incomplete`: they
    are not all recorded.
    """
    for endpoint in ENDPOINTS:
        grids = images.grids(endpoint.purpose)[-2:]
        last = [Condition(images, grid.epochs, endpoint.purpose) for grid in grids]
        if any(is_open(design, condition, endpoint, found) for condition in last):
            for condition in last:
                yield condition, endpoint.dims(images)


def is_open(design: Design, condition: Condition, endpoint: Endpoint, found: Found) -> bool:
    if "supposed" in found.memory:
        return True  # in a plan: at most
    dims = endpoint.dims(condition.images)
    try:
        correct = correct_of(condition, dims, found, seeds=design.seeds)
    except TooFewSeeds:
        return True
    return endpoint.is_open(endpoint.estimate(correct, dims))


# --- means ----------------------------------------------------------------------------------------


def means(design: Design, found: Found) -> list[dict[str, Any]]:
    """`means_of` both sets."""
    return means_of(design, design.cifar10, found) + means_of(design, design.fashion, found)


def means_of(design: Design, images: ImageDesign, found: Found) -> list[dict[str, Any]]:
    """A row a purpose, length, kernel and d_z: the setting, and mean accuracies over seeds."""
    rows = []
    for purpose in PURPOSES:
        for grid in images.grids(purpose):
            condition = Condition(images, grid.epochs, purpose)
            for kernel, dim in itertools.product(KERNELS, grid.dims):
                row = _row(design, condition, kernel, dim, found)
                rows += [row] if row else []
    return rows


def _row(
    design: Design, condition: Condition, kernel: Kernel, dim: int, found: Found
) -> dict[str, Any] | None:
    """None: there is no run yet."""
    images, epochs, purpose = condition
    try:
        setting = chosen(images, kernel, dim, found)[purpose]
    except Incomplete:
        return None
    tasks = runs(condition, kernel, dim, (*design.seeds, *design.more), found)
    metrics = [found[task.id]["metrics"] for task in tasks if "metrics" in found.get(task.id, {})]
    if not metrics:
        return None
    loss = tasks[0].stages[0].loss
    row: dict[str, Any] = {"images": images.name, "epochs": epochs, "kernel": kernel, "d_z": dim}
    row |= {"chosen for": purpose, "BatchNorm": setting.point.batchnorm}
    row |= {"τ": getattr(loss, "temperature", 1.0), "n": len(metrics)}
    return row | {name: float(np.mean([one[name] for one in metrics])) for name in SHOWN}
