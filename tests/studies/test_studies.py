"""Parameters: the scale's sizes under what is given; everything wrong is refused with the valid names."""

import itertools
import math
import re

import pytest

from sscl_core.config import (
    MLP,
    Corruption,
    InfoNCE,
    Masking,
    Mixup,
    Noise,
    Points,
    Projector,
    Table,
    TrainConfig,
    ensembles,
)
from sscl_experiments import settings, study
from sscl_experiments.datasets import images, tables
from sscl_experiments.paths import RECORDS
from sscl_experiments.settings import vector_run
from sscl_experiments.studies.domain_agnostic_augmentations.parameters import (
    CELLS,
    CLOUD_STEPS,
    IMAGE_VIEWS,
    TABLE_STEPS,
)
from sscl_experiments.studies.t_simclr import searches
from sscl_experiments.study import METHODS, NOTEBOOKS, out_dir, resolve


@pytest.mark.parametrize("scale", ["smoke", "quick", "full"])
@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_every_scale_is_complete(scale, name):
    parameters = resolve(name, {"scale": scale})
    runs = parameters.runs()
    assert len(runs) == len(set(runs)) > 0
    seeds = [
        value
        for field, value in parameters.model_dump().items()
        if field == "seeds" or field.endswith("_seeds")
    ]
    found = {run.seed for run in runs}
    assert found == set(range(len(found))), "every part begins at the same seed"
    assert len(found) in seeds
    assert scale == "smoke" or max(seeds) >= 5, "a verdict needs 5 seeds"


def test_given_values_win_and_none_means_the_scales_own():
    quick = resolve("05_t_simclr", {})
    assert quick == resolve("05_t_simclr", {"scale": "quick", "seeds": None, "dims": None})
    chosen = resolve("05_t_simclr", {"seeds": 50, "seed": 7, "dims": [4]})
    assert (chosen.seeds, chosen.dims, chosen.epochs) == (50, (4,), quick.epochs)
    assert set(chosen.seed_range) == set(range(7, 57))
    assert out_dir("05_t_simclr", quick).name == "quick"
    assert out_dir(
        "05_t_simclr", resolve("05_t_simclr", {"results_dir": "/x", "device": "cpu"})
    ).parts[-2:] == ("x", "quick")
    assert out_dir("05_t_simclr", chosen).name == "custom"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sedes": 3}, "sedes"),
        ({"seeds": 0}, "seeds = 0"),
        ({"seeds": "many"}, "seeds = 'many'"),
        ({"seeds": 2.5}, "seeds = 2.5"),
        ({"seeds": True}, "seeds = True"),
        ({"seed": -1}, "seed = -1"),
        ({"scale": "huge"}, "scale = 'huge'"),
        ({"scale": 3}, "scale = 3"),
        ({"device": "tpu"}, "device = 'tpu'"),
        ({"dims": [0, 2]}, "dims.0 = 0"),
        ({"dims": []}, "dims"),
        ({"dims": 2}, "dims = 2"),
        ({"n_train": 10**6}, "n_train"),
        ({"dims": {1, 2}}, "not JSON serializable"),
        ({"seeds": 0, "epochs": -1}, "epochs = -1"),
        (
            {"dims": [2, 5]},
            "parameters of 05_t_simclr: dims must be among (1, 2, 3, 4, 8, ",
        ),
        ({"dims": [1]}, "cosines do not train in one dimension"),
        ({"dims": [1024]}, "dims.0 = 1024"),
        ({"forms": ["t"]}, "forms must be among"),
        ({"image_sets": ["imagenet"]}, "image_sets.0 = 'imagenet'"),
        ({"weights": [0.3, "many"]}, "weights.1 = 'many'"),
        (
            {"weights": [0]},
            "weights.0 = 0: temperature must be a number other than 0 (at least 1e-37 away from it), or infinite, got 0.0",
        ),
        ({"weights": [0.3, -0.0]}, "weights.1 = -0.0: temperature must be a number other than 0"),
        ({"weights": [math.nan]}, "weights.0 = nan: temperature must be a number other than 0"),
        ({"seed": 2**32}, "the last seed is at most 4294967295, got 4294967300"),
        ({"seed": 2**32 - 1, "seeds": 2}, "the last seed is at most 4294967295, got 4294967296"),
    ],
)
def test_wrong_parameters_are_named_with_the_valid_ones(given, words):
    with pytest.raises(
        ValueError, match="valid names: scale, seeds, seed, device, data_dir, results_dir, dims"
    ) as error:
        resolve("05_t_simclr", given)
    assert words in str(error.value)


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


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_the_last_seed_of_every_kind_is_one_that_scikit_learn_takes(name):
    kinds = [
        field
        for field in NOTEBOOKS[name].model_fields
        if field == "seeds" or field.endswith("_seeds")
    ]
    one_each = dict.fromkeys(kinds, 1)
    assert resolve(name, {"seed": 2**32 - 1, **one_each}).seed == 2**32 - 1
    for kind in kinds:
        with pytest.raises(ValueError, match="the last seed is at most 4294967295, got 4294967297"):
            resolve(name, {"seed": 2**32 - 1, **one_each, kind: 3})
    assert len(tables.table(Table(table="iris"), 2**32 - 1).train) > 0
    with pytest.raises(ValueError, match="random_state"):
        tables.table(Table(table="iris"), 2**32)


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_folders_are_checked_and_made_absolute(name, tmp_path, monkeypatch):
    (tmp_path / "sets").mkdir()
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    found = resolve(name, {"data_dir": "sets", "results_dir": "new"})
    assert (found.data_dir, found.results_dir) == (str(tmp_path / "sets"), str(tmp_path / "new"))
    for given in ({"data_dir": "nowhere"}, {"data_dir": "file"}, {"results_dir": "file"}):
        (key, value) = next(iter(given.items()))
        with pytest.raises(
            ValueError,
            match=f"parameters of {name}: {key} = '{value}': .*must name a folder.*valid names: ",
        ):
            resolve(name, given)


