"""Valid bytes, JSON and numbers, spoilt a little: structured damage reaches further than noise."""

import json
import math
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

MAGIC = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 10**6, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1)
"""Numbers at the edges of what fields hold."""

DEEP, LONG = "@deep@", "@long@"
"""Stand in JSON for what Python's writer would not write."""

NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 7, 2**15, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**400),
    *(0.5, -0.0, 1e-9, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf),
)
TEXTS = (
    *("", " ", "0", "-1", "1e999", "nan", "null", "[]", "cam", "pgd", "linf", "random", "photo-0.png", "\0", "\ud800"),
    *(
        "\x1b]0;owned\x07",
        "<script>alert(1)</script>",
        "{{7*7}}",
        "%s%n",
        "../../outside",
        "/dev/zero",
        "\u202e",
        "é" * 9,
    ),
    *("evil:go", "./evil.py:go", "underfire.cli:main", "a/b", "x" * 70_000, "\n\n", "·" * 300),
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": {}}, [0] * 9, ["cam", "cam"], DEEP, LONG)


def odd(draw: Random) -> Any:
    """A value of JSON that few would expect."""
    return deepcopy(draw.choice(draw.choice((NUMBERS, TEXTS, OTHERS))))


def as_json(content: Any) -> bytes:
    """``content`` written, with what stands for the unwritable."""
    text = json.dumps(content)
    text = text.replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000).replace(json.dumps(LONG), "9" * 6000)
    return text.encode()


def spoilt_json(draw: Random, content: Any) -> tuple[Any, str]:
    """A copy of ``content`` with one to three changes, and what they are."""
    content = json.loads(json.dumps(content))
    told = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        place, key, path = _somewhere(draw, content)
        if place is None:
            content = odd(draw)
            told.append("all of it")
        else:
            told.append(f"{path}: {_change(draw, place, key)}")
    return content, "; ".join(told)


def _somewhere(draw: Random, content: Any) -> tuple[Any, Any, str]:
    """A list or object within ``content``, and a key or index of it."""
    place, key, path = None, None, ""
    inner = content
    while isinstance(inner, dict | list) and inner and (place is None or draw.random() < 0.75):
        place = inner
        key = draw.choice(list(inner)) if isinstance(inner, dict) else draw.randrange(len(inner))
        path += f"/{str(key)[:30]}"
        inner = place[key]
    return place, key, path


def _change(draw: Random, place: Any, key: Any) -> str:
    how = draw.choice(("odd", "odd", "odd", "near", "drop", "twice", "swap", "more"))
    value = place[key]
    if how == "near" and isinstance(value, int | float) and not isinstance(value, bool):
        place[key] = draw.choice((value + 1, value - 1, -value, value * 2, float(value), str(value)))
    elif how == "near" and isinstance(value, str) and value:
        cut = draw.randrange(len(value))
        place[key] = value[:cut] + draw.choice("0/.\x1b☃") + value[cut + 1 :]
    elif how == "drop":
        del place[key]
    elif how == "twice" and isinstance(place, list):
        place.insert(key, deepcopy(value))
    elif how == "swap":
        other = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
        place[key], place[other] = place[other], place[key]
    elif how == "more" and isinstance(place, dict):
        place[draw.choice(TEXTS)] = odd(draw)
    else:
        place[key] = odd(draw)
        how = f"{str(place[key])[:30]!r}"
    return how


def spoilt_bytes(draw: Random, data: bytes) -> tuple[bytes, str]:
    """``data`` with one to four changes, and what they are."""
    told = []
    for _ in range(draw.choice((1, 1, 2, 4))):
        change = draw.choice(_CHANGES)
        data = change(draw, data)
        told.append(change.__name__.strip("_"))
    return data, "+".join(told)


def _place(draw: Random, data: bytes) -> int:
    """Headers are hit as often as all the rest."""
    return draw.randrange(min(len(data), draw.choice((64, 512, 2**30))) or 1)


def _flip(draw: Random, data: bytes) -> bytes:
    place = _place(draw, data)
    return data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]


def _cut(draw: Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _lose(draw: Random, data: bytes) -> bytes:
    place = _place(draw, data)
    return data[:place] + data[place + draw.choice((1, 2, 4, 100)) :]


def _again(draw: Random, data: bytes) -> bytes:
    place = _place(draw, data)
    piece = data[place : place + draw.choice((1, 4, 16, 200))]
    return data[:place] + piece * draw.choice((2, 3, 50)) + data[place + len(piece) :]


def _blank(draw: Random, data: bytes) -> bytes:
    place, length = _place(draw, data), draw.choice((4, 32, 300))
    return data[:place] + draw.choice((b"\0", b"\xff")) * length + data[place + length :]


def _magic(draw: Random, data: bytes) -> bytes:
    place, size = _place(draw, data), draw.choice((1, 2, 4, 8))
    number = draw.choice(MAGIC) % 256**size
    return data[:place] + _number(draw, number, size) + data[place + size :]


def _number(draw: Random, number: int, size: int) -> bytes:
    return number.to_bytes(size, "big") if draw.random() < 0.5 else number.to_bytes(size, "little")


def _behind(draw: Random, data: bytes) -> bytes:
    return data + draw.choice((data, bytes(1000), b"PK\5\6" + bytes(18), b"\xff\xd9", b"<script>alert(1)</script>"))


_CHANGES: tuple[Callable[[Random, bytes], bytes], ...] = (
    _flip,
    _flip,
    _magic,
    _magic,
    _cut,
    _lose,
    _again,
    _blank,
    _behind,
)
