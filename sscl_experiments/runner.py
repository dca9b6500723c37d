"""From configurations to records: what is not there yet is trained, once, whoever asks for it."""

import importlib
import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from sscl_core.config import Images, TrainConfig
from sscl_core.divergence import NonFiniteLossError

from . import store
from .grouping import ensembles
from .record import Record

if TYPE_CHECKING:
    from .runs.together import Made


def results(
    configs: Sequence[TrainConfig],
    *,
    runs: Path,
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> list[Record]:
    """The records of these runs, in their order; what is not yet under `runs` is trained now.

    Processes that need the same runs share the work: what another one is at is left to it, and
    waited for in the end. `NonFiniteLossError` comes after all that can be made is made, and names
    every run that diverged.
    """
    found = {config: store.load(runs, config) for config in configs}
    failures: list[str] = []
    # Grouped as if none were there: whatever a process still lacks, it asks for the same locks as
    # the others.
    groups = ensembles(configs)
    waiting = deque(group for group in groups if any(found[config] is None for config in group))
    total = sum(map(len, waiting))
    with tqdm(total=total, desc="training", unit="run", disable=not (progress and waiting)) as bar:
        postponed = 0
        while waiting:
            group = waiting.popleft()
            with store.lock(runs, group[0], wait=postponed > len(waiting)) as ours:
                if not ours:
                    waiting.append(group)
                    postponed += 1
                    continue
                postponed = 0
                try:
                    found |= _complete(group, runs, device, data_dir)
                except NonFiniteLossError as error:
                    failures.append(str(error))
                bar.update(len(group))
    if failures:
        raise NonFiniteLossError("\n".join(failures))
    records = [record for config in configs if (record := found[config]) is not None]
    _warn_of_collapse(records)
    return records


def run(
    config: TrainConfig,
    *,
    runs: Path,
    device: str = "auto",
    data_dir: str | Path | None = None,
    compiled: bool = False,
    progress: bool = False,
) -> Record:
    """Trains, measures and stores one run, unless it is there.

    An interrupted one on images resumes from its checkpoint. `compiled` is for images: see `train`.
    """
    with store.lock(runs, config, wait=True):
        record = store.load(runs, config)
        if record is None:
            (record,) = _train_and_save([config], runs, device, data_dir, compiled, progress)
    _warn_of_collapse([record])
    return record


def checkpoint_of(config: TrainConfig, runs: Path) -> Path:
    return runs.parent / "checkpoints" / f"{store.run_key(config)}.pt"


def _complete(
    group: Sequence[TrainConfig], runs: Path, device: str, data_dir: str | Path | None
) -> dict[TrainConfig, Record | None]:
    found = {config: store.load(runs, config) for config in group}
    missing = [config for config in group if found[config] is None]
    made = _train_and_save(missing, runs, device, data_dir)
    return found | {record.config: record for record in made}


def _train_and_save(
    configs: Sequence[TrainConfig],
    runs: Path,
    device: str,
    data_dir: str | Path | None,
    compiled: bool = False,
    progress: bool = False,
) -> list[Record]:
    """Runs that are trained together: one on images, or an ensemble.

    Where some of an ensemble diverge, the others are kept before `NonFiniteLossError` is raised.
    """
    if not configs:
        return []
    checkpoint = checkpoint_of(configs[0], runs)
    records, failure = make(
        configs,
        checkpoint=checkpoint,
        device=device,
        data_dir=data_dir,
        compiled=compiled,
        progress=progress,
    )
    store.save(runs, records)
    if failure:
        raise failure
    checkpoint.unlink(missing_ok=True)
    return records


def make(
    configs: Sequence[TrainConfig],
    *,
    checkpoint: Path,
    device: str,
    data_dir: str | Path | None,
    compiled: bool = False,
    progress: bool = False,
) -> "Made":
    """Trains and measures runs that are trained together, and stores nothing.

    The records of those that ended well, and the error that names the others, if any.
    """
    # Imported here: who trains one kind of runs, or none, waits for no library of the others.
    data = configs[0].data
    kind = importlib.import_module(store.KINDS[type(data)])
    if isinstance(data, Images):
        (config,) = configs
        record = kind.make(
            config,
            device=device,
            data_dir=data_dir,
            checkpoint=checkpoint,
            compiled=compiled,
            progress=progress,
        )
        return [record], None
    return kind.make(configs, device=device, progress=progress)


def _warn_of_collapse(records: Sequence[Record]) -> None:
    collapsed = [record for record in records if record.metrics.get("collapsed")]
    if not collapsed:
        return
    seeds = sorted({record.config.seed for record in collapsed})
    first = collapsed[0].config
    warnings.warn(
        f"{len(collapsed)} of {len(records)} networks collapsed, all their features are equal or "
        f"zero (seeds {', '.join(map(str, seeds))}; the first: {first.loss}, "
        f"d_z = {first.projector.dim}): their accuracies are those of chance",
        stacklevel=3,
    )
