"""Many networks trained at once: their parameters stacked, every operation batched over seeds by `torch.func.vmap`.

A small network on small batches is all overhead: the cost of a step is that of launching its operations. A stack launches them once.
The gain ends where the operations themselves cost more. On one core, 256 seeds of two hidden layers of 64 (benchmarks/ensembles.py): 11
times faster than one after the other at 16 pairs a batch, 7.5 at 32, 3.5 at 64, 1.2 at 128, as the (2n)² similarities take over; and 25
times at width 16, 4 at width 128, as the products of weights do.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from .config import Images, TrainConfig, family
from .models import Encoder
from .train import (
    CHECK_EVERY,
    NonFiniteLossError,
    TrainResult,
    computing,
    contrastive_loss,
    diverged,
    epoch_pairs,
    epoch_shape,
    fabric_of,
    initial_network,
    optimizer_of,
    set_lr,
)


@dataclass
class Ensemble:
    """Networks of one architecture, each tensor of their states stacked along a first axis of s seeds."""

    skeleton: Encoder
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def __call__(self, x: Float[Tensor, "s n d"]) -> Float[Tensor, "s n d_z"]:
        """Network i's features z of x_i."""
        return vmap(lambda p, b, xi: functional_call(self.skeleton, (p, b), (xi,))[1])(self.parameters, self.buffers, x)

    def member(self, i: int, network: Encoder) -> Encoder:
        """`network` with the state of number i."""
        state = {name: value[i].detach().clone() for name, value in (self.parameters | self.buffers).items()}
        network.load_state_dict(state)
        return network.eval()


def train_ensemble(
    configs: Sequence[TrainConfig],
    *,
    device: str = "auto",
    progress: bool = False,
    on_epoch: Callable[[int, Ensemble], None] | None = None,
) -> list[TrainResult]:
    """What `train` makes of each of these runs on vectors, which differ in their seed alone: the same initial networks, batches and
    updates, since every seed has its own random streams and the optimisers work entry by entry. Equal up to rounding, that is: AdamW
    makes steps of full size out of rounding where a gradient is zero but for it, as that of a bias before BatchNorm.

    `on_epoch(epoch, ensemble)` is called before the first epoch (0) and after each. `ValueError`: runs that differ in more than the
    seed, are on images, or none. `NonFiniteLossError` names every seed whose loss became NaN or infinite, and holds the results of the
    others, which it does not touch.
    """
    config = configs[0] if configs else TrainConfig()
    if isinstance(config.data, Images) or len({family(c) for c in configs}) != 1:
        raise ValueError(f"configs must be one or more runs on vectors that differ in their seed alone, got {len(configs)} runs")
    with computing(config):
        return _train_ensemble(configs, fabric_of(config, device), progress, on_epoch)


def _train_ensemble(
    configs: Sequence[TrainConfig], fabric: Fabric, progress: bool, on_epoch: Callable[[int, Ensemble], None] | None
) -> list[TrainResult]:
    config = configs[0]
    dim, steps, batch = epoch_shape(config)
    networks = [initial_network(c, torch.Size([dim])) for c in configs]
    parameters, buffers = (
        {name: value.detach().to(fabric.device) for name, value in state.items()} for state in stack_module_state(networks)
    )
    ensemble = Ensemble(copy.deepcopy(networks[0]).to(fabric.device), parameters, buffers)
    optimizer = optimizer_of(config, [{"params": [p.requires_grad_() for p in parameters.values()]}])
    losses: list[Tensor] = []
    lost: dict[int, int] = {}  # the members that diverged, and the step at which that was seen
    if on_epoch:
        _frozen(ensemble, on_epoch, 0)
    began = time.monotonic()
    with tqdm(total=config.epochs * steps, unit="step", disable=not progress, mininterval=1) as bar:
        for epoch in range(config.epochs):
            ensemble.skeleton.train()
            pairs = torch.stack([torch.cat(epoch_pairs(c, epoch), 1) for c in configs], 1).to(fabric.device)  # (steps, s, 2n, d)
            for step, x in enumerate(pairs):
                set_lr(optimizer, config, epoch * steps + step, steps)
                with fabric.autocast():
                    loss = vmap(lambda z: contrastive_loss(config, *z.chunk(2)))(ensemble(x))
                loss.sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.detach())
                if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
                    now = _not_finite(losses[-CHECK_EVERY:], parameters)
                    lost = dict.fromkeys(now, epoch * steps + step + 1) | lost
                    if len(lost) == len(configs):
                        raise _error(configs, lost, [])
                bar.update()
            if on_epoch:
                _frozen(ensemble, on_epoch, epoch + 1)
    seconds = time.monotonic() - began
    speed, share = len(configs) * config.epochs * steps * batch / seconds, seconds / len(configs)
    curves = torch.stack(losses, 1).tolist() if losses else [[] for _ in configs]
    results = [TrainResult(c, ensemble.member(i, networks[i]), curves[i], speed, share) for i, c in enumerate(configs) if i not in lost]
    if lost:
        raise _error(configs, lost, results)
    return results


@torch.no_grad()
def _frozen(ensemble: Ensemble, on_epoch: Callable[[int, Ensemble], None], epoch: int) -> None:
    ensemble.skeleton.eval()
    on_epoch(epoch, ensemble)


def _not_finite(losses: list[Tensor], parameters: dict[str, Tensor]) -> list[int]:
    """The members with a loss, or a parameter, that is NaN or infinite."""
    finite = torch.stack(losses).isfinite().all(0)
    for value in parameters.values():
        finite &= value.detach().flatten(1).isfinite().all(1)
    return (~finite).nonzero().flatten().tolist()


def _error(configs: Sequence[TrainConfig], lost: dict[int, int], finished: list[TrainResult]) -> NonFiniteLossError:
    steps = {configs[i].seed: step for i, step in sorted(lost.items())}
    return NonFiniteLossError(diverged(configs[0], steps), finished)
