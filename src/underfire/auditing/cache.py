"""Measurements kept on disk, one JSON file per item, so that what was interrupted goes on from there.

A cache's folder bears the name of all that decides its values: the images of a run, the settings, and the ``version``
that stands beside the code which makes them (`ADV2.version`, `EnsembleSignals.version`). What was made otherwise lies
in another folder, so that nothing stale is ever read.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from underfire.auditing.run import Run
from underfire.auditing.store import write_json
from underfire.decoding import plain_json
from underfire.errors import InputError
from underfire.files import quoted, read_regular_file

_MOST_BYTES = 2**26  # of one value

P = TypeVar("P")
T = TypeVar("T")


def cache_key(run: Run, *facts: object) -> str:
    """A folder's name for measurements on the images of ``run``; ``facts``, by their repr, are all else that decides.

    One of the facts is the version of the code that makes the values.
    """
    images = sorted((row.image_sha256, str(row.condition), row.target, row.confidence_8bit) for row in run.records)
    return facts_key(images, run.facts.created, *facts)


def facts_key(*facts: object) -> str:
    """A name for what ``facts``, by their repr, decide."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


class Cache(Generic[T]):
    """Values by key, each in a JSON file of its own.

    Args:
        folder: whose name is a `cache_key`; made when the first value is put there.
        encode: a value as plain numbers, text, lists and dictionaries.
        decode: a value from what `encode` gave; it may raise KeyError, TypeError, ValueError or AttributeError for what
            it never gave.
    """

    def __init__(self, folder: Path, *, encode: Callable[[T], Mapping[str, Any]], decode: Callable[[Any], T]) -> None:
        self.folder = folder
        self._encode, self._decode = encode, decode

    def get(self, key: str) -> T | None:
        """The value of ``key``, None where there is none yet.

        Raises:
            InputError: its file is damaged.
        """
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            return self._decode(plain_json(read_regular_file(path, limit=_MOST_BYTES)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{quoted(path)} cannot be read ({error}); delete it to have it made again") from error

    def put(self, key: str, value: T) -> None:
        """Keeps ``value``, whole or not at all, in place of what was there."""
        write_json(self._path(key), self._encode(value))

    def get_or_make(
        self,
        items: Sequence[P],
        key: Callable[[P], str],
        make: Callable[[Sequence[P]], Sequence[T]],
        *,
        size: int = 1,
        complete: Callable[[P], bool] = lambda _: True,
        made: Callable[[int], None] = lambda _: None,
    ) -> Iterator[tuple[P, T]]:
        """Each of ``items`` with its value, made now or before.

        Args:
            items: in the order in which they come back.
            key: an item's key.
            make: the values of some items that have none yet, in their order.
            size: how many items are considered at a time; `make` is given those of a group that lack a value.
            complete: whether what belongs to an item's value outside the cache is there; if not, it is made again.
            made: called after each group of which something was made, with the number of items up to there.

        Raises:
            InputError: a file is damaged; and whatever ``make`` raises.
        """
        for start in range(0, len(items), size):
            group = items[start : start + size]
            values = [self.get(key(item)) if complete(item) else None for item in group]
            lacking = [place for place, value in enumerate(values) if value is None]
            if lacking:
                for place, value in zip(lacking, make([group[place] for place in lacking]), strict=True):
                    self.put(key(group[place]), value)
                made(start + len(group))
            # From disk, so that a value made now is the same as one made before.
            for item in group:
                kept = self.get(key(item))
                assert kept is not None  # noqa: S101 - it has just been put there
                yield item, kept

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"
