"""The claims of the notebook, each with a rule fixed before the run.

Why these rules: what an untrained network, raw pixels, free vectors or the loss alone give must not
pass. C5: networks that are in order before training are left out, so that the order which the
input's offset gives away counts for nothing; chance is 1/3, the threshold twice that. C6b: what
minimises C leaves a rougher square whatever the step size. C7: a correlation does not grow with the
spread of similarities, and what the pixels or the untrained network have is taken off: both score
at most 0.
"""

from sscl_experiments.claims import Claim

RECOLLECTION = "recollection: a hypothesis here"

CLAIMS = (
    Claim(
        id="C5",
        sentence=(
            "Of the orders that a square allows, training picks the one in which neighbors on the "
            "line stay neighbors."
        ),
        source=RECOLLECTION,
        estimand=(
            "of the networks that are in another order before training: 1 if the four components "
            "end in the order of the line, every gap at least half a right angle, else 0; by "
            "chance 1/3"
        ),
        direction="at least",
        threshold=2 / 3,
        rate=True,
    ),
    Claim(
        id="C6",
        sentence=(
            "Among uniform arrangements the order-preserving one has the smallest expected "
            "Lipschitz constant."
        ),
        source=RECOLLECTION,
        estimand=(
            "(best other order - natural) / natural, all enumerated; the smallest over m = 4…9 "
            "points, spaced at random; above rounding"
        ),
        direction="at least",
        threshold=1e-12,
        worst=True,
    ),
    Claim(
        id="C6b",
        sentence=(
            "Training minimises that constant: from a rougher square, which its loss allows too, "
            "it goes to the smoothest."
        ),
        source="ours: what would link C6 to C5",
        estimand=(
            "of networks that begin at the square in the order ACBD and are trained with a fifth "
            "of the base step size for five times its steps: 1 if they end in the order of the "
            "line, else 0"
        ),
        direction="at least",
        threshold=0.9,
        rate=True,
    ),
    Claim(
        id="C7",
        sentence=(
            "On images, without labels, training makes the features of classes that are close in "
            "meaning more alike than those of others."
        ),
        source=RECOLLECTION,
        estimand=(
            "SimCLR's backbone: correlation, over pairs of classes, of similarity with being of "
            "one group; minus that of its own untrained network or of the raw pixels, whichever "
            "is larger"
        ),
        direction="at least",
        threshold=0.02,
    ),
)
