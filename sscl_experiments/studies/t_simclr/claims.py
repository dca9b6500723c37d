"""The claims of the notebook. What decides them is fixed in METHOD.md beside the records."""

from sscl_experiments.claims import Claim

CLAIMS = (
    Claim(
        id="C10",
        sentence="t-SimCLR needs far fewer feature dimensions than SimCLR for the same accuracy.",
        source="recollection: a hypothesis here",
        estimand=(
            "octaves (log2) in d_z between the mean curves of cosine and Student's t at equal "
            "15-NN accuracy on z, over seeds and test images; decided on CIFAR-10 after 30 epochs, "
            "if those of 10 agree"
        ),
        direction="at least",
        threshold=2.0,
    ),
    Claim(
        id="C11",
        sentence="t-SimCLR improves in-distribution accuracy.",
        source="abstract",
        estimand=(
            "linear probe on h, Student's t minus cosine, paired by seed and test image; decided "
            "on CIFAR-10 at d_z = 64 after 30 epochs, if those of 10 agree; replicates if the "
            "interval also reaches half a point, and fails if all of it is below half a point"
        ),
        direction="at least",
        threshold=0.0,
    ),
)
