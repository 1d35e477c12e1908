"""IG against closed forms, its completeness, and a memory that doesn't grow with the points."""

import gc
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.nets import linear_classifier, pixel_weights, squares_classifier
from support.toys import images
from underfire import ADV2, IG, Classifier, InputError
from underfire.interpreters.base import ForwardPass, MapGradient, MapTarget
from underfire.interpreters.directional import Linearised
from underfire.interpreters.ig import PathObjective
from underfire.interpreters.maps import saliency
from underfire.interpreters.quadrature import Rule

X, Y = images(4, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 4])


class TestClosedForms:
    @pytest.mark.parametrize("baseline", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize(("points", "rule"), [(1, "midpoint"), (7, "midpoint"), (3, "gauss-legendre")])
    def test_a_linear_logit_is_attributed_exactly(self, baseline: float, points: int, rule: Rule) -> None:
        ig = IG(linear_classifier(), points=points, rule=rule, output="logit", baseline=baseline)
        attribution = ig.integrate(X, Y)
        expected = (X - baseline) * pixel_weights()[Y] / 0.25
        torch.testing.assert_close(attribution.values, expected)
        assert float(attribution.residual.max()) < 1e-12
        torch.testing.assert_close(ig(X, Y), saliency(expected))

    @pytest.mark.parametrize("baseline", [0.0, 0.8])
    def test_a_square_too_because_the_gradient_is_taken_at_the_path_point(self, baseline: float) -> None:
        """∫₀¹ of a gradient that is linear in t: one midpoint is exact, the gradient at x would not be."""
        attribution = IG(squares_classifier(), points=1, output="logit", baseline=baseline).integrate(X, Y)
        start, end = ((v - 0.5) / 0.25 for v in (torch.full_like(X, baseline), X))
        torch.testing.assert_close(attribution.values, pixel_weights()[Y] * (end.square() - start.square()))
        assert float(attribution.residual.max()) < 1e-12

    def test_the_baseline_itself_has_no_attribution(self, smooth_classifier64: Classifier) -> None:
        attribution = IG(smooth_classifier64, baseline=0.4).integrate(torch.full_like(X, 0.4), Y)
        assert torch.equal(attribution.values, torch.zeros_like(X))
        assert torch.equal(attribution.residual, torch.zeros(4, dtype=torch.float64))

    def test_pixels_that_don_t_differ_from_the_baseline_have_none(self, smooth_classifier64: Classifier) -> None:
        x = X.clone()
        x[:, :, :8] = 0
        values = IG(smooth_classifier64).integrate(x, Y).values
        assert torch.equal(values[:, :, :8], torch.zeros_like(values[:, :, :8]))
        assert bool((values[:, :, 8:] != 0).any())


class TestCompleteness:
    def test_the_residual_is_what_is_missing(self, smooth_classifier64: Classifier) -> None:
        ig = IG(smooth_classifier64, points=3)
        attribution = ig.integrate(X, Y)
        rows = torch.arange(4)
        ends = [smooth_classifier64.probabilities(z)[rows, Y] for z in (X, torch.zeros_like(X))]
        missing = attribution.values.sum(dim=(1, 2, 3)) - (ends[0] - ends[1])
        torch.testing.assert_close(attribution.residual, missing.abs())
        assert float(attribution.residual.max()) > 1e-4

    @pytest.mark.parametrize("output", ["probability", "logit"])
    def test_it_falls_with_the_square_of_the_points(self, smooth_classifier64: Classifier, output: str) -> None:
        residuals = [
            float(IG(smooth_classifier64, points=points, output=output).integrate(X, Y).residual.mean())  # type: ignore[arg-type]
            for points in (16, 32, 64, 128)
        ]
        for coarse, fine in itertools.pairwise(residuals):
            assert fine < coarse / 3

    def test_gauss_legendre_gets_there_sooner(self, smooth_classifier64: Classifier) -> None:
        midpoint, gauss = (
            IG(smooth_classifier64, points=48, rule=rule).integrate(X, Y).residual.max()
            for rule in ("midpoint", "gauss-legendre")
        )
        assert gauss < midpoint / 1000

    def test_maps_converge_with_it(self, smooth_classifier64: Classifier) -> None:
        exact = IG(smooth_classifier64, points=256)(X, Y)
        coarse, fine = ((IG(smooth_classifier64, points=n)(X, Y) - exact).abs().mean() for n in (8, 64))
        assert fine < coarse / 10


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"points": 0}, "points is 0"),
            ({"rule": "trapezoid"}, "rule 'trapezoid' is unknown"),
            ({"output": "nll"}, "output 'nll' is unknown; give 'probability' or 'logit'"),
            ({"baseline": 1.5}, r"baseline 1.5 is not a pixel value in \[0, 1\]"),
            ({"baseline": float("nan")}, "baseline nan"),
        ],
    )
    def test_one_sentence_that_quotes(
        self, smooth_classifier64: Classifier, options: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(InputError, match=sentence):
            IG(smooth_classifier64, **options)

    def test_attribute_refuses_what_a_call_refuses(self, smooth_classifier64: Classifier) -> None:
        ig = IG(smooth_classifier64)
        with pytest.raises(InputError, match="outside"):
            ig.integrate(X * 2, Y)
        with pytest.raises(InputError, match="class 10 does not exist"):
            ig.integrate(X, Y + 8)

    def test_no_image_has_no_attribution(self, smooth_classifier64: Classifier) -> None:
        attribution = IG(smooth_classifier64).integrate(X[:0], Y[:0])
        assert (attribution.values.shape, attribution.residual.shape) == ((0, 3, 16, 16), (0,))


class TestPathObjective:
    """With the baseline at the mean of the squares classifier its gradient grows in proportion along the path."""

    COPIES = 500

    def _looks(self, even: float, looks: int) -> tuple[list[MapGradient], list[float]]:
        """Answers for copies of one image, each with its own random numbers, and where all later looks were taken."""
        classifier = squares_classifier()
        ig = IG(classifier, strata=2, output="logit", baseline=0.5)
        x, keys = X[:1].expand(self.COPIES, -1, -1, -1), tuple(map(str, range(self.COPIES)))
        task = MapTarget(torch.zeros(self.COPIES, dtype=torch.int64), torch.zeros(self.COPIES, 4, 4), keys, seed=0)
        reach, places = X[0] - 0.5, []

        def seen(classifier: Classifier, points: Tensor, y: Tensor) -> Linearised:
            places.append(((points - 0.5) * reach).sum(dim=(1, 2, 3)) / reach.square().sum())
            return ig.linearised(classifier, points, y)

        objective = PathObjective(ig, task, seen, lambda raw, _: raw.mean(dim=(1, 2)), even=even)
        with classifier.frozen():
            answers = [objective(ForwardPass(classifier, x)) for _ in range(looks)]
        return answers, torch.cat(places[2:]).tolist()

    @pytest.mark.parametrize("even", [0.25, 1.0])
    def test_later_looks_are_in_the_mean_what_all_parts_say(self, even: float) -> None:
        (first, second), _ = self._looks(even, 2)
        along = torch.stack([(pull.direction * X[0]).sum(dim=(1, 2, 3)) for pull in (first, second)])
        error = float(along.std(dim=1).norm()) / self.COPIES**0.5
        assert abs(float(along[0].mean() - along[1].mean())) < 4 * error
        assert error < 0.05 * abs(float(along[0].mean()))

    def test_a_part_is_looked_at_the_more_often_the_larger_its_gradient(self) -> None:
        """Random points of the parts have gradients of 1/4 and 3/4 in the mean."""
        _, places = self._looks(0.25, 2)
        assert float(torch.tensor(places).gt(0.5).double().mean()) == pytest.approx(0.7, abs=0.06)

    def test_or_as_often_as_any_other(self) -> None:
        _, places = self._looks(1.0, 2)
        assert float(torch.tensor(places).gt(0.5).double().mean()) == pytest.approx(0.5, abs=0.06)

    def test_a_flat_path_has_no_preference(self) -> None:
        layer = nn.Linear(768, 3)
        nn.init.zeros_(layer.weight)
        classifier = Classifier(nn.Sequential(nn.Flatten(), layer).double(), input_size=16)
        objective = IG(classifier).objective(
            MapTarget(torch.tensor([0]), torch.zeros(1, 4, 4, dtype=torch.float64), ("a",), seed=0)
        )
        with classifier.frozen():
            answers = [objective(ForwardPass(classifier, X[:1])) for _ in range(3)]
        assert [answer.passes for answer in answers] == [16, 2, 2]
        assert all(torch.equal(answer.direction, torch.zeros_like(X[:1])) for answer in answers)


@dataclass
class _Ledger:
    """How many numbers autograd keeps for backward passes, now and at most; how many rows each forward pass had."""

    live: int = 0
    peak: int = 0
    rows: list[int] = field(default_factory=list)


class _Kept:
    def __init__(self, tensor: Tensor, ledger: _Ledger) -> None:
        # detached: what a node saved of its own output would otherwise keep the node alive in a cycle
        self.tensor, self.ledger = tensor.detach(), ledger
        ledger.live += tensor.numel()
        ledger.peak = max(ledger.peak, ledger.live)

    def __del__(self) -> None:
        self.ledger.live -= self.tensor.numel()


@contextmanager
def _watched(classifier: Classifier) -> Iterator[_Ledger]:
    """Count inside the block; the hook travels with copies of the module."""
    ledger = _Ledger()
    handle = classifier.module.register_forward_pre_hook(lambda _, args: ledger.rows.append(args[0].shape[0]))
    gc.collect()
    gc.disable()  # what only the cycle collector would free counts as kept
    try:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: _Kept(t, ledger), lambda kept: kept.tensor):
            yield ledger
    finally:
        gc.enable()
        handle.remove()


