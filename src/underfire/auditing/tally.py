"""From rows to the figures of an audit: taken in piece by piece, so that a run of any size fits into memory."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from underfire.attacks.goals import LabelWord
from underfire.auditing.agreement import MeasureAgreement, measure_agreement
from underfire.auditing.condition import NOISE, PGD, Condition
from underfire.auditing.distances import MEASURES, MapDistances, distances_of
from underfire.auditing.grid import RowGrid, rank
from underfire.auditing.rows import Row, table_of, traces_of
from underfire.auditing.summary import (
    BINS,
    KEPT_IOU,
    MOST_NAMED,
    MOST_POINTS,
    SEARCH,
    SUMMARY_VERSION,
    TAUS,
    AttackFigures,
    AttackSign,
    Cell,
    Comparison,
    Distribution,
    Excluded,
    ExcludedFor,
    GoalFigures,
    Headline,
    Measure,
    PhotoCounts,
    Point,
    RateAt,
    Spread,
    Summary,
    maps_met,
)
from underfire.diagnostics.attack_signs import Indicator, indicators
from underfire.diagnostics.gradient_masking import Ending, lead
from underfire.diagnostics.map_checks import MapCheck
from underfire.stats import LEVEL, NO_ESTIMATE, Estimate, Share, StreamedMeans, wilson

BLOCK = 2000
"""Photos whose rows are held at a time."""

_Numbers: TypeAlias = NDArray[np.float64]
_Truths: TypeAlias = NDArray[np.bool_]
_Lines: TypeAlias = NDArray[np.int64]
_Place: TypeAlias = tuple[Condition, str]

_OF_AN_ATTACK = ("confidence", "confidence_8bit", "linf", "l2", "passes", "seconds")
_ENDINGS = ("", "_8bit")
_POINT = ("success", "l1", "iou_50", "success_8bit", "l1_8bit", "iou_50_8bit")


def summarise(rows: Iterable[Row], map_checks: Iterable[MapCheck] = ()) -> Summary:
    """The figures of an audit, from its rows in any order and the checks of its interpreters' benign maps.

    Raises:
        InputError: Two rows are of the same photo, condition and interpreter.
    """
    return summarise_tables([table_of(list(rows))], map_checks)


def summarise_tables(tables: Iterable[pa.Table], map_checks: Iterable[MapCheck] = ()) -> Summary:
    """`summarise` of rows in tables, each with the columns of `SCHEMA` and with all rows of its photos."""
    tally = Tally()
    for block in _blocks(tables):
        tally.add(RowGrid(block))
    return tally.summary(map_checks)


def _blocks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables joined into some of `BLOCK` photos or more, and one of fewer."""
    held: list[pa.Table] = []
    photos = 0
    for table in tables:
        held.append(table)
        photos += len(table.column("image_id").unique())
        if photos > BLOCK:
            yield pa.concat_tables(held)
            held, photos = [], 0
    if photos:
        yield pa.concat_tables(held)


