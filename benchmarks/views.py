"""Views against the same pipeline built from kornia's modules: how fast, and what they are worth.

    python benchmarks/views.py
    python benchmarks/views.py --seeds 5 [--images 10000] [--epochs 5] [--out FILE]

Without seeds the speed, in views per second on one core and as a ratio: batches of bytes in, views
out. With them, networks trained on CIFAR-10 with either kind of views, and the difference of their
accuracies: with the same seed they begin with the same weights and see the images in the same
order.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import kornia.augmentation as K
import pandas as pd
import torch
from torch import Tensor, nn

from sscl_core import batches
from sscl_core.augmentations import ImageViews
from sscl_core.config import ImageAugmentation, TrainConfig
from sscl_core.train import computing, train
from sscl_experiments.runs.images import image_sets, measure
from sscl_experiments.searches import tuned
from sscl_experiments.settings import AUGMENTATION, image_run
from sscl_experiments.statistics import interval
from sscl_experiments.studies.t_simclr.parameters import LARGE_SETS

METRICS = ("knn15_cosine_h", "linear_probe_h")
SETTINGS = {
    "32 x 32, colour, crops from 0.08": (
        (3, 32, 32),
        ImageAugmentation(crop_scale=(0.08, 1.0), jitter=0.5, grayscale=0.2),
    ),
    "32 x 32, colour, crops from 0.2": ((3, 32, 32), LARGE_SETS["cifar10"].images.augmentation),
    "28 x 28, gray, of notebook 5": ((1, 28, 28), AUGMENTATION),
}


class KorniaViews(nn.Module):
    """As `ImageViews`, by kornia."""

    def __init__(self, config: ImageAugmentation, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        scale = config.crop_scale
        self.crop = K.RandomResizedCrop((height, width), scale=scale, cropping_mode="resample")
        s, colour = config.jitter, channels == 3
        factors = (1 - 0.8 * s, 1 + 0.8 * s)
        saturation, hue = (factors, 0.2 * s) if colour else (0.0, 0.0)
        p = config.jitter_probability
        self.rest = nn.Sequential(
            K.RandomHorizontalFlip(p=config.flip),
            K.ColorJitter(factors, factors, saturation, hue, p=p) if s > 0 else nn.Identity(),
            K.RandomGrayscale(p=config.grayscale) if colour else nn.Identity(),
        )

    def forward(self, images: Tensor, pool: Tensor | None = None) -> tuple[Tensor, Tensor]:
        views = self.rest(self.crop(images.float() / 255))
        corners = self.crop._params["src"].to(views)  # (n, 4, 2), the last one included
        return views, torch.cat([corners[:, 0], corners[:, 2] + 1], 1)


def seconds(work: Callable[[], Any]) -> float:
    """Of the processor: others that run beside do not count."""
    began = time.process_time()
    work()
    return time.process_time() - began


def speed(shape: tuple[int, int, int], config: ImageAugmentation, n: int, repeats: int) -> dict:
    """Medians over interleaved repeats, after two to warm up."""
    images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8)
    ours, theirs = ImageViews(config, shape), KorniaViews(config, shape)
    times = [
        (seconds(lambda: ours(images)), seconds(lambda: theirs(images))) for _ in range(repeats)
    ]
    own, other = (statistics.median(part) for part in zip(*times[2:], strict=True))
    ratio = statistics.median(b / a for a, b in times[2:])
    return {"views/s": n / own, "kornia, views/s": n / other, "ratio": ratio}


def speeds(n: int = 1024, repeats: int = 14) -> pd.DataFrame:
    rows = []
    for name, (shape, config) in SETTINGS.items():
        rows.append({"setting": name, **speed(shape, config, n, repeats)})
    return pd.DataFrame(rows)


def run_on_cifar10(images: int, epochs: int, seed: int) -> TrainConfig:
    large = LARGE_SETS["cifar10"]
    data = large.images.replace(n_train=images)
    setting = tuned("SimCLR", 64, "cifar10")
    return image_run(setting, data, dim=64, epochs=epochs, seed=seed, width=large.width)


def scores(config: TrainConfig, views: type[nn.Module]) -> dict[str, float]:
    sets = image_sets(config)
    with mock.patch.object(batches, "ImageViews", views), computing(config):
        metrics, _ = measure(train(config, sets.train.images, device="cpu"), sets)
    return {name: metrics[name] for name in METRICS}


def accuracies(images: int, epochs: int, seeds: int) -> pd.DataFrame:
    """A row a seed and kind of views."""
    rows = []
    for seed in range(seeds):
        config = run_on_cifar10(images, epochs, seed)
        for name, views in {"ours": ImageViews, "kornia": KorniaViews}.items():
            rows.append({"seed": seed, "views": name, **scores(config, views)})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Ours minus kornia's by seed, in points, with the 95 % interval over seeds."""
    wide = 100 * table.pivot(index="seed", columns="views", values=list(METRICS))
    rows = []
    for metric in METRICS:
        ours, kornia = wide[metric]["ours"], wide[metric]["kornia"]
        mean, low, high = interval((ours - kornia).tolist())
        row = {"metric": metric, "ours": ours.mean(), "kornia": kornia.mean()}
        rows.append(row | {"difference": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


@torch.no_grad()
def print_speeds() -> None:
    torch.set_num_threads(1)
    print(speeds().to_string(index=False, float_format="{:.4g}".format))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=0, help="networks trained of each kind")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the accuracies as CSV")
    a = parser.parse_args()
    if a.seeds:
        table = accuracies(a.images, a.epochs, a.seeds)
        print(differences(table).to_string(index=False, float_format="{:.2f}".format))
        if a.out:
            table.to_csv(a.out, index=False)
    else:
        print_speeds()


if __name__ == "__main__":
    main()
