"""The claims of the notebook, each with a rule fixed before the run."""

from sscl_experiments.claims import Claim

CLAIMS = (
    Claim(
        id="C9",
        sentence=(
            "Weighting positive pairs by the overlap of their crops, w ∝ exp(IoU/τ'), improves "
            "nearest-neighbor accuracy."
        ),
        source="recollection: a hypothesis here",
        estimand=(
            "15-NN accuracy (cosine) on h of SimCLR, weighted with τ' = 0.3 minus unweighted, "
            "paired by seed"
        ),
        direction="at least",
        threshold=0.0,
    ),
    Claim(
        id="C10",
        sentence="t-SimCLR needs far fewer feature dimensions than SimCLR for the same accuracy.",
        source="recollection: a hypothesis here",
        estimand=(
            "log2 of the smallest d_z with 15-NN on z within a point of SimCLR's at its best d_z: "
            "SimCLR's over t-SimCLR's"
        ),
        direction="at least",
        threshold=2.0,
    ),
    Claim(
        id="C11",
        sentence="t-SimCLR improves in-distribution accuracy.",
        source="abstract",
        estimand=(
            "linear probe on h, t-SimCLR minus SimCLR, paired by seed: d_z = 32, subset (quick); "
            "128, all of Fashion-MNIST (full)"
        ),
        direction="at least",
        threshold=0.0,
    ),
)