def test_a_run_that_cannot_be_is_refused_with_the_parameters(monkeypatch):
    """Whatever rule of its configuration it breaks: here a batch of one, which the notebook's own limits let through."""
    monkeypatch.setattr(
        NOTEBOOKS["01_contrastive_is_sne"], "run", lambda self, dim, seed: TrainConfig(batch_size=1)
    )
    with pytest.raises(
        ValueError,
        match=r"parameters of 01_contrastive_is_sne: .* batch_size = 1: .*valid names: scale, seeds",
    ):
        resolve("01_contrastive_is_sne", {})


def test_a_larger_set_is_asked_for_at_the_start(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        images,
        "load_images",
        lambda name, split, *, data_dir: asked.append((name, split, data_dir)),
    )
    folder = str(tmp_path)
    resolve(
        "05_t_simclr", {"image_sets": ["cifar10", "fashion_mnist"], "data_dir": folder}
    ).require_data()
    assert asked == [
        (name, split, folder)
        for name in ("cifar10", "fashion_mnist")
        for split in ("train", "test")
    ]
    asked.clear()
    resolve("03_implicit_bias", {"image_set": "cifar10"}).require_data()
    assert asked == [("cifar10", "train", None), ("cifar10", "test", None)]
    asked.clear()
    for name in NOTEBOOKS:
        resolve(name, {"scale": "quick"}).require_data()
    assert asked == [], "what is embedded is at hand"


