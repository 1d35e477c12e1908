"""One photo before one model: how it is seen, and an attack on it that can be watched and stopped."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from underfire import metrics
from underfire.attacks.goals import Goal
from underfire.attacks.joint import Descent
from underfire.attacks.labels import TOLERANCE, OtherLabel
from underfire.attacks.perturbations import Perturbation
from underfire.auditing.distances import MapDistances, distances_at, map_distances
from underfire.auditing.look import ModelView, calling, look, predict
from underfire.errors import InputError
from underfire.images import Pixels
from underfire.images.png import from_8bit
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier

TAU = 0.5
"""At which the map's part of a goal counts as met."""

_SHARE = 4
"""After a glance the attack has so many times as long to itself."""


class Stopped(Exception):  # noqa: N818 - no error: somebody wished it
    """The attack was stopped."""


@dataclass(frozen=True)
class MapChange:
    """How far a map is from the one that the goal is measured against."""

    l1: float
    iou: float
    top: float
    shift: float


@dataclass(frozen=True)
class SeenIterate:
    """How an iterate is seen by the unmodified model.

    Attributes:
        passes: spent on it.
        label: probability of the class that the model gave the photo.
        reached: probability of the class that the attack leads to.
        prediction: the class that the model gives it.
        maps: by interpreter.
    """

    passes: int
    label: float
    reached: float
    prediction: int
    maps: Mapping[str, MapChange]


@dataclass(frozen=True)
class Glance:
    """An iterate (1, C, H, W), with its point and its maps (1, h, w) by interpreter."""

    x: Tensor
    point: SeenIterate
    maps: Mapping[str, Tensor]


@dataclass(frozen=True)
class Scored:
    """What came out of an attack, on the image as saved in 8 bit, by the unmodified model.

    Attributes:
        pixels: the image, uint8 (C, H, W).
        view: of it, for the class ``explained``.
        explained: the class that maps are taken for: the target, the one reached, or the label that is kept.
        label_met: the label's part of the goal.
        maps_met: the map's part, by interpreter under attack; at `TAU`.
        from_benign: of each map from the benign one.
        from_target: of each map from the one led to; empty where there is none.
        linf, l2: how far the image is from the benign one.
        passes: spent; `seconds` with the glances.
        stopped: before the passes were spent.
    """

    pixels: Tensor
    view: ModelView
    explained: int
    label_met: bool
    maps_met: Mapping[str, bool]
    from_benign: Mapping[str, MapDistances[float]]
    from_target: Mapping[str, MapDistances[float]]
    linf: float
    l2: float
    passes: int
    seconds: float
    stopped: bool

    @property
    def met(self) -> bool:
        """Both halves of the goal are met, the map's by every interpreter under attack."""
        return self.label_met and all(self.maps_met.values())


@dataclass(frozen=True)
class BenignPhoto:
    """A photo as a model and some interpreters see it; its label is the model's own prediction."""

    name: str
    pixels: Pixels
    x: Tensor
    label: int
    view: ModelView

    @classmethod
    def seen(
        cls, name: str, pixels: Pixels, classifier: Classifier, interpreters: Sequence[Interpreter]
    ) -> "BenignPhoto":
        """``pixels`` as ``classifier`` and its ``interpreters`` see them.

        Raises:
            InputError: a number is not finite.
        """
        x = from_8bit(pixels.pixels[None], classifier.dtype)
        label = predict(classifier, x, names=[name]).argmax(dim=1)
        return cls(name, pixels, x, int(label), look(classifier, interpreters, x, label, names=[name]))


