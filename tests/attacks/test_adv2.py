"""ADV²: better maps than PGD's at the same success; target maps in every form."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from support.toys import images, relu_net
from underfire import ADV2, CAM, GRAD, IG, PGD, AttackResult, Classifier, GradCAM, InputError, Interpreter, Linf
from underfire.attacks.rules import Adam

STEPS = 125
N = 12


@pytest.fixture(scope="module")
def toy() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32, name="relu toy")


@pytest.fixture(scope="module")
def case(toy: Classifier) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, their classes and other classes."""
    x = images(N, 32)
    predicted = toy(x).argmax(dim=1)
    return x, predicted, (predicted + 1) % 10


@pytest.fixture(scope="module")
def blind(toy: Classifier, case: tuple[Tensor, Tensor, Tensor]) -> AttackResult:
    """What PGD makes of them with as many steps."""
    return PGD(toy, steps=STEPS)(case[0], case[2])


def _gap(result: AttackResult, name: str) -> float:
    return float((result.maps[name] - result.target_maps[name]).abs().mean())


class TestAgainstPGD:
    @pytest.mark.parametrize(
        ("makes", "shares"),
        [
            ([GRAD], [0.7]),
            ([IG], [0.85]),
            ([CAM], [0.6]),
            ([CAM, GRAD, IG], [0.75, 0.75, 0.93]),
        ],
        ids=["grad", "ig", "cam", "cam+grad+ig"],
    )
    def test_the_maps_stay_nearer_at_equal_success(
        self,
        toy: Classifier,
        case: tuple[Tensor, Tensor, Tensor],
        blind: AttackResult,
        makes: list[type[Interpreter]],
        shares: list[float],
    ) -> None:
        x, predicted, target = case
        interpreters = [make(toy) for make in makes]
        result = ADV2(interpreters, steps=STEPS)(x, target)
        assert result.success.all()
        assert blind.success.all()
        assert float(result.confidence.min()) >= 0.9 - 1e-4
        for g, share in zip(interpreters, shares, strict=True):
            blind_gap = (g(blind.x_adv, target) - g(x, predicted)).abs().mean()
            assert _gap(result, g.name) < share * float(blind_gap)

    def test_what_is_not_attacked_gains_little(
        self, toy: Classifier, case: tuple[Tensor, Tensor, Tensor], blind: AttackResult
    ) -> None:
        x, predicted, target = case
        cam, grad = CAM(toy), GRAD(toy)
        other = (grad(ADV2(cam, steps=STEPS)(x, target).x_adv, target) - grad(x, predicted)).abs().mean()
        own = _gap(ADV2(grad, steps=STEPS)(x, target), "grad")
        assert float(other) > 1.5 * own
        assert float(other) > 0.6 * float((grad(blind.x_adv, target) - grad(x, predicted)).abs().mean())

    def test_another_image_s_map_is_a_target_too(
        self, toy: Classifier, case: tuple[Tensor, Tensor, Tensor], blind: AttackResult
    ) -> None:
        x, predicted, target = case
        cam = CAM(toy)
        foreign = cam(x, predicted).roll(1, dims=0)
        result = ADV2(cam, steps=STEPS)(x, target, target_map=foreign)
        assert result.success.all()
        assert _gap(result, "cam") < 0.75 * float((cam(blind.x_adv, target) - foreign).abs().mean())


@pytest.fixture
def small(toy: Classifier) -> tuple[Tensor, Tensor]:
    x = images(3, 32)
    return x, (toy(x).argmax(dim=1) + 1) % 10


def _random_maps(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(5))


