"""TODO"""

import torch
from jaxtyping import Float
from torch import Tensor

from sscl_core import checks, similarities
from sscl_core.batches import source
from sscl_core.checks import Scalar, check_directions, check_like, check_points, check_square
from sscl_core.config import Mixture, TrainConfig
from sscl_core.train import initial_network
from sscl_experiments.runs.mixture import mixture


def attraction_repulsion(
    P: Float[Tensor, "N N"],
    Q: Float[Tensor, "N N"],
    z: Float[Tensor, "N d"],
    slope: Float[Tensor, "N N"] | Scalar,
) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N d"]]:
    """∂KL(P‖Q)/∂z = attraction + repulsion for a Q that depends on squared distances D through its logits:

    attraction_i = 2 Σ_j slope_ij (P_ij + P_ji)(z_i - z_j),   repulsion_i = -2 Σ_j slope_ij (Q_ij + Q_ji)(z_i - z_j),
    slope = -dl/dD: 1/(2τ) for exp(-D/(2τ)), and for exp(cos/τ) on unit features; `student_slope` for Student's t.
    Both directions of a pair enter: for conditional forms the one-sided sum is not the gradient.
    """

    z = check_points("z", z)
    for name, value in (("P", P), ("Q", Q)):
        check_square(name, value, len(z))
    if isinstance(slope, Tensor) and slope.numel() != 1:
        check_square("slope", slope, len(z))
    else:
        checks.check_number("slope", slope)
        slope = checks.scalar(slope)

    def pull(weights: Tensor) -> Tensor:
        return 2 * (weights.sum(1, keepdim=True) * z - weights @ z)

    return pull(slope * (P + P.T)), -pull(slope * (Q + Q.T))


def student_slope(
    squared_distance: Float[Tensor, "N N"], *, temperature: Scalar, df: Scalar
) -> Float[Tensor, "N N"]:
    """-dl/dD = (ν+1) / (2 (τν + D)) for l = -(ν+1)/2 · log(1 + D/(τν)); 1/(2τ) for ν = ∞."""
    checks.check_settings(temperature=temperature, df=df)
    temperature, df = checks.scalar(temperature), checks.scalar(df)
    if similarities.is_gaussian(df):
        return torch.zeros_like(squared_distance) + 1 / (2 * temperature)
    return (df + 1) / 2 / (temperature * df + squared_distance)


def through_normalization(
    z: Float[Tensor, "N d"], gradient: Float[Tensor, "N d"]
) -> Float[Tensor, "N d"]:
    """The gradient with respect to z of a function of u = z/‖z‖, given the one with respect to u: (I - u uᵀ) g / ‖z‖.

    `ValueError`: a row of zeros, which has no direction.
    """
    z = check_directions("z", z)
    check_like("gradient", gradient, z)
    norm = z.norm(dim=1, keepdim=True)
    u = z / norm
    return (gradient - (gradient * u).sum(1, keepdim=True) * u) / norm


def first_batch(config: TrainConfig, n: int) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """What the first step of a run compares: the features, in float64, of n pairs of views by the network as it is initialised."""
    config = config.model_copy(update={"batch_size": n})
    assert isinstance(config.data, Mixture)
    batches = source(config, mixture(config.data), torch.device("cpu"))
    network = initial_network(config, batches.sample_shape).double()
    batch = next(batches.batches(0))
    z1, z2 = network(torch.cat([batch.x1, batch.x2]).double())[1].detach().chunk(2)
    return z1, z2
