"""SimCLR and t-SimCLR: the search for their settings, the runs, and the tables made of them."""

import dataclasses
import functools
import io
import itertools
import json
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
from sscl_core.losses import info_nce, t_simclr
from sscl_experiments import searches, settings
from sscl_experiments.paths import RECORDS
from sscl_experiments.record import Record
from sscl_experiments.scores import accuracies, paired, pixel_scores, summary
from sscl_experiments.studies.t_simclr import analysis, deciding, figures, practice, recorded
from sscl_experiments.studies.t_simclr.analysis import changes, contrasts, scores_of, steps_of
from sscl_experiments.studies.t_simclr.kernel_experiment import design, endpoints
from sscl_experiments.studies.t_simclr.kernel_experiment.endpoints import Estimate
from sscl_experiments.studies.t_simclr.kernel_experiment.ledger import Found
from sscl_experiments.studies.t_simclr.kernel_experiment.reading import ENDPOINTS, Reading
from sscl_experiments.studies.t_simclr.parameters import LARGE_SETS
from sscl_experiments.study import resolve

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


@pytest.mark.parametrize("scale", ["smoke", "quick", "full"])
def test_the_runs_of_notebook_5_are_those_of_its_groups(scale):
    p = resolve("05_t_simclr", {"scale": scale})
    named = ("kernel", "untrained", "loss", "large")
    groups = {name: getattr(p, f"{name}_runs")() for name in named}
    of_groups = {run for group in groups.values() for runs in group.values() for run in runs}
    assert set(p.runs()) == of_groups
    assert len(set(p.runs())) == len(p.runs())
    for group in groups.values():
        for key, runs in group.items():
            assert [run.seed for run in runs] == list(p.seed_range), key
            assert len({run.replace(seed=0) for run in runs}) == 1, "they differ in seed alone"
    kernels = groups["kernel"]
    assert {key[0] for key in kernels} == set(p.kernels)
    for dim in p.compared_dims:
        all_of_them = [kernels[name, dim, p.epochs][0] for name in p.kernels]
        rest = {run.replace(loss=InfoNCE()) for run in all_of_them}
        assert len(rest) == 1, "kernels differ in their loss alone"
        assert all_of_them[0].projector.batchnorm


def test_shorter_lengths_are_run_at_the_outer_dimensions():
    p = resolve("05_t_simclr", {"dims": [2, 8, 32], "lengths": [1, 2, 3]})
    dims = {epochs: {d for _, d, e in p.kernel_runs() if e == epochs} for epochs in p.lengths}
    assert dims == {1: {2, 32}, 2: {2, 32}, 3: {2, 8, 32}}
    with pytest.raises(ValueError, match="lengths must ascend"):
        resolve("05_t_simclr", {"lengths": [3, 1]})


def test_in_one_dimension_cosines_have_no_gradient_and_student_t_has():
    generator = torch.Generator().manual_seed(0)
    for d, moves in ((1, False), (2, True)):
        views = [torch.randn(64, d, generator=generator, dtype=torch.float64) for _ in range(2)]
        for view in views:
            view.requires_grad_()
        for loss, has_gradient in ((info_nce, moves), (t_simclr, True)):
            gradients = torch.autograd.grad(loss(*views), views)
            assert bool(torch.cat(gradients).abs().max() > 1e-9) == has_gradient


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


# --- kernels against length, and verdicts ---------------------------------------------------------


def records_of(accuracy) -> dict:
    """Runs of three kernels, d_z = 2 and 8, three seeds; `accuracy(kernel, dim, seed, metric)`."""
    p = resolve("05_t_simclr", {"scale": "full", "dims": [2, 8], "seeds": 3, "lengths": [3]})
    names = [f"{k}_{m}_z" for k in ("knn1", "knn", "knn15") for m in ("cosine", "euclidean")]
    found = {}
    for key, runs in p.kernel_runs().items():
        found[key] = [
            Record(run, {name: accuracy(*key[:2], run.seed, name) for name in names})
            for run in runs
        ]
    return found


