"""Networks that were exported for one image at a time."""

import torch
from torch import Tensor, nn

from underfire.models.frozen import frozen


class OneByOne(nn.Module):
    """Calls a module that takes one image for each of a batch."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """The rows (N, K) of images (N, C, H, W)."""
        return torch.cat([self.module(image) for image in x.split(1)])


def same_rows(module: nn.Module, oracle: nn.Module, shape: torch.Size) -> bool:
    """Whether ``module`` returns for three images of ``shape`` (C, H, W) what ``oracle`` does."""
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad(), frozen(module), frozen(oracle):
            found, wanted = module(x), oracle(x)
    except Exception:  # noqa: BLE001 - of a graph whose shapes are for one image: anything
        return False
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
