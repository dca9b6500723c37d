"""Robustness: unseen components, corrupted, attacked and foreign images. (C8)"""

from sscl_experiments.study import Study

from .claims import CLAIMS
from .parameters import Robustness

STUDY = Study("04_robustness", Robustness, CLAIMS)
