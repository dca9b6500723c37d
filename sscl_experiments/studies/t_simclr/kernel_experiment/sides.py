"""Runs that no endpoint reads: the other form, two dimensions in stages, all images, rankings.

Each is shown as a difference to the final runs beside it, seed by seed, and decides nothing.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from sscl_experiments.statistics import interval

from .design import COMPARED, KERNELS, Design, ImageDesign, Kernel, Point, Purpose, Rung
from .ledger import Found
from .search import Condition, Incomplete, chosen, runs, search_of
from .tasks import Task, final, searching, staged

MEASURES = {
    "knn15_cosine_z": "15-NN on z, cosine",
    "knn15_euclidean_z": "15-NN on z, Euclidean",
    "probe_h": "probe on h",
}


class Side(NamedTuple):
    """Runs, and those of the same seeds that are subtracted from them."""

    says: str
    images: ImageDesign
    epochs: int
    kernel: str
    dim: int
    tasks: list[Task]
    minus: list[Task]


def forms(design: Design, images: ImageDesign, found: Found) -> list[Side]:
    """BatchNorm on z and none, one of which was chosen, so that its part can be told."""
    made, grid = [], images.both_forms
    condition = Condition(images, grid.epochs, "z")
    for kernel, dim in itertools.product(KERNELS, grid.dims):
        other = search_of(images, kernel, dim, found).other_form().point
        own = runs(condition, kernel, dim, design.seeds, found)
        where = (images, kernel, dim, other, grid.epochs)
        beside = [final(*where, seed, n_train=images.n_train) for seed in design.seeds]
        pair = (beside, own) if other.batchnorm else (own, beside)
        made.append(Side("BatchNorm − none", images, grid.epochs, kernel, dim, *pair))
    return made


def by_way_of_many(design: Design, images: ImageDesign, found: Found) -> list[Side]:
    """Two dimensions in stages, and directly."""
    made = []
    for epochs, kernel in itertools.product(images.staged, KERNELS):
        wide = chosen(images, kernel, images.largest, found)["z"].point
        planar = chosen(images, kernel, 2, found)["z"].point
        where = (images, kernel, wide, planar, epochs)
        tasks = [staged(*where, seed) for seed in design.seeds]
        direct = runs(Condition(images, epochs, "z"), kernel, 2, design.seeds, found)
        made.append(Side("staged − direct", images, epochs, kernel, 2, tasks, direct))
    return made


def on_all_images(design: Design, images: ImageDesign, found: Found) -> list[Side]:
    """Student's t and cosine, where the endpoints are most likely to differ.

    None where the final runs have all of them.
    """
    made, epochs = [], images.lengths[0].epochs
    if images.n_train is None:
        return []
    cells: list[tuple[int, Purpose]] = [(2, "z"), (images.largest, "h")]
    for dim, purpose in cells:
        tasks = {}
        for kernel in COMPARED:
            point = chosen(images, kernel, dim, found)[purpose].point
            where = (images, kernel, dim, point, epochs)
            n_train = design.confirming_images
            tasks[kernel] = [final(*where, seed, n_train=n_train) for seed in design.seeds]
        first, second = COMPARED
        says = f"all images, settings for {purpose}"
        kernels = f"{second} − {first}"
        made.append(Side(says, images, epochs, kernels, dim, tasks[second], tasks[first]))
    return made


SIDES = (forms, by_way_of_many, on_all_images)


def differences(design: Design, found: Found) -> list[dict[str, Any]]:
    """A row a side that is recorded: mean differences in points, with 95 % intervals over seeds."""
    rows = []
    for images, sides in itertools.product((design.cifar10, design.fashion), SIDES):
        try:
            made = sides(design, images, found)
        except Incomplete:
            continue
        rows += [_row(side, pairs) for side in made if (pairs := _recorded(side, found))]
    return rows


Pair = tuple[dict[str, float], dict[str, float]]


def _recorded(side: Side, found: Found) -> list[Pair]:
    """The metrics of both runs of every seed that did not diverge; none while a run is lacking."""
    pairs = []
    for one, other in zip(side.tasks, side.minus, strict=True):
        if one.id not in found or other.id not in found:
            return []
        entries = found[one.id], found[other.id]
        if all("metrics" in entry for entry in entries):
            pairs.append((entries[0]["metrics"], entries[1]["metrics"]))
    return pairs


def _row(side: Side, pairs: Sequence[Pair]) -> dict[str, Any]:
    row: dict[str, Any] = {"what": side.says, "images": side.images.name, "epochs": side.epochs}
    row |= {"kernel": side.kernel, "d_z": side.dim, "n": len(pairs)}
    for measure, name in MEASURES.items():
        ends = interval([100 * (one[measure] - other[measure]) for one, other in pairs])
        row[name] = "{:+.1f} [{:.1f}, {:.1f}]".format(*ends)
    return row


# --- rankings -------------------------------------------------------------------------------------


class Ranking(NamedTuple):
    """Temperatures of one kernel, in the search and at the length of the final runs."""

    kernel: Kernel
    steps: tuple[int, ...]
    searched: list[Task]
    longer: list[Task]


def rankings(design: Design, images: ImageDesign, found: Found) -> list[Ranking]:
    """At one d_z, in the form chosen for z: the first six temperatures, and those beside the best.

    Against those of the first rung, which all of them had. One seed.
    """
    dim = design.ranked_dim
    longer = _first_seed(images.second).replace(
        n_train=images.n_train, epochs=images.lengths[0].epochs
    )
    made = []
    for kernel in KERNELS:
        search = search_of(images, kernel, dim, found)
        batchnorm = search.chosen["z"].point.batchnorm
        steps = sorted({point.step for point in search.first if point.batchnorm == batchnorm})
        points = [Point(batchnorm, step) for step in steps]
        pair = [
            [task for point in points for task in searching(images, rung, kernel, dim, point)]
            for rung in (_first_seed(images.first), longer)
        ]
        made.append(Ranking(kernel, tuple(steps), *pair))
    return made


def _first_seed(rung: Rung) -> Rung:
    return rung.replace(seeds=rung.seeds[:1])


def rank_table(design: Design, images: ImageDesign, found: Found) -> list[dict[str, Any]]:
    """A row a kernel and purpose: the best step at either length, and Spearman's correlation."""
    try:
        made = rankings(design, images, found)
    except Incomplete:
        return []
    rows = []
    for ranking in made:
        lengths = [_scores(tasks, found) for tasks in (ranking.searched, ranking.longer)]
        if None in lengths:
            continue
        for name in ("15-NN on z", "probe on h"):
            short, long = (np.array(scores[name]) for scores in lengths if scores)
            row: dict[str, Any] = {"kernel": ranking.kernel, "d_z": design.ranked_dim, "by": name}
            row |= {"temperatures": len(ranking.steps)}
            row |= {"best step in the search": ranking.steps[int(short.argmax())]}
            row |= {"best step at last": ranking.steps[int(long.argmax())]}
            rows.append(row | {"rank correlation": float(stats.spearmanr(short, long).statistic)})
    return rows


def _scores(tasks: Sequence[Task], found: Found) -> dict[str, list[float]] | None:
    """By measure, z in the better metric; None while a run is lacking or where one diverged."""
    entries = [found.get(task.id, {}) for task in tasks]
    if not all("metrics" in entry for entry in entries):
        return None
    every = [entry["metrics"] for entry in entries]
    on_z = [max(one["knn15_cosine_z"], one["knn15_euclidean_z"]) for one in every]
    return {"15-NN on z": on_z, "probe on h": [one["probe_h"] for one in every]}
