"""Classifiers of torchvision and timm, with the preprocessing that each was tested with."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from underfire.choices import Crop
from underfire.errors import InputError
from underfire.images.preprocessing import Preprocessing
from underfire.models.hub import check_download, hugging_face, weights_only
from underfire.models.recipe import IMAGENET, Recipe, import_optional, names_for, nearest
from underfire.plugins import described

_CROPS: Mapping[str, Crop] = MappingProxyType({"center": "center", "squash": "squash", "border": "letterbox"})
"""From timm's names."""


def torchvision_model(spec: str, name: str, pretrained: bool, num_classes: int | None) -> Recipe:
    """The classifier ``name`` of torchvision; raises `InputError` if it has none, or its weights cannot be had."""
    models = import_optional("torchvision", spec).models
    # Detection, segmentation and video share the registry; only the models of the top level classify photos.
    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"torchvision has no classifier '{name}'{nearest(name, known) or '.'}")
    weights = models.get_model_weights(name).DEFAULT
    classes = IMAGENET if pretrained or num_classes is None else num_classes
    if pretrained:
        try:
            check_download(weights.url)
            with weights_only():
                module = models.get_model(name, weights=weights, progress=False)
        except (OSError, RuntimeError, InputError) as error:  # no network; a file of another hash
            raise InputError(_no_download(spec, error)) from error
    else:
        module = models.get_model(name, num_classes=classes)
    test = weights.transforms()
    size = test.crop_size[0]
    return Recipe(
        module.eval(),
        Preprocessing(
            input_size=(size, size),
            resize=test.resize_size[0],
            mean=tuple(test.mean),
            std=tuple(test.std),
            interpolation=test.interpolation.value,
        ),
        class_names=names_for(classes),
    )


def timm_model(spec: str, name: str, pretrained: bool, num_classes: int | None) -> Recipe:
    """The model ``name`` of timm; raises `InputError` if it has none, or its weights cannot be had."""
    timm = import_optional("timm", spec, extra="timm")
    if not timm.is_model(name):
        raise InputError(f"timm has no model '{name}'{nearest(name, timm.list_models()) or '.'}")
    classes = {} if pretrained else {"num_classes": IMAGENET if num_classes is None else num_classes}
    try:
        with weights_only(), hugging_face():
            module = timm.create_model(name, pretrained=pretrained, **classes)
    except (OSError, RuntimeError) as error:  # no network; no weights under this name
        raise InputError(_no_download(spec, error)) from error
    test = timm.data.resolve_model_data_config(module)
    channels, height, width = test["input_size"]
    return Recipe(
        module.eval(),
        Preprocessing(
            input_size=(height, width),
            resize=math.floor(min(height, width) / test["crop_pct"]),
            mean=tuple(test["mean"]),
            std=tuple(test["std"]),
            interpolation=test["interpolation"],
            crop=_CROPS[test["crop_mode"]],
            channels=channels,
        ),
        class_names=names_for(module.num_classes),
    )


def _no_download(spec: str, error: Exception) -> str:
    why = str(error) if isinstance(error, InputError) else described(error)
    return f"the weights of '{spec}' cannot be had ({why}); give a checkpoint of your own."
