"""What an audit does: everything that decides its rows, in one frozen value."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from underfire.attacks.authors import PUBLISHED
from underfire.attacks.perturbations import Flow, Perturbation
from underfire.auditing.condition import NOISE, NONE, Condition
from underfire.auditing.names import make_perturbation
from underfire.errors import InputError
from underfire.interpreters import CAM, GRAD, IG, MASK

ATTACKS: tuple[str, ...] = ("pgd", "adv2", "stadv", "square")
"""The attacks that a user chooses from."""

JOINT_ATTACKS: tuple[str, ...] = ("adv2", "stadv", "square")
"""Those that are run on each interpreter in turn."""

Preset = Literal["quick", "standard", "paper", "authors"]

_LONGEST = max(published.steps for published in PUBLISHED.values())

PASSES: Mapping[Preset, int] = MappingProxyType({"quick": 150, "standard": 300, "paper": _LONGEST, "authors": _LONGEST})
"""Forward and backward passes per photo, the same for every attack, so that none wins by its budget alone.

"paper" has as many as the longest schedule that the authors of ADV² published has steps. With "authors" their own
attack takes the place of ADV² and has its published number of steps.
"""


QUICK = (GRAD.name, IG.name, CAM.name)
"""The interpreters that suit most classifiers and cost little."""

REFITTED = frozenset({MASK.name})
"""Interpreters whose every map is a fit: too dear for a search that looks at thousands of maps."""

QUERIES = 10
"""Queries of Square for each pass of a preset: a query goes forward only, and tells one number, not a direction."""


@dataclass(frozen=True)
class Effort:
    """How long an attack may work on a photo: so many steps, or so many passes; the other is None."""

    steps: int | None = None
    passes: int | None = None


@dataclass(frozen=True)
class ModelSettings:
    """Which classifier, as the user named it; the fields from ``mean`` on are for a bare module."""

    spec: str = "efficientnet-lite0"
    checkpoint: str | None = None
    class_names: str | None = None
    """A file with one class name a line."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: tuple[int, int] | None = None
    """(height, width) in pixels."""
    resize: int | None = None
    """The short side to which photos are resized before the centre crop, in pixels."""


@dataclass(frozen=True)
class AuditPlan:
    """Everything that decides the rows of an audit, apart from the photos themselves.

    Raises `InputError` where a value is out of its range.
    """

    model: ModelSettings = ModelSettings()
    interpreters: tuple[str, ...] = QUICK
    left_out: tuple[str, ...] = ()
    """In words, the interpreters that the preset would not have and why; decides nothing."""
    rts: str | None = None
    """The file of RTS's weights; None for those that come with the package."""
    attacks: tuple[str, ...] = ("pgd", "adv2")
    """By name, each joint one on every interpreter in turn; or a whole condition, such as "mine-cam+grad"."""
    preset: Preset = "quick"
    targets: str = "random"
    """random | next | given | a class, by index or name."""
    perturbation: str = "linf"
    """linf | l2 | flow: what noise, PGD and ADV² may do to an image; StAdv always moves pixels."""
    eps: float | None = None
    """The budget, in the perturbation's own unit; None for its default."""
    steps: int | None = None
    """Steps of every attack, whatever each costs; None for a number of passes."""
    passes: int | None = None
    """Forward and backward passes of every attack per photo; None for the preset's, or a number of steps."""
    seed: int = 0
    batch_size: int = 4
    """Photos that are attacked together; they also share one part file."""
    limit: int | None = None
    """At most so many photos, the first ones."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        make_perturbation(self.perturbation, self.eps)
        if self.preset == "authors" and self.perturbation != "linf":
            raise InputError(
                f"the preset 'authors' is for the perturbation 'linf', not '{self.perturbation}'; give another preset"
            )
        if self.steps is not None and self.passes is not None:
            raise InputError(f"steps {self.steps} and passes {self.passes} are both given; give one of them")
        for name in ("steps", "passes", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; give a whole number of at least 1")
        if not self.interpreters:
            raise InputError("no interpreter is named; give at least one, such as 'cam'")
        if not self.attacks:
            raise InputError(f"no attack is named; give at least one of {', '.join(ATTACKS)}")
        if "square" in self.attacks and self.perturbation != "linf":
            raise InputError(
                f"the attack 'square' is for the perturbation 'linf', not '{self.perturbation}'; leave the attack out"
            )
        refitted = next((name for name in self.interpreters if name in REFITTED), None)
        if "square" in self.attacks and refitted is not None:
            raise InputError(
                f"the attack 'square' asks for a map at every query, and '{refitted}' is fitted anew for each map; "
                "leave one of the two out"
            )
        unpublished = next((name for name in self.interpreters if name not in PUBLISHED), None)
        if self.preset == "authors" and "adv2" in self.attacks and unpublished is not None:
            raise InputError(
                f"the preset 'authors' has no schedule for '{unpublished}', only for {', '.join(PUBLISHED)}; "
                "leave it out, or give another preset"
            )
        for kind, names in (("interpreter", self.interpreters), ("attack", self.attacks)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise InputError(f"{kind} '{twice}' is named twice; name it once")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions of a photo that can be attacked, in the order in which they are run."""
        own = [name for name in self.attacks if name not in ATTACKS]
        named = [name for name in ATTACKS if name in self.attacks] + own
        attacked = [c for name in named for c in self._conditions_of(name)]
        return (NONE, NOISE, *attacked)

    def _conditions_of(self, attack: str) -> list[Condition]:
        if attack in JOINT_ATTACKS:
            return [Condition.on(attack, name) for name in self.interpreters]
        return [Condition.parse(attack)]

    def perturbation_of(self, condition: Condition) -> Perturbation:
        """What ``condition`` may do to an image. The plan's budget is StAdv's too where it is one of displacements."""
        if condition.attack == "stadv" and self.perturbation != Flow.name:
            return Flow()
        return make_perturbation(self.perturbation, self.eps)

    def effort_of(self, condition: Condition) -> Effort:
        """How long the attack of ``condition`` may work on a photo; no steps where nothing is optimised."""
        if condition.is_control:
            return Effort(steps=0)
        if self.steps is not None:
            return Effort(steps=self.steps)
        if self.passes is None and self.preset == "authors" and condition.attack == "adv2":
            return Effort(steps=PUBLISHED[condition.sources[0]].steps)
        if self.passes is not None:
            return Effort(passes=self.passes)
        return Effort(passes=PASSES[self.preset] * (QUERIES if condition.attack == "square" else 1))

    def as_config(self) -> dict[str, object]:
        """The plan for run.json: plain values only, the steps or passes of every attack resolved."""
        config = asdict(self) | {"eps": make_perturbation(self.perturbation, self.eps).eps}
        model = config.pop("model")
        efforts = {str(condition): self.effort_of(condition) for condition in self.conditions[2:]}
        config["steps"] = {key: effort.steps for key, effort in efforts.items() if effort.steps is not None} or None
        config["passes"] = {key: effort.passes for key, effort in efforts.items() if effort.passes is not None} or None
        plain = {"model": model.pop("spec"), **model, **config}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def to_json(self) -> dict[str, Any]:
        """The plan as it was given, of plain values; `from_json` makes it again."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "AuditPlan":
        """The plan whose `to_json` is ``plain``.

        Raises:
            InputError: a value is out of its range.
            TypeError: it is no plan.
        """
        model = ModelSettings(**_frozen(plain.get("model", {})))
        return cls(**_frozen(plain) | {"model": model})


def _frozen(plain: Mapping[str, Any]) -> dict[str, Any]:
    """``plain`` with tuples in place of the lists that JSON has."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