def test_each_kernel_is_read_in_its_better_metric_and_steps_are_counted():
    def accuracy(kernel, dim, seed, name):
        better = "euclidean" if (kernel, dim) == ("cosine", 2) else "cosine"
        return 0.5 + 0.01 * seed + (0.1 if f"_{better}_" in name else 0.0)

    scores = scores_of(records_of(accuracy))
    assert scores.knn15_best_z.to_numpy() == pytest.approx(0.6 + 0.01 * scores.seed.to_numpy())
    assert set(scores.steps) == {189}, "three epochs of 62.5 batches, the last one half as large"
    run = next(iter(records_of(accuracy).values()))[0].config
    assert steps_of(run.replace(batch_size=100, epochs=2)) == 160


def test_contrasts_are_paired_by_seed():
    gains = {"cosine": 0.0, "Gaussian": 0.1, "Student t": 0.13}
    records = records_of(lambda kernel, dim, seed, name: 0.5 + 0.1 * seed + gains[kernel] / dim)
    scores = scores_of(records).assign(linear_probe_h=0.5)
    table = contrasts(scores, "here").set_index(["contrast", "purpose", "d_z"])
    assert table.difference["Gaussian − cosine", "z", 2] == pytest.approx(0.05)
    assert table.difference["Student t − Gaussian", "z", 8] == pytest.approx(0.03 / 8)
    assert (table.high - table.low).max() < 1e-9, "the seeds' own differences cancel"
    assert set(table.difference.xs("h", level="purpose")) == {0.0}


def test_the_estimate_from_accuracies_adds_the_error_of_seeds_and_images():
    """For a difference of two accuracies both parts are known."""
    rng = np.random.default_rng(0)
    accuracies = 0.8 + 0.02 * rng.standard_normal((2, 1, 6))
    found = deciding.estimate(accuracies, endpoints.difference, images=2000)
    pairs = accuracies[1, 0] - accuracies[0, 0]
    p = accuracies.mean(2).ravel()
    variance = pairs.var(ddof=1) / 6 + (p * (1 - p)).sum() / 2000
    assert found.value == pytest.approx(pairs.mean())
    assert found.error == pytest.approx(variance**0.5, rel=0.05)
    assert found.df > 5, "not all of the spread is of seeds"
    equal = deciding.estimate(np.repeat(accuracies[:1], 2, 0), endpoints.difference, images=2000)
    assert equal.value == 0
    assert endpoints.C11.verdict(equal) != "replicates", "equal kernels do not pass"
    alone = deciding.estimate(accuracies[:, :, :1], endpoints.difference, images=2000)
    assert (alone.low, alone.high, alone.seeds) == (-math.inf, math.inf, 1)


@functools.cache
def here() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"method": kernel, "d_z": dim, "seed": seed, "knn15_best_z": value, "linear_probe_h": value}
        for kernel in ("cosine", "Student t")
        for dim, level in ((2, 0.5), (8, 0.7), (32, 0.8))
        for seed, value in enumerate(level + 0.01 * rng.standard_normal(5))
    ]
    return deciding.estimates_here(pd.DataFrame(rows), [2, 8, 32], images=2000)


def reading_of(claim: str, verdict: str, images=design.FULL.cifar10) -> Reading:
    endpoint = next(one for one in ENDPOINTS if one.claim == claim)
    both = {e: Estimate(0.1, 0.0, 0.2, 0.05, 4.0, 5, 10_000) for e in (10, 30)}
    return Reading(endpoint, images, (2, 8, 64), both, verdict, "", None)


def test_no_verdict_comes_from_the_notebooks_own_runs():
    """However they turn out."""
    for claim in ("C10", "C11"):
        one = deciding.outcome(claim, here(), [], scale="quick", lacking="1 of 9 runs.")
        assert (one.verdict, one.n) == ("not run at this scale", 5)
        assert one.note.startswith("1 of 9 runs.")
        row = here()[here().claim == claim].iloc[0]
        assert (one.estimate, one.low, one.high) == tuple(
            row[["estimate", "95 % low", "95 % high"]]
        )
        other = reading_of(claim, "replicates", design.FULL.fashion)
        assert deciding.outcome(claim, here(), [other], scale="quick", lacking="") == one.replace(
            note=one.note.removeprefix("1 of 9 runs.")
        ), "the embedded set decides nothing"


