"""TODO"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sscl_core.checks import require
from sscl_core.config import Cloud
from sscl_experiments.arrangements import regular_simplex


class Components(ABC):
    """A mixture of `m` components with equal weights."""

    m: int
    dim: int

    @abstractmethod
    def sample_given(
        self, labels: Int64[Tensor, " n"], *, generator: torch.Generator
    ) -> Float[Tensor, "n d"]:
        """x_i from component labels_i, independent. `ValueError`: a label outside 0..m-1."""

    def sample(
        self, n: int, *, generator: torch.Generator
    ) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]:
        """n independent draws x (n, d), and the component of each (n,), uniform on 0..m-1."""
        labels = self._components(n, generator)
        return self.sample_given(labels, generator=generator), labels

    def pairs(
        self, n: int, *, generator: torch.Generator
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"], Int64[Tensor, " n"]]:
        """n positive pairs (x1, x2), and their component: two draws, independent given the component they share."""
        labels = self._components(n, generator)
        x1, x2 = (self.sample_given(labels, generator=generator) for _ in range(2))
        return x1, x2, labels

    def _components(self, n: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
        require(n >= 1, "n", n, "at least 1")
        return torch.randint(self.m, (n,), generator=generator)

    def _require_labels(self, labels: Tensor) -> None:
        require(
            bool(((labels >= 0) & (labels < self.m)).all()), "labels", labels, f"in 0..{self.m - 1}"
        )


@dataclass(frozen=True, eq=False)
class GaussianMixture(Components):
    """p(x) = 1/m Σ_c N(x; μ_c, std² I),  means μ (m, d).

    `ValueError`: means not finite or not of shape (m, d), std not positive and finite.
    """

    means: Float[Tensor, "m d"]
    std: float

    def __post_init__(self) -> None:
        require(
            self.means.ndim == 2 and self.means.numel() > 0,
            "means",
            self.means,
            "of shape (m, d), m, d ≥ 1",
        )
        require(self.means.is_floating_point(), "means", self.means.dtype, "floating-point")
        require(bool(self.means.isfinite().all()), "means", self.means, "finite")
        require(0 < self.std < math.inf, "std", self.std, "positive and finite")

    @property
    def m(self) -> int:  # type: ignore[override]
        return len(self.means)

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.means.shape[1]

    def sample_given(
        self, labels: Int64[Tensor, " n"], *, generator: torch.Generator
    ) -> Float[Tensor, "n d"]:
        """x_i ~ N(μ_{labels_i}, std² I)."""
        self._require_labels(labels)
        noise = torch.randn(
            len(labels), self.means.shape[1], generator=generator, dtype=self.means.dtype
        )
        return self.means[labels] + self.std * noise


@dataclass(frozen=True, eq=False)
class AnonymousSamples(Components):
    """m components of k fixed samples each, of which only the identity is seen: a draw is a one-hot code of m·k entries.

    It has no geometry: any two samples are equally far apart. `ValueError`: m or k below 1.
    """

    m: int
    k: int

    def __post_init__(self) -> None:
        require(self.m >= 1 and self.k >= 1, "m, k", (self.m, self.k), "at least 1")

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.m * self.k

    def sample_given(
        self, labels: Int64[Tensor, " n"], *, generator: torch.Generator
    ) -> Float[Tensor, "n mk"]:
        """One of the k samples of each label, uniform."""
        self._require_labels(labels)
        which = torch.randint(self.k, (len(labels),), generator=generator)
        return torch.nn.functional.one_hot(labels * self.k + which, self.m * self.k).float()


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
        frequencies, phases = (
            torch.randn(m - 1, d, generator=generator),
            2 * math.pi * torch.rand(d, generator=generator),
        )
        turn = None
    else:
        directions = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
        turn, nuisance = (
            directions[:, : m - 1],
            directions[:, m - 1 :][:, : spec.rank or None],
        )  # the span of the means, and outside it

    def place(u: Tensor) -> Tensor:
        return (2 / d) ** 0.5 * (u @ frequencies + phases).cos() if turn is None else u @ turn.T

    def draw(n: int) -> Part:
        labels = torch.randint(m, (n,), generator=generator)
        if turn is None:
            return Part(
                place(corners[labels] + spec.std * torch.randn(n, m - 1, generator=generator)),
                labels,
            )
        if spec.structure == "complement":
            spread = torch.randn(n, nuisance.shape[1], generator=generator) @ nuisance.T
        else:
            spread = torch.randn(n, d, generator=generator)
        return Part(place(corners[labels]) + spec.std * spread, labels)

    return PointSet(
        draw(spec.n_train), draw(max(100, spec.n_train // 2)), draw(500), place(corners)
    )
