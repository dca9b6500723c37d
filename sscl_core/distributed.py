"""Contrast over several processes, one a GPU: negatives of all of them, with the right gradient.

Each function is a plain one where no process group was started.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function

from .checks import require, single
from .losses import info_nce, t_simclr
from .moco import MoCo, contiguous, dealt, in_groups
from .models import Encoder
from .similarities import Cosine, Student


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def gathered(z: Float[Tensor, "n ..."]) -> Float[Tensor, "m ..."]:
    """The rows of all processes in the order of their ranks; every process has as many.

    The gradient of a row is the sum over processes. So if every process computes the loss of the
    whole batch, each sum is world_size times the gradient, and the mean over processes that
    `DistributedDataParallel` takes is the gradient of one process with the whole batch: no scaling.
    """
    return _Gather.apply(z) if world_size() > 1 else z


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return _all(z)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        # A copy: autograd may hand the same tensor to others, and the sum is made in place.
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


def _all(x: Tensor) -> Tensor:
    parts = [
        torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())
    ]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


class PairLoss(nn.Module):
    """SimCLR's or t-SimCLR's loss of the views of all processes together, on each of them."""

    def __init__(
        self, encoder: Encoder, similarity: Cosine | Student, normalization: str = "joint"
    ) -> None:
        super().__init__()
        self.encoder, self.similarity, self.normalization = encoder, similarity, normalization

    def forward(self, x1: Float[Tensor, "n ..."], x2: Float[Tensor, "n ..."]) -> Float[Tensor, ""]:
        z1, z2 = single(self.encoder(torch.cat([x1, x2]))[1]).chunk(2)
        z1, z2 = gathered(z1), gathered(z2)
        by = self.similarity
        if isinstance(by, Cosine):
            return info_nce(z1, z2, temperature=by.temperature, validate=False)
        settings: dict[str, Any] = {"temperature": by.temperature, "df": by.df}
        return t_simclr(z1, z2, **settings, normalization=self.normalization, validate=False)  # type: ignore[arg-type]


class DistributedMoCo(MoCo):
    """MoCo over processes: keys are dealt to the groups of all of them, and all get all keys.

    W processes with G groups each do what one process does with W·G groups, BatchNorm included:
    this is MoCo's shuffling between GPUs. `ValueError`: a batch that does not divide by its groups.
    """

    def keys(
        self, x2: Float[Tensor, "n ..."], groups: int
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
        if world_size() == 1:
            return super().keys(x2, groups)
        require(len(x2) % groups == 0, "batch", len(x2), f"a multiple of {groups}, the groups")
        images = _all(x2)
        deal = dealt if self.shuffle else contiguous
        hands = deal(len(images), world_size() * groups)
        own = hands[rank() * groups : (rank() + 1) * groups]
        inside = list(torch.arange(sum(map(len, own))).split([len(hand) for hand in own]))
        chosen = images[torch.cat(own).to(images.device)]
        k = _all(in_groups(self.key_encoder, chosen, inside))
        back = _places(hands).to(k.device)
        k = k[back]
        return k.chunk(world_size())[rank()], k


def _places(hands: Sequence[Tensor]) -> Tensor:
    """Where each row is among the hands one after the other."""
    return torch.cat(list(hands)).argsort()
