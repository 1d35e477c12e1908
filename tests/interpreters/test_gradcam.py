"""Grad-CAM against its definition, on heads that CAM does not know."""

import pytest
import torch
from torch import Tensor, nn

from support.nets import channels_classifier
from support.toys import images, relu_net
from underfire import Classifier, GradCAM, InputError
from underfire.interpreters.maps import min_max


def _two_layer_head() -> tuple[nn.Module, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.Tanh())
        head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 49, 12), nn.Tanh(), nn.Linear(12, 5))
    return trunk, head


def _by_hand(trunk: nn.Module, head: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The raw map, one image at a time."""
    maps = []
    for image, c in zip(x, y, strict=True):
        activation = trunk(image[None]).detach().requires_grad_(True)
        head(activation)[0, int(c)].backward()
        assert activation.grad is not None
        maps.append((activation.grad.mean(dim=(2, 3), keepdim=True) * activation.detach()).sum(dim=1)[0])
    return torch.stack(maps)


@pytest.mark.parametrize("relu", [False, True])
def test_the_definition_on_a_head_of_two_layers(relu: bool) -> None:
    trunk, head = _two_layer_head()
    x, y = images(4, 16), torch.tensor([0, 3, 1, 1])
    raw = _by_hand(trunk, head, x, y)
    maps = GradCAM(Classifier(nn.Sequential(trunk, head), input_size=16), relu=relu)(x, y)
    torch.testing.assert_close(maps, min_max(raw.relu() if relu else raw), rtol=1e-3, atol=1e-4)


def test_relu_cuts_the_negative_part_off() -> None:
    classifier = channels_classifier(torch.tensor([[-1.0, 0.0, 0.0], [1.0, -0.8, 0.0]]))
    x = images(2, 8)
    assert torch.equal(GradCAM(classifier, relu=True)(x, torch.tensor([0, 0])), torch.zeros(2, 8, 8))
    signed, cut = (GradCAM(classifier, relu=r)(x, torch.tensor([1, 1])) for r in (False, True))
    raw = x[:, 0] - 0.8 * x[:, 1]
    assert bool((raw < 0).any())
    assert torch.equal(cut == 0, raw <= 0)
    assert not torch.equal(signed == 0, raw <= 0)


def test_a_module_that_is_the_convolution_itself() -> None:
    """The class scores may be pooled from a map per class, with no linear layer at all."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = Classifier(net, input_size=8)
    x, y = images(2, 8), torch.tensor([1, 3])
    with torch.no_grad():
        activation = net[0](x)
    expected = min_max(activation[torch.arange(2), y])
    torch.testing.assert_close(GradCAM(classifier)(x, y), expected, rtol=1e-4, atol=1e-5)


def test_probabilities_at_the_end_are_no_obstacle() -> None:
    classifier = Classifier(nn.Sequential(relu_net(), nn.Softmax(dim=1)), input_size=32, outputs="probabilities")
    maps = GradCAM(classifier)(images(2, 32), torch.tensor([1, 3]))
    assert maps.shape == (2, 8, 8)
    assert float(maps.amax()) == 1


def test_no_convolution_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5))
    with pytest.raises(InputError, match=r"'pixels' has no activation whose cells change .*; use grad"):
        GradCAM(Classifier(net, input_size=8, name="pixels"))
