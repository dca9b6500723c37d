"""The claims of the notebook, each with a rule fixed before the run."""

from sscl_experiments.claims import Claim

CLAIMS = (
    Claim(
        id="C5",
        sentence=(
            "Of the orders that a square allows, training picks the one in which neighbors on the "
            "line stay neighbors."
        ),
        source="recollection: a hypothesis here",
        estimand=(
            "1 if the four components end in the order of the line, every gap at least half a "
            "right angle, else 0; by chance 1/3"
        ),
        direction="at least",
        threshold=0.9,
        rate=True,
    ),
    Claim(
        id="C6",
        sentence=(
            "Among uniform arrangements the order-preserving one has the smallest expected "
            "Lipschitz constant."
        ),
        source="recollection: a hypothesis here",
        estimand=(
            "(best other order - natural) / natural, all enumerated; smallest over m = 4…9 points, "
            "spaced at random"
        ),
        direction="at least",
        threshold=0.0,
    ),
    Claim(
        id="C7",
        sentence=(
            "On images, without labels, classes that are close in meaning have features more alike "
            "than others."
        ),
        source="recollection: a hypothesis here",
        estimand=(
            "SimCLR's backbone: similarity within groups minus across, less its 95th percentile "
            "over all groupings of these sizes"
        ),
        direction="at least",
        threshold=0.0,
    ),
)
