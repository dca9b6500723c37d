"""The training loop.

All randomness comes from the named streams of `rng`, and the data are handed in: what a run is
depends on its configuration and on them alone.
"""

import ctypes
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from . import checkpoint as checkpoints
from .batches import Batch, Data, Source, source
from .config import InfoNCE, Optimizer, PairWeights, SpectralContrastive, TrainConfig
from .divergence import NonFiniteLossError, diverged
from .losses import info_nce, spectral_contrastive, t_simclr
from .models import Encoder, build
from .negatives import fastest_tile
from .rng import INIT, stream

CHECK_EVERY = 20  # steps between looks at the loss: each is a synchronisation on a GPU
KEPT, LARGEST_KEPT = 1 << 30, 1 << 27  # bytes, see `keep_freed_memory`


@dataclass
class TrainResult:
    """A trained network, on the device it was trained on and in evaluation mode, and its losses.

    `seconds`: of training, those before an interruption included.
    """

    config: TrainConfig
    model: Encoder
    losses: list[float] = field(default_factory=list)
    images_per_second: float = 0.0
    seconds: float = 0.0


def train(
    config: TrainConfig,
    data: Data,
    *,
    network: Encoder | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60,
    compiled: bool = False,
    progress: bool = False,
    on_epoch: Callable[[int, Encoder], None] | None = None,
) -> TrainResult:
    """Trains `network`, by default the initial one of the seed, as `config` says.

    `data`: bytes (n, c, h, w) for a run on images, vectors (n, d) for one on points, a sampler of
    pairs for one on a mixture (see `batches`).
    `compiled`: by torch.compile, which takes a minute and pays on a GPU for a ResNet.
    `checkpoint`: a file written at most every `checkpoint_seconds`, at the end of an epoch, from
    which the same call resumes exactly; the caller deletes it.
    `on_epoch(epoch, model)` is called before the first epoch (0) and after each.

    `NonFiniteLossError`; `ValueError`: a device that is not there, a checkpoint of another run;
    `TypeError`: data of another kind than `config.data`.
    """
    with computing(config):
        place = device_of(device)
        batches = source(config, data, place)
        network = network or initial_network(config, batches.sample_shape)
        network = _placed(network, place, images=len(batches.sample_shape) == 3)
        optimizer = optimizer_of(config, parameter_groups(network))
        result = TrainResult(config, network)
        start = _resume(checkpoint, result, optimizer, place)
        # At most two shapes, a full batch and the last one: a graph for each is faster than one
        # graph for any shape.
        model: Any = torch.compile(network, dynamic=False) if compiled else network
        losses_of, check = _losses_of(config, model, network, place), _check(config, network)
        if on_epoch and start == 0:
            on_epoch(0, network.eval())
        began = saved = time.monotonic()
        earlier = result.seconds
        with steps_bar(config, batches, start, progress) as bar:
            for epoch in range(start, config.epochs):
                network.train()
                losses = run_epoch(config, epoch, batches, optimizer, losses_of, check, bar)
                result.losses += losses.tolist()
                elapsed = time.monotonic() - began
                result.seconds = earlier + elapsed
                result.images_per_second = batches.images_per_epoch * (epoch + 1 - start) / elapsed
                if on_epoch:
                    on_epoch(epoch + 1, network.eval())
                is_due = time.monotonic() - saved >= checkpoint_seconds
                if checkpoint and is_due and epoch + 1 < config.epochs:
                    _save(checkpoint, result, optimizer, epoch + 1)
                    saved = time.monotonic()
        network.eval()
        return result


def _placed(network: Encoder, device: torch.device, *, images: bool) -> Encoder:
    """On the device; for images in the memory layout in which convolutions are fastest."""
    layout = torch.channels_last if images else torch.contiguous_format
    return network.to(device).to(memory_format=layout)  # type: ignore[call-overload]


