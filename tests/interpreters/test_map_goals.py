"""What is descended for each goal on maps, and the measure that tells iterates from each other."""

import pytest
import torch
from torch import Tensor

from underfire.interpreters.map_goals import APART, APART_L2, CENTER, NEAR, TOPK, MapGoal
from underfire.interpreters.maps import distance, min_max, scaled_distance, shape_distance

BENIGN = min_max(torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
AWAY = [TOPK, CENTER, APART, APART_L2]


def _corner(row: int, column: int, *, high: float = 1.0) -> Tensor:
    """A map (1, 5, 6) with one cell that is not 0."""
    found = torch.zeros(1, 5, 6, dtype=torch.float64)
    found[0, row, column] = high
    return found


def test_a_led_map_has_the_interpreter_s_own_loss_and_the_l1_measure() -> None:
    maps = BENIGN.flip(1)
    assert NEAR.loss(shape_distance) is shape_distance
    assert torch.equal(NEAR.aimed(BENIGN), BENIGN)
    assert torch.equal(NEAR.distance(maps, BENIGN), distance(maps, BENIGN))


@pytest.mark.parametrize("goal", AWAY, ids=lambda g: g.name)
class TestAway:
    def test_the_slope_is_the_loss_s_by_finite_differences(self, goal: MapGoal) -> None:
        loss, aimed = goal.loss(scaled_distance), goal.aimed(BENIGN)
        raw = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_(True)
        assert torch.autograd.gradcheck(lambda r: loss(r, aimed), raw)

    def test_it_has_one_at_the_benign_map_already(self, goal: MapGoal) -> None:
        raw = BENIGN.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(goal.loss(scaled_distance)(raw, goal.aimed(BENIGN)).sum(), raw)
        assert float(slope.flatten(1).abs().amax(dim=1).min()) > 1e-4

    def test_scale_and_offset_of_the_raw_map_do_not_matter(self, goal: MapGoal) -> None:
        loss, aimed = goal.loss(scaled_distance), goal.aimed(BENIGN)
        raw = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        torch.testing.assert_close(loss(7 * raw - 3, aimed), loss(raw, aimed))

    def test_a_constant_map_has_moved_nowhere(self, goal: MapGoal) -> None:
        constant = torch.full_like(BENIGN, 0.5)
        assert goal.distance(constant, goal.aimed(BENIGN)).tolist() == [1.0] * 3

    def test_there_is_always_further_to_go(self, goal: MapGoal) -> None:
        assert goal.enough < 0

    def test_images_share_nothing(self, goal: MapGoal) -> None:
        maps, aimed = BENIGN.flip(2), goal.aimed(BENIGN)
        alone = [goal.distance(maps[i : i + 1], aimed[i : i + 1]) for i in range(3)]
        assert torch.equal(goal.distance(maps, aimed), torch.cat(alone))


def test_top_cells_that_are_left_and_what_lies_in_them() -> None:
    benign = torch.arange(30, dtype=torch.float64).reshape(1, 5, 6) / 29  # the last row is the top fifth
    aimed = TOPK.aimed(benign)
    moved = benign.flip(1)
    assert float(TOPK.distance(moved, aimed)) == pytest.approx(1e-3 * float(moved[0, -1].sum() / moved.sum()))
    assert float(TOPK.distance(benign, aimed)) == pytest.approx(1.0, abs=2e-3)
    assert float(TOPK.loss(shape_distance)(_corner(4, 0), aimed)) == 1.0
    assert float(TOPK.loss(shape_distance)(_corner(0, 0), aimed)) == 0.0


def test_the_centre_goes_from_corner_to_corner() -> None:
    aimed = CENTER.aimed(_corner(0, 0))
    assert float(CENTER.distance(_corner(0, 0), aimed)) == pytest.approx(1.0)
    # from cell to cell four rows and five columns further, of 5 by 6 cells
    shift = (4**2 + 5**2) ** 0.5 / (5**2 + 6**2) ** 0.5
    assert float(CENTER.distance(_corner(4, 5, high=0.2), aimed)) == pytest.approx(1 - shift)


def test_apart_is_what_is_left_of_the_l1_measure() -> None:
    maps = BENIGN.flip(1)
    torch.testing.assert_close(APART.distance(maps, APART.aimed(BENIGN)), 1 - distance(maps, BENIGN))


def test_apart_by_l2_is_what_is_left_of_the_root_mean_square_and_leads_to_the_furthest_map() -> None:
    maps = BENIGN.flip(1)
    aimed = APART_L2.aimed(BENIGN)
    torch.testing.assert_close(APART_L2.distance(maps, aimed), 1 - (maps - BENIGN).square().mean(dim=(1, 2)).sqrt())
    furthest = (BENIGN < 0.5).double()
    assert APART_L2.loss(scaled_distance)(furthest, aimed).tolist() == [0.0] * 3
    others = torch.rand(200, 1, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).round()
    distances = torch.stack([APART_L2.distance(some.expand_as(BENIGN), aimed) for some in others])
    assert bool((APART_L2.distance(furthest, aimed) < distances).all())


def test_a_map_that_is_almost_nothing_has_no_slope_of_its_center() -> None:
    """Its mass is below the smallest normal number, and one over it is none."""
    raw = torch.zeros(1, 4, 4)
    raw[0, 1, 2] = 3e-40
    raw.requires_grad_(True)
    loss = CENTER.loss(distance)(raw, torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)))
    (slope,) = torch.autograd.grad(loss.sum(), raw)
    assert bool(slope.isfinite().all())
