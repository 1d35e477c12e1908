"""What holds for every attack, whatever it is composed of."""

from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from support.toys import images, relu_net
from support.traces import scramble, untouched
from underfire import ADV2, CAM, GRAD, IG, PGD, AttackResult, Classifier, GradCAM, InputError

STEPS = 10
MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.25, 0.3)


class Attack(Protocol):
    def __call__(self, x: Tensor, target: Tensor, *, keys: list[str] | None = None) -> AttackResult: ...


class Make(Protocol):
    def __call__(self, classifier: Classifier, *, eps: float = ..., steps: int = ...) -> Attack: ...


def _pgd(classifier: Classifier, *, eps: float = 8 / 255, steps: int = STEPS) -> Attack:
    return PGD(classifier, eps=eps, steps=steps)


def _pgd_last(classifier: Classifier, *, eps: float = 8 / 255, steps: int = STEPS) -> Attack:
    return PGD(classifier, eps=eps, steps=steps, keep="last")


def _adv2(*makes: Callable[[Classifier], CAM | GRAD | IG | GradCAM]) -> Make:
    def make(classifier: Classifier, *, eps: float = 8 / 255, steps: int = STEPS) -> Attack:
        return ADV2([g(classifier) for g in makes], eps=eps, steps=steps)

    return make


def _ig(classifier: Classifier) -> IG:
    return IG(classifier, points=4, strata=3)


ATTACKS: dict[str, Make] = {
    "pgd": _pgd,
    "pgd, last": _pgd_last,
    "adv2 on grad": _adv2(GRAD),
    "adv2 on ig": _adv2(_ig),
    "adv2 on cam": _adv2(CAM),
    "adv2 on gradcam": _adv2(GradCAM),
    "adv2 on cam and grad": _adv2(CAM, GRAD),
}
every = pytest.mark.parametrize("attack", ATTACKS)

X = images(5, 32)
TARGET = torch.tensor([3, 1, 4, 1, 5])
KEYS = [f"image {i}" for i in range(5)]


def _classifier() -> Classifier:
    return Classifier(relu_net(), mean=MEAN, std=STD, input_size=32, name="toy")


def _same(a: AttackResult, b: AttackResult, rows: Tensor) -> None:
    """``a`` is ``b``'s ``rows``, to the bit."""
    for name in ("x", "x_adv", "used", "target", "prediction", "success", "confidence", "passes"):
        assert torch.equal(getattr(a, name), getattr(b, name)[rows]), name
    assert torch.equal(a.trace.stuck, b.trace.stuck[rows])
    assert (a.trace.maps is None) == (b.trace.maps is None)
    for one, other in ((a.trace.prediction, b.trace.prediction), (a.trace.maps, b.trace.maps)):
        if one is not None and other is not None:
            for name in ("first", "half", "kept"):
                assert torch.equal(getattr(one, name), getattr(other, name)[rows]), name
    assert a.maps.keys() == b.maps.keys()
    for name in a.maps:
        assert torch.equal(a.maps[name], b.maps[name][rows]), name
        assert torch.equal(a.target_maps[name], b.target_maps[name][rows]), name
    assert a.keys == tuple(b.keys[i] for i in rows)


class TestBudget:
    @every
    @given(eps=st.floats(0.5 / 255, 0.5), seed=st.integers(0, 99))
    @settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_the_ball_and_the_range_are_kept(self, attack: str, eps: float, seed: int) -> None:
        x = ((images(3, 32, seed=seed) - 0.5) * 1.3 + 0.5).clamp(0, 1)
        result = ATTACKS[attack](_classifier(), eps=eps, steps=6)(x, TARGET[:3])
        assert float((result.x_adv - x).abs().max()) <= eps + 2.0**-23
        assert 0 <= float(result.x_adv.min()) <= float(result.x_adv.max()) <= 1
        assert result.eps == eps

    @every
    def test_it_is_used(self, attack: str) -> None:
        result = ATTACKS[attack](_classifier(), eps=3 / 255)(X, TARGET)
        assert float((result.x_adv - X).abs().amax(dim=(1, 2, 3)).min()) > 2 / 255