class Tally:
    """What the figures of an audit are made of, taken in from the rows of some photos at a time."""

    def __init__(self) -> None:
        self._total = self._attacked = self._own = self._own_attacked = 0
        self._reasons: Counter[str] = Counter()
        self._excluded: list[Excluded] = []
        self._conditions: set[Condition] = set()
        self._interpreters: set[str] = set()
        self._means: dict[tuple[object, ...], StreamedMeans] = {}
        self._shares: dict[tuple[object, ...], list[int]] = {}
        self._steps: dict[Condition, int] = {}
        self._points: dict[_Place, list[tuple[list[str], _Numbers]]] = {}
        self._signs: dict[Condition, Counter[Indicator]] = {}
        self._reached_by_all: dict[tuple[str, ...], list[_Numbers]] = {}

    def add(self, grid: RowGrid) -> None:
        """Takes in the rows of some photos, all of theirs."""
        self._conditions |= set(grid.conditions)
        self._interpreters |= set(grid.interpreters)
        self._count_photos(grid)
        for condition in grid.conditions:
            if not condition.is_control:
                self._add_attack(grid, condition)
            self._add_signs(grid, condition)
            for interpreter in grid.interpreters:
                lines = grid.lines(condition, interpreter)
                if (lines >= 0).any():
                    self._add_cell(grid, condition, interpreter, lines)
                    if interpreter in condition.sources:
                        self._add_goal(grid, condition, interpreter)
        for interpreter in grid.interpreters:
            self._add_headline(grid, interpreter)
        self._add_comparisons(grid)
        self._add_agreement(grid)

    def _count_photos(self, grid: RowGrid) -> None:
        own = grid.values("label_given", grid.any_line) == 0
        self._total += len(grid.photos)
        self._attacked += int(grid.attacked.sum())
        self._own += int(own.sum())
        self._own_attacked += int((own & grid.attacked).sum())
        self._reasons.update(grid.excluded.values())
        left = MOST_NAMED - len(self._excluded)
        self._excluded += [Excluded(*pair) for pair in list(grid.excluded.items())[:left]]

    def _add_attack(self, grid: RowGrid, condition: Condition) -> None:
        lines = _there(grid.photo_lines(condition))
        reached = {ending: grid.values(f"success{ending}", lines) > 0 for ending in _ENDINGS}
        for ending, success in reached.items():
            self._add_share((condition, "asr", ending), success)
        of_all = np.stack([grid.values(name, lines) for name in _OF_AN_ATTACK], axis=1)
        self._add_means((condition, "all"), of_all)
        of_successes = [
            np.where(success, grid.values(f"confidence{ending}", lines), np.nan) for ending, success in reached.items()
        ]
        self._add_means((condition, "successes"), np.stack(of_successes, axis=1))
        most = int(grid.values("steps", lines).max(initial=0))
        self._steps[condition] = max(self._steps.get(condition, 0), most)

    def _add_signs(self, grid: RowGrid, condition: Condition) -> None:
        lines = _there(grid.photo_lines(condition))
        shown = self._signs.setdefault(condition, Counter())
        success = grid.values("success", lines) > 0
        for trace, reached in zip(traces_of(grid.taken(lines)), success.tolist(), strict=True):
            if trace is not None:
                shown.update(indicators(trace, success=reached))
                self._add_share((condition, "traced"), np.ones(1, dtype=bool))

    def _add_cell(self, grid: RowGrid, condition: Condition, interpreter: str, places: _Lines) -> None:
        lines, place = places[places >= 0], (condition, interpreter)
        for ending in _ENDINGS:
            success = grid.values(f"success{ending}", lines) > 0
            values = np.stack([grid.values(f"{name}{ending}", lines) for name in MEASURES], axis=1)
            self._add_means((*place, "every", ending), values)
            self._add_means((*place, "successes", ending), values[success])
        self._add_share((*place, "n"), np.ones(len(lines), dtype=bool))
        if condition.is_joint:
            self._add_beside_pgd(grid, place, places)
        if condition in (NOISE, PGD, _adv2(interpreter)):
            names = [name for name, line in zip(grid.photos, places.tolist(), strict=True) if line >= 0]
            points = np.stack([grid.values(name, lines) for name in _POINT], axis=1)
            self._points.setdefault(place, []).append((names, points))

    def _add_beside_pgd(self, grid: RowGrid, place: _Place, ours: _Lines) -> None:
        theirs = grid.lines(PGD, place[1])
        both = (ours >= 0) & (theirs >= 0)
        for ending in _ENDINGS:
            pair = [lines[both] for lines in (ours, theirs)]
            reached = np.logical_and(*(grid.values(f"success{ending}", lines) > 0 for lines in pair))
            own, pgd = (grid.values(f"l1{ending}", lines)[reached] for lines in pair)
            self._add_means((*place, "minus", ending), (own - pgd)[:, None])
            self._add_share((*place, "nearer", ending), own < pgd)

    def _add_goal(self, grid: RowGrid, condition: Condition, interpreter: str) -> None:
        goal = condition.wanted
        if goal is None:
            raise ValueError(f"{condition} attacks nothing, and so has no goal")
        lines, floor = (_there(grid.lines(c, interpreter)) for c in (condition, NOISE))
        reached = grid.values("success_8bit", lines) > 0
        self._add_share((condition, interpreter, "label"), reached)
        stayed = _stayed(grid, floor, goal.label)
        for tau in TAUS.get(goal.map, ()):
            met = maps_met(_saved_distances(grid, lines), goal.map, tau)
            by_chance = maps_met(_saved_distances(grid, floor), goal.map, tau)
            self._add_share((condition, interpreter, tau), reached & met)
            self._add_share((condition, interpreter, tau, "noise"), by_chance & stayed)

    def _add_headline(self, grid: RowGrid, interpreter: str) -> None:
        noise = grid.lines(NOISE, interpreter)
        for condition in (_adv2(interpreter), PGD):
            places = grid.lines(condition, interpreter)
            lines = _there(places)
            reached = grid.values("success_8bit", lines) > 0
            self._add_share((condition, interpreter, "kept"), reached & (grid.values("iou_50_8bit", lines) >= KEPT_IOU))
            both = (places >= 0) & (noise >= 0)
            quiet = grid.values("l1_8bit", places[both]) <= grid.values("l1_8bit", noise[both])
            self._add_share((condition, interpreter, "quiet"), quiet & (grid.values("success_8bit", places[both]) > 0))

    def _add_comparisons(self, grid: RowGrid) -> None:
        """By the label alone with PGD, whatever the searches were on, and by maps too with ADV²."""
        searches = [c for c in grid.conditions if c.attack == SEARCH]
        if not searches:
            return
        found = np.stack([grid.photo_lines(condition) for condition in searches])
        quality = 2 * grid.values("success", found) + grid.values("confidence", found)
        best = np.argmax(np.where(found >= 0, quality, -1), axis=0)
        blind = found[best, np.arange(len(grid.photos))]
        self._compare(grid, PGD, grid.photo_lines(PGD), blind, maps=False)
        for interpreter in grid.interpreters:
            own = _adv2(interpreter)
            blind = grid.lines(Condition.on(SEARCH, interpreter), interpreter)
            self._compare(grid, own, grid.lines(own, interpreter), blind, maps=True)

    def _compare(self, grid: RowGrid, condition: Condition, white: _Lines, blind: _Lines, *, maps: bool) -> None:
        both = (white >= 0) & (blind >= 0)
        endings = [_endings(grid, lines[both], maps=maps) for lines in (white, blind)]
        better = [lead(*pair) is not None for pair in zip(*endings, strict=True)]
        self._add_share((condition, "better"), np.array(better, dtype=bool))
        self._add_share((condition, "found"), grid.values("success", blind[both]) > 0)

    def _add_agreement(self, grid: RowGrid) -> None:
        attacked = {i: lines for i in grid.interpreters if ((lines := grid.lines(_adv2(i), i)) >= 0).any()}
        if not attacked:
            return
        lines = np.stack(list(attacked.values()), axis=1)
        lines = lines[(lines >= 0).all(axis=1)]
        lines = lines[(grid.values("success_8bit", lines.ravel()).reshape(lines.shape) > 0).all(axis=1)]
        kept = np.stack([grid.values(f"{name}_8bit", lines.ravel()) for name in MEASURES], axis=1)
        self._reached_by_all.setdefault(tuple(attacked), []).append(kept.reshape(*lines.shape, len(MEASURES)))

    def _add_means(self, key: tuple[object, ...], values: _Numbers) -> None:
        self._means.setdefault(key, StreamedMeans(values.shape[1])).add(values)

    def _add_share(self, key: tuple[object, ...], outcomes: _Truths) -> None:
        counted = self._shares.setdefault(key, [0, 0])
        counted[0] += int(outcomes.sum())
        counted[1] += len(outcomes)

    def _share(self, *key: object) -> Share:
        return wilson(*self._shares.get(key, (0, 0)))

    def _mean(self, *key: object) -> Estimate:
        return self._means[key].estimates()[0] if key in self._means else NO_ESTIMATE

    def summary(self, map_checks: Iterable[MapCheck] = ()) -> Summary:
        """The figures of all rows that were taken in, and of the checks of the interpreters' benign maps."""
        interpreters, conditions = tuple(sorted(self._interpreters)), tuple(sorted(self._conditions, key=rank))
        cells = [(c, i) for c in conditions for i in interpreters if self._share(c, i, "n").k]
        floors = {check.interpreter: check.floor for check in map_checks}
        alone = [i for i in interpreters if (_adv2(i), i) in cells]
        return Summary(
            version=SUMMARY_VERSION,
            level=LEVEL,
            kept_iou=KEPT_IOU,
            photos=self._photo_counts(),
            interpreters=interpreters,
            conditions=conditions,
            headlines=tuple(
                Headline(
                    name,
                    _adv2(name),
                    kept=self._share(_adv2(name), name, "kept"),
                    kept_pgd=self._share(PGD, name, "kept"),
                    within_noise=self._share(_adv2(name), name, "quiet"),
                    within_noise_pgd=self._share(PGD, name, "quiet"),
                    faithfulness=floors.get(name),
                )
                for name in alone
            ),
            goals=tuple(self._goal(c, i) for c, i in _of_sources(cells)),
            attacks=tuple(self._attack(condition) for condition in conditions if not condition.is_control),
            transfer=tuple(self._cell(*cell) for cell in cells),
            distributions=tuple(
                self._distribution(condition, i)
                for i in interpreters
                for condition in (NOISE, PGD, _adv2(i))
                if (condition, i) in cells
            ),
            signs=tuple(sign for condition in conditions for sign in self._signs_of(condition)),
            comparisons=tuple(self._comparisons([PGD, *map(_adv2, interpreters)])),
            agreement=self._agreement(alone),
        )

    def _photo_counts(self) -> PhotoCounts:
        reasons = tuple(ExcludedFor(*pair) for pair in sorted(self._reasons.items()))
        return PhotoCounts(self._total, self._attacked, self._own, self._own_attacked, reasons, tuple(self._excluded))

    def _attack(self, condition: Condition) -> AttackFigures:
        confidence_all, confidence_8bit_all, linf, l2, passes, seconds = self._means[condition, "all"].estimates()
        confidence, confidence_8bit = self._means[condition, "successes"].estimates()
        asr = self._share(condition, "asr", "")
        return AttackFigures(
            condition=condition,
            n=asr.n,
            asr=asr,
            asr_8bit=self._share(condition, "asr", "_8bit"),
            confidence=confidence,
            confidence_all=confidence_all,
            confidence_8bit=confidence_8bit,
            confidence_8bit_all=confidence_8bit_all,
            linf=linf,
            l2=l2,
            steps=self._steps[condition],
            passes=passes,
            seconds=seconds,
        )

    def _goal(self, condition: Condition, interpreter: str) -> GoalFigures:
        label = self._share(condition, interpreter, "label")
        taus = TAUS.get(condition.wanted.map, ()) if condition.wanted else ()
        rates = tuple(
            RateAt(
                tau,
                self._share(condition, interpreter, tau),
                self._share(condition, interpreter, tau, "noise"),
            )
            for tau in taus
        )
        return GoalFigures(condition, str(condition.wanted), interpreter, label.n, label, rates)

    def _cell(self, condition: Condition, interpreter: str) -> Cell:
        place = (condition, interpreter)
        found = [
            self._means[*place, kind, ending].estimates() for ending in _ENDINGS for kind in ("successes", "every")
        ]
        by_measure = {name: Measure(*parts) for name, *parts in zip(MEASURES, *found, strict=True)}
        joint = condition.is_joint
        return Cell(
            condition=condition,
            interpreter=interpreter,
            own=condition.sources == (interpreter,),
            control=condition.is_control,
            n=self._share(*place, "n").n,
            distances=distances_of(lambda name: by_measure[name] if by_measure[name].every.n else None),
            l1_minus_pgd=self._mean(*place, "minus", "") if joint else None,
            l1_minus_pgd_8bit=self._mean(*place, "minus", "_8bit") if joint else None,
            nearer_than_pgd_8bit=self._share(*place, "nearer", "_8bit") if joint else None,
        )

    def _distribution(self, condition: Condition, interpreter: str) -> Distribution:
        pieces = self._points[condition, interpreter]
        values = np.concatenate([points for _, points in pieces])
        success, l1, iou = values[:, 3] > 0, values[:, 4], values[:, 5]
        counted = np.ones(len(values), dtype=bool) if condition == NOISE else success
        points = [
            Point(name, bool(p[0]), p[1], p[2], bool(p[3]), p[4], p[5])
            for names, some in (pieces if len(values) <= MOST_POINTS else ())
            for name, p in zip(names, some.tolist(), strict=True)
        ]
        n = int(counted.sum())
        return Distribution(condition, interpreter, n, _spread(l1, counted), _spread(iou, counted), tuple(points))

    def _signs_of(self, condition: Condition) -> list[AttackSign]:
        """None for a control, which has no course."""
        shown, n = self._signs[condition], self._share(condition, "traced").n
        return [AttackSign(condition, indicator, shown[indicator], n) for indicator in Indicator if n]

    def _comparisons(self, conditions: Sequence[Condition]) -> Iterator[Comparison]:
        for condition in conditions:
            better, found = self._share(condition, "better"), self._share(condition, "found")
            if better.n:
                yield Comparison(condition, better.k, found.k, better.n)

    def _agreement(self, interpreters: Sequence[str]) -> MeasureAgreement | None:
        pieces = self._reached_by_all.get(tuple(interpreters), [])
        return measure_agreement(interpreters, np.concatenate(pieces)) if pieces else None


