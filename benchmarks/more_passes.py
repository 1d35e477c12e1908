"""``python -m benchmarks.more_passes PHOTOS --log DIR``: does an attack ever end worse with more passes, and what do
they buy?

As runs nest, one of the largest budget has those of the smaller ones for its beginnings. A measurement of hours: every
finished photo is a file in DIR, and a run that is started again goes on where it was.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import cast

import click
import torch
from torch import Tensor

from benchmarks.header import header
from benchmarks.photos import chosen_photos, names_option
from benchmarks.quality.measure import INTERPRETERS, Batch
from benchmarks.tables import Table
from underfire import ADV2, Classifier, Interpreter, MapAttack, load_classifier, stats
from underfire.attacks.engine import Setting
from underfire.attacks.joint import Descent
from underfire.attacks.keepers import IterateLosses, Keeper
from underfire.attacks.labels import Confidence, KeptLabel, LabelGoal
from underfire.attacks.transforms import TransformedBatch, identity
from underfire.files import write_whole
from underfire.models.decisions import probability

BUDGETS = (100, 300, 1000)
LONGEST = 3000
"""A budget for the first few photos."""

KEPT, MOVED = "target/kept", "kept/topk"
CELLS = {KEPT: ("cam", "gradcam", "rts", "grad", "ig", "mask"), MOVED: ("cam", "ig")}
"""By goal the interpreters that are attacked."""

TOLERANCE = 1e-6
"""Less than that is not worse."""


@dataclass(frozen=True)
class Point:
    """The saved image of a photo under one budget.

    Attributes:
        budget, passes: granted and spent.
        met: the label is as the attack asks of an image that it keeps for its map.
        loss: of the label goal.
        value: distance of the map from its goal: L1 to the benign map, or how much of its top cells is left.
    """

    budget: int
    passes: int
    met: bool
    loss: float
    value: float

    @property
    def standing(self) -> tuple[bool, float]:
        """The lower, the better: the label counts first, then the map, or what is wanting of the label."""
        return not self.met, self.value if self.met else self.loss


@dataclass(frozen=True)
class Cell:
    """One photo, attacked on one interpreter with one goal.

    Attributes:
        points: by rising budget.
        seconds: of a CPU, for all of them.
    """

    goal: str
    interpreter: str
    photo: str
    points: tuple[Point, ...]
    seconds: float

    @property
    def file(self) -> Path:
        """Where a folder has it."""
        return Path(self.goal.replace("/", "-")) / self.interpreter / f"{self.photo}.json"


class Kept:
    """What an attack has kept after so many looks: its keeper, and a transform that changes nothing but sees all."""

    def __init__(self, setting: Setting, x: Tensor, looks: Sequence[int]) -> None:
        self.narrows, self.looks_last = setting.keep.narrows, setting.keep.looks_last
        self._keeper, self._looks = setting.keep, frozenset(looks)
        self._kept, self._after = x.clone(), dict[int, Tensor]()
        self._seen, self._rows = x, torch.arange(len(x))

    def transform(self, images: Tensor, rows: Tensor, step: int) -> TransformedBatch:
        """The images themselves; all looks before ``step`` are over."""
        for look in self._looks:
            if look < step and look not in self._after:
                self._after[look] = self._kept.clone()
        self._seen, self._rows = images, rows
        return identity(images, rows, step)

    def wins(self, kept: IterateLosses, new: IterateLosses) -> Tensor:
        """As the keeper says."""
        wins = self._keeper.wins(kept, new)
        own = slice(len(wins))
        self._kept[self._rows[own][wins]] = self._seen[own][wins]
        return wins

    def after(self, look: int) -> Tensor:
        """The images (N, C, H, W) that were kept after ``look``."""
        return self._after.get(look, self._kept)


def attack_of(goal: str, g: Interpreter, passes: int) -> Descent:
    """ADV², or the attack that keeps the label."""
    return ADV2(g, passes=passes) if goal == KEPT else MapAttack(g, goal="topk", passes=passes)


def measure(goal: str, g: Interpreter, batch: Batch, budgets: Sequence[int], *, apart: bool = False) -> list[Cell]:
    """Every photo of ``batch`` under rising ``budgets``: by one run where they nest, or each by one of its own."""
    started = time.process_time()
    settings = {budget: attack_of(goal, g, budget).setting for budget in budgets}
    ends = settings[budgets[-1]].schedule.ends
    nested = [b for b in budgets if settings[b].schedule.ends == ends[: len(settings[b].schedule.ends)]]
    alone = list(budgets) if apart else [b for b in budgets if b not in nested]
    found: list[list[Point]] = [[] for _ in batch.names]
    for group in (*([b] for b in alone), *([] if apart else [nested])):
        for points, more in zip(found, _by_one_run(goal, g, batch, {b: settings[b] for b in group}), strict=True):
            points += more
    seconds = (time.process_time() - started) / len(batch.names)
    return [
        Cell(goal, g.name, name, tuple(sorted(points, key=lambda point: point.budget)), seconds)
        for name, points in zip(batch.names, found, strict=True)
    ]


def _by_one_run(goal: str, g: Interpreter, batch: Batch, settings: Mapping[int, Setting]) -> list[list[Point]]:
    attack, classes = attack_of(goal, g, max(settings)), batch.target if goal == KEPT else batch.label
    looks = {budget: setting.finals or (setting.schedule.steps,) for budget, setting in settings.items()}
    kept = Kept(attack.setting, batch.x, [look for some in looks.values() for look in some])
    attack.setting = replace(attack.setting, keep=cast(Keeper, kept), transform=kept.transform)
    result = attack(batch.x, classes, label=batch.label if goal == KEPT else None, keys=batch.names)
    score = _scorer(attack, g, batch, classes)
    scored = {look: score(kept.after(look)) for look in sorted({look for some in looks.values() for look in some})}
    most = {budget: attack_of(goal, g, budget).most_passes() for budget in settings}
    return [
        [
            replace(
                min((scored[look][i] for look in looks[budget]), key=lambda point: point.standing),
                budget=budget,
                passes=min(most[budget], int(result.passes[i])),
            )
            for budget in settings
        ]
        for i in range(len(batch.names))
    ]


def _scorer(attack: Descent, g: Interpreter, batch: Batch, classes: Tensor) -> Callable[[Tensor], list[Point]]:
    """How images (N, C, H, W) stand, as they would be saved, on the unmodified classifier."""
    decision, aim = g.classifier.decision, attack.setting.map_goal
    benign = aim.aimed(g(batch.x, batch.label, keys=batch.names))
    before = probability(decision, g.classifier(batch.x), classes)
    label: LabelGoal = KeptLabel(before) if isinstance(attack, MapAttack) else Confidence()

    def score(x: Tensor) -> list[Point]:
        saved = (x * 255).round() / 255
        logits = g.classifier(saved)
        met, loss = label.label_reached(decision, logits, classes), label.loss(decision, logits, classes)
        value = aim.distance(g(saved, classes, keys=batch.names), benign)
        return [Point(0, 0, bool(m), float(one), float(v)) for m, one, v in zip(met, loss, value, strict=True)]

    return score


def run(
    classifier: Classifier,
    cells: Mapping[str, Sequence[str]],
    parts: Sequence[Batch],
    log: Path,
    *,
    few: int,
    apart: bool = False,
) -> Iterator[Cell]:
    """All photos under the budgets, the first ``few`` under the longest as well, from ``log`` where it has them."""
    for goal, names in cells.items():
        for name in names:
            g, place = INTERPRETERS[name](classifier), 0
            for batch in parts:
                budgets = BUDGETS if place >= few else (*BUDGETS, LONGEST)
                place += len(batch.names)
                known = [read(log / Cell(goal, name, photo, (), 0.0).file, budgets) for photo in batch.names]
                if None in known:
                    known = [*measure(goal, g, batch, budgets, apart=apart)]
                    for cell in known:
                        if cell is not None:
                            (log / cell.file).parent.mkdir(parents=True, exist_ok=True)
                            write_whole(log / cell.file, json.dumps(asdict(cell), indent=1).encode())
                yield from (cell for cell in known if cell is not None)


def read(path: Path, budgets: Sequence[int]) -> Cell | None:
    """What ``path`` holds; None where it isn't there, or has other budgets."""
    if not path.exists():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    cell = Cell(**{**told, "points": tuple(Point(**point) for point in told["points"])})
    return cell if [point.budget for point in cell.points] == list(budgets) else None


