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
    assert {run.seed for run in runs} == set(range(parameters.seeds))
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
