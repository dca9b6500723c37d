"""The claim of the notebook, with a rule fixed before the run that decides it."""

from sscl_experiments.claims import Claim

# The best of the nulls is subtracted too. So pixels and an untrained network have 0 at most, and
# cannot reach a threshold above it. Every method is read in the metric that suits it better on
# its training images, so that a metric that suits only one of them cannot pass.
CLAIMS = (
    Claim(
        id="C8",
        sentence=(
            "The spherical constraint of cosine similarity harms features away from the training "
            "data; dropping it helps."
        ),
        source="that the paper analyses robustness: abstract; the statement: a hypothesis here",
        estimand=(
            "10-NN accuracy on h over corrupted test images, each method in the metric that is "
            "better between the halves of its training images, t-SimCLR minus the best of SimCLR, "
            "the untrained network and raw pixels, by seed; interval over seeds and images. "
            "Withheld where half the training says otherwise, and where SimCLR or t-SimCLR is "
            "below raw pixels on clean images"
        ),
        direction="at least",
        threshold=0.005,
    ),
)
