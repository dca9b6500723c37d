"""Runs on images, judged on corrupted, attacked and foreign ones that training did not see."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from sscl_core.attacks import NORMS, displacement, local_lipschitz, mistake, pgd, random_start
from sscl_core.config import TrainConfig
from sscl_core.corruptions import CONSTANTS, SEVERITIES, corrupted
from sscl_core.evaluate import accuracy, knn, linear_probe
from sscl_core.models import Encoder
from sscl_core.rng import EVALUATION, SPLIT, VIEWS, stream
from sscl_core.train import TrainResult, train
from sscl_experiments.datasets.images import ImageData
from sscl_experiments.record import Record

from .images import ImageSets, image_sets
from .labels import train_with_labels
from .making import Measures, Training, is_collapsed, made
from .robust_config import RobustRun, StressedImages
from .unseen import separation

Embed = Callable[[UInt8[Tensor, "n c h w"]], dict[str, Tensor]]  # named features of bytes
METRICS = ("cosine", "euclidean")
# Radii of changes of pixels in [0, 1]; the l2 ones are for 28×28 grey images, and grow with √size.
RADII = {"l2": (0.5, 1.0), "linf": (4 / 255, 8 / 255)}
STEPS, RESTARTS = 10, 2
PENALTY = 1e-2  # of the attacked probe: `linear_probe`'s
FOREIGN = 300  # images of handwritten digits, which no network was trained on


def make(
    config: TrainConfig, *, data_dir: str | Path | None, **training: Unpack[Training]
) -> Record:
    """Trains and measures a run. One on labels keeps no checkpoint: interrupted, it begins anew."""
    assert isinstance(config, RobustRun)
    sets = image_sets(config, data_dir)

    def trained() -> TrainResult:
        if config.supervised:
            return train_with_labels(config, sets.train, **training)
        return train(config, sets.train.images, **training)

    return made(config, trained, lambda result: measure(result, sets))


def tested(config: TrainConfig, test: ImageData) -> ImageData:
    """The first of a shuffle of the test images, the same for every seed."""
    assert isinstance(config.data, StressedImages)
    if config.data.tested > len(test):
        rule = f"at most {len(test)}, the test images there are"
        raise ValueError(f"tested must be {rule}, got {config.data.tested}")
    with stream(0, SPLIT, 1):
        return test.select(torch.randperm(len(test))[: config.data.tested])


# --- what is measured -----------------------------------------------------------------------------


def measure(trained: TrainResult, sets: ImageSets) -> Measures:
    """Accuracies, displacement and norms under corruptions; attacks, where images are attacked."""
    config = trained.config
    assert isinstance(config.data, StressedImages)
    test = tested(config, sets.test)
    embed = embedding(trained.model)
    own = embed(sets.train.images)
    metrics, arrays = corruption_scores(embed, own, sets.train.labels, test)
    metrics["collapsed"] = is_collapsed(own["h"], own["z"])
    metrics |= foreign_scores(embed, own, test)
    if config.data.attacked:
        chosen = test.select(slice(config.data.attacked))
        found, curves = attack_scores(trained.model, own["h"], sets.train.labels, chosen)
        metrics, arrays = metrics | found, arrays | curves
    return metrics, arrays


def embedding(model: Encoder) -> Embed:
    @torch.no_grad()
    def embed(images: UInt8[Tensor, "n c h w"]) -> dict[str, Tensor]:
        place = next(model.parameters()).device
        parts = [model(pixels(part).to(place)) for part in images.split(1024)]
        h, z = zip(*parts, strict=True)
        return {"h": torch.cat(h).float().cpu(), "z": torch.cat(z).float().cpu()}

    return embed


def pixels(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    return (images.float() / 255).contiguous(memory_format=torch.channels_last)


def raw(images: UInt8[Tensor, "n c h w"]) -> dict[str, Tensor]:
    """The pixels as features: what networks are held against."""
    return {"h": (images.float() / 255).flatten(1)}


@cache
def conditions() -> tuple[tuple[str, int], ...]:
    """(corruption, severity) of everything that is measured, clean images first."""
    return (("clean", 0), *((name, level) for name in CONSTANTS for level in SEVERITIES))


def corruption_scores(
    embed: Embed, own: dict[str, Tensor], labels: Int64[Tensor, " n"], test: ImageData
) -> Measures:
    """10-NN in both metrics and the probe, fitted to clean training features, on corrupted images.

    Arrays, a row a pair of `conditions`: `accuracy_<how>`, of 10-NN on h and z and the probe on h;
    `right_<how>`, of those on h, which of the images are classified rightly;
    `displacement`, ‖h(x_c) - h(x)‖ over the mean distance of two clean images; `auroc_norm`, how
    well a smaller ‖z‖ tells the corrupted images from the clean ones. Metrics: `clean_<how>`, and
    `corrupt_<how>`, the mean over corruptions and severities; `halves_<how>`, see `halves`.
    """
    sets = [test.images]
    sets += [corrupted(test.images, name, level) for name, level in conditions()[1:]]
    features = embed(torch.cat(sets))
    truth = test.labels.repeat(len(sets))
    n, metrics, arrays = len(test), halves(own["h"], labels), {}
    for how, predicted in predictions(own, labels, features).items():
        right = (predicted == truth).view(-1, n)
        rate = right.double().mean(1)
        metrics[f"clean_{how}"] = rate[0].item()
        metrics[f"corrupt_{how}"] = rate[1:].mean().item()
        arrays[f"accuracy_{how}"] = rate.numpy()
        if how.endswith("_h"):
            arrays[f"right_{how}"] = right.numpy()
    h = features["h"].view(len(sets), n, -1)
    typical = torch.pdist(h[0]).mean()
    arrays["displacement"] = ((h - h[0]).norm(dim=2).mean(1) / typical).numpy()
    norms = features.get("z", features["h"]).norm(dim=1).view(-1, n)
    arrays["auroc_norm"] = np.array([separation(-row, -norms[0])[0] for row in norms])
    metrics["displacement"] = float(arrays["displacement"][1:].mean())
    return metrics, arrays


def halves(h: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]) -> dict[str, float]:
    """10-NN accuracy on every other training image by those between, in both metrics.

    It says which metric suits these features, by nothing but what they were trained on.
    """
    found = {}
    for metric in METRICS:
        voted = knn(h[::2], labels[::2], h[1::2], metric=metric)  # type: ignore[arg-type]
        found[f"halves_{metric}_h"] = accuracy(voted, labels[1::2])
    return found


def predictions(
    own: dict[str, Tensor], labels: Int64[Tensor, " n"], features: dict[str, Tensor]
) -> dict[str, Tensor]:
    found = {}
    for name, value in features.items():
        for metric in METRICS:
            found[f"{metric}_{name}"] = knn(own[name], labels, value, metric=metric)  # type: ignore[arg-type]
    return found | {"probe_h": linear_probe(own["h"], labels, features["h"])}


def foreign_scores(embed: Embed, own: dict[str, Tensor], test: ImageData) -> dict[str, float]:
    """Whether ‖h‖, ‖z‖ or the distance from the training features tell digits from test images.

    A smaller norm, and a smaller cosine to the nearest training feature, count as foreign.
    """
    inside, outside = embed(test.images), embed(digit_images(test.images.shape[1:]))
    found = {}
    for name in inside:
        scores = [-part[name].norm(dim=1) for part in (outside, inside)]
        found[f"foreign_auroc_norm_{name}"], found[f"foreign_fpr95_norm_{name}"] = separation(
            *scores
        )
    train = F.normalize(own["h"], dim=1)
    nearest = [-(F.normalize(part["h"], dim=1) @ train.T).amax(1) for part in (outside, inside)]
    found["foreign_auroc_distance_h"], found["foreign_fpr95_distance_h"] = separation(*nearest)
    return found


def digit_images(shape: torch.Size) -> UInt8[Tensor, "n c h w"]:
    """The first of scikit-learn's handwritten digits, enlarged to images of this shape."""
    from sklearn.datasets import load_digits

    small = torch.tensor(load_digits().images[:FOREIGN], dtype=torch.float32)[:, None] / 16
    large = F.interpolate(small, size=tuple(shape[1:]), mode="bilinear", align_corners=False)
    return (255 * large).round().to(torch.uint8).repeat(1, shape[0], 1, 1)


