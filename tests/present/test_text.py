"""How numbers are written."""

import pytest

from underfire.present.text import budget, class_title, interval, limit, listing, number, percent
from underfire.stats import wilson


@pytest.mark.parametrize(
    ("share", "written"),
    [(0, "0 %"), (0.001, "0.1 %"), (0.012, "1 %"), (0.5, "50 %"), (0.97, "97 %"), (0.996, "99.6 %"), (1, "100 %")],
)  # fmt: skip
def test_percent_keeps_certainty_for_the_certain(share: float, written: str) -> None:
    assert percent(share) == written


@pytest.mark.parametrize(
    ("eps", "norm", "written"),
    [
        (8 / 255, "linf", "8/255"),
        (0.031, "linf", "0.031"),
        (1, "linf", "255/255"),
        (0.001, "linf", "0.001"),
        (3.0, "l2", "3"),
        (1.0, "flow", "1 pixel"),
        (0.5, "flow", "0.5 pixels"),
    ],
)
def test_budget(eps: float, norm: str, written: str) -> None:
    assert budget(eps, norm) == written
    assert written in limit(eps, norm)


def test_names() -> None:
    assert class_title(3, {"3": "tench"}) == "tench"
    assert class_title(4, {"3": "tench", "4": " "}) == "class 4"


def test_nothing_measured_is_a_dash() -> None:
    assert number(None) == "–"
    assert interval(wilson(0, 0)) == "–"


def test_listing() -> None:
    assert [listing(["a", "b", "c"][:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
