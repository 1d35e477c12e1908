"""The smallest ε beside that of bisection: figures are those of saved images, and a run that was stopped goes on."""

import math
from pathlib import Path

import pytest
import torch

from benchmarks import minimum_norm
from benchmarks.minimum_norm import METHODS, Smallest, bisection, measure, read, table
from benchmarks.quality.measure import Batch
from support.toys import images
from underfire import CAM, Classifier
from underfire.attacks.perturbations.norms import NORMS, NormName

BUDGETS = dict(zip(METHODS, (60, 30), strict=True))


@pytest.fixture
def parts(relu_classifier: Classifier) -> list[Batch]:
    x = (images(3, 32) * 255).round() / 255
    label, target = relu_classifier(x).topk(2, dim=1).indices.unbind(1)
    return [Batch(("a", "b"), x[:2], label[:2], target[:2]), Batch(("c",), x[2:], label[2:], target[2:])]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bisection_ends_between_a_radius_that_is_enough_and_one_that_is_not(
    norm: NormName, relu_classifier: Classifier, parts: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []
    least = torch.tensor([3.2 / 255, 20 / 255]) if norm == "linf" else torch.tensor([0.02, 0.9])

    def attacked(*given: object) -> tuple[torch.Tensor, torch.Tensor]:
        radius, rows = given[3], given[5]
        assert isinstance(radius, float)
        assert isinstance(rows, torch.Tensor)
        tried.append(radius)
        size = torch.full((len(rows),), radius, dtype=torch.float64)
        return size.where(radius >= least[rows], torch.inf), torch.full((len(rows),), 30)

    monkeypatch.setattr(minimum_norm, "_attacked", attacked)
    eps, passes = bisection(CAM(relu_classifier), parts[0], NORMS[norm], 30)
    if norm == "linf":
        assert [round(e * 255) for e in eps.tolist()] == [4, 20]
        assert tried[0] == 8 / 255
    else:
        assert bool((eps >= least).all())
        assert bool((eps <= 1.1 * least).all())
    assert int(passes.sum()) >= 30 * len(set(tried))


def test_a_photo_that_no_radius_is_enough_for_has_none(
    relu_classifier: Classifier, parts: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = (torch.full((2,), torch.inf, dtype=torch.float64), torch.full((2,), 30))
    monkeypatch.setattr(minimum_norm, "_attacked", lambda *_: nothing)
    eps, passes = bisection(CAM(relu_classifier), parts[0], NORMS["linf"], 30)
    assert eps.isinf().all()
    assert passes.tolist() == [150, 150]  # 8, 16, 32, 64, 128 levels


def test_both_methods_find_what_they_say_and_a_run_goes_on(
    relu_classifier: Classifier, parts: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    found = list(measure([CAM(relu_classifier)], ["linf"], parts, log, BUDGETS))
    assert sorted({(one.method, one.photo) for one in found}) == sorted((m, p) for m in METHODS for p in "abc")
    assert all(one.eps is not None and abs(one.eps * 255 - round(one.eps * 255)) < 1e-6 for one in found)
    assert read(log) == sorted(found, key=found.index)
    monkeypatch.delattr(minimum_norm, "ADV2")
    assert list(measure([CAM(relu_classifier)], ["linf"], parts, log, BUDGETS)) == found


def test_a_line_has_the_median_of_all_photos_and_who_was_smaller() -> None:
    ours = [1, 2, 3, 4, 5, 6, None]
    theirs = [2, 2, 3, 5, 4, None, None]
    found = [
        Smallest(str(place), "cam", "linf", method, 10, None if k is None else k / 255, 20)
        for method, sizes in zip(METHODS, (ours, theirs), strict=True)
        for place, k in enumerate(sizes)
    ]
    shown = table(found)
    first, second = (list(row[3:]) for row in shown.rows)
    assert first == ["7", "6", "4.000 [1.000, inf]", "20", "3", "3", "1"]
    assert second[1:3] == ["5", "4.000 [2.000, inf]"]
    assert second[4:] == ["1", "3", "3"]
    assert math.inf not in [one.eps for one in found]
