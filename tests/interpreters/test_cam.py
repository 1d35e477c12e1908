"""CAM against its definition."""

import pytest
import torch
from torch import Tensor, nn

from support.nets import channels_classifier
from support.toys import images, smooth_net
from underfire import CAM, Classifier, GradCAM, InputError
from underfire.interpreters.maps import min_max

WEIGHT = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.5, -2.0, 0.25], [0.0, 0.0, 0.0]])


def test_it_is_the_activation_weighted_by_the_row_of_the_head() -> None:
    x, y = images(4, 8), torch.tensor([0, 1, 2, 2])
    expected = min_max(torch.einsum("nk,nkhw->nhw", WEIGHT[y], x))
    torch.testing.assert_close(CAM(channels_classifier(WEIGHT))(x, y), expected)


def test_it_is_signed_before_scaling() -> None:
    x = images(2, 8)
    cam = CAM(channels_classifier(WEIGHT))
    for_it, against_it = cam(x, torch.tensor([0, 0])), cam(x, torch.tensor([1, 1]))
    torch.testing.assert_close(against_it, 1 - for_it)


def test_a_class_that_reads_nothing_has_a_map_of_zeros() -> None:
    maps = CAM(channels_classifier(WEIGHT))(images(2, 8), torch.tensor([3, 3]))
    assert torch.equal(maps, torch.zeros(2, 8, 8))


def test_its_mean_is_the_logit_without_bias(relu_classifier: Classifier) -> None:
    """What makes CAM exact: before scaling, the mean of the map is the logit less the bias."""
    x = images(3, 32)
    cam = CAM(relu_classifier)
    head = relu_classifier.module.get_submodule("head")
    assert isinstance(head, nn.Linear)
    seen: list[Tensor] = []
    handle = relu_classifier.module.get_submodule("features").register_forward_hook(lambda *a: seen.append(a[2]))
    logits = relu_classifier(x)
    handle.remove()
    for c in range(relu_classifier.num_classes):
        raw = torch.einsum("k,nkhw->nhw", head.weight[c], seen[0][:3]).detach()
        torch.testing.assert_close(raw.mean(dim=(1, 2)) + head.bias[c], logits[:, c], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(cam(x, torch.full((3,), c)), min_max(raw), rtol=1e-4, atol=1e-4)


def test_it_equals_grad_cam_on_pooling_and_a_linear_head(toy_classifier: Classifier) -> None:
    x = images(6, toy_classifier.input_size[0])
    y = torch.arange(6)
    torch.testing.assert_close(CAM(toy_classifier)(x, y), GradCAM(toy_classifier)(x, y), rtol=1e-4, atol=1e-5)


def test_another_head_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    with pytest.raises(
        InputError, match=r"CAM needs global average pooling .* 'flat head' ends in another head; use gradcam"
    ):
        CAM(Classifier(net, input_size=8, name="flat head"))


@pytest.mark.parametrize("make", [CAM, GradCAM])
def test_a_scripted_module_shows_no_activation(make: type[CAM] | type[GradCAM]) -> None:
    scripted = torch.jit.trace(smooth_net().eval(), images(1, 16))
    with pytest.raises(InputError, match=r"'traced' is a scripted module.*give the module that it was made from"):
        make(Classifier(scripted, input_size=16, name="traced"))
