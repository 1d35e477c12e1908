"""``python -m benchmarks.gpu``: passes per second of the attacks on one GPU, stage by stage, beside other libraries.

Made for a card that is lent for a quarter of an hour. What fails is a cell of the table and not the end; what the time
no longer suffices for is left out and said, or stopped; every number goes to standard error as soon as it is there, and
every table to standard output. What may leave a card unusable comes last. ``--device cpu --seconds 0.1 --batch 2
--passes 4`` tries it without a card.
"""

import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import click
import torch

from benchmarks.gpu_stages import ROUNDS, STAGES, Stage
from benchmarks.header import header
from benchmarks.rival_attacks import STEPS
from benchmarks.rivals import FAMILIES
from benchmarks.steps import forward_backward
from benchmarks.subject import Recipe, Subject
from benchmarks.tables import Table
from benchmarks.timing import Clock, clock_of
from underfire import ADV2, CAM, PGD
from underfire.attacks.engine import Setting, descend
from underfire.interpreters import MapTarget
from underfire.models import DEFAULT_MODEL

BATCHES = (64, 256, 1024)
RIVALS = ("Foolbox", "torchattacks")
PHOTOS = 6
"""At most so many, for the maps that the attacks keep."""

MOST_STEPS = 300
LONGEST = 150.0
"""Seconds that a number may take, with its warm-up: compiling is part of that."""

AGAIN = 10.0
"""After so many seconds more what did not stop is told again."""

FASTER, OF_RAW = 5.0, 0.9
"""What is aimed at: times Foolbox's eager rate, and the share of the raw rate in the same precision and layout."""

Found = TypeVar("Found")


class Deadline:
    """When the card has to be given back."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._end = clock, clock() + 60 * minutes

    def left(self) -> float:
        """Seconds that are left; raises TimeoutError when it is over."""
        left = self._end - self._clock()
        if left <= 0:
            raise TimeoutError("left out: the time is over")
        return left


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Inside the block TimeoutError is raised after so many ``seconds``, as soon as Python has its turn."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tried(what: str, measure: Callable[[], Found], deadline: Deadline) -> Found | str:
    """What ``measure`` gives, or in words why it fails, which standard error is told too."""
    try:
        with limited(min(LONGEST, deadline.left())):
            found: Found | str = measure()
    except Exception as error:  # noqa: BLE001 - one number that cannot be had is a cell
        line = (str(error).splitlines() or [""])[0][:80]
        found = line if isinstance(error, TimeoutError) else f"{type(error).__name__}: {line}"
    _free()  # after the error is forgotten, whose frames hold what filled the memory
    click.echo(f"{what}: {found if isinstance(found, str | float | tuple) else 'done'}", err=True)
    return found


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _anew() -> None:
    """Forget what was compiled, and what only that holds."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    _free()


def rate(run: Callable[[], int], seconds: float, clock: Clock) -> float:
    """Passes per second of ``run``, which tells how many it made, repeated for about ``seconds``."""
    run()  # compiles, loads kernels, fills the pool of memory
    made, began, took = 0, clock(), 0.0
    while took < seconds:
        made += run()
        took = clock() - began
    return made / took


def raw_rate(stage: Stage, subject: Subject, seconds: float) -> float:
    """Of logits, loss and gradient with nothing around them; ten without waiting for the device."""
    x = stage.images(subject.x)

    def ten() -> int:
        for _ in range(10):
            forward_backward(stage.classifier, x, subject.target)
        return 10 * len(x)

    with stage.classifier.frozen(), stage.precision():
        return rate(ten, seconds, clock_of(x.device))


def attack_rate(stage: Stage, subject: Subject, setting: Setting, seconds: float, *, interpreter: CAM | None) -> float:
    """Of an attack's loop: PGD's, or that of ADV² on ``interpreter`` towards maps of noise, which no image has."""
    x = stage.images(subject.x)
    keys = tuple(map(str, range(len(x))))
    noise = None
    if interpreter is not None:
        noise = torch.rand((len(x), *interpreter.grid), generator=torch.Generator().manual_seed(0)).to(x)

    def run() -> int:
        objectives = []
        if interpreter is not None and noise is not None:
            objectives = [interpreter.objective(MapTarget(subject.target, noise, keys, seed=0))]
        return int(descend(stage.classifier, x, subject.target, objectives, setting).passes.sum())

    with stage.classifier.frozen(), stage.precision():  # all runs in one block: its hooks are compiled with the module
        return rate(run, seconds, clock_of(x.device))


