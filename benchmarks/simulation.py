"""``python -m benchmarks.simulation``: what an audit takes on 1 to 256 workers, and where more of them stop helping.

A discrete-event simulation of the engine that works on a cluster. The driver reads and predicts every photo; then each
worker has one part after the other, and the driver takes back one part at a time; in the end it writes the report. A
worker may be lost, and its part is then begun again from nothing, by whichever worker is free first.
"""

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import click
import numpy as np

from benchmarks.audit_costs import Costs
from benchmarks.tables import Table
from underfire import load_classifier
from underfire.auditing.attackers import attack_of
from underfire.auditing.cost import costs_of
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.models.classifier import Classifier

GOALS = ("target/kept", "other/kept", "kept/topk", "kept/center", "kept/l1", "target/free")
PLAN = AuditPlan(interpreters=("grad", "ig", "cam", "gradcam", "rts"), goals=GOALS, passes=300)
MEASURED = Costs(one_pass=0.0389, image=0.0147, photo=0.0257, row=1.77e-5, start=2.61)
"""By `python -m benchmarks.audit_costs`, on one core of an AMD EPYC, a process of one thread on the other one."""

PART = 0.01
"""Seconds of the driver to take back a part: assumed."""

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCHES = (1, 4, 16, 64, 256)
FASTER = (1, 10, 100, 1000, 10000)
SCALES = 0.8
"""As long as so much of the workers' time is work, an audit counts as scaling."""

MOST_OFTEN = 5.0
"""Losses in the time of a part, on average, from which on no part would ever be done."""

_HOUR = 3600


@dataclass(frozen=True)
class Troubles:
    """What goes wrong.

    Attributes:
        losses: of a worker, per hour that it works.
        slow: share of the workers that are slow.
        slowdown: how many times as long a slow one takes.
    """

    losses: float = 0.0
    slow: float = 0.0
    slowdown: float = 2.0


@dataclass(frozen=True)
class Job:
    """An audit, in parts of equal work.

    Attributes:
        parts: how many.
        seconds: of a part, on a worker that is not slow.
        saving: those of them in which images are saved and read back, which no faster pass shortens.
        start: seconds until a worker is ready for its first part.
        handling: of the driver, for each part that comes back.
        before, after: seconds of the driver with no worker at work.
    """

    parts: int
    seconds: float
    saving: float = 0.0
    start: float = 0.0
    handling: float = 0.0
    before: float = 0.0
    after: float = 0.0

    @classmethod
    def of(cls, costs: Costs, *, photos: int, batch: int, passes: float, handling: float = PART) -> "Job":
        """The audit of ``photos`` photos by ``batch`` of them, each of ``passes`` passes, as the plan has it."""
        together, images = min(batch, photos), len(PLAN.conditions)
        rows = images * len(PLAN.interpreters)
        return cls(
            parts=math.ceil(photos / batch),
            seconds=together * (passes * costs.one_pass + images * costs.image),
            saving=together * images * costs.image,
            start=costs.start,
            handling=handling,
            before=photos * costs.photo,
            after=photos * rows * costs.row,
        )


@dataclass(frozen=True)
class Course:
    """How it went.

    Attributes:
        workers: all that were paid for.
        seconds: from beginning to end.
        work: seconds of all workers that went into passes, at the speed of one that is not slow.
        lost: workers that were.
        spent: seconds of all workers that went elsewhere, by why.
    """

    workers: int
    seconds: float
    work: float
    lost: int
    spent: Mapping[str, float]

    @property
    def efficiency(self) -> float:
        """The share of the workers' time that was work."""
        return self.work / (self.workers * self.seconds)

    @property
    def hours(self) -> float:
        """From beginning to end."""
        return self.seconds / _HOUR

    @property
    def reason(self) -> str:
        """What took most of the workers' time, other than work."""
        return max(self.spent, key=lambda why: self.spent[why])


DRIVER, STARTING, WAITING = "driver alone", "starting", "waiting for the driver"
SAVING = "saving images"
SLOW, AGAIN, IDLE = "slow workers", "parts begun again", "idle at the end"


