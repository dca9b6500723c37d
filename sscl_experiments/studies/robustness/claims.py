"""The claim of the notebook, with a rule fixed before the run that decides it."""

from sscl_experiments.claims import Claim

# The best of the nulls is subtracted too. So pixels and an untrained network have 0 at most, and
# cannot reach a threshold above it. Both metrics count alike for every method, so that neither a
# change of metric nor of scale can pass.
CLAIMS = (
    Claim(
        id="C8",
        sentence=(
            "The spherical constraint of cosine similarity harms features away from the training "
            "data; dropping it helps."
        ),
        source="that the paper analyses robustness: abstract; the statement: a hypothesis here",
        estimand=(
            "10-NN accuracy on h (mean of both metrics) over corrupted test images, t-SimCLR minus "
            "the best of SimCLR, the untrained network and raw pixels, by seed"
        ),
        direction="at least",
        threshold=0.005,
    ),
)