def table(found: Sequence[Cell]) -> Table:
    """One line for each goal, interpreter and pair of neighbouring budgets."""
    pairs: dict[tuple[str, str, int, int], list[tuple[Point, Point]]] = {}
    for cell in found:
        for before, after in pairwise(cell.points):
            pairs.setdefault((cell.goal, cell.interpreter, before.budget, after.budget), []).append((before, after))
    rows = [(goal, name, f"{few} → {more}", *_cells(steps)) for (goal, name, few, more), steps in pairs.items()]
    columns = (
        "goal",
        "map",
        "passes",
        "n",
        "label",
        "worse",
        "by more than max(5 %, .002)",
        "worst",
        "before",
        "after",
        "gain",
    )
    notes = (
        "On images saved in 8 bits, maps taken afresh. label: photos whose label goal is met under both budgets, with"
        f" p_t of at least {Confidence.keep:g} where it is to change. An image is worse where that is lost, or met with"
        f" a map further from its goal by more than {TOLERANCE:g}, or missed in both by as much more; worst is the"
        " largest such change, inf for a label that is lost. before, after: mean distance of the map from its goal, L1"
        " to the benign map or the IoU of the top fifths and a thousandth of the share of the map in them; gain: the"
        " mean by which it fell, photo by photo, with a bootstrapped 95 % interval.",
    )
    return Table("More passes", columns, rows, notes)


