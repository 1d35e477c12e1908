"""Which class an attack aims at."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches

import torch

from underfire.errors import InputError
from underfire.files import quoted
from underfire.images.labels import ClassFinder
from underfire.seeding import generator

POLICIES = ("random", "next", "given")
"""The words for targets; anything else is a class, by index or name."""

NO_TARGET = "no target given"
"""Why a photo is excluded for which "given" names no target."""


def class_index(text: str, class_names: Sequence[str]) -> int:
    """The class that ``text`` means: an index, a name, or an ImageNet synset; see `ClassFinder`.

    Raises `InputError` if there is no such class, or more than one.
    """
    try:
        return ClassFinder(class_names).find(text)
    except InputError as error:
        close = get_close_matches(text.strip().casefold(), [name.casefold() for name in class_names], n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "give an index or a class name"
        raise InputError(f"{error}; {hint}") from error


def choose_target(
    policy: str,
    *,
    image_id: str,
    label: int,
    shown: Collection[int],
    given: int | None,
    class_names: Sequence[str],
    seed: int,
) -> int:
    """The target class of one image.

    ``policy`` is "random", by (seed, image_id) and uniform over all classes but the label and those that the photo is
    seen as (``shown``), or if that leaves none over all but the label; "next", the class after the label; "given", the
    manifest's; otherwise one class for all photos.
    Raises `InputError` if that yields no class.
    """
    count = len(class_names)
    if policy == "random":
        taken = sorted({label, *shown})
        if count == len(taken):  # the photo is not attacked
            taken = [label]
        drawn = int(torch.randint(count - len(taken), (), generator=generator(seed, image_id, "target")))
        for index in taken:
            drawn += drawn >= index
        return drawn
    if policy == "next":
        return (label + 1) % count
    if policy == "given":
        if given is None:
            raise InputError(
                f"photo {quoted(image_id)} has no target; targets 'given' needs a manifest's column 'target'"
            )
        return given
    return class_index(policy, class_names)
