"""What an attacker can do to each explanation: every goal on label and map, against harmless noise of the same size."""

from collections.abc import Sequence
from dataclasses import dataclass

from underfire.attacks.goals import Goal
from underfire.auditing.condition import NOISE, attack_title
from underfire.auditing.rows import Row
from underfire.auditing.run import Run
from underfire.auditing.summary import GoalFigures, map_met
from underfire.present import svg
from underfire.present.plots import axes_of, blank, label_axes, legend_below, mark
from underfire.present.tables import to_arrow
from underfire.present.text import interpreter_title
from underfire.present.words import written
from underfire.stats import Estimate, Share, bootstrap_mean
from underfire.studies.options import StudySource
from underfire.studies.study import Claim, Study, Verdict, above, majority, together

CLAIM = (
    "An attacker may want another thing than a chosen label under an unchanged map (Zhang et al. 2020): any wrong label"
    " under it, or, with the label as it is, a map that shows something else (Ghorbani et al. 2019)."
)


@dataclass(frozen=True)
class GoalsOptions:
    """What ``underfire study goals`` takes beside the options of an audit: nothing."""


@dataclass(frozen=True)
class GoalRow:
    """One attack's goal on one interpreter, on the images as saved.

    ``tau`` is that of ``jsr``, the joint success rate; ``jsr_milder`` and ``jsr_harder`` are at the τ of the same sweep
    on either side. ``noise`` is the share of photos on which noise of the same size would do for the map, ``lead`` the
    mean paired difference of the attack to that.
    """

    goal: str
    attack: str
    interpreter: str
    n: int
    label: Share
    tau: float
    jsr: Share
    jsr_milder: Share
    jsr_harder: Share
    noise: Share
    lead: Estimate
    verdict: Verdict


def study(source: StudySource, options: GoalsOptions) -> Study:  # noqa: ARG001 - all is in the audit
    """The study as the command line calls it."""
    return goals_study(source.audited())


def goals_study(run: Run) -> Study:
    """The goals of ``run`` with their joint success rates; none is attacked that the audit did not.

    A goal is within reach of an attacker on an interpreter if the attack meets both halves of it on more than half of
    the photos, by an exact sign test, and oftener than noise would, by the interval of the paired difference.
    """
    alone = [figures for figures in run.summary.goals if len(figures.condition.sources) == 1 and figures.rates]
    rows = [_row(figures, run.records, tests=len(alone)) for figures in alone]
    claims = _claims(rows)
    return Study(
        name="goals",
        title="What an attacker can do to each explanation",
        claim=CLAIM,
        claims=claims,
        table=to_arrow(rows, GoalRow),
        figure=_figure(rows),
        words=written(
            "underfire.studies",
            "goals.md.jinja",
            attacked=run.summary.photos.attacked,
            total=run.summary.photos.total,
            goals=[(goal, [row for row in rows if row.goal == goal]) for goal in dict.fromkeys(r.goal for r in rows)],
            reached=Verdict.HOLDS,
        ),
    )


def _row(figures: GoalFigures, records: Sequence[Row], *, tests: int) -> GoalRow:
    milder, rate, harder = figures.rates
    goal = Goal.parse(figures.goal)
    here = {row.image_id: row for row in records if (row.condition, row.interpreter) == _place(figures)}
    floor = {row.image_id: row for row in records if (row.condition, row.interpreter) == (NOISE, figures.interpreter)}
    lead = bootstrap_mean(
        [
            float(row.saved.success and map_met(row, goal.map, rate.tau)) - map_met(floor[photo], goal.map, rate.tau)
            for photo, row in sorted(here.items())
            if photo in floor
        ]
    )
    most = majority(rate.jsr.k, rate.jsr.n, tests) if rate.jsr.n else Verdict.UNDECIDED
    verdict = most if goal.map == "kept" else together([most, above(lead)])
    attack = attack_title(figures.condition.attack)
    return GoalRow(
        figures.goal,
        attack,
        figures.interpreter,
        figures.n,
        figures.label,
        rate.tau,
        rate.jsr,
        milder.jsr,
        harder.jsr,
        rate.noise,
        lead,
        verdict,
    )


def _place(figures: GoalFigures) -> tuple[object, str]:
    return figures.condition, figures.interpreter


def _claims(rows: Sequence[GoalRow]) -> tuple[Claim, ...]:
    """One for each goal and interpreter, after one for each goal on all of them."""
    found = []
    for goal in dict.fromkeys(row.goal for row in rows):
        here = [row for row in rows if row.goal == goal]
        estimates = {f"{row.attack} on {row.interpreter}": row.jsr for row in here}
        statement = f"An attacker reaches the goal {goal} on most photos, on every interpreter."
        found.append(Claim.over(goal, statement, together(row.verdict for row in here), estimates))
        found += [
            Claim(
                f"{goal}/{row.attack}/{row.interpreter}",
                f"{row.attack} reaches the goal {goal} on {interpreter_title(row.interpreter)} on most photos.",
                row.verdict,
                {"jsr": row.jsr, "noise": row.noise, "lead": row.lead},
                row.n,
            )
            for row in here
        ]
    return tuple(found)


_WIDTH_IN, _ROW_IN, _LEFT_IN, _FRAME_IN = 7.0, 0.24, 2.6, 1.1
_COLOUR_OF_ATTACK, _COLOUR_OF_NOISE = svg.ADV2, svg.NOISE


def _figure(rows: Sequence[GoalRow]) -> str:
    """An SVG: a line for each goal and interpreter, with the joint success rate and that of noise."""
    height = _FRAME_IN + _ROW_IN * max(1, len(rows))
    figure = blank(_WIDTH_IN, height)
    box = (_LEFT_IN / _WIDTH_IN, 0.75 / height, 1 - (_LEFT_IN + 0.2) / _WIDTH_IN, 1 - _FRAME_IN / height)
    axes = axes_of(figure, box)
    label_axes(axes, x="joint success rate, on the image as saved")
    for place, row in enumerate(reversed(rows)):
        mark(axes, row.noise, place - 0.12, _COLOUR_OF_NOISE, solid=False, whisker=1.2, alpha=0.6, edge=1.0)
        mark(axes, row.jsr, place + 0.12, _COLOUR_OF_ATTACK, solid=True, whisker=1.4, alpha=0.7, edge=1.0)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    names = [f"{row.goal}, {interpreter_title(row.interpreter)}" for row in reversed(rows)]
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", colors=svg.INK, labelsize=9, length=0)
    axes.plot([], [], "o", color=_COLOUR_OF_ATTACK, label="the attack")
    axes.plot([], [], "o", markerfacecolor="none", color=_COLOUR_OF_NOISE, label="noise of the same size, map alone")
    legend_below(figure, axes, columns=2)
    reached = sum(row.verdict is Verdict.HOLDS for row in rows)
    description = (
        f"Joint success rates of {len(rows)} pairs of goal and interpreter; on {reached} the goal is in reach."
    )
    return svg.inline(figure, name="goals", description=description)
