"""The sign test of transfer: closed forms, and how often it is wrong."""

import random
from itertools import product

import pytest
from underfire.studies.transfer_statistics import Nearness, Verdict, nearness

from underfire.stats import least_photos, sign_test


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


@pytest.mark.parametrize(("looks", "photos"), [(1, 6), (2, 7), (4, 8), (6, 8), (20, 10)])
def test_the_fewest_photos_that_can_decide(looks: int, photos: int) -> None:
    assert least_photos(looks) == photos
    assert Nearness(photos, photos, sign_test(photos, photos)).verdict(looks) is Verdict.NEARER
    fewer = photos - 1
    assert Nearness(fewer, fewer, sign_test(fewer, fewer)).verdict(looks) is Verdict.UNDECIDED


def test_nearer_is_nearer_by_more_than_the_margin() -> None:
    pgd = [1.0, 1.0, 1.0, 0.0, 0.5]
    attack = [0.79, 0.8, 0.81, 0.0, 0.1]
    assert nearness(attack, pgd, margin=0.2).nearer == 2
    assert nearness(attack, pgd, margin=0.0).nearer == 4
    assert nearness([], []) == Nearness(0, 0, 1.0)


def test_verdicts_by_hand() -> None:
    far, near = [0.3] * 12, [0.03] * 12
    assert nearness(near, far).verdict(6) is Verdict.NEARER
    assert nearness(far, far).verdict(6) is Verdict.NOT_NEARER
    assert nearness(near[:6] + far[:6], far).verdict(6) is Verdict.UNDECIDED
    assert nearness(near[:7], far[:7]).verdict(6) is Verdict.UNDECIDED


@pytest.mark.parametrize("n", [8, 15, 40])
def test_wrong_verdicts_are_as_rare_as_promised(n: int) -> None:
    """The worst case: an even chance on every photo in every cell, so that any verdict is wrong."""
    rng, looks, runs = random.Random(n), 6, 2000
    wrong = 0
    for _ in range(runs):
        counts = [rng.getrandbits(n).bit_count() for _ in range(looks)]
        wrong += any(Nearness(k, n, sign_test(k, n)).verdict(looks) is not Verdict.UNDECIDED for k in counts)
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda: nearness([0.1], []),
        lambda: nearness([-0.1], [0.1]),
        lambda: nearness([float("nan")], [0.1]),
        lambda: nearness([0.1], [0.1], margin=1.0),
        lambda: sign_test(3, 2),
        lambda: least_photos(0),
        lambda: Nearness(1, 1, 1.0).verdict(0),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        call()  # type: ignore[operator]
