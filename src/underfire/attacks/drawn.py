"""Attacks on classifiers that draw random numbers, scored over many draws and with the randomness frozen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.attacks.goals import Goal
from underfire.attacks.joint import JointAttack
from underfire.attacks.labels import Confidence
from underfire.attacks.result import AttackResult
from underfire.attacks.target_maps import TargetMap, wanted_maps
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.models.classifier import Classifier
from underfire.models.draws import fixed_draws, redrawn
from underfire.seeding import derive_seed, owners
from underfire.stats import Estimate, Share, bootstrap_mean, clopper_pearson, wilson

LED = Goal("target", "led")
"""Whether maps were benign or given, an image is to show those."""

InterpreterOf = Callable[[Classifier], Interpreter]
"""An interpreter of any classifier, as the class ``uf.GRAD`` is."""


@dataclass(frozen=True)
class DrawScores:
    """How often N images meet their goal when the classifier draws, beside what one frozen draw shows.

    Attributes:
        rates: for each image, in how many of the draws it was met, with the exact interval.
        frozen: (N,) bool, whether it was met in the one draw that attacker and scorer share.
    """

    rates: tuple[Share, ...]
    frozen: Tensor

    @property
    def draws(self) -> int:
        """How many fresh draws each image had; 0 without images."""
        return self.rates[0].n if self.rates else 0

    @property
    def succeeded(self) -> Tensor:
        """(N,) bool: more than every other draw meets the goal, by the lower end of the interval."""
        return torch.tensor([rate.low is not None and rate.low > 0.5 for rate in self.rates], dtype=torch.bool)

    @property
    def rate(self) -> Estimate:
        """The mean rate over the images, which is the success rate of one query, with a bootstrap interval."""
        return bootstrap_mean([rate.k / rate.n for rate in self.rates])

    @property
    def frozen_rate(self) -> Share:
        """The share of images that meet the goal in the frozen draw."""
        return wilson(int(self.frozen.sum()), len(self.frozen))

    def rows(self) -> list[dict[str, float | int | bool | None]]:
        """One flat record per image, ready for a table."""
        return [
            {
                "rate": rate.value,
                "rate_low": rate.low,
                "rate_high": rate.high,
                "draws": rate.n,
                "succeeded": bool(succeeded),
                "frozen": bool(frozen),
            }
            for rate, succeeded, frozen in zip(self.rates, self.succeeded, self.frozen, strict=True)
        ]


@dataclass(frozen=True)
class DrawnAttack:
    """An attack on a classifier that draws, and the same on one frozen draw.

    Attributes:
        result: of the attack that averages over its draws, scored on the mean of these.
        frozen: of the attack on one fixed draw, scored on that draw.
        scores: the rates of ``result``'s images over fresh draws, beside the successes of ``frozen``.
    """

    result: AttackResult
    frozen: AttackResult
    scores: DrawScores


def attack_draws(
    attack: Callable[..., JointAttack],
    classifier: Classifier,
    x: Tensor,
    target: Tensor,
    *,
    interpreters: Sequence[InterpreterOf] = (),
    target_map: TargetMap | None = None,
    averaged: int = 16,
    draws: int = 100,
    tau: float = 0.5,
    seed: int = 0,
    keys: Sequence[str] | None = None,
) -> DrawnAttack:
    """Attack images ``x`` (N, C, H, W) in [0, 1] of a ``classifier`` that draws towards ``target`` (N,), and score it.

    The attack averages over ``averaged`` fixed draws (EOT); its images are scored over ``draws`` others. The same
    attack on one fixed draw, scored on it, shows what the classifier withstands without its randomness.

    Args:
        attack: makes the attack from a classifier or a list of interpreters, as ``uf.PGD`` and ``uf.ADV2`` do.
        classifier: under attack.
        x: benign images.
        target: target classes, int64.
        interpreters: those under attack; none for an attack on the prediction alone.
        target_map: as an attack takes it; by default the benign maps.
        averaged: how many draws the attack averages over.
        draws: how many fresh ones each image is scored over.
        tau: where the map's part of the goal is met, see `Goal.map_met`.
        seed: of all draws.
        keys: one name per image, by default its content.

    Raises:
        InputError: something doesn't fit, the attack has another goal on the label than a target class, or the
            classifier's randomness cannot be held.
    """
    names = owners(x, keys)

    def attacked(held: Classifier) -> AttackResult:
        made = attack([make(held) for make in interpreters] if interpreters else held)
        return made(x, target, target_map=target_map, keys=names)

    result = attacked(fixed_draws(classifier, draws=averaged, seed=derive_seed(seed, "averaged")))
    if result.goal.label != "target":
        raise InputError(f"the goal '{result.goal}' is not scored over draws; give an attack towards a target.")
    fresh = score_draws(
        classifier,
        result.x_adv,
        target,
        interpreters=interpreters,
        target_map=result.target_maps or None,
        draws=draws,
        tau=tau,
        seed=seed,
        keys=names,
    )
    frozen = attacked(fixed_draws(classifier, seed=seed))
    return DrawnAttack(result, frozen, DrawScores(fresh.rates, frozen.met(tau).cpu()))


def score_draws(
    classifier: Classifier,
    x: Tensor,
    target: Tensor,
    *,
    interpreters: Sequence[InterpreterOf] = (),
    target_map: TargetMap | None = None,
    draws: int = 100,
    tau: float = 0.5,
    seed: int = 0,
    keys: Sequence[str] | None = None,
) -> DrawScores:
    """How often images ``x`` (N, C, H, W) in [0, 1] show ``target`` (N,) and their maps when the ``classifier`` draws.

    In each draw a person would be shown one prediction and its map; the goal is met where that is the target class and
    the map's IoU with its target map is at least ``tau``. Each draw is of one image alone, and no attack has seen it.
    The frozen draw is that of ``fixed_draws(classifier, seed=seed)``.

    Args:
        classifier: that draws; of another every rate is 0 or 1.
        x: images, attacked or not.
        target: classes, int64.
        interpreters: whose maps are part of the goal.
        target_map: maps (N, h, w), one for each interpreter.
        draws: how many for each image.
        tau: in [0, 1].
        seed: of all draws.
        keys: one name per image, the owner of its draws; by default its content.

    Raises:
        InputError: something doesn't fit, ``draws`` is below 1, interpreters and target maps don't go together, or the
            classifier's randomness cannot be held.
    """
    classifier.check_images(x)
    classifier.check_classes(target, x.shape[0])
    if draws < 1:
        raise InputError(f"draws is {draws}; it must be at least 1.")
    if bool(interpreters) != (target_map is not None):
        raise InputError("maps are scored for interpreters and their target maps; give both or none of them.")
    names = owners(x, keys)
    held = fixed_draws(classifier, seed=seed)
    made = tuple(make(held) for make in interpreters)
    maps = list(wanted_maps(made, x, target_map, label=None, keys=names).values())

    def met(i: int) -> bool:
        one = slice(i, i + 1)
        return _met(held, made, x[one], target[one], [m[one] for m in maps], (names[i],), tau)

    frozen = torch.tensor([met(i) for i in range(len(x))], dtype=torch.bool)
    rates = []
    for i, name in enumerate(names):
        count = 0
        for k in range(draws):
            with redrawn(held, derive_seed(seed, name, "fresh draw", k)):
                count += met(i)
        rates.append(clopper_pearson(count, draws))
    return DrawScores(tuple(rates), frozen)


def _met(
    held: Classifier,
    interpreters: Sequence[Interpreter],
    x: Tensor,
    target: Tensor,
    target_maps: Sequence[Tensor],
    keys: tuple[str, ...],
    tau: float,
) -> bool:
    """Whether one image (1, C, H, W) meets label and maps in the present draw."""
    with torch.no_grad():
        logits = held(x)
    return bool(Confidence().met(held.decision, logits, target)) and all(
        bool(LED.map_met(g(x, target, keys=keys), wanted, tau=tau))
        for g, wanted in zip(interpreters, target_maps, strict=True)
    )
