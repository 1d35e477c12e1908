"""From a model's name to a classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from underfire.choices import Crop, Interpolation, Outputs
from underfire.errors import InputError
from underfire.models.checkpoints import load_checkpoint
from underfire.models.class_names import read_class_names
from underfire.models.classifier import Classifier
from underfire.models.features import find_features
from underfire.models.recipe import Recipe
from underfire.models.sources import find

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
    interpolation: Interpolation | None = None,
    crop: Crop | None = None,
    bgr: bool | None = None,
    outputs: Outputs | None = None,
    layer: str | None = None,
    device: str | torch.device | None = None,
) -> Classifier:
    """The classifier that ``spec`` names, ready to be audited; the global random state is left as it was.

    Args:
        spec: a built-in model (``efficientnet-lite0``, ``1``, ``2``), ``torchvision:NAME``, ``timm:NAME``,
            ``hf:NAME_OR_FOLDER`` of transformers, ``onnx:FILE``, or code that this call runs: ``script:FILE`` of
            TorchScript, ``export:FILE`` of ``torch.export``, ``package.module:function`` or ``./file.py:function``, a
            function without arguments that returns a ``torch.nn.Module`` or a ``Classifier``; modules of the current
            directory can be named.
        checkpoint: weights to use in place of the source's own: ``.safetensors``, or a file of ``torch.save``
            that holds nothing but tensors and plain containers.
        class_names: the names in the order of the outputs, or a file of them (``read_class_names``). With a
            checkpoint for a built-in or a library's model, their number is the number of outputs.
        mean, std, input_size, resize, interpolation, crop, bgr, outputs: as for a `Classifier`; by default the model's
            own, for a bare module that a function returned the `Classifier`'s defaults. With another ``input_size`` the
            crop's share of the photo stays the model's own.
        layer: name of the layer whose output CAM, Grad-CAM and RTS read; by default it is found.
        device: where the model goes; by default it stays where it is made, the CPU unless a function says otherwise.

    Raises:
        InputError: the model, the checkpoint, the names or an option cannot be used; the sentence says which.
    """
    options = {
        "mean": mean, "std": std, "input_size": input_size, "resize": resize, "interpolation": interpolation,
        "crop": crop, "bgr": bgr, "outputs": outputs,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    target = None if device is None else _device(device)
    names = None if class_names is None else read_class_names(class_names)
    with torch.random.fork_rng(devices=[]):  # networks draw initial weights
        found = find(spec, pretrained=checkpoint is None, num_classes=None if names is None else len(names))
    if isinstance(found, Classifier):
        files = {"checkpoint": checkpoint, "class_names": class_names}
        _refuse(spec, [*(name for name, value in files.items() if value is not None), *given])
        return _reading(_moved(found, target), layer)
    if checkpoint is not None:
        load_checkpoint(found.module, checkpoint)
    classifier = Classifier(
        found.module,
        **_preprocessing(found, given, spec),
        class_names=found.class_names if names is None else names,
        name=spec,
    )
    return _reading(_moved(classifier, target), layer)


def _moved(classifier: Classifier, target: torch.device | None) -> Classifier:
    return classifier if target is None else classifier.to(target)


def _reading(classifier: Classifier, layer: str | None) -> Classifier:
    """``classifier``, whose features are at ``layer`` unless that is None; raises `InputError` if they cannot be."""
    if layer is not None:
        classifier.layer = layer
        find_features(classifier)
    return classifier


def _refuse(spec: str, given: Sequence[str]) -> None:
    """Refuses options that would count for nothing."""
    if given:
        raise InputError(
            f"model '{spec}' returns a finished Classifier, which {' and '.join(given)} cannot change; "
            "set them in the function, or let it return the bare module."
        )


def _preprocessing(recipe: Recipe, given: Mapping[str, Any], spec: str) -> dict[str, Any]:
    """The options of a `Classifier` that say what goes in and comes out: those ``given``, then the model's own."""
    given = given if recipe.outputs is None else {"outputs": recipe.outputs} | dict(given)
    own, size = recipe.preprocessing, given.get("input_size")
    if own is None:
        if size is None:
            raise InputError(
                f"model '{spec}' returns a bare module, whose input size is not known; give input_size in pixels, as"
                " 224."
            )
        return dict(given)
    if size is not None:
        own = own.at((size, size) if isinstance(size, int) else size)
    options = asdict(own) | dict(given)
    del options["channels"]  # they are tried out
    return options


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
