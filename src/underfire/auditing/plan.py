"""What an audit does: everything that decides its rows, in one frozen value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from underfire.auditing.condition import NOISE, NONE, Condition
from underfire.choices import Crop, Interpolation, Outputs
from underfire.errors import InputError
from underfire.files import quoted, shortened
from underfire.parsing import MOST, SEEDS

if TYPE_CHECKING:  # the command line reads defaults here before anything large is imported
    from underfire.attacks.budget import Effort
    from underfire.attacks.perturbations import Perturbation
    from underfire.attacks.registry import AttackEntry

Preset = Literal["quick", "standard", "paper", "authors"]

PASSES: Mapping[Preset, int] = MappingProxyType({"quick": 150, "standard": 300, "paper": 1600, "authors": 1600})
"""Forward and backward passes per photo, the same for every attack, so that none wins by its budget alone.

"paper" has as many as the longest schedule that the authors of ADV² published has steps. With "authors" their own
attack takes the place of ADV² and has its published number of steps.
"""


QUICK = ("grad", "ig", "cam")
"""The interpreters that suit most classifiers and cost little."""


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
    """Of photos before the crop, in pixels; see `underfire.images.Preprocessing`."""
    interpolation: Interpolation | None = None
    crop: Crop | None = None
    bgr: bool | None = None
    outputs: Outputs | None = None
    layer: str | None = None
    """The layer whose output interpreters of one activation read; None for the one that is found."""


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
    goals: tuple[str, ...] = ()
    """What label and map shall become, as LABEL/MAP; empty for the attacks' own goals. PGD's own is there besides."""
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
    device: str | None = None
    """None: where the classifier is."""

    def __post_init__(self) -> None:
        from underfire.attacks.goals import Goal
        from underfire.attacks.registry import ATTACKS, PlanFacts, attack_for, refusal_of
        from underfire.auditing.names import make_perturbation

        make_perturbation(self.perturbation, self.eps)
        if self.preset == "authors" and self.perturbation != "linf":
            raise InputError(
                f"the preset 'authors' is for the perturbation 'linf', not '{self.perturbation}'; give another preset"
            )
        if self.steps is not None and self.passes is not None:
            raise InputError(f"steps {self.steps} and passes {self.passes} are both given; give one of them")
        for name in ("steps", "passes", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST:
                raise InputError(f"{name} is {value}; give a whole number from 1 to {MOST}")
        if self.seed not in SEEDS:
            raise InputError(f"seed {self.seed} is outside of 64 bits; give a whole number from -2^63 to 2^63 - 1")
        if not self.interpreters:
            raise InputError("no interpreter is named; give at least one, such as 'cam'")
        if not self.attacks:
            raise InputError(f"no attack is named; give at least one of {', '.join(ATTACKS.installed())}")
        facts = PlanFacts(self.preset, self.perturbation, self.interpreters)
        refusal = refusal_of(self.attacks, facts)
        if refusal is not None:
            raise InputError(refusal)
        for goal in self.goals:
            attack_for(Goal.parse(goal))
        for kind, names in (("interpreter", self.interpreters), ("attack", self.attacks), ("goal", self.goals)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise InputError(f"{kind} '{twice}' is named twice; name it once")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions of a photo that can be attacked, in the order in which they are run."""
        from underfire.attacks.registry import BUILT_IN

        order = [entry.name for entry in BUILT_IN]
        named = sorted(self._all_attacks(), key=lambda name: order.index(name) if name in order else len(order))
        attacked = [c for name in named for c in self._conditions_of(name)]
        return (NONE, NOISE, *attacked)

    @property
    def target_conditions(self) -> tuple[Condition, ...]:
        """Those that lead photos to their target classes, and the controls: what studies of runs are of."""
        return tuple(condition for condition in self.conditions if condition.chases_target)

    @property
    def chases_targets(self) -> bool:
        """Whether some attack leads photos to their target classes."""
        return any(condition.chases_target for condition in self.conditions if not condition.is_control)

    def _all_attacks(self) -> tuple[str, ...]:
        """The attacks that are named, and those that goals need which none of these is for."""
        from underfire.attacks.goals import Goal
        from underfire.attacks.registry import attack_for, goals_of

        wanted = list(map(Goal.parse, self.goals))
        lacking = [goal for goal in wanted if not any(goal in goals_of(name) for name in self.attacks)]
        return tuple(dict.fromkeys([*self.attacks, *map(attack_for, lacking)]))

    def _conditions_of(self, attack: str) -> list[Condition]:
        from underfire.attacks.registry import entry_of
        from underfire.interpreters.registry import INTERPRETERS

        entry = _entry(attack)
        if entry is None and ":" not in attack:  # one that is made already, named by its condition
            return [Condition.parse(attack)]
        entry = entry_of(attack)
        own, *others = map(str, entry.attack.goals)
        # With a baseline on the label alone beside them, figures of other goals can be read.
        wanted = [None] if not self.goals or own in self.goals or not entry.attack.joint else []
        found = [*wanted, *(goal for goal in others if goal in self.goals)]
        names = [INTERPRETERS.name_of(name) for name in self.interpreters] if entry.attack.joint else []
        on = [(name,) for name in names] if entry.attack.joint else [()]
        return [Condition(entry.name, goal, sources) for goal in found for sources in on]

    def perturbation_of(self, condition: Condition) -> Perturbation:
        """What ``condition`` may do to an image. The plan's budget is StAdv's too where it is one of displacements."""
        from underfire.auditing.names import make_perturbation

        planned = make_perturbation(self.perturbation, self.eps)
        entry = None if condition.is_control else _entry(condition.attack)
        return planned if entry is None else entry.within(planned)

    def effort_of(self, condition: Condition) -> Effort:
        """How long the attack of ``condition`` may work on a photo; no steps where nothing is optimised."""
        from underfire.attacks.budget import Effort

        if condition.is_control:
            return Effort(steps=0)
        if self.steps is not None:
            return Effort(steps=self.steps)
        if self.passes is not None:
            return Effort(passes=self.passes)
        entry = _entry(condition.attack)
        if entry is None:
            return Effort(passes=PASSES[self.preset])
        granted = Effort(passes=PASSES[self.preset] * entry.attack.per_pass)
        return entry.published(self.preset, condition.sources) or granted

    def as_config(self) -> dict[str, object]:
        """The plan for run.json: plain values only, the steps or passes of every attack resolved."""
        from underfire.auditing.names import make_perturbation

        config = asdict(self) | {"eps": make_perturbation(self.perturbation, self.eps).eps}
        model = config.pop("model")
        efforts = {str(condition): self.effort_of(condition) for condition in self.conditions[2:]}
        config["steps"] = {key: effort.steps for key, effort in efforts.items() if effort.steps is not None} or None
        config["passes"] = {key: effort.passes for key, effort in efforts.items() if effort.passes is not None} or None
        if not self.goals:  # as in runs that knew of none
            config.pop("goals")
        plain = {"model": model.pop("spec"), **model, **config}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _entry(attack: str) -> AttackEntry | None:
    """The entry of an attack by name; None for one that is handed over as an instance, and for one that is unknown."""
    from underfire.attacks.registry import entry_of

    try:
        return entry_of(attack)
    except InputError:
        return None


