"""Why training keeps the order of the data, though the loss does not ask for it. (C5, C6, C7)"""

from sscl_experiments.study import Study

from .claims import CLAIMS
from .parameters import ImplicitBias

STUDY = Study("03_implicit_bias", ImplicitBias, CLAIMS)
