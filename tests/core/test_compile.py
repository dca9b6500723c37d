"""Every loss, log Q and row of the family through torch.compile with its default backend, Inductor.

Values and gradients are compared with those of eager float64: Inductor may get the one right and
the other wrong (see `losses._loss`). What takes the same arguments is compiled in one graph, with
dynamic shapes, for a batch of 5: from a batch of 2 Inductor makes other code, without that error.
"""

import math
import shutil
from collections.abc import Callable

import pytest
import torch
import torch._inductor.config
from helpers import unchecked
from torch import Tensor

from sscl_experiments.studies.loss_family.losses import LOSSES

torch._inductor.config.compile_threads = 1  # no pool of processes that import torch, too
torch._inductor.config.cpp.vec_isa_ok = True  # nor one for each instruction set, to try it

if not any(shutil.which(compiler) for compiler in ("g++", "clang++")):
    pytest.skip("Inductor needs a C++ compiler, g++ or clang++", allow_module_level=True)

SIZES = (5, 2, 3, 17)
Inputs = dict[str, Tensor]
Outputs = dict[str, Tensor]
family = unchecked("sscl_experiments.studies.loss_family.losses")
losses = family.losses


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(names: list[str], n: int) -> Inputs:
    """What a loss may take, in float32; all of it is differentiated."""
    z1, N = random(n, 3, seed=0), 2 * n
    P = random(N, N, seed=1).exp().fill_diagonal_(0)
    every = {
        "z1": z1,
        "z2": z1 + 0.5 * random(n, 3, seed=2),
        "z": random(N, 3, seed=3),
        "P": P / P.sum(),
        "weights": random(n, seed=5).exp(),
        "temperature": torch.tensor(0.7),
        "df": torch.tensor(2.5),
        "bias": torch.tensor(-1.5),
        "redundancy": torch.tensor(0.3),
        "invariance": torch.tensor(2.0),
        "variance": torch.tensor(3.0),
        "covariance": torch.tensor(5.0),
    }
    return {name: every[name] for name in names}


def value_and_grads(function: Callable[..., Outputs], arguments: Inputs, name: str) -> list[Tensor]:
    """One of the outputs, and its gradients with respect to all arguments."""
    arguments = {key: x.clone().requires_grad_() for key, x in arguments.items()}
    output = function(**arguments)[name]
    grads = torch.autograd.grad(output, tuple(arguments.values()), materialize_grads=True)
    return [output.detach(), *grads]


def assert_compiled_is_eager(
    function: Callable[..., Outputs], names: list[str], sizes: tuple[int, ...] = SIZES
) -> None:
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=len(sizes) > 1)
    for n in sizes:
        arguments = inputs(names, n)
        doubled = {name: x.double() for name, x in arguments.items()}
        for output in function(**doubled):
            exact = value_and_grads(function, doubled, output)
            ours = value_and_grads(compiled, arguments, output)
            largest = max(float(x.abs().max()) for x in exact)
            assert largest > (1e-5 if n == 2 else 0.01), f"{output}, n = {n}: {largest}"
            for found, expected in zip(ours, exact, strict=True):
                assert found.dtype == torch.float32
                torch.testing.assert_close(
                    found.double(),
                    expected,
                    rtol=1e-5,
                    atol=3e-6 * max(largest, 0.1),
                    msg=lambda m, output=output, n=n: f"{output}, n = {n}: {m}",
                )


def rows(z1: Tensor, z2: Tensor, **settings: dict[str, Tensor]) -> Outputs:
    """Both terms of the rows of the family that are named, each with its settings."""
    outputs = {}
    for name, values in settings.items():
        attraction, repulsion = family.LOSSES[name].loss(z1, z2, **values)
        outputs |= {f"{name}, attraction": attraction, f"{name}, repulsion": repulsion}
    return outputs


def cosines(z1: Tensor, z2: Tensor, weights: Tensor, temperature: Tensor, bias: Tensor) -> Outputs:
    one = {"temperature": temperature}
    settings = {"InfoNCE": one, "DCL": one, "SigLIP": {**one, "bias": bias}}
    weighted = losses.info_nce(z1, z2, weights=weights, **one)
    return {"info_nce": weighted, **rows(z1, z2, **settings)}


def students(z1: Tensor, z2: Tensor, weights: Tensor, temperature: Tensor, df: Tensor) -> Outputs:
    both = {"temperature": temperature, "df": df}
    names = ("t-SimCLR", "t-SimCLR, conditional", "t-SNE", "Neg-t-SNE")
    return {
        **{
            normalization: losses.t_simclr(
                z1, z2, weights=weights, normalization=normalization, **both
            )
            for normalization in ("joint", "conditional")
        },
        **rows(z1, z2, **dict.fromkeys(names, both)),
    }


def gaussians(z1: Tensor, z2: Tensor, weights: Tensor, temperature: Tensor) -> Outputs:
    one = {"temperature": temperature}
    return {
        **{
            normalization: losses.t_simclr(
                z1, z2, weights=weights, df=math.inf, normalization=normalization, **one
            )
            for normalization in ("joint", "conditional")
        },
        **rows(z1, z2, SNE=one),
    }


def others(
    z1: Tensor,
    z2: Tensor,
    redundancy: Tensor,
    invariance: Tensor,
    variance: Tensor,
    covariance: Tensor,
) -> Outputs:
    vicreg = {"invariance": invariance, "variance": variance, "covariance": covariance}
    settings = {
        "UMAP": {},
        "spectral contrastive": {},
        "Barlow Twins": {"redundancy": redundancy},
        "VICReg": vicreg,
    }
    return {"spectral": losses.spectral_contrastive(z1, z2), **rows(z1, z2, **settings)}


def objectives(P: Tensor, z: Tensor, temperature: Tensor, df: Tensor) -> Outputs:
    """The objective of every log Q, and a function of each that is no objective."""
    outputs = {}
    for normalization in ("joint", "conditional"):
        settings = {"temperature": temperature, "normalization": normalization}
        every = {
            "cosine": losses.log_q_cosine(z, **settings),
            "Gaussian": losses.log_q_gaussian(z, **settings),
            "Student": losses.log_q_student(z, df=df, **settings),
        }
        for name, log_Q in every.items():
            outputs[f"{name}, {normalization}"] = losses.sne_objective(P, log_Q)
            outputs[f"{name}, {normalization}, squares"] = len(z) * log_Q.exp().square().sum()
    return outputs


VIEWS = ["z1", "z2"]
GRAPHS = {
    "cosines": (cosines, [*VIEWS, "weights", "temperature", "bias"]),
    "students": (students, [*VIEWS, "weights", "temperature", "df"]),
    "gaussians": (gaussians, [*VIEWS, "weights", "temperature"]),
    "others": (others, [*VIEWS, "redundancy", "invariance", "variance", "covariance"]),
    "objectives": (objectives, ["P", "z", "temperature", "df"]),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_compiled_is_eager(name):
    assert_compiled_is_eager(*GRAPHS[name])


def test_every_row_of_the_family_is_compiled():
    outputs = {}
    for function, names in GRAPHS.values():
        outputs |= function(**inputs(names, 3))
    for name in LOSSES:
        assert {f"{name}, attraction", f"{name}, repulsion"} <= set(outputs)


def test_the_default_loss_for_one_shape():
    """What `torch.compile(t_simclr)` is: shapes are constants, and numbers are Python's."""

    def default(z1: Tensor, z2: Tensor) -> Outputs:
        return {"t_simclr": losses.t_simclr(z1, z2)}

    assert_compiled_is_eager(default, VIEWS, sizes=(3,))
