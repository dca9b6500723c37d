"""The experiment on kernels: its search, records and endpoints, and the whole of it in little."""

import itertools
import json
import math
import os
import signal
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import read_once, unchecked

import sscl_experiments.runs.images as image_runs
from sscl_core.divergence import NonFiniteLossError
from sscl_experiments import cli, store
from sscl_experiments.crossed import crossed_interval
from sscl_experiments.studies.t_simclr.kernel_experiment import (
    design,
    endpoints,
    ledger,
    measuring,
    running,
    tasks,
)
from sscl_experiments.studies.t_simclr.kernel_experiment.endpoints import (
    C10,
    C11,
    Estimate,
    estimate,
    final_verdict,
    octaves,
)
from sscl_experiments.studies.t_simclr.kernel_experiment.ledger import Ledger

# A whole search asks for half a million small things: as users get it, without checks of each.
WHERE = "sscl_experiments.studies.t_simclr.kernel_experiment."
NAMES = (
    *("design", "endpoints", "ledger", "phases", "reading", "running"),
    *("search", "sides", "tasks"),
)
plain = SimpleNamespace(**{name: unchecked(WHERE + name) for name in NAMES})
plain.store = unchecked("sscl_experiments.store")
plain.recorded = unchecked("sscl_experiments.studies.t_simclr.recorded")
plain.practice = unchecked("sscl_experiments.studies.t_simclr.practice")
FULL, KERNELS = plain.design.FULL, plain.design.KERNELS
Found, Point = plain.ledger.Found, plain.design.Point
DIMS = (2, 4, 8, 16, 64)

# --- endpoints -----------------------------------------------------------------------------------


def curve(shift: float = 0.0, height: float = 0.0) -> np.ndarray:
    """Accuracies straight in log2 d_z, as of `shift` octaves more dimensions."""
    return 0.2 + 0.05 * (np.log2(DIMS) + shift) + height


def test_equal_curves_need_equal_dimensions():
    assert octaves(DIMS, curve(), curve()) == 0


@pytest.mark.parametrize("shift", [-2, -1, 0.5, 1, 3])
def test_a_curve_that_is_shifted_needs_so_many_octaves_less(shift):
    assert octaves(DIMS, curve(), curve(shift)) == pytest.approx(shift)
    assert octaves(DIMS, curve(shift), curve()) == pytest.approx(-shift)


