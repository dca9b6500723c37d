"""Tables of notebook 09: accuracies by τ and ν, a rule of thumb, crowding."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sscl_core.config import InfoNCE, TSimCLR
from sscl_experiments.frames import with_interval
from sscl_experiments.record import Record
from sscl_experiments.scores import Runs, accuracies, summary
from sscl_experiments.searches import RULE, loss_of, search_table
from sscl_experiments.statistics import interval

from . import crowding
from .parameters import LARGEST

SmallRun = tuple[str, int, Record]  # (method, d_z, run)
Distances = tuple[Float[Tensor, " n"], Float[Tensor, " m"]]  # within images, and between them
CROWDING = ("nearer", "ratio", "near", "middle", "far", "knn15_z")
GRID = ("d_z", "batchnorm", "nu", "tau")


def grid_of(records: Runs) -> pd.DataFrame:
    """A row a run of the maps over τ and ν."""
    return accuracies(records, GRID)[[*GRID, "knn15_z", "knn15_cosine_h", "norm_z"]]


def norms_without_batchnorm(grid: pd.DataFrame) -> pd.DataFrame:
    """Mean norms of z, a row a d_z and τ, a column a ν."""
    free = grid[~grid.batchnorm.astype(bool)]
    norms = free.pivot_table(index=["d_z", "tau"], columns="nu", values="norm_z")
    norms.columns = ["ν = ∞" if nu == np.inf else f"ν = {nu:g}" for nu in norms.columns]
    return norms.reset_index()


def learned_of(records: Runs) -> pd.DataFrame:
    """A row a run in which ν was learned."""
    return accuracies(records, ("d_z", "start"))[["d_z", "start", "seed", "df", "knn15_z"]]


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


def rule_on_digits(runs: pd.DataFrame) -> pd.DataFrame:
    """`regret` of the rule of thumb."""
    return regret(runs, rule=(RULE.df, RULE.temperature_per_dim))


def rule_on_cifar10() -> pd.DataFrame:
    """The committed search on CIFAR-10 of t-SimCLR, with τ in units of d_z."""
    table = pd.DataFrame(search_table("cifar10"))
    own = table[table.loss == loss_of("t-SimCLR")]
    return own.assign(**{"τ / d_z": own.temperature / own.d_z}).drop(columns="temperature")


def small_runs(*records: Runs) -> list[SmallRun]:
    """(method, d_z, run) of runs with at most 32 dimensions, which keep features of views."""
    found = []
    for (method, dim), group in itertools.chain.from_iterable(part.items() for part in records):
        if dim <= LARGEST:
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
