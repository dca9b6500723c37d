"""Runs that no endpoint reads: the other form, two dimensions in stages, all images, rankings.

Each is shown as a difference to the final runs beside it, seed by seed, and decides nothing.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy import stats

from sscl_experiments.statistics import interval

from .design import COMPARED, KERNELS, Design, ImageDesign, Kernel, Point, Purpose, Rung
from .ledger import Found
from .reading import SHOWN
from .search import Condition, Incomplete, best, chosen, runs, search_of
from .tasks import Task, final, searching, staged

MEASURES = ("knn15_cosine_z", "knn15_euclidean_z", "probe_h")


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
    made, epochs = [], images.both_forms.epochs
    for kernel, dim in itertools.product(KERNELS, images.both_forms.dims):
        pair = [runs_of_form(design, images, kernel, dim, form, found) for form in (True, False)]
        made.append(Side("BatchNorm − none", images, epochs, kernel, dim, *pair))
    return made


def runs_of_form(
    design: Design, images: ImageDesign, kernel: Kernel, dim: int, batchnorm: bool, found: Found
) -> list[Task]:
    """Final runs with settings for z: those of the form that was chosen, or of the other.

    The other has the best temperature in its form, and the rates of the one that was chosen.
    """
    point = search_of(images, kernel, dim, found).of_form(batchnorm).point
    where = (images, kernel, dim, point, images.both_forms.epochs)
    return [final(*where, seed, n_train=images.n_train) for seed in design.seeds]


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
    for measure in MEASURES:
        ends = interval([100 * (one[measure] - other[measure]) for one, other in pairs])
        row[SHOWN[measure]] = "{:+.1f} [{:.1f}, {:.1f}]".format(*ends)
    return row


# --- rankings -------------------------------------------------------------------------------------


def longer(images: ImageDesign) -> Rung:
    """As the search's longer runs with one seed, at the length and on the images of final runs."""
    return images.single.replace(n_train=images.n_train, epochs=images.lengths[0].epochs)


def ranked(design: Design, images: ImageDesign, kernel: Kernel, found: Found) -> list[Point]:
    """At one d_z, in the form chosen for z: all temperatures of the first rung, ascending."""
    search = search_of(images, kernel, design.ranked_dim, found)
    batchnorm = search.chosen["z"].point.batchnorm
    form = {point for point in search.first if point.batchnorm == batchnorm}
    return sorted(form, key=lambda point: point.step)


def rankings(design: Design, images: ImageDesign, found: Found) -> list[Task]:
    """Those temperatures at the length of the final runs, for every kernel."""
    made: list[Task] = []
    for kernel in KERNELS:
        for point in ranked(design, images, kernel, found):
            made += searching(images, longer(images), kernel, design.ranked_dim, point)
    return made


def rank_table(design: Design, images: ImageDesign, found: Found) -> list[dict[str, Any]]:
    """A row a kernel and purpose: the best step at either length, and Spearman's correlation.

    The search's part is its first rung, which all of these temperatures had. One seed.
    """
    rows = []
    for kernel in KERNELS:
        try:
            points = ranked(design, images, kernel, found)
        except Incomplete:
            continue
        search = search_of(images, kernel, design.ranked_dim, found)
        lengths = zip(*map(search.scores, (images.first, longer(images))), strict=True)
        for name, pair in zip(("15-NN on z", "probe on h"), lengths, strict=True):
            before, after = ([score(point) for point in points] for score in pair)
            if None in before or None in after:
                continue
            row: dict[str, Any] = {"kernel": kernel, "d_z": design.ranked_dim, "by": name}
            row |= {"temperatures": len(points)}
            row |= {"best step in the search": best(points, pair[0]).step}
            row |= {"best step at last": best(points, pair[1]).step}
            rows.append(row | {"rank correlation": float(stats.spearmanr(before, after).statistic)})
    return rows
