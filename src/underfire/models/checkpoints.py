"""Weights from a file, without running code from it."""

import pickle
import re
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from underfire.errors import InputError
from underfire.files import shortened
from underfire.models.archives import check_archive
from underfire.plugins import described
from underfire.weights import oddity

_WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "net", "network", "weights", "params", "module"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher"),
)
"""Keys under which training scripts keep the weights beside the optimizer's state and the like. Where several fit, the
first is taken: the trained weights, not their moving average."""

_PREFIXES = ("", "module.", "model.", "net.", "network.")
"""What ``DataParallel`` and Lightning put before every key. Where several fit, the first is taken; others fit too."""

_COMPILED = "_orig_mod."
"""Stands before keys, or in their middle, where the network or a part of it was compiled."""

_LARGEST = 2**30
"""Bytes of a file that any model may have; more only up to ``_SHARE`` times those of the model itself."""

_SHARE = 32


@dataclass(frozen=True)
class _Found:
    """Tensors in a file that bear the names of the model's.

    Attributes:
        keys: under which they lie, the outermost first.
        prefix: what stands before their names.
        state: they, by the model's names.
    """

    keys: tuple[str, ...]
    prefix: str
    state: dict[str, Tensor]

    @property
    def rank(self) -> tuple[int, int, int]:
        """The lowest is taken."""
        outer = _WRAPPERS.index(self.keys[0]) if self.keys and self.keys[0] in _WRAPPERS else len(_WRAPPERS)
        prefix = _PREFIXES.index(self.prefix) if self.prefix in _PREFIXES else len(_PREFIXES)
        return len(self.keys), outer if self.keys else 0, prefix

    @property
    def place(self) -> str:
        """For a sentence."""
        return repr(shortened("".join(f"{key}/" for key in self.keys) + self.prefix))


def load_checkpoint(module: nn.Module, path: str | Path) -> None:
    """Put the weights of ``path`` into ``module``; all of them, or none are accepted.

    They may lie under a key of a training script's, and their names may share a prefix.

    Args:
        module: the network; its parameters and buffers are overwritten in place.
        path: ``.safetensors``, or a file of ``torch.save`` that holds tensors, plain containers and an
            ``argparse.Namespace`` only.

    Raises:
        InputError: the file is missing, damaged, needs code to be run, or does not fit the network.
    """
    module = getattr(module, "_orig_mod", module)
    path, own = Path(path), module.state_dict()
    state = _chosen(own, _content(path, sum(_bytes(value) for value in own.values())), path)
    _check_values(own, state, path)
    try:
        # Not strict: batch norm knows which of its buffers an older file may lack; the rest is refused below.
        keys = module.load_state_dict(state, strict=False)
    except Exception as error:  # a stranger's module may have its own way to load
        raise InputError(f"checkpoint '{path}' cannot be put into the model: {described(error)}.") from error
    faults = []
    if keys.missing_keys:
        faults.append(_few(keys.missing_keys, "missing"))
    if keys.unexpected_keys:
        faults.append(_few(keys.unexpected_keys, "not in the model"))
    if faults:
        raise InputError(f"checkpoint '{path}' does not fit the model: {' and '.join(faults)}.")


def _content(path: Path, own_bytes: int) -> Any:
    """What the file holds, read without running code from it."""
    advice = "give a .safetensors file or one of torch.save"
    if not path.exists():
        raise InputError(f"checkpoint '{path}' does not exist; {advice}.")
    if not path.is_file():
        raise InputError(f"checkpoint '{path}' is not a file; {advice}.")
    size, largest = path.stat().st_size, max(_LARGEST, _SHARE * own_bytes)
    if size > largest:
        raise InputError(
            f"checkpoint '{path}' has {size} bytes, and the model's weights {own_bytes}; save the model's state_dict()."
        )
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # of types that torch does not have, a KeyError; of odd headers, others
        raise InputError(f"checkpoint '{path}' is damaged or no safetensors file: {described(error)}.") from error


def _read_torch(path: Path) -> Any:
    try:
        check_archive(path)
    except InputError as error:
        raise InputError(f"checkpoint '{path}' {error}.") from error
    try:
        with torch.serialization.safe_globals([Namespace]):  # of arguments, whose attributes are plain values
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


