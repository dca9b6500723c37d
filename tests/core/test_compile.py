"""Every loss, log Q and row of the family through torch.compile with its default backend, Inductor.

Values and gradients are compared with those of eager float64: Inductor may get the one right and
the other wrong (see `losses._loss`). Each graph is compiled once, with dynamic shapes, for a batch
of 5: from a batch of 2 Inductor makes other code, without that error.
"""

import math
import shutil
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import unchecked
from torch import Tensor

from sscl_experiments.studies.augmentation_graph.loss_family import FAMILY

if not any(shutil.which(compiler) for compiler in ("g++", "clang++")):
    pytest.skip("Inductor needs a C++ compiler, g++ or clang++", allow_module_level=True)

SIZES = (5, 2, 3, 17)
Inputs = dict[str, Tensor]


family = unchecked("sscl_experiments.studies.augmentation_graph.loss_family")
losses, similarities = family.losses, family.similarities


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


def outputs_and_grads(function: Callable, arguments: Inputs) -> list[Tensor]:
    """Outputs, and the gradients of a sum of them, no two of which count the same."""
    arguments = {name: x.clone().requires_grad_() for name, x in arguments.items()}
    outputs = function(**arguments)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = sum((k + 1) * output for k, output in enumerate(outputs))
    grads = torch.autograd.grad(total, tuple(arguments.values()))
    return [*(output.detach() for output in outputs), *grads]


def assert_compiled_is_eager(function: Callable, names: list[str], sizes: tuple[int, ...] = SIZES):
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=len(sizes) > 1)
    for n in sizes:
        arguments = inputs(names, n)
        exact = outputs_and_grads(function, {name: x.double() for name, x in arguments.items()})
        largest = max(float(x.abs().max()) for x in exact)
        assert largest > 0.01
        for ours, theirs in zip(outputs_and_grads(compiled, arguments), exact, strict=True):
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=3e-6 * largest)


VIEWS = ["z1", "z2"]
conditional = partial(losses.t_simclr, normalization="conditional")


def both_gaussians(z1: Tensor, z2: Tensor, **settings: Tensor) -> tuple[Tensor, Tensor]:
    joint = losses.t_simclr(z1, z2, df=math.inf, **settings)
    return joint, conditional(z1, z2, df=math.inf, **settings)


LOSSES = {
    "InfoNCE": (losses.info_nce, [*VIEWS, "weights", "temperature"]),
    "joint": (losses.t_simclr, [*VIEWS, "weights", "temperature", "df"]),
    "conditional": (conditional, [*VIEWS, "weights", "temperature", "df"]),
    "both, Gaussian": (both_gaussians, [*VIEWS, "weights", "temperature"]),
    "spectral": (losses.spectral_contrastive, VIEWS),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    assert_compiled_is_eager(*LOSSES[name])


def test_the_default_loss_for_one_shape():
    """What `torch.compile(t_simclr)` is: shapes are constants, and numbers are Python's."""
    assert_compiled_is_eager(losses.t_simclr, VIEWS, sizes=(3,))


@pytest.mark.parametrize("normalization", ["joint", "conditional"])
def test_the_objective_of_every_log_q(normalization):
    """And a function of each log Q that is no objective."""

    def objectives(P: Tensor, z: Tensor, temperature: Tensor, df: Tensor) -> tuple[Tensor, ...]:
        settings = {"temperature": temperature, "normalization": normalization}
        cosine = similarities.log_q_cosine(z, **settings)
        gaussian = similarities.log_q_gaussian(z, **settings)
        student = similarities.log_q_student(z, df=df, **settings)
        every = [cosine, gaussian, student]
        squares = [log_Q.exp().square().sum() for log_Q in every]
        return *[losses.sne_objective(P, log_Q) for log_Q in every], *squares

    assert_compiled_is_eager(objectives, ["P", "z", "temperature", "df"])


SETTINGS = {
    "InfoNCE": ["temperature"],
    "t-SimCLR": ["temperature", "df"],
    "t-SimCLR, conditional": ["temperature", "df"],
    "SNE": ["temperature"],
    "t-SNE": ["temperature", "df"],
    "DCL": ["temperature"],
    "SigLIP": ["temperature", "bias"],
    "Neg-t-SNE": ["temperature", "df"],
    "UMAP": [],
    "spectral contrastive": [],
    "Barlow Twins": ["redundancy"],
    "VICReg": ["invariance", "variance", "covariance"],
}


@pytest.mark.parametrize("name", FAMILY)
def test_the_family(name):
    def terms(**arguments: Tensor) -> tuple[Tensor, ...]:
        return tuple(family.FAMILY[name].loss(**arguments))

    assert_compiled_is_eager(terms, [*VIEWS, *SETTINGS[name]])
