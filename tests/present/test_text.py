"""How numbers are written."""

import pytest

from underfire.present.text import agreeing, budget, class_title, interval, limit, listing, number, of, percent, plural
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


@pytest.mark.parametrize(
    ("k", "n", "written"), [(0, 1, "0 of 1 photo are"), (1, 1, "1 of 1 photo is"), (2, 3, "2 of 3 photos are")]
)
def test_nouns_and_verbs_agree_with_their_counts(k: int, n: int, written: str) -> None:
    assert f"{of(wilson(k, n), 'photo')} {agreeing(k, 'is', 'are')}" == written
    assert of(wilson(k, n)) == f"{k} of {n}"
    assert plural(0, "photo") == "0 photos"


def test_names() -> None:
    assert class_title(3, {"3": "tench"}) == "tench"
    assert class_title(4, {"3": "tench", "4": " "}) == "class 4"


def test_nothing_measured_is_a_dash() -> None:
    assert number(None) == "–"
    assert interval(wilson(0, 0)) == "–"


def test_listing() -> None:
    assert [listing(["a", "b", "c"][:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
