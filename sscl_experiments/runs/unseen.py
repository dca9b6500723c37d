"""Runs on a mixture, judged on components that training never drew from."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sscl_core.config import TrainConfig
from sscl_core.evaluate import accuracy, knn
from sscl_core.rng import EVALUATION, SAMPLE, stream
from sscl_core.train import TrainResult, computing
from sscl_experiments.datasets.synthetic import GaussianMixture

from .making import Measures, is_collapsed
from .robust_config import UnseenMixture
from .together import Made, make_together

TURN, SHIFT, GROWTH = 36.0, 1.0, 1.5  # degrees, a distance, a factor: of all means at once
WORLDS = ("seen", "new", "shifted", "rotated", "rescaled")
Draws = tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]


def make(configs: Sequence[TrainConfig], *, device: str, progress: bool = False) -> Made:
    data = [seen(config) for config in configs]
    with computing(configs[0]):
        return make_together(configs, data, measure, device=device, progress=progress)


def spec(config: TrainConfig) -> UnseenMixture:
    assert isinstance(config.data, UnseenMixture)
    return config.data


def seen(config: TrainConfig) -> GaussianMixture:
    return GaussianMixture(torch.tensor(spec(config).means), spec(config).std)


def world_means(data: UnseenMixture) -> dict[str, Float[Tensor, "m d"]]:
    """The component means of each of `WORLDS`.

    "new": the unseen components beside the seen ones. The others are the seen ones, moved together:
    by `SHIFT` along the diagonal, by `TURN` degrees about their centre in the first two dimensions,
    by a factor `GROWTH` from their centre.
    """
    means = torch.tensor(data.means)
    center = means.mean(0)
    angle = math.radians(TURN)
    turn = torch.eye(means.shape[1])
    if means.shape[1] > 1:
        cos, sin = math.cos(angle), math.sin(angle)
        turn[:2, :2] = torch.tensor([[cos, -sin], [sin, cos]])
    return {
        "seen": means,
        "new": torch.cat([means, torch.tensor(data.unseen)]),
        "shifted": means + SHIFT / means.shape[1] ** 0.5,
        "rotated": center + (means - center) @ turn.T,
        "rescaled": center + GROWTH * (means - center),
    }


def draws(config: TrainConfig, world: str, each: int, part: int) -> Draws:
    """`each` draws of every component of a world; `part` 0 is the support, 1 the queries."""
    data = spec(config)
    mixture = GaussianMixture(world_means(data)[world], data.std)
    labels = torch.arange(mixture.m).repeat_interleave(each)
    name = (config.seed, SAMPLE, EVALUATION, 1 + WORLDS.index(world), part)
    with stream(*name) as generator:
        return mixture.sample_given(labels, generator=generator), labels


@torch.no_grad()
def measure(trained: TrainResult) -> Measures:
    """1-NN accuracy on z in every world, in both metrics, and whether norms tell new from seen.

    A world's labelled support, and its queries, are drawn from that world. In "new" only queries
    of unseen components count, among all components. `auroc_norm`: the probability that a query of
    an unseen component has a smaller ‖z‖ than one of a seen component; `auroc_distance`: a greater
    cosine distance from the nearest support point of the seen ones. Arrays: for d_z = 2 queries of
    "new", z and labels.
    """
    device = next(trained.model.parameters()).device
    config = trained.config

    def z(x: Tensor) -> Tensor:
        return trained.model(x.to(device))[1].cpu()

    metrics: dict[str, float] = {}
    for world in WORLDS:
        metrics |= world_scores(z, config, world)
    x, labels = draws(config, "new", spec(config).queries, 1)
    features, old = z(x), labels < len(spec(config).means)
    support = z(draws(config, "seen", spec(config).support, 0)[0])
    metrics |= detection(features, old, support)
    metrics["collapsed"] = is_collapsed(features)
    arrays = {}
    if features.shape[1] == 2:
        arrays = {"z": features.numpy(), "labels": labels.numpy()}
    return metrics, arrays


def world_scores(
    z: Callable[[Tensor], Tensor], config: TrainConfig, world: str
) -> dict[str, float]:
    data = spec(config)
    x, labels = draws(config, world, data.support, 0)
    queries, truth = draws(config, world, data.queries, 1)
    if world == "new":
        unseen = truth >= len(data.means)
        queries, truth = queries[unseen], truth[unseen]
    support, asked = z(x), z(queries)
    return {
        f"{world}_{metric}": accuracy(knn(support, labels, asked, k=1, metric=metric), truth)
        for metric in ("cosine", "euclidean")
    }


def detection(
    features: Float[Tensor, "n d"], old: Tensor, support: Float[Tensor, "m d"]
) -> dict[str, float]:
    """AUROC and FPR at 95 % true positives of telling unseen from seen, by norm and by distance."""
    unit = torch.nn.functional.normalize
    nearest = (unit(features) @ unit(support).T).amax(1)
    found = {}
    for name, score in (("norm", -features.norm(dim=1)), ("distance", -nearest)):
        found[f"auroc_{name}"], found[f"fpr95_{name}"] = separation(score[~old], score[old])
    return found


def separation(unseen: Float[Tensor, " n"], seen: Float[Tensor, " m"]) -> tuple[float, float]:
    """(AUROC, FPR95) of a score that is to be larger for what is unseen.

    AUROC: the probability that an unseen sample has the larger score, ties counted half. FPR95: the
    share of seen samples above the threshold that 95 % of the unseen ones reach.
    """
    larger = (unseen[:, None] > seen).double().mean()
    equal = (unseen[:, None] == seen).double().mean()
    order = unseen.sort(descending=True).values
    threshold = order[math.ceil(0.95 * len(order)) - 1]
    return (larger + equal / 2).item(), (seen >= threshold).double().mean().item()
