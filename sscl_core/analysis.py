"""What notebooks do with runs and their data, beside showing them. Nothing here enters a stored number."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from .config import Images, TrainConfig
from .models import build
from .store import Record
from .train import INIT, source, stream, train_and_test_images


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """A row a record: loss, d_z, epochs, seed, then every metric."""
    return pd.DataFrame(
        {"loss": r.config.loss.name, "d_z": r.config.projector.dim, "epochs": r.config.epochs, "seed": r.config.seed, **r.metrics}
        for r in records
    )


def first_batch(config: TrainConfig, n: int, *, data_dir: str | Path | None = None) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """What the first step of a run compares: the features, in float64, of n pairs of views by the network as it is initialised."""
    config = config.model_copy(update={"batch_size": n})
    data = source(config, data_dir, torch.device("cpu"))
    with stream(config.seed, INIT):
        network = build(config, data.sample_shape).double()
    x1, x2 = next(data.batches(0))
    z1, z2 = network(torch.cat([x1, x2]).double())[1].detach().chunk(2)
    return z1, z2


def images_as_rows(config: TrainConfig, data_dir: str | Path | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels in [0, 1] as rows, with labels, of the images a run trains on and is evaluated on: the raw baseline."""
    assert isinstance(config.data, Images)
    parts = train_and_test_images(config, data_dir)
    (x, y), (x_test, y_test) = ((part.images.flatten(1).float() / 255, part.labels) for part in parts)
    return x, y, x_test, y_test
