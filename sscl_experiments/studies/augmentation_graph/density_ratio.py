"""How well log s of a trained network fits the log density ratio that its loss asks for. (B7)

Two views x, x' of one sample have density P(x, x') = mean_k a(x | x̄_k) a(x' | x̄_k) over the
training samples x̄_k, and p is its marginal. Over many batches the negatives of an anchor are drawn
from p, so InfoNCE is smallest where  log s(f(x), f(x')) = T + constant,  T = log P(x, x')/(p p').
Here a is known: exactly for noise on vectors, by averaging over crops for images with noise.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sscl_core.affinities import log_noise
from sscl_core.augmentations import ImageViews
from sscl_core.config import Images, InfoNCE, Noise, Points, SpectralContrastive, TrainConfig
from sscl_core.ensemble import Ensemble, train_ensemble
from sscl_core.rng import EVALUATION, VIEWS, stream
from sscl_core.similarities import Cosine, Similarity, Student
from sscl_core.train import train
from sscl_experiments.runs.images import image_sets
from sscl_experiments.runs.points import point_set, train_points
from sscl_experiments.statistics import interval

R2, SLOPE, SCALED = "R²", "slope", "R², best scale"
PARTNERS, MIXED = "partners", "half independent"  # kinds of pairs
RAW, MIXUP, UNTRAINED, TRAINED = "raw input", "trained with mixup", "untrained", "trained"

# --- pairs of views, and their T -----------------------------------------------------------------


class Pairs(NamedTuple):
    """m pairs that are two views of one sample, then m of two samples drawn independently."""

    x1: Float[Tensor, "k ..."]
    x2: Float[Tensor, "k ..."]
    T: Float[Tensor, " k"]
    log_P: Float[Tensor, " k"]

    @property
    def partners(self) -> slice:
        """The first half: pairs drawn from P, as training draws its positives."""
        return slice(len(self.T) // 2)


def log_ratio(
    log_a1: Float[Tensor, "n m"], log_a2: Float[Tensor, "n m"]
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """T = log P/(p p') and log P of pairs, from log a(x | x̄_k) and log a(x' | x̄_k), k = 1..n.

    A constant that is common to all of log a drops out of T.
    """
    log_n = math.log(len(log_a1))
    log_p1, log_p2 = (log_a.logsumexp(0) - log_n for log_a in (log_a1, log_a2))
    log_P = (log_a1 + log_a2).logsumexp(0) - log_n
    return log_P - log_p1 - log_p2, log_P


@lru_cache(maxsize=64)
def noise_pairs(points: Points, seed: int, m: int) -> Pairs:
    """Fresh views of the training points of a seed; T is exact."""
    (step,), x = points.augmentation, train_points(points, seed)
    assert isinstance(step, Noise)
    with stream(seed, VIEWS, EVALUATION):
        first, other = torch.randint(len(x), (2, m))
        anchors = x[torch.cat([first, first])], x[torch.cat([first, other])]
        x1, x2 = (a + step.scale * torch.randn_like(a) for a in anchors)
    log_a1, log_a2 = (log_noise(x, views, scale=step.scale) for views in (x1, x2))
    return Pairs(x1, x2, *log_ratio(log_a1, log_a2))


class ImagePairs(NamedTuple):
    """Pairs of views of images, and a second estimate of T from other crops."""

    pairs: Pairs
    again: Float[Tensor, " k"]


def image_pairs(config: TrainConfig, m: int, *, crops: int) -> ImagePairs:
    """Fresh views of the training images of a run, whose last step is Gaussian noise of scale σ.

    a(x | x̄) = mean over crops c of N(x; c(x̄), σ²), by as many random crops of each image; another
    set of crops gives the second estimate.
    """
    assert isinstance(config.data, Images)
    images = image_sets(config).train.images
    *_, noise = config.data.augmentation.then
    assert isinstance(noise, Noise)
    crop = ImageViews(config.data.augmentation.replace(then=()), images.shape[1:])
    augment = ImageViews(config.data.augmentation, images.shape[1:])
    with stream(0, VIEWS, EVALUATION):
        first, other = torch.randint(len(images), (2, m))
        x1 = augment(images[torch.cat([first, first])], images)[0]
        x2 = augment(images[torch.cat([first, other])], images)[0]
        estimates = []
        for _ in range(2):
            templates = crop(images.repeat_interleave(crops, 0))[0].flatten(1)
            log_a1, log_a2 = (
                _log_mean_noise(templates, x.flatten(1), noise.scale, crops) for x in (x1, x2)
            )
            estimates.append(log_ratio(log_a1, log_a2))
    return ImagePairs(Pairs(x1, x2, *estimates[0]), estimates[1][0])


def _log_mean_noise(
    templates: Float[Tensor, "nc d"], x: Float[Tensor, "m d"], scale: float, crops: int
) -> Float[Tensor, "n m"]:
    """log of the mean over an image's crops of exp(-‖x - crop‖² / (2 scale²))."""
    parts = []
    for views in x.split(256):
        squared = torch.cdist(templates, views).double().square()
        log_a = (-squared / (2 * scale**2)).unflatten(0, (-1, crops))
        parts.append(log_a.logsumexp(1) - math.log(crops))
    return torch.cat(parts, 1)


