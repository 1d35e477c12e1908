"""The fit: its penalty, Adam, jitter, cost and convergence, against autograd and torch's own Adam."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from support.toys import SMALL_FIT, images
from underfire import Classifier, MaskFit
from underfire.interpreters.masks.fit import FitCourse, Fitted, fit_masks, jitters, penalty
from underfire.interpreters.masks.optics import Optics

KEYS = ("a", "b", "c", "d", "e")


def fitted(classifier: Classifier, fit: MaskFit, x: Tensor, y: Tensor, keys: tuple[str, ...] = KEYS) -> Fitted:
    with classifier.frozen():
        return fit_masks(classifier, fit, x, y, keys, seed=3)


def priced(fit: MaskFit, mask: Tensor) -> Tensor:
    """The penalty of one mask, cell by cell."""
    rows, columns = mask.shape
    total = fit.sparsity * (1 - mask).abs().sum()
    for i in range(rows - 1):
        for j in range(columns - 1):
            down, right = mask[i + 1, j] - mask[i, j], mask[i, j + 1] - mask[i, j]
            total = total + fit.smoothness * (down**2 + right**2 + 1e-8) ** 1.5
    return total


def test_the_penalty_is_the_sum_over_the_cells_and_its_slope_the_gradient() -> None:
    fit = MaskFit(sparsity=0.3, smoothness=0.7)
    masks = torch.rand(3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    wanted = torch.stack([priced(fit, mask) for mask in masks])
    (slope,) = torch.autograd.grad(wanted.sum(), masks)
    value, gradient = penalty(fit, masks.detach())
    torch.testing.assert_close(value, wanted.detach())
    torch.testing.assert_close(gradient, slope)


def test_a_mask_that_deletes_nothing_pays_nearly_nothing() -> None:
    value, slope = penalty(MaskFit(sparsity=0.3, smoothness=0.7), torch.ones(1, 5, 5, dtype=torch.float64))
    assert value.item() == pytest.approx(16 * 0.7 * 1e-12)
    assert float(slope.abs().max()) == 0


def test_a_step_is_that_of_torchs_adam() -> None:
    draw = torch.Generator().manual_seed(0)
    fit = MaskFit(start=0.4)
    course = FitCourse.begin(fit, torch.empty(2, 3, 4, dtype=torch.float64))
    masks = torch.full((2, 3, 4), 0.4, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([masks], lr=0.2)
    for _ in range(8):
        masks.grad = torch.randn(masks.shape, dtype=masks.dtype, generator=draw)
        course.step(masks.grad, 0.2)
        adam.step()
        with torch.no_grad():
            masks.clamp_(0, 1)
        torch.testing.assert_close(course.masks, masks.detach(), rtol=1e-9, atol=1e-12)
    assert {float(course.masks.min()), float(course.masks.max())} == {0.0, 1.0}


def test_the_whole_fit_is_that_of_autograd(smooth_classifier64: Classifier) -> None:
    """Of one image at a time, with torch's Adam."""
    fit = replace(SMALL_FIT, steps=6, sparsity=1e-3)
    x, y = images(3, 16, dtype=torch.float64), torch.tensor([1, 4, 7])
    found = fitted(smooth_classifier64, fit, x, y, KEYS[:3])
    optics = Optics.of(fit, (16, 16), x)
    for i, corners in enumerate(jitters(fit, 3, KEYS[:3])):
        mask = torch.full((1, 8, 8), fit.start, dtype=torch.float64, requires_grad=True)
        adam, objective = torch.optim.Adam([mask], lr=fit.lr), []
        for corner in corners:
            shown = optics.composite(optics.crops(optics.scene(x[i : i + 1]), corner[None]), mask)
            probability = smooth_classifier64(shown).softmax(dim=1)[0, y[i]]
            value = probability + priced(fit, mask[0])
            objective.append(value.item())
            adam.zero_grad()
            value.backward()
            adam.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
        torch.testing.assert_close(found.masks[i], mask[0].detach(), rtol=1e-6, atol=1e-8)
        assert found.objective[i].tolist() == pytest.approx(objective, rel=1e-6)


class TestJitter:
    def test_draws_belong_to_the_image(self) -> None:
        fit = MaskFit(steps=7)
        whole = jitters(fit, 3, KEYS)
        assert whole.shape == (5, 7, 2)
        assert torch.equal(jitters(fit, 3, ("d", "a")), whole[[3, 0]])
        assert not torch.equal(whole[0], whole[1])
        assert not torch.equal(jitters(fit, 4, KEYS), whole)

    def test_they_are_whole_pixels_up_to_the_jitter(self) -> None:
        assert set(jitters(MaskFit(steps=200, jitter=3), 0, ("a",)).flatten().tolist()) == {0, 1, 2, 3}
        assert set(jitters(MaskFit(steps=20, jitter=0), 0, ("a",)).flatten().tolist()) == {0}


@pytest.mark.parametrize("threads", [1, 2])
def test_float32_masks_are_the_same_bits_split_or_whole(relu_classifier: Classifier, threads: int) -> None:
    x, y, before = images(5, 32), torch.arange(5), torch.get_num_threads()
    fit = replace(SMALL_FIT, steps=12)
    torch.set_num_threads(threads)
    try:
        whole = fitted(relu_classifier, fit, x, y)
        for first, end in ((0, 1), (1, 3), (2, 5)):
            part = fitted(relu_classifier, fit, x[first:end], y[first:end], KEYS[first:end])
            assert torch.equal(part.masks, whole.masks[first:end])
            assert torch.equal(part.objective, whole.objective[first:end])
    finally:
        torch.set_num_threads(before)


def test_a_step_is_one_pass(relu_classifier: Classifier) -> None:
    calls: list[int] = []
    relu_classifier.module.register_forward_hook(lambda *_: calls.append(1))
    for steps in (1, 9):
        calls.clear()
        fitted(relu_classifier, replace(SMALL_FIT, steps=steps), images(3, 32), torch.arange(3), KEYS[:3])
        assert len(calls) == steps


class TestSettled:
    def _of(self, *objectives: Tensor) -> list[bool]:
        settled: list[bool] = Fitted(torch.empty(0), torch.stack(objectives)).settled.tolist()
        return settled

    def test_the_last_tenth_is_compared_with_the_one_before(self) -> None:
        falls = torch.linspace(1, 0, 100)
        rests = torch.cat([torch.linspace(1, 0.2, 50), torch.full((50,), 0.2)])
        rises = torch.cat([torch.full((90,), 0.2), torch.full((10,), 0.3)])
        just_too_much = torch.cat([torch.full((90,), 1.0), torch.full((10,), 0.94)])
        just_so_little = torch.cat([torch.full((90,), 1.0), torch.full((10,), 0.96)])
        assert self._of(falls, rests, rises, just_too_much, just_so_little) == [False, True, True, False, True]

    def test_a_short_fit_has_nothing_to_compare(self) -> None:
        assert self._of(torch.ones(19)) == [False]
        assert self._of(torch.ones(20)) == [True]


def test_masks_that_are_left_go_on_as_before() -> None:
    draw = torch.Generator().manual_seed(0)
    slopes = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=draw)
    whole, part = (FitCourse.begin(MaskFit(), torch.empty(3, 2, 2, dtype=torch.float64)) for _ in range(2))
    for slope in slopes[:2]:
        whole.step(slope, 0.1)
        part.step(slope, 0.1)
    part.select(torch.tensor([2, 0]))
    for slope in slopes[2:]:
        whole.step(slope, 0.1)
        part.step(slope[[2, 0]], 0.1)
    assert torch.equal(part.masks, whole.masks[[2, 0]])
