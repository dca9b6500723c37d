"""What features learn of the augmentation graph, and of its density ratio; maps of images."""

from sscl_experiments.study import Study

from .claims import CLAIMS
from .parameters import AugmentationGraph

STUDY = Study("07_augmentation_graph", AugmentationGraph, CLAIMS)
