"""SimCLR and t-SimCLR: the search for their settings, the runs, and the tables made of them."""

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from sscl_core.config import InfoNCE, Projector, TrainConfig, TSimCLR
from sscl_experiments import settings
from sscl_experiments.paths import RECORDS
from sscl_experiments.record import Record
from sscl_experiments.studies.t_simclr import analysis, searches
from sscl_experiments.studies.t_simclr.analysis import (
    accuracies,
    changes,
    digits_table,
    paired,
    pixel_scores,
    regret,
    summary,
)
from sscl_experiments.studies.t_simclr.dimensions import (
    NeededDimensions,
    crossing,
    probe_gains,
    smallest_dims,
    withheld,
)
from sscl_experiments.studies.t_simclr.pair_weights import (
    gains,
    losses_by_weight,
    weight_dose,
    weight_effects,
)
from sscl_experiments.studies.t_simclr.parameters import LARGE_SETS
from sscl_experiments.study import resolve


def test_pairs_may_be_weighted_by_any_temperature_but_zero():
    given = [0.3, -0.3, math.inf, "inf", "-inf", 1]
    assert resolve("05_t_simclr", {"weights": given}).weights == (
        0.3,
        -0.3,
        math.inf,
        math.inf,
        -math.inf,
        1.0,
    )


