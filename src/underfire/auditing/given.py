"""What a user hands to an audit: interpreters and attacks of their own, and photos in one of several ways."""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from underfire.attacks.joint import JointAttack
from underfire.auditing.condition import Condition
from underfire.decoding import told_number
from underfire.errors import InputError
from underfire.images import PhotoSet, builtin_photos, find_photos
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier

_IMAGENET_CLASSES = 1000

PhotosGiven = PhotoSet | str | Path | Iterable[str | Path] | None
"""Photos: as they were found, a file or folder, several of these, or None for those that come with the package."""


@dataclass(frozen=True)
class GivenParts:
    """Instances that take part in an audit, by the name that its plan has for them.

    Attributes:
        interpreters: by their own name.
        attacks: by the condition that they are, such as "mine-cam".
    """

    interpreters: Mapping[str, Interpreter] = field(default_factory=dict)
    attacks: Mapping[str, JointAttack] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """What tells these parts from others of the same name, as plain values; empty where nothing is given."""
        return {name: _settings(part) for name, part in {**self.interpreters, **self.attacks}.items()}

    def check_portable(self) -> None:
        """Refuses, with an `InputError`, what cannot be sent to another process."""
        for name, part in {**self.interpreters, **self.attacks}.items():
            try:
                pickle.dumps(part)
            except Exception as error:
                raise InputError(
                    f"'{name}' cannot be sent to the processes of the engine 'ray' ({error}); "
                    "give it as package.module:Name, or use the engine 'local'"
                ) from error


NOTHING_GIVEN: Final = GivenParts()


def _settings(part: object) -> dict[str, Any]:
    """The class of ``part``, and those of its public attributes that are plain values."""
    kind = type(part)
    plain = {
        name: told_number(value) if isinstance(value, int | float) else value
        for name, value in sorted(vars(part).items())
        if not name.startswith("_") and isinstance(value, str | int | float | bool | None)
    }
    return {"class": f"{kind.__module__}:{kind.__qualname__}", **plain}


def named_interpreters(
    given: Sequence[str | Interpreter] | None, classifier: Classifier
) -> tuple[tuple[str, ...] | None, dict[str, Interpreter]]:
    """The names of the interpreters, None where none are ``given``, and by name those that are instances.

    Raises:
        InputError: an instance explains another classifier.
    """
    instances = {part.name: part for part in given or () if isinstance(part, Interpreter)}
    for name, part in instances.items():
        if part.classifier is not classifier:
            raise InputError(f"the interpreter '{name}' explains another classifier; make it from the audited one")
    names = None if given is None else tuple(part if isinstance(part, str) else part.name for part in given)
    return names, instances


def named_attacks(
    given: Sequence[str | JointAttack], interpreters: Sequence[str], classifier: Classifier
) -> tuple[tuple[str, ...], dict[str, JointAttack]]:
    """The attacks as a plan names them, and by that name those that are instances, each for its own interpreters.

    Raises:
        InputError: an instance attacks another classifier, or an interpreter that takes no part in the audit.
    """
    names: list[str] = []
    instances: dict[str, JointAttack] = {}
    for part in given:
        if isinstance(part, str):
            names.append(part)
            continue
        sources = [interpreter.name for interpreter in part.interpreters]
        stranger = next((name for name in sources if name not in interpreters), None)
        if part.classifier is not classifier or stranger is not None:
            what = "another classifier" if stranger is None else f"'{stranger}', which is not among the interpreters"
            raise InputError(f"the attack '{part.name}' is on {what}; make it for what is audited")
        own, wanted = part.goals[0], part.goal_of(led=False)
        name = str(Condition(part.name, None if wanted == own else str(wanted), tuple(sources)))
        names.append(name)
        instances[name] = part
    return tuple(names), instances


def photos_given(photos: PhotosGiven, classifier: Classifier) -> PhotoSet:
    """The photos that the user means.

    The labels of the built-in photos are ImageNet's; a model without 1000 classes gets them without.

    Raises:
        InputError: a source cannot be used.
    """
    if isinstance(photos, PhotoSet):
        return photos
    if photos is not None:
        sources = [photos] if isinstance(photos, str | Path) else list(photos)
        return find_photos(sources, class_names=classifier.class_names)
    found = builtin_photos()
    if classifier.num_classes == _IMAGENET_CLASSES:
        return found
    return PhotoSet(tuple(replace(photo, label=None) for photo in found.photos), found.skipped)
