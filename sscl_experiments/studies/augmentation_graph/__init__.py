"""What features learn of the augmentation graph; the forces of twelve losses; maps of images."""

from sscl_experiments.study import Study

from .parameters import AugmentationGraph

STUDY = Study("07_augmentation_graph", AugmentationGraph)
