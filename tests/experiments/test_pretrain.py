"""Photographs: folders, shards, bad files; two processes do what one does; the whole path in small.

Two processes are started once, under torchrun, on the CPU (gloo).
"""

import io
import itertools
import math
import os
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import two_processes
from PIL import Image

from sscl_core.augmentations import colour_jitter
from sscl_experiments import pretrain
from sscl_experiments.datasets import photos
from sscl_experiments.recipes import RECIPES, Recipe, small

IMAGES = 50


def jpeg(number, size=(40, 30), mode="RGB"):
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    content = io.BytesIO()
    image.save(content, "jpeg")
    return content.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fifty JPEGs of several sizes in two classes, one of them grey."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(IMAGES):
        place = root / ("cats" if number % 2 else "dogs")
        place.mkdir(exist_ok=True)
        size = (20 + number, 60 - number)
        mode = "L" if number == 7 else "RGB"
        (place / f"{number:03}.jpg").write_bytes(jpeg(number, size, mode))
    (root / "notes.txt").write_text("no image", encoding="utf-8")
    return root


def shard(path, numbers, *, also=()):
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            parts = ((".jpg", jpeg(number)), (".cls", b"3"))
            for ending, content in parts:
                _add(tar, f"{number:03}{ending}", content)
        for name, content in also:
            _add(tar, name, content)


def _add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    for number in range(4):
        shard(root / f"part-{number}.tar", range(10 * number, 10 * number + 10))
    return root


# --- views ----------------------------------------------------------------------------------------


def test_a_folder_gives_two_views_of_every_image(folder):
    found = photos.Folder(folder, 24)
    assert len(found) == IMAGES
    view, again = found[0, 3], found[0, 3]
    assert view.pixels.shape == (2, 3, 24, 24)
    assert view.pixels.dtype == torch.uint8
    assert view.pixels.equal(again.pixels)
    assert view.factors.equal(again.factors)
    assert not view.pixels[0].equal(view.pixels[1])
    assert not view.pixels.equal(found[1, 3].pixels), "another epoch, other views"


def test_a_crop_of_everything_is_the_image_resized(monkeypatch):
    image = photos.decode(jpeg(0), "it")
    whole = torch.tensor([[0.0, 0.0, 40.0, 30.0]]).repeat(2, 1)
    monkeypatch.setattr(photos, "random_boxes", lambda *_: whole)
    found = photos.two_views(image, 16).pixels[1]
    expected = np.array(image.resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_what_is_left_to_the_device_is_flip_jitter_and_blur():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 3, 9, 9), generator=generator).byte()
    same = torch.tensor([0.0, 1, 1, 1, 0, 0])
    factors = same.repeat(4, 1)
    factors[1, 0], factors[2, 1:5], factors[3, 5] = 1, torch.tensor([1.2, 0.8, 0.5, 0.1]), 1.5
    found = photos.finished(pixels, factors)
    x = pixels.float() / 255
    assert (found[0] - x[0]).abs().max() < 1e-5
    assert (found[1] - x[1].flip(2)).abs().max() < 1e-5
    jittered = colour_jitter(x[2:3].clone(), *factors[2:3, 1:5].T)[0]
    assert (found[2] - jittered).abs().max() < 1e-5
    assert (found[3] - by_hand(x[3], 1.5)).abs().max() < 1e-5
    assert (found[3] - x[3]).abs().max() > 0.1


def by_hand(x, sigma, radius=6):
    """A Gaussian's weights at each pixel's neighbors, edges repeated, in plain loops."""
    offsets = range(-radius, radius + 1)
    weight = {o: np.exp(-0.5 * (o / sigma) ** 2) for o in offsets}
    total = sum(weight.values())
    out = torch.zeros_like(x)
    height, width = x.shape[1:]
    for row in range(height):
        for column in range(width):
            for dy in offsets:
                for dx in offsets:
                    y = min(max(row + dy, 0), height - 1)
                    z = min(max(column + dx, 0), width - 1)
                    out[:, row, column] += x[:, y, z] * weight[dy] * weight[dx] / total**2
    return out


