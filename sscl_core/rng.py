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

    The states that the generators had come back after it. `torch.manual_seed` would note the whole
    stack for every kind of device that is not there: a hundred times the cost of the seeding.
    """
    seed = int(np.random.SeedSequence(name).generate_state(1, np.uint64)[0])
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        yield torch.default_generator.manual_seed(seed)
