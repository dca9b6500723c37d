"""Snakemake started by itself, without `sscl reproduce`: the plan, the lock and the report."""

import os
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from sscl_experiments import surroundings
from sscl_experiments.study import SCALES

from . import execution, locks, report, state
from .planning import Plan, plan

_held = ExitStack()  # the folders in use and the lock, until this process ends


def begin(config: Mapping[str, Any], *, dry: bool) -> None:
    """Plans what `--config scale=... notebooks=...` asks for, and hands it over to this process.

    By default that is every notebook at scale quick. Unless it is a dry run, this process holds the
    results from now on, and what is to be made anew is cleared. `ValueError`: unknown names.
    """
    places = Namespace(data_dir=config.get("data_dir"), results_dir=None)
    _held.enter_context(surroundings.environment(places))
    wanted = plan_of(config)
    if not dry:
        _held.enter_context(locks.alone(wanted.out))
        execution.prepare(wanted, state.look(wanted))
    os.environ.update(execution.environment(wanted, places.data_dir))


def plan_of(config: Mapping[str, Any]) -> Plan:
    scale, notebooks = config.get("scale", "quick"), config.get("notebooks", "")
    unknown = set(config) - {"scale", "notebooks", "data_dir"}
    if unknown or scale not in SCALES:
        rule = f"scale ({', '.join(SCALES)}), notebooks (NAME,NAME) or data_dir"
        raise ValueError(f"--config takes {rule}, got {dict(config)}")
    return plan(scale, notebooks=[name for name in str(notebooks).split(",") if name])


def report_on(done: Plan) -> None:
    """Writes and prints what `sscl reproduce` ends with."""
    found = state.look(plan(done.scale, done.results))
    report.conclude(found)
    if unfinished := found.unfinished(done.jobs):
        print("\nFAILED\n" + "\n".join(execution.failures(done, unfinished)))
