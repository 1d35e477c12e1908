"""Goals as they are written, and where they are met."""

import pytest
import torch

from underfire import InputError
from underfire.attacks.goals import Goal

BENIGN = torch.arange(30, dtype=torch.float64).reshape(1, 5, 6) / 29


@pytest.mark.parametrize("text", ["target/kept", "other/kept", "target/free", "other/free", "kept/topk", "kept/led"])
def test_it_is_written_as_it_is_read(text: str) -> None:
    assert str(Goal.parse(text)) == text


@pytest.mark.parametrize("text", ["", "target", "kept/kept", "kept/free", "any/kept", "target/kept/led", "Target/kept"])
def test_another_is_refused_in_its_own_words(text: str) -> None:
    with pytest.raises(InputError, match="goal '"):
        Goal.parse(text)


@pytest.mark.parametrize(
    ("text", "tau", "met"),
    [
        ("target/kept", 0.9, [True, False, False]),
        ("kept/led", 0.0, [True, True, False]),
        ("kept/topk", 0.0, [False, True, False]),
        ("kept/l1", 1.0, [True, True, False]),
        ("kept/center", 0.15, [False, True, False]),
        ("kept/center", 0.0, [True, True, False]),
        ("target/free", 0.5, [True, True, True]),
    ],
)
def test_where_the_map_s_part_is_met(text: str, tau: float, met: list[bool]) -> None:
    """By the benign map itself, by one turned upside down, and by a constant one, which meets no goal on maps."""
    maps = torch.cat([BENIGN, BENIGN.flip(1), torch.full_like(BENIGN, 0.7)])
    assert Goal.parse(text).map_met(maps, BENIGN.expand(3, 5, 6), tau=tau).tolist() == met
