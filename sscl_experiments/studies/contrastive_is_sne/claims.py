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
    ),
    Claim(
        id="C2",
        sentence=(
            "SimCLR on the mixture nearly attains alignment and uniformity: polygon on the circle, "
            "simplex in d_z ≥ m-1."
        ),
        source="reading note, section 3",
        estimand=(
            "share of the way from a collapsed network to the exact minimiser that is left of the "
            "loss; the worse of d_z 2 and 4"
        ),
        direction="at most",
        threshold=0.05,
    ),
)
