"""The check on gradient masking: who did better on what, by hand, and when goals differ."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from underfire import AttackResult, InputError, Linf
from underfire.analysis.masking import CLEARLY, compare
from underfire.attacks.trace import Course, Trace

TRUSTED = "The attack without gradients found nothing that the white-box attack missed on 2 photos."


def _result(
    success: list[bool], confidence: list[float], gaps: list[float] | None = None, *, name: str = "any"
) -> AttackResult:
    """A result of so many photos whose maps are everywhere as far from a target of zeros as ``gaps`` says."""
    n = len(success)
    x, target, zero = torch.zeros(n, 3, 4, 4), torch.ones(n, dtype=torch.int64), torch.zeros(n)
    reached = torch.tensor(success, dtype=torch.bool)
    maps: dict[str, Tensor] = {}
    if gaps is not None:
        maps = {"cam": torch.tensor(gaps)[:, None, None].expand(n, 2, 2)}
    return AttackResult(
        attack=name,
        x=x,
        x_adv=x,
        target=target,
        prediction=reached.long(),
        success=reached,
        confidence=torch.tensor(confidence),
        maps=maps,
        target_maps={key: torch.zeros_like(value) for key, value in maps.items()},
        passes=target,
        steps=1,
        seconds=0.0,
        perturbation=Linf(),
        used=zero,
        trace=Trace(zero, Course(zero, zero, zero), None),
        keys=tuple(f"photo {i}" for i in range(n)),
    )


@pytest.mark.parametrize(
    ("white", "blind", "label", "maps"),
    [
        (([True], [0.95], [0.1]), ([True], [0.95], [0.1 - CLEARLY - 1e-4]), False, True),
        (([True], [0.95], [0.1]), ([True], [0.95], [0.1 - CLEARLY + 1e-4]), False, False),
        (([True], [0.95], [0.0]), ([True], [0.95], [0.5]), False, False),
        (([True], [0.95], [0.1]), ([True], [0.90], [0.0]), False, True),  # enough is enough
        (([True], [0.95], [0.1]), ([True], [0.60], [0.0]), False, False),  # nearer at the price of the label
        (([True], [0.60], [0.1]), ([True], [0.60], [0.0]), False, True),
        (([False], [0.40], [0.1]), ([True], [0.45], [0.5]), True, False),
        (([True], [0.40], [0.1]), ([False], [0.39], [0.0]), False, False),
        (([False], [0.01], [0.5]), ([False], [0.40], [0.0]), False, False),
        (([False], [0.01]), ([True], [0.99]), True, False),
        (([True], [0.60]), ([True], [0.99]), False, False),
    ],
)
def test_one_photo(
    white: tuple[list[bool], list[float]], blind: tuple[list[bool], list[float]], label: bool, maps: bool
) -> None:
    found = compare(_result(*white), _result(*blind))
    assert (found.label.tolist(), found.maps.tolist()) == ([label], [maps])
    assert found.better.tolist() == [label or maps]
    assert found.is_suspected == (label or maps)


def test_several_interpreters_count_by_their_mean() -> None:
    def pair(first: float, second: float) -> AttackResult:
        result = _result([True], [0.95], [first])
        other = torch.full((1, 2, 2), second)
        return replace(
            result,
            maps={**result.maps, "grad": other},
            target_maps={**result.target_maps, "grad": torch.zeros(1, 2, 2)},
        )

    assert compare(pair(0.2, 0.2), pair(0.1, 0.2)).maps.tolist() == [True]
    assert compare(pair(0.2, 0.2), pair(0.1, 0.3)).maps.tolist() == [False]


class TestSentence:
    def test_nothing_found(self) -> None:
        assert compare(_result([True] * 2, [0.9] * 2), _result([False, True], [0.1, 0.9])).sentence == TRUSTED

    def test_something_found(self) -> None:
        found = compare(
            _result([False, True, True], [0.1, 0.9, 0.9], [0.1] * 3), _result([True] * 3, [0.9] * 3, [0.2, 0.0, 0.1])
        )
        assert found.sentence == (
            "The attack without gradients did better on 2 of 3 photos: gradients of this model mislead,"
            " its figures are not to be trusted."
        )

    def test_one_photo_and_none(self) -> None:
        assert compare(_result([True], [0.9]), _result([True], [0.9])).sentence.endswith("missed on 1 photo.")
        assert compare(_result([], []), _result([], [])).sentence.endswith("compared on no photo.")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"keys": ("a", "b")}, "photos"),
        ({"x": torch.ones(2, 3, 4, 4)}, "photos"),
        ({"target": torch.zeros(2, dtype=torch.int64)}, "target classes"),
        ({"perturbation": Linf(0.1)}, "budgets"),
        ({"maps": {}, "target_maps": {}}, "interpreters"),
        ({"target_maps": {"cam": torch.ones(2, 2, 2)}}, "target maps"),
    ],
)
def test_different_goals_are_refused(changes: dict[str, object], what: str) -> None:
    white = _result([True] * 2, [0.9] * 2, [0.1] * 2, name="adv2")
    blind = replace(_result([True] * 2, [0.9] * 2, [0.1] * 2, name="square"), **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"'adv2' and 'square' have different {what}; compare"):
        compare(white, blind)
