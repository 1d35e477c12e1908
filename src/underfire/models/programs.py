"""Programs of TorchScript and of torch.export. They are code: they run with the rights of whoever loads them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from underfire.errors import InputError
from underfire.files import open_regular_file, quoted, shortened
from underfire.images.preprocessing import Preprocessing
from underfire.models.recipe import Recipe
from underfire.plugins import described


def torchscript(spec: str, name: str, *_: object) -> Recipe:
    """The module that ``torch.jit.save`` wrote to the file ``name``, on the CPU; raises `InputError` if it is none."""
    load = partial(torch.jit.load, map_location="cpu")
    module: nn.Module = _loaded(spec, Path(name), load, "torch.jit.save")
    return Recipe(module)


def exported(spec: str, name: str, *_: object) -> Recipe:
    """The module that ``torch.export.save`` wrote to the file ``name``; raises `InputError` if it is none."""
    program = _loaded(spec, Path(name), torch.export.load, "torch.export.save")
    module: nn.Module = program.module()
    names = program.graph_signature.user_inputs
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise InputError(f"model '{spec}' takes {len(shapes)} inputs; a classifier takes one, images (N, C, H, W).")
    batch, channels, height, width = (side if isinstance(side, int) else None for side in shapes[0])
    if batch not in (None, 1):
        raise InputError(
            f"model '{spec}' takes {batch} images at a time; export it with torch.export.Dim for the batch, or for one."
        )
    if channels is None or height is None or width is None:
        return Recipe(module)
    return Recipe(module, Preprocessing(input_size=(height, width), resize=min(height, width), channels=channels))


def _loaded(spec: str, path: Path, load: Callable[[str], Any], writer: str) -> Any:
    try:
        open_regular_file(path).close()
    except InputError as error:
        raise InputError(f"model '{spec}' cannot be loaded from {quoted(path)}: {error}.") from error
    try:
        return load(str(path))
    except Exception as error:  # of bytes that are no program: whatever torch raises
        raise InputError(
            f"model '{spec}' cannot be loaded: {quoted(path)} is damaged or was not written by {writer}"
            f" ({shortened(described(error))})."
        ) from error