def run_epoch(
    config: TrainConfig,
    epoch: int,
    batches: Source,
    optimizer: torch.optim.Optimizer,
    losses_of: Callable[[Batch, int], Tensor],
    check: Callable[[list[Tensor], int, bool], None],
    bar: "tqdm[NoReturn]",
) -> Float[Tensor, " steps *members"]:
    """One pass over the data; the loss of every step, for each network where several are trained.

    `check(losses, step, last)` sees the losses since the last look, every `CHECK_EVERY` steps and
    at the end.
    """
    losses: list[Tensor] = []
    steps, seen, began = batches.steps_per_epoch, 0, time.monotonic()
    for number, batch in enumerate(batches.batches(epoch), 1):
        set_lr(optimizer, config, epoch * steps + number - 1, steps)
        loss = losses_of(batch, epoch * steps + number)
        loss.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if number % CHECK_EVERY == 0 or number == steps:
            check(losses[seen:], epoch * steps + number, number == steps)
            images = loss.numel() * batches.images_per_epoch * number / steps
            speed = f"{images / (time.monotonic() - began):.0f}"
            bar.set_postfix(loss=f"{loss.mean().item():.4f}", images_s=speed, refresh=False)
            seen = number
        bar.update()
    return torch.stack(losses)


def _losses_of(
    config: TrainConfig, model: Any, network: Encoder, device: torch.device
) -> Callable[[Batch, int], Tensor]:
    def losses_of(batch: Batch, step: int) -> Tensor:
        with precision(config, device):
            z = model(torch.cat([batch.x1, batch.x2]))[1]
        z1, z2 = z.to(torch.promote_types(z.dtype, torch.float32)).chunk(2)
        weights = pair_weights(config.weights, batch, z1, z2) if config.weights else None
        if network.log_df is not None:  # the loss refuses other numbers, and would not say when
            _require_finite([network.log_df.exp().log()], config, step, "the learned df")
        return contrastive_loss(config, z1, z2, weights=weights, log_df=network.log_df)

    return losses_of


def _check(config: TrainConfig, network: Encoder) -> Callable[[list[Tensor], int, bool], None]:
    def check(losses: list[Tensor], step: int, last: bool) -> None:
        # The last step's gradient shows in no loss of this epoch, only in the weights, which are
        # saved or handed back.
        norms = [p.detach().norm() for p in network.parameters()] if last else []
        _require_finite(losses + norms, config, step)

    return check


def _require_finite(
    values: list[Tensor], config: TrainConfig, step: int, name: str = "the loss"
) -> None:
    if not torch.stack(values).isfinite().all():
        raise NonFiniteLossError(diverged(config, {config.seed: step}, name))


def contrastive_loss(
    config: TrainConfig,
    z1: Float[Tensor, "n d_z"],
    z2: Float[Tensor, "n d_z"],
    *,
    weights: Float[Tensor, " n"] | None = None,
    log_df: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """The loss of a run; values are left unchecked because the loop looks at the loss itself."""
    loss = config.loss
    # By tiles however small the batch: stacked by vmap that is twice as fast, and a seed of an
    # ensemble is to round as the seed alone does.
    tile = fastest_tile(2 * len(z1), z1.device)
    if isinstance(loss, InfoNCE):
        temperature = loss.temperature
        return info_nce(z1, z2, temperature=temperature, weights=weights, validate=False, tile=tile)
    if isinstance(loss, SpectralContrastive):
        return spectral_contrastive(z1, z2, validate=False)
    return t_simclr(
        z1,
        z2,
        temperature=loss.temperature,
        df=loss.df if log_df is None else log_df.exp(),
        normalization=loss.normalization,
        weights=weights,
        validate=False,
        tile=tile,
    )


@torch.no_grad()
def pair_weights(
    weights: PairWeights, batch: Batch, z1: Float[Tensor, "n d_z"], z2: Float[Tensor, "n d_z"]
) -> Float[Tensor, " n"]:
    """exp(score / temperature) of each pair of views, over the largest of the batch."""
    if weights.score == "iou":
        assert batch.overlap is not None
        score = batch.overlap
    elif weights.score == "input":
        score = -(batch.x1 - batch.x2).square().mean((1, 2, 3)).sqrt()
    else:
        score = F.cosine_similarity(z1.float(), z2.float())
    score = score.float() / weights.temperature
    return (score - score.max()).exp()


def initial_network(
    config: TrainConfig,
    sample_shape: torch.Size,
    *,
    prepare: Callable[[Encoder, torch.Generator], None] | None = None,
) -> Encoder:
    """The network of the seed before training, on the CPU.

    `prepare(network, generator)` may change it, with draws from the same random stream.
    """
    with stream(config.seed, INIT) as generator:
        network = build(config, sample_shape)
        if prepare:
            prepare(network, generator)
    return network


def device_of(name: str) -> torch.device:
    """`ValueError`: not "auto", "cpu" or "cuda", or a GPU that is not there."""
    cuda = torch.cuda.is_available()
    kind = ("cuda" if cuda else "cpu") if name == "auto" else name
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not cuda):
        raise ValueError(
            f"device must be 'auto', 'cpu' or, where there is one, 'cuda', got {name!r}"
        )
    return torch.device(kind)


