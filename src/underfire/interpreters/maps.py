"""From raw attributions to attribution maps, differentiably."""

from torch import Tensor
from torch.nn import functional as F

POOL = 4  # side of the mean pool of pixel-wise attributions (224² pixels give a 56² map)


def min_max(raw: Tensor) -> Tensor:
    """Each map of ``raw`` (N, h, w) scaled to [0, 1] by its own minimum and maximum; a constant map becomes 0."""
    low = raw.amin(dim=(1, 2), keepdim=True)
    span = raw.amax(dim=(1, 2), keepdim=True) - low
    return (raw - low) / span.where(span > 0, 1.0)


def saliency(attributions: Tensor) -> Tensor:
    """Maps (N, H/4, W/4) of pixel-wise ``attributions`` (N, C, H, W): channel maximum of |·|, pooled, min–max."""
    pooled = F.avg_pool2d(attributions.abs().amax(dim=1, keepdim=True), POOL)
    return min_max(pooled.squeeze(1))


def saliency_grid(input_size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of :func:`saliency` maps for images of ``input_size``."""
    return (input_size[0] // POOL, input_size[1] // POOL)


def distance(maps: Tensor, target: Tensor) -> Tensor:
    """Interpretation loss (N,): mean |maps − target| over the grid, the L1 measure itself."""
    return (maps - target).abs().mean(dim=(1, 2))
