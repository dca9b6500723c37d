"""Tables of records."""

import pandas as pd
import pytest
import torch

from sscl_core.config import Images, TrainConfig
from sscl_experiments.frames import (
    by_seed,
    frame_by,
    images_as_rows,
    recorded_claims,
    with_interval,
)
from sscl_experiments.record import Record
from sscl_experiments.runs.images import image_sets


def scored(seed, **metrics):
    return Record(TrainConfig(seed=seed), metrics)


def test_frame_by_has_a_row_a_record_and_the_parts_of_its_key():
    records = {
        ("a", 0.5): [scored(0, loss=1.0), scored(7, loss=2.0)],
        ("b", 0.1): [scored(3, loss=3.0, gap=4.0)],
        ("c", 0.2): [],
    }
    table = frame_by(records, ["name", "scale"])
    assert list(table.columns) == ["name", "scale", "seed", "loss", "gap"]
    assert table[["name", "scale", "seed", "loss"]].to_numpy().tolist() == [
        ["a", 0.5, 0, 1.0],
        ["a", 0.5, 7, 2.0],
        ["b", 0.1, 3, 3.0],
    ]
    assert table.gap.isna().tolist() == [True, True, False]


@pytest.mark.parametrize("names", [["name"], ["name", "scale", "more"]])
def test_frame_by_asks_for_a_name_for_each_part_of_a_key(names):
    with pytest.raises(ValueError, match="zip"):
        frame_by({("a", 0.5): [scored(0)]}, names)


def test_an_interval_is_three_columns():
    row = with_interval("gain", (0.25, 0.1, 0.4))
    assert list(row.items()) == [("gain", 0.25), ("95 % low", 0.1), ("95 % high", 0.4)]


def test_a_column_by_seed_is_of_the_rows_asked_for():
    table = pd.DataFrame(
        {"a": [1, 1, 2], "b": ["x", "y", "x"], "seed": [4, 4, 5], "score": [0.1, 0.2, 0.3]}
    )
    assert by_seed(table, "score", b="x").to_dict() == {4: 0.1, 5: 0.3}
    assert by_seed(table, "score", a=1, b="y").to_dict() == {4: 0.2}


def test_recorded_claims_are_a_row_each():
    outcome = {"estimate": 0.5, "low": 0.4, "high": 0.6, "n": 5, "verdict": "mixed"}
    claims = [{"claim": {"id": name}, "values": [], **outcome} for name in ("C1", "C2")]
    table = recorded_claims({"claims": claims})
    assert table.to_dict("records") == [{"claim": name, **outcome} for name in ("C1", "C2")]


def test_images_as_rows_are_the_runs_own():
    config = TrainConfig(data=Images(n_train=32, holdout=0.02))
    x, y, x_test, y_test = images_as_rows(config)
    sets = image_sets(config)
    assert (x.shape, x_test.shape) == ((32, 784), (len(sets.test), 784))
    assert torch.equal((x * 255).round().byte(), sets.train.images.flatten(1))
    assert torch.equal((x_test * 255).round().byte(), sets.test.images.flatten(1))
    assert torch.equal(y, sets.train.labels)
    assert torch.equal(y_test, sets.test.labels)
