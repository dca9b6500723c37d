"""Runs that differ from a given one in one respect."""

from sscl_core.config import TrainConfig
from sscl_experiments.variants import untrained, with_seeds


def test_runs_with_seeds_differ_in_nothing_else():
    runs = with_seeds(TrainConfig(epochs=3, batch_size=8), range(5, 8))
    assert [run.seed for run in runs] == [5, 6, 7]
    assert {run.replace(seed=0) for run in runs} == {TrainConfig(epochs=3, batch_size=8)}


def test_untrained_copies_are_the_same_networks_after_no_epoch():
    runs = with_seeds(TrainConfig(epochs=3, batch_size=8), (1, 4))
    assert untrained(runs) == with_seeds(TrainConfig(epochs=0, batch_size=8), (1, 4))
