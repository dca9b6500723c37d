"""log Σ s over the negatives of each row, and over all of them, by tiles of the similarities.

Rows i and i + n are two views of one sample; the negatives of a row are all rows of other samples.
The N × N similarities, N = 2n, are made a tile at a time and never held as a whole. They are
symmetric, so of two tiles that mirror each other only one is made. With r_i the sum over the
negatives of row i, and v_i the gradient that arrives at log r_i, the gradient at log s of a pair is
(v_i/r_i + v_j/r_j) s. It takes, of products of the size N × N × d, where whole matrices take three:

    log r_i of every row    1/2, and in the backward pass 1/2 to make the tiles again, and 1
    log Σ_i r_i             1/2 + 1: the gradient, but for the factor 1/Σ r, is gathered on the way

No maximum is taken out of the exponents. Where the sums leave the range of the precision for it (a
temperature below about 1/40 in float32, features so far apart that every s of a row vanishes), and
where df is learned, sums are made from log s, some whole rows at a time.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from .checks import Metric, holds
from .similarities import full_precision, same_sample

# Up to so many rows one tile, kept for the backward pass, is faster than several made twice.
ONE_TILE = 1024
CACHED_ROWS = 256  # of weights of that tile that are made at a time, to stay in a cache
# Three arrays of so many rows and columns fit the cache of a CPU core; a GPU wants larger ones.
TILE, CUDA_TILE = 512, 4096
# Sums of s from this number to its inverse: no entry lost to underflow can matter to them.
SMALLEST_SUM = {torch.float32: 1e-18, torch.float64: 1e-150}
# By whole rows, so many entries at a time.
ENTRIES = 2**22
# Under vmap, as many batches at a time as have so many entries in one tile each: they fit a cache.
MAPPED_ENTRIES = 2**20
# Up to here a power of 1 + ‖x - y‖² has the digits that log1p has.
LARGEST_POWER_DF = 30.0


class _Cosine:
    """s = exp(x·y), rows being unit vectors over √temperature."""

    distances = False

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two matrices; the product of one with the other holds what s is a function of."""
        return x, x

    def log_s(self, product: Tensor) -> Tensor:
        return product

    def slope(self, log_s: Tensor) -> Tensor | float:
        """The factor of a pair's gradient beside s that differs from pair to pair."""
        return 1.0

    def s(self, product: Tensor) -> Tensor:
        """s; `product` is overwritten, as by the next."""
        return product.exp_()

    def s_and_sloped(self, product: Tensor) -> tuple[Tensor, Tensor]:
        """s, and s times the slope."""
        s = self.s(product)
        return s, s

    def gradient(self, x: Tensor, sums: Tensor, totals: Tensor) -> Tensor:
        """That at x_i, from  Σ_j w_ij x_j  and  Σ_j w_ij, w being weights times slopes."""
        return sums


class _Gaussian(_Cosine):
    """s = exp(-‖x - y‖²); ‖x - y‖² is the product of [-2x, ‖x‖², 1] and [y, 1, ‖y‖²]."""

    distances = True
    steepness: Any = 2.0  # of log s: twice its slope in ‖x - y‖², where that is 0

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        norms = x.square().sum(-1, keepdim=True)
        one = torch.ones_like(norms)
        return torch.cat([-2 * x, norms, one], -1), torch.cat([x, one, norms], -1)

    def log_s(self, product: Tensor) -> Tensor:
        return -product.relu()

    def s(self, product: Tensor) -> Tensor:
        return product.relu_().neg_().exp_()

    def gradient(self, x: Tensor, sums: Tensor, totals: Tensor) -> Tensor:
        return (sums - totals[..., None] * x) * self.steepness


class _Student(_Gaussian):
    """s = (1 + ‖x - y‖²)^(-(df + 1)/2), by its logarithm: exact whatever df is."""

    def __init__(self, df: Any) -> None:
        self.steepness = (df + 1)[..., None, None] if isinstance(df, Tensor) else df + 1

    def log_s(self, product: Tensor) -> Tensor:
        return product.relu().log1p() * (-self.steepness / 2)

    def slope(self, log_s: Tensor) -> Tensor:
        """1 / (1 + ‖x - y‖²)."""
        return (log_s * (2 / self.steepness)).exp()

    def s(self, product: Tensor) -> Tensor:
        return product.relu_().log1p_().mul_(-self.steepness / 2).exp_()

    def s_and_sloped(self, product: Tensor) -> tuple[Tensor, Tensor]:
        log_s = self.log_s(product)
        slope = self.slope(log_s)
        s = log_s.exp_()
        return s, slope * s


