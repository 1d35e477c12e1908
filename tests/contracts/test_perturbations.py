"""What holds for every perturbation model, under every attack that may use it."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from support.toys import images, relu_net
from support.traces import untouched
from underfire import ADV2, CAM, GRAD, L2, PGD, AttackResult, Classifier, Flow, Linf, StAdv
from underfire.attacks.perturbations import Perturbation

PERTURBATIONS: dict[str, Callable[..., Perturbation]] = {"linf": Linf, "l2": L2, "flow": Flow}
SMALL = {"linf": 3 / 255, "l2": 0.4, "flow": 0.3}

Run = Callable[[Tensor, Tensor], AttackResult]
Attack = Callable[[Classifier, Perturbation, int], Run]

ATTACKS: dict[str, Attack] = {
    "pgd": lambda classifier, model, steps: PGD(classifier, perturbation=model, steps=steps),
    "adv2 on cam and grad": lambda classifier, model, steps: ADV2(
        [CAM(classifier), GRAD(classifier)], perturbation=model, steps=steps
    ),
}
every_attack = pytest.mark.parametrize("attack", ATTACKS)
every_model = pytest.mark.parametrize("name", PERTURBATIONS)

X = (images(5, 32) * 255).round() / 255
TARGET = torch.tensor([3, 1, 4, 1, 5])


def _classifier(size: int = 32) -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=size, name="toy")


def _used(name: str, x: Tensor, x_adv: Tensor) -> Tensor:
    """What the images alone tell of the budget's use, (N,)."""
    change = (x_adv.double() - x.double()).flatten(1)
    used: dict[str, Tensor] = {"linf": change.abs().amax(dim=1), "l2": change.norm(dim=1)}
    return used.get(name, torch.zeros(len(x)))