DAMAGES = {
    "empty": lambda text: "",
    "no rows": lambda text: text.split("\n")[0],
    "cut": lambda text: text[: len(text) // 2],
    "another table": lambda text: "a,b\n1,2\n",
    "a word for a number": lambda text: text.replace("0.", "zero.", 1),
    "no accuracy": lambda text: text.replace("0.8145", "nan", 1),
    "an unknown form": lambda text: text.replace("cosine", "sine", 1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_search_is_named_with_the_remedy(damage, tmp_path, monkeypatch):
    file = tmp_path / "search_fashion_mnist_subset.csv"
    file.write_text(damage((RECORDS / file.name).read_text(encoding="utf-8")), encoding="utf-8")
    monkeypatch.setattr(settings, "RECORDS", tmp_path)
    searches.search_table.cache_clear()
    try:
        with pytest.raises(
            ValueError, match=rf"^{re.escape(str(file))} is damaged: `git checkout -- "
        ):
            searches.search_table()
    finally:
        searches.search_table.cache_clear()


def test_damaged_sizes_are_named_with_the_remedy(tmp_path, monkeypatch):
    file = tmp_path / "scales.toml"
    file.write_text("[smoke]\nruns_per_job = ", encoding="utf-8")
    monkeypatch.setattr(study, "SCALES", file)
    study.scales.cache_clear()
    try:
        with pytest.raises(
            ValueError, match=rf"^{re.escape(str(file))} is damaged: `git checkout -- "
        ):
            resolve("05_t_simclr", {})
    finally:
        study.scales.cache_clear()


def test_unknown_notebook():
    with pytest.raises(ValueError, match="notebook must be one of"):
        resolve("99", {})


def test_methods_under_comparison_have_the_same_budget_and_the_same_rest():
    """Twelve settings a method and dimension on the embedded set, four on CIFAR-10; nothing but projector and loss differs."""
    for image_set, dims, budget in (
        ("fashion_mnist_subset", searches.DIMS[1:], 12),
        ("cifar10", (2, 64), 4),
    ):
        space = searches.search_space(image_set)
        for members in searches.FAMILIES.values():
            for dim in dims:
                assert sum(form in members and d == dim for form, d, _ in space) == budget, (
                    image_set,
                    members,
                    dim,
                )
        rest = {
            run.model_copy(update={"projector": Projector(), "loss": InfoNCE()})
            for run in space.values()
        }
        assert len(rest) == 1
        assert rest.pop().data.holdout > 0, "tuning never sees the test set"
        assert len(set(space.values())) == len(space)
        for (form, dim, temperature), run in space.items():
            assert (run.projector.dim, run.loss.temperature) == (dim, temperature)
            assert run.projector.batchnorm == form.endswith("BatchNorm")


@pytest.mark.parametrize("image_set", ["fashion_mnist_subset", "cifar10"])
def test_the_chosen_settings_are_the_best_of_the_committed_search(image_set):
    """The table holds every run of the search, and what is used is its best, by a second computation with pandas."""
    import pandas as pd

    table = pd.read_csv(RECORDS / f"search_{image_set}.csv")
    cells = {(row.form, row.d_z, row.temperature) for row in table.itertuples()}
    assert cells == set(searches.search_space(image_set)), (
        "the table is that of the search in the repository"
    )
    subset = pd.read_csv(RECORDS / "search_fashion_mnist_subset.csv")
    best = subset[subset.d_z > 1].groupby(["form", "d_z"]).knn15_z.max().groupby("form").mean()
    for method, members in searches.FAMILIES.items():
        form = best[list(members)].idxmax()
        for dim in table[table.form == form].d_z.unique():
            rows = table[(table.form == form) & (table.d_z == dim)]
            setting = searches.tuned(method, int(dim), image_set)
            assert setting.loss.temperature == rows.loc[rows.knn15_z.idxmax()].temperature
            assert setting.batchnorm == form.endswith("BatchNorm")
            if method == "t-SimCLR":
                assert form.startswith(f"t {setting.loss.normalization}")


def test_the_settings_of_the_other_notebooks_are_the_best_of_their_search():
    import pandas as pd

    table = pd.read_csv(RECORDS / "search_one_setting.csv")
    assert set(table.groupby("method").size()) == {10}
    for method, setting in study.METHODS.items():
        best = table.loc[table[table.method == method]["mean"].idxmax()]
        loss = setting.loss.model_dump(exclude={"name", "learn_df"})
        assert {key: best[key] for key in loss} == loss
        assert bool(best.batchnorm) == setting.batchnorm


def test_every_factor_of_the_order_experiments_changes_one_part_and_shares_its_seeds():
    p = resolve("03_implicit_bias", {"scale": "smoke", "factor_seeds": 3})
    base = p.base_runs()[0].model_dump()
    for (factor, level), runs in p.factor_runs().items():
        assert [run.seed for run in runs] == [0, 1, 2]
        changed = {part for part, value in runs[0].model_dump().items() if value != base[part]}
        allowed = 2 if factor in ("grid", "loss") or level == "no network" else 1
        assert 1 <= len(changed) <= allowed, (factor, level, changed)
    steps = {
        run.epochs * run.data.steps_per_epoch
        for runs in (*p.factor_runs().values(), *p.start_runs().values())
        for run in runs
    }
    assert steps == {50 * p.epochs}, "everything is trained for as long"


def test_fitted_starts_differ_from_the_wrong_order_in_one_thing():
    starts = resolve("03_implicit_bias", {}).start_runs()
    wrong = starts.pop("wrong order")[0].model_dump()
    assert wrong["start_order"] == (0, 2, 1, 3)
    for name, runs in starts.items():
        parts = {
            part: value for part, value in runs[0].model_dump().items() if value != wrong[part]
        }
        (part,) = parts
        if isinstance(parts[part], dict):
            assert len([key for key in parts[part] if parts[part][key] != wrong[part][key]]) == 1, (
                name
            )


def test_groups_name_classes_that_exist():
    from sscl_experiments.datasets.images import _CANONICAL

    for name, source in study.IMAGE_SETS.items():
        classes = _CANONICAL["fashion_mnist" if name == "fashion_mnist_subset" else name].classes
        members = [member for group in source.groups.values() for member in group]
        assert len(members) == len(set(members))
        assert set(members) <= set(classes)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image_set": "mnist"}, "image_set"),
        ({"n_train": 20_000}, "10000"),
        ({"factor_seeds": 0}, "factor_seeds"),
    ],
)
def test_wrong_parameters_of_the_order_study(given, words):
    with pytest.raises(ValueError, match=words):
        resolve("03_implicit_bias", given)


# --- notebook 02 ---------------------------------------------------------------------------------

SCALES = pytest.mark.parametrize("scale", ["smoke", "quick", "full"])


def agnostic(**given):
    return resolve("02_domain_agnostic_augmentations", given)


def every_group(p) -> list[list]:
    return [
        runs
        for groups in (
            p.view_runs(),
            p.noise_runs(),
            p.map_runs(),
            p.untrained_runs(),
            p.table_runs(),
        )
        for runs in groups.values()
    ]


@SCALES
def test_the_runs_are_those_of_the_groups_and_each_is_made_once(scale):
    p = agnostic(scale=scale)
    grouped = [run for runs in every_group(p) for run in runs]
    assert len(set(p.runs())) == len(p.runs()) == len(grouped)
    assert set(p.runs()) == set(grouped)
    sizes = {
        "view": p.image_seeds,
        "noise": p.seeds,
        "map": p.seeds,
        "untrained": p.seeds,
        "table": p.table_seeds,
    }
    for group, n in sizes.items():
        for name, runs in getattr(p, f"{group}_runs")().items():
            assert [run.seed for run in runs] == list(range(n)), (group, name)
            assert len({run.model_copy(update={"seed": 0}) for run in runs}) == 1, (
                "they differ in their seed alone"
            )


def test_what_is_asked_for_twice_is_made_once():
    p = agnostic(
        scale="smoke", cells=["isotropic, d=8"] * 2, tables=["iris", "wine", "iris"], seed=7
    )
    assert len(set(p.runs())) == len(p.runs())
    assert {run.seed for run in p.runs()} == {7, 8}
    assert len(p.map_runs()) == len(CLOUD_STEPS)


def test_runs_on_vectors_are_ensembles_of_their_seeds():
    p = agnostic(scale="smoke")
    together = ensembles(run for run in p.runs() if isinstance(run.data, Points))
    vectors = [
        runs
        for groups in (p.noise_runs(), p.map_runs(), p.untrained_runs(), p.table_runs())
        for runs in groups.values()
    ]
    assert sorted(map(str, together)) == sorted(map(str, vectors))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"cells": ["isotropic, d=8", "isotropic, d=9"]},
            r"cells must be among .*, got \['isotropic, d=9'\]",
        ),
        ({"cells": []}, "cells"),
        ({"tables": ["boston"]}, "tables.0 = 'boston'"),
        ({"tables": []}, "tables"),
        ({"points": 29}, "points = 29"),
        ({"steps": 0}, "steps = 0"),
        ({"table_seeds": 0}, "table_seeds = 0"),
        ({"image_seeds": 0}, "image_seeds = 0"),
        ({"image_epochs": 0}, "image_epochs = 0"),
        ({"n_train": 10_001}, "n_train = 10001"),
    ],
    ids=str,
)
def test_wrong_parameters_of_the_domain_agnostic_study(given, words):
    agnostic(scale="smoke")
    with pytest.raises(ValueError, match=words):
        agnostic(scale="smoke", **given)


