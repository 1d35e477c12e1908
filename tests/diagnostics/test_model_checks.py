"""Models that are wrong in one way each, and one that is right."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from support.toys import images, quantised_net, relu_net, smooth_net
from support.traces import scramble, untouched
from underfire.choices import Outputs
from underfire.diagnostics.attack_signs import Weight
from underfire.diagnostics.model_checks import SATURATED, Checked, ModelCheck, check_model
from underfire.errors import InputError
from underfire.interpreters.base import ForwardPass
from underfire.models.classifier import Classifier


def marked(photos: Tensor, count: int) -> Tensor:
    """``photos`` with a mark on the first ``count``, which the test patterns don't have."""
    photos = photos.clone()
    photos[:, 0, 0, 0] = 0.5
    photos[:count, 0, 0, 0] = 1.0
    return photos


def is_marked(x: Tensor) -> Tensor:
    """(N, 1) bool, of normalised images."""
    return (x[:, 0, 0, 0] > 1.5)[:, None]


class Odd(nn.Module):
    """A sound network with something odd in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = relu_net()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits


class Noisy(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.01 * torch.randn(len(x), 10)


class Dropping(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.1))  # in training mode, whatever the module's


class BatchStatistics(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.batch_norm(x, None, None, training=True))


class Neighbourly(Odd):
    """Each row takes a little of the row before it."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits + 0.1 * logits.roll(1, dims=0)


