"""Linear models of what a classifier says of an image with segments hidden, by least squares.

Which segments are shown, and what each look weighs, is settled before any look: so the coefficients are linear in the
values, and here are matrices.
"""

import torch
from torch import Tensor


def ridge(shown: Tensor, weights: Tensor, penalty: float) -> Tensor:
    """Weighted ridge regression with an intercept, which is not penalised.

    Args:
        shown: (K, d) of 0 and 1, float64.
        weights: (K,) above 0.
        penalty: on the sum of squares of the coefficients.

    Returns:
        (K, d), so that the coefficients of values (K,) are values @ it.
    """
    shares = weights / weights.sum()
    centred = shown - shares @ shown
    gram = centred.T @ (weights[:, None] * centred) + penalty * torch.eye(shown.shape[1], dtype=shown.dtype)
    coefficients: Tensor = torch.linalg.solve(gram, (weights[:, None] * centred).T)
    return coefficients.T


def efficient(shown: Tensor, weights: Tensor, *, whole: int, none: int) -> Tensor:
    """Least squares whose coefficients add up to the value of the whole image less that of none of it.

    Args:
        shown: (K, d) of 0 and 1, float64.
        weights: (K,) not below 0; of no account for the two rows that follow.
        whole, none: the rows in which all and no segments are shown.

    Returns:
        (K, d), as :func:`ridge`.
    """
    count, d = shown.shape
    unit, ends = torch.eye(count, dtype=shown.dtype), torch.zeros(count, dtype=shown.dtype)
    ends[whole], ends[none] = 1, -1  # of values: the change that the coefficients share out
    weighed = weights[:, None] * shown
    gram = weighed.T @ shown
    # Where the looks leave coefficients open, those nearest to an even share are taken.
    gram = gram + 1e-9 * gram.diagonal().mean() * torch.eye(d, dtype=shown.dtype)
    free: Tensor = torch.linalg.solve(gram, weighed.T @ (unit - unit[none]))  # (d, K), before they have to add up
    even: Tensor = torch.linalg.solve(gram, torch.ones(d, 1, dtype=shown.dtype))
    return (free + even * (ends - free.sum(dim=0)) / even.sum()).T
