"""The maps among a photo's artifacts, as they are read: whoever wrote the file, they are maps."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from underfire.errors import InputError
from underfire.files import quoted, read_regular_file

_TYPES = {"F32": np.float32, "F16": np.float16}
_MOST_BYTES = 2**30  # of one photo's maps
_SLACK = 1e-3


def read_maps(path: Path, size: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    """The maps (h, w) in a safetensors file, by name.

    Raises:
        InputError: it is a link or no file, or holds something else than float maps in [0, 1] of at most ``size``,
            (height, width).
    """
    try:
        data = read_regular_file(path, limit=_MOST_BYTES, follow_links=False)
        tensors = deserialize(data)  # type: ignore[no-untyped-call]
        return {name: _map(name, facts["dtype"], facts["shape"], facts["data"], size) for name, facts in tensors}
    except (SafetensorError, ValueError) as error:
        reason = str(error).removesuffix(".")
        raise InputError(f"{quoted(path)} does not hold maps that can be read: {reason}.") from error


def _map(name: str, dtype: str, shape: list[int], data: bytes, size: tuple[int, int]) -> NDArray[np.float32]:
    """Raises ValueError, a clause, for what is no map."""
    if dtype not in _TYPES or len(shape) != 2 or not all(1 <= n <= most for n, most in zip(shape, size, strict=True)):
        raise ValueError(f"{quoted(name)} is of shape {shape} and type {dtype}")
    values = np.frombuffer(data, _TYPES[dtype], count=math.prod(shape)).reshape(shape).astype(np.float32)
    if not (values.min() >= -_SLACK and values.max() <= 1 + _SLACK):  # NaN is not, either
        raise ValueError(f"{quoted(name)} goes from {values.min():g} to {values.max():g}, and a map from 0 to 1")
    return values