# --- attacks --------------------------------------------------------------------------------------


def attack_scores(
    model: Encoder, train_h: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], data: ImageData
) -> Measures:
    """Attacks on the probe on h, and without labels on h itself; the local Lipschitz constant.

    Arrays, a row a norm, a column a radius: `probe_attacked`, the accuracy that is left;
    `probe_noise`, that under random changes of the same size; `moved_attacked` and `moved_noise`,
    how far h moves, over the mean distance of two images. Metrics: the four at the smaller l2
    radius, and `lipschitz`, the mean lower bound in units of the mean distance of two images on h
    and of two images.
    """
    place = next(model.parameters()).device
    x, truth = pixels(data.images).to(place), data.labels.to(place)
    probe = fitted_probe(train_h, labels).to(place)

    def h(images: Tensor) -> Tensor:
        return model.backbone(images)

    def logits(images: Tensor) -> Tensor:
        return probe(h(images))

    with torch.no_grad():
        spread, size = torch.pdist(h(x)).mean(), torch.pdist(x.flatten(1)).mean()
    arrays: dict[str, list[list[float]]] = {}
    for norm in NORMS:
        for name, values in _at_radii(h, logits, x, truth, spread, norm).items():
            arrays.setdefault(name, []).append(values)
    with stream(0, VIEWS, EVALUATION + 2) as generator:
        slope = local_lipschitz(h, x, generator=generator)
    with torch.no_grad():
        clean = accuracy(logits(x).argmax(1), truth)
    metrics = {
        "probe_attacked": arrays["probe_attacked"][0][0],
        "probe_noise": arrays["probe_noise"][0][0],
        "probe_unharmed": clean,
        "moved_attacked": arrays["moved_attacked"][0][0],
        "moved_noise": arrays["moved_noise"][0][0],
        "lipschitz": (slope.mean() * size / spread).item(),
    }
    return metrics, {name: np.array(rows) for name, rows in arrays.items()}