class _StudentPower(_Student):
    """The same by a power, which takes no logarithm, and loses digits as df grows."""

    def s(self, product: Tensor) -> Tensor:
        return self._slope_of(product).pow_(self.steepness / 2)

    def s_and_sloped(self, product: Tensor) -> tuple[Tensor, Tensor]:
        slope = self._slope_of(product)
        s = slope.pow(self.steepness / 2)
        return s, slope.mul_(s)

    def _slope_of(self, product: Tensor) -> Tensor:
        return product.relu_().add_(1).reciprocal_()


_Form = _Cosine | _Gaussian | _Student | _StudentPower


def fastest_tile(rows: int, device: torch.device) -> int:
    """The rows of a tile that are fastest for so many features on a device."""
    if device.type == "cuda":
        return min(rows, CUDA_TILE)
    return rows if rows <= ONE_TILE else TILE


def log_sums(
    x: Float[Tensor, "N d"], metric: Metric, df: float | Tensor, *, tile: int
) -> Float[Tensor, " N"]:
    """log Σ_k s_ik over the negatives k of each row i.

    `x`: unit vectors over √temperature for cosine (df does not matter); features over
    √(temperature · df), over √(2 temperature) where df is infinite, for euclidean.
    `tile`: the rows of a tile.
    """
    return _LogSums.apply(_centred(x, metric), df, metric, tile)[0]


def log_total(
    x: Float[Tensor, "N d"], metric: Metric, df: float | Tensor, *, tile: int
) -> Float[Tensor, ""]:
    """log Σ_ik s_ik over all negative pairs, in both orders; arguments as those of `log_sums`."""
    needs_gradient = torch.is_grad_enabled() and x.requires_grad
    return _LogTotal.apply(_centred(x, metric), df, metric, tile, needs_gradient)[0]


def _centred(x: Tensor, metric: Metric) -> Tensor:
    """Distances, and so gradients, do not depend on a shift; rounding does."""
    return x - x.detach().mean(0) if metric == "euclidean" else x


class _LogSums(Function):
    @staticmethod
    def forward(x: Tensor, df: Any, metric: Metric, tile: int) -> tuple[Tensor, Tensor, Tensor]:
        """log r; r, or nothing where only its logarithm is in range; a single tile, or nothing."""
        form, nothing = _form(metric, df), x.new_empty(0)
        if not isinstance(df, Tensor):
            r, kept = _sums(form, x, tile)
            if _in_range(r):
                return r.log(), r, kept
        return _log_sums_by_rows(form, x), nothing, nothing

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, df, ctx.metric, ctx.tile = inputs
        _save(ctx, x, df, output)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, *_: Any) -> tuple:
        if v is None:  # no gradient arrives, which second derivatives let happen
            return (None,) * 4
        (x, log_r, r, kept), df = _saved(ctx)
        form = _form(ctx.metric, df)
        with full_precision(x):
            if torch.is_grad_enabled():
                return *_differentiable(form, x, df, v), None, None
            if kept.numel():
                return _gradient_of_kept(form, x, v / r, kept), None, None, None
            if r.numel():
                return _gradient(form, x, v / r, ctx.tile), None, None, None
            return *_gradient_by_rows(form, x, df, log_r, v), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, x: Tensor, df: Any, *settings: Any) -> tuple:
        return _mapped(_LogSums, info.batch_size, in_dims, x, df, *settings), (0, 0, 0)


class _LogTotal(Function):
    @staticmethod
    def forward(
        x: Tensor, df: Any, metric: Metric, tile: int, needs_gradient: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """log Σ r; Σ r, or nothing where only its logarithm is in range; its gradient at x."""
        form, nothing = _form(metric, df), x.new_empty(0)
        if not isinstance(df, Tensor):
            total, gradient = _total(form, x, tile, needs_gradient)
            if _in_range(total):
                return total.log(), total, gradient
        return _log_sums_by_rows(form, x).logsumexp(-1), nothing, nothing

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, df, ctx.metric, ctx.tile, _ = inputs
        _save(ctx, x, df, output)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, *_: Any) -> tuple:
        if v is None:
            return (None,) * 5
        (x, log_total, total, gradient), df = _saved(ctx)
        form, nothing = _form(ctx.metric, df), (None, None, None)
        with full_precision(x):
            if torch.is_grad_enabled():
                return *_differentiable(form, x, df, v), *nothing
            if gradient.numel():
                return (v / total)[..., None, None] * gradient, None, *nothing
            like_rows = x.shape[:-1]
            if total.numel():
                weight = (v / total)[..., None].expand(like_rows)
                return _gradient(form, x, weight, ctx.tile), None, *nothing
            v, log_r = (value[..., None].expand(like_rows) for value in (v, log_total))
            return *_gradient_by_rows(form, x, df, log_r, v), *nothing

    @staticmethod
    def vmap(info: Any, in_dims: tuple, x: Tensor, df: Any, *settings: Any) -> tuple:
        return _mapped(_LogTotal, info.batch_size, in_dims, x, df, *settings), (0, 0, 0)