class TestTargetMaps:
    def test_by_default_they_are_the_benign_maps_of_the_prediction(
        self, toy: Classifier, small: tuple[Tensor, Tensor]
    ) -> None:
        x, target = small
        predicted = toy(x).argmax(dim=1)
        cam, ig = CAM(toy), IG(toy, points=4)
        result = ADV2([cam, ig], steps=5)(x, target)
        assert torch.equal(result.target_maps["cam"], cam(x, predicted))
        assert torch.equal(result.target_maps["ig"], ig(x, predicted))
        given = ADV2([cam, ig], steps=5)(x, target, target_map=[cam(x, predicted), ig(x, predicted)])
        assert torch.equal(result.x_adv, given.x_adv)

    def test_a_label_says_whose_benign_maps(self, toy: Classifier, small: tuple[Tensor, Tensor]) -> None:
        x, target = small
        label, cam = torch.tensor([0, 5, 9]), CAM(toy)
        result = ADV2(cam, steps=5)(x, target, label=label)
        assert torch.equal(result.target_maps["cam"], cam(x, label))

    def test_a_tensor_a_list_and_a_mapping_say_the_same(self, toy: Classifier, small: tuple[Tensor, Tensor]) -> None:
        x, target = small
        maps = _random_maps(3, 8, 8)
        attack = ADV2(CAM(toy), steps=5)
        results = [attack(x, target, target_map=form) for form in (maps, [maps], (maps,), {"cam": maps})]
        for result in results:
            assert torch.equal(result.x_adv, results[0].x_adv)
            assert torch.equal(result.target_maps["cam"], maps)

    def test_names_decide_in_a_mapping_and_order_in_a_list(self, toy: Classifier, small: tuple[Tensor, Tensor]) -> None:
        x, target = small
        first, second = _random_maps(3, 8, 8), 1 - _random_maps(3, 8, 8)
        attack = ADV2([CAM(toy), GRAD(toy)], steps=5)
        by_order = attack(x, target, target_map=[first, second])
        by_name = attack(x, target, target_map={"grad": second, "cam": first})
        swapped = attack(x, target, target_map=[second, first])
        assert torch.equal(by_order.x_adv, by_name.x_adv)
        assert not torch.equal(by_order.x_adv, swapped.x_adv)
        assert torch.equal(by_order.target_maps["grad"], second)

    @pytest.mark.parametrize(
        ("spoil", "sentence"),
        [
            (lambda m: m[:, :4], r"the target map of cam has shape \(3, 4, 8\), not \(3, 8, 8\)"),
            (lambda m: m[:2], r"shape \(2, 8, 8\)"),
            (lambda m: m[0], r"shape \(8, 8\)"),
            (lambda m: m[:, None], r"shape \(3, 1, 8, 8\)"),
            (lambda m: m * 255, r"the target map of cam has values from .* to 2\d\d.*; maps are in \[0, 1\]"),
            (lambda m: m - 0.5, r"values from -0\.\d+"),
            (lambda m: m.masked_fill(m > 0.9, float("nan")), "values from nan to nan"),
            (lambda m: [m, m], "2 target maps are given for 1 interpreters"),
            (lambda _: [], "0 target maps are given"),
            (lambda m: {"grad": m}, r"given for \['grad'\], but the attack is on \['cam'\]"),
            (lambda m: {"cam": m, "grad": m}, r"\['cam', 'grad'\]"),
            (lambda _: {}, r"given for \[\]"),
        ],
    )
    def test_what_fits_nowhere_is_refused(
        self, toy: Classifier, small: tuple[Tensor, Tensor], spoil: Callable[[Tensor], Tensor], sentence: str
    ) -> None:
        x, target = small
        with pytest.raises(InputError, match=sentence) as refusal:
            ADV2(CAM(toy), steps=5)(x, target, target_map=spoil(_random_maps(3, 8, 8)))
        assert "\n" not in str(refusal.value)

    def test_one_tensor_for_two_interpreters_is_refused(self, toy: Classifier, small: tuple[Tensor, Tensor]) -> None:
        x, target = small
        with pytest.raises(InputError, match="1 target maps are given for 2 interpreters"):
            ADV2([CAM(toy), GRAD(toy)], steps=5)(x, target, target_map=_random_maps(3, 8, 8))

    @pytest.mark.parametrize("label", [torch.tensor([0, 1]), torch.tensor([0, 1, 10]), torch.tensor([0.0, 1.0, 2.0])])
    def test_a_label_that_is_none_is_refused(
        self, toy: Classifier, small: tuple[Tensor, Tensor], label: Tensor
    ) -> None:
        x, target = small
        with pytest.raises(InputError, match="class"):
            ADV2(CAM(toy), steps=5)(x, target, label=label)

    def test_the_user_s_maps_are_not_changed(self, toy: Classifier, small: tuple[Tensor, Tensor]) -> None:
        x, target = small
        maps = _random_maps(3, 8, 8)
        before = maps.clone()
        ADV2(CAM(toy), steps=5)(x, target, target_map=maps)
        assert torch.equal(maps, before)


