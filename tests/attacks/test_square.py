"""Square: finds what is there without gradients, and keeps to what it says it sees, spends and draws."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from support.nets import cells, poison, poisoned, stripes_classifier
from support.toys import images, relu_net, small_mask, smooth_net
from support.traces import scramble, untouched
from underfire import (
    ADV2,
    CAM,
    GRAD,
    IG,
    PGD,
    AttackResult,
    Classifier,
    InputError,
    Interpreter,
    ModelError,
    NonFiniteError,
    Square,
)
from underfire.diagnostics.gradient_masking import Lead, compare
from underfire.interpreters.map_goals import ENOUGH

WIDE = 24 / 255  # a ball in which a short random search gets somewhere on the toys
X = images(5, 32)
TARGET = torch.tensor([3, 1, 4, 1, 5])
KEYS = [f"image {i}" for i in range(5)]


def _toy(net: nn.Module | None = None) -> Classifier:
    return Classifier(relu_net() if net is None else net, mean=0.5, std=0.25, input_size=32, name="toy")


class _NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise AssertionError("somebody went backward")


class _Guarded(nn.Module):
    """``net`` that nobody differentiates unnoticed."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(_NoBackward.apply(x))  # type: ignore[no-untyped-call]
        return logits


class _Rounded(nn.Module):
    """``net`` behind input values rounded to four grey levels, so that its gradient in the image is zero everywhere."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net((x * 16).round() / 16)
        return logits


def _easy_targets(classifier: Classifier, x: Tensor) -> Tensor:
    """The runner-up of each image."""
    return classifier.probabilities(x).topk(2, dim=1).indices[:, 1]


def _gap(result: AttackResult, name: str = "cam") -> Tensor:
    return (result.maps[name] - result.target_maps[name]).abs().mean(dim=(1, 2))


def _bright(n: int) -> Tensor:
    """Pictures (n, 3, 32, 32) whose label 0 holds for the stripes classifier: its p is 0.93 or so."""
    return 0.75 + 0.2 * cells(n)


class TestWithoutGradients:
    def test_it_never_goes_backward(self) -> None:
        classifier = _toy(_Guarded(relu_net()))
        target = _easy_targets(classifier, X)
        with pytest.raises(ModelError, match="went backward"):
            PGD(classifier, steps=1)(X, target)
        for attacked in (classifier, CAM(classifier)):
            Square(attacked, eps=WIDE, queries=40)(X, target)

    def test_where_gradients_are_masked_it_alone_succeeds(self) -> None:
        classifier = _toy(_Rounded(relu_net()))
        cam, target = CAM(classifier), _easy_targets(classifier, X)
        blind = Square(cam, eps=WIDE, queries=400)(X, target)
        white = ADV2(cam, eps=WIDE, passes=200)(X, target)
        assert not white.success.any()
        assert torch.equal(white.x_adv, X)
        assert not PGD(classifier, eps=WIDE, steps=50)(X, target).success.any()
        assert int(blind.success.sum()) >= 4
        found = compare(white, blind)
        assert [lead is Lead.LABEL for lead in found.leads] == blind.success.tolist()
        assert "gradients of this model mislead" in found.sentence

    def test_where_they_are_not_the_white_box_attack_of_as_many_passes_is_not_beaten(self) -> None:
        classifier = _toy()
        cam, target = CAM(classifier), _easy_targets(classifier, X)
        blind = Square(cam, eps=WIDE, queries=150)(X, target)
        white = ADV2(cam, eps=WIDE, passes=150)(X, target)
        assert white.success.all()
        assert not any(compare(white, blind).leads)
        alone = PGD(classifier, passes=150)(X, target), Square(classifier, queries=150)(X, target)
        assert not any(compare(*alone).leads)


class TestPlanted:
    """The back door of :func:`stripes_classifier`: an adversarial image that keeps the map surely exists."""

    def test_it_is_found(self) -> None:
        classifier = stripes_classifier()
        x, cam, ones = cells(2), CAM(classifier), torch.ones(2, dtype=torch.int64)
        results = [Square(cam, eps=0.03, queries=n)(x, ones) for n in (300, 1200)]
        alone = Square(classifier, eps=0.03, queries=1200)(x, ones)
        unminded = (cam(alone.x_adv, ones) - results[1].target_maps["cam"]).abs().mean(dim=(1, 2))
        for result in results:
            assert result.success.all()
            assert float(result.confidence.min()) >= 0.9 - 1e-6
        assert bool((_gap(results[1]) < _gap(results[0]) - 0.05).all())
        assert bool((_gap(results[1]) < unminded - 0.05).all())
        assert float(_gap(results[1]).max()) < 0.15

    def test_the_label_alone_is_found_sooner(self) -> None:
        ones = torch.ones(2, dtype=torch.int64)
        result = Square(stripes_classifier(), eps=0.03, queries=1000)(cells(2), ones)
        assert float(result.confidence.min()) > 0.99
        assert result.maps == {}


class TestQueries:
    def test_more_are_never_worse(self) -> None:
        """Windows shrink with the share of the queries that is spent, so paths differ; the first look is the same."""
        classifier = _toy()
        target = _easy_targets(classifier, X)
        first, more = (Square(classifier, eps=WIDE, queries=n)(X, target).confidence for n in (1, 200))
        assert torch.equal(first, classifier.probabilities(X)[torch.arange(5), target])
        assert bool((more > first).all())

    def test_one_is_the_look_at_the_benign_image(self) -> None:
        result = Square(CAM(_toy()), queries=1)(X, TARGET)
        assert torch.equal(result.x_adv, X)
        assert result.passes.tolist() == [1] * 5
        assert result.steps == 1

    @pytest.mark.parametrize(("make", "passes"), [(CAM, 1), (GRAD, 1), (lambda c: IG(c, points=3), 3)])
    def test_a_pass_is_a_run_of_the_module(self, make: Callable[[Classifier], Interpreter], passes: int) -> None:
        """One image, so that its passes are the calls of the module; its label holds from the start."""
        calls: list[int] = []
        classifier, x, own = stripes_classifier(), _bright(1), torch.tensor([0])
        g = make(classifier)
        classifier.module.register_forward_hook(lambda *_: calls.append(1))
        wanted = torch.full((1, *g.grid), 0.5)
        result = Square(g, eps=1 / 255, queries=6)(x, own, target_map=wanted)
        assert 6 + passes < int(result.passes) <= 6 * (1 + passes)
        assert len(calls) == int(result.passes) + 1 + passes  # the score

    def test_an_image_that_is_done_asks_no_more(self) -> None:
        result = Square(CAM(stripes_classifier()), queries=50)(_bright(4), torch.zeros(4, dtype=torch.int64))
        assert result.passes.tolist() == [2] * 4  # its map is the benign one already
        assert bool((_gap(result) <= ENOUGH).all())


class TestTrace:
    def test_maps_that_nobody_asked_for_have_no_gap(self) -> None:
        result = Square(CAM(_toy()), queries=4)(X, TARGET)
        assert result.trace.maps is not None
        assert result.trace.maps.first.isnan().all()
        assert result.trace.maps.kept.isinf().all()
        assert not result.trace.stuck.any()

    def test_losses_fall(self) -> None:
        classifier = stripes_classifier()
        ones = torch.ones(2, dtype=torch.int64)
        result = Square(CAM(classifier), eps=0.03, queries=600)(cells(2), ones)
        prediction, maps = result.trace.prediction, result.trace.maps
        assert maps is not None
        assert bool((prediction.kept < prediction.first).all())
        assert bool((maps.kept < maps.half).all())
        torch.testing.assert_close(maps.kept, _gap(result))


class TestBudget:
    @given(eps=st.floats(0.5 / 255, 0.5), seed=st.integers(0, 99), joint=st.booleans())
    @settings(max_examples=10)
    def test_the_ball_and_the_range_are_kept(self, eps: float, seed: int, joint: bool) -> None:
        x = ((images(3, 32, seed=seed) - 0.5) * 1.3 + 0.5).clamp(0, 1)
        classifier = _toy()
        seen: list[Tensor] = []
        classifier.module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        attacked = CAM(classifier) if joint else classifier
        result = Square(attacked, eps=eps, queries=12, seed=seed)(x, TARGET[:3])
        assert float((result.x_adv - x).abs().max()) <= eps + 2.0**-23
        assert 0 <= float(result.x_adv.min()) <= float(result.x_adv.max()) <= 1
        assert min(float(z.min()) for z in seen) >= -2 - 1e-5  # proposals as well; the module sees (x - 0.5)/0.25
        assert max(float(z.max()) for z in seen) <= 2 + 1e-5
        assert (result.eps, float(result.used.max()) <= eps + 2.0**-23) == (eps, True)


def _same(a: AttackResult, b: AttackResult, rows: Tensor) -> None:
    for name in ("x_adv", "prediction", "confidence", "passes", "used"):
        assert torch.equal(getattr(a, name), getattr(b, name)[rows]), name
    for name in a.maps:
        assert torch.equal(a.maps[name], b.maps[name][rows]), name


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class TestBatches:
    """Two toys: one whose labels never hold in so few queries, one whose label holds from the start."""

    def _cases(self) -> list[tuple[Square, Tensor, Tensor]]:
        toy, stripes = _toy(), stripes_classifier()
        return [
            (Square(CAM(toy), queries=25), X, TARGET),
            (Square([CAM(toy), GRAD(toy)], eps=WIDE, queries=25), X, toy(X).argmax(dim=1)),
            (Square(CAM(stripes), eps=0.03, queries=80), cells(5), torch.ones(5, dtype=torch.int64)),
        ]

    @given(order=st.permutations(range(5)), cut=st.integers(1, 4))
    @settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_split_and_shuffled_is_whole(self, order: list[int], cut: int) -> None:
        for attack, x, target in self._cases():
            whole = attack(x, target, keys=KEYS)
            for part in (order[:cut], order[cut:]):
                rows = torch.tensor(part)
                _same(attack(x[rows], target[rows], keys=[KEYS[i] for i in part]), whole, rows)

    def test_on_two_threads_too(self, two_threads: None) -> None:
        for attack, x, target in self._cases():
            whole = attack(x, target, keys=KEYS)
            for part in ([2], [4, 0, 1]):
                rows = torch.tensor(part)
                _same(attack(x[rows], target[rows], keys=[KEYS[i] for i in part]), whole, rows)

    def test_no_image(self) -> None:
        result = Square(CAM(_toy()), queries=5)(X[:0], TARGET[:0])
        assert result.x_adv.shape == (0, 3, 32, 32)
        assert result.maps["cam"].shape == (0, 8, 8)

    def test_the_draws_belong_to_seed_and_key(self) -> None:
        classifier = _toy()
        first = Square(classifier, queries=20, seed=1)(X, TARGET, keys=KEYS)
        torch.rand(3)
        assert torch.equal(Square(classifier, queries=20, seed=1)(X, TARGET, keys=KEYS).x_adv, first.x_adv)
        for other in (
            Square(classifier, queries=20, seed=2)(X, TARGET, keys=KEYS),
            Square(classifier, queries=20, seed=1)(X, TARGET, keys=KEYS[::-1]),
        ):
            assert bool((other.x_adv != first.x_adv).flatten(1).any(dim=1)[[0, 1, 3, 4]].all())


class TestTraces:
    def test_the_model_and_the_images_are_as_before(self) -> None:
        classifier = _toy()
        scramble(classifier.module)
        x = X.clone()
        with untouched(classifier.module):
            Square([CAM(classifier), GRAD(classifier)], queries=5)(x, TARGET)
        assert torch.equal(x, X)

    def test_a_number_that_is_none_stops_at_its_image(self) -> None:
        classifier = poisoned(smooth_net(), size=16)
        with pytest.raises(NonFiniteError, match="the prediction loss of image 2 contains NaN") as stop:
            Square(classifier, queries=3)(poison(images(4, 16), 2), torch.arange(4))
        assert stop.value.index == 2


class TestTargetMaps:
    def test_a_list_and_a_mapping_say_the_same_as_in_adv2(self) -> None:
        classifier = _toy()
        attacked = [CAM(classifier), GRAD(classifier)]
        maps = [torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(k)) for k in (0, 1)]
        by_order = Square(attacked, queries=3)(X, TARGET, target_map=maps)
        by_name = Square(attacked, queries=3)(X, TARGET, target_map={"grad": maps[1], "cam": maps[0]})
        for result in (by_order, by_name):
            assert torch.equal(result.target_maps["cam"], maps[0])
            assert torch.equal(result.target_maps["grad"], maps[1])
        default, label = Square(attacked[0], queries=1)(X, TARGET), torch.tensor([0, 5, 9, 2, 2])
        assert torch.equal(default.target_maps["cam"], attacked[0](X, classifier(X).argmax(dim=1)))
        given_label = Square(attacked[0], queries=1)(X, TARGET, label=label)
        assert torch.equal(given_label.target_maps["cam"], attacked[0](X, label))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda c: Square(c, queries=0), "queries is 0; a search takes at least 1"),
        (lambda c: Square(c, eps=8), "eps 8 is not .* write 8/255"),
        (lambda c: Square(small_mask(c)), "Square asks for a map at every query, and one of mask takes 4 passes"),
        (lambda _: Square([]), "Square attacks at least one interpreter"),
        (lambda c: Square([CAM(c), CAM(c)]), "share a name"),
        (lambda c: Square([CAM(c), GRAD(_toy())]), "different classifiers"),
        (lambda c: Square(c, queries=2.5), "queries is 2.5; give a whole number"),  # type: ignore[arg-type]
        (lambda c: Square([c]), "Square attacks interpreters, and 'toy' is a classifier"),
        (
            lambda c: Square(c, queries=1)(X, TARGET, target_map=X[:, 0]),
            "this Square was made from a classifier and attacks no map; make it from an interpreter",
        ),
        (
            lambda c: Square(c, queries=1)(X, TARGET, label=TARGET),
            "this Square was made from a classifier and attacks no map",
        ),
        (lambda c: Square(CAM(c), queries=1)(X, TARGET, target_map=X[:, 0]), r"has shape \(5, 32, 32\)"),
        (lambda c: Square(c, queries=1)(X * 255, TARGET), "divide by 255 first"),
        (lambda c: Square(c, queries=1)(X, TARGET + 8), "class 11 does not exist"),
        (lambda c: Square(c, queries=1)(X, TARGET, keys=["a"]), "1 keys were given for 5 images"),
    ],
)
def test_refusals(make: Callable[[Classifier], object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as refusal:
        make(_toy())
    assert "\n" not in str(refusal.value)