def _at_radii(
    h: Callable[[Tensor], Tensor],
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    truth: Tensor,
    spread: Tensor,
    norm: str,
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    move = displacement(h, x)
    scale = (x[0].numel() / 784) ** 0.5 if norm == "l2" else 1.0
    for radius in (scale * radius for radius in RADII[norm]):
        with stream(0, VIEWS, EVALUATION + 3) as generator:
            how: dict = {"radius": radius, "norm": norm, "steps": STEPS, "restarts": RESTARTS}
            wrong = pgd(mistake(logits, truth), x, generator=generator, **how)
            moved = pgd(move, x, generator=generator, **how)
            noisy = random_start(x, radius, norm, generator)  # type: ignore[arg-type]
        with torch.no_grad():
            values = {
                "probe_attacked": accuracy(logits(wrong).argmax(1), truth),
                "probe_noise": accuracy(logits(noisy).argmax(1), truth),
                "moved_attacked": (move(moved).mean() / spread).item(),
                "moved_noise": (move(noisy).mean() / spread).item(),
            }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return found


def fitted_probe(train: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]) -> nn.Linear:
    """The probe of `linear_probe`, as a layer that one can differentiate: same objective."""
    mean, std = train.mean(0), train.std(0).clamp_min(1e-6)
    x = (train - mean) / std
    layer = nn.Linear(x.shape[1], int(labels.max()) + 1)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=100, tolerance_grad=1e-4, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(x), labels) + PENALTY / 2 * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        weight = layer.weight / std
        layer.bias -= weight @ mean  # type: ignore[misc]
        layer.weight.copy_(weight)
    return layer.requires_grad_(False)
