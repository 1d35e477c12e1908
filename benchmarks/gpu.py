"""``python -m benchmarks.gpu``: passes per second of the attacks on one GPU, stage by stage, beside other libraries.

Made for a card that is lent for a quarter of an hour: what fails is a line in the table and not the end, what the time
no longer suffices for is left out and said, and every table is printed as soon as it is there. ``--device cpu
--seconds 1 --batch 2`` tries it without a card.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import click
import torch
from torch import Tensor

from benchmarks.header import header
from benchmarks.rival_attacks import STEPS
from benchmarks.rivals import FAMILIES
from benchmarks.steps import forward_backward
from benchmarks.subject import Recipe, Subject
from benchmarks.tables import Table
from benchmarks.timing import Clock, clock_of
from underfire import ADV2, CAM, PGD, Classifier
from underfire.attacks.engine import Outcome, Setting, descend
from underfire.interpreters import MapTarget
from underfire.models import DEFAULT_MODEL
from underfire.models.folded import prepared

BATCHES = (64, 256, 1024)
PHOTOS = 6
"""At most so many, for the maps that the attacks keep."""

PASSES = 100
"""Of the attack on these."""

MOST_STEPS = 300
FASTER, OF_RAW = 5.0, 0.9
"""What is aimed at: times Foolbox's eager rate, and the share of the raw rate in the same precision and layout."""


@dataclass(frozen=True)
class Stage:
    """One way to run the classifier.

    Attributes:
        classifier: as the loop shall have it.
        precision: of its passes, as a context.
        channels_last: images are laid out that way.
    """

    classifier: Classifier
    precision: Callable[[], AbstractContextManager[object]] = nullcontext
    channels_last: bool = True

    def images(self, x: Tensor) -> Tensor:
        """``x`` as this stage lays images out."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x


def bf16(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Passes in bfloat16 on ``device``, as a context to enter."""
    # Weights are not kept in both precisions: they are frozen, and a cache of them would not outlive a graph.
    return partial(torch.autocast, device.type, torch.bfloat16, cache_enabled=False)


def eager(subject: Subject) -> Stage:
    """As it was loaded."""
    return Stage(subject.classifier, channels_last=False)


def folded(subject: Subject) -> Stage:
    """Norms folded, channels last."""
    return Stage(prepared(subject.classifier))


def half(subject: Subject) -> Stage:
    """The same in bfloat16."""
    return replace(folded(subject), precision=bf16(subject.x.device))


def compiled(subject: Subject) -> Stage:
    """The same, compiled."""
    stage = half(subject)
    stage.classifier.module.compile(dynamic=False)
    return stage


def graphed(subject: Subject) -> Stage:
    """In bfloat16 as a CUDA graph of the forward and one of the backward pass."""
    stage = half(subject)
    classifier = stage.classifier
    sample = stage.images(classifier.preprocessing.normalised(subject.x)).detach().requires_grad_()
    with classifier.frozen(), stage.precision():
        torch.cuda.make_graphed_callables(classifier.module, (sample,))  # which gives the module another forward
    return stage


STAGES: Mapping[str, Callable[[Subject], Stage]] = {
    "eager": eager,
    "prepared": folded,
    "bf16": half,
    "compile": compiled,
    "CUDA graph": graphed,
}


class Deadline:
    """When the card has to be given back."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._end = clock, clock() + 60 * minutes

    def check(self) -> None:
        """Raises TimeoutError when it is over."""
        if self._clock() >= self._end:
            raise TimeoutError("left out: the time is over")


def guarded(measure: Callable[[], Sequence[str]], cells: int, deadline: Deadline) -> Sequence[str]:
    """The ``cells`` that ``measure`` gives, or why it fails in the first of as many."""
    try:
        deadline.check()
        return measure()
    except Exception as error:  # noqa: BLE001 - one stage that fails is a line
        torch.cuda.empty_cache()
        line = (str(error).splitlines() or [""])[0][:80]
        return (line if isinstance(error, TimeoutError) else f"{type(error).__name__}: {line}", *[""] * (cells - 1))


def rate(run: Callable[[], int], seconds: float, clock: Clock) -> float:
    """Passes per second of ``run``, which tells how many it made, repeated for about ``seconds``."""
    run()  # compiles, and finds the fastest kernels
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

    def run() -> int:
        objectives = []
        if interpreter is not None:
            noise = torch.rand((len(x), *interpreter.grid), generator=torch.Generator().manual_seed(0)).to(x)
            objectives = [interpreter.objective(MapTarget(subject.target, noise, keys, seed=0))]
        return int(descend(stage.classifier, x, subject.target, objectives, setting).passes.sum())

    with stage.precision():
        return rate(run, seconds, clock_of(x.device))


def _few_steps(setting: Setting, passes_a_second: float, batch: int, seconds: float) -> Setting:
    """``setting`` with as many steps as fill about half of ``seconds``, warm-up aside."""
    steps = max(2, min(MOST_STEPS, int(seconds * passes_a_second / batch / 2)))
    return replace(setting, schedule=replace(setting.schedule, steps=steps, warm=0, ends=()))


def stage_row(name: str, subject: Subject, seconds: float, foolbox: float | None) -> Sequence[str]:
    """The rates of a stage at the batch of ``subject``, and how they stand to what is aimed at."""
    stage = STAGES[name](subject)
    raw = raw_rate(stage, subject, seconds)
    setting = _few_steps(PGD(subject.classifier, keep="last").setting, raw, len(subject.x), seconds)
    pgd = attack_rate(stage, subject, setting, seconds, interpreter=None)
    times = "" if foolbox is None else f"{pgd / foolbox:.2f}"
    cells = (f"{raw:.0f}", f"{pgd:.0f}", f"{pgd / raw:.2f}", times)
    try:
        cam = CAM(subject.classifier)
        setting = _few_steps(ADV2(cam).setting, raw, len(subject.x), seconds)
        joint = attack_rate(stage, subject, setting, seconds, interpreter=cam)
    except Exception as error:  # noqa: BLE001 - a graph shows nothing of its inside, and a model may have no CAM
        return (*cells, type(error).__name__, "")
    return (*cells, f"{joint:.0f}", f"{joint / raw:.2f}")


def rival_rate(name: str, subject: Subject, seconds: float) -> float:
    """Of another library's PGD, eager, as its users call it."""
    contender = FAMILIES["PGD"].contenders[name]
    if reason := contender.missing():
        raise ModuleNotFoundError(reason)

    def run() -> int:
        contender.run(subject)
        return STEPS * len(subject.x)

    return rate(run, seconds, clock_of(subject.x.device))