def _few_steps(setting: Setting, passes_a_second: float, batch: int, seconds: float) -> Setting:
    """``setting`` with as many steps as fill about half of ``seconds``, warm-up aside."""
    steps = max(2, min(MOST_STEPS, int(seconds * passes_a_second / batch / 2)))
    return replace(setting, schedule=replace(setting.schedule, steps=steps, warm=0, ends=()))


def stage_row(
    name: str, subject: Subject, seconds: float, deadline: Deadline, foolbox: float | str | None
) -> Sequence[str]:
    """The rates of a stage at the batch of ``subject``, and how they stand to what is aimed at."""
    _anew()
    batch = len(subject.x)
    words = f"{name}, batch {batch}"
    stage = tried(f"{words}, made", lambda: STAGES[name](subject), deadline)
    if isinstance(stage, str):
        return (stage, *[""] * 5)
    raw = tried(f"{words}, raw", lambda: raw_rate(stage, subject, seconds), deadline)
    guess = raw if isinstance(raw, float) else 0.0

    def pgd() -> float:
        setting = _few_steps(PGD(subject.classifier, keep="last").setting, guess, batch, seconds)
        return attack_rate(stage, subject, setting, seconds, interpreter=None)

    def joint() -> float:
        cam = CAM(subject.classifier)
        return attack_rate(
            stage, subject, _few_steps(ADV2(cam).setting, guess, batch, seconds), seconds, interpreter=cam
        )

    alone = tried(f"{words}, PGD", pgd, deadline)
    both = tried(f"{words}, ADV² on CAM", joint, deadline) if stage.shows else ""
    return (_rate(raw), _rate(alone), _over(alone, raw), _over(alone, foolbox), _rate(both), _over(both, raw))


def _rate(found: float | str) -> str:
    return found if isinstance(found, str) else f"{found:.0f}"


def _over(ours: float | str, theirs: float | str | None) -> str:
    """A ratio of two rates, empty where one could not be had."""
    return f"{ours / theirs:.2f}" if isinstance(ours, float) and isinstance(theirs, float) else ""


def rival_rate(name: str, subject: Subject, seconds: float) -> float:
    """Of another library's PGD, eager, as its users call it."""
    contender = FAMILIES["PGD"].contenders[name]
    if reason := contender.missing():
        raise ModuleNotFoundError(reason)

    def run() -> int:
        contender.run(subject)
        return STEPS * len(subject.x)

    return rate(run, seconds, clock_of(subject.x.device))


@dataclass(frozen=True)
class Run:
    """What all tables have in common.

    Attributes:
        seconds: of each measurement.
        passes: of the attack that is judged by what it reaches.
        deadline: when all is stopped.
        rivals: passes per second of the other libraries by batch and name, as far as they were measured.
    """

    seconds: float
    passes: int
    deadline: Deadline
    rivals: dict[tuple[int, str], float | str] = field(default_factory=dict)


def rivals(subject: Subject, run: Run) -> Table:
    """Passes per second of the other libraries at one batch."""
    rows, batch = [], len(subject.x)
    for name in RIVALS:
        _anew()
        found = tried(f"{name}, batch {batch}", partial(rival_rate, name, subject, run.seconds), run.deadline)
        run.rivals[batch, name] = found
        rows.append((f"{name}, eager", _rate(found)))
    return Table(f"PGD of other libraries, passes per second ({subject})", ("", "PGD"), rows)


def speed(subject: Subject, stages: Sequence[str], run: Run) -> Table:
    """Passes per second at one batch, of the ``stages``."""
    foolbox = run.rivals.get((len(subject.x), "Foolbox"))
    rows = [(name, *stage_row(name, subject, run.seconds, run.deadline, foolbox)) for name in stages]
    return Table(
        f"Passes per second ({subject})",
        ("", "raw", "PGD", "of raw", "times Foolbox", "ADV² on CAM", "of raw"),
        rows,
        (
            "A pass is a forward and a backward pass of one image. Raw: logits, loss and gradient with nothing around"
            " them, in the same precision and layout. bf16, compile and CUDA graph come on top of prepared: norms"
            f" folded, channels last. Aimed at: {FASTER:g} times Foolbox, {OF_RAW:g} of raw.",
        ),
    )


