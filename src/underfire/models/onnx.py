"""Classifiers in files of ONNX, converted to PyTorch, so that they have gradients."""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from underfire.choices import Outputs
from underfire.errors import InputError
from underfire.files import quoted, read_regular_file
from underfire.images.preprocessing import Preprocessing
from underfire.models import onnx_graphs
from underfire.models.recipe import Recipe, import_optional

_LARGEST = 2**31 - 1
"""Bytes that a file of protocol buffers may have; larger networks keep their weights beside it."""


def onnx_file(spec: str, name: str, *_: object) -> Recipe:
    """The classifier in the file ``name``, without its last softmax, with its channels first.

    Raises:
        InputError: it cannot be read or converted, or keeps weights outside its folder.
    """
    onnx = import_optional("onnx", spec, extra="onnx")
    converter = import_optional("onnx2torch", spec, extra="onnx")
    path = Path(name)
    try:
        model = _read(onnx, path)
        module, channels = _converted(onnx, converter, model)
    except InputError as error:
        raise InputError(f"model '{spec}' cannot be loaded from {quoted(path)}: {error}.") from error
    height, width = (dim.dim_value for dim in onnx_graphs.only_input(model.graph).type.tensor_type.shape.dim[2:])
    outputs: Outputs | None = "sigmoid" if onnx_graphs.ends_in_sigmoid(model.graph) else None
    if not height or not width or channels is None:
        return Recipe(module, outputs=outputs)
    own = Preprocessing(input_size=(height, width), resize=min(height, width), channels=channels)
    return Recipe(module, own, outputs=outputs)


def _read(onnx: ModuleType, path: Path) -> Any:
    """The graph, with names of ours, and its weights."""
    data = read_regular_file(path, limit=_LARGEST)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # of a parser fed hostile bytes
        raise InputError(f"it is damaged or no file of ONNX ({onnx_graphs.shown(error)})") from error
    onnx_graphs.check_plain(model)
    onnx_graphs.check_external(model, path.parent)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except Exception as error:
        raise InputError(f"it breaks the rules of ONNX ({onnx_graphs.shown(error)})") from error
    onnx_graphs.rename(model.graph)
    onnx_graphs.keep_scores(model.graph, onnx)
    return model


def _converted(onnx: ModuleType, converter: ModuleType, model: Any) -> tuple[nn.Module, int | None]:
    channels = onnx_graphs.channels_first(model.graph, onnx)
    before = type(model).FromString(model.SerializeToString())
    fixed = onnx_graphs.any_batch(model.graph, onnx)
    try:
        if fixed is None:
            return converter.convert(model).eval(), channels
        if fixed != 1:
            raise InputError(f"it takes {fixed} images at a time; export it for any number of them, or for one")
        alone = converter.convert(before).eval()
        try:
            several = converter.convert(model).eval()
        except Exception:  # noqa: BLE001 - its shapes are for one image
            return alone, channels
    except InputError:
        raise
    except Exception as error:  # operators that the converter has not got, and graphs that contradict themselves
        raise InputError(f"it cannot be converted to PyTorch ({onnx_graphs.shown(error)})") from error
    shape = [dim.dim_value for dim in onnx_graphs.only_input(model.graph).type.tensor_type.shape.dim[1:]]
    fits = all(shape) and _same_rows(several, alone, torch.Size(shape))
    return several if fits else alone, channels


def _same_rows(module: nn.Module, alone: nn.Module, shape: torch.Size) -> bool:
    """Whether ``module`` returns for three images of ``shape`` (C, H, W) what ``alone`` does for each."""
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            found, wanted = module(x), torch.cat([alone(image) for image in x.split(1)])
    except Exception:  # noqa: BLE001 - of a graph whose shapes are for one image: anything
        return False
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
