"""Verdicts on claims: the sign test of a majority by closed forms, how often it is wrong, and what several make."""

import random
from itertools import product

import pytest

from underfire.stats import Estimate, least_photos, sign_test
from underfire.studies.study import Verdict, above, below, majority, together


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_p_value_is_the_share_of_sequences_as_lopsided(n: int) -> None:
    tosses = [sum(sequence) for sequence in product((0, 1), repeat=n)]
    for k in range(n + 1):
        lopsided = sum(max(heads, n - heads) >= max(k, n - k) for heads in tosses)
        assert sign_test(k, n) == pytest.approx(lopsided / 2**n)


def test_the_p_value_at_its_ends() -> None:
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 10) == 1.0
    assert sign_test(10, 10) == sign_test(0, 10) == 2**-9
    assert sign_test(0, 2000) == pytest.approx(0.0)
    assert sign_test(1000, 2000) == 1.0
    assert sign_test(1030, 2000) == pytest.approx(0.187, abs=0.001)


@pytest.mark.parametrize(("tests", "photos"), [(1, 6), (2, 7), (4, 8), (6, 8), (20, 10)])
def test_the_fewest_photos_that_can_decide(tests: int, photos: int) -> None:
    assert least_photos(tests) == photos
    assert majority(photos, photos, tests) is Verdict.HOLDS
    assert majority(0, photos, tests) is Verdict.FAILS
    assert majority(photos - 1, photos - 1, tests) is Verdict.UNDECIDED


def test_majorities_by_hand() -> None:
    assert [majority(k, 12, 6) for k in (12, 0, 6)] == [Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED]
    assert majority(7, 7, 6) is Verdict.UNDECIDED


@pytest.mark.parametrize("n", [8, 15, 40])
def test_wrong_verdicts_are_as_rare_as_promised(n: int) -> None:
    """The worst case: an even chance on every photo in every cell, so that any verdict is wrong."""
    rng, tests, runs = random.Random(n), 6, 2000
    decided = [majority(k, n, tests) is not Verdict.UNDECIDED for k in range(n + 1)]
    wrong = sum(any(decided[rng.getrandbits(n).bit_count()] for _ in range(tests)) for _ in range(runs))
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_several_verdicts_make_one() -> None:
    holds, fails, undecided = Verdict
    assert together([holds, holds]) is holds
    assert together([holds, undecided]) is undecided
    assert together([undecided, fails, holds]) is fails
    assert together([]) is undecided


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.5, Verdict.HOLDS),
        (-0.1, 0.5, Verdict.UNDECIDED),
        (0.0, 0.5, Verdict.UNDECIDED),
        (-0.5, -0.1, Verdict.FAILS),
        (None, None, Verdict.UNDECIDED),
    ],
)
def test_an_interval_decides_what_it_lies_above(low: float | None, high: float | None, verdict: Verdict) -> None:
    assert above(Estimate(0.2, low, high, 9)) is verdict
    assert below(Estimate(0.2, low, high, 9)) is verdict.opposite
    low, high = (None if end is None else end + 1 for end in (low, high))
    assert above(Estimate(1.2, low, high, 9), 1) is verdict


@pytest.mark.parametrize(
    "call",
    [lambda: sign_test(3, 2), lambda: least_photos(0), lambda: majority(1, 1, 0), lambda: majority(2, 1, 1)],
)
def test_nonsense_is_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        call()  # type: ignore[operator]
