"""What P noise and mixup specify, and which of them gives better features. (C3, C4)"""

from sscl_experiments.study import Study

from .claims import CLAIMS
from .parameters import DomainAgnostic

STUDY = Study("02_domain_agnostic_augmentations", DomainAgnostic, CLAIMS)
