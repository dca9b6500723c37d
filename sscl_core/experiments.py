"""A run from its configuration to its record: training, then everything that is measured on the trained network."""

import datetime
import platform
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F
from tqdm import tqdm

from . import store
from .augmentations import ImageViews
from .config import Images, InfoNCE, Mixture, TrainConfig, ensembles
from .data import ImageData, load_images
from .ensemble import Ensemble, train_ensemble
from .evaluate import Metric, accuracy, alignment, backbone_scores, class_similarity, embed, feature_scores, knn, linear_probe, uniformity
from .models import Encoder
from .store import Record
from .theory import component_means, uniform_arrangement
from .train import (
    SAMPLE,
    VIEWS,
    NonFiniteLossError,
    TrainResult,
    computing,
    contrastive_loss,
    mixture,
    point_set,
    stream,
    train,
    train_and_test_images,
)

EVALUATION = 2**31  # an epoch no training reaches: evaluation pairs are never training pairs
PER_COMPONENT = 25  # evaluation pairs
VIEWED = 256  # test images of which pairs of views are kept


def results(
    configs: Sequence[TrainConfig],
    *,
    runs: Path,
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> list[Record]:
    """The records of these runs, in their order. What is not yet under `runs` is trained here and now, and kept there.

    Processes that need the same runs share the work: what another one is at is left to it, and waited for in the end.
    `NonFiniteLossError` comes after all that can be made is made, and names every run that diverged.
    """
    found = {config: store.load(runs, config) for config in configs}
    failures: list[str] = []
    # Grouped as if none were there: whatever a process still lacks, it asks for the same locks as the others.
    waiting = deque(group for group in ensembles(configs) if any(found[config] is None for config in group))
    with tqdm(total=sum(map(len, waiting)), desc="training", unit="run", disable=not (progress and waiting)) as bar:
        postponed = 0
        while waiting:
            group = waiting.popleft()
            with store.lock(runs, group[0], wait=postponed > len(waiting)) as ours:
                if not ours:
                    waiting.append(group)
                    postponed += 1
                    continue
                postponed = 0
                found |= {config: store.load(runs, config) for config in group}
                missing = [config for config in group if found[config] is None]
                try:
                    made = _train_and_save(missing, runs, device, data_dir)
                except NonFiniteLossError as error:
                    failures.append(str(error))
                else:
                    found |= {record.config: record for record in made}
                bar.update(len(group))
    if failures:
        raise NonFiniteLossError("\n".join(failures))
    records = [record for config in configs if (record := found[config]) is not None]
    _warn_of_collapse(records)
    return records


def _train_and_save(
    configs: Sequence[TrainConfig],
    runs: Path,
    device: str,
    data_dir: str | Path | None,
    compiled: bool = False,
    progress: bool = False,
) -> list[Record]:
    """Runs that are trained together: one on images, or an ensemble.

    Where some of an ensemble diverge, the others are kept before `NonFiniteLossError` is raised.
    """
    if not configs:
        return []
    failure = None
    with computing(configs[0]):
        if isinstance(configs[0].data, Images):
            records = [_image_record(configs[0], runs, device, data_dir, compiled, progress)]
        elif isinstance(configs[0].data, Mixture):
            records, failure = _mixture_records(configs, device, progress)
        else:
            records, failure = _points_records(configs, device, progress)
    store.save(runs, records)
    if failure:
        raise failure
    checkpoint_of(configs[0], runs).unlink(missing_ok=True)
    return records


def run(
    config: TrainConfig,
    *,
    runs: Path,
    device: str = "auto",
    data_dir: str | Path | None = None,
    compiled: bool = False,
    progress: bool = False,
) -> Record:
    """Trains, measures and stores one run, unless it is there; an interrupted one on images resumes from its checkpoint. `compiled` is for
    images: see `train`."""
    with store.lock(runs, config, wait=True):
        if (record := store.load(runs, config)) is None:
            (record,) = _train_and_save([config], runs, device, data_dir, compiled, progress)
    _warn_of_collapse([record])
    return record


def _warn_of_collapse(records: Sequence[Record]) -> None:
    collapsed = [record for record in records if record.metrics.get("collapsed")]
    if collapsed:
        seeds = sorted({record.config.seed for record in collapsed})
        first = collapsed[0].config
        warnings.warn(
            f"{len(collapsed)} of {len(records)} networks collapsed, all their features are equal or zero "
            f"(seeds {', '.join(map(str, seeds))}; the first: {first.loss}, d_z = {first.projector.dim}): "
            "their accuracies are those of chance",
            stacklevel=3,
        )


def is_collapsed(*features: Float[Tensor, "n _"]) -> float:
    """1 if, in one of these sets of features, all rows are equal up to rounding, or zero; else 0."""
    return float(any(_spread(z) <= 1e-5 for z in features))


def _spread(z: Float[Tensor, "n d"]) -> float:
    """The largest distance to the mean over the largest norm, 0 where all is zero."""
    z = z.double()
    largest = z.norm(dim=1).max()
    return ((z - z.mean(0)).norm(dim=1).max() / largest.clamp_min(1e-300)).item()


def checkpoint_of(config: TrainConfig, runs: Path) -> Path:
    return runs.parent / "checkpoints" / f"{store.run_key(config)}.pt"


def _image_record(config: TrainConfig, runs: Path, device: str, data_dir: str | Path | None, compiled: bool, progress: bool) -> Record:
    transfer_images(config, data_dir)  # what evaluation needs and lacks is found out before training
    checkpoint = checkpoint_of(config, runs)
    trained = train(config, device=device, data_dir=data_dir, checkpoint=checkpoint, compiled=compiled, progress=progress)
    began = time.monotonic()
    metrics, arrays = measure_images(trained, data_dir)
    return _record(trained, metrics, arrays, time.monotonic() - began)


def _mixture_records(configs: Sequence[TrainConfig], device: str, progress: bool) -> tuple[list[Record], NonFiniteLossError | None]:
    """The records of the runs that ended well, and the error that names the others."""
    points = torch.stack([evaluation_points(config)[0] for config in configs])
    history: list[Tensor] = []

    def watch(_: int, ensemble: Ensemble) -> None:
        history.append(ensemble(points.to(next(iter(ensemble.parameters.values())).device)).float().cpu())

    trained, failure = _trained(configs, device, progress, watch)
    features = dict(zip(configs, torch.stack(history, 1), strict=True))
    return _records(trained, lambda result: measure_mixture(result.config, features[result.config])), failure


def _points_records(configs: Sequence[TrainConfig], device: str, progress: bool) -> tuple[list[Record], NonFiniteLossError | None]:
    """The records of the runs that ended well, and the error that names the others."""
    trained, failure = _trained(configs, device, progress)
    return _records(trained, measure_points), failure


def _trained(
    configs: Sequence[TrainConfig],
    device: str,
    progress: bool,
    on_epoch: Callable[[int, Ensemble], None] | None = None,
) -> tuple[list[TrainResult], NonFiniteLossError | None]:
    try:
        return train_ensemble(configs, device=device, progress=progress, on_epoch=on_epoch), None
    except NonFiniteLossError as error:
        return error.finished, error


def _records(
    trained: Sequence[TrainResult],
    measure: Callable[[TrainResult], tuple[dict[str, float], dict[str, np.ndarray]]],
) -> list[Record]:
    """`seconds` are each run's share of the ensemble's."""
    began = time.monotonic()
    measured = [measure(result) for result in trained]
    seconds = (time.monotonic() - began) / max(1, len(trained))
    return [_record(result, *values, seconds) for result, values in zip(trained, measured, strict=True)]


def _record(trained: TrainResult, metrics: dict[str, float], arrays: dict[str, np.ndarray], seconds: float) -> Record:
    """`seconds`: of measuring, beside those of training."""
    arrays["loss"] = np.asarray(trained.losses, dtype=np.float32)
    metrics["images_per_second"] = trained.images_per_second
    return Record(trained.config, metrics, arrays, provenance(trained.model, trained.seconds + seconds))


def measure_images(trained: TrainResult, data_dir: str | Path | None = None) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """k-NN on the projected features z and the backbone's h, the linear probe on h, the norm of z, df where it was learned; the classes'
    similarities on h and z; for d_z = 2 the map itself, up to 32 the features of pairs of views. With `transfer`, h on that set: k-NN and
    probe from its training to its test images, and its classes' similarities."""
    assert isinstance(trained.config.data, Images)
    train_set, test_set = train_and_test_images(trained.config, data_dir)
    h, z = embed(trained.model, train_set.images)
    h_test, z_test = embed(trained.model, test_set.images)
    labels, test_labels = train_set.labels.to(h.device), test_set.labels.to(h.device)
    scores = {f"{name}_z": value for name, value in feature_scores(z, labels, z_test, test_labels).items()}
    scores |= {f"{name}_h": value for name, value in backbone_scores(h, labels, h_test, test_labels).items()}
    scores["collapsed"] = is_collapsed(h_test, z_test)
    scores["norm_z"] = z_test.norm(dim=1).mean().item()
    arrays = {f"classes_{name}": class_similarity(f, test_labels) for name, f in (("h", h_test), ("z", z_test))}
    if trained.model.log_df is not None:
        scores["df"] = trained.model.log_df.exp().item()
    other = transfer_images(trained.config, data_dir)
    if other is not None:
        (near, own), (far, truth) = ((embed(trained.model, part.images)[0], part.labels.to(h.device)) for part in other)
        scores |= {f"{name}_transfer": value for name, value in backbone_scores(near, own, far, truth).items()}
        arrays["classes_transfer"] = class_similarity(far, truth)
    if z.shape[1] == 2:
        arrays |= {"z_test": z_test, "labels_test": test_labels}
    if z.shape[1] <= 32:
        arrays["z_views"] = _view_features(trained, test_set.images[:VIEWED])
    return scores, {name: value.numpy(force=True) for name, value in arrays.items()}


@torch.no_grad()
def _view_features(trained: TrainResult, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "two_n d_z"]:
    """z of two views of each image, [z1; z2]: pairs as training sees them, of images that it does not."""
    assert isinstance(trained.config.data, Images)
    images = images.to(next(trained.model.parameters()).device)
    views = ImageViews(trained.config.data.augmentation, images.shape[1:])
    with stream(trained.config.seed, VIEWS, EVALUATION):
        return trained.model(views(images.repeat(2, 1, 1, 1).float() / 255, images)[0])[1]


@torch.no_grad()
def measure_points(trained: TrainResult) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """10-NN on the backbone's h (cosine) and on z (cosine for InfoNCE, else Euclidean), on the validation part, by which settings are
    chosen, and on the test part; there also the linear probe on h. For d_z = 2 the map of the training part."""
    points = point_set(trained.config)
    device = next(trained.model.parameters()).device
    features = {name: trained.model(getattr(points, name).x.to(device)) for name in ("train", "validation", "test")}
    (h, z), labels, k = features["train"], points.train.labels.to(device), min(10, len(points.train))
    own: Metric = "cosine" if isinstance(trained.config.loss, InfoNCE) else "euclidean"
    scores = {}
    for name in ("validation", "test"):
        truth = getattr(points, name).labels.to(device)
        h_other, z_other = features[name]
        scores[f"knn_h_{name}"] = accuracy(knn(h, labels, h_other, k=k), truth)
        scores[f"knn_z_{name}"] = accuracy(knn(z, labels, z_other, k=k, metric=own), truth)
    scores["probe_h_test"] = accuracy(linear_probe(h, labels, h_other), truth)
    scores["collapsed"] = is_collapsed(h_other, z_other)
    return scores, {"z": z.numpy(force=True)} if z.shape[1] == 2 else {}


def transfer_images(config: TrainConfig, data_dir: str | Path | None = None) -> tuple[ImageData, ImageData] | None:
    """Both parts of `transfer`, if it is set. `ValueError`: they have another number of channels than the images trained on."""
    assert isinstance(config.data, Images)
    if config.data.transfer is None:
        return None
    train, test = (load_images(config.data.transfer, split, data_dir=data_dir) for split in ("train", "test"))
    own = load_images(config.data.name, "test", data_dir=data_dir)
    if test.images.shape[1] != own.images.shape[1]:
        raise ValueError(
            f"transfer must be a set of {own.images.shape[1]}-channel images, as {config.data.name}, got {config.data.transfer}"
        )
    return train, test


def measure_mixture(config: TrainConfig, history: Float[Tensor, "t n d"]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Loss, alignment and uniformity of features in training; for InfoNCE beside the exact minimiser on the same pairs, where there is one.

    `history`: the features of the evaluation points [x1; x2] before training and after each epoch. `means`: of the components' features,
    on the unit sphere for InfoNCE. `loss_gap`: (L - L*) / (L₀ - L*), L* the loss of perfectly aligned points at the polygon or simplex,
    L₀ = log(2n-1) that of a collapsed network: 1 nothing learned, 0 exact.
    """
    assert isinstance(config.data, Mixture)
    on_sphere = isinstance(config.loss, InfoNCE)
    m, d = len(config.data.means), config.projector.dim
    labels = evaluation_points(config)[1]
    features = F.normalize(history.double(), dim=2) if on_sphere else history.double()
    losses = vmap(lambda z: contrastive_loss(config, *z.chunk(2)))(features)
    means = torch.stack([component_means(step, labels.repeat(2), m) for step in features])
    directions = F.normalize(means if on_sphere else means - means.mean(1, keepdim=True), dim=2)
    arrays = {
        "evaluation_loss": losses,
        "alignment": vmap(lambda z: alignment(*z.chunk(2)))(features),
        "uniformity": torch.stack([uniformity(step) for step in directions]),
        "means": directions if on_sphere else means,
        "features": features[[0, -1]],
    }
    metrics = {name: arrays[name][-1].item() for name in ("alignment", "uniformity")} | {"loss": losses[-1].item()}
    metrics["collapsed"] = is_collapsed(history[-1])
    if on_sphere and (d == 2 or d >= m - 1):
        exact = uniform_arrangement(m, d)
        best, collapsed = contrastive_loss(config, exact[labels], exact[labels]).item(), float(np.log(2 * len(labels) - 1))
        metrics |= {
            "loss_exact": best,
            "loss_gap": (metrics["loss"] - best) / (collapsed - best),
            "uniformity_exact": uniformity(exact).item(),
        }
    return metrics, {name: value.numpy() for name, value in arrays.items()} | {"labels": labels.numpy()}


def evaluation_points(config: TrainConfig) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " half"]]:
    """Pairs [x1; x2] that no training step sees, 25 from every component, and the components of x1."""
    assert isinstance(config.data, Mixture)
    components = mixture(config.data)
    labels = torch.arange(components.m).repeat_interleave(PER_COMPONENT)
    with stream(config.seed, SAMPLE, EVALUATION) as generator:
        x1, x2 = (components.sample_given(labels, generator=generator) for _ in range(2))
    return torch.cat([x1, x2]), labels


def provenance(model: Encoder, seconds: float) -> dict[str, Any]:
    """What a number needs beside its configuration to be understood later."""
    device = next(model.parameters()).device
    return {
        "seconds": round(seconds, 3),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {name: store.release(name) for name in ("torch", "kornia", "numpy")} | {"python": platform.python_version()},
    }
