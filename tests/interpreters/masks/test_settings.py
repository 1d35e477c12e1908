"""The settings of a mask's fit: what is refused, and the authors' numbers."""

import math

import pytest

from underfire import InputError, MaskFit
from underfire.interpreters.masks.settings import AUTHORS


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("steps", 0, "steps is 0; a mask's fit takes at least 1."),
        ("jitter", -1, "jitter is -1; a mask's fit takes at least 0."),
        ("cell", 0, "cell is 0; a mask's fit takes at least 1."),
        ("mask_kernel", 0, "mask_kernel is 0; a mask's fit takes at least 1."),
        ("image_kernel", -3, "image_kernel is -3; a mask's fit takes at least 1."),
        ("mask_kernel", 10, "mask_kernel is 10; give an odd number of pixels."),
        ("image_kernel", 20, "image_kernel is 20; give an odd number of pixels."),
        ("lr", 0.0, "lr 0 must be a finite number above 0."),
        ("lr", math.nan, "lr nan must be a finite number above 0."),
        ("mask_sigma", -1.0, "mask_sigma -1 must be a finite number above 0."),
        ("image_sigma", math.inf, "image_sigma inf must be a finite number above 0."),
        ("sparsity", -1e-3, "sparsity -0.001 must be a finite number, 0 or more."),
        ("smoothness", math.nan, "smoothness nan must be a finite number, 0 or more."),
        ("start", 1.5, "start 1.5 is not a mask value in [0, 1]."),
        ("start", math.nan, "start nan is not a mask value in [0, 1]."),
    ],
)
def test_what_is_refused(name: str, value: float, sentence: str) -> None:
    with pytest.raises(InputError) as refusal:
        MaskFit(**{name: value})  # type: ignore[arg-type]
    assert str(refusal.value) == sentence


def test_the_ends_of_the_ranges_are_taken() -> None:
    MaskFit(steps=1, jitter=0, cell=1, mask_kernel=1, image_kernel=1, sparsity=0.0, smoothness=0.0, start=0.0)
    MaskFit(start=1.0)


def test_a_cell_is_so_many_pixels() -> None:
    assert MaskFit().grid((224, 224)) == (28, 28)
    assert MaskFit(cell=4).grid((32, 50)) == (8, 12)
    assert MaskFit(cell=8).grid((9, 40)) == (2, 5)  # a single cell has no neighbour


def test_the_authors_fit_is_longer_and_no_different() -> None:
    assert MaskFit(steps=300) == AUTHORS
    assert (AUTHORS.lr, AUTHORS.sparsity, AUTHORS.smoothness) == (0.1, 1e-4, 1e-2)
