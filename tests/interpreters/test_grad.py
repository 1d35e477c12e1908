"""GRAD against closed forms."""

import pytest
import torch

from support.nets import linear_classifier, pixel_weights
from support.toys import images
from underfire import GRAD, Classifier
from underfire.interpreters.maps import saliency


def test_the_gradient_of_a_linear_model_is_known() -> None:
    classifier = linear_classifier()
    x, y = images(4, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 4])
    p = classifier.probabilities(x)
    gradient = (torch.einsum("nk,kchw->nchw", p, pixel_weights()) - pixel_weights()[y]) / 0.25
    torch.testing.assert_close(GRAD(classifier)(x, y), saliency(gradient))


def test_the_map_of_the_probability_is_the_same(smooth_classifier64: Classifier) -> None:
    """∂(−log p) = −∂p / p: after scaling the two are one map."""
    x, y = images(3, 16, dtype=torch.float64), torch.tensor([1, 5, 9])
    leaf = x.clone().requires_grad_(True)
    p = smooth_classifier64(leaf).softmax(dim=1).gather(1, y[:, None])
    (gradient,) = torch.autograd.grad(p.sum(), leaf)
    torch.testing.assert_close(GRAD(smooth_classifier64)(x, y), saliency(gradient))


def test_where_the_gradient_vanishes_the_map_is_zero() -> None:
    classifier = linear_classifier(scale=1e6)
    x = images(4, 16, dtype=torch.float64)
    p, y = classifier.probabilities(x).max(dim=1)
    assert torch.equal(p, torch.ones_like(p))
    assert torch.equal(GRAD(classifier)(x, y), torch.zeros(4, 4, 4, dtype=torch.float64))


@pytest.mark.parametrize("size", [(16, 24), (18, 23)])
def test_the_grid_is_a_quarter_of_the_image(size: tuple[int, int]) -> None:
    from support.toys import smooth_net

    grad = GRAD(Classifier(smooth_net(), input_size=size))
    maps = grad(torch.rand(2, 3, *size), torch.tensor([0, 1]))
    assert maps.shape[1:] == grad.grid == (size[0] // 4, size[1] // 4)
