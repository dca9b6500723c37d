"""What the experiment has recorded so far, as notebook 05 shows it.

A table is empty while its runs are lacking. `contrasts` and `two_by_two` have 95 % intervals over
seeds and test images together, as the endpoints have; `beside_endpoints` over seeds.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from .analysis import BATCH, CHOSEN, CONTRASTS, points
from .kernel_experiment import design as designs
from .kernel_experiment import endpoints, sides
from .kernel_experiment.design import (
    COMPARED,
    KERNELS,
    PURPOSES,
    Design,
    ImageDesign,
    Kernel,
    Purpose,
)
from .kernel_experiment.endpoints import Correct, Estimate
from .kernel_experiment.ledger import Entry, Found
from .kernel_experiment.phases import UNTRAINED_SEEDS, shares
from .kernel_experiment.reading import (
    SHOWN,
    Reading,
    correct_of,
    endpoint_dims,
    is_recorded,
    means_of,
    told_right,
)
from .kernel_experiment.search import Condition, Incomplete, Search, chosen, runs, search_of
from .kernel_experiment.tasks import baseline, untrained

MEASURE = {"z": "knn15_z", "h": "linear_probe_h"}  # as figures call what a purpose is judged by
CHANGES = dict(zip(("leave the sphere", "heavy tail"), CONTRASTS.values(), strict=True))
FORMS = {True: "with BatchNorm", False: "without"}


def progress(design: Design, found: Found) -> str:
    """How much of the experiment is recorded, in a sentence."""
    plan = shares(design, found)
    done, made = (sum(getattr(share, name) for share in plan) for name in ("done", "runs"))
    hours = sum(share.hours for share in plan)
    left = sum(share.left for share in plan)
    if done == made:
        return f"All {made:,} runs of the experiment are made."
    what = f"{done:,} of about {made:,} runs of the experiment are made"
    return f"{what}, and {left:.0f} of {hours:.0f} core hours are left."


# --- the search -----------------------------------------------------------------------------------


def settings(design: Design, found: Found) -> pd.DataFrame:
    """A row a set, kernel, searched d_z and purpose: what was chosen, its held-out accuracy.

    One row where it serves both purposes.
    """
    rows = []
    for images in (design.cifar10, design.fashion):
        for dim, kernel in itertools.product(images.searched, KERNELS):
            search = search_of(images, kernel, dim, found)
            try:
                picked = search.chosen
            except Incomplete:
                continue
            same = picked["z"] == picked["h"]
            for purpose in PURPOSES[:1] if same else PURPOSES:
                row: dict[str, Any] = {"images": images.name, "d_z": dim, "kernel": kernel}
                row["chosen for"] = "z and h" if same else purpose
                rows.append(row | _setting(search, purpose))
    return pd.DataFrame(rows)


def _setting(search: Search, purpose: Purpose) -> dict[str, Any]:
    point, metric = search.chosen[purpose]
    by_z, by_h = search.scores(search.images.second)
    return {
        "τ": designs.temperature(search.kernel, point, search.dim),
        "BatchNorm on z": "yes" if point.batchnorm else "no",
        "learning rate": designs.learning_rate(point),
        "weight decay": designs.weight_decay(point),
        "z is read by": metric,
        "15-NN on z": by_z(point),
        "probe on h": by_h(point),
    }


# --- accuracies -----------------------------------------------------------------------------------


def longest(design: Design, images: ImageDesign, found: Found) -> dict[Purpose, int]:
    """The longest training, in epochs, of which all is recorded that endpoints read."""
    epochs: dict[Purpose, int] = {}
    for purpose in PURPOSES:
        for grid in images.grids(purpose):
            condition = Condition(images, grid.epochs, purpose)
            cells = itertools.product(COMPARED, endpoint_dims(images, purpose))
            if all(is_recorded(condition, *cell, design, found) for cell in cells):
                epochs[purpose] = grid.epochs
    return epochs


def scores(design: Design, images: ImageDesign, found: Found) -> pd.DataFrame:
    """A row a final run of `longest`, in the columns that `figures.accuracy_panels` draws.

    Of kernels and dimensions whose first seeds all are recorded, and of these seeds alone, so that
    curves are of the same seeds; runs that diverged have no row. 15-NN on z, in the metric that was
    chosen in validation, stands in rows of settings for z, the probe in rows of settings for h and
    of untrained networks.
    """
    rows: list[dict[str, Any]] = []
    reached = longest(design, images, found)
    for purpose, epochs in reached.items():
        condition = Condition(images, epochs, purpose)
        for kernel, dim in itertools.product(KERNELS, condition.dims):
            if not is_recorded(condition, kernel, dim, design, found):
                continue
            measure = chosen(images, kernel, dim, found)[purpose].measure(purpose)
            for task in runs(condition, kernel, dim, design.seeds, found):
                if metrics := _metrics(found.get(task.id)):
                    row = {"method": kernel, "d_z": dim, "seed": task.seed, "epochs": epochs}
                    rows.append(row | {CHOSEN[purpose]: metrics[measure]})
    if not reached:
        return pd.DataFrame()
    for dim, networks in _untrained(images, found).items():
        where = {"method": "untrained", "d_z": dim, "epochs": 0}
        rows += [where | {"seed": i, CHOSEN["h"]: own["probe_h"]} for i, own in enumerate(networks)]
    return pd.DataFrame(rows, columns=["method", "d_z", "seed", "epochs", *CHOSEN.values()])


def _metrics(entry: Entry | None) -> dict[str, float]:
    """Empty for a run that is not recorded, or that diverged."""
    return (entry or {}).get("metrics", {})


def _untrained(images: ImageDesign, found: Found) -> dict[int, list[dict[str, float]]]:
    """The metrics of the untrained networks that are recorded, by d_z."""
    networks: dict[int, list[dict[str, float]]] = {}
    for dim, seed in itertools.product(baseline(images).pixels, range(UNTRAINED_SEEDS)):
        if metrics := _metrics(found.get(untrained(images, dim, seed).id)):
            networks.setdefault(dim, []).append(metrics)
    return networks


def baselines(images: ImageDesign, found: Found) -> pd.DataFrame:
    """Raw pixels and their components, as `scores.pixel_scores` has them.

    Read by the better of the two metrics, as z is.
    """
    metrics = _metrics(found.get(baseline(images).id))
    if not metrics:
        return pd.DataFrame()
    raw = max(metrics[f"knn15_{metric}_pixels"] for metric in designs.METRICS)
    rows = [{"method": "raw pixels", "knn15_z": raw, "linear_probe_h": metrics["probe_pixels"]}]
    for dim in baseline(images).pixels:
        accuracy = max(metrics[f"knn15_{metric}_pca{dim}"] for metric in designs.METRICS)
        rows.append({"method": "PCA", "d_z": dim, "knn15_z": accuracy})
    return pd.DataFrame(rows)


def every_measure(design: Design, images: ImageDesign, found: Found) -> pd.DataFrame:
    """Mean accuracies by both metrics of the final runs of `longest`, and of what stands beside.

    Pixels count as features h, their components as z.
    """
    reached = longest(design, images, found)
    if not reached:
        return pd.DataFrame()
    every = means_of(design, images, found)
    rows = [row for row in every if row["epochs"] == reached.get(row["chosen for"])]
    table = pd.DataFrame([*rows, *_baseline_rows(images, found)])
    return table.drop(columns="images").rename(columns=SHOWN)


def _baseline_rows(images: ImageDesign, found: Found) -> list[dict[str, Any]]:
    """Pixels, their components, and the mean of untrained networks."""
    rows: list[dict[str, Any]] = []
    if metrics := _metrics(found.get(baseline(images).id)):
        both = {f"knn15_{m}_h": metrics[f"knn15_{m}_pixels"] for m in designs.METRICS}
        rows.append({"kernel": "raw pixels", **both, "probe_h": metrics["probe_pixels"]})
        for dim in baseline(images).pixels:
            both = {f"knn15_{m}_z": metrics[f"knn15_{m}_pca{dim}"] for m in designs.METRICS}
            rows.append({"kernel": "PCA", "d_z": dim, **both})
    for dim, networks in _untrained(images, found).items():
        mean = {name: fmean(one[name] for one in networks) for name in SHOWN}
        rows.append({"kernel": "untrained", "d_z": dim, "n": len(networks), **mean})
    return rows


# --- endpoints ------------------------------------------------------------------------------------


def endpoints_by_length(found_readings: Sequence[Reading]) -> pd.DataFrame:
    """A row an endpoint, image set and length that is recorded."""
    rows = []
    for reading in found_readings:
        for epochs, estimated in reading.by_length.items():
            row: dict[str, Any] = {**_named(reading), "epochs": epochs, **as_columns(estimated)}
            rows.append(row | {"at this length": reading.endpoint.rule.verdict(estimated)})
    return pd.DataFrame(rows)


def conclusions(found_readings: Sequence[Reading]) -> pd.DataFrame:
    """A row an endpoint and image set: what its last two lengths come to."""
    return pd.DataFrame(
        _named(reading)
        | {
            "both lengths": reading.verdict,
            "fewer dimensions at all": reading.also or "",
            "note": reading.note,
        }
        for reading in found_readings
    )


def _named(reading: Reading) -> dict[str, Any]:
    endpoint = reading.endpoint
    return {"claim": endpoint.claim, "on": endpoint.purpose, "images": reading.images.name}


def as_columns(found: Estimate) -> dict[str, float]:
    """An estimate as columns of a table."""
    named = {"estimate": found.value, "95 % low": found.low, "95 % high": found.high}
    named |= {"seeds": found.seeds, "seen with 80 % power": found.detectable}
    return named | {"draws without a common accuracy": found.censored}


def beside_endpoints(design: Design, found: Found) -> dict[str, pd.DataFrame]:
    """What the experiment compares beside its endpoints, and how temperatures rank, if recorded."""
    tables = {
        "beside_endpoints": sides.differences(design, found),
        "rankings": sides.rank_table(design, design.cifar10, found),
    }
    return {name: pd.DataFrame(rows) for name, rows in tables.items() if rows}


# --- differences ----------------------------------------------------------------------------------


def with_recorded(here: pd.DataFrame, design: Design, found: Found) -> pd.DataFrame:
    """Contrasts of short runs, and those of the experiment.

    Where it has an image set for a purpose, its runs stand instead of the others.
    """
    recorded = contrasts(design, found)
    if recorded.empty:
        return here
    by = ["images", "purpose"]
    replaced = here.set_index(by).index.isin(recorded.set_index(by).index)
    return pd.concat([here[~replaced], recorded], ignore_index=True)


def gains(design: Design, found: Found) -> pd.DataFrame:
    """Student's t minus the cosine in points, a row a set, purpose, d_z and length."""
    table = contrasts(design, found, {"Student t − cosine": COMPARED})
    if table.empty:
        return table
    ends = zip(table.difference, table.low, table.high, strict=True)
    named = table[["images", "purpose", "d_z", "epochs", "n"]].rename(columns={"n": "seeds"})
    named["Student t − cosine, points"] = [points(*interval) for interval in ends]
    return named


