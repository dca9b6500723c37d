"""What a recipe takes, by arithmetic: images, operations, bytes between GPUs, GPU hours.

    python -m sscl_experiments.arithmetic --recipe t-moco-v2 --gpus 8 --sustained 100

`docs/imagenet.md` has the table and what it leaves out.
"""

import argparse

import torch
from torch import Tensor, nn

from .pretrain import encoder_of
from .recipes import RECIPES, Recipe

IMAGENET = 1_281_167  # training images of ImageNet-1k
# Passes over an image, in forward passes: a backward pass is two.
PASSES = {"queue": 3 + 1, "pairs": 2 * 3}
FLOAT = 4  # bytes


@torch.no_grad()
def macs(network: nn.Module, size: int) -> int:
    """Multiplications with addition of a forward pass for one image: convolutions and layers."""
    counted = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        weight = module.weight
        assert isinstance(weight, Tensor)
        counted += output[0].numel() * weight[0].numel()

    kinds = (nn.Conv2d, nn.Linear)
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, kinds)]
    training = network.training
    network.eval()(torch.zeros(1, 3, size, size))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return counted


def cost(
    recipe: Recipe, *, gpus: int, sustained: float, images: int = IMAGENET
) -> dict[str, float]:
    """`sustained`: 10¹² operations a second that a GPU keeps up in training, not its peak."""
    network = encoder_of(recipe)
    each = macs(network, recipe.size)
    weights = sum(p.numel() for p in network.parameters())
    steps = images // recipe.batch * recipe.epochs
    seen = steps * recipe.batch
    operations = 2 * each * PASSES[recipe.objective] * seen
    hours = operations / (sustained * 1e12) / 3600
    step = hours * 3600 / gpus / steps
    share = (gpus - 1) / gpus
    reduced = 2 * share * weights * FLOAT  # a ring's all-reduce: twice round
    pixels = 3 * recipe.size**2
    is_queue = recipe.objective == "queue"
    moved = recipe.batch * (pixels if is_queue else 0) * FLOAT * share
    moved += recipe.batch * recipe.dim * FLOAT * share * (1 if is_queue else 2 * 2)
    return {
        "weights, millions": weights / 1e6,
        "forward pass of an image, 10⁹ multiply-adds": each / 1e9,
        "images seen, millions": seen / 1e6,
        "steps, thousands": steps / 1e3,
        "operations, 10¹⁸": operations / 1e18,
        "GPU hours": hours,
        "days on these GPUs": hours / gpus / 24,
        "milliseconds a step": 1000 * step,
        "gradients through each GPU, MB a step": reduced / 1e6,
        "images and keys to each GPU, MB a step": moved / 1e6,
        "GB/s that each GPU needs": (reduced + moved) / step / 1e9,
        "decoded images a second, all GPUs": recipe.batch / step,
        "queue, MB": recipe.queue * recipe.dim * FLOAT / 1e6 if is_queue else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="sscl_experiments.arithmetic", description=__doc__)
    parser.add_argument("--recipe", choices=list(RECIPES), default="t-moco-v2")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--sustained", type=float, default=100, help="10¹² operations a second")
    given = parser.parse_args()
    found = cost(RECIPES[given.recipe], gpus=given.gpus, sustained=given.sustained)
    for name, value in found.items():
        print(f"{name:45} {value:12.4g}")


if __name__ == "__main__":
    main()
