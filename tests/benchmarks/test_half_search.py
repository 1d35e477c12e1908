"""Equal seconds for a search in bfloat16 and one in float32, and the verdict of what each finds in float32."""

from collections.abc import Iterator
from itertools import count

import pytest
import torch
from torch import Tensor

from benchmarks.half_search import (
    HALF,
    PRECISIONS,
    WHOLE,
    Cost,
    Found,
    cost,
    cost_table,
    difference_table,
    level_table,
    measure,
    searches,
    verdict,
)
from benchmarks.quality.measure import Batch, View
from benchmarks.timing import Ratio
from support.toys import images
from underfire import Classifier
from underfire.stats import Estimate


def _batch(classifier: Classifier) -> Batch:
    x = (images(3, 32) * 255).round() / 255
    label = classifier(x).argmax(dim=1)
    return Batch(("a", "b", "c"), x, label, (label + 1) % classifier.num_classes)


def _ticking() -> Iterator[float]:
    """Two seconds for what is timed first in a turn, one for what comes next."""
    now = 0.0
    for turn in count():
        yield now
        now += 1.0 if turn % 4 == 2 else 2.0 if turn % 4 == 0 else 0.0


def test_both_searches_get_the_same_seconds(relu_classifier: Classifier) -> None:
    ticks = _ticking()
    found = cost(searches(relu_classifier)[0], _batch(relu_classifier), turns=3, clock=lambda: next(ticks))
    assert found.ratio.value == pytest.approx(0.5)
    assert found.seconds[WHOLE] == pytest.approx(2 * found.seconds[HALF])
    assert [found.passes(precision, 100) for precision in PRECISIONS] == [100, 200]
    (row,) = cost_table({"a search": found}, 100).rows
    assert row[0] == "a search"
    assert row[-2:] == ("100", "200")


COST = Cost({WHOLE: 0.2, HALF: 0.1}, Ratio(0.5, 0.5, 0.5))


@pytest.mark.parametrize("place", range(3))
def test_each_spends_its_passes_in_its_own_precision_and_is_judged_in_float32(
    place: int, relu_classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[torch.dtype] = []
    classify = relu_classifier.probabilities

    def probabilities(x: Tensor) -> Tensor:
        judged.append(relu_classifier.module(x).dtype)
        return classify(x)

    monkeypatch.setattr(relu_classifier, "probabilities", probabilities)
    search, batch = searches(relu_classifier)[place], _batch(relu_classifier)
    found = list(measure(search, batch, COST, 12))
    assert judged == [torch.float32] * 2
    assert [(one.precision, one.photo) for one in found] == [(p, name) for p in PRECISIONS for name in batch.names]
    whole, half = ([one for one in found if one.precision == p] for p in PRECISIONS)
    assert max(one.passes for one in whole) <= 12 < max(one.passes for one in half) <= 24
    assert all(0 <= one.view.l1 <= 1 and one.nll >= 0 for one in found)
    assert {one.nll for one in whole} != {one.nll for one in half}


def _found(photo: str, precision: str, l1: float, *, success: bool = True, attacked: bool = True) -> Found:
    view = View(success=success, p=0.9, l1=l1, iou=0.8)
    return Found(photo, "ADV² on a map" if attacked else "PGD", precision, attacked, 100, 2.0, view, nll=10 * l1)


def test_photos_are_compared_with_themselves() -> None:
    found = [
        *(_found(f"{k}", WHOLE, 0.1 + k) for k in range(6)),
        *(_found(f"{k}", HALF, 0.08 + k, success=k > 0) for k in range(6)),
        *(_found(f"{k}", precision, 0.1 + k, attacked=False) for precision in PRECISIONS for k in range(6)),
    ]
    joint, pgd = difference_table(found).rows
    assert joint[1:3] == ("6", "-1")
    assert joint[3].startswith("-0.0200 [")
    assert joint[-1] == "no, it is worse"
    assert pgd[2:4] == ("+0", "+0.0000 [+0.0000, +0.0000]")
    assert pgd[-1] == "no difference seen"
    assert [row[:6] for row in level_table(found).rows[:2]] == [
        ("ADV² on a map", WHOLE, "100", "2.0", "6 of 6", "6"),
        ("ADV² on a map", HALF, "100", "2.0", "5 of 6", "5"),
    ]


@pytest.mark.parametrize(
    ("low", "high", "fooled", "word"),
    [
        (-0.2, -0.1, 0, "yes"),
        (-0.2, -0.1, 1, "yes"),
        (-0.2, -0.1, -1, "no, it is worse"),
        (-0.2, 0.1, 2, "no difference seen"),
        (0.1, 0.2, 1, "no, it is worse"),
        (None, None, 0, "too few photos"),
    ],
)
def test_it_pays_where_the_loss_is_lower_for_certain(
    low: float | None, high: float | None, fooled: int, word: str
) -> None:
    assert verdict(Estimate(0.0, low, high, 8), fooled) == word
