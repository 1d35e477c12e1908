"""Weights: their fingerprint, and their files, which are safetensors with JSON in the header."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.files import write_whole

KEY = "underfire"
"""Of the JSON in a file's metadata."""


def fingerprint(tensors: Mapping[str, Tensor], *, preprocessing: tuple[object, ...] | None = None) -> str:
    """SHA-256 (hex) over the names, types, shapes and values of ``tensors``, as of a ``state_dict()``.

    ``preprocessing``, if any, is hashed before them by its ``repr``.

    Raises:
        InputError: one of them has no values to hash, as the packed weights of a quantised module.
    """
    digest = hashlib.sha256(b"" if preprocessing is None else repr(preprocessing).encode())
    for key, value in sorted(tensors.items()):
        reason = oddity(value)
        if reason is not None:
            raise InputError(f"the weight {key!r} is {reason}, which has no fingerprint; give the module before that.")
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def oddity(value: object) -> str | None:
    """In two words what ``value`` is, if it is no plain tensor whose numbers can be read one by one."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.is_quantized:
        return "quantised"
    if value.is_nested:
        return "a nested tensor"
    if value.layout != torch.strided:
        return f"sparse ({str(value.layout).removeprefix('torch.')})"
    return "without values (on the device 'meta')" if value.is_meta else None


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of the bytes of the file at ``path``; raises `OSError` if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write ``tensors`` and the JSON values ``about`` them to ``path``; the file appears whole or not at all."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_whole(path, safetensors.torch.save(plain, metadata={KEY: json.dumps(about)}))


def read_about(path: Path) -> dict[str, Any]:
    """What the file at ``path`` says of its tensors.

    Raises:
        InputError: there is no such file, or it was not written by :func:`write_weights`.
    """
    if not path.is_file():
        raise InputError(f"'{path}' is no file; give weights that `underfire train` wrote.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
        about = json.loads(text or "null")
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is damaged or no safetensors file; train the weights again.") from error
    if not isinstance(about, dict):
        raise InputError(f"'{path}' does not say what it was trained for; give a file that `underfire train` wrote.")
    return about


def shipped() -> Iterator[Path]:
    """The weights that come with the package."""
    with as_file(files("underfire.interpreters") / "weights") as folder:
        yield from sorted(folder.glob("*.safetensors"))
