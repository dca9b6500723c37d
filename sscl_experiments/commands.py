"""The commands of `sscl`: what each takes, and what it does."""

import argparse
import json
import os
import tomllib
from collections.abc import Sequence
from datetime import date, time
from pathlib import Path
from time import monotonic
from typing import Any

from pydantic import ValidationError

from sscl_core.config import TrainConfig
from sscl_core.files import write_text
from sscl_experiments.workflow import execution, kernels, locks, planning, publishing, report
from sscl_experiments.workflow.state import State, look

from . import paths, store, study
from .grouping import ensembles
from .surroundings import importing

DEVICES = ["auto", "cpu", "cuda"]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="sscl", description="Contrastive learning as stochastic neighbor embedding."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_reproduce,
        _add_notebook,
        _add_prefetch,
        _add_train,
        _add_tune,
        _add_paper,
        _add_kernel,
        _add_data,
        _add_claims,
        _add_carry,
        _add_bench,
    ):
        add(commands)
    return top


def _add_reproduce(commands: Any) -> None:
    text = "run every notebook of a scale, and end with the table of claims"
    command = _command(commands, "reproduce", _reproduce, text, _places(), _scale())
    side_by_side = "jobs side by side (default: all cores)"
    command.add_argument("--cores", type=_positive, default=os.cpu_count(), help=side_by_side)
    names = list(study.all_studies())
    command.add_argument("--notebooks", nargs="+", default=[], choices=names, metavar="NAME")
    profiles = "default, slurm, or a folder with a Snakemake profile of your own"
    command.add_argument("--profile", default="default", help=profiles)
    publish = "then put the executed notebooks in place of the committed ones"
    command.add_argument("--publish", action="store_true", help=publish)


def _add_notebook(commands: Any) -> None:
    command = _command(commands, "notebook", _notebook, "run one notebook", _places(), _scale())
    command.add_argument("name", choices=list(study.all_studies()), metavar="NAME")
    pair = ("KEY", "VALUE")
    command.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=pair)
    mark = "where to list what it left, with checksums (a job of the workflow)"
    command.add_argument("--mark", type=Path, metavar="FILE", help=mark)


def _add_prefetch(commands: Any) -> None:
    text = "make training runs of a notebook that are not there yet (a job of the workflow)"
    command = _command(commands, "prefetch", _prefetch, text, _places(), _scale())
    command.add_argument("name", choices=list(study.all_studies()), metavar="NAME")
    command.add_argument("--group", type=int, help="only this group of runs")


def _add_train(commands: Any) -> None:
    text = "one training run: prints what was measured, keeps it under results/runs"
    command = _command(commands, "train", _train, text, _places())
    config = "a run as .toml or .json; what it leaves out has its default"
    command.add_argument("--config", type=Path, metavar="FILE", help=config)
    assignments = "for instance projector.dim=2 loss.name=t_simclr"
    command.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help=assignments)
    command.add_argument("--device", default="auto", choices=DEVICES)
    show = "print the configuration and stop"
    command.add_argument("--show", action="store_true", help=show)


def _add_tune(commands: Any) -> None:
    text = "search the settings of notebook 5 on held-out training labels"
    command = _command(commands, "tune", _tune, text, _places())
    sets = ["fashion_mnist_subset", "cifar10"]
    command.add_argument("--image-set", choices=sets, default=sets[0])
    command.add_argument("--out", type=Path, metavar="FILE", help="write the table as CSV")


def _add_paper(commands: Any) -> None:
    text = "list the runs of scale paper (one GPU, hours), or make one and its record"
    command = _command(commands, "paper", _paper, text, _places())
    command.add_argument("name", nargs="?")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--device", default="auto", choices=DEVICES)
    plain = "without torch.compile, which needs a C++ compiler"
    command.add_argument("--no-compile", action="store_true", help=plain)
    small = "2 epochs of 64 images; the record goes to results/rehearsal"
    command.add_argument("--rehearse", action="store_true", help=small)


