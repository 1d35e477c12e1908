"""How fast an audit is on this machine: a few seconds of its own attacks, on its own photos."""

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from underfire.attacks.joint import Descent, JointAttack
from underfire.auditing.attackers import attacked
from underfire.auditing.condition import NONE, Condition
from underfire.auditing.cost import ConditionCost
from underfire.auditing.look import calling, look
from underfire.auditing.plan import AuditPlan, PlannedPhoto
from underfire.auditing.unit import noise, save_and_read
from underfire.choices import Keep
from underfire.images import PhotoLoader
from underfire.images.png import from_8bit
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier

Clock = Callable[[], float]

SECONDS = 25.0
"""That the attacks of a probe may take together; what comes before and after them takes a few more."""

LOOKS = 30
"""After so many looks of an attack at its iterates its speed is known well enough."""

FEW = 64
"""Passes of all maps of a photo; where they take more, a probe takes those of one photo."""

ROW, PART = 200, 5000
"""Bytes of a row and of a part besides, about, in Parquet."""

Kind = tuple[str, tuple[str, ...]]
"""An attack and the interpreters that it is on: its speed does not depend on its goal."""


@dataclass(frozen=True)
class Speed:
    """What a probe saw.

    Attributes:
        passes: seconds of a forward and backward pass of one photo within an attack, by what is attacked.
        begin: seconds of an attack on one batch before its first pass, by what is attacked.
        look: seconds of the prediction and all maps of one photo, which are ``look_passes`` passes.
        image: seconds to save one photo and read it back.
        bytes_benign, bytes_adversarial, bytes_maps: of one photo as it was, of one under noise of full size, and of all
            maps of one image.
    """

    passes: Mapping[Kind, float]
    begin: Mapping[Kind, float]
    look: float
    look_passes: int
    image: float
    bytes_benign: int
    bytes_adversarial: int
    bytes_maps: int

    def of_pass(self, condition: Condition) -> float:
        """Seconds of a pass under ``condition``; of one not tried the mean of the others, or that of a look."""
        known = list(self.passes.values()) or [self.look / self.look_passes]
        return self.passes.get(kind_of(condition), sum(known) / len(known))

    def seconds(self, cost: ConditionCost, *, batch_size: int) -> float:
        """What the photos of ``cost`` take, by batches of ``batch_size``; passes that are not told count as none."""
        looks = 1 if cost.condition == NONE else 2  # as computed and as saved
        batches = -(-cost.photos // batch_size)
        each = looks * self.look + self.image + (cost.attack or 0) * self.of_pass(cost.condition)
        return cost.photos * each + batches * self.begin.get(kind_of(cost.condition), 0.0)

    def bytes_of(self, costs: Sequence[ConditionCost], *, interpreters: int, parts: int, keep: Keep) -> int:
        """What the run directory takes, report aside."""
        found = parts * PART
        for cost in costs:
            found += cost.photos * interpreters * ROW
            image = self.bytes_benign if cost.condition == NONE else self.bytes_adversarial
            if keep == "all":
                found += cost.photos * (image + self.bytes_maps)
            elif keep == "adversarial" and not cost.condition.is_control:
                found += cost.photos * image
        return found


def kind_of(condition: Condition) -> Kind:
    """What decides the speed of its attack."""
    return condition.attack, condition.sources


class _EnoughError(Exception):
    """The speed of an attack is known."""


class _Stopwatch:
    """Follows one attack from look to look, and ends it when its time is over."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._clock, self._begun = clock, clock()
        self._end = self._begun + seconds
        self._before: tuple[float, int] | None = None
        self.begin = 0.0
        self._spent, self._passes, self._looks = 0.0, 0, 0

    def __call__(self, rows: Tensor, _x_adv: Tensor, passes: Tensor) -> None:
        now, most = self._clock(), int(passes.max())
        if self._before is None:
            self.begin = now - self._begun
        else:
            self._spent += now - self._before[0]
            self._passes += len(rows) * (most - self._before[1])
        self._before = now, most
        self._looks += 1
        if self._looks >= LOOKS or (now >= self._end and self._passes):
            raise _EnoughError

    @property
    def of_pass(self) -> float | None:
        """Seconds of a pass of one image; None where no two looks were seen."""
        return self._spent / self._passes if self._passes else None


@dataclass(frozen=True)
class _FirstPhotos:
    """The photos of a probe as tensors on the classifier's device, and their maps."""

    x: Tensor
    labels: Tensor
    targets: Tensor
    keys: list[str]
    maps: Mapping[str, Tensor]


def probe(
    plan: AuditPlan,
    classifier: Classifier,
    interpreters: Sequence[Interpreter],
    attacks: Mapping[Condition, JointAttack],
    photos: Sequence[PlannedPhoto],
    *,
    seconds: float = SECONDS,
    clock: Clock = time.perf_counter,
) -> Speed:
    """Runs the beginning of every attack on the first batch of ``photos``, for ``seconds`` together.

    Args:
        plan: of the audit.
        classifier: of the audit, like ``interpreters``.
        interpreters: whose maps are taken.
        attacks: those of the conditions that attack.
        photos: of the audit, at least one of them to be attacked.
        seconds: each kind of attack has an equal share, and ends after two looks at least.
        clock: in seconds.

    Raises:
        InputError: with the photo's name, where a number is not finite.
    """
    some = [photo for photo in photos if photo.excluded is None][: plan.batch_size]
    loader = PhotoLoader(classifier.preprocessing)
    x = from_8bit(torch.stack([loader.load(photo.file).pixels for photo in some]), classifier.dtype)
    labels, targets = (torch.tensor([getattr(photo, name) for photo in some]) for name in ("label", "target"))
    keys = [photo.image_id for photo in some]
    of_maps = sum(g.passes_per_map for g in interpreters)
    at_once = len(some) if of_maps <= FEW else 1
    look(classifier, (), x, labels, names=keys)  # the first pass is slower than all others
    began = clock()
    seen = look(classifier, interpreters, x[:at_once], labels[:at_once], names=keys[:at_once])
    looked = (clock() - began) / at_once
    device = classifier.device
    # How fast an attack is does not depend on where its target map is from.
    maps = {name: found.to(device).expand(len(some), -1, -1) for name, found in seen.maps.items()}
    batch = _FirstPhotos(x.to(device), labels.to(device), targets.to(device), keys, maps)
    kinds = {kind_of(c): (c, attack) for c, attack in attacks.items() if isinstance(attack, Descent)}
    watched = {
        kind: _watched(attack, condition, batch, seconds / len(kinds), clock)
        for kind, (condition, attack) in kinds.items()
    }
    passes = {kind: watch.of_pass for kind, watch in watched.items() if watch.of_pass is not None}
    image, benign, adversarial = _pictures(plan, x, keys, clock)
    cells = sum(found[0].numel() for found in seen.maps.values())
    begin = {kind: watch.begin for kind, watch in watched.items()}
    return Speed(passes, begin, looked, 1 + of_maps, image, benign, adversarial, 4 * cells)


def _watched(attack: Descent, condition: Condition, batch: _FirstPhotos, seconds: float, clock: Clock) -> _Stopwatch:
    """The beginning of ``attack``."""
    watch, watched = _Stopwatch(seconds, clock), copy.copy(attack)
    watched.setting = replace(attack.setting, watch=watch)
    try:
        with calling(batch.keys):
            attacked(watched, condition, batch.x, batch.labels, batch.targets, benign=batch.maps, keys=batch.keys)
    except _EnoughError:
        pass
    return watch


def _pictures(plan: AuditPlan, x: Tensor, keys: Sequence[str], clock: Clock) -> tuple[float, int, int]:
    """Seconds to save an image and read it back, bytes of one as it was, and of one under noise."""
    model = plan.perturbation_of(NONE)
    noisy, _ = noise(x, model, seed=plan.seed, keys=keys)
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name, images in (("benign", x), ("noisy", noisy)):
            paths = [Path(folder) / f"{name}-{place}.png" for place in range(len(x))]
            began = clock()
            save_and_read(images, x, model, paths)
            found.append(((clock() - began) / len(x), sum(path.stat().st_size for path in paths) // len(x)))
    (_, benign), (seconds, adversarial) = found
    return seconds, benign, adversarial
