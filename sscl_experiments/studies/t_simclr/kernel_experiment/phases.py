"""Which runs are made, in which order, and what they should cost.

A phase is a list of runs that follows from the records of those before it, so any machine that has
them goes on where the last one stopped. The order is that in which time is best spent, and each
phase is worth having by itself.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from sscl_core.config import InfoNCE, TrainConfig

from . import sides
from .design import (
    COMPARED,
    FACTOR,
    KERNELS,
    METRICS,
    Design,
    Grid,
    ImageDesign,
    Kernel,
    Purpose,
    Rung,
)
from .ledger import Entry, Found
from .reading import endpoint_dims, undecided
from .search import Condition, Incomplete, runs, search_of
from .tasks import Task, baseline, searching, seconds, untrained

UNTRAINED_SEEDS = 2
SidesOf = Callable[[Design, ImageDesign, Found], list[sides.Side]]


@dataclass(frozen=True)
class Phase:
    """`tasks(found)`: the runs that are known to be needed, recorded or not.

    It raises `Incomplete` where not even the first of them is known yet.
    """

    name: str
    says: str
    images: ImageDesign
    tasks: Callable[[Found], list[Task]]


def phases(design: Design) -> list[Phase]:
    """All of them, in their order."""
    cifar, fashion = design.cifar10, design.fashion
    shorter, longer = cifar.lengths
    *short_ones, longest = fashion.lengths
    plan = _Plan(design)
    return [
        *plan.search(cifar),
        plan.deciding(cifar, shorter, "z"),
        plan.deciding(cifar, cifar.probed[0], "h"),
        plan.baselines(cifar),
        plan.rankings(cifar),
        plan.deciding(cifar, longer, "z"),
        plan.deciding(cifar, cifar.probed[1], "h"),
        *plan.search(fashion),
        plan.finals(fashion, tuple(short_ones), "z"),
        plan.finals(fashion, fashion.probed, "h"),
        plan.baselines(fashion),
        plan.finals(cifar, cifar.lengths, "z"),
        plan.finals(cifar, cifar.probed, "h"),
        plan.forms(fashion),
        plan.forms(cifar),
        plan.staged(cifar),
        plan.staged(fashion),
        plan.finals(fashion, (longest,), "z"),
        plan.confirmation(cifar),
        plan.more_seeds(cifar),
    ]


def _searched(images: ImageDesign, parts: Sequence[tuple[Rung, str]], found: Found) -> list[Task]:
    """The runs of a rung. `Incomplete`: none of them is known; those that are known come first."""
    made: list[Task] = []
    for rung, name in parts:
        for kernel, dim in itertools.product(KERNELS, images.searched):
            try:
                known = getattr(search_of(images, kernel, dim, found), name)
            except Incomplete:
                continue
            for point in known:
                made += searching(images, rung, kernel, dim, point)
    if not made:
        raise Incomplete(f"the rung before is not recorded for any dimension of {images.name}")
    return list(dict.fromkeys(made))


class _Plan:
    """Makes the phases of a design."""

    def __init__(self, design: Design) -> None:
        self.design = design

    def search(self, images: ImageDesign) -> list[Phase]:
        rungs: list[tuple[str, str, list[tuple[Rung, str]]]] = [
            ("temperatures", "six temperatures of either form", [(images.first, "first")]),
            ("finalists", "the best, longer, two seeds", [(images.second, "second")]),
            (
                "optimizer",
                "learning rate and weight decay",
                [(images.single, "third"), (images.second, "last")],
            ),
        ]
        made = []
        for name, says, parts in rungs:
            tasks = partial(_searched, images, parts)
            made.append(Phase(f"{images.name}-search-{name}", says, images, tasks))
        return made

    def deciding(self, images: ImageDesign, grid: Grid, purpose: Purpose) -> Phase:
        """Those of the final runs of one length that an endpoint reads.

        Seed by seed, so that kernels which are compared are made by the same code and machine.
        """
        condition = Condition(images, grid.epochs, purpose)
        dims = endpoint_dims(images, purpose)

        def tasks(found: Found) -> list[Task]:
            return self._seed_by_seed(condition, dims, COMPARED, found)

        name = f"{images.name}-deciding-{grid.epochs}-epochs-{purpose}"
        return Phase(name, f"final runs that decide, settings chosen for {purpose}", images, tasks)

    def finals(self, images: ImageDesign, grids: tuple[Grid, ...], purpose: Purpose) -> Phase:
        """All of them; those that decide are recorded already where they have phases."""

        def tasks(found: Found) -> list[Task]:
            made: list[Task] = []
            for grid in grids:
                condition = Condition(images, grid.epochs, purpose)
                made += self._seed_by_seed(condition, grid.dims, tuple(KERNELS), found)
            return made

        lengths = "-".join(str(grid.epochs) for grid in grids)
        name = f"{images.name}-{lengths}-epochs-{purpose}"
        return Phase(name, f"final runs, settings chosen for {purpose}", images, tasks)

    def _seed_by_seed(
        self, condition: Condition, dims: Sequence[int], kernels: Sequence[Kernel], found: Found
    ) -> list[Task]:
        made: list[Task] = []
        for seed, dim, kernel in itertools.product(self.design.seeds, dims, kernels):
            made += runs(condition, kernel, dim, (seed,), found)
        return made

    def baselines(self, images: ImageDesign) -> Phase:
        made = [baseline(images)]
        grid = itertools.product(made[0].pixels, range(UNTRAINED_SEEDS))
        made += [untrained(images, dim, seed) for dim, seed in grid]
        says = "raw pixels, principal components, untrained networks"
        return Phase(f"{images.name}-baselines", says, images, lambda found: made)

    def forms(self, images: ImageDesign) -> Phase:
        says = "with BatchNorm on z where it was not chosen, without where it was"
        return self._side(f"{images.name}-both-forms", says, images, sides.forms)

    def staged(self, images: ImageDesign) -> Phase:
        says = "two dimensions by way of many"
        return self._side(f"{images.name}-staged", says, images, sides.by_way_of_many)

    def confirmation(self, images: ImageDesign) -> Phase:
        name, says = f"{images.name}-all-images", "all training images"
        return self._side(name, says, images, sides.on_all_images)

    def _side(self, name: str, says: str, images: ImageDesign, made: SidesOf) -> Phase:
        def tasks(found: Found) -> list[Task]:
            own = [(side.tasks, side.minus) for side in made(self.design, images, found)]
            by_seed = [zip(*pair, strict=True) for pair in own]
            every = itertools.chain.from_iterable(itertools.chain.from_iterable(by_seed))
            return list(dict.fromkeys(every))

        return Phase(name, says, images, tasks)

    def rankings(self, images: ImageDesign) -> Phase:
        """Whether temperatures rank as they did in the search where training is longer."""

        def tasks(found: Found) -> list[Task]:
            return sides.rankings(self.design, images, found)

        says = "temperatures of the search at the length of the final runs"
        return Phase(f"{images.name}-rankings", says, images, tasks)

    def more_seeds(self, images: ImageDesign) -> Phase:
        """Five more seeds of cosine and Student's t for every endpoint that five left open."""

        def tasks(found: Found) -> list[Task]:
            made: list[Task] = []
            for condition, dims in undecided(self.design, images, found):
                for kernel, dim in itertools.product(COMPARED, dims):
                    made += runs(condition, kernel, dim, self.design.more, found)
            return list(dict.fromkeys(made))

        says = "ten seeds where five leave a verdict open (at most; often fewer)"
        return Phase(f"{images.name}-more-seeds", says, images, tasks)


