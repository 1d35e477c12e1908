"""What differs between a golden record and what the tree makes now, in words that name the place."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import pyarrow as pa

RENAMED: Mapping[str, str] = {}
"""Columns, and fields of the summary, that got another name on purpose: the recorded name → the name now."""

REWORDED: Mapping[str, str] = {}
"""Words in cells, figures and pages that were replaced on purpose: what the records say → what is said now."""

RELATIVE, ABSOLUTE = 5e-9, 1e-12
"""How far two numbers may be apart: the float64 sums of machines differ by some 1e-15, which a dozen steps and a
directional difference enlarge, and SSIM's quotient of variances once more."""

DRAWN = 0.02
"""How far two coordinates may be apart, which are written with one or two decimals."""


def reworded(text: str) -> str:
    """The recorded ``text`` in the words of now."""
    for before, now in REWORDED.items():
        text = re.sub(rf"(?<!\w){re.escape(before)}(?!\w)", now, text)
    return text


def tables(recorded: pa.Table, found: pa.Table) -> list[str]:
    """The differences of names, types and values, row by row."""
    names = [RENAMED.get(name, name) for name in recorded.column_names]
    if names != found.column_names:
        missing, new = (sorted(set(a) - set(b)) for a, b in ((names, found.column_names), (found.column_names, names)))
        return [f"columns: {missing} are missing, {new} are new, or their order is another"]
    types = [
        f"{name}: {now.type}, recorded {before.type}"
        for name, before, now in zip(names, recorded.schema, found.schema, strict=True)
        if before.type != now.type
    ]
    if recorded.num_rows != found.num_rows:
        return [*types, f"{found.num_rows} rows, recorded {recorded.num_rows}"]
    return types + [
        f"row {row}, {name}: {now!r}, recorded {before!r}"
        for name, old, new in zip(names, recorded.columns, found.columns, strict=True)
        for row, (before, now) in enumerate(zip(old.to_pylist(), new.to_pylist(), strict=True))
        if not same(before, now)
    ]


def nested(recorded: Any, found: Any, place: str = "") -> list[str]:
    """The differences of two values of JSON."""
    if isinstance(recorded, Mapping) and isinstance(found, Mapping):
        before = {RENAMED.get(name, name): value for name, value in recorded.items()}
        if before.keys() != found.keys():
            return [f"{place}: {sorted(before.keys() ^ found.keys())} in one only"]
        return [line for name in before for line in nested(before[name], found[name], f"{place}/{name}")]
    if isinstance(recorded, list) and isinstance(found, list):
        if len(recorded) != len(found):
            return [f"{place}: {len(found)} entries, recorded {len(recorded)}"]
        return [
            line
            for index, (a, b) in enumerate(zip(recorded, found, strict=True))
            for line in nested(a, b, f"{place}/{index}")
        ]
    return [] if same(recorded, found) else [f"{place}: {found!r}, recorded {recorded!r}"]


def pages(recorded: tuple[Sequence[str], Sequence[float]], found: tuple[Sequence[str], Sequence[float]]) -> list[str]:
    """The differences of what is said and of what it is drawn with."""
    labels = _listed(map(reworded, recorded[0]), found[0], lambda a, b: a == b, "label")
    return labels + _listed(recorded[1], found[1], lambda a, b: abs(a - b) <= DRAWN, "number")


def same(recorded: Any, found: Any) -> bool:
    """Whether two values of a cell are equal, numbers up to the tolerance."""
    if type(recorded) is not type(found):
        return False
    if isinstance(recorded, float):
        both_nan = math.isnan(recorded) and math.isnan(found)
        return both_nan or math.isclose(recorded, found, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return bool((reworded(recorded) if isinstance(recorded, str) else recorded) == found)


def _listed(recorded: Iterable[Any], found: Iterable[Any], equal: Callable[[Any, Any], bool], what: str) -> list[str]:
    return [
        f"{what} {index}: {now!r}, recorded {before!r}"
        for index, (before, now) in enumerate(zip_longest(recorded, found))
        if before is None or now is None or not equal(before, now)
    ]
