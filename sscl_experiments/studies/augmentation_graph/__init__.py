"""Features and the eigenvectors of the augmentation graph; losses as one family; maps."""

from sscl_experiments.study import Study

from .parameters import AugmentationGraph

STUDY = Study("07_augmentation_graph", AugmentationGraph)
