"""Files appear whole or not at all, are on the disk when they do, and leave nothing behind."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sscl_core import files


def test_a_text_is_replaced_whole(tmp_path):
    path = tmp_path / "a" / "b.txt"
    files.write_text(path, "one")
    files.write_text(path, "τ\n")
    assert path.read_bytes() == "τ\n".encode()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyError("x"), KeyboardInterrupt()]
)
def test_what_fails_leaves_the_old_content_and_no_part(error, tmp_path):
    path = tmp_path / "b.txt"
    files.write_text(path, "old")

    def fail_halfway():
        with files.writing(path) as part:
            part.write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(type(error)) as raised:
        fail_halfway()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(error, OSError):
        assert raised.value.errno == errno.ENOSPC
        assert str(raised.value).endswith(
            f"{path} could not be written, and is as it was: No space left on device"
        )


def test_a_full_disk_is_named_whoever_writes(tmp_path):
    """For real: a process that may write files of 1000 bytes at most."""
    script = f"""
import resource, signal
from pathlib import Path
import numpy as np
from sscl_core import files
from sscl_core.config import MLP, Mixture, TrainConfig
from sscl_core.train import train
from sscl_experiments import store
from sscl_experiments.runs.mixture import mixture

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
root = Path({str(tmp_path)!r})
config = TrainConfig(data=Mixture(steps_per_epoch=1), backbone=MLP(), epochs=2)
attempts = (
    lambda: train(config, mixture(config.data), checkpoint=root / "run.pt", checkpoint_seconds=0),
    lambda: store.save(root / "runs", [store.Record(config, {{}}, {{"x": np.random.rand(9999)}})]),
    lambda: files.write_text(root / "table.csv", 9999 * "x"),
)
for attempt in attempts:
    try:
        attempt()
    except OSError as error:
        print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=with_package()
    )
    assert run.stdout.splitlines() == [
        f"[Errno 27] {tmp_path / name} could not be written, and is as it was: File too large"
        for name in ("run.pt", "runs", "table.csv")
    ], run.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


def with_package() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])}


def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: order.append(Path(os.readlink(f"/proc/self/fd/{descriptor}"))),
    )
    rename = Path.rename
    monkeypatch.setattr(
        Path, "rename", lambda self, target: (order.append("rename"), rename(self, target))
    )
    files.write_text(tmp_path / "x", "content")
    part, name, folder = order
    assert part.name.startswith(".x.")
    assert (name, folder) == ("rename", tmp_path)


def test_old_parts_are_swept_and_fresh_ones_left(tmp_path):
    old, fresh, folder = (tmp_path / name for name in (".x.1.part", ".x.2.part", ".y.3.part"))
    old.write_text("half", encoding="utf-8")
    fresh.write_text("half", encoding="utf-8")
    folder.mkdir()
    (folder / "record.json").write_text("half", encoding="utf-8")
    for path in (old, folder):
        os.utime(path, (0, 0))
    files.write_text(tmp_path / "z", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.2.part", "z"]
