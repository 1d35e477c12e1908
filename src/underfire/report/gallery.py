"""The pictures: one striking photo per interpreter, and every photo with its perturbations and maps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from underfire.auditing.condition import NOISE, NONE, PGD, Condition
from underfire.auditing.grid import RowGrid
from underfire.auditing.plan import PlannedPhoto
from underfire.auditing.rows import Row, rows_of_table
from underfire.auditing.run import Run
from underfire.auditing.store import RunDirectory, map_name
from underfire.auditing.summary import Summary
from underfire.present.pictures import Bytes, amplified, data_uri, gain_for, map_uri
from underfire.present.text import (
    class_title,
    interpreter_title,
    number,
    percent,
    style_of,
)
from underfire.report.artifacts import Artifacts, read_artifacts
from underfire.report.explorer import PhotoList, lines_of

_HERO_SIDE, _CHANGE_SIDE, _THUMB_SIDE = 300, 80, 72  # pixels of the longer side
_FEW = 12  # photos up to which their images are large
_LARGE, _SMALL = (300, 80), (144, 65)  # pixels and quality


@dataclass(frozen=True)
class Picture:
    """A picture or a map (None where the artifact is missing), what to say instead of it, and the numbers below it."""

    picture: str | None
    alt: str
    below: str = ""
    own: bool = False


@dataclass(frozen=True)
class ModelSays:
    """What the model says of an image, and whether the attacker wanted that (None where nobody attacked)."""

    label: str
    detail: str
    reached: bool | None


@dataclass(frozen=True)
class ImageLine:
    """One image of a photo: itself, what was changed, and its maps; ``place`` is its number among a photo's lines."""

    place: int
    title: str
    style: str
    verdict: ModelSays
    photo: Picture
    change: Picture | None
    maps: tuple[Picture, ...]


@dataclass(frozen=True)
class Tag:
    """A short result of one attack, for a line that is folded away."""

    text: str
    kept: bool


@dataclass(frozen=True)
class PhotoView:
    """One photo with everything that was done to it; ``element`` is its address in the page."""

    element: str
    name: str
    thumb: Picture
    benign: str | None
    label: str
    label_given: bool
    target: str
    sha256: str
    gain: int
    tags: tuple[Tag, ...]
    columns: tuple[str, ...]
    lines: tuple[ImageLine, ...]


@dataclass(frozen=True)
class Hero:
    """The benign photo, PGD's and ADV²'s, each with the map of one interpreter."""

    title: str
    name: str
    lines: tuple[ImageLine, ...]
    caption: str


@dataclass(frozen=True)
class Album:
    """The photos that are shown, as HTML by their ids, and how many were left out."""

    photos: Mapping[str, str]
    left_out: int


