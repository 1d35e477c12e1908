"""What all interpreters share: the call, the shared forward pass, refusals."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from support.nets import poison, poisoned
from support.toys import every, images, relu_net, smooth_net
from underfire import IG, Classifier, InputError, Interpreter, NonFiniteError
from underfire.interpreters import ALL, ForwardPass
from underfire.models.features import find_features


class TestCall:
    @every
    def test_a_caller_s_no_grad_changes_nothing(
        self, relu_classifier: Classifier, make: Callable[[Classifier], Interpreter]
    ) -> None:
        x, y = images(3, 32), torch.tensor([1, 2, 3])
        expected = make(relu_classifier)(x, y)
        with torch.no_grad():
            assert torch.equal(make(relu_classifier)(x, y), expected)
            if make is IG:
                IG(relu_classifier).integrate(x, y)
        assert not expected.requires_grad

    @every
    def test_classes_and_images_are_refused_in_sentences(
        self, relu_classifier: Classifier, make: Callable[[Classifier], Interpreter]
    ) -> None:
        g, x = make(relu_classifier), images(2, 32)
        with pytest.raises(InputError, match="class 10 does not exist"):
            g(x, torch.tensor([0, 10]))
        with pytest.raises(InputError, match="int64 tensor of shape"):
            g(x, torch.tensor([0]))
        with pytest.raises(InputError, match="outside"):
            g(x * 255, torch.tensor([0, 1]))
        with pytest.raises(InputError, match="3 keys were given for 2 images"):
            g(x, torch.tensor([0, 1]), keys=["a", "b", "c"])

    @every
    @pytest.mark.parametrize("index", [0, 2])
    def test_nan_stops_with_the_image_s_place(self, make: Callable[[Classifier], Interpreter], index: int) -> None:
        g = make(poisoned(smooth_net(), size=16))
        x, y = poison(images(4, 16), index), torch.arange(4)
        x[index, 0] = 1.0  # all of the channel, so that what moves or blurs the image sees it too
        with pytest.raises(NonFiniteError, match=f"the {g.name} map of image {index} contains NaN") as stop:
            g(x, y)
        assert stop.value.index == index
        others = torch.arange(4) != index
        assert g(x[others], y[others]).shape[0] == 3

    @pytest.mark.parametrize("interpreter", ALL, ids=lambda g: g.name)
    def test_the_family_and_summary_are_given(self, interpreter: type[Interpreter]) -> None:
        assert interpreter.family in ("back-propagation", "representation", "attention", "perturbation", "model")
        assert interpreter.summary
        assert interpreter.passes_per_step >= 1


class TestForwardPass:
    @pytest.mark.parametrize("n", [1, 3])
    def test_gradients_equal_autograd_s(self, relu_classifier: Classifier, n: int) -> None:
        x, y = images(n, 32), torch.arange(n)
        leaf = x.clone().requires_grad_(True)
        loss = F.cross_entropy(relu_classifier(leaf), y, reduction="none")
        (expected,) = torch.autograd.grad(loss.sum(), leaf)
        with relu_classifier.frozen():
            view = ForwardPass(relu_classifier, x)
            torch.testing.assert_close(view.nll(y), loss)
            torch.testing.assert_close(view.nll_gradient(y), expected)
            with torch.no_grad():
                torch.testing.assert_close(view.gradient(view.nll(y)), expected)
        assert not view.nll_gradient(y).requires_grad

    def test_the_gradient_is_paid_once_for_the_same_classes(self, relu_classifier: Classifier) -> None:
        y, other = torch.tensor([1, 2]), torch.tensor([3, 4])
        with relu_classifier.frozen():
            view = ForwardPass(relu_classifier, images(2, 32))
            first = view.nll_gradient(y)
            assert view.nll_gradient(y) is first
            assert not torch.equal(view.nll_gradient(other), first)
            assert torch.equal(view.nll_gradient(y), first)
            assert view.nll_gradient(y.clone()) is view.nll_gradient(y)  # equal classes, not the same tensor

    @pytest.mark.parametrize("n", [1, 3, 4])
    def test_activations_have_one_row_per_image(self, n: int) -> None:
        classifier = Classifier(relu_net(), mean=0.5, std=0.25, input_size=32)
        features = find_features(classifier)
        assert features is not None
        with classifier.frozen():
            view = ForwardPass(classifier, images(n, 32), taps=[features])
            activation = view.activation(features)
            total = view.logits.gather(1, torch.arange(n)[:, None]).squeeze(1)
            gradient = view.activation_gradient(features, total, attackable=False)
        head = classifier.module.get_submodule("head")
        assert activation.shape == gradient.shape == (n, 16, 8, 8)
        assert isinstance(head, torch.nn.Linear)
        expected = head.weight[:n, :, None, None].expand(n, 16, 8, 8) / 64
        torch.testing.assert_close(gradient, expected.detach())

    @pytest.mark.parametrize("n", [1, 3])
    def test_a_gradient_at_an_activation_carried_back_is_the_gradient(
        self, smooth_classifier64: Classifier, n: int
    ) -> None:
        """The chain rule, where all that the logits read passes through the activation."""
        features = find_features(smooth_classifier64)
        assert features is not None
        y = torch.arange(n)
        with smooth_classifier64.frozen():
            view = ForwardPass(smooth_classifier64, images(n, 16, dtype=torch.float64), taps=[features])
            at = view.gradient_at(features, view.nll(y))
            with torch.no_grad():
                carried = view.carried(features, at)
            twice = view.carried(features, 2 * at)
            expected = view.nll_gradient(y)
        assert at.shape == (n, 12, 8, 8)
        assert not at.requires_grad
        assert not carried.requires_grad
        torch.testing.assert_close(carried, expected)
        torch.testing.assert_close(twice, 2 * expected)

    def test_without_attachment_nothing_is_kept(self, relu_classifier: Classifier) -> None:
        with relu_classifier.frozen():
            view = ForwardPass(relu_classifier, images(2, 32), attached=False)
        assert not view.logits.requires_grad
        assert not view.x.requires_grad

    def test_images_of_the_caller_stay_out_of_the_graph(self, relu_classifier: Classifier) -> None:
        leaf = images(2, 32).requires_grad_(True)
        with relu_classifier.frozen():
            view = ForwardPass(relu_classifier, leaf)
            view.nll(torch.tensor([0, 1])).sum().backward()
        assert leaf.grad is None
        assert view.x.grad is not None
