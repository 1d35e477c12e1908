"""The L2 ball."""

import math

import foolbox
import pytest
import torch
from foolbox.models.pytorch import PyTorchModel
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from support.toys import Normalised, images, smooth_net
from underfire import L2, PGD, Classifier, InputError

seeds = st.integers(0, 10_000)
radii = st.one_of(st.floats(0.01, 30), st.sampled_from([0.1, 3.0]))


def _noise(seed: int, n: int = 3, *, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _images(seed: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images of which many values are 0 or 1."""
    return (0.5 + 0.6 * _noise(seed, dtype=dtype)).clamp(0, 1)


def _length(change: Tensor) -> Tensor:
    length: Tensor = change.double().flatten(1).norm(dim=1)
    return length


class TestProject:
    @given(seeds, radii, st.floats(1e-3, 5))
    def test_the_ball_and_the_range_are_kept_from_anywhere(self, seed: int, eps: float, scale: float) -> None:
        x, ball = _images(seed), L2(eps)
        inside = ball.project(x, x + scale * _noise(seed + 1))
        assert (_length(inside.double() - x.double()) <= eps).all()
        assert 0 <= float(inside.min()) <= float(inside.max()) <= 1

    @pytest.mark.parametrize("value", [0.0, 0.3, 0.7, 1.0])
    def test_nor_do_roundings_that_all_go_one_way_lead_out(self, value: float) -> None:
        x, ball = torch.full((1, 3, 64, 64), value), L2(0.5)
        inside = ball.project(x, x + (0.5 - value) + 0.01)
        assert 0.49999 < float(_length(inside.double() - x.double())) <= 0.5

    @given(seeds, radii, st.floats(1e-3, 5))
    def test_once_is_enough(self, seed: int, eps: float, scale: float) -> None:
        x, ball = _images(seed), L2(eps)
        inside = ball.project(x, x + scale * _noise(seed + 1))
        assert torch.equal(ball.project(x, inside), inside)

    @given(seeds, radii)
    def test_what_is_within_stays_to_the_bit(self, seed: int, eps: float) -> None:
        x, ball = _images(seed), L2(eps)
        theta = (x + 0.99 * eps * ball.steepest(_noise(seed + 1))).clamp(0, 1)
        assert torch.equal(ball.project(x, theta), theta)

    @given(seeds, st.floats(0.01, 3))
    def test_where_nothing_is_clipped_no_image_of_the_ball_is_nearer(self, seed: int, eps: float) -> None:
        x, ball = torch.full((3, 3, 8, 8), 0.5, dtype=torch.float64), L2(eps)
        theta = (x + 0.3 * _noise(seed, dtype=torch.float64)).clamp(0, 1)
        inside = ball.project(x, theta)
        other = ball.project(x, x + _noise(seed + 1, dtype=torch.float64))
        assert (_length(inside - theta) <= _length(other - theta) + 1e-9).all()
        across = (theta - inside).flatten(1), (x - inside).flatten(1)
        outside = _length(theta - x) > eps
        torch.testing.assert_close(
            nn.functional.cosine_similarity(*across)[outside], -torch.ones(int(outside.sum())).double()
        )

    def test_no_image(self) -> None:
        x = torch.empty(0, 3, 8, 8)
        assert L2().project(x, x).shape == L2().rounded(x, x).shape == (0, 3, 8, 8)


class TestSteepest:
    @given(seeds)
    def test_no_move_of_size_one_gains_more(self, seed: int) -> None:
        direction, other = _noise(seed, dtype=torch.float64), _noise(seed + 1, dtype=torch.float64)
        steepest = L2().steepest(direction)
        torch.testing.assert_close(_length(steepest), torch.ones(3).double())
        other = other / _length(other)[:, None, None, None]
        assert ((direction * (steepest - other)).sum(dim=(1, 2, 3)) >= 0).all()

    def test_zero_stays_zero_and_what_is_tiny_counts(self) -> None:
        direction = torch.zeros(3, 3, 4, 4)
        direction[1, 0, 0, 0] = -1e-30  # whose square is 0 in float32
        direction[2, 0, 0, 0] = 1e30  # whose square is infinite
        steepest = L2().steepest(direction)
        assert steepest[:, 0, 0, 0].tolist() == [0.0, -1.0, 1.0]
        assert int((steepest != 0).sum()) == 2


class TestSize:
    def test_the_size_is_the_length_of_each_image_s_change(self) -> None:
        x = torch.full((2, 3, 4, 4), 0.5, dtype=torch.float64)
        theta = x.clone()
        theta[0, 1, 2, 3] -= 0.03
        theta[0, 0, 0, 0] += 0.04
        theta[1, 2, 0, 1] += 0.02
        torch.testing.assert_close(L2().size(x, theta), torch.tensor([0.05, 0.02], dtype=torch.float64))


class TestRounded:
    """Images of a saved size: rounding alone leaves a ball that is full."""

    @given(seeds, st.floats(0.02, 3), st.floats(0.3, 1))
    def test_it_is_inside_and_whole(self, seed: int, eps: float, share: float) -> None:
        x, ball = (_images(seed) * 255).round() / 255, L2(eps)
        image = ball.project(x, x + share * eps * ball.steepest(_noise(seed + 1)))
        pixels = ball.rounded(x, image)
        assert pixels.dtype == torch.uint8
        assert (_length(pixels.double() / 255 - (x * 255).round().double() / 255) <= eps + 1e-9).all()
        assert ball.contains(x, pixels.float() / 255).all()

    @given(seeds, st.floats(0.5, 3))
    def test_where_rounding_stays_inside_it_is_just_that(self, seed: int, eps: float) -> None:
        x, ball = (_images(seed) * 255).round() / 255, L2(eps)
        image = ball.project(x, x + 0.5 * eps * ball.steepest(_noise(seed + 1)))
        assert torch.equal(ball.rounded(x, image), (image.double() * 255).round().byte())

    def test_little_is_lost_where_it_does_not(self) -> None:
        x, ball = torch.full((1, 3, 64, 64), 128 / 255), L2(1.0)
        image = ball.project(x, x + 0.05 * _noise(3, 64).reshape(1, 3, 64, 64))
        nearest = (image.double() * 255).round() / 255
        saved = ball.rounded(x, image).double() / 255
        centre = x.double()
        towards = centre + ((image - x).double() * 255).trunc() / 255
        lengths = [float(_length(tried - centre)) for tried in (nearest, saved, towards)]
        assert lengths[0] > 1 >= lengths[1] > 0.999
        assert lengths[2] < 0.85
        distances = [float(_length(tried - image)) for tried in (nearest, saved, towards)]
        assert distances[0] <= distances[1] < 1.1 * distances[0] < distances[2]

    def test_what_is_whole_and_inside_stays(self) -> None:
        x = torch.arange(192).reshape(1, 3, 8, 8) / 255
        moved = x.clone()
        moved[0, 0, 0, :3] += 3 / 255
        pixels = L2(math.sqrt(27) / 255).rounded(x, moved)
        assert torch.equal(pixels, (moved * 255).round().byte())
        assert torch.equal(L2(4 / 255).rounded(x, x), (x * 255).round().byte())


class TestBudget:
    @pytest.mark.parametrize("eps", [0.0, -0.1, math.nan, math.inf])
    def test_what_is_no_budget_is_refused(self, eps: float) -> None:
        with pytest.raises(InputError, match=f"eps {eps:g} is no L2 radius"):
            L2(eps)

    def test_by_default_it_is_three(self) -> None:
        assert L2().eps == 3.0

    def test_an_image_beyond_it_is_told(self) -> None:
        x = torch.full((2, 3, 8, 8), 0.5)
        image = x + torch.tensor([0.099, 0.101])[:, None, None, None] * L2().share(x)
        assert L2(0.1).contains(x, image).tolist() == [True, False]


def _case(*, shrink: float) -> tuple[Classifier, nn.Module, Tensor, Tensor]:
    classifier = Classifier(smooth_net().double(), mean=0.5, std=0.25, input_size=16)
    x = 0.5 + shrink * (images(6, 16, dtype=torch.float64) - 0.5)
    target = (classifier(x).argmax(dim=1) + 3) % classifier.num_classes
    return classifier, Normalised(smooth_net().double()).eval(), x, target


@pytest.mark.parametrize(("eps", "steps", "step_size"), [(0.5, 20, 0.06), (1.0, 10, 0.3)])
class TestOthersPGD:
    """Far from 0 and 1, where the order of clipping and shortening is the same as no order at all."""

    def test_foolbox(self, eps: float, steps: int, step_size: float) -> None:
        classifier, model, x, target = _case(shrink=0.2)
        attack = foolbox.attacks.L2PGD(abs_stepsize=step_size, steps=steps, random_start=False)
        goal = foolbox.criteria.TargetedMisclassification(target)
        theirs, _, _ = attack(PyTorchModel(model, bounds=(0, 1)), x, goal, epsilons=eps)
        ours = PGD(classifier, perturbation=L2(eps), steps=steps, step_size=step_size, keep="last")(x, target)
        assert float(_length(theirs - x).min()) > 0.9 * eps
        torch.testing.assert_close(ours.x_adv, theirs, rtol=0, atol=1e-9)

    def test_torchattacks(self, eps: float, steps: int, step_size: float) -> None:
        torchattacks = pytest.importorskip("torchattacks")
        classifier, model, x, target = _case(shrink=0.2)
        attack = torchattacks.PGDL2(
            model, eps=eps, alpha=step_size, steps=steps, random_start=False, eps_for_division=0
        )
        attack.set_mode_targeted_by_label(quiet=True)
        ours = PGD(classifier, perturbation=L2(eps), steps=steps, step_size=step_size, keep="last")(x, target)
        torch.testing.assert_close(ours.x_adv, attack(x, target), rtol=0, atol=1e-9)

    def test_at_the_border_of_the_range_they_shorten_first(self, eps: float, steps: int, step_size: float) -> None:
        """So their clipping takes away from what is allowed, ours from what is beyond."""
        classifier, model, x, target = _case(shrink=1.1)
        x = x.clamp(0, 1)
        attack = foolbox.attacks.L2PGD(abs_stepsize=step_size, steps=steps, random_start=False)
        goal = foolbox.criteria.TargetedMisclassification(target)
        theirs, _, _ = attack(PyTorchModel(model, bounds=(0, 1)), x, goal, epsilons=eps)
        ours = PGD(classifier, perturbation=L2(eps), steps=steps, step_size=step_size, keep="last")(x, target)
        assert not torch.allclose(ours.x_adv, theirs, rtol=0, atol=1e-9)
        assert (_length(ours.x_adv - x) >= _length(theirs - x) - 1e-3).all()
