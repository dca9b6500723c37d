"""SimCLR with weighted positive pairs: does the overlap of the crops say which to trust? (C9)"""

from sscl_experiments.study import Study

from .claims import CLAIMS
from .parameters import WeightedPairs

STUDY = Study("10_weighted_pairs", WeightedPairs, CLAIMS)
