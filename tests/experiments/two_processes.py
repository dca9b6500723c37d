"""Three steps of training on a folder of images, by one process or, under torchrun, by several.

`python two_processes.py DATA OUT`: the loss of each step and the weights after the last, of every
objective, in float64, by the first process.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from sscl_core.distributed import gathered, rank, world_size
from sscl_core.models import Encoder
from sscl_core.rng import INIT, stream
from sscl_experiments.datasets.photos import Folder, epoch_batches, finished, together
from sscl_experiments.pretrain import objective_of, parallel, processes
from sscl_experiments.recipes import RECIPES, small

UNSHUFFLED = "moco-v2, unshuffled"
CASES = ("simclr", "t-simclr", "moco-v2", "t-moco-v2", UNSHUFFLED)


def network(recipe):
    """With BatchNorm where a queue's keys are shuffled: that has to be the same, too."""
    with stream(0, INIT):
        norm = [nn.BatchNorm2d(8)] if recipe.objective == "queue" else []
        layers = [nn.Conv2d(3, 8, 3, 2), *norm, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        head = [nn.Linear(32, recipe.dim)]
        if recipe.similarity == "student" and recipe.objective == "queue":
            head.append(nn.BatchNorm1d(recipe.dim, affine=False))
        return Encoder(nn.Sequential(*layers), nn.Sequential(*head)).double()


def trained(name, data, device):
    recipe = small(RECIPES[name.partition(",")[0]])
    objective = objective_of(recipe, network(recipe)).double()
    if name == UNSHUFFLED:
        objective.shuffle = False
    model = parallel(objective, device)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, 0.1, momentum=0.9)
    folder = Folder(data, recipe.size)
    where = {"rank": rank(), "world": world_size()}
    places = epoch_batches(len(folder), recipe.batch, epoch=0, **where)
    losses = []
    for batch in DataLoader(folder, batch_sampler=places, collate_fn=together):
        x1, x2 = finished(*batch).double().chunk(2)
        loss = model(x1, x2)
        loss.backward()
        total = loss.detach().clone()
        if world_size() > 1:
            torch.distributed.all_reduce(total)
        losses.append(total.item() / world_size())
        optimizer.step()
        optimizer.zero_grad()
    return {"losses": losses, "weights": [weight.detach() for weight in weights]}


def gathered_twice():
    """The gradient of a loss in which rows are gathered twice, over the processes."""
    rows = torch.arange(8.0, dtype=torch.float64).view(4, 2).chunk(world_size())[rank()]
    a, b = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    (gathered(a) + gathered(b)).square().sum().backward()
    return [gathered(part.grad / world_size()) for part in (a, b)]


def main(data, out):
    with processes() as device:
        found = {name: trained(name, data, device) for name in CASES}
        found["gathered twice"] = gathered_twice()
        if rank() == 0:
            torch.save(found, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