class TestRandomNumbers:
    def _run(self, toy: Classifier, make: type[Interpreter], seed: int, keys: list[str] | None) -> Tensor:
        x = images(3, 32)
        target = (toy(x).argmax(dim=1) + 1) % 10
        return ADV2(make(toy), steps=8, seed=seed)(x, target, keys=keys).x_adv

    @pytest.mark.parametrize("make", [GRAD, CAM, GradCAM], ids=lambda g: g.name)
    def test_only_ig_draws_any(self, toy: Classifier, make: type[Interpreter]) -> None:
        assert torch.equal(self._run(toy, make, 0, None), self._run(toy, make, 1, ["a", "b", "c"]))

    def test_ig_s_belong_to_the_seed_and_the_key(self, toy: Classifier) -> None:
        first = self._run(toy, IG, 0, ["a", "b", "c"])
        assert torch.equal(first, self._run(toy, IG, 0, ["a", "b", "c"]))
        assert not torch.equal(first, self._run(toy, IG, 1, ["a", "b", "c"]))
        other = self._run(toy, IG, 0, ["a", "z", "c"])
        assert torch.equal(first[[0, 2]], other[[0, 2]])
        assert not torch.equal(first[1], other[1])

    def test_without_keys_they_belong_to_the_content(self, toy: Classifier) -> None:
        x = images(3, 32)[[0, 1, 0]]
        result = ADV2(IG(toy), steps=8)(x, torch.tensor([4, 4, 4]))
        assert torch.equal(result.x_adv[0], result.x_adv[2])
        assert result.keys[0] == result.keys[2] != result.keys[1]


class TestRefusals:
    def test_interpreters_that_don_t_belong_together(self, toy: Classifier) -> None:
        other = Classifier(relu_net(), input_size=32)
        with pytest.raises(InputError, match="attacks at least one interpreter"):
            ADV2([])
        with pytest.raises(InputError, match="cam, cam share a name"):
            ADV2([CAM(toy), CAM(toy)])
        with pytest.raises(InputError, match="cam, grad explain different classifiers"):
            ADV2([CAM(toy), GRAD(other)])

    @pytest.mark.parametrize(
        ("give", "sentence"),
        [
            (lambda c: c, "'relu toy' is a classifier; give an interpreter of it, .* the prediction alone with PGD"),
            (lambda c: [CAM(c), c], "'relu toy' is a classifier"),
            (lambda _: CAM, r"CAM is a class; give one of a classifier, such as CAM\(classifier\)"),
            (lambda _: [CAM], "CAM is a class"),
            (lambda _: "cam", "'cam' is not one; give one of a classifier"),
            (lambda _: None, "None is not one"),
        ],
    )
    def test_what_is_no_interpreter(self, toy: Classifier, give: Callable[[Classifier], Any], sentence: str) -> None:
        with pytest.raises(InputError, match=f"ADV2 attacks interpreters, and {sentence}"):
            ADV2(give(toy))

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"eps": 8}, "eps 8 is not .* write 8/255"),
            ({"eps": -0.1}, "eps -0.1"),
            ({"steps": 0}, "steps is 0"),
            ({"steps": -3}, "steps is -3"),
            ({"steps": 2.5}, "steps is 2.5; give a whole number"),
            ({"steps": "9"}, "steps is '9'; give a whole number"),
            ({"passes": 90.5}, "passes is 90.5; give a whole number"),
            ({"perturbation": Linf}, r"perturbation Linf is a class; write Linf\(\) for its default budget"),
            ({"step_size": 0}, "step_size 0 must be"),
            ({"step_size": -1}, "step_size -1 must be"),
            ({"step_size": float("nan")}, "step_size nan must be"),
        ],
    )
    def test_numbers(self, toy: Classifier, options: dict[str, object], sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            ADV2(CAM(toy), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 6])
def test_few_steps_are_steps_too(toy: Classifier, small: tuple[Tensor, Tensor], steps: int) -> None:
    x, target = small
    result = ADV2(CAM(toy), steps=steps)(x, target)
    assert result.steps == steps
    assert not torch.equal(result.x_adv, x)
    longest = 2 * Adam().longest / 255  # of a joint step at its peak
    assert float((result.x_adv - x).abs().max()) <= longest * steps + 1e-6


@pytest.mark.parametrize("make", [GRAD, IG], ids=lambda g: g.name)
def test_a_network_that_is_very_sure_of_itself_is_attacked_all_the_same(make: type[GRAD | IG]) -> None:
    """Logits 100 times as large: on the way p_t comes so near to 1 that gradients fall to 1e-20 and below."""
    net = relu_net()
    with torch.no_grad():
        net.head.weight.mul_(100)
        net.head.bias.mul_(100)
    classifier = Classifier(net, mean=0.5, std=0.25, input_size=32)
    x = images(3, 32)
    target = (classifier(x).argmax(dim=1) + 1) % 10
    result = ADV2(make(classifier), eps=0.5, steps=60)(x, target)
    assert result.success.all()
