"""Views: the box that is reported is the part that is seen, randomness is torch's, values stay
colours. They are kornia's where the operations are the same, and have the distribution of its views
where they are not. The steps that know nothing of the domain have that of their formulas.
"""

import inspect
import itertools
import math

import kornia
import kornia.augmentation as K
import numpy as np
import pytest
import torch
from scipy import stats
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.nn import functional as F

from sscl_core import augmentations
from sscl_core.augmentations import (
    ImageViews,
    agnostic_views,
    colour_jitter,
    crop_overlap,
    random_boxes,
    resized_crop,
)
from sscl_core.config import Corruption, ImageAugmentation, Masking, Mixup, Noise

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
    """The pixels of a view of x (and y) are the coordinates it was read at.

    They go from the box's first pixel to its last in equal steps.
    """
    h, w = size
    ramp = torch.stack(
        [torch.arange(w).expand(h, w), torch.arange(h)[:, None].expand(h, w), torch.zeros(h, w)]
    )
    seen, box = views(ramp.float().repeat(64, 1, 1, 1), flip=0.0)
    assert len(box.unique(dim=0)) > 30  # crops differ between the images of a batch
    for (x0, y0, x1, y1), (x, y, _) in zip(box.tolist(), seen, strict=True):
        torch.testing.assert_close(x, torch.linspace(x0, x1 - 1, w).expand(h, w), rtol=0, atol=1e-4)
        torch.testing.assert_close(
            y, torch.linspace(y0, y1 - 1, h)[:, None].expand(h, w), rtol=0, atol=1e-4
        )


@all_shapes
def test_a_view_is_the_box_enlarged(shape):
    x = images(64, shape)
    seen, box = views(x, flip=0.0)
    assert (seen - x).abs().mean() > 0.1  # it is not just the image
    for i, (x0, y0, x1, y1) in enumerate(box.long().tolist()):
        cut = F.interpolate(
            x[i : i + 1, :, y0:y1, x0:x1], shape[1:], mode="bilinear", align_corners=True
        )
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
    (first, box), (again, box_again), (other, box_other) = (
        views(x, seed, **settings) for seed in (3, 3, 4)
    )
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


@all_shapes
def test_views_of_bytes_are_those_of_their_numbers(shape):
    settings = {"jitter": 0.5, "grayscale": 0.2, "then": (Mixup(strength=0.5),)}
    stored = (images(16, shape) * 256).byte()
    (seen, box), (expected, expected_box) = (
        views(x, **settings) for x in (stored, stored.float() / 255)
    )
    assert seen.dtype == torch.float32
    assert torch.equal(seen, expected)
    assert torch.equal(box, expected_box)


@all_shapes
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.03)], ids=str
)
def test_views_have_the_precision_of_the_images(shape, dtype, tolerance):
    settings = {"jitter": 0.5, "grayscale": 0.2}
    x = images(16, shape).bfloat16()
    (seen, box), (expected, expected_box) = (
        views(pixels, **settings) for pixels in (x.to(dtype), x.float())
    )
    assert seen.dtype == dtype
    assert torch.equal(box, expected_box)
    torch.testing.assert_close(seen.float(), expected, rtol=0, atol=tolerance)


@all_shapes
@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_how_many_are_made_at_a_time_shows_in_nothing(shape, at_once, monkeypatch):
    x, settings = images(16, shape), {"jitter": 0.5, "grayscale": 0.2}
    expected, _ = views(x, **settings)
    assert expected.is_contiguous(memory_format=torch.channels_last)
    calls = []

    def spy(part, *rest):
        calls.append(len(part))
        return resized_crop(part, *rest)

    monkeypatch.setattr(augmentations, "resized_crop", spy)
    monkeypatch.setattr(augmentations, "CACHED", at_once * math.prod(shape))
    seen, _ = views(x, **settings)
    assert max(calls) == at_once
    assert sum(calls) == 16
    assert seen.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)


