"""Is InfoNCE the objective of SNE, and what does training with it reach? (C1, C2)"""

from sscl_experiments.study import Study

from .claims import CLAIMS
from .parameters import ContrastiveIsSNE

STUDY = Study("01_contrastive_is_sne", ContrastiveIsSNE, CLAIMS)
