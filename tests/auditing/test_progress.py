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
    maps = 2 * 2  # of the image as computed and as saved: a prediction and a map
    assert expected(AuditPlan(steps=40)) == pytest.approx({"cam": 10.0, "grad": 10.0 * (80 + maps) / (40 + maps)})
    authors = 10.0 * (2 * 1004 + maps) / (1600 + maps)
    assert expected(AuditPlan(preset="authors")) == pytest.approx({"cam": 10.0, "grad": authors})


def test_the_first_estimate_starts_from_the_passes_of_the_plan() -> None:
    """Before any attack is done, the price of a pass is that of the maps of the untouched photos."""
    plan = AuditPlan(interpreters=("ig", "cam"), passes=300)
    eta = Eta(plan, [unit(number) for number in range(5)])
    eta.advance(Event(0, NONE, 2, 3.4))  # 34 passes a photo: a prediction, 32 for the map of IG and one for CAM's
    price = 3.4 / (2 * 34)
    whole = 10 * price * (34 + 2 * 34 + 3 * (300 + 2 * 34))
    assert eta.remaining(3.4) == pytest.approx(whole - 3.4)


def test_attacks_on_the_same_interpreter_cost_alike() -> None:
    plan = AuditPlan(interpreters=("grad", "cam"), goals=("target/kept", "kept/topk"), passes=100)
    eta = Eta(plan, [unit(0)])
    seconds = {"grad": 9.0, "cam": 4.0}
    done = [c for c in plan.conditions if c.attack != "map"]
    for condition in done:
        eta.advance(Event(0, condition, 2, seconds.get(condition.source, 0.0)))
    assert [str(c) for c in plan.conditions if c not in done] == ["map-grad", "map-cam"]
    assert eta.remaining(13.0) == pytest.approx(13.0)


@pytest.mark.parametrize("speed", [1.0, 3.0])
@pytest.mark.parametrize("fast", ["cam", "ig"])
def test_from_a_tenth_of_the_work_on_it_is_within_a_fifth(fast: str, speed: float) -> None:
    """Passes of one interpreter are half as dear as those of others, and units differ by a tenth."""
    plan = AuditPlan(interpreters=("cam", "grad", "ig"), goals=("target/kept", "kept/topk"), passes=300)
    todo = [unit(number) for number in range(20)]
    events = []
    for part in todo:
        for condition in plan.conditions:
            maps = (34 + 1) * (1 if condition == NONE else 2)
            passes = maps + (plan.effort_of(condition).passes or 0)
            price = speed * (0.5 if condition.source == fast else 1.0) * (0.9 if part.number % 2 else 1.1)
            events.append(Event(part.number, condition, 2, 2 * passes * price))
    whole, elapsed, eta = sum(event.seconds for event in events), 0.0, Eta(plan, todo)
    for event in events[:-1]:
        eta.advance(event)
        elapsed += event.seconds
        if elapsed >= 0.1 * whole:
            assert eta.remaining(elapsed) == pytest.approx(whole - elapsed, rel=0.2)


def test_the_clock_tells_the_speed_when_several_units_run_at_once() -> None:
    eta = Eta(PLAN, [unit(0), unit(1)])
    for condition, seconds in ((NONE, 1.0), (NOISE, 1.0), (PGD, 6.0), (CAM, 12.0)):
        eta.advance(Event(0, condition, 2, seconds))
    assert eta.remaining(10.0) == pytest.approx(10.0)  # half is done in 10 s, though it took 20 s of work


def test_excluded_photos_are_not_waited_for() -> None:
    eta = Eta(PLAN, [unit(0, excluded=2)])
    eta.advance(Event(0, NONE, 2, 1.0))
    assert eta.share == 1.0
