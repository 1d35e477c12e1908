"""Occlusion, RISE, KernelSHAP and LIME: their values, and the way an attack follows them at a few masks a step."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any
from unittest.mock import patch

import pytest
import torch
from captum._utils.models.model import Model
from captum.attr import KernelShap, Lime, ShapleyValues
from captum.attr import Occlusion as CaptumOcclusion
from torch import Tensor, nn
from torch.nn import functional as F

from support.toys import (
    Normalised,
    images,
    relu_net,
    small_kernel_shap,
    small_lime,
    small_occlusion,
    small_rise,
    smooth_net,
)
from underfire import ADV2, LIME, PGD, RISE, Classifier, InputError, KernelSHAP, Occlusion
from underfire.interpreters import ForwardPass, MapTarget
from underfire.interpreters.maps import distance, map_slope, min_max
from underfire.interpreters.mask_sets import in_pixels
from underfire.interpreters.masked import Masked, MaskedObjective
from underfire.interpreters.outputs import Output
from underfire.testing import check_interpreter

N, Y = 3, torch.tensor([0, 3, 7])
KEYS = ("a", "b", "c")


def _classifier() -> Classifier:
    return Classifier(smooth_net().double(), mean=0.5, std=0.25, input_size=16)


def _function(output: Output) -> nn.Module:
    net = Normalised(smooth_net().double()).eval()
    return net if output == "logit" else nn.Sequential(net, nn.Softmax(dim=1))


def _segments(side: int) -> Tensor:
    """Which of side² segments each pixel of 16×16 is in, as Captum's feature masks."""
    rows = torch.arange(16) * side // 16
    return (rows[:, None] * side + rows[None, :])[None, None].expand(1, 3, 16, 16).contiguous()


X = images(N, 16, dtype=torch.float64)
both = pytest.mark.parametrize("output", ["probability", "logit"])
backgrounds = pytest.mark.parametrize("baseline", [0.0, 0.5])

SMALL: dict[str, Callable[..., Masked]] = {
    make.__name__.removeprefix("small_"): make for make in (small_occlusion, small_rise, small_kernel_shap, small_lime)
}
every = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)