class TestScore:
    @every
    def test_it_is_the_unmodified_classifier_s(self, attack: str) -> None:
        classifier = _classifier()
        result = ATTACKS[attack](classifier)(X, TARGET, keys=KEYS)
        logits = classifier(result.x_adv)
        assert torch.equal(result.prediction, logits.argmax(dim=1))
        assert torch.equal(result.success, result.prediction == TARGET)
        assert torch.equal(result.confidence, classifier.probabilities(result.x_adv)[torch.arange(5), TARGET])
        for g in getattr(ATTACKS[attack](classifier), "interpreters", ()):
            assert torch.equal(result.maps[g.name], g(result.x_adv, TARGET, keys=KEYS))
            assert torch.equal(result.target_maps[g.name], g(X, classifier(X).argmax(dim=1), keys=KEYS))

    @every
    def test_shapes_and_types(self, attack: str) -> None:
        result = ATTACKS[attack](_classifier())(X, TARGET, keys=KEYS)
        assert result.x_adv.shape == X.shape
        assert result.x_adv.dtype == X.dtype
        assert result.x_adv.is_contiguous()
        types = (torch.int64, torch.int64, torch.bool, torch.float32, torch.int64, torch.float32, torch.float32)
        scores = (result.target, result.prediction, result.success, result.confidence, result.passes)
        tensors = (*scores, result.used, result.trace.stuck)
        assert tuple((t.dtype, t.shape) for t in tensors) == tuple((t, (5,)) for t in types)
        assert result.keys == tuple(KEYS)
        assert (result.steps, result.seconds > 0) == (STEPS, True)
        assert not any(t.requires_grad for t in (*tensors, result.x_adv, *result.maps.values()))


@pytest.fixture(scope="module")
def whole() -> dict[str, AttackResult]:
    """Every attack on all five images at once."""
    return {name: make(_classifier())(X, TARGET, keys=KEYS) for name, make in ATTACKS.items()}