# --- what is to be done, and what it should take --------------------------------------------------


@dataclass(frozen=True)
class Share:
    """A phase of the plan: its runs, how many are recorded, and core hours."""

    phase: Phase
    runs: int
    done: int
    hours: float
    left: float
    certain: bool  # whether the records already say which runs these are


def pending(design: Design, found: Found) -> Iterator[tuple[Phase, Task]]:
    """The runs that can be made now, in their order, each once."""
    seen = set(found)
    for phase in phases(design):
        try:
            tasks = phase.tasks(found)
        except Incomplete:
            continue
        for task in tasks:
            if task.id not in seen:
                seen.add(task.id)
                yield phase, task


def shares(design: Design, found: Found) -> list[Share]:
    """The plan. What runs will follow from results that are not there yet is worked out for typical
    ones: the best temperature for z where the search begins, for h a step higher above d_z = 8.

    A run that two phases share counts in the first.
    """
    supposed = Found(found)
    seen: set[str] = set()
    rows = []
    for phase in phases(design):
        certain = True
        while True:
            tasks = phase.tasks(supposed)
            missing = [task for task in tasks if task.id not in supposed]
            if not missing:
                break
            certain = False
            supposed = Found({**supposed, **{task.id: _typical(task) for task in missing}})
            supposed.memory["supposed"] = True
        own = [task for task in dict.fromkeys(tasks) if task.id not in seen]
        seen |= {task.id for task in own}
        left = [task for task in own if task.id not in found]
        took = [seconds(task, phase.images) / 3600 for task in own]
        rest = [seconds(task, phase.images) / 3600 for task in left]
        done = len(own) - len(left)
        rows.append(Share(phase, len(own), done, math.fsum(took), math.fsum(rest), certain))
    return rows


def _typical(task: Task) -> Entry:
    """An entry with scores that fall off from the typical best; for planning only."""
    config = task.stages[0]
    base = _steps_from_base(config)
    by_z, by_h = (0.5 - 0.01 * abs(base - best) for best in (0, int(config.projector.dim > 8)))
    rates = abs(math.log(config.optimizer.lr / 5e-3)) + abs(config.optimizer.weight_decay - 0.1)
    metrics = {f"knn15_{metric}_z": by_z - 0.01 * rates for metric in METRICS}
    return {"id": task.id, "metrics": metrics | {"probe_h": by_h - 0.01 * rates}}


def _steps_from_base(config: TrainConfig) -> float:
    loss, projector = config.loss, config.projector
    base = 0.3
    if not isinstance(loss, InfoNCE):
        base = 0.1 * projector.dim if projector.batchnorm else 3.0
    return math.log(getattr(loss, "temperature", 1.0) / base, FACTOR)
