"""The losses by tiles against one float64 matrix of similarities, differentiated by autograd."""

import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from helpers import unchecked
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sscl_core import negatives
from sscl_core.losses import InfoNCELoss, TSimCLRLoss, info_nce, t_simclr

LOSSES = {
    "info_nce": info_nce,
    "joint": partial(t_simclr, normalization="joint"),
    "conditional": partial(t_simclr, normalization="conditional"),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
all_losses = pytest.mark.parametrize("name", LOSSES)
both_precisions = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def reference(
    name: str,
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    df: float | Tensor = 5.0,
    weights: Tensor | None = None,
) -> Tensor:
    """The formula, with every difference of two features held."""
    n, z = len(z1), torch.cat([z1, z2])
    if name == "info_nce":
        u = z / z.norm(dim=1, keepdim=True)
        log_s = u @ u.T / temperature
    else:
        squared = (z[:, None] - z[None]).square().sum(-1)
        gaussian = not isinstance(df, Tensor) and df == math.inf
        log_s = -squared / (2 * temperature)
        if not gaussian:
            log_s = -(df + 1) / 2 * (squared / (temperature * df)).log1p()
    w = torch.ones(n, dtype=z.dtype) if weights is None else weights / weights.mean()
    positive = log_s.diagonal(n).repeat(2)
    off_diagonal = log_s.masked_fill(torch.eye(2 * n, dtype=torch.bool), -math.inf)
    by_row = off_diagonal.logsumexp(1)
    w = w.repeat(2)
    if name == "joint":
        return by_row.logsumexp(0) - (w * positive).mean()
    return (w * (by_row - positive)).mean()


def values_and_gradients(loss, inputs: dict[str, Tensor], **settings) -> dict[str, Tensor]:
    """The loss, and its gradient at each of the inputs that it depends on."""
    inputs = {key: value.detach().clone().requires_grad_() for key, value in inputs.items()}
    value = loss(**inputs, **settings)
    gradients = torch.autograd.grad(value, list(inputs.values()))
    return {"loss": value.detach()} | dict(zip(inputs, gradients, strict=True))


def assert_equal(
    name: str,
    dtype: torch.dtype,
    inputs: dict[str, Tensor],
    *,
    tile: int,
    rtol: float | None = None,
    **settings,
) -> None:
    """Value and every gradient, relative to the largest entry of each, or to what one pair gives
    where what the pairs give cancels.
    """
    exact = {key: value.double() for key, value in inputs.items()}
    ours = {key: value.to(dtype) for key, value in inputs.items()}
    right = values_and_gradients(partial(reference, name), exact, **settings)
    found = values_and_gradients(LOSSES[name], ours, tile=tile, **settings)
    temperature = float({"temperature": 1.0, **settings, **inputs}["temperature"])
    of_one_pair = {"z1": 0.1 / temperature, "z2": 0.1 / temperature, "weights": right["loss"].abs()}
    for key, value in right.items():
        assert found[key].dtype == dtype
        error = (found[key].double() - value).abs().max()
        least = float(of_one_pair.get(key, 0.0)) / len(inputs["z1"])
        assert error <= (rtol or TOLERANCE[dtype]) * max(float(value.abs().max()), least), key


def views(n: int, d: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two views that are correlated, as views are; numbers that float32 holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    z1, noise = torch.randn(2, n, d, generator=generator)
    return z1, z1 + 0.5 * noise


@all_losses
@both_precisions
@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.5, 5.0, 100.0])
def test_random_shapes_tiles_and_settings(temperature, dtype, name):
    draw = random.Random(f"{temperature}{name}")
    for seed in range(12):
        n, d, tile = draw.randint(2, 40), draw.randint(1, 9), draw.randint(1, 90)
        z1, z2 = views(n, d, seed=seed)
        if draw.random() < 0.3:
            z1[1], z2[1] = z1[0], z2[0]
        inputs, settings = {"z1": z1, "z2": z2}, {"temperature": temperature}
        if draw.random() < 0.5:
            inputs["weights"] = 0.1 + torch.from_numpy(np.random.default_rng(seed).random(n))
        if name != "info_nce":
            # As far apart as leaves log s within a few hundred: float32 rounds larger ones.
            reach = min(1.0, (10 * temperature) ** 0.5)
            inputs |= {"z1": z1 * reach, "z2": z2 * reach}
            settings["df"] = draw.choice([0.5, 1.0, 5.0, 29.0, 31.0, 1e4, math.inf])
        # Float32 rounds log s, which grows as 1 / temperature.
        rtol = TOLERANCE[dtype] * max(1.0, 0.2 / temperature)
        assert_equal(name, dtype, inputs, tile=tile, rtol=rtol, **settings)


@all_losses
@both_precisions
@pytest.mark.parametrize("tile", [1, 7, 8, 16, 17, 31, 32, 33])
def test_edges_of_tiles(tile, dtype, name):
    z1, z2 = views(16, 5)
    assert_equal(name, dtype, {"z1": z1, "z2": z2}, tile=tile, temperature=0.5)


@both_precisions
@pytest.mark.parametrize("name", ["joint", "conditional"])
def test_learned_temperature_and_df(name, dtype):
    z1, z2 = views(20, 4)
    numbers = {"temperature": torch.tensor(0.7), "df": torch.tensor(3.0)}
    assert_equal(name, dtype, {"z1": z1, "z2": z2, **numbers}, tile=16)


