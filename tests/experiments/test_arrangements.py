"""The closed forms, each against a loop or a definition written out."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers import unchecked

from sscl_core.evaluate import lipschitz
from sscl_core.losses import info_nce
from sscl_core.similarities import Student
from sscl_experiments import arrangements
from sscl_experiments.arrangements import cyclic_order


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_points(n=7, d=3):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("m", [2, 3, 5, 8])
def test_polygon_and_simplex(m):
    polygon = arrangements.regular_polygon(m)
    assert torch.allclose(
        arrangements.circle_gaps(polygon), torch.full((m,), 360 / m, dtype=torch.float64)
    )
    for d in (m - 1, m + 2):
        corners = arrangements.regular_simplex(m, d)
        expected = torch.full((m, m), -1 / (m - 1), dtype=torch.float64).fill_diagonal_(1)
        assert torch.allclose(corners @ corners.T, expected, atol=1e-12)
    assert arrangements.uniform_arrangement(m, 2).shape == (m, 2)


def test_simplex_needs_room():
    with pytest.raises(ValueError, match="d must be at least m - 1 = 4"):
        arrangements.uniform_arrangement(5, 3)


def test_circle_gaps_of_known_angles():
    angles = torch.tensor([350.0, 10, 100]).double().deg2rad()
    gaps = arrangements.circle_gaps(torch.stack([angles.cos(), angles.sin()], 1) * 3)
    assert torch.allclose(gaps, torch.tensor([90.0, 250, 20]).double())


@pytest.mark.parametrize("dim", [2, 4])
def test_free_points_find_the_arrangement_and_nothing_lower(dim):
    """Five free points under pure repulsion: L-BFGS reaches the closed form, the known optimum."""

    def repulsion(z):
        u = torch.nn.functional.normalize(z, dim=1)
        return ((u @ u.T) / 0.5).exp().sum()

    values, best = arrangements.minimise_free(repulsion, (5, dim), starts=5, generator=seeded())
    exact = arrangements.uniform_arrangement(5, dim)
    assert (values.shape, best.shape, best.requires_grad) == ((5,), (5, dim), False)
    assert values.min().item() == pytest.approx(
        ((exact @ exact.T) / 0.5).exp().sum().item(), rel=1e-9
    )
    assert repulsion(best) == values.min()


def test_of_several_minima_the_best_is_handed_back():
    """A double well in every coordinate: starts end in wells of different depth."""

    def wells(z):
        return ((z**2 - 1) ** 2 + 0.3 * z).sum()

    values, best = arrangements.minimise_free(wells, (2, 1), starts=20, generator=seeded())
    assert len({round(value, 6) for value in values.tolist()}) == 3
    assert wells(best) == values.min()
    assert (best < -1).all()


def test_loss_at_the_aligned_polygon_in_closed_form():
    n, m, tau = 10, 5, 0.5
    u = arrangements.regular_polygon(m).repeat(n // m, 1)
    others = sum(
        (2 * n // m) * math.exp(math.cos(2 * math.pi * k / m) / tau) for k in range(m)
    ) - math.exp(1 / tau)
    assert info_nce(u, u, temperature=tau).item() == pytest.approx(
        math.log(others) - 1 / tau, abs=1e-12
    )


@pytest.mark.parametrize("turn", [0.0, 40.0, -170.0])
def test_the_fitted_polygon_lies_on_the_points(turn):
    """In any order of the points, every corner lies within their deviation from a polygon."""
    angles = (
        72.0 * torch.arange(5).double() + turn + torch.tensor([1.0, -1, 0.5, -0.5, 0])
    ).deg2rad()[torch.tensor([3, 0, 4, 1, 2])]
    points = torch.stack([angles.cos(), angles.sin()], 1)
    nearest = torch.cdist(arrangements.fitted_polygon(points), points).amin(1)
    assert nearest.max() < 0.02
    assert torch.allclose(
        arrangements.circle_gaps(arrangements.fitted_polygon(points)),
        torch.full((5,), 72.0).double(),
    )


# --- arrangements on the sphere ------------------------------------------------------------------


def degrees(cosine):
    return math.degrees(math.acos(cosine))


KNOWN = {(m, 2): 360 / m for m in (2, 3, 5, 8)} | {
    (m, d): degrees(-1 / (m - 1)) for m, d in ((2, 3), (3, 3), (4, 3), (5, 4), (4, 5))
}
UNIVERSAL = KNOWN | {(6, 3): 90.0, (12, 3): degrees(1 / math.sqrt(5))}
TAMMES = UNIVERSAL | {(8, 3): degrees((2 * math.sqrt(2) - 1) / 7), (9, 3): degrees(1 / 3)}


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize(("m", "d"), UNIVERSAL)
def test_the_least_energy_has_the_arrangement_that_is_best_at_every_temperature(m, d, temperature):
    """Polygon, simplex, octahedron, icosahedron (Cohn & Kumar 2007)."""
    z = arrangements.minimal_energy(m, d, temperature=temperature, starts=5, generator=seeded())
    assert z.shape == (m, d)
    assert torch.allclose(z.norm(dim=1), torch.ones(m, dtype=torch.float64))
    assert arrangements.smallest_angle(z) == pytest.approx(UNIVERSAL[m, d], abs=0.01)


@pytest.mark.parametrize(("m", "d"), TAMMES)
def test_the_largest_smallest_angle(m, d):
    """Eight points are an antiprism and no cube (Schütte & van der Waerden 1951)."""
    z = arrangements.tammes(m, d, starts=5, generator=seeded())
    assert torch.allclose(z.norm(dim=1), torch.ones(m, dtype=torch.float64))
    assert arrangements.smallest_angle(z) == pytest.approx(TAMMES[m, d], abs=0.01)


def test_seven_points_of_least_energy_are_no_packing():
    """A bipyramid over a pentagon, 72°; the packing has 77.87°."""
    assert arrangements.smallest_angle(
        arrangements.minimal_energy(7, 3, temperature=0.5, generator=seeded())
    ) == pytest.approx(72, abs=0.01)
    assert arrangements.smallest_angle(
        arrangements.tammes(7, 3, generator=seeded())
    ) == pytest.approx(77.8695, abs=0.01)


def test_the_search_goes_on_from_where_it_is_told_to():
    """Five points on a circle in space are a saddle: without noise they stay on it.

    No random number is drawn."""
    generator = seeded()
    flat = torch.nn.functional.pad(
        arrangements.regular_polygon(5) + 0.01 * random_points(5, 2), (0, 1)
    )
    z = arrangements.minimal_energy(5, 3, temperature=0.5, generator=generator, start=flat)
    assert torch.equal(generator.get_state(), seeded().get_state())
    assert z[:, 2].abs().max() == 0
    assert arrangements.smallest_angle(z) == pytest.approx(72, abs=0.01)


@pytest.mark.parametrize(("m", "d"), [(2, 1), (2, 2), (6, 3), (9, 5)])
def test_the_smallest_angle_is_the_naive_loop(m, d):
    z = torch.nn.functional.normalize(random_points(m, d), dim=1)
    expected = min(
        degrees(max(-1.0, min(1.0, float(a @ b)))) for a, b in itertools.combinations(z, 2)
    )
    assert arrangements.smallest_angle(z) == pytest.approx(expected, abs=1e-6)


def test_the_smallest_angle_of_equal_and_of_opposite_points():
    """Also where rounding takes their cosine beyond 1."""
    for z in torch.nn.functional.normalize(random_points(50, 3), dim=1):
        assert arrangements.smallest_angle(torch.stack([z, z])) == pytest.approx(0, abs=1e-5)
        assert arrangements.smallest_angle(torch.stack([z, -z])) == pytest.approx(180, abs=1e-5)


# --- orders and splits of a cycle ----------------------------------------------------------------


@pytest.mark.parametrize("m", [3, 4, 5, 6, 7, 8])
def test_cyclic_orders_are_all_and_each_once(m):
    orders = arrangements.cyclic_orders(m)
    assert orders[0].tolist() == list(range(m))
    written = set()
    for order in orders.tolist():
        assert sorted(order) == list(range(m))
        assert (order[0], order[1] < order[-1]) == (0, True)
        written |= {tuple(way[i:] + way[:i]) for way in (order, order[::-1]) for i in range(m)}
    assert len(orders) == math.factorial(m - 1) // 2
    assert len(written) == math.factorial(m), "distinct up to rotation and reflection"
    corners = arrangements.regular_polygon(m)
    assert all(
        torch.equal(cyclic_order(corners[order.argsort()]), order)
        for order in orders[:: max(1, len(orders) // 100)]
    )


@pytest.mark.parametrize("m", [-1, 2, 11])
def test_cyclic_orders_are_listed_while_they_are_few(m):
    with pytest.raises(ValueError, match=f"m must be in 3..10, got {m}"):
        arrangements.cyclic_orders(m)


def nontrivial(sets):
    size = sets.sum(1)
    return (size > 1) & (size < sets.shape[1] - 1)


@pytest.mark.parametrize("m", [2, 3, 4, 5, 8, 12])
def test_every_matrix_is_a_sum_of_circular_splits(m):
    c = random_points(m, m)
    c = (c + c.T).fill_diagonal_(0)
    weights, sets = arrangements.circular_splits(c)
    total = sum(w * (s[:, None] ^ s).double() for w, s in zip(weights, sets, strict=True))
    assert torch.allclose(total, c, rtol=0, atol=1e-12)
    splits = {min(key, tuple(not s for s in key)) for key in map(tuple, sets.tolist())}
    assert len(splits) == len(sets) == m * (m - 1) // 2
    for s in sets:
        assert (s != s.roll(1)).sum() == 2, "an arc"


GAPS = {
    "1/t": lambda t: 1 / t,
    "1/t²": lambda t: t**-2,
    "exp(-t)": lambda t: (-t).exp(),
    "-√t": lambda t: -t.sqrt(),
    "-log t": lambda t: -t.log(),
}


def costs(x, g):
    distance = (x[:, None] - x).abs().fill_diagonal_(1)
    return (-g(distance)).fill_diagonal_(0)


@pytest.mark.parametrize("m", [4, 6, 9])
@pytest.mark.parametrize("g", GAPS.values(), ids=GAPS)
def test_points_in_order_on_a_line_are_kalmanson(g, m):
    """For every convex decreasing g of the distance."""
    for seed in range(20):
        x = torch.randn(m, generator=seeded(seed), dtype=torch.float64).sort().values
        weights, sets = arrangements.circular_splits(costs(x, g))
        assert nontrivial(sets).sum() == m * (m - 3) // 2
        assert (weights[nontrivial(sets)] >= -1e-12 * weights.abs().max()).all()


@pytest.mark.parametrize("g", GAPS.values(), ids=GAPS)
def test_points_in_any_other_order_are_not(g):
    x = torch.randn(6, generator=seeded(), dtype=torch.float64).sort().values
    for order in arrangements.cyclic_orders(6)[1:]:
        weights, sets = arrangements.circular_splits(costs(x[order], g))
        assert weights[nontrivial(sets)].min() < -1e-6


@pytest.mark.parametrize("m", range(3, 12))
def test_corners_next_to_each_other_have_the_least_sum_of_chords(m):
    """Of all sets of as many corners: what makes the natural order best for a Kalmanson matrix."""
    corners, place = arrangements.regular_polygon(m), torch.arange(m, dtype=torch.float64)
    chord = (corners[:, None] - corners).norm(dim=2)
    assert torch.allclose(
        chord, 2 * (math.pi * (place[:, None] - place).abs() / m).sin(), atol=1e-12
    )
    subsets = torch.tensor(list(itertools.product((0.0, 1.0), repeat=m)), dtype=torch.float64)
    sums = ((subsets @ chord) * subsets).sum(1) / 2
    arc = (subsets != subsets.roll(1, 1)).sum(1) <= 2
    for size in range(m + 1):
        alike = subsets.sum(1) == size
        least = sums[alike & arc]
        assert least.max() - least.min() < 1e-12
        assert (sums[alike & ~arc] > least.max() + 1e-6).all()


@pytest.mark.parametrize("m", [4, 5, 6, 7, 8])
def test_the_natural_order_has_the_least_lipschitz_constant(m):
    orders = arrangements.cyclic_orders(m)
    placed = arrangements.regular_polygon(m)[orders.argsort(1)]
    for seed in range(10):
        x = torch.randn(m, 1, generator=seeded(seed), dtype=torch.float64).sort(0).values
        constants = lipschitz(x, placed)
        assert constants[1:].min() > constants[0] + 1e-6


# --- bad input -----------------------------------------------------------------------------------

plain = unchecked("sscl_experiments.arrangements")
plain_similarities = unchecked("sscl_core.similarities")
Z = random_points(5, 3)
CIRCLE = Z[:, :2]
SQUARE = random_points(5, 5)


def with_row_of(value, row=2):
    return Z.index_fill(0, torch.tensor(row), value)


def on(function, **good):
    """A function with good arguments, one of which is replaced."""
    return lambda **bad: function(**good | bad)


def plain_slope(squared_distance, *, temperature, df):
    return plain_similarities.Student(temperature, df).slope(squared_distance)


SLOPE = on(plain_slope, squared_distance=SQUARE.square(), temperature=1.0, df=2.0)
MINIMISE = on(
    plain.minimise_free,
    objective=lambda z: z.square().sum(),
    shape=(2, 2),
    starts=2,
    generator=seeded(),
)
ENERGY = on(plain.minimal_energy, m=5, d=3, temperature=0.5, starts=1, generator=seeded())
TAMMES_5 = on(plain.tammes, m=5, d=3, starts=1, generator=seeded())
BAD = [
    (plain.regular_simplex, {"m": 0, "d": 0}, ValueError, "m must be at least 2, got 0"),
    (plain.regular_simplex, {"m": 1, "d": 3}, ValueError, "m must be at least 2, got 1"),
    (plain.regular_simplex, {"m": 3, "d": 1}, ValueError, "d must be at least m - 1 = 2"),
    (plain.regular_simplex, {"m": 3.0, "d": 2}, TypeError, "m must be a whole number, got 3.0"),
    (plain.regular_simplex, {"m": 3, "d": "2"}, TypeError, "d must be a whole number, got '2'"),
    *(
        (plain.regular_polygon, {"m": m}, ValueError, f"m must be at least 1, got {m}")
        for m in (0, -1)
    ),
    (
        plain.regular_polygon,
        {"m": torch.ones(2)},
        TypeError,
        "m must be a whole number, got tensor",
    ),
    (plain.uniform_arrangement, {"m": 0, "d": 2}, ValueError, "m must be at least 1, got 0"),
    (plain.uniform_arrangement, {"m": 3, "d": 0}, ValueError, "d must be at least 1, got 0"),
    (
        plain.uniform_arrangement,
        {"m": 3, "d": None},
        TypeError,
        "d must be a whole number, got None",
    ),
    (SLOPE, {"temperature": 0.0}, ValueError, "temperature must be positive"),
    (SLOPE, {"df": -1.0}, ValueError, "df must be positive"),
    (SLOPE, {"df": torch.ones(2)}, ValueError, "df must be a scalar"),
    (
        plain.circle_gaps,
        {"z": Z},
        ValueError,
        "z must have shape (m, 2), points on a circle, got (5, 3)",
    ),
    (plain.circle_gaps, {"z": CIRCLE[:0]}, ValueError, "z must have shape"),
    (plain.circle_gaps, {"z": 0 * CIRCLE}, ValueError, "z has a row of zeros, row 0"),
    (plain.fitted_polygon, {"z": Z}, ValueError, "points on a circle"),
    (plain.fitted_polygon, {"z": 0 * CIRCLE}, ValueError, "z has a row of zeros, row 0"),
    (plain.fitted_polygon, {"z": CIRCLE * math.inf}, ValueError, "z must be finite"),
    (MINIMISE, {"starts": 0}, ValueError, "starts must be at least 1, got 0"),
    (MINIMISE, {"shape": (0, 2)}, ValueError, "every size in shape must be at least 1, got 0"),
    *((f, {"m": 1}, ValueError, "m must be at least 2, got 1") for f in (ENERGY, TAMMES_5)),
    *((f, {"d": 0}, ValueError, "d must be at least 1, got 0") for f in (ENERGY, TAMMES_5)),
    *(
        (f, {"starts": 0}, ValueError, "starts must be at least 1, got 0")
        for f in (ENERGY, TAMMES_5)
    ),
    (ENERGY, {"temperature": 0.0}, ValueError, "temperature must be positive"),
    (ENERGY, {"temperature": "1"}, TypeError, "temperature must be a number"),
    (ENERGY, {"start": Z[:2]}, ValueError, "start must have shape (5, 3), got (2, 3)"),
    (ENERGY, {"start": with_row_of(0.0)}, ValueError, "start has a row of zeros, row 2"),
    (plain.smallest_angle, {"z": Z[:1]}, ValueError, "z must have at least 2 rows"),
    (plain.smallest_angle, {"z": with_row_of(0.0)}, ValueError, "z has a row of zeros, row 2"),
    (plain.cyclic_orders, {"m": 4.0}, TypeError, "m must be a whole number, got 4.0"),
    (plain.circular_splits, {"c": Z}, ValueError, "c must have shape (m, m), got (5, 3)"),
    (
        plain.circular_splits,
        {"c": SQUARE.tolist()},
        TypeError,
        "c must be a floating-point tensor, got list",
    ),
]


def named(part):
    """Without the address that the text of a function has: workers of pytest compare names."""
    return getattr(part, "__name__", str(part))[:40]


@pytest.mark.parametrize(("function", "arguments", "error", "message"), BAD, ids=named)
def test_bad_input(function, arguments, error, message):
    with pytest.raises(error) as caught:
        function(**arguments)
    assert type(caught.value) is error
    assert message in str(caught.value)


def test_the_slope_of_the_gaussian():
    """1/(2τ), which (ν+1) / (2 (τν + D)) is no number for at ν = ∞."""
    D = SQUARE.square()
    slope = Student(0.7, math.inf).slope(D)
    assert torch.equal(slope, torch.full((5, 5), 1 / 1.4, dtype=torch.float64))
    assert torch.allclose(Student(0.7, 1e12).slope(D), slope, rtol=1e-9)


@pytest.mark.parametrize(
    "number", [np.float32(1.5), np.int64(3), Fraction(3, 2)], ids=lambda x: type(x).__name__
)
def test_any_real_number_is_a_setting(number):
    D, exact = SQUARE.square().float(), float(number)
    slope = plain_slope(D, temperature=number, df=number)
    assert slope.dtype == torch.float32
    assert torch.equal(slope, Student(exact, exact).slope(D))
    ours = plain.minimal_energy(4, 2, temperature=number, starts=1, generator=seeded())
    assert torch.equal(
        ours, arrangements.minimal_energy(4, 2, temperature=exact, starts=1, generator=seeded())
    )