# What these files held is compared itself, by fingerprint, names of classes and hash; where they lie decides nothing.
_PLACES = frozenset({"checkpoint", "class_names", "rts"})
_REMARKS = frozenset({"left_out"})


def first_difference(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, object, object] | None:
    """The first setting of two configurations that decides rows and differs: (name, old value, new value)."""
    for name in [*new, *(name for name in old if name not in new)]:
        if name not in _PLACES | _REMARKS and old.get(name) != new.get(name):
            return name, old.get(name), new.get(name)
    return None


@dataclass(frozen=True)
class Shard:
    """The share of an audit that one process does: every ``count``-th part, from number ``index`` on."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise InputError(f"shard '{self.index}/{self.count}' does not exist; give i/N with i from 1 to N")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard()
"""The share of a process that does everything."""


@dataclass(frozen=True)
class PlannedPhoto:
    """One photo of a run, with all that was decided about it before the first attack."""

    image_id: str
    key: str
    """Its folder in artifacts/."""
    sha256: str
    """Of the file's bytes."""
    file: str
    label: int
    label_given: bool
    """False: the model's own prediction serves as the label."""
    target: int
    excluded: str | None
    """Why it is not attacked, or None."""


@dataclass(frozen=True)
class Unit:
    """Photos that are worked on together and share one part file."""

    number: int
    photos: tuple[PlannedPhoto, ...]


def photo_key(position: int, sha256: str) -> str:
    """The name of a photo's folder in artifacts/: its place in the plan and the start of its hash."""
    return f"{position:05d}-{sha256[:8]}"


def planned_photos(entries: Sequence[Mapping[str, Any]]) -> tuple[PlannedPhoto, ...]:
    """The photos of a run.json, which others may have written: folders are named by their keys.

    Raises:
        ValueError: the key of one is not what a run gives it.
        TypeError: an entry is no photo.
    """
    photos = tuple(PlannedPhoto(**entry) for entry in entries)
    for position, photo in enumerate(photos):
        if photo.key != photo_key(position, photo.sha256) or not photo.key.replace("-", "").isalnum():
            raise ValueError(f"photo {photo.image_id!r} has the key {photo.key!r}")
    return photos


def units(photos: Sequence[PlannedPhoto], *, batch_size: int, shard: Shard = WHOLE) -> Iterator[Unit]:
    """The shard's units, in order. Which photos make a unit depends on nothing but ``batch_size``."""
    for number, start in enumerate(range(0, len(photos), batch_size)):
        if number % shard.count == shard.index - 1:
            yield Unit(number, tuple(photos[start : start + batch_size]))
