"""Universal perturbations (Moosavi-Dezfooli et al. 2017) of prediction and maps: one change for many photos."""

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from underfire.attacks.budget import check_whole, descent_of, warm_steps
from underfire.attacks.control import Balance, Mixer, Schedule
from underfire.attacks.directions import joint_direction
from underfire.attacks.engine import Outcome
from underfire.attacks.finite import FiniteChecks
from underfire.attacks.labels import Confidence
from underfire.attacks.perturbations import Linf, Perturbation, chosen
from underfire.attacks.perturbations.additive import Additive
from underfire.attacks.result import AttackResult
from underfire.attacks.rules import Adam, Stepper
from underfire.attacks.scored import score
from underfire.attacks.target_maps import classifier_and_interpreters, wanted_maps
from underfire.attacks.trace import Course, Trace
from underfire.devices import SYNCHRONOUS
from underfire.errors import InputError, NonFiniteError
from underfire.images.png import from_8bit
from underfire.interpreters.base import ForwardPass, Interpreter, MapGradient, MapObjective, MapTarget
from underfire.interpreters.directional import unit
from underfire.interpreters.map_goals import ENOUGH
from underfire.interpreters.maps import distance
from underfire.models.classifier import Classifier
from underfire.models.draws import refuse_random
from underfire.models.folded import prepared
from underfire.models.frozen import detached, ordinary
from underfire.seeding import derive_seed, generator, owners

PASSES = 40
"""Forward and backward passes for each photo of a fit whose caller names none."""

TargetClass = int | Tensor | Mapping[int, int]
"""Where photos shall be led: one class for all, a class for each (N,), or a class by label."""

_GREY = 128  # level of the grey image on which the shared change is kept
_CONFIDENCE = Confidence()


@dataclass(frozen=True)
class EpochLosses:
    """All photos of a fit, seen once each: means over them.

    Attributes:
        reached: the share whose prediction is the target class.
        nll: the prediction loss −log p_t, in nats.
        distance: L1 to the target maps, the mean over interpreters; None where no map was looked at.
    """

    reached: float
    nll: float
    distance: float | None