@pytest.mark.parametrize(
    ("steps", "kinds", "number"),
    [(CLOUD_STEPS, (Noise, Mixup), 5), (TABLE_STEPS, (Noise, Mixup, Masking, Corruption), 3)],
)
def test_every_augmentation_has_as_many_strengths(steps, kinds, number):
    """An equal budget for the choice among them."""
    assert [type(step) for _, step in steps] == [kind for kind in kinds for _ in range(number)]
    assert len(set(steps)) == len(steps)
    for strength, step in steps:
        (value,) = (
            value
            for key, value in step.model_dump().items()
            if key in ("scale", "strength", "rate")
        )
        assert value == strength
    assert all(step.kind == "gaussian" for _, step in steps if isinstance(step, Noise))


def test_the_map_tries_every_strength_on_every_cloud_with_one_method():
    p = agnostic(cells=list(CELLS))
    runs = p.map_runs()
    assert list(runs) == [
        (cell, step.name, strength) for cell in CELLS for strength, step in CLOUD_STEPS
    ]
    for (cell, name, strength), group in runs.items():
        for run in group:
            assert run.data.points == CELLS[cell]
            assert run.data.augmentation == (
                {"noise": Noise(scale=strength), "mixup": Mixup(strength=strength)}[name],
            )
    rest = {
        run.model_copy(update={"data": None, "seed": 0}) for group in runs.values() for run in group
    }
    assert len(rest) == 1, "all else is the same"
    assert rest.pop().loss == METHODS["SimCLR"].loss


