"""Whether features find classes of one group more alike than others, and what chance would find."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64, Integer
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
    """The contrast of these groups, and where it stands among all groupings of the same sizes.

    The 95th percentile of the contrast over groupings, and p: the share of them, this one included,
    whose contrast is at least as large.
    """
    contrasts = group_contrast(torch.as_tensor(similarity), regroupings(groups))
    contrast = contrasts[0].item()
    return {
        CONTRAST: contrast,
        "95th percentile": contrasts.quantile(0.95).item(),
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
    """A row a kind of features: the mean contrast over seeds, and its differences from baselines.

    The baselines are the raw pixels and the untrained network, paired by seed.
    """
    rows = []
    for name, part in tests.groupby("features", sort=False):
        row: dict[str, Any] = {"features": name, **_contrast_over_seeds(part[CONTRAST])}
        row |= {
            "95th percentile of regroupings": part["95th percentile"].mean(),
            "largest p": part.p.max(),
            "n": len(part) if len(part) > 1 else None,
            "10-NN accuracy": part.accuracy.mean(),
        }
        if str(name).startswith(tuple(METHODS)):
            row |= _beyond_baselines(tests, str(name))
        rows.append(row)
    return pd.DataFrame(rows)


def _contrast_over_seeds(values: pd.Series) -> dict[str, float | None]:
    """The mean with its interval, which one value does not have."""
    ends = interval(values.tolist())
    row: dict[str, float | None] = {**with_interval(CONTRAST, ends)}
    return row if len(values) > 1 else row | {"95 % low": None, "95 % high": None}


def _beyond_baselines(tests: pd.DataFrame, name: str) -> dict[str, str]:
    own = tests[tests.features == name][CONTRAST].to_numpy()
    layer = name[-3:]  # ", h" or ", z"
    row = {}
    for baseline in ("raw pixels", f"untrained{layer}"):
        before = tests[tests.features == baseline][CONTRAST].to_numpy()
        mean, low, high = interval((own - before).tolist())
        column = f"minus {baseline.removesuffix(layer)}"
        row[column] = f"{mean:.3f} [{low:.3f}, {high:.3f}]"
    return row


def transfer_table(records: Mapping[str, Sequence[Record]], other: ImageData) -> pd.DataFrame:
    """`grouping_test` of the same backbones on images of other classes, by their superclasses."""
    coarse = superclasses(other)
    rows = [{"features": "raw pixels", **grouping_test(pixel_similarity(other), coarse)}]
    for method, runs in records.items():
        similarities = [record.arrays["classes_transfer"] for record in runs]
        tests = pd.DataFrame([grouping_test(similarity, coarse) for similarity in similarities])
        row: dict[str, Any] = {"features": f"{method}, h"}
        row |= with_interval(CONTRAST, interval(tests[CONTRAST].tolist()))
        row |= {"n": len(runs), "95th percentile": tests["95th percentile"].mean()}
        rows.append(row | {"p": tests.p.max()})
    return pd.DataFrame(rows)


def beyond_regroupings(tests: pd.DataFrame, features: str) -> list[float]:
    """For each seed the contrast of the given groups less the 95th percentile over groupings."""
    own = tests[tests.features == features]
    return (own[CONTRAST] - own["95th percentile"]).tolist()


def as_matrices(table: pd.DataFrame) -> dict[str, Float[np.ndarray, "k k"]]:
    """The panels of a `similarity_table`."""
    names = table.row.unique().tolist()
    parts = table.groupby("features", sort=False)
    return {str(name): part[names].to_numpy() for name, part in parts}
