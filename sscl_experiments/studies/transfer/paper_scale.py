"""Transfer at the scale of the paper: ResNet-18 on CIFAR, on one GPU. Not run yet.

    from sscl_experiments.runner import run
    run(RUNS["cifar10-t-MoCo"], runs=Path("results/runs"), compiled=True, progress=True)

Settings follow the best public ones for SimCLR at this size (dkobak/simclr-cifar10: SGD, learning
rate .03 for 256 images, weight decay 5e-4, 500 epochs); those of the t forms are by our rule of
thumb, τ = .03 d_z and ν = 5. They are not tuned. For ImageNet see `sscl_experiments.pretrain`.
"""

from typing import Literal

from sscl_core.config import Optimizer, Projector, ResNet, TSimCLR
from sscl_experiments.runs.transfer_config import TransferRun

from .methods import METHODS, SOURCES, Setting, transfer_run

DIM, BATCH, EPOCHS = 128, 512, 500
QUEUE, MOMENTUM = 4096, 0.99


def paper_run(method: str, source: Literal["cifar10", "cifar100"], seed: int = 0) -> TransferRun:
    """A method with a ResNet-18 on all images of the source."""
    what = METHODS[method]
    temperature = 0.03 * DIM if isinstance(what.loss, TSimCLR) else 0.5
    small = transfer_run(method, Setting(temperature=temperature), source, epochs=EPOCHS, seed=seed)
    # SimCLR has none at this size; of MoCo there are both.
    batchnorm = isinstance(what.loss, TSimCLR) or (what.objective == "queue" and what.batchnorm)
    head = Projector(hidden=1024, dim=DIM, batchnorm=batchnorm)
    if what.objective == "labels":
        head = Projector(hidden=0, dim=SOURCES[source].classes)
    return small.replace(
        backbone=ResNet(depth=18),
        projector=head,
        optimizer=Optimizer(name="sgd", lr=0.03 * BATCH / 256, weight_decay=5e-4),
        batch_size=BATCH,
        queue_size=QUEUE,
        momentum=MOMENTUM,
    )


SETS: tuple[Literal["cifar10", "cifar100"], ...] = ("cifar10", "cifar100")
RUNS = {f"{source}-{method}": paper_run(method, source) for source in SETS for method in METHODS}
