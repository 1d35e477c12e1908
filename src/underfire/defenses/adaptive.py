"""The adaptive (perfect-knowledge) attacker: ADV² on all interpreters of a detector, under the detector's transforms.

What a detector measures is in part ranks and labels, through which no gradient goes. The attack descends on what they
follow from instead: the map distance of every interpreter and the prediction, both on the image and on the detector's
views of it; and the prediction on the region in which the target maps agree, or on the squeezed image. The detector's
score is not differentiated; it only selects among the final candidates, in whole grey levels.

Source: the adaptive attacker of Zhang et al., "Interpretable Deep Learning under Fire", USENIX Security 2020 (the
discussion of countermeasures); the transforms follow Athalye, Carlini and Wagner, "Obfuscated gradients give a false
sense of security", ICML 2018 (expectation over transformation; for a squeezer, the straight-through gradient).
"""

import time
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from underfire.attacks.budget import check_whole, warm_steps
from underfire.attacks.control import NORMALIZED, Balance, Schedule, Weighting
from underfire.attacks.engine import Outcome, Setting, descend
from underfire.attacks.joint import JointAttack
from underfire.attacks.keepers import LATEST
from underfire.attacks.perturbations import Perturbation, chosen
from underfire.attacks.scored import own_objective, score
from underfire.attacks.transforms import Cycle, CycledObjective
from underfire.defenses.detector_attack import DetectorAttackResult, ScoredImages
from underfire.defenses.ensemble import EnsembleDetector
from underfire.defenses.signals import AttackableSignals, Signals
from underfire.defenses.squeezing import FeatureSqueezing
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter, MapTarget
from underfire.models.folded import prepared

PASSES = 300
"""Forward and backward passes for an image, where the caller gives none."""

MOST_FINALISTS = 8
"""Late iterates that the detector scores."""

_FINAL_SHARE = 4  # at most one in four passes pays for the detector's scores of the finalists


class AdaptiveADV2(JointAttack):
    """Finds x* near x with f(x*) = c_t and the target maps that the detector takes for a clean photo.

    The steps cycle through the image and the transforms under which the detector's signals see it: the views, whose
    noise is drawn afresh at each step, and the agreed region; or what each squeezer leaves of the image. Of late
    iterates with the target label the one with the highest score is kept; of those without it, where none has it.

    Args:
        detector: a fitted one; all interpreters that it watches are attacked, and for a mean map its parts. Feature
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
    version: ClassVar[int] = 2

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
        super().__init__(detector.signals.classifier, detector.signals.interpreters, seed=seed)
        self.detector = detector
        model = chosen(perturbation, eps)
        steps = steps_for(passes, detector.signals)
        size = model.eps / 8
        schedule = Schedule(steps, warm=warm_steps(steps), first=size, peak=2 * size, last=size / 10)
        finals = late_looks(schedule, finalists_for(passes, detector.signals))
        self.setting = Setting(model, schedule, mix=Balance(weighting=weighting), keep=LATEST, finals=finals)

    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> DetectorAttackResult:
        """Attack a checked batch, and let the detector choose among the finalists."""
        started = time.perf_counter()
        size = (int(x.shape[2]), int(x.shape[3]))
        transforms = self.detector.signals.transforms({g.name: maps for g, maps in goals.items()}, self.seed)
        cycle = Cycle(transforms, keys)
        objectives = []
        for g, maps in goals.items():
            targets = [MapTarget(target, wanted, keys, self.seed) for wanted in cycle.target_maps(maps, size)]
            objectives.append(CycledObjective(cycle, [own_objective(g, wanted) for wanted in targets]))
        setting = replace(self.setting, transform=cycle)
        outcome, scores = descend(prepared(self.classifier), x, target, objectives, setting), x.new_zeros(0).double()
        if x.shape[0]:
            outcome, scores = self._chosen(outcome, target)
        result = score(
            self.name,
            self.classifier,
            x,
            target,
            goals,
            outcome,
            perturbation=setting.perturbation,
            steps=setting.schedule.steps,
            keys=keys,
            started=started,
        )
        return DetectorAttackResult.of(result, self.detector, scores.cpu())

    def _chosen(self, outcome: Outcome, target: Tensor) -> tuple[Outcome, Tensor]:
        """For each image the finalist that has the label and the highest score, and these scores (N,)."""
        finalists = outcome.finalists
        scored = [ScoredImages.of(self.detector, finalist.x_adv.contiguous(), target) for finalist in finalists]
        # By label first, then by score: where two finalists differ in the label, no score makes up for it.
        reached, found = torch.stack([one.reached for one in scored]), torch.stack([one.scores for one in scored])
        best = found.where(reached == reached.amax(dim=0), -torch.inf).argmax(dim=0)
        kept = found.gather(0, best[None])[0]
        best = best.to(target.device)
        rows = torch.arange(len(target), device=target.device)
        losses = torch.stack([one.losses for one in scored])
        prediction = replace(outcome.trace.prediction, kept=losses[best, rows])
        chosen_outcome = replace(
            outcome,
            x_adv=torch.stack([one.images for one in scored])[best, rows],
            used=torch.stack([f.used for f in finalists])[best, rows],
            # The loop's map distances are those under one transform or another.
            trace=replace(outcome.trace, prediction=prediction, maps=None),
            passes=outcome.passes + len(finalists) * self.detector.signals.passes_per_image,
            finalists=(),
        )
        return chosen_outcome, kept


def finalists_for(passes: int, signals: Signals) -> int:
    """How many late iterates of an attack of ``passes`` passes a detector with these ``signals`` scores."""
    return max(1, min(MOST_FINALISTS, passes // (_FINAL_SHARE * signals.passes_per_image)))


def late_looks(schedule: Schedule, finalists: int) -> tuple[int, ...]:
    """The looks after which what is kept is one of ``finalists``: the last, and others over the last quarter."""
    steps, warm = schedule.steps, schedule.warm
    apart = max(1, (steps - warm) // (4 * max(1, finalists)))
    return tuple(look for k in range(finalists) if (look := steps - k * apart) >= warm)


def steps_for(passes: int, signals: AttackableSignals) -> int:
    """The steps that ``passes`` of an attack on a detector with these ``signals`` pay for.

    Raises:
        InputError: they are no whole number, or too few for one step.
    """
    check_whole("passes", passes)
    final = finalists_for(passes, signals) * signals.passes_per_image
    least = final + _descent(1, signals)
    if passes < least:
        watched = ", ".join(g.name for g in signals.interpreters) or "squeezing"
        raise InputError(
            f"passes is {passes}; one step of an attack on a detector with {watched} and its score take "
            f"{least}, so give at least that many."
        )
    left = passes - final
    return bisect_right(range(1, left + 1), left, key=lambda n: _descent(n, signals))


def _descent(steps: int, signals: AttackableSignals) -> int:
    """Passes of ``steps`` steps and of evaluating the last iterates."""
    attacks_maps = [True, *(transform.maps for transform in signals.transforms({}, 0))]  # those that do come first
    at_maps = sum(attacks_maps)

    def mapped(until: int) -> int:
        cycles, rest = divmod(until, len(attacks_maps))
        return cycles * at_maps + min(rest, at_maps)

    count = mapped(steps + 1) - mapped(warm_steps(steps))
    return steps + 1 + sum(g.further_passes(count) for g in signals.interpreters)
