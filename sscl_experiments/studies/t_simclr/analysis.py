"""Tables of notebook 05: accuracies by dimension, paired by seed, by τ and ν; crowding."""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor

from sscl_core.config import InfoNCE, TrainConfig, TSimCLR
from sscl_core.evaluate import backbone_scores, feature_scores
from sscl_core.losses import info_nce, t_simclr
from sscl_experiments.frames import frame_by, images_as_rows, with_interval
from sscl_experiments.paths import RECORDS, committed
from sscl_experiments.record import Record
from sscl_experiments.statistics import interval

from . import crowding, paper_scale
from .parameters import LARGE_SETS
from .searches import METHOD_LOSSES

Runs = Mapping[tuple[Any, ...], Sequence[Record]]
SmallRun = tuple[str, int, Record]  # (method, d_z, run)
Pixels = tuple[Tensor, Tensor, Tensor, Tensor]  # x and labels, of the training and the test images
Distances = tuple[Float[Tensor, " n"], Float[Tensor, " m"]]  # within images, and between them
VOTES = ("knn1", "knn", "knn15")  # 1, 10 and 15 neighbors
MEASURES = {
    "knn15_z": "15-NN on z",
    "knn15_cosine_h": "15-NN (cosine) on h",
    "linear_probe_h": "linear probe on h",
}
# Of the test images, as in the data beside figures.
MEASURED = (
    *(f"{votes}_z" for votes in VOTES),
    *("knn1_cosine_h", "knn15_cosine_h", "knn_cosine_h", "knn_weighted_h", "linear_probe_h"),
    *("norm_z", "images_per_second"),
)
SUMMARISED = (
    *("knn1_z", "knn15_z", "knn1_cosine_h", "knn15_cosine_h"),
    *("knn_weighted_h", "linear_probe_h"),
)
CROWDING = ("nearer", "ratio", "near", "middle", "far", "knn15_z")
PAPER_METRICS = (
    *("knn_cosine_h", "linear_probe_h"),
    *("knn_cosine_transfer", "linear_probe_transfer"),
)
# From SimCLR ("cosine, BatchNorm") to t-SimCLR ("t joint, BatchNorm").
STEPS = {
    "leave the sphere": ("SimCLR", "Euclidean SNE, BatchNorm"),
    "Student's tail": ("Euclidean SNE, BatchNorm", "t conditional, BatchNorm"),
    "over all pairs": ("t conditional, BatchNorm", "t-SimCLR"),
}


def first_gradients(generator: torch.Generator) -> pd.DataFrame:
    """The largest entry of each loss's gradient, on random features of one and two dimensions."""
    rows = []
    for d in (1, 2):
        views = [torch.randn(64, d, generator=generator, dtype=torch.float64) for _ in range(2)]
        for view in views:
            view.requires_grad_()
        for name, loss in (("SimCLR", info_nce), ("t-SimCLR", t_simclr)):
            gradient = torch.cat(torch.autograd.grad(loss(*views), views))
            largest = gradient.abs().max().item()
            rows.append({"d_z": d, "method": name, "largest |gradient|": largest})
    return pd.DataFrame(rows)


# --- accuracies -----------------------------------------------------------------------------------


def large_baselines(
    runs: Mapping[tuple[str, str, int], Sequence[TrainConfig]], data_dir: str | Path | None
) -> pd.DataFrame:
    """`pixel_scores` of every larger set, of the images that its runs are trained on."""
    first: dict[str, TrainConfig] = {}
    for (name, _, _), group in runs.items():
        first.setdefault(name, group[0])
    tables = []
    for name, run in first.items():
        scores = pixel_scores(images_as_rows(run, data_dir), LARGE_SETS[name].dims)
        tables.append(scores.assign(image_set=name))
    return pd.concat(tables)