def _chosen(own: Mapping[str, Any], content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of the file that are meant for the model's ``own``, by its names."""
    named = [found for keys, state in _state_dicts(content) for found in _under_prefixes(own, keys, _plain(own, state))]
    fitting = [found for found in named if all(_same_shape(own[key], found.state.get(key)) for key in own)]
    ranked = sorted(fitting or named, key=lambda found: found.rank)
    if not ranked:
        state = _plain(own, _tensors(_unwrapped(content), path))
        shared = next((p for p in _PREFIXES if p and all(key.startswith(p) for key in state)), "")
        return {key.removeprefix(shared): value for key, value in state.items()}
    first, *others = ranked
    if others and others[0].rank == first.rank:
        raise InputError(
            f"checkpoint '{path}' has weights for the model under {first.place} and {others[0].place}; "
            "save those you mean alone."
        )
    return first.state


def _state_dicts(content: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """The mappings from names to tensors in ``content``, up to two keys deep, each once."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while waiting:
        keys, mapping = waiting.pop()
        if not isinstance(mapping, Mapping) or id(mapping) in seen:
            continue
        seen.add(id(mapping))
        if mapping and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in mapping.items()):
            yield keys, dict(mapping)
        elif len(keys) < 2:
            waiting += [((*keys, key), value) for key, value in mapping.items() if isinstance(key, str)]


def _under_prefixes(own: Mapping[str, Any], keys: tuple[str, ...], state: Mapping[str, Tensor]) -> Iterator[_Found]:
    """``state`` without each prefix under which it has all names of ``own`` that a file must have."""
    needed = [key for key in own if not key.endswith("num_batches_tracked")]
    if not needed or len(state) < len(needed):
        return
    prefixes = dict.fromkeys(key.removesuffix(needed[0]) for key in state if key.endswith(needed[0]))
    for prefix in prefixes:
        if (not prefix or prefix.endswith(".")) and all(prefix + key in state for key in needed):
            inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            yield _Found(keys, prefix, inner)


def _plain(own: Mapping[str, Any], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` as it was before parts of the network were compiled, unless parts of the model are."""
    if any(_COMPILED in key for key in own):
        return state
    return {key.replace(_COMPILED, ""): value for key, value in state.items()}


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
            under = repr(shortened(key)) if isinstance(key, str) else f"a {type(key).__name__}"
            raise InputError(
                f"checkpoint '{path}' has a {type(value).__name__} under {under} where a state_dict() "
                "has a tensor; save the model's state_dict()."
            )
    return dict(content)


def _check_values(own: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that the model's cannot take without another meaning."""
    mismatched = [
        f"{shortened(key)} ({_shape(value)} in the file, {_shape(own[key])} in the model)"
        for key, value in state.items()
        if key in own and not _same_shape(own[key], value)
    ]
    if mismatched:
        raise InputError(f"checkpoint '{path}' does not fit the model: {_few(mismatched, 'of another shape')}.")
    for key, value in state.items():
        reason = oddity(value) or (_loss(value, own[key].dtype) if key in own else None)
        if reason is not None:
            raise InputError(
                f"checkpoint '{path}' has a tensor {shortened(key)!r} that is {reason}, and the model needs plain"
                " numbers of its own kind; save the state_dict() of the model in floating point."
            )


def _loss(value: Tensor, dtype: torch.dtype) -> str | None:
    """What ``value`` is, if numbers of ``dtype`` cannot stand for it; a rounding to fewer digits is no loss."""
    if value.is_complex() and not dtype.is_complex:
        return "complex"
    if dtype.is_floating_point:
        return None if value.is_floating_point() else f"of integers ({value.dtype})"
    whole = dtype.is_complex or bool((value.to(dtype).double() == value.double()).all())
    return None if whole else f"of {value.dtype} with values beyond {dtype}"


def _same_shape(own: Any, value: Tensor | None) -> bool:
    if value is None or not isinstance(own, Tensor) or value.is_nested:
        return True
    return own.shape == value.shape


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _few(items: Iterable[str], fault: str, shown: int = 3) -> str:
    items = list(items)
    more = ", …" if len(items) > shown else ""
    return (
        f"{len(items)} {'key' if len(items) == 1 else 'keys'} {fault}: {', '.join(map(shortened, items[:shown]))}{more}"
    )


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"
