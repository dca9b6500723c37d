"""Tables of notebook 04: unseen components, corruptions, attacks, predictions."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from sscl_core.config import TrainConfig
from sscl_core.corruptions import CONSTANTS, SEVERITIES
from sscl_experiments.claims import Claim, Verdict, decide
from sscl_experiments.crossed import crossed_interval, detectable
from sscl_experiments.frames import with_interval
from sscl_experiments.record import Record
from sscl_experiments.runs.images import image_sets
from sscl_experiments.runs.robust_config import StressedImages
from sscl_experiments.runs.robust_images import conditions, corruption_scores, raw, tested
from sscl_experiments.runs.unseen import WORLDS
from sscl_experiments.statistics import interval

from .parameters import KERNELS, Robustness
from .prediction import covered

FEW = 5  # seeds
ON_H = ("cosine_h", "euclidean_h")
TIE = 1e-9  # accuracies that are nearer to each other differ by rounding
# How features on the mixture are read, by columns of `worlds`.
READINGS = {
    "new": "own metric",
    "new_better": "better metric",
    "new_euclidean": "Euclidean",
}
Runs = Mapping[str, Sequence[Record]]


# --- the mixture ----------------------------------------------------------------------------------


def worlds(records: Mapping[tuple[str, int], Sequence[Record]]) -> pd.DataFrame:
    """A row a kernel, d_z and seed: 1-NN accuracy in each world, in the metric of the kernel.

    `<world>_other`: in the other metric. `new_euclidean`: in the Euclidean one. `new_better`: in
    that which is better on seen components (`better`), which is called `better`.
    """
    rows = []
    for (kernel, dim), group in records.items():
        own = KERNELS[kernel].loss.metric
        other = "euclidean" if own == "cosine" else "cosine"
        chosen = better(group, "seen_cosine", "seen_euclidean").removeprefix("seen_")
        for record in group:
            row = {"kernel": kernel, "d_z": dim, "seed": record.config.seed, "better": chosen}
            row |= {world: record.metrics[f"{world}_{own}"] for world in WORLDS}
            row |= {f"{world}_other": record.metrics[f"{world}_{other}"] for world in WORLDS}
            row["new_euclidean"] = record.metrics["new_euclidean"]
            row["new_better"] = record.metrics[f"new_{chosen}"]
            names = ("auroc_norm", "fpr95_norm", "auroc_distance", "fpr95_distance")
            rows.append(row | {name: record.metrics[name] for name in names})
    return pd.DataFrame(rows)


def better(group: Sequence[Record], cosine: str, euclidean: str) -> str:
    """Of two metrics of records the one with the larger mean over seeds.

    Where they tie, the Euclidean one: it is that of every kernel but the cosine.
    """
    return cosine if _mean(group, cosine) - _mean(group, euclidean) > TIE else euclidean


def gaps(table: pd.DataFrame, column: str = "new") -> pd.DataFrame:
    """Accuracy of each kernel less that of cosine with the same BatchNorm, paired by seed."""
    wide = table.pivot(index=["d_z", "seed"], columns="kernel", values=column)
    rows = []
    for kernel in KERNELS:
        base = "cosine, BatchNorm" if kernel.endswith("BatchNorm") else "cosine"
        if kernel == base:
            continue
        for dim, values in (wide[kernel] - wide[base]).groupby(level="d_z"):
            row = {"kernel": kernel, "d_z": dim}
            rows.append(row | with_interval("gap", interval(values.tolist())) | {"n": len(values)})
    return pd.DataFrame(rows)


def readings(table: pd.DataFrame, dims: Sequence[int]) -> pd.DataFrame:
    """`gaps` in points with their intervals, as text: a row a kernel and d_z, a column a reading.

    "better for cosine": the metric that is better for the cosine's features on seen components.
    """
    near = table[table.d_z.isin(dims)]
    shown = gaps(near)[["kernel", "d_z"]]
    for column, name in READINGS.items():
        found = 100 * gaps(near, column)[["gap", "95 % low", "95 % high"]]
        whole = found.round().astype(int).to_numpy()  # as whole numbers: no -0
        shown[name] = [f"{gap} [{low}, {high}]" for gap, low, high in whole]
    metric = near.groupby(["kernel", "d_z"]).better.first()
    bases = np.where(shown.kernel.str.endswith("BatchNorm"), "cosine, BatchNorm", "cosine")
    shown["better for cosine"] = [metric[key] for key in zip(bases, shown.d_z, strict=True)]
    return shown


def world_summary(table: pd.DataFrame, dim: int) -> pd.DataFrame:
    """Means over seeds at one d_z, a row a kernel, a column a world; detection by norm beside."""
    part = table[table.d_z == dim]
    columns = [*WORLDS, "seen_other", "new_other", "auroc_norm", "fpr95_norm", "auroc_distance"]
    return part.groupby("kernel", sort=False)[columns].mean().reset_index()


# --- images ---------------------------------------------------------------------------------------


def pixel_record(config: TrainConfig, data_dir: str | Path | None) -> Record:
    """Raw pixels, measured as a network is."""
    assert isinstance(config.data, StressedImages)
    sets = image_sets(config, data_dir)
    test = tested(config, sets.test)
    own = raw(sets.train.images)
    metrics, arrays = corruption_scores(raw, own, sets.train.labels, test)
    return Record(config, metrics, arrays)


def better_metric(group: Sequence[Record]) -> str:
    """The metric of 10-NN on h that is better between the halves of the training images."""
    return better(group, *(f"halves_{how}" for how in ON_H)).removeprefix("halves_")


def corrupted_right(record: Record, how: str) -> Float[np.ndarray, " images"]:
    """For each test image: the share of corruptions and severities at which it is told right."""
    return record.arrays[f"right_{how}"][1:].mean(0)


def c8_values(
    method: Sequence[Record], others: Sequence[Sequence[Record]]
) -> Float[np.ndarray, "seeds images"]:
    """The estimand of C8, for each seed and image: the method less the best of the others.

    `others`: the records of each, in the order of the method's seeds. The best of them is found for
    each seed, by its mean over images.
    """
    own, *rest = (
        np.stack([corrupted_right(record, better_metric(group)) for record in group])
        for group in (method, *others)
    )
    best = np.argmax([part.mean(1) for part in rest], axis=0)
    seeds = np.arange(len(own))
    return own - np.stack(rest)[best, seeds]


@dataclass(frozen=True)
class Decision:
    """What C8 is decided by: one value a seed, the interval, and why there is no verdict."""

    values: list[float]
    estimate: tuple[float, float, float]
    withheld: str


def decision(claim: Claim, runs: Runs, shorter: Runs, pixels: Record) -> Decision:
    """By the rule as `claims` has it; `shorter` are the runs of half the training."""
    verdicts = [verdict(claim, part, runs, pixels)[1] for part in (shorter, runs)]
    reasons = below_pixels(runs, pixels)
    if len(set(verdicts)) > 1:
        reasons.append(f"half the training says {verdicts[0]!r}, all of it {verdicts[1]!r}")
    values = verdict(claim, runs, runs, pixels)[0]
    return Decision(values.mean(1).tolist(), crossed_interval([values]), "; ".join(reasons))


def verdict(
    claim: Claim, trained: Runs, runs: Runs, pixels: Record, method: str = "t-SimCLR"
) -> tuple[Float[np.ndarray, "seeds images"], Verdict]:
    """The estimand for a method of `trained`, and what the rule says of it.

    The untrained networks are those of `runs`.
    """
    nulls = {"untrained": runs["untrained"], "raw pixels": [pixels] * len(runs["untrained"])}
    groups = {**trained, **nulls}
    values = c8_values(groups[method], [groups[name] for name in ("SimCLR", *nulls)])
    estimate = crossed_interval([values])
    outcome = decide(claim, values.mean(1).tolist(), estimate=estimate, scale="any")
    return values, outcome.verdict


def power(runs: Runs, pixels: Record) -> str:
    """A sentence: how far from the rule an effect must be for this design to find it."""
    others = [runs["SimCLR"], runs["untrained"], [pixels] * len(runs["SimCLR"])]
    least = 100 * detectable([c8_values(runs["t-SimCLR"], others)])
    return f"Four times in five this design finds what is {least:.1f} points away from the rule."


def below_pixels(runs: Runs, pixels: Record) -> list[str]:
    """Which of SimCLR and t-SimCLR is worse than pixels on clean images, in the same metric."""
    found = []
    for method, how in itertools.product(("SimCLR", "t-SimCLR"), ON_H):
        own, least = _mean(runs[method], f"clean_{how}"), pixels.metrics[f"clean_{how}"]
        if own < least:
            where = f"10-NN {how.removesuffix('_h')} on clean images"
            found.append(f"{method} is below raw pixels, {own:.3f} < {least:.3f}, {where}")
    return found


def rule_table(claim: Claim, runs: Runs, shorter: Runs, pixels: Record) -> pd.DataFrame:
    """What the rule says of t-SimCLR, of it half trained, and of the nulls in its place."""
    cases = {
        "t-SimCLR": (runs, "t-SimCLR"),
        "t-SimCLR, half the training": (shorter, "t-SimCLR"),
        "untrained": (runs, "untrained"),
        "raw pixels": (runs, "raw pixels"),
    }
    rows = []
    for case, (trained, method) in cases.items():
        values, says = verdict(claim, trained, runs, pixels, method)
        row: dict = {"in the place of t-SimCLR": case}
        row |= with_interval("points", crossed_interval([100 * values]))
        rows.append(row | {"the rule says": says})
    return pd.DataFrame(rows)


def methods_table(runs: Runs, pixels: Record) -> pd.DataFrame:
    """A row a method: accuracies clean and corrupted, error relative to clean, displacement.

    10-NN on h in the better metric; the interval of "corrupted" is over seeds and images.
    """
    rows = []
    for method, group in (runs | {"raw pixels": [pixels]}).items():  # type: ignore[operator]
        how = better_metric(group)
        clean, corrupt = _mean(group, f"clean_{how}"), _mean(group, f"corrupt_{how}")
        row: dict = {"method": method, "n": len(group), "metric": how.removesuffix("_h")}
        row |= {"clean": clean, "corrupted": corrupt}
        if len(group) >= FEW:
            right = np.stack([corrupted_right(record, how) for record in group])
            row |= with_interval("corrupted", crossed_interval([right]))
        row |= {"corrupted / clean": corrupt / clean, "relative error": clean - corrupt}
        for name in ("clean_probe_h", "corrupt_probe_h", "displacement"):
            row[name.replace("_h", "").replace("_", " ")] = _mean(group, name)
        rows.append(row)
    return pd.DataFrame(rows)


def attacks_table(runs: Runs) -> pd.DataFrame:
    """A row a method: what attacks and random changes of the same size do, and local slopes."""
    names = ("probe_unharmed", "probe_noise", "probe_attacked", "moved_noise", "moved_attacked")
    rows = []
    for method, group in runs.items():
        row: dict = {"method": method}
        row |= {name.replace("_", " "): _mean(group, name) for name in names}
        row |= {"n": len(group)} | _column("lipschitz", [r.metrics["lipschitz"] for r in group])
        rows.append(row)
    return pd.DataFrame(rows)


def detection_table(runs: Runs) -> pd.DataFrame:
    """A row a method: does a small norm, or a great distance, tell digits from the test images?"""
    rows = []
    for method, group in runs.items():
        row: dict = {"method": method}
        for score in ("norm_z", "norm_h", "distance_h"):
            values = [r.metrics[f"foreign_auroc_{score}"] for r in group]
            row[f"AUROC, {score}"] = _text(values)
            row[f"FPR95, {score}"] = _mean(group, f"foreign_fpr95_{score}")
        row["AUROC of ‖z‖, corrupted"] = float(
            np.mean([r.arrays["auroc_norm"][1:].mean() for r in group])
        )
        rows.append(row)
    return pd.DataFrame(rows)


def _column(name: str, values: Sequence[float]) -> dict[str, float]:
    """The mean, and its interval from `FEW` seeds on: that of fewer says nothing."""
    mean, low, high = interval(values)
    known = {"95 % low": low, "95 % high": high} if len(values) >= FEW else {}
    return {name: mean} | known


def _text(values: Sequence[float]) -> str:
    """The mean of rates, with its interval from `FEW` seeds on."""
    mean, low, high = interval(values)
    known = f" [{max(low, 0):.2f}, {min(high, 1):.2f}]" if len(values) >= FEW else ""
    return f"{mean:.2f}{known}"


def _mean(group: Sequence[Record], name: str) -> float:
    return float(np.mean([record.metrics[name] for record in group]))


def by_corruption(runs: Runs, pixels: Record) -> pd.DataFrame:
    """10-NN accuracy on h in the better metric, a row a method, corruption, severity and seed.

    Clean is severity 0.
    """
    rows = []
    for method, group in (runs | {"raw pixels": [pixels]}).items():  # type: ignore[operator]
        how = better_metric(group)
        for record in group:
            values = record.arrays[f"accuracy_{how}"]
            for (name, level), value in zip(conditions(), values, strict=True):
                row = {"method": method, "seed": record.config.seed, "corruption": name}
                rows.append(row | {"severity": level, "accuracy": value})
    return pd.DataFrame(rows)


# --- augmentations --------------------------------------------------------------------------------


def predictions(p: Robustness, runs: Runs, data_dir: str | Path | None) -> pd.DataFrame:
    """A row an augmentation and corruption, means over severities.

    `predicted`: what P covers (`prediction.covered`); `measured`: 10-NN accuracy on h under the
    corruption over that on clean images, mean over seeds.
    """
    rows = []
    for augmentation, group in runs.items():
        config = group[0].config
        assert isinstance(config.data, StressedImages)
        images = tested(config, image_sets(config, data_dir).test).images
        mass = covered(images, config.data.augmentation)
        kept = np.mean([_kept(record) for record in group], axis=0)
        for name, value in zip(CONSTANTS, kept, strict=True):
            row = {"augmentation": augmentation, "corruption": name, "measured": value}
            row["predicted"] = float(np.mean([mass[name, level] for level in SEVERITIES]))
            rows.append(row)
    return pd.DataFrame(rows)


def pair_table(table: pd.DataFrame) -> pd.DataFrame:
    """`predictions` as "measured (predicted)": a row an augmentation, a column a corruption."""
    ends = zip(table.measured, table.predicted, strict=True)
    shown = table.assign(text=[f"{measured:.2f} ({mass:.2f})" for measured, mass in ends])
    wide = shown.pivot(index="augmentation", columns="corruption", values="text")
    order = list(dict.fromkeys(table.augmentation))
    return wide.loc[order, list(CONSTANTS)].rename_axis(columns=None).reset_index()


def _kept(record: Record) -> np.ndarray:
    values = np.mean([record.arrays[f"accuracy_{how}"] for how in ON_H], axis=0)
    return (values[1:] / values[0]).reshape(len(CONSTANTS), len(SEVERITIES)).mean(1)
