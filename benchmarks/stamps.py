"""Pictures whose object is known to the pixel: a stamp, whose alpha channel is its outline, on a background of noise.

Made for the stamps of Tux Paint (Debian's package tuxpaint-stamps-default, in /usr/share/tuxpaint/stamps), which are
not part of this repository.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from underfire import Classifier
from underfire.errors import InputError
from underfire.files import quoted
from underfire.interpreters.faithfulness import blurred
from underfire.seeding import generator

PHOTOGRAPHIC = ("animals", "food", "hobbies", "household", "sports", "vehicles")
"""The folders of Tux Paint that hold photos of things that a classifier may know."""

DRAWN = frozenset({"cartoon", "toys"})
"""Folders within them that hold drawings."""

SIZES = (0.5, 0.9)
"""The longer side of a stamp as a share of the picture's shorter side, drawn evenly from this range."""

_SMOOTH = 16.0  # standard deviation in pixels of the blur of the background
_GREYS = (0.25, 0.75)  # range of the background's values
_COLOUR = 0.3  # contrast of the colours, as a share of that of the grey
_OPAQUE = 0.5  # alpha from which on a pixel belongs to the object
_SMALLEST = 64  # pixels of the longer side: a smaller stamp would be enlarged to a smear


@dataclass(frozen=True)
class Scenes:
    """N pictures, each of one object.

    Attributes:
        names: of the stamps, as they are in their folder.
        x: (N, 3, H, W) in [0, 1], whole grey levels.
        inside: bool (N, H, W), the pixels of the object.
        classes: (N,) int64, what the classifier sees in the picture.
        tried: how many stamps were looked at; the others are no object to the classifier.
    """

    names: tuple[str, ...]
    x: Tensor
    inside: Tensor
    classes: Tensor
    tried: int


def find_stamps(folder: Path) -> list[Path]:
    """The photographic stamps in ``folder``, or, where it has none of Tux Paint's folders, all its PNGs; sorted.

    Raises:
        InputError: there are none.
    """
    roots = [folder / name for name in PHOTOGRAPHIC if (folder / name).is_dir()] or [folder]
    found = sorted(path for root in roots for path in root.rglob("*.png"))
    found = [path for path in found if not DRAWN & set(path.relative_to(folder).parts)]
    if not found:
        raise InputError(f"{quoted(folder)} holds no PNG; give the folder of Tux Paint's stamps")
    return found


def compose(stamp: Path, size: tuple[int, int], *, seed: int, key: str) -> tuple[Tensor, Tensor] | None:
    """The stamp at a random size and place on a background of its own, both drawn for ``seed`` and ``key``.

    Returns:
        The picture (3, H, W) in [0, 1], whole grey levels, and bool (H, W), the pixels of the object; or None for a
        stamp that is too small to be shown.
    """
    with Image.open(stamp, formats=("PNG",)) as file:
        image = file.convert("RGBA")
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha >= 255 * _OPAQUE)).getbbox()
    if box is None or max(box[2] - box[0], box[3] - box[1]) < _SMALLEST:
        return None
    image = image.crop(box)
    draw = generator(seed, key, "scene")
    share, down, right = torch.rand(3, generator=draw, dtype=torch.float64).tolist()
    longest = (SIZES[0] + share * (SIZES[1] - SIZES[0])) * min(size)
    scale = longest / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    # Resized with its colours weighted by alpha, or what is hidden outside the outline would bleed into it.
    small = image.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS)
    stamped = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
    top, start = round(down * (size[0] - height)), round(right * (size[1] - width))
    layer = torch.zeros(4, *size)
    layer[:, top : top + height, start : start + width] = stamped
    picture = layer[:3] + (1 - layer[3]) * _background(size, draw)
    return (picture.clamp(0, 1) * 255).round() / 255, layer[3] >= _OPAQUE


def scenes(
    classifier: Classifier, stamps: Sequence[Path], folder: Path, *, limit: int, confidence: float, seed: int = 0
) -> Scenes:
    """The first ``limit`` stamps, in an order drawn for ``seed``, that the classifier takes for something.

    It does where its most probable class has at least ``confidence``: that class is then the picture's, be it the
    right one or not, since nothing but the stamp is there to be it. Stamps of fewer than 64 pixels are left out.

    Raises:
        InputError: there is no such stamp.
    """
    order = torch.randperm(len(stamps), generator=generator(seed, "order of stamps")).tolist()
    kept: list[tuple[str, Tensor, Tensor, int]] = []
    tried = 0
    for name, x, inside in _composed([stamps[place] for place in order], folder, classifier.input_size, seed):
        tried += 1
        x = x.to(classifier.device, classifier.dtype)
        p, predicted = classifier.probabilities(x[None])[0].max(dim=0)
        if p >= confidence:
            kept.append((name, x, inside, int(predicted)))
        if len(kept) == limit:
            break
    if not kept:
        raise InputError(
            f"on none of the {tried} stamps in {quoted(folder)} the classifier has a class at {confidence}; give others"
        )
    names, images, objects, classes = zip(*kept, strict=True)
    y = torch.tensor(classes, device=classifier.device)
    return Scenes(names, torch.stack(images), torch.stack(objects), y, tried)


def _composed(
    stamps: Sequence[Path], folder: Path, size: tuple[int, int], seed: int
) -> Iterator[tuple[str, Tensor, Tensor]]:
    for stamp in stamps:
        name = stamp.relative_to(folder).as_posix()
        made = compose(stamp, size, seed=seed, key=name)
        if made is not None:
            yield name, *made


def _background(size: tuple[int, int], draw: torch.Generator) -> Tensor:
    """Clouds (3, H, W), more grey than coloured: nothing that a classifier would know."""
    *colours, grey = blurred(torch.rand((1, 4, *size), generator=draw), _SMOOTH)[0]
    clouds: Tensor = grey + _COLOUR * torch.stack(colours)
    low, high = clouds.min(), clouds.max()
    return _GREYS[0] + (_GREYS[1] - _GREYS[0]) * (clouds - low) / (high - low)
