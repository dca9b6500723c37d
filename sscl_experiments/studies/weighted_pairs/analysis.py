"""Positive pairs weighted by the overlap of their crops: how strong it is, what it does. (C9)"""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sscl_core.augmentations import crop_overlap, random_boxes
from sscl_experiments.claims import decide
from sscl_experiments.frames import images_as_rows
from sscl_experiments.scores import Runs, accuracies, pixel_scores
from sscl_experiments.settings import AUGMENTATION
from sscl_experiments.statistics import interval

from .claims import CLAIMS, TEMPERATURE
from .parameters import MILD_CROPS, WeightedPairs

BATCH, BATCHES = 128, 64
COLUMNS = ("epochs", "crops", "score", "τ'")
ENDPOINT = "knn15_cosine_h"
MEASURES = {
    ENDPOINT: "15-NN on h",
    "linear_probe_h": "linear probe on h",
    "knn15_z": "15-NN on z",
}


def scores_of(records: Runs) -> pd.DataFrame:
    """`accuracies` of `WeightedPairs.weight_runs`."""
    return accuracies(records, COLUMNS)


def weight_effects(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Differences of runs with weighted pairs from unweighted ones of the same crops and length.

    `scores`: a row a run with the columns `COLUMNS`, seed and the metrics; the score "none" is
    unweighted. Paired by seed, with their 95 % intervals over seeds.
    """
    rows = []
    weighted = scores[scores.score != "none"]
    for key, part in weighted.groupby(list(COLUMNS), sort=False):
        named = dict(zip(COLUMNS, key, strict=True))
        same = (scores.crops == named["crops"]) & (scores.epochs == named["epochs"])
        base = scores[same & (scores.score == "none")].set_index("seed")
        own = part.set_index("seed")
        for metric in metrics:
            mean, low, high = interval((own[metric] - base[metric]).tolist())
            row = named | {"metric": metric, "difference": mean}
            rows.append(row | {"low": low, "high": high, "n": len(part)})
    return pd.DataFrame(rows)


def gains(scores: pd.DataFrame, *, temperature: float, epochs: int) -> list[float]:
    """For each seed the endpoint with pairs weighted by overlap minus without, with mild crops.

    Empty where that temperature was not run.
    """
    same = scores[(scores.crops == MILD_CROPS) & (scores.epochs == epochs)]
    is_own = (same.score == "iou") & ((same["τ'"] - temperature).abs() < 1e-9)
    own = same[is_own].set_index("seed")[ENDPOINT]
    plain = same[same.score == "none"].set_index("seed")[ENDPOINT]
    return (own - plain).tolist() if len(own) else []


def withheld(scores: pd.DataFrame, pixels: float, *, temperature: float) -> str:
    """Why no verdict can be given; empty where one can.

    The unweighted backbone must be as good as raw pixels, `pixels`, and of several lengths the last
    two must give the same verdict.
    """
    lengths = sorted(map(int, scores.epochs.unique()))
    plain = scores[(scores.score == "none") & (scores.crops == MILD_CROPS)]
    backbone = plain[plain.epochs == lengths[-1]][ENDPOINT].mean()
    if not backbone >= pixels:
        return f"the backbone ({backbone:.3f}) is not as good as raw pixels ({pixels:.3f})"
    last = [gains(scores, temperature=temperature, epochs=epochs) for epochs in lengths[-2:]]
    verdicts = {decide(CLAIMS[0], values, scale="full").verdict for values in last}
    return "" if len(verdicts) == 1 else "the last two lengths do not agree"


def raw_pixels(p: WeightedPairs) -> float:
    """15-NN accuracy of the pixels that the runs are trained on, in the better metric."""
    rows = images_as_rows(p.unweighted(p.lengths[-1]), p.data_dir)
    return float(pixel_scores(rows, [2]).knn15_z[0])


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


def spread(overlap: Float[Tensor, " n"]) -> pd.DataFrame:
    """Quantiles of the overlap of crops."""
    parts = [0.05, 0.25, 0.5, 0.75, 0.95]
    values = overlap.quantile(torch.tensor(parts)).tolist()
    return pd.DataFrame([{f"IoU, {part:.0%}": v for part, v in zip(parts, values, strict=True)}])


def answer(effects: pd.DataFrame) -> str:
    """What the runs say of the endpoint, in words: both directions, at the longest training."""
    own = effects[(effects.metric == ENDPOINT) & (effects.crops == MILD_CROPS)]
    own = own[(own.score == "iou") & (own.epochs == own.epochs.max())]
    lines = []
    names = {TEMPERATURE: "large overlap", -TEMPERATURE: "small overlap"}
    for temperature, name in names.items():
        for row in own[(own["τ'"] - temperature).abs() < 1e-9].itertuples():
            ends = f"[{100 * row.low:.1f}, {100 * row.high:.1f}]"
            gain = f"{100 * row.difference:+.1f} points {ends}"
            lines.append(f"Favouring pairs with {name} (τ' = {temperature:g}): {gain}")
    last = own.epochs.max()
    length = f"{last} epochs" if last > 1 else "one epoch"
    where = f"15-NN on h after {length}, n = {own.n.max()} seeds, 95 % intervals."
    return "**The answer.** " + "; ".join(lines) + f". {where}"
