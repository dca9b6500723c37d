"""Corruptions against Pillow, SciPy and what their formulas say; deterministic; bad input named."""

import colorsys
import inspect
import io

import numpy as np
import pytest
import torch
from helpers import read_once
from scipy.ndimage import gaussian_filter

from sscl_core import corruptions
from sscl_core.corruptions import CONSTANTS, PUBLISHED, SEVERITIES, corrupted

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def grey():
    return read_once("fashion_mnist_subset", "test").images[:40]


@pytest.fixture(scope="module")
def colour():
    """Smooth colour images of 30×34 pixels: neither side is a multiple of 8 or of 16."""
    small = torch.rand(10, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(small, size=(30, 34), mode="bicubic")
    return (255 * large.clamp(0, 1)).round().to(torch.uint8)


def as_pillow(image):
    rows = image.permute(1, 2, 0).numpy()
    return Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows)


def as_levels(image):
    rows = torch.tensor(np.array(image)).long()
    return rows[None] if rows.ndim == 2 else rows.permute(2, 0, 1)


@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_it_changes_images_more_and_more_and_the_same_way_each_time(name, kind, request):
    images = request.getfixturevalue(kind)
    found = [corrupted(images, name, level) for level in SEVERITIES]
    for image in found:
        assert image.dtype == torch.uint8
        assert image.shape == images.shape
    assert torch.equal(corrupted(images, name, 3), found[2])
    sizes = [(image.float() - images.float()).abs().mean().item() for image in found]
    assert sizes == sorted(sizes)
    assert sizes[0] > 0


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "occlusion"])
def test_another_seed_and_another_severity_draw_anew(name, grey):
    assert not torch.equal(corrupted(grey, name, 2), corrupted(grey, name, 2, seed=1))
    before = torch.rand(3)
    torch.manual_seed(5)
    torch.rand(1)
    after = torch.rand(1)
    torch.manual_seed(5)
    torch.rand(1)
    corrupted(grey, name, 2)
    assert torch.equal(torch.rand(1), after), "the caller's generator is left as it was"
    assert len(before) == 3


@pytest.mark.parametrize("quality", CONSTANTS["jpeg"])
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_jpeg_is_what_pillow_writes(kind, quality, request):
    """But for coefficients that lie between two steps: libjpeg transforms in whole numbers."""
    images = request.getfixturevalue(kind)
    ours = (255 * corruptions.jpeg(images.float() / 255, float(quality)).clamp(0, 1)).round().long()
    theirs = []
    for image in images:
        file = io.BytesIO()
        as_pillow(image).save(file, "JPEG", quality=int(quality))
        theirs.append(as_levels(Image.open(file)))
    difference = (ours - torch.stack(theirs)).abs().double()
    loss = (torch.stack(theirs) - images.long()).abs().double().mean()
    assert difference.mean() < 0.25 * loss
    if kind == "grey":
        assert (difference <= 1).double().mean() > 0.95


@pytest.mark.parametrize("share", CONSTANTS["pixelate"])
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_pixelate_is_what_pillow_makes(kind, share, request):
    images = request.getfixturevalue(kind)
    ours = (255 * corruptions.pixelate(images.float() / 255, share)).round().long()
    for image, own in zip(images, ours, strict=True):
        picture = as_pillow(image)
        small = picture.resize((int(picture.width * share), int(picture.height * share)), Image.BOX)
        theirs = as_levels(small.resize(picture.size, Image.BOX))
        assert (own - theirs).abs().max() <= 1


@pytest.mark.parametrize("std", CONSTANTS["gaussian_blur"])
def test_blur_is_what_scipy_makes(std, grey):
    x = grey.double() / 255
    theirs = gaussian_filter(x.numpy(), (0, 0, std, std), mode="nearest")
    torch.testing.assert_close(corruptions.gaussian_blur(x, std), torch.tensor(theirs))


