"""``python -m benchmarks.map_rivals PHOTOS``: `MapAttack` beside the published attacks on a map whose label stays.

Everything is scored as saved in 8 bits, by the unmodified model and maps taken afresh. A measurement of hours: every
finished batch is in a file, and a run that is started again goes on where it was.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click
import torch
from torch import Tensor

from benchmarks.header import header
from benchmarks.photos import HELD_OUT, chosen_photos, names_option
from benchmarks.quality.measure import Batch
from benchmarks.tables import Table, interval
from underfire import (
    CAM,
    GRAD,
    IG,
    Classifier,
    Interpreter,
    Linf,
    MapAttack,
    PublishedMapAttack,
    load_classifier,
    metrics,
    stats,
)
from underfire.attacks.map_attack import LabelKept
from underfire.choices import split_names
from underfire.errors import InputError
from underfire.images.png import from_8bit
from underfire.interpreters.map_goals import TOP
from underfire.interpreters.registry import interpreter_title

GoalWord = Literal["topk", "center", "led"]
INTERPRETERS: Mapping[str, Callable[[Classifier], Interpreter]] = {"grad": GRAD, "cam": CAM, "ig": IG}
GOALS: tuple[GoalWord, ...] = ("topk", "led", "center")
OURS, THEIRS = "MapAttack", "published"
ATTACKS: Mapping[str, Callable[[Interpreter, GoalWord, int], LabelKept]] = {
    OURS: lambda g, goal, passes: MapAttack(g, goal=goal, passes=passes),
    THEIRS: lambda g, goal, passes: PublishedMapAttack(g, goal=goal, passes=passes),
}
TOLERANCE = 0.1
SAME = 1e-6
"""Two figures that differ by no more count as equal."""


@dataclass(frozen=True)
class Moved:
    """One photo after one attack, as saved.

    Attributes:
        photo, interpreter, goal, attack: their names.
        budget, passes: of the attack, and what it spent.
        label: the prediction stays.
        change: of its probability.
        top: IoU of the map's top fifth with that of the benign map, or of the map led to.
        shift: of the centre of mass, in diagonals, from that one's.
        l1, iou: to that one; the IoU of both cut at 0.5.
    """

    photo: str
    interpreter: str
    goal: GoalWord
    attack: str
    budget: int
    passes: int
    label: bool
    change: float
    top: float
    shift: float
    l1: float
    iou: float

    @property
    def score(self) -> float:
        """The goal's measure, the lower the better."""
        return {"topk": self.top, "center": -self.shift, "led": self.l1}[self.goal]


def measure(
    interpreters: Sequence[Interpreter], goals: Sequence[GoalWord], parts: Sequence[Batch], log: Path, passes: int
) -> Iterator[Moved]:
    """Every photo by both attacks, batch by batch; from ``log`` where it stands there already.

    A map is led to that of the photo before, the first photo's to that of the second.
    """
    known = {(one.interpreter, one.goal, one.attack, one.budget, one.photo): one for one in read(log)}
    givens: dict[str, Tensor] = {}
    for place, batch in enumerate(parts):
        for g in interpreters:
            benign = g(batch.x, batch.label, keys=batch.names)
            before = givens.get(g.name, benign[1:2] if place == 0 else benign[:1])
            given, givens[g.name] = torch.cat([before, benign[:-1]]), benign[-1:]
            for goal in goals:
                reference = given if goal == "led" else benign
                for attack in ATTACKS:
                    case = (g.name, goal, attack, passes)
                    if any((*case, photo) not in known for photo in batch.names):
                        fresh = _attacked(g, goal, attack, passes, batch, reference)
                        with log.open("a", encoding="utf-8") as lines:
                            lines.writelines(f"{json.dumps(asdict(one))}\n" for one in fresh)
                        known |= {(*case, one.photo): one for one in fresh}
                    yield from (known[*case, photo] for photo in batch.names)