@all_shapes
def test_nothing_waits_for_the_device(shape):
    """Tensors without content refuse what a GPU would have to be waited for: to look at it."""
    x, settings = images(8, shape), {"jitter": 0.5, "grayscale": 0.2}
    views(x, **settings)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(8, *shape, dtype=torch.uint8)
        with pytest.raises(DynamicOutputShapeException):
            x[x > 0]
        seen, box = views(x, **settings)
    assert (seen.shape, box.shape) == (x.shape, (8, 4))


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (torch.zeros(4, 3, 28, 32), ValueError, r"shape \(n, 3, 32, 32\), .*got \(4, 3, 28, 32\)"),
        (torch.zeros(4, 1, 32, 32), ValueError, r"images must .*got \(4, 1, 32, 32\)"),
        (torch.zeros(3, 32, 32), ValueError, r"images must .*got \(3, 32, 32\)"),
        (torch.zeros(4, 3, 32, 32, dtype=torch.int64), TypeError, r"images must be bytes.*int64"),
    ],
    ids=lambda value: str(value)[:0] if isinstance(value, torch.Tensor) else None,
)
def test_images_of_another_kind_are_refused(bad, error, says):
    augment = ImageViews(ImageAugmentation(), (3, 32, 32))
    with pytest.raises(error, match=says):
        inspect.unwrap(ImageViews.forward)(augment, bad)


# --- crops, by a loop and by kornia --------------------------------------------------------------