def precision(config: TrainConfig, device: torch.device) -> AbstractContextManager:
    """Within it networks compute in the precision of the run."""
    mixed = config.precision == "bf16-mixed"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed)


@contextmanager
def computing(config: TrainConfig) -> Iterator[None]:
    """As many threads as the run is to have: with another number its sums round differently."""
    keep_freed_memory()
    with on_threads(config.threads):
        yield


@contextmanager
def on_threads(number: int) -> Iterator[None]:
    """PyTorch and BLAS, which scikit-learn's probe uses, compute on that many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with threadpool_limits(number):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def keep_freed_memory() -> None:
    """From now on up to a GiB that is freed stays with the process, in arrays of up to 128 MiB.

    A step frees what the next one needs again. By default glibc gives it back to the system, which
    clears each page before it hands it out anew: about a tenth of a convolutional network's
    step. With other C libraries nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        of_trimming, of_mapping = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        libc = ctypes.CDLL(None)
        # Older versions refuse more than 32 MiB. Trimming alone would do harm: it fixes the size
        # from which arrays are mapped anew each time.
        if libc.mallopt(of_mapping, LARGEST_KEPT) or libc.mallopt(of_mapping, 2**25):
            libc.mallopt(of_trimming, KEPT)


def parameter_groups(network: Encoder) -> list[dict[str, Any]]:
    """The network's weights; by itself log df where it is learned.

    That has no decay and ten times the learning rate (`lr_scale`): it has far to go.
    """
    weights = [p for name, p in network.named_parameters() if name != "log_df"]
    if network.log_df is None:
        return [{"params": weights}]
    return [
        {"params": weights},
        {"params": [network.log_df], "weight_decay": 0.0, "lr_scale": 10.0},
    ]


def optimizer_of(config: TrainConfig, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    spec, cuda = config.optimizer, groups[0]["params"][0].is_cuda
    # On a CPU the fused update rounds by where in memory an entry stands: a seed in an ensemble
    # would not be the seed alone.
    if spec.name == "adamw":
        return torch.optim.AdamW(groups, spec.lr, weight_decay=spec.weight_decay, fused=cuda)
    return torch.optim.SGD(
        groups, spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=cuda
    )


def set_lr(optimizer: Any, config: TrainConfig, step: int, steps_per_epoch: int) -> None:
    epochs = config.epochs
    factor = lr_factor(config.optimizer, step, steps_per_epoch=steps_per_epoch, epochs=epochs)
    for group in optimizer.param_groups:
        group["lr"] = config.optimizer.lr * factor * group.get("lr_scale", 1.0)


def lr_factor(optimizer: Optimizer, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """The share of `optimizer.lr` that step number `step` (from 0) uses."""
    warmup, total = optimizer.warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if optimizer.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


def steps_bar(config: TrainConfig, batches: Source, start: int, progress: bool) -> "tqdm[NoReturn]":
    """A progress bar over the steps of a run that begins with epoch `start`."""
    steps = batches.steps_per_epoch
    return tqdm(
        total=config.epochs * steps,
        initial=start * steps,
        unit="step",
        disable=not progress,
        mininterval=1,
    )


def _save(path: Path, result: TrainResult, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    state = {
        "config": result.config.model_dump_json(),
        "epoch": epoch,
        "model": result.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "losses": result.losses,
        "seconds": result.seconds,
    }
    checkpoints.save(path, state)


def _resume(
    path: Path | None, result: TrainResult, optimizer: torch.optim.Optimizer, device: torch.device
) -> int:
    """Fills network, optimiser and losses from the checkpoint if there is one.

    Returns the epoch to go on with.
    """
    if path is None or not path.exists():
        return 0
    state = checkpoints.load(path, device)
    if state.get("config") != result.config.model_dump_json():
        remedy = "delete it or name another file"
        raise ValueError(f"checkpoint {path} belongs to another run: {remedy}")
    try:
        result.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        result.losses, result.seconds = state["losses"], state["seconds"]
        return state["epoch"]
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        raise checkpoints.unusable(path, error) from error
