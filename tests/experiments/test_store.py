"""Keys follow meaning; records appear whole or not at all."""

import errno
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sscl_core.config import MLP, InfoNCE, Mixture, TrainConfig, TSimCLR
from sscl_experiments import flock, store
from sscl_experiments.record import Record


def record(**arrays):
    return Record(
        TrainConfig(seed=3),
        {"accuracy": 0.5},
        {k: np.asarray(v) for k, v in arrays.items()},
        {"date": "today"},
    )


def test_round_trip(tmp_path):
    assert store.load(tmp_path, TrainConfig(seed=3)) is None
    store.save(tmp_path, [record(x=[1.0, 2.0])])
    found = store.load(tmp_path, TrainConfig(seed=3))
    assert found is not None
    assert found.metrics == {"accuracy": 0.5}
    assert found.provenance == {"date": "today"}
    assert np.array_equal(found.arrays["x"], [1.0, 2.0])
    content = json.loads(
        (tmp_path / store.run_key(TrainConfig(seed=3)) / "record.json").read_text(encoding="utf-8")
    )
    assert content["schema"] == store.SCHEMA
    (identity,) = store.identities(tmp_path)
    assert identity == store.identity(TrainConfig(seed=3))
    assert identity.key == content["key"]
    assert TrainConfig.model_validate_json(json.dumps(content["config"])) == TrainConfig(seed=3)


def test_keys_differ_by_configuration_code_and_release(monkeypatch):
    base = TrainConfig()
    key = store.run_key(base)
    others = [
        TrainConfig(seed=1),
        TrainConfig(loss=InfoNCE(temperature=0.4)),
        TrainConfig(loss=TSimCLR(df=float("inf"))),
    ]
    assert len({key, *map(store.run_key, others)}) == 4
    assert store.run_key(TrainConfig()) == key
    monkeypatch.setattr(store, "release", lambda name: "0")
    assert store.run_key(base) != key
    monkeypatch.undo()
    monkeypatch.setattr(store, "code_hash", lambda root: "other")
    assert store.run_key(base) != key


def test_the_first_of_two_writers_wins_and_nothing_is_left_behind(tmp_path):
    store.run_key(
        TrainConfig(seed=3)
    )  # or the threads parse the code at once, which Python 3.11 cannot
    writers = [
        threading.Thread(target=store.save, args=(tmp_path, [record(x=np.full(1000, i))]))
        for i in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [path.name for path in tmp_path.iterdir()] == [store.run_key(TrainConfig(seed=3))]
    x = store.load(tmp_path, TrainConfig(seed=3)).arrays["x"]
    assert (x == x[0]).all()


def test_a_record_that_could_not_be_written_is_not_there(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        store.save(tmp_path, [record(x=[1])])
    assert store.load(tmp_path, TrainConfig(seed=3)) is None


def test_a_folder_that_cannot_be_moved_is_an_error(tmp_path, monkeypatch):
    def fail(self, target):
        raise OSError("no")

    monkeypatch.setattr(store.Path, "rename", fail)
    with pytest.raises(OSError, match="no"):
        store.save(tmp_path, [record(x=[1])])
    assert list(tmp_path.iterdir()) == []


def in_place(root):
    """The folder of that record."""
    return root / store.run_key(TrainConfig(seed=3))


@pytest.mark.parametrize("name", ["record.json", "arrays.npz"])
@pytest.mark.parametrize("content", [b"", b"{}", b"garbage", b"\xff", 9999 * b"[", None])
def test_a_damaged_record_is_named_and_made_again(name, content, tmp_path):
    store.save(tmp_path, [record(x=[1.0])])
    folder = in_place(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    assert not store.intact(tmp_path, folder.name)
    with pytest.warns(UserWarning, match="is damaged, and the run is made again") as warning:
        assert store.load(tmp_path, TrainConfig(seed=3)) is None
    assert str(folder) in str(warning[0].message)
    store.save(tmp_path, [record(x=[2.0])])
    assert store.load(tmp_path, TrainConfig(seed=3)).arrays["x"] == 2


def test_no_flipped_bit_gives_another_number(tmp_path):
    """Of the values; white space is no value."""
    store.save(tmp_path, [record(x=np.arange(50.0))])
    folder = in_place(tmp_path)
    for name in ("record.json", "arrays.npz"):
        sound = (folder / name).read_bytes()
        for at in range(len(sound)):
            flipped = bytearray(sound)
            flipped[at] ^= 1
            (folder / name).write_bytes(flipped)
            if store.intact(tmp_path, folder.name):
                assert json.loads(flipped) == json.loads(sound)
        (folder / name).write_bytes(sound)
    assert store.intact(tmp_path, folder.name)


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": None},
        {"metrics": {"accuracy": math.nan}},
        {"metrics": {"accuracy": 0.6}},
        {"schema": store.SCHEMA + 1},
        {"checksum": None},
    ],
    ids=str,
)
def test_a_record_with_other_values_is_damaged(change, tmp_path):
    store.save(tmp_path, [record(x=[1.0])])
    path = in_place(tmp_path) / "record.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8"
    )
    with pytest.warns(UserWarning, match="is damaged"):
        assert store.load(tmp_path, TrainConfig(seed=3)) is None