def test_noise_has_the_published_standard_deviation_and_impulses_their_share():
    x = torch.full((20, 3, 32, 32), 0.5)
    assert PUBLISHED[0] == "gaussian_noise"
    for std in CONSTANTS["gaussian_noise"]:
        assert (corruptions.gaussian_noise(x, std) - x).std().item() == pytest.approx(std, rel=0.02)
    for share in CONSTANTS["impulse_noise"]:
        found = corruptions.impulse_noise(x, share)
        assert (found == 0).double().mean().item() == pytest.approx(share / 2, rel=0.15)
        assert (found == 1).double().mean().item() == pytest.approx(share / 2, rel=0.15)


def test_brightness_raises_the_value_and_leaves_hue_and_saturation():
    colours = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    colours[0] = 0
    found = corruptions.brightness(colours[:, :, None, None], 0.2).flatten(1)
    for before, after in zip(colours.tolist(), found.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2))
        assert after == pytest.approx(expected, abs=1e-9)


def test_contrast_keeps_the_mean_and_scales_the_rest(grey):
    x = grey.double() / 255
    found = corruptions.contrast(x, 0.3)
    torch.testing.assert_close(found.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(found.std((2, 3)), 0.3 * x.std((2, 3)))


def test_occlusion_covers_a_square():
    covered = corruptions.occlusion(torch.zeros(30, 1, 28, 28), 0.25)
    assert (covered.sum((1, 2, 3)) == 0.5 * 49).all()
    assert len({tuple(image.flatten().tolist()) for image in covered}) > 10


@pytest.mark.parametrize(("h", "w"), [(28, 28), (20, 31)])
def test_translation_moves_by_whole_pixels(h, w):
    x = torch.rand(8, 1, h, w)
    found = corruptions.translation(x, 0.2)
    down, right = round(0.2 * h), round(0.2 * w)
    inner = x[:, :, 8:-8, 8:-8]
    moved = [
        found[:, :, 8 + i : h - 8 + i, 8 + j : w - 8 + j]
        for i in (down, -down)
        for j in (right, -right)
    ]
    errors = torch.stack([(part - inner).abs().amax((1, 2, 3)) for part in moved])
    assert (errors.amin(0) < 1e-4).all()


def test_rotation_by_a_right_angle_is_rot90():
    x = torch.rand(8, 1, 16, 16)
    found = corruptions.rotation(x, 90.0)
    turned = torch.stack([x.rot90(k, (2, 3)) for k in (1, 3)])
    errors = (found - turned).abs().amax((2, 3, 4))
    assert (errors.amin(0) < 1e-4).all()
    wide = corruptions.rotation(torch.ones(4, 1, 9, 21), 30.0)
    assert (wide[:, :, 4, 10] == 1).all()


@pytest.mark.parametrize(
    ("images", "name", "severity", "error", "words"),
    [
        (torch.zeros(1, 1, 8, 8).byte(), "fog", 1, ValueError, "name must be one of .*got 'fog'"),
        (torch.zeros(1, 1, 8, 8).byte(), "jpeg", 0, ValueError, r"from 1 \(mild\) to 5, got 0"),
        (torch.zeros(1, 1, 8, 8).byte(), "jpeg", 6, ValueError, r"from 1 \(mild\) to 5, got 6"),
        (torch.zeros(1, 1, 8, 8).byte(), "jpeg", 2.0, TypeError, "severity must be a whole number"),
        (torch.zeros(1, 1, 8, 8), "jpeg", 1, TypeError, "images must be bytes .*got torch.float32"),
        ([[1]], "jpeg", 1, TypeError, "images must be bytes .*got list"),
        (
            torch.zeros(1, 8, 8).byte(),
            "jpeg",
            1,
            ValueError,
            r"images must have shape .*\(1, 8, 8\)",
        ),
        (torch.zeros(1, 2, 8, 8).byte(), "jpeg", 1, ValueError, r"1 or 3 channels, got \(1, 2, 8"),
        (torch.zeros(0, 1, 8, 8).byte(), "jpeg", 1, ValueError, r"got \(0, 1, 8, 8\)"),
    ],
)
def test_bad_input_is_named(images, name, severity, error, words):
    with pytest.raises(error, match=words):
        inspect.unwrap(corrupted)(images, name, severity)
