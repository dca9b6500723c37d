"""SimCLR and t-SimCLR: dimensions, accuracy, weighted pairs. (C9, C10, C11)"""

from sscl_experiments.study import Study

from .claims import CLAIMS
from .parameters import TSimCLRFeatures

STUDY = Study("05_t_simclr", TSimCLRFeatures, CLAIMS)