@dataclass(frozen=True)
class UniversalPerturbation:
    """One change of all images, ready to be applied to others.

    Attributes:
        classifier: what it was fitted on.
        interpreters: whose maps it keeps; none if it was fitted on the prediction alone.
        perturbation: what it was allowed to do.
        delta: what is added to a photo (1, C, H, W), multiples of 1/255.
        target: one class for all photos, or a class by label; None if the fit had a class for each of its photos.
        course: of the photos of the fit, an epoch after the other. During an epoch the perturbation moves on; the last
            entry is of the final one, for all photos.
        passes: forward and backward passes of single images that the fit took, benign maps apart.
        seconds: that it took.
    """

    classifier: Classifier
    interpreters: tuple[Interpreter, ...]
    perturbation: Perturbation
    delta: Tensor
    target: int | Mapping[int, int] | None
    course: tuple[EpochLosses, ...]
    passes: int
    seconds: float

    def __call__(
        self,
        x: Tensor,
        target: TargetClass | None = None,
        *,
        label: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> AttackResult:
        """Add the change to images ``x`` (N, C, H, W) in [0, 1], cut to [0, 1], and score what comes out.

        An ``x`` of whole grey levels stays one. Nothing is fitted to ``x``, so that no passes are spent on it and every
        loss of the trace is that of the one image there is. The target maps are the benign ones.

        Args:
            x: benign images.
            target: as in the fit, whose it is by default.
            label: classes (N,) of the benign maps, by default the classifier's own predictions.
            keys: one name per image, the owner of its random numbers; by default its content.

        Raises:
            InputError: something doesn't fit the classifier, or there is no target class for an image.
            NonFiniteError: a map is not a number.
        """
        started = time.perf_counter()
        wanted = self.target if target is None else target
        if wanted is None:
            raise InputError("the perturbation was fitted to a class for each of its photos; give target for these.")
        self.classifier.check_images(x)
        names = owners(x, keys)
        with ordinary():
            x = detached(x)
            classes = _classes(self.classifier, x, wanted, label)
            goals = wanted_maps(self.interpreters, x, None, label=label, keys=names)
            x_adv = self.perturbation.whole(x, _added(self.perturbation, x, self.delta.to(x))).contiguous()
            maps = {g.name: g(x_adv, classes, keys=names) for g in goals}
            with torch.no_grad():
                nll = self.classifier.decision.nll(self.classifier(x_adv), classes)
            gaps = torch.stack([distance(maps[g.name], aim) for g, aim in goals.items()]).mean(dim=0) if goals else None
            trace = Trace(torch.zeros_like(nll), _once(nll), None if gaps is None else _once(gaps))
            passes = torch.zeros(len(x), dtype=torch.int64)
            return score(
                Universal.name,
                self.classifier,
                x,
                classes,
                goals,
                Outcome(x_adv, self.perturbation.size(x, x_adv), passes, trace),
                known=maps,
                perturbation=self.perturbation,
                steps=0,
                keys=names,
                started=started,
            )


class Universal:
    """Fits one perturbation that leads many photos to the target class and keeps the map of each.

    The loop is that of :class:`ADV2` over minibatches, with one change for all photos. Each photo has one vote: the
    direction of a step is the mean, over the batch, of the photos' own directions at unit size. Gradients of different
    photos differ by orders of magnitude (that of −log p_t falls with 1 − p_t), so that a sum of losses would follow the
    few steepest photos, which need not be those that are still to be won. Photos whose label holds vote for their map
    alone, with λ for each photo by itself. The change is in whole grey levels whenever the classifier sees it, so that
    the fit is of images as they are saved; the steps between them add up in finer ones.

    Args:
        attacked: an interpreter or several of one classifier; or a classifier, for its prediction alone.
        eps: L∞ budget, in pixel values of [0, 1]; 8/255 if neither it nor a perturbation is given.
        passes: forward and backward passes of the classifier for each photo of the fit.
        batch_size: photos of one step. They are the same ones in every epoch, drawn by their keys; their order is not.
        perturbation: ``Linf`` or ``L2``, in place of ``eps``.
        seed: of that draw, and of the random numbers that an interpreter draws.

    Raises:
        InputError: a number is out of range, the perturbation is none that can be added to other photos, or the
            interpreters don't belong together.
    """

    name = "universal"

    def __init__(
        self,
        attacked: Classifier | Interpreter | Sequence[Interpreter],
        *,
        eps: float | None = None,
        passes: int = PASSES,
        batch_size: int = 10,
        perturbation: Perturbation | None = None,
        seed: int = 0,
    ) -> None:
        self.classifier, self.interpreters = classifier_and_interpreters(attacked, type(self).__name__)
        refuse_random(self.classifier)
        self.perturbation = _addable(chosen(perturbation, eps))
        check_whole("passes", passes)
        check_whole("batch_size", batch_size)
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; a step takes at least 1 photo.")
        self.epochs = bisect_right(range(1, passes + 1), passes, key=lambda n: descent_of(n, self.interpreters))
        if not self.epochs:
            least = descent_of(1, self.interpreters)
            raise InputError(f"passes is {passes}; to see each photo once and score it takes {least}, so give more.")
        self.batch_size, self.seed = batch_size, seed

    def fit(
        self, x: Tensor, target: TargetClass, *, label: Tensor | None = None, keys: Sequence[str] | None = None
    ) -> UniversalPerturbation:
        """Fit the perturbation to images ``x`` (N, C, H, W) in [0, 1]; their order does not matter.

        Args:
            x: benign images.
            target: a class for all, classes (N,), or for every label that occurs the class that it shall become.
            label: classes (N,) of the benign maps, by default the classifier's own predictions.
            keys: one name per image, the owner of its random numbers; by default its content.

        Raises:
            InputError: there is no image, something doesn't fit the classifier, or an image has no target class.
            NonFiniteError: a loss, a map or a direction is not a number.
        """
        started = time.perf_counter()
        self.classifier.check_images(x)
        if not x.shape[0]:
            raise InputError("x holds no image; a universal perturbation is fitted to at least one.")
        names = owners(x, keys)
        with ordinary():
            x = detached(x)
            classes = _classes(self.classifier, x, target, label, at_once=self.batch_size)
            parts = [self._part(x, classes, label, names, rows) for rows in self._partition(names)]
            fit = _Fit(prepared(self.classifier), parts, self.perturbation, self.epochs, self.seed)
            with fit.classifier.frozen(), fit.checks.told_first():
                course = tuple(fit.run(joint=bool(self.interpreters)))
        return UniversalPerturbation(
            classifier=self.classifier,
            interpreters=self.interpreters,
            perturbation=self.perturbation,
            delta=fit.delta(),
            target=None if isinstance(target, Tensor) else target,
            course=course,
            passes=fit.passes,
            seconds=time.perf_counter() - started,
        )

    def _partition(self, names: tuple[str, ...]) -> list[Tensor]:
        """The places of the photos of each batch; who shares one depends on the seed and the keys alone."""
        order = sorted(range(len(names)), key=lambda place: derive_seed(self.seed, names[place], "batch"))
        return list(torch.tensor(order).split(self.batch_size))

    def _part(self, x: Tensor, classes: Tensor, label: Tensor | None, names: tuple[str, ...], rows: Tensor) -> "_Part":
        keys = tuple(names[row] for row in rows.tolist())
        images, target = x[rows], classes[rows]
        benign = None if label is None else label[rows]
        try:
            goals = wanted_maps(self.interpreters, images, None, label=benign, keys=keys)
        except NonFiniteError as error:
            raise NonFiniteError(error.what, int(rows[error.index])) from error
        objectives = [g.objective(MapTarget(target, detached(aim), keys, self.seed)) for g, aim in goals.items()]
        return _Part(rows, images, target, objectives, Balance().begin(images))


@dataclass(frozen=True)
class _Part:
    """The photos of one batch with what is remembered of them from epoch to epoch."""

    rows: Tensor
    x: Tensor
    target: Tensor
    objectives: Sequence[MapObjective]
    mixer: Mixer


class _Fit:
    """The shared change on its way.

    What moves is what the change makes of a grey image, so that the perturbation's own projection, steps and rounding
    serve it: around that image nothing is cut at black or white.

    Attributes:
        classifier: the prepared one.
        checks: of what was computed.
        passes: forward and backward passes of single images so far.
    """

    def __init__(
        self, classifier: Classifier, parts: Sequence[_Part], model: Perturbation, epochs: int, seed: int
    ) -> None:
        self.classifier, self.passes = classifier, 0
        self._parts, self._model, self._epochs, self._seed = parts, model, epochs, seed
        self.checks = FiniteChecks(at_once=parts[0].x.device.type in SYNCHRONOUS)
        self._grey = torch.full_like(parts[0].x[:1], _GREY / 255)
        self._theta = model.start(self._grey)
        warm = warm_steps(epochs) if parts[0].objectives else 0
        count, size = len(parts), model.eps / 8
        self._schedule = Schedule(epochs * count, warm=warm * count, first=size, peak=2 * size, last=size / 10)

    def delta(self) -> Tensor:
        """The change (1, C, H, W) in whole grey levels."""
        levels = 255 * (self._model.whole(self._grey, self._theta) - self._grey)
        return from_8bit(levels.round(), levels.dtype)

    def run(self, *, joint: bool) -> Iterator[EpochLosses]:
        """All epochs, and a look at what came out."""
        stepper, step = Adam().begin(self._theta), 0
        for epoch in range(self._epochs):
            order = torch.randperm(len(self._parts), generator=generator(self._seed, "epoch", epoch))
            seen = []
            for place in order.tolist():
                seen.append(self._step(self._parts[place], step, stepper, joint=joint))
                step += 1
            yield self._mean(seen)
        delta = self.delta()
        yield self._mean([self._look(part, delta, joint=joint)[2] for part in self._parts])

    def _step(self, part: _Part, step: int, stepper: Stepper, *, joint: bool) -> Tensor:
        delta = self.delta()
        joint = joint and step >= self._schedule.warm
        view, answers, losses = self._look(part, delta, joint=joint)
        if joint:
            asking = [_asking(answer) for answer in answers]
            direction = joint_direction(view, _CONFIDENCE, part.target, asking, part.mixer, step)
        else:
            needs_confidence = _CONFIDENCE.needs_confidence(view.classifier.decision, view.logits, part.target)
            direction = view.nll_gradient(part.target, last=True) * needs_confidence[:, None, None, None]
        changed = part.x + delta
        inside = (changed >= 0) & (changed <= 1)  # what is cut off at black or white does not move
        votes = unit(direction * inside)
        self.checks.add(votes, "the direction of the step", rows=part.rows)
        move = stepper(votes.mean(dim=0, keepdim=True)) * self._model.share(self._theta)
        self._theta = self._model.project(self._grey, self._theta - self._schedule.size(step) * move)
        return losses

    def _look(self, part: _Part, delta: Tensor, *, joint: bool) -> tuple[ForwardPass, list[MapGradient], Tensor]:
        """A pass of the changed photos, what the objectives say, and (n, 3): reached, nll, map distance or NaN."""
        objectives = part.objectives if joint else ()
        taps = tuple({tap: None for objective in objectives for tap in objective.taps})
        view = ForwardPass(self.classifier, _added(self._model, part.x, delta), taps=taps)
        nll = view.nll(part.target).detach()
        self.checks.add(nll[:, None], "the prediction loss", rows=part.rows)
        answers = [objective(view) for objective in objectives]
        gaps = torch.stack([answer.distance for answer in answers]).mean(dim=0) if joint else nll * torch.nan
        if joint:
            self.checks.add(gaps[:, None], "the interpretation loss", rows=part.rows)
        reached = view.classifier.decision.predict(view.logits.detach(), part.target) == part.target
        self.passes += len(part.x) * (1 + sum(answer.passes for answer in answers))
        return view, answers, torch.stack([reached.to(nll), nll, gaps], dim=1)

    def _mean(self, seen: Sequence[Tensor]) -> EpochLosses:
        """Of the losses (n, 3) of all batches, all of them finite."""
        self.checks.ask()
        reached, nll, gap = torch.cat(list(seen)).double().mean(dim=0).tolist()
        return EpochLosses(reached, nll, None if gap != gap else gap)


def _asking(answer: MapGradient) -> MapGradient:
    """``answer`` with no direction where the map is as good as its target: at unit size it would be noise."""
    return replace(answer, direction=answer.direction * (answer.distance > ENOUGH)[:, None, None, None])


def _added(model: Perturbation, x: Tensor, delta: Tensor) -> Tensor:
    """Images ``x`` (N, C, H, W) with ``delta`` (1, C, H, W) added, cut to [0, 1]."""
    return model.image(x, model.project(x, x + delta))


def _addable(model: Perturbation) -> Perturbation:
    if isinstance(model, Linf) and not model.grey_levels:
        raise InputError(f"eps {model.eps:g} is below one grey level, 1/255; a change of whole levels needs that much.")
    if not isinstance(model, Additive):
        raise InputError(f"perturbation {model.name!r} is not added to photos; a universal one is Linf or L2.")
    return model


def _classes(
    classifier: Classifier, x: Tensor, target: TargetClass, label: Tensor | None, *, at_once: int | None = None
) -> Tensor:
    """The target classes (N,) of checked images, checked; ``at_once`` are shown to the classifier together."""
    n = x.shape[0]
    if label is not None:
        classifier.check_classes(label, n)
    if isinstance(target, Mapping):
        known = label
        if known is None:
            parts = x.split(at_once or max(1, n))
            known = torch.cat([classifier.probabilities(part).argmax(dim=1) for part in parts])
        missing = [int(c) for c in known.unique() if int(c) not in target]
        if missing:
            name = classifier.class_names[missing[0]]
            raise InputError(f"class {missing[0]} ({name}) of a photo has no target; add one, or leave the photo out.")
        wanted = torch.tensor([target[int(c)] for c in known], dtype=torch.int64, device=x.device)
    elif isinstance(target, Tensor):
        wanted = detached(target)
    else:
        check_whole("target", target)
        wanted = torch.full((n,), target, dtype=torch.int64, device=x.device)
    classifier.check_classes(wanted, n)
    return wanted


def _once(losses: Tensor) -> Course:
    """The course of what was looked at once."""
    return Course(losses, losses, losses)
