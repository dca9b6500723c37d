"""Tables of notebook 06: accuracies on other sets, paired differences, and what the rules say."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from sscl_experiments.claims import Claim, Verdict, decide
from sscl_experiments.crossed import crossed_interval, detectable
from sscl_experiments.datasets.targets import pixels_as_rows
from sscl_experiments.frames import with_interval
from sscl_experiments.record import Record
from sscl_experiments.runs.images import image_sets
from sscl_experiments.runs.transfer import OWN, judge, own_target, targets_of

from .methods import METHODS
from .parameters import PIXELS, UNTRAINED, Runs, Transfer
from .searches import Rows, best, inside

Right = Bool[np.ndarray, "seeds images"]
Records = Mapping[tuple[str, str, int], Sequence[Record]]
MEASURES = {
    "probe": "linear probe",
    "knn_cosine": "10-NN, cosine",
    "knn_euclidean": "10-NN, Euclidean",
    "knn_weighted": "weighted k-NN",
}
ENDPOINT = "probe"
# Each change of the kernel, with what it is compared with.
PAIRS = {"C12": ("t-SimCLR", "SimCLR"), "C13": ("t-MoCo", "MoCo, BatchNorm")}
# The other step from MoCo to t-MoCo, and both at once, as in the authors' code.
STEPS = (("MoCo, BatchNorm", "MoCo"), ("t-MoCo", "MoCo"))
GATES = ("probe", "knn_cosine", "knn_euclidean")
EPOCHS = "epochs"


@dataclass(frozen=True)
class Judged:
    """Which query images are classified rightly.

    right: by (source, method, epochs, target, measure); raw pixels and the untrained networks are
    at 0 epochs. Raw pixels know no seed: their row is the same for every one.
    """

    right: Mapping[tuple[str, str, int, str, str], Right]
    targets: Mapping[str, tuple[str, ...]]  # of every source, itself left out
    lengths: tuple[int, ...]

    def of(self, source: str, method: str, target: str, measure: str, epochs: int) -> Right:
        """That of a method at its length: `epochs`, or 0 where it is not trained."""
        length = 0 if method in (UNTRAINED, PIXELS) else epochs
        return self.right[source, method, length, target, measure]


def judged(records: Records, p: Transfer) -> Judged:
    """What the runs got right, and what nearest neighbors and probe on the pixels themselves do."""
    right: dict[tuple[str, str, int, str, str], Right] = {}
    for (source, method, epochs), group in records.items():
        for target in (OWN, *p.targets()[source]):
            for measure in MEASURES:
                rows = [record.arrays[f"{measure}_{target}"] for record in group]
                right[source, method, epochs, target, measure] = np.stack(rows)
    for (source, target, measure), row in _pixels(p.transfer_runs(), p.data_dir):
        right[source, PIXELS, 0, target, measure] = np.repeat(row[None], p.seeds, 0)
    return Judged(right, p.targets(), p.epochs)


def _pixels(
    runs: Runs, data_dir: str | Path | None
) -> Iterator[tuple[tuple[str, str, str], Bool[np.ndarray, " m"]]]:
    """(source, target, measure), and which query images raw pixels classify rightly."""
    first = {source: group[0] for (source, _, _), group in runs.items()}
    for source, config in first.items():
        sets = image_sets(config, data_dir)
        targets = [own_target(sets.train, sets.test), *targets_of(config, sets.train, data_dir)]
        for target in targets:
            x, x_query = (pixels_as_rows(part.images) for part in (target.support, target.query))
            right = judge(x, target.support.labels, x_query, target.query.labels)
            for measure, values in right.items():
                yield (source, target.name, measure), values.numpy()


# --- accuracies -----------------------------------------------------------------------------------


def accuracies(found: Judged) -> pd.DataFrame:
    """A row for source, target, method and measure: accuracy and interval over seeds and images."""
    rows = []
    for (source, method, epochs, target, measure), right in found.right.items():
        if epochs in (0, found.lengths[-1]):
            row: dict[str, Any] = {"source": source, "target": target, "method": method}
            row |= {"measure": MEASURES[measure]}
            row |= with_interval("accuracy", crossed_interval([right.astype(float)]))
            rows.append(row | {"seeds": len(right), "images": right.shape[1]})
    order = [*METHODS, UNTRAINED, PIXELS]
    table = pd.DataFrame(rows)
    return table.sort_values("method", key=lambda names: names.map(order.index), kind="stable")


def accuracy_table(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies in percent, a row for each target and method, a column a measure."""
    keys = ["source", "target", "method"]
    wide = (100 * table.set_index([*keys, "measure"]).accuracy).unstack("measure")
    rows = list(dict.fromkeys(table[keys].itertuples(index=False, name=None)))
    rows.sort(key=lambda row: row[:2])
    shown = wide.loc[rows][list(MEASURES.values())].round(1)
    return shown.rename_axis(columns=None).reset_index()