def _add_kernel(commands: Any) -> None:
    text = "go on with the experiment on kernels of notebook 5, and record every run (many hours)"
    command = _command(commands, "kernel", _kernel, text, _places())
    show = command.add_mutually_exclusive_group()
    show.add_argument("--plan", action="store_true", help="print runs and core hours, and stop")
    endpoints = "print what the records say so far, and stop"
    show.add_argument("--report", action="store_true", help=endpoints)
    command.add_argument("--hours", type=float, help="begin no run that would end later than this")
    small = "all of it on few images; the records go to results/rehearsal"
    command.add_argument("--rehearse", action="store_true", help=small)


def _add_data(commands: Any) -> None:
    text = "list the data sets, or load one, downloading it where needed"
    command = _command(commands, "data", _data, text)
    command.add_argument("name", nargs="?")
    command.add_argument("--data-dir", metavar="DIR")


def _add_claims(commands: Any) -> None:
    _command(commands, "claims", _claims, "the table of claims of what ran", _places(), _scale())


def _add_carry(commands: Any) -> None:
    text = "keep runs of older code, if a sample of them, trained again, is equal bit for bit"
    command = _command(commands, "carry", _carry, text, _places(), _scale())
    names = list(study.all_studies())
    command.add_argument("--notebooks", nargs="+", default=[], choices=names, metavar="NAME")
    command.add_argument("--device", default="auto", choices=DEVICES)


def _add_bench(commands: Any) -> None:
    text = "time and memory of the losses and all else beside peers and floors (notebook 12)"
    command = _command(commands, "bench", _bench, text, _places(), _scale())
    pair = ("KEY", "VALUE")
    command.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=pair)
    command.add_argument("--device", default="auto", choices=DEVICES)
    command.add_argument("--out", type=Path, metavar="FILE", help="write all tables as a record")


def _command(
    commands: Any, name: str, run: Any, text: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text, parents=parents)
    command.set_defaults(run=run)
    return command


def _places() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    results = "default: $SSCL_RESULTS_DIR, then results/ of the checkout"
    options.add_argument("--results-dir", metavar="DIR", help=results)
    data = "canonical data files; default: $SSCL_DATA_DIR, then the cache"
    options.add_argument("--data-dir", metavar="DIR", help=data)
    return options


def _scale() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--scale", choices=study.SCALES, default="quick")
    return options


def _reproduce(a: argparse.Namespace) -> int:
    every = planning.plan(a.scale, a.results_dir)
    plan = every.only(a.notebooks)
    with locks.alone(plan.out):
        status, found = 0, look(every)
        if found.unfinished(plan.jobs):
            status = _make(plan, found, a)
            found = look(every)
        else:
            print(f"Nothing changed since the last run at scale {a.scale}: nothing to do.")
        return _conclude(plan, found, status, a)


def _make(plan: planning.Plan, found: State, a: argparse.Namespace) -> int:
    """Snakemake's exit status."""
    damaged = [path for job in plan.jobs for path in found.damaged(job)]
    for path in dict.fromkeys(damaged):
        print(f"{path} is not as it was written: it is made again.")
    runs = {config for job in plan.jobs for config in job.parameters.runs()}
    what = f"{len(plan.jobs)} notebook(s), {len(runs)} training runs"
    print(f"Scale {a.scale}: {what}, {a.cores} jobs side by side.", flush=True)
    began = monotonic()
    where = {"cores": a.cores, "profile": a.profile, "data_dir": a.data_dir}
    status = execution.run_snakemake(plan, found, **where)
    print(f"Took {monotonic() - began:.0f} s.")
    return status


def _conclude(plan: planning.Plan, found: State, status: int, a: argparse.Namespace) -> int:
    """The exit status of a reproduction, after its report: of all notebooks, asked for or not."""
    reported = report.conclude(found)
    if unfinished := found.unfinished(plan.jobs):
        print("\nFAILED\n" + "\n".join(execution.failures(plan, unfinished)))
        return status or 1
    if a.publish:
        for path in publishing.publish(plan, found):
            print(f"published {path}")
    return status if reported else 1


def _notebook(a: argparse.Namespace) -> int:
    given = {key: _value(value) for key, value in a.parameter}
    if a.data_dir:
        given["data_dir"] = a.data_dir
    print(kernels.run_notebook(a.name, {"scale": a.scale} | given, mark=a.mark))
    return 0


