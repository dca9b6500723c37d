"""Noise, mixup, masking and corruption on real images and tables, and a guide. (B5)"""

from sscl_experiments.study import Study

from .claims import CLAIMS
from .parameters import ImagesAndTables

STUDY = Study("11_images_and_tables", ImagesAndTables, CLAIMS)
