"""A run from its configuration to its record: training, then everything that is measured on the trained network."""

import datetime
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from . import store
from .config import Mixture, TrainConfig
from .data import GaussianMixture
from .evaluate import alignment, backbone_scores, embed, feature_scores, uniformity
from .losses import info_nce
from .models import Encoder
from .store import Record
from .theory import component_means, uniform_arrangement
from .train import SAMPLE, TrainResult, mixture, stream, train, train_and_test_images

EVALUATION = 2**31  # an epoch no training reaches: evaluation pairs are never training pairs


def results(
    configs: Sequence[TrainConfig],
    *,
    runs: Path,
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> list[Record]:
    """The records of these runs, in their order. What is not yet under `runs` is trained here and now, and kept there."""
    found = {config: store.load(runs, config) for config in configs}
    missing = [config for config, record in found.items() if record is None]
    for config in tqdm(missing, desc="training", unit="run", disable=not (progress and missing)):
        found[config] = run(config, runs=runs, device=device, data_dir=data_dir)
    return [record for config in configs if (record := found[config]) is not None]


def run(config: TrainConfig, *, runs: Path, device: str = "auto", data_dir: str | Path | None = None, progress: bool = False) -> Record:
    """Trains, measures and stores one run; an interrupted one resumes from its checkpoint."""
    checkpoint = runs.parent / "checkpoints" / f"{store.run_key(config)}.pt"
    began = time.monotonic()
    if isinstance(config.data, Mixture):
        uniform_arrangement(config.data.components, config.projector.dim)  # before training: not every d_z has an exact minimiser
        history: list[Tensor] = []
        points = _mixture_evaluation(config, mixture(config))[0]
        trained = train(config, device=device, progress=progress, on_epoch=lambda _, model: history.append(_features(model, points)))
        metrics, arrays = measure_mixture(config, torch.stack(history))
    else:
        trained = train(config, device=device, data_dir=data_dir, checkpoint=checkpoint, progress=progress)
        metrics, arrays = measure_images(trained, data_dir)
    arrays["loss"] = np.asarray(trained.losses, dtype=np.float32)
    metrics["images_per_second"] = trained.images_per_second
    record = Record(config, metrics, arrays, provenance(trained.model, time.monotonic() - began))
    store.save(runs, record)
    checkpoint.unlink(missing_ok=True)
    return record


def measure_images(trained: TrainResult, data_dir: str | Path | None = None) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """k-NN on the projected features z and the backbone's h, the linear probe on h, the norm of z; for d_z = 2 the map itself."""
    train_set, test_set = train_and_test_images(trained.config, data_dir)
    h, z = embed(trained.model, train_set.images)
    h_test, z_test = embed(trained.model, test_set.images)
    labels, test_labels = train_set.labels.to(h.device), test_set.labels.to(h.device)
    scores = {f"{name}_z": value for name, value in feature_scores(z, labels, z_test, test_labels).items()}
    scores |= {f"{name}_h": value for name, value in backbone_scores(h, labels, h_test, test_labels).items()}
    scores["norm_z"] = z_test.norm(dim=1).mean().item()
    is_map = z.shape[1] == 2
    return scores, {"z_test": z_test.numpy(force=True), "labels_test": test_labels.numpy(force=True)} if is_map else {}


def measure_mixture(config: TrainConfig, history: Float[Tensor, "t n d"]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Alignment, uniformity and the loss of features in training, beside the exact minimiser on the same pairs.

    `history`: the features of the evaluation points [x1; x2] before training and after each epoch. `loss_gap`: (L - L*) / (L₀ - L*), L* the
    loss of perfectly aligned points at the polygon or simplex, L₀ = log(2n-1) that of a collapsed network: 1 nothing learned, 0 exact.
    """
    assert isinstance(config.data, Mixture)
    m, d, temperature = config.data.components, config.projector.dim, config.loss.temperature
    labels = _mixture_evaluation(config, mixture(config))[1]
    u = F.normalize(history.double(), dim=2)
    u1, u2 = u.chunk(2, dim=1)
    exact = uniform_arrangement(m, d)[labels]
    best = info_nce(exact, exact, temperature=temperature).item()
    losses = torch.stack([info_nce(a, b, temperature=temperature) for a, b in zip(u1, u2, strict=True)])
    collapsed = float(np.log(2 * len(labels) - 1))
    means = torch.stack([F.normalize(component_means(step, labels.repeat(2), m), dim=1) for step in u])
    alignments = torch.stack([alignment(a, b) for a, b in zip(u1, u2, strict=True)])
    uniformities = torch.stack([uniformity(step) for step in means])
    metrics = {
        "loss_gap": (losses[-1].item() - best) / (collapsed - best),
        "loss": losses[-1].item(),
        "loss_exact": best,
        "alignment": alignments[-1].item(),
        "uniformity": uniformities[-1].item(),
        "uniformity_exact": uniformity(uniform_arrangement(m, d)).item(),
    }
    curves = {
        "alignment": alignments,
        "uniformity": uniformities,
        "evaluation_loss": losses,
        "means": means,
        "features": u[[0, -1]],
    }
    return metrics, {name: value.numpy() for name, value in curves.items()} | {"labels": labels.numpy()}


def _mixture_evaluation(config: TrainConfig, components: GaussianMixture) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " half"]]:
    """Pairs [x1; x2] that no training step sees, 50 from every component, and the components of x1."""
    labels = torch.arange(len(components.means)).repeat_interleave(50)
    with stream(config.seed, SAMPLE, EVALUATION) as generator:
        x1, x2 = (components.sample_given(labels, generator=generator) for _ in range(2))
    return torch.cat([x1, x2]), labels


@torch.no_grad()
def _features(model: Encoder, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d_z"]:
    return model(x.to(next(model.parameters()).device))[1].float().cpu()


def provenance(model: Encoder, seconds: float) -> dict[str, Any]:
    """What a number needs beside its configuration to be understood later."""
    device = next(model.parameters()).device
    return {
        "seconds": round(seconds, 3),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "kornia", "numpy")} | {"python": platform.python_version()},
    }