def probe_by_target(table: pd.DataFrame) -> pd.DataFrame:
    """The linear probe of an `accuracy_table`: a row a method, a column a source and its target."""
    arrows = table.source + " → " + table.target
    wide = table.assign(sets=arrows).pivot(index="method", columns="sets", values="linear probe")
    return wide.loc[table.method.unique(), arrows.unique()].rename_axis(columns=None).reset_index()


# --- differences ----------------------------------------------------------------------------------


def differences(
    found: Judged,
    method: str,
    other: str,
    *,
    measure: str = ENDPOINT,
    epochs: int | None = None,
    targets: Mapping[str, Sequence[str]] | None = None,
) -> list[Float[np.ndarray, "_ _"]]:
    """Of every target: being right, method minus other, for each seed and image."""
    length = epochs or found.lengths[-1]
    values = []
    for source, names in (targets or found.targets).items():
        for target in names:
            a, b = (
                found.of(source, name, target, measure, length).astype(float)
                for name in (method, other)
            )
            values.append(a - b)
    return values


def difference_table(found: Judged) -> pd.DataFrame:
    """Each pair of claims and `STEPS`, by target and measure: points and their interval."""
    rows = []
    for method, other in (*PAIRS.values(), *STEPS):
        for source, names in found.targets.items():
            for target in (OWN, *names):
                for measure, shown in MEASURES.items():
                    where = {source: (target,)}
                    values = differences(found, method, other, measure=measure, targets=where)
                    row = {"pair": f"{method} − {other}", "source": source, "target": target}
                    points = in_points(crossed_interval(values))
                    rows.append(row | {"measure": shown} | with_interval("points", points))
    return pd.DataFrame(rows)


def difference_text(table: pd.DataFrame) -> pd.DataFrame:
    """`difference_table` as "mean [low, high]": a row a pair and target, a column a measure."""
    ends = table[["points", "95 % low", "95 % high"]].itertuples(index=False, name=None)
    shown = table[["pair", "source", "target", "measure"]].copy()
    shown["text"] = [f"{mean:.1f} [{low:.1f}, {high:.1f}]" for mean, low, high in ends]
    keys = ["pair", "source", "target"]
    wide = shown.set_index([*keys, "measure"]).text.unstack("measure")
    rows = list(dict.fromkeys(shown[keys].itertuples(index=False, name=None)))
    return wide.loc[rows][list(MEASURES.values())].rename_axis(columns=None).reset_index()


def in_points(estimate: tuple[float, float, float]) -> tuple[float, float, float]:
    """A mean and its interval in percentage points."""
    mean, low, high = estimate
    return 100 * mean, 100 * low, 100 * high


def by_seed(values: Sequence[Float[np.ndarray, "_ _"]]) -> list[float]:
    """The mean over images and then over targets, of every seed."""
    return [float(mean) for mean in np.mean([value.mean(1) for value in values], axis=0)]


# --- the rules ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decision:
    """What a claim is decided by: one value a seed, the interval, and why there is no verdict."""

    values: list[float]
    estimate: tuple[float, float, float]
    withheld: str


