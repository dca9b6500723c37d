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
from .ledger import Entry, Found, unpacked
from .search import Condition, Incomplete, chosen, runs
from .tasks import baseline

SHOWN = (
    *("knn15_cosine_z", "knn15_euclidean_z"),
    *("knn15_cosine_h", "knn15_euclidean_h", "probe_h"),
)


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

    A seed that diverged anywhere is left out everywhere. `Incomplete`: one of `seeds` is not
    recorded, or fewer than two are left.
    """
    where = f"{condition.images.name}, {condition.epochs} epochs, {condition.purpose}"
    networks = list(itertools.product(kernels, dims))
    kept = []
    for seed in seeds:
        entries = [_entry(condition, *network, seed, found) for network in networks]
        if None in entries:
            raise Incomplete(f"{where}: seed {seed} is lacking")
        made = [entry for entry in entries if entry and "correct" in entry]
        if len(made) == len(networks):
            pairs = zip(networks, made, strict=True)
            kept.append([_correct(condition, *network, found, entry) for network, entry in pairs])
    if len(kept) < 2:
        raise Incomplete(f"{where}: fewer than two seeds")
    return np.stack(kept, axis=1).reshape(len(kernels), len(dims), len(kept), -1)


def _entry(condition: Condition, kernel: Kernel, dim: int, seed: int, found: Found) -> Entry | None:
    (task,) = runs(condition, kernel, dim, (seed,), found)
    return found.get(task.id)


def _correct(
    condition: Condition, kernel: Kernel, dim: int, found: Found, entry: Entry
) -> Bool[np.ndarray, " images"]:
    measure = "probe_h"
    if condition.purpose == "z":
        measure = f"knn15_{chosen(condition.images, kernel, dim, found)['z'].metric}_z"
    return unpacked(entry["correct"][measure], entry["images"])


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
    correct = correct_of(condition, dims, found, seeds=design.seeds)
    return endpoint.is_open(endpoint.estimate(correct, dims))


# --- means ----------------------------------------------------------------------------------------


def means(design: Design, found: Found) -> list[dict[str, Any]]:
    """A row a set, length, kernel, d_z and purpose: the setting, and mean accuracies over seeds."""
    rows = []
    for images, purpose in itertools.product((design.cifar10, design.fashion), PURPOSES):
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
