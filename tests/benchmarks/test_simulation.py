"""The simulated audit takes what closed forms say, and everybody's time is accounted for."""

import math
from dataclasses import replace

import pytest
from click.testing import CliRunner

from benchmarks.audit_costs import Costs
from benchmarks.simulation import (
    AGAIN,
    DRIVER,
    IDLE,
    MOST_OFTEN,
    PLAN,
    SAVING,
    SLOW,
    STARTING,
    WAITING,
    Job,
    Troubles,
    main,
    passes_of,
    simulate,
)
from support.toy_photos import toy_classifier, toy_plan
from underfire.interpreters import CAM, GRAD

COSTS = Costs(one_pass=0.5, image=0.0625, photo=2.0, row=0.125, start=3.0)


@pytest.mark.parametrize(("parts", "workers"), [(1, 1), (12, 5), (7, 7), (7, 64), (1000, 256)])
def test_undisturbed_it_takes_as_many_rounds_as_there_are_parts_a_worker(parts: int, workers: int) -> None:
    course = simulate(Job(parts, seconds=8.0), workers)
    assert course.seconds == math.ceil(parts / workers) * 8.0
    assert course.efficiency == pytest.approx(parts / (workers * math.ceil(parts / workers)))


def test_what_the_driver_does_alone_and_what_a_worker_needs_to_start_come_on_top() -> None:
    job = Job(12, seconds=8.0, start=3.0, before=100.0, after=50.0)
    course = simulate(job, 4)
    assert course.seconds == 100.0 + 3.0 + 3 * 8.0 + 50.0
    assert dict(course.spent) == {
        DRIVER: 600.0,
        STARTING: 12.0,
        WAITING: 0.0,
        SLOW: 0.0,
        AGAIN: 0.0,
        SAVING: 0.0,
        IDLE: 0.0,
    }
    assert course.reason == DRIVER


def test_the_driver_takes_back_one_part_at_a_time() -> None:
    course = simulate(Job(40, seconds=1.0, handling=0.5), 40)  # all are done at once
    assert course.seconds == 1.0 + 40 * 0.5
    assert course.spent[WAITING] == pytest.approx(0.5 * 40 * 41 / 2)
    busy = simulate(Job(4000, seconds=1.0, handling=0.5), 256)  # however many work, two parts in a second
    assert busy.seconds == pytest.approx(1.0 + 4000 * 0.5)


def test_slow_workers_take_their_time() -> None:
    course = simulate(Job(6, seconds=8.0), 3, Troubles(slow=1.0, slowdown=2.5))
    assert course.seconds == 2 * 8.0 * 2.5
    assert course.spent[SLOW] == pytest.approx(6 * 8.0 * 1.5)


def test_a_lost_part_is_begun_again_from_nothing() -> None:
    job = Job(20_000, seconds=1800.0)
    course = simulate(job, 1, Troubles(losses=1.0), seed=3)
    rate = 1 / 3600
    expected = math.expm1(rate * job.seconds) / rate  # of a part that is begun until it is done
    assert course.seconds / job.parts == pytest.approx(expected, rel=0.02)
    assert course.lost == pytest.approx(job.parts * math.expm1(rate * job.seconds), rel=0.03)


@pytest.mark.parametrize("workers", [1, 7, 60])
def test_all_time_is_accounted_for(workers: int) -> None:
    job = Job(50, seconds=900.0, start=30.0, handling=2.0, before=70.0, after=40.0)
    course = simulate(job, workers, Troubles(losses=0.4, slow=0.3, slowdown=2.0), seed=5)
    assert course.work + sum(course.spent.values()) == pytest.approx(workers * course.seconds)
    assert min(course.spent.values()) >= -1e-6
    assert course.lost > 0
    assert course == simulate(job, workers, Troubles(losses=0.4, slow=0.3, slowdown=2.0), seed=5)
    assert course != simulate(job, workers, Troubles(losses=0.4, slow=0.3, slowdown=2.0), seed=6)


def test_a_part_that_would_never_be_done_is_refused() -> None:
    job = Job(1, seconds=3600 * MOST_OFTEN)
    with pytest.raises(Exception, match=r"a part takes 5 hours, in which a worker is lost 5\.5 times"):
        simulate(job, 1, Troubles(losses=1.1))


def test_the_last_part_may_be_a_smaller_one_and_counts_as_a_whole() -> None:
    images = len(PLAN.conditions)
    job = Job.of(COSTS, photos=10, batch=4, passes=6, handling=0.25)
    assert (job.parts, job.handling, job.start, job.before) == (3, 0.25, 3.0, 20.0)
    assert job.seconds == pytest.approx(4 * (6 * 0.5 + images * 0.0625))
    assert job.saving == pytest.approx(4 * images * 0.0625)
    assert job.after == 10 * images * len(PLAN.interpreters) * 0.125
    assert Job.of(COSTS, photos=2, batch=4, passes=6).seconds == job.seconds / 2


def test_images_are_saved_however_fast_a_pass_is() -> None:
    course = simulate(Job(6, seconds=8.0, saving=6.0), 3)
    assert (course.seconds, course.work, course.reason) == (16.0, 12.0, SAVING)


def test_passes_are_those_of_the_plan() -> None:
    plan, classifier = replace(toy_plan(), attacks=("pgd",), steps=16), toy_classifier()
    seen = 1 + GRAD(classifier).passes_per_map + CAM(classifier).passes_per_map
    assert passes_of(plan, classifier) == 17 + seen * (1 + 2 + 2)  # untouched, noise, and PGD


def test_the_page_tells_where_it_stops_scaling() -> None:
    quick = ["--passes", "100", "--photos", "2000", "--batch-size", "50", "--losses", "0", "--slow", "0"]
    seconds = [
        "--one-pass",
        "0.01",
        "--photo",
        "0.01",
        "--part",
        "0.001",
        "--image",
        "1e-9",
        "--row",
        "1e-9",
        "--start",
        "1e-9",
    ]
    ended = CliRunner().invoke(main, [*quick, *seconds, "--dollars", "3600"])
    assert ended.exit_code == 0, ended.output
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in ended.output.splitlines()]
    (one,) = (row for row in cells if row[0] == "1" and len(row) == 9)
    hours = (2000 * 0.01 + 40 * 50.001) / 3600
    assert [float(one[1]), float(one[5])] == [pytest.approx(hours, abs=0.006), pytest.approx(3600 * hours, abs=0.6)]
    (most,) = (row for row in cells if row[0] == "256" and len(row) == 9)
    assert most[8] == IDLE  # 40 parts
