"""What a mask does to an image, against torch's own resizing, an own blur, and autograd."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from support.toys import images
from underfire import MaskFit
from underfire.interpreters.masks.optics import Optics

SIZE = (16, 24)
FIT = MaskFit(jitter=3, cell=4, mask_kernel=5, mask_sigma=1.3, image_kernel=7, image_sigma=2.0)
OFFSETS = torch.tensor([[0, 0], [3, 1], [2, 3]])


@pytest.fixture
def x() -> Tensor:
    return images(3, 24, dtype=torch.float64)[:, :, :16]


@pytest.fixture
def masks() -> Tensor:
    return torch.rand((3, *FIT.grid(SIZE)), dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def optics(x: Tensor) -> Optics:
    return Optics.of(FIT, SIZE, x)


def enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(20, 28), mode="bilinear", align_corners=False)


def blurred(x: Tensor, kernel: int, sigma: float) -> Tensor:
    """By a two-dimensional kernel over repeated edges."""
    reach = torch.arange(kernel, dtype=x.dtype) - kernel // 2
    weights = torch.exp(-(reach[:, None] ** 2 + reach[None, :] ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(x, (kernel // 2,) * 4, mode="replicate"), weights, groups=x.shape[1])


def cut(scene: Tensor) -> Tensor:
    corners = zip(scene, OFFSETS.tolist(), strict=True)
    return torch.stack([image[:, top : top + 16, left : left + 24] for image, (top, left) in corners])


def test_rows_of_all_matrices_are_means(optics: Optics) -> None:
    for matrices, shapes in (
        (optics.sharpen, [(20, 16), (28, 24)]),
        (optics.soften, [(20, 16), (28, 24)]),
        (optics.spread, [(16, 4), (24, 6)]),
    ):
        assert [tuple(matrix.shape) for matrix in matrices] == shapes
        for matrix in matrices:
            assert float(matrix.min()) >= 0
            torch.testing.assert_close(matrix.sum(dim=1), torch.ones(len(matrix), dtype=matrix.dtype))


def test_where_nothing_is_deleted_the_crop_is_sharp(optics: Optics, x: Tensor, masks: Tensor) -> None:
    crops = optics.crops(optics.scene(x), OFFSETS)
    torch.testing.assert_close(optics.composite(crops, torch.ones_like(masks)), cut(enlarged(x)))


def test_where_all_is_deleted_it_is_blurred(optics: Optics, x: Tensor, masks: Tensor) -> None:
    crops = optics.crops(optics.scene(x), OFFSETS)
    wanted = cut(blurred(enlarged(x), 7, 2.0))
    torch.testing.assert_close(optics.composite(crops, torch.zeros_like(masks)), wanted)


def test_the_mask_is_enlarged_and_smoothed(optics: Optics, x: Tensor, masks: Tensor) -> None:
    smooth = blurred(F.interpolate(masks[:, None], size=SIZE, mode="bilinear", align_corners=False), 5, 1.3)
    torch.testing.assert_close(optics.smooth(masks), smooth)
    crops = optics.crops(optics.scene(x), OFFSETS)
    sharp, soft = cut(enlarged(x)), cut(blurred(enlarged(x), 7, 2.0))
    torch.testing.assert_close(optics.composite(crops, masks), smooth * sharp + (1 - smooth) * soft)


def test_a_constant_image_stays_what_it_is(optics: Optics, x: Tensor, masks: Tensor) -> None:
    constant = torch.full_like(x, 0.3)
    crops = optics.crops(optics.scene(constant), OFFSETS)
    torch.testing.assert_close(optics.composite(crops, masks), constant, rtol=0, atol=1e-12)
    assert float(crops.detail.abs().max()) < 1e-12


def test_both_transposes_are_the_gradients_of_the_composite(optics: Optics, x: Tensor, masks: Tensor) -> None:
    x, masks = x.requires_grad_(True), masks.requires_grad_(True)
    cotangent = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    crops = optics.crops(optics.scene(x), OFFSETS)
    in_x, in_masks = torch.autograd.grad((optics.composite(crops, masks) * cotangent).sum(), (x, masks))
    torch.testing.assert_close(optics.in_image(masks.detach(), OFFSETS, cotangent), in_x)
    torch.testing.assert_close(optics.in_mask(crops, cotangent), in_masks)


def test_an_image_is_cut_by_its_own_corner(optics: Optics, x: Tensor, masks: Tensor) -> None:
    whole = optics.composite(optics.crops(optics.scene(x), OFFSETS), masks)
    for i in range(3):
        one = slice(i, i + 1)
        alone = optics.composite(optics.crops(optics.scene(x[one]), OFFSETS[one]), masks[one])
        torch.testing.assert_close(alone, whole[one], rtol=0, atol=1e-14)
