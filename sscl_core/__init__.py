"""Contrastive learning as stochastic neighbor embedding: losses, affinities, training."""

__version__ = "0.1.0"
