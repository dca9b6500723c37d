"""Whether features find classes of one group more alike than others, and what chance would find."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from sscl_core.checks import checked_features, whole_numbers
from sscl_core.evaluate import class_similarity
from sscl_experiments.datasets.images import ImageData
from sscl_experiments.frames import with_interval
from sscl_experiments.record import Record
from sscl_experiments.settings import METHODS
from sscl_experiments.statistics import interval

Groups = Int64[Tensor, " k"]  # the group of each class, negative for none
CONTRAST = "within − across"
CORRELATION = "correlation"
SCORE = "above both baselines"


def group_contrast(
    similarity: Float[Tensor, "k k"], groups: Integer[Tensor, "*batch k"]
) -> Float[Tensor, "*batch"]:
    """The mean similarity of two classes of one group, minus that of all other pairs of classes.

    The diagonal is left out. `ValueError`: there is no pair of either kind, groups that are not one
    for each class, or a similarity that is not finite and square. `TypeError`: another dtype.
    """
    similarity = checked_features("similarity", similarity)
    k = len(similarity)
    if similarity.shape[1] != k or groups.shape[-1:] != (k,):
        shapes = f"{tuple(similarity.shape)} and {tuple(groups.shape)}"
        rule = "square, (k, k), and groups one number for each of its k classes"
        raise ValueError(f"similarity must be {rule}, got {shapes}")
    groups = whole_numbers("groups", groups).to(similarity.device)
    i, j = torch.triu_indices(k, k, 1)
    first, second = groups[..., i], groups[..., j]
    within = (first == second) & (first >= 0)
    if not (within.any(-1) & ~within.all(-1)).all():
        rule = "two classes into one group and not all into one"
        raise ValueError(f"groups must put {rule}, got {groups.tolist()}")
    pairs = similarity[i, j]
    inside = within.to(pairs.dtype)
    across = 1 - inside
    return inside @ pairs / inside.sum(-1) - across @ pairs / across.sum(-1)


def group_correlation(
    similarity: Float[Tensor, "k k"], groups: Integer[Tensor, " k"]
) -> Float[Tensor, ""]:
    """The correlation, over pairs of classes, of their similarity with being of one group.

    `group_contrast` · √(p (1-p)) / σ: p the share of pairs within a group, σ the standard deviation
    of all pairs. Neither scale nor shift of the similarities matters. Errors: those of
    `group_contrast`. NaN where all pairs are equally similar.
    """
    contrast = group_contrast(similarity, groups)
    pairs, within = _pairs(similarity, groups)
    share = within.to(pairs.dtype).mean()
    return contrast * (share * (1 - share)).sqrt() / pairs.std(correction=0)


def group_auc(similarity: Float[Tensor, "k k"], groups: Integer[Tensor, " k"]) -> float:
    """How often a pair within a group is more similar than another pair; ties count half."""
    pairs, within = _pairs(similarity, groups)
    difference = pairs[within][:, None] - pairs[~within]
    return (difference.sign() / 2 + 0.5).mean().item()


def _pairs(
    similarity: Float[Tensor, "k k"], groups: Integer[Tensor, " k"]
) -> tuple[Float[Tensor, " p"], Bool[Tensor, " p"]]:
    """The similarity of each pair of classes, and whether one group holds both."""
    i, j = torch.triu_indices(len(similarity), len(similarity), 1)
    return similarity[i, j], (groups[i] == groups[j]) & (groups[i] >= 0)


def regroupings(
    groups: Integer[Tensor, " k"], *, at_most: int = 10_000, seed: int = 0
) -> Int64[Tensor, "r k"]:
    """Every way to deal the same group labels to the classes, the given one first.

    Where there are more than `at_most`, that many at random. `TypeError`: groups that are no
    integer tensor. `ValueError`: groups that are not (k,), k ≥ 1, or `at_most` below 1.
    """
    groups = whole_numbers("groups", groups).cpu()
    if groups.ndim != 1 or len(groups) == 0:
        rule = "have shape (k,) with k >= 1, one number for each class"
        raise ValueError(f"groups must {rule}, got {tuple(groups.shape)}")
    if at_most < 1:
        raise ValueError(f"at_most must be at least 1, the given grouping, got {at_most}")
    if _number_of_regroupings(groups) > at_most:
        rng = np.random.default_rng(seed)
        copies = groups.repeat(at_most - 1, 1).numpy()
        return torch.cat([groups[None], torch.from_numpy(rng.permuted(copies, axis=1))])
    given = tuple(groups.tolist())
    others = _distinct_permutations(sorted(given))
    return torch.tensor(list(dict.fromkeys(itertools.chain([given], others))))


def _number_of_regroupings(groups: Integer[Tensor, " k"]) -> int:
    """k! / Π (size of each group)!"""
    number = math.factorial(len(groups))
    for count in groups.unique(return_counts=True)[1].tolist():
        number //= math.factorial(count)
    return number


def _distinct_permutations(items: list[int]) -> Iterator[tuple[int, ...]]:
    if not items:
        yield ()
    for first in dict.fromkeys(items):
        rest = items.copy()
        rest.remove(first)
        yield from ((first, *others) for others in _distinct_permutations(rest))


def grouping_test(similarity: Float[np.ndarray, "k k"], groups: Groups) -> dict[str, float]:
    """Correlation, AUC and contrast of these groups, and their place among all of the same sizes.

    p: the share of groupings, this one included, whose contrast is at least as large; for one
    matrix the correlation puts groupings of these sizes in the same order.
    """
    values = torch.as_tensor(similarity)
    contrasts = group_contrast(values, regroupings(groups))
    contrast = contrasts[0].item()
    return {
        CORRELATION: group_correlation(values, groups).item(),
        "AUC": group_auc(values, groups),
        CONTRAST: contrast,
        "p": (contrasts >= contrast - 1e-12).double().mean().item(),
    }


def class_groups(classes: Sequence[str], groups: Mapping[str, tuple[str, ...]]) -> Groups:
    """The number of each class's group, -1 for none. `ValueError`: an unknown class in a group."""
    number = {name: i for i, members in enumerate(groups.values()) for name in members}
    if unknown := number.keys() - set(classes):
        raise ValueError(f"groups must name classes among {list(classes)}, got {sorted(unknown)}")
    return torch.tensor([number.get(name, -1) for name in classes])


