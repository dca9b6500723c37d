"""Tables of records."""

import pytest

from sscl_core.config import TrainConfig
from sscl_experiments.frames import frame_by
from sscl_experiments.record import Record


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
