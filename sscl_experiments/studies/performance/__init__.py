"""How fast are the losses and what surrounds them, and how much memory do they need?"""

from sscl_experiments.study import Study

from .parameters import Performance

STUDY = Study("12_performance", Performance)
