"""Noise of the data's covariance: whitening and back, what training sees, and what is kept."""

import numpy as np
import pytest
import torch
from helpers import cloud_run, normal, on_cloud

from sscl_core.batches import epoch_pairs
from sscl_core.config import Noise
from sscl_core.divergence import NonFiniteLossError
from sscl_core.train import initial_network
from sscl_experiments import covariance_noise, runner, store
from sscl_experiments.covariance_config import whitened
from sscl_experiments.covariance_noise import train_with_covariance_noise, whitening
from sscl_experiments.record import Record
from sscl_experiments.runs.points import measure, point_set


@pytest.mark.parametrize("shape", [(50, 4), (6, 20)])
def test_whitened_points_have_unit_covariance_and_come_back(shape):
    x = normal(*shape) @ torch.diag(torch.linspace(0.1, 3, shape[1]).double()) + 5
    map_ = whitening(x)
    w = map_(x)
    rank = min(shape[0] - 1, shape[1])
    covariance = np.cov(w.numpy().T, bias=True)
    expected = np.diag([1.0] * rank + [0.0] * (min(shape) - rank))
    np.testing.assert_allclose(covariance, expected, atol=1e-9)
    torch.testing.assert_close(map_.back(w), x)


def test_a_direction_without_variance_is_left_alone():
    x = torch.cat([normal(30, 2), torch.full((30, 1), 7.0, dtype=torch.float64)], 1)
    map_ = whitening(x)
    moved = map_.back(map_(x) + normal(30, 3, seed=1))
    assert torch.equal(moved[:, 2], x[:, 2])
    assert (moved[:, :2] - x[:, :2]).abs().min() > 0


def test_noise_in_whitened_coordinates_has_the_covariance_of_the_data():
    """As training draws it: the difference of a view and its point."""
    mix = torch.tensor([[2.0, 0.3, 0.0], [0.0, 0.5, 0.1], [0.0, 0.0, 0.05]]).double()
    x = normal(400, 3) @ mix
    map_ = whitening(x)
    config = cloud_run(on_cloud(Noise(scale=0.7)), batch_size=400)
    config = config.replace(data=config.data.replace(steps_per_epoch=200))
    first, second = epoch_pairs(config, map_(x), 0)
    moved = map_.back((first - second).flatten(0, 1)) - map_.mean
    found, expected = np.cov(moved.numpy().T), 2 * 0.7**2 * np.cov(x.numpy().T, bias=True)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs((found - expected) / scale).max() < 0.02


def run_of(seed: int, epochs: int = 2):
    return cloud_run(on_cloud(Noise(scale=0.5), n_train=24), seed=seed, epochs=epochs)


def test_untrained_it_is_the_network_of_the_seed_on_the_original_coordinates():
    config = run_of(3, epochs=0)
    x = point_set(config).train.x
    (result,) = train_with_covariance_noise([config], [x])
    expected = initial_network(config, x.shape[1:]).eval()
    torch.testing.assert_close(result.model(x)[1], expected(x)[1])


def test_what_is_trained_sees_whitened_points_as_the_network_of_the_seed_sees_the_points(
    monkeypatch,
):
    config, seen = run_of(3), []
    x = point_set(config).train.x

    def note(configs, data, *, networks):
        seen.append((data[0], networks[0]))
        return []

    monkeypatch.setattr(covariance_noise, "train_ensemble", note)
    assert train_with_covariance_noise([config], [x]) == []
    ((white, network),) = seen
    np.testing.assert_allclose(np.cov(white.numpy().T, bias=True), np.eye(3), atol=1e-5)
    expected = initial_network(config, x.shape[1:])(x)[1]
    torch.testing.assert_close(network(white)[1], expected, atol=1e-5, rtol=1e-4)
    moved = white + 1
    assert (network(moved)[1] - expected).abs().max() > 1e-2


def test_training_moves_the_network_and_on_white_points_it_is_training_with_isotropic_noise():
    configs = [run_of(seed) for seed in (0, 1)]
    points = [point_set(config).train.x for config in configs]
    trained = train_with_covariance_noise(configs, points)
    for config, x, result in zip(configs, points, trained, strict=True):
        before = initial_network(config, x.shape[1:])
        moved = result.model.backbone[1].weight - before.backbone[1].weight
        assert moved.abs().max() > 1e-3
        assert not result.model.training
    map_ = whitening(points[0])
    (own,) = train_with_covariance_noise([configs[0]], [points[0]])
    scaled = points[0] * torch.tensor([1.0, 5.0, 0.1])
    (other,) = train_with_covariance_noise([configs[0]], [scaled])
    assert len(own.losses) == len(other.losses)
    assert own.losses != other.losses
    assert map_(points[0]).shape == points[0].shape


def test_a_run_of_it_is_named_kept_and_read_as_all_runs_are(tmp_path):
    configs = whitened([run_of(0), run_of(1)])
    records = runner.results(configs, runs=tmp_path, device="cpu", progress=False)
    points = [point_set(config).train.x for config in configs]
    trained = train_with_covariance_noise(configs, points)
    assert [_untimed(record) for record in records] == [measure(result)[0] for result in trained]
    assert records[0].provenance["together"] == [0, 1]
    again = runner.results(configs, runs=tmp_path, device="cpu", progress=False)
    assert [record.metrics for record in again] == [record.metrics for record in records]
    plain = [store.load(tmp_path, run_of(seed)) for seed in (0, 1)]
    assert plain == [None, None], "with isotropic noise it is another run"
    assert store.essence(configs[0]) != store.essence(run_of(0))


def _untimed(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.metrics.items() if name != "images_per_second"}


def test_of_runs_that_diverge_the_others_are_kept(monkeypatch):
    configs = whitened([run_of(0), run_of(1)])
    first = train_with_covariance_noise(configs[:1], [point_set(configs[0]).train.x])
    expected = first[0].model(point_set(configs[0]).train.x)[1]
    real = covariance_noise.train_ensemble

    def diverging(own, data, *, networks, **settings):
        finished = real(own[:1], data[:1], networks=networks[:1], **settings)
        raise NonFiniteLossError("seed 1", finished)

    monkeypatch.setattr(covariance_noise, "train_ensemble", diverging)
    records, failure = covariance_noise.make(configs, device="cpu")
    assert str(failure) == "seed 1"
    assert [record.config.seed for record in records] == [0]
    (kept,) = failure.finished
    assert torch.equal(kept.model(point_set(configs[0]).train.x)[1], expected)
