"""Many networks trained at once: parameters stacked, operations batched by `torch.func.vmap`.

A small network on small batches is all overhead: a step costs what launching its operations costs,
and a stack launches them once. The gain ends where the operations themselves cost more. On one
core, 256 seeds of two hidden layers of 64 (benchmarks/ensembles.py): 9 times faster than one after
the other at 16 pairs a batch, 5 at 64, 3 at 128.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from .batches import Batch, Data, Source, epoch_pairs, epoch_shape
from .config import Images, TrainConfig
from .divergence import NonFiniteLossError, diverged
from .models import Encoder
from .train import (
    TrainResult,
    computing,
    contrastive_loss,
    device_of,
    initial_network,
    optimizer_of,
    precision,
    run_epoch,
    steps_bar,
)


@dataclass
class Ensemble:
    """Networks of one architecture, each tensor of their states stacked along a first axis."""

    skeleton: Encoder
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def __call__(self, x: Float[Tensor, "s n d"]) -> Float[Tensor, "s n d_z"]:
        """Network i's features z of x_i."""

        def features(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor], xi: Tensor
        ) -> Tensor:
            return functional_call(self.skeleton, (parameters, buffers), (xi,))[1]

        return vmap(features)(self.parameters, self.buffers, x)

    def member(self, i: int, network: Encoder) -> Encoder:
        """`network` with the state of number i."""
        state = self.parameters | self.buffers
        network.load_state_dict({name: value[i].detach().clone() for name, value in state.items()})
        return network.eval()

    def not_finite(self) -> Bool[Tensor, " s"]:
        """Which networks have a parameter that is NaN or infinite."""
        parts = [value.detach().flatten(1).isfinite().all(1) for value in self.parameters.values()]
        return ~torch.stack(parts).all(0)


def train_ensemble(
    configs: Sequence[TrainConfig],
    data: Sequence[Data],
    *,
    networks: Sequence[Encoder] | None = None,
    device: str = "auto",
    progress: bool = False,
    on_epoch: Callable[[int, Ensemble], None] | None = None,
) -> list[TrainResult]:
    """What `train` makes of each of these runs on vectors, which differ in their seed alone.

    `data` has one entry a run, and so has `networks`, by default the initial ones of the seeds.
    The same batches and updates: every seed has its own random streams, and the optimisers work
    entry by entry. Equal up to rounding, that is: AdamW makes steps of full size out of rounding
    where a gradient is zero but for it, as that of a bias before BatchNorm.
    `on_epoch(epoch, ensemble)` is called before the first epoch (0) and after each.

    `ValueError`: runs that differ in more than the seed, are on images, or none; data or networks
    that are not one a run.
    `NonFiniteLossError` names every seed whose loss became NaN or infinite, and holds the results
    of the others, which it does not touch.
    """
    _require_alike(configs, data)
    if networks is not None:
        _require_one_each("networks", networks, configs)
    config, place = configs[0], device_of(device)
    with computing(config):
        batches = _stacked(configs, data, place)
        shape = batches.sample_shape
        members = list(networks or [initial_network(c, shape) for c in configs])
        ensemble = _stack(members, place)
        weights = [p.requires_grad_() for p in ensemble.parameters.values()]
        optimizer = optimizer_of(config, [{"params": weights}])
        lost: dict[int, int] = {}  # members that diverged, and the step at which that was seen

        def check(losses: list[Tensor], step: int, _: bool) -> None:
            wrong = ~torch.stack(losses).isfinite().all(0) | ensemble.not_finite()
            for i in wrong.nonzero().flatten().tolist():
                lost.setdefault(i, step)
            if len(lost) == len(configs):
                raise _error(configs, lost, [])

        losses_of = _losses_of(config, ensemble, place)
        curves: list[Tensor] = []
        _look(ensemble, on_epoch, 0)
        began = time.monotonic()
        with steps_bar(config, batches, 0, progress) as bar:
            for epoch in range(config.epochs):
                ensemble.skeleton.train()
                curves.append(run_epoch(config, epoch, batches, optimizer, losses_of, check, bar))
                _look(ensemble, on_epoch, epoch + 1)
        seconds = (time.monotonic() - began) / len(configs)
    speed = config.epochs * batches.images_per_epoch / seconds
    losses = torch.cat(curves).T.tolist() if curves else [[] for _ in configs]
    results = []
    for i, own in enumerate(configs):
        if i not in lost:
            network = ensemble.member(i, members[i].to(place))
            results.append(TrainResult(own, network, losses[i], speed, seconds))
    if lost:
        raise _error(configs, lost, results)
    return results


def _losses_of(
    config: TrainConfig, ensemble: Ensemble, device: torch.device
) -> Callable[[Batch, int], Tensor]:
    def loss(z: Tensor) -> Tensor:
        return contrastive_loss(config, *z.chunk(2))

    def losses_of(batch: Batch, _: int) -> Tensor:
        with precision(config, device):
            return vmap(loss)(ensemble(torch.cat([batch.x1, batch.x2], 1)))

    return losses_of


def _require_alike(configs: Sequence[TrainConfig], data: Sequence[Data]) -> None:
    alike = {config.replace(seed=0) for config in configs}
    if len(alike) != 1 or isinstance(configs[0].data, Images):
        rule = "one or more runs on vectors that differ in their seed alone"
        raise ValueError(f"configs must be {rule}, got {len(configs)} runs")
    _require_one_each("data", data, configs)


def _require_one_each(name: str, values: Sequence[object], configs: Sequence[TrainConfig]) -> None:
    if len(values) != len(configs):
        raise ValueError(f"{name} must have one entry a run, {len(configs)}, got {len(values)}")


def _stack(networks: Sequence[Encoder], device: torch.device) -> Ensemble:
    states = stack_module_state(list(networks))
    parameters, buffers = ({k: v.detach().to(device) for k, v in state.items()} for state in states)
    return Ensemble(copy.deepcopy(networks[0]).to(device), parameters, buffers)


def _stacked(configs: Sequence[TrainConfig], data: Sequence[Data], device: torch.device) -> Source:
    """The batches of all runs, (s, n, d) each."""
    dim, steps, batch = epoch_shape(configs[0], data[0])

    def batches(epoch: int) -> Iterator[Batch]:
        views = [epoch_pairs(config, own, epoch) for config, own in zip(configs, data, strict=True)]
        x1, x2 = (torch.stack(view, 1).to(device) for view in zip(*views, strict=True))
        yield from map(Batch, x1, x2)

    return Source(torch.Size([dim]), steps, steps * batch, batches)


@torch.no_grad()
def _look(ensemble: Ensemble, on_epoch: Callable[[int, Ensemble], None] | None, epoch: int) -> None:
    if on_epoch:
        ensemble.skeleton.eval()
        on_epoch(epoch, ensemble)


def _error(
    configs: Sequence[TrainConfig], lost: dict[int, int], finished: list[TrainResult]
) -> NonFiniteLossError:
    steps = {configs[i].seed: step for i, step in sorted(lost.items())}
    return NonFiniteLossError(diverged(configs[0], steps), finished)
