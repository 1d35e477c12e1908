"""Parts of the user's own: classes and functions by ``package.module:Name``, by ``./file.py:Name``, or by entry point.

Whatever goes wrong is one sentence that quotes what was typed. A part by module or file is imported where a user names
it and nowhere else: what a run directory says is looked up among the parts that are there already.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from underfire.errors import InputError

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_ATTACK_NAME = re.compile(r"[a-z0-9][a-z0-9_.]*")  # a dash ends it where conditions are written


def imported(spec: str, kind: str) -> object:
    """What ``package.module:Name`` or ``file.py:Name`` names; ``kind`` says in messages what it should be.

    Raises:
        InputError: the module cannot be imported, or has nothing of this name.
    """
    module_name, _, name = spec.rpartition(":")
    with current_directory_importable():
        try:
            of_file = module_name.endswith(".py")
            module = _of_file(Path(module_name)) if of_file else importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # whatever the user's module raises
            raise InputError(f"{kind} '{spec}': importing '{module_name}' fails with {described(error)}.") from error
        if not hasattr(module, name):
            raise InputError(f"{kind} '{spec}': the module '{module_name}' has no '{name}'.")
        return getattr(module, name)


def described(error: BaseException) -> str:
    """The type of ``error`` and its message in one line, without a full stop."""
    message = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def check_name(name: object, kind: str, what: str) -> str:
    """``name``, if a part can be called so in rows and on command lines; ``what`` quotes what the user gave.

    Raises:
        InputError: it is no text, or holds more than small letters, digits, points, underscores and dashes, or is an
            attack's with a dash: the names of conditions would be ambiguous.
    """
    pattern, signs = (_ATTACK_NAME, "'.' and '_'") if kind == "attack" else (_NAME, "'.', '_' and '-'")
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise InputError(
            f"{kind} {what} has the name {name!r}; give it one of small letters, digits, {signs}, as 'mine'."
        )
    return name


class Parts(Generic[T]):
    """The classes of one kind by name: built-in ones, those of installed packages, and those that the user named.

    Args:
        kind: what one is called in messages.
        group: of the entry points.
        base: the class that all of them derive from.
        built_in: gives those that come with the package, by name.
    """

    def __init__(self, kind: str, group: str, base: type[Any], built_in: Callable[[], Mapping[str, type[T]]]) -> None:
        self.kind, self.group = kind, group
        self._base, self._built_in = base, built_in
        self._loaded: dict[str, type[T]] = {}

    def installed(self) -> tuple[str, ...]:
        """The names that can be typed, built-in ones first; nothing is imported."""
        return tuple(dict.fromkeys([*self._built_in(), *(point.name for point in self._points())]))

    def find(self, name: str) -> type[T]:
        """The class that ``name`` stands for: built-in, of an installed package, or loaded before.

        Raises:
            InputError: there is none, or the package's is broken.
        """
        built_in = self._built_in()
        if name in built_in:
            return built_in[name]
        if name in self._loaded:
            return self._loaded[name]
        point = next((point for point in self._points() if point.name == name), None)
        if point is not None:
            return self._load_point(point)
        raise InputError(self._unknown(name))

    def is_loaded(self, spec: str) -> bool:
        """Whether ``package.module:Name`` or ``file.py:Name`` was named by the user already."""
        return spec in self._loaded

    def load(self, spec: str) -> type[T]:
        """As `find`; ``package.module:Name`` and ``file.py:Name`` are imported.

        Raises:
            InputError: as `find`, or what is imported is no such class, or has the name of a built-in one.
        """
        if ":" in spec and spec not in self._loaded:
            self._loaded[spec] = self.admit(imported(spec, self.kind), f"'{spec}'")
        return self.find(spec)

    def admit(self, found: object, what: str) -> type[T]:
        """``found``, which is to be a class of this kind, found by its own name from now on; ``what`` quotes it.

        Raises:
            InputError: it is no such class, its name is none, or that of a built-in one.
        """
        cls = self._checked(found, what)
        name: str = cls.name  # type: ignore[attr-defined]  # checked
        self._loaded[name] = cls
        return cls

    def name_of(self, spec: str) -> str:
        """What rows call the part that is written ``spec``; raises `InputError` if it was not loaded."""
        if ":" not in spec:
            return spec
        name: str = self.find(spec).name  # type: ignore[attr-defined]  # checked
        return name

    def _load_point(self, point: metadata.EntryPoint) -> type[T]:
        what = f"'{point.name}' (entry point '{point.value}')"
        try:
            found = point.load()
        except Exception as error:  # whatever the package raises
            raise InputError(f"{self.kind} {what} cannot be loaded: {described(error)}.") from error
        cls = self._checked(found, what)
        name: str = cls.name  # type: ignore[attr-defined]  # checked
        if name != point.name:
            raise InputError(f"{self.kind} {what} has the name {name!r}; entry point and class must agree.")
        return cls

    def _checked(self, found: object, what: str) -> type[T]:
        if not isinstance(found, type) or not issubclass(found, self._base):
            seen = f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
            raise InputError(f"{self.kind} {what} is {seen}; name a class derived from {self._base.__name__}.")
        name = check_name(getattr(found, "name", None), self.kind, what)
        if name in self._built_in():
            raise InputError(f"{self.kind} {what} has the name '{name}' of a built-in one; give it another.")
        return found

    def _points(self) -> list[metadata.EntryPoint]:
        return list(metadata.entry_points(group=self.group))

    def _unknown(self, name: str) -> str:
        known = self.installed()
        close = get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean '{close[0]}'? There" if close else "there"
        own = "or one of your own, as package.module:Name"
        return f"{self.kind} '{name}' is unknown; {hint} are: {', '.join(known)}; {own}"


def _of_file(path: Path) -> ModuleType:
    """The module in the file ``path``, run once."""
    name = f"_underfire_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickles look for their module there
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def current_directory_importable() -> Iterator[None]:
    """Let a user name a module of the directory they are in, which a console script does not see."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's module may have tidied up itself
            sys.path.remove(here)
