import math

import pytest
import torch
from torch.nn import functional as F

from underfire.attacks.target_maps import random_patch


@pytest.mark.parametrize("key", [f"photo {i}" for i in range(12)])
def test_a_patch_is_bright_where_it_is_and_dark_elsewhere(key: str) -> None:
    patch = random_patch((224, 224), seed=0, key=key)
    bright = patch >= 0.9
    assert ((patch <= 0.1) | bright).all()
    assert patch.min() >= 0
    assert patch.max() <= 1
    # A disc has at least π·30² pixels, less the ragged edge; a rectangle at most (2·59)².
    assert 0.95 * math.pi * 30**2 < int(bright.sum()) <= 118**2 * 1.05


def test_a_key_is_the_same_patch_on_every_grid() -> None:
    fine, coarse = (random_patch(grid, seed=3, key="a") for grid in ((56, 56), (7, 7)))
    assert torch.allclose(F.avg_pool2d(fine[None], 8)[0], coarse, atol=1e-6)


def test_patches_belong_to_seed_and_key() -> None:
    first = random_patch((7, 7), seed=0, key="a")
    assert torch.equal(first, random_patch((7, 7), seed=0, key="a"))
    assert not torch.equal(first, random_patch((7, 7), seed=1, key="a"))
    assert not torch.equal(first, random_patch((7, 7), seed=0, key="b"))
