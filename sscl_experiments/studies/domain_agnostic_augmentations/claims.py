"""The claims of the notebook, each with a rule fixed before the run."""

from sscl_experiments.claims import Claim

CLAIMS = (
    Claim(
        id="C3",
        sentence=(
            "Isotropic noise makes similarity a function of ℓ2 distance: training with it is SNE "
            "on the analytic P of the noise."
        ),
        source="reading note, section 3",
        estimand=(
            "rank correlation of distances, trained map against SNE's on the analytic P; noise of "
            "twice the components' standard deviation"
        ),
        direction="at least",
        threshold=0.9,
    ),
    Claim(
        id="C4",
        sentence=(
            "Mixup follows the span of the means, noise spends itself on all d dimensions (so "
            "mixup should give better features)."
        ),
        source="reading note, section 3, on the density; its reading as accuracy is ours",
        estimand=(
            "10-NN accuracy on h, mixup minus noise, each at the strength best in validation; mean "
            "over the isotropic clouds"
        ),
        direction="at least",
        threshold=0.0,
    ),
)
