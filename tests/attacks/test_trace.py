"""What an attack says about its own course: by hand, and of attacks whose course is known."""

import math

import pytest
import torch
from torch import Tensor

from support.nets import linear_classifier
from support.toys import images, relu_net
from underfire import ADV2, CAM, GRAD, PGD, Classifier
from underfire.attacks.control import Schedule
from underfire.attacks.engine import Setting, descend
from underfire.attacks.keepers import LAST, KeptIterates
from underfire.attacks.perturbations import Linf
from underfire.attacks.trace import Recorder
from underfire.images.png import from_8bit
from underfire.interpreters import MapTarget
from underfire.interpreters.map_goals import ENOUGH
from underfire.models.folded import prepared

ROWS = torch.arange(3)


def _t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _best(nll: Tensor, distance: Tensor) -> KeptIterates:
    best = KeptIterates(torch.zeros(len(nll), 1, 1, 1), LAST)
    every = torch.arange(len(nll))
    best.offer(
        best.theta.clone(), rows=every, reached=torch.ones(len(nll), dtype=torch.bool), nll=nll, distance=distance
    )
    return best


def _recorder(n: int = 3) -> Recorder:
    return Recorder(torch.zeros(n, 1, 1, 2))


def _directions(*still: bool) -> Tensor:
    """One direction (1, 1, 2) per image: zero in every pixel where ``still``, else in one of two."""
    return torch.tensor([[0.0, 0.0 if s else -1e-30] for s in still]).reshape(-1, 1, 1, 2)


class TestRecorder:
    def test_the_first_look_counts_for_each_loss_by_itself(self) -> None:
        """The distance is asked of joint iterates only, which come after those of the warm start."""
        recorder = _recorder()
        recorder.look(ROWS, _t(1, 2, 3), None, 1)
        recorder.look(ROWS, _t(4, 5, 6), _t(0.1, 0.2, 0.3), 1)
        recorder.look(ROWS, _t(7, 8, 9), _t(0.4, 0.5, 0.6), 1)
        trace = recorder.trace(_best(_t(0, 0, 0), _t(0, 0, 0)), joint=True)
        assert trace.maps is not None
        assert torch.equal(trace.prediction.first, _t(1, 2, 3))
        assert torch.equal(trace.maps.first, _t(0.1, 0.2, 0.3))

    def test_of_maps_the_first_counts_that_has_the_label(self) -> None:
        recorder = _recorder(3)
        for distance, reached in (((0.1, 0.2, 0.3), (0, 1, 0)), ((0.4, 0.5, 0.6), (1, 1, 0))):
            recorder.look(ROWS, _t(1, 1, 1), _t(*distance), 1, reached=torch.tensor(reached).bool())
        maps = recorder.trace(_best(_t(1, 1, 1), _t(0, 0, 0)), joint=True).maps
        assert maps is not None
        torch.testing.assert_close(maps.first, _t(0.4, 0.2, 0.3))

    def test_passes_are_summed_for_the_images_named(self) -> None:
        recorder = _recorder()
        recorder.look(ROWS, _t(1, 1, 1), None, 2)
        recorder.look(torch.tensor([2, 0]), _t(1, 1), None, 3)
        recorder.look(torch.tensor([2]), _t(1), None, 10)
        assert recorder.passes.tolist() == [5, 2, 15]
        assert recorder.passes.dtype == torch.int64

    def test_images_in_another_order_are_told_apart(self) -> None:
        recorder = _recorder()
        recorder.look(torch.tensor([2, 0]), _t(3, 1), _t(0.3, 0.1), 1)
        recorder.look(torch.tensor([1]), _t(2), _t(0.2), 1)
        trace = recorder.trace(_best(_t(0, 0, 0), _t(0, 0, 0)), joint=True)
        assert trace.maps is not None
        assert torch.equal(trace.prediction.first, _t(1, 2, 3))
        assert torch.equal(trace.maps.first, _t(0.1, 0.2, 0.3))

    def test_half_and_kept_are_what_was_best_then(self) -> None:
        recorder, best = _recorder(2), _best(_t(5, math.inf), _t(0.5, math.inf))
        recorder.look(torch.arange(2), _t(9, 9), _t(1, 1), 1)
        recorder.halfway(best)
        best.offer(
            torch.zeros(2, 1, 1, 1),
            rows=torch.arange(2),
            reached=torch.tensor([True, True]),
            nll=_t(1, 2),
            distance=_t(0.1, 0.2),
        )
        trace = recorder.trace(best, joint=True)
        assert trace.maps is not None
        assert torch.equal(trace.prediction.half, _t(5, math.inf))
        assert torch.equal(trace.maps.half, _t(0.5, math.inf))
        assert torch.equal(trace.prediction.kept, _t(1, 2))
        assert torch.equal(trace.maps.kept, _t(0.1, 0.2))

    def test_without_maps_there_is_no_course_of_them(self) -> None:
        assert _recorder().trace(_best(_t(0, 0, 0), _t(0, 0, 0)), joint=False).maps is None

    def test_stuck_is_the_share_of_still_steps_whose_label_did_not_hold(self) -> None:
        recorder = _recorder(4)
        rows = torch.arange(4)
        recorder.step(rows, _directions(True, True, False, False), torch.tensor([False, True, False, True]))
        recorder.step(rows, _directions(False, True, False, True), torch.tensor([False, True, False, False]))
        recorder.step(torch.tensor([3, 0]), _directions(True, False), torch.tensor([False, True]))
        recorder.step(torch.tensor([3, 0]), _directions(True, False), torch.tensor([True, True]))
        trace = recorder.trace(_best(torch.zeros(4), torch.zeros(4)), joint=False)
        assert trace.stuck.tolist() == [0.25, 0, 0, 0.5]

    def test_no_step_is_not_stuck(self) -> None:
        assert _recorder().trace(_best(_t(0, 0, 0), _t(0, 0, 0)), joint=False).stuck.tolist() == [0, 0, 0]