@pytest.mark.parametrize("name", ["joint", "conditional"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_df_as_a_tensor_of_any_precision_that_is_not_learned(dtype, name):
    """It is the number that it holds, for a second derivative too."""
    z1, z2 = views(20, 4)

    def derivatives(df):
        z = z1.clone().requires_grad_()
        loss = LOSSES[name](z, z2, df=df, tile=16)
        (first,) = torch.autograd.grad(loss, z, create_graph=True)
        (plain,) = torch.autograd.grad(LOSSES[name](z, z2, df=df, tile=16), z)
        assert loss.dtype == first.dtype == plain.dtype == torch.float32
        return loss, first, plain, *torch.autograd.grad(first.square().sum(), z)

    found = derivatives(torch.tensor(5.0, dtype=dtype))
    for one, other in zip(found, derivatives(5.0), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@both_precisions
def test_learned_temperature_of_info_nce(dtype):
    z1, z2 = views(20, 4)
    inputs = {"z1": z1, "z2": z2, "temperature": torch.tensor(0.2)}
    assert_equal("info_nce", dtype, inputs, tile=16)


@all_losses
def test_sizes_choose_tiles_of_their_own(name):
    """Several tiles, the last one smaller; one tile; and one matrix by autograd."""
    for n in (negatives.ONE_TILE // 2 + 30, 200, 60):
        z1, z2 = views(n, 6)
        assert_equal(name, torch.float32, {"z1": z1, "z2": z2}, tile=None, temperature=0.5)


def test_rows_whose_similarities_all_vanish_in_float32():
    """Every s of a row is exp(-500), or all cosines are orthogonal at temperature 0.002."""
    z1 = torch.eye(12) * 500**0.5
    inputs = {"z1": z1, "z2": z1 + 0.01}
    assert_equal("conditional", torch.float32, inputs, tile=5, df=math.inf, temperature=1.0)
    assert_equal("joint", torch.float32, inputs, tile=5, df=math.inf, temperature=1.0)
    assert_equal("info_nce", torch.float32, inputs, tile=5, rtol=1e-4, temperature=0.002)


@pytest.mark.parametrize("name", ["joint", "conditional"])
def test_a_common_shift_of_1000_in_float32(name):
    z1, z2 = views(20, 4)
    inputs = {"z1": z1 + 1000, "z2": z2 + 1000}
    # Features are scaled before they are centred, which rounds them to 3e-5.
    assert_equal(name, torch.float32, inputs, tile=16, rtol=3e-4, df=5.0)


@pytest.mark.parametrize("df", [5.0, 100.0, math.inf])
@pytest.mark.parametrize("name", ["joint", "conditional"])
def test_distances_that_rounding_turns_negative_stay_harmless(name, df):
    z1, _ = views(20, 4)
    z1 = torch.cat([1e5 * z1, 1e5 * z1])  # each sample twice: a product has ±1e3 as their distance
    found = values_and_gradients(LOSSES[name], {"z1": z1, "z2": z1}, tile=16, df=df)
    assert found["loss"].isfinite()
    assert found["z1"].isfinite().all()


@all_losses
def test_second_derivatives(name):
    inputs = tuple(z.double().requires_grad_() for z in views(3, 2))
    loss = partial(LOSSES[name], temperature=0.7, tile=4)
    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


@all_losses
def test_vmap_and_its_gradient(name):
    z = torch.stack([torch.cat(views(9, 3, seed=seed)) for seed in range(4)]).double()
    tiled, dense = (partial(LOSSES[name], temperature=0.7, tile=tile) for tile in (5, 0))

    def of_each(loss, z: Tensor) -> Tensor:
        return torch.func.vmap(lambda own: loss(*own.chunk(2)))(z)

    def gradient_of_each(loss, z: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.grad(lambda own: loss(*own.chunk(2))))(z)

    found, right = (
        values_and_gradients(lambda z, loss=loss: of_each(loss, z).sum(), {"z": z})
        for loss in (tiled, dense)
    )
    torch.testing.assert_close(found, right)
    torch.testing.assert_close(gradient_of_each(tiled, z), gradient_of_each(dense, z))


def test_vmap_over_df():
    z1, z2 = (z.double() for z in views(9, 3))
    df = torch.tensor([0.5, 2.0, 9.0], dtype=torch.float64)
    for name in ("joint", "conditional"):
        loss = partial(LOSSES[name], z1, z2, tile=5)
        found = torch.func.vmap(lambda df, loss=loss: loss(df=df))(df)
        right = torch.stack([reference(name, z1, z2, df=value) for value in df])
        torch.testing.assert_close(found, right)


@all_losses
def test_autocast_reaches_neither_pass(name):
    z1, z2 = views(40, 8)
    inputs = {"z1": z1, "z2": z2}
    plain = values_and_gradients(LOSSES[name], inputs, tile=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = values_and_gradients(LOSSES[name], inputs, tile=16)
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


class Sizes(TorchDispatchMode):
    """The largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.largest = max(self.largest, value.numel())
        return result


@all_losses
def test_no_tensor_larger_than_a_tile_or_the_features(name):
    n, d, tile = 256, 4, 64
    with Sizes() as sizes:
        values_and_gradients(
            LOSSES[name], dict(zip(("z1", "z2"), views(n, d), strict=True)), tile=tile
        )
    assert sizes.largest <= max(tile**2, 2 * n * (d + 2))


@pytest.mark.parametrize("make", [InfoNCELoss, TSimCLRLoss])
def test_modules_pass_the_tile_on_and_refuse_what_is_none(make):
    z1, z2 = views(256, 4)
    with Sizes() as sizes:
        make(tile=32)(z1, z2)
    assert sizes.largest <= 512 * 6
    with pytest.raises(ValueError, match="tile must be at least 0, got -1"):
        make(tile=-1)
    with pytest.raises(TypeError, match=r"tile must be a whole number, got 2\.5"):
        getattr(unchecked("sscl_core.losses"), make.__name__)(tile=2.5)
