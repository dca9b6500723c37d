"""Noise and mixup on points: maps, SNE without a network, views, choices, and runs.

Each against loops, closed forms and exact cases.
"""

import inspect
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
from helpers import cloud_run, normal, on_cloud
from scipy import stats

from sscl_core.config import (
    MLP,
    Masking,
    Mixup,
    Noise,
    Points,
)
from sscl_experiments.covariance_config import whitened
from sscl_experiments.grouping import ensembles
from sscl_experiments.record import Record
from sscl_experiments.runs.points import point_set
from sscl_experiments.settings import METHODS, vector_run
from sscl_experiments.studies.domain_agnostic_augmentations import analysis
from sscl_experiments.studies.domain_agnostic_augmentations.parameters import (
    BASE,
    CLOUD_STEPS,
    CLOUDS,
    CONTROL_STRENGTHS,
    NUISANCE_CLOUDS,
    PREMISE_CLOUDS,
    separation,
)
from sscl_experiments.studies.domain_agnostic_augmentations.sne import (
    agreement,
    agreement_by_factor,
    distance_and_flat_limit,
    kl_ratios,
    noise_P,
    over_best_null,
    over_input,
    procrustes_aligned,
    rank_correlation,
    scaled_kl,
    sne,
    sne_agreement,
    sne_maps,
)
from sscl_experiments.studies.domain_agnostic_augmentations.views import (
    counted_mixup,
    counted_noise,
    energy_in_span,
    over_seeds,
    perturbation,
    span_ratios,
    training_masses,
    view_densities,
    within_two_errors,
)
from sscl_experiments.study import resolve

ALPHA = 1e-3  # of every test of a distribution, at a fixed seed


