"""Training on photographs, on one device or several:

    torchrun --nproc-per-node 8 -m sscl_experiments.pretrain --data DIR --recipe t-moco-v2 --out OUT

`--data` holds a folder of images, or .tar shards. One process needs no torchrun. An interrupted run
goes on from the last epoch. `docs/imagenet.md` says what it takes.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from sscl_core import checkpoint as checkpoints
from sscl_core.checks import require
from sscl_core.config import Optimizer
from sscl_core.distributed import DistributedMoCo, PairLoss, rank, world_size
from sscl_core.models import Encoder, resnet
from sscl_core.rng import INIT, stream
from sscl_core.similarities import Cosine, Student
from sscl_core.train import lr_factor

from .datasets.photos import Folder, Shards, epoch_batches, finished, together
from .recipes import RECIPES, Recipe, small


def encoder_of(recipe: Recipe) -> Encoder:
    """The network of the recipe's seed: backbone, linear-ReLU-linear, BatchNorm off the sphere."""
    with stream(recipe.seed, INIT):
        backbone, width = _backbone(recipe)
        head: list[nn.Module] = [nn.Linear(width, recipe.hidden), nn.ReLU()]
        head.append(nn.Linear(recipe.hidden, recipe.dim))
        if recipe.similarity == "student":
            head.append(nn.BatchNorm1d(recipe.dim, affine=False))
        return Encoder(backbone, nn.Sequential(*head))


def _backbone(recipe: Recipe) -> tuple[nn.Module, int]:
    if recipe.backbone == "tiny":
        first = [nn.Conv2d(3, 16, 3, 2), nn.ReLU()]
        then = [nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        return nn.Sequential(*first, *then), 128
    return imagenet_resnet(18 if recipe.backbone == "resnet18" else 50)


def imagenet_resnet(depth: int) -> tuple[nn.Sequential, int]:
    """`models.resnet` with the stem of He et al. 2016 for 224×224: 7×7, stride 2, max-pool."""
    network, width = resnet(depth, 3)
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64))
    pooled = nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
    return nn.Sequential(stem, pooled, *list(network)[2:]), width


def objective_of(recipe: Recipe, encoder: Encoder) -> nn.Module:
    """Encoder and loss in one module: forward(x1, x2) is the loss of a step."""
    by = Cosine(recipe.temperature)
    similarity = by if recipe.similarity == "cosine" else Student(recipe.temperature, recipe.df)
    if recipe.objective == "pairs":
        return PairLoss(encoder, similarity)
    groups = recipe.batch // recipe.group
    if groups % world_size():
        rule = f"a multiple of the number of processes, {world_size()}"
        raise ValueError(f"batch / group must be {rule}, got {groups}: choose another group")
    return DistributedMoCo(
        encoder,
        recipe.dim,
        queue_size=recipe.queue,
        similarity=similarity,
        momentum=recipe.momentum,
        groups=groups // world_size(),
    )


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """The module, whose gradients are means over processes where there are several."""
    if world_size() == 1:
        return model
    if device.type == "cuda" and isinstance(model, PairLoss):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    own = [device.index] if device.type == "cuda" else None
    # Buffers are left alone: the queue is the same everywhere, BatchNorm's statistics are of each.
    return DistributedDataParallel(model, device_ids=own, broadcast_buffers=False)


