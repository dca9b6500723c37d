"""What surrounds the losses, beside what others have for it: neighbors, P, views, ensembles."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from sscl_core.affinities import perplexity_matched
from sscl_core.augmentations import ImageViews
from sscl_core.config import MLP, ImageAugmentation, Mixture, Optimizer, Projector, TrainConfig
from sscl_core.ensemble import train_ensemble
from sscl_core.evaluate import knn
from sscl_core.train import on_threads, train
from sscl_experiments.datasets.synthetic import GaussianMixture

from .contenders import OURS
from .measuring import Call, compared, installed, interleaved
from .parameters import Performance

PRODUCT = "one product and top-k"
SKLEARN, FAISS, OPENTSNE, KORNIA = "scikit-learn", "faiss-cpu", "openTSNE", "kornia"
LOOP = "one after the other"
KNN_WIDTH, K = 512, 10
PERPLEXITY, POINT_WIDTH = 30.0, 50
VIEWS = ImageAugmentation(jitter=0.5, grayscale=0.2)  # SimCLR's for CIFAR-10
MEANS = ((1.0,), (2.0,), (3.0,), (4.0,))
FEW = 8  # seeds that are trained one after the other
Makers = Mapping[str, Callable[[], Call]]


def part_times(p: Performance, device: torch.device) -> pd.DataFrame:
    """A row for each part and method: "ms", "ratio" to ours in the same round, with quartiles.

    "size" is what was measured on, "rate" how many of its units are done in a second, "agrees" the
    share of results that are those of ours, "why" says what was not run. All on one thread.
    """
    with on_threads(1):
        rows = [
            *_neighbors(p, device),
            *_perplexity(p),
            *_views(p, device),
            *_ensembles(p, device),
        ]
    return pd.DataFrame(rows)


def _rows(
    p: Performance,
    device: torch.device,
    part: str,
    size: str,
    makers: Makers,
    *,
    units: int,
    per_call: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """`per_call`: what share of the units a call does where that is not all of them."""
    calls, missing = installed(makers)
    times = interleaved(calls, device, repeats=p.seeds, patience=p.patience)
    times = {name: taken / (per_call or {}).get(name, 1.0) for name, taken in times.items()}
    known = {"part": part, "size": size}
    rows = []
    for name, taken in times.items():
        columns = compared(taken, times[OURS]) | {"rate": units / float(np.median(taken))}
        rows.append(known | {"method": name, "why": ""} | columns)
    return rows + [known | {"method": name, "why": why} for name, why in missing.items()]


# --- nearest neighbors ---------------------------------------------------------------------------


def _neighbors(p: Performance, device: torch.device) -> list[dict[str, Any]]:
    n, m = p.neighbors
    generator = torch.Generator().manual_seed(p.seed)
    rows = torch.randn(n + m, KNN_WIDTH, generator=generator)
    labels = torch.randint(10, (n,), generator=generator)
    train_rows, test = rows[:n].to(device), rows[n:].to(device)
    votes = partial(knn, train_rows, labels.to(device), test, k=K, metric="euclidean")
    makers: Makers = {
        OURS: lambda: votes,
        PRODUCT: lambda: lambda: (test @ train_rows.T).topk(K, dim=1),
        SKLEARN: lambda: _sklearn_neighbors(rows[:n], labels, rows[n:]),
        FAISS: lambda: _faiss(rows[:n], rows[n:]),
    }
    size = f"{n:,} × {m:,}, {KNN_WIDTH}-d"
    found = _rows(p, device, "k-NN", size, makers, units=m)
    same = votes().cpu().numpy() == _sklearn_neighbors(rows[:n], labels, rows[n:])()
    for row in found:
        row |= {"agrees": float(same.mean())} if row["method"] == SKLEARN else {}
    return found


def _sklearn_neighbors(rows: Tensor, labels: Tensor, test: Tensor) -> Callable[[], Any]:
    from sklearn.neighbors import KNeighborsClassifier

    search = KNeighborsClassifier(K, algorithm="brute").fit(rows.numpy(), labels.numpy())
    return partial(search.predict, test.numpy())


def _faiss(rows: Tensor, test: Tensor) -> Call:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows.numpy())
    return lambda: index.search(test.numpy(), K)


# --- P of a given perplexity ---------------------------------------------------------------------


def _perplexity(p: Performance) -> list[dict[str, Any]]:
    """On the CPU, where all of these are at home."""
    generator = torch.Generator().manual_seed(p.seed)
    x = torch.randn(p.points, POINT_WIDTH, generator=generator, dtype=torch.float64)
    perplexity = min(PERPLEXITY, (p.points - 1) / 3)
    how: dict[str, Any] = {"perplexity": perplexity, "normalization": "joint"}
    makers: Makers = {
        OURS: lambda: partial(perplexity_matched, x, **how),
        SKLEARN: lambda: _sklearn_joint(x.numpy(), perplexity),
        OPENTSNE: lambda: _opentsne_joint(x.numpy(), perplexity),
    }
    size = f"{p.points:,} points, {POINT_WIDTH}-d"
    cpu = torch.device("cpu")
    return _rows(p, cpu, "perplexity matching", size, makers, units=p.points)


def _sklearn_joint(x: np.ndarray, perplexity: float) -> Call:
    """As `TSNE` calls it, from points to P."""
    from sklearn.manifold._t_sne import _joint_probabilities
    from sklearn.metrics import pairwise_distances

    def joint() -> object:
        squared = pairwise_distances(x, metric="euclidean", squared=True)
        return _joint_probabilities(squared, perplexity, 0)

    return joint


def _opentsne_joint(x: np.ndarray, perplexity: float) -> Call:
    from openTSNE.affinity import PerplexityBasedNN

    how = {"perplexity": perplexity, "method": "exact", "n_jobs": 1}
    return lambda: PerplexityBasedNN(x, k_neighbors=len(x) - 1, **how)


# --- views ---------------------------------------------------------------------------------------


def _views(p: Performance, device: torch.device) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(p.seed)
    images = torch.rand(p.images, 3, 32, 32, generator=generator).to(device)
    ours = ImageViews(VIEWS, images.shape[1:])
    makers: Makers = {
        OURS: lambda: partial(_without_gradient, ours, images),
        KORNIA: lambda: partial(_without_gradient, _kornia_views(), images),
    }
    size = f"{p.images:,} of 3 × 32 × 32"
    return _rows(p, device, "SimCLR's views", size, makers, units=p.images)


def _without_gradient(module: nn.Module, images: Tensor) -> object:
    with torch.no_grad():
        return module(images)


def _kornia_views() -> nn.Module:
    """The same operations with the same settings, in the order of SimCLR."""
    import kornia.augmentation as K

    s = VIEWS.jitter
    factors = (1 - 0.8 * s, 1 + 0.8 * s)
    return nn.Sequential(
        K.RandomResizedCrop((32, 32), scale=VIEWS.crop_scale, cropping_mode="resample"),
        K.RandomHorizontalFlip(p=VIEWS.flip),
        K.ColorJitter(factors, factors, factors, 0.2 * s, p=VIEWS.jitter_probability),
        K.RandomGrayscale(p=VIEWS.grayscale),
    )


# --- ensembles -----------------------------------------------------------------------------------


def _ensembles(p: Performance, device: torch.device) -> list[dict[str, Any]]:
    data = GaussianMixture(torch.tensor(MEANS), Mixture().std)

    def together(configs: list[TrainConfig]) -> None:
        train_ensemble(configs, [data] * len(configs), device=device.type)

    def one_by_one(configs: list[TrainConfig]) -> None:
        for config in configs:
            train(config, data, device=device.type)

    rows = []
    for pairs in (16, 64):
        configs = [_toy(pairs, p.steps, seed) for seed in range(p.ensemble)]
        few = configs[:FEW]
        calls = {OURS: partial(together, configs), LOOP: partial(one_by_one, few)}
        how: dict[str, Any] = {"per_call": {LOOP: len(few) / len(configs)}}
        size = f"{p.ensemble} seeds, {pairs} pairs a batch"
        units = p.ensemble * p.steps
        rows += _rows(p, device, "toy ensembles", size, _ready(calls), units=units, **how)
    return rows


def _ready(calls: Mapping[str, Call]) -> Makers:
    return {name: partial(lambda call: call, call) for name, call in calls.items()}


def _toy(pairs: int, steps: int, seed: int) -> TrainConfig:
    return TrainConfig(
        data=Mixture(means=MEANS, steps_per_epoch=steps),
        backbone=MLP(width=64, depth=2),
        projector=Projector(hidden=0, dim=2),
        optimizer=Optimizer(lr=3e-3),
        epochs=1,
        batch_size=pairs,
        seed=seed,
    )
