"""Temperature and degrees of freedom: the rule of thumb, exact statements, runs and tables."""

import math

import pandas as pd
import pytest
import torch
from scipy import stats

from sscl_core.losses import t_simclr
from sscl_experiments import settings
from sscl_experiments.record import Record
from sscl_experiments.studies.temperature_and_df.analysis import digits_table, regret
from sscl_experiments.study import resolve


def views(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(64, 8, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_dividing_features_does_all_that_a_temperature_does():
    z1, z2 = views()
    divided = t_simclr(z1 / 3**0.5, z2 / 3**0.5, temperature=1.0)
    assert t_simclr(z1, z2, temperature=3.0).item() == pytest.approx(divided.item(), abs=1e-12)


def test_the_gaussian_is_approached_like_one_over_nu():
    z1, z2 = views()
    gaussian = t_simclr(z1, z2, temperature=0.24, df=math.inf)
    gaps = [abs(t_simclr(z1, z2, temperature=0.24, df=df) - gaussian) for df in (1e4, 1e5)]
    assert (gaps[0] / gaps[1]).item() == pytest.approx(10, rel=0.02)


def test_the_runs_are_those_of_notebook_5_and_of_the_groups():
    p = resolve("09_temperature_and_df", {"map_dims": [2], "alternatives": True})
    groups = [
        getattr(p, f"{name}_runs")() for name in ("kernel", "untuned", "map", "learned", "digits")
    ]
    assert set(p.runs()) == {run for group in groups for runs in group.values() for run in runs}
    five = resolve("05_t_simclr", {"dims": list(p.dims), "lengths": [p.epochs]})
    shared = {key[:2]: runs for key, runs in five.kernel_runs().items()}
    assert p.kernel_runs() == shared


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


def test_tables_of_digits_keep_the_choice_apart_from_the_comparison():
    run = resolve("09_temperature_and_df", {"map_dims": [2]}).digits_runs()[2, 5.0, 0.03][1]
    metrics = {"knn_z_test": 0.7, "knn_z_validation": 0.6}
    record = Record(run, metrics)
    (row,) = digits_table({(2, 5.0, 0.03): [record]}).to_dict("records")
    expected = {"d_z": 2, "nu": 5.0, "tau_per_dim": 0.03, "seed": 1, **metrics}
    assert row == expected


def test_other_temperatures_in_the_plane_are_those_of_notebook_7():
    p = resolve("09_temperature_and_df", {"alternatives": True, "epochs": 3, "n_train": 8000})
    maps = resolve(
        "07_augmentation_graph", {"map_seeds": 5, "image_epochs": 3, "n_train": 8000}
    ).map_runs()
    untuned = p.untuned_runs()
    assert {method: untuned[method, 2] for method in settings.METHODS} == {
        method: maps[method] for method in settings.METHODS
    }
    assert all(
        set(runs).isdisjoint(own) for runs in untuned.values() for own in p.kernel_runs().values()
    )
    assert resolve("09_temperature_and_df", {"alternatives": False}).untuned_runs() == {}