class Trial:
    """An attack on a photo that tells how it goes.

    Args:
        benign: the photo.
        interpreters: whose maps are shown; those that the attack is on, unless it is on the label alone.
        attack: with its setting.
        goal: of it.
        target: the class to reach, for goals of the label ``target``.
        target_maps: (1, h, w) by interpreter, for goals of the map ``led``.

    Raises:
        InputError: the photo is of the target class already.
    """

    def __init__(
        self,
        benign: BenignPhoto,
        interpreters: Sequence[Interpreter],
        attack: Descent,
        goal: Goal,
        *,
        target: int | None,
        target_maps: Mapping[str, Tensor] | None,
    ) -> None:
        if target == benign.label:
            name = attack.classifier.class_names[target]
            raise InputError(f"the photo is '{name}' to the model already; give another target class.")
        self.benign, self.interpreters, self.attack, self.goal = benign, tuple(interpreters), attack, goal
        self.target, self.target_maps = target, target_maps
        self.live = tuple(g for g in interpreters if not g.slow)
        self._last: Glance | None = None

    @property
    def perturbation(self) -> Perturbation:
        """What the attack may do to the photo."""
        return self.attack.setting.perturbation

    @property
    def references(self) -> Mapping[str, Tensor]:
        """The maps (1, h, w) that the goal is measured against: those led to, or the benign ones."""
        return self.benign.view.maps if self.target_maps is None else self.target_maps

    def run(self, tell: Callable[[Glance], None], stopping: Callable[[], bool]) -> Scored:
        """Attacks the photo, telling what becomes of it as often as a fifth of the time allows.

        Where ``stopping`` says so, the attack ends at its next look, and what was told last is scored.

        Raises:
            InputError: a number is not finite, or there was nothing yet to score.
        """
        started, ready = time.perf_counter(), 0.0

        def watch(_: Tensor, x_adv: Tensor, passes: Tensor) -> None:
            nonlocal ready
            if stopping():
                raise Stopped
            now = time.perf_counter()
            if now < ready:
                return
            self._last = self.glance(x_adv, int(passes))
            tell(self._last)
            ready = time.perf_counter() + _SHARE * (time.perf_counter() - now)

        self.attack.setting = replace(self.attack.setting, watch=watch)
        label = torch.tensor([self.benign.label])
        wanted = {"other": None, "kept": label}.get(self.goal.label, torch.tensor([self.target or 0]))
        device = self.attack.classifier.device
        try:
            with calling([self.benign.name]):
                result = self.attack(
                    self.benign.x.to(device),
                    None if wanted is None else wanted.to(device),
                    target_map=None
                    if self.target_maps is None
                    else {n: m.to(device) for n, m in self.target_maps.items()},
                    keys=[self.benign.name],
                )
        except Stopped:
            if self._last is None:
                raise InputError("the attack was stopped before its first step, so there is nothing to show.") from None
            return self._scored(self._last.x, self._last.point.passes, started, stopped=True)
        passes = int(result.passes)
        tell(self.glance(result.x_adv, passes))
        return self._scored(result.x_adv.detach().cpu(), passes, started, stopped=False)

    def glance(self, x: Tensor, passes: int) -> Glance:
        """How ``x`` (1, C, H, W) is seen, by the interpreters whose map doesn't take many passes."""
        view, explained = self._seen(x, self.live)
        label, reached = (float(view.probabilities[0, c]) for c in (self.benign.label, explained))
        prediction = int(view.predict(torch.tensor([explained])))
        changes = {name: _change(maps, self.references[name].cpu()) for name, maps in view.maps.items()}
        return Glance(x.detach().cpu(), SeenIterate(passes, label, reached, prediction, changes), view.maps)

    def _seen(self, x: Tensor, interpreters: Sequence[Interpreter]) -> tuple[ModelView, int]:
        """The view of ``x`` (1, C, H, W), and the class that its maps are taken for."""
        classifier, names = self.attack.classifier, [self.benign.name]
        if self.goal.label == "other":
            with torch.no_grad():
                logits = classifier(x.to(classifier.device)).cpu()
            explained = int(OtherLabel().aim(classifier.decision, logits, torch.tensor([self.benign.label])))
        else:
            explained = self.benign.label if self.target is None else self.target
        return look(classifier, interpreters, x, torch.tensor([explained]), names=names), explained

    def _scored(self, x: Tensor, passes: int, started: float, *, stopped: bool) -> Scored:
        pixels = self.perturbation.rounded(self.benign.x, x)
        saved = from_8bit(pixels, self.benign.x.dtype)
        view, explained = self._seen(saved, self.interpreters)
        attacked = {g.name for g in self.attack.interpreters}
        return Scored(
            pixels[0],
            view,
            explained,
            self._label_met(view, explained),
            {
                name: bool(self.goal.map_met(maps, self.references[name].cpu(), tau=TAU))
                for name, maps in view.maps.items()
                if name in attacked
            },
            _distances(view.maps, self.benign.view.maps),
            {} if self.target_maps is None else _distances(view.maps, self.target_maps),
            float(metrics.linf(saved, self.benign.x)),
            float(metrics.l2(saved, self.benign.x)),
            passes,
            time.perf_counter() - started,
            stopped,
        )

    def _label_met(self, view: ModelView, explained: int) -> bool:
        if self.goal.label == "other":
            return int(view.predict(torch.tensor([self.benign.label]))) != self.benign.label
        leads = int(view.predict(torch.tensor([explained]))) == explained
        if self.goal.label == "target":
            return leads
        moved = view.probabilities[0, explained] - self.benign.view.probabilities[0, explained]
        return leads and float(moved.abs()) <= TOLERANCE


def _change(maps: Tensor, reference: Tensor) -> MapChange:
    return MapChange(
        float(metrics.l1(maps, reference)),
        float(metrics.iou(maps, reference)),
        float(metrics.iou_top(maps, reference)),
        float(metrics.center_shift(maps, reference)),
    )


def _distances(maps: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, MapDistances[float]]:
    return {name: distances_at(map_distances(found, others[name].cpu()), 0) for name, found in maps.items()}
