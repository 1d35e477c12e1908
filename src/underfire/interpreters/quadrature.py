"""Nodes and weights on [0, 1]."""

from typing import Literal

import numpy as np

from underfire.errors import InputError

Rule = Literal["midpoint", "gauss-legendre"]


def nodes(points: int, rule: Rule) -> tuple[tuple[float, float], ...]:
    """(position, weight) pairs of a rule with ``points`` nodes on [0, 1]; the weights sum to 1.

    Raises:
        InputError: no such rule, or no point at all.
    """
    if points < 1:
        raise InputError(f"points is {points}; a quadrature takes at least 1 point.")
    if rule == "midpoint":
        return tuple(((k + 0.5) / points, 1 / points) for k in range(points))
    if rule == "gauss-legendre":
        at, weight = np.polynomial.legendre.leggauss(points)
        return tuple((float(a + 1) / 2, float(w) / 2) for a, w in zip(at, weight, strict=True))
    raise InputError(f"rule {rule!r} is unknown; give 'midpoint' or 'gauss-legendre'.")
