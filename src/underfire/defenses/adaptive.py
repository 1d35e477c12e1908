"""The attacker who knows the detector: ADV² on all its interpreters, through its views, up to its own score.

What a detector measures is in part ranks and labels, through which no gradient goes. The attack descends on what they
follow from instead: how far every interpreter's map is from the target map, and the prediction, both on the image and
on the defender's views of it; and the prediction where only the region is shown in which the target maps agree, or
where the image is squeezed. In the end the detector decides itself: of several late iterates, in whole grey levels, the
one with the target label that it finds least suspect is kept.

Source: the adaptive attacker of Zhang et al., "Interpretable Deep Learning under Fire", USENIX Security 2020 (the
discussion of countermeasures); what is done about views follows Athalye, Carlini and Wagner,
"Obfuscated gradients give a false sense of security", ICML 2018 (expectation over transformations; the gradient at what
a squeezer leaves of an image is taken for that at the image).
"""

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.attacks.budget import MOST_FINALISTS, check_whole, warm_steps
from underfire.attacks.control import NORMALIZED, Balance, Schedule, Weighting
from underfire.attacks.engine import Outcome, Setting, descend
from underfire.attacks.joint import JointAttack
from underfire.attacks.keepers import LATEST
from underfire.attacks.lens import Glimpse, bare
from underfire.attacks.perturbations import Perturbation, chosen
from underfire.attacks.result import AttackResult
from underfire.attacks.scored import own_objective, score
from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.looks import Look, looks_of
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.signals import Signals
from underfire.defenses.squeezing import FeatureSqueezing, SqueezingSignals
from underfire.errors import InputError
from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapTarget
from underfire.models.features import FeatureMap
from underfire.models.folded import prepared

PASSES = 300
"""Forward and backward passes for an image whose attacker names none."""

_FINAL_SHARE = 4  # one part in so many of the passes may pay for the detector's word on the finalists


class AdaptiveADV2(JointAttack):
    """Finds x* near x with f(x*) = c_t and the target maps that the detector takes for a clean photo.

    The steps look in turn at the image, at each of the detector's views of it, and at its agreed region; or, where the
    detector is one of squeezing, at the image as each squeezer leaves it. The noise of a view is drawn anew at each
    step, so that no image is fitted to one noise. Of late iterates that have the label the one with the highest score
    is kept; of those without it, where none has it.

    Args:
        detector: a fitted one; all interpreters that it watches are attacked, and for a mean map its parts. One of
            squeezing watches none: the attack is on the prediction alone.
        eps: L∞ budget, in pixel values of [0, 1]; 8/255 if neither it nor a perturbation is given.
        passes: how many forward and backward passes an image may cost, those of the detector's score included.
        perturbation: another perturbation model, in place of ``eps``.
        weighting: how the maps share a step among themselves.
        seed: of the random numbers of interpreters and views.

    Raises:
        InputError: the detector is not fitted, a number is out of range, or the passes don't pay for one step.
    """

    name: ClassVar[str] = "adaptive"

    def __init__(
        self,
        detector: EnsembleDetector | FeatureSqueezing,
        *,
        eps: float | None = None,
        passes: int = PASSES,
        perturbation: Perturbation | None = None,
        weighting: Weighting = NORMALIZED,
        seed: int = 0,
    ) -> None:
        detector.check_fitted()
        super().__init__(detector.signals.classifier, _watched(detector.signals), seed=seed)
        self.detector = detector
        model = chosen(perturbation, eps)
        steps = steps_for(passes, detector.signals)
        size = model.eps / 8
        schedule = Schedule(steps, warm=warm_steps(steps), first=size, peak=2 * size, last=size / 10)
        finalists = finalists_for(passes, detector.signals)
        self.setting = Setting(model, schedule, mix=Balance(weighting=weighting), keep=LATEST, finalists=finalists)

    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> AttackResult:
        """Attack a checked batch, and let the detector choose."""
        started = time.perf_counter()
        size = (int(x.shape[2]), int(x.shape[3]))
        looks = looks_of(self.detector.signals, {g.name: maps for g, maps in goals.items()}, self.seed)
        lens = _Lens(looks, keys)
        objectives = []
        for g, maps in goals.items():
            carried = [look.carried(maps, size) for look in looks if look.maps]
            objectives.append(
                _Turning(lens, [own_objective(g, MapTarget(target, m, keys, self.seed)) for m in carried])
            )
        setting = replace(self.setting, lens=lens)
        outcome = descend(prepared(self.classifier), x, target, objectives, setting)
        return score(
            self.name,
            self.classifier,
            x,
            target,
            goals,
            self._chosen(outcome, target) if x.shape[0] else outcome,
            perturbation=setting.perturbation,
            steps=setting.schedule.steps,
            keys=keys,
            started=started,
        )

    def _chosen(self, outcome: Outcome, target: Tensor) -> Outcome:
        """Of the finalists of ``outcome`` the one, for each image, that has the label and the highest score."""
        finalists, scores, losses = outcome.finalists, [], []
        for finalist in finalists:
            images = finalist.x_adv.contiguous()
            with torch.no_grad():
                logits = self.classifier(images)
            reached = logits.argmax(dim=1) == target
            losses.append(F.cross_entropy(logits, target, reduction="none"))
            found = self.detector.score_samples(images)  # as a defender sees them, who has no other name for them
            scores.append(torch.stack([reached.cpu().double(), found]))
        # By label first, then by score: where two finalists differ in the label, no score makes up for it.
        reached, found = torch.stack(scores).unbind(dim=1)
        found = found.where(reached == reached.amax(dim=0), -torch.inf)
        best = found.argmax(dim=0).to(target.device)
        rows = torch.arange(len(target), device=target.device)
        prediction = replace(outcome.trace.prediction, kept=torch.stack(losses)[best, rows])
        return replace(
            outcome,
            x_adv=torch.stack([f.x_adv for f in finalists])[best, rows],
            used=torch.stack([f.used for f in finalists])[best, rows],
            # What the loop noted of maps is of one view or another.
            trace=replace(outcome.trace, prediction=prediction, maps=None),
            passes=outcome.passes + len(finalists) * self.detector.signals.passes_per_image,
            finalists=(),
        )


