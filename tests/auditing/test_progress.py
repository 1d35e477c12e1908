from dataclasses import replace

import pytest

from underfire.auditing.condition import NOISE, NONE, Condition
from underfire.auditing.plan import AuditPlan, PlannedPhoto, Unit
from underfire.auditing.progress import Eta
from underfire.auditing.unit import Event

PGD, CAM = Condition("pgd"), Condition.on("adv2", "cam")
PLAN = AuditPlan(interpreters=("cam",), steps=10)


def unit(number: int, *, excluded: int = 0) -> Unit:
    return Unit(
        number,
        tuple(
            PlannedPhoto(f"{number}-{i}", f"{i}", "", "", 0, True, 1, "misclassified" if i < excluded else None)
            for i in range(2)
        ),
    )


def test_nothing_is_known_before_the_first_event() -> None:
    assert Eta(PLAN, [unit(0)]).remaining(0.0) is None


def test_measured_conditions_cost_what_they_cost_and_others_their_passes() -> None:
    eta = Eta(PLAN, [unit(0)])
    eta.advance(Event(0, NONE, 2, 1.0))
    eta.advance(Event(0, NOISE, 2, 1.0))
    eta.advance(Event(0, PGD, 2, 6.0))  # 3 s a photo, 10 steps: CAM is expected to take as long
    assert eta.remaining(8.0) == pytest.approx(6.0)
    eta.advance(Event(0, CAM, 2, 9.0))
    eta.advance(Event(0, None, 2))
    assert eta.share == 1.0
    assert eta.remaining(17.0) == 0.0


def expected(plan: AuditPlan) -> dict[str, float | None]:
    """Seconds still to go for ADV² on one interpreter, after 10 seconds of PGD and nothing before."""
    found: dict[str, float | None] = {}
    for name in ("cam", "grad"):
        eta = Eta(replace(plan, interpreters=(name,)), [unit(0)])
        for condition, seconds in ((NONE, 0.0), (NOISE, 0.0), (PGD, 10.0)):
            eta.advance(Event(0, condition, 2, seconds))
        found[name] = eta.remaining(10.0)
    return found


def test_what_is_unknown_is_counted_in_passes() -> None:
    assert expected(AuditPlan(passes=40)) == pytest.approx({"cam": 10.0, "grad": 10.0})
    assert expected(AuditPlan(steps=40)) == pytest.approx({"cam": 10.0, "grad": 20.0})
    assert expected(AuditPlan(preset="authors")) == pytest.approx({"cam": 10.0, "grad": 10.0 * 2 * 1004 / 1600})


def test_the_clock_tells_the_speed_when_several_units_run_at_once() -> None:
    eta = Eta(PLAN, [unit(0), unit(1)])
    for condition, seconds in ((NONE, 1.0), (NOISE, 1.0), (PGD, 6.0), (CAM, 12.0)):
        eta.advance(Event(0, condition, 2, seconds))
    assert eta.remaining(10.0) == pytest.approx(10.0)  # half is done in 10 s, though it took 20 s of work


def test_excluded_photos_are_not_waited_for() -> None:
    eta = Eta(PLAN, [unit(0, excluded=2)])
    eta.advance(Event(0, NONE, 2, 1.0))
    assert eta.share == 1.0