class TestValues:
    @both
    @backgrounds
    @pytest.mark.parametrize("window", [1, 2])
    def test_occlusion_is_captum_s(self, output: Output, baseline: float, window: int) -> None:
        ours = Occlusion(_classifier(), segments=4, window=window, baseline=baseline, output=output)
        theirs = (
            CaptumOcclusion(_function(output))
            .attribute(
                X, sliding_window_shapes=(3, 4 * window, 4 * window), strides=(3, 4, 4), baselines=baseline, target=Y
            )
            .double()
        )
        assert float((theirs[:, 0, ::4, ::4] - ours.signed(X, Y)).abs().max()) < 1e-5
        torch.testing.assert_close(ours(X, Y), min_max(theirs[:, 0, ::4, ::4]), rtol=0, atol=1e-5)

    @both
    @backgrounds
    def test_all_coalitions_give_the_shapley_values(self, output: Output, baseline: float) -> None:
        ours = KernelSHAP(_classifier(), segments=2, samples=16, baseline=baseline, output=output)
        theirs = ShapleyValues(_function(output)).attribute(X, baselines=baseline, target=Y, feature_mask=_segments(2))
        assert float((theirs[:, 0, ::8, ::8] - ours.signed(X, Y)).abs().max()) < 1e-5
        assert ours.passes_per_map == 16

    @both
    @backgrounds
    def test_kernel_shap_is_captum_s_on_the_same_coalitions(self, output: Output, baseline: float) -> None:
        ours = KernelSHAP(_classifier(), segments=3, samples=60, baseline=baseline, output=output)
        values = ours.signed(X, Y, keys=KEYS)
        for image, key in enumerate(KEYS):
            shown = ours.masks_of(key, X).shown[0].flatten(1)
            theirs = KernelShap(_function(output))
            theirs.interpretable_model = _Least(0.0)
            theirs.perturb_func = _each(shown)
            found = theirs.attribute(
                X[image : image + 1],
                baselines=baseline,
                target=int(Y[image]),
                feature_mask=_segments(3),
                n_samples=len(shown),
            )
            cells = torch.stack([found[0, 0][_segments(3)[0, 0] == cell][0] for cell in range(9)])
            assert float((cells - values[image].flatten()).abs().max()) < 1e-5

    @both
    @backgrounds
    def test_lime_is_captum_s_with_a_ridge(self, output: Output, baseline: float) -> None:
        ours = LIME(_classifier(), segments=3, samples=40, baseline=baseline, output=output)
        values = ours.signed(X, Y, keys=KEYS)
        for image, key in enumerate(KEYS):
            shown = ours.masks_of(key, X).shown[0].flatten(1)
            theirs = Lime(
                _function(output),
                interpretable_model=_Least(ours.penalty),
                similarity_func=lambda _, __, mask, **more: ours.weights(mask.double()),
                perturb_func=_each(shown),
            )
            found = theirs.attribute(
                X[image : image + 1],
                baselines=baseline,
                target=int(Y[image]),
                feature_mask=_segments(3),
                n_samples=len(shown),
            )
            cells = torch.stack([found[0, 0][_segments(3)[0, 0] == cell][0] for cell in range(9)])
            assert float((cells - values[image].flatten()).abs().max()) < 1e-5

    @both
    @backgrounds
    def test_rise_is_its_formula(self, output: Output, baseline: float) -> None:
        ours = RISE(_classifier(), masks=20, segments=3, share=0.4, baseline=baseline, output=output)
        values = ours.signed(X, Y, keys=KEYS)
        for image, key in enumerate(KEYS):
            masks = ours.masks_of(key, X)
            assert masks.corners is not None
            total = torch.zeros(16, 16, dtype=torch.float64)
            for cells, (top, left) in zip(masks.shown[0], masks.corners[0].tolist(), strict=True):
                soft = F.interpolate(cells[None, None], size=(24, 24), mode="bilinear")[0, 0]
                mask = soft[top : top + 16, left : left + 16]
                seen = _function(output)((X[image] * mask + baseline * (1 - mask))[None])
                total += float(seen[0, Y[image]].detach()) * mask / (20 * 0.4)
            expected = F.avg_pool2d(total[None], 4)[0]
            assert float((expected - values[image]).abs().max()) < 1e-5

    @every
    def test_masks_are_the_image_s_own(self, make: Callable[..., Masked]) -> None:
        explained = make(_classifier())
        drawn = [explained.masks_of(key, X).shown for key in ("a", "a", "b")]
        assert torch.equal(drawn[0], drawn[1])
        assert torch.equal(drawn[0], drawn[2]) == isinstance(explained, Occlusion)
        assert torch.equal(explained(X[:1], Y[:1], keys=["b"]), explained(X[:2], Y[:2].clone(), keys=["b", "c"])[:1])

    def test_kernel_shap_draws_sizes_by_the_kernel(self) -> None:
        shown = KernelSHAP(_classifier(), segments=4, samples=4002).masks_of("a", X).shown[0, 2:].flatten(1)
        sizes = torch.arange(1, 16, dtype=torch.float64)
        expected = 1 / (sizes * (16 - sizes))
        share = torch.bincount(shown.sum(dim=1).long(), minlength=16)[1:] / len(shown)
        torch.testing.assert_close(share.double(), expected / expected.sum(), rtol=0, atol=0.02)
        assert torch.equal(shown[: len(shown) // 2], 1 - shown[len(shown) // 2 :])

    def test_segments_need_not_divide_the_image(self) -> None:
        mask = in_pixels(torch.tensor([[[1.0, 0, 1], [0, 1, 0], [1, 1, 0]]]), None, (5, 7))
        assert [int(side) for side in (mask[0, 0] == 1).sum(dim=0, keepdim=True)] == [5]
        assert mask.shape == (1, 5, 7)


class TestDirection:
    @every
    @both
    def test_all_masks_give_the_gradient(self, make: Callable[..., Masked], output: Output) -> None:
        check_interpreter(lambda c: make(c, per_step=None, output=output), tolerance=1e-5)

    @every
    def test_a_few_masks_give_it_in_the_mean(self, make: Callable[..., Masked]) -> None:
        """Over all subsets, each with its chance: the draw's only number is enumerated."""
        classifier = _classifier()
        target = _target(make(classifier))
        with classifier.frozen():
            exact = make(classifier, per_step=None).objective(target)(ForwardPass(classifier, X)).direction
            mean = _mean_direction(make(classifier, per_step=2), target)
        assert float((mean - exact).abs().max()) < 1e-9 * float(exact.abs().max())

    @every
    def test_a_slope_by_the_drawn_masks_alone_is_biased(self, make: Callable[..., Masked]) -> None:
        """What the whole map is kept for: with the map of the same few masks the mean is another direction."""
        classifier = _classifier()
        target = _target(make(classifier))
        with classifier.frozen():
            exact = make(classifier, per_step=None).objective(target)(ForwardPass(classifier, X)).direction
            naive = _naive_mean(make(classifier, per_step=2), target)
        assert float((naive - exact).norm()) > 0.5 * float(exact.norm())

    @every
    def test_values_follow_the_image(self, make: Callable[..., Masked]) -> None:
        """After as many looks at an image as there are masks, the loss is that of the map."""
        classifier = _classifier()
        explained = make(classifier, per_step=1, renewed=1)
        target = _target(explained)
        objective, moved = explained.objective(target), 0.3 + 0.5 * X
        with classifier.frozen():
            objective(ForwardPass(classifier, X))
            for _ in range(explained.passes_per_map + 1):
                answer = objective(ForwardPass(classifier, moved))
        true = distance(explained(moved, Y, keys=KEYS), target.maps)
        torch.testing.assert_close(answer.distance, true, rtol=1e-9, atol=1e-12)

    def test_what_weighs_nothing_is_no_trouble(self) -> None:
        """A map that is its target has no slope: masks are drawn alike, and the direction is zero."""
        classifier = _classifier()
        explained = Occlusion(classifier, segments=3)
        with classifier.frozen():
            raw = explained.signed(X, Y)
            own = replace(_target(explained), maps=min_max(raw))
            answer = explained.objective(own)(ForwardPass(classifier, X))
        assert float(answer.distance.max()) < 1e-12
        assert bool(torch.isfinite(answer.direction).all())


class TestAttack:
    @pytest.mark.parametrize("name", ["occlusion", "kernel_shap"])
    def test_adv2_brings_the_map_nearer_than_pgd(self, name: str) -> None:
        classifier = Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32)
        explained, x, keys, eps = SMALL[name](classifier), images(4, 32), list("abcd"), 16 / 255
        own = classifier(x).argmax(dim=1)
        target = (own + 3) % 10
        goal = explained(x, own, keys=keys)
        joint = ADV2(explained, steps=104, eps=eps)(x, target, keys=keys)  # the end of a stage
        plain = explained(PGD(classifier, steps=60, eps=eps)(x, target, keys=keys).x_adv, target, keys=keys)
        assert bool(joint.success.all())
        assert float(distance(joint.maps[explained.name], goal).mean()) < 0.6 * float(distance(plain, goal).mean())

    def test_a_joint_step_s_passes(self) -> None:
        classifier = _classifier()
        costs = {make.name: make(classifier).passes_per_step for make in (Occlusion, RISE, KernelSHAP, LIME)}
        assert costs == {"occlusion": 3, "rise": 5, "kernelshap": 5, "lime": 5}


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "quoted"),
        [
            (lambda c: Occlusion(c, window=9), "window is 9"),
            (lambda c: Occlusion(c, output="odds"), "output 'odds'"),  # type: ignore[arg-type]
            (lambda c: RISE(c, masks=0), "masks is 0"),
            (lambda c: RISE(c, share=1.0), "share 1 "),
            (lambda c: RISE(c, segments=0), "segments is 0"),
            (lambda c: KernelSHAP(c, samples=7), "samples is 7"),
            (lambda c: KernelSHAP(c, baseline=2), "baseline 2 "),
            (lambda c: LIME(c, samples=1), "samples is 1"),
            (lambda c: LIME(c, width=0), "width 0 "),
            (lambda c: LIME(c, per_step=0), "per_step is 0"),
            (lambda c: LIME(c, renewed=-1), "renewed is -1"),
        ],
    )
    def test_a_sentence_that_quotes(self, make: Callable[[Classifier], Masked], quoted: str) -> None:
        with pytest.raises(InputError, match=quoted):
            make(_classifier())


