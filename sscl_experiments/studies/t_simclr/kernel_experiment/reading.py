"""What the records say: the endpoints at every length, and mean accuracies."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sscl_experiments.claims import Verdict

from . import endpoints
from .design import KERNELS, PURPOSES, Design, ImageDesign, Kernel, Purpose
from .endpoints import Correct, Estimate, Rule
from .ledger import Found, unpacked
from .search import Incomplete, chosen, runs
from .tasks import baseline

SHOWN = (
    *("knn15_cosine_z", "knn15_euclidean_z"),
    *("knn15_cosine_h", "knn15_euclidean_h", "probe_h"),
)
COMPARED: tuple[Kernel, Kernel] = ("cosine", "Student t")


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
    dims = endpoint.dims(images)
    estimates = {}
    grids = images.grids(endpoint.purpose)
    for grid in grids:
        try:
            correct = correct_of(design, images, grid.epochs, dims, endpoint.purpose, found)
            estimates[grid.epochs] = endpoint.estimate(correct, dims)
        except Incomplete:
            continue
    last = [grid.epochs for grid in grids[-2:]]
    lacking = withheld(design, images, found)
    verdict, note, also = _concluded(endpoint, [estimates.get(epochs) for epochs in last], lacking)
    return Reading(endpoint, images, dims, estimates, verdict, note, also)


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
    row = _row(design, images, last.epochs, "cosine", max(last.dims), "h", found)
    if beside is None or row is None:
        return "the backbone cannot be held against raw pixels yet"
    backbone, raw = row["knn15_cosine_h"], beside["metrics"]["knn15_cosine_pixels"]
    if backbone >= raw:
        return ""
    return f"cosine's backbone ({backbone:.3f}) is not as good as raw pixels ({raw:.3f})"


def correct_of(
    design: Design,
    images: ImageDesign,
    epochs: int,
    dims: Sequence[int],
    purpose: Purpose,
    found: Found,
    *,
    kernels: Sequence[Kernel] = COMPARED,
    more: bool = True,
) -> Correct:
    """Which test images each network tells right: on z by 15-NN in the metric chosen in validation,
    on h by the probe.

    Of the seeds that are recorded for all kernels and dimensions; one that diverged anywhere is
    left out everywhere. `Incomplete`: one of the design's own is not recorded.
    """
    seeds = (*design.seeds, *(design.more if more else ()))
    kept = []
    for seed in seeds:
        cells = [
            _correct(images, epochs, kernel, dim, purpose, found, seed)
            for kernel in kernels
            for dim in dims
        ]
        if all(cell is not None for cell in cells):
            kept.append(np.stack([cell for cell in cells if cell is not None]))
        elif seed in design.seeds and not _diverged(images, epochs, dims, purpose, found, seed):
            raise Incomplete(f"{images.name}, {epochs} epochs, {purpose}: seed {seed} is lacking")
    if len(kept) < 2:
        raise Incomplete(f"{images.name}, {epochs} epochs, {purpose}: fewer than two seeds")
    stacked = np.stack(kept, axis=1)
    return stacked.reshape(len(kernels), len(dims), len(kept), -1)


def _correct(
    images: ImageDesign,
    epochs: int,
    kernel: Kernel,
    dim: int,
    purpose: Purpose,
    found: Found,
    seed: int,
) -> np.ndarray | None:
    (task,) = runs(images, epochs, kernel, dim, purpose, found, (seed,))
    entry = found.get(task.id, {})
    if "correct" not in entry:
        return None
    measure = "probe_h"
    if purpose == "z":
        measure = f"knn15_{chosen(images, kernel, dim, found)['z'].metric}_z"
    return unpacked(entry["correct"][measure], entry["images"])


def _diverged(
    images: ImageDesign,
    epochs: int,
    dims: Sequence[int],
    purpose: Purpose,
    found: Found,
    seed: int,
) -> bool:
    """Whether a run of this seed did, of any kernel, and all others are recorded."""
    entries = [
        found.get(runs(images, epochs, kernel, dim, purpose, found, (seed,))[0].id)
        for kernel in COMPARED
        for dim in dims
    ]
    known = [entry for entry in entries if entry is not None]
    return len(known) == len(entries) and any("diverged" in entry for entry in known)


def undecided(
    design: Design, images: ImageDesign, found: Found
) -> Iterator[tuple[int, tuple[int, ...], Purpose]]:
    """(epochs, dims, purpose) of every endpoint that the first seeds leave open.

    By the first seeds alone, so that it stays what it is when more are there. `Incomplete`: they
    are not all recorded.
    """
    for endpoint in ENDPOINTS:
        dims = endpoint.dims(images)
        last = [grid.epochs for grid in images.grids(endpoint.purpose)[-2:]]
        if any(is_open(design, images, endpoint, epochs, found) for epochs in last):
            for epochs in last:
                yield epochs, dims, endpoint.purpose


def is_open(
    design: Design, images: ImageDesign, endpoint: Endpoint, epochs: int, found: Found
) -> bool:
    dims = endpoint.dims(images)
    where = (images, epochs, dims, endpoint.purpose)
    if "supposed" in found.memory:
        return True  # in a plan: at most
    correct = correct_of(design, *where, found, more=False)
    return endpoint.rule.verdict(endpoint.estimate(correct, dims)) == "mixed"


# --- means ----------------------------------------------------------------------------------------


def means(design: Design, found: Found) -> list[dict[str, Any]]:
    """A row a set, length, kernel, d_z and purpose: the setting, and mean accuracies over seeds."""
    rows = []
    for images, purpose in itertools.product((design.cifar10, design.fashion), PURPOSES):
        for grid in images.grids(purpose):
            for kernel, dim in itertools.product(KERNELS, grid.dims):
                row = _row(design, images, grid.epochs, kernel, dim, purpose, found)
                rows += [row] if row else []
    return rows


def _row(
    design: Design,
    images: ImageDesign,
    epochs: int,
    kernel: Kernel,
    dim: int,
    purpose: Purpose,
    found: Found,
) -> dict[str, Any] | None:
    """None: there is no run yet."""
    try:
        setting = chosen(images, kernel, dim, found)[purpose]
    except Incomplete:
        return None
    seeds = (*design.seeds, *design.more)
    tasks = runs(images, epochs, kernel, dim, purpose, found, seeds)
    metrics = [found[task.id]["metrics"] for task in tasks if "metrics" in found.get(task.id, {})]
    if not metrics:
        return None
    loss = tasks[0].stages[0].loss
    row: dict[str, Any] = {"images": images.name, "epochs": epochs, "kernel": kernel, "d_z": dim}
    row |= {"chosen for": purpose, "BatchNorm": setting.point.batchnorm}
    row |= {"τ": getattr(loss, "temperature", 1.0), "n": len(metrics)}
    return row | {name: float(np.mean([one[name] for one in metrics])) for name in SHOWN}
