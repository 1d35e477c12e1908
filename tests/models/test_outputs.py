"""Whatever a module returns, logits are read from it as it is meant."""

import threading
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.toys import images, relu_net
from underfire import CAM, GRAD, IG, PGD, GradCAM, InputError
from underfire.models.classifier import Classifier
from underfire.models.outputs import OutputReading

X = images(3, 32)
Y = torch.tensor([1, 0, 1])


class Returns(nn.Module):
    """A toy whose ten scores are handed on by ``wrap``."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.wrap = relu_net(), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.net(x))


def made(wrap: Callable[[Tensor], Any], **options: Any) -> Classifier:
    return Classifier(Returns(wrap), input_size=32, **options)


class ModelOutput(OrderedDict[str, Tensor]):
    """As that of transformers."""


Heads = namedtuple("Heads", ["logits", "aux_logits"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: ModelOutput(logits=z, hidden_states=z + 1),
        lambda z: {"loss": z.sum(), "logits": z},
        lambda z: {"out": z},
        lambda z: (z, z + 1),
        lambda z: [z],
        lambda z: Heads(z, z + 1),
        lambda z: SimpleNamespace(loss=None, logits=z),
    ],
)
def test_logits_are_taken_from_what_holds_them(wrap: Callable[[Tensor], Any]) -> None:
    plain = made(lambda z: z)
    classifier = made(wrap)
    assert torch.equal(classifier(X), plain(X))
    result = PGD(classifier, steps=3)(X, torch.tensor([4, 5, 6]))
    assert torch.equal(result.x_adv, PGD(plain, steps=3)(X, torch.tensor([4, 5, 6])).x_adv)


class TestOneLogit:
    """Two classes, of which the second has the probability σ(z)."""

    @pytest.mark.parametrize(
        ("wrap", "outputs"),
        [
            (lambda z: z[:, :1], "logits"),
            (lambda z: z[:, 0], "logits"),
            (lambda z: z[:, :1], "sigmoid"),
            (lambda z: z[:, :1].sigmoid(), "sigmoid"),
            (lambda z: z[:, 0].sigmoid(), "probabilities"),
        ],
    )
    def test_probabilities(self, wrap: Callable[[Tensor], Any], outputs: str) -> None:
        z = made(lambda z: z)(X)[:, 0]
        classifier = made(wrap, outputs=outputs)
        assert (classifier.num_classes, classifier.decision.exclusive) == (2, True)
        torch.testing.assert_close(classifier.probabilities(X), torch.stack([1 - z.sigmoid(), z.sigmoid()], dim=1))
        torch.testing.assert_close(classifier(X), torch.stack([-z / 2, z / 2], dim=1), rtol=1e-3, atol=1e-3)

    def test_cam_is_that_of_the_one_row_and_of_its_negative(self) -> None:
        ten, one = made(lambda z: z), Classifier(OneLogit(), input_size=32)
        expected = CAM(ten)(X, torch.zeros(3, dtype=torch.int64))
        torch.testing.assert_close(CAM(one)(X, torch.ones(3, dtype=torch.int64)), expected, rtol=1e-3, atol=1e-4)
        other = CAM(one)(X, torch.zeros(3, dtype=torch.int64))
        torch.testing.assert_close(other, 1 - expected, rtol=1e-3, atol=1e-4)

    def test_attacks_reach_either_class(self) -> None:
        classifier = Classifier(OneLogit(), input_size=32)
        target = 1 - classifier(X).argmax(dim=1)
        assert PGD(classifier, eps=0.2, steps=30)(X, target).success.all()

    @pytest.mark.parametrize(
        ("wrap", "outputs", "sentence"),
        [
            (lambda z: z[:, :1].sigmoid(), "logits", "the module returns probabilities, not logits"),
            (lambda z: 2 + z[:, :1], "probabilities", r"the module's outputs don't lie in \[0, 1\]; drop the option"),
            (lambda z: z.sigmoid(), "probabilities", "don't sum to 1; .* outputs='sigmoid' if each is of a label"),
            (lambda z: z.softmax(dim=1), "sigmoid", "outputs sum to 1; say outputs='probabilities'"),
        ],
    )
    def test_what_contradicts_the_module(self, wrap: Callable[[Tensor], Any], outputs: str, sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            made(wrap, outputs=outputs)


class OneLogit(nn.Module):
    """The toy with the first row of its head alone."""

    def __init__(self) -> None:
        super().__init__()
        net = relu_net()
        self.features, self.head = net.features, nn.Linear(net.head.in_features, 1)
        self.head.load_state_dict({name: value[:1] for name, value in net.head.state_dict().items()})

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.head(self.features(x).mean(dim=(2, 3)))
        return logit


class TestLabelsOfTheirOwn:
    @pytest.mark.parametrize("wrap", [lambda z: z, lambda z: z.sigmoid()])
    def test_each_has_its_sigmoid(self, wrap: Callable[[Tensor], Tensor]) -> None:
        z = made(lambda z: z)(X)
        classifier = made(wrap, outputs="sigmoid")
        assert (classifier.num_classes, classifier.decision.exclusive) == (10, False)
        torch.testing.assert_close(classifier.probabilities(X), z.sigmoid())
        torch.testing.assert_close(classifier(X), z, rtol=1e-3, atol=0.02)  # σ(13) is nearly 1

    def test_grad_and_ig_are_those_of_one_label(self) -> None:
        """Other labels count for nothing."""
        all_of_them, two = made(lambda z: z, outputs="sigmoid"), made(lambda z: z[:, :2], outputs="sigmoid")
        for interpreter in (GRAD, IG, GradCAM):
            torch.testing.assert_close(interpreter(two)(X, Y), interpreter(all_of_them)(X, Y), rtol=1e-3, atol=1e-4)

    def test_an_attack_succeeds_where_its_label_is_seen(self) -> None:
        classifier = made(lambda z: z - 2, outputs="sigmoid")
        target = classifier(X).argmin(dim=1)
        assert (classifier.probabilities(X).gather(1, target[:, None]) < 0.5).all()
        result = PGD(classifier, eps=0.2, steps=60)(X, target)
        seen = classifier.probabilities(result.x_adv).gather(1, target[:, None])[:, 0] > 0.5
        assert torch.equal(result.success, seen)
        assert seen.any()
        assert torch.equal(result.prediction == target, seen)


def test_reading_knows_how_many_classes_there_are() -> None:
    assert [OutputReading("logits", columns).num_classes for columns in (1, 2, 7)] == [2, 2, 7]


class TestShortWeights:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_maps_and_scores_are_those_of_the_same_weights_in_32_bits(self, dtype: torch.dtype) -> None:
        short, long = relu_net().to(dtype), relu_net().to(dtype).float()
        classifier, expected = Classifier(short, input_size=32), Classifier(long, input_size=32)
        assert {p.dtype for p in short.parameters()} == {dtype}
        assert classifier(X).dtype == torch.float32
        assert torch.equal(classifier(X), expected(X))
        for interpreter in (GRAD, CAM):
            assert torch.equal(interpreter(classifier)(X, Y), interpreter(expected)(X, Y))
        steps = 4
        ours, theirs = (PGD(c, steps=steps)(X, torch.tensor([4, 5, 6])) for c in (classifier, expected))
        assert torch.equal(ours.x_adv, theirs.x_adv)

    def test_one_weight_is_enough(self) -> None:
        net = relu_net()
        net.head.half()
        assert Classifier(net, input_size=32)(X).shape == (3, 10)

    def test_one_that_cannot_be_copied(self) -> None:
        net = relu_net().half()
        net.lock = threading.Lock()  # type: ignore[assignment]
        with pytest.raises(InputError, match=r"of torch.float16 and cannot be copied \(TypeError.*float\(\)"):
            Classifier(net, input_size=32)


class OneAtATime(nn.Module):
    """As exported with a batch of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.net = relu_net()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x.reshape(1, 3, 32, 32))
        return scores


def test_a_module_made_for_one_image_is_given_one_after_another() -> None:
    classifier, plain = Classifier(OneAtATime(), input_size=32), Classifier(relu_net(), input_size=32)
    assert classifier.one_by_one
    assert not plain.one_by_one
    torch.testing.assert_close(classifier(X), plain(X), rtol=1e-4, atol=1e-5)
    assert torch.equal(classifier(X)[1:2], classifier(X[1:2]))
    torch.testing.assert_close(GRAD(classifier)(X, Y), GRAD(plain)(X, Y), rtol=1e-3, atol=1e-3)
    target = torch.tensor([4, 5, 6])
    ours, theirs = (PGD(c, eps=0.1, steps=10)(X, target) for c in (classifier, plain))
    assert torch.equal(ours.success, theirs.success)
    with pytest.raises(InputError, match="takes one image at a time"):
        GradCAM(classifier)