class Sigmoid(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


class Softmax(Odd):
    """Probabilities that don't sum to 1 on the test patterns alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(dim=1) * 0.99


class SoftmaxOfPatterns(Odd):
    """Probabilities, as declared, for everything but images that :func:`marked` marked: those get logits."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return torch.where(is_marked(x), logits, logits.softmax(dim=1))


class Detached(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class Loud(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return 1000 * super().forward(x)


def made(module: nn.Module, outputs: Outputs = "logits") -> Classifier:
    return Classifier(module, mean=0.5, std=0.25, input_size=32, outputs=outputs)


def fired(checked: Sequence[Checked]) -> list[ModelCheck]:
    return [one.check for one in checked if one.fired]


def of(checked: Sequence[Checked], check: ModelCheck) -> Checked:
    return next(one for one in checked if one.check is check)


@pytest.mark.parametrize(
    ("module", "outputs", "check", "shown"),
    [
        pytest.param(Noisy(), "logits", ModelCheck.RANDOMISED, (7, 7), id="noise on the logits"),
        pytest.param(Dropping(), "logits", ModelCheck.RANDOMISED, (7, 7), id="dropout that is never off"),
        pytest.param(BatchStatistics(), "logits", ModelCheck.COUPLED, (7, 7), id="statistics of the batch"),
        pytest.param(Neighbourly(), "logits", ModelCheck.COUPLED, (2, 7), id="leaking rows"),
        pytest.param(Sigmoid(), "logits", ModelCheck.PROBABILITIES, (7, 7), id="sigmoid"),
        pytest.param(Softmax(), "logits", ModelCheck.PROBABILITIES, (7, 7), id="softmax that doesn't sum to 1"),
        pytest.param(SoftmaxOfPatterns(), "probabilities", ModelCheck.NOT_PROBABILITIES, (3, 7), id="logits"),
        pytest.param(quantised_net(), "logits", ModelCheck.NO_GRADIENT, (3, 3), id="quantised input"),
        pytest.param(Detached(), "logits", ModelCheck.NO_GRADIENT, (3, 3), id="detached"),
        pytest.param(Loud(), "logits", ModelCheck.SATURATED, (3, 3), id="logits a thousand times too large"),
    ],
)
def test_each_planted_fault_is_found_and_nothing_else(
    module: nn.Module, outputs: Outputs, check: ModelCheck, shown: tuple[int, int]
) -> None:
    checked = check_model(made(module, outputs), marked(images(3, 32), 3))
    assert fired(checked) == [check]
    assert (of(checked, check).shown, of(checked, check).of) == shown


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_a_sound_model_shows_nothing(n: int, toy_classifier: Classifier) -> None:
    checked = check_model(toy_classifier, images(n, toy_classifier.input_size[0]))
    assert [one.check for one in checked] == list(ModelCheck)
    assert fired(checked) == []
    assert all(one.shown == 0 for one in checked)


def test_a_sound_softmax_that_is_declared_shows_nothing() -> None:
    module = nn.Sequential(smooth_net(), nn.Softmax(dim=1))
    classifier = Classifier(module, mean=0.5, std=0.25, input_size=16, outputs="probabilities")
    assert fired(check_model(classifier, images(3, 16))) == []


def _untrained(kind: str, seed: int) -> nn.Module:
    """Two classes, whose logits lie around 0.5 on any photo."""
    torch.manual_seed(seed)
    head = nn.Linear(16, 2)
    body: list[nn.Module] = [nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if kind == "batch norm":
        body.insert(1, nn.BatchNorm2d(16))
    if kind == "layer norm":
        body.append(nn.LayerNorm(16))
        nn.init.normal_(head.weight, std=0.02)
    if kind == "tanh":
        body.append(nn.Tanh())
    net = nn.Sequential(*body, head)
    with torch.no_grad():
        head.bias.add_(0.5 - net(images(4, 32, seed=1)).mean(dim=0))
    return net


@pytest.mark.parametrize("kind", ["plain", "batch norm", "layer norm", "tanh"])
def test_an_untrained_model_with_outputs_between_0_and_1_is_not_one_of_probabilities(kind: str) -> None:
    inside = 0
    for seed in range(30):
        checked = of(check_model(made(_untrained(kind, seed)), images(3, 32)), ModelCheck.PROBABILITIES)
        inside += checked.shown == checked.of
        assert not checked.fired, seed
    assert inside >= 10


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_sigmoids_are_found_in_two_classes_too(scale: float) -> None:
    class Faint(Odd):
        def forward(self, x: Tensor) -> Tensor:
            return (scale * super().forward(x)[:, :2]).sigmoid()

    assert ModelCheck.PROBABILITIES in fired(check_model(made(Faint()), images(3, 32)))


def test_plain_probabilities_are_refused_before_any_check() -> None:
    with pytest.raises(InputError, match="returns probabilities, not logits"):
        made(nn.Sequential(relu_net(), nn.Softmax(dim=1)))


@pytest.mark.parametrize(("sure", "fires"), [(1, False), (2, True)])
def test_one_easy_photo_is_not_a_saturated_model(sure: int, fires: bool) -> None:
    assert SATURATED == 0.5

    class Easy(Odd):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.where(is_marked(x), 1000.0, 1.0)

    checked = check_model(made(Easy()), marked(images(4, 32), sure))
    assert of(checked, ModelCheck.SATURATED) == Checked(ModelCheck.SATURATED, shown=sure, of=4, fired=fires)


def test_a_saturated_prediction_still_has_the_gradient_that_an_attack_needs() -> None:
    classifier, photos = made(Loud()), images(3, 32)
    with classifier.frozen():
        view = ForwardPass(classifier, photos)
        assert not view.nll_gradient(view.logits.argmax(dim=1)).any()
    assert of(check_model(classifier, photos), ModelCheck.NO_GRADIENT).shown == 0


def test_the_model_is_left_as_it_was() -> None:
    net = relu_net()
    scramble(net)
    with untouched(net):
        check_model(made(net), images(2, 32))


def test_images_are_checked() -> None:
    with pytest.raises(InputError, match="outside"):
        check_model(made(relu_net()), images(2, 32) * 255)


def test_every_check_is_said_in_words() -> None:
    for check in ModelCheck:
        reading = check.reading
        assert reading.weight is not Weight.NOTE
        assert not reading.seen.endswith(".")
        assert reading.means.endswith(".")
        assert reading.advice.endswith(".")
