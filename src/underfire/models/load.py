"""From a model's name to a classifier."""

from collections.abc import Sequence
from pathlib import Path

import torch

from underfire.errors import InputError
from underfire.models.checkpoints import load_checkpoint
from underfire.models.class_names import read_class_names
from underfire.models.classifier import Classifier
from underfire.models.sources import Recipe, find

DEFAULT_MODEL = "efficientnet-lite0"


def load_classifier(
    spec: str = DEFAULT_MODEL,
    *,
    checkpoint: str | Path | None = None,
    class_names: str | Path | Sequence[str] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    input_size: int | tuple[int, int] | None = None,
    resize: int | None = None,
    device: str | torch.device = "cpu",
) -> Classifier:
    """The classifier that ``spec`` names, ready to be audited; the global random state is left as it was.

    Args:
        spec: a built-in model (``efficientnet-lite0``, ``1``, ``2``), ``torchvision:NAME``, ``timm:NAME``, or
            ``package.module:function``, a function without arguments that returns a ``torch.nn.Module`` or a
            ``Classifier``; modules of the current directory can be named.
        checkpoint: weights to use in place of the source's own: ``.safetensors``, or a file of ``torch.save``
            that holds nothing but tensors and plain containers.
        class_names: the names in the order of the outputs, or a file of them (``read_class_names``). With a
            checkpoint for a built-in or a library's model, their number is the number of outputs.
        mean, std: per-channel normalisation of pixels in [0, 1]; by default the model's own, none for a
            module that a function returned.
        input_size: height and width in pixels, one number for a square; by default the model's own.
        resize: short side in pixels that photos are resized to before the centre crop; by default the crop's
            share of the photo is the model's own, or all that fits where that is not known.
        device: where the model goes.

    Raises:
        InputError: the model, the checkpoint, the names or an option cannot be used; the sentence says which.
    """
    options = {
        "checkpoint": checkpoint, "class_names": class_names, "mean": mean, "std": std, "input_size": input_size,
        "resize": resize,
    }  # fmt: skip
    target = _device(device)
    names = None if class_names is None else read_class_names(class_names)
    with torch.random.fork_rng(devices=[]):  # networks draw initial weights
        found = find(spec, pretrained=checkpoint is None, num_classes=None if names is None else len(names))
    if isinstance(found, Classifier):
        _refuse(spec, [option for option, value in options.items() if value is not None])
        return found.to(target)
    if checkpoint is not None:
        load_checkpoint(found.module, checkpoint)
    size = found.input_size if input_size is None else input_size
    if size is None:
        raise InputError(
            f"model '{spec}' returns a bare module, whose input size is not known; give input_size in pixels, as 224."
        )
    return Classifier(
        found.module,
        mean=_first(mean, found.mean, 0.0),
        std=_first(std, found.std, 1.0),
        input_size=size,
        resize=_resize(found, size) if resize is None else resize,
        class_names=found.class_names if names is None else names,
        name=spec,
    ).to(target)


def _refuse(spec: str, given: Sequence[str]) -> None:
    """Refuses options that would count for nothing."""
    if given:
        raise InputError(
            f"model '{spec}' returns a finished Classifier, which {' and '.join(given)} cannot change; "
            "set them in the function, or let it return the bare module."
        )


def _first(
    given: float | Sequence[float] | None, own: Sequence[float] | None, default: float
) -> float | Sequence[float]:
    if given is not None:
        return given
    return default if own is None else own


def _resize(recipe: Recipe, size: int | tuple[int, int]) -> int | None:
    """The short side that keeps the share of the photo in the crop, whatever the input size."""
    if recipe.resize is None or recipe.input_size is None:
        return None
    side = size if isinstance(size, int) else min(size)
    return round(side * recipe.resize / min(recipe.input_size))


def _device(device: str | torch.device) -> torch.device:
    """Check the device before anything is loaded for it.

    Raises:
        InputError: there is no such device here.
    """
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
        usable = "cpu" if here is None else f"cpu or {here}"
        raise InputError(f"device '{device}' cannot be used here; give {usable}.") from error
    return target
