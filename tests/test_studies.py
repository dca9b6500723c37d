"""Parameters: the scale's sizes under what is given; everything wrong is refused with the valid names."""

import pytest

from sscl_core import studies
from sscl_core.studies import NOTEBOOKS, out_dir, resolve
from sscl_core.tuning import search_space


@pytest.mark.parametrize("scale", ["smoke", "quick", "full"])
@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_every_scale_is_complete(scale, name):
    parameters = resolve(name, {"scale": scale})
    runs = parameters.runs()
    assert len(runs) == len(set(runs)) > 0
    assert {run.seed for run in runs} == set(range(parameters.seeds)), "`seeds` is the largest number of seeds of any part"
    assert scale == "smoke" or parameters.seeds >= 5, "a verdict needs 5 seeds"


def test_given_values_win_and_none_means_the_scales_own():
    quick = resolve("05_t_simclr", {})
    assert quick == resolve("05_t_simclr", {"scale": "quick", "seeds": None, "dims": None})
    chosen = resolve("05_t_simclr", {"seeds": 50, "seed": 7, "dims": [4]})
    assert (chosen.seeds, chosen.dims, chosen.epochs) == (50, (4,), quick.epochs)
    assert set(chosen.seed_range) == set(range(7, 57))
    assert out_dir("05_t_simclr", quick).name == "quick"
    assert out_dir("05_t_simclr", resolve("05_t_simclr", {"results_dir": "/x", "device": "cpu"})).parts[-2:] == ("x", "quick")
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
        ({"dims": [1, 2]}, "dims.0 = 1"),
        ({"dims": []}, "dims"),
        ({"dims": 2}, "dims = 2"),
        ({"n_train": 10**6}, "n_train"),
        ({"dims": {1, 2}}, "not JSON serializable"),
        ({"seeds": 0, "epochs": -1}, "epochs = -1"),
        ({"dims": [2, 1024]}, "784 pixels"),
        ({"dims": [256], "n_train": 200}, "n_train"),
    ],
)
def test_wrong_parameters_are_named_with_the_valid_ones(given, words):
    with pytest.raises(ValueError, match="valid names: scale, seeds, seed, device, data_dir, results_dir, dims") as error:
        resolve("05_t_simclr", given)
    assert words in str(error.value)


def test_unknown_notebook():
    with pytest.raises(ValueError, match="notebook must be one of"):
        resolve("99", {})


def test_methods_under_comparison_have_the_same_budget_and_the_same_rest():
    spaces = {method: search_space(method, seeds=range(2)) for method in studies.METHODS}
    assert len({len(space) for space in spaces.values()}) == 1
    assert len({sum(map(len, space.values())) for space in spaces.values()}) == 1
    for method, setting in studies.METHODS.items():
        assert setting in spaces[method], "the chosen setting was in the search"
    rest = {"projector", "loss"}
    for runs in zip(*(space.values() for space in spaces.values()), strict=True):
        for a, b in zip(*runs, strict=True):
            assert a.model_dump(exclude=rest) == b.model_dump(exclude=rest)
            assert a.data.holdout > 0, "tuning never sees the test set"


def test_the_chosen_settings_are_the_best_of_the_committed_search():
    import pandas as pd

    from sscl_core.paths import RESOURCES

    table = pd.read_csv(RESOURCES / "data" / "records" / "tuning_05_t_simclr.csv")
    for method, setting in studies.METHODS.items():
        rows = table[table.method == method]
        assert len(rows) == len(search_space(method, seeds=[0]))
        best = rows.loc[rows["mean"].idxmax()]
        loss = setting.loss.model_dump(exclude={"name"})
        assert {key: best[key] for key in loss} == loss
        assert best["mean"] == pytest.approx(best[["d_z=2", "d_z=8", "d_z=32"]].mean(), abs=1e-4)
        assert bool(best.batchnorm) == setting.batchnorm


def test_every_factor_of_the_order_experiments_changes_one_part_and_shares_its_seeds():
    p = resolve("03_implicit_bias", {"scale": "smoke", "factor_seeds": 3})
    base = p.base_runs()[0].model_dump()
    for (factor, level), runs in p.factor_runs().items():
        assert [run.seed for run in runs] == [0, 1, 2]
        changed = {part for part, value in runs[0].model_dump().items() if value != base[part]}
        allowed = 2 if factor in ("grid", "loss") or level == "no network" else 1
        assert 1 <= len(changed) <= allowed, (factor, level, changed)
    steps = {run.epochs * run.data.steps_per_epoch for runs in (*p.factor_runs().values(), *p.start_runs().values()) for run in runs}
    assert steps == {50 * p.epochs}, "everything is trained for as long"


def test_fitted_starts_differ_from_the_wrong_order_in_one_thing():
    starts = resolve("03_implicit_bias", {}).start_runs()
    wrong = starts.pop("wrong order")[0].model_dump()
    assert wrong["start_order"] == (0, 2, 1, 3)
    for name, runs in starts.items():
        parts = {part: value for part, value in runs[0].model_dump().items() if value != wrong[part]}
        (part,) = parts
        if isinstance(parts[part], dict):
            assert len([key for key in parts[part] if parts[part][key] != wrong[part][key]]) == 1, name


def test_images_of_the_order_study_are_those_of_the_t_simclr_study():
    """At quick: the two notebooks share these runs, so they are made once."""
    ours = {run for runs in resolve("03_implicit_bias", {}).image_runs().values() for run in runs}
    assert ours <= set(resolve("05_t_simclr", {}).runs())
    assert len(ours) == 15


def test_groups_name_classes_that_exist():
    from sscl_core.data import _CANONICAL

    for name, source in studies.IMAGE_SETS.items():
        classes = _CANONICAL["fashion_mnist" if name == "fashion_mnist_subset" else name].classes
        members = [member for group in source.groups.values() for member in group]
        assert len(members) == len(set(members))
        assert set(members) <= set(classes)


@pytest.mark.parametrize(
    ("given", "words"), [({"image_set": "mnist"}, "image_set"), ({"n_train": 20_000}, "10000"), ({"factor_seeds": 0}, "factor_seeds")]
)
def test_wrong_parameters_of_the_order_study(given, words):
    with pytest.raises(ValueError, match=words):
        resolve("03_implicit_bias", given)
