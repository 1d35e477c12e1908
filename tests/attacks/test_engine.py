"""The loop: a planted adversarial input is found, NaN stops it, what it says it paid is what it paid."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from support.nets import board, cells, linear_classifier, poison, poisoned, spread, stripes_classifier
from support.toys import every, images, smooth_net
from underfire import ADV2, CAM, GRAD, IG, PGD, Classifier, GradCAM, Interpreter, NonFiniteError
from underfire.attacks.control import Schedule
from underfire.attacks.engine import Outcome, Setting, descend
from underfire.attacks.perturbations import Linf
from underfire.interpreters import MapTarget
from underfire.models.folded import prepared

EPS = 0.03


def _planted(x: Tensor, maps: Tensor) -> Tensor:
    """An image in the ball around ``x`` (N, 3, 32, 32) of class 1 whose CAM is ``maps`` (N, 8, 8)."""
    return x + EPS * spread(maps)[:, None] * board(32)


class TestPlanted:
    """A back door of known shape: the attack must find what surely exists."""

    def _targets(self, kind: str, x: Tensor, cam: CAM) -> Tensor:
        if kind == "benign":
            return cam(x, torch.zeros(len(x), dtype=torch.int64))
        if kind == "patch":
            maps = torch.zeros(len(x), 8, 8)
            maps[:, 2:6, 1:5] = 1
            return maps
        maps = torch.rand(len(x), 8, 8, generator=torch.Generator().manual_seed(3))
        low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
        return (maps - low) / (high - low)

    @pytest.mark.parametrize("kind", ["benign", "patch", "noise"])
    def test_it_is_there(self, kind: str) -> None:
        classifier = stripes_classifier()
        x, cam, ones = cells(4), CAM(classifier), torch.ones(4, dtype=torch.int64)
        assert classifier(x).argmax(dim=1).tolist() == [0] * 4
        maps = self._targets(kind, x, cam)
        planted = _planted(x, maps)
        assert float((planted - x).abs().max()) <= EPS + 1e-7
        assert 0 <= float(planted.min()) <= float(planted.max()) <= 1
        assert float(classifier.probabilities(planted)[:, 1].min()) > 0.95
        torch.testing.assert_close(cam(planted, ones), maps, rtol=0, atol=1e-3)

    @pytest.mark.parametrize(("kind", "make"), [("benign", CAM), ("patch", CAM), ("noise", CAM), ("noise", GradCAM)])
    def test_it_is_found(self, kind: str, make: type[CAM | GradCAM]) -> None:
        classifier = stripes_classifier()
        x, g, ones = cells(2), make(classifier), torch.ones(2, dtype=torch.int64)
        maps = self._targets(kind, x, CAM(classifier))
        result = ADV2(g, eps=EPS, steps=200, step_size=0.1 / 255)(x, ones, target_map=maps)
        distance = (result.maps[g.name] - maps).abs().mean(dim=(1, 2))
        blind = PGD(classifier, eps=EPS, steps=60, step_size=1 / 255)(x, ones)
        blind_gap = (g(blind.x_adv, ones) - maps).abs().mean(dim=(1, 2))
        assert result.success.all()
        assert float(result.confidence.min()) >= 0.9
        assert float(distance.max()) < (0.05 if kind == "patch" else 0.01)
        assert float(blind_gap.min()) > 0.15

    def test_maps_that_are_the_same_for_both_classes_are_kept(self) -> None:
        """Of two linear logits w·x and −w·x, GRAD's map is |w| for any image and class: nothing can give it away."""
        classifier = linear_classifier()
        parameters = dict(classifier.module.named_parameters())
        parameters["weight"].data[1] = -parameters["weight"].data[0]
        parameters["bias"].data[2:] = -200  # out of the race
        x = images(4, 16, dtype=torch.float64)
        target = 1 - classifier(x).argmax(dim=1)
        grad, ig = GRAD(classifier), IG(classifier, output="logit")
        result = ADV2([grad, ig], eps=EPS, steps=60)(x, target)
        assert result.success.all()
        assert float((result.maps["grad"] - result.target_maps["grad"]).abs().max()) < 1e-9
        assert float((result.maps["ig"] - result.target_maps["ig"]).abs().mean()) < 0.03


