"""Euclidean lengths of whole images, the same whatever the batch."""

from torch import Tensor


def lengths(offsets: Tensor) -> Tensor:
    """L2 norms (N,) of ``offsets`` (N, C, H, W), in float64.

    Rows of pixels are summed first, then the rows: where one image's sum is made in one go, a machine with several
    threads splits it among them if the image is alone and not if it is one of many, and the last digits differ.
    """
    rows = offsets.contiguous().double().square().sum(dim=-1)
    return rows.sum(dim=(1, 2)).sqrt()