class TestBatches:
    @every
    @given(order=st.permutations(range(5)), sizes=st.lists(st.integers(1, 5), min_size=5, max_size=5))
    @settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_split_and_shuffled_is_whole(
        self, whole: dict[str, AttackResult], attack: str, order: list[int], sizes: list[int]
    ) -> None:
        run = ATTACKS[attack](_classifier())
        start = 0
        for size in sizes:
            rows = torch.tensor(order[start : start + size])
            if len(rows):
                _same(run(X[rows], TARGET[rows], keys=[KEYS[i] for i in rows]), whole[attack], rows)
            start += size

    @every
    def test_one_by_one_is_whole(self, whole: dict[str, AttackResult], attack: str) -> None:
        run = ATTACKS[attack](_classifier())
        for i in range(5):
            rows = torch.tensor([i])
            _same(run(X[rows], TARGET[rows], keys=[KEYS[i]]), whole[attack], rows)

    @every
    def test_on_two_threads_too(self, attack: str, two_threads: None) -> None:
        run = ATTACKS[attack](_classifier(), steps=4)
        together = run(X, TARGET, keys=KEYS)
        for chosen in ([2], [4, 0], [3, 1, 2]):
            rows = torch.tensor(chosen)
            _same(run(X[rows], TARGET[rows], keys=[KEYS[i] for i in rows]), together, rows)

    @pytest.mark.parametrize("attack", ["pgd", "adv2 on grad", "adv2 on ig", "adv2 on cam and grad"])
    def test_an_image_so_large_that_threads_share_its_sums(self, attack: str, two_threads: None) -> None:
        """One image alone is reduced by all threads, one of several by its own."""
        classifier = Classifier(relu_net(), mean=MEAN, std=STD, input_size=144)
        run, x = ATTACKS[attack](classifier, steps=8), images(2, 144)
        _same(run(x[:1], TARGET[:1], keys=KEYS[:1]), run(x, TARGET[:2], keys=KEYS[:2]), torch.tensor([0]))

    @every
    def test_no_image(self, attack: str) -> None:
        result = ATTACKS[attack](_classifier())(X[:0], TARGET[:0])
        assert result.x_adv.shape == (0, 3, 32, 32)
        assert result.success.shape == result.confidence.shape == result.passes.shape == result.used.shape == (0,)
        assert result.trace.stuck.shape == result.trace.prediction.kept.shape == (0,)
        assert result.keys == ()
        assert all(maps.shape[0] == 0 for maps in result.maps.values())


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class TestTraces:
    @every
    def test_the_same_again_whatever_was_drawn_before(self, whole: dict[str, AttackResult], attack: str) -> None:
        torch.rand(17)
        _same(ATTACKS[attack](_classifier())(X, TARGET, keys=KEYS), whole[attack], torch.arange(5))

    @every
    def test_the_model_and_the_images_are_as_before(self, attack: str) -> None:
        classifier = _classifier()
        scramble(classifier.module)
        x, target = X.clone(), TARGET.clone()
        run = ATTACKS[attack](classifier)
        with untouched(classifier.module):
            run(x, target)
        assert torch.equal(x, X)
        assert torch.equal(target, TARGET)
        assert not classifier.is_frozen

    @every
    def test_training_flags_don_t_matter(self, whole: dict[str, AttackResult], attack: str) -> None:
        classifier = _classifier()
        scramble(classifier.module)
        _same(ATTACKS[attack](classifier)(X, TARGET, keys=KEYS), whole[attack], torch.arange(5))

    @every
    def test_neither_does_a_caller_s_gradient_mode(self, whole: dict[str, AttackResult], attack: str) -> None:
        with torch.no_grad():
            result = ATTACKS[attack](_classifier())(X, TARGET, keys=KEYS)
        _same(result, whole[attack], torch.arange(5))

    @every
    def test_images_that_require_grad_get_no_graph(self, whole: dict[str, AttackResult], attack: str) -> None:
        leaf = X.clone().requires_grad_(True)
        result = ATTACKS[attack](_classifier())(leaf, TARGET, keys=KEYS)
        _same(result, whole[attack], torch.arange(5))
        assert not any(t.requires_grad for t in (result.x, result.x_adv, result.confidence))
        assert leaf.grad is None


class TestRefusals:
    @every
    @pytest.mark.parametrize(
        ("x", "target", "keys", "sentence"),
        [
            (X[:2, :, :16], TARGET[:2], None, r"shape \(2, 3, 16, 32\) don't fit"),
            (X[:2] * 255, TARGET[:2], None, "divide by 255 first"),
            (X[:2].double(), TARGET[:2], None, "torch.float64"),
            (X[:2], TARGET[:3], None, r"int64 tensor of shape \(2,\), not torch.int64 \(3,\)"),
            (X[:2], TARGET[:2].int(), None, "torch.int32"),
            (X[:2], TARGET[:2] + 8, None, "class 11 does not exist"),
            (X[:2], torch.tensor([-1, 0]), None, "class -1 does not exist"),
            (X[:2], TARGET[:2], ["a"], "1 keys were given for 2 images"),
            (X[:2], TARGET[:2], ["a", "b", "c"], "3 keys were given for 2 images"),
        ],
        ids=["size", "range", "type", "number", "int32", "class", "negative", "few keys", "many keys"],
    )
    def test_one_sentence_that_quotes(
        self, attack: str, x: Tensor, target: Tensor, keys: list[str] | None, sentence: str
    ) -> None:
        classifier = _classifier()
        run = ATTACKS[attack](classifier)
        with untouched(classifier.module), pytest.raises(InputError, match=sentence) as refusal:
            run(x, target, keys=keys)
        assert "\n" not in str(refusal.value)

    @every
    def test_inside_a_frozen_block_it_does_not_start(self, attack: str) -> None:
        classifier = _classifier()
        run = ATTACKS[attack](classifier)
        with classifier.frozen(), pytest.raises(RuntimeError, match="leave the block first"):
            run(X, TARGET)
