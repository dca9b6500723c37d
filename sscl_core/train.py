"""The training loop. All randomness is drawn from streams that are named by (seed, purpose, epoch, step), so that a
run that was interrupted goes on exactly as if it had not been, and nothing that runs beside it can shift it."""

import hashlib
import io
import logging
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .augmentations import ImageViews, agnostic_views, crop_overlap
from .config import (
    MLP,
    Agnostic,
    Cloud,
    Images,
    InfoNCE,
    Mixture,
    Noise,
    PairWeights,
    Points,
    SpectralContrastive,
    Table,
    TrainConfig,
    TSimCLR,
)
from .data import AnonymousSamples, Components, GaussianMixture, ImageData, holdout, load_images
from .evaluate import cyclic_order
from .files import write_bytes
from .losses import info_nce, spectral_contrastive, t_simclr
from .models import Encoder, build, fit
from .points import PointSet, cloud, table
from .theory import regular_polygon

INIT, ORDER, VIEWS, SAMPLE, SPLIT = range(5)  # the purposes that random streams are named by
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # else every run says which precision it uses
CHECK_EVERY = 20  # steps between looks at the loss: each is a synchronisation on a GPU


@dataclass
class TrainResult:
    """A trained network, on the device it was trained on and in evaluation mode, with its loss at every step.

    `seconds`: of training, those before an interruption included.
    """

    config: TrainConfig
    model: Encoder
    losses: list[float] = field(default_factory=list)
    images_per_second: float = 0.0
    seconds: float = 0.0


class NonFiniteLossError(ArithmeticError):
    """Training met a loss that is NaN or infinite; `finished` are the runs beside it that did not."""

    def __init__(self, message: str, finished: Sequence[TrainResult] = ()) -> None:
        super().__init__(message)
        self.finished = list(finished)


def train(
    config: TrainConfig,
    *,
    device: str = "auto",
    data_dir: str | Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60,
    compiled: bool = False,
    progress: bool = False,
    on_epoch: Callable[[int, Encoder], None] | None = None,
) -> TrainResult:
    """Trains the network that `config` describes.

    `compiled`: by torch.compile, which takes a minute and pays on a GPU for a ResNet; equal up to rounding.

    `checkpoint`: a file written at most every `checkpoint_seconds`, at the end of an epoch, from which the same call resumes
    exactly; the caller deletes it. `on_epoch(epoch, model)` is called before the first epoch (0) and after each.
    Raises `NonFiniteLossError`; `ValueError` for a device that is not there or a checkpoint of another run.
    """
    with computing(config):
        fabric = fabric_of(config, device)
        data = source(config, data_dir, fabric.device)
        network = initial_network(config, data.sample_shape)
        memory_format = torch.channels_last if len(data.sample_shape) == 3 else torch.contiguous_format
        network = network.to(fabric.device).to(memory_format=memory_format)  # type: ignore[call-overload]
        # Two shapes at most, a full batch and the last: a graph for each is faster than one for any.
        callee: Any = torch.compile(network, dynamic=False) if compiled else network
        model, optimizer = fabric.setup(callee, optimizer_of(config, parameter_groups(network)))
        result = TrainResult(config, network)
        start = _resume(checkpoint, result, optimizer, fabric.device)
        if on_epoch and start == 0:
            on_epoch(0, network.eval())
        began = saved = time.monotonic()
        earlier, steps = result.seconds, data.steps_per_epoch
        with tqdm(total=config.epochs * steps, initial=start * steps, unit="step", disable=not progress, mininterval=1) as bar:
            for epoch in range(start, config.epochs):
                network.train()
                result.losses += _epoch(fabric, model, optimizer, config, data, epoch, bar)
                elapsed = time.monotonic() - began
                result.seconds = earlier + elapsed
                result.images_per_second = data.images_per_epoch * (epoch + 1 - start) / elapsed
                if on_epoch:
                    on_epoch(epoch + 1, network.eval())
                if checkpoint and epoch + 1 < config.epochs and time.monotonic() - saved >= checkpoint_seconds:
                    _save(checkpoint, result, optimizer, epoch + 1)
                    saved = time.monotonic()
        network.eval()
        return result