X = from_8bit((images(6, 32) * 255).round().byte())


@pytest.fixture(scope="module")
def toy() -> Classifier:
    return Classifier(relu_net(), mean=0.5, std=0.25, input_size=32)


@pytest.fixture(scope="module")
def target(toy: Classifier) -> Tensor:
    return (toy(X).argmax(dim=1) + 1) % 10


def _nll(classifier: Classifier, x: Tensor, target: Tensor) -> Tensor:
    return -classifier(x).log_softmax(dim=1).gather(1, target[:, None]).squeeze(1)


def _flat() -> Classifier:
    """Constant logits 0, 1, 2, …: no pixel changes any of them."""
    classifier = linear_classifier(scale=0)
    bias = dict(classifier.module.named_parameters())["bias"]
    bias.data = torch.arange(len(bias), dtype=bias.dtype)
    return classifier


class TestPGD:
    def test_it_goes_down_from_the_image_itself_to_what_is_kept(self, toy: Classifier, target: Tensor) -> None:
        result = PGD(toy, steps=20)(X, target)
        course = result.trace.prediction
        assert result.trace.maps is None
        torch.testing.assert_close(course.first, _nll(toy, X, target), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(course.kept, _nll(toy, result.x_adv, target), rtol=1e-3, atol=1e-4)
        assert bool((course.first > course.half).all())
        assert bool((course.half > course.kept).all())
        assert result.trace.stuck.tolist() == [0.0] * 6

    @pytest.mark.parametrize(("steps", "half"), [(1, 0), (2, 0), (7, 3), (8, 3)])
    def test_half_is_what_a_look_before_the_middle_step_had_found(
        self, toy: Classifier, target: Tensor, steps: int, half: int
    ) -> None:
        """An attack of ``half`` steps looks at iterates 0 to ``half``: so did the longer one, halfway."""
        course = PGD(toy, steps=steps, step_size=1 / 255)(X, target).trace.prediction
        shorter = PGD(toy, steps=half, step_size=1 / 255)(X, target).trace.prediction.kept if half else course.first
        assert torch.equal(course.half, shorter)

    def test_the_last_iterate_is_not_looked_at(self, toy: Classifier, target: Tensor) -> None:
        longer, shorter = (PGD(toy, steps=n, step_size=1 / 255, keep="last")(X, target) for n in (7, 6))
        kept = longer.trace.prediction.kept
        torch.testing.assert_close(kept, _nll(toy, shorter.x_adv, target), rtol=1e-4, atol=1e-4)

    def test_a_classifier_whose_gradient_is_zero_is_stuck_at_every_step(self) -> None:
        classifier = _flat()
        x = images(3, 16, dtype=torch.float64)
        target = (classifier(x).argmax(dim=1) + 1) % classifier.num_classes
        result = PGD(classifier, steps=7)(x, target)
        assert result.trace.stuck.tolist() == [1.0] * 3
        assert torch.equal(result.x_adv, x)
        assert torch.equal(result.trace.prediction.first, result.trace.prediction.kept)

    def test_an_image_that_has_its_label_is_not_stuck_where_it_is(self) -> None:
        classifier = _flat()
        x = images(3, 16, dtype=torch.float64)
        result = PGD(classifier, steps=7)(x, classifier(x).argmax(dim=1))
        assert result.success.all()
        assert result.trace.stuck.tolist() == [0.0] * 3


class TestADV2:
    @pytest.mark.parametrize("make", [CAM, GRAD], ids=lambda g: g.name)
    def test_the_maps_have_a_course_of_their_own(self, toy: Classifier, target: Tensor, make: type[CAM | GRAD]) -> None:
        g = make(toy)
        result = ADV2(g, steps=60)(X, target)
        maps, prediction = result.trace.maps, result.trace.prediction
        assert maps is not None
        distance = (result.maps[g.name] - result.target_maps[g.name]).abs().mean(dim=(1, 2))
        torch.testing.assert_close(maps.kept, distance, rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(prediction.kept, _nll(toy, result.x_adv, target), rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(prediction.first, _nll(toy, X, target), rtol=1e-4, atol=1e-4)
        assert bool((result.confidence >= 0.9 - 1e-4).all())
        assert bool((maps.first >= maps.kept).all())
        assert bool((prediction.first >= prediction.kept).all())
        had = prediction.half <= -math.log(0.9)  # before it has the label an image is kept for that alone
        assert bool(had.any())
        assert bool((maps.half >= maps.kept)[had].all())
        assert float((maps.first / maps.kept).mean()) > 1.2
        assert result.trace.stuck.tolist() == [0.0] * 6

    def test_of_several_interpreters_it_is_the_mean(self, toy: Classifier, target: Tensor) -> None:
        result = ADV2([CAM(toy), GRAD(toy)], steps=30)(X, target)
        distances = [(result.maps[g] - result.target_maps[g]).abs().mean(dim=(1, 2)) for g in ("cam", "grad")]
        assert result.trace.maps is not None
        torch.testing.assert_close(result.trace.maps.kept, (distances[0] + distances[1]) / 2, rtol=1e-2, atol=1e-3)

    def test_halfway_through_a_long_warm_start_nothing_is_kept_yet(self, toy: Classifier, target: Tensor) -> None:
        cam = CAM(toy)
        maps = cam(X, toy(X).argmax(dim=1))
        schedule = Schedule(10, warm=8, first=1 / 255, peak=1 / 255, last=1 / 255)
        task = MapTarget(target, maps, tuple("abcdef"), seed=0)
        trace = descend(prepared(toy), X, target, [cam.objective(task)], Setting(Linf(), schedule)).trace
        assert trace.maps is not None
        assert bool(trace.maps.half.isinf().all())
        assert bool(trace.prediction.half.isinf().all())
        assert bool(torch.isfinite(trace.maps.first).all())
        assert bool(torch.isfinite(trace.prediction.first).all())
        assert bool(torch.isfinite(trace.maps.kept).all())

    def test_images_that_are_done_before_half_kept_then_what_they_keep_now(
        self, toy: Classifier, target: Tensor
    ) -> None:
        """Beside one that is not done, too: what an image keeps at half does not hang on the others."""
        cam, names = CAM(toy), tuple("abcdef")
        x = PGD(toy, steps=60)(X, target).x_adv
        maps = cam(x, target)
        maps[5] = maps[5].flip(0)
        setting = Setting(Linf(), Schedule(40, warm=0, first=1 / 255, peak=1 / 255, last=1 / 255))
        whole = descend(prepared(toy), x, target, [cam.objective(MapTarget(target, maps, names, 0))], setting)
        objective = cam.objective(MapTarget(target[:5], maps[:5], names[:5], 0))
        early = descend(prepared(toy), x[:5], target[:5], [objective], setting)
        assert early.passes.tolist() == [1, 1, 1, 1, 1]
        assert whole.passes.tolist() == [1, 1, 1, 1, 1, 41]
        assert early.trace.maps is not None
        assert whole.trace.maps is not None
        for course, other in (
            (early.trace.maps, whole.trace.maps),
            (early.trace.prediction, whole.trace.prediction),
        ):
            assert torch.equal(course.half, course.kept)
            assert torch.equal(course.half, other.half[:5])
            assert torch.equal(course.kept, other.kept[:5])
        assert float(early.trace.maps.kept.max()) <= ENOUGH

    def test_a_flat_classifier_is_stuck_in_joint_steps_too(self) -> None:
        classifier = _flat()
        x = from_8bit((images(2, 16) * 255).round().byte(), torch.float64)
        target = (classifier(x).argmax(dim=1) + 1) % classifier.num_classes
        maps = torch.rand(2, 4, 4, dtype=torch.float64)
        result = ADV2(GRAD(classifier), steps=10)(x, target, target_map=maps)
        assert result.trace.stuck.tolist() == [1.0] * 2
        assert torch.equal(result.x_adv, x)