def test_factors_follow_moco_v2():
    torch.manual_seed(0)
    flip, brightness, _, saturation, hue, sigma = photos._factors(20_000).T
    rates = {"flip": flip, "grey": saturation == 0, "blur": sigma > 0, "jitter": brightness != 1}
    found = {name: values.double().mean().item() for name, values in rates.items()}
    assert found == pytest.approx({"flip": 0.5, "grey": 0.2, "blur": 0.5, "jitter": 0.8}, abs=0.02)
    assert brightness.min() == pytest.approx(0.6, abs=0.01)
    assert hue.abs().max() == pytest.approx(0.1, abs=0.01)
    assert 1.9 < sigma.max() <= 2


def test_processes_together_see_the_batches_of_one():
    alone = photos.epoch_batches(50, 16, epoch=3)
    parts = [photos.epoch_batches(50, 16, epoch=3, rank=r, world=4) for r in range(4)]
    assert [list(itertools.chain(*step)) for step in zip(*parts, strict=True)] == alone
    assert len(alone) == 3
    assert len({number for step in alone for _, number in step}) == 48
    assert photos.epoch_batches(50, 16, epoch=4) != alone


# --- shards ---------------------------------------------------------------------------------------


def test_shards_are_read_once_a_round_each_process_its_own(shards):
    seen = []
    for rank in range(2):
        stream = photos.Shards(shards, 8, rank=rank, world=2, buffer=5)
        mine = list(range(rank, 4, 2))
        images = stream._endless(mine)
        names = [next(images)[0].rpartition(":")[2] for _ in range(40)]
        assert sorted(names[:20]) == sorted(names[20:]), "two rounds"
        assert len(set(names)) == 20
        seen += names[:20]
        drawn = [next(iter(stream)).pixels for _ in range(2)]
        assert drawn[0].equal(drawn[1]), "the same again"
    assert sorted(seen) == [f"{number:03}.jpg" for number in range(40)]


def test_a_buffer_shuffles(shards):
    stream = photos.Shards(shards, 8, buffer=10)
    order = [name for name, _, _ in _first(stream._drawn(stream._endless([0, 1, 2, 3]), 0), 30)]
    straight = [name for name, _, _ in _first(stream._endless([0, 1, 2, 3]), 30)]
    assert order != straight
    assert len(set(order)) == 30


def _first(iterator, number):
    return [next(iterator) for _ in range(number)]


def test_no_image_is_drawn_twice_in_a_round(shards):
    """With a buffer larger than what there is."""
    stream = photos.Shards(shards, 8, buffer=1000)
    drawn = _first(stream._drawn(stream._endless([0, 1, 2, 3]), 0), 80)
    names, places = ([one[part] for one in drawn] for part in (0, 1))
    for round_of in (slice(40), slice(40, 80)):
        assert len(set(names[round_of])) == 40
    assert names[:40] != names[40:]
    assert len(set(places)) == 80, "so that views of an image differ from round to round"


def test_too_few_shards_are_said(shards):
    with pytest.raises(ValueError, match=r"number of shards is 4, must be 5 or more.*5 processes"):
        next(iter(photos.Shards(shards, 8, world=5)))


def test_a_shard_that_is_cut_off_or_empty_is_named(tmp_path):
    shard(tmp_path / "whole.tar", range(3))
    content = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[:700])
    with pytest.raises(ValueError, match=r"cut\.tar is no whole tar file"):
        list(photos.members(tmp_path / "cut.tar", 0))
    shard(tmp_path / "bare.tar", [], also=[("a.cls", b"1")])
    with pytest.raises(ValueError, match=r"bare\.tar must hold images, got none"):
        list(photos.members(tmp_path / "bare.tar", 0))


# --- bad files ------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(tmp_path):
    """Five good images, and one of which the second half is missing."""
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    whole = jpeg(9, (300, 300))
    (tmp_path / "2-broken.jpg").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def test_a_corrupt_image_among_good_ones_is_named(spoilt):
    found = photos.Folder(spoilt, 8)
    number = [path.name for path in found.files].index("2-broken.jpg")
    with pytest.raises(photos.CorruptImageError, match=r"2-broken\.jpg is no readable image"):
        found[0, number]
    assert found[0, number - 1].pixels.shape == (2, 3, 8, 8)


