"""Files of a masking network's weights: safetensors, with what they belong to as JSON in the header."""

import json
from collections.abc import Iterator, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from underfire.errors import InputError
from underfire.files import write_whole

_KEY = "underfire"  # of the header's metadata


def write_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write ``tensors`` and the JSON values ``about`` them to ``path``; the file appears whole or not at all."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_whole(path, safetensors.torch.save(plain, metadata={_KEY: json.dumps(about)}))


def read_about(path: Path) -> dict[str, Any]:
    """What the file at ``path`` says of its tensors.

    Raises:
        InputError: there is no such file, or it was not written by :func:`write_weights`.
    """
    if not path.is_file():
        raise InputError(f"'{path}' is no file; give weights that `underfire train rts` wrote.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
        about = json.loads(text or "null")
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is damaged or no safetensors file; train the weights again.") from error
    if not isinstance(about, dict):
        raise InputError(
            f"'{path}' does not say what it was trained for; give a file that `underfire train rts` wrote."
        )
    return about


def shipped() -> Iterator[Path]:
    """The weights that come with the package."""
    with as_file(files("underfire.interpreters") / "weights") as folder:
        yield from sorted(folder.glob("*.safetensors"))