# --- the fit -------------------------------------------------------------------------------------


def fit(log_s: Float[Tensor, " m"], T: Float[Tensor, " m"]) -> dict[str, float]:
    """How well log s = T + constant, over pairs of equal weight.

    R² = 1 - Var(log s - T) / Var(T), with slope 1 and a free constant: 0 for a similarity that says
    nothing, 1 for T. "slope": that of log s on T. "R², best scale": the largest R² of any multiple
    of log s, which is their squared correlation.
    """
    residual = log_s - T
    covariance = ((log_s - log_s.mean()) * (T - T.mean())).sum() / (len(T) - 1)
    explained = covariance.square() / (log_s.var() * T.var()).clamp_min(1e-300)
    return {
        R2: (1 - residual.var() / T.var()).item(),
        SLOPE: (covariance / T.var()).item(),
        SCALED: explained.item(),
    }


def similarity_of(config: TrainConfig) -> Similarity:
    """The similarity that a run compares features by."""
    assert not isinstance(config.loss, SpectralContrastive)
    if isinstance(config.loss, InfoNCE):
        return Cosine(config.loss.temperature)
    return Student(config.loss.temperature, config.loss.df)


def log_s_of(
    config: TrainConfig, z1: Float[Tensor, "m d"], z2: Float[Tensor, "m d"]
) -> Float[Tensor, " m"]:
    """log s of each row of z1 with the same row of z2, by the similarity of the run."""
    similarity = similarity_of(config)
    rows = similarity.rows(torch.cat([z1, z2]).double())
    return similarity.log_s_of_pairs(*rows.chunk(2))


Group = tuple[str, str, int]  # data, similarity, d_z


class Fits(NamedTuple):
    """`table`: a row for each run, step of training and kind of pairs, with what `fit` says.

    `pairs`: for each group the pairs of each seed, and log s of them before and after training.
    """

    table: pd.DataFrame
    pairs: dict[Group, "Kept"]


class Kept(NamedTuple):
    """The pairs of each run, and log s of them before and after training."""

    pairs: list[Pairs]
    before: list[Tensor]
    after: list[Tensor]


def fits(
    runs: Mapping[Group, Sequence[TrainConfig]],
    m: int,
    *,
    against: Points | None = None,
) -> Fits:
    """Trains runs on vectors, and fits their log s at every look.

    `against`: the data and noise whose T is fitted, by default a run's own.
    """
    rows: list[dict[str, Any]] = []
    kept: dict[Group, Kept] = {}
    for group, configs in runs.items():
        points = [against or config.data for config in configs]
        known = dict(zip(("data", "similarity", "d_z"), group, strict=True))
        pairs = [noise_pairs(p, c.seed, m) for p, c in zip(points, configs, strict=True)]
        history = log_s_history(configs, pairs)
        for step, log_s in history.items():
            for config, own, ours in zip(configs, pairs, log_s, strict=True):
                row = known | {"seed": config.seed, "step": step}
                rows += [row | found for found in fit_rows(own, ours)]
        first, *_, last = history.values()
        kept[group] = Kept(pairs, first, last)
    return Fits(pd.DataFrame(rows), kept)


def fit_rows(pairs: Pairs, log_s: Float[Tensor, " k"]) -> list[dict[str, Any]]:
    """`fit` over partners, as training draws its positives, and over these and independent pairs.

    "log P alone" is R² with log P in the place of T's estimate.
    """
    kinds = {PARTNERS: pairs.partners, MIXED: slice(None)}
    rows = []
    for kind, part in kinds.items():
        alone = fit(pairs.log_P[part], pairs.T[part])[R2]
        rows.append({"pairs": kind, **fit(log_s[part], pairs.T[part]), "log P alone": alone})
    return rows


def log_s_history(
    configs: Sequence[TrainConfig], pairs: Sequence[Pairs]
) -> dict[int, list[Tensor]]:
    """log s of the pairs of each run, by training step: before it, and after every epoch."""
    config, m = configs[0], len(pairs[0].T)
    assert isinstance(config.data, Points)
    per_epoch = config.data.steps_per_epoch
    x = torch.stack([torch.cat([own.x1, own.x2]) for own in pairs]).float()
    history: dict[int, list[Tensor]] = {}

    def look(epoch: int, ensemble: Ensemble) -> None:
        z = ensemble(x).detach()
        history[epoch * per_epoch] = [log_s_of(config, zi[:m], zi[m:]) for zi in z]

    data = [point_set(config).train.x for config in configs]
    train_ensemble(configs, data, device="cpu", on_epoch=look)
    return history