def _map(ig: IG) -> None:
    ig(X, Y)


def _attribute(ig: IG) -> None:
    ig.integrate(X, Y)


def _attack(ig: IG) -> None:
    ADV2(ig, steps=6)(X, Y)


class TestMemory:
    @pytest.mark.parametrize("use", [_map, _attribute, _attack])
    def test_it_does_not_grow_with_the_points(self, smooth_classifier64: Classifier, use: Callable[[IG], None]) -> None:
        seen = {}
        for points in (4, 64):
            with _watched(smooth_classifier64) as ledger:
                use(IG(smooth_classifier64, points=points))
            assert max(ledger.rows) == len(X)
            assert len(ledger.rows) >= points
            seen[points] = ledger
        assert 0 < seen[64].peak <= seen[4].peak
        assert seen[64].live == 0

    def test_the_ledger_does_see_a_path_that_is_taken_at_once(self, smooth_classifier64: Classifier) -> None:
        peaks = []
        for points in (4, 64):
            with _watched(smooth_classifier64) as ledger:
                path = torch.cat([X * (k + 0.5) / points for k in range(points)]).requires_grad_(True)
                smooth_classifier64(path).sum().backward()
            assert max(ledger.rows) == points * len(X)
            peaks.append(ledger.peak)
        assert peaks[1] > 8 * peaks[0]

    def test_a_step_of_an_attack_costs_the_same_at_any_number_of_points(self, smooth_classifier64: Classifier) -> None:
        passes = [ADV2(IG(smooth_classifier64, points=n), steps=8)(X, Y).passes for n in (4, 64)]
        assert torch.equal(*passes)
