"""Runs on a Gaussian mixture, whose exact minimiser is known in some cases."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F

from sscl_core.config import InfoNCE, Mixture, TrainConfig
from sscl_core.ensemble import Ensemble
from sscl_core.evaluate import alignment, component_means, uniformity
from sscl_core.models import Encoder
from sscl_core.rng import EVALUATION, SAMPLE, stream
from sscl_core.train import TrainResult, computing, contrastive_loss, initial_network
from sscl_experiments.arrangements import uniform_arrangement
from sscl_experiments.datasets.synthetic import AnonymousSamples, Components, GaussianMixture

from .making import Measures, is_collapsed
from .starts import fitted_to_order
from .together import Made, make_together

PER_COMPONENT = 25  # evaluation pairs


def mixture(data: Mixture) -> Components:
    if data.anonymous:
        return AnonymousSamples(len(data.means), data.anonymous)
    return GaussianMixture(torch.tensor(data.means), data.std)


def first_network(config: TrainConfig) -> Encoder:
    """The initial network of a run; with `start_order`, fitted to that order.

    `ValueError`: the fit did not reach it.
    """
    assert isinstance(config.data, Mixture)
    components, prepare = mixture(config.data), None
    if config.start_order is not None:
        prepare = fitted_to_order(config, components)
    return initial_network(config, torch.Size([components.dim]), prepare=prepare)


def make(configs: Sequence[TrainConfig], *, device: str, progress: bool = False) -> Made:
    points = torch.stack([evaluation_points(config)[0] for config in configs])
    data = [mixture(config.data) for config in configs if isinstance(config.data, Mixture)]
    history: list[Tensor] = []

    def watch(_: int, ensemble: Ensemble) -> None:
        place = next(iter(ensemble.parameters.values())).device
        history.append(ensemble(points.to(place)).float().cpu())

    def measure_one(result: TrainResult) -> Measures:
        member = configs.index(result.config)
        return measure(result.config, torch.stack([features[member] for features in history]))

    with computing(configs[0]):
        return make_together(
            configs,
            data,
            measure_one,
            networks=[first_network(config) for config in configs],
            device=device,
            progress=progress,
            on_epoch=watch,
        )


def measure(config: TrainConfig, history: Float[Tensor, "t n d"]) -> Measures:
    """Loss, alignment and uniformity in training; for InfoNCE beside the exact minimiser.

    `history`: the features of the evaluation points [x1; x2] before training and after each epoch.
    `means`: of the components' features, on the unit sphere for InfoNCE.
    `loss_gap`: (L - L*) / (L₀ - L*), L* the loss of perfectly aligned points at the polygon or
    simplex, L₀ = log(2n-1) that of a collapsed network: 1 nothing learned, 0 exact.
    """
    assert isinstance(config.data, Mixture)
    on_sphere = isinstance(config.loss, InfoNCE)
    m, d = len(config.data.means), config.projector.dim
    labels = evaluation_points(config)[1]
    features = F.normalize(history.double(), dim=2) if on_sphere else history.double()
    losses = vmap(lambda z: contrastive_loss(config, *z.chunk(2)))(features)
    means = torch.stack([component_means(step, labels.repeat(2), m) for step in features])
    centred = means if on_sphere else means - means.mean(1, keepdim=True)
    directions = F.normalize(centred, dim=2)
    arrays = {
        "evaluation_loss": losses,
        "alignment": vmap(lambda z: alignment(*z.chunk(2)))(features),
        "uniformity": torch.stack([uniformity(step) for step in directions]),
        "means": directions if on_sphere else means,
        "features": features[[0, -1]],
    }
    metrics = {name: arrays[name][-1].item() for name in ("alignment", "uniformity")}
    metrics["loss"] = losses[-1].item()
    metrics["collapsed"] = is_collapsed(history[-1])
    if on_sphere and (d == 2 or d >= m - 1):
        exact = uniform_arrangement(m, d)
        best = contrastive_loss(config, exact[labels], exact[labels]).item()
        collapsed = math.log(2 * len(labels) - 1)
        metrics["loss_exact"] = best
        metrics["loss_gap"] = (metrics["loss"] - best) / (collapsed - best)
        metrics["uniformity_exact"] = uniformity(exact).item()
    saved = {name: value.numpy() for name, value in arrays.items()}
    return metrics, saved | {"labels": labels.numpy()}


def evaluation_points(
    config: TrainConfig,
) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " half"]]:
    """Pairs [x1; x2] that no training step sees, 25 a component, and the components of x1."""
    assert isinstance(config.data, Mixture)
    components = mixture(config.data)
    labels = torch.arange(components.m).repeat_interleave(PER_COMPONENT)
    with stream(config.seed, SAMPLE, EVALUATION) as generator:
        x1 = components.sample_given(labels, generator=generator)
        x2 = components.sample_given(labels, generator=generator)
    return torch.cat([x1, x2]), labels