def superclasses(images: ImageData) -> Groups:
    """The superclass of each class, of a set that has them."""
    assert images.coarse_labels is not None
    numbers = range(len(images.classes))
    members = [images.coarse_labels[images.labels == number] for number in numbers]
    return torch.stack([coarse[0] for coarse in members])


def pixel_similarity(images: ImageData) -> Float[np.ndarray, "k k"]:
    """`class_similarity` of the pixels."""
    return class_similarity(images.images.flatten(1).float(), images.labels).numpy()


def backbone_similarities(
    records: Mapping[str, Sequence[Record]], pixels: Float[np.ndarray, "k k"]
) -> dict[str, Float[np.ndarray, "k k"]]:
    """The pixels' similarities, and those of h of every method, as means over seeds."""
    panels = {"raw pixels": pixels}
    for method in ("untrained", *METHODS):
        similarities = [record.arrays["classes_h"] for record in records[method]]
        panels[f"{method}, backbone"] = np.mean(similarities, 0)
    return panels


def similarity_table(
    panels: Mapping[str, Float[np.ndarray, "k k"]], classes: Sequence[str]
) -> pd.DataFrame:
    """A row a class and panel, a column a class."""
    parts = [
        pd.DataFrame(values, columns=list(classes)).assign(features=name, row=classes)
        for name, values in panels.items()
    ]
    return pd.concat(parts)


def grouping_tests(
    records: Mapping[str, Sequence[Record]],
    pixels: Float[np.ndarray, "k k"],
    groups: Groups,
) -> pd.DataFrame:
    """`grouping_test` of the pixels, and of h and z of every run, a row each."""
    rows: list[dict[str, Any]] = [{"features": "raw pixels", **grouping_test(pixels, groups)}]
    for method, runs in records.items():
        for layer, record in itertools.product(("h", "z"), runs):
            similarity = record.arrays[f"classes_{layer}"]
            row: dict[str, Any] = {"features": f"{method}, {layer}"}
            row["accuracy"] = record.metrics[f"knn_cosine_{layer}"]
            rows.append(row | grouping_test(similarity, groups))
    return pd.DataFrame(rows)


