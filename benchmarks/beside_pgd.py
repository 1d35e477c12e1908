"""``python -m benchmarks.beside_pgd FOLDER``: ADV² on one interpreter after another, beside PGD and noise.

Everything is scored as saved in 8 bits. A measurement of an hour or more: every finished batch is in a file in FOLDER,
and a run that is started again goes on where it was.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.header import header
from benchmarks.pages import draw_pages
from benchmarks.photos import chosen_photos, names_option
from benchmarks.quality.measure import Batch, View, views
from benchmarks.tables import Table, at_most, interval
from benchmarks.timing import Ratio
from underfire import ADV2, PGD, Classifier, Interpreter, load_classifier, stats
from underfire.attacks.perturbations import Linf
from underfire.auditing.names import known_interpreters
from underfire.auditing.summary import KEPT_IOU
from underfire.auditing.unit import noise
from underfire.choices import split_names
from underfire.errors import InputError
from underfire.images.png import from_8bit
from underfire.interpreters.registry import interpreter_title

MODELS = ("pages-vit", "benchmarks.rapid_orientation:classifier")
INTERPRETERS = (
    "gradcamplusplus,hirescam,layercam,eigencam,rollout,attentionrelevance,lrp,attnlrp,occlusion,rise,kernelshap,lime"
)
PAGES_SEED = 3
"""No other command draws these pages: 0 are those of training, 1 and 2 of others."""

MOST, LEAST = 0.5, 0.95
"""The aim: ADV²'s mean L1 in parts of PGD's at most, and its ASR at least."""


@dataclass(frozen=True)
class Beside:
    """One photo under ADV² on one interpreter, and what that interpreter shows under PGD and under noise.

    Attributes:
        photo, interpreter: their names.
        budget: passes that either attack may spend.
        passes, steps: that ADV² spent.
        adv2, pgd: the saved image.
        noise: L1 to the benign map of the map for the label, with every pixel up or down by ε.
    """

    photo: str
    interpreter: str
    budget: int
    passes: int
    steps: int
    adv2: View
    pgd: View
    noise: float


def measure(
    classifier: Classifier, names: Iterable[str], parts: Sequence[Batch], log: Path, *, passes: int
) -> Iterator[Beside]:
    """Every photo under attacks on every one of the interpreters, from ``log`` where it stands there already."""
    known = {(one.interpreter, one.budget, one.photo): one for one in read(log)}

    @functools.cache
    def by_pgd(part: int) -> Tensor:
        batch = parts[part]
        return _saved(batch, PGD(classifier, passes=passes)(batch.x, batch.target, keys=batch.names).x_adv)

    for name in names:
        interpreter = known_interpreters()[name](classifier)
        for part, batch in enumerate(parts):
            if any((name, passes, photo) not in known for photo in batch.names):
                fresh = list(_attacked(interpreter, batch, by_pgd(part), passes))
                with log.open("a", encoding="utf-8") as lines:
                    lines.writelines(f"{json.dumps(asdict(one))}\n" for one in fresh)
                known |= {(name, passes, one.photo): one for one in fresh}
            yield from (known[name, passes, photo] for photo in batch.names)


def _attacked(interpreter: Interpreter, batch: Batch, by_pgd: Tensor, passes: int) -> Iterator[Beside]:
    x, names = batch.x, batch.names
    result = ADV2(interpreter, passes=passes)(x, batch.target, label=batch.label, keys=names)
    shaken, _ = noise(x, Linf(), seed=0, keys=names)
    benign = interpreter(x, batch.label, keys=names)
    adv2, pgd = (views(interpreter, batch, image, benign) for image in (_saved(batch, result.x_adv), by_pgd))
    floor = (interpreter(_saved(batch, shaken), batch.label, keys=names) - benign).abs().mean(dim=(1, 2))
    for i, name in enumerate(names):
        yield Beside(
            name, interpreter.name, passes, int(result.passes[i]), result.steps, adv2[i], pgd[i], float(floor[i])
        )


def _saved(batch: Batch, image: Tensor) -> Tensor:
    return from_8bit(Linf().rounded(batch.x, image), batch.x.dtype)


def read(log: Path) -> list[Beside]:
    """The lines of ``log``, none where there is no such file."""
    if not log.exists():
        return []
    return [_parsed(json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]


def _parsed(line: dict[str, Any]) -> Beside:
    adv2, pgd = (View(**line.pop(name)) for name in ("adv2", "pgd"))
    return Beside(**line, adv2=adv2, pgd=pgd)


COLUMNS = (
    "interpreter",
    "n",
    "steps",
    "ASR",
    "L1 [95 %]",
    "L1 under PGD",
    "L1 under noise",
    "ADV² / PGD",
    "label chosen, map kept",
    "PGD does so",
    "aim",
)


def table(title: str, found: Sequence[Beside], refused: Mapping[str, str]) -> Table:
    """One line per interpreter, and below why others cannot be had."""
    groups: dict[str, list[Beside]] = {}
    for one in found:
        groups.setdefault(one.interpreter, []).append(one)
    rows = [(interpreter_title(name), *_cells(group)) for name, group in groups.items()]
    by_pgd = {one.photo: one.pgd.success for one in found}
    notes = [f"PGD chose the label on {sum(by_pgd.values())} of {len(by_pgd)} photos.", ""]
    notes += [f"* {interpreter_title(name)}: {reason}" for name, reason in refused.items()]
    return Table(title, COLUMNS, rows, notes)


def _cells(group: Sequence[Beside]) -> tuple[str, ...]:
    n = len(group)
    ours, theirs = [one.adv2.l1 for one in group], [one.pgd.l1 for one in group]
    asr, share = stats.wilson(sum(one.adv2.success for one in group), n), _ratio(ours, theirs)
    kept = [stats.wilson(sum(map(_kept, seen)), n) for seen in zip(*((o.adv2, o.pgd) for o in group), strict=True)]
    sure = asr.value is not None and asr.value >= LEAST
    return (
        str(n),
        str(group[0].steps),
        interval(asr),
        *(interval(stats.bootstrap_mean(values)) for values in (ours, theirs, [one.noise for one in group])),
        str(share),
        *map(interval, kept),
        at_most(share, MOST) if sure else f"missed: ASR below {LEAST:g}",
    )


def _kept(seen: View) -> bool:
    return seen.success and seen.iou >= KEPT_IOU


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The ratio of the means of pairs, with its bootstrap interval; of one pair it has no width."""
    pairs = torch.tensor([ours, theirs], dtype=torch.float64)

    def of(places: Tensor) -> Tensor:
        above, below = pairs[:, places].mean(dim=-1)
        ratio: Tensor = above / below
        return ratio

    value = float(of(torch.arange(len(ours))))
    return Ratio(value, *(stats.bootstrap_ends(of, len(ours)) if len(ours) > 1 else (value, value)))