def contrasts(
    design: Design, found: Found, pairs: Mapping[str, tuple[Kernel, Kernel]] = CONTRASTS
) -> pd.DataFrame:
    """As `analysis.contrasts`, of the final runs that are recorded."""
    rows = []
    for images in (design.cifar10, design.fashion):
        for purpose, (contrast, pair) in itertools.product(PURPOSES, pairs.items()):
            for grid in images.grids(purpose):
                condition = Condition(images, grid.epochs, purpose)
                steps = grid.epochs * math.ceil((images.n_train or images.size) / BATCH)
                for dim in grid.dims:
                    try:
                        correct = correct_of(
                            condition, (dim,), found, seeds=design.seeds, kernels=pair
                        )
                    except Incomplete:
                        continue
                    row: dict[str, Any] = {"images": images.name, "purpose": purpose}
                    row |= {"contrast": contrast, "d_z": dim, "epochs": grid.epochs}
                    rows.append(row | {"steps": steps} | _difference(correct))
    return pd.DataFrame(rows)


def _difference(correct: Correct) -> dict[str, float]:
    own = endpoints.estimate(correct, endpoints.difference)
    return {"difference": own.value, "low": own.low, "high": own.high, "n": own.seeds}


def two_by_two(design: Design, images: ImageDesign, found: Found) -> pd.DataFrame:
    """As `analysis.two_by_two`, of the final runs for z and, beside them, of their other form.

    Temperatures are the best of each kernel in each form, for z; the form that was not chosen has
    the rates of the one that was. So the probe on h is of settings for z, too.
    """
    rows = []
    grid = itertools.product(CHANGES.items(), FORMS, PURPOSES, images.both_forms.dims)
    for (change, kernels), batchnorm, purpose, dim in grid:
        try:
            forms = [search_of(images, kernel, dim, found).of_form(batchnorm) for kernel in kernels]
            networks = [
                sides.runs_of_form(design, images, kernel, dim, batchnorm, found)
                for kernel in kernels
            ]
            correct = told_right(networks, [form.measure(purpose) for form in forms], found)
        except Incomplete:
            continue
        row = {"change": change, "form": FORMS[batchnorm], "metric": MEASURE[purpose], "d_z": dim}
        row |= {"epochs": images.both_forms.epochs}
        rows.append(row | _difference(correct[:, None]))
    return pd.DataFrame(rows)
