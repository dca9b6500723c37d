"""Points drawn from mixtures: pairs to train on, and labelled samples in three parts."""

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
        """n positive pairs (x1, x2), and the component (n,) that each pair has in common.

        Given the component, x1 and x2 are independent draws.
        """
        labels = self._components(n, generator)
        x1 = self.sample_given(labels, generator=generator)
        x2 = self.sample_given(labels, generator=generator)
        return x1, x2, labels

    def _components(self, n: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
        require(n >= 1, "n", n, "at least 1")
        return torch.randint(self.m, (n,), generator=generator)

    def _require_labels(self, labels: Tensor) -> None:
        inside = bool(((labels >= 0) & (labels < self.m)).all())
        require(inside, "labels", labels, f"in 0..{self.m - 1}")


@dataclass(frozen=True, eq=False)
class GaussianMixture(Components):
    """p(x) = 1/m Σ_c N(x; μ_c, std² I),  means μ (m, d).

    `ValueError`: means not finite or not of shape (m, d), std not positive and finite.
    """

    means: Float[Tensor, "m d"]
    std: float

    def __post_init__(self) -> None:
        filled = self.means.ndim == 2 and self.means.numel() > 0
        require(filled, "means", self.means, "of shape (m, d), m, d ≥ 1")
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
        means = self.means[labels]
        noise = torch.randn(*means.shape, generator=generator, dtype=means.dtype)
        return means + self.std * noise


@dataclass(frozen=True, eq=False)
class AnonymousSamples(Components):
    """m components of k fixed samples each: a draw is the one-hot code (m·k entries) of a sample.

    Nothing but the identity of a sample is seen, and any two are equally far apart.
    `ValueError`: m or k below 1.
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
    """Points x (n, d), and their labels (n,)."""

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
    m = spec.components
    corners = regular_simplex(m, m - 1).float()
    corners /= (corners[0] - corners[1]).norm()
    law: _Manifold | _Turned = (
        _Manifold(spec, generator) if spec.structure == "manifold" else _Turned(spec, generator)
    )

    def draw(n: int) -> Part:
        labels = torch.randint(m, (n,), generator=generator)
        return Part(law.around(corners[labels], generator), labels)

    train = draw(spec.n_train)
    validation = draw(max(100, spec.n_train // 2))
    test = draw(500)
    return PointSet(train, validation, test, law.place(corners))


class _Manifold:
    """Components on a curved (m-1)-dimensional surface in d dimensions.

    Random Fourier features: E‖x - x'‖² = 2(1 - exp(-‖u - u'‖²/2)), which is ‖u - u'‖² for close u.
    """

    def __init__(self, spec: Cloud, generator: torch.Generator) -> None:
        self.std, self.flat_dim, self.dim = spec.std, spec.components - 1, spec.dim
        self.frequencies = torch.randn(self.flat_dim, self.dim, generator=generator)
        self.phases = 2 * math.pi * torch.rand(self.dim, generator=generator)

    def place(self, u: Float[Tensor, "n u"]) -> Float[Tensor, "n d"]:
        return (2 / self.dim) ** 0.5 * (u @ self.frequencies + self.phases).cos()

    def around(
        self, means: Float[Tensor, "n u"], generator: torch.Generator
    ) -> Float[Tensor, "n d"]:
        """A draw from the component of each mean: noise inside the surface."""
        noise = torch.randn(len(means), self.flat_dim, generator=generator)
        return self.place(means + self.std * noise)


class _Turned:
    """Components in d dimensions whose means span m-1 random directions."""

    def __init__(self, spec: Cloud, generator: torch.Generator) -> None:
        self.std, self.dim = spec.std, spec.dim
        directions = torch.linalg.qr(torch.randn(self.dim, self.dim, generator=generator)).Q
        self.span = directions[:, : spec.components - 1]
        rest = directions[:, spec.components - 1 :]
        self.noise_in = rest[:, : spec.rank or None] if spec.structure == "complement" else None

    def place(self, u: Float[Tensor, "n u"]) -> Float[Tensor, "n d"]:
        return u @ self.span.T

    def around(
        self, means: Float[Tensor, "n u"], generator: torch.Generator
    ) -> Float[Tensor, "n d"]:
        """A draw from the component of each mean: noise in all directions, or only in some outside
        the span of the means."""
        if self.noise_in is None:
            noise = torch.randn(len(means), self.dim, generator=generator)
        else:
            rank = self.noise_in.shape[1]
            noise = torch.randn(len(means), rank, generator=generator) @ self.noise_in.T
        return self.place(means) + self.std * noise
