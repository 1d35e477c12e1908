"""What one step of an attack costs, in raw forward and backward passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.subject import Subject
from benchmarks.tables import Table, at_most
from benchmarks.timing import Clock, Ratio, clock_of, in_turn, ratio
from underfire import (
    ADV2,
    CAM,
    GRAD,
    IG,
    LRP,
    PGD,
    RISE,
    AttentionRelevance,
    AttnLRP,
    Classifier,
    GradCAM,
    GuidedBackprop,
    Interpreter,
    KernelSHAP,
    Linf,
    Occlusion,
    Rollout,
)
from underfire.attacks.engine import Setting, descend
from underfire.interpreters import MapTarget
from underfire.models.folded import prepared

ATTACKED: Mapping[str, tuple[type[Interpreter], ...]] = {
    "PGD": (),
    "ADV² on CAM": (CAM,),
    "ADV² on Grad-CAM": (GradCAM,),
    "ADV² on GRAD": (GRAD,),
    "ADV² on IG": (IG,),
    "ADV² on guided back-propagation": (GuidedBackprop,),
    "ADV² on LRP": (LRP,),
    "ADV² on AttnLRP": (AttnLRP,),
    "ADV² on attention rollout": (Rollout,),
    "ADV² on gradient × attention": (AttentionRelevance,),
    "ADV² on Occlusion": (Occlusion,),
    "ADV² on RISE": (RISE,),
    "ADV² on KernelSHAP": (KernelSHAP,),
    "ADV² on CAM + GRAD": (CAM, GRAD),
    "ADV² on CAM + GRAD + IG": (CAM, GRAD, IG),
}
LIMITS: Mapping[tuple[type[Interpreter], ...], float] = {
    (): 1.1,
    (CAM,): 1.2,
    (GradCAM,): 1.2,
    (GRAD,): 2.3,
    (IG,): 3.5,
    **dict.fromkeys([(GuidedBackprop,), (LRP,), (AttnLRP,), (Rollout,), (AttentionRelevance,)], 3.5),
    **dict.fromkeys([(Occlusion,), (RISE,), (KernelSHAP,)], 5.0),
}
"""Passes that a step may take; several interpreters have theirs by their own rows."""


@dataclass(frozen=True)
class Laps:
    """Seconds of the steps of an attack, and of the raw pass that was taken before each."""

    steps: Sequence[float]
    raw: Sequence[float]


def tables(subject: Subject, *, turns: int) -> Iterator[Table]:
    """The table of ratios for ``subject``, from ``turns`` steps of each attack."""
    clock, twin = clock_of(subject.classifier.device), prepared(subject.classifier)
    with twin.frozen(), subject.classifier.frozen():
        raw = {
            "plain": lambda: forward_backward(subject.classifier, subject.x, subject.target),
            "prepared": lambda: forward_backward(twin, subject.x, subject.target),
            "forward": lambda: twin.scores(subject.x.detach().requires_grad_()),
        }
        seconds = in_turn(raw, turns=turns, clock=clock)
    slower = median(seconds["plain"]) / median(seconds["prepared"])
    forward = ratio(seconds["forward"], seconds["prepared"]).value
    found: dict[str, Ratio] = {}
    rows = []
    for name, kinds in ATTACKED.items():
        if any(kind.available(subject.classifier) is not None for kind in kinds):
            continue
        interpreters = [kind(subject.classifier) for kind in kinds]
        laps = timed(twin, subject, interpreters, turns=turns, clock=clock)
        found[name] = ratio(laps.steps, laps.raw)
        limit = _alone(kinds, interpreters) if kinds in LIMITS else _shared(kinds, found, forward)
        rows.append(
            (
                name,
                f"{median(laps.steps):.3f}",
                str(found[name]),
                f"{found[name].value / slower:.2f}",
                f"{limit:.2f}",
                at_most(found[name], limit),
            )
        )
    yield Table(
        f"One step of an attack ({subject})",
        ("attack", "seconds", "in passes of the prepared model", "of the plain one", "at most", "target"),
        rows,
        (
            "A pass is logits, cross-entropy and its gradient in x, no gradients of parameters; one was timed before"
            " every step.",
            f"Joint steps only, {turns} each. A plain pass takes {slower:.2f} prepared ones. Several interpreters: the"
            f" sum of their own rows less the forward pass they share, {forward:.2f}.",
        ),
    )


def forward_backward(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """The gradient in ``x`` of the cross-entropy, with nothing around it; inside ``classifier.frozen()``."""
    leaf = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(classifier.scores(leaf), y, reduction="sum"), leaf)
    return gradient


def timed(twin: Classifier, subject: Subject, interpreters: Sequence[Interpreter], *, turns: int, clock: Clock) -> Laps:
    """``turns`` joint steps of an attack on the prepared classifier ``twin``, each with a raw pass before it.

    The loop asks for the image once a step, and that is where the raw pass is slipped in. Warm start, preparing and
    scoring take no part, nor does the first step, at which IG looks at the whole path, and what hides parts of the
    image hides each of them.
    """
    track = _Track(lambda: forward_backward(twin, subject.x, subject.target), clock)
    default = ADV2(interpreters).setting if interpreters else PGD(subject.classifier).setting
    schedule = replace(default.schedule, steps=turns + 1, warm=0)
    _attack(twin, subject, interpreters, replace(default, perturbation=_Lapped(lap=track.lap), schedule=schedule))
    if len(track.steps) != turns + 2:  # between as many looks, and from the last to the kept image
        raise RuntimeError(f"the loop asked for the image {len(track.raw)} times in {turns + 1} steps, not once a step")
    return Laps(track.steps[1 : turns + 1], track.raw[1 : turns + 1])


@dataclass(frozen=True)
class _Lapped(Linf):
    """The L∞ ball, which says when it is asked for the image."""

    lap: Callable[[], None] = lambda: None

    def image(self, x: Tensor, theta: Tensor) -> Tensor:
        self.lap()
        return super().image(x, theta)


class _Track:
    """Seconds between laps in ``steps``, and of the raw pass taken at each lap in ``raw``."""

    def __init__(self, raw_pass: Callable[[], object], clock: Clock) -> None:
        self.steps: list[float] = []
        self.raw: list[float] = []
        self._raw_pass, self._clock = raw_pass, clock
        self._since: float | None = None

    def lap(self) -> None:
        now = self._clock()
        if self._since is not None:
            self.steps.append(now - self._since)
        self._raw_pass()
        self._since = self._clock()
        self.raw.append(self._since - now)


def _attack(twin: Classifier, subject: Subject, interpreters: Sequence[Interpreter], setting: Setting) -> None:
    """The joint loop towards maps of noise, which no image has: nobody is done early and leaves the batch."""
    n, device = len(subject.x), subject.x.device
    draw = torch.Generator().manual_seed(0)
    keys = tuple(f"image {i}" for i in range(n))
    objectives = []
    for g in interpreters:
        noise = torch.rand((n, *g.grid), generator=draw).to(device, subject.x.dtype)
        objectives.append(g.objective(MapTarget(subject.target, noise, keys, seed=0)))
    descend(twin, subject.x, subject.target, objectives, setting)


def _alone(kinds: tuple[type[Interpreter], ...], interpreters: Sequence[Interpreter]) -> float:
    """The limit of an interpreter; Grad-CAM's as often as it counts passes, which is more on tokens than on CNNs."""
    more = [g.passes_per_step / kind.passes_per_step for g, kind in zip(interpreters, kinds, strict=True)]
    return LIMITS[kinds] * max(more, default=1)


def _shared(kinds: Sequence[type[Interpreter]], found: Mapping[str, Ratio], forward: float) -> float:
    """What several interpreters may cost: the sum of their own rows, less the forward pass that they share."""
    alone = [next(name for name, own in ATTACKED.items() if own == (kind,)) for kind in kinds]
    return sum(found[name].value for name in alone) - (len(kinds) - 1) * forward
