"""What notebooks do with runs and their data, beside showing them. Nothing here enters a stored number."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, Integer
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import normalize

from .claims import interval
from .config import Images, InfoNCE, Mixture, TrainConfig
from .evaluate import (
    accuracy,
    backbone_scores,
    checked_features,
    checked_labels,
    cyclic_order,
    feature_scores,
    group_contrast,
    knn,
    linear_probe,
    placement_rank,
    preserves_order,
    regroupings,
)
from .models import Encoder
from .store import Record
from .theory import circle_gaps
from .train import INIT, initial_network, mixture, point_set, source, stream, train, train_and_test_images


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """A row a record: loss, d_z, epochs, seed, then every metric."""
    return pd.DataFrame(
        {"loss": r.config.loss.name, "d_z": r.config.projector.dim, "epochs": r.config.epochs, "seed": r.config.seed, **r.metrics}
        for r in records
    )


def frame_by(records: Mapping[tuple[Any, ...], Sequence[Record]], names: Sequence[str]) -> pd.DataFrame:
    """A row a record: the parts of the key it is listed under, called `names`, its seed, then every metric."""
    rows = [(key, record) for key, group in records.items() for record in group]
    return pd.DataFrame({**dict(zip(names, key, strict=True)), "seed": r.config.seed, **r.metrics} for key, r in rows)


def chosen(table: pd.DataFrame, by: Sequence[str], setting: str, score: str) -> pd.DataFrame:
    """The rows of the `setting` that has, within each group, the best mean `score` over seeds; of equal ones the first."""
    means = table.groupby([*by, setting], sort=False)[score].mean().reset_index()
    best = means.loc[means.groupby(list(by), sort=False)[score].idxmax(), [*by, setting]]
    return table.merge(best, on=[*by, setting])


def raw_scores(config: TrainConfig, dim: int | None = None) -> list[dict[str, Any]]:
    """What features are held against on the points of a run, by the same 10-NN (cosine) and linear probe: the data as they are, and their
    `dim` principal components, by default half as many as there are columns, at most 16."""
    data = point_set(config)
    mean = data.train.x.mean(0)
    axes = torch.linalg.svd(data.train.x - mean, full_matrices=False).Vh[: dim or min(16, max(1, len(mean) // 2))].T
    rows = []
    for name, project in (("raw", lambda x: x), ("PCA", lambda x: (x - mean) @ axes)):
        x, x_test, labels = project(data.train.x), project(data.test.x), data.train.labels
        scores = {"knn_h_test": knn(x, labels, x_test), "probe_h_test": linear_probe(x, labels, x_test)}
        rows.append({"method": name, "seed": config.seed} | {key: accuracy(value, data.test.labels) for key, value in scores.items()})
    return rows


def leave_one_out(z: Float[np.ndarray, "n d"], labels: Integer[np.ndarray, " n"], k: int = 10) -> float:
    """Accuracy of k-NN (Euclidean) when every point is classified by the others: for maps that
    cannot place new points.

    Raises as `evaluate` says, and `ValueError` for one point alone.
    """
    features = checked_features("z", torch.as_tensor(z), least=2)
    labels = checked_labels("labels", torch.as_tensor(labels), features, of="z").numpy()
    near = NearestNeighbors(n_neighbors=min(k, len(z) - 1)).fit(features.numpy()).kneighbors(return_distance=False)
    votes = np.stack([(labels[near] == label).sum(1) for label in range(labels.max() + 1)], 1)
    return float((votes.argmax(1) == labels).mean())


def first_batch(config: TrainConfig, n: int, *, data_dir: str | Path | None = None) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """What the first step of a run compares: the features, in float64, of n pairs of views by the network as it is initialised."""
    config = config.model_copy(update={"batch_size": n})
    data = source(config, data_dir, torch.device("cpu"))
    network = initial_network(config, data.sample_shape).double()
    x1, x2, _ = next(data.batches(0))
    z1, z2 = network(torch.cat([x1, x2]).double())[1].detach().chunk(2)
    return z1, z2


def own_metric(record: Record) -> str:
    """The metric of the loss's similarity: cosine for InfoNCE, else Euclidean."""
    return "cosine" if isinstance(record.config.loss, InfoNCE) else "euclidean"


