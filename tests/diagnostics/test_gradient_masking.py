"""The check on gradient masking: who did better on what, by hand, and when goals differ."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from underfire import AttackResult, InputError, Linf
from underfire.attacks.trace import Course, Trace
from underfire.diagnostics.gradient_masking import CLEARLY, Ending, Lead, compare, finding, lead

TRUSTED = "The attack without gradients found nothing that the white-box attack missed on 2 photos"
LABEL, MAPS = Lead.LABEL, Lead.MAPS


def _result(
    success: list[bool], confidence: list[float], distances: list[float] | None = None, *, name: str = "any"
) -> AttackResult:
    """A result of so many photos whose maps are everywhere as far from a target of zeros as ``distances`` says."""
    n = len(success)
    x, target, zero = torch.zeros(n, 3, 4, 4), torch.ones(n, dtype=torch.int64), torch.zeros(n)
    reached = torch.tensor(success, dtype=torch.bool)
    maps: dict[str, Tensor] = {}
    if distances is not None:
        maps = {"cam": torch.tensor(distances)[:, None, None].expand(n, 2, 2)}
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
    ("white", "blind", "wanted"),
    [
        (([True], [0.95], [0.1]), ([True], [0.95], [0.1 - CLEARLY - 1e-4]), MAPS),
        (([True], [0.95], [0.1]), ([True], [0.95], [0.1 - CLEARLY + 1e-4]), None),
        (([True], [0.95], [0.0]), ([True], [0.95], [0.5]), None),
        (([True], [0.95], [0.1]), ([True], [0.90], [0.0]), MAPS),  # enough is enough
        (([True], [0.95], [0.1]), ([True], [0.60], [0.0]), None),  # nearer at the price of the label
        (([True], [0.60], [0.1]), ([True], [0.60], [0.0]), MAPS),
        (([False], [0.40], [0.1]), ([True], [0.45], [0.5]), LABEL),
        (([True], [0.40], [0.1]), ([False], [0.39], [0.0]), None),
        (([False], [0.01], [0.5]), ([False], [0.40], [0.0]), None),
        (([False], [0.01]), ([True], [0.99]), LABEL),
        (([True], [0.60]), ([True], [0.99]), None),
    ],
)
def test_one_photo(
    white: tuple[list[bool], list[float]], blind: tuple[list[bool], list[float]], wanted: Lead | None
) -> None:
    found = compare(_result(*white), _result(*blind))
    assert found.leads == (wanted,)
    assert found.reached == tuple(blind[0])


@pytest.mark.parametrize(("white", "blind"), [(None, 0.0), (0.5, None), (None, None)])
def test_a_gap_that_is_not_to_be_compared_leaves_the_label(white: float | None, blind: float | None) -> None:
    assert lead(Ending(True, 0.95, white), Ending(True, 0.95, blind)) is None
    assert lead(Ending(False, 0.1, white), Ending(True, 0.5, blind)) is Lead.LABEL


def test_several_interpreters_count_by_their_mean() -> None:
    def pair(first: float, second: float) -> AttackResult:
        result = _result([True], [0.95], [first])
        other = torch.full((1, 2, 2), second)
        return replace(
            result,
            maps={**result.maps, "grad": other},
            target_maps={**result.target_maps, "grad": torch.zeros(1, 2, 2)},
        )

    assert compare(pair(0.2, 0.2), pair(0.1, 0.2)).leads == (MAPS,)
    assert compare(pair(0.2, 0.2), pair(0.1, 0.3)).leads == (None,)


class TestSentence:
    def test_nothing_found(self) -> None:
        white = _result([True] * 2, [0.9] * 2)
        assert compare(white, _result([False, True], [0.1, 0.9])).sentence == (
            f"{TRUSTED}. It reached the target class on 1 of 2 photos."
        )

    def test_silence_of_a_search_that_reaches_nothing(self) -> None:
        white = _result([True] * 2, [0.9] * 2)
        assert compare(white, _result([False] * 2, [0.1] * 2)).sentence == (
            f"{TRUSTED}, but it reached the target class on none itself, so that its silence proves little."
        )

    def test_something_found(self) -> None:
        found = compare(
            _result([False, True, True], [0.1, 0.9, 0.9], [0.1] * 3), _result([True] * 3, [0.9] * 3, [0.2, 0.0, 0.1])
        )
        assert found.leads == (LABEL, MAPS, None)
        assert found.sentence == (
            "The attack without gradients did better than the white-box attack on 2 of 3 photos: gradients of this"
            " model mislead, or the white-box attack was too short; its figures are not to be trusted."
            " The attack without gradients reached the target class on 3 of 3 photos."
        )

    def test_one_photo_and_none(self) -> None:
        assert "missed on 1 photo." in compare(_result([True], [0.9]), _result([True], [0.9])).sentence
        assert compare(_result([], []), _result([], [])).sentence.endswith("on no photo.")

    def test_by_name(self) -> None:
        assert finding(0, 1, 2, blind="Square", white_box="PGD").startswith("Square found nothing that PGD missed on 2")


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