DAMAGES = {
    "empty": lambda text: "",
    "no rows": lambda text: text.split("\n")[0],
    "cut": lambda text: text[: len(text) // 2],
    "another table": lambda text: "a,b\n1,2\n",
    "a word for a number": lambda text: text.replace("0.", "zero.", 1),
    "no accuracy": lambda text: text.replace("0.8145", "nan", 1),
    "an unknown loss": lambda text: text.replace("cosine", "sine", 1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_search_is_named_with_the_remedy(damage, tmp_path, monkeypatch):
    file = tmp_path / "search_fashion_mnist_subset.csv"
    file.write_text(damage((RECORDS / file.name).read_text(encoding="utf-8")), encoding="utf-8")
    monkeypatch.setattr(searches, "RECORDS", tmp_path)
    searches.search_table.cache_clear()
    try:
        with pytest.raises(
            ValueError, match=rf"^{re.escape(str(file))} is damaged: `git checkout -- "
        ):
            searches.search_table()
    finally:
        searches.search_table.cache_clear()


def test_methods_under_comparison_have_the_same_budget_and_the_same_rest():
    """Twelve settings a method and dimension on the embedded set, four on CIFAR-10.

    Nothing but projector and loss differs.
    """
    for image_set, dims, budget in (
        ("fashion_mnist_subset", searches.DIMS[1:], 12),
        ("cifar10", (2, 64), 4),
    ):
        space = searches.search_space(image_set)
        for members in searches.METHOD_LOSSES.values():
            for dim in dims:
                assert sum(loss in members and d == dim for loss, d, _ in space) == budget, (
                    image_set,
                    members,
                    dim,
                )
        rest = {run.replace(projector=Projector(), loss=InfoNCE()) for run in space.values()}
        assert len(rest) == 1
        assert rest.pop().data.holdout > 0, "tuning never sees the test set"
        assert len(set(space.values())) == len(space)
        for (loss, dim, temperature), run in space.items():
            assert (run.projector.dim, run.loss.temperature) == (dim, temperature)
            assert run.projector.batchnorm == loss.endswith("BatchNorm")


@pytest.mark.parametrize("image_set", ["fashion_mnist_subset", "cifar10"])
def test_the_chosen_settings_are_the_best_of_the_committed_search(image_set):
    """The table holds every run of the search; what is used is its best, computed with pandas."""
    table = pd.read_csv(RECORDS / f"search_{image_set}.csv")
    searched = {(row.loss, row.d_z, row.temperature) for row in table.itertuples()}
    assert searched == set(searches.search_space(image_set)), (
        "the table is that of the search in the repository"
    )
    subset = pd.read_csv(RECORDS / "search_fashion_mnist_subset.csv")
    best = subset[subset.d_z > 1].groupby(["loss", "d_z"]).knn15_z.max().groupby("loss").mean()
    for method, members in searches.METHOD_LOSSES.items():
        loss = best[list(members)].idxmax()
        for dim in table[table.loss == loss].d_z.unique():
            rows = table[(table.loss == loss) & (table.d_z == dim)]
            setting = searches.tuned(method, int(dim), image_set)
            assert setting.loss.temperature == rows.loc[rows.knn15_z.idxmax()].temperature
            assert setting.batchnorm == loss.endswith("BatchNorm")
            if method == "t-SimCLR":
                assert loss.startswith(f"t {setting.loss.normalization}")


def test_the_settings_of_the_other_notebooks_are_the_best_of_their_search():
    table = pd.read_csv(RECORDS / "search_one_setting.csv")
    assert set(table.groupby("method").size()) == {10}
    for method, setting in settings.METHODS.items():
        best = table.loc[table[table.method == method]["mean"].idxmax()]
        loss = setting.loss.model_dump(exclude={"name", "learn_df"})
        assert {key: best[key] for key in loss} == loss
        assert bool(best.batchnorm) == setting.batchnorm


SCALES = pytest.mark.parametrize("scale", ["smoke", "quick", "full"])


@SCALES
def test_the_runs_of_notebook_5_are_those_of_its_groups(scale):
    p = resolve("05_t_simclr", {"scale": scale})
    named = ("dimension", "untuned", "weight", "map", "learned", "digits", "large")
    groups = {name: getattr(p, f"{name}_runs")() for name in named}
    assert set(p.runs()) == {
        run for group in groups.values() for runs in group.values() for run in runs
    }
    assert len(set(p.runs())) == len(p.runs())
    for name in ("dimension", "untuned", "weight", "digits", "large"):
        for key, runs in groups[name].items():
            assert [run.seed for run in runs] == list(p.seed_range), (name, key)
            assert len({run.replace(seed=0) for run in runs}) == 1, (
                "they differ in their seed alone"
            )
    assert ("SimCLR", 1) not in groups["dimension"], "cosines do not train in one dimension"
    assert ("t-SimCLR", 1) in groups["dimension"] or 1 not in p.dims
    if p.image_sets:
        controls = {
            key for key in groups["large"] if key[1] not in (*searches.METHOD_LOSSES, "untrained")
        }
        assert controls == {("fashion_mnist", "Euclidean SNE", 2)}


def test_other_temperatures_in_the_plane_are_those_of_notebook_7():
    p = resolve("05_t_simclr", {"alternatives": True, "epochs": 3, "n_train": 8000})
    maps = resolve(
        "07_augmentation_graph", {"map_seeds": 5, "image_epochs": 3, "n_train": 8000}
    ).map_runs()
    untuned = p.untuned_runs()
    assert {method: untuned[method, 2] for method in settings.METHODS} == {
        method: maps[method] for method in settings.METHODS
    }
    assert all(set(runs).isdisjoint(p.dimension_runs()[key]) for key, runs in untuned.items())
    assert resolve("05_t_simclr", {"alternatives": False}).untuned_runs() == {}


def test_smallest_dims_by_hand():
    """SimCLR's mean is best at 8: for each seed the first d_z near that seed's accuracy there."""
    simclr = np.array([[0.50, 0.70], [0.80, 0.79], [0.79, 0.795]])  # d_z = 2, 8, 32
    other = np.array([[0.795, 0.60], [0.70, 0.77], [0.81, 0.78]])
    assert simclr.mean(1).argmax() == 1
    first, second = smallest_dims([2, 8, 32], simclr, other)
    assert first.tolist() == [8, 8]
    assert second.tolist() == [32, 64], "the second never gets there: twice the largest"
    first, second = smallest_dims([2, 8, 32], simclr, other, 0.01)
    assert first.tolist() == [8, 8]
    assert second.tolist() == [2, 32], "an accuracy that falls later counts where it was reached"
    assert smallest_dims([2, 8, 32], simclr, simclr, 0.5)[0].tolist() == [2, 2]


def test_where_a_curve_crosses_a_level():
    dims, curve = [2, 8, 32], np.array([0.5, 0.7, 0.9])
    assert crossing(dims, curve, 0.6) == pytest.approx(4), "half-way from 2 to 8 in octaves"
    assert crossing(dims, curve, 0.7) == pytest.approx(8)
    assert crossing(dims, curve, 0.1) == 2
    assert crossing(dims, curve, 0.91) == math.inf
    assert crossing(dims, np.array([0.5, 0.9, 0.7]), 0.7) == pytest.approx(4), "the first time"


def scores_frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    keys = [(m, d, s) for m in ("SimCLR", "t-SimCLR") for d in (2, 8) for s in (0, 1, 2)]
    rows = [
        {"method": m, "d_z": d, "seed": s, "a": rng.random(), "b": rng.random()} for m, d, s in keys
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=1)


def test_summary_and_paired_differences_by_scipy():
    table = scores_frame()
    shown = summary(table, ["method", "d_z"], ["a"]).set_index(["method", "d_z"])
    cell = table[(table.method == "SimCLR") & (table.d_z == 8)].a
    low, high = stats.t.interval(0.95, 2, cell.mean(), stats.sem(cell))
    assert shown.loc[("SimCLR", 8), "a"] == f"{cell.mean():.3f} [{low:.3f}, {high:.3f}]"
    assert set(shown.n) == {3}
    differences = paired(
        table, ["d_z"], ["a", "b"], column="method", minus="SimCLR", plus="t-SimCLR"
    ).set_index(["metric", "d_z"])
    for metric in ("a", "b"):
        for d in (2, 8):
            groups = (table[(table.method == m) & (table.d_z == d)] for m in ("SimCLR", "t-SimCLR"))
            one, two = (group.sort_values("seed")[metric].to_numpy() for group in groups)
            test = stats.ttest_rel(two, one)
            row = differences.loc[(metric, d)]
            assert row["t-SimCLR − SimCLR"] == pytest.approx(test.statistic * stats.sem(two - one))
            assert (row["95 % low"], row["95 % high"]) == pytest.approx(
                tuple(test.confidence_interval(0.95))
            )
            assert row["n"] == 3


def test_changes_are_after_minus_before_where_both_were_run():
    rows = [
        {"method": method, "d_z": d, "seed": seed, "a": 0.5 + 0.1 * seed + gain * d}
        for method, gain, dims in (
            ("one", 0.0, (2, 4)),
            ("two", 0.01, (1, 2, 4)),
            ("three", -0.02, (1, 2, 4)),
        )
        for d in dims
        for seed in (0, 1, 2)
    ]
    found = changes(
        pd.DataFrame(rows), {"first": ("one", "two"), "second": ("two", "three")}, ["a"]
    ).set_index(["change", "d_z"])
    assert found.difference.to_dict() == pytest.approx(
        {
            ("first", 2): 0.02,
            ("first", 4): 0.04,
            ("second", 1): -0.03,
            ("second", 2): -0.06,
            ("second", 4): -0.12,
        }
    )
    assert (found.high - found.low).max() < 1e-9, "the seeds' own differences cancel"


def test_regret_of_a_rule_by_hand():
    """The best is picked by one accuracy and compared by another."""
    runs = pd.DataFrame(
        {
            "d_z": 2,
            "nu": nu,
            "tau_per_dim": per_dim,
            "seed": seed,
            "knn_z_validation": validation,
            "knn_z_test": value + 0.1 * seed * (nu == 1),
        }
        for nu, per_dim, validation, value in (
            (5.0, 0.03, 0.5, 0.70),
            (1.0, 0.2, 0.9, 0.74),
            (1.0, 0.5, 0.6, 0.95),
        )
        for seed in (1, 0)
    )
    (row,) = regret(runs, rule=(5.0, 0.03)).to_dict("records")
    assert (row["its ν"], row["its τ / d_z"]) == (1.0, 0.2)
    assert row["best in validation"] == pytest.approx(0.79)
    assert row["rule − best"] == pytest.approx(-0.09)
    low, high = stats.t.interval(0.95, 1, -0.09, stats.sem([-0.04, -0.14]))
    assert (row["95 % low"], row["95 % high"]) == pytest.approx((low, high))
    assert row["median of all settings"] == pytest.approx(0.79)
    assert row["worst"] == pytest.approx(0.70)


def test_effects_of_weights_are_paired_by_seed_and_crops():
    rows = [
        {
            "crops": crops,
            "score": score,
            "τ'": t,
            "seed": seed,
            "a": 0.5 + 0.1 * seed + gain + (0.2 if crops == "large" else 0),
        }
        for crops in ("small", "large")
        for score, t, gain in (("none", math.inf, 0.0), ("iou", 0.3, 0.01), ("iou", -0.3, -0.02))
        for seed in (0, 1, 2)
    ]
    found = weight_effects(pd.DataFrame(rows).sample(frac=1, random_state=0), ["a"]).set_index(
        ["crops", "τ'"]
    )
    assert found.difference.loc[("large", 0.3)] == pytest.approx(0.01)
    assert found.difference.loc[("small", -0.3)] == pytest.approx(-0.02)
    assert (found.high - found.low).max() < 1e-9, "the seeds' own differences cancel"
    assert len(found) == 4


def test_pixel_scores_against_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    x, x_test = (torch.rand(n, 12, generator=generator) for n in (60, 40))
    y, y_test = (torch.randint(3, (n,), generator=generator) for n in (60, 40))
    table = pixel_scores((x, y, x_test, y_test), [2, 5])
    assert table.method.tolist() == ["raw pixels", "PCA", "PCA"]
    nearest = {
        m: KNeighborsClassifier(1, metric=m).fit(x, y).score(x_test, y_test)
        for m in ("cosine", "euclidean")
    }
    assert table.knn1_z[0] == pytest.approx(max(nearest.values()))
    assert table.knn1_cosine_h[0] == pytest.approx(nearest["cosine"])
    components = PCA(5).fit(x.numpy())
    for dim, value in ((2, table.knn1_z[1]), (5, table.knn1_z[2])):
        z, z_test = (components.transform(part.numpy())[:, :dim] for part in (x, x_test))
        assert value == pytest.approx(KNeighborsClassifier(1).fit(z, y).score(z_test, y_test))


def test_accuracies_are_in_the_metric_of_the_loss():
    names = itertools.product(
        enumerate(("knn1", "knn", "knn15")), enumerate(("cosine", "euclidean"))
    )
    metrics = {f"{votes}_{metric}_z": i + 10.0 * j for (i, votes), (j, metric) in names}
    losses = {"a": InfoNCE(), "b": TSimCLR()}
    table = accuracies(
        {(name, 2): [Record(TrainConfig(loss=loss), metrics)] for name, loss in losses.items()},
        ("method", "d_z"),
    )
    assert table[["knn1_z", "knn_z", "knn15_z"]].to_numpy().tolist() == [[0, 1, 2], [10, 11, 12]]
    assert table.method.tolist() == ["a", "b"]


# --- verdicts ------------------------------------------------------------------------------------


def both_methods(simclr, other, metric="knn15_z") -> pd.DataFrame:
    """A row a method, d_z and seed, from accuracies by d_z; shuffled."""
    rows = [
        {"method": method, "d_z": dim, "seed": seed, metric: value}
        for method, by_dim in (("SimCLR", simclr), ("t-SimCLR", other))
        for dim, values in by_dim.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_needed_dimensions_leave_one_dimension_out_and_are_listed_by_seed():
    simclr = {2: (0.50, 0.70), 8: (0.80, 0.79), 32: (0.79, 0.795)}
    other = {1: (0.9, 0.9), 2: (0.795, 0.60), 8: (0.70, 0.77), 32: (0.81, 0.78)}
    needed = NeededDimensions(both_methods(simclr, other), [1, 2, 8, 32])
    assert needed.octaves() == [2, -2]
    assert needed.octaves(0.0) == [-2, -3]
    table = needed.table().set_index("below SimCLR's best")
    assert table.loc[0.0, "t-SimCLR: d_z"] == "32, >32"
    assert table.loc[0.01, "SimCLR: d_z"] == "8, 8"
    assert table.loc[0.01, "octaves"] == 0
    low, high = stats.t.interval(0.95, 1, 0, stats.sem([2, -2]))
    assert tuple(table.loc[0.01, ["95 % low", "95 % high"]]) == pytest.approx((low, high))
    crossings = needed.crossings()
    assert crossings["SimCLR"] == crossing([2, 8, 32], np.array([0.6, 0.795, 0.7925]), 0.785)


def test_gains_of_the_probe_are_at_the_largest_dimension():
    scores = both_methods({2: (0.1, 0.2), 8: (0.5, 0.6)}, {2: (0.9, 0.9), 8: (0.7, 0.5)})
    found = probe_gains(scores.rename(columns={"knn15_z": "linear_probe_h"}))
    assert found == pytest.approx([0.2, -0.1])


@pytest.mark.parametrize(
    ("backbone", "on_cifar", "reasons"),
    [
        (0.7, None, []),
        (0.7, 0.55, []),
        (0.5, None, [r"\(0.500\) is not as good as raw pixels \(0.600\)"]),
        (math.nan, None, [r"\(nan\) is not as good as raw pixels"]),
        (0.7, 0.54, [r"reaches 0.540 on CIFAR-10, less than .55"]),
        (0.5, 0.54, [r"not as good", r"; SimCLR's backbone reaches 0.540"]),
    ],
)
def test_a_verdict_is_withheld_from_networks_that_are_not_trained(backbone, on_cifar, reasons):
    scores = both_methods({2: (0.1,), 8: (backbone,)}, {8: (0.9,)}, "knn15_cosine_h")
    pixels = pd.DataFrame({"method": ["raw pixels", "PCA"], "knn15_z": [0.6, 0.9]})
    large = None
    if on_cifar is not None:
        rows = [("cifar10", "SimCLR", 64, on_cifar), ("fashion_mnist", "SimCLR", 64, 0.1)]
        large = pd.DataFrame(rows, columns=["image_set", "method", "d_z", "knn_cosine_h"])
    found = withheld(scores, pixels, large)
    assert bool(found) == bool(reasons)
    for reason in reasons:
        assert re.search(reason, found)


def test_gains_by_weights_are_those_of_overlap_and_mild_crops():
    rows = [
        (crops, score, temperature, seed, accuracy + 0.1 * seed)
        for crops, score, temperature, accuracy in (
            ("70–100 %", "none", math.inf, 0.5),
            ("70–100 %", "iou", 0.3, 0.52),
            ("70–100 %", "iou", 0.1, 0.9),
            ("70–100 %", "features", 0.3, 0.9),
            ("20–100 %", "iou", 0.3, 0.9),
        )
        for seed in (1, 0)
    ]
    table = pd.DataFrame(rows, columns=["crops", "score", "τ'", "seed", "a"])
    assert gains(table, "a", temperature=0.3) == pytest.approx([0.02, 0.02])
    assert gains(table, "a", temperature=0.7) == []


def test_weights_at_infinite_temperature_are_none_at_all():
    run = resolve("05_t_simclr", {"scale": "smoke"}).run("SimCLR", 2, 0)
    losses = losses_by_weight(run)
    assert losses[None] == losses[math.inf]
    assert losses[None] != losses[0.3]


def test_the_dose_of_weights_by_hand():
    """Half of the pairs with overlap 1, half with none: weights 2e/(1+e) and 2/(1+e) at τ' = 1."""
    table = weight_dose(torch.tensor([0.0, 1.0]).repeat(64 * 64)).set_index("τ'")
    large, small = 2 * math.e / (1 + math.e), 2 / (1 + math.e)
    row = table.loc[1.0]
    assert row["standard deviation of w"] == pytest.approx((large - small) / 2, rel=1e-3)
    assert row["effective pairs of 128"] == pytest.approx(2 * 128 / (large**2 + small**2))
    assert table.loc[0.03]["effective pairs of 128"] == pytest.approx(64)


def test_tables_of_digits_keep_the_choice_apart_from_the_comparison():
    run = resolve("05_t_simclr", {"map_dims": [2]}).digits_runs()[2, 5.0, 0.03][1]
    metrics = {"knn_z_test": 0.7, "knn_z_validation": 0.6}
    record = Record(run, metrics)
    (row,) = digits_table({(2, 5.0, 0.03): [record]}).to_dict("records")
    expected = {"d_z": 2, "nu": 5.0, "tau_per_dim": 0.03, "seed": 1, **metrics}
    assert row == expected


def test_baselines_of_larger_sets_are_of_the_images_that_are_trained_on(monkeypatch):
    asked = []

    def rows(run, data_dir):
        asked.append((run.data.name, data_dir))
        x = torch.rand(40, 130, generator=torch.Generator().manual_seed(0))
        return x, torch.arange(40) % 2, x, torch.arange(40) % 2

    monkeypatch.setattr(analysis, "images_as_rows", rows)
    large = {"fashion_mnist": (2, 8), "cifar10": (2, 4)}
    sets = {name: LARGE_SETS[name].replace(dims=dims) for name, dims in large.items()}
    monkeypatch.setattr(analysis, "LARGE_SETS", sets)
    runs = resolve("05_t_simclr", {"image_sets": list(large)}).large_runs()
    table = analysis.large_baselines(runs, "there")
    assert asked == [("fashion_mnist", "there"), ("cifar10", "there")]
    assert table[table.method == "PCA"].groupby("image_set").d_z.apply(list).to_dict() == {
        name: list(dims) for name, dims in large.items()
    }
