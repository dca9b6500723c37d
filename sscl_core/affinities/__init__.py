"""Who is a neighbor of whom: the P that an augmentation specifies, in float64 and on the CPU.

- Perplexity: `perplexity_matched` (SNE, t-SNE), and `sparse_perplexity_matched` for many points.
- Densities: `log_noise`, `log_mixup`, `log_masking`, `log_corruption` give log a(x'_j | x_i), rows
  anchors and columns views. From these `one_view` (a clean anchor and a view of it) or `two_views`
  (two views of an anchor) make P; `positive_pairs` is the P of a contrastive batch.
- Masses: `noise_masses` and `mixup_masses` exactly, and `empirical_masses` by Monte Carlo from any
  augmentation, give the probability A_ij that a view of anchor i falls into cell j; `spectrum`
  decomposes the augmentation graph Aᵀ A.

Errors, the same for every function here: `TypeError` for what is no tensor, or none of
floating-point numbers where a distance is taken; `ValueError` for points that are not finite or not
of shape (n, d), and for settings out of range, which each function names.
Numbers are real ones of any kind (Python's, NumPy's, fractions) or tensors of one element; counts
are whole numbers. `TypeError` for what is none.
"""

from .densities import log_corruption, log_masking, log_mixup, log_noise
from .masses import box_cells, empirical_masses, mixup_masses, nearest_cells, noise_masses
from .noise import Kind
from .perplexity import SparseAffinity, perplexity_matched, sparse_perplexity_matched
from .spectrum import spectrum
from .views import one_view, positive_pairs, two_views

__all__ = [
    "Kind",
    "SparseAffinity",
    "box_cells",
    "empirical_masses",
    "log_corruption",
    "log_masking",
    "log_mixup",
    "log_noise",
    "mixup_masses",
    "nearest_cells",
    "noise_masses",
    "one_view",
    "perplexity_matched",
    "positive_pairs",
    "sparse_perplexity_matched",
    "spectrum",
    "two_views",
]