def section(
    classifier: Classifier, names: Sequence[str], parts: Sequence[Batch], folder: Path, *, passes: int
) -> Table:
    """Measure what ``folder`` does not have yet, and show all that it then has of these photos and passes."""
    refused = {name: known_interpreters()[name].available(classifier) for name in names}
    log = folder / f"{classifier.name}.jsonl"
    for one in measure(classifier, [name for name in names if refused[name] is None], parts, log, passes=passes):
        click.echo(f"{classifier.name}, {one.interpreter}: {one.photo}", err=True)
    photos = {photo for batch in parts for photo in batch.names}
    found = [one for one in read(log) if one.photo in photos and one.budget == passes]
    reasons = {name: reason for name, reason in refused.items() if reason is not None}
    return table(f"{classifier.name}, {passes} passes, {len(photos)} photos", found, reasons)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True, help="May be given again.")
@click.option("--interpreters", default=INTERPRETERS, show_default=True, help="Comma-separated.")
@click.option("--pages", type=click.IntRange(1), default=24, show_default=True, help="To draw, a quarter each way up.")
@click.option("--photos", type=click.Path(exists=True, path_type=Path), help="Other photos, in place of drawn pages.")
@names_option()
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many are attacked.")
@click.option("--passes", type=click.IntRange(1), default=300, show_default=True, help="Of each attack on a photo.")
@click.option("--batch-size", type=click.IntRange(1), default=12, show_default=True, help="Photos attacked together.")
def main(
    folder: Path,
    models: tuple[str, ...],
    interpreters: str,
    pages: int,
    photos: Path | None,
    lists: tuple[Path, ...],
    limit: int,
    passes: int,
    batch_size: int,
) -> None:
    """Attack photos that each model gets right towards a random class and the benign map; results stay in FOLDER."""
    try:
        names = split_names(interpreters, tuple(known_interpreters()), "interpreter")
        folder.mkdir(parents=True, exist_ok=True)
        if photos is None:
            photos = folder / "pages"
            draw_pages(photos, pages=pages, seed=PAGES_SEED)
        click.echo(header())
        for model in models:
            classifier = load_classifier(model)
            parts = chosen_photos(classifier, photos, lists, limit, batch_size)
            click.echo(section(classifier, names, parts, folder, passes=passes))
    except InputError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
