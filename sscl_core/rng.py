"""Named random streams: every draw depends on its name alone, not on what was drawn before it.

So a run that was interrupted goes on exactly as if it had not been, and nothing that runs beside it
can shift it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# The purposes that streams are named by, after the seed.
INIT, ORDER, VIEWS, SAMPLE, SPLIT = range(5)
EVALUATION = 2**31  # as an epoch: none reaches it, so what is evaluated is never trained on


@contextmanager
def stream(*name: int) -> Iterator[torch.Generator]:
    """Seeds torch's global generators by `name` within the block, and yields the CPU one.

    The states that the generators had come back after it.
    """
    seed = np.random.SeedSequence(name).generate_state(1, np.uint64)[0]
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield torch.manual_seed(int(seed))