@contextmanager
def computing(config: TrainConfig) -> Iterator[None]:
    """As many threads as the run is to have, within the block: with another number its sums round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with threadpool_limits(config.threads):  # of scikit-learn's probe: BLAS has threads of its own
            yield
    finally:
        torch.set_num_threads(before)


def _epoch(
    fabric: Fabric, model: Any, optimizer: Any, config: TrainConfig, data: "Source", epoch: int, bar: "tqdm[NoReturn]"
) -> list[float]:
    """One pass over the data; the loss of every step."""
    losses: list[Tensor] = []
    began, steps = time.monotonic(), data.steps_per_epoch
    for step, (x1, x2, overlap) in enumerate(data.batches(epoch), 1):
        set_lr(optimizer, config, epoch * steps + step - 1, steps)
        z1, z2 = model(torch.cat([x1, x2]))[1].chunk(2)
        weights = pair_weights(config.weights, x1, x2, z1, z2, overlap) if config.weights else None
        if model.log_df is not None:  # the loss refuses any df that is not a positive number, and would not say when
            _require_finite([model.log_df.exp().log()], config, epoch * steps + step, "the learned df")
        loss = contrastive_loss(config, z1, z2, weights=weights, log_df=model.log_df)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if step % CHECK_EVERY == 0 or step == steps:
            # The last step's gradient shows in no loss of this epoch, only in the weights, which are saved or handed back.
            norms = [p.detach().norm() for p in model.parameters()] if step == steps else []
            _require_finite(losses + norms, config, epoch * steps + step)
            speed = step * config.batch_size / (time.monotonic() - began)
            bar.set_postfix(loss=f"{losses[-1].item():.4f}", images_s=f"{speed:.0f}", refresh=False)
        bar.update()
    return torch.stack(losses).tolist()


def contrastive_loss(config: TrainConfig, z1: Tensor, z2: Tensor, *, weights: Tensor | None = None, log_df: Tensor | None = None) -> Tensor:
    """The loss of a run; values are left unchecked because the loop looks at the loss itself."""
    loss = config.loss
    if isinstance(loss, InfoNCE):
        return info_nce(z1, z2, temperature=loss.temperature, weights=weights, validate=False)
    if isinstance(loss, SpectralContrastive):
        return spectral_contrastive(z1, z2, validate=False)
    df = loss.df if log_df is None else log_df.exp()
    return t_simclr(z1, z2, temperature=loss.temperature, df=df, normalization=loss.normalization, weights=weights, validate=False)


@torch.no_grad()
def pair_weights(
    weights: PairWeights,
    x1: Float[Tensor, "n c h w"],
    x2: Float[Tensor, "n c h w"],
    z1: Float[Tensor, "n d_z"],
    z2: Float[Tensor, "n d_z"],
    overlap: Float[Tensor, " n"] | None,
) -> Float[Tensor, " n"]:
    """exp(score / temperature) of each pair of views, over the largest of the batch; `overlap` is the IoU of their crops."""
    if weights.score == "iou":
        assert overlap is not None
        score = overlap
    elif weights.score == "input":
        score = -(x1 - x2).square().mean((1, 2, 3)).sqrt()
    else:
        score = F.cosine_similarity(z1.float(), z2.float())
    score = score.float() / weights.temperature
    return (score - score.max()).exp()


@contextmanager
def stream(*name: int) -> Iterator[torch.Generator]:
    """Seeds torch's global generators by `name` within the block and gives back their states afterwards; yields the CPU one."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield torch.manual_seed(int(np.random.SeedSequence(name).generate_state(1, np.uint64)[0]))


def train_and_test_images(config: TrainConfig, data_dir: str | Path | None = None) -> tuple[ImageData, ImageData]:
    """What a run on images trains on, and what it is evaluated on: the test set, or the part of the training set held out."""
    assert isinstance(config.data, Images)
    images = load_images(config.data.name, "train", data_dir=data_dir)
    if config.data.holdout:
        images, test = holdout(images, config.data.holdout)
    else:
        test = load_images(config.data.name, "test", data_dir=data_dir)
    n_train = config.data.n_train
    if n_train is not None and n_train > len(images):
        raise ValueError(f"n_train must be at most {len(images)}, the training images there are, got {n_train}")
    if n_train is not None and n_train < len(images):
        with stream(0, SPLIT):  # the same images for every seed: seeds are repetitions of training, not of the data
            images = images.select(torch.randperm(len(images))[: config.data.n_train])
    return images, test


def mixture(data: Mixture) -> Components:
    if data.anonymous:
        return AnonymousSamples(len(data.means), data.anonymous)
    return GaussianMixture(torch.tensor(data.means), data.std)


def point_set(config: TrainConfig) -> PointSet:
    """The vectors of a run: its own draw, or split, by its seed."""
    assert isinstance(config.data, Points)
    return _point_set(config.data.points, config.seed)


@lru_cache(maxsize=64)
def _point_set(points: Cloud | Table, seed: int) -> PointSet:
    if isinstance(points, Table):
        return table(points, seed)
    with stream(seed, SPLIT) as generator:
        return cloud(points, generator)