def crossing(dims, accuracy, level):
    """The d_z at which a curve first reaches `level`, straight in log2 d_z between dimensions."""
    i = int((accuracy >= level).argmax())
    if i == 0:
        return float(dims[0])
    part = (level - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
    return float(dims[i - 1] * (dims[i] / dims[i - 1]) ** part)


def test_octaves_by_the_crossings_of_each_target():
    first = np.array([0.18, 0.3, 0.44, 0.43, 0.5])
    second = np.array([0.25, 0.34, 0.41, 0.47, 0.46])
    best = [np.maximum.accumulate(one) for one in (first, second)]
    targets = np.linspace(0.25, 0.47, 20_001)[1:-1]
    ratios = [
        math.log2(crossing(DIMS, best[0], target) / crossing(DIMS, best[1], target))
        for target in targets
    ]
    assert octaves(DIMS, first, second) == pytest.approx(np.mean(ratios), abs=2e-3)
    assert abs(np.mean(ratios)) > 0.05


def test_without_a_common_accuracy_the_factor_is_bounded_by_the_grid():
    low, high = curve(), curve(height=0.5)
    assert math.isnan(octaves(DIMS, low, high))
    both = np.stack([low, high])[:, :, None]
    assert endpoints.factor(DIMS)(both) == pytest.approx(5)
    assert endpoints.factor(DIMS)(both[::-1]) == pytest.approx(-5)
    assert endpoints.is_censored(both).tolist() == [True]
    assert endpoints.is_censored(np.stack([low, curve(1)])[:, :, None]).tolist() == [False]


def told_right(
    accuracies: np.ndarray, rng: np.random.Generator, *, seeds=5, images=400, spread=0.01
) -> np.ndarray:
    """Test images of varying difficulty, the same for all networks, and seeds that vary too."""
    level = accuracies[:, :, None, None] + spread * rng.standard_normal((1, 1, seeds, 1))
    own = spread * rng.standard_normal((*accuracies.shape, seeds, 1))
    difficulty = rng.random(images)
    return (level + own) > difficulty


def test_intervals_cover_what_they_should():
    """Over seeds and images: of 150 experiments about 95 % cover the true difference."""
    rng = np.random.default_rng(0)
    truth, covered, blind = 0.02, 0, 0
    for _ in range(150):
        found = estimate(told_right(np.array([[0.5], [0.5 + truth]]), rng), endpoints.difference)
        covered += found.low <= truth <= found.high
        blind += found.low <= 0 <= found.high
    assert 0.9 <= covered / 150 <= 0.995
    assert blind / 150 < 0.9, "they are not merely wide"


@pytest.mark.parametrize("luck", [0.0, 0.1, 0.4])
def test_the_error_is_that_of_the_analysis_of_variance(luck):
    """Where networks of one seed differ by luck too, what is left of seeds and images counts once.

    `crossed_interval` has it from mean squares; by the spread of draws of both it would be counted
    three times.
    """
    rng = np.random.default_rng(4)
    correct = told_right(np.array([[0.5], [0.53]]), rng, images=3000)
    correct ^= rng.random(correct.shape) < luck
    found = estimate(correct, endpoints.difference)
    differences = correct[1, 0].astype(float) - correct[0, 0]
    mean, low, high = crossed_interval([differences])
    assert found.value == pytest.approx(mean)
    assert found.high - found.low == pytest.approx(high - low, rel=0.12)


def test_images_alone_give_the_binomial_error():
    rng = np.random.default_rng(1)
    correct = np.broadcast_to(rng.random((2, 1, 1, 500)) < 0.3, (2, 1, 4, 500))
    draws = endpoints.resampled(correct, rng, seeds=True, images=True)
    share = correct[0, 0, 0].mean()
    assert draws[0, 0].std() == pytest.approx(math.sqrt(share * (1 - share) / 500), rel=0.1)
    alone = endpoints.resampled(correct, rng, seeds=True, images=False)
    assert alone.std(2).max() < 1e-6, "equal seeds do not vary"


def test_seeds_alone_give_the_standard_error_of_their_mean():
    """Every test image is told right by as many as the seed has accuracy: S - 1 of S are drawn."""
    rng = np.random.default_rng(1)
    levels = np.array([0.2, 0.3, 0.5, 0.6])
    correct = (np.arange(1000) / 1000 < levels[:, None])[None, None]
    draws = endpoints.resampled(correct, rng, seeds=True, images=False)
    assert draws.std() == pytest.approx(levels.std(ddof=1) / 2, rel=0.05)


def test_networks_that_are_alike_pass_no_rule():
    rng = np.random.default_rng(3)
    same = np.stack([curve(), curve()])
    correct = told_right(same, rng, images=2000)
    found = estimate(correct, endpoints.factor(DIMS))
    assert found.low < 0 < found.high
    assert C10.verdict(found) == "does not replicate"
    assert endpoints.FEWER.verdict(found) == "mixed"
    assert C11.verdict(estimate(correct[:, -1:], endpoints.difference)) != "replicates"


def test_a_quarter_of_the_dimensions_is_seen():
    rng = np.random.default_rng(3)
    correct = told_right(np.stack([curve(), curve(3)]), rng, images=4000, spread=0.003)
    found = estimate(correct, endpoints.factor(DIMS))
    assert found.value == pytest.approx(3, abs=0.3)
    assert C10.verdict(found) == "replicates"


def found_at(low: float, high: float, seeds: int = 5, censored: float = 0.0) -> Estimate:
    value, error = (low + high) / 2, (high - low) / 4
    return Estimate(value, low, high, error, 10.0, seeds, 100, censored)


def test_a_curve_that_is_higher_everywhere_needs_no_fewer_dimensions():
    correct = told_right(np.stack([curve(), curve(height=0.5)]), np.random.default_rng(4))
    found = estimate(correct, endpoints.factor(DIMS))
    assert found.low > C10.threshold
    assert found.censored == 1
    assert C10.verdict(found) == "mixed"
    assert final_verdict(C10, found, found) == (
        "mixed",
        "in 100% of draws one curve is higher at every d_z, which is no factor in d_z",
    )
    c10 = plain.reading.ENDPOINTS[0]
    assert not c10.is_open(found), "more seeds would say the same"
    assert c10.is_open(found_at(1.0, 3.0))
    assert C10.verdict(found_at(2.0, 3.0, censored=0.02)) == "replicates"
    below = estimate(correct[::-1], endpoints.factor(DIMS))
    assert C10.verdict(below) == "does not replicate"


@pytest.mark.parametrize(
    ("rule", "low", "high", "expected"),
    [
        (C10, 2.0, 3.0, "replicates"),
        (C10, 1.9, 3.0, "mixed"),
        (C10, 0.5, 1.99, "does not replicate"),
        (C11, 0.001, 0.02, "replicates"),
        (C11, -0.001, 0.02, "mixed"),
        (C11, 0.001, 0.004, "does not replicate"),
        (C11, -0.02, 0.004, "does not replicate"),
        (C11, -0.02, 0.006, "mixed"),
    ],
)
def test_the_rules(rule, low, high, expected):
    assert rule.verdict(found_at(low, high)) == expected
    assert rule.verdict(found_at(low, high, seeds=4)) == "not run at this scale"


def test_a_verdict_needs_that_both_lengths_agree():
    yes, no, wide = found_at(0.01, 0.02), found_at(-0.02, -0.01), found_at(-0.02, 0.02)
    assert final_verdict(C11, yes, yes) == ("replicates", "")
    assert final_verdict(C11, no, no) == ("does not replicate", "")
    verdict, note = final_verdict(C11, yes, no)
    assert verdict == "mixed"
    assert "shorter length: replicates" in note
    verdict, note = final_verdict(C11, wide, wide)
    assert verdict == "mixed"
    assert f"{(2.228 + 0.879) * 0.01:.2g}" in note, "t quantiles at 10 degrees of freedom"
    none = found_at(-0.004, 0.004)
    assert final_verdict(C11, none, none) == ("does not replicate", "no difference: within ±0.005")
    few = found_at(0.01, 0.02, seeds=3)
    assert final_verdict(C11, few, yes)[0] == "not run at this scale"


# --- records -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 8, 13, 2000])
def test_bits_come_back(n):
    correct = np.random.default_rng(n).random(n) < 0.5
    assert ledger.unpacked(ledger.packed(correct), n).tolist() == correct.tolist()
    with pytest.raises(ValueError, match="correct must hold"):
        ledger.unpacked(ledger.packed(correct), n + 8)


def entry(name: str, **more) -> dict:
    return {"id": name, "metrics": {"a": 0.5}} | more


def test_records_only_grow_and_an_unfinished_line_is_none(tmp_path):
    records = Ledger(tmp_path / "new")
    assert dict(records.found()) == {}
    records.append("one", entry("a"))
    records.append("two", entry("b"))
    with records.path("one").open("a") as file:
        file.write('{"id": "torn", "metr')
    assert set(records.found()) == {"a", "b"}
    assert records.has("a")
    assert not records.has("torn"), "or it would never be made"
    records.append("one", entry("c", note="ü"))
    assert list(records.found()) == ["a", "c", "b"]
    assert records.path("one").read_text().count("\n") == 2
    records.append("two", entry("a", metrics={"a": 0.9}))
    assert records.found()["a"]["metrics"]["a"] == 0.5, "of two the first"


@pytest.mark.parametrize("line", ["no JSON", '{"id": "a"}', "[1]", '{"metrics": {}}'])
def test_a_damaged_record_is_named_with_the_remedy(tmp_path, line):
    path = tmp_path / "one.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=r"one.jsonl is damaged: `git checkout -- "):
        Ledger(tmp_path).found()


# --- the search ----------------------------------------------------------------------------------


def landscape(task: plain.tasks.Task, peaks: dict[tuple[str, bool], float]) -> dict:
    """An entry whose scores fall off from a peak in log3 of the temperature, for each form."""
    config = task.stages[0]
    loss, projector, optimizer = config.loss, config.projector, config.optimizer
    df = getattr(loss, "df", None)
    kernel = {None: "cosine", math.inf: "Gaussian", 5.0: "Student t"}[df]
    base = plain.design.temperature(kernel, Point(projector.batchnorm, 0), projector.dim)
    step = math.log(loss.temperature / base, 3)
    rates = abs(math.log(optimizer.lr / 5e-3)) + abs(math.log(optimizer.weight_decay / 1.0))
    away = abs(step - peaks[kernel, projector.batchnorm])
    z = 0.6 - 0.02 * away - 0.001 * rates - 0.05 * projector.batchnorm
    scores = {"knn15_cosine_z": z, "knn15_euclidean_z": z - 0.01 * (kernel == "cosine")}
    if kernel != "cosine":
        scores["knn15_euclidean_z"] = z + 0.01
    return entry(task.id, metrics=scores | {"probe_h": 0.7 - 0.02 * away - 0.001 * rates})


STEPS = {"cosine": -4, "Gaussian": 0, "Student t": 4}
PEAKS = {(kernel, form): step for kernel, step in STEPS.items() for form in (False, True)}
FLAT = dict.fromkeys(PEAKS, 0)


def searched(score) -> tuple[Found, Counter]:
    """All runs of the search on CIFAR-10, and how many each phase had."""
    found: dict[str, dict] = {}
    counts: Counter = Counter()
    wanted = plain.phases.phases(FULL)[:3]
    while True:
        new = []
        for phase in wanted:
            try:
                runs = phase.tasks(Found(found))
            except plain.search.Incomplete:
                continue
            new += [(phase.name, task) for task in runs if task.id not in found]
        if not new:
            return Found(found), counts
        for name, task in new:
            counts[name] += task.id not in found
            found[task.id] = score(task)


def test_the_search_goes_on_until_the_best_temperature_is_inside():
    found, counts = searched(lambda task: landscape(task, PEAKS))
    for kernel, dim in ((k, d) for k in KERNELS for d in (2, 8, 64)):
        setting = plain.search.chosen(FULL.cifar10, kernel, dim, found)
        own = setting["z"].point
        assert own == Point(False, PEAKS[kernel, False], 0, 1), "the peak is at a decay of 1"
        assert setting["z"].metric == ("cosine" if kernel == "cosine" else "euclidean")
        assert setting["h"].point == own
        made = plain.search.search_of(FULL.cifar10, kernel, dim, found)
        for form in (False, True):
            steps = {point.step for point in made.second if point.batchnorm == form}
            assert {own.step - 1, own.step, own.step + 1} <= steps, "in either form"
        assert made.of_form(True).point == own._replace(batchnorm=True)
    assert counts["cifar10-search-optimizer"] == 9 * 5, "four with a seed, one of them with both"


def test_what_one_purpose_adds_is_bracketed_for_the_other_too():
    """By z the best is at 3, by h at 4, which only the search for z makes known."""
    by_z, by_h = {2: 4.0, 3: 6.0, 4: 1.0}, {-1: 9.0, 4: 10.0}
    start = [Point(False, step) for step in (-1, 0, 1, 2)]

    def score(values):
        return lambda point: values.get(point.step, 0.0)

    points = plain.search.bracketed(start, [score(by_z), score(by_h)], plain.search._beside)
    assert {point.step for point in points} == {-2, -1, 0, 1, 2, 3, 4, 5}


def test_every_kernel_gets_the_same_search():
    found, _ = searched(lambda task: landscape(task, FLAT))
    for dim in (2, 8, 64):
        sizes = set()
        for kernel in KERNELS:
            made = plain.search.search_of(FULL.cifar10, kernel, dim, found)
            sizes.add((len(made.first), len(made.second), len(made.third), len(made.last)))
        assert len(sizes) == 1
        assert sizes.pop()[0] == 12


def test_a_setting_for_z_serves_h_only_where_it_is_as_good():
    def score(task):
        made = landscape(task, FLAT)
        config = task.stages[0]
        if config.projector.dim == 8 and config.projector.batchnorm:
            made["metrics"]["probe_h"] += 0.0024 if config.projector.dim == 8 else 0
        if config.projector.dim == 64 and config.projector.batchnorm:
            made["metrics"]["probe_h"] += 0.0026
        return made

    found, _ = searched(score)
    at_8 = plain.search.chosen(FULL.cifar10, "Gaussian", 8, found)
    assert at_8["h"] == at_8["z"]
    at_64 = plain.search.chosen(FULL.cifar10, "Gaussian", 64, found)
    assert at_64["h"].point == at_64["z"].point._replace(batchnorm=True)


def test_between_dimensions_settings_are_those_of_the_nearest():
    def score(task):
        dim = task.stages[0].projector.dim
        return landscape(task, dict.fromkeys(PEAKS, {2: -2, 8: 0, 64: 1}[dim]))

    found, _ = searched(score)
    steps = {d: plain.search.chosen(FULL.cifar10, "cosine", d, found)["z"].point.step for d in DIMS}
    assert steps == {2: -2, 4: 0, 8: 0, 16: 0, 64: 1}


def test_what_diverged_is_never_chosen():
    def score(task):
        made = landscape(task, FLAT)
        if task.stages[0].loss.temperature == 0.3 and task.seed == 101:
            return {"id": task.id, "diverged": "the loss became NaN"}
        return made

    found, _ = searched(score)
    assert plain.search.chosen(FULL.cifar10, "cosine", 8, found)["z"].point.step in (-1, 1)
    assert plain.search.chosen(FULL.cifar10, "Gaussian", 8, found)["z"].point.step == 0


def test_no_choice_is_made_from_half_a_search():
    task = plain.tasks.searching(FULL.cifar10, FULL.cifar10.first, "cosine", 8, Point(False, 0))[0]
    with pytest.raises(plain.search.Incomplete):
        plain.search.chosen(FULL.cifar10, "cosine", 8, Found({task.id: landscape(task, PEAKS)}))


# --- the runs ------------------------------------------------------------------------------------


def test_runs_differ_in_what_is_compared_alone():
    """But for loss, projector and rates, all that is compared is equal; the search sees no test."""
    found, _ = searched(lambda task: landscape(task, PEAKS))
    names = {phase.name: phase for phase in plain.phases.phases(FULL)}
    runs = names["cifar10-10-30-epochs-z"].tasks(found)
    assert len(runs) == len(set(runs)) == 3 * 5 * (5 + 3)
    rest = set()
    for task in runs[: 3 * 5 * 5]:
        (config,) = task.stages
        assert config.data.holdout == 0
        projector = config.projector.replace(dim=2, batchnorm=False)
        optimizer = config.optimizer.replace(lr=1.0, weight_decay=0.0)
        loss = KERNELS["cosine"]
        rest.add(config.replace(loss=loss, projector=projector, optimizer=optimizer))
    assert len(rest) == 5, "one a seed"
    for task in names["cifar10-search-finalists"].tasks(found):
        assert task.data.holdout > 0
        assert task.seed not in (*FULL.seeds, *FULL.more)


def test_what_decides_is_made_first_and_seed_by_seed():
    """Cosine and Student's t in turn: neither is left to other code or another machine."""
    found, _ = searched(lambda task: landscape(task, PEAKS))
    every = plain.phases.phases(FULL)
    names = [phase.name for phase in every]
    shorter = every[names.index("cifar10-deciding-10-epochs-z")].tasks(found)
    assert len(shorter) == 5 * 3 * 2
    assert [task.seed for task in shorter] == [seed for seed in range(5) for _ in range(6)]
    kinds = [task.stages[0].loss.name for task in shorter]
    assert kinds == ["info_nce", "t_simclr"] * 15
    assert names.index("cifar10-deciding-30-epochs-h") < names.index("cifar10-10-30-epochs-z")
    everything = every[names.index("cifar10-10-30-epochs-z")].tasks(found)
    assert set(shorter) <= set(everything)


def test_a_run_is_named_by_its_configuration():
    cell = (FULL.cifar10, "Student t", 8, Point(True, 0), 10)
    names = {plain.tasks.final(*cell, seed, n_train=20_000).id for seed in range(3)}
    assert len(names) == 3
    again = plain.tasks.final.__wrapped__(*cell, 0, n_train=20_000)
    assert again.id in names
    assert again.id == plain.tasks.digest(plain.store.essence(again.stages[0]))


def test_a_staged_run_takes_as_many_epochs_as_a_direct_one():
    task = plain.tasks.staged(FULL.cifar10, "cosine", Point(True, 1), Point(False, -1), 10, 3)
    assert [stage.epochs for stage in task.stages] == [6, 1, 3]
    assert [stage.projector.dim for stage in task.stages] == [64, 2, 2]
    assert len({stage.seed for stage in task.stages}) == 3
    assert task.stages[2].optimizer.lr == pytest.approx(0.1 * task.stages[1].optimizer.lr)


def tiny() -> plain.design.Design:
    """The rehearsal with fewer dimensions, and embedded images in place of CIFAR-10."""
    small = plain.design.rehearsal()

    def fewer(images: plain.design.ImageDesign, dims: tuple[int, ...]) -> plain.design.ImageDesign:
        grids = {
            name: tuple(grid.replace(dims=dims) for grid in getattr(images, name))
            for name in ("lengths", "probed")
        }
        both = images.both_forms.replace(dims=(2,))
        return images.replace(searched=(2, 8), both_forms=both, **grids)

    cifar10 = small.cifar10.replace(name="fashion_mnist_subset", holdout=0.02)
    return small.replace(cifar10=fewer(cifar10, (2, 4, 8)), fashion=fewer(small.fashion, (2, 8)))


TINY = tiny()


SMALL = design.rehearsal()


@pytest.fixture
def _read_once(monkeypatch):
    monkeypatch.setattr(image_runs, "load_images", read_once)
    measuring._sets.cache_clear()


@pytest.mark.usefixtures("_read_once")
def test_a_run_is_measured_as_its_bits_say(tmp_path):
    task = tasks.final(SMALL.fashion, "Student t", 2, design.Point(True, 0), 1, 0, n_train=64)
    made = json.loads(json.dumps(running.record(task, tmp_path, None)))
    assert made["id"] == task.id
    assert json.dumps(made["stages"][0], sort_keys=True) == store.essence(task.stages[0])
    assert set(made["correct"]) == {"knn15_cosine_z", "knn15_euclidean_z", "probe_h"}
    for name, bits in made["correct"].items():
        own = ledger.unpacked(bits, made["images"]).mean()
        assert own == pytest.approx(made["metrics"][name], abs=1e-6)
    assert {"knn10_cosine_h", "knn15_euclidean_h", "knn10_euclidean_z"} <= made["metrics"].keys()
    rung = SMALL.fashion.first
    (held,) = tasks.searching(SMALL.fashion, rung, "Student t", 2, design.Point(True, 0))
    made = running.record(held, tmp_path, None)
    assert "correct" not in made
    assert made["images"] == 100


@pytest.mark.usefixtures("_read_once")
def test_pixels_and_their_components(tmp_path):
    made = running.record(tasks.baseline(SMALL.fashion), tmp_path, None)
    assert {"knn15_cosine_pixels", "probe_pixels", "knn15_euclidean_pca2"} <= made["metrics"].keys()
    assert made["metrics"]["knn15_cosine_pixels"] > made["metrics"]["knn15_cosine_pca2"] > 0.1


@pytest.mark.usefixtures("_read_once")
def test_the_second_stage_trains_the_new_layer_alone(tmp_path, monkeypatch):
    seen = []

    def watched(config, images, *, network=None, **more):
        before = None if network is None else _weights(network)
        result = real(config, images, network=network, **more)
        seen.append((before, _weights(result.model)))
        return result

    real = measuring.train
    monkeypatch.setattr(measuring, "train", watched)
    task = tasks.staged(
        SMALL.fashion, "Gaussian", design.Point(True, 0), design.Point(True, 0), 3, 0
    )
    running.record(task, tmp_path, None)
    (_, first), (second, after), (third, last) = seen
    below = [name for name in first if not name.startswith("projector.2")]
    assert len(below) == len(first) - 2
    assert all(torch.equal(first[name], second[name]) for name in below), "it begins with the first"
    assert second["projector.2.weight"].shape[0] == 2
    assert all(torch.equal(second[name], after[name]) for name in below)
    assert not torch.equal(second["projector.2.weight"], after["projector.2.weight"])
    assert all(torch.equal(after[name], third[name]) for name in after)
    for name in ("projector.0.weight", "backbone.0.0.weight"):
        assert not torch.equal(third[name], last[name])


def _weights(network) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


# --- the whole -----------------------------------------------------------------------------------


def pixels(dims) -> dict[str, float]:
    """Of raw pixels and so many principal components."""
    found = {"knn15_cosine_pixels": 0.1, "knn15_euclidean_pixels": 0.12, "probe_pixels": 0.2}
    for dim in dims:
        found |= {f"knn15_cosine_pca{dim}": 0.3, f"knn15_euclidean_pca{dim}": 0.28}
    return found


def without_training(patch):
    """Runs that take no time, with accuracies of the landscape; returns the names of those made."""
    made = []

    def make(task, *, checkpoint, data_dir):
        made.append(task.id)
        if task.pixels:
            return {"metrics": pixels(task.pixels), "images": 200}
        metrics = landscape(task, PEAKS)["metrics"]
        dim, epochs = task.stages[-1].projector.dim, task.stages[-1].epochs
        if not task.data.holdout:
            more = 0.01 * math.log2(dim) + 0.001 * task.seed + 0.0001 * epochs
            metrics = {name: value + more for name, value in metrics.items()}
        rng = np.random.default_rng(task.seed)
        correct = {}
        for name, value in metrics.items():
            level = value - 0.4 + 0.08 * math.log2(dim) + 0.01 * rng.standard_normal()
            correct[name] = plain.ledger.packed(level > np.linspace(0, 1, 200))
        metrics |= {"knn15_cosine_h": 0.5, "knn15_euclidean_h": 0.5}
        return {"metrics": metrics, "images": 200, "correct": correct}

    for module in (running, plain.running):
        patch.setattr(module, "make", make)
        patch.setattr(module, "log", lambda text: None)
    patch.setattr(plain.endpoints, "DRAWS", 200)
    return made


@pytest.fixture
def quick(monkeypatch):
    return without_training(monkeypatch)


FIVE = TINY.replace(seeds=tuple(range(5)), more=(5,))


@pytest.fixture(scope="module")
def of_five(tmp_path_factory):
    """All runs of an experiment with five seeds, and the words before the first of them."""
    folder = tmp_path_factory.mktemp("five")
    records = plain.ledger.Ledger(folder / "records")
    before = plain.reading.withheld(FIVE, FIVE.cifar10, records.found())
    with pytest.MonkeyPatch.context() as patch:
        without_training(patch)
        plain.running.go_on(FIVE, records, results=folder)
    return records, before


def test_the_whole_goes_on_where_it_stopped_and_makes_no_run_twice(tmp_path, quick, monkeypatch):
    """Interrupted after 100 runs, resumed elsewhere with the records alone, to the end."""
    records = plain.ledger.Ledger(tmp_path / "records")
    real = records.append

    def append(phase, made):
        real(phase, made)
        if len(quick) == 100:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(records, "append", append)
    with pytest.raises(KeyboardInterrupt):
        plain.running.go_on(TINY, records, results=tmp_path / "here")
    assert len(records.found()) == 100
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    shown = plain.running.plan_table(TINY, records)
    assert "~" in shown

    again = plain.ledger.Ledger(tmp_path / "records")
    plain.running.go_on(TINY, again, results=tmp_path / "there")
    assert len(quick) == len(set(quick)) == len(again.found())
    assert plain.running.go_on(TINY, again, results=tmp_path / "there") == 0
    plan = plain.phases.shares(TINY, again.found())
    assert all(share.certain and share.done == share.runs for share in plan)
    assert sum(share.runs for share in plan) == len(quick)
    files = {path.stem for path in (tmp_path / "records").iterdir()}
    assert files == {share.phase.name for share in plan if share.runs}

    shown = plain.running.report(TINY, again)
    assert "C10 on z" in shown
    assert "C11 on h" in shown
    for found in plain.reading.readings(TINY, again.found()):
        assert found.verdict == "not run at this scale", "two or three seeds are too few"


def test_five_seeds_give_verdicts(of_five, quick):
    found = plain.reading.readings(FIVE, of_five[0].found())
    assert len(found) == 6
    z = found[0]
    assert (z.endpoint.claim, z.endpoint.purpose, z.images) == ("C10", "z", FIVE.cifar10)
    assert z.verdict == "does not replicate"
    assert z.note == ""
    assert {e.seeds for e in z.by_length.values()} == {5}, "it was decided by five"
    read_again = [one for one in found if 6 in {e.seeds for e in one.by_length.values()}]
    for one in read_again:
        assert one.images == FIVE.cifar10, "only there are more"
        lengths = list(one.by_length)[-2:]
        assert {one.by_length[epochs].seeds for epochs in lengths} == {6}, "at both or at neither"


def test_what_no_endpoint_reads_is_a_difference_of_runs_of_one_seed(of_five):
    found = of_five[0].found()
    table = pd.DataFrame(plain.sides.differences(FIVE, found))
    (epochs,) = FIVE.cifar10.staged
    dims = len(FIVE.cifar10.both_forms.dims) + len(FIVE.fashion.both_forms.dims)
    kinds = Counter(table.what)
    assert (kinds["BatchNorm − none"], kinds["staged − direct"]) == (3 * dims, 3 + 3)
    assert kinds["all images, settings for h"] == 2
    assert plain.sides.on_all_images(FULL, FULL.fashion, found) == [], "it has all of its own"
    rows = table[table.what == "staged − direct"].to_dict("records")
    images, naive = FIVE.cifar10, []
    wide, planar = (
        plain.search.chosen(images, "cosine", dim, found)["z"].point for dim in (images.largest, 2)
    )
    for seed in FIVE.seeds:
        staged = plain.tasks.staged(images, "cosine", wide, planar, epochs, seed)
        where = (images, "cosine", 2, planar, epochs, seed)
        direct = plain.tasks.final(*where, n_train=images.n_train)
        probes = [found[task.id]["metrics"]["probe_h"] for task in (staged, direct)]
        naive.append(probes[0] - probes[1])
    assert (rows[0]["kernel"], rows[0]["n"]) == ("cosine", 5)
    assert rows[0]["probe on h"].startswith(f"{100 * np.mean(naive):+.1f} [")
    lacking = {name: entry for name, entry in found.items() if name != staged.id}
    fewer = pd.DataFrame(plain.sides.differences(FIVE, Found(lacking)))
    assert "cosine" not in set(fewer[fewer.what == "staged − direct"].kernel), "a run is lacking"
    assert len(fewer) == len(table) - 2, "of both sets, which are one here"


def test_rankings_are_of_the_same_temperatures_at_both_lengths(of_five):
    found = of_five[0].found()
    table = pd.DataFrame(plain.sides.rank_table(FIVE, FIVE.cifar10, found))
    assert table.kernel.tolist() == [kernel for kernel in KERNELS for _ in range(2)]
    images, dim = FIVE.cifar10, FIVE.ranked_dim
    points = plain.sides.ranked(FIVE, images, "cosine", found)
    short, long = (
        [
            found[task.id]["metrics"]["probe_h"]
            for point in points
            for task in plain.tasks.searching(images, rung, "cosine", dim, point)
        ]
        for rung in (images.first, plain.sides.longer(images))
    )
    naive = pd.Series(short).rank().corr(pd.Series(long).rank())
    assert table["rank correlation"][1] == pytest.approx(naive, nan_ok=True)
    assert table["best step at last"][1] == points[int(np.argmax(long))].step
    assert plain.sides.rank_table(FIVE, FIVE.cifar10, Found({})) == []


def without(found, *names: str):
    """Those records less some."""
    return Found({name: entry for name, entry in found.items() if name not in names})


def test_settings_are_those_of_the_peaks(of_five):
    found = of_five[0].found()
    table = plain.recorded.settings(FIVE, found)
    dims = [*FIVE.cifar10.searched, *FIVE.fashion.searched]
    assert table.d_z.tolist() == [dim for dim in dims for _ in KERNELS]
    for row in table.itertuples():
        base = 0.3 if row.kernel == "cosine" else 3.0
        assert row.τ == pytest.approx(base * 3.0 ** STEPS[row.kernel], rel=1e-3)
    assert set(table["chosen for"]) == {"z and h"}
    assert set(table["BatchNorm on z"]) == {"no"}, "it costs five points here"
    assert set(table["weight decay"]) == {1.0}
    assert set(table["15-NN on z"].round(4)) == {0.6, 0.61}
    assert plain.recorded.settings(FIVE, Found({})).empty

    images = FIVE.cifar10
    rung = ("cosine", 8, Point(False, STEPS["cosine"]))
    better = plain.tasks.searching(images, images.second, *rung)
    raised = {
        task.id: found[task.id] | {"metrics": {**found[task.id]["metrics"], "probe_h": 0.9}}
        for task in better
    }
    split = plain.recorded.settings(FIVE, Found({**found, **raised}))
    cells = split[(split.kernel == "cosine") & (split.d_z == 8)].set_index("chosen for")
    assert cells.index[:2].tolist() == ["z", "h"], "another weight decay is better for h"
    assert cells["weight decay"]["z"] == 1.0
    assert cells["weight decay"]["h"] == 0.1
    assert cells["probe on h"]["h"] == 0.9


def final_runs(purpose: str, dim: int, epochs: int, found, kernels=("cosine", "Student t")):
    """Entries of final runs on CIFAR-10, a list a kernel."""
    condition = plain.search.Condition(FIVE.cifar10, epochs, purpose)
    runs = [plain.search.runs(condition, one, dim, FIVE.seeds, found) for one in kernels]
    return [[found[task.id] for task in group] for group in runs]


def test_curves_are_of_the_longest_training(of_five):
    found, images = of_five[0].found(), FIVE.cifar10
    longest = {"z": images.lengths[-1].epochs, "h": images.probed[-1].epochs}
    assert plain.recorded.longest(FIVE, images, found) == longest
    table = plain.recorded.scores(FIVE, images, found)
    trained = table[table.method != "untrained"]
    assert set(trained.epochs) == set(longest.values())
    assert set(trained.seed) == set(FIVE.seeds), "of all points the same"
    own = table[(table.method == "Student t") & (table.d_z == 8)].dropna(subset="knn15_best_z")
    entries = final_runs("z", 8, longest["z"], found)[1]
    told = [entry["metrics"]["knn15_euclidean_z"] for entry in entries]
    assert len(set(told)) == 5
    assert own.set_index("seed").knn15_best_z[list(FIVE.seeds)].tolist() == told
    assert table[table.method == "untrained"].knn15_best_z.isna().all()
    assert plain.recorded.scores(FIVE, images, Found({})).empty
    assert plain.recorded.every_measure(FIVE, images, Found({})).empty
    assert plain.recorded.baselines(images, Found({})).empty


def test_curves_leave_out_what_is_half_recorded(of_five):
    found, images = of_five[0].found(), FIVE.cifar10
    last = images.lengths[-1].epochs
    cosine, student, gaussian = final_runs("z", 8, last, found, ("cosine", "Student t", "Gaussian"))
    half = without(found, gaussian[0]["id"])
    table = plain.recorded.scores(FIVE, images, half).dropna(subset="knn15_best_z")
    assert 8 not in set(table[table.method == "Gaussian"].d_z), "four seeds of five"
    assert {2, 4} <= set(table[table.method == "Gaussian"].d_z)
    shorter = plain.recorded.longest(FIVE, images, without(found, student[2]["id"]))
    assert shorter["z"] == images.lengths[0].epochs, "a run that an endpoint reads is lacking"
    lost = {entry["id"]: {"id": entry["id"], "diverged": "at step 3"} for entry in cosine[:4]}
    diverged = Found({**found, **lost})
    assert plain.recorded.longest(FIVE, images, diverged)["z"] == last, "they are recorded"
    table = plain.recorded.scores(FIVE, images, diverged).dropna(subset="knn15_best_z")
    assert len(table[(table.method == "cosine") & (table.d_z == 8)]) == 1
    assert plain.recorded.progress(FIVE, diverged).startswith(f"{len(diverged):,} of")


def test_what_diverged_leaves_an_endpoint_open(of_five, quick):
    """Five more seeds are made, though fewer than two of the first are left."""
    found, images = of_five[0].found(), FIVE.cifar10
    endpoint, last = plain.reading.ENDPOINTS[0], images.lengths[-1].epochs
    cosine, _ = final_runs("z", 8, last, found)
    lost = {entry["id"]: {"id": entry["id"], "diverged": "at step 3"} for entry in cosine[:4]}
    condition = plain.search.Condition(images, last, "z")
    assert not plain.reading.is_open(FIVE, condition, endpoint, found)
    assert plain.reading.is_open(FIVE, condition, endpoint, Found({**found, **lost}))
    with pytest.raises(plain.search.Incomplete, match="lacking"):
        plain.reading.is_open(FIVE, condition, endpoint, without(found, cosine[0]["id"]))


def test_pixels_stand_beside(of_five):
    found, images = of_five[0].found(), FIVE.cifar10
    table = plain.recorded.baselines(images, found).set_index(["method", "d_z"])
    assert table.knn15_z["raw pixels"].item() == 0.12, "the better of two metrics"
    assert table.linear_probe_h["raw pixels"].item() == 0.2
    assert table.knn15_z["PCA", 8] == 0.3, "by cosine"
    every = plain.recorded.every_measure(FIVE, images, found).set_index(["kernel", "d_z"])
    assert every["15-NN on z, cosine"]["PCA", 2] == 0.3
    assert every["15-NN on h, Euclidean"]["raw pixels"].item() == 0.12
    assert every["n"]["untrained", 2] == plain.phases.UNTRAINED_SEEDS
    own = every[every["chosen for"] == "h"].loc["cosine", 8]
    entries = final_runs("h", 8, images.probed[-1].epochs, found)[0]
    values = [entry["metrics"]["probe_h"] for entry in entries]
    more = 0.001 * FIVE.more[0] + min(values)  # of the sixth seed, where it was needed
    six = own["n"].item() == 6
    assert own["probe on h"].item() == pytest.approx(np.mean(values + [more] * six))


def test_the_two_by_two_is_paired_in_either_form(of_five, quick):
    found, images = of_five[0].found(), FIVE.cifar10
    table = plain.recorded.two_by_two(FIVE, images, found)
    assert len(table) == 2 * 2 * 2 * len(images.both_forms.dims)
    cells = table.set_index(["change", "form", "metric", "d_z"])
    pairs = {"leave the sphere": ("cosine", "Gaussian"), "heavy tail": ("Gaussian", "Student t")}
    for (change, kernels), form in itertools.product(pairs.items(), (True, False)):
        for metric in ("knn15_z", "linear_probe_h"):
            rates = []
            for kernel in kernels:
                of_z = "knn15_cosine_z" if kernel == "cosine" else "knn15_euclidean_z"
                measure = of_z if metric == "knn15_z" else "probe_h"
                tasks = plain.sides.runs_of_form(FIVE, images, kernel, 2, form, found)
                assert {task.stages[-1].projector.batchnorm for task in tasks} == {form}
                bits = [found[task.id]["correct"][measure] for task in tasks]
                rates.append(np.mean([plain.ledger.unpacked(one, 200) for one in bits]))
            cell = cells.loc[change, plain.recorded.FORMS[form], metric, 2]
            assert cell.difference == pytest.approx(rates[1] - rates[0], abs=1e-9)
            assert (cell.n, cell.epochs) == (5, images.both_forms.epochs)
    assert cells.difference["leave the sphere", "without", "knn15_z", 2] != 0
    assert plain.recorded.two_by_two(FIVE, images, Found({})).empty
    one = plain.sides.runs_of_form(FIVE, images, "Student t", 2, True, found)[3]
    fewer = plain.recorded.two_by_two(FIVE, images, without(found, one.id))
    assert len(fewer) == len(table) - 2, "heavy tail with BatchNorm, on z and on h"


def test_gains_are_of_every_dimension_that_is_recorded(of_five, quick):
    found, images = of_five[0].found(), FIVE.cifar10
    table = plain.recorded.gains(FIVE, found)
    grids = [grid for one in (FIVE.cifar10, FIVE.fashion) for p in "zh" for grid in one.grids(p)]
    assert len(table) == sum(len(grid.dims) for grid in grids)
    epochs = images.lengths[-1].epochs
    names = "knn15_cosine_z", "knn15_euclidean_z"
    rates = []
    for name, entries in zip(names, final_runs("z", 8, epochs, found), strict=True):
        bits = [plain.ledger.unpacked(entry["correct"][name], 200) for entry in entries]
        rates.append(np.mean(bits))
    cell = table[(table.purpose == "z") & (table.d_z == 8) & (table.epochs == epochs)].iloc[0]
    gain = 100 * (rates[1] - rates[0])
    assert cell["Student t − cosine, points"].startswith(f"{gain:+.1f} [")
    assert cell.seeds == 5
    assert plain.recorded.gains(FIVE, Found({})).empty


def test_every_endpoint_is_concluded(of_five, quick):
    found = of_five[0].found()
    readings = plain.reading.readings(FIVE, found)
    table = plain.recorded.conclusions(readings)
    assert table["both lengths"].tolist() == [reading.verdict for reading in readings]
    of_factors = table[table.claim == "C10"]["fewer dimensions at all"]
    assert set(of_factors) <= {"replicates", "mixed", "does not replicate"}
    assert set(table[table.claim == "C11"]["fewer dimensions at all"]) == {""}
    lengths = plain.recorded.endpoints_by_length(readings)
    assert len(lengths) == sum(len(reading.by_length) for reading in readings)


def test_advice_names_who_is_not_behind_the_best(of_five, quick):
    found, images = of_five[0].found(), FIVE.cifar10
    table = plain.practice.of_experiment(FIVE, found).set_index(["for", "d_z"])
    for purpose, measure in (("z", "knn15_{}_z"), ("h", "probe_h")):
        epochs = images.grids(purpose)[-1].epochs
        groups = final_runs(purpose, 8, epochs, found, tuple(KERNELS))
        told = {}
        for kernel, entries in zip(KERNELS, groups, strict=True):
            name = measure.format("cosine" if kernel == "cosine" else "euclidean")
            bits = [plain.ledger.unpacked(entry["correct"][name], 200) for entry in entries]
            told[kernel] = np.stack(bits)
        row = table.loc[plain.practice.FOR[purpose], 8]
        best = max(told, key=lambda kernel: told[kernel].mean())
        assert row["best on the mean"] == best
        gain = 100 * (told["Student t"].mean() - told["cosine"].mean())
        assert row["Student t − cosine, points"].startswith(f"{gain:+.1f} [")
        level = []
        for kernel, own in told.items():
            pair = np.stack([own, told[best]])[:, None]
            if (
                kernel != best
                and plain.endpoints.estimate(pair, plain.endpoints.difference).low <= 0
            ):
                level.append(kernel)
        assert row["not shown to be behind"] == ", ".join(level)
        assert (row["epochs"], row["seeds"]) == (epochs, 5)
    gaussian = final_runs("z", 8, images.lengths[-1].epochs, found, ("Gaussian",))[0]
    lacking = plain.practice.of_experiment(FIVE, without(found, gaussian[0]["id"]))
    assert len(lacking) == len(table) - 2, "no advice before all kernels are there; it serves h too"
    lost = {gaussian[0]["id"]: {"id": gaussian[0]["id"], "diverged": "at step 3"}}
    others = plain.practice.of_experiment(FIVE, Found({**found, **lost})).set_index(["for", "d_z"])
    gains = "Student t − cosine, points"
    assert others[gains].equals(table[gains]), "what does not read it is as it was"
    assert plain.practice.of_experiment(FIVE, Found({})).empty


def test_the_rule_of_thumb_is_held_against_the_best(of_five):
    """Student's t peaks five steps of temperature above the rule, at two points a step."""
    found = of_five[0].found()
    table = plain.practice.rule_beside_the_best(FIVE, found)
    assert table.d_z.tolist() == list(FIVE.cifar10.searched)
    assert set(table.epochs) == {FIVE.cifar10.first.epochs}
    assert set(table.seeds) == {1}
    for measure in ("15-NN on z", "probe on h"):
        assert table[measure].tolist() == pytest.approx([-100 * 0.02 * 5] * 2, rel=1e-3)
    images = FIVE.cifar10
    (one,) = plain.tasks.searching(images, images.first, "Student t", 8, Point(True, 2))
    lacking = plain.practice.rule_beside_the_best(FIVE, without(found, one.id))
    assert lacking.d_z.tolist() == [2], "a temperature is not recorded"


def test_a_verdict_is_withheld_until_all_seeds_are_there_that_it_needs(of_five, monkeypatch):
    found = of_five[0].found()
    endpoint = plain.reading.ENDPOINTS[0]
    monkeypatch.setattr(plain.reading.Endpoint, "is_open", lambda self, estimate: True)
    whole = plain.reading.read(FIVE, FIVE.cifar10, endpoint, found)
    more = FIVE.replace(more=(7,))
    made = plain.reading.read(more, more.cifar10, endpoint, found)
    assert made.verdict == "not run at this scale"
    assert made.note == "5 seeds leave it open, and more are made"
    assert made.by_length.keys() == whole.by_length.keys()


def test_a_verdict_is_withheld_where_pixels_are_better(of_five):
    records, before = of_five
    assert "yet" in before
    found = records.found()
    assert plain.reading.withheld(FIVE, FIVE.cifar10, found) == ""
    pixels = plain.tasks.baseline(FIVE.cifar10).id
    metrics = found[pixels]["metrics"] | {"knn15_cosine_pixels": 0.6}
    worse = Found({**found, pixels: {**found[pixels], "metrics": metrics}})
    assert "not as good as raw pixels" in plain.reading.withheld(FIVE, FIVE.cifar10, worse)


def test_a_run_that_diverges_is_recorded_as_such(tmp_path, monkeypatch):
    def make(task, **where):
        raise NonFiniteLossError("the loss became NaN in seed 100")

    monkeypatch.setattr(running, "make", make)
    task = tasks.untrained(SMALL.fashion, 2, 0)
    made = running.record(task, tmp_path, None)
    assert made["diverged"].startswith("the loss became NaN")
    assert "metrics" not in made


def test_what_another_process_is_at_is_left_to_it(tmp_path, quick):
    records, results = plain.ledger.Ledger(tmp_path / "records"), tmp_path / "results"
    one, two, *_ = plain.phases.pending(TINY, Found({}))
    first, second = one[1], two[1]
    sitting = plain.running._Sitting(TINY, records, results, None, None, print)
    with plain.store.lock(results / "runs", first.stages[-1], wait=False):
        outcomes = [sitting._try(phase, task) for phase, task in (one, two)]
    assert outcomes == ["waiting", "made"]
    assert set(records.found()) == {second.id}
    assert sitting._try(*two) == "made"
    assert sitting.made == 1, "it is not made again"


def test_no_run_begins_that_would_not_end_in_time(tmp_path, quick):
    records = plain.ledger.Ledger(tmp_path / "records")
    said = []
    assert plain.running.go_on(TINY, records, results=tmp_path, hours=1e-9, say=said.append) == 0
    assert said[-1].startswith("time is up")


def test_the_plan_of_the_whole_is_within_its_budget():
    """As METHOD.md says: the phases that decide come first."""
    plan = plain.phases.shares(FULL, Found({}))
    names = [share.phase.name for share in plan]
    deciding = plan[: names.index("cifar10-deciding-30-epochs-h") + 1]
    assert sum(share.hours for share in deciding) < 17
    assert sum(share.hours for share in plan[:-1]) < 36
    assert all(share.runs for share in plan)


def test_the_command(tmp_path, capsys, quick):
    where = ["--rehearse", "--results-dir", str(tmp_path)]
    assert cli.main(["kernel", "--plan", *where]) == 0
    assert "cifar10-deciding-1-epochs-z" in capsys.readouterr().out
    assert cli.main(["kernel", "--report", *where]) == 0
    assert "no final run is recorded yet" in capsys.readouterr().out
    assert cli.main(["kernel", "--hours", "-1", *where]) == 1
    assert "--hours must be positive, got -1" in capsys.readouterr().err
    assert cli.main(["kernel", "--hours", "0.0001", *where]) == 0