def worsening(before: Point, after: Point) -> float:
    """By how much the larger budget ended worse, below 0 if better; infinite where it lost the label."""
    if before.met != after.met:
        return float("inf") if before.met else float("-inf")
    return after.standing[1] - before.standing[1]


def _cells(steps: Sequence[tuple[Point, Point]]) -> tuple[str, ...]:
    changes = [worsening(before, after) for before, after in steps]
    gain = stats.bootstrap_mean([before.value - after.value for before, after in steps])
    interval = "" if gain.low is None or gain.high is None else f" [{gain.low:.4f}, {gain.high:.4f}]"
    much = [change > max(0.05 * before.value, 0.002) for change, (before, _) in zip(changes, steps, strict=True)]
    return (
        f"{len(steps)}",
        f"{sum(before.met and after.met for before, after in steps)}",
        f"{sum(change > TOLERANCE for change in changes)}",
        f"{sum(much)}",
        f"{max(0.0, *changes):.2g}",
        f"{sum(before.value for before, _ in steps) / len(steps):.4f}",
        f"{sum(after.value for _, after in steps) / len(steps):.4f}",
        f"{gain.value or 0.0:.4f}{interval}",
    )


def costs(found: Sequence[Cell]) -> Table:
    """What a photo costs, by goal, interpreter and longest budget."""
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in found:
        groups.setdefault((cell.goal, cell.interpreter, cell.points[-1].budget), []).append(cell)
    rows = [
        (goal, name, f"{budget}", f"{len(some)}", f"{sum(cell.seconds for cell in some) / len(some):.0f}")
        for (goal, name, budget), some in groups.items()
    ]
    return Table("Seconds of a CPU for a photo", ("goal", "map", "longest budget", "n", "s"), rows)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@names_option()
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many photos.")
@click.option("--batch-size", type=click.IntRange(1), default=4, show_default=True)
@click.option("--few", type=click.IntRange(0), default=8, show_default=True, help=f"Photos under {LONGEST} passes.")
@click.option("--cell", "chosen", multiple=True, metavar="GOAL:MAP", help="Only these, as target/kept:ig.")
@click.option("--apart", is_flag=True, help="Each budget by a run of its own, to see that nothing else comes out.")
@click.option("--log", type=click.Path(path_type=Path), required=True, help="Where finished photos are kept.")
def main(
    photos: Path,
    lists: tuple[Path, ...],
    limit: int,
    batch_size: int,
    few: int,
    chosen: tuple[str, ...],
    apart: bool,
    log: Path,
) -> None:
    """Attack PHOTOS that the built-in classifier gets right with ever more passes, on one map after another."""
    click.echo(header())
    classifier = load_classifier()
    parts = chosen_photos(classifier, photos, lists, limit, batch_size)
    wanted = {
        goal: [name for name in names if not chosen or f"{goal}:{name}" in chosen] for goal, names in CELLS.items()
    }
    found: list[Cell] = []
    for cell in run(classifier, wanted, parts, log, few=few, apart=apart):
        found.append(cell)
        click.echo(f"{cell.file}: {' → '.join(f'{point.value:.4f}' for point in cell.points)}", err=True)
    click.echo(table(found))
    click.echo(costs(found))


if __name__ == "__main__":
    main()
