from dataclasses import replace

import pytest

from underfire.studies.gap_statistics import Trial, companion, successes, typical, works

TRIAL = Trial(
    photo="a", success=True, confidence=0.9, l1=0.1, iou=0.8,
    l1_benign=0.4, iou_benign=0.1, l1_pgd=0.3, iou_pgd=0.2, pgd_success=True,
)  # fmt: skip
LABELS = {f"photo-{i}": i % 4 for i in range(24)}


def test_a_success_has_the_label_and_comes_half_of_the_way_from_the_nearer_start() -> None:
    assert replace(TRIAL, l1=0.15).succeeds
    assert not replace(TRIAL, l1=0.16).succeeds
    assert not replace(TRIAL, success=False).succeeds
    assert not replace(TRIAL, l1=0.15, l1_benign=0.2).succeeds
    assert replace(TRIAL, l1=0.0, l1_benign=0.0).succeeds


def test_where_pgd_failed_the_way_begins_at_the_benign_map() -> None:
    assert replace(TRIAL, l1=0.2, pgd_success=False).succeeds
    assert not replace(TRIAL, l1=0.21, pgd_success=False).succeeds
    assert not replace(TRIAL, l1=0.2, pgd_success=True).succeeds


@pytest.mark.parametrize(
    ("good", "bad", "verdict"),
    [(9, 1, True), (1, 9, False), (6, 0, True), (0, 6, False), (5, 5, None), (5, 0, None), (8, 2, None)],
)
def test_the_verdict_is_that_of_a_sign_test(good: int, bad: int, verdict: bool | None) -> None:
    rate = successes([TRIAL] * good + [replace(TRIAL, success=False)] * bad)
    assert (rate.k, rate.n) == (good, good + bad)
    assert works(rate) is verdict


def test_nothing_tried_is_nothing_decided() -> None:
    assert works(successes([])) is None
    assert typical([]) is None


def test_the_typical_trial_is_the_lower_median_of_those_that_reached_the_label() -> None:
    trials = [replace(TRIAL, photo=name, l1=l1) for name, l1 in (("d", 0.4), ("b", 0.2), ("c", 0.2), ("a", 0.1))]
    best_of_all = replace(TRIAL, photo="e", l1=0.0, success=False)
    found = typical([*trials, best_of_all])
    assert found is not None
    assert found.photo == "b"
    assert typical([best_of_all]) is None


def test_a_companion_is_of_the_target_class_where_there_is_one() -> None:
    for name, label in LABELS.items():
        for target in {*LABELS.values()} - {label}:
            donor = companion(name, target, LABELS, seed=0)
            assert donor is not None
            assert LABELS[donor] == target


def test_else_it_is_of_a_third_class_and_belongs_to_seed_and_photo() -> None:
    drawn = {name: companion(name, target=99, labels=LABELS, seed=0) for name in LABELS}
    for name, donor in drawn.items():
        assert donor is not None
        assert LABELS[donor] != LABELS[name]
    assert len(set(drawn.values())) > 4
    assert drawn == {name: companion(name, 99, dict(reversed(LABELS.items())), seed=0) for name in LABELS}
    assert drawn != {name: companion(name, 99, LABELS, seed=1) for name in LABELS}


def test_a_photo_less_changes_the_choice_of_those_alone_that_had_drawn_it() -> None:
    less = {name: label for name, label in LABELS.items() if name != "photo-5"}
    for name in less:
        before = companion(name, 99, LABELS, seed=0)
        assert before in (companion(name, 99, less, seed=0), "photo-5")


def test_no_photo_of_another_class_is_no_companion() -> None:
    assert companion("a", 1, {"a": 0, "c": 0}, seed=0) is None
