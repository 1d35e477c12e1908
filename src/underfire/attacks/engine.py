"""The one loop of all attacks: forward pass, directions, step, best iterate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from underfire.attacks.control import Balance, Mix, Schedule
from underfire.attacks.directions import joint_direction, prediction_direction
from underfire.attacks.finite import FiniteChecks
from underfire.attacks.keepers import BEST, Keeper, KeptIterates
from underfire.attacks.labels import Confidence, LabelGoal
from underfire.attacks.perturbations import Perturbation
from underfire.attacks.rules import Adam, Rule
from underfire.attacks.trace import Recorder, Trace, Watcher
from underfire.attacks.transforms import Transform, TransformedBatch, identity
from underfire.devices import maybe_any
from underfire.errors import NonFiniteError
from underfire.interpreters.base import ForwardPass, MapGradient, MapObjective
from underfire.interpreters.map_goals import NEAR, MapGoal
from underfire.models.classifier import Classifier

_WHOLE = 1e-3  # of a grey level: what is nearer to a whole one is one

RHYTHM: Mapping[str, int] = MappingProxyType({"cuda": 16})
"""By the kind of device, after how many steps the loop asks what has come of them; elsewhere after each.

To ask is to wait until all is done that was asked for before, and a GPU has nothing to do meanwhile. In between, images
that are done go on with the others, and nothing of it is kept or counted.
"""


@dataclass(frozen=True)
class Setting:
    """The settings of the loop, apart from the images.

    Attributes:
        perturbation: what may be done to an image.
        schedule: how many steps, and how long each is. Its stages begin from what is kept, but for finalists.
        map_goal: what is wanted of the maps; at its ``enough`` an image needs no further step.
        label: what is wanted of the prediction: when that counts as reached, and up to where a mix may mind it.
        mix: how prediction and maps share a joint step.
        rule: from a joint step's direction to its move; before, the steepest move is taken.
        transform: the input transform (EOT) under which the classifier sees the iterates. An iterate whose prediction
            alone is attacked is no candidate.
        keep: which iterate of each image is kept.
        every: of the joint iterates, one in this many is a candidate.
        rounds: where the benign image is in whole grey levels, every look is at the image as it would be saved, and
            that is kept; θ itself moves on between the levels.
        finals: the looks after which what was kept since the last of them is a finalist, brought to whole grey levels;
            empty where what the loop notes of an iterate is true of it.
        watch: a callback that receives a copy of every iterate before its pass.
    """

    perturbation: Perturbation
    schedule: Schedule
    map_goal: MapGoal = NEAR
    label: LabelGoal = field(default_factory=Confidence)
    mix: Mix = field(default_factory=Balance)
    rule: Rule = field(default_factory=Adam)
    transform: Transform = identity
    keep: Keeper = BEST
    every: int = 1
    rounds: bool = False
    finals: tuple[int, ...] = ()
    watch: Watcher | None = None

    def without(self, spent: int) -> "Setting":
        """What is left of it after ``spent`` steps."""
        return replace(
            self,
            schedule=self.schedule.without(spent),
            finals=tuple(max(1, look - spent) for look in self.finals),
        )


@dataclass(frozen=True)
class Iterate:
    """Images (N, C, H, W) in [0, 1] of one step and (N,) how much of the budget each uses."""

    x_adv: Tensor
    used: Tensor


@dataclass(frozen=True)
class Outcome:
    """The kept iterates and what they cost.

    Attributes:
        x_adv: (N, C, H, W) in [0, 1].
        used: (N,) how much of the budget each uses, in the unit of the perturbation's ``eps``.
        passes: (N,) forward and backward passes spent on each image, int64.
        trace: the attack's course.
        finalists: iterates among which fresh maps shall decide.
    """

    x_adv: Tensor
    used: Tensor
    passes: Tensor
    trace: Trace
    finalists: tuple[Iterate, ...] = ()


def descend(
    classifier: Classifier, x: Tensor, target: Tensor, objectives: Sequence[MapObjective], setting: Setting
) -> Outcome:
    """Move ``x`` (N, C, H, W) towards ``target`` (N,) and the maps of ``objectives``; with no objective this is PGD.

    Every step pays one shared forward pass, a backward pass, and what each objective asks for beyond them.
    Each image follows its own path: nothing is averaged over the batch.

    Raises:
        NonFiniteError: a loss or a direction is not a number.
    """
    model, recorder = setting.perturbation, Recorder(x)
    best = KeptIterates(model.start(x), setting.keep, setting.map_goal.enough)
    finalists: list[Iterate] = []
    if x.shape[0]:
        with classifier.frozen():
            loop = _Loop(classifier, x, target, objectives, setting, best, recorder)
            loop.run()
        wholes = [model.whole(x, theta) for theta in loop.finalists]
        finalists = [Iterate(model.image(x, theta), model.size(x, theta)) for theta in wholes]
    kept = Iterate(model.image(x, best.theta), model.size(x, best.theta))
    trace = recorder.trace(best, joint=bool(objectives))
    return Outcome(kept.x_adv, kept.used, recorder.passes, trace, tuple(finalists))


class _Loop:
    """The images that still take part, and all that moves with them, row by row.

    Sums over one image take another order than over several (see Classifier.scores): where one image is left,
    another one keeps it company. Only the first ``_own`` rows count, and of them those that are ``_live``.
    """

    def __init__(
        self,
        classifier: Classifier,
        x: Tensor,
        target: Tensor,
        objectives: Sequence[MapObjective],
        setting: Setting,
        best: KeptIterates,
        recorder: Recorder,
    ) -> None:
        self._classifier, self._objectives, self._setting = classifier, objectives, setting
        self._best, self._recorder = best, recorder
        self._taps = tuple({tap: None for objective in objectives for tap in objective.taps})
        self._x, self._target, self._theta = x, target, best.theta.clone()
        self._whole_levels = ((255 * x - (255 * x).round()).abs() < _WHOLE).flatten(1).all(dim=1)
        self._label = setting.label
        self._mixer, self._stepper = setting.mix.begin(x), setting.rule.begin(self._theta)
        self._rows = torch.arange(x.shape[0], device=x.device)
        self._own = self._whole = x.shape[0]
        self._rhythm = 1 if setting.watch else RHYTHM.get(x.device.type, 1)
        self._live: Tensor | None = None  # None: all of them
        self._checks = FiniteChecks(at_once=self._rhythm == 1)
        self.finalists: list[Tensor] = []
        if self._own == 1:
            self._select(self._rows.repeat(2), own=1)

    def run(self) -> None:
        """All steps, or as many as the images need."""
        try:
            with self._checks.told_first():
                self._run()
        except NonFiniteError as error:  # it counts the rows of a batch that may have been narrowed
            raise NonFiniteError(error.what, int(self._rows[error.index])) from error

    def _run(self) -> None:
        steps = self._setting.schedule.steps
        for step in range(steps):
            self._step(step)
            if step == (steps - 1) // 2:
                self._recorder.halfway(self._best)
            if (step + 1) % self._rhythm:
                self._live = self._left()
            elif not self._narrow():
                return
        self._finish()
        self._checks.ask()

    def _step(self, step: int) -> None:
        """Look at the present iterates, offer them, and take one step from each."""
        batch, view, answers, reached = self._look(step)
        setting = self._setting
        if step in setting.schedule.ends and not setting.finals:
            self._theta = self._best.theta[self._rows]  # by the direction at the last one, annealed and so near
        joint = self._joint(step)
        if joint:
            direction = joint_direction(view, self._label, self._target, answers, self._mixer, step)
        else:
            direction = prediction_direction(view, self._label, self._target, last=True)
        direction = batch.pull_back(direction)
        own = slice(self._own)
        self._recorder.step(self._rows[own], direction[own], reached[own], live=self._live)
        direction = setting.perturbation.pull_back(self._x, self._theta, direction)
        self._require_finite(direction, "the direction of the step")  # sign(NaN) is 0: the image would silently stay
        # The rule sees the warm start too: its first joint moves are not those of a fresh mean.
        considered = self._stepper(direction) if self._objectives else direction
        model = setting.perturbation
        move = considered * model.share(self._theta) if joint else model.steepest(direction)
        self._theta = model.project(self._x, self._theta - move.mul_(setting.schedule.size(step)))

    def _finish(self) -> None:
        """The last iterates: one more look at them, or none where they are kept anyway."""
        if self._setting.keep.looks_last:
            self._look(self._setting.schedule.steps, values_only=not self._objectives)
        else:
            self._best.theta[self._rows[: self._own]] = self._theta[: self._own]

    def _narrow(self) -> bool:
        """Let images that are done leave the batch; False if nobody is left."""
        self._checks.ask()
        live = self._left()
        if live is None:
            return True
        left = live.nonzero().flatten()
        if 0 < len(left) < self._own:
            self._select(self._company(left, live), own=len(left))
        self._live = None
        return len(left) > 0

    def _left(self) -> Tensor | None:
        """Which of the images need further steps; None for all, as where maps taken afresh decide in the end."""
        if not (self._setting.keep.narrows and self._objectives) or self._setting.finals:
            return None
        return ~self._best.done(self._rows[: self._own])

    def _company(self, left: Tensor, live: Tensor) -> Tensor:
        """The places of those that are ``left``, at least one, and of others that fill up the batch.

        Where the loop seldom asks it is halved and halved again, so that there are few sizes of it.
        """
        if self._rhythm == 1:
            return left if len(left) > 1 else left.repeat(2)
        size = self._whole
        while size // 2 >= max(2, len(left)):
            size //= 2
        others = torch.cat([left, (~live).nonzero().flatten()])
        return others.repeat(2)[:size]

    def _require_finite(self, values: Tensor, what: str) -> None:
        """Stop at NaN or infinity in ``values`` (N, ...), as soon as the loop asks."""
        self._checks.add(values, what, own=self._own, live=self._live)

    def _joint(self, step: int) -> bool:
        """Whether ``step`` comes after the warm start of an attack on maps."""
        return bool(self._objectives) and step >= self._setting.schedule.warm

    def _look(
        self, step: int, *, values_only: bool = False
    ) -> tuple[TransformedBatch, ForwardPass, list[MapGradient], Tensor]:
        setting, target, label = self._setting, self._target, self._label
        theta = self._seen()
        images = setting.perturbation.image(self._x, theta)
        if setting.watch is not None:
            shown = self._rows[: self._own]
            setting.watch(shown, images[: self._own].clone(), self._recorder.passes[shown])
        batch = setting.transform(images, self._rows, step)
        joint = self._joint(step)
        mapped = joint and batch.maps
        taps = self._taps if mapped else ()
        view = ForwardPass(self._classifier, batch.images, taps=taps, attached=not values_only)
        decision = view.classifier.decision
        nll = label.loss(decision, view.logits, target)
        self._require_finite(nll[:, None], "the prediction loss")
        if mapped and not values_only and not any(objective.needs_backward for objective in self._objectives):
            aim = label.aim(decision, view.logits, target)
            view.nll_gradient(aim, last=True)  # before anybody needs memory for passes of its own
        answers = [objective(view) for objective in self._objectives] if mapped else []
        distance = torch.stack([answer.distance for answer in answers]).mean(dim=0) if mapped else nll
        self._require_finite(distance[:, None], "the interpretation loss")
        reached = (label.label_reached if joint else label.met)(decision, view.logits, target)
        own, passes = slice(self._own), 1 + sum(answer.passes for answer in answers)
        rows = self._rows[own]
        seen = distance[own] if mapped else None
        self._recorder.look(rows, nll[own], seen, passes, reached=reached[own], live=self._live)
        if step - 1 in setting.finals:
            self._best.begin_anew()
        if (mapped or not self._objectives) and (step - setting.schedule.warm) % setting.every == 0:
            offered = slice(None) if self._own == self._whole else rows  # a slice copies nothing
            kept = {"reached": reached[own], "nll": nll[own], "distance": distance[own]}
            self._best.offer(theta[own], rows=offered, **kept, live=self._live)
        if step in setting.finals:
            self.finalists.append(self._best.theta.clone())
        return batch, view, answers, reached

    def _seen(self) -> Tensor:
        """The parameters of the images that the classifier sees."""
        if not self._setting.rounds:
            return self._theta
        whole = self._setting.perturbation.whole(self._x, self._theta)
        if not maybe_any(~self._whole_levels):
            return whole
        return torch.where(self._whole_levels[:, None, None, None], whole, self._theta)

    def _select(self, places: Tensor, *, own: int) -> None:
        """Go on with the images at ``places``, of which the first ``own`` count."""
        self._rows, self._x, self._target = self._rows[places], self._x[places], self._target[places]
        self._theta, self._whole_levels, self._own = self._theta[places], self._whole_levels[places], own
        self._label = self._label.select(places)
        self._mixer.select(places)
        self._stepper.select(places)
        for objective in self._objectives:
            objective.select(places)
