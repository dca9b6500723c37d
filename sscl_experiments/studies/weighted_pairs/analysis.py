"""Positive pairs weighted by the overlap of their crops: how strong it is, what it does. (C9)"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sscl_core.augmentations import crop_overlap, random_boxes
from sscl_core.config import Images, PairWeights, TrainConfig
from sscl_core.train import train
from sscl_experiments.runs.images import image_sets
from sscl_experiments.settings import AUGMENTATION
from sscl_experiments.statistics import interval

from .parameters import MILD_CROPS

BATCH, BATCHES = 128, 64
MEASURES = ("knn15_cosine_h", "knn1_cosine_h", "knn15_z", "linear_probe_h")  # whose gain is shown
SUMMARISED = ("knn1_cosine_h", "knn15_cosine_h", "knn15_z", "linear_probe_h")


def weight_effects(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Differences of runs with weighted pairs from unweighted ones with the same crops.

    `scores`: a row a run with crops, score ("none" is unweighted), τ', seed and the metrics. Paired
    by seed, with their 95 % intervals over seeds.
    """
    rows = []
    weighted = scores[scores.score != "none"]
    for key, part in weighted.groupby(["crops", "score", "τ'"], sort=False):
        named = dict(zip(("crops", "score", "τ'"), key, strict=True))
        plain = scores[(scores.crops == named["crops"]) & (scores.score == "none")]
        base, own = plain.set_index("seed"), part.set_index("seed")
        for metric in metrics:
            mean, low, high = interval((own[metric] - base[metric]).tolist())
            row = named | {"metric": metric, "difference": mean}
            rows.append(row | {"low": low, "high": high, "n": len(part)})
    return pd.DataFrame(rows)


def gains(scores: pd.DataFrame, metric: str, *, temperature: float) -> list[float]:
    """For each seed the metric with pairs weighted by overlap minus without, with mild crops.

    Empty where that temperature was not run.
    """
    mild = scores[scores.crops == MILD_CROPS]
    own = mild[(mild.score == "iou") & np.isclose(mild["τ'"], temperature)].set_index("seed")
    plain = mild[mild.score == "none"].set_index("seed")
    return (own[metric] - plain[metric]).tolist() if len(own) else []


def crop_pairs(
    n: int, size: Sequence[int], scale: tuple[float, float], *, seed: int
) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n 4"]]:
    """The boxes (x0, y0, x1, y1) of two crops of each of n images of `size` (h, w)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        boxes = random_boxes(2 * n, size, scale, torch.device("cpu"))
    first, second = boxes.chunk(2)
    return first, second


def example_crops(image: Tensor, *, seed: int) -> dict[str, Float[Tensor, "k ..."]]:
    """Six of 200 pairs of crops of one image, from the least to the greatest overlap.

    `first` and `second`: their boxes; `iou`: the overlap.
    """
    first, second = crop_pairs(200, image.shape[-2:], (0.2, 1.0), seed=seed)
    overlap = crop_overlap(first, second)
    six = overlap.argsort()[torch.linspace(0, 199, 6).long()]
    return {"first": first[six], "second": second[six], "iou": overlap[six]}


def training_overlaps(shape: torch.Size, *, seed: int) -> Float[Tensor, " n"]:
    """The overlap of the crops that training uses, of enough pairs for 64 batches of 128."""
    pairs = crop_pairs(BATCHES * BATCH, shape[1:], AUGMENTATION.crop_scale, seed=seed)
    return crop_overlap(*pairs)


def weight_dose(overlap: Float[Tensor, " n"]) -> pd.DataFrame:
    """How far weights are from equal in a batch of 128, by their temperature.

    Their standard deviation, and the number of equal pairs that would weigh as much,
    (Σ w)² / Σ w².
    """
    rows = []
    for temperature in (0.03, 0.1, 0.3, 1.0):
        w = (overlap / temperature).exp().unflatten(0, (BATCHES, BATCH))
        w = w / w.mean(1, keepdim=True)
        equal = (BATCH**2 / w.square().sum(1)).mean().item()
        row = {"τ'": temperature, "standard deviation of w": w.std().item()}
        rows.append(row | {f"effective pairs of {BATCH}": equal})
    return pd.DataFrame(rows)


def losses_by_weight(
    run: TrainConfig, data_dir: str | Path | None = None
) -> dict[float | None, list[float]]:
    """The losses of one epoch on 512 images without weights (None), and at two temperatures τ'."""
    small = run.replace(epochs=1, data=Images(n_train=512, augmentation=AUGMENTATION))
    images = image_sets(small, data_dir).train.images
    losses: dict[float | None, list[float]] = {None: train(small, images).losses}
    for temperature in (math.inf, 0.3):
        weighted = small.replace(weights=PairWeights(temperature=temperature))
        losses[temperature] = train(weighted, images).losses
    return losses