class _Least(Model):  # type: ignore[misc]
    """Weighted least squares with an intercept and a penalty, in closed form, as Captum takes a model."""

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def fit(self, train_data: Any, **_: object) -> dict[str, float]:
        z, f, weights = (part.double() for part in next(iter(train_data)))
        design = torch.cat([z, torch.ones(len(z), 1).double()], dim=1)
        penalty = self.penalty * torch.eye(design.shape[1]).double()
        penalty[-1, -1] = 0
        gram = design.T @ (weights[:, None] * design) + penalty
        self.found: Tensor = torch.linalg.solve(gram, design.T @ (weights * f.flatten()))[:-1]
        return {}

    def representation(self) -> Tensor:
        return self.found

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def _each(shown: Tensor) -> Callable[..., object]:
    def perturbations(_: Tensor, **__: object) -> object:
        yield from shown.long().split(1)

    return perturbations


def _target(explained: Masked) -> MapTarget:
    maps = explained(X, Y, keys=KEYS).roll(1, dims=0)
    return MapTarget(Y, maps, KEYS, seed=0)


def _mean_direction(explained: Masked, target: MapTarget) -> Tensor:
    """The mean of the first direction over the number that is drawn, exactly: it is constant between its breaks."""
    view = ForwardPass(explained.classifier, X)
    masks = explained.masks(KEYS, X)
    values = explained.values(explained.classifier, X, Y, masks)
    slopes = masks.slopes(map_slope(masks.maps(values), target.maps)[2])
    objective = MaskedObjective(explained, target)
    chances = objective._chances(slopes * objective._steepness(values))
    breaks = torch.cat([chances.cumsum(dim=1).flatten() % 1, torch.tensor([0.0, 1.0]).double()]).unique()
    mean = torch.zeros_like(X)
    for start, end in pairwise(breaks):
        if end - start > 1e-12:
            drawn = MaskedObjective(explained, target)
            drawn._seen = (_noise(X), torch.ones(N, dtype=torch.float64))  # whatever is expected of gradients
            number = torch.full((N,), float(start + end) / 2, dtype=torch.float64)
            with patch("underfire.interpreters.masked.uniform", return_value=number):
                answer = drawn(view)
            mean += float(end - start) * answer.direction
    return mean


def _noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(0), dtype=like.dtype)


def _naive_mean(explained: Masked, target: MapTarget) -> Tensor:
    """The same over all pairs of masks alike, with map and slope by the pair alone."""
    classifier, masks = explained.classifier, explained.masks(KEYS, X)
    values = explained.values(classifier, X, Y, masks)
    objective = MaskedObjective(explained, target)
    rows, scale = torch.arange(N), len(masks) / 2
    looks = [objective._look(classifier, X, rows, torch.full((N,), k)) for k in range(len(masks))]
    gradients = torch.stack([pixels[:, None] * gradient for _, gradient, pixels in looks], dim=1)
    pairs = list(combinations(range(len(masks)), 2))
    mean = torch.zeros_like(X)
    for pair in pairs:
        few = torch.zeros_like(values)
        few[:, pair] = scale * values[:, pair]
        slopes = masks.slopes(map_slope(masks.maps(few), target.maps)[2])
        for k in pair:
            mean += scale * slopes[:, k, None, None, None] * gradients[:, k] / len(pairs)
    return mean
