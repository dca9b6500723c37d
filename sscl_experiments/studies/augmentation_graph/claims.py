"""The claim of the notebook, with a rule fixed before the run that decides it."""

from sscl_experiments.claims import Claim

CLAIMS = (
    Claim(
        id="B7",
        sentence=(
            "Training brings log s of two views to the log density ratio log P/(p p') that the "
            "augmentation specifies, with slope 1."
        ),
        source="ours: the paper's thesis as one number",
        estimand=(
            "variance of log P/(p p') over partner views that log s leaves at slope 1 "
            "(Gaussian similarity, d_z = 2, noise σ = 0.4), over what the best null leaves at its "
            "best scale: raw input, untrained network, network trained with mixup"
        ),
        direction="at most",
        threshold=0.5,
    ),
)
