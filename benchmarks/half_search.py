"""``python -m benchmarks.half_search PHOTOS``: does an attack that searches in bfloat16 reach more in the same time?

A pass in bfloat16 takes less time and its gradient is less exact. So either search gets the same seconds of a CPU, as
passes by what a pass of each takes, and what it finds is judged in float32 by the unmodified classifier.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import click
import torch
from torch import Tensor

from benchmarks.gpu_stages import bf16
from benchmarks.header import header
from benchmarks.photos import chosen_photos, names_option
from benchmarks.quality.measure import Batch, View, views
from benchmarks.tables import Table, interval
from benchmarks.timing import Ratio, in_turn, ratio
from underfire import ADV2, CAM, GRAD, PGD, Classifier, Interpreter, load_classifier, stats
from underfire.attacks.engine import Outcome, Setting, descend
from underfire.attacks.perturbations import Linf
from underfire.auditing.summary import KEPT_IOU
from underfire.images.png import from_8bit
from underfire.interpreters import MapTarget
from underfire.models.folded import prepared
from underfire.stats import Estimate

WHOLE, HALF = "float32", "bfloat16"
PRECISIONS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    WHOLE: nullcontext,
    HALF: bf16(torch.device("cpu")),
}
PASSES = 100
"""Of the search in float32."""

PROBED, TURNS = 12, 5
"""Passes of the searches by which a pass is timed, and how often each is."""


@dataclass(frozen=True)
class Search:
    """An attack's loop on the prepared classifier.

    Attributes:
        name: of the attack.
        shown: whose maps are compared with the benign ones.
        joint: whether it attacks them.
    """

    name: str
    shown: Interpreter
    joint: bool = True

    def setting(self, passes: int) -> Setting:
        """That of the attack, annealed over ``passes`` in one stage, so that all of them count."""
        found = (ADV2(self.shown, passes=passes) if self.joint else PGD(self.shown.classifier, passes=passes)).setting
        return replace(found, schedule=replace(found.schedule, ends=()))

    def run(self, twin: Classifier, batch: Batch, benign: Tensor, passes: int) -> Outcome:
        """Search on the prepared ``twin`` of the classifier, to keep the maps ``benign`` (N, h, w)."""
        task = MapTarget(batch.target, benign, batch.names, seed=0)
        objectives = [self.shown.objective(task)] if self.joint else []
        return descend(twin, batch.x, batch.target, objectives, self.setting(passes))


def searches(classifier: Classifier) -> list[Search]:
    """ADV² where a map is cheap and where it is a gradient, and PGD."""
    cam = CAM(classifier)
    return [Search("ADV² on CAM", cam), Search("ADV² on GRAD", GRAD(classifier)), Search("PGD", cam, joint=False)]


@dataclass(frozen=True)
class Cost:
    """Seconds of a CPU for a pass of one photo in each precision, and their ratio, taken in turn."""

    seconds: Mapping[str, float]
    ratio: Ratio

    def passes(self, precision: str, passes: int) -> int:
        """How many of ``precision`` take as long as ``passes`` in float32."""
        return passes if precision == WHOLE else max(1, round(passes / self.ratio.value))


def cost(search: Search, batch: Batch, *, turns: int, clock: Callable[[], float] = time.process_time) -> Cost:
    """What a pass of ``search`` costs, by short runs on ``batch``."""
    twin, benign, spent = prepared(search.shown.classifier), search.shown(batch.x, batch.label), dict[str, int]()

    def probe(name: str) -> Callable[[], None]:
        def run() -> None:
            with PRECISIONS[name]():
                spent[name] = int(search.run(twin, batch, benign, PROBED).passes.sum())

        return run

    took = in_turn({name: probe(name) for name in PRECISIONS}, turns=turns, clock=clock)
    each = {name: [second / spent[name] for second in seconds] for name, seconds in took.items()}
    return Cost({name: median(seconds) for name, seconds in each.items()}, ratio(each[HALF], each[WHOLE]))


@dataclass(frozen=True)
class Found:
    """What one search found for one photo.

    Attributes:
        photo, search, precision: their names.
        attacked: the map was attacked, and not the prediction alone.
        passes, seconds: of a CPU that it spent.
        view: of the image as saved in 8 bits, by the unmodified classifier in float32.
        nll: −log p_t there, in nats.
    """

    photo: str
    search: str
    precision: str
    attacked: bool
    passes: int
    seconds: float
    view: View
    nll: float

    @property
    def joint(self) -> bool:
        """The label is the target and the map overlaps with the benign one."""
        return self.view.success and self.view.iou >= KEPT_IOU

    @property
    def fooled(self) -> bool:
        """The search found what it is for."""
        return self.joint if self.attacked else self.view.success

    @property
    def loss(self) -> float:
        """What it lowers: L1 to the benign map, or −log p_t."""
        return self.view.l1 if self.attacked else self.nll


def measure(search: Search, batch: Batch, costs: Cost, passes: int) -> Iterator[Found]:
    """Both searches on ``batch``, in equal time, one after the other."""
    classifier, g = search.shown.classifier, search.shown
    twin, benign = prepared(classifier), g(batch.x, batch.label, keys=batch.names)
    for name, precision in PRECISIONS.items():
        started = time.process_time()
        with precision():
            outcome = search.run(twin, batch, benign, costs.passes(name, passes))
        seconds = (time.process_time() - started) / len(batch.names)
        saved = from_8bit(Linf().rounded(batch.x, outcome.x_adv), batch.x.dtype)
        with torch.no_grad():
            nll = classifier.decision.nll(classifier(saved), batch.target)
        for i, view in enumerate(views(g, batch, saved, benign)):
            spent = int(outcome.passes[i])
            yield Found(batch.names[i], search.name, name, search.joint, spent, seconds, view, float(nll[i]))


def cost_table(found: Mapping[str, Cost], passes: int) -> Table:
    """One line for each search."""
    rows = []
    for name, one in found.items():
        seconds, granted = zip(*((one.seconds[p], one.passes(p, passes)) for p in PRECISIONS), strict=True)
        rows.append((name, *(f"{1000 * s:.1f}" for s in seconds), f"{one.ratio}", *map(str, granted)))
    columns = ("search", *(f"ms in {p}" for p in PRECISIONS), "ratio", *(f"passes in {p}" for p in PRECISIONS))
    notes = (f"Milliseconds of a CPU for a pass of a photo, in {TURNS} turns; the passes then take equally long.",)
    return Table("What a pass costs", columns, rows, notes)


def level_table(found: Sequence[Found]) -> Table:
    """One line for each search and precision: means over photos."""
    groups: dict[tuple[str, str], list[Found]] = {}
    for one in found:
        groups.setdefault((one.search, one.precision), []).append(one)
    rows = []
    for (search, precision), group in groups.items():

        def mean(value: Callable[[Found], float], group: Sequence[Found] = group) -> float:
            return sum(map(value, group)) / len(group)

        rows.append(
            (
                search,
                precision,
                f"{mean(lambda one: one.passes):.0f}",
                f"{mean(lambda one: one.seconds):.1f}",
                f"{sum(one.view.success for one in group)} of {len(group)}",
                f"{sum(one.joint for one in group)}",
                f"{mean(lambda one: one.view.l1):.4f}",
                f"{mean(lambda one: one.view.p):.3f}",
                f"{mean(lambda one: one.nll):.4f}",
            )
        )
    columns = ("search", "in", "passes", "seconds", "label", "joint", "L1", "p_t", "−log p_t")
    notes = (
        "Spent passes and seconds of a CPU, means over photos. Images saved in 8 bits, in float32 on the unmodified"
        f" classifier: joint is the label and an IoU at 0.5 of at least {KEPT_IOU:g}; L1 is to the benign map,"
        " under PGD CAM's.",
    )
    return Table("What is found in equal time", columns, rows, notes)


def difference_table(found: Sequence[Found]) -> Table:
    """One line for each search: bfloat16 less float32, photo by photo, and whether it pays."""
    rows = []
    for search in dict.fromkeys(one.search for one in found):
        by_photo = {(one.photo, one.precision): one for one in found if one.search == search}
        photos = list(dict.fromkeys(photo for photo, _ in by_photo))
        pairs = [(by_photo[photo, HALF], by_photo[photo, WHOLE]) for photo in photos]
        l1, p, nll, loss = (
            stats.bootstrap_paired([value(half) for half, _ in pairs], [value(whole) for _, whole in pairs])
            for value in _VALUES
        )
        fooled = sum(half.fooled - whole.fooled for half, whole in pairs)
        figures = (interval(value, signed=True, digits=4) for value in (l1, p, nll))
        rows.append((search, f"{len(pairs)}", f"{fooled:+d}", *figures, verdict(loss, fooled)))
    columns = ("search", "n", "photos", "L1 [95 %]", "p_t [95 %]", "−log p_t [95 %]", "it pays")
    notes = (
        "bfloat16 less float32, photo by photo, with bootstrapped intervals; photos: how many more have label and map,"
        " under PGD the label. It pays where no photo is lost and L1, of PGD −log p_t, is lower, the whole interval"
        " below 0.",
    )
    return Table("Does it pay", columns, rows, notes)


def verdict(difference: Estimate, fooled: int) -> str:
    """Whether a search whose loss is lower by a negative ``difference``, on ``fooled`` more photos, is the better."""
    if difference.low is None or difference.high is None:
        return "too few photos"
    if fooled < 0 or difference.low > 0:
        return "no, it is worse"
    return "yes" if difference.high < 0 else "no difference seen"


_VALUES: Sequence[Callable[[Found], float]] = (
    lambda one: one.view.l1,
    lambda one: one.view.p,
    lambda one: one.nll,
    lambda one: one.loss,
)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@names_option()
@click.option("--limit", type=click.IntRange(1), default=8, help="At most so many photos.")
@click.option("--batch-size", type=click.IntRange(1), default=4)
@click.option("--passes", type=click.IntRange(1), default=PASSES, help="Of the search in float32.")
def main(photos: Path, lists: tuple[Path, ...], limit: int, batch_size: int, passes: int) -> None:
    """Attack PHOTOS that the built-in classifier gets right, in float32 and in bfloat16, in equal time."""
    click.echo(header())
    classifier = load_classifier()
    parts = chosen_photos(classifier, photos, lists, limit, batch_size)
    costs, found = dict[str, Cost](), list[Found]()
    for search in searches(classifier):
        costs[search.name] = cost(search, parts[0], turns=TURNS)
        for batch in parts:
            found += measure(search, batch, costs[search.name], passes)
            click.echo(f"{search.name}: {len(found)} found", err=True)
    click.echo(cost_table(costs, passes))
    click.echo(level_table(found))
    click.echo(difference_table(found))


if __name__ == "__main__":
    main()
