"""Tables of notebook 04: unseen components, corruptions, attacks, predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sscl_core.config import TrainConfig
from sscl_core.corruptions import CONSTANTS, SEVERITIES
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
Runs = Mapping[str, Sequence[Record]]


# --- the mixture ----------------------------------------------------------------------------------


def worlds(records: Mapping[tuple[str, int], Sequence[Record]]) -> pd.DataFrame:
    """A row a kernel, d_z and seed: 1-NN accuracy in each world, in the metric of the kernel.

    `<world>_other`: in the other metric.
    """
    rows = []
    for (kernel, dim), group in records.items():
        own = KERNELS[kernel].loss.metric
        other = "euclidean" if own == "cosine" else "cosine"
        for record in group:
            row = {"kernel": kernel, "d_z": dim, "seed": record.config.seed}
            row |= {world: record.metrics[f"{world}_{own}"] for world in WORLDS}
            row |= {f"{world}_other": record.metrics[f"{world}_{other}"] for world in WORLDS}
            names = ("auroc_norm", "fpr95_norm", "auroc_distance", "fpr95_distance")
            rows.append(row | {name: record.metrics[name] for name in names})
    return pd.DataFrame(rows)


def gaps(table: pd.DataFrame, world: str = "new") -> pd.DataFrame:
    """Accuracy of each kernel less that of cosine with the same BatchNorm, paired by seed."""
    wide = table.pivot(index=["d_z", "seed"], columns="kernel", values=world)
    rows = []
    for kernel in KERNELS:
        base = "cosine, BatchNorm" if kernel.endswith("BatchNorm") else "cosine"
        if kernel == base:
            continue
        for dim, values in (wide[kernel] - wide[base]).groupby(level="d_z"):
            row = {"kernel": kernel, "d_z": dim}
            rows.append(row | with_interval("gap", interval(values.tolist())) | {"n": len(values)})
    return pd.DataFrame(rows)


def world_summary(table: pd.DataFrame, dim: int) -> pd.DataFrame:
    """Means over seeds at one d_z, a row a kernel, a column a world; detection by norm beside."""
    part = table[table.d_z == dim]
    columns = [*WORLDS, "new_other", "auroc_norm", "fpr95_norm", "auroc_distance"]
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


def corrupt_accuracy(record: Record) -> float:
    """10-NN on h over all corruptions and severities, the mean of both metrics."""
    return float(np.mean([record.metrics[f"corrupt_{how}"] for how in ON_H]))


def clean_accuracy(record: Record) -> float:
    return float(np.mean([record.metrics[f"clean_{how}"] for how in ON_H]))


def c8_values(method: Sequence[Record], others: Sequence[Sequence[Record]]) -> list[float]:
    """The estimand of C8, a value a seed: the method less the best of the others.

    `others`: the records of each, in the order of the method's seeds.
    """
    values = []
    for own, *rest in zip(method, *others, strict=True):
        values.append(corrupt_accuracy(own) - max(map(corrupt_accuracy, rest)))
    return values


def nulls(runs: Runs, pixels: Record) -> dict[str, list[float]]:
    """What the estimand of C8 is for pixels and the untrained network: 0 at most."""
    count = len(runs["SimCLR"])
    parts = [runs["SimCLR"], runs["untrained"], [pixels] * count]
    found = {"raw pixels": [pixels] * count, "untrained": runs["untrained"]}
    return {name: c8_values(group, parts) for name, group in found.items()}


def lengths_disagree(short: Runs, long: Runs) -> str:
    """Why a verdict is withheld: t-SimCLR minus SimCLR has another sign at half the training.

    Of the seeds that both lengths have."""
    number = len(short["SimCLR"])
    means = []
    for runs in (short, long):
        plain, t = (
            np.mean([corrupt_accuracy(r) for r in runs[method][:number]])
            for method in ("SimCLR", "t-SimCLR")
        )
        means.append(t - plain)
    if means[0] * means[1] > 0:
        return ""
    return (
        f"t-SimCLR minus SimCLR is {means[0]:+.3f} at half the training and {means[1]:+.3f} at all"
    )


def methods_table(runs: Runs, pixels: Record) -> pd.DataFrame:
    """A row a method: accuracies clean and corrupted, error relative to clean, displacement."""
    rows = []
    for method, group in (runs | {"raw pixels": [pixels]}).items():  # type: ignore[operator]
        clean, corrupt = (
            interval([f(r) for r in group])[0] for f in (clean_accuracy, corrupt_accuracy)
        )
        row: dict = {"method": method, "n": len(group), "clean": clean}
        row |= _column("corrupted", [corrupt_accuracy(r) for r in group])
        row["corrupted / clean"] = corrupt / clean
        row["relative error"] = float(np.mean([relative_error(r) for r in group]))
        for name in ("clean_probe_h", "corrupt_probe_h", "displacement"):
            row[name.replace("_h", "").replace("_", " ")] = _mean(group, name)
        rows.append(row)
    return pd.DataFrame(rows)


def relative_error(record: Record) -> float:
    """Mean corruption error relative to clean: error on corrupted images less that on clean ones.

    10-NN on h, averaged over corruptions, severities and metrics.
    """
    return clean_accuracy(record) - corrupt_accuracy(record)


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
    """10-NN accuracy on h, a row a method, corruption, severity and seed; clean is severity 0."""
    rows = []
    for method, group in (runs | {"raw pixels": [pixels]}).items():  # type: ignore[operator]
        for record in group:
            values = np.mean([record.arrays[f"accuracy_{how}"] for how in ON_H], axis=0)
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


def _kept(record: Record) -> np.ndarray:
    values = np.mean([record.arrays[f"accuracy_{how}"] for how in ON_H], axis=0)
    return (values[1:] / values[0]).reshape(len(CONSTANTS), len(SEVERITIES)).mean(1)
