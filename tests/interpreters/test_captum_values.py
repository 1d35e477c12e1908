"""Where Captum defines the same values, ours equal them, in float64."""

from collections.abc import Callable

import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Saliency
from torch import Tensor, nn

from support.toys import Normalised, images, relu_net, smooth_net
from underfire import CAM, GRAD, IG, Classifier, GradCAM
from underfire.interpreters.maps import min_max, saliency
from underfire.interpreters.outputs import Output
from underfire.interpreters.quadrature import Rule

N = 5
Y = torch.tensor([0, 3, 3, 7, 9])


@pytest.fixture(params=["smooth", "relu"])
def toy(request: pytest.FixtureRequest) -> tuple[Classifier, Normalised, Tensor]:
    """A classifier, the same as a plain module, and pictures."""
    make: Callable[[], nn.Module] = {"smooth": smooth_net, "relu": relu_net}[request.param]
    size = {"smooth": 16, "relu": 32}[request.param]
    classifier = Classifier(make().double(), mean=0.5, std=0.25, input_size=size)
    return classifier, Normalised(make().double()).eval(), images(N, size, dtype=torch.float64)


def test_saliency_of_the_loss_is_grad(toy: tuple[Classifier, Normalised, Tensor]) -> None:
    classifier, module, x = toy
    theirs = Saliency(lambda z: -module(z).log_softmax(dim=1)).attribute(x.requires_grad_(), target=Y, abs=True)
    torch.testing.assert_close(GRAD(classifier)(x, Y), saliency(theirs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("rule", "method"), [("midpoint", "riemann_middle"), ("gauss-legendre", "gausslegendre")])
@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_integrated_gradients(
    toy: tuple[Classifier, Normalised, Tensor], rule: Rule, method: str, output: Output, baseline: float
) -> None:
    classifier, module, x = toy
    function = module if output == "logit" else nn.Sequential(module, nn.Softmax(dim=1))
    theirs, delta = IntegratedGradients(function).attribute(
        x, baselines=baseline, target=Y, n_steps=16, method=method, return_convergence_delta=True
    )
    ig = IG(classifier, points=16, rule=rule, output=output, baseline=baseline)
    ours = ig.integrate(x, Y)
    # Captum rounds its weights to float32: 1/16 survives that, the weights of Gauss and Legendre do not.
    tolerance = 1e-9 if rule == "midpoint" else 1e-6
    assert float((ours.values - theirs).abs().max()) < tolerance * float(theirs.abs().max())
    assert float((ours.residual - delta.abs()).max()) < tolerance * float(theirs.abs().sum(dim=(1, 2, 3)).max())
    torch.testing.assert_close(ig(x, Y), saliency(theirs), rtol=0, atol=tolerance)


@pytest.mark.parametrize("relu", [False, True])
def test_grad_cam(toy: tuple[Classifier, Normalised, Tensor], relu: bool) -> None:
    classifier, module, x = toy
    layer = module.get_submodule("net.features")
    theirs = LayerGradCam(module, layer).attribute(x, target=Y, relu_attributions=relu).squeeze(1).detach()
    torch.testing.assert_close(GradCAM(classifier, relu=relu)(x, Y), min_max(theirs), rtol=1e-9, atol=1e-12)
    if not relu:
        torch.testing.assert_close(CAM(classifier)(x, Y), min_max(theirs), rtol=1e-9, atol=1e-12)