def random_crops(n: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes, of one row or column too, and whether they are flipped."""
    torch.manual_seed(1)
    box = random_boxes(n, shape[1:], (0.01, 1.0), torch.device("cpu"))
    box[0, 2], box[1, 3] = box[0, 0] + 1, box[1, 1] + 1
    return box, torch.rand(n) < 0.5


def naive_resized_crop(image: np.ndarray, box: list[float], flipped: bool) -> np.ndarray:
    """Pixel by pixel: the four neighbours of the point that it shows, weighted by nearness."""
    _, h, w = image.shape
    x0, y0, x1, y1 = box
    view = np.zeros_like(image)
    for i, j in itertools.product(range(h), range(w)):
        y = y0 + i * (y1 - 1 - y0) / (h - 1)
        x = x0 + (w - 1 - j if flipped else j) * (x1 - 1 - x0) / (w - 1)
        top, left = int(y), int(x)
        for row, column in itertools.product((top, top + 1), (left, left + 1)):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            if weight > 0:
                view[:, i, j] += weight * image[:, row, column]
    return view


@all_shapes
def test_a_resized_crop_is_that_of_a_loop_over_pixels(shape):
    x = images(10, shape).double()
    box, flipped = random_crops(10, shape)
    assert 0 < flipped.sum() < 10
    seen = resized_crop(x, box, flipped)
    for i in range(10):
        expected = naive_resized_crop(x[i].numpy(), box[i].tolist(), bool(flipped[i]))
        assert seen[i].numpy() == pytest.approx(expected, abs=1e-12)


@all_shapes
def test_a_resized_crop_is_kornias(shape):
    x = images(200, shape)
    box, flipped = random_crops(200, shape)
    x0, y0, x1, y1 = box.T
    x1, y1 = x1 - 1, y1 - 1
    corners = torch.stack([x0, y0, x1, y0, x1, y1, x0, y1], 1).view(-1, 4, 2)
    crop = K.RandomResizedCrop(shape[1:], cropping_mode="resample")
    params = crop.forward_parameters(x.shape) | {"src": corners}
    expected = crop(x, params=params)
    expected[flipped] = kornia.geometry.hflip(expected[flipped])
    assert (expected - x).abs().mean() > 0.1
    torch.testing.assert_close(resized_crop(x, box, flipped), expected, rtol=0, atol=2e-5)


def kornias_boxes(n: int, size: tuple[int, int], scale: tuple[float, float]) -> torch.Tensor:
    crop = K.RandomResizedCrop(size, scale=scale)
    corners = crop.forward_parameters(torch.Size([n, 1, *size]))["src"]
    return torch.cat([corners[:, 0], corners[:, 2] + 1], 1)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.2, 1.0), (0.9, 1.0), (0.001, 0.01)], ids=str)
@pytest.mark.parametrize("size", [(32, 32), (20, 28), (12, 40), (40, 12)], ids=str)
def test_boxes_have_the_distribution_of_kornias(size, scale):
    """Area, aspect ratio and place one by one, and sides as pairs.

    Of 12 × 40 most draws do not fit.
    """
    n = 20_000
    torch.manual_seed(0)
    own = random_boxes(n, size, scale, torch.device("cpu"))
    other = kornias_boxes(n, size, scale)
    described = []
    for box in (own, other):
        x0, y0, x1, y1 = box.T
        w, h = x1 - x0, y1 - y0
        described.append(torch.stack([w * h, w / h, x0 + w / 2, y0 + h / 2, 50 * w + h, x0, y0]))
    for first, second in zip(*described, strict=True):
        assert stats.ks_2samp(first, second).pvalue > ALPHA
    sides = torch.stack([part[4] for part in described]).long()
    kinds, index = sides.unique(return_inverse=True)
    counts = torch.stack([row.bincount(minlength=len(kinds)) for row in index])
    often = counts[:, counts.sum(0) >= 20]
    if often.shape[1] > 1:
        assert stats.chi2_contingency(often).pvalue > ALPHA


@pytest.mark.parametrize(
    ("size", "expected"),
    [((30, 30), (30, 30)), ((20, 28), (27, 20)), ((12, 40), (16, 12)), ((40, 12), (12, 16))],
    ids=str,
)
def test_where_no_draw_fits_the_largest_box_is_taken(size, expected, monkeypatch):
    monkeypatch.setattr(augmentations, "TRIES", 0)
    x0, y0, x1, y1 = random_boxes(1000, size, (0.2, 1.0), torch.device("cpu")).T
    assert ((x1 - x0) == expected[0]).all()
    assert ((y1 - y0) == expected[1]).all()
    h, w = size
    for place, room in ((x0, w - expected[0]), (y0, h - expected[1])):
        assert sorted(place.unique().tolist()) == list(range(room + 1))


# --- how much two crops share --------------------------------------------------------------------


def naive_overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union, by the areas one by one."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(
        0.0, min(a[3], b[3]) - max(a[1], b[1])
    )
    (first, second) = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (first + second - shared)


def boxes(n: int, seed: int) -> torch.Tensor:
    """With corners anywhere in 12 × 12."""
    corners = 12 * torch.rand(n, 2, 2, generator=torch.Generator().manual_seed(seed))
    return corners.sort(1).values.flatten(1)


def test_overlap_is_the_share_of_the_area_of_both():
    a, b = boxes(300, 0), boxes(300, 1)
    expected = [naive_overlap(*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    assert expected.count(0.0) > 20, "many do not meet"
    assert max(expected) > 0.5
    assert crop_overlap(a, b).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert torch.equal(crop_overlap(a, b), crop_overlap(b, a))
    torch.testing.assert_close(crop_overlap(a, a), torch.ones(300))


def test_overlap_of_whole_pixels_is_a_count_of_them():
    a, b = (
        torch.cat([box[:, :2].floor(), box[:, 2:].floor() + 1], 1)
        for box in (boxes(200, 2), boxes(200, 3))
    )

    def pixels(box: list[float]) -> set[tuple[int, int]]:
        x0, y0, x1, y1 = map(int, box)
        return set(itertools.product(range(x0, x1), range(y0, y1)))

    sets = [
        (pixels(first), pixels(second))
        for first, second in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert crop_overlap(a, b).tolist() == pytest.approx(
        [len(first & second) / len(first | second) for first, second in sets]
    )


@pytest.mark.parametrize(
    "other", [(5, 0, 9, 4), (0, 4, 5, 6), (5, 4, 6, 5), (8, 8, 9, 9), (5, 9, 8, 10)], ids=str
)
def test_boxes_that_do_not_meet_or_only_touch_share_nothing(other):
    """Beside, below, at a corner, and away in both directions, where a product of two negative
    sides would be an area.
    """
    box, other = torch.tensor([[0.0, 0.0, 5.0, 4.0]]), torch.tensor([other]).float()
    assert crop_overlap(box, other).tolist() == crop_overlap(other, box).tolist() == [0.0]


def test_overlap_is_that_of_what_the_views_show_flipped_or_not():
    """Every pixel of these images says where it stands, so that the views tell what they show.

    That is their least and largest coordinates.
    """
    h, w = 20, 28
    where = torch.stack(
        [torch.arange(w).expand(h, w), torch.arange(h)[:, None].expand(h, w), torch.zeros(h, w)]
    ).float()
    seen, box = views(where.repeat(200, 1, 1, 1), flip=0.5)
    x, y = (seen[:, i].flatten(1) for i in (0, 1))
    shown = torch.stack([x.amin(1), y.amin(1), x.amax(1) + 1, y.amax(1) + 1], 1)
    expected = [
        naive_overlap(*pair)
        for pair in zip(*(part.tolist() for part in shown.chunk(2)), strict=True)
    ]
    assert crop_overlap(*box.chunk(2)).tolist() == pytest.approx(expected, abs=1e-4)
    flipped = seen[:, 0, 0, 0] > seen[:, 0, 0, -1]
    first, second = flipped.chunk(2)
    assert min((first & second).sum(), (first ^ second).sum(), (~first & ~second).sum()) > 10


def test_the_box_of_a_flipped_view_is_what_it_shows_when_it_is_flipped_back():
    ramp = torch.arange(28.0).expand(64, 1, 28, 28)
    seen, box = views(ramp, flip=1.0)
    for (x0, _, x1, _), view in zip(box.tolist(), seen.flip(3), strict=True):
        torch.testing.assert_close(
            view[0], torch.linspace(x0, x1 - 1, 28).expand(28, 28), rtol=0, atol=1e-4
        )


# --- colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"jitter": 0.5}, {"jitter": 1.0, "jitter_probability": 1.0}, {"grayscale": 1.0}],
    ids=str,
)
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
    weak, strong = (
        (whole(x, jitter=s, jitter_probability=1.0) - x).abs().mean() for s in (0.1, 0.8)
    )
    assert 0 < weak < strong / 2


@pytest.mark.parametrize("s", [0.2, 0.5])
def test_jitter_draws_its_factors_as_simclr_does(s):
    """Read off two colours of one hue that are never clipped: by 0.8 s, and 0.2 s of a turn."""
    n = 4000
    x = torch.tensor([[0.30, 0.24, 0.26], [0.20, 0.18, 0.19]]).T[None, :, None]
    seen = whole(x.repeat(n, 1, 2, 1), jitter=s, jitter_probability=1.0)[:, :, 0]
    before, after = (luma_and_chroma(part.double()) for part in (x[:, :, 0], seen))
    brightness = after[0].mean(1) / before[0].mean(1)
    contrast = after[0].diff(dim=1)[:, 0] / before[0].diff(dim=1)[:, 0] / brightness
    ratio = after[1][:, 0] / before[1][:, 0]
    saturation, turn = ratio.abs() / brightness / contrast, -ratio.angle() / (2 * math.pi)
    drawn = torch.stack([brightness, contrast, saturation, turn])
    for value in drawn[:3]:
        assert stats.kstest(value, stats.uniform(1 - 0.8 * s, 1.6 * s).cdf).pvalue > ALPHA
    assert stats.kstest(turn, stats.uniform(-0.2 * s, 0.4 * s).cdf).pvalue > ALPHA
    assert largest_correlation(drawn.T) < 5 / n**0.5


def luma_and_chroma(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of colours (n, 3, ...): Y, and I + iQ."""
    y, i, q = (sum(w * x[:, k] for k, w in enumerate(row)) for row in augmentations.YIQ)
    return y, torch.complex(i, q)


def naive_step(image: np.ndarray, step: str, factor: float) -> np.ndarray:
    """One step of the jitter in float64, on (h, w, 3), from its definition."""
    to_yiq = np.array(augmentations.YIQ)
    luma = (image @ to_yiq[0])[..., None]
    if step == "brightness":
        return image * factor
    if step == "contrast":
        return factor * image + (1 - factor) * luma.mean()
    if step == "saturation":
        return factor * image + (1 - factor) * luma
    y, i, q = np.moveaxis(image @ to_yiq.T, -1, 0)
    chroma = (i + 1j * q) * np.exp(-2j * np.pi * factor)
    return np.stack([y, chroma.real, chroma.imag], -1) @ np.linalg.inv(to_yiq).T


ALL_STEPS = ("brightness", "contrast", "saturation", "hue")


def some_factors(n: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    draw = torch.rand(4, n, generator=torch.Generator().manual_seed(2), dtype=dtype)
    return dict(zip(ALL_STEPS, (*(0.2 + 1.6 * draw[:3]), draw[3] - 0.5), strict=True))


@pytest.mark.parametrize("order", list(itertools.permutations(ALL_STEPS)), ids="-".join)
def test_colour_jitter_is_its_steps_in_any_order(order):
    """Without a clamp between them they commute."""
    x, factors = images(6, (3, 5, 7)).double(), some_factors(6)
    seen = colour_jitter(x, **factors)
    assert (seen == 0).any(), "something is clamped at the end"
    assert (seen == 1).any()
    for i in range(6):
        expected = x[i].permute(1, 2, 0).numpy()
        for step in order:
            expected = naive_step(expected, step, float(factors[step][i]))
        expected = expected.clip(0, 1).transpose(2, 0, 1)
        assert seen[i].numpy() == pytest.approx(expected, abs=1e-12)


KORNIAS = {
    "brightness": kornia.enhance.adjust_brightness_accumulative,
    "contrast": kornia.enhance.adjust_contrast_with_mean_subtraction,
    "saturation": kornia.enhance.adjust_saturation_with_gray_subtraction,
}


def neutral(n: int, **changed: torch.Tensor) -> dict[str, torch.Tensor]:
    one = torch.ones(n)
    return {"brightness": one, "contrast": one, "saturation": one, "hue": 0 * one} | changed


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", KORNIAS)
def test_a_step_is_kornias(step, channels):
    x, factor = images(50, (channels, 9, 8)), some_factors(50, torch.float32)[step]
    expected = KORNIAS[step](x, factor)
    assert ((expected - x).abs().mean() > 0.05) == ((step, channels) != ("saturation", 1))
    seen = colour_jitter(x, **neutral(50, **{step: factor}))
    torch.testing.assert_close(seen, expected, rtol=0, atol=2e-6)


def test_saturation_0_is_kornias_grayscale():
    x = images(50, (3, 9, 8))
    expected = K.RandomGrayscale(p=1.0)(x)
    seen = colour_jitter(x, **neutral(50, saturation=torch.zeros(50)))
    torch.testing.assert_close(seen, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_all_steps_but_hue_are_kornias_where_nothing_is_clamped(channels):
    """Also `ColorJitter` itself, with the same factors, in an order that it draws."""
    x = 0.4 + 0.2 * images(100, (channels, 9, 8))
    jitter = K.ColorJitter((0.8, 1.2), (0.5, 1.5), (0.5, 1.5) if channels == 3 else 0.0, 0.0)
    torch.manual_seed(4)
    expected = jitter(x)
    assert expected.min() > 0
    assert expected.max() < 1
    assert jitter._params["order"].tolist() != sorted(jitter._params["order"].tolist())
    drawn = {step: jitter._params[f"{step}_factor"] for step in KORNIAS}
    seen = colour_jitter(x, **neutral(100, **drawn))
    torch.testing.assert_close(seen, expected, rtol=0, atol=2e-6)


def test_hue_turns_the_way_of_kornias_and_keeps_luma():
    """Red goes to yellow, but by the angle of (I, Q): that of HSV is 0.66 to 1.51 times as wide."""
    hues = torch.linspace(0, 2 * math.pi, 361)[:-1]
    x = kornia.color.hsv_to_rgb(
        torch.stack([hues, torch.full((360,), 0.2), torch.full((360,), 0.5)], 1)[..., None, None]
    )
    for turn in (-0.1, 0.05, 0.1):
        change = torch.full((360,), turn)
        seen = colour_jitter(x, **neutral(360, hue=change))
        expected = kornia.enhance.adjust_hue(x, 2 * math.pi * change)
        torch.testing.assert_close(luma_and_chroma(seen)[0], luma_and_chroma(x)[0])
        turned = [kornia.color.rgb_to_hsv(part)[:, 0, 0, 0] - hues for part in (seen, expected)]
        own, other = (torch.remainder(part / (2 * math.pi) + 0.5, 1) - 0.5 for part in turned)
        torch.testing.assert_close(other, change, rtol=0, atol=1e-5)
        assert own.mean().item() == pytest.approx(turn, rel=0.08)
        assert (own / turn).min() > 0.66
        assert (own / turn).max() < 1.52
    for whole_turn in (-1.0, 1.0):
        seen = colour_jitter(x, **neutral(360, hue=torch.full((360,), whole_turn)))
        torch.testing.assert_close(seen, x, rtol=0, atol=1e-6)


def photographs(n: int) -> torch.Tensor:
    """Smooth in space, grey for the most part, and with all brightnesses."""
    torch.manual_seed(5)
    blurred = F.interpolate(torch.randn(n, 4, 4, 4), (16, 16), mode="bicubic", align_corners=True)
    grey = 0.45 + 0.25 * torch.randn(n, 1, 1, 1) * 0.5 + 0.22 * blurred[:, :1]
    return (grey + 0.09 * blurred[:, 1:]).clamp(0, 1)


@pytest.mark.parametrize("grayscale", [0.0, 0.2])
def test_views_have_nearly_the_distribution_of_kornias(grayscale):
    """Which adds to the hue of HSV, and clamps after each step in an order that a batch shares."""
    n, draws = 500, 40
    x = photographs(n)
    config = ImageAugmentation(crop_scale=(0.2, 1.0), jitter=0.5, grayscale=grayscale)
    theirs = torch.nn.Sequential(
        K.RandomResizedCrop((16, 16), scale=(0.2, 1.0), cropping_mode="resample"),
        K.RandomHorizontalFlip(),
        K.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), 0.1, p=0.8),
        K.RandomGrayscale(p=grayscale),
    )
    ours = ImageViews(config, (3, 16, 16))
    own, other = (
        describe(torch.cat([make(x) for _ in range(draws)]))
        for make in (lambda x: ours(x)[0], theirs)
    )
    for name in own:
        ((low, middle, high), spread) = (
            (own[name].quantile(q) - other[name].quantile(q) for q in (0.05, 0.5, 0.95)),
            other[name].std(),
        )
        assert max(map(abs, (low, middle, high))) < 0.1 * spread, name
        assert own[name].mean() == pytest.approx(other[name].mean(), abs=0.03 * spread), name
        assert own[name].std() == pytest.approx(spread, rel=0.05), name


def describe(x: torch.Tensor) -> dict[str, torch.Tensor]:
    luma, chroma = luma_and_chroma(x)
    return {
        "mean luma": luma.mean((1, 2)),
        "deviation of luma": luma.std((1, 2)),
        "mean I": chroma.real.mean((1, 2)),
        "mean Q": chroma.imag.mean((1, 2)),
        "chroma": chroma.abs().mean((1, 2)),
        "red": x[:, 0].mean((1, 2)),
        "slope": (x[:, 1, :, 1:] - x[:, 1, :, :-1]).abs().mean((1, 2)),
    }


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_than_three_channels_have_brightness_and_contrast_alone(channels):
    x, factors = images(20, (channels, 8, 8)), some_factors(20, torch.float32)
    b, c = (factors[name][:, None, None, None] for name in ("brightness", "contrast"))
    expected = b * (c * x + (1 - c) * x.mean((1, 2, 3), keepdim=True))
    assert (expected - x).abs().mean() > 0.1
    seen = colour_jitter(x, **factors)
    torch.testing.assert_close(seen, expected.clamp(0, 1), rtol=0, atol=1e-6)
    plain, grey = (whole(x, grayscale=p) for p in (0.0, 1.0))
    assert torch.equal(plain, x)
    assert torch.equal(grey, x)


def test_grayscale_is_for_colour_images_and_makes_their_channels_equal():
    x = images(400, (3, 8, 8))
    grey = whole(x, grayscale=1.0)
    assert (x[:, 0] - x[:, 1]).abs().mean() > 0.1
    torch.testing.assert_close(grey, grey[:, :1].expand_as(grey))
    some = whole(x, grayscale=0.2)
    is_grey = (some[:, 0] - some[:, 1]).abs().amax((1, 2)) < 1e-6
    assert is_grey.float().mean() == pytest.approx(0.2, abs=5 * 0.4 / 20)
    torch.testing.assert_close(whole(x[:, :1], grayscale=1.0), x[:, :1], rtol=0, atol=1e-5)


# --- steps that know nothing of the domain -------------------------------------------------------

STEPS = {
    "noise": Noise(scale=0.3),
    "mixup": Mixup(strength=0.7),
    "masking": Masking(rate=0.4),
    "corruption": Corruption(rate=0.3),
}
every_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
ALPHA = 1e-3  # of every test of a distribution, at a fixed seed


def agnostic(
    x: torch.Tensor, *steps, pool: torch.Tensor | None = None, seed: int = 0
) -> torch.Tensor:
    torch.manual_seed(seed)
    return agnostic_views(x, steps, x if pool is None else pool)


def largest_correlation(x: torch.Tensor) -> float:
    """Between two columns."""
    return (x.double().T.corrcoef() - torch.eye(x.shape[1])).abs().max().item()


@pytest.mark.parametrize("shape", [(30,), (3, 2, 5)], ids=str)
@pytest.mark.parametrize("scale", [0.05, 2.0])
@pytest.mark.parametrize("kind", ["gaussian", "laplace", "uniform"])
def test_noise_is_of_its_kind_and_its_standard_deviation_is_the_scale(kind, scale, shape):
    laws = {
        "gaussian": stats.norm(0, scale),
        "laplace": stats.laplace(0, scale / 2**0.5),
        "uniform": stats.uniform(-(3**0.5) * scale, 12**0.5 * scale),
    }
    x = images(10_000, shape, seed=1)
    delta = (agnostic(x, Noise(scale=scale, kind=kind)) - x).flatten(1).double()
    n, kurtosis = delta.numel(), {"gaussian": 3.0, "laplace": 6.0, "uniform": 1.8}[kind]
    assert laws[kind].std() == pytest.approx(scale)
    assert stats.kstest(delta.flatten(), laws[kind].cdf).pvalue > ALPHA
    assert delta.mean().item() == pytest.approx(0, abs=5 * scale / n**0.5)
    assert delta.std().item() == pytest.approx(scale, rel=5 * ((kurtosis - 1) / (4 * n)) ** 0.5)
    assert stats.kurtosis(delta.flatten(), fisher=False) == pytest.approx(kurtosis, rel=0.05)
    assert largest_correlation(delta) < 5 / len(x) ** 0.5, "entries are independent"
    assert (
        abs(torch.stack([delta.flatten(), x.flatten().double()]).corrcoef()[0, 1]) < 5 / n**0.5
    ), "and do not know x"


def test_laplace_noise_is_finite():
    """Inversion of a uniform number is infinite where that is 0, once in 2^24 draws of float32.

    With this seed there is such a draw.
    """
    delta = agnostic(torch.zeros(1, 2**25), Noise(scale=1.0, kind="laplace"), seed=1)
    assert delta.isfinite().all()
    assert delta.abs().max() > 10


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("shape", [(12,), (3, 2, 2)], ids=str)
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_mixup_adds_a_uniform_share_of_a_partner_from_the_pool(strength, shape, as_bytes):
    """The pool is twelve unit vectors, and the point mixed is none of them.

    So the partner and its share can be read off the view.
    """
    n, m = 20_000, 12
    pool = torch.eye(m).view(m, *shape)
    x = torch.full((n, *shape), -1.0)
    view = agnostic(
        x, Mixup(strength=strength), pool=(255 * pool).byte() if as_bytes else pool
    ).flatten(1)
    top, partner = view.max(1)
    share = (top + 1) / 2  # the partner's entry is -1 + 2 λ, all others are -1 + λ
    rest = view.masked_fill(F.one_hot(partner, m).bool(), 0).sum(1) / (m - 1)
    torch.testing.assert_close(rest, share - 1, rtol=0, atol=1e-5)
    assert stats.kstest(share, stats.uniform(0, strength).cdf).pvalue > ALPHA
    assert stats.chisquare(partner.bincount(minlength=m)).pvalue > ALPHA
    assert stats.f_oneway(*(share[partner == j] for j in range(m))).pvalue > ALPHA, (
        "the share does not know the partner"
    )
    assert abs(torch.stack([share[1:], share[:-1]]).corrcoef()[0, 1]) < 5 / n**0.5, (
        "every row has its own"
    )


@pytest.mark.parametrize("shape", [(20,), (5, 2, 2)], ids=str)
@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_masking_sets_entries_to_0_one_by_one(rate, shape):
    x = images(20_000, shape, seed=1) + 1
    view = agnostic(x, Masking(rate=rate))
    masked = view == 0
    assert torch.equal(view[~masked], x[~masked])
    assert stats.binomtest(int(masked.sum()), masked.numel(), rate).pvalue > ALPHA
    assert stats.chisquare(masked.flatten(1).sum(0)).pvalue > ALPHA, "every entry as often"
    assert largest_correlation(masked.flatten(1)) < 5 / len(x) ** 0.5


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("shape", [(20,), (5, 2, 2)], ids=str)
@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_corruption_draws_every_entry_from_its_own_column(rate, shape, as_bytes):
    """Ten samples whose entries tell their column and their row."""
    n, m, d = 20_000, 10, 20
    pool = 10 * torch.arange(d).view(shape) + torch.arange(m).view(m, *[1] * len(shape))
    view = agnostic(
        torch.full((n, *shape), -1.0),
        Corruption(rate=rate),
        pool=pool.byte() if as_bytes else pool.float(),
    ).flatten(1)
    view = torch.where(view >= 0, (view * 255).round(), -1) if as_bytes else view
    replaced = view >= 0
    assert (view[~replaced] == -1).all()
    assert stats.binomtest(int(replaced.sum()), replaced.numel(), rate).pvalue > ALPHA
    assert stats.chisquare(replaced.sum(0)).pvalue > ALPHA
    assert largest_correlation(replaced) < 5 / n**0.5
    column, row = view.long() // 10, view.long() % 10
    assert torch.equal(column[replaced], torch.arange(d).expand(n, -1)[replaced])
    table = torch.stack([row[replaced[:, a], a].bincount(minlength=m) for a in range(d)])
    assert (
        stats.chisquare(
            table.flatten(), (table.sum(1, keepdim=True) / m).expand(-1, m).flatten(), ddof=d - 1
        ).pvalue
        > ALPHA
    )
    both = replaced[:, 0] & replaced[:, 1]
    assert (
        stats.binomtest(int((row[:, 0] == row[:, 1])[both].sum()), int(both.sum()), 1 / m).pvalue
        > ALPHA
    ), "columns mix independently"


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_corruption_keeps_marginals_and_constants_and_breaks_what_columns_share(rate):
    """Two equal columns are both kept with probability (1 - rate)², which is then their
    correlation.
    """
    t = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(1))
    x = torch.cat([t, t, t.exp(), torch.full_like(t, 2.5)], 1)
    view = agnostic(x, Corruption(rate=rate))
    assert (view[:, 3] == 2.5).all()
    for before, after in zip(x.T[:3], view.T[:3], strict=True):
        assert stats.binomtest(int((before != after).sum()), len(x), rate).pvalue > ALPHA
        assert stats.ks_2samp(before, after).pvalue > ALPHA
    assert view.T[:2].corrcoef()[0, 1].item() == pytest.approx(
        (1 - rate) ** 2, abs=5 / len(x) ** 0.5
    )


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.permutations(STEPS.values(), 2)), ids=lambda step: step.name
)
def test_steps_come_one_after_the_other(first, second):
    """Partners and marginals are always those of the pool, not of what the steps before have
    made of it.
    """
    x, pool = images(50, (8,)), images(70, (8,), seed=1)
    torch.manual_seed(3)
    expected = agnostic_views(agnostic_views(x, (first,), pool), (second,), pool)
    assert torch.equal(agnostic(x, first, second, pool=pool, seed=3), expected)
    assert not torch.equal(agnostic(x, second, first, pool=pool, seed=3), expected)
    assert torch.equal(agnostic(x, seed=3), x), "none leave it as it is"


