"""What the page's script works with: figures of the photos that are shown, and a list of all photos, packed."""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from markupsafe import Markup

from underfire.auditing.condition import NONE, PGD, Condition
from underfire.auditing.grid import RowGrid
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.summary import KEPT_IOU, Summary
from underfire.present.text import class_title, interpreter_title, of
from underfire.stats import Share

LIST_BYTES = 1_500_000
"""Of the packed list of photos."""

_HUNDREDTHS, _THOUSANDTHS = 100, 1000


@dataclass(frozen=True)
class Pair:
    """An attack and the interpreter whose map is looked at: ADV² on it, or PGD.

    Attributes:
        index: its number among the pairs.
        condition, interpreter: their numbers among the lines and the columns of a photo.
        title: in words.
        whole: its JSR@τ on all photos, on the saved image.
    """

    index: int
    condition: int
    interpreter: int
    title: str
    whole: str


@dataclass(frozen=True)
class Listing:
    """All photos that were attacked, or as many as there is room for.

    Attributes:
        packed: JSON, deflated, in base64.
        places: by the id of a photo, its place in the list.
        n, total: how many photos are in it, and how many there are.
    """

    packed: str
    places: Mapping[str, int]
    n: int
    total: int


@dataclass(frozen=True)
class _Line:
    """Of one photo, by pair: what became of its map ("k" kept, "m" moved, "x" label missed, "-" no row), IoU, L1."""

    outcomes: str
    iou: tuple[int, ...]
    l1: tuple[int, ...]


def lines_of(summary: Summary) -> list[Condition]:
    """The conditions in the order in which a photo shows them: the benign input first, were it not measured."""
    return [NONE, *(condition for condition in summary.conditions if condition != NONE)]


def pairs_of(summary: Summary) -> tuple[Pair, ...]:
    """For every interpreter that was attacked by itself, ADV² on it and PGD."""
    lines = lines_of(summary)
    found: list[Pair] = []
    for headline in summary.headlines:
        title = interpreter_title(headline.interpreter)
        for condition, kept in ((headline.condition, headline.kept), (PGD, headline.kept_pgd)):
            if condition in lines and kept.n:
                named = condition.title if condition != PGD else f"PGD, map of {title}"
                place = summary.interpreters.index(headline.interpreter)
                found.append(Pair(len(found), lines.index(condition), place, named, _whole(kept)))
    return tuple(found)


def _whole(kept: Share) -> str:
    return f"{of(kept)} ({100 * (kept.value or 0):.0f} %)"


class PhotoList:
    """Takes in the rows of photos, and packs what the list says of them."""

    def __init__(self, summary: Summary) -> None:
        conditions = lines_of(summary)
        self._places = [(conditions[p.condition], summary.interpreters[p.interpreter]) for p in pairs_of(summary)]
        self._lines: dict[str, _Line] = {}

    def add(self, grid: RowGrid) -> None:
        """The rows of some photos."""
        outcomes, iou, l1 = [], [], []
        for place in self._places:
            lines = grid.lines(*place)
            there = lines >= 0
            reached = there & (grid.values("success_8bit", lines) > 0)
            overlap, distance = (np.where(there, grid.values(f"{m}_8bit", lines), 0) for m in ("iou_50", "l1"))
            kept = overlap >= KEPT_IOU
            outcomes.append(np.where(~there, "-", np.where(~reached, "x", np.where(kept, "k", "m"))))
            iou.append(np.rint(_HUNDREDTHS * overlap).astype(int))
            l1.append(np.rint(_THOUSANDTHS * distance).astype(int))
        for photo in np.flatnonzero(grid.attacked).tolist():
            numbers = (tuple(int(column[photo]) for column in columns) for columns in (iou, l1))
            self._lines[grid.photos[photo]] = _Line("".join(str(column[photo]) for column in outcomes), *numbers)

    def packed(
        self,
        photos: Sequence[PlannedPhoto],
        wanted: Iterable[str],
        names: Mapping[str, str],
        *,
        budget: int = LIST_BYTES,
    ) -> Listing:
        """The list of ``photos``, at even distances and with those ``wanted`` where not all fit into ``budget`` bytes.

        Args:
            photos: those that were attacked, in the order of the run.
            wanted: the ids of photos that are to be in it.
            names: of the classes, by index as text.
            budget: of the packed list.
        """
        first, every = set(wanted), [photo for photo in photos if photo.image_id in self._lines]
        count = len(every)
        while True:
            spread = set((np.arange(count) * len(every) // max(1, count)).tolist())
            some = [photo for place, photo in enumerate(every) if place in spread or photo.image_id in first]
            packed = _packed(self._content(some, names))
            if len(packed) <= budget or count == 0:
                places = {photo.image_id: place for place, photo in enumerate(some)}
                return Listing(packed, places, len(some), len(photos))
            count = min(count // 2, count * budget // len(packed))

    def _content(self, photos: Sequence[PlannedPhoto], names: Mapping[str, str]) -> dict[str, Any]:
        classes = sorted({index for photo in photos for index in (photo.label, photo.target)})
        places = {index: place for place, index in enumerate(classes)}
        lines, pairs = [self._lines[photo.image_id] for photo in photos], range(len(self._places))
        return {
            "names": [photo.image_id for photo in photos],
            "classes": [class_title(index, names) for index in classes],
            "labels": [places[photo.label] for photo in photos],
            "targets": [places[photo.target] for photo in photos],
            "outcomes": ["".join(line.outcomes[pair] for line in lines) for pair in pairs],
            "iou": [[line.iou[pair] for line in lines] for pair in pairs],
            "l1": [[line.l1[pair] for line in lines] for pair in pairs],
        }


def _packed(content: Any) -> str:
    text = json.dumps(content, separators=(",", ":"))  # in ASCII
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


@dataclass(frozen=True)
class Script:
    """The page's script, and the hash that its policy names: no other script runs in the page.

    Attributes:
        text: what stands in the element.
        sha256: of it, in base64.
    """

    text: Markup
    sha256: str


def script() -> Script:
    """`explorer.js`."""
    text = (files("underfire.report") / "explorer.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return Script(Markup(text), digest)  # noqa: S704 - ours


def script_data(
    summary: Summary, sample: Mapping[str, tuple[str, Mapping[tuple[Condition, str], bool]]], listing: Listing
) -> Markup:
    """What the script reads, as JSON that cannot end its element.

    Args:
        summary: of the run.
        sample: by the id of an element of the page, the photo that it shows, and by condition and interpreter whether
            the label was reached on the saved image.
        listing: of all photos.
    """
    pairs, conditions = pairs_of(summary), lines_of(summary)
    places = [(conditions[pair.condition], summary.interpreters[pair.interpreter]) for pair in pairs]
    content = {
        "benign": conditions.index(NONE),
        "interpreters": [interpreter_title(name) for name in summary.interpreters],
        "pairs": [{"index": p.index, "condition": p.condition, "interpreter": p.interpreter} for p in pairs],
        "sample": {
            element: {"place": listing.places.get(image_id, -1), "reached": [reached.get(place) for place in places]}
            for element, (image_id, reached) in sample.items()
        },
        "list": listing.packed,
    }
    text = json.dumps(content, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 - no sign of markup is left in it