def kl(P: torch.Tensor, z: torch.Tensor) -> float:
    """KL(P ‖ Q), Q ∝ exp(-‖z_i - z_j‖²) over all pairs i ≠ j."""
    pairs = ~np.eye(len(z), dtype=bool)
    p, logits = P.numpy()[pairs], -((z.numpy()[:, None] - z.numpy()[None]) ** 2).sum(2)[pairs]
    return float(scipy.special.xlogy(p, p).sum() - p @ (logits - scipy.special.logsumexp(logits)))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (normal(5, 2), normal(5, 2) / 0, "^b must be finite, got NaN or infinity in 5 of 5 rows"),
        (normal(5, 2), normal(6, 2), "^a and b must be maps of the same points, got 5 and 6"),
        (normal(2, 2), normal(2, 2), r"^a must have shape \(n, d\) with n >= 3"),
        (
            torch.zeros(5, 2),
            normal(5, 2),
            "^a has no ranks of distance: from point 0 all others are equally far, so from 5 of 5",
        ),
        (torch.eye(3), normal(3, 2), "^a has no ranks of distance: from point 0 .* 3 of 3"),
    ],
    ids=["nan", "other points", "two", "collapsed", "simplex"],
)
def test_maps_without_ranks_are_named(a, b, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(rank_correlation)(a, b)


def test_agreement_needs_four_points_and_takes_half_precision():
    a, b = normal(12, 2), normal(12, 2, seed=1)
    exact, half = agreement(a, b), agreement(a.half(), b.half())
    assert half == pytest.approx(exact, abs=0.02)
    with pytest.raises(ValueError, match=r"^a must have shape \(n, d\) with n >= 4"):
        agreement(a[:3], b[:3])
    assert torch.allclose(
        procrustes_aligned(a.half(), b.half()).double(), procrustes_aligned(a, b), atol=5e-3
    )


def test_a_collapsed_map_has_no_divergence():
    with pytest.raises(ValueError, match=r"^z must be a map of points apart, got 4 that coincide"):
        scaled_kl(torch.full((4, 4), 1 / 16, dtype=torch.float64), torch.full((4, 2), 0.3))


@pytest.mark.parametrize(
    ("a", "b"),
    [(normal(12, 2), normal(12, 5, seed=1)), (normal(9, 1).round(), normal(9, 2, seed=2).round())],
)
def test_rank_correlation_is_the_mean_of_spearman_s_over_points(a, b):
    """The second pair has ties."""
    one_by_one = []
    for i in range(len(a)):
        others = [j for j in range(len(a)) if j != i]
        distances = [[(z[i] - z[j]).norm().item() for j in others] for z in (a, b)]
        one_by_one.append(stats.spearmanr(*distances).statistic)
    assert rank_correlation(a, b) == pytest.approx(np.mean(one_by_one), abs=1e-12)
    assert abs(rank_correlation(a, b)) < 0.9


def turned(z: torch.Tensor, *, mirrored: bool) -> torch.Tensor:
    Q = torch.linalg.qr(normal(z.shape[1], z.shape[1], seed=7)).Q
    if (torch.linalg.det(Q) < 0) != mirrored:
        Q[:, 0] *= -1
    return 0.3 * z @ Q + normal(z.shape[1], seed=8)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_moved_turned_and_scaled_copy_agrees_and_is_recovered(dim, mirrored):
    z = normal(15, dim)
    copy = turned(z, mirrored=mirrored)
    result = agreement(copy, z)
    assert result == pytest.approx(
        {"rank correlation": 1, "trustworthiness": 1, "Procrustes": 0}, abs=1e-12
    )
    torch.testing.assert_close(procrustes_aligned(z, copy), copy - copy.mean(0))


def test_no_other_turn_shift_or_scale_lies_nearer_to_the_target():
    z, target = normal(10, 2), normal(10, 2, seed=1)
    placed, centred = procrustes_aligned(z, target), target - target.mean(0)
    best = (placed - centred).square().sum()
    for angle, mirror, scale in itertools.product(
        np.linspace(0, 2 * np.pi, 61), (1, -1), np.linspace(0, 2, 21)
    ):
        turn = torch.tensor(
            [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        ) @ torch.diag(torch.tensor([1.0, mirror]).double())
        assert ((z - z.mean(0)) @ turn * scale - centred).square().sum() > best
    distances = torch.pdist(placed) / torch.pdist(z)
    torch.testing.assert_close(
        distances, distances[:1].expand_as(distances), msg="its shape has changed"
    )


def test_agreement_takes_its_neighbors_and_its_variance_from_the_second_map():
    a, b = normal(30, 2), normal(30, 2, seed=1)
    result = agreement(a, b)
    n, k = 30, 10
    ranks = {
        name: torch.cdist(z, z).argsort(1).argsort(1) for name, z in {"a": a, "b": b}.items()
    }  # 0 is the point itself
    intruders = sum(
        (ranks["b"] - k)[i, j].clamp_min(0).item()
        for i in range(n)
        for j in range(n)
        if 1 <= ranks["a"][i, j] <= k
    )
    assert result["trustworthiness"] == pytest.approx(
        1 - 2 / (n * k * (2 * n - 3 * k - 1)) * intruders
    )
    centred = b - b.mean(0)
    assert result["Procrustes"] == pytest.approx(
        ((procrustes_aligned(a, b) - centred).square().sum() / centred.square().sum()).item()
    )


def test_noise_P_equals_a_double_loop():
    for kind, scale in (("gaussian", 0.4), ("laplace", 0.7)):
        config = cloud_run(on_cloud(Noise(scale=scale, kind=kind)), seed=3)
        x = point_set(config).train.x.double().numpy()
        law = stats.norm(0, scale) if kind == "gaussian" else stats.laplace(0, scale / math.sqrt(2))
        expected = np.zeros((len(x), len(x)))
        for i, j in itertools.permutations(range(len(x)), 2):
            expected[i, j] = sum(
                np.prod(law.pdf(x[i] - anchor)) * np.prod(law.pdf(x[j] - anchor)) for anchor in x
            )
        torch.testing.assert_close(
            noise_P(config.data, 3, "joint"), torch.from_numpy(expected / expected.sum())
        )
        density = [sum(np.prod(law.pdf(point - anchor)) for anchor in x) for point in x]
        ratio = expected / np.outer(density, density)
        found = noise_P(config.data, 3)
        torch.testing.assert_close(found, torch.from_numpy(ratio / ratio.sum()))
        assert (found - noise_P(config.data, 3, "joint")).abs().sum() > 0.05


def test_sne_finds_the_map_that_P_was_made_of():
    z = 0.7 * normal(8, 2)
    P = torch.cdist(z, z).square().neg().exp().fill_diagonal_(0)
    P /= P.sum()
    found = [sne(P, seed=seed) for seed in range(4)]
    best = min(found, key=lambda map_: kl(P, map_))
    assert kl(P, best) < 1e-8
    assert agreement(best, z)["Procrustes"] < 1e-4


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_sne_ends_lower_than_anything_near_it_and_than_chance(dim):
    P = noise_P(on_cloud(Noise(scale=0.4)), 0)
    z = sne(P, dim=dim)
    assert z.shape == (16, dim)
    reached = kl(P, z)
    assert (
        reached
        < min(
            kl(P, scale * normal(16, dim, seed=seed))
            for seed in range(5)
            for scale in (0.1, 0.5, 1)
        )
        - 0.05
    )
    assert reached < min(kl(P, z + 0.05 * normal(16, dim, seed=seed)) for seed in range(10))


def test_the_random_start_of_sne_is_that_of_its_seed():
    P = noise_P(on_cloud(Noise(scale=0.4)), 0)
    assert torch.equal(sne(P, seed=5), sne(P, seed=5))
    assert not torch.allclose(sne(P, seed=5), sne(P, seed=6), atol=1e-2)
    first, second = sne_maps(on_cloud(Noise(scale=0.4)), 0)
    assert (first - second).abs().max() > 1e-2, "it is to be seen how far SNE agrees with itself"


def test_scaled_kl_is_the_least_over_scalings():
    P, z = noise_P(on_cloud(Noise(scale=0.4)), 1), normal(16, 2)
    least = scaled_kl(P, z)
    grid = [kl(P, scale * z) for scale in np.geomspace(0.01, 10, 400)]
    assert min(grid) - 1e-4 < least <= min(grid) + 1e-9
    assert least < kl(P, z) - 1e-3
    for same in (100 * z, 0.01 * z, turned(z, mirrored=True), z.float()):
        assert scaled_kl(P, same) == pytest.approx(least, rel=1e-5)


def test_no_scaling_improves_what_sne_found():
    P = noise_P(on_cloud(Noise(scale=0.4)), 0)
    z = sne(P)
    assert scaled_kl(P, 3 * z) == pytest.approx(kl(P, z), abs=1e-7)


AGREEMENT = ("rank correlation", "trustworthiness", "Procrustes")


def test_a_run_that_ends_at_sne_s_own_map_agrees_with_it():
    data = on_cloud(Noise(scale=0.4))
    first, second = sne_maps(data, 4)
    record = Record(
        cloud_run(data, seed=4), {}, {"z": turned(first, mirrored=True).float().numpy()}
    )
    result = sne_agreement(record)
    assert list(result) == [
        *AGREEMENT,
        *(f"{name}, SNE" for name in AGREEMENT),
        *("rank correlation, input", "KL", "KL, SNE", "KL, input", "same point"),
    ]
    assert [result[name] for name in AGREEMENT] == pytest.approx([1, 1, 0], abs=1e-4)
    assert result["KL"] == pytest.approx(result["KL, SNE"], abs=1e-5)
    P, x = noise_P(data, 4), point_set(record.config).train.x.double()
    assert result["KL, SNE"] == pytest.approx(kl(P, first), abs=1e-6)
    assert result["KL, input"] == pytest.approx(scaled_kl(P, x))
    assert result["rank correlation, input"] == pytest.approx(rank_correlation(x, first))
    assert {name: result[f"{name}, SNE"] for name in AGREEMENT} == pytest.approx(
        agreement(second, first)
    )


def test_a_run_can_be_held_against_the_P_of_other_noise():
    record = Record(cloud_run(on_cloud(Noise(scale=0.2))), {}, {"z": normal(16, 2).numpy()})
    own, other = on_cloud(Noise(scale=0.2)), on_cloud(Noise(scale=0.6))
    assert sne_agreement(record) == sne_agreement(record, own)
    result, z = sne_agreement(record, other), torch.from_numpy(record.arrays["z"])
    assert result["KL"] == pytest.approx(scaled_kl(noise_P(other, 0), z))
    assert result["rank correlation"] == pytest.approx(rank_correlation(z, sne_maps(other, 0)[0]))


def test_the_share_of_views_on_the_same_point_pair_by_pair():
    for scale in (0.1, 0.5):
        config = cloud_run(on_cloud(Noise(scale=scale)))
        x = point_set(config).train.x.double().numpy()
        density = np.exp([[-((a - b) ** 2).sum() / (2 * scale**2) for b in x] for a in x])
        pairs = {
            (j, k): sum(row[j] * row[k] for row in density) for j in range(16) for k in range(16)
        }
        result = sne_agreement(Record(config, {}, {"z": normal(16, 2).numpy()}))
        assert result["same point"] == pytest.approx(
            sum(pairs[j, j] for j in range(16)) / sum(pairs.values())
        )


def look(step, seed=0, **cloud):
    return perturbation(
        cloud_run(
            on_cloud(step, **{"dim": 20, "components": 5, "n_train": 500} | cloud), seed=seed
        ),
        n=10,
    )


@pytest.mark.parametrize(("components", "dim"), [(5, 20), (3, 10)])
@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_noise_spends_the_share_of_its_energy_in_the_span_that_the_span_has_of_the_directions(
    kind, components, dim
):
    result = look(Noise(scale=0.3, kind=kind), components=components, dim=dim)
    assert result["energy in span"] == pytest.approx((components - 1) / dim, rel=0.05)


def test_mixup_spends_its_energy_where_the_variance_is():
    m, d, std = 5, 20, 0.3
    signal, noise = (m - 1) / (2 * m) + (m - 1) * std**2, (d - m + 1) * std**2
    assert look(Mixup(strength=1.0), std=std)["energy in span"] == pytest.approx(
        signal / (signal + noise), rel=0.06
    )


@pytest.mark.parametrize(
    ("structure", "std"),
    [("isotropic", 0.2), ("isotropic", 0.6), ("complement", 0.2), ("complement", 1.0)],
)
def test_mixup_blurs_all_directions_alike_and_noise_those_of_small_variance(structure, std):
    """The means, at distance 1, have the variance 1/(2m) in each direction of their span."""
    inside = 1 / 10 + (std**2 if structure == "isotropic" else 0)
    seeds = range(4)
    mixed = np.mean(
        [
            look(Mixup(strength=0.7), seed, std=std, structure=structure)["selectivity"]
            for seed in seeds
        ]
    )
    noisy = np.mean(
        [
            look(Noise(scale=0.3), seed, std=std, structure=structure)["selectivity"]
            for seed in seeds
        ]
    )
    assert mixed == pytest.approx(1, rel=0.1)
    assert noisy == pytest.approx(inside / std**2, rel=0.1)


def test_the_strength_of_noise_cancels_in_its_selectivity_and_not_in_what_it_does():
    weak, strong = look(Noise(scale=1e-3)), look(Noise(scale=10.0))
    for name in ("selectivity", "energy in span"):
        assert weak[name] == pytest.approx(strong[name], rel=1e-3)
    assert weak["P within"] == 1
    assert strong["P within"] < 0.6
    assert strong["views at own mean"] == pytest.approx(0.2, abs=0.05)
    assert look(Noise(scale=1e-3), std=0.02)["views at own mean"] == 1


def test_views_at_their_own_mean_of_two_components_have_a_closed_form():
    """The means are 1 apart: a view stays as long as it goes less than 1/2 towards the other."""
    result = look(Noise(scale=0.4), components=2, dim=2, std=0.3)
    assert result["views at own mean"] == pytest.approx(stats.norm.cdf(0.5 / 0.5), abs=0.03)


def test_the_look_at_a_cloud_is_that_of_its_seed():
    step = Masking(rate=0.5)
    assert look(step) == look(step)
    assert look(step) != look(step, seed=1)


def chi_squared(counted: np.ndarray, exact: np.ndarray, draws: int) -> float:
    """Pearson's p-value, one row of masses."""
    possible = exact > 1e-12
    assert (counted[~possible] == 0).all()
    return float(
        stats.chisquare(
            counted[possible] * draws, exact[possible] / exact[possible].sum() * draws
        ).pvalue
    )


def test_counted_noise_is_calibrated():
    edges, draws = [-0.5, 0.0, 0.4, 1.0], 2000
    steps = [Noise(scale=0.5, kind=kind) for kind in ("gaussian", "laplace", "uniform")]
    result = counted_noise(steps, 0.3, edges, draws=draws, seed=0)
    laws = {
        "gaussian": stats.norm(0.3, 0.5),
        "laplace": stats.laplace(0.3, 0.5 / 2**0.5),
        "uniform": stats.uniform(0.3 - 0.75**0.5, 3**0.5),
    }
    assert result["noise"].unique().tolist() == list(laws)
    for kind, rows in result.groupby("noise"):
        exact = np.diff(laws[kind].cdf([-np.inf, *edges, np.inf]))
        assert rows["cell"].tolist() == list(range(5))
        assert rows["exact"].tolist() == pytest.approx(exact, abs=1e-9)
        assert rows["s.e."].tolist() == pytest.approx(
            np.sqrt(exact * (1 - exact) / draws), abs=1e-9
        )
        assert ALPHA < chi_squared(rows["counted"].to_numpy(), exact, draws) < 1 - ALPHA
    assert counted_noise(steps, 0.3, edges, draws=50, seed=1).equals(
        counted_noise(steps, 0.3, edges, draws=50, seed=1)
    )


def test_counted_mixup_is_calibrated():
    exact, counted = counted_mixup(normal(7, 2), draws=3000, seed=0)
    assert exact.shape == counted.shape == (7, 7)
    p = [chi_squared(c, e, 3000) for c, e in zip(counted.numpy(), exact.numpy(), strict=True)]
    assert min(p) > ALPHA / 7
    assert max(p) < 1 - ALPHA / 7


def test_a_partner_may_be_the_point_itself_as_in_training():
    """Two points: half of every segment is on either side, and half of the partners are the point
    itself, whose view is the point."""
    exact, counted = counted_mixup(torch.tensor([[0.0], [1.0]]), draws=2000, seed=0)
    assert exact.flatten().tolist() == pytest.approx([0.75, 0.25, 0.25, 0.75])
    assert counted.flatten().tolist() == pytest.approx([0.75, 0.25, 0.25, 0.75], abs=0.04)
    x = normal(6, 2)
    torch.testing.assert_close(training_masses(x, strength=0.5).sum(1), torch.ones(6).double())


CLOUD_NAMES = (*PREMISE_CLOUDS, *NUISANCE_CLOUDS)
AUGMENTATIONS = ("noise", "mixup", "covariance noise")


def clouds_frame() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies of the best strengths, and what they do before training, of five clouds."""
    rng = np.random.default_rng(0)
    keys = list(itertools.product(CLOUD_NAMES, AUGMENTATIONS, range(4)))
    best = pd.DataFrame(keys, columns=["cloud", "augmentation", "seed"])
    best["knn_h_test"] = rng.random(len(keys))
    before = best[best.augmentation != "covariance noise"].drop(columns="knn_h_test")
    before["strength"] = np.where(before.augmentation == "noise", 0.3, 0.6)
    for key in ("energy in span", "views at own mean", "P within", "selectivity"):
        before[key] = rng.random(len(before))
    return best, before


def paired(best: pd.DataFrame, cloud: str, first: str, second: str) -> np.ndarray:
    part = best[best.cloud == cloud]
    a, b = (part[part.augmentation == n].knn_h_test.to_numpy() for n in (first, second))
    return a - b


def test_gains_of_mixup_are_paired_by_seed():
    best, rows = clouds_frame()
    before, order = over_seeds(rows), list(CLOUD_NAMES[::-1])
    gain = analysis.gains(best, before, order)
    columns = ["cloud", "mixup − noise", "low", "high", "separation", "variance ratio"]
    assert list(gain.columns) == columns
    assert gain.cloud.tolist() == order
    for row in gain.to_dict("records"):
        own = paired(best, row["cloud"], "mixup", "noise")
        low, high = stats.t.interval(0.95, 3, own.mean(), stats.sem(own))
        assert list(row.values())[1:4] == pytest.approx([own.mean(), low, high])
        part = rows[(rows.cloud == row["cloud"]) & (rows.augmentation == "noise")]
        assert row["variance ratio"] == pytest.approx(1 / part.selectivity.mean())


def test_claims_are_decided_on_their_own_clouds_paired_by_seed():
    best, rows = clouds_frame()
    premise = [paired(best, cloud, "mixup", "noise") for cloud in PREMISE_CLOUDS]
    assert analysis.premise_gains(best) == pytest.approx(np.mean(premise, 0))
    wide = [paired(best, cloud, "covariance noise", "mixup") for cloud in NUISANCE_CLOUDS]
    assert analysis.covariance_gains(best) == pytest.approx(np.mean(wide, 0))
    null = [paired(best, cloud, "noise", "mixup") for cloud in NUISANCE_CLOUDS]
    assert analysis.covariance_gains(best, "noise") == pytest.approx(np.mean(null, 0))
    shares = rows.set_index(["augmentation", "cloud", "seed"])["energy in span"]
    ratios = [
        [shares["mixup", cloud, seed] / shares["noise", cloud, seed] for cloud in PREMISE_CLOUDS]
        for seed in range(4)
    ]
    assert span_ratios(rows) == pytest.approx(np.min(ratios, 1))


def test_the_control_is_listed_beside_the_others():
    best, _ = clouds_frame()
    table = analysis.control_table(best, NUISANCE_CLOUDS)
    own = paired(best, NUISANCE_CLOUDS[0], "covariance noise", "mixup")
    first = table.iloc[0]
    assert first["covariance noise − mixup"] == pytest.approx(own.mean())
    assert first["covariance noise"] - first["mixup"] == pytest.approx(own.mean())
    assert first["95 % high"] > own.mean() > first["95 % low"]
    last = table.iloc[-1]
    every = [paired(best, cloud, "covariance noise", "mixup") for cloud in NUISANCE_CLOUDS]
    ends = stats.t.interval(0.95, 3, np.mean(every), stats.sem(np.mean(every, 0)))
    assert (last["95 % low"], last["95 % high"]) == pytest.approx(ends)
    assert last["covariance noise − mixup"] == pytest.approx(np.mean(every))


def test_the_premise_and_the_ratio_are_told_for_every_scale():
    columns = ["cloud", "mixup − noise", "low", "high", "variance ratio"]
    rows = [(PREMISE_CLOUDS[0], -0.1, -0.2, 0.1, 0.3), (NUISANCE_CLOUDS[0], 0.1, 0.0, 0.2, 3.0)]
    gain = pd.DataFrame(rows, columns=columns)
    table = analysis.by_separation({"quick": gain, "full": gain[:1]})
    assert table.cloud.tolist() == [PREMISE_CLOUDS[0]] * 2
    assert table.scale.tolist() == ["quick", "full"]
    assert table.separation.tolist() == [separation(CLOUDS[PREMISE_CLOUDS[0]])] * 2
    text = analysis.rank_by_ratio({"quick": gain, "full": gain.assign(low=[1, 2])})
    assert text.endswith("gain: 1.00 over 2 clouds of quick, 1.00 over 2 clouds of full")


def test_every_setting_is_held_against_the_input():
    rows = [("noise σ", "0.4", 0.1), ("noise σ", "0.8", 0.9), ("control", "mixup", 0.1)]
    table = pd.DataFrame(
        {"factor": factor, "level": level, "KL": kl + 0.01 * seed, "KL, SNE": 0.05}
        | {"KL, input": 1.0}
        for factor, level, kl in rows
        for seed in range(3)
    )
    found = over_input(table, 0.75)
    assert found.level.tolist() == ["0.4", "0.8"]
    assert found.iloc[0][["KL", "KL, SNE", "KL, input"]].tolist() == pytest.approx([0.11, 0.05, 1])
    assert found["KL over the input's"].tolist() == pytest.approx([0.11, 0.91])
    assert found["at most 0.75"].tolist() == ["yes", "no"]
    almost = found.iloc[1]
    assert over_input(table, almost["95 % high"] - 1e-9).iloc[1, -1] == "no", "the whole interval"


def test_exceptions_are_the_clouds_without_the_sign_of_the_ratio():
    columns = ["cloud", "mixup − noise", "low", "high", "variance ratio"]
    rows = [("a", 0.1, 0.05, 0.2, 3.0), ("b", -0.1, -0.2, -0.05, 0.3), ("c", 0.1, -0.1, 0.3, 2.0)]
    table = pd.DataFrame([*rows, ("d", 0.1, 0.05, 0.2, 0.5)], columns=columns)
    found = analysis.exceptions({"quick": table, "full": table[:2]})
    assert found.cloud.tolist() == ["c", "d"]
    assert found.scale.tolist() == ["quick: 2 of 4"] * 2
    assert found.high.tolist() == [0.3, 0.2]


def test_clouds_are_separated_where_means_are_farther_apart_than_points_of_a_component():
    for name, cloud in CLOUDS.items():
        config = cloud_run(Points(points=cloud, augmentation=(Noise(scale=0.1),)))
        data = point_set(config)
        assert data.means is not None
        own = data.means[data.test.labels]
        within = 2 * (data.test.x - own).square().sum(1).mean()
        found = (torch.pdist(data.means).square().mean() / within).sqrt().item()
        rel = 0.2 if cloud.structure == "manifold" else 0.06
        assert separation(cloud) == pytest.approx(found, rel=rel), name
    assert all(separation(CLOUDS[name]) > 1 for name in PREMISE_CLOUDS)
    assert not any(separation(CLOUDS[name]) > 1 for name in NUISANCE_CLOUDS)


MIX_AND_NOISE = ("mixup", "noise")


def test_predictors_are_held_against_the_gain_by_rank():
    best, rows = clouds_frame()
    before = over_seeds(rows)
    gain = analysis.gains(best, before, CLOUD_NAMES)
    own = {name: before[before.augmentation == name] for name in MIX_AND_NOISE}
    test = analysis.predictor_test(before, gain).set_index("predictor (mixup minus noise)")
    assert len(test) == 4
    for what, row in test.iterrows():
        difference = own["mixup"][what].to_numpy() - own["noise"][what].to_numpy()
        expected = stats.spearmanr(difference, gain["mixup − noise"]).statistic
        assert row["rank correlation with the gain"] == pytest.approx(expected)
        assert row.clouds == 5


def test_every_run_beside_sne_on_its_own_points_or_on_those_of_the_base():
    base, other = on_cloud(Noise(scale=0.4)), on_cloud(Mixup(strength=1.0))
    z = {seed: normal(16, 2, seed=seed).numpy() for seed in (0, 1)}
    records = {
        ("noise σ", "0.4"): [Record(cloud_run(base, seed=s), {}, {"z": z[s]}) for s in z],
        ("control", "mixup"): [Record(cloud_run(other, seed=s), {}, {"z": z[s]}) for s in z],
        ("control", "untrained"): [Record(cloud_run(base, seed=s), {}, {"z": 2 * z[s]}) for s in z],
    }
    table = agreement_by_factor(records)
    assert table.level.tolist() == ["0.4"] * 2 + ["mixup"] * 2 + ["untrained"] * 2
    assert table.KL[:2].tolist() == pytest.approx(table.KL[2:4].tolist())
    assert table.KL[0] == pytest.approx(sne_agreement(records["control", "mixup"][0], base)["KL"])
    ratios = kl_ratios({"ratio": table}).set_index("noise over")
    assert ratios.ratio[["mixup", "untrained"]].tolist() == pytest.approx([1, 1], abs=1e-6)
    expected = (table["KL"][:2] / table["KL, input"][:2]).mean()
    assert ratios.ratio["input"] == pytest.approx(expected)
    least = [min(table["KL, input"][i], table["KL"][i]) for i in (0, 1)]
    assert over_best_null(table) == pytest.approx([table["KL"][i] / least[i] for i in (0, 1)])
    joint = agreement_by_factor(records, "joint")
    assert joint.KL[0] == pytest.approx(sne_agreement(records[BASE][0], form="joint")["KL"])
    assert abs(joint.KL[0] - table.KL[0]) > 1e-3


def test_the_limit_of_equally_dense_anchors_is_a_gaussian_of_twice_the_variance():
    pairs = distance_and_flat_limit(on_cloud(Noise(scale=0.3)), 0)
    density = np.exp(-(pairs.distance**2) / (4 * 0.3**2))
    assert len(pairs) == 16 * 15
    assert pairs.flat.tolist() == pytest.approx((density / density.sum()).tolist())
    assert pairs.P.sum() == pytest.approx(1)
    assert (pairs.P - pairs.flat).abs().sum() > 0.05


def test_masses_within_two_errors_are_counted_where_they_are_likely():
    exact = torch.tensor([0.5, 0.25, 0.25, 0.0])
    counted = torch.tensor([0.5, 0.3, 0.2, 0.0])
    assert within_two_errors(exact, counted, 100, least=0.01) == (3, 1.0)
    assert within_two_errors(exact, counted, 10_000, least=0.01) == (3, pytest.approx(1 / 3))


def test_energy_in_the_span_by_hand():
    exact = energy_in_span(components=5, std=0.3)
    for d, noise, mixup in exact.itertuples(index=False, name=None):
        inside, outside = 4 / 5 + 4 * 2 * 0.3**2, (d - 4) * 2 * 0.3**2
        assert (noise, mixup) == pytest.approx((4 / d, inside / (inside + outside)))
    assert exact.d.iloc[[0, -1]].tolist() == [5, 1000]


def test_the_noise_that_is_drawn_beside_mixup_has_its_energy():
    densities = view_densities(size=30)
    line = torch.linspace(*densities.ends, 30, dtype=torch.float64)
    view = torch.cartesian_prod(line, line).view(30, 30, 2)
    squared = (view - densities.anchor).square().sum(2)
    log_p = densities.log_p["noise"]
    energy = (squared[0, 0] - squared[9, 20]) / (log_p[9, 20] - log_p[0, 0])  # 2 σ²
    to_means = (densities.means - densities.anchor).square().sum(1)
    assert energy.item() == pytest.approx((to_means.mean() + 2 * 0.1**2).item() / 3)
    assert log_p.shape == densities.log_p["mixup"].shape == (30, 30)


# --- runs ----------------------------------------------------------------------------------------


SCALES = pytest.mark.parametrize("scale", ["smoke", "quick", "full"])


def agnostic(**given):
    return resolve("02_domain_agnostic_augmentations", given)


def every_group(p) -> list[list]:
    return [
        runs
        for groups in (
            p.noise_runs(),
            p.map_runs(),
            p.control_runs(),
            p.untrained_runs(),
        )
        for runs in groups.values()
    ]


@SCALES
def test_the_runs_are_those_of_the_groups_and_each_is_made_once(scale):
    p = agnostic(scale=scale)
    grouped = [run for runs in every_group(p) for run in runs]
    assert len(set(p.runs())) == len(p.runs()) == len(grouped)
    assert set(p.runs()) == set(grouped)
    for runs in every_group(p):
        assert [run.seed for run in runs] == list(range(p.seeds))
        assert len({run.replace(seed=0) for run in runs}) == 1, "they differ in their seed alone"


def test_what_is_asked_for_twice_is_made_once():
    p = agnostic(scale="smoke", clouds=[*CLOUD_NAMES] * 2, seed=7)
    assert len(set(p.runs())) == len(p.runs())
    assert {run.seed for run in p.runs()} == {7, 8}
    assert len(p.map_runs()) == len(CLOUD_STEPS) * len(CLOUD_NAMES)


def test_the_control_is_trained_as_the_map_but_for_its_noise():
    p = agnostic(scale="smoke")
    runs = p.control_runs()
    names = ["covariance noise"]
    assert set(runs) == set(itertools.product(p.control_clouds, names, CONTROL_STRENGTHS))
    for (cloud, _, strength), (run, *_) in runs.items():
        beside = p.map_runs()[cloud, "noise", 0.3][0]
        step = Noise(scale=strength)
        assert [run] == whitened([beside.replace(data=beside.data.replace(augmentation=(step,)))])


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_the_control_is_trained_on_every_cloud(scale):
    p = agnostic(scale=scale)
    assert p.control_clouds == p.clouds


def test_runs_on_vectors_are_ensembles_of_their_seeds():
    p = agnostic(scale="smoke")
    together = ensembles(run for run in p.runs() if isinstance(run.data, Points))
    vectors = [
        runs
        for groups in (p.noise_runs(), p.map_runs(), p.control_runs(), p.untrained_runs())
        for runs in groups.values()
    ]
    assert sorted(map(str, together)) == sorted(map(str, vectors))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"clouds": [*CLOUD_NAMES, "isotropic, d=9"]},
            r"clouds must be among .*, got \['isotropic, d=9'\]",
        ),
        ({"clouds": []}, "clouds"),
        ({"clouds": ["isotropic, d=8"]}, r"clouds must include \['5 nuisances, σ=0.3', "),
        ({"control_clouds": []}, r"control_clouds must include \['5 nuisances, σ=0.5', "),
        (
            {"control_clouds": [*NUISANCE_CLOUDS, "isotropic, d=64"]},
            r"control_clouds must be among clouds, got \['isotropic, d=64'\]",
        ),
        ({"points": 29}, "points = 29"),
        ({"steps": 0}, "steps = 0"),
    ],
    ids=str,
)
def test_wrong_parameters_of_the_domain_agnostic_study(given, words):
    agnostic(scale="smoke")
    with pytest.raises(ValueError, match=words):
        agnostic(scale="smoke", **given)


def test_every_augmentation_has_as_many_strengths():
    """An equal budget for the choice among them."""
    steps = CLOUD_STEPS
    assert [type(step) for _, step in steps] == [Noise] * 5 + [Mixup] * 5
    assert len(CONTROL_STRENGTHS) == 5
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
    p = agnostic(clouds=list(CLOUDS))
    runs = p.map_runs()
    assert list(runs) == [
        (cloud, step.name, strength) for cloud in CLOUDS for strength, step in CLOUD_STEPS
    ]
    for (cloud, name, strength), group in runs.items():
        for run in group:
            assert run.data.points == CLOUDS[cloud]
            assert run.data.augmentation == (
                {"noise": Noise(scale=strength), "mixup": Mixup(strength=strength)}[name],
            )
    rest = {
        run.model_copy(update={"data": None, "seed": 0}) for group in runs.values() for run in group
    }
    assert len(rest) == 1, "all else is the same"
    assert rest.pop().loss == METHODS["SimCLR"].loss


def test_clouds_are_different():
    assert len(set(CLOUDS.values())) == len(CLOUDS)
    for name, cloud in CLOUDS.items():
        assert name.startswith(cloud.structure) or (
            cloud.structure == "complement" and name.startswith(f"{cloud.rank} nuisances")
        )
        factor, value = name.split(", ")[1].split("=")
        assert float(value) == {"d": cloud.dim, "σ": cloud.std, "n": cloud.n_train}[factor]


def test_the_noise_of_sne_is_changed_in_one_factor_at_a_time():
    runs = agnostic(points=90).noise_runs()
    base = runs["noise σ", "0.4"][0]
    assert [run.epochs for run in runs.pop(("control", "untrained"))] == [0] * len(
        runs["noise σ", "0.4"]
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
    for groups in (p.noise_runs(), p.map_runs(), p.control_runs()):
        for name, runs in groups.items():
            steps = 0 if "untrained" in name else p.steps
            assert {run.epochs * run.data.steps_per_epoch for run in runs} == {steps}, name


@pytest.mark.parametrize("steps", [1, 49, 50, 51, 53, 75, 120, 500])
def test_a_network_on_vectors_takes_the_steps_asked_for(steps):
    run = vector_run(
        Points(points=CLOUDS["isotropic, d=8"], augmentation=(Noise(scale=0.1),)),
        METHODS["SimCLR"],
        8,
        steps,
        3,
    )
    assert run.epochs * run.data.steps_per_epoch == steps
    assert (run.seed, run.projector.dim, run.data.points) == (3, 8, CLOUDS["isotropic, d=8"])