def test_what_is_masked_last_is_0_and_what_is_masked_first_is_noise():
    x = images(1000, (10,))
    last, first = (
        agnostic(x, *steps) == 0
        for steps in ((STEPS["noise"], STEPS["masking"]), (STEPS["masking"], STEPS["noise"]))
    )
    assert last.float().mean() == pytest.approx(0.4, abs=0.05)
    assert not first.any()


@every_step
@pytest.mark.parametrize("shape", [(40,), (3, 4, 4)], ids=str)
def test_views_are_the_seeds_and_every_row_has_its_own(shape, step):
    x, pool = images(1, shape, seed=2).repeat(20, *[1] * len(shape)), images(30, shape, seed=1)
    before = x.clone(), pool.clone()
    first, again, other = (agnostic(x, step, pool=pool, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({row.numpy().tobytes() for row in (*first, *other)}) == 40
    assert torch.equal(x, before[0])
    assert torch.equal(pool, before[1])
    assert (first.shape, first.dtype) == (x.shape, x.dtype)


@every_step
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stored", [torch.float32, torch.uint8, None], ids=str)
def test_views_are_of_the_precision_of_the_points(stored, dtype, step):
    x = images(200, (4,)).to(dtype)
    pool = (
        x
        if stored is None
        else (255 * images(30, (4,), seed=1)).byte()
        if stored == torch.uint8
        else images(30, (4,), seed=1)
    )
    view = agnostic(x, step, pool=pool)
    assert view.dtype == dtype
    assert (view != x).float().mean() > 0.2
    if not isinstance(step, Noise):
        assert view.min() >= 0
        assert view.max() <= 1


@every_step
@pytest.mark.parametrize("own_pool", [False, True])
def test_images_go_through_the_steps_after_crop_and_colour(own_pool, step):
    """Their pool is bytes; where none is given, it is the batch itself."""
    x, settings = images(16, (3, 8, 8)), {"jitter": 0.5, "flip": 0.5}
    pool = (images(30, (3, 8, 8), seed=1) * 255).byte() if own_pool else None
    torch.manual_seed(0)
    plain, box = ImageViews(ImageAugmentation(**settings), x.shape[1:])(x)
    expected = agnostic_views(plain, (step, STEPS["noise"]), x if pool is None else pool)
    torch.manual_seed(0)
    seen, seen_box = ImageViews(
        ImageAugmentation(**settings, then=(step, STEPS["noise"])), x.shape[1:]
    )(x, pool)
    assert torch.equal(seen, expected)
    assert torch.equal(seen_box, box)
    assert (seen - plain).abs().mean() > 0.05
    assert math.isfinite(seen.sum())
