"""Named photos as tensors of a network's input size: for training, detectors and studies."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.images import Photo, Preprocessing, load_photo
from underfire.seeding import derive_seed

_LARGER = 1.25  # photos are kept this much larger than the input, so that a crop is not enlarged much
_CACHED = 4096  # photos kept decoded: 1 GB at an input of 224


class NetworkInput(Protocol):
    """What photos are brought to: a classifier has it all."""

    @property
    def preprocessing(self) -> Preprocessing:
        """Of photos."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the images."""
        ...

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        ...


@dataclass(frozen=True)
class NamedPhoto:
    """One photo: its name, its file, and the hash of the file's bytes."""

    image_id: str
    path: Path
    sha256: str


class Photos:
    """Photos as 8-bit tensors, decoded once where they fit into memory.

    Args:
        sources: the photos, in order.
        classifier: whose input they are for.
        larger: how much larger than the input they are.
    """

    def __init__(self, sources: Sequence[NamedPhoto], classifier: NetworkInput, *, larger: float = 1.0) -> None:
        self.sources = tuple(sources)
        self._preprocessing = classifier.preprocessing.enlarged(larger)
        self._dtype = classifier.dtype
        self._decoded: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Tensor:
        """Photo ``index`` (C, H, W) in [0, 1]."""
        pixels = self._decoded.get(index)
        if pixels is None:
            pixels = load_photo(self.sources[index].path, self._preprocessing).pixels
            if len(self._decoded) < _CACHED:
                self._decoded[index] = pixels
        return pixels.to(self._dtype) / 255


@dataclass(frozen=True)
class Split:
    """Photos to train on, larger than the input so that crops can be taken, and photos that are kept out."""

    train: Photos
    held_out: Photos


def split_photos(sources: Sequence[NamedPhoto], held_out: frozenset[str], classifier: NetworkInput) -> Split:
    """The ``sources`` in two, those named in ``held_out`` kept out.

    Raises:
        InputError: nothing is left on one side.
    """
    train = [source for source in sources if source.image_id not in held_out]
    out = [source for source in sources if source.image_id in held_out]
    if not train or not out:
        raise InputError(
            f"{len(train)} photos are left for training and {len(out)} are held out; give photos for both, or hold out"
            " fewer with --held-out."
        )
    return Split(Photos(train, classifier, larger=_LARGER), Photos(out, classifier))


def read_sources(photos: Sequence[Photo], classifier: NetworkInput) -> tuple[list[NamedPhoto], list[tuple[str, str]]]:
    """The photos that can be decoded, and the names of the others with the reason."""
    sources, skipped = [], []
    for photo in photos:
        try:
            loaded = load_photo(photo.path, classifier.preprocessing)
        except InputError as error:
            skipped.append((photo.image_id, str(error.__cause__ or error)))
            continue
        sources.append(NamedPhoto(photo.image_id, photo.path, loaded.sha256))
    return sources, skipped


def drawn(sources: Sequence[NamedPhoto], count: int, seed: int) -> frozenset[str]:
    """``count`` names of ``sources``, drawn by ``seed``; the same whatever else is among them but for the places."""
    names = sorted((source.image_id for source in sources), key=lambda name: derive_seed(seed, "held out", name))
    return frozenset(names[:count])


def stacked(images: Sequence[Tensor], classifier: NetworkInput) -> Tensor:
    """``images`` as one batch on the classifier's device."""
    return torch.stack(list(images)).to(classifier.device)
