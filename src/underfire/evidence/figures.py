"""The figures of a run as one list, which every document of the evidence takes."""

from collections.abc import Iterator
from dataclasses import dataclass

from underfire.auditing.condition import NONE
from underfire.auditing.run import Run
from underfire.auditing.summary import Summary
from underfire.stats import Estimate, Share, wilson


@dataclass(frozen=True)
class Figure:
    """One figure of a run, on images as saved in 8 bit.

    Attributes:
        metric: its name, as ``JSR@0.5``.
        condition: the attack, as ``adv2-cam``, or ``none`` for the benign photos.
        interpreter: whose map it is of; None for what is of the prediction alone.
        meaning: what it measures, a clause.
        estimate: with its interval and n.
    """

    metric: str
    condition: str
    interpreter: str | None
    meaning: str
    estimate: Estimate

    @property
    def slice(self) -> str:
        """Of what it is: the condition, and the interpreter if there is one."""
        return self.condition if self.interpreter is None else f"{self.condition}, map of {self.interpreter}"


def figures(run: Run) -> tuple[Figure, ...]:
    """All of ``run``; those of nothing, with n = 0, are left out."""
    summary = run.summary
    found = [_accuracy(run), *_of_attacks(summary), *_of_goals(summary), *_of_headlines(summary), *_of_floors(summary)]
    return tuple(figure for figure in found if figure.estimate.n)


def accuracy(run: Run) -> Share:
    """The share of the photos with a given label whose benign input the model predicts right; n = 0 without labels."""
    benign = {row.image_id: row for row in run.records if row.condition == NONE and row.photo.label_given}
    right = sum(row.answer.clean_prediction == row.photo.label for row in benign.values())
    return wilson(right, len(benign))


def _accuracy(run: Run) -> Figure:
    return Figure("accuracy", str(NONE), None, "labelled photos that the model predicts right", accuracy(run))


def _of_attacks(summary: Summary) -> Iterator[Figure]:
    for attack in summary.attacks:
        meaning = "attacked photos on which the label's part of the goal is met"
        yield Figure("ASR", str(attack.condition), None, meaning, attack.asr_8bit)


def _of_goals(summary: Summary) -> Iterator[Figure]:
    for goal in summary.goals:
        for rate in goal.rates:
            name, of = f"JSR@{rate.tau:g}", (str(goal.condition), goal.interpreter)
            yield Figure(name, *of, f"attacked photos on which label and map meet {goal.goal}", rate.jsr)
            yield Figure(f"{name} of noise", *of, "photos whose map noise of the same size leaves so", rate.noise)


def _of_headlines(summary: Summary) -> Iterator[Figure]:
    for headline in summary.headlines:
        of = (str(headline.condition), headline.interpreter)
        meaning = "attacked photos with the label chosen and the map moved no more than noise moves it"
        yield Figure("within noise", *of, meaning, headline.within_noise)
        cell = summary.cell(headline.condition, headline.interpreter)
        if cell is not None:
            yield Figure("L1", *of, "mean L1 distance from the benign map, over successes", cell.mean("l1"))
            yield Figure("IoU", *of, "mean IoU with the benign map, over successes", cell.mean("iou_50"))


def _of_floors(summary: Summary) -> Iterator[Figure]:
    for headline in summary.headlines:
        floor = headline.faithfulness
        if floor is not None:
            of = (str(NONE), headline.interpreter)
            meaning = "insertion less deletion of the benign map, less that of a random map"
            yield Figure("faithfulness advantage", *of, meaning, floor.advantage)
            meaning = "rank correlation of the benign map with that of random weights"
            yield Figure("similarity to random weights", *of, meaning, floor.similarity)
