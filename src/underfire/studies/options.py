"""How a study says which options its command takes, and what a command hands to a study.

A study has a function ``study(source, options) -> Study``, whose ``options`` are a frozen dataclass with fields made by
`option`, and an entry in `underfire.studies.registry`. That is all a command needs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from underfire.choices import pick
from underfire.errors import InputError
from underfire.parsing import count, numbers, size

if TYPE_CHECKING:
    from underfire.auditing.plan import AuditPlan, ModelSettings, PlannedPhoto
    from underfire.auditing.run import Run
    from underfire.images.dataset import Photos
    from underfire.models.classifier import Classifier

_KEY = "underfire.option"


@dataclass(frozen=True, kw_only=True)
class Declared:
    """An option as a study declares it.

    Attributes:
        help: what it does, a sentence.
        parse: makes a value of the text on the command line; raises ValueError or `InputError` for what is none.
        name: on the command line; by default the field's, with dashes.
        old_names: names it had once, as ``--also``; they still work and no help shows them.
        old_values: from a value's old name to its name.
        choices: the texts that are taken; empty for all that ``parse`` takes.
        metavar: stands for the value in the help.
        multiple: whether it may be given several times; the field is a tuple.
        required: whether it must be given.
        shown_default: the default in words, where the value says nothing.
    """

    help: str
    parse: Callable[[str], Any] = str
    name: str | None = None
    old_names: tuple[str, ...] = ()
    old_values: Mapping[str, str] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    multiple: bool = False
    required: bool = False
    shown_default: str | None = None


def option(default: Any, **declared: Any) -> Any:
    """A field of a study's ``Options``; ``declared`` are the attributes of `Declared`."""
    return field(default=default, metadata={_KEY: Declared(**declared)})


def declared_options(kind: type) -> dict[str, tuple[Any, Declared]]:
    """By field of the dataclass ``kind``, its default and what was declared of it."""
    return {f.name: (f.default, f.metadata[_KEY]) for f in fields(kind)}


@dataclass(frozen=True)
class Planned:
    """What an audit would do, or did: its plan, its photos, how many files it cannot use, and the classifier."""

    plan: AuditPlan
    photos: tuple[PlannedPhoto, ...]
    skipped: int
    classifier: Classifier


class StudySource(Protocol):
    """What a study is to work on, as a command was given it: the directory of an audit, or photos."""

    @property
    def plan(self) -> AuditPlan:
        """The settings that were named; those of a run are its own."""

    @property
    def work(self) -> Path:
        """The study's own folder for what it measures."""

    @property
    def limit(self) -> int | None:
        """At most so many of a run's photos, the first ones; None for all, and where photos are audited first."""

    @property
    def note(self) -> Callable[[str], None]:
        """Reports progress, a line at a time."""

    def audited(self, check: Callable[[AuditPlan, Classifier], None] = ..., *, beside_pgd: bool = False) -> Run:
        """The audit that was named, or that of the photos, which is made, or resumed.

        Before an audit is made, which may take hours, its attacks are refused if none is on an interpreter, or there is
        no PGD ``beside_pgd``; and ``check`` may refuse its plan and classifier.
        """

    def planned(self) -> Planned:
        """What an audit would do: that of the run that was named, or of the photos."""

    def refuse(self, name: str, why: str) -> None:
        """Refuses the audit's option ``name`` if it was given; ``why`` it is useless completes "this study …"."""

    def usable(self, named: tuple[str, ...], classifier: Classifier) -> Photos:
        """The photos ``named``, beside those of the audit, that can be decoded."""

    def load(self, settings: ModelSettings) -> Classifier:
        """A further classifier, on the audit's device."""


def interpreter_names(text: str) -> tuple[str, ...]:
    """Comma-separated names of interpreters, built-in, installed or the user's own."""
    from underfire.auditing.names import split_parts
    from underfire.interpreters.registry import INTERPRETERS

    return split_parts(text, INTERPRETERS)


def named_folder(text: str) -> tuple[str, Path]:
    """A folder with a name: ``l2=other-run``."""
    name, _, folder = text.partition("=")
    if not name.strip() or not folder or ": " in name:
        raise InputError(f"'{text}' is not NAME=DIR; write it as l2=other-run")
    return name.strip(), Path(folder)


def model_settings(text: str) -> ModelSettings:
    """A classifier: ``efficientnet-lite2``, or ``nets:resnet20 checkpoint=FILE mean=R,G,B input-size=32``."""
    from underfire.auditing.plan import ModelSettings

    flags = {"true": True, "false": False}
    readers: dict[str, Callable[[str], Any]] = {
        "mean": numbers,
        "std": numbers,
        "input_size": size,
        "resize": count,
        "bgr": lambda value: pick(value, flags, "bgr"),
    }
    known = [setting.name for setting in fields(ModelSettings)][1:]
    try:
        spec, *words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"'{text}' names no model ({error})") from error
    found: dict[str, Any] = {}
    for word in words:
        option, _, value = word.partition("=")
        name = option.replace("-", "_")
        if name not in known or not value:
            options = ", ".join(f"{name.replace('_', '-')}=" for name in known)
            raise InputError(f"'{word}' in '{text}' is not known; after the model's name go {options}")
        found[name] = readers[name](value) if name in readers else value
    return ModelSettings(spec, **found)
