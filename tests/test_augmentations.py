"""Views: the box that is reported is the part that is seen, randomness is torch's, values stay colours."""

import pytest
import torch
from torch.nn import functional as F

from sscl_core.augmentations import ImageViews
from sscl_core.config import ImageAugmentation

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 20, 28)]
all_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def images(n: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def views(x: torch.Tensor, seed: int = 0, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return ImageViews(ImageAugmentation(**settings), x.shape[1:])(x)


def whole(x: torch.Tensor, seed: int = 0, **settings) -> torch.Tensor:
    """Views without a crop or a flip: what the colour stages alone do."""
    return views(x, seed, crop_scale=(1.0, 1.0), flip=0.0, **settings)[0]


@pytest.mark.parametrize("size", [(28, 28), (20, 28)], ids=str)
def test_a_ramp_shows_which_coordinates_were_sampled(size):
    """The pixels of a view of x (and y) are the coordinates it was read at: from the box's first pixel to its last, evenly."""
    h, w = size
    ramp = torch.stack([torch.arange(w).expand(h, w), torch.arange(h)[:, None].expand(h, w), torch.zeros(h, w)])
    seen, box = views(ramp.float().repeat(64, 1, 1, 1), flip=0.0)
    assert len(box.unique(dim=0)) > 30  # crops differ between the images of a batch
    for (x0, y0, x1, y1), (x, y, _) in zip(box.tolist(), seen, strict=True):
        torch.testing.assert_close(x, torch.linspace(x0, x1 - 1, w).expand(h, w), rtol=0, atol=1e-4)
        torch.testing.assert_close(y, torch.linspace(y0, y1 - 1, h)[:, None].expand(h, w), rtol=0, atol=1e-4)


@all_shapes
def test_a_view_is_the_box_enlarged(shape):
    x = images(64, shape)
    seen, box = views(x, flip=0.0)
    assert (seen - x).abs().mean() > 0.1  # it is not just the image
    for i, (x0, y0, x1, y1) in enumerate(box.long().tolist()):
        cut = F.interpolate(x[i : i + 1, :, y0:y1, x0:x1], shape[1:], mode="bilinear", align_corners=True)
        torch.testing.assert_close(seen[i : i + 1], cut, rtol=0, atol=1e-4)


@all_shapes
@pytest.mark.parametrize("scale", [(0.2, 0.3), (0.2, 0.6), (0.08, 0.08)], ids=str)
def test_boxes_are_inside_and_of_the_area_asked_for(scale, shape):
    box = views(images(1000, shape), crop_scale=scale)[1]
    x0, y0, x1, y1 = box.T
    h, w = y1 - y0, x1 - x0
    assert (box == box.round()).all()
    assert (torch.stack([x0, y0]) >= 0).all()
    assert (w >= 1).all()
    assert (h >= 1).all()
    assert x1.max() == shape[2], "some box reaches the right border, and none goes past it"
    assert y1.max() == shape[1]
    pixels = shape[1] * shape[2]
    rounding = ((w + h + 1) / 2 + 0.25) / pixels  # of both sides, by half a pixel
    share = w * h / pixels
    assert (share >= scale[0] - rounding).all()
    assert (share <= scale[1] + rounding).all()
    spread = scale[1] - scale[0]
    assert share.mean() == pytest.approx(sum(scale) / 2, abs=0.02 + spread / 20)
    assert share.max() - share.min() >= 0.8 * spread
    assert ((w + 0.5) / (h - 0.5) >= 3 / 4).all()  # the aspect ratio is between 3:4 and 4:3
    assert ((w - 0.5) / (h + 0.5) <= 4 / 3).all()


@all_shapes
def test_a_flip_mirrors_the_view_and_leaves_its_box(shape):
    x = images(16, shape)
    (plain, box), (flipped, box_flipped) = views(x, flip=0.0), views(x, flip=1.0)
    assert not torch.equal(plain, flipped)
    torch.testing.assert_close(flipped, plain.flip(3))
    assert torch.equal(box, box_flipped)


def test_half_of_the_views_are_flipped():
    x = images(1000, (1, 8, 8))
    seen = views(x, crop_scale=(1.0, 1.0), flip=0.5)[0]
    flipped = (seen - x.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    kept = (seen - x).abs().amax((1, 2, 3)) < 1e-4
    assert (flipped ^ kept).all()
    assert flipped.float().mean() == pytest.approx(0.5, abs=5 * 0.5 / 1000**0.5)


@all_shapes
def test_randomness_is_torchs_seed_and_nothing_else(shape):
    x, settings = images(8, shape), {"jitter": 0.5, "grayscale": 0.2}
    (first, box), (again, box_again), (other, box_other) = (views(x, seed, **settings) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert torch.equal(box, box_again)
    assert not torch.equal(first, other)
    assert not torch.equal(box, box_other)


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)  # 28:20 is wider than any crop, 4:3
def test_without_crop_flip_and_colour_a_view_is_the_image(shape):
    x = images(200, shape)
    seen, box = views(x, crop_scale=(1.0, 1.0), flip=0.0)
    torch.testing.assert_close(seen, x, rtol=0, atol=1e-5)
    assert box.unique(dim=0).tolist() == [[0, 0, shape[2], shape[1]]]


@pytest.mark.parametrize("settings", [{}, {"jitter": 0.5}, {"jitter": 1.0, "jitter_probability": 1.0}, {"grayscale": 1.0}], ids=str)
@all_shapes
def test_values_stay_in_the_unit_interval(shape, settings):
    for x in (images(64, shape), torch.zeros(4, *shape), torch.ones(4, *shape)):
        seen, box = views(x, **settings)
        assert seen.shape == x.shape
        assert box.shape == (len(x), 4)
        assert seen.isfinite().all()
        assert seen.min() >= -1e-6
        assert seen.max() <= 1 + 1e-6


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_changes_colours_as_often_as_asked(channels):
    x = images(400, (channels, 8, 8)) * 0.5 + 0.25

    def touched(**settings) -> float:
        return ((whole(x, **settings) - x).abs().amax((1, 2, 3)) > 1e-4).float().mean().item()

    assert touched(jitter=0.0, jitter_probability=1.0) == 0
    assert touched(jitter=0.5, jitter_probability=0.0) == 0
    assert touched(jitter=0.5, jitter_probability=1.0) > 0.99
    assert 0.2 < touched(jitter=0.5, jitter_probability=0.4) < 0.8
    weak, strong = ((whole(x, jitter=s, jitter_probability=1.0) - x).abs().mean() for s in (0.1, 0.8))
    assert 0 < weak < strong / 2


def test_grayscale_is_for_colour_images_and_makes_their_channels_equal():
    x = images(400, (3, 8, 8))
    grey = whole(x, grayscale=1.0)
    assert (x[:, 0] - x[:, 1]).abs().mean() > 0.1
    torch.testing.assert_close(grey, grey[:, :1].expand_as(grey))
    some = whole(x, grayscale=0.2)
    is_grey = (some[:, 0] - some[:, 1]).abs().amax((1, 2)) < 1e-6
    assert is_grey.float().mean() == pytest.approx(0.2, abs=5 * 0.4 / 20)
    torch.testing.assert_close(whole(x[:, :1], grayscale=1.0), x[:, :1], rtol=0, atol=1e-5)
