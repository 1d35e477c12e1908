"""The smallest change of an image that reaches a goal on label and maps, as saved in 8 bits."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from underfire import display
from underfire.attacks.budget import check_whole
from underfire.attacks.control import Balance
from underfire.attacks.directions import joint_direction
from underfire.attacks.engine import Outcome
from underfire.attacks.finite import FiniteChecks
from underfire.attacks.goals import Goal, Until
from underfire.attacks.joint import SEARCH, JointAttack, nearest_classes
from underfire.attacks.keepers import KeptIterates
from underfire.attacks.labels import Confidence, KeptLabel, LabelGoal
from underfire.attacks.perturbations.norms import LEVEL, NORMS, NormName
from underfire.attacks.radii import Radii
from underfire.attacks.result import AttackResult
from underfire.attacks.scored import score
from underfire.attacks.target_maps import TargetMap, of_one_classifier, wanted_maps
from underfire.attacks.trace import Recorder
from underfire.devices import SYNCHRONOUS
from underfire.errors import InputError, NonFiniteError
from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapTarget
from underfire.models.classifier import Classifier
from underfire.models.decisions import probability
from underfire.models.folded import prepared
from underfire.models.frozen import detached, ordinary
from underfire.seeding import owners

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASSES = 600
"""Forward and backward passes for an image, where the caller names none."""

SEEK = 0.6
"""A step minds the prediction as long as p_t is below this: enough to lead, and no more than that."""

FIRST, HALVED, LAST = 1 / 4, 30, 1 / 80
"""Steps begin at the first part of the radius, halve in so many, and are never shorter than the last part."""

MARGIN = 0.05
"""By so much a map must meet its goal by an estimate, before one taken afresh decides."""

SPARE = 0.1
"""By so much more than is asked for a map meets its goal before a step leaves it alone."""


@dataclass(frozen=True, kw_only=True)
class MinimumNormResult(AttackResult):
    """The nearest images found that meet the goal.

    Where none is found, ``x_adv`` is the benign image. The map loss of the trace is what maps lack of their goal, 0 and
    below where they meet it.

    Attributes:
        found: (N,) bool, whether ``x_adv`` meets the goal.
    """

    found: Tensor

    @classmethod
    def of(cls, result: AttackResult, found: Tensor) -> Self:
        """``result``, whose images meet the goal where they are ``found``."""
        return cls(**{field.name: getattr(result, field.name) for field in fields(AttackResult)}, found=found)

    @property
    def eps(self) -> Tensor:  # type: ignore[override]  # of each image its own, where others have one for all
        """(N,) float64, the change of each image in the unit of the norm; infinite where the goal is not met."""
        return self.used.where(self.found, torch.inf)

    def plot(self, limit: int | None = None) -> "Figure":
        """The security curve: the share of images on which a change of at most e meets the goal, against e.

        In L∞ e is in grey levels of 1/255, in L2 in the length of the change.

        Args:
            limit: the first so many images; by default all.
        """
        levels = self.perturbation.name == "linf"
        found = self.eps[:limit] * (255 if levels else 1)
        steps = found[found.isfinite()].sort().values.tolist()
        shares = [(k + 1) / len(found) for k in range(len(steps))]
        right = max([1.0, *steps]) * 1.1
        drawn = display.figure(5, 3)
        axes = drawn.subplots()
        axes.step([0.0, *steps, right], [0.0, *shares, shares[-1] if shares else 0.0], where="post")
        axes.set(
            xlim=(0, right),
            ylim=(0, 1.02),
            ylabel="share of images",
            title=f"{self.goal}, {display.plural(len(found), 'image')}",
        )
        axes.set_xlabel(f"largest change allowed, {self.perturbation.name}{', in levels of 1/255' if levels else ''}")
        return drawn

    def _headline(self) -> str:
        found = self.used[self.found]
        median = f", the median change of these {float(found.median()):.4g}" if len(found) else ""
        return (
            f"{self.attack}, goal {self.goal}: met on {len(found)} of {display.plural(len(self.keys), 'image')}{median}"
        )


class MinimumNorm(JointAttack):
    """Finds the x* nearest to x with f(x*) = c_t whose attribution maps look like the target maps.

    The loop of ADV² in a ball that each image has of its own. Where the goal is met the ball gets smaller, and the
    iterate, brought into it, goes on from there; where it is not met for a while, the ball gets larger. The classifier
    sees every iterate as it would be saved, in whole grey levels. One that meets the goal there has its maps taken
    afresh, on the unmodified model, before it counts; of those that count the nearest is kept. Nothing depends on how
    many passes there are, so that more of them never give a larger change.

    Args:
        interpreters: the interpreter under attack, or several of one classifier, all of whose maps must meet the goal.
        norm: ``"linf"``, the largest change of a pixel value, in whole grey levels k/255; ``"l2"``, the length of the
            change.
        goal: LABEL/MAP, with the label ``target`` or ``kept``.
        iou: what IoU with the target map, both cut at 0.5, counts as kept or led; for maps that move, at most which IoU
            of the top fifths counts as moved. In (0, 1].
        shift: for the map goal ``center``, by how many diagonals the centre of mass must move.
        eps: no larger change is looked for; by default there is no limit.
        passes: how many forward and backward passes an image may cost.
        seed: of the random numbers that an interpreter draws.

    Raises:
        InputError: a number is out of range, the norm or the goal is unknown, or the interpreters don't belong
            together.
    """

    name = "minimum-norm"
    title = "Minimum norm"
    summary = "the smallest change that reaches the prediction and the map of an interpreter, together"
    version = 1

    def __init__(
        self,
        interpreters: Interpreter | Sequence[Interpreter],
        *,
        norm: NormName = "linf",
        goal: str = "target/kept",
        iou: float = 0.5,
        shift: float = 0.1,
        eps: float | None = None,
        passes: int = PASSES,
        seed: int = 0,
    ) -> None:
        attacked = of_one_classifier(interpreters, "MinimumNorm")
        super().__init__(attacked[0].classifier, attacked, seed=seed)
        if norm not in NORMS:
            raise InputError(f"norm {norm!r} is unknown; give {' or '.join(map(repr, NORMS))}.")
        self.norm, self.wanted = NORMS[norm], Goal.parse(goal)
        if self.wanted.label == "other" or self.wanted.map == "free":
            raise InputError(f"goal '{goal}' is none of MinimumNorm; for any other class give target=None.")
        if self.wanted.label == "target" and self.wanted.moves:
            raise InputError(f"goal '{goal}' changes the label and moves the map; keep one of them.")
        for what, number in (("iou", iou), ("shift", shift)):
            if not 0 < number <= 1:
                raise InputError(f"{what} {number!r} is out of range; give a number above 0 and up to 1.")
        if eps is not None:
            self.norm.ball(eps)  # refuses what is none
            if eps < LEVEL * (1 - 1e-6):
                raise InputError(f"eps {eps:g} is below one grey level, 1/255; no saved image is that near.")
        check_whole("passes", passes)
        self.tau = shift if self.wanted.map == "center" else iou
        self.eps, self.passes = eps, passes
        if passes < _cost(attacked, 0):
            names = ", ".join(g.name for g in attacked)
            raise InputError(f"passes is {passes}; a look at {names} takes {_cost(attacked, 0)}, so give more.")

    def most_passes(self) -> int:
        """As many as it was given."""
        return self.passes

    def __call__(
        self,
        x: Tensor,
        target: Tensor | None,
        *,
        target_map: TargetMap | None = None,
        label: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> MinimumNormResult:
        """Attack images ``x`` (N, C, H, W) in [0, 1], whole grey levels, towards ``target`` (N,).

        Args:
            x: benign images.
            target: target classes, int64; None for any class but ``label``. Where the label is kept, the labels.
            target_map: as for other attacks; for goals of maps that are led, and for no other.
            label: classes (N,) of the benign maps, by default the classifier's own predictions.
            keys: one name per image, the owner of its random numbers; by default its content.

        Raises:
            InputError: something doesn't fit the classifier, the interpreters or the rest, or ``x`` has values between
                grey levels.
            NonFiniteError: a loss or a map is not a number.
        """
        self.classifier.check_images(x)
        between = ((x * 255).round() / 255 - x).abs().flatten(1).amax(dim=1) > 1e-6
        if between.any():
            raise InputError(
                f"image {int(between.nonzero()[0])} has values between grey levels, and what is looked for is the "
                "nearest image that can be saved; give (x * 255).round() / 255."
            )
        if (target_map is None) == (self.wanted.map == "led"):
            advice = "give target_map" if target_map is None else "leave target_map out"
            raise InputError(
                f"the goal '{self.wanted}' and target_map don't fit: only led maps have a target; {advice}."
            )
        if self.wanted.label == "kept":
            if target is None or label is not None:
                raise InputError(
                    f"the goal '{self.wanted}' keeps the classes given as target; give these, and no label."
                )
            label = None if target_map is not None else target
        return super().__call__(x, target, target_map=target_map, label=label, keys=keys)

    def goal_of(self, *, led: bool) -> Goal:  # noqa: ARG002 - it was given
        """As it was made."""
        return self.wanted

    def untargeted(
        self, x: Tensor, *, target_map: TargetMap | None, label: Tensor | None, keys: Sequence[str] | None
    ) -> MinimumNormResult:
        """Attack checked images ``x`` (N, C, H, W) towards any class but ``label`` (N,), by default the predictions.

        A short attack on the prediction, paid for out of the same passes, finds for each image the class that is
        nearest; it is then the target.
        """
        names = owners(x, keys)
        with ordinary():
            x = detached(x)
            label = self.classifier.probabilities(x).argmax(dim=1) if label is None else detached(label)
            self.classifier.check_classes(label, x.shape[0])
            first = self.norm.first(x)
            classes = nearest_classes(self.classifier, x, label, self.norm.ball(first), SEARCH, first / 8)
            goals = wanted_maps(self.interpreters, x, target_map, label=label, keys=names)
            goals = {g: detached(maps) for g, maps in goals.items()}
            result = self._searched(x, classes, goals, names, spent=SEARCH + 1)
        return replace(result, goal=replace(self.wanted, label="other"))

    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> MinimumNormResult:
        """Search on a checked batch, and score what is found."""
        return self._searched(x, target, goals, keys, spent=0)

    def _searched(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...], *, spent: int
    ) -> MinimumNormResult:
        started = time.perf_counter()
        label: LabelGoal = Confidence(keep=0.0, seek=SEEK)
        if self.wanted.label == "kept":
            with torch.no_grad():
                label = KeptLabel(probability(self.classifier.decision, self.classifier(x), target))
        most = self.norm.largest(x) if self.eps is None else self.eps
        search = _Descending(self, label, x, target, goals, keys, most, spent)
        search.run()
        outcome = Outcome(
            search.images,
            self.norm.size(x, search.images),
            search.recorder.passes,
            search.recorder.trace(search.nearest, joint=True),
        )
        result = score(
            self.name, self.classifier, x, target, goals, outcome,
            perturbation=self.norm.ball(most), steps=search.steps, label=label, keys=keys, started=started,
        )  # fmt: skip
        return MinimumNormResult.of(result, search.sizes.isfinite())


def _cost(interpreters: Sequence[Interpreter], look: int) -> int:
    """Passes of the ``look``-th look of a search, counted from 0, and of the step from there."""
    return 1 + sum(g.further_passes(look + 1) - g.further_passes(look) for g in interpreters)


class _Descending:
    """One search on a batch: the images that still take part, and all that moves with them, row by row.

    As in the loop of other attacks, where one image is left another one keeps it company, since sums over one image
    take another order than over several. Only the first ``_own`` rows count.

    Attributes:
        images: (N, C, H, W) the nearest that meet the goal, or the benign ones.
        sizes: (N,) of their changes; infinite where none is found.
        radii: of the search, which trusts what objectives say until maps are taken.
        recorder: of passes and losses.
        nearest: what came nearest to the goal, whatever its size; for the trace.
        steps: how many looks there were.
    """

    def __init__(
        self,
        attack: MinimumNorm,
        label: LabelGoal,
        x: Tensor,
        target: Tensor,
        goals: Mapping[Interpreter, Tensor],
        keys: tuple[str, ...],
        most: float,
        spent: int,
    ) -> None:
        self._norm, self._wanted, self._tau = attack.norm, attack.wanted, attack.tau
        self._scored, self._goals, self._keys = attack.classifier, goals, keys
        self._until = Until(attack.wanted, attack.tau)
        self._objectives = [
            g.objective(MapTarget(target, self._until.aimed(maps), keys, attack.seed, self._until))
            for g, maps in goals.items()
        ]
        self._taps = tuple({tap: None for objective in self._objectives for tap in objective.taps})
        self._check_passes = 1 + sum(g.passes_per_map for g in goals)
        self._guesses = any(g.passes_per_map > g.passes_per_step for g in goals)  # a step sees less than a map
        self._budget, self._all_x, self._all_target = attack.passes, x, target
        self._all_labels, self._label = label, label
        self._x, self._target, self._theta = x, target, x.clone()
        self._mixer, self._stepper = Balance().begin(x), attack.norm.rule().begin(x)
        self._rows = torch.arange(len(x), device=x.device)
        self._own = len(x)
        self.images, self.radii = x.clone(), Radii(attack.norm, x, most)
        self.sizes = torch.full_like(self.radii.best, torch.inf)
        self._candidates, self._best_theta, self._taken = x.clone(), x.clone(), torch.zeros_like(self._rows)
        self._unchecked = torch.full_like(self._rows, self._check_passes)
        self._checks = FiniteChecks(at_once=x.device.type in SYNCHRONOUS)
        self.recorder, self.nearest, self.steps = Recorder(x), KeptIterates(x), 0
        self.recorder.passes += spent

    def run(self) -> None:
        """Search until every image is done, or has no passes left for another step."""
        if not len(self._x):
            return
        classifier = prepared(self._scored)
        if self._own == 1:
            self._select(self._rows.repeat(2), own=1)
        with classifier.frozen():
            try:
                with self._checks.told_first():
                    while self._narrow():
                        self._step(classifier)
            except NonFiniteError as error:  # it counts the rows of a batch that may have been narrowed
                raise NonFiniteError(error.what, int(self._rows[error.index])) from error

    def _narrow(self) -> bool:
        """Let images leave the batch that are done or can pay no further step; False if nobody is left."""
        own = self._rows[: self._own]
        paying = self.recorder.passes[own] + _cost(tuple(self._goals), self.steps) <= self._budget
        left = (paying & (self.sizes[own] > LEVEL)).nonzero().flatten()
        if 0 < len(left) < self._own:
            self._select(left if len(left) > 1 else left.repeat(2), own=len(left))
        return len(left) > 0

    def _step(self, classifier: Classifier) -> None:
        """Look at the images as they would be saved, keep those that meet the goal, and take a step from each."""
        norm, own = self._norm, slice(self._own)
        rows = self._rows[own]
        saved = norm.saved(self._x, self._theta, self.radii.now[self._rows])
        view = ForwardPass(classifier, saved, taps=self._taps)
        nll = self._label.loss(classifier.decision, view.logits, self._target)
        self._checks.add(nll[:, None], "the prediction loss", own=self._own)
        reached = self._label.met(classifier.decision, view.logits, self._target)
        if not any(objective.needs_backward for objective in self._objectives):
            view.nll_gradient(self._label.aim(classifier.decision, view.logits, self._target), last=True)
        answers = [objective(view) for objective in self._objectives]
        short = torch.stack([answer.distance for answer in answers]).amax(dim=0)
        self._checks.add(short[:, None], "the interpretation loss", own=self._own)
        self.recorder.look(rows, nll[own], short[own], _cost(tuple(self._goals), self.steps))
        self.nearest.offer(saved[own], rows=rows, reached=reached[own], nll=nll[own], distance=short[own])
        direction = joint_direction(
            view, self._label, self._target, [_asking(answer) for answer in answers], self._mixer, self.steps
        )
        self._checks.add(direction, "the direction of the step", own=self._own)
        self.recorder.step(rows, direction[own], reached[own])
        radius = self.radii.now[self._rows]
        looked_at = self._theta
        self._theta = looked_at - norm.move(self._stepper(direction), radius * _length(self._taken[self._rows]))
        self._judge(looked_at[own], saved[own], reached[own], short[own] <= (-MARGIN if self._guesses else 0.0))
        self._theta = norm.project(self._x, self._theta, self.radii.now[self._rows])
        self.steps += 1

    def _judge(self, theta: Tensor, saved: Tensor, reached: Tensor, met: Tensor) -> None:
        """Change the radii of the images as ``theta``, seen as ``saved``, meets the goal or does not.

        By its objectives an image that meets the goal is a candidate. Its maps are taken afresh where no map was for a
        while, and where nothing better came for long; those of no candidate, where a step sees less than a map does.
        """
        rows, radii = self._rows[: self._own], self.radii
        self._taken[rows] += 1
        self._unchecked[rows] += _cost(tuple(self._goals), self.steps)
        sizes = self._norm.size(self._all_x[rows], saved)
        overdue = radii.step(rows, reached)
        claimed = reached & met & (sizes < radii.best[rows])
        pending = radii.best[rows] < self.sizes[rows]
        due = (self._unchecked[rows] >= self._check_passes) | (sizes <= LEVEL)
        doubtful = reached & ~claimed & ~pending & (sizes < self.sizes[rows]) & (overdue | (self.steps == 0))
        now = (claimed & due) | (doubtful & due if self._guesses else torch.zeros_like(due))
        before = overdue & ~claimed & pending
        asked = (now | before) & (self.recorder.passes[rows] + self._check_passes <= self._budget)
        held = self._confirmed(rows, asked, self._candidates[rows].where(_wide(before), saved))
        better = (now & held) | (claimed & ~due)
        # Chosen by value and not by place, here and in the radii: nothing waits to hear how many there are.
        self._candidates[rows] = saved.where(_wide(better), self._candidates[rows])
        self._best_theta[rows] = theta.where(_wide(better), self._best_theta[rows])
        radii.met(rows, sizes, better)
        refused, moved = before & ~held, self._theta[: self._own]
        radii.refuse(rows, self.sizes[rows], refused)
        self._best_theta[rows] = moved.where(_wide(refused), self._best_theta[rows])
        given_up = overdue & ~better
        back = radii.give_up(rows, given_up)
        self._theta[: self._own] = self._best_theta[rows].where(_wide(back), moved)
        self._taken[rows] = self._taken[rows].where(~(given_up & radii.best[rows].isinf()), 0)

    def _confirmed(self, rows: Tensor, asked: Tensor, images: Tensor) -> Tensor:
        """Which (n,) of the ``images`` of ``rows`` that are ``asked`` meet the goal; these are the best from now on."""
        held = torch.zeros_like(asked)
        self._checks.ask()
        if asked.any():
            held[asked] = self._check(images[asked], rows[asked])
            self._unchecked[rows[asked]] = 0
            self.images[rows[held]] = images[held]
            self.sizes[rows[held]] = self._norm.size(self._all_x[rows[held]], images[held])
        return held

    def _check(self, images: Tensor, rows: Tensor) -> Tensor:
        """Which (n,) of the ``images``, made of those of ``rows``, meet the goal on the unmodified classifier."""
        target, keys = self._all_target[rows], [self._keys[row] for row in rows.tolist()]
        self.recorder.passes[rows] += self._check_passes
        with torch.no_grad():
            logits = self._scored(images)
        met = self._all_labels.select(rows).met(self._scored.decision, logits, target)
        for g, reference in self._goals.items():
            met &= self._wanted.map_met(g(images, target, keys=keys), reference[rows], tau=self._tau)
        return met

    def _select(self, places: Tensor, *, own: int) -> None:
        """Go on with the images at ``places``, of which the first ``own`` count."""
        self._rows, self._x, self._target = self._rows[places], self._x[places], self._target[places]
        self._theta, self._own = self._theta[places], own
        self._label = self._label.select(places)
        self._mixer.select(places)
        self._stepper.select(places)
        for objective in self._objectives:
            objective.select(places)


def _asking(answer: MapGradient) -> MapGradient:
    """``answer`` with no direction where the map meets its goal with something to spare."""
    return replace(answer, direction=answer.direction * _wide(answer.distance > -SPARE))


def _wide(chosen: Tensor) -> Tensor:
    """``chosen`` (N,), each for a whole image."""
    return chosen[:, None, None, None]


def _length(steps: Tensor) -> Tensor:
    """The length (N,) of a step after ``steps`` (N,), in parts of the radius."""
    return (FIRST / (1 + steps.double() / HALVED)).clamp_min(LAST)