def test_a_record_of_another_schema_says_so(tmp_path, monkeypatch):
    store.save(tmp_path, [record(x=[1.0])])
    monkeypatch.setattr(store, "SCHEMA", 9)
    with pytest.warns(UserWarning, match="it has schema 1, this code reads 9"):
        assert store.load(tmp_path, TrainConfig(seed=3)) is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_no_number_is_not_kept(value, tmp_path):
    with pytest.raises(ValueError, match=f"metric accuracy is {value}"):
        store.save(tmp_path, [replace(record(), metrics={"accuracy": value})])
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_another_run_is_not_taken(tmp_path):
    store.save(tmp_path, [record(x=[1.0])])
    in_place(tmp_path).rename(tmp_path / store.run_key(TrainConfig(seed=4)))
    with pytest.warns(UserWarning, match="it holds another run"):
        assert store.load(tmp_path, TrainConfig(seed=4)) is None


def test_records_are_on_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(os, "sync", lambda: order.append("sync"))
    rename = Path.rename
    monkeypatch.setattr(
        Path, "rename", lambda self, target: (order.append("rename"), rename(self, target))
    )
    store.save(tmp_path, [record(), replace(record(), config=TrainConfig(seed=4))])
    assert order == ["sync", "rename", "rename", "sync"]


# --- locks ---------------------------------------------------------------------------------------


def toy(seed: int = 0, **changes) -> TrainConfig:
    return TrainConfig(data=Mixture(), backbone=MLP(), seed=seed, **changes)


OTHER_PROCESS = """
import sys
import time
from pathlib import Path
from sscl_core.config import TrainConfig
from sscl_experiments import store

root, config, wait = sys.argv[1:]
print("asking", flush=True)
with store.lock(Path(root), TrainConfig.model_validate_json(config), wait=wait == "wait") as ours:
    print(ours, time.time(), sep="\\n", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def other_process(
    root: Path, config: TrainConfig, *, wait: bool = False
) -> Iterator[subprocess.Popen]:
    """One that asks for the lock, says what it got, and keeps it until it is told to go on."""
    command = [
        sys.executable,
        "-c",
        OTHER_PROCESS,
        str(root),
        config.model_dump_json(),
        "wait" if wait else "",
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(store.__file__).parents[1])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout.readline() == "asking\n"
            yield process
        finally:
            process.kill()


def taken(root: Path, config: TrainConfig) -> bool:
    with store.lock(root, config, wait=False) as ours:
        return not ours


def test_a_lock_is_one_processs_at_a_time(tmp_path):
    root = tmp_path / "runs"
    assert not taken(root, toy())
    with other_process(root, toy()) as other:
        assert other.stdout.readline() == "True\n"
        assert taken(root, toy())
        with other_process(root, toy()) as third:
            assert third.stdout.readline() == "False\n", "without waiting"
        other.communicate("go on\n", timeout=30)
        assert other.returncode == 0
    assert not taken(root, toy())
    assert not root.exists(), "locks lie beside the runs"


def test_who_waits_gets_the_lock_when_it_is_free(tmp_path):
    root = tmp_path / "runs"
    with ExitStack() as stack:
        with store.lock(root, toy(), wait=True) as ours:
            assert ours
            other = stack.enter_context(other_process(root, toy(), wait=True))
            time.sleep(0.3)
            released = time.time()
        assert other.stdout.readline() == "True\n"
        assert float(other.stdout.readline()) >= released
        assert taken(root, toy())


def test_a_killed_process_lets_go_of_its_lock(tmp_path):
    root = tmp_path / "runs"
    with other_process(root, toy()) as other:
        assert other.stdout.readline() == "True\n"
        assert taken(root, toy())
        other.kill()
        with store.lock(root, toy(), wait=True) as ours:
            assert ours


def test_an_error_lets_go_of_the_lock(tmp_path):
    with suppress(KeyError), store.lock(tmp_path / "runs", toy(), wait=False) as ours:
        assert ours
        raise KeyError
    assert not taken(tmp_path / "runs", toy())


def test_a_lock_is_of_one_run_and_one_folder(tmp_path):
    root = tmp_path / "runs"
    with store.lock(root, toy(1), wait=False) as ours:
        assert ours
        assert taken(root, toy(1))
        assert not any(
            taken(root, other) for other in (toy(2), toy(1, epochs=1), TrainConfig(seed=1))
        )
        assert not taken(tmp_path / "elsewhere" / "runs", toy(1))


def test_where_there_are_no_locks_every_process_may_work(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(flock.fcntl, "flock", unsupported)
    with store.lock(tmp_path / "runs", toy(), wait=False) as ours:
        assert ours
