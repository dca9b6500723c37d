"""Self-supervised contrastive learning as stochastic neighbor embedding: losses, affinities, experiments."""

__version__ = "0.1.0"
