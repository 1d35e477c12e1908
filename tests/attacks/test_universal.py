"""Universal perturbations: the best one where it is known, one vote a photo, and figures of whole grey levels."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from support.toys import every, images, relu_net, smooth_net
from underfire import CAM, GRAD, L2, Classifier, Flow, InputError, Interpreter, Linf, Universal, metrics
from underfire.attacks.budget import descent_of
from underfire.testing.common import no_trace

EPS = 8 / 255


class _Pixels(nn.Module):
    """Logits that are linear in the pixels, each with a weight of its own: (K, C, H, W)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weight)


def _pixels(weight: Tensor) -> Classifier:
    return Classifier(_Pixels(weight), input_size=weight.shape[-1], name="linear")


def _colours(weight: Tensor) -> Classifier:
    """Logits that are linear in the mean colour: (K, C)."""
    net = nn.Sequential(
        nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, len(weight))
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3)[:, :, None, None])  # type: ignore[operator]
        net[3].weight.copy_(weight)  # type: ignore[operator]
        net[3].bias.zero_()  # type: ignore[operator]
    return Classifier(net, input_size=8, name="colours")


def _grey_photos(n: int, size: int, *, seed: int = 3) -> Tensor:
    """Far enough from black and white that nothing is cut off, in whole grey levels."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(60, 196, (n, 3, size, size), generator=draw) / 255


class TestTheBestOneInClosedForm:
    """With the labels a and t, a linear classifier is led by ε · sign(w_t − w_a) at most, whatever the photo."""

    def test_of_a_map_that_is_a_gradient(self) -> None:
        weight = 0.02 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        classifier = _pixels(weight)
        fitted = Universal(GRAD(classifier), passes=40, batch_size=3).fit(
            _grey_photos(7, 8), 1, label=torch.zeros(7).long()
        )
        assert torch.equal(fitted.delta[0], (8 * (weight[1] - weight[0]).sign()) / 255)
        result = fitted(_grey_photos(9, 8, seed=4), label=torch.zeros(9).long())
        # The gradient of −log p of either class is w_1 − w_0 times a number: the map cannot be moved.
        assert float(metrics.iou(result.maps["grad"], result.target_maps["grad"]).min()) == 1

    def test_of_a_map_that_is_an_activation(self) -> None:
        classifier = _colours(torch.tensor([[1.0, -4.0, 4.0], [1.0, 4.0, -4.0]]))
        x, label = _grey_photos(8, 8), torch.zeros(8).long()
        x[:, 1:] = 128 / 255  # so that both classes' maps are that of the first colour
        fitted = Universal(CAM(classifier), eps=16 / 255, passes=30, batch_size=4).fit(x, 1, label=label)
        assert torch.equal(fitted.delta[0, 1], torch.full((8, 8), 16 / 255))
        assert torch.equal(fitted.delta[0, 2], torch.full((8, 8), -16 / 255))
        other = _grey_photos(12, 8, seed=5)
        other[:, 1:] = 128 / 255
        result = fitted(other, label=torch.zeros(12).long())
        assert result.success.all()
        assert float(metrics.l1(result.maps["cam"], result.target_maps["cam"]).mean()) < 0.02


def test_each_photo_has_one_vote() -> None:
    """Two photos want the right half brighter, faintly, and one wants it darker, a hundred times as much."""
    weight = torch.zeros(3, 3, 8, 8)
    weight[0, :, :, 4:], weight[1, :, :, 4:] = -0.01, 1.0
    weight[0, :, :, 0], weight[1, :, :, 0] = 0.04, -4.0  # by which the labels are told
    classifier = _pixels(weight)
    x, label = torch.full((3, 3, 8, 8), 0.5), torch.tensor([0, 0, 1])
    x[:2, ..., 0], x[2, ..., 0] = 0.75, 0.25
    assert torch.equal(classifier(x).argmax(dim=1), label)
    fitted = Universal(classifier, passes=30, batch_size=3).fit(x, 2, label=label)
    right, left, between = fitted.delta[..., 4:], fitted.delta[..., 0], fitted.delta[..., 1:4]
    assert (right == EPS).all()
    assert (left == -EPS).all()
    assert (between == 0).all()


@pytest.fixture(scope="module")
def toy() -> Classifier:
    return Classifier(relu_net(), mean=(0.5, 0.45, 0.4), std=(0.25, 0.25, 0.3), input_size=32, name="relu toy")


def _whole(n: int, *, seed: int = 0) -> Tensor:
    return (images(n, 32, seed=seed) * 255).round() / 255


KEYS = tuple("abcdefghijklmnopqrstuvwx")


class TestTheFit:
    def test_it_does_not_depend_on_the_order_of_the_photos(self, toy: Classifier) -> None:
        x, order = _whole(7), torch.tensor([3, 0, 6, 2, 5, 1, 4])
        attack = Universal([CAM(toy), GRAD(toy)], passes=12, batch_size=3)
        first = attack.fit(x, 4, keys=KEYS[:7])
        again = attack.fit(x[order], 4, keys=[KEYS[place] for place in order.tolist()])
        assert torch.equal(first.delta, again.delta)
        assert first.course == again.course
        other = Universal([CAM(toy), GRAD(toy)], passes=12, batch_size=3, seed=1).fit(x, 4, keys=KEYS[:7])
        assert not torch.equal(first.delta, other.delta)

    @pytest.mark.parametrize("model", [Linf(EPS), Linf(3.7 / 255), L2(1.5)], ids=["linf", "part of a level", "l2"])
    def test_what_is_saved_is_within_the_budget(self, toy: Classifier, model: Linf | L2) -> None:
        x = torch.cat([_whole(6), torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)])
        fitted = Universal(CAM(toy), perturbation=model, passes=12, batch_size=4).fit(x, 4)
        assert fitted.delta.shape == (1, 3, 32, 32)
        assert torch.equal(fitted.delta, (fitted.delta * 255).round() / 255)
        assert float(fitted.delta.abs().max()) > 0
        result = fitted(x)
        saved = (result.x_adv * 255).round() / 255
        assert torch.equal(saved, result.x_adv)
        assert model.contains(x, saved).all()
        assert torch.allclose(result.x_adv, (x + fitted.delta).clamp(0, 1), atol=1e-6)

    def test_its_passes_are_those_that_the_classifier_saw(self, toy: Classifier) -> None:
        x, g = _whole(6), GRAD(toy)
        fitted = Universal(g, passes=20, batch_size=3).fit(x, 4)
        epochs = len(fitted.course) - 1
        assert fitted.passes == 6 * descent_of(epochs, [g])
        assert 6 * 18 < fitted.passes <= 6 * 20

    def test_the_last_of_its_course_is_the_score_of_its_own_photos(self, toy: Classifier) -> None:
        x = _whole(9)
        fitted = Universal(CAM(toy), passes=20, batch_size=4).fit(x, 4)
        result, last = fitted(x), fitted.course[-1]
        assert last.reached == pytest.approx(float(result.success.double().mean()))
        assert last.nll == pytest.approx(float(result.trace.prediction.kept.mean()), abs=1e-4)
        assert result.trace.maps is not None
        assert last.distance == pytest.approx(float(result.trace.maps.kept.mean()), abs=1e-4)
        assert [epoch.distance is None for epoch in fitted.course[:4]] == [True, True, True, False]

    def test_pairs_of_classes_are_targets_photo_by_photo(self, toy: Classifier) -> None:
        x = _whole(6)
        label = toy(x).argmax(dim=1)
        pairs = {int(c): (int(c) + 3) % 10 for c in label}
        attack = Universal(toy, passes=6, batch_size=3)
        by_label, by_photo = attack.fit(x, pairs), attack.fit(x, (label + 3) % 10)
        assert torch.equal(by_label.delta, by_photo.delta)
        assert torch.equal(by_label(x).target, (label + 3) % 10)
        assert torch.equal(by_label(x, 7).target, torch.full((6,), 7))
        with pytest.raises(InputError, match="give target"):
            by_photo(x)

    @every
    def test_any_interpreter_with_an_objective(self, make: Callable[[Classifier], Interpreter]) -> None:
        classifier = Classifier(smooth_net(), mean=0.5, std=0.25, input_size=16, name="smooth toy")
        x, g = images(3, 16), make(classifier)
        fitted = Universal(g, passes=descent_of(5, [g]), batch_size=2).fit(x, 2)
        assert float(fitted.delta.abs().max()) > 0
        assert Linf().contains(x, fitted(x).x_adv).all()
        assert fitted(x).maps[g.name].shape == (3, *g.grid)


def test_the_maps_of_its_photos_stay_nearer_than_without_the_map_term(toy: Classifier) -> None:
    x, cam = _whole(12), CAM(toy)
    joint, alone = (Universal(given, eps=16 / 255, passes=24, batch_size=6).fit(x, 4) for given in (cam, toy))
    kept, blind = joint(x), replace(alone, interpreters=(cam,))(x)
    assert kept.success.all()
    assert blind.success.all()
    gaps = [float(metrics.l1(r.maps["cam"], r.target_maps["cam"]).mean()) for r in (kept, blind)]
    assert gaps[0] < 0.75 * gaps[1]
    others = _whole(20, seed=1)
    before = float((toy(others).argmax(dim=1) == 4).double().mean())
    assert float(joint(others).success.double().mean()) > before + 0.5


class TestOnOtherPhotos:
    def test_a_score_does_not_depend_on_the_batch(self, toy: Classifier) -> None:
        x = _whole(5, seed=2)
        fitted = Universal([CAM(toy), GRAD(toy)], passes=8, batch_size=2).fit(_whole(4), 4)
        whole = fitted(x, keys=KEYS[:5])
        for chosen in ([1], [3, 0], [4, 2, 1]):
            rows = torch.tensor(chosen)
            part = fitted(x[rows], keys=[KEYS[row] for row in chosen])
            assert torch.equal(part.x_adv, whole.x_adv[rows])
            assert torch.equal(part.confidence, whole.confidence[rows])
            for name, maps in part.maps.items():
                assert torch.allclose(maps, whole.maps[name][rows], atol=1e-6)
                assert torch.allclose(part.target_maps[name], whole.target_maps[name][rows], atol=1e-6)

    def test_it_is_scored_on_the_classifier_as_it_is(self, toy: Classifier) -> None:
        x, cam = _whole(5, seed=2), CAM(toy)
        result = Universal(cam, passes=8, batch_size=2).fit(_whole(4), 4)(x)
        p = toy.probabilities(result.x_adv)
        assert torch.equal(result.prediction, p.argmax(dim=1))
        assert torch.equal(result.success, result.prediction == 4)
        assert torch.allclose(result.confidence, p[:, 4])
        assert torch.equal(result.maps["cam"], cam(result.x_adv, result.target))
        assert torch.equal(result.target_maps["cam"], cam(x, toy(x).argmax(dim=1)))
        assert result.attack == "universal"
        assert (result.passes == 0).all()
        assert len(result.rows()) == 5

    def test_no_photo_gives_no_score(self, toy: Classifier) -> None:
        fitted = Universal(CAM(toy), passes=4).fit(_whole(2), 4)
        assert fitted(_whole(0)).x_adv.shape == (0, 3, 32, 32)


def test_no_trace_is_left() -> None:
    classifier = Classifier(relu_net().train(), mean=0.5, std=0.25, input_size=32, name="relu toy")
    x = _whole(4).requires_grad_(True)
    before = x.detach().clone()
    with no_trace(classifier, "universal"):
        Universal([CAM(classifier), GRAD(classifier)], passes=6, batch_size=3).fit(x, 4)(x)
    assert x.grad is None
    assert torch.equal(x.detach(), before)


def test_what_cannot_be_fitted_is_refused_in_a_sentence(toy: Classifier) -> None:
    x, cam = _whole(3), CAM(toy)
    refused: list[tuple[str, Callable[[], object]]] = [
        ("below one grey level", lambda: Universal(cam, eps=0.5 / 255)),
        ("'flow' is not added", lambda: Universal(cam, perturbation=Flow(1.0))),
        ("passes is 1;", lambda: Universal(GRAD(toy), passes=1)),
        ("passes is 2.5", lambda: Universal(cam, passes=2.5)),  # type: ignore[arg-type]
        ("batch_size is 0", lambda: Universal(cam, batch_size=0)),
        ("at least one interpreter", lambda: Universal([])),
        ("holds no image", lambda: Universal(cam, passes=4).fit(x[:0], 1)),
        ("class 10 does not exist", lambda: Universal(cam, passes=4).fit(x, 10)),
        ("target is '3'", lambda: Universal(cam, passes=4).fit(x, "3")),  # type: ignore[arg-type]
        ("has no target; add one", lambda: Universal(cam, passes=4).fit(x, {})),
        ("shape \\(3,\\)", lambda: Universal(cam, passes=4).fit(x, torch.tensor([1, 2]))),
        ("shape \\(3,\\)", lambda: Universal(cam, passes=4).fit(x, 1, label=torch.tensor([1, 2]))),
        ("2 keys", lambda: Universal(cam, passes=4).fit(x, 1, keys=["a", "b"])),
    ]
    for sentence, call in refused:
        with pytest.raises(InputError, match=sentence):
            call()