def decision(found: Judged, claim: Claim) -> Decision:
    """By the rule as `claims` has it.

    Nulls must not pass it, the last two lengths must agree, and at home both methods must be as
    good as pixels.
    """
    method, other = PAIRS[claim.id]
    values = differences(found, method, other)
    reasons = [
        f"{null} in the place of {method} passes the rule too, so it cannot tell"
        for null in (UNTRAINED, PIXELS)
        if _verdict(found, claim, null) == "replicates"
    ]
    before, last = found.lengths[-2:]
    verdicts = [_verdict(found, claim, method, epochs=length) for length in (before, last)]
    if len(set(verdicts)) > 1:
        reasons.append(f"{before} epochs say {verdicts[0]!r}, {last} say {verdicts[1]!r}")
    reasons += below_pixels(found, (method, other))
    return Decision(by_seed(values), crossed_interval(values), "; ".join(reasons))


def _verdict(found: Judged, claim: Claim, method: str, *, epochs: int | None = None) -> Verdict:
    values = differences(found, method, PAIRS[claim.id][1], epochs=epochs)
    scale = {"scale": "any"}
    return decide(claim, by_seed(values), estimate=crossed_interval(values), **scale).verdict


def below_pixels(found: Judged, methods: Sequence[str]) -> list[str]:
    """Where a trained backbone is worse than raw pixels at home, in the same measure."""
    reasons = []
    for source, measure, method in itertools.product(found.targets, GATES, methods):
        own, least = (
            100 * found.of(source, name, OWN, measure, found.lengths[-1]).mean()
            for name in (method, PIXELS)
        )
        if own < least:
            where = f"{MEASURES[measure]} on {source}"
            reasons.append(f"{method} is below raw pixels, {own:.2f} < {least:.2f} %, {where}")
    return reasons


def rule_table(found: Judged, claims: Sequence[Claim]) -> pd.DataFrame:
    """What the rule of each claim says of the method, of it half trained, and of the nulls."""
    rows = []
    for claim in claims:
        method, other = PAIRS[claim.id]
        cases = [(method, length) for length in reversed(found.lengths)]
        for name, epochs in [*cases, (UNTRAINED, None), (PIXELS, None)]:
            values = differences(found, name, other, epochs=epochs)
            points = in_points(crossed_interval(values))
            what = f"{name}, {epochs} epochs" if epochs else name
            row: dict[str, Any] = {"claim": claim.id, "case": f"{what} − {other}"}
            row |= with_interval("points", points)
            rows.append(row | {"the rule says": _verdict(found, claim, name, epochs=epochs)})
    return pd.DataFrame(rows)


def answer(found: Judged, claims: Sequence[Claim]) -> str:
    """In a sentence a claim: the difference, its interval, and what could have been seen."""
    lines = []
    for claim in claims:
        method, other = PAIRS[claim.id]
        values = differences(found, method, other)
        mean, low, high = in_points(crossed_interval(values))
        seeds, least = len(values[0]), 100 * detectable(values)
        images = sum(value.shape[1] for value in values)
        lines.append(
            f"**{claim.id}**: {method} minus {other}, linear probe on the other sets: "
            f"{mean:+.1f} points, 95 % interval [{low:.1f}, {high:.1f}] over {seeds} seeds and "
            f"{images} query images. Four times in five this design finds what is {least:.1f} "
            "points away from the rule."
        )
    return "\n\n".join(lines)


# --- the search -----------------------------------------------------------------------------------


def search_summary(rows: Rows) -> pd.DataFrame:
    """What the search chose for each method, and whether it is inside what was tried."""
    table = pd.DataFrame(rows)
    summary = []
    for method in METHODS:
        chosen, own = best(method, rows), table[table.method == method]
        here = own[(own.temperature == chosen.temperature) & (own.lr == chosen.lr)]
        row = {"method": method, "temperature": chosen.temperature, "learning rate": chosen.lr}
        if not METHODS[method].temperatures:
            row["temperature"] = math.nan
        summary.append(
            row
            | {
                "probe, held out": here.probe.mean(),
                "runs": len(own),
                "inside": "yes" if inside(method, rows) else "no",
            }
        )
    return pd.DataFrame(summary)