def _attacked(g: Interpreter, goal: GoalWord, attack: str, passes: int, batch: Batch, reference: Tensor) -> list[Moved]:
    target_map = reference if goal == "led" else None
    result = ATTACKS[attack](g, goal, passes)(batch.x, batch.label, target_map=target_map, keys=batch.names)
    saved = from_8bit(Linf().rounded(batch.x, result.x_adv), batch.x.dtype)
    now, then = (g.classifier.probabilities(image) for image in (saved, batch.x))
    change = (now - then).gather(1, batch.label[:, None])[:, 0]
    kept = now.argmax(dim=1) == batch.label
    maps = g(saved, batch.label, keys=batch.names)
    columns = (
        metrics.iou_top(maps, reference, share=TOP),
        metrics.center_shift(maps, reference),
        metrics.l1(maps, reference),
        metrics.iou(maps, reference),
    )
    return [
        Moved(
            photo,
            g.name,
            goal,
            attack,
            passes,
            int(result.passes[i]),
            bool(kept[i]),
            float(change[i]),
            *(float(column[i]) for column in columns),
        )
        for i, photo in enumerate(batch.names)
    ]


def read(log: Path) -> list[Moved]:
    """The lines of ``log``, none where there is no such file."""
    if not log.exists():
        return []
    return [Moved(**json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]


Cases = dict[tuple[GoalWord, str], dict[str, dict[str, Moved]]]
"""By goal and interpreter, by attack, by photo."""


def cases(found: Sequence[Moved]) -> Cases:
    """What was found, by goal and interpreter, of photos that both attacks finished."""
    grouped: Cases = {}
    for one in found:
        grouped.setdefault((one.goal, one.interpreter), {}).setdefault(one.attack, {})[one.photo] = one
    both: Cases = {}
    for goal in GOALS:
        for case, attacks in grouped.items():
            if case[0] == goal and len(attacks) == len(ATTACKS):
                photos = set.intersection(*(set(of) for of in attacks.values()))
                both[case] = {name: {p: one for p, one in of.items() if p in photos} for name, of in attacks.items()}
    return both


def reached(found: Cases) -> Table:
    """One line per goal, interpreter and attack."""
    columns = (
        "goal",
        "interpreter",
        "attack",
        "n",
        "passes",
        "label kept",
        f"p within {TOLERANCE:g}",
        "IoU of top fifths",
        "centre shift",
        "L1",
        "IoU",
    )
    rows = []
    for (goal, name), attacks in found.items():
        for attack, photos in attacks.items():
            rows.append((f"kept/{goal}", interpreter_title(name), attack, *_cells(goal, list(photos.values()))))
    return Table("What is reached", columns, rows)


def _cells(goal: GoalWord, group: Sequence[Moved]) -> tuple[str, ...]:
    def mean(of: Callable[[Moved], float], *goals: GoalWord) -> str:
        return interval(stats.bootstrap_mean([of(one) for one in group])) if goal in goals else "-"

    return (
        str(len(group)),
        f"{sum(one.passes for one in group) / len(group):.0f}",
        str(sum(one.label for one in group)),
        str(sum(one.label and abs(one.change) <= TOLERANCE for one in group)),
        mean(lambda one: one.top, "topk"),
        mean(lambda one: one.shift, "center"),
        mean(lambda one: one.l1, "led"),
        mean(lambda one: one.iou, "led"),
    )


def differences(found: Cases) -> Table:
    """On the same photos, our measure less theirs; below zero ours is stronger."""
    columns = ("goal", "interpreter", "n", "measure", "ours less theirs [95 %]", "better", "equal", "worse", "ours is")
    measures = {"topk": "IoU of top fifths", "center": "−centre shift", "led": "L1"}
    rows = []
    for (goal, name), attacks in found.items():
        photos = list(attacks[OURS])
        ours, theirs = ([attacks[attack][photo].score for photo in photos] for attack in (OURS, THEIRS))
        pair = stats.bootstrap_paired(ours, theirs)
        better, worse = (sum(a < b - SAME for a, b in zip(*of, strict=True)) for of in ((ours, theirs), (theirs, ours)))
        counts = (str(better), str(len(photos) - better - worse), str(worse))
        title = interpreter_title(name)
        cells = (str(len(photos)), measures[goal], interval(pair, signed=True), *counts, verdict(pair))
        rows.append((f"kept/{goal}", title, *cells))
    return Table("Ours less theirs, on the same photos", columns, rows)


def verdict(pair: stats.Estimate) -> str:
    """What the interval of a difference says, of which below zero is stronger."""
    if pair.low is None or pair.high is None or pair.low <= 0 <= pair.high:
        return "no weaker, within the interval"
    return "stronger" if pair.high < 0 else "weaker"


ABOUT = """# Attacks on a map whose label stays, beside the published ones

`{command}`

{short}

`underfire.MapAttack` is ours. The published schedules are `underfire.PublishedMapAttack`, written from the papers:
`topk` and `center` those of Ghorbani et al. 2019 (steps of half a grey level by sign), `led` that of Dombrowski et al.
2019 (Adam, the output held by a second loss), both with second derivatives through softplus in place of ReLU. Nobody
published one for CAM: it gets the same steps on exact gradients. A map is led to that of another photo.

All within 8/255 in L∞. Both have the same budget of passes and pay alike: a step takes 1 pass on CAM, 2 on GRAD and 3
on IG. A smoothed double backward counts 2: a forward and backward pass whose graph is kept, and the backward pass
through both. The look at the network as it is, which a published step takes besides, isn't counted. The papers took 300
steps (`topk`, `center`) and 1500 (`led`); a shorter run of `led` takes longer steps, so that a pixel may travel as far.
Of `led` the papers keep the last iterate, the attack here the nearest one with the same prediction; it is the stronger
for it. For IG both estimate the path from one random point a step; the papers differentiate all of it at each.

The photos are held out: no constant of an attack was chosen on them. The model gets them right. Images are saved in
whole grey levels and scored on the unmodified model.

* **label kept**: on how many photos the prediction stays, which is all that the papers ask for; **p within 0.1**: and
  its probability too, as ours must keep it.
* **IoU of top fifths** with the benign map, lower is stronger; **centre shift** in diagonals of the map, higher; **L1**
  and **IoU** (both cut at 0.5) to the given map, L1 lower and IoU higher.
* Intervals are of 95 %, bootstrapped over photos.
"""


def in_short(found: Cases) -> str:
    """A sentence with the verdicts."""
    said: dict[str, list[str]] = {}
    for row in differences(found).rows:
        said.setdefault(row[-1], []).append(f"{row[1]} {row[0]} (n = {row[2]})")
    return "\n".join(f"* Ours is {word}: {', '.join(where)}." for word, where in said.items())


def page(found: Sequence[Moved], command: str) -> str:
    """The whole page, Markdown."""
    grouped = cases(found)
    about = ABOUT.format(command=command, short=in_short(grouped))
    return "\n".join(
        [about, header().replace("## underfire benchmarks\n\n", ""), str(reached(grouped)), str(differences(grouped))]
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option("--log", type=click.Path(path_type=Path), required=True, help="A file for what is finished.")
@click.option("--model", default="efficientnet-lite0", show_default=True)
@click.option("--interpreters", default=",".join(INTERPRETERS), show_default=True, help="Comma-separated.")
@click.option("--goals", default=",".join(GOALS), show_default=True, help="Comma-separated.")
@names_option(HELD_OUT)
@click.option("--limit", type=click.IntRange(2), default=20, show_default=True, help="Photos, of those got right.")
@click.option("--passes", type=click.IntRange(1), default=100, show_default=True, help="Of each attack on a photo.")
@click.option("--batch-size", type=click.IntRange(2), default=4, show_default=True, help="Photos attacked together.")
@click.option("--finished", is_flag=True, help="Print what the file holds; attack nothing.")
def main(
    photos: Path,
    log: Path,
    model: str,
    interpreters: str,
    goals: str,
    lists: tuple[Path, ...],
    limit: int,
    passes: int,
    batch_size: int,
    finished: bool,
) -> None:
    """Move and lead maps of PHOTOS that the model gets right, by our attack and by the published ones."""
    try:
        names = split_names(interpreters, tuple(INTERPRETERS), "interpreter")
        words = split_names(goals, GOALS, "goal")
        what = f"--interpreters {interpreters} --goals {goals}"
        options = f"{what} --passes {passes} --limit {limit} --batch-size {batch_size}"
        command = f"python -m benchmarks.map_rivals PHOTOS {options} --log map-rivals.jsonl"
        if finished:
            click.echo(page([one for one in read(log) if one.budget == passes], command))
            return
        classifier = load_classifier(model)
        parts = chosen_photos(classifier, photos, lists, limit, batch_size)
        attacked = [INTERPRETERS[name](classifier) for name in names]
        found = []
        for one in measure(attacked, [goal for goal in GOALS if goal in words], parts, log, passes):
            click.echo(f"{one.interpreter}, {one.goal}, {one.attack}, {one.photo}: {one.score:.4f}", err=True)
            found.append(one)
        click.echo(page(found, command))
    except InputError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
