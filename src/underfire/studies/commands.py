"""``underfire study frontier`` and ``gap``, which attack photos themselves, as the command line calls them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from underfire.auditing.names import split_names
from underfire.parsing import budgets
from underfire.studies.frontier import Along, frontier_study
from underfire.studies.gap import Aim, gap_study
from underfire.studies.options import Source, option
from underfire.studies.study import Study

_GROWN: Mapping[Along, tuple[str, ...]] = MappingProxyType(
    {"eps": ("eps",), "passes": ("passes", "steps"), "weight": ()}
)
"""The options that say how much there is of what grows along a frontier."""


@dataclass(frozen=True)
class FrontierOptions:
    """What ``underfire study frontier`` takes beside the options of an audit."""

    along: Along = option(
        "eps",
        help="What grows: the budget, the passes, or the confidence that is demanded of an image.",
        choices=get_args(Along),
    )
    grid: tuple[float, ...] | None = option(
        None,
        help="The values of what grows, rising, comma-separated, as 2/255,4/255,8/255.",
        parse=budgets,
        metavar="VALUES",
        shown_default="five around the defaults",
    )


def frontier(source: Source, options: FrontierOptions) -> Study:
    """The study as the command line calls it."""
    for name in _GROWN[options.along]:
        source.refuse(name, f"grows along {options.along}, over the values of --grid")
    source.refuse("attacks", "runs PGD and ADV²")
    planned = source.planned()
    return frontier_study(
        planned.plan, planned.photos, planned.classifier, work=source.work, note=source.note,
        along=options.along, grid=options.grid, skipped=planned.skipped,
    )  # fmt: skip


def _aims(text: str) -> tuple[str, ...]:
    return split_names(text, get_args(Aim), "aim")


@dataclass(frozen=True)
class GapOptions:
    """What ``underfire study gap`` takes beside the options of an audit."""

    aims: tuple[Aim, ...] = option(
        get_args(Aim),
        help="The maps to show, comma-separated: another photo's, of another class, or a random patch.",
        parse=_aims,
        shown_default=",".join(get_args(Aim)),
    )


def gap(source: Source, options: GapOptions) -> Study:
    """The study as the command line calls it."""
    source.refuse("attacks", "runs PGD and ADV²")
    planned = source.planned()
    return gap_study(
        planned.plan, planned.photos, planned.classifier, work=source.work, note=source.note,
        aims=options.aims, skipped=planned.skipped,
    )  # fmt: skip
