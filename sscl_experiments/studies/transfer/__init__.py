"""Features on other images than they were learned on: SimCLR, MoCo, their t forms. (C12, C13)"""

from sscl_experiments.study import Study

from .claims import CLAIMS
from .parameters import Transfer

STUDY = Study("06_transfer", Transfer, CLAIMS)