def image_fits(configs: Sequence[TrainConfig], found: ImagePairs) -> Fits:
    """Trains runs on images, one after the other, and fits their log s before and after."""
    rows: list[dict[str, Any]] = []
    kept = Kept([found.pairs] * len(configs), [], [])
    for config in configs:
        images = image_sets(config).train.images
        for name, run in (("before", config.replace(epochs=0)), ("after", config)):
            network = train(run, images, device="cpu").model
            with torch.no_grad():
                z1, z2 = (network(x)[1] for x in (found.pairs.x1, found.pairs.x2))
            log_s = log_s_of(config, z1, z2)
            getattr(kept, name).append(log_s)
            known = {"seed": config.seed, "step": name}
            rows += [known | row for row in fit_rows(found.pairs, log_s)]
    group = ("images", "Gaussian", configs[0].projector.dim)
    return Fits(pd.DataFrame(rows), {group: kept})


# --- tables --------------------------------------------------------------------------------------


def raw_log_s(pairs: Pairs) -> Float[Tensor, " k"]:
    """-‖x - x'‖²: the Gaussian similarity of the raw input, but for its scale."""
    return -(pairs.x1 - pairs.x2).flatten(1).square().sum(1).double()


def sources(ours: Kept, wrong: Kept) -> dict[str, list[Tensor]]:
    """log s of the same pairs by the trained networks and by what must not do as well."""
    return {
        UNTRAINED: ours.before,
        RAW: [raw_log_s(pairs) for pairs in ours.pairs],
        MIXUP: wrong.after,
        TRAINED: ours.after,
    }


def against_nulls(ours: Kept, wrong: Kept) -> pd.DataFrame:
    """`fit` over partners, a row for each source and run, and that of log P in the place of T.

    The scale of the raw input is the best there is.
    """
    rows = []
    for name, log_s in sources(ours, wrong).items():
        for seed, (pairs, found) in enumerate(zip(ours.pairs, log_s, strict=True)):
            part = pairs.partners
            row = {"log s of": name, "run": seed} | fit(found[part], pairs.T[part])
            if name == RAW:
                row |= {R2: row[SCALED], SLOPE: row[SCALED]}
            rows.append(row | {"log P alone": fit(pairs.log_P[part], pairs.T[part])[R2]})
    return pd.DataFrame(rows)


