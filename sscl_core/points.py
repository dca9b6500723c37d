"""Labelled vectors in three parts: generated clouds, and the tables that ship with scikit-learn."""

import math
from dataclasses import dataclass

import numpy as np
import sklearn.datasets
import torch
from jaxtyping import Float, Int64
from sklearn.model_selection import train_test_split
from torch import Tensor

from .config import Cloud, Table
from .theory import regular_simplex


@dataclass(frozen=True, eq=False)
class Part:
    """x (n, d), labels (n,)."""

    x: Float[Tensor, "n d"]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class PointSet:
    """What is trained on, what settings are chosen by, and what results are reported on."""

    train: Part
    validation: Part
    test: Part
    means: Float[Tensor, "m d"] | None = None  # of the components, where they are known


def cloud(spec: Cloud, generator: torch.Generator) -> PointSet:
    """The sample that `spec` describes, its means turned at random."""
    m, d = spec.components, spec.dim
    corners = regular_simplex(m, m - 1).float()
    corners /= (corners[0] - corners[1]).norm()
    if spec.structure == "manifold":
        # Random Fourier features: E‖x - x'‖² = 2(1 - exp(-‖u - u'‖²/2)), ‖u - u'‖² for close points.
        frequencies, phases = torch.randn(m - 1, d, generator=generator), 2 * math.pi * torch.rand(d, generator=generator)
        turn = None
    else:
        directions = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
        turn, nuisance = directions[:, : m - 1], directions[:, m - 1 :][:, : spec.rank or None]  # the span of the means, and outside it

    def place(u: Tensor) -> Tensor:
        return (2 / d) ** 0.5 * (u @ frequencies + phases).cos() if turn is None else u @ turn.T

    def draw(n: int) -> Part:
        labels = torch.randint(m, (n,), generator=generator)
        if turn is None:
            return Part(place(corners[labels] + spec.std * torch.randn(n, m - 1, generator=generator)), labels)
        if spec.structure == "complement":
            spread = torch.randn(n, nuisance.shape[1], generator=generator) @ nuisance.T
        else:
            spread = torch.randn(n, d, generator=generator)
        return Part(place(corners[labels]) + spec.std * spread, labels)

    return PointSet(draw(spec.n_train), draw(max(100, spec.n_train // 2)), draw(500), place(corners))


def table(spec: Table, seed: int) -> PointSet:
    """The split of `seed`, standardised by its training part."""
    content = getattr(sklearn.datasets, f"load_{spec.table}")()
    x, y = content.data.astype(np.float64), content.target.astype(np.int64)
    rest, test = train_test_split(np.arange(len(y)), test_size=0.3, stratify=y, random_state=seed)
    fit, validation = train_test_split(rest, test_size=0.2, stratify=y[rest], random_state=seed)
    mean, std = x[fit].mean(0), x[fit].std(0)
    x = ((x - mean) / np.where(std > 1e-12 * np.abs(mean), std, np.inf)).astype(np.float32)
    train, validation, test = (Part(torch.from_numpy(x[part]), torch.from_numpy(y[part])) for part in (fit, validation, test))
    return PointSet(train, validation, test)
