"""Networks that are fitted to an order of the components before training begins (`start_order`)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sscl_core.config import TrainConfig
from sscl_core.models import Encoder
from sscl_experiments.arrangements import cyclic_order, regular_polygon
from sscl_experiments.datasets.synthetic import Components

DRAWS = 50  # of every component, to which the network is fitted


def fitted_to_order(
    config: TrainConfig, components: Components
) -> Callable[[Encoder, torch.Generator], None]:
    """Fits a network so that the components stand on a regular polygon in `config.start_order`.

    `ValueError`: the fit did not reach that order.
    """
    order = config.start_order
    assert order is not None
    corners = regular_polygon(components.m).float()

    def prepare(network: Encoder, generator: torch.Generator) -> None:
        labels = torch.tensor(order).repeat_interleave(DRAWS)
        x = components.sample_given(labels, generator=generator)
        fit(network, x, corners.repeat_interleave(DRAWS, 0))
        with torch.no_grad():
            directions = F.normalize(network(x)[1], dim=1)
        reached = directions.unflatten(0, (-1, DRAWS)).mean(1)
        if not torch.equal(cyclic_order(reached), cyclic_order(corners)):
            what = f"start_order {order} could not be fitted with seed {config.seed}"
            raise ValueError(f"{what}: use a wider backbone")

    return prepare


def fit(
    network: Encoder,
    x: Float[Tensor, "n ..."],
    target: Float[Tensor, "n d_z"],
    *,
    iterations: int = 50,
    ridge: float = 1e-3,
) -> None:
    """Fits the features z to `target` by least squares.

    The last layer in closed form (ridge regression), then all layers by L-BFGS.
    """
    *below, last = network.projector.children()
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        features = nn.Sequential(network.backbone, *below)(x)
        A = F.pad(features, (0, 1), value=1.0).double()
        penalty = ridge * len(x) * torch.eye(A.shape[1], dtype=A.dtype)
        w = torch.linalg.solve(A.T @ A + penalty, A.T @ target.double())
        last.weight.copy_(w[:-1].T)
        last.bias.copy_(w[-1])
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=iterations, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        error = F.mse_loss(network(x)[1], target)
        error.backward()
        return error

    optimizer.step(closure)
    optimizer.zero_grad()