def means(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Means over runs with the 95 % interval of the first column."""
    rows = []
    for key, own in table.groupby(list(by), sort=False):
        mean, low, high = interval(own[columns[0]].tolist())
        row = dict(zip(by, key, strict=True)) | {columns[0]: mean}
        row |= {"95 % low": low, "95 % high": high}
        row |= {name: own[name].mean() for name in columns[1:]}
        rows.append(row | {"n": len(own)})
    return pd.DataFrame(rows)


def left_over(nulls: pd.DataFrame) -> list[float]:
    """B7, by run: 1 - R² of the trained network over the least that a null leaves.

    Each null has its best scale.
    """
    values = []
    for _, own in nulls.groupby("run"):
        own = own.set_index("log s of")
        least = 1 - own.drop(TRAINED)[SCALED].max()
        values.append(float((1 - own[R2][TRAINED]) / least))
    return values


def last_looks(table: pd.DataFrame) -> pd.DataFrame:
    """R² and slope over partners, halfway through training and after it: does it still grow?"""
    last = table[table.pairs == PARTNERS]
    half = last.step.max() / 2
    nearest = (last.step - half).abs().min() == (last.step - half).abs()
    shown = last[nearest | (last.step == last.step.max())]
    return means(shown, ["data", "step"], [R2, SLOPE])


def where_residuals_lie(kept: Mapping[Group, Kept]) -> pd.DataFrame:
    """Whether the residual log s - T over partners is a function of a pair's place or difference.

    The share of its variance that a quadratic polynomial explains: of the midpoint (x + x')/2, and
    of the difference x - x'; and R² of the raw input at its best scale.
    """
    rows = []
    for (data, _, _), own in kept.items():
        for pairs, log_s in zip(own.pairs, own.after, strict=True):
            part = pairs.partners
            residual = log_s[part] - pairs.T[part]
            x1, x2 = pairs.x1[part].double(), pairs.x2[part].double()
            row = {
                "data": data,
                SLOPE: fit(log_s[part], pairs.T[part])[SLOPE],
                "of the midpoint": quadratic_share(residual, (x1 + x2) / 2),
                "of the difference": quadratic_share(residual, x1 - x2),
                "R², raw input": fit(raw_log_s(pairs)[part], pairs.T[part])[SCALED],
            }
            rows.append(row)
    return pd.DataFrame(rows).groupby("data", sort=False).mean().reset_index()


def quadratic_share(y: Float[Tensor, " m"], x: Float[Tensor, "m d"]) -> float:
    """The share of the variance of y that a polynomial of degree 2 in x explains."""
    products = [x[:, i] * x[:, j] for i in range(x.shape[1]) for j in range(i + 1)]
    design = torch.stack([torch.ones_like(y), *x.T, *products], 1)
    fitted = design @ torch.linalg.lstsq(design, y[:, None]).solution
    return (1 - (y - fitted[:, 0]).var() / y.var()).item()


def residuals(kept: Mapping[Group, Kept], bins: int = 10) -> pd.DataFrame:
    """The mean of log s - T by T, in bins of equally many pairs of both kinds; a row a run and bin.

    The constant is such that the mean over partners is 0.
    """
    rows = []
    for (data, similarity, dim), own in kept.items():
        known = {"data": data, "similarity": similarity, "d_z": dim}
        for seed, (pairs, log_s) in enumerate(zip(own.pairs, own.after, strict=True)):
            residual = log_s - pairs.T
            residual = residual - residual[pairs.partners].mean()
            for number, some in enumerate(pairs.T.argsort().tensor_split(bins)):
                row = {"bin": number, "T": pairs.T[some].mean().item()}
                row["residual"] = residual[some].mean().item()
                rows.append(known | {"seed": seed} | row)
    return pd.DataFrame(rows)


def ends_of_residuals(table: pd.DataFrame) -> pd.DataFrame:
    """Of `residuals`: the mean in the lowest bin of T and in the highest, by similarity and d_z.

    And the least d_z minus the largest, paired by seed: where there is room for all distances, what
    is left is not crowding. With 95 % intervals over runs.
    """
    ends = {"strangers": table.bin.min(), "closest pairs": table.bin.max()}
    least, most = table.d_z.min(), table.d_z.max()
    rows = []
    for similarity, own in table.groupby("similarity", sort=False):
        found = {name: _by_dimension(own[own.bin == number]) for name, number in ends.items()}
        for dim in own.d_z.unique():
            texts = {name: _mean_text(wide[dim]) for name, wide in found.items()}
            rows.append({"similarity": similarity, "d_z": str(dim)} | texts)
        texts = {name: _mean_text(wide[least] - wide[most]) for name, wide in found.items()}
        rows.append({"similarity": similarity, "d_z": f"{least} minus {most}"} | texts)
    return pd.DataFrame(rows).assign(n=table.seed.nunique())


def _by_dimension(own: pd.DataFrame) -> pd.DataFrame:
    return own.pivot(index="seed", columns="d_z", values="residual")


def _mean_text(values: pd.Series) -> str:
    mean, low, high = interval(values.tolist())
    return f"{mean:+.2f} [{low:.2f}, {high:.2f}]"


def image_table(found: ImagePairs, fitted: Fits) -> pd.DataFrame:
    """Of images: R² before and after training, of the raw input, and of T's second estimate."""
    table = fitted.table
    part = found.pairs.partners
    rows = means(table[table.pairs == PARTNERS], ["step"], [R2, SLOPE, SCALED])
    rows = rows.rename(columns={"step": "log s of"})
    rows["log s of"] = [f"network, {when} training" for when in rows["log s of"]]
    raw = fit(raw_log_s(found.pairs)[part], found.pairs.T[part])
    again = fit(found.again[part], found.pairs.T[part])
    others = [
        {"log s of": "raw pixels", R2: raw[SCALED], SLOPE: raw[SCALED], SCALED: raw[SCALED]},
        {"log s of": "T from other crops"} | again,
    ]
    return pd.concat([rows, pd.DataFrame(others)], ignore_index=True)


def digits_table(fitted: Fits) -> pd.DataFrame:
    """R² over partners before, halfway through and after training, and of the raw input.

    The latter at its best scale.
    """
    table = fitted.table[fitted.table.pairs == PARTNERS]
    looks = []
    for _, group in table.groupby("data", sort=False):
        steps = sorted(group.step.unique())
        looks.append(group[group.step.isin([0, steps[len(steps) // 2], steps[-1]])])
    rows = means(pd.concat(looks), ["data", "step"], [R2, SLOPE, SCALED])
    raw = []
    for own in list(fitted.pairs.values())[:1]:
        for pairs in own.pairs:
            part = pairs.partners
            raw.append(fit(raw_log_s(pairs)[part], pairs.T[part])[SCALED])
    mean, low, high = interval(raw)
    row = {"step": "raw input, best scale", R2: mean, "95 % low": low, "95 % high": high}
    return pd.concat([rows, pd.DataFrame([row | {"n": len(raw)}])], ignore_index=True)
