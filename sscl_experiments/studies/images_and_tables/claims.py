"""The claim of the notebook, with a rule fixed before the run."""

from sscl_experiments.claims import Claim

CLAIMS = (
    Claim(
        id="B5",
        sentence=(
            "Features learned without labels from a table of measured columns classify better than "
            "the columns themselves."
        ),
        source="ours",
        estimand=(
            "linear probe on the test part, augmentation, strength and budget best in validation "
            "(by 10-NN on h), minus the probe on raw standardised columns; mean over the tables"
        ),
        direction="at least",
        threshold=0.005,
    ),
)
