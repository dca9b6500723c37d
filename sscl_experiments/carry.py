"""Long runs are kept over a change of the code that moves no number.

Changed code gives every run that it reaches a new key. Where the change is a refactoring, the
numbers are the same, and that is shown rather than believed: a stratified sample of the runs is
trained again, and compared bit for bit with what is stored. Only if all of it is equal do the other
records get their new keys, and each then says from which code it was carried, and on which sample
that rests.
"""

import itertools
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sscl_core.config import TrainConfig
from sscl_core.divergence import NonFiniteLossError

from . import store
from .record import Record
from .runner import make
from .runs.making import now

# The least number of runs, where there are as many, that are trained again.
A_STRATUM, IN_ALL = 2, 3
TIMES = ("images_per_second",)  # metrics that no two runs share


@dataclass(frozen=True)
class Group:
    """Records of runs that were trained together by one state of the code."""

    code: str
    runs: tuple[TrainConfig, ...]  # all that were trained together, with a record or without
    records: Mapping[TrainConfig, Record]

    @property
    def stratum(self) -> tuple[Hashable, ...]:
        """What decides which code trains and measures it: of each kind some are made again."""
        first = self.runs[0]
        # Some kinds of runs have an objective of their own: a queue, labels.
        objective = getattr(first, "objective", None), getattr(first, "supervised", None)
        kind = (first.data.name, type(first.data).__name__, *objective, first.backbone.name)
        how = (first.loss.name, first.precision, first.weights is None, first.epochs > 0)
        return self.code, *kind, *how

    @property
    def seconds(self) -> float:
        """What it takes to train it again."""
        recorded = [record.provenance.get("seconds", 0.0) for record in self.records.values()]
        return sum(recorded) / len(recorded) * len(self.runs)


@dataclass(frozen=True)
class Carried:
    """What was trained again, what differs in it, and how many other records have new keys now."""

    sample: list[TrainConfig] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    others: int = 0


def carry(
    configs: Iterable[TrainConfig],
    *,
    runs: Path,
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> Carried:
    """Gives records under `runs` that older code made the keys of today, if their numbers are.

    Of these runs, those without a record of today are looked for under the keys of other code, with
    the same configuration and the same libraries. Of each kind (`Group.stratum`) the one or two
    groups that trained fastest are trained again, and of each state of the code three runs at
    least. If a metric (but `TIMES`) or an array differs in one bit, nothing is changed.
    """
    groups = older_groups(configs, runs)
    sample = sample_of(groups)
    made: list[Record] = []
    differences: list[str] = []
    with tqdm(total=len(sample), desc="training again", disable=not progress) as bar:
        for group in sample:
            again = _trained_again(group, device, data_dir)
            made += again.values()
            differences += _differences(group, again)
            bar.update()
    trained = [record.config for record in made]
    if differences or not sample:
        return Carried(trained, differences)
    others = _others(groups, sample)
    store.save(runs, made + others)
    return Carried(trained, others=len(others))


def older_groups(configs: Iterable[TrainConfig], runs: Path) -> list[Group]:
    """The records that could be carried, in the groups that were trained together.

    Of several records of one run, that of the latest date. A damaged one is left out.
    """
    found = store.identities(runs)
    older: dict[tuple[str, tuple[str, ...]], list[store.Identity]] = {}
    for one in found:
        older.setdefault((one.essence, one.libraries), []).append(one)
    groups: dict[tuple[str, tuple[TrainConfig, ...]], dict[TrainConfig, Record]] = {}
    for config in dict.fromkeys(configs):
        today = store.identity(config)
        if store.intact(runs, today.key):
            continue
        candidates = older.get((today.essence, today.libraries), [])
        records = {one.code: _read(runs / one.key, config) for one in candidates}
        dated = {code: record for code, record in records.items() if record is not None}
        if dated:
            code = max(dated, key=lambda code: dated[code].provenance.get("date", ""))
            together = _together(dated[code])
            groups.setdefault((code, together), {})[config] = dated[code]
    return [Group(code, together, records) for (code, together), records in groups.items()]


def _read(folder: Path, config: TrainConfig) -> Record | None:
    try:
        return store.read(folder, config)
    except (OSError, ValueError):
        return None


def _together(record: Record) -> tuple[TrainConfig, ...]:
    seeds = record.provenance.get("together", [record.config.seed])
    return tuple(record.config.replace(seed=seed) for seed in seeds)


def sample_of(groups: Sequence[Group]) -> list[Group]:
    """The fastest of every stratum, then the fastest of each state of the code, up to `IN_ALL`.

    A group is trained again as a whole, since stacked products can round otherwise than single
    ones; its records count one by one.
    """
    fastest = sorted(groups, key=lambda group: group.seconds)
    strata: dict[tuple[Hashable, ...], list[Group]] = {}
    for group in fastest:
        strata.setdefault(group.stratum, []).append(group)
    sample = list(itertools.chain.from_iterable(part[:A_STRATUM] for part in strata.values()))
    for code in dict.fromkeys(group.code for group in groups):
        rest = [group for group in fastest if group.code == code and group not in sample]
        known = sum(len(group.records) for group in sample if group.code == code)
        while known < IN_ALL and rest:
            sample.append(rest.pop(0))
            known += len(sample[-1].records)
    return sample


def _trained_again(
    group: Group, device: str, data_dir: str | Path | None
) -> dict[TrainConfig, Record]:
    """The new records of those runs of the group that end well: all of its own did, once."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "run.pt"
        try:
            records, _ = make(group.runs, checkpoint=checkpoint, device=device, data_dir=data_dir)
        except NonFiniteLossError:
            records = []
    return {record.config: record for record in records}


def _differences(group: Group, again: Mapping[TrainConfig, Record]) -> Iterator[str]:
    for config, before in group.records.items():
        key = store.run_key(config)
        if config not in again:
            yield f"run {key}: it diverges now"
            continue
        names = different(before, again[config])
        if names:
            yield f"run {key}: {', '.join(names)}"


def different(a: Record, b: Record) -> list[str]:
    """The metrics and arrays that are not equal bit for bit, those of `TIMES` left out."""
    names = [
        f"metric {name}"
        for name in sorted(a.metrics.keys() | b.metrics.keys())
        if name not in TIMES and repr(a.metrics.get(name)) != repr(b.metrics.get(name))
    ]
    for name in sorted(a.arrays.keys() | b.arrays.keys()):
        if not _same(a.arrays.get(name), b.arrays.get(name)):
            names.append(f"array {name}")
    return names


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return False
    alike = a.dtype == b.dtype and a.shape == b.shape
    return alike and a.tobytes() == b.tobytes()


def _others(groups: Sequence[Group], sample: Sequence[Group]) -> list[Record]:
    """The records outside the sample, with the sample of their own state of the code."""
    date = now()
    others = []
    for group in groups:
        if group in sample:
            continue
        witnesses = [one for one in sample if one.code == group.code]
        keys = [store.run_key(config) for one in witnesses for config in one.records]
        for config, record in group.records.items():
            carried = {"from": group.code, "sample": keys, "date": date}
            if "carried" in record.provenance:
                carried["before"] = record.provenance["carried"]
            provenance = record.provenance | {"carried": carried}
            others.append(Record(config, record.metrics, record.arrays, provenance))
    return others