class _Lens:
    """The iterates in each of several ways, in turn.

    Args:
        looks: the ways.
        keys: one name per image.

    Attributes:
        turn: the number of the last look's way.
    """

    def __init__(self, looks: Sequence[Look], keys: tuple[str, ...]) -> None:
        self._looks, self._keys = looks, keys
        self.turn = 0

    def __call__(self, images: Tensor, rows: Tensor, step: int) -> Glimpse:
        """What is shown at ``step``."""
        self.turn = step % len(self._looks)
        if self.turn == 0:
            return bare(images, rows, step)
        look, leaf = self._looks[self.turn], images.detach().requires_grad_()
        with torch.enable_grad():
            shown = look.shown(leaf, rows, [self._keys[row] for row in rows.tolist()], step)
        return Glimpse(shown.detach(), _PulledBack(leaf, shown), maps=look.maps)


class _Turning:
    """An objective for each way of looking at one interpreter's maps: a view moves the target map with the image.

    Args:
        lens: that shows the iterates.
        objectives: at the target map as it is, and as each view has it.
    """

    def __init__(self, lens: _Lens, objectives: Sequence[MapObjective]) -> None:
        self._lens, self._objectives = lens, tuple(objectives)

    @property
    def taps(self) -> tuple[FeatureMap, ...]:
        """Those of any of its objectives."""
        return self._objectives[0].taps

    @property
    def needs_backward(self) -> bool:
        """As any of its objectives."""
        return self._objectives[0].needs_backward

    def __call__(self, view: ForwardPass) -> MapGradient:
        """What the objective for the lens's turn answers."""
        return self._objectives[self._lens.turn](view)

    def select(self, places: Tensor) -> None:
        """Go on with the images at ``places`` only, in every objective."""
        for objective in self._objectives:
            objective.select(places)


@dataclass(frozen=True)
class _PulledBack:
    """The product of a direction with the Jacobian of ``shown`` in ``leaf``."""

    leaf: Tensor
    shown: Tensor

    def __call__(self, direction: Tensor) -> Tensor:
        (back,) = torch.autograd.grad(self.shown, self.leaf, direction)
        return back


def _watched(signals: EnsembleSignals | SqueezingSignals) -> tuple[Interpreter, ...]:
    """The interpreters to attack: those that the detector watches, a mean map's parts in its place."""
    if isinstance(signals, SqueezingSignals):
        return ()
    parts = [p for g in signals.interpreters for p in (g.interpreters if isinstance(g, MeanMap) else (g,))]
    return tuple({part.name: part for part in parts}.values())


def finalists_for(passes: int, signals: Signals) -> int:
    """How many late iterates of an attack of so many ``passes`` are shown to a detector with these ``signals``."""
    return max(1, min(MOST_FINALISTS, passes // (_FINAL_SHARE * signals.passes_per_image)))


def steps_for(passes: int, signals: EnsembleSignals | SqueezingSignals) -> int:
    """The steps that ``passes`` of an attack on a detector with these ``signals`` pay for.

    Raises:
        InputError: they are no whole number, or too few for one step.
    """
    check_whole("passes", passes)
    final = finalists_for(passes, signals) * signals.passes_per_image
    least = final + _descent(1, signals)
    if passes < least:
        raise InputError(
            f"passes is {passes}; one step of an attack on a detector with {_named(signals)} and its score take "
            f"{least}, so give at least that many."
        )
    left = passes - final
    return bisect_right(range(1, left + 1), left, key=lambda n: _descent(n, signals))


def _named(signals: EnsembleSignals | SqueezingSignals) -> str:
    return ", ".join(g.name for g in _watched(signals)) or "squeezing"


def _descent(steps: int, signals: EnsembleSignals | SqueezingSignals) -> int:
    """Passes of ``steps`` steps and the look at the last iterate."""
    looks = looks_of(signals, {}, 0)
    at_maps = sum(look.maps for look in looks)  # the first ones of each turn

    def mapped(until: int) -> int:
        turns, rest = divmod(until, len(looks))
        return turns * at_maps + min(rest, at_maps)

    count = mapped(steps + 1) - mapped(warm_steps(steps))
    return steps + 1 + sum(g.further_passes(count) for g in _watched(signals))
