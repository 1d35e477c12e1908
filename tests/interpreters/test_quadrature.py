"""Quadrature rules against integrals that are known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underfire.errors import InputError
from underfire.interpreters.quadrature import Rule, nodes

RULES: tuple[Rule, ...] = ("midpoint", "gauss-legendre")


def _power(points: int, rule: Rule, degree: int) -> float:
    return math.fsum(weight * at**degree for at, weight in nodes(points, rule))


@given(st.integers(1, 64), st.sampled_from(RULES))
def test_nodes_lie_inside_in_order_and_weights_sum_to_one(points: int, rule: Rule) -> None:
    pairs = nodes(points, rule)
    at = [t for t, _ in pairs]
    assert len(pairs) == points
    assert at[0] > 0
    assert at[-1] < 1
    assert at == sorted(set(at))
    assert all(w > 0 for _, w in pairs)
    assert math.fsum(w for _, w in pairs) == pytest.approx(1, abs=1e-12)


@given(st.integers(1, 20), st.data())
def test_gauss_legendre_is_exact_up_to_degree_2n_minus_1(points: int, data: st.DataObject) -> None:
    degree = data.draw(st.integers(0, 2 * points - 1))
    assert _power(points, "gauss-legendre", degree) == pytest.approx(1 / (degree + 1), rel=1e-12)


@given(st.integers(1, 10))
def test_and_not_beyond(points: int) -> None:
    degree = 2 * points
    assert _power(points, "gauss-legendre", degree) < 1 / (degree + 1) * (1 - 1e-12)


@given(st.integers(1, 200))
def test_midpoint_is_off_by_one_over_twelve_n_squared_for_a_square(points: int) -> None:
    assert _power(points, "midpoint", 1) == pytest.approx(1 / 2, abs=1e-12)
    assert _power(points, "midpoint", 2) == pytest.approx(1 / 3 - 1 / (12 * points**2), abs=1e-12)


@pytest.mark.parametrize("points", [0, -3])
@pytest.mark.parametrize("rule", RULES)
def test_no_point_is_refused(points: int, rule: Rule) -> None:
    with pytest.raises(InputError, match=f"points is {points}; a quadrature takes at least 1 point"):
        nodes(points, rule)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(InputError, match="rule 'simpson' is unknown; give 'midpoint' or 'gauss-legendre'"):
        nodes(4, "simpson")  # type: ignore[arg-type]
