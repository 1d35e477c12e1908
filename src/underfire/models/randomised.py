"""A classifier whose weights are random for a while, to see what depends on them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from underfire.models.classifier import Classifier
from underfire.seeding import generator


@contextmanager
def randomised(classifier: Classifier, *, seed: int = 0) -> Iterator[bool]:
    """Inside the block every weight of ``classifier`` is random; afterwards all are what they were, to the bit.

    Each parameter becomes a draw from the normal law with its own mean and standard deviation, so that signals keep
    their size; where the module has no parameters, as some that were converted have none, its matrices and kernels
    among the buffers do. Running statistics stay. It is the module itself that changes, for interpreters that are made
    already look through it; other threads wait. Gives whether anything became random.

    Source: the model parameter randomization test of Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
    """
    with classifier.alone():
        weights = _weights(classifier)
        before = [weight.detach().clone() for weight in weights]
        try:
            with torch.no_grad():
                for index, weight in enumerate(weights):
                    weight.copy_(_drawn(weight, seed, index))
            yield bool(weights)
        finally:
            with torch.no_grad():
                for weight, value in zip(weights, before, strict=True):
                    weight.copy_(value)


def _weights(classifier: Classifier) -> list[Tensor]:
    """What is replaced: tensors of several floating-point numbers that are not all the same."""
    parameters: list[Tensor] = [p for p in classifier.module.parameters() if p.is_floating_point()]
    tensors = parameters or [b for b in classifier.module.buffers() if b.is_floating_point() and b.ndim > 1]
    return [tensor for tensor in tensors if tensor.numel() > 1 and bool(tensor.min() < tensor.max())]


def _drawn(weight: Tensor, seed: int, index: int) -> Tensor:
    draw = generator(seed, str(index), "randomised")
    noise = torch.randn(weight.shape, generator=draw, dtype=torch.float64)
    values = weight.detach().to("cpu", torch.float64)
    return (values.mean() + values.std() * noise).to(weight)
