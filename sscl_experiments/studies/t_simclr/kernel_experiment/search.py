"""How settings are chosen: by successive halving, the same for every kernel and dimension.

First rung: both forms (BatchNorm on z or not) at six temperatures a factor of 3 apart, one seed,
extended while the best is at an edge. Second: the best of each form for each purpose, longer and
with two seeds, and the temperatures beside it until it lies between two that are worse.
Third: learning rate and weight decay a step up and down from it, one at a time, one seed, and the
best of these with the second. The choice is the best of those that had both seeds, for each purpose
by its own measure.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from .design import (
    METRICS,
    PURPOSES,
    REACH,
    STEPS,
    TIE,
    ImageDesign,
    Kernel,
    Point,
    Purpose,
    Rung,
)
from .ledger import Found
from .tasks import Task, final, searching

P = TypeVar("P")  # a point of a search
Score = Callable[[P], float | None]


class Chosen(NamedTuple):
    """A setting, and the metric in which z is best read with it."""

    point: Point
    metric: str

    def measure(self, purpose: Purpose) -> str:
        """The figure by which its runs are judged."""
        return f"knn15_{self.metric}_z" if purpose == "z" else "probe_h"


class Incomplete(LookupError):
    """A search whose runs are not all recorded."""


class Search:
    """The search for one kernel and dimension, by what is recorded of it."""

    def __init__(self, images: ImageDesign, kernel: Kernel, dim: int, found: Found) -> None:
        self.images, self.kernel, self.dim, self.found = images, kernel, dim, found
        self.means: dict[tuple[Rung, Point, str], float | None] = {}

    @cached_property
    def first(self) -> list[Point]:
        """The points of the first rung that are known to be needed."""
        points: dict[Point, None] = {}
        for batchnorm in (False, True):
            start = [Point(batchnorm, step) for step in STEPS]
            points |= dict.fromkeys(bracketed(start, self.scores(self.images.first), _beside))
        return list(points)

    @cached_property
    def second(self) -> list[Point]:
        """Those of the second rung. `Incomplete`: the first is."""
        points: list[Point] = []
        for batchnorm in (False, True):
            form = [point for point in self.first if point.batchnorm == batchnorm]
            start = dict.fromkeys(best(form, score) for score in self.scores(self.images.first))
            points += bracketed(list(start), self.scores(self.images.second), _beside)
        return points

    @cached_property
    def third(self) -> list[Point]:
        """Those of the third rung, which begins with one seed. `Incomplete`: the second is."""
        points: dict[Point, None] = {}
        for score in self.scores(self.images.second):
            points |= dict.fromkeys(around(best(self.second, score)))
        return list(points)

    @cached_property
    def last(self) -> list[Point]:
        """Those of the third that get both seeds, one a purpose. `Incomplete`: it is."""
        scores = self.scores(self.images.single)
        return list(dict.fromkeys(best(self.third, score) for score in scores))

    @cached_property
    def chosen(self) -> dict[Purpose, Chosen]:
        """The settings for each purpose. `Incomplete`: the search is."""
        points = list(dict.fromkeys([*self.second, *self.last]))
        by_z, by_h = self.scores(self.images.second)
        for_z, for_h = best(points, by_z), best(points, by_h)
        if known(by_h, for_z) >= known(by_h, for_h) - TIE:
            for_h = for_z
        return {"z": self._read(for_z), "h": self._read(for_h)}

    def of_form(self, batchnorm: bool) -> Chosen:
        """The setting for z, or the best of the other form at the same rates. `Incomplete`."""
        point = self.chosen["z"].point
        if point.batchnorm == batchnorm:
            return self.chosen["z"]
        others = [other for other in self.second if other.batchnorm == batchnorm]
        found = best(others, self._score(self.images.second, "z"))
        metric = self._read(found).metric
        return Chosen(found._replace(lr=point.lr, decay=point.decay), metric)

    def _read(self, point: Point) -> Chosen:
        scores = {m: self._mean(self.images.second, point, f"knn15_{m}_z") for m in METRICS}
        return Chosen(point, max(scores, key=lambda metric: scores[metric] or 0.0))

    def scores(self, rung: Rung) -> list[Score[Point]]:
        """For each purpose."""
        return [self._score(rung, purpose) for purpose in PURPOSES]

    def _score(self, rung: Rung, purpose: Purpose) -> Score[Point]:
        def score(point: Point) -> float | None:
            if purpose == "h":
                return self._mean(rung, point, "probe_h")
            means = [self._mean(rung, point, f"knn15_{metric}_z") for metric in METRICS]
            return None if None in means else max(filter(None, means), default=0.0)

        return score

    def _mean(self, rung: Rung, point: Point, measure: str) -> float | None:
        key = (rung, point, measure)
        if key not in self.means:
            self.means[key] = self._mean_of(rung, point, measure)
        return self.means[key]

    def _mean_of(self, rung: Rung, point: Point, measure: str) -> float | None:
        """Over seeds; None where one is lacking, -∞ where one diverged."""
        values = []
        for task in searching(self.images, rung, self.kernel, self.dim, point):
            entry = self.found.get(task.id)
            if entry is None:
                return None
            values.append(entry["metrics"][measure] if "metrics" in entry else -math.inf)
        return sum(values) / len(values)


def search_of(images: ImageDesign, kernel: Kernel, dim: int, found: Found) -> Search:
    """The search by these records, made once for them."""
    key = ("search", images, kernel, dim)
    if key not in found.memory:
        found.memory[key] = Search(images, kernel, dim, found)
    return found.memory[key]


def bracketed(
    start: list[P], scores: Sequence[Score[P]], beside: Callable[[P], Iterable[P]]
) -> list[P]:
    """`start`, and what is `beside` the best by any score, while some of that is lacking.

    As far as scores are known.
    """
    points = list(start)
    while all(score(point) is not None for score, point in itertools.product(scores, points)):
        near = itertools.chain.from_iterable(beside(best(points, score)) for score in scores)
        missing = [point for point in dict.fromkeys(near) if point not in points]
        if not missing:
            break
        points += missing
    return points


def _beside(point: Point) -> Iterator[Point]:
    """Its neighbors in temperature, at most `REACH` steps beyond the first temperatures."""
    for step in (point.step - 1, point.step + 1):
        if STEPS[0] - REACH <= step <= STEPS[-1] + REACH:
            yield point._replace(step=step)


def around(point: Point) -> list[Point]:
    """Learning rate and weight decay one step down and up, one at a time."""
    changes: list[dict[str, Any]] = [{"lr": -1}, {"lr": 1}, {"decay": -1}, {"decay": 1}]
    return [point._replace(**change) for change in changes]


def best(points: list[P], score: Score[P]) -> P:
    """The first of the highest score. `Incomplete`: one has none."""
    return max(points, key=lambda point: known(score, point))


def known(score: Score[P], point: P) -> float:
    """`Incomplete`: it has none."""
    value = score(point)
    if value is None:
        raise Incomplete(f"{point} is not recorded yet")
    return value


def chosen(images: ImageDesign, kernel: Kernel, dim: int, found: Found) -> dict[Purpose, Chosen]:
    """At any dimension: the settings found at the nearest that was searched, the larger of two.

    Nearest in octaves. Where τ is in units of d_z it grows with it. `Incomplete`: the search is.
    """
    nearest = min(images.searched, key=lambda own: (abs(math.log2(own / dim)), -own))
    return search_of(images, kernel, nearest, found).chosen


class Condition(NamedTuple):
    """What final runs share: all but the kernel, the dimension and the seed.

    `purpose`: what their settings were chosen for.
    """

    images: ImageDesign
    epochs: int
    purpose: Purpose

    @property
    def dims(self) -> tuple[int, ...]:
        """Those of its final runs."""
        grids = self.images.grids(self.purpose)
        return next(grid.dims for grid in grids if grid.epochs == self.epochs)


def runs(
    condition: Condition, kernel: Kernel, dim: int, seeds: Iterable[int], found: Found
) -> list[Task]:
    """The final runs with the setting chosen for the purpose. `Incomplete`: the search is."""
    images = condition.images
    point = chosen(images, kernel, dim, found)[condition.purpose].point
    where = (images, kernel, dim, point, condition.epochs)
    return [final(*where, seed, n_train=images.n_train) for seed in seeds]
