"""Parameters of all studies: the scale's sizes under what is given; wrong ones are refused."""

import importlib
import math
import re

import pytest

from sscl_core.config import Table, TrainConfig
from sscl_experiments.datasets import images, tables
from sscl_experiments.study import all_studies, out_dir, resolve, study_of

NOTEBOOKS = sorted(all_studies())


@pytest.mark.parametrize("scale", ["smoke", "quick", "full"])
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_scale_is_complete(scale, name):
    parameters = resolve(name, {"scale": scale})
    runs = parameters.runs()
    assert len(runs) == len(set(runs))
    if not runs:
        assert not study_of(name).claims, "what decides a claim trains something"
        return
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
    assert (chosen.seeds, chosen.dims, chosen.lengths) == (50, (4,), quick.lengths)
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
        ({"seeds": 0, "lengths": [-1]}, "lengths.0 = -1"),
        (
            {"dims": [2, 5]},
            "parameters of 05_t_simclr: dims must be among (1, 2, 3, 4, 8, ",
        ),
        ({"dims": [1]}, "cosines do not train in one dimension"),
        ({"dims": [1024]}, "dims.0 = 1024"),
        ({"losses": ["t"]}, "losses must be among"),
        ({"image_sets": ["imagenet"]}, "image_sets.0 = 'imagenet'"),
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


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weights": [0.3, "many"]}, "weights.1 = 'many'"),
        (
            {"weights": [0]},
            "weights.0 = 0: temperature must be a number other than 0 "
            "(at least 1e-37 away from it), or infinite, got 0.0",
        ),
        ({"weights": [0.3, -0.0]}, "weights.1 = -0.0: temperature must be a number other than 0"),
        ({"weights": [math.nan]}, "weights.0 = nan: temperature must be a number other than 0"),
    ],
)
def test_wrong_temperatures_of_weights_are_named(given, words):
    with pytest.raises(ValueError, match=r"valid names: scale, seeds, seed, .*weights") as error:
        resolve("10_weighted_pairs", given)
    assert words in str(error.value)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_last_seed_of_every_kind_is_one_that_scikit_learn_takes(name):
    kinds = [
        field
        for field in study_of(name).parameters.model_fields
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


@pytest.mark.parametrize("name", NOTEBOOKS)
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
    """Here a batch of one, which no limit of the notebook's own parameters forbids."""
    monkeypatch.setattr(
        study_of("01_contrastive_is_sne").parameters,
        "run",
        lambda self, m, dim, seed: TrainConfig(batch_size=1),
    )
    with pytest.raises(
        ValueError,
        match=r"of 01_contrastive_is_sne: .* batch_size = 1: .*valid names: scale, seeds",
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


def test_damaged_sizes_are_named_with_the_remedy(monkeypatch, tmp_path):
    """Those of a study whose folder is elsewhere, and whose file of sizes is cut off."""
    file = tmp_path / "scales.toml"
    file.write_text("[smoke]\nseeds = ", encoding="utf-8")
    package = importlib.import_module(study_of("05_t_simclr").package)
    monkeypatch.setattr(package, "__file__", str(tmp_path / "__init__.py"))
    remedy = rf"^{re.escape(str(file))} is damaged: `git checkout -- "
    with pytest.raises(ValueError, match=remedy):
        resolve("05_t_simclr", {})


def test_unknown_notebook():
    with pytest.raises(ValueError, match="notebook must be one of"):
        resolve("99", {})