def accuracies(records: Mapping[tuple[Any, ...], Sequence[Record]], names: Sequence[str]) -> pd.DataFrame:
    """`frame_by` of runs on images, and as knn1_z, knn_z (10) and knn15_z the k-NN accuracy on z in the metric of the loss: cosine for
    InfoNCE, else Euclidean."""
    table = frame_by(records, names)
    own = [own_metric(r) for group in records.values() for r in group]
    for votes in ("knn1", "knn", "knn15"):
        table[f"{votes}_z"] = [row[f"{votes}_{metric}_z"] for metric, (_, row) in zip(own, table.iterrows(), strict=True)]
    return table


def pixel_scores(pixels: tuple[Tensor, Tensor, Tensor, Tensor], dims: Sequence[int]) -> pd.DataFrame:
    """What features are held against: the pixels as they are, and their principal components. Columns as in `accuracies`; on z the better
    of the two metrics for pixels, the Euclidean for components."""
    x, y, x_test, y_test = pixels
    scores = feature_scores(*pixels)
    raw = {f"{knn}_z": max(scores[f"{knn}_{metric}"] for metric in ("cosine", "euclidean")) for knn in ("knn1", "knn", "knn15")}
    rows = [{"method": "raw pixels", **raw, **{f"{name}_h": value for name, value in backbone_scores(*pixels).items()}}]
    components = PCA(max(dims), random_state=0).fit(x.numpy())
    z, z_test = (torch.tensor(components.transform(part.numpy()), dtype=torch.float32) for part in (x, x_test))
    for dim in dims:
        scores = feature_scores(z[:, :dim], y, z_test[:, :dim], y_test)
        rows.append({"method": "PCA", "d_z": dim} | {f"{knn}_z": scores[f"{knn}_euclidean"] for knn in ("knn1", "knn", "knn15")})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """A row a group: n, and for each metric "mean [low, high]", the 95 % interval over seeds."""
    rows = []
    for key, group in table.groupby(list(by), sort=False, dropna=False):
        row = dict(zip(by, key, strict=True)) | {"n": len(group)}
        for metric in metrics:
            mean, low, high = interval(group[metric].tolist())
            row[metric] = f"{mean:.3f}" if len(group) == 1 else f"{mean:.3f} [{low:.3f}, {high:.3f}]"
        rows.append(row)
    return pd.DataFrame(rows)


def paired(table: pd.DataFrame, by: Sequence[str], metrics: Sequence[str], *, column: str, minus: str, plus: str) -> pd.DataFrame:
    """A row a metric and group of `by`: the difference between the rows where `column` is `plus` and `minus`, paired by seed, with its 95 %
    interval over seeds."""
    rows = []
    for metric in metrics:
        wide = table.pivot_table(index=[*by, "seed"], columns=column, values=metric).dropna(subset=[plus, minus])
        for key, values in (wide[plus] - wide[minus]).groupby(level=list(range(len(by))), sort=False):
            mean, low, high = interval(values.tolist())
            group = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
            rows.append({"metric": metric, **group, f"{plus} − {minus}": mean, "95 % low": low, "95 % high": high, "n": len(values)})
    return pd.DataFrame(rows)


def changes(table: pd.DataFrame, steps: Mapping[str, tuple[str, str]], metrics: Sequence[str]) -> pd.DataFrame:
    """What each step, from one method to another, changes in the metrics at every d_z: differences paired by seed, with 95 % intervals."""
    parts = [
        paired(table, ["d_z"], metrics, column="method", minus=before, plus=after)
        .rename(columns={f"{after} − {before}": "difference", "95 % low": "low", "95 % high": "high"})
        .assign(change=name)
        for name, (before, after) in steps.items()
    ]
    return pd.concat(parts, ignore_index=True)