def test_cells_are_different_clouds():
    assert len(set(CELLS.values())) == len(CELLS)
    for name, cell in CELLS.items():
        assert name.startswith(cell.structure) or (
            cell.structure == "complement" and name.startswith(f"{cell.rank} nuisances")
        )
        factor, value = name.split(", ")[1].split("=")
        assert float(value) == {"d": cell.dim, "σ": cell.std, "n": cell.n_train}[factor]


def test_tables_are_tried_by_every_method_with_every_strength():
    p = agnostic(tables=["iris", "digits"])
    runs = p.table_runs()
    expected = {
        (t, m, step.name, strength)
        for t in ("iris", "digits")
        for m in METHODS
        for strength, step in TABLE_STEPS
    }
    assert runs.keys() == expected | {(t, "untrained", "", 0.0) for t in ("iris", "digits")}
    for (name, method, step, strength), group in runs.items():
        assert len(group) == p.table_seeds
        for run in group:
            assert run.data.points.table == name
            assert (run.epochs == 0) == (method == "untrained")
            if method != "untrained":
                assert (run.loss, run.projector.batchnorm) == (
                    METHODS[method].loss,
                    METHODS[method].batchnorm,
                )
                assert run.data.augmentation in [
                    (s,) for value, s in TABLE_STEPS if (s.name, value) == (step, strength)
                ]


