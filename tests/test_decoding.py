"""JSON of somebody else's becomes values of declared types, or a clause that names the place."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import pytest

from underfire.decoding import decoded, plain_json
from underfire.errors import InputError


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    number: float
    pair: tuple[int, int] | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    inner: tuple[Inner, ...]
    colour: Colour
    kind: Literal["a", "b"]
    setting: Mapping[str, bool | int | tuple[str, ...]]


WHOLE: dict[str, Any] = {
    "name": "x",
    "inner": [{"number": 1, "pair": [2, 3]}, {"number": 0.5}],
    "colour": "red",
    "kind": "b",
    "setting": {"flag": True, "count": 3, "names": ["y"]},
}


def test_types_are_those_that_are_declared() -> None:
    found = decoded(Outer, WHOLE)
    setting: dict[str, bool | int | tuple[str, ...]] = {"flag": True, "count": 3, "names": ("y",)}
    assert found == Outer("x", (Inner(1.0, (2, 3)), Inner(0.5)), Colour.RED, "b", setting)
    assert [type(value) for value in found.setting.values()] == [bool, int, tuple]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": 3}, r"it\.name is 3, not text"),
        ({"inner": [{"number": True}]}, r"it\.inner\[0\]\.number is true, not a number"),
        ({"inner": [{"number": 1, "pair": [2, 3.0]}]}, r"pair\[1\] is 3\.0, not a whole number"),
        ({"inner": [{"number": 1, "pair": [2]}]}, "has 1 entries, not 2"),
        ({"inner": {}}, "is an object, not a list"),
        ({"inner": [{}]}, r"it\.inner\[0\] has no 'number'"),
        ({"colour": "blue"}, "'blue' is not a valid Colour"),
        ({"kind": ["a"]}, "is a list, not one of a, b"),
        ({"setting": {"x": None}}, "is null, which is no setting"),
        ({"setting": {"x\x1b": {}}}, r"'x\\x1b'"),
        ({"extra": 1}, "has 'extra', which is not known here"),
    ],
)
def test_anything_else_is_named_with_its_place(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        decoded(Outer, WHOLE | change)


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", "9" * 30, "-" + "9" * 400, "[" * 17 + "]" * 17])
def test_numbers_and_nesting_have_limits(text: str) -> None:
    with pytest.raises(InputError, match=r"too large or none|nested too deeply"):
        plain_json(b'{"x": ' + text.encode() + b"}")


def test_what_is_within_the_limits_is_read() -> None:
    assert plain_json(b'{"x": [9223372036854775807, -9223372036854775808, 5e-324, true, null]}') == {
        "x": [2**63 - 1, -(2**63), 5e-324, True, None]
    }


def test_a_message_steers_no_terminal() -> None:
    error = InputError("photo \x1b]0;pwned\x07 \u202egnp\n \udc80 ε 3 % is none")
    assert str(error) == r"photo \x1b]0;pwned\x07 \u202egnp\n \udc80 ε 3 % is none"


@dataclass(frozen=True)
class Sides:
    width: int


@dataclass(frozen=True)
class Square:
    size: Sides | int | None = None


def test_an_object_in_a_union_is_judged_as_the_class_there() -> None:
    assert decoded(Square, {"size": {"width": 3}}) == Square(Sides(3))
    assert decoded(Square, {"size": 3}) == Square(3)
    with pytest.raises(ValueError, match=r"it\.size\.width is 'x', not a whole number"):
        decoded(Square, {"size": {"width": "x"}})
