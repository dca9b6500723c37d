"""Eigenvalues and eigenvectors of the augmentation graph."""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from scipy.sparse.linalg import svds
from torch import Tensor

from sscl_core import checks


def spectrum(A: Any, k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "m k"]]:
    """The k largest eigenvalues, descending, and eigenvectors of the normalised augmentation graph
    D^(-1/2) W D^(-1/2),  W = Aᵀ A / n.

    W_jl is the probability that two views of one anchor fall into cells j and l, D its row sums.
    The first pair is 1 and √D, where the graph is connected. Computed as the singular vectors of
    A D^(-1/2) / √n; A (n, m) is a tensor, an array or a sparse array. Cells out of reach have
    eigenvector entries 0.
    `ValueError`: A with negative entries or rows that do not sum to 1, k not in 1..min(n, m) - 1.
    Source: HaoChen et al. 2021.
    """
    A = _probabilities(A)
    checks.check_whole("k", k)
    if not 1 <= k < min(A.shape):
        raise ValueError(f"k must be in 1..{min(A.shape) - 1} for A of shape {A.shape}, got {k}")
    mass = A.mean(0)
    inverse_root = np.where(mass > 0, mass, 1) ** -0.5
    start = np.random.default_rng(0).standard_normal(min(A.shape))
    _, values, vectors = svds(A * inverse_root / A.shape[0] ** 0.5, k=k, v0=start)
    descending = np.argsort(-values)
    signs = np.sign(vectors.sum(1) + 1e-300)  # of no meaning, but the same every time
    vectors = (signs[:, None] * vectors * (mass > 0))[descending]
    return torch.from_numpy(values[descending] ** 2), torch.from_numpy(vectors.T.copy())


def _probabilities(A: Any) -> scipy.sparse.csr_array:
    content = A.numpy(force=True) if isinstance(A, Tensor) else A
    matrix = scipy.sparse.csr_array(content, dtype=np.float64)
    if (matrix.data < 0).any() or not np.allclose(matrix.sum(1), 1):
        rule = "probabilities, rows that sum to 1"
        raise ValueError(f"A must hold {rule}, got some that do not: pass masses of cells")
    return matrix