def group_table(tests: pd.DataFrame) -> pd.DataFrame:
    """A row a kind of features: means over seeds, and the score that C7 is decided by.

    The rows of raw pixels and untrained networks have the score too: what a null would get.
    """
    rows = []
    for name, part in tests.groupby("features", sort=False):
        several = len(part) > 1
        row: dict[str, Any] = {"features": name}
        if several:
            row |= with_interval(CORRELATION, interval(part[CORRELATION].tolist()))
        else:
            row |= {CORRELATION: part[CORRELATION].item(), "95 % low": None, "95 % high": None}
        layer = _layer(str(name))
        for column, baseline in (("untrained", f"untrained{layer}"), ("raw pixels", "raw pixels")):
            known = several and name != baseline
            row[f"minus {column}"] = _difference(tests, str(name), baseline) if known else ""
        row[SCORE] = np.mean(above_baselines(tests, str(name)))
        row |= {"AUC": part.AUC.mean(), CONTRAST: part[CONTRAST].mean(), "p": part.p.max()}
        row |= {"10-NN accuracy": part.accuracy.mean(), "n": len(part) if several else None}
        rows.append(row)
    return pd.DataFrame(rows)


def _difference(tests: pd.DataFrame, name: str, baseline: str) -> str:
    mean, low, high = interval(_above(tests, name, [baseline]).tolist())
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _layer(name: str) -> str:
    """Of features such as "SimCLR, z"; the raw pixels stand beside the backbone's."""
    return name[-3:] if name.endswith((", h", ", z")) else ", h"


def above_baselines(tests: pd.DataFrame, name: str) -> list[float]:
    """For each seed the correlation of these features, less the larger of both baselines'.

    The baselines are the raw pixels and the same layer of the seed's own untrained network (for the
    pixels themselves h). So neither of them is ever above 0.
    """
    return _above(tests, name, [f"untrained{_layer(name)}", "raw pixels"]).tolist()


def _above(tests: pd.DataFrame, name: str, baselines: Sequence[str]) -> Float[np.ndarray, " seeds"]:
    by_features = {
        str(key): part[CORRELATION].to_numpy() for key, part in tests.groupby("features")
    }
    before = np.broadcast_arrays(*[by_features[baseline] for baseline in baselines])
    return by_features[name] - np.max(before, axis=0)


def panel_table(panels: Mapping[str, Float[np.ndarray, "k k"]], groups: Groups) -> pd.DataFrame:
    """`grouping_test` of matrices that are means over seeds, so without an interval."""
    return pd.DataFrame(
        [{"features": name, **grouping_test(matrix, groups)} for name, matrix in panels.items()]
    )


def transfer_table(records: Mapping[str, Sequence[Record]], other: ImageData) -> pd.DataFrame:
    """`grouping_test` of the same backbones on images of other classes, by their superclasses."""
    coarse = superclasses(other)
    rows = [{"features": "raw pixels", **grouping_test(pixel_similarity(other), coarse)}]
    for method, runs in records.items():
        similarities = [record.arrays["classes_transfer"] for record in runs]
        tests = pd.DataFrame([grouping_test(similarity, coarse) for similarity in similarities])
        row: dict[str, Any] = {"features": f"{method}, h"}
        row |= with_interval(CORRELATION, interval(tests[CORRELATION].tolist()))
        row |= {"n": len(runs), "AUC": tests.AUC.mean(), CONTRAST: tests[CONTRAST].mean()}
        rows.append(row | {"p": tests.p.max()})
    return pd.DataFrame(rows)


def as_matrices(table: pd.DataFrame) -> dict[str, Float[np.ndarray, "k k"]]:
    """The panels of a `similarity_table`."""
    names = table.row.unique().tolist()
    parts = table.groupby("features", sort=False)
    return {str(name): part[names].to_numpy() for name, part in parts}
