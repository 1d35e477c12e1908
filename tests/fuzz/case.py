"""One hostile input: what was made, the commands that open it, and how they ended."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import TypeAlias


class Verdict(StrEnum):
    """How an input ended; what comes first in the list counts where several do."""

    HARM = "harm"
    CRASH = "crash"
    HANG = "hang"
    SILENT = "silent"
    LARGE = "over 1 GB"
    REFUSED = "refused"
    ACCEPTED = "accepted"


HELD = (Verdict.REFUSED, Verdict.ACCEPTED)
"""The verdicts on what did no harm."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, what it wrote to stdout and stderr."""

    code: int
    said: str
    complained: str


@dataclass(frozen=True)
class Case:
    """An input that lies in a folder.

    Attributes:
        told: what was done to it.
        commands: the command lines that open it, without ``underfire``; they are called in the folder.
        wrong: from how they ended to what is wrong although none complained; None where nothing is.
        codes: the exit codes that a command may have.
        asks: opens it in other ways than by commands, each of which ended as if it were one.
    """

    told: str
    commands: tuple[tuple[str, ...], ...]
    wrong: Callable[[tuple[Ended, ...]], str | None] = lambda _: None
    codes: tuple[int, ...] = (0, 2)
    asks: Callable[[], tuple[Ended, ...]] = tuple


@dataclass(frozen=True)
class Outcome:
    """What came of an input, and why it is thought so."""

    verdict: Verdict
    told: str
    why: str = ""
    bytes: int = 0

    def because(self, verdict: Verdict, why: str) -> "Outcome":
        """The same with another verdict."""
        return replace(self, verdict=verdict, why=why)


@dataclass(frozen=True)
class Originals:
    """What is valid, made once: photos, a finished audit of three of them, weights, a detector."""

    path: Path

    @property
    def photos(self) -> Path:
        """A folder with a manifest, see `support.toy_photos.write_photos`."""
        return self.path / "photos"

    @property
    def photo(self) -> Path:
        """One of them."""
        return self.photos / "photo-0.png"

    @property
    def run(self) -> Path:
        """The audit, and studies of it."""
        return self.path / "run"

    @property
    def detector(self) -> Path:
        """A fitted one."""
        return self.path / "detector.safetensors"


Make: TypeAlias = Callable[[Random, Path, Originals], Case]
"""Makes an input in an empty folder. Drawing the same numbers it makes the same."""

Kinds: TypeAlias = Mapping[str, Make]
