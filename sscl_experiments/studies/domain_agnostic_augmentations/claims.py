"""The claims of the notebook, each with a rule fixed before the run."""

from sscl_experiments.claims import Claim

NOTE = "reading note, section 3"
CLAIMS = (
    Claim(
        id="C3",
        sentence=(
            "Isotropic noise makes similarity a function of ℓ2 distance: training with it is SNE "
            "on the analytic P of the noise."
        ),
        source=NOTE,
        estimand=(
            "KL to the noise's P / (p p') of the trained map, over the least of that of the input, "
            "the untrained network and a network trained with mixup; noise of twice the "
            "components' standard deviation"
        ),
        direction="at most",
        threshold=0.75,
    ),
    Claim(
        id="C4a",
        sentence=(
            "Mixup follows the span of the means of separated components, where isotropic noise "
            "spends itself on all d dimensions."
        ),
        source=NOTE,
        estimand=(
            "share of a perturbation's energy in that span, mixup over isotropic noise; the least "
            "over the clouds in which the premise holds"
        ),
        direction="at least",
        threshold=1.25,
    ),
    Claim(
        id="C4b",
        sentence="Mixup therefore gives more accurate features than isotropic noise.",
        source="ours: a reading of C4a",
        estimand=(
            "10-NN accuracy on h, mixup minus noise, each at the strength best in validation; mean "
            "over the clouds in which the premise of C4a holds"
        ),
        direction="at least",
        threshold=0.01,
    ),
    Claim(
        id="C4c",
        sentence=(
            "Where mixup beats isotropic noise its second moments do it, not interpolation: noise "
            "with the covariance of the data does as well."
        ),
        source="ours",
        estimand=(
            "10-NN accuracy on h, noise of the data's covariance minus mixup, each at the strength "
            "best in validation; mean over two clouds with five wide nuisances"
        ),
        direction="at least",
        threshold=-0.01,
    ),
)