# What these files held is compared itself, by fingerprint, names of classes and hash; where they lie decides nothing.
_PLACES = frozenset({"checkpoint", "class_names", "rts"})
_REMARKS = frozenset({"left_out"})


def first_difference(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, object, object] | None:
    """The first setting of two configurations that decides rows and differs: (name, old value, new value)."""
    for name in [*new, *(name for name in old if name not in new)]:
        if name not in _PLACES | _REMARKS and old.get(name) != new.get(name):
            return name, old.get(name), new.get(name)
    return None


def shown_setting(value: object) -> str:
    """``value`` for a sentence, not longer than a line or two."""
    if isinstance(value, dict):
        return shortened(", ".join(f"{name} {item}" for name, item in value.items()))
    if isinstance(value, tuple):
        return shortened(",".join(map(str, value)))
    return "unset" if value is None else quoted(str(value))


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

    def has(self, number: int) -> bool:
        """Whether the part ``number`` is among its parts."""
        return number % self.count == self.index - 1


WHOLE = Shard()
"""The share of a process that does everything."""


@dataclass(frozen=True)
class RaySettings:
    """How a Ray cluster is used.

    Attributes:
        address: of a cluster that is running already: HOST:PORT of its head, or auto; None for the one that the
            environment names, or a new one on this machine.
        gpus_per_worker: what a worker takes of the GPUs where the model is on one: a part of 1, or a whole number.
        shared_disk: whether all machines see the photos and the run directory. If not, photos are sent to the workers,
            and results come back through the process that was started.

    Raises:
        InputError: ``gpus_per_worker`` is not above 0, or above 1 and not whole.
    """

    address: str | None = None
    gpus_per_worker: float = 1.0
    shared_disk: bool = True

    def __post_init__(self) -> None:
        gpus = self.gpus_per_worker
        if not 0 < gpus < math.inf or (gpus > 1 and gpus % 1):
            raise InputError(f"a worker cannot take '{gpus:g}' GPUs; give a part of 1, such as 0.25, or a whole number")


ANY_RAY = RaySettings()
"""The cluster that is found, with a GPU for each worker and a disk that all machines see."""


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


def units(photos: Sequence[PlannedPhoto], *, batch_size: int, shard: Shard = WHOLE) -> Iterator[Unit]:
    """The shard's units, in order. Which photos make a unit depends on nothing but ``batch_size``."""
    for number, start in enumerate(range(0, len(photos), batch_size)):
        if shard.has(number):
            yield Unit(number, tuple(photos[start : start + batch_size]))