class TestBudget:
    @every_attack
    @every_model
    @given(share=st.floats(0.05, 4), seed=st.integers(0, 99))
    @settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_it_and_the_range_are_kept(self, attack: str, name: str, share: float, seed: int) -> None:
        x = ((images(3, 32, seed=seed) - 0.5) * 1.3 + 0.5).clamp(0, 1)
        model = PERTURBATIONS[name](SMALL[name] * share)
        result = ATTACKS[attack](_classifier(), model, 6)(x, TARGET[:3])
        assert 0 <= float(result.x_adv.min()) <= float(result.x_adv.max()) <= 1
        assert (result.used <= model.eps * (1 + 1e-5)).all()
        assert (_used(name, x, result.x_adv) <= model.eps * (1 + 1e-5) + 2.0**-23).all()
        assert model.contains(x, result.x_adv).all()
        assert (result.eps, result.perturbation) == (model.eps, model)

    @every_attack
    @every_model
    def test_it_is_used_and_an_image_as_saved_keeps_it(self, attack: str, name: str) -> None:
        model = PERTURBATIONS[name](SMALL[name])
        result = ATTACKS[attack](_classifier(), model, 10)(X, TARGET)
        assert (result.used > 0.5 * model.eps).all()
        if name != "flow":
            torch.testing.assert_close(_used(name, X, result.x_adv).float(), result.used, rtol=1e-4, atol=1e-6)
        pixels = model.rounded(X, result.x_adv)
        assert (pixels.dtype, pixels.shape) == (torch.uint8, X.shape)
        assert (_used(name, (X * 255).round().double() / 255, pixels.double() / 255) <= model.eps + 1e-9).all()
        assert model.contains(X, pixels.float() / 255).all()

    @every_model
    def test_eps_says_how_much_may_change(self, name: str) -> None:
        """What a step may change grows with the budget, and the default step is a share of it."""
        small, large = (
            PGD(_classifier(), perturbation=PERTURBATIONS[name](SMALL[name] * k), steps=1, keep="last")(X, TARGET).used
            for k in (1.0, 2.0)
        )
        torch.testing.assert_close(large, 2 * small, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(small, torch.full((5,), SMALL[name] / 8), rtol=1e-4, atol=1e-7)


class TestStart:
    @every_model
    def test_the_identity_is_the_image_to_the_bit(self, name: str) -> None:
        model = PERTURBATIONS[name]()
        theta = model.start(X)
        assert torch.equal(model.image(X, theta), X)
        assert torch.equal(model.project(X, theta), theta)
        assert float(model.size(X, theta).abs().max()) == 0
        assert torch.equal(model.rounded(X, X), (X * 255).round().byte())


def _same(a: AttackResult, b: AttackResult, rows: Tensor) -> None:
    for field in ("x_adv", "prediction", "confidence", "passes", "used"):
        assert torch.equal(getattr(a, field), getattr(b, field)[rows]), field
    assert torch.equal(a.perturbation.rounded(a.x, a.x_adv), b.perturbation.rounded(b.x, b.x_adv)[rows])


class TestBatches:
    @every_attack
    @every_model
    @pytest.mark.parametrize("threads", [1, 2])
    def test_split_is_whole(self, attack: str, name: str, threads: int) -> None:
        run = ATTACKS[attack](_classifier(), PERTURBATIONS[name](SMALL[name]), 6)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            whole = run(X, TARGET)
            for chosen in ([0], [4, 2], [3, 1, 0]):
                rows = torch.tensor(chosen)
                _same(run(X[rows], TARGET[rows]), whole, rows)
        finally:
            torch.set_num_threads(before)

    @every_model
    def test_an_image_so_large_that_threads_share_its_sums(self, name: str) -> None:
        run = PGD(_classifier(144), perturbation=PERTURBATIONS[name](), steps=4)
        x, before = images(2, 144), torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            _same(run(x[:1], TARGET[:1]), run(x, TARGET[:2]), torch.tensor([0]))
        finally:
            torch.set_num_threads(before)

    @every_attack
    @every_model
    def test_no_image(self, attack: str, name: str) -> None:
        result = ATTACKS[attack](_classifier(), PERTURBATIONS[name](), 3)(X[:0], TARGET[:0])
        assert result.x_adv.shape == (0, 3, 32, 32)
        assert result.used.shape == (0,)


class TestTraces:
    @every_attack
    @every_model
    def test_model_and_images_are_as_before(self, attack: str, name: str) -> None:
        classifier = _classifier()
        x, target = X.clone(), TARGET.clone()
        run = ATTACKS[attack](classifier, PERTURBATIONS[name](), 4)
        with untouched(classifier.module):
            result = run(x, target)
        assert torch.equal(x, X)
        assert torch.equal(target, TARGET)
        assert not result.x_adv.requires_grad

    @every_attack
    @every_model
    def test_the_same_again_under_no_grad(self, attack: str, name: str) -> None:
        run = ATTACKS[attack](_classifier(), PERTURBATIONS[name](), 4)
        first = run(X, TARGET)
        with torch.no_grad():
            _same(run(X, TARGET), first, torch.arange(5))


@pytest.mark.parametrize("attacked", ["classifier", "interpreters"])
def test_stadv_is_the_loop_on_a_flow(attacked: str) -> None:
    classifier = _classifier()
    if attacked == "classifier":
        stadv, other = StAdv(classifier, eps=0.4, tau=0.1, steps=6), "pgd"
        result = PGD(classifier, perturbation=Flow(0.4, 0.1), steps=6)(X, TARGET)
    else:
        stadv, other = StAdv([CAM(classifier), GRAD(classifier)], eps=0.4, tau=0.1, steps=6), "adv2"
        result = ADV2([CAM(classifier), GRAD(classifier)], perturbation=Flow(0.4, 0.1), steps=6)(X, TARGET)
    found = stadv(X, TARGET)
    assert (found.attack, result.attack) == (stadv.name, other) == ("stadv", other)
    assert found.maps.keys() == result.maps.keys()
    _same(found, result, torch.arange(5))