def loader_of(
    recipe: Recipe, data: Path, epoch: int, *, images: int, workers: int, skip: bool
) -> tuple[Any, int]:
    """The batches of an epoch that this process takes, and the number of them.

    `images`: in an epoch, where there are shards, whose images nobody has counted.
    """
    is_sharded = data.is_dir() and any(data.rglob("*.tar"))
    where: dict[str, Any] = {"seed": recipe.seed, "skip": skip}
    options: dict[str, Any] = {"num_workers": workers, "collate_fn": together}
    options["pin_memory"] = torch.cuda.is_available()
    if not is_sharded:
        folder = Folder(data, recipe.size, **where)
        places = epoch_batches(
            len(folder), recipe.batch, epoch=epoch, seed=recipe.seed, rank=rank(),
            world=world_size(),
        )  # fmt: skip
        return DataLoader(folder, batch_sampler=places, **options), len(places)
    if images < recipe.batch:
        rule = f"at least a batch, {recipe.batch}, where there are shards"
        raise ValueError(f"images must be {rule}, got {images}: say how many an epoch has")
    shards = Shards(data, recipe.size, epoch=epoch, rank=rank(), world=world_size(), **where)
    rule = f"a multiple of the number of processes, {world_size()}"
    require(recipe.batch % world_size() == 0, "batch", recipe.batch, rule)
    steps = images // recipe.batch
    loader = DataLoader(shards, batch_size=recipe.batch // world_size(), **options)
    return itertools.islice(loader, steps), steps


def pretrain(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    images: int = 0,
    workers: int = 0,
    skip: bool = False,
    device: torch.device | None = None,
    progress: bool = False,
) -> Encoder:
    """Trains as the recipe says, and leaves `encoder.pt` and `checkpoint.pt` under `out`.

    `skip`: corrupt images are warned of and left out. Errors: those of `datasets.photos`;
    `ValueError` for a batch that does not fit the processes.
    """
    place = device or torch.device("cpu")
    encoder = encoder_of(recipe).to(place).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = parallel(objective_of(recipe, encoder).to(place), place)
    spec = Optimizer(
        name="sgd", lr=recipe.lr, weight_decay=recipe.weight_decay,
        warmup_epochs=recipe.warmup_epochs,
    )  # fmt: skip
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, spec.lr, momentum=0.9, weight_decay=spec.weight_decay)
    path = out / "checkpoint.pt"
    first = _resumed(path, recipe, model, optimizer, place)
    for epoch in range(first, recipe.epochs):
        loader, steps = loader_of(recipe, data, epoch, images=images, workers=workers, skip=skip)
        model.train()
        bar = tqdm(loader, total=steps, desc=f"epoch {epoch}", disable=not progress or rank() > 0)
        for number, batch in enumerate(bar):
            factor = lr_factor(
                spec, epoch * steps + number, steps_per_epoch=steps, epochs=recipe.epochs
            )
            for group in optimizer.param_groups:
                group["lr"] = spec.lr * factor
            loss = step(model, batch, place)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        _require_finite(loss, weights, epoch)
        if rank() == 0:
            _save(path, recipe, model, optimizer, epoch + 1)
    if rank() == 0:
        checkpoints.save(out / "encoder.pt", {"encoder": encoder.state_dict()})
    return encoder


def step(model: nn.Module, batch: tuple[Tensor, Tensor], device: torch.device) -> Tensor:
    """The loss of a batch, in bfloat16 on a GPU."""
    pixels, factors = (part.to(device, non_blocking=True) for part in batch)
    with torch.no_grad():
        x1, x2 = finished(pixels, factors).chunk(2)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        return model(x1, x2)


def _require_finite(loss: Tensor, weights: Sequence[Tensor], epoch: int) -> None:
    """The last step's gradient shows in the weights alone."""
    if not bool(loss.isfinite()):
        raise ArithmeticError(f"the loss is {loss.item()} after epoch {epoch}: lower the rate, lr")
    if not all(bool(weight.isfinite().all()) for weight in weights):
        raise ArithmeticError(f"weights are not finite after epoch {epoch}: lower the rate, lr")


def _plain(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def _save(
    path: Path, recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int
) -> None:
    state = {"recipe": recipe.model_dump_json(), "epoch": epoch}
    state |= {"model": _plain(model).state_dict(), "optimizer": optimizer.state_dict()}
    checkpoints.save(path, state)


def _resumed(
    path: Path,
    recipe: Recipe,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> int:
    """The epoch to go on with. `ValueError`: the checkpoint is of another recipe."""
    if not path.exists():
        return 0
    state = checkpoints.load(path, device)
    if state.get("recipe") != recipe.model_dump_json():
        raise ValueError(f"{path} is of another recipe: delete it or name another folder")
    _plain(model).load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])


@contextmanager
def processes() -> Iterator[torch.device]:
    """The device of this process, in the group that torchrun started, if it did."""
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(prog="sscl_experiments.pretrain", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of images or shards")
    parser.add_argument("--out", type=Path, required=True, help="for checkpoint and network")
    parser.add_argument("--recipe", choices=list(RECIPES), default="t-moco-v2")
    parser.add_argument("--images", type=int, default=0, help="in an epoch, for shards")
    parser.add_argument("--workers", type=int, default=8, help="that decode, for each process")
    parser.add_argument("--skip-corrupt", action="store_true", help="warn of bad files, go on")
    parser.add_argument("--rehearse", action="store_true", help="a tiny network, one epoch")
    given = parser.parse_args()
    recipe = RECIPES[given.recipe]
    try:
        with processes() as device:
            pretrain(
                small(recipe) if given.rehearse else recipe,
                given.data,
                given.out,
                images=given.images,
                workers=given.workers,
                skip=given.skip_corrupt,
                device=device,
                progress=True,
            )
    except (ValueError, ArithmeticError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