def _adv2(interpreter: str) -> Condition:
    return Condition.on("adv2", interpreter)


def _there(lines: _Lines) -> _Lines:
    return lines[lines >= 0]


def _of_sources(cells: Sequence[_Place]) -> list[_Place]:
    """Those of interpreters that were attacked, in the order of the conditions' sources."""
    conditions = dict.fromkeys(condition for condition, _ in cells)
    return [(c, i) for c in conditions for i in c.sources if (c, i) in set(cells)]


def _saved_distances(grid: RowGrid, lines: _Lines) -> MapDistances[_Numbers]:
    return distances_of(lambda name: grid.values(f"{name}_8bit", lines))


def _stayed(grid: RowGrid, lines: _Lines, label: LabelWord) -> _Truths:
    """Where noise left the label as a goal wants it that keeps labels; others ask nothing of noise."""
    same = grid.values("prediction", lines) == grid.values("label", lines)
    return same if label == "kept" else np.ones(len(lines), dtype=bool)


def _endings(grid: RowGrid, lines: _Lines, *, maps: bool) -> list[Ending]:
    """``maps``: their distances are compared too."""
    success, confidence, l1 = (grid.values(name, lines).tolist() for name in ("success", "confidence", "l1"))
    return [
        Ending(bool(reached), sure, gap if maps else None)
        for reached, sure, gap in zip(success, confidence, l1, strict=True)
    ]


def _spread(values: _Numbers, counted: _Truths) -> Spread:
    quartiles = np.quantile(values[counted], (0.25, 0.5, 0.75)).tolist() if counted.any() else [None] * 3
    counts = [np.histogram(np.clip(values[some], 0, 1), BINS, (0, 1))[0].tolist() for some in (counted, ~counted)]
    return Spread(*quartiles, *map(tuple, counts))