def quality_row(name: str, subject: Subject, passes: int) -> Sequence[str]:
    """What ADV² on CAM reaches where its search runs in a stage, on the float32 classifier as it was loaded.

    It runs twice, and the second time counts.
    """
    stage, cam = STAGES[name](subject), CAM(subject.classifier)
    if not stage.shows:
        raise ValueError("hooks do not reach the activation that CAM reads")
    wanted = cam(subject.x, subject.label)
    target = MapTarget(subject.target, wanted, tuple(map(str, range(len(subject.x)))), seed=0)
    setting, x, clock = ADV2(cam, passes=passes).setting, stage.images(subject.x), clock_of(subject.x.device)
    with stage.classifier.frozen(), stage.precision():
        for _ in range(2):
            began = clock()
            outcome = descend(stage.classifier, x, subject.target, [cam.objective(target)], setting)
            took = clock() - began
    x_adv = outcome.x_adv.contiguous()
    p = subject.classifier.probabilities(x_adv)
    distance = (cam(x_adv, subject.target) - wanted).abs().mean(dim=(1, 2))
    reached = p.argmax(dim=1) == subject.target
    return (
        f"{int(reached.sum())} of {len(reached)}",
        f"{float(p.gather(1, subject.target[:, None]).mean()):.3f}",
        f"{float(distance.mean()):.4f}",
        f"{float(outcome.passes.double().mean()):.0f}",
        f"{took:.2f}",
    )


def quality(subject: Subject, stages: Sequence[str], run: Run) -> Table:
    """The map that an attack keeps in each of the ``stages``."""
    rows = []
    for name in stages:
        _anew()
        found = tried(f"{name}, L1", partial(quality_row, name, subject, run.passes), run.deadline)
        rows.append((name, *((found, *[""] * 4) if isinstance(found, str) else found)))
    return Table(
        f"What ADV² on CAM reaches with {run.passes} passes ({subject})",
        ("search in", "label", "p_t", "L1", "passes", "seconds"),
        rows,
        ("Label, p_t and L1 to the benign map are those of the classifier as it was loaded, in float32.",),
    )


def tables(first: Subject, stages: Sequence[str], batches: Sequence[int], run: Run) -> Iterator[Table]:
    """Round by round of ``ROUNDS``: quality on the photos of ``first``, which is short; then speed, batch by batch."""
    for wanted in ROUNDS:
        chosen = [name for name in wanted if name in stages]
        if not chosen:
            continue
        yield quality(first, chosen, run)
        for batch in batches:
            recipe = replace(first.recipe, batch_size=batch)
            make = partial(Subject.of, recipe, first.classifier, first.photos)
            subject = tried(f"batch {batch}", make, run.deadline)
            if isinstance(subject, str):
                continue
            if (batch, RIVALS[0]) not in run.rivals:
                yield rivals(subject, run)
            yield speed(subject, chosen, run)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--model", default=DEFAULT_MODEL, help="As for `underfire audit`.")
@click.option("--device", default="cuda", help="Where to measure.")
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, default=BATCHES, help="Again for more.")
@click.option(
    "--stage", "stages", type=click.Choice(list(STAGES)), multiple=True, default=tuple(STAGES), help="Again for more."
)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=4.0, help="Of each measurement.")
@click.option("--passes", type=click.IntRange(1), default=100, help="Of the attack that is judged by what it reaches.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=13.0, help="After so many all is stopped.")
def main(
    model: str, device: str, batches: Sequence[int], stages: Sequence[str], seconds: float, passes: int, minutes: float
) -> None:
    """Measure passes per second of every stage, and what ADV² reaches in it."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(f"--device {device}: there is no GPU here; --device cpu --batch 2 tries it")
    run = Run(seconds, passes, Deadline(minutes))
    click.echo(header())
    for table in tables(Subject.make(Recipe(model, device, PHOTOS)), stages, batches, run):
        click.echo(table)


if __name__ == "__main__":
    main()