def initial_network(config: TrainConfig, sample_shape: torch.Size) -> Encoder:
    """The network before training, on the CPU; with `start_order`, fitted to it on 50 draws of every component.

    `ValueError`: the fit did not reach that order.
    """
    with stream(config.seed, INIT) as generator:
        network = build(config, sample_shape)
        if config.start_order is not None and isinstance(config.data, Mixture):
            components = mixture(config.data)
            labels = torch.tensor(config.start_order).repeat_interleave(50)
            x, corners = components.sample_given(labels, generator=generator), regular_polygon(components.m).float()
            fit(network, x, corners.repeat_interleave(50, 0))
            with torch.no_grad():
                reached = F.normalize(network(x)[1], dim=1).unflatten(0, (-1, 50)).mean(1)
            if not torch.equal(cyclic_order(reached), cyclic_order(corners)):
                raise ValueError(f"start_order {config.start_order} could not be fitted with seed {config.seed}: use a wider backbone")
    return network


@dataclass(frozen=True)
class Source:
    """What the loop needs of its data: the shape of a sample, and of any epoch the pairs of views, (x1, x2, IoU of their crops), a batch
    at a time; the last is None where nothing is cropped."""

    sample_shape: torch.Size
    steps_per_epoch: int
    images_per_epoch: int  # samples, each seen as two views
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor, Tensor | None]]]


def source(config: TrainConfig, data_dir: str | Path | None, device: torch.device) -> Source:
    """The pairs that a run trains on: fresh draws from the mixture, or two views of every point or image."""
    if not isinstance(config.data, Images):
        return _vector_source(config, device)
    images, _ = train_and_test_images(config, data_dir)
    return _image_source(config, images.images.to(device))


def _vector_source(config: TrainConfig, device: torch.device) -> Source:
    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, None]]:
        for x1, x2 in zip(*(x.to(device) for x in epoch_pairs(config, epoch)), strict=True):
            yield x1, x2, None

    dim, steps, batch = epoch_shape(config)
    return Source(torch.Size([dim]), steps, steps * batch, batches)


def epoch_shape(config: TrainConfig) -> tuple[int, int, int]:
    """Of an epoch on vectors: their dimension, the number of steps, the pairs of one."""
    assert not isinstance(config.data, Images)
    if isinstance(config.data, Mixture):
        return mixture(config.data).dim, config.data.steps_per_epoch, config.batch_size
    x = point_set(config).train.x
    return x.shape[1], config.data.steps_per_epoch, min(config.batch_size, len(x))


def epoch_pairs(config: TrainConfig, epoch: int) -> tuple[Float[Tensor, "steps n d"], Float[Tensor, "steps n d"]]:
    """The pairs of every step of an epoch: draws from the mixture, or two views of points."""
    _, steps, batch = epoch_shape(config)
    with stream(config.seed, SAMPLE, epoch) as generator:
        if isinstance(config.data, Mixture):
            x1, x2, _ = mixture(config.data).pairs(steps * batch, generator=generator)
        else:
            assert isinstance(config.data, Points)
            pool = point_set(config).train.x
            x = pool[torch.cat([torch.randperm(len(pool))[:batch] for _ in range(steps)])]
            x1, x2 = agnostic_views(x.repeat(2, 1), config.data.augmentation, pool).chunk(2)
    return x1.unflatten(0, (steps, -1)), x2.unflatten(0, (steps, -1))


def _image_source(config: TrainConfig, images: Tensor) -> Source:
    """Images stay on the device as bytes; views are made there, a batch at a time. A last batch of one image is left out."""
    assert isinstance(config.data, Images)
    augment = ImageViews(config.data.augmentation, images.shape[1:])
    sizes = [len(part) for part in torch.arange(len(images)).split(config.batch_size)]
    steps = len(sizes) - (sizes[-1] == 1)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        with stream(config.seed, ORDER, epoch):
            order = torch.randperm(len(images)).to(images.device)
        for step, index in enumerate(order.split(config.batch_size)[:steps]):
            batch = images[index].float() / 255
            with stream(config.seed, VIEWS, epoch, step), torch.no_grad():
                views, boxes = augment(batch.repeat(2, 1, 1, 1), images)
            x1, x2 = views.contiguous(memory_format=torch.channels_last).chunk(2)
            yield x1, x2, crop_overlap(*boxes.chunk(2))

    return Source(images.shape[1:], steps, sum(sizes[:steps]), batches)


def fabric_of(config: TrainConfig, device: str) -> Fabric:
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device must be 'auto', 'cpu' or, where there is one, 'cuda', got {device!r}")
    # Never part of a larger SLURM job: each run is a job of its own, on one device.
    return Fabric(accelerator=kind, devices=1, precision=config.precision, plugins=LightningEnvironment())


