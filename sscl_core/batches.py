"""What training sees: pairs of views, a batch at a time, made on the device from data handed in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .augmentations import ImageViews, agnostic_views, crop_overlap
from .checks import require
from .config import Images, Mixture, Points, TrainConfig
from .rng import ORDER, SAMPLE, VIEWS, stream


@runtime_checkable
class PairSampler(Protocol):
    """Positive pairs that are drawn afresh, and have `dim` entries each."""

    @property
    def dim(self) -> int: ...

    def pairs(self, n: int, *, generator: torch.Generator) -> tuple[Tensor, ...]:
        """x1 (n, d), x2 (n, d), and what else the sampler knows of them."""


# Images (n, c, h, w) as bytes for `Images`, vectors (n, d) for `Points`, a sampler for `Mixture`.
Data = Tensor | PairSampler


@dataclass(frozen=True)
class Batch:
    """Two views of n samples, and the overlap (IoU) of their crops where there are any."""

    x1: Float[Tensor, "n ..."]
    x2: Float[Tensor, "n ..."]
    overlap: Float[Tensor, " n"] | None = None


@dataclass(frozen=True)
class Source:
    """The batches of every epoch; `images_per_epoch` counts samples, each seen as two views."""

    sample_shape: torch.Size
    steps_per_epoch: int
    images_per_epoch: int
    batches: Callable[[int], Iterator[Batch]]


def source(config: TrainConfig, data: Data, device: torch.device) -> Source:
    """The pairs that a run trains on. `TypeError`: `data` is not what `config.data` asks for."""
    if isinstance(config.data, Images):
        return _image_source(config, _tensor(data, "images", ndim=4).to(device))
    dim, steps, batch = epoch_shape(config, data)

    def batches(epoch: int) -> Iterator[Batch]:
        x1, x2 = epoch_pairs(config, data, epoch)
        yield from map(Batch, x1.to(device), x2.to(device))

    return Source(torch.Size([dim]), steps, steps * batch, batches)


def epoch_shape(config: TrainConfig, data: Data) -> tuple[int, int, int]:
    """Of an epoch on vectors: their dimension, the number of steps, the pairs of one."""
    assert isinstance(config.data, Mixture | Points)
    steps = config.data.steps_per_epoch
    if isinstance(config.data, Mixture):
        return _sampler(data).dim, steps, config.batch_size
    pool = _tensor(data, "points", ndim=2)
    return pool.shape[1], steps, min(config.batch_size, len(pool))


def epoch_pairs(
    config: TrainConfig, data: Data, epoch: int
) -> tuple[Float[Tensor, "steps n d"], Float[Tensor, "steps n d"]]:
    """The pairs of every step of an epoch: fresh draws, or two views of each point of a batch."""
    _, steps, batch = epoch_shape(config, data)
    with stream(config.seed, SAMPLE, epoch) as generator:
        if isinstance(config.data, Mixture):
            x1, x2 = _sampler(data).pairs(steps * batch, generator=generator)[:2]
        else:
            assert isinstance(config.data, Points)
            pool = _tensor(data, "points", ndim=2)
            chosen = torch.cat([torch.randperm(len(pool))[:batch] for _ in range(steps)])
            both = pool[chosen].repeat(2, 1)
            x1, x2 = agnostic_views(both, config.data.augmentation, pool).chunk(2)
    return x1.unflatten(0, (steps, -1)), x2.unflatten(0, (steps, -1))


def _image_source(config: TrainConfig, images: UInt8[Tensor, "n c h w"]) -> Source:
    """Images stay on the device as bytes, views are made there.

    A last batch of one image, which has no negatives, is left out.
    """
    assert isinstance(config.data, Images)
    require(len(images) > 1, "data", images, "two images or more: one has no negatives")
    augment = ImageViews(config.data.augmentation, images.shape[1:])
    sizes = [len(part) for part in torch.arange(len(images)).split(config.batch_size)]
    steps = len(sizes) - (sizes[-1] == 1)

    def batches(epoch: int) -> Iterator[Batch]:
        with stream(config.seed, ORDER, epoch):
            order = torch.randperm(len(images)).to(images.device)
        for step, index in enumerate(order.split(config.batch_size)[:steps]):
            twice = images.index_select(0, index.repeat(2))
            with stream(config.seed, VIEWS, epoch, step), torch.no_grad():
                views, boxes = augment(twice, images)
            x1, x2 = views.chunk(2)
            yield Batch(x1, x2, crop_overlap(*boxes.chunk(2)))

    return Source(images.shape[1:], steps, sum(sizes[:steps]), batches)


def _tensor(data: Data, what: str, *, ndim: int) -> Tensor:
    if not isinstance(data, Tensor) or data.ndim != ndim:
        found = tuple(data.shape) if isinstance(data, Tensor) else type(data).__name__
        raise TypeError(f"data must be a tensor of {what} with {ndim} dimensions, got {found}")
    return data


def _sampler(data: Data) -> PairSampler:
    if isinstance(data, Tensor):
        raise TypeError(
            f"data must be a sampler of pairs, got a tensor of shape {tuple(data.shape)}"
        )
    return data
