"""Gradients through the user's model, which may have none."""

from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.errors import InputError, ModelError
from underfire.plugins import described


def gradient(
    outputs: Tensor, inputs: Tensor, cotangent: Tensor | None = None, *, attached: bool = False, keep: bool = True
) -> Tensor:
    """The gradient of ``outputs`` in ``inputs``, in the shape of these; of several outputs with a ``cotangent``.

    With ``attached`` it has a graph of its own; unless ``keep`` the graph of ``outputs`` is given back on the way.

    Raises:
        ModelError: ``outputs`` do not depend on ``inputs`` by any graph, or something on the way has no derivative.
    """
    (found,) = gradients(outputs, (inputs,), cotangent, attached=attached, keep=keep, unused=False)
    assert found is not None  # noqa: S101 - torch raises where an input is not used
    return found


def gradients(
    outputs: Tensor,
    inputs: Sequence[Tensor],
    cotangent: Tensor | None = None,
    *,
    attached: bool = False,
    keep: bool = True,
    unused: bool = True,
) -> tuple[Tensor | None, ...]:
    """As :func:`gradient` in several ``inputs`` at once; with ``unused`` None for those that ``outputs`` don't read."""
    if not outputs.requires_grad:
        raise ModelError(
            "the model has no gradient: it works under no_grad or inference_mode, detaches its input, or leaves torch; "
            "take that out of it, or look at it with what needs no gradient (attack square, interpreter cam)."
        )
    try:
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            outputs, inputs, cotangent, create_graph=attached, retain_graph=keep or attached, allow_unused=unused
        )
    except InputError:  # of a hook of ours
        raise
    except Exception as error:  # a stranger's derivatives may raise anything
        raise ModelError(f"the model has no gradient: taking it fails with {described(error)}.") from error
    return found
