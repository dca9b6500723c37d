"""SimCLR and t-SimCLR: does a heavy tail help? By dimension, length and kernel. (C10, C11)"""

from sscl_experiments.study import Study

from .claims import CLAIMS
from .parameters import TSimCLRFeatures

STUDY = Study("05_t_simclr", TSimCLRFeatures, CLAIMS)