def _form(metric: Metric, df: Any) -> _Form:
    if metric == "cosine":
        return _Cosine()
    if isinstance(df, Tensor):
        return _Student(df)
    if df == math.inf:
        return _Gaussian()
    return _StudentPower(df) if df <= LARGEST_POWER_DF else _Student(df)


def _save(ctx: Any, x: Tensor, df: Any, output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # else each of these gets a gradient, all zeros
    ctx.learned = isinstance(df, Tensor)
    ctx.df = None if ctx.learned else df
    ctx.save_for_backward(x, *output, *((df,) if ctx.learned else ()))


def _saved(ctx: Any) -> tuple[tuple[Tensor, ...], Any]:
    """x and what `forward` returned; and df."""
    tensors = ctx.saved_tensors
    return tensors[:4], tensors[4] if ctx.learned else ctx.df


def _mapped(
    function: type[Function], size: int, in_dims: tuple, x: Tensor, df: Any, *settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """What `function` gives for each entry of the axes that vmap maps, stacked."""
    x = x.expand(size, *x.shape) if in_dims[0] is None else x.movedim(in_dims[0], 0)
    rows = min(x.shape[-2], settings[1])
    at_once = max(1, MAPPED_ENTRIES // rows**2)
    parts, dfs = x.split(at_once), [df] * math.ceil(size / at_once)
    if isinstance(df, Tensor):
        df = df.expand(size, *df.shape) if in_dims[1] is None else df.movedim(in_dims[1], 0)
        dfs = df.split(at_once)
    outputs = [
        function.apply(part, own, *settings)[0] for part, own in zip(parts, dfs, strict=True)
    ]
    # What the backward passes need is held by each part.
    return torch.cat(outputs), x.new_empty(size, 0), x.new_empty(size, 0)


def _in_range(sums: Tensor) -> bool:
    smallest = SMALLEST_SUM[sums.dtype]
    least, most = sums.aminmax()
    return holds((least > smallest) & (most < 1 / smallest))


def _parts(rows: int, height: int) -> list[slice]:
    return [slice(start, min(start + height, rows)) for start in range(0, rows, height)]


def _tiles(rows: int, tile: int) -> Iterator[tuple[slice, slice]]:
    """Tiles on and above the diagonal, as slices of rows and of columns."""
    parts = _parts(rows, tile)
    for number, part in enumerate(parts):
        for other in parts[number:]:
            yield part, other


def _only_negatives(tile: Tensor, part: slice, other: slice, n: int, value: float) -> Tensor:
    """The tile, with `value` in place of the pairs of a row with itself and with its positive."""
    height, width = tile.shape[-2:]
    for distance in (0, n, -n):
        offset = part.start + distance - other.start
        if -height < offset < width:
            tile.diagonal(offset, -2, -1).fill_(value)
    return tile


class _Gatherer:
    """Σ_j w_ij x_j and, where distances matter, Σ_j w_ij, from weights w that come tile by tile."""

    def __init__(self, form: _Form, x: Tensor) -> None:
        self.form, self.x = form, x
        self.sums, self.totals = torch.zeros_like(x), x.new_zeros(x.shape[:-1])

    def add(self, weights: Tensor, part: slice, other: slice) -> None:
        """The weights of rows `part` with rows `other`; and of the latter with the former."""
        self.add_to_rows(weights, part, other)
        if other != part:
            self.add_to_rows(weights.mT, other, part)

    def add_to_rows(self, weights: Tensor, part: slice, other: slice) -> None:
        self.sums[..., part, :] += weights @ self.x[..., other, :]
        if self.form.distances:
            self.totals[..., part] += weights.sum(-1)

    def gradient(self) -> Tensor:
        return self.form.gradient(self.x, self.sums, self.totals)


def _sums(form: _Form, x: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    """r; and s times its slope if that is one tile, or nothing."""
    n, (left, right) = x.shape[-2] // 2, form.operands(x)
    r, kept = x.new_zeros(x.shape[:-1]), x.new_empty(0)
    for part, other in _tiles(2 * n, tile):
        product = left[..., part, :] @ right[..., other, :].mT
        if tile >= 2 * n:
            s, kept = form.s_and_sloped(product)
            kept = _only_negatives(kept, part, other, n, 0.0)
        else:
            s = form.s(product)
        s = _only_negatives(s, part, other, n, 0.0)
        r[..., part] += s.sum(-1)
        if other != part:
            r[..., other] += s.sum(-2)
    return r, kept


def _gradient_of_kept(form: _Form, x: Tensor, weight: Tensor, kept: Tensor) -> Tensor:
    """As `_gradient`, of the one tile that `_sums` kept: a few rows of weights at a time."""
    gatherer, everything = _Gatherer(form, x), slice(0, x.shape[-2])
    for part in _parts(x.shape[-2], CACHED_ROWS):
        weights = weight[..., part, None] + weight[..., None, :]
        gatherer.add_to_rows(weights.mul_(kept[..., part, :]), part, everything)
    return gatherer.gradient()


def _gradient(form: _Form, x: Tensor, weight: Tensor, tile: int) -> Tensor:
    """That of  Σ_i v_i log r_i  at x, of weight = v/r."""
    n, (left, right) = x.shape[-2] // 2, form.operands(x)
    gatherer = _Gatherer(form, x)
    for part, other in _tiles(2 * n, tile):
        product = left[..., part, :] @ right[..., other, :].mT
        sloped = form.s_and_sloped(product)[1]
        sloped = _only_negatives(sloped, part, other, n, 0.0)
        weights = weight[..., part, None] + weight[..., None, other]
        gatherer.add(weights.mul_(sloped), part, other)
    return gatherer.gradient()


def _total(form: _Form, x: Tensor, tile: int, needs_gradient: bool) -> tuple[Tensor, Tensor]:
    """Σ r, and its gradient at x, or nothing."""
    n, (left, right) = x.shape[-2] // 2, form.operands(x)
    total, gatherer = x.new_zeros(x.shape[:-2]), _Gatherer(form, x)
    for part, other in _tiles(2 * n, tile):
        product = left[..., part, :] @ right[..., other, :].mT
        s, sloped = form.s_and_sloped(product) if needs_gradient else (form.s(product), None)
        s = _only_negatives(s, part, other, n, 0.0)
        total += s.sum((-2, -1)) * (1 if other == part else 2)
        if sloped is not None:
            gatherer.add(_only_negatives(sloped, part, other, n, 0.0), part, other)
    return total, 2 * gatherer.gradient() if needs_gradient else x.new_empty(0)


def _row_blocks(x: Tensor) -> list[slice]:
    return _parts(x.shape[-2], max(1, ENTRIES // x[..., 0].numel()))


def _log_sums_by_rows(form: _Form, x: Tensor) -> Tensor:
    left, right = form.operands(x)
    blocks = [_log_s_of_rows(form, left, right, part).logsumexp(-1) for part in _row_blocks(x)]
    return torch.cat(blocks, -1)


def _log_s_of_rows(form: _Form, left: Tensor, right: Tensor, part: slice) -> Tensor:
    """log s of some rows with all; a finite number that exp makes 0 where there is no negative."""
    rows = right.shape[-2]
    log_s = form.log_s(left[..., part, :] @ right.mT)
    value = torch.finfo(log_s.dtype).min / 4
    return _only_negatives(log_s, part, slice(0, rows), rows // 2, value)


def _gradient_by_rows(
    form: _Form, x: Tensor, df: Any, log_r: Tensor, v: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Those of  Σ_i v_i log r_i  at x, and at df if it is learned."""
    left, right = form.operands(x)
    everything, gatherer, at_df = slice(0, x.shape[-2]), _Gatherer(form, x), None
    for part in _row_blocks(x):
        log_s = _log_s_of_rows(form, left, right, part)
        weights = v[..., part, None] * (log_s - log_r[..., part, None]).exp_()
        weights += v[..., None, :] * (log_s - log_r[..., None, :]).exp_()
        gatherer.add_to_rows(weights * form.slope(log_s), part, everything)
        if isinstance(df, Tensor):
            # Each pair comes twice, once from either side.
            share = (weights * log_s).sum((-2, -1)) / (2 * (df + 1))
            at_df = share if at_df is None else at_df + share
    return gatherer.gradient(), at_df


def _differentiable(form: _Form, x: Tensor, df: Any, v: Tensor) -> tuple[Tensor, Tensor | None]:
    """The gradients by autograd of whole matrices, through which one can differentiate again."""
    left, right = form.operands(x)
    log_s = form.log_s(left @ right.mT)
    own = same_sample(x.shape[-2] // 2, x.device)
    sums = log_s.masked_fill(own, -math.inf).logsumexp(-1)
    if v.shape != sums.shape:  # the gradient is that of the total
        sums = sums.logsumexp(-1)
    learned = (df,) if isinstance(df, Tensor) and df.requires_grad else ()
    at_x, *at_df = torch.autograd.grad(sums, (x, *learned), v, create_graph=True)
    return at_x, at_df[0] if at_df else None
