"""The falsifier passes what is sound, and catches planted liars."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import Tensor

import underfire as uf
from support.smoothing import SIGMA, FixedMap, SwitchedMap, plane
from support.toys import images, smooth_net
from underfire import Certificate, Classifier, Interpreter
from underfire.testing import check_certificate

RADII = (0.02, 0.06)


@pytest.mark.parametrize("make", [FixedMap, SwitchedMap])
def test_sound_certificates_pass_where_the_bound_is_tight(make: Callable[[Classifier], Interpreter]) -> None:
    classifier, x, y = plane(0.2)
    check_certificate(make(classifier), x, y, sigma=SIGMA, radii=RADII, target=1 - y, samples=300, search=32)


@pytest.mark.parametrize("make", [uf.CAM, uf.GRAD])
def test_sound_certificates_of_a_network_pass(make: Callable[[Classifier], Interpreter]) -> None:
    classifier = Classifier(smooth_net(), mean=0.5, std=0.25, input_size=16)
    x = images(1, 16, seed=1)
    y = classifier.probabilities(x).argmax(dim=1)
    check_certificate(make(classifier), x, y, sigma=0.02, radii=[0.05], samples=200, search=16)


def _of_the_clean_image(g: Interpreter, x: Tensor, y: Tensor, **options: object) -> Certificate:
    """Nothing is wrong without noise."""
    found = uf.certify(g, x, y, **options)  # type: ignore[arg-type]
    return replace(found, counts={goal: 0 * counts for goal, counts in found.counts.items()})


def _of_another_noise(g: Interpreter, x: Tensor, y: Tensor, **options: object) -> Certificate:
    """The radii of more noise than there is."""
    return replace(uf.certify(g, x, y, **options), sigma=3 * SIGMA)  # type: ignore[arg-type]


def _of_many_draws(g: Interpreter, x: Tensor, y: Tensor, **options: object) -> Certificate:
    """Draws counted once, and said to be ten times as many."""
    found = uf.certify(g, x, y, **options)  # type: ignore[arg-type]
    return replace(found, samples=10 * found.samples)


@pytest.mark.parametrize("liar", [_of_the_clean_image, _of_another_noise, _of_many_draws])
def test_liars_are_caught(liar: Callable[..., Certificate]) -> None:
    classifier, x, y = plane(0.2)
    with pytest.raises(AssertionError, match="image 0, other/free within"):
        check_certificate(FixedMap(classifier), x, y, sigma=SIGMA, radii=RADII, certified=liar, samples=400)


def test_a_map_that_falls_where_it_was_certified_to_stay_is_caught() -> None:
    classifier, x, y = plane(0.01)
    with pytest.raises(AssertionError, match="kept/topk"):
        check_certificate(
            SwitchedMap(classifier), x, y, sigma=SIGMA, radii=[0.02], goals=["kept/topk"], samples=400,
            certified=_of_the_clean_image,
        )  # fmt: skip