def _prefetch(a: argparse.Namespace) -> int:
    job = planning.job(a.name, a.scale)
    if a.group is not None and not 0 <= a.group < len(job.groups):
        raise ValueError(f"group must be in 0..{len(job.groups) - 1}, got {a.group}")
    groups = job.groups if a.group is None else [job.groups[a.group]]
    configs = [config for group in groups for config in group.configs]
    where = paths.results_dir(a.results_dir)
    with locks.taking_part(where / a.scale):
        failed = make_all(configs, where / "runs", a.data_dir)
    if failed:
        raise RuntimeError("\n".join(failed))
    return 0


def make_all(configs: Sequence[TrainConfig], runs: Path, data_dir: str | None) -> list[str]:
    """What failed; all other runs are made. Runs that other processes are at are left to them."""
    with importing():
        from sscl_core.divergence import NonFiniteLossError

        from .runner import results
    where: Any = {"runs": runs, "data_dir": data_dir}
    try:
        results(configs, **where)
        return []
    except NonFiniteLossError as error:
        return [f"{type(error).__name__}: {error}"]  # it names every run: all others are made
    except Exception:
        pass  # the first error ended it: now each training by itself, those that are made are read
    failed: dict[str, None] = {}
    for together in ensembles(configs):
        try:
            results(together, **where, progress=False)
        except Exception as error:
            failed[f"{type(error).__name__}: {error}"] = None
    return list(failed)


def _train(a: argparse.Namespace) -> int:
    content = read_file(a.config) if a.config else {}
    for assignment in a.set:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set takes KEY=VALUE, got {assignment!r}")
        _assign(content, key.split("."), _value(value))
    config = read_config(content)
    if a.show:
        print(config.model_dump_json(indent=1))
        return 0
    with importing():
        from .runner import run

    runs = paths.results_dir(a.results_dir) / "runs"
    record = run(config, runs=runs, device=a.device, data_dir=a.data_dir, progress=True)
    print(json.dumps({"run": str(runs / store.run_key(config)), **record.metrics}, indent=1))
    return 0


