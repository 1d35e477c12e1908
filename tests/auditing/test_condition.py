"""Conditions and how they are written."""

import pytest

from underfire.auditing.condition import NOISE, NONE, PGD, Condition

WRITTEN = {
    "none": NONE,
    "noise": NOISE,
    "pgd": PGD,
    "adv2-cam": Condition.on("adv2", "cam"),
    "adv2-cam+grad": Condition.on("adv2", "cam", "grad"),
    "stadv-my-map": Condition.on("stadv", "my-map"),
    "adv2-cam@kept/topk": Condition("adv2", "kept/topk", ("cam",)),
    "pgd@other/free": Condition("pgd", "other/free"),
}


@pytest.mark.parametrize(("text", "condition"), WRITTEN.items())
def test_a_condition_is_read_as_it_was_written(text: str, condition: Condition) -> None:
    assert str(condition) == text
    assert Condition.parse(text) == condition


@pytest.mark.parametrize("condition", [NONE, PGD, Condition.on("adv2", "cam"), Condition.on("adv2", "cam", "grad")])
def test_a_condition_of_a_row_is_that_of_its_columns(condition: Condition) -> None:
    assert Condition.of_columns(condition.attack, condition.source, condition.goal) == condition


def test_titles_are_those_of_the_literature() -> None:
    assert Condition.on("adv2", "cam", "grad").title == "ADV² on CAM + GRAD"
    assert Condition.on("stadv", "gradcam").title == "StAdv on Grad-CAM"
    assert Condition("mine", sources=("cam",)).title == "mine on CAM"
    assert [c.title for c in (NONE, NOISE, PGD)] == ["No attack", "Harmless noise", "PGD"]
    assert Condition("adv2", "kept/topk", ("cam",)).title == "ADV² on CAM, goal kept/topk"


def test_what_is_attacked() -> None:
    joint = Condition.on("adv2", "cam", "grad")
    assert [c.is_control for c in (NONE, NOISE, PGD, joint)] == [True, True, False, False]
    assert [c.is_joint for c in (NONE, NOISE, PGD, joint)] == [False, False, False, True]
    assert joint.is_own("cam")
    assert not joint.is_own("ca")
    assert not PGD.is_own("-")


@pytest.mark.parametrize("text", ["", "-cam", "adv2-", "adv2-cam+", "adv2-cam@", "pgd@a@b"])
def test_what_no_condition_is_written_as_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        Condition.parse(text)


def test_names_that_would_be_misread_are_refused() -> None:
    for wrong in ("my-attack", "a@b"):
        with pytest.raises(ValueError, match="name of an attack"):
            Condition(wrong)
    for wrong in ("a+b", "-", ""):
        with pytest.raises(ValueError, match="name of an interpreter"):
            Condition.on("adv2", wrong)