class Simulation:
    """One audit by ``workers`` workers, on a clock of its own."""

    def __init__(self, job: Job, workers: int, troubles: Troubles, *, seed: int) -> None:
        self._job, self._workers, self._troubles = job, workers, troubles
        self._draws = np.random.default_rng(seed)
        self._left = job.parts
        self._idle: list[int] = []
        self._slow = [False] * workers
        self._events: list[tuple[float, int, str, float]] = []  # when, to which worker, what, and since when it worked
        self._spent = dict.fromkeys((DRIVER, STARTING, WAITING, SLOW, AGAIN), 0.0)
        self._lost = 0

    def run(self) -> Course:
        """To the end."""
        job, handled, done = self._job, 0.0, 0
        for worker in range(min(self._workers, job.parts)):
            self._start(worker, 0.0)
        while done < job.parts:
            now, worker, what, since = heapq.heappop(self._events)
            if what == "ready":
                self._idle.append(worker)
            elif what == "lost":
                self._lost += 1
                self._left += 1
                self._spent[AGAIN] += now - since
                self._start(worker, now)
            else:
                done += 1
                handled = max(now, handled) + job.handling
                self._spent[SLOW] += now - since - job.seconds
                self._spent[WAITING] += handled - now
                self._idle.append(worker)
            while self._left and self._idle:
                self._begin(self._idle.pop(), max(now, handled) if what == "done" else now)
        total = job.before + handled + job.after
        self._spent[DRIVER] = self._workers * (job.before + job.after)
        self._spent[SAVING] = job.parts * job.saving
        work = job.parts * (job.seconds - job.saving)
        idle = self._workers * total - work - sum(self._spent.values())
        return Course(self._workers, total, work, self._lost, self._spent | {IDLE: idle})

    def _start(self, worker: int, now: float) -> None:
        """Another one takes the place of ``worker``, or it is the first there."""
        self._slow[worker] = bool(self._draws.random() < self._troubles.slow)
        self._spent[STARTING] += self._job.start
        heapq.heappush(self._events, (now + self._job.start, worker, "ready", now))

    def _begin(self, worker: int, now: float) -> None:
        """``worker`` has a part from ``now`` on."""
        self._left -= 1
        takes = self._job.seconds * (self._troubles.slowdown if self._slow[worker] else 1)
        rate = self._troubles.losses / _HOUR
        lost = self._draws.exponential(1 / rate) if rate else math.inf
        heapq.heappush(self._events, (now + min(takes, lost), worker, "lost" if lost < takes else "done", now))


def often(job: Job, troubles: Troubles) -> float:
    """How often a worker is lost in the time of a part, on average and if it is slow."""
    return troubles.losses * job.seconds * (troubles.slowdown if troubles.slow else 1) / _HOUR


def simulate(job: Job, workers: int, troubles: Troubles = Troubles(), *, seed: int = 0) -> Course:
    """The course of ``job``, whose random numbers are those of ``seed``.

    Raises:
        click.UsageError: workers are lost so often that no part would ever be done.
    """
    if often(job, troubles) > MOST_OFTEN:
        raise click.UsageError(
            f"a part takes {job.seconds / _HOUR:.3g} hours, in which a worker is lost {often(job, troubles):.3g} times;"
            " give a smaller --batch-size or fewer --losses"
        )
    return Simulation(job, workers, troubles, seed=seed).run()


def passes_of(plan: AuditPlan, classifier: Classifier) -> int:
    """Forward and backward passes of a photo in all conditions of ``plan``, maps included, at most."""
    interpreters = make_interpreters(plan.interpreters, classifier)
    attacks = {c: attack_of(plan, c, classifier, interpreters) for c in plan.conditions if not c.is_control}
    photo = PlannedPhoto("photo", "", "", "", label=0, label_given=True, target=1, excluded=None)
    return sum(cost.total for cost in costs_of(attacks, plan.conditions, interpreters, [photo]))


def by_workers(job: Job, troubles: Troubles, *, dollars: float, seed: int) -> Table:
    """Hours and dollars on each number of workers, with and without what goes wrong."""
    kinds = (Troubles(), replace(troubles, losses=0.0), replace(troubles, slow=0.0), troubles)
    rows = []
    for workers in WORKERS:
        *others, course = (simulate(job, workers, kind, seed=seed) for kind in kinds)
        hours = [f"{one.hours:.2f}" for one in (*others, course)]
        cost = f"{workers * course.hours * dollars:.0f}"
        rows.append((f"{workers}", *hours, cost, f"{course.efficiency:.0%}", f"{course.lost}", course.reason))
    return Table(
        "Hours by workers",
        ("workers", "undisturbed", "some slow", "some lost", "both", "dollars", "work", "lost", "most of the rest"),
        rows,
        (
            f"{job.parts} parts of {job.seconds / _HOUR:.2f} hours each. Slow: {troubles.slow:.0%} of the workers take"
            f" {troubles.slowdown:g} times as long. Lost: {troubles.losses:g} times in each hour of a worker; its part"
            f" is begun again. Dollars: {dollars:g} for an hour of a worker, from beginning to end. The last four"
            " columns are of both together; work is the share of the workers' time that went into passes.",
        ),
    )


def by_batch(jobs: Mapping[int, Job], troubles: Troubles, *, seed: int) -> Table:
    """Hours on the most workers, by photos in a part."""
    rows = []
    for batch, job in jobs.items():
        about = (f"{batch}", f"{job.parts}", f"{job.seconds / _HOUR:.2f}")
        if often(job, troubles) > MOST_OFTEN:
            rows.append((*about, "never", "", AGAIN))
            continue
        course = simulate(job, WORKERS[-1], troubles, seed=seed)
        rows.append((*about, f"{course.hours:.2f}", f"{course.efficiency:.0%}", course.reason))
    return Table(
        f"Hours on {WORKERS[-1]} workers, by photos in a part",
        ("photos", "parts", "hours of a part", "hours", "work", "most of the rest"),
        rows,
        ("As above, with slow and lost workers.",),
    )