def method_differences(scores: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """t-SimCLR minus SimCLR in every measure, paired by seed."""
    methods = scores[scores.method.isin(METHOD_LOSSES)]
    sides = {"column": "method", "minus": "SimCLR", "plus": "t-SimCLR"}
    return paired(methods, by, list(MEASURES), **sides)


def changes(
    table: pd.DataFrame, steps: Mapping[str, tuple[str, str]], metrics: Sequence[str]
) -> pd.DataFrame:
    """What each step, from one method to another, changes in the metrics at every d_z.

    Differences paired by seed, with 95 % intervals.
    """
    parts = []
    for name, (before, after) in steps.items():
        part = paired(table, ["d_z"], metrics, column="method", minus=before, plus=after)
        plain = {f"{after} − {before}": "difference", "95 % low": "low", "95 % high": "high"}
        parts.append(part.rename(columns=plain).assign(change=name))
    return pd.concat(parts, ignore_index=True)


def has_steps(table: pd.DataFrame) -> bool:
    """Whether every method between SimCLR and t-SimCLR was run."""
    return {method for step in STEPS.values() for method in step} <= set(table.method)


def means_on_z(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean 15-NN accuracies on z, a row a method, a column a d_z."""
    means = scores.pivot_table(index="method", columns="d_z", values="knn15_z", sort=False)
    return means.sort_index(axis=1).reset_index()


def planar_maps(records: Runs, pixels: Pixels) -> dict[str, Float[np.ndarray, "n 2"]]:
    """Maps of the test images in two dimensions: principal components, and the first seeds."""
    x, _, x_test, _ = pixels
    maps = {"PCA": PCA(2, random_state=0).fit(x.numpy()).transform(x_test.numpy())}
    return maps | {method: records[method, 2][0].arrays["z_test"] for method in METHOD_LOSSES}


def map_titles(
    names: Sequence[str], scores: pd.DataFrame, baselines: pd.DataFrame
) -> dict[str, str]:
    """The 10-NN accuracy of each map, over seeds where there are any."""
    titles = {}
    for name in names:
        values = scores[(scores.method == name) & (scores.d_z == 2)].knn_z.tolist()
        if values:
            found = "{:.3f} [{:.3f}, {:.3f}]".format(*interval(values))
        else:
            own = (baselines.method == name) & (baselines.d_z == 2)
            found = f"{baselines[own].knn_z.item():.3f}"
        titles[name] = f"{name}: 10-NN {found}"
    return titles


# --- temperature and degrees of freedom -----------------------------------------------------------


def temperature_gap(z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]) -> float:
    """|L(z, τ) - L(z/√τ, 1)| at τ = 3, which is 0 but for rounding."""
    divided = (z1 / 3**0.5, z2 / 3**0.5)
    gap = t_simclr(z1, z2, temperature=3.0) - t_simclr(*divided, temperature=1.0)
    return abs(gap).item()


def gaussian_limit(z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"]) -> pd.DataFrame:
    """|L(ν) - L(∞)| at τ = 0.24, for ν from 0.5 to 100,000."""
    grid = np.logspace(-0.3, 5, 20)
    gaussian = t_simclr(z1, z2, temperature=0.24, df=math.inf).item()
    losses = [t_simclr(z1, z2, temperature=0.24, df=float(df)).item() for df in grid]
    return pd.DataFrame({"df": grid, "gap": [abs(loss - gaussian) for loss in losses]})


def norms_without_batchnorm(grid: pd.DataFrame) -> pd.DataFrame:
    """Mean norms of z, a row a d_z and τ, a column a ν."""
    free = grid[~grid.batchnorm.astype(bool)]
    norms = free.pivot_table(index=["d_z", "tau"], columns="nu", values="norm_z")
    norms.columns = ["ν = ∞" if nu == np.inf else f"ν = {nu:g}" for nu in norms.columns]
    return norms.reset_index()


def learned_means(learned: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of ν after training and of accuracy, a row a d_z and ν at the start."""
    groups = learned.groupby(["d_z", "start"])
    means = groups.agg(df=("df", "mean"), knn15_z=("knn15_z", "mean"), n=("df", "size"))
    return means.reset_index()


def digits_table(records: Mapping[tuple[int, float, float], Sequence[Record]]) -> pd.DataFrame:
    """A row a run on digits, for `regret`."""
    rows = []
    for (dim, nu, per_dim), group in records.items():
        for record in group:
            row = {"d_z": dim, "nu": nu, "tau_per_dim": per_dim, "seed": record.config.seed}
            names = ("knn_z_test", "knn_z_validation")
            rows.append(row | {name: record.metrics[name] for name in names})
    return pd.DataFrame(rows)


def regret(runs: pd.DataFrame, *, rule: tuple[float, float]) -> pd.DataFrame:
    """What a rule for (nu, tau_per_dim) costs against the best of all settings, for every d_z.

    `runs`: a row a run with d_z, nu, tau_per_dim, seed; `knn_z_validation`, the accuracy whose mean
    over seeds picks the best; `knn_z_test`, on which rule and best are compared, paired by seed.
    """
    rows = []
    for dim, part in runs.groupby("d_z"):
        groups = part.groupby(["nu", "tau_per_dim"])
        settings = {key: one.sort_values("seed") for key, one in groups}
        validation = {key: one.knn_z_validation.mean() for key, one in settings.items()}
        top = max(validation, key=validation.__getitem__)
        ours, best = (settings[key].knn_z_test.to_numpy() for key in (rule, top))
        row = {"d_z": dim, "rule": ours.mean(), "best in validation": best.mean()}
        row |= {"its ν": top[0], "its τ / d_z": top[1]}
        row |= with_interval("rule − best", interval((ours - best).tolist())) | {"n": len(ours)}
        means = pd.Series([one.knn_z_test.mean() for one in settings.values()])
        rows.append(row | {"median of all settings": means.median(), "worst": means.min()})
    return pd.DataFrame(rows)


# --- crowding -------------------------------------------------------------------------------------


def small_runs(*records: Runs) -> list[SmallRun]:
    """(method, d_z, run) of the trained runs with at most 32 dimensions."""
    found = []
    for (method, dim), group in itertools.chain.from_iterable(part.items() for part in records):
        if method != "untrained" and dim <= 32:
            found += [(method, dim, record) for record in group]
    return found


def crowding_table(runs: Sequence[SmallRun]) -> pd.DataFrame:
    """`crowding` of every run, in order of d_z, as means with intervals over seeds."""
    rows = []
    for method, dim, record in runs:
        loss, z = _compared_views(record)
        row = {"method": method, "d_z": dim, "τ": loss.temperature, **crowding.crowding(loss, z)}
        rows.append(row | {"knn15_z": record.metrics[f"knn15_{loss.metric}_z"]})
    table = pd.DataFrame(rows).sort_values("d_z", kind="stable")
    return summary(table, ["method", "d_z", "τ"], CROWDING)


def pair_distances(runs: Sequence[SmallRun]) -> dict[tuple[str, int], Distances]:
    """`crowding.pair_distances` of the first run of every method and d_z."""
    found: dict[tuple[str, int], Distances] = {}
    for method, dim, record in runs:
        if (method, dim) not in found:
            found[method, dim] = crowding.pair_distances(*_compared_views(record))
    return found


def _compared_views(record: Record) -> tuple[crowding.Loss, Float[Tensor, "two_n d"]]:
    loss = record.config.loss
    assert isinstance(loss, InfoNCE | TSimCLR)
    return loss, torch.tensor(record.arrays["z_views"])


def named_distances(found: Mapping[tuple[str, int], Distances]) -> dict[str, Tensor]:
    """The same in one level, as it is kept beside the figure."""
    return {
        f"{method}, {dim}, {kind}": values
        for (method, dim), pairs in found.items()
        for kind, values in zip(("own", "other"), pairs, strict=True)
    }


def three_point_energies(
    side: Float[np.ndarray, " n"],
) -> dict[str, Float[np.ndarray, "n n"]]:
    """`crowding.three_points` at τ = 0.5 with c on a grid around (1, 0), for four similarities."""
    kernels: dict[str, crowding.Loss] = {"cosine": InfoNCE(temperature=0.5)}
    for name, df in (("ν = ∞", math.inf), ("ν = 5", 5.0), ("ν = 1", 1.0)):
        kernels[name] = TSimCLR(temperature=0.5, df=df)
    places = torch.tensor(np.stack(np.meshgrid(side + 1, side), -1))
    return {name: crowding.three_points(loss, places).numpy() for name, loss in kernels.items()}


# --- records --------------------------------------------------------------------------------------


def speed_table() -> pd.DataFrame:
    """What a step costs, as measured and committed. `ValueError`: the file is damaged."""
    path = RECORDS / "speed_05_t_simclr.csv"
    return committed(path, lambda text: pd.read_csv(io.StringIO(text)))


def paper_table() -> pd.DataFrame:
    """The runs at the scale of the paper: mean metrics of those that have records."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in paper_scale.records():
        found.setdefault(record["name"], []).append(record["metrics"])
    rows = []
    for name, run in paper_scale.RUNS.items():
        seeds = pd.DataFrame(found.get(name, []), columns=[*PAPER_METRICS, "images_per_second"])
        seconds = run.epochs * 50_000 / seeds.images_per_second
        row: dict[str, Any] = {"run": name, "seeds": len(seeds) or "missing"}
        row |= {metric: seeds[metric].mean() for metric in PAPER_METRICS}
        rows.append(row | {"hours of training": (seconds / 3600).mean()})
    return pd.DataFrame(rows)


def recorded_claims(record: Mapping[str, Any]) -> pd.DataFrame:
    """The verdicts of a committed record of scale `full`."""
    rows = []
    for outcome in record["claims"]:
        row = {"claim": outcome["claim"]["id"], "verdict at scale full": outcome["verdict"]}
        estimate = (outcome["estimate"], outcome["low"], outcome["high"])
        rows.append(row | with_interval("estimate", estimate) | {"n": outcome["n"]})
    return pd.DataFrame(rows)