def speed(subject: Subject, stages: Sequence[str], seconds: float, deadline: Deadline) -> Table:
    """Passes per second at one batch, of the ``stages`` and of the other libraries."""
    rows, found = [], dict[str, float]()
    for name in ("Foolbox", "torchattacks"):

        def theirs(name: str = name) -> Sequence[str]:
            found[name] = rival_rate(name, subject, seconds)
            return ("", f"{found[name]:.0f}", "", "", "", "")

        rows.append((f"{name}, eager", *guarded(theirs, 6, deadline)))
    for name in stages:
        rows.append((name, *guarded(partial(stage_row, name, subject, seconds, found.get("Foolbox")), 6, deadline)))
        click.echo(f"{name} at batch {len(subject.x)}: {', '.join(rows[-1][1:])}", err=True)
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


def quality_row(name: str, subject: Subject) -> Sequence[str]:
    """What ADV² on CAM reaches where its search runs in a stage, on the float32 classifier as it was loaded."""
    stage, cam = STAGES[name](subject), CAM(subject.classifier)
    wanted = cam(subject.x, subject.label)
    keys = tuple(map(str, range(len(subject.x))))
    objective = cam.objective(MapTarget(subject.target, wanted, keys, seed=0))
    clock = clock_of(subject.x.device)
    began = clock()
    with stage.precision():
        outcome: Outcome = descend(
            stage.classifier, stage.images(subject.x), subject.target, [objective], ADV2(cam, passes=PASSES).setting
        )
    took, x_adv = clock() - began, outcome.x_adv.contiguous()
    p = subject.classifier.probabilities(x_adv).gather(1, subject.target[:, None])
    distance = (cam(x_adv, subject.target) - wanted).abs().mean(dim=(1, 2))
    reached = subject.classifier.probabilities(x_adv).argmax(dim=1) == subject.target
    return (
        f"{int(reached.sum())} of {len(reached)}",
        f"{float(p.mean()):.3f}",
        f"{float(distance.mean()):.4f}",
        f"{float(outcome.passes.double().mean()):.0f}",
        f"{took:.2f}",
    )


def quality(subject: Subject, stages: Sequence[str], deadline: Deadline) -> Table:
    """The map that an attack keeps in each of the ``stages``."""
    rows = [(name, *guarded(partial(quality_row, name, subject), 5, deadline)) for name in stages]
    return Table(
        f"What ADV² on CAM reaches with {PASSES} passes ({subject})",
        ("search in", "label", "p_t", "L1", "passes", "seconds"),
        rows,
        ("Label, p_t and L1 to the benign map are those of the classifier as it was loaded, in float32.",),
    )


def tables(
    first: Subject, stages: Sequence[str], batches: Sequence[int], seconds: float, deadline: Deadline
) -> Iterator[Table]:
    """Quality on the photos of ``first`` first, which is short; then speed, batch by batch."""
    yield quality(first, stages, deadline)
    for batch in batches:
        subject = Subject.of(replace(first.recipe, batch_size=batch), first.classifier, first.photos)
        yield speed(subject, stages, seconds, deadline)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--model", default=DEFAULT_MODEL, help="As for `underfire audit`.")
@click.option("--device", default="cuda", help="Where to measure.")
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, default=BATCHES, help="Again for more.")
@click.option(
    "--stage", "stages", type=click.Choice(list(STAGES)), multiple=True, default=tuple(STAGES), help="Again for more."
)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=4.0, help="Of each measurement.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=13.0, help="After so many nothing begins.")
def main(
    model: str, device: str, batches: Sequence[int], stages: Sequence[str], seconds: float, minutes: float
) -> None:
    """Measure passes per second of every stage, and what ADV² reaches in it."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(f"--device {device}: there is no GPU here; --device cpu --seconds 1 --batch 2 tries it")
    deadline = Deadline(minutes)
    click.echo(header())
    for table in tables(Subject.make(Recipe(model, device, PHOTOS)), stages, batches, seconds, deadline):
        click.echo(table)


if __name__ == "__main__":
    main()