def test_the_noise_of_sne_is_changed_in_one_factor_at_a_time():
    runs = agnostic(points=90).noise_runs()
    base = runs["noise scale", "0.4"][0]
    assert [run.epochs for run in runs.pop(("control", "untrained"))] == [0] * len(
        runs["noise scale", "0.4"]
    )
    for (factor, level), (run, *_) in runs.items():
        changed = {
            part for part, value in run.model_dump().items() if value != base.model_dump()[part]
        }
        assert changed == (
            set() if run == base else {"backbone"} if factor == "network" else {"data"}
        ), (factor, level)
        if changed == {"data"}:
            images, before = run.data.model_dump(), base.data.model_dump()
            assert [key for key in images if images[key] != before[key]] == [
                "augmentation" if "noise" in factor or factor == "control" else "points"
            ]
    assert len({group[0] for group in runs.values()}) == len(runs)
    assert runs["points", "30"][0].data.points.n_train == 30
    assert runs["points", "180"][0].data.points.n_train == 180
    assert runs["input dimension", "10"][0].data.points.dim == 10
    assert runs["network", "linear"][0].backbone == MLP(depth=0)


@SCALES
def test_networks_on_vectors_are_trained_for_as_many_steps_as_asked(scale):
    p = agnostic(scale=scale)
    for groups in (p.noise_runs(), p.map_runs(), p.table_runs()):
        for name, runs in groups.items():
            steps = 0 if "untrained" in name else p.steps
            assert {run.epochs * run.data.steps_per_epoch for run in runs} == {steps}, name


@pytest.mark.parametrize("steps", [1, 49, 50, 51, 53, 75, 120, 500])
def test_a_network_on_vectors_takes_the_steps_asked_for(steps):
    run = vector_run(
        Points(points=CELLS["isotropic, d=8"], augmentation=(Noise(scale=0.1),)),
        METHODS["SimCLR"],
        8,
        steps,
        3,
    )
    assert run.epochs * run.data.steps_per_epoch == steps
    assert (run.seed, run.projector.dim, run.data.points) == (3, 8, CELLS["isotropic, d=8"])


def test_views_of_images_are_all_singles_and_pairs_of_four_kinds():
    """Each kind has one strength wherever it occurs, a crop comes first, and nothing else is done."""
    kinds = ("crop", "noise", "mixup", "masking")
    expected = {*kinds, *(" + ".join(pair) for pair in itertools.combinations(kinds, 2))}
    assert IMAGE_VIEWS.keys() == expected | {"crop + jitter"}
    assert IMAGE_VIEWS["crop + jitter"] == study.AUGMENTATION
    strengths = {name: IMAGE_VIEWS[name].then for name in kinds}
    assert strengths["crop"] == ()
    assert [type(step) for name in kinds[1:] for step in strengths[name]] == [Noise, Mixup, Masking]
    for name in expected:
        views, parts = IMAGE_VIEWS[name], name.split(" + ")
        assert (views.crop_scale == study.AUGMENTATION.crop_scale) == ("crop" in parts)
        assert views.crop_scale == (1.0, 1.0) or "crop" in parts
        assert views.then == tuple(step for part in parts for step in strengths[part])
        assert (views.flip, views.jitter, views.grayscale) == (0.0, 0.0, 0.0)


def test_runs_on_views_of_images_differ_in_their_views_alone():
    p = agnostic(scale="smoke")
    runs = p.view_runs()
    assert runs.keys() == IMAGE_VIEWS.keys() | {"untrained"}
    for name, views in IMAGE_VIEWS.items():
        assert all(run.data.augmentation == views for run in runs[name])
        assert {run.epochs for run in runs[name]} == {p.image_epochs}
    assert {run.epochs for run in runs["untrained"]} == {0}
    assert (
        len(
            {
                run.model_copy(update={"data": None, "epochs": 0, "seed": 0})
                for group in runs.values()
                for run in group
            }
        )
        == 1
    )
    assert {run.data.n_train for group in runs.values() for run in group} == {p.n_train}


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
            assert len({run.model_copy(update={"seed": 0}) for run in runs}) == 1, (
                "they differ in their seed alone"
            )
    assert ("SimCLR", 1) not in groups["dimension"], "cosines do not train in one dimension"
    assert ("t-SimCLR", 1) in groups["dimension"] or 1 not in p.dims
    if p.image_sets:
        controls = {
            key for key in groups["large"] if key[1] not in (*searches.FAMILIES, "untrained")
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
