"""Whether the figures of a run can be relied upon, and why not, for programs: the `unreliable` flag."""

from dataclasses import dataclass, replace

from underfire.auditing.condition import PGD, Condition
from underfire.auditing.run import Run
from underfire.auditing.summary import Headline, Summary
from underfire.diagnostics.attack_signs import Weight
from underfire.diagnostics.map_checks import FloorVerdict
from underfire.present.text import plural
from underfire.report.soundness import remarks


@dataclass(frozen=True)
class Doubt:
    """One reason to doubt figures.

    Attributes:
        id: the indicator, check or verdict, as ``zero_gradients`` or ``faithfulness_floor``.
        weight: serious, so that they cannot be relied upon, or a caution, so that they are bounds.
        text: in whole sentences.
    """

    id: str
    weight: Weight
    text: str


@dataclass(frozen=True)
class Reliability:
    """What speaks against the figures of a run, or of one interpreter of it."""

    doubts: tuple[Doubt, ...]

    @property
    def unreliable(self) -> bool:
        """Whether anything serious does."""
        return any(doubt.weight is Weight.SERIOUS for doubt in self.doubts)

    def of(self, weight: Weight) -> tuple[Doubt, ...]:
        """The doubts of one weight."""
        return tuple(doubt for doubt in self.doubts if doubt.weight is weight)


def reliability(run: Run, interpreter: str | None = None) -> Reliability:
    """What speaks against the figures of ``run``, or of the attacks on ``interpreter`` and of PGD in it.

    Serious are: a check of the model that fired, steps without gradients, a search without gradients that did better
    than an attack that follows them, and benign maps that say nothing of the model. What was not looked at is a
    caution.
    """
    summary = run.summary if interpreter is None else _of_interpreter(run.summary, interpreter)
    seen = [
        Doubt(remark.id, remark.weight, remark.text)
        for remark in remarks(run.facts.model_checks, summary)
        if remark.weight is not Weight.NOTE
    ]
    if not run.facts.model_checks:
        seen.append(Doubt("model_unchecked", Weight.CAUTION, "The model was not checked."))
    seen += [doubt for headline in summary.headlines if (doubt := _of_floor(headline))]
    return Reliability(tuple(sorted(seen, key=lambda doubt: doubt.weight is not Weight.SERIOUS)))


def _of_interpreter(summary: Summary, interpreter: str) -> Summary:
    def own(condition: Condition) -> bool:
        return condition == PGD or condition.sources == (interpreter,)

    return replace(
        summary,
        headlines=tuple(one for one in summary.headlines if one.interpreter == interpreter),
        signs=tuple(sign for sign in summary.signs if own(sign.condition)),
        comparisons=tuple(one for one in summary.comparisons if own(one.condition)),
    )


def _of_floor(headline: Headline) -> Doubt | None:
    """None where the maps are better than random ones and change with the model."""
    name, floor = headline.interpreter, headline.faithfulness
    if floor is None:
        text = f"Whether the benign maps of {name} say anything of the model was not looked at."
        return Doubt("faithfulness_floor_unchecked", Weight.CAUTION, text)
    if floor.verdict is FloorVerdict.MET:
        return None
    if floor.verdict is FloorVerdict.UNDECIDED:
        photos = plural(floor.advantage.n, "photo")
        text = f"Whether the benign maps of {name} are better than random maps is not decided on {photos}."
        return Doubt("faithfulness_floor_undecided", Weight.CAUTION, text)
    why = {
        FloorVerdict.WORSE: "are worse than random maps",
        FloorVerdict.UNCHANGED: "are the same for a model with random weights",
        FloorVerdict.CONSTANT: "show nothing",
    }[floor.verdict]
    return Doubt(
        "faithfulness_floor", Weight.SERIOUS, f"The benign maps of {name} {why}: that they resist is worth nothing."
    )
