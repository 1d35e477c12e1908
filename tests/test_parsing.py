"""Numbers that users write: what is read, and what is refused without being worked out."""

from collections.abc import Callable
from typing import Any

import pytest

from underfire import parsing
from underfire.errors import InputError

HUGE = ("1e99999999", "1e-99999999", "1/1e99999999", "1e99999999/255", "1e1000", "1/10**9", "9" * 100_000)
NONE = ("", "nan", "inf", "-inf", "0x8", "1_000", "٣", "8/", "/255", "1/0", "1/2/3", "e5", ".")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("8/255", 8 / 255), ("0.03", 0.03), (" 8 / 255 ", 8 / 255), ("3", 3.0), (".5", 0.5), ("5.", 5.0)),
        *(("1e-3", 1e-3), ("-1/255", -1 / 255), ("1E2", 100.0), ("+2", 2.0), ("1e-999", 0.0)),
    ],
)
def test_numbers(text: str, value: float) -> None:
    assert parsing.number(text) == value


@pytest.mark.parametrize("parse", [parsing.number, parsing.numbers, parsing.budgets, parsing.positive, parsing.count])
@pytest.mark.parametrize("text", [*HUGE, *NONE])
def test_what_is_no_number_is_quoted_and_never_worked_out(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert repr(text[:50])[:-1] in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parsing.budgets, "2/255,4/255", (2 / 255, 4 / 255)),
        (parsing.numbers, "0.5, 1,2e0", (0.5, 1.0, 2.0)),
        (parsing.size, "224", (224, 224)),
        (parsing.size, "224x160", (224, 160)),
        (parsing.count, "0012", 12),
        (parsing.count, "999999999", 999_999_999),
        (parsing.counts, "50,100", (50, 100)),
        (parsing.seed, "0", 0),
        (parsing.seed, str(2**63 - 1), 2**63 - 1),
        (parsing.seed, str(-(2**63)), -(2**63)),
    ],
)
def test_other_values(parse: Callable[[str], Any], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((parsing.count, text) for text in ("0", "-1", "1000000000", "2.0", "1e3")),
        *((parsing.size, text) for text in ("0", "224x0", "1x2x3", "x", "1e9x2", "9" * 100_000)),
        *((parsing.seed, text) for text in (str(2**63), str(-(2**63) - 1), "1e3", "9" * 100_000, "")),
        *((parsing.positive, text) for text in ("0", "-1", "1e-999")),
    ],
)
def test_values_out_of_range(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(InputError):
        parse(text)
