"""The claims of the notebook, each with a rule fixed before the run."""

from sscl_experiments.claims import Claim

CLAIMS = (
    Claim(
        id="C1",
        sentence="InfoNCE is the SNE objective on the augmented set, in value and in gradient.",
        source="abstract; reading note, section 2",
        estimand=(
            "largest relative difference of value or gradient between the two objectives, over all "
            "losses and batches of a seed"
        ),
        direction="at most",
        threshold=1e-10,
        worst=True,
    ),
    Claim(
        id="C2",
        sentence=(
            "SimCLR on the mixture nearly attains alignment and uniformity: polygon on the circle, "
            "simplex in d_z ≥ m-1."
        ),
        source="reading note, section 3",
        estimand=(
            "largest error of an angle between components, or root mean square angle between two "
            "views if that is larger, as a share of the exact angle between neighbors; the worst "
            "of m = 3, 5, 8 components, on the circle and in m-1 dimensions"
        ),
        direction="at most",
        threshold=0.05,
    ),
)
