"""The schema of run.json: what it says of a run, typed, and checked before anything of it is used."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, TypeAlias

from underfire.attacks.registry import BUILT_IN
from underfire.auditing.condition import NONE, Condition
from underfire.auditing.plan import AuditPlan, PlannedPhoto, photo_key
from underfire.decoding import decoded
from underfire.diagnostics.map_checks import MapCheck
from underfire.diagnostics.model_checks import Checked
from underfire.files import quoted
from underfire.images.geometry import check_photos_fit
from underfire.images.preprocessing import Preprocessing

Scalar: TypeAlias = str | bool | int | float | None
Setting: TypeAlias = Scalar | tuple[Scalar, ...] | Mapping[str, Scalar] | Mapping[str, Mapping[str, Scalar]]
"""The value of a setting, as far as settings are nested."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLANNED = ("interpreters", "attacks", "preset", "targets", "perturbation", "seed", "batch_size", "limit")
"""Settings that a plan and a run's configuration say in the same words."""

_OF_A_MODEL = ("checkpoint", "class_names", "mean", "std", "input_size", "resize")
"""Settings of a model in a configuration of version 0.1."""

_NAMES = frozenset(entry.name for entry in BUILT_IN)
_LATER = frozenset({"goals"})
"""Settings of a plan that runs of version 0.1 have not: they stand for their defaults."""

_SINCE_0_2 = ("plan", "conditions", "interpreters", "interpreter_settings", "map_checks")


@dataclass(frozen=True)
class ModelFacts:
    """The audited classifier, as far as a run describes it.

    Attributes:
        input_size: (height, width) in pixels.
        class_names: by index as text, all of them.
        exclusive: whether its classes exclude each other; otherwise each is a label that is seen or not.
        preprocessing: of photos; None in runs of version 0.1, whose pictures are all in colour.
    """

    name: str
    fingerprint: str
    num_classes: int
    input_size: tuple[int, int]
    resize: int
    class_names: Mapping[str, str]
    preprocessing: Preprocessing | None = None
    exclusive: bool = True

    def __post_init__(self) -> None:
        told = self.preprocessing
        if told is not None and (told.input_size, told.resize) != (self.input_size, self.resize):
            raise ValueError(f"its model has inputs of {self.input_size} pixels, and of {told.input_size}")
        if told is not None:
            check_photos_fit(told)
        if self.num_classes < 1 or not all(1 <= side <= 2**15 for side in self.input_size):
            raise ValueError(f"its model has {self.num_classes} classes and inputs of {self.input_size} pixels")
        if list(self.class_names) != [str(index) for index in range(self.num_classes)]:
            raise ValueError(f"the names of its {self.num_classes} classes are not numbered so")


@dataclass(frozen=True)
class SkippedFile:
    """A file that the audit went without; ``image_id`` is that of a photo that could not be loaded."""

    name: str
    reason: str
    image_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What run.json says.

    Attributes:
        schema: of the rows of those parts that were there first; whoever finishes the run may write a newer one.
        command: the command line that began the run.
        created: UTC, ISO 8601.
        threads: of the process that began it; they decide the order of sums.
        threat_model: what the attacker may do, in words and numbers, for people.
        plan: the settings as they were given; None in runs of version 0.1.
        config: the settings as they were resolved, for people and for what resumes the run.
        conditions: what the photos that are attacked have rows of; None in runs of version 0.1.
        interpreters: the names in the rows of those that maps were taken with; None in runs of version 0.1.
        interpreter_settings: for each of these, what decides its maps beside the model, as `flat_settings` of
            `settings_of`; None in older runs.
        map_checks: what the benign maps of each interpreter show of the model; None in older runs.
        photos: all of them, the excluded ones among them.
        finished: whether the run came to its end; that its rows are there is another question.
    """

    schema: int
    command: str | None = None
    created: str
    underfire_version: str
    versions: Mapping[str, str]
    device: str
    threads: int
    platform: str
    model: ModelFacts
    threat_model: Mapping[str, Setting]
    plan: AuditPlan | None = None
    config: Mapping[str, Setting]
    conditions: tuple[str, ...] | None = None
    interpreters: tuple[str, ...] | None = None
    interpreter_settings: Mapping[str, Mapping[str, Scalar]] | None = None
    model_checks: tuple[Checked, ...]
    map_checks: tuple[MapCheck, ...] | None = None
    photos: tuple[PlannedPhoto, ...]
    skipped: tuple[SkippedFile, ...]
    finished: bool

    @cached_property
    def settings(self) -> AuditPlan:
        """The plan, made from the configuration where the run did not save it."""
        return plan_of_config(self.config) if self.plan is None else self.plan

    @cached_property
    def attacked_under(self) -> tuple[Condition, ...]:
        """The conditions of a photo that is attacked, in the order in which they are run."""
        return self.settings.conditions if self.conditions is None else tuple(map(Condition.parse, self.conditions))

    @property
    def seen_by(self) -> tuple[str, ...]:
        """The interpreters by the names that rows have for them."""
        return self.settings.interpreters if self.interpreters is None else self.interpreters

    def follows_plan(self, condition: Condition) -> bool:
        """Whether its budget and effort are the plan's: an attack of the user's own may have its own."""
        given = self.config.get("given")
        own = isinstance(given, Mapping) and str(condition) in given
        return condition.is_control or (condition.attack in _NAMES and not own)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `run_facts` makes it again."""
        return {name: value for name, value in asdict(self).items() if value is not None or name not in _SINCE_0_2}