class Gallery:
    """Reads artifacts photo by photo and makes pictures of them; holds no pixels of its own.

    Args:
        run: the run directory.
        summary: of its rows.
        most: at most so many photos are shown: all that were attacked, or else as many at even distances in the order
            of the run.
    """

    def __init__(self, run: Run, summary: Summary, *, most: int) -> None:
        self._run, self._summary = run, summary
        attacked = run.attacked
        places = range(len(attacked)) if len(attacked) <= most else np.arange(most) * len(attacked) // most
        self._photos = {attacked[place].image_id: attacked[place] for place in places}
        self._size = _LARGE if len(self._photos) <= _FEW else _SMALL
        self._rows: dict[str, dict[tuple[Condition, str], Row]] = {image_id: {} for image_id in self._photos}
        self.listed = PhotoList(summary)
        wanted = pa.array(self._photos, pa.string())
        for table in run.found.tables():
            self.listed.add(RowGrid(table))
            for row in rows_of_table(table.filter(pc.is_in(table.column("image_id"), wanted))):
                self._rows[row.image_id][row.condition, row.interpreter] = row

    @property
    def photos(self) -> tuple[str, ...]:
        """The ids of the photos that it has pictures of."""
        return tuple(self._photos)

    def heroes(self) -> list[Hero]:
        """For every interpreter that was attacked by itself, the photo on which ADV² and PGD differ most.

        Only photos whose artifacts are there and whose label both attacks reached are looked at.
        """
        found = (self._hero(headline.interpreter, headline.condition) for headline in self._summary.headlines)
        return [hero for hero in found if hero is not None]

    def album(self, write: Callable[[PhotoView, int], str], *, budget: int) -> Album:
        """The photos, or as many at even distances as ``budget`` bytes hold.

        Args:
            write: HTML of a photo and its place, from 0 on.
            budget: of all HTML together.
        """
        ids = list(self._photos)
        written = {name: write(self._view(name, self._artifacts(name)), place) for place, name in enumerate(ids)}
        sizes = np.array([len(html.encode(errors="replace")) for html in written.values()])
        count = len(ids)
        while True:
            places = np.arange(count) * len(ids) // max(1, count)
            if sizes[places].sum() <= budget:
                shown = {ids[place]: written[ids[place]] for place in places}
                return Album(shown, len(self._run.attacked) - len(shown))
            count -= 1

    def sample(self, shown: Iterable[str]) -> dict[str, tuple[str, dict[tuple[Condition, str], bool]]]:
        """By its address in the page, each photo, and whether the label was reached on the saved image, by its maps."""
        return {
            element_of(self._photos[name]): (name, {place: r.saved.success for place, r in self._rows[name].items()})
            for name in shown
        }

    def _hero(self, interpreter: str, condition: Condition) -> Hero | None:
        gaps = []
        for image_id, rows in self._rows.items():
            own, pgd = rows.get((condition, interpreter)), rows.get((PGD, interpreter))
            if own is not None and own.saved.success and (pgd is None or pgd.saved.success):
                gaps.append(((pgd.saved.distances.l1 if pgd else 0.0) - own.saved.distances.l1, image_id))
        for _, image_id in sorted(gaps, key=lambda gap: (-gap[0], gap[1])):
            artifacts = self._artifacts(image_id)
            wanted = [name for name in (NONE, PGD, condition) if (name, interpreter) in self._rows[image_id]]
            if all(map_name(n, interpreter) in artifacts.maps and n in artifacts.pictures for n in wanted):
                lines = tuple(self._line(image_id, n, [interpreter], artifacts, (_HERO_SIDE, 80)) for n in wanted)
                return Hero(
                    interpreter_title(interpreter),
                    image_id,
                    lines,
                    self._why(interpreter, condition, len(gaps)),
                )
        return None

    def _why(self, interpreter: str, condition: Condition, n: int) -> str:
        if n == 1:
            return "The only photo on which the label was reached."
        own, pgd = self._summary.cell(condition, interpreter), self._summary.cell(PGD, interpreter)
        typical = f"The mean L1 over all photos is {number(own.mean('l1').value)} for ADV²" if own else ""
        typical += f" and {number(pgd.mean('l1').value)} for PGD." if own and pgd else "."
        sample = " of the sample below" if len(self._photos) < len(self._run.attacked) else ""
        if pgd is None:
            return f"The photo whose map moved least, of {n}{sample} on which the label was reached. {typical}"
        return (
            f"The clearest of the {n} photos{sample} on which both attacks reached the label: "
            f"the one with the largest difference in L1. {typical}"
        )

    def _view(self, image_id: str, artifacts: Artifacts) -> PhotoView:
        rows = self._rows[image_id]
        first = next(iter(rows.values()))
        interpreters = self._summary.interpreters
        present = {NONE, *(condition for condition, _ in rows)}  # the benign input even without rows of its own
        conditions = [name for name in lines_of(self._summary) if name in present]
        benign = artifacts.pictures.get(NONE)
        thumb = Picture(None if benign is None else data_uri(benign, side=_THUMB_SIDE), "")
        return PhotoView(
            element=element_of(self._photos[image_id]),
            name=image_id,
            thumb=thumb,
            benign=None if benign is None else _uri(benign, self._size),
            label=self._class(first.photo.label),
            label_given=first.photo.label_given,
            target=self._class(first.photo.target),
            sha256=first.photo.image_sha256,
            gain=_gain(rows.values()),
            tags=tuple(self._tags(rows)),
            columns=tuple(interpreter_title(name) for name in interpreters),
            lines=tuple(self._line(image_id, name, interpreters, artifacts, self._size) for name in conditions),
        )

    def _tags(self, rows: Mapping[tuple[Condition, str], Row]) -> list[Tag]:
        tags = []
        for headline in self._summary.headlines:
            row = rows.get((headline.condition, headline.interpreter))
            if row is not None:
                kept = row.saved.success and row.saved.distances.iou_50 >= self._summary.kept_iou
                outcome = "kept" if kept else "moved" if row.saved.success else "label missed"
                tags.append(Tag(f"{interpreter_title(headline.interpreter)} {outcome}", kept))
        return tags

    def _line(
        self,
        image_id: str,
        condition: Condition,
        interpreters: Sequence[str],
        artifacts: Artifacts,
        size: tuple[int, int],
    ) -> ImageLine:
        rows = self._rows[image_id]
        row = next((r for (name, _), r in rows.items() if name == condition), None)
        title = "Benign" if condition == NONE else condition.title
        verdict = self._verdict(row or next(iter(rows.values())), condition)
        picture, benign = artifacts.pictures.get(condition), artifacts.pictures.get(NONE)
        alt = f"{image_id}, {title}: the model says {verdict.label}"
        photo = Picture(None if picture is None else _uri(picture, size), alt)
        change = None
        if row is not None and condition != NONE:
            gain = _gain(rows.values())
            uri = _change(picture, benign, gain)
            change = Picture(uri, f"What {title} changed in {image_id}, amplified {gain} times")
        maps = []
        for interpreter in interpreters:
            map_ = artifacts.maps.get(map_name(condition, interpreter))
            uri = None if map_ is None else map_uri(map_)
            measured = rows.get((condition, interpreter))
            numbers = "" if measured is None or condition == NONE else _numbers(measured)
            own = condition.is_own(interpreter)
            alt = f"{interpreter_title(interpreter)} map, {title}. {numbers}".strip()
            maps.append(Picture(uri, alt, numbers, own))
        place = lines_of(self._summary).index(condition)
        return ImageLine(place, title, style_of(condition.attack), verdict, photo, change, tuple(maps))

    def _verdict(self, row: Row, condition: Condition) -> ModelSays:
        photo, answer = row.photo, row.answer
        target = self._class(photo.target)
        if condition == NONE:
            said = self._class(answer.clean_prediction)
            detail = percent(answer.clean_confidence) if answer.clean_prediction == photo.label else ""
            return ModelSays(said, detail, None)
        said = self._class(answer.prediction)
        if condition == NOISE:
            return ModelSays(said, "the label stayed" if answer.prediction == photo.label else "", None)
        if row.saved.success:
            return ModelSays(target, percent(row.saved.confidence), True)
        wanted = f"wanted: {target}, {percent(row.saved.confidence)}"
        return ModelSays("another class once saved as 8-bit" if answer.success else said, wanted, False)

    def _class(self, index: int) -> str:
        return class_title(index, self._run.class_names)

    def _artifacts(self, image_id: str) -> Artifacts:
        conditions = {NONE, *(condition for condition, _ in self._rows[image_id])}
        directory = RunDirectory(self._run.path)
        return read_artifacts(directory, self._photos[image_id], conditions, self._run.picture_shape)


def _gain(rows: Iterable[Row]) -> int:
    """How much the changes of a photo, of which ``rows`` are all, are amplified: one number for all of its lines."""
    row, *others = rows
    largest = row.allowed.eps if row.allowed.perturbation == "linf" else max(r.change.linf for r in (row, *others))
    return gain_for(largest)


def element_of(photo: PlannedPhoto) -> str:
    """The address of a photo in the page."""
    return f"photo-{photo.key}"


def _uri(picture: Bytes, size: tuple[int, int]) -> str:
    side, quality = size
    return data_uri(picture, side=side, quality=quality)


def _change(picture: Bytes | None, benign: Bytes | None, gain: int) -> str | None:
    if picture is None or benign is None or picture.shape != benign.shape:
        return None
    # Noise does not compress: a lower quality than a photo's costs nothing that can be seen.
    return data_uri(amplified(picture, benign, gain), side=_CHANGE_SIDE, quality=40)


def _numbers(row: Row) -> str:
    return f"L1 {number(row.saved.distances.l1)} · IoU {number(row.saved.distances.iou_50, 2)}"
