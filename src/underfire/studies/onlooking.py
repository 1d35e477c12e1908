"""What another classifier saw in the images of an audit, as rows of the table of transfer.

A person is shown the map of the class that the classifier says. Where the label did not transfer, that is not the
target class, and the map of the target class explains nothing that anybody sees. Three maps are therefore compared,
each with that of the benign image: the label's on every photo, which says whether the explanation of the right
prediction is disturbed; the target class's on every photo, which says whether the image speaks otherwise for it; and
the target class's against the label's, as in an audit, only on photos where this classifier too predicts the target.

Photos whose benign image this classifier does not see as the label are left out: there is nothing to be fooled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from underfire.auditing.condition import NONE, PGD, Condition
from underfire.stats import wilson
from underfire.studies.cells import Compared, Distance, Line, against, comparable, judged, kind_of, means
from underfire.studies.columns import three
from underfire.studies.others import Onlooker, Sight, sizes
from underfire.studies.source import Run, attacked


@dataclass(frozen=True)
class Onlooking:
    """What one other classifier saw.

    Attributes:
        model: its name.
        sizes: what was done to the images' size, in words.
        photos: how many photos were attacked on the audited model, of which it saw ``right`` rightly.
        left_out: the interpreters that it does without, in words.
        lines: its rows, with verdicts.
    """

    model: str
    sizes: str
    photos: int
    right: int
    left_out: tuple[str, ...]
    lines: tuple[Line, ...]


def onlooking(run: Run, conditions: Sequence[Condition], other: Onlooker, sights: Sequence[Sight]) -> Onlooking:
    """The rows of ``other``, from what it saw of every attacked photo of ``run`` under ``conditions``, in their order.

    The label that counts is the audit's. Verdicts are asked for where an attack on an interpreter meets the maps of the
    label, and the looks that are counted are those at this classifier.
    """
    photos = attacked(run.photos)
    labels = {photo.image_id: photo.label for photo in photos}
    right = {s.image_id for s in sights if s.condition == str(NONE) and s.prediction == labels[s.image_id]}
    ordered = sorted((s for s in sights if s.image_id in right), key=lambda sight: sight.image_id)
    view = _View(run, conditions, other, ordered)
    lines = [*view.labels(), *view.maps("label"), *view.maps("target"), *view.maps("seen")]
    return Onlooking(
        other.name,
        sizes(run, other.classifier),
        len(photos),
        len(right),
        other.left_out,
        tuple(judged(lines)),
    )


class _View:
    """What ``other`` saw of the photos that it sees rightly, by condition."""

    def __init__(self, run: Run, conditions: Sequence[Condition], other: Onlooker, sights: Sequence[Sight]) -> None:
        self.model = other.name
        self.interpreters = tuple(sorted(interpreter.name for interpreter in other.interpreters))
        self.photos = {photo.image_id: photo for photo in run.photos}
        self.alike = comparable(run.records)
        self.reached = {(row.image_id, row.condition) for row in run.records if row.success_8bit}
        self.seen: dict[Condition, list[Sight]] = {condition: [] for condition in conditions if condition != NONE}
        for sight in sights:
            if sight.condition != str(NONE):
                self.seen[Condition.parse(sight.condition)].append(sight)

    def labels(self) -> list[Line]:
        """What became of the prediction, a row per condition."""
        lines = []
        for condition, seen in self.seen.items():
            kept = [sight for sight in seen if self._counts(sight)]
            lost = [sight for sight in kept if sight.prediction != self.photos[sight.image_id].label]
            lines.append(
                Line(
                    model=self.model,
                    condition=str(condition),
                    kind="label",
                    n=len(kept),
                    failed=len(seen) - len(kept),
                    **three("reached", wilson(sum(map(self._fooled, kept)), len(kept))),
                    **three("lost", wilson(len(lost), len(kept))),
                )
            )
        return lines

    def maps(self, compared: Compared) -> list[Line]:
        """How far one kind of map moved, a row per condition and interpreter; none where nobody sees such a map."""
        lines = []
        for condition in self.seen:
            for interpreter in self.interpreters:
                found, failed = self._distances(condition, interpreter, compared)
                if compared == "seen" and not found:
                    continue
                columns = means(found, failed)
                kind = kind_of(condition, interpreter)
                if kind in ("own", "other"):
                    fair = condition in self.alike
                    pgd = self._distances(PGD, interpreter, compared)[0] if fair else {}
                    columns |= against(found, pgd, judged=fair and compared == "label")
                lines.append(
                    Line(
                        model=self.model,
                        condition=str(condition),
                        map=interpreter,
                        kind=kind,
                        compared=compared,
                        **columns,
                    )
                )
        return lines

    def _distances(
        self, condition: Condition, interpreter: str, compared: Compared
    ) -> tuple[dict[str, Distance], dict[str, Distance]]:
        """Of the photos whose label was reached on the audited model, and of the others."""
        found: tuple[dict[str, Distance], dict[str, Distance]] = ({}, {})
        for sight in self.seen[condition]:
            if compared != "seen" or self._fooled(sight):
                distance: Distance = getattr(sight.moves[interpreter], compared)
                found[0 if self._counts(sight) else 1][sight.image_id] = distance
        return found

    def _counts(self, sight: Sight) -> bool:
        condition = Condition.parse(sight.condition)
        return condition.is_control or (sight.image_id, condition) in self.reached

    def _fooled(self, sight: Sight) -> bool:
        return sight.prediction == self.photos[sight.image_id].target
