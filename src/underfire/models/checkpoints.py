"""Weights from a file, without running code from it."""

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from underfire.errors import InputError

_WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training scripts keep the weights beside the optimizer's state and the like."""

_PREFIXES = ("module.", "_orig_mod.")
"""What ``DataParallel`` and ``torch.compile`` put before every key."""


def load_checkpoint(module: nn.Module, path: str | Path) -> None:
    """Put the weights of ``path`` into ``module``; all of them, or none are accepted.

    Args:
        module: the network; its parameters and buffers are overwritten in place.
        path: ``.safetensors``, or a file of ``torch.save`` that holds tensors and plain containers only.

    Raises:
        InputError: the file is missing, damaged, needs code to be run, or does not fit the network.
    """
    path = Path(path)
    _fit(module, read_state_dict(path), path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, unwrapped and without a prefix that all keys share.

    Raises:
        InputError: as for ``load_checkpoint``.
    """
    if not path.exists():
        raise InputError(f"checkpoint '{path}' does not exist; give a .safetensors file or one of torch.save.")
    if not path.is_file():
        raise InputError(f"checkpoint '{path}' is not a file; give a .safetensors file or one of torch.save.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return _without_prefix(_tensors(_unwrapped(content), path))


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"checkpoint '{path}' is damaged or no safetensors file: {_line(error)}.") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code is None:
            raise InputError(f"checkpoint '{path}' is damaged or was not written by torch.save.") from error
        raise InputError(
            f"checkpoint '{path}' needs to run code ({code[1]}) to be read, so it is refused; "
            "save the model's state_dict() or convert it to safetensors."
        ) from error
    except Exception as error:  # on bytes that are not a checkpoint the unpickler fails in any way there is
        raise InputError(f"checkpoint '{path}' is damaged or was not written by torch.save.") from error


def _unwrapped(content: Any) -> Any:
    if isinstance(content, Mapping):
        for key in _WRAPPERS:
            if isinstance(content.get(key), Mapping):
                return content[key]
    return content


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"checkpoint '{path}' has a {type(content).__name__} where a state_dict() is needed.")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(
                f"checkpoint '{path}' has a {type(value).__name__} under {key!r} where a state_dict() "
                "has a tensor; save the model's state_dict()."
            )
    return dict(content)


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _fit(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = module.state_dict()
    mismatched = [
        f"{key} ({_shape(value)} in the file, {_shape(own[key])} in the model)"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    if mismatched:
        raise InputError(f"checkpoint '{path}' does not fit the model: {_few(mismatched, 'of another shape')}.")
    # Not strict: batch norm knows which of its buffers an older file may lack; the rest is refused below.
    keys = module.load_state_dict(state, strict=False)
    faults = []
    if keys.missing_keys:
        faults.append(_few(keys.missing_keys, "missing"))
    if keys.unexpected_keys:
        faults.append(_few(keys.unexpected_keys, "not in the model"))
    if faults:
        raise InputError(f"checkpoint '{path}' does not fit the model: {' and '.join(faults)}.")


def _few(items: Iterable[str], fault: str, shown: int = 3) -> str:
    items = list(items)
    more = ", …" if len(items) > shown else ""
    return f"{len(items)} {'key' if len(items) == 1 else 'keys'} {fault}: {', '.join(items[:shown])}{more}"


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
