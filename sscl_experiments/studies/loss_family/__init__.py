"""Twelve contrastive losses as (P, similarity, divergence), and their forces."""

from sscl_experiments.study import Study

from .parameters import LossFamily

STUDY = Study("08_loss_family", LossFamily)