def by_speed(jobs: Mapping[int, Job], troubles: Troubles, *, seed: int) -> Table:
    """How many workers an audit scales to, by how much faster a pass is than it was measured."""
    rows = []
    for faster, job in jobs.items():
        courses = [simulate(job, workers, troubles, seed=seed) for workers in WORKERS]
        scaling = [course.workers for course in courses if course.efficiency >= SCALES]
        rows.append(
            (
                f"{faster}",
                f"{courses[0].hours:.1f}",
                f"{courses[-1].hours:.2f}",
                f"{max(scaling)}" if scaling else "-",
                courses[-1].reason,
            )
        )
    return Table(
        "Where it stops scaling, by the speed of a pass",
        ("times as fast", "hours on 1", f"hours on {WORKERS[-1]}", "scales to", f"most of the rest on {WORKERS[-1]}"),
        rows,
        (
            f"It scales as long as {SCALES:.0%} of the workers' time is work. A GPU is a worker of faster passes;"
            " how many times, `python -m benchmarks.gpu` says where there is one. The driver and saving images are no"
            " faster then.",
        ),
    )


def _page(costs: Costs, job: Job, *, photos: int, passes: int, seed: int) -> Iterator[str]:
    """What stands above the tables."""
    yield f"# {photos} photos on many workers"
    yield f"`python -m benchmarks.simulation --seed {seed}`"
    yield (
        f"A simulation, not a measurement: {photos} photos, {len(PLAN.interpreters)} interpreters, {len(GOALS)} goals, "
        f"{len(PLAN.conditions)} conditions, attacks of {PLAN.passes} passes, in all at most {passes} passes a photo "
        "with the maps. Attacks that end early make it shorter."
    )
    yield (
        f"Measured, by `python -m benchmarks.audit_costs` unless it is given: {costs.one_pass:g} seconds for a pass of "
        f"a photo, {costs.image:g} to save an image and read it back, {costs.start:g} until a worker is ready; of the "
        f"driver {costs.photo:g} to read and predict a photo and {costs.row:g} to report a row. Assumed, and options: "
        f"{job.handling:g} seconds of the driver to take back a part, how often workers are slow or lost, and what "
        "they cost."
    )
    yield (
        f"Before the first part and after the last one the driver is alone, {job.before / 60:.0f} and "
        f"{job.after / 60:.0f} minutes."
    )


_SECONDS = click.FloatRange(0, min_open=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--one-pass", type=_SECONDS, default=MEASURED.one_pass, help="Seconds of a pass of a photo.")
@click.option("--image", type=_SECONDS, default=MEASURED.image, help="To save an image and read it back.")
@click.option("--photo", type=_SECONDS, default=MEASURED.photo, help="Of the driver, to read and predict a photo.")
@click.option("--part", type=_SECONDS, default=PART, help="Of the driver, to take back a part.")
@click.option("--row", type=_SECONDS, default=MEASURED.row, help="Of the driver, to report a row.")
@click.option("--start", type=_SECONDS, default=MEASURED.start, help="Until a worker is ready.")
@click.option("--photos", type=click.IntRange(1), default=50_000, help="Of the audit.")
@click.option("--batch-size", type=click.IntRange(1), default=16, help="Photos in a part.")
@click.option("--passes", type=click.IntRange(1), help="Of a photo in all.  [default: those of the plan]")
@click.option("--losses", type=click.FloatRange(0), default=0.05, help="Of a worker, per hour.")
@click.option("--slow", type=click.FloatRange(0, 1), default=0.05, help="Share of the workers that are slow.")
@click.option("--slowdown", type=click.FloatRange(1), default=2.0, help="How many times as long these take.")
@click.option("--dollars", type=click.FloatRange(0), default=1.0, help="For an hour of a worker.")
@click.option("--seed", type=click.IntRange(0), default=0)
def main(
    photos: int, batch_size: int, passes: int | None, losses: float, slow: float, slowdown: float, dollars: float,
    seed: int, part: float, **seconds: float,
) -> None:  # fmt: skip
    """Simulate an audit on 1 to 256 workers."""
    costs, troubles = Costs(**seconds), Troubles(losses, slow, slowdown)
    passes = passes_of(PLAN, load_classifier()) if passes is None else passes

    def job(size: int = batch_size, faster: float = 1) -> Job:
        quicker = replace(costs, one_pass=costs.one_pass / faster)
        return Job.of(quicker, photos=photos, batch=size, passes=passes, handling=part)

    for paragraph in _page(costs, job(), photos=photos, passes=passes, seed=seed):
        click.echo(f"{paragraph}\n")
    click.echo(by_workers(job(), troubles, dollars=dollars, seed=seed))
    click.echo(by_batch({size: job(size) for size in BATCHES}, troubles, seed=seed))
    click.echo(by_speed({faster: job(faster=faster) for faster in FASTER}, troubles, seed=seed))


if __name__ == "__main__":
    main()