def read_file(path: Path) -> dict[str, Any]:
    """What a file .toml or .json says, in UTF-8, with a byte-order mark or without.

    `ValueError` names the file and what is accepted.
    """
    kinds = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix.lower() not in kinds or path.is_dir():
        what = "a folder" if path.is_dir() else f"a file {path.suffix or 'without suffix'}"
        raise ValueError(f"--config must be a file .toml or .json, got {path}, {what}")
    try:
        content = kinds[path.suffix.lower()](path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"--config {path} must be text in UTF-8: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--config {path} is not {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"--config {path} must hold a mapping of names to values, got {content!r}")
    _require_values(path, "", content)
    return content


def _require_values(path: Path, name: str, content: Any) -> None:
    """`ValueError`: a date or time, which TOML has and no configuration takes."""
    if isinstance(content, date | time):
        accepted = "accepted are numbers, texts, true, false, lists and tables"
        raise ValueError(f"--config {path}: {name} = {content} is a date or time; {accepted}")
    parts = dict(enumerate(content)) if isinstance(content, list) else content
    for key, value in parts.items() if isinstance(parts, dict) else ():
        _require_values(path, f"{name}.{key}".lstrip("."), value)


def read_config(content: dict[str, Any]) -> TrainConfig:
    """A run from a mapping in which a part may name only what it changes.

    The kind of a part defaults to that of `TrainConfig()`. `ValueError`: it breaks a rule.
    """
    defaults = TrainConfig()
    for part in ("data", "backbone", "loss"):
        if isinstance(content.get(part), dict) and "name" not in content[part]:
            content[part] = {"name": getattr(defaults, part).name, **content[part]}
    try:
        return TrainConfig.model_validate_json(json.dumps(content))
    except ValidationError as error:
        problems = "; ".join(_problem(dict(part)) for part in error.errors())
        raise ValueError(f"configuration: {problems}; all names: sscl train --show") from None


def _problem(error: dict[str, Any]) -> str:
    return f"{'.'.join(map(str, error['loc']))} = {error['input']!r}: {error['msg']}"


def _tune(a: argparse.Namespace) -> int:
    with importing():
        from sscl_experiments.studies.t_simclr.tuning import tune

    table = tune(a.image_set, runs=paths.results_dir(a.results_dir) / "runs", data_dir=a.data_dir)
    print(table.to_string(index=False, float_format=lambda x: f"{x:.4f}"))
    if a.out:
        write_text(a.out, table.to_csv(index=False, float_format="%.4f"))
    return 0


def _paper(a: argparse.Namespace) -> int:
    with importing():
        from sscl_experiments.studies.t_simclr import paper_scale as paper

    if a.name is None:
        for name in paper.names():
            prefix = f"{name}-seed"
            records = paper.FOLDER.glob(f"{prefix}*.json")
            seeds = sorted(path.stem.removeprefix(prefix) for path in records)
            print(f"{name:32} {'seeds ' + ', '.join(seeds) if seeds else 'no record yet'}")
        if withheld := paper.gate():
            print(f"No verdict yet: {withheld}.")
        return 0
    where = {"results": paths.results_dir(a.results_dir), "data_dir": a.data_dir}
    how = {"device": a.device, "compiled": not a.no_compile, "rehearse": a.rehearse}
    print(paper.make(a.name, a.seed, **where, **how))
    return 0


def _kernel(a: argparse.Namespace) -> int:
    with importing():
        from sscl_experiments.studies.t_simclr.kernel_experiment import design, ledger, running

    results = paths.results_dir(a.results_dir)
    rehearsed = results / "rehearsal" / ledger.FOLDER.name
    whole = design.rehearsal() if a.rehearse else design.FULL
    records = ledger.Ledger(rehearsed if a.rehearse else ledger.FOLDER)
    if a.plan or a.report:
        print((running.plan_table if a.plan else running.report)(whole, records))
        return 0
    if a.hours is not None and not a.hours > 0:
        raise ValueError(f"--hours must be positive, got {a.hours:g}")
    running.go_on(whole, records, results=results, data_dir=a.data_dir, hours=a.hours)
    return 0


def _data(a: argparse.Namespace) -> int:
    with importing():
        from sscl_experiments.datasets.images import NAMES, load_images

    for name in [a.name] if a.name else NAMES:
        if a.name is None:
            print(name)
            continue
        for split in ("train", "test"):
            images = load_images(name, split, data_dir=a.data_dir)
            print(f"{name} {split}: {tuple(images.images.shape)}, {len(images.classes)} classes")
    return 0


def _claims(a: argparse.Namespace) -> int:
    out = paths.results_dir(a.results_dir) / a.scale
    decided = report.outcomes(out)
    if not decided:
        remedy = f"run `sscl reproduce --scale {a.scale}` first"
        raise FileNotFoundError(f"no claim has been decided under {out}: {remedy}")
    print(report.claims_table(decided))
    return 0


def _carry(a: argparse.Namespace) -> int:
    with importing():
        from .carry import carry

    plan = planning.plan(a.scale, a.results_dir, a.notebooks)
    configs = [config for job in plan.jobs for config in job.parameters.runs()]
    runs = paths.results_dir(a.results_dir) / "runs"
    done = carry(configs, runs=runs, device=a.device, data_dir=a.data_dir)
    print(f"{len(done.sample)} runs trained again, {done.others} others carried.")
    if done.differences:
        print("Nothing was changed, since these differ:", *done.differences, sep="\n")
    return 1 if done.differences else 0


def _bench(a: argparse.Namespace) -> int:
    with importing():
        from sscl_experiments.studies.performance import STUDY, analysis

    given = {"scale": a.scale, "device": a.device, "data_dir": a.data_dir}
    given |= {key: _value(value) for key, value in a.parameter}
    analysis.bench(study.resolve(STUDY.notebook, given), a.out)
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def _value(text: str) -> Any:
    """JSON where it is JSON (numbers, lists, true), else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _assign(content: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    *parents, last = keys
    for key in parents:
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise ValueError(f"--set {'.'.join(keys)}: {key} has no parts, it is {content!r}")
    content[last] = value