def regret(cells: pd.DataFrame, *, rule: tuple[float, float]) -> pd.DataFrame:
    """What a rule for (nu, scale) costs against the best of all settings, for every d_z. `cells`: a row a run with d_z, nu, scale, seed;
    `chosen_by`, the accuracy whose mean over seeds picks the best; `knn_z`, on which rule and best are compared, paired by seed."""
    rows = []
    for dim, part in cells.groupby("d_z"):
        runs = {key: group.sort_values("seed") for key, group in part.groupby(["nu", "scale"])}
        top = max(runs, key=lambda key: runs[key].chosen_by.mean())
        ours, best = (runs[key].knn_z.to_numpy() for key in (rule, top))
        means = pd.Series([group.knn_z.mean() for group in runs.values()])
        mean, low, high = interval((ours - best).tolist())
        row = {"d_z": dim, "rule": ours.mean(), "best in validation": best.mean(), "its ν": top[0], "its τ / d_z": top[1]}
        row |= {"rule − best": mean, "95 % low": low, "95 % high": high, "n": len(ours)}
        rows.append(row | {"median of all settings": means.median(), "worst": means.min()})
    return pd.DataFrame(rows)


def weight_effects(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Of runs with weighted pairs (crops, score, τ', seed, metrics) the differences from the unweighted ones (score "none") with the same
    crops, paired by seed, with their 95 % intervals over seeds."""
    rows = []
    for (crops, score, temperature), part in scores[scores.score != "none"].groupby(["crops", "score", "τ'"], sort=False):
        base = scores[(scores.crops == crops) & (scores.score == "none")].set_index("seed")
        for metric in metrics:
            mean, low, high = interval((part.set_index("seed")[metric] - base[metric]).tolist())
            key = {"crops": crops, "score": score, "τ'": temperature, "metric": metric}
            rows.append(key | {"difference": mean, "low": low, "high": high, "n": len(part)})
    return pd.DataFrame(rows)


def smallest_dims(
    dims: Sequence[int], simclr: Float[np.ndarray, "dims seeds"], other: Float[np.ndarray, "dims seeds"], margin: float = 0.0
) -> tuple[Float[np.ndarray, " seeds"], Float[np.ndarray, " seeds"]]:
    """For each seed the smallest of `dims`, ascending, at which SimCLR, and the other method, comes within `margin` of SimCLR's accuracy at
    the dimension where its mean over seeds is best; twice the largest where none does."""
    level = simclr[simclr.mean(1).argmax()] - margin
    grid = np.array([*dims, 2 * dims[-1]], dtype=float)
    first, second = (np.vstack([accuracy >= level, np.ones_like(level, dtype=bool)]).argmax(0) for accuracy in (simclr, other))
    return grid[first], grid[second]


def crossing(dims: Sequence[int], accuracy: Float[np.ndarray, " dims"], level: float) -> float:
    """The d_z at which a curve of accuracies first reaches `level`, straight in log2 d_z between dimensions; infinite if it does not."""
    if not (accuracy >= level).any():
        return math.inf
    i = int((accuracy >= level).argmax())
    if i == 0:
        return float(dims[0])
    share = (level - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
    return float(dims[i - 1] * (dims[i] / dims[i - 1]) ** share)


def images_as_rows(config: TrainConfig, data_dir: str | Path | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels in [0, 1] as rows, with labels, of the images a run trains on and is evaluated on: the raw baseline."""
    assert isinstance(config.data, Images)
    parts = train_and_test_images(config, data_dir)
    (x, y), (x_test, y_test) = ((part.images.flatten(1).float() / 255, part.labels) for part in parts)
    return x, y, x_test, y_test


def in_order(records: Sequence[Record]) -> Bool[np.ndarray, "n t"]:
    """For each run on means along a line, before training and after each epoch: whether components keep their order around the circle."""
    return np.array([[preserves_order(torch.tensor(means)) for means in record.arrays["means"]] for record in records])


def evenly(records: Sequence[Record]) -> Bool[np.ndarray, " n"]:
    """Whether the components end apart: every gap between neighbors on the circle at least half of an even one."""
    means = [normalize(torch.tensor(record.arrays["means"][-1]), dim=1) for record in records]
    return np.array([bool(circle_gaps(z).min() >= 180 / len(z)) for z in means])


def placement_ranks(records: Sequence[Record], t: int = -1) -> Float[np.ndarray, " n"]:
    """`placement_rank` of the components of each run after epoch `t`: 0 is before training, -1 the end."""
    ranks = []
    for record in records:
        assert isinstance(record.config.data, Mixture)
        x = torch.tensor(record.config.data.means, dtype=torch.float64)
        ranks.append(placement_rank(x, torch.tensor(record.arrays["means"][t])))
    return np.array(ranks)


def orders(records: Sequence[Record], names: str, t: int = -1) -> list[str]:
    """The cyclic order of the components of each run after epoch `t`, as the components' names."""
    return ["".join(names[i] for i in cyclic_order(torch.tensor(record.arrays["means"][t]))) for record in records]


def leaving(records: Sequence[Record], names: str, wall: float) -> dict[str, float]:
    """Where runs from one order end: the share that leave it, and of those the share in the natural order; the largest loss on the way
    above `wall`, the start left out, and the median loss gap at the end, for those that leave and those that stay."""
    began, ended = orders(records, names, 0), orders(records, names)
    left = np.array([a != b for a, b in zip(began, ended, strict=True)])
    natural = np.array([order == names[: len(order)] for order in ended])
    over = np.array([record.arrays["evaluation_loss"][1:].max() > wall for record in records])
    gap = np.array([record.metrics["loss_gap"] for record in records])
    return {
        "leave": left.mean(),
        "of these in natural order": _mean(natural[left]),
        "over the wall, leaving": _mean(over[left]),
        "over the wall, staying": _mean(over[~left]),
        "loss gap, leaving": _median(gap[left]),
        "loss gap, staying": _median(gap[~left]),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def film(config: TrainConfig) -> tuple[Float[Tensor, "t n d"], Int64[Tensor, " n"], Encoder]:
    """The features of 32 training samples a component, before training and after each epoch; their components; the trained network."""
    assert isinstance(config.data, Mixture)
    m = len(config.data.means)
    labels = torch.arange(m).repeat_interleave(32)
    with stream(config.seed, INIT, 1) as generator:
        x = mixture(config.data).sample_given(labels, generator=generator)
    history: list[Tensor] = []
    trained = train(config, device="cpu", on_epoch=lambda _, model: history.append(model(x)[1].detach()))
    return torch.stack(history), labels, trained.model


def grouping_test(similarity: Float[np.ndarray, "k k"], groups: Int64[Tensor, " k"]) -> dict[str, float]:
    """Similarity within groups minus across; the 95th percentile of that over groupings of the same sizes, and the share of them, this
    one included, that reach it."""
    contrasts = group_contrast(torch.as_tensor(similarity), regroupings(groups))
    contrast = contrasts[0].item()
    reached = (contrasts >= contrast - 1e-12).double().mean().item()
    return {"within − across": contrast, "95th percentile": contrasts.quantile(0.95).item(), "p": reached}


def class_groups(classes: Sequence[str], groups: dict[str, tuple[str, ...]]) -> Int64[Tensor, " k"]:
    """The number of each class's group, -1 for none. `ValueError`: a group names a class that there is not."""
    number = {name: i for i, members in enumerate(groups.values()) for name in members}
    if unknown := number.keys() - set(classes):
        raise ValueError(f"groups must name classes among {list(classes)}, got {sorted(unknown)}")
    return torch.tensor([number.get(name, -1) for name in classes])