def test_a_corrupt_image_is_skipped_only_if_asked(spoilt):
    found = photos.Folder(spoilt, 8, skip=True)
    number = [path.name for path in found.files].index("2-broken.jpg")
    with pytest.warns(UserWarning, match=r"skipped: .*2-broken\.jpg"):
        view = found[0, number]
    assert view.pixels.shape == (2, 3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found[0, number - 1].pixels.shape == (2, 3, 8, 8)


def test_a_corrupt_image_of_a_shard_is_named_or_skipped(tmp_path):
    shard(tmp_path / "a.tar", range(3), also=[("bad.jpg", b"no image")])
    with pytest.raises(photos.CorruptImageError, match=r"a\.tar:bad\.jpg is no readable image"):
        _first(iter(photos.Shards(tmp_path, 8, buffer=1)), 4)
    with pytest.warns(UserWarning, match="skipped"):
        assert len(_first(iter(photos.Shards(tmp_path, 8, buffer=1, skip=True)), 4)) == 4


def test_only_corrupt_images_are_an_error_however_asked(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(ValueError, match="must hold a readable image, got 1 corrupt ones"),
    ):
        photos.Folder(tmp_path, 8, skip=True)[0, 0]


def test_a_folder_without_images_or_that_is_none_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"data must hold images \(\.jpg, .*where there is none"):
        photos.image_files(tmp_path)
    with pytest.raises(ValueError, match=r"data must hold \.tar shards"):
        photos.shard_files(tmp_path)
    with pytest.raises(ValueError, match="data must name a folder that exists"):
        photos.image_files(tmp_path / "nowhere")


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    """As another user, whom these tests cannot be."""
    (tmp_path / "a.jpg").write_bytes(jpeg(0))

    def refuse(self, *_):
        raise PermissionError(13, "Permission denied")

    found = photos.Folder(tmp_path, 8)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError, match=r"a\.jpg cannot be read: let this user read it"):
        found[0, 0]
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PermissionError, match="cannot be read: let this user read it"):
        photos.image_files(tmp_path)


@pytest.mark.parametrize(
    ("batch", "world", "message"),
    [(15, 2, "batch is 15, must be a multiple of 2"), (64, 1, r"batch is 64, must be in 2\.\.50")],
)
def test_a_batch_that_does_not_fit_is_refused(batch, world, message):
    with pytest.raises(ValueError, match=message):
        photos.epoch_batches(50, batch, epoch=0, world=world)


def test_a_batch_of_shards_that_does_not_fit_is_refused(shards, monkeypatch):
    monkeypatch.setattr(pretrain, "world_size", lambda: 3)
    recipe = small(RECIPES["simclr"])
    assert recipe.batch % 3
    with pytest.raises(ValueError, match=rf"batch is {recipe.batch}, must be a multiple of .* 3"):
        pretrain.loader_of(recipe, shards, 0, images=100, workers=0, skip=False)


def test_weights_that_are_not_finite_are_never_saved():
    fine, loss = [torch.ones(2)], torch.zeros(())
    pretrain._require_finite(loss, fine, 0)
    with pytest.raises(ArithmeticError, match="weights are not finite after epoch 3: lower the"):
        pretrain._require_finite(loss, [*fine, torch.tensor([0.0, math.nan])], 3)