class TestNotANumber:
    @every
    @pytest.mark.parametrize("index", [0, 2])
    def test_a_logit_that_is_none_stops_the_attack_at_its_image(
        self, make: Callable[[Classifier], Interpreter], index: int
    ) -> None:
        classifier = poisoned(smooth_net(), size=16)
        x, target = poison(images(4, 16), index), torch.arange(4)
        with pytest.raises(NonFiniteError, match=f"of image {index} contains NaN") as stop:
            ADV2(make(classifier), steps=3)(x, target)
        assert stop.value.index == index
        with pytest.raises(NonFiniteError, match=f"the prediction loss of image {index} contains NaN"):
            PGD(classifier, steps=3)(x, target)

    @pytest.mark.parametrize("keep", ["best", "last"])
    def test_neither_does_a_gradient_that_is_none_pass_for_zero(self, keep: str) -> None:
        classifier = poisoned(smooth_net(), size=16, gradient_only=True)
        x, target = poison(images(4, 16), 2), torch.arange(4)
        assert torch.isfinite(classifier(x)).all()
        with pytest.raises(NonFiniteError, match="of image 2 contains NaN"):
            PGD(classifier, steps=1, keep=keep)(x, target)  # type: ignore[arg-type]
        with pytest.raises(NonFiniteError, match="of image 2 contains NaN"):
            ADV2(CAM(classifier), steps=1)(x, target)

    def test_an_image_alone_is_image_0(self) -> None:
        with pytest.raises(NonFiniteError, match="of image 0 contains NaN"):
            PGD(poisoned(smooth_net(), size=16), steps=2)(poison(images(1, 16), 0), torch.tensor([1]))


class TestPasses:
    @pytest.mark.parametrize(
        ("make", "options"), [(GRAD, {}), (IG, {"strata": 4}), (IG, {"points": 3}), (CAM, {}), (GradCAM, {})]
    )
    @pytest.mark.parametrize("n", [1, 3])
    def test_they_are_the_forward_passes_of_the_loop(
        self, relu_classifier: Classifier, make: type[Interpreter], options: dict[str, int], n: int
    ) -> None:
        """A hook on the module counts, and travels with the copy that the loop runs on."""
        calls: list[int] = []
        relu_classifier.module.register_forward_hook(lambda *_: calls.append(1))
        g = make(relu_classifier, **options)
        x, target = images(n, 32), torch.arange(n)
        counted, said = [], []
        ADV2(g, steps=1)(x, target)  # which finds out what may be folded
        for steps in (10, 25):
            calls.clear()
            said.append(ADV2(g, steps=steps)(x, target).passes)
            counted.append(len(calls))
        assert torch.equal(said[1] - said[0], torch.full((n,), counted[1] - counted[0]))

    @every
    def test_a_joint_step_takes_what_the_interpreter_says(
        self, relu_classifier: Classifier, make: Callable[[Classifier], Interpreter]
    ) -> None:
        g = make(relu_classifier)
        x, target = images(2, 32), torch.tensor([3, 4])
        fewer, more = (_descend(relu_classifier, g, x, target, steps).passes for steps in (10, 20))
        assert (more - fewer).tolist() == [10 * g.passes_per_step] * 2


def _descend(classifier: Classifier, g: Interpreter, x: Tensor, target: Tensor, steps: int) -> Outcome:
    """Joint steps of one size, so that a longer attack begins like a shorter one."""
    maps = g(x, classifier(x).argmax(dim=1))
    schedule = Schedule(steps, warm=0, first=1 / 255, peak=1 / 255, last=1 / 255)
    task = MapTarget(target, maps, tuple(f"image {i}" for i in range(len(x))), seed=0)
    return descend(prepared(classifier), x, target, [g.objective(task)], Setting(Linf(8 / 255), schedule))


class TestBestIterate:
    @pytest.mark.parametrize("make", [GRAD, CAM], ids=lambda g: g.name)
    def test_more_steps_of_the_same_path_are_never_worse(
        self, relu_classifier: Classifier, make: type[Interpreter]
    ) -> None:
        g, x = make(relu_classifier), images(6, 32)
        predicted = relu_classifier(x).argmax(dim=1)
        target = (predicted + 1) % 10
        wanted = g(x, predicted)
        rows = torch.arange(6)
        distances, confidences = [], []
        for steps in (5, 10, 20, 40, 80):
            x_adv = _descend(relu_classifier, g, x, target, steps).x_adv
            distances.append((g(x_adv, target) - wanted).abs().mean(dim=(1, 2)))
            confidences.append(relu_classifier.probabilities(x_adv)[rows, target])
        for k in range(4):
            held, holds = confidences[k] >= 0.9 + 1e-4, confidences[k + 1] >= 0.9 - 1e-4
            assert bool(holds[held].all())
            assert bool((distances[k + 1] <= distances[k] + 1e-4)[held].all())
            assert bool((confidences[k + 1] >= confidences[k] - 1e-4)[~held & ~(confidences[k + 1] >= 0.9)].all())
        assert bool((confidences[-1] >= 0.9 - 1e-4).all())
        assert float(distances[-1].mean()) < 0.9 * float(distances[0].mean())
