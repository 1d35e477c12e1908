"""InputXGradient against closed forms and Captum, and the term of its derivative that is easily forgotten."""

from collections.abc import Callable

import pytest
import torch
from captum.attr import InputXGradient as CaptumInputXGradient
from torch import nn

from support.nets import linear_classifier, pixel_weights, squares_classifier
from support.toys import images, relu_net, smooth_net
from underfire import Classifier, InputXGradient
from underfire.interpreters import ForwardPass, MapTarget
from underfire.interpreters.maps import saliency, saliency_slope
from underfire.testing import check_interpreter

X, Y = images(4, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 4])


def test_a_linear_model_has_its_weights_times_the_image() -> None:
    classifier = linear_classifier()
    p = classifier.probabilities(X)
    gradient = (torch.einsum("nk,kchw->nchw", p, pixel_weights()) - pixel_weights()[Y]) / 0.25
    torch.testing.assert_close(InputXGradient(classifier)(X, Y), saliency(X * gradient))


def test_black_pixels_have_none(smooth_classifier64: Classifier) -> None:
    x = X.clone()
    x[:, :, :8] = 0
    maps = InputXGradient(smooth_classifier64)(x, Y)
    assert torch.equal(maps[:, :2], torch.zeros_like(maps[:, :2]))
    assert bool((maps[:, 2:] > 0).any())


@pytest.mark.parametrize(("net", "size"), [(smooth_net, 16), (relu_net, 32)])
def test_captum_has_the_same(net: Callable[[], nn.Module], size: int) -> None:
    classifier = Classifier(net().double(), mean=0.5, std=0.25, input_size=size)
    x = images(4, size, dtype=torch.float64).requires_grad_()
    theirs = CaptumInputXGradient(lambda z: -classifier(z).log_softmax(dim=1)).attribute(x, target=Y)
    torch.testing.assert_close(InputXGradient(classifier)(x, Y), saliency(theirs.detach()), rtol=1e-9, atol=1e-12)


def test_the_direction_is_its_gradient_to_four_digits() -> None:
    check_interpreter(lambda c: InputXGradient(c, probe=1e-7), tolerance=1e-4)


def test_the_direction_has_both_terms_in_closed_form() -> None:
    """With logits w·u², u = (x − mean)/std: g⊙s + H·(x⊙s), H = Jᵀ(diag p − ppᵀ)J + diag(Σ_k (p_k − 1_k)·2w_k/std²)."""
    classifier, std = squares_classifier(), 0.25
    weight, u, p = pixel_weights(), (X - 0.5) / std, classifier.probabilities(X)
    excess = p.clone()
    excess[torch.arange(4), Y] -= 1
    slopes = 2 * u[:, None] * weight[None] / std  # ∂logit_k/∂x, (N, K, C, H, W)
    g = torch.einsum("nk,nkchw->nchw", excess, slopes)
    interpreter = InputXGradient(classifier, probe=1e-7)
    target = interpreter(X, Y).roll(1, dims=0)
    _, _, s = saliency_slope(X * g, target)
    v = X * s
    along = torch.einsum("nkchw,nchw->nk", slopes, v)
    mixed = p * along - p * (p * along).sum(dim=1, keepdim=True)
    hessian = torch.einsum("nk,nkchw->nchw", mixed, slopes)
    hessian += torch.einsum("nk,kchw->nchw", excess, 2 * weight / std**2) * v
    with classifier.frozen():
        pull = interpreter.objective(MapTarget(Y, target, ("a", "b", "c", "d"), 0))(ForwardPass(classifier, X))
    wanted = g * s + hessian
    assert float((pull.direction - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())
    assert float((pull.direction - g * s).abs().max()) > 1e-2 * float(wanted.abs().max())