def test_an_image_too_large_to_be_meant_is_named(monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    with pytest.raises(photos.CorruptImageError, match=r"vast\.jpg is no readable image"):
        photos.decode(jpeg(0, (30, 30)), "vast.jpg")


def test_what_a_user_does_wrong_is_one_line(tmp_path, monkeypatch):
    words = ["pretrain", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match=r"error: .*nowhere"):
        pretrain.main()


# --- networks and recipes -------------------------------------------------------------------------


def test_the_network_is_resnet_50():
    """25.6 million parameters with a head of 1000 classes, 2.0 of which are that head."""
    network, width = pretrain.imagenet_resnet(50)
    assert width == 2048
    assert sum(p.numel() for p in network.parameters()) == 23_508_032
    network = pretrain.imagenet_resnet(18)[0].eval()
    with torch.no_grad():
        assert network[:2](torch.zeros(1, 3, 224, 224)).shape == (1, 64, 56, 56)


def test_the_authors_settings_are_a_recipe():
    recipe = RECIPES["t-moco-v2"]
    assert (recipe.df, recipe.temperature, recipe.queue) == (5.0, 0.2, 65536)
    assert (recipe.lr, recipe.batch, recipe.epochs) == (0.03, 256, 200)
    head = pretrain.encoder_of(small(recipe)).projector
    assert isinstance(head[-1], torch.nn.BatchNorm1d)
    assert not head[-1].affine
    plain = pretrain.encoder_of(small(RECIPES["moco-v2"])).projector
    assert isinstance(plain[-1], torch.nn.Linear)


def test_a_batch_without_groups_to_shuffle_between_is_refused():
    with pytest.raises(ValueError, match="batch must be a multiple of group = 32, two groups"):
        Recipe(objective="queue", similarity="cosine", batch=32)


# --- one process and two --------------------------------------------------------------------------


def start(*arguments, processes=1):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    paths = (Path(pretrain.__file__).parents[1], Path(two_processes.__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, *(launcher if processes > 1 else []), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_two_processes_do_what_one_does(folder, tmp_path):
    """Loss and weights of three steps, so that queue, momentum and gradients enter, in float64."""
    out = tmp_path / "two.pt"
    done = start(two_processes.__file__, folder, out, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    two_processes.main(folder, tmp_path / "one.pt")
    two = torch.load(out, weights_only=True)
    one = torch.load(tmp_path / "one.pt", weights_only=True)
    for name in two_processes.CASES:
        assert two[name]["losses"] == pytest.approx(one[name]["losses"], rel=1e-9), name
        assert len(set(one[name]["losses"])) == 3
        for a, b in zip(two[name]["weights"], one[name]["weights"], strict=True):
            assert (a - b).abs().max() < 1e-9 * max(1.0, b.abs().max().item()), name
    assert one[two_processes.UNSHUFFLED]["losses"] != one["moco-v2"]["losses"]
    rows = torch.arange(8.0, dtype=torch.float64).view(4, 2)
    for part in [*one["gathered twice"], *two["gathered twice"]]:
        torch.testing.assert_close(part, 4 * rows)


def test_the_whole_path_under_torchrun(folder, tmp_path):
    module = ("-m", "sscl_experiments.pretrain", "--data", folder, "--out", tmp_path)
    done = start(*module, "--rehearse", "--workers", "0", processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "encoder.pt").exists()


@pytest.mark.parametrize("name", ["t-moco-v2", "simclr"])
def test_training_in_one_process_goes_on_where_it_stopped(name, folder, tmp_path, monkeypatch):
    recipe = small(RECIPES[name]).replace(epochs=2)
    whole = pretrain.pretrain(recipe, folder, tmp_path / "whole")
    real, calls = pretrain.loader_of, []

    def interrupted(recipe, data, epoch, **settings):
        calls.append(epoch)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(recipe, data, epoch, **settings)

    monkeypatch.setattr(pretrain, "loader_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(recipe, folder, tmp_path / "halves")
    resumed = pretrain.pretrain(recipe, folder, tmp_path / "halves")
    assert calls == [0, 1, 1]
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert a.equal(b)
    with pytest.raises(ValueError, match="is of another recipe: delete it"):
        pretrain.pretrain(recipe.replace(lr=0.5), folder, tmp_path / "halves")


def test_shards_train_too(shards, tmp_path):
    recipe = small(RECIPES["t-simclr"])
    start_weights = [p.clone() for p in pretrain.encoder_of(recipe).parameters()]
    found = pretrain.pretrain(recipe, shards, tmp_path, images=32)
    moved = zip(found.parameters(), start_weights, strict=True)
    assert any((a - b).abs().max() > 1e-5 for a, b in moved)
    with pytest.raises(ValueError, match="images must be at least a batch, 16, where there are"):
        pretrain.pretrain(recipe, shards, tmp_path / "other")
