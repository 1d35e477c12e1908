"""The models that the page offers, and their interpreters."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from underfire.auditing.names import make_interpreters
from underfire.errors import InputError
from underfire.images.geometry import check_photos_fit
from underfire.interpreters import Interpreter
from underfire.interpreters.registry import INTERPRETERS, interpreter_title
from underfire.models import available, load_classifier
from underfire.models.classifier import Classifier
from underfire.models.draws import refuse_random
from underfire.models.sources import is_built_in


@dataclass(frozen=True)
class InterpreterChoice:
    """An interpreter that suits a model, for people to choose; costs are in passes."""

    name: str
    title: str
    summary: str
    passes_per_map: int
    passes_per_step: int
    slow: bool


class OfferedModel:
    """A model of the page, which is loaded when it is first asked for.

    Args:
        name: what the page calls it.
        load: makes it.
        rts: the file of RTS's weights for it, or None for those of the package.
    """

    def __init__(self, name: str, load: Callable[[], Classifier], *, rts: str | None = None) -> None:
        self.name = name
        self._load, self._rts, self._lock = load, rts, threading.Lock()

    @property
    def classifier(self) -> Classifier:
        """The model; raises `InputError` where it cannot be loaded, or cannot be attacked here."""
        with self._lock:
            return self._classifier

    @property
    def interpreters(self) -> tuple[InterpreterChoice, ...]:
        """Those that suit it; raises `InputError` as :attr:`classifier` does."""
        with self._lock:
            return self._interpreters

    def make(self, names: Sequence[str]) -> tuple[Interpreter, ...]:
        """The interpreters ``names``, in this order.

        Raises:
            InputError: one is none of :attr:`interpreters`.
        """
        offered = [choice.name for choice in self.interpreters]
        for name in names:
            if name not in offered:
                raise InputError(f"interpreter {name!r} is not offered for {self.name!r}; choose from {offered}.")
        return make_interpreters(names, self.classifier, rts=self._rts)

    @cached_property
    def _classifier(self) -> Classifier:
        classifier = self._load()
        check_photos_fit(classifier.preprocessing)
        refuse_random(classifier)
        return classifier

    @cached_property
    def _interpreters(self) -> tuple[InterpreterChoice, ...]:
        found = []
        for name in INTERPRETERS.installed():
            cls = INTERPRETERS.find(name)
            if cls.available(self._classifier) is None or (name == "rts" and self._rts is not None):
                costs = cls.passes_per_map, cls.passes_per_step, cls.slow
                found.append(InterpreterChoice(name, interpreter_title(name), cls.summary, *costs))
        return tuple(found)


def built_in_models(*, besides: str, device: str | None) -> tuple[OfferedModel, ...]:
    """The models that come with installed packages, but for that of the name ``besides``."""
    names = [source.name for source in available() if source.installed and is_built_in(source.name)]
    return tuple(OfferedModel(name, _loading(name, device)) for name in names if name != besides)


def _loading(name: str, device: str | None) -> Callable[[], Classifier]:
    return lambda: load_classifier(name, device=device)
