"""SmoothGrad against closed forms and Captum given the same noise; its noise belongs to the image."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import Tensor, nn

from support.nets import linear_classifier, pixel_weights
from support.toys import images, relu_net, smooth_net
from underfire import ADV2, GRAD, Classifier, InputError, SmoothGrad
from underfire.interpreters import ForwardPass, MapTarget
from underfire.interpreters.maps import saliency, saliency_slope
from underfire.testing import check_interpreter

X, Y, KEYS = images(4, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 4]), ("a", "b", "c", "d")


def test_without_noise_it_is_grad(smooth_classifier64: Classifier) -> None:
    torch.testing.assert_close(SmoothGrad(smooth_classifier64, sigma=0)(X, Y), GRAD(smooth_classifier64)(X, Y))


def test_a_linear_model_has_the_mean_of_its_probabilities() -> None:
    classifier = linear_classifier()
    g = SmoothGrad(classifier, samples=5)
    total = torch.zeros_like(X)
    for sample in range(5):
        p = ((X + g.noise(X, KEYS, sample) - 0.5) / 0.25).flatten(1) @ pixel_weights().flatten(1).T
        total += (torch.einsum("nk,kchw->nchw", p.softmax(dim=1), pixel_weights()) - pixel_weights()[Y]) / 0.25
    torch.testing.assert_close(g(X, Y, keys=KEYS), saliency(total / 5))


@pytest.mark.parametrize(("net", "size"), [(smooth_net, 16), (relu_net, 32)])
def test_captum_has_the_same_of_the_same_noise(
    net: Callable[[], nn.Module], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, x = Classifier(net().double(), mean=0.5, std=0.25, input_size=size), images(3, size).double()
    g = SmoothGrad(classifier, samples=4)
    noise = torch.stack([g.noise(x, KEYS[:3], sample) for sample in range(4)], dim=1).flatten(0, 1)
    monkeypatch.setattr(torch, "normal", lambda *_: noise)  # which NoiseTunnel draws: the copies of an image together
    tunnel: Any = NoiseTunnel(Saliency(lambda z: -classifier.scores(z).log_softmax(dim=1)))
    with classifier.frozen():
        theirs = tunnel.attribute(x, target=Y[:3], nt_samples=4, stdevs=g.sigma, abs=False)
    torch.testing.assert_close(g(x, Y[:3], keys=KEYS[:3]), saliency(theirs.detach()), rtol=1e-9, atol=1e-12)


def test_noise_is_by_image_seed_and_copy(smooth_classifier64: Classifier) -> None:
    g, other = SmoothGrad(smooth_classifier64), SmoothGrad(smooth_classifier64, seed=1)
    noise = g.noise(X, KEYS, 0)
    assert torch.equal(g.noise(X[[2, 0]], ("c", "a"), 0), noise[[2, 0]])
    for else_ in (g.noise(X, KEYS, 1), other.noise(X, KEYS, 0), g.noise(X, ("e", "f", "g", "h"), 0)):
        assert float((else_ - noise).abs().mean()) > 0.5 * g.sigma
    assert float(noise.std()) == pytest.approx(g.sigma, rel=0.05)


def test_the_map_converges_with_the_copies(smooth_classifier64: Classifier) -> None:
    exact = SmoothGrad(smooth_classifier64, samples=400, seed=9)(X, Y)
    coarse, fine = ((SmoothGrad(smooth_classifier64, samples=n)(X, Y) - exact).abs().mean() for n in (2, 100))
    assert fine < coarse / 3


@pytest.mark.parametrize(
    ("options", "sentence"), [({"samples": 0}, "samples is 0"), ({"sigma": -0.1}, "sigma -0.1"), ({"sigma": 38}, "38")]
)
def test_refusals(smooth_classifier64: Classifier, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        SmoothGrad(smooth_classifier64, **options)


def test_the_first_direction_is_the_gradient_to_four_digits() -> None:
    check_interpreter(lambda c: SmoothGrad(c, samples=3, probe=1e-7), tolerance=1e-4)


def test_the_mean_of_a_round_of_directions_is_the_mean_of_hessians(smooth_classifier64: Classifier) -> None:
    """At an image that stands still each copy has its turn: Σ_k H(x + n_k)·v / K, by double backward."""
    classifier = smooth_classifier64
    g = SmoothGrad(classifier, samples=3, probe=1e-7)
    target = g(X, Y, keys=KEYS).roll(1, dims=0)
    objective = g.objective(MapTarget(Y, target, KEYS, 0))
    with classifier.frozen():
        first, *others = [objective(ForwardPass(classifier, X)).direction for _ in range(4)]
        leaf = X.clone().requires_grad_(True)
        gradients = []
        for sample in range(3):
            z = leaf + g.noise(X, KEYS, sample)
            nll = nn.functional.cross_entropy(classifier.scores(z), Y, reduction="sum")
            gradients.append(torch.autograd.grad(nll, z, create_graph=True)[0])
        mean: Tensor = torch.stack(gradients).mean(dim=0)
        (wanted,) = torch.autograd.grad(mean, leaf, saliency_slope(mean, target)[2])
    for found in (first, torch.stack(others).mean(dim=0)):
        assert float((found - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())


def test_a_step_costs_the_same_whatever_the_copies(smooth_classifier64: Classifier) -> None:
    few, many = (ADV2(SmoothGrad(smooth_classifier64, samples=n), steps=8)(X, Y).passes for n in (2, 12))
    assert torch.equal(many, few + 20)  # the first look takes all
