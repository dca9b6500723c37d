"""Named streams: reproducible, apart from each other, and without a trace outside their block."""

import contextlib
import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from sscl_core.rng import EVALUATION, INIT, ORDER, SAMPLE, SPLIT, VIEWS, stream

PURPOSES = (INIT, ORDER, VIEWS, SAMPLE, SPLIT)
# As they are used: those of one purpose have one length. NumPy's hash takes a name with zeros at
# its end for the name without them.
NAMES = [
    *itertools.product(range(5), (INIT, SPLIT)),
    *itertools.product(range(5), (ORDER, SAMPLE), range(5)),
    *itertools.product(range(5), (VIEWS,), (*range(5), EVALUATION), range(5)),
    (2**40, INIT),
]


def drawn(*name: int, n: int = 8) -> torch.Tensor:
    with stream(*name):
        return torch.rand(n, dtype=torch.float64)


def test_a_stream_is_torchs_generator_seeded_by_numpys_hash_of_the_name():
    seed = int(np.random.SeedSequence((3, VIEWS, 7)).generate_state(1, np.uint64)[0])
    expected = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(drawn(3, VIEWS, 7), expected)


def test_the_generator_handed_out_is_the_global_one():
    with stream(1, INIT) as generator:
        first, second = torch.rand(4, generator=generator), torch.rand(4)
    with stream(1, INIT):
        both = torch.rand(4), torch.rand(4)
    assert torch.equal(torch.stack(both), torch.stack((first, second)))


def test_a_draw_depends_on_its_name_alone():
    expected = {name: drawn(*name) for name in NAMES}
    torch.manual_seed(99)
    for name in reversed(NAMES):
        torch.rand(3)
        assert torch.equal(drawn(*name), expected[name])


def test_every_name_has_draws_of_its_own():
    """Also one that has the numbers of another in another order."""
    draws = {drawn(*name, n=1).item() for name in NAMES}
    assert len(draws) == len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("shift", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["seed", "use", "epoch"])
def test_neighboring_streams_are_uncorrelated(shift):
    """P-values of rank correlations of 200 pairs of streams are uniform.

    And the first draws of 1,000 of them.
    """
    p_values = []
    for name in itertools.product(range(20), (ORDER,), range(10)):
        other = tuple(a + b for a, b in zip(name, shift, strict=True))
        p_values.append(stats.spearmanr(drawn(*name, n=500), drawn(*other, n=500)).pvalue)
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    firsts = [drawn(i, ORDER, i % 7, n=1).item() for i in range(1001)]
    assert stats.kstest(firsts, "uniform").pvalue > 1e-3
    assert stats.spearmanr(firsts[1:], firsts[:-1]).pvalue > 1e-3


def test_the_global_state_is_as_it_was_after_the_block():
    torch.manual_seed(5)
    expected = torch.rand(6)
    torch.manual_seed(5)
    first = torch.rand(3)
    with stream(0, INIT):
        torch.rand(17)
        with stream(0, ORDER):
            torch.rand(2)
    assert torch.equal(torch.cat([first, torch.rand(3)]), expected)


def test_a_stream_within_a_stream_does_not_shift_it():
    with stream(0, INIT):
        before = torch.rand(3, dtype=torch.float64)
        drawn(0, ORDER)
        after = torch.rand(5, dtype=torch.float64)
    assert torch.equal(torch.cat([before, after]), drawn(0, INIT))


def test_the_global_state_comes_back_after_an_error():
    before = torch.get_rng_state()
    with contextlib.suppress(KeyError), stream(0, INIT):
        assert not torch.equal(torch.get_rng_state(), before)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_is_no_epoch_and_purposes_are_distinct():
    assert len(set(PURPOSES)) == 5
    assert not torch.equal(drawn(0, VIEWS, EVALUATION), drawn(0, VIEWS, EVALUATION - 1))
    assert EVALUATION >= 2**31