def run_facts(content: Any) -> RunFacts:
    """What the ``content`` of a run.json says, which others may have written.

    Raises:
        ValueError: it is none, or contradicts itself. The message is the reason alone, a clause.
    """
    facts = decoded(RunFacts, content)
    _check_photos(facts.photos, facts.model.num_classes)
    plan = facts.settings
    for name in _PLANNED:
        if facts.config.get(name) != getattr(plan, name):
            raise ValueError(f"its config.{name} is not that of its plan")
    planned = plan.perturbation_of(NONE)
    for section in (facts.config, facts.threat_model):
        if section.get("eps") != planned.eps:
            raise ValueError(f"it says of eps {section.get('eps')!r} in one place and {planned.eps!r} in another")
    if facts.threat_model.get("norm") != planned.name:
        raise ValueError("its threat_model.norm is not that of its plan")
    _check_efforts(facts)
    for names in (facts.attacked_under, facts.seen_by):
        if not names or len(set(names)) < len(names):
            raise ValueError("it names a condition or an interpreter twice, or none")
    if facts.interpreter_settings is not None and set(facts.interpreter_settings) != set(facts.seen_by):
        raise ValueError("its interpreter_settings are not those of its interpreters")
    checked = [check.interpreter for check in facts.map_checks or ()]
    if len(set(checked)) < len(checked) or not set(checked) <= set(facts.seen_by):
        raise ValueError("its map_checks are of an interpreter twice, or of one that took no part")
    return facts


def _check_efforts(facts: RunFacts) -> None:
    """Whether what resumes a run and what a study takes from it is the same effort."""
    for condition in facts.attacked_under:
        if condition.is_control or not facts.follows_plan(condition):
            continue
        effort = facts.settings.effort_of(condition)
        for name, planned in (("steps", effort.steps), ("passes", effort.passes)):
            said = facts.config.get(name)
            allowed = said.get(str(condition)) if isinstance(said, Mapping) else said
            if allowed != planned:
                raise ValueError(f"its config.{name} allow {condition} {allowed!r}, and its plan {planned!r}")


def _check_photos(photos: Sequence[PlannedPhoto], classes: int) -> None:
    if not photos:
        raise ValueError("it names no photo")
    (first, count), *_ = Counter(photo.image_id for photo in photos).most_common(1)
    if count > 1:
        raise ValueError(f"it has the photo {quoted(first)} twice")
    for position, photo in enumerate(photos):
        if not _SHA256.fullmatch(photo.sha256) or photo.key != photo_key(position, photo.sha256):
            raise ValueError(f"photo {quoted(photo.image_id)} has the key {photo.key!r}")
        if not (0 <= photo.label < classes and 0 <= photo.target < classes):
            raise ValueError(f"photo {quoted(photo.image_id)} is of a class that the model has not")


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Scalar]:
    """Nested plain values as one mapping, whose names are the path to each, with dots."""
    found: dict[str, Scalar] = {}
    for name, value in settings.items():
        if isinstance(value, list | tuple):
            value = {str(place): item for place, item in enumerate(value)}
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": item for inner, item in flat_settings(value).items()}
        else:
            found[name] = value
    return found


def plan_of_config(config: Mapping[str, Any]) -> AuditPlan:
    """The plan that gives this ``config`` of a run.json, for runs of version 0.1.0, which did not save their plan.

    Of steps and passes ``config`` has what each attack was allowed: either the preset's, or one number for all. The
    plan has the budget that the perturbation gave where none was named.

    Raises:
        ValueError: a setting is missing, or no plan gives these steps and passes.
    """
    names = {field.name for field in fields(AuditPlan)} - {"model", "steps", "passes", *_LATER}
    needed = ("model", "steps", "passes", *_OF_A_MODEL, *sorted(names))
    missing = next((name for name in needed if name not in config), None)
    if missing is not None:
        raise ValueError(f"its config has no {missing!r}")
    model = {"spec": config["model"], **{name: config[name] for name in _OF_A_MODEL}}
    settings = {"model": model, **{name: config[name] for name in names}}
    choices = ({}, *({name: _largest(config[name])} for name in ("passes", "steps")))
    for effort in choices:
        plan = decoded(AuditPlan, settings | effort, "its config")
        if all(plan.as_config()[name] == config[name] for name in ("steps", "passes")):
            return plan
    raise ValueError("its config has steps and passes that no plan gives")


def _largest(counts: object) -> object:
    return max(counts.values()) if isinstance(counts, dict) and counts else None