def parameter_groups(network: Encoder) -> list[dict[str, Any]]:
    """The network's weights; by itself log df where it is learned, without decay and at ten times the pace: it has far to go."""
    groups: list[dict[str, Any]] = [{"params": [p for name, p in network.named_parameters() if name != "log_df"]}]
    return groups if network.log_df is None else [*groups, {"params": [network.log_df], "weight_decay": 0.0, "pace": 10.0}]


def optimizer_of(config: TrainConfig, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    spec, cuda = config.optimizer, groups[0]["params"][0].is_cuda
    # On a CPU the fused update rounds by where in memory an entry stands: a seed in an ensemble would not be the seed alone.
    if spec.name == "adamw":
        return torch.optim.AdamW(groups, spec.lr, weight_decay=spec.weight_decay, fused=cuda)
    return torch.optim.SGD(groups, spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=cuda)


def set_lr(optimizer: Any, config: TrainConfig, step: int, steps_per_epoch: int) -> None:
    factor = config.optimizer.factor(step, steps_per_epoch=steps_per_epoch, epochs=config.epochs)
    for group in optimizer.param_groups:
        group["lr"] = config.optimizer.lr * factor * group.get("pace", 1.0)


def _require_finite(values: list[Tensor], config: TrainConfig, step: int, name: str = "the loss") -> None:
    if not torch.stack(values).isfinite().all():
        raise NonFiniteLossError(diverged(config, {config.seed: step}, name))


def diverged(config: TrainConfig, steps: Mapping[int, int], name: str = "the loss") -> str:
    """What happened, in which seeds at which steps, and every setting of the run that can be behind it."""
    where = ", ".join(f"seed {seed} (at or before step {step})" for seed, step in steps.items())
    causes = "; ".join(_remedies(config))
    return f"{name} became NaN or infinite in {where}: what can cause that here, one at a time: {causes}"


def _remedies(config: TrainConfig) -> Iterator[str]:
    yield f"lower optimizer.lr ({config.optimizer.lr:g})"
    if config.optimizer.weight_decay:
        yield f"lower optimizer.weight_decay ({config.optimizer.weight_decay:g})"
    if not isinstance(config.loss, SpectralContrastive):
        yield f"raise loss.temperature ({config.loss.temperature:g})"
    if isinstance(config.loss, TSimCLR) and config.loss.learn_df:
        yield f"start the learned loss.df elsewhere ({config.loss.df:g}), or leave it fixed"
    if isinstance(config.backbone, MLP) and config.backbone.init_scale != 1:
        yield f"move backbone.init_scale ({config.backbone.init_scale:g}) towards 1"
    if config.weights:
        yield f"move weights.temperature ({config.weights.temperature:g}) away from 0"
    for step in _agnostic_steps(config):
        if isinstance(step, Noise):
            yield f"lower the scale of the noise ({step.scale:g})"
    if isinstance(config.data, Mixture):
        yield f"look at the size of data.means and data.std ({config.data.std:g})"
    if config.precision != "32-true":
        yield "use precision '32-true'"


def _agnostic_steps(config: TrainConfig) -> Sequence[Agnostic]:
    if isinstance(config.data, Points):
        return config.data.augmentation
    return config.data.augmentation.then if isinstance(config.data, Images) else ()


def _save(checkpoint: Path, result: TrainResult, optimizer: Any, epoch: int) -> None:
    """The state and, since `torch.load` looks at no checksum, its sha256 behind it."""
    state = {
        "config": result.config.model_dump_json(),
        "epoch": epoch,
        "model": result.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "losses": result.losses,
        "seconds": result.seconds,
    }
    buffer = io.BytesIO()  # written by torch, a full disk is an "enforce fail at inline_container.cc"
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_bytes(checkpoint, content + hashlib.sha256(content).digest())


def _resume(checkpoint: Path | None, result: TrainResult, optimizer: Any, device: torch.device) -> int:
    """Fills the network, the optimiser and the losses from the checkpoint if there is one; the epoch to go on with."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    content = checkpoint.read_bytes()
    content, checksum = content[: -hashlib.sha256().digest_size], content[-hashlib.sha256().digest_size :]
    if hashlib.sha256(content).digest() != checksum:
        raise ValueError(f"checkpoint {checkpoint} is damaged: delete it, and the run begins anew")
    try:
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        if state["config"] != result.config.model_dump_json():
            raise ValueError(f"checkpoint {checkpoint} belongs to another run: delete it or name another file")
        result.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        result.losses, result.seconds = state["losses"], state["seconds"]
        return state["epoch"]
    except (pickle.UnpicklingError, RuntimeError, LookupError, TypeError, EOFError) as error:
        cause = f"it does not fit this run ({error})"
        raise ValueError(f"checkpoint {checkpoint} cannot be used: delete it, and the run begins anew: {cause}") from error
