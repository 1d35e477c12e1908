"""Random numbers that belong to a name, never to a batch.

Every random draw of underfire is made from a seed and the identity of the image it is for, so that the same row
comes out whatever the batch size, the order, the shard or the moment of a resume.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.devices import sent
from underfire.errors import InputError


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for ``names`` (an image id, a purpose, a step …) under the user's ``seed``."""
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for ``names``; the same on every device and in every process."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def twin(draw: torch.Generator) -> torch.Generator:
    """A generator of its own in the same state: one image may keep another company under the same key."""
    other = torch.Generator()
    other.set_state(draw.get_state())
    return other


def uniform(draws: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Random numbers (N,) in [0, 1), one of each of the ``draws``, in the type of ``like`` and where that is."""
    numbers = [float(torch.rand((), generator=draw, dtype=torch.float64)) for draw in draws]
    return sent(torch.tensor(numbers, dtype=like.dtype), like)


def content_key(image: Tensor) -> str:
    """The identity of an image (any shape) by its values, for callers that name none."""
    data = image.detach().to("cpu").contiguous().numpy().tobytes()
    return hashlib.sha256(data).hexdigest()[:16]


def owners(x: Tensor, keys: Sequence[str] | None) -> tuple[str, ...]:
    """The names that own the images' random numbers: ``keys``, or the images' own content.

    Raises:
        InputError: not one key per image.
    """
    names = tuple(map(content_key, x)) if keys is None else tuple(keys)
    if len(names) != x.shape[0]:
        raise InputError(f"{len(names)} keys were given for {x.shape[0]} images; give one per image.")
    return names