def test_the_experiment_decides_once_it_has_a_verdict():
    found = [reading_of("C10", "not run at this scale"), reading_of("C11", "does not replicate")]
    verdicts = [
        deciding.outcome(claim, here(), found, scale="quick", lacking="")
        for claim in ("C10", "C11")
    ]
    assert [one.verdict for one in verdicts] == ["not run at this scale", "does not replicate"]
    assert (verdicts[1].estimate, verdicts[1].low, verdicts[1].n) == (0.1, 0.0, 5)
    assert "CIFAR-10" in verdicts[1].note
    why = dataclasses.replace(found[0], note="cosine's backbone is worse")
    told = deciding.outcome("C10", here(), [why], scale="quick", lacking="3 of 9 runs.")
    assert told.note.startswith("3 of 9 runs. No verdict yet: cosine's backbone is worse. ")


def test_progress_is_told_in_a_sentence(monkeypatch):
    share = type("Share", (), {"done": 3, "runs": 1200, "hours": 30.0, "left": 29.6})
    monkeypatch.setattr(recorded, "shares", lambda *_: [share, share])
    said = recorded.progress(design.FULL, Found({}))
    assert said.startswith("6 of about 2,400 runs of the experiment are made")
    assert said.endswith("core hours are left.")
    share.done = 1200
    assert recorded.progress(design.FULL, Found({})) == "All 2,400 runs of the experiment are made."


def test_advice_has_the_gains_of_the_record():
    content = json.loads((RECORDS / "full" / "05_t_simclr.json").read_text(encoding="utf-8"))
    read = {
        kind: {name: pd.read_csv(io.StringIO(text)) for name, text in content[kind].items()}
        for kind in ("tables", "figures")
    }
    table = practice.table(read)
    scores = read["figures"]["accuracy_by_dimension"]
    wide = scores[scores.d_z == 2].pivot(index="seed", columns="method", values="knn15_z")
    gain = 100 * (wide["t-SimCLR"] - wide["SimCLR"]).mean()
    assert table["t-SimCLR over SimCLR, points"][0].startswith(f"{gain:+.1f} [")
    assert practice.NOT_YET in set(table["t-SimCLR over SimCLR, points"])
    assert set(table["τ"]) == {"0.03 d_z", "0.1 to 0.2", ""}


def test_recorded_contrasts_stand_instead_of_short_ones_of_their_purpose(monkeypatch):
    short = pd.DataFrame({"images": ["a", "a", "b"], "purpose": ["z", "h", "z"], "difference": 1.0})
    made = pd.DataFrame({"images": ["a"], "purpose": ["z"], "difference": [2.0]})
    monkeypatch.setattr(recorded, "contrasts", lambda *_: made)
    both = recorded.with_recorded(short, design.FULL, Found({}))
    rows = set(both.itertuples(index=False, name=None))
    assert rows == {("a", "z", 2.0), ("a", "h", 1.0), ("b", "z", 1.0)}
    monkeypatch.setattr(recorded, "contrasts", lambda *_: pd.DataFrame())
    assert recorded.with_recorded(short, design.FULL, Found({})).equals(short)


def test_a_panel_says_its_length_and_none_is_empty():
    rows = [
        {"method": kernel, "d_z": dim, "seed": seed, "epochs": 10, "knn15_best_z": 0.3 + seed / 100}
        for kernel, dim, seed in itertools.product(("cosine", "Student t"), (2, 8), range(3))
    ]
    scores = pd.DataFrame(rows).assign(linear_probe_h=math.nan)
    beside = pd.DataFrame(
        [
            {"method": "raw pixels", "knn15_z": 0.3, "linear_probe_h": 0.4},
            {"method": "PCA", "d_z": 2, "knn15_z": 0.2},
        ]
    )
    (panel,) = figures.accuracy_panels(scores, beside).axes
    assert panel.get_title() == "15-NN on z, 10 epochs"
    scores.loc[:, "linear_probe_h"] = 0.5
    both = figures.accuracy_panels(scores, beside).axes
    assert [axis.get_title() for axis in both][1] == "linear probe on h, 10 epochs"
    names = both[1].get_legend_handles_labels()[1]
    assert "untrained network" not in names, "there is none"
