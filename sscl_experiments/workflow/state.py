"""What there is of a plan on the disk.

Every result is read once, against its checksum; what is to be done, what is to be cleared and what
is reported follow from that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sscl_experiments import store

from .planning import Group, Job, Plan, read_mark, sha256


@dataclass(frozen=True)
class State:
    """A plan, and what was found of it.

    `changed`: for each job with a mark, by its name, what the job left and is gone, or is not as it
    was written. `records`: for each run that is there, by its key, what it says; None: damaged.
    """

    plan: Plan
    changed: dict[str, list[Path]]
    records: dict[str, dict[str, Any] | None]

    def unfinished(self, jobs: Sequence[Job]) -> list[Job]:
        """Jobs without a mark, and those whose results are not all there, as they were written."""
        return [job for job in jobs if job.mark not in self.changed or self.damaged(job)]

    def damaged(self, job: Job) -> list[Path]:
        """What a finished job left and is gone, or is not as it was written; and damaged runs.

        Runs count whoever made them.
        """
        finished = job.mark in self.changed
        keys = [key for group in job.groups for key in group.keys]
        suspect = keys if finished else [key for key in keys if key in self.records]
        runs = self.plan.results / "runs"
        damaged = [runs / key for key in suspect if self.records.get(key) is None]
        return self.changed.get(job.mark, []) + damaged

    def has(self, group: Group) -> bool:
        """Whether all its runs are there, undamaged."""
        return all(self.records.get(key) is not None for key in group.keys)


def look(plan: Plan) -> State:
    """The state of a plan now. It is that of no later time, when other processes write too."""
    marks = {job.mark: job for job in plan.jobs if (plan.marks / job.mark).exists()}
    changed = {mark: _changed(plan, job) for mark, job in marks.items()}
    runs = plan.results / "runs"
    keys = {key for job in plan.jobs for group in job.groups for key in group.keys}
    there = [key for key in keys if (runs / key).exists()]
    return State(plan, changed, {key: store.content(runs, key) for key in there})


def _changed(plan: Plan, job: Job) -> list[Path]:
    mark = plan.marks / job.mark
    listed = read_mark(mark)
    needed = [plan.out / "notebooks" / f"{job.notebook}.ipynb", *plan.claims(job)]
    names = {str(path.relative_to(plan.out)) for path in needed}
    if listed is None or not names <= listed.keys():
        return [mark]
    now = {name: sha256(plan.out / name) for name in listed}
    return [plan.out / name for name, checksum in listed.items() if now[name] != checksum]
