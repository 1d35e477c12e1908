"""``python -m benchmarks.minimum_norm PHOTOS``: the smallest ε of joint attacks, and that of bisection.

Everything is scored as saved in 8 bits, by the unmodified model and maps taken afresh. A measurement of hours: every
finished batch is in a file, and a run that is started again goes on where it was.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from torch import Tensor

from benchmarks.header import header
from benchmarks.photos import HELD_OUT, chosen_photos, names_option
from benchmarks.quality.measure import Batch
from benchmarks.tables import Table, interval
from underfire import ADV2, Interpreter, MinimumNorm, load_classifier, metrics, stats
from underfire.attacks.perturbations.norms import NORMS, Norm, NormName
from underfire.auditing.names import known_interpreters
from underfire.choices import split_names
from underfire.errors import InputError
from underfire.images.png import from_8bit
from underfire.interpreters.registry import interpreter_title

IOU = 0.5
FINE = 1.1
"""Bisection in L2 ends where the smallest radius that was enough is at most so many times the largest that was not."""

DOUBLINGS = 4
"""So often bisection doubles a radius that was not enough, before anything was."""


@dataclass(frozen=True)
class Smallest:
    """The smallest change of one photo that one method found.

    Attributes:
        photo, interpreter, norm, method: their names.
        budget: passes of the search, or of each attack of a bisection.
        eps: as saved; None where none was found.
        passes: all that were spent.
    """

    photo: str
    interpreter: str
    norm: NormName
    method: str
    budget: int
    eps: float | None
    passes: int


Method = Callable[[Interpreter, Batch, Norm, int], tuple[Tensor, Tensor]]
"""From an interpreter, photos, a norm and a budget to the smallest ε (N,), infinite where there is none, and passes."""


def search(interpreter: Interpreter, batch: Batch, norm: Norm, passes: int) -> tuple[Tensor, Tensor]:
    """By `MinimumNorm`."""
    attack = MinimumNorm(interpreter, norm=norm.name, iou=IOU, passes=passes)
    result = attack(batch.x, batch.target, label=batch.label, keys=batch.names)
    return result.eps, result.passes


def bisection(interpreter: Interpreter, batch: Batch, norm: Norm, passes: int) -> tuple[Tensor, Tensor]:
    """By ADV² at one radius after another, each photo its own; a success counts at the size that its image has.

    It begins where ADV² does by default, doubles until the goal is met, and goes on between the largest radius that was
    not enough and the smallest that was: in L∞ until these are neighbours, in L2 until they are within a tenth.
    """
    n, most = len(batch.x), min(norm.first(batch.x) * 2**DOUBLINGS, norm.largest(batch.x))
    now = torch.full((n,), norm.first(batch.x), dtype=torch.float64)
    low, best, spent = torch.zeros_like(now), torch.full_like(now, torch.inf), torch.zeros(n, dtype=torch.int64)
    while (left := _undecided(norm, low, best, most)).any():
        for radius in now[left].unique().tolist():
            rows = (left & (now == radius)).nonzero().flatten()
            sizes, cost = _attacked(interpreter, batch, norm, radius, passes, rows)
            spent[rows] += cost
            best[rows] = torch.minimum(best[rows], sizes)
            low[rows] = low[rows].where(sizes.isfinite(), radius)
        now = _middle(norm, low, best).where(best.isfinite(), (2 * now).clamp(max=most))
    return best, spent


def _undecided(norm: Norm, low: Tensor, best: Tensor, most: float) -> Tensor:
    """Where (N,) there is a radius to try below ``best``, or one up to ``most`` where nothing was enough."""
    finer = best - low > 1.5 / 255 if norm.name == "linf" else best > FINE * low
    return (finer & (best > 1.5 / 255)).where(best.isfinite(), low < most)


def _middle(norm: Norm, low: Tensor, best: Tensor) -> Tensor:
    """The geometric mean of both; for no ``low`` yet stands half a level, in L2 a quarter of ``best``."""
    if norm.name == "l2":
        return (torch.maximum(low, best / 4) * best).sqrt()
    least, most = (low * 255).round(), (best * 255).round()
    middle = (least.clamp_min(0.5) * most).sqrt().round()
    return torch.minimum(torch.maximum(middle, least + 1), most - 1) / 255


def _attacked(
    interpreter: Interpreter, batch: Batch, norm: Norm, radius: float, passes: int, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """By ADV² within ``radius``: the size (n,) of the saved images, infinite where they miss the goal, and passes."""
    x, label, target, keys = (
        batch.x[rows],
        batch.label[rows],
        batch.target[rows],
        [batch.names[i] for i in rows.tolist()],
    )
    ball = norm.ball(radius)
    result = ADV2(interpreter, perturbation=ball, passes=passes)(x, target, label=label, keys=keys)
    saved = from_8bit(ball.rounded(x, result.x_adv), x.dtype)
    with torch.no_grad():
        met = interpreter.classifier(saved).argmax(dim=1) == target
    met &= metrics.iou(interpreter(saved, target, keys=keys), result.target_maps[interpreter.name]) >= IOU
    return norm.size(x, saved).where(met, torch.inf), result.passes


METHODS: dict[str, Method] = {"MinimumNorm": search, "bisection, ADV²": bisection}


def measure(
    interpreters: Sequence[Interpreter],
    norms: Sequence[NormName],
    parts: Sequence[Batch],
    log: Path,
    budgets: dict[str, int],
) -> Iterator[Smallest]:
    """Every photo by every method, whose budget is in ``budgets``; from ``log`` where it stands there already."""
    known = {(one.interpreter, one.norm, one.method, one.budget, one.photo): one for one in read(log)}
    cases = [(g, norm, method) for g in interpreters for norm in norms for method in METHODS]
    for batch in parts:
        for g, norm, method in cases:
            case = (g.name, norm, method, budgets[method])
            if any((*case, photo) not in known for photo in batch.names):
                eps, passes = METHODS[method](g, batch, NORMS[norm], budgets[method])
                found = [e if math.isfinite(e) else None for e in eps.tolist()]
                fresh = [
                    Smallest(photo, *case, e, spent)
                    for photo, e, spent in zip(batch.names, found, passes.tolist(), strict=True)
                ]
                with log.open("a", encoding="utf-8") as lines:
                    lines.writelines(f"{json.dumps(asdict(one))}\n" for one in fresh)
                known |= {(*case, one.photo): one for one in fresh}
            yield from (known[*case, photo] for photo in batch.names)


def read(log: Path) -> list[Smallest]:
    """The lines of ``log``, none where there is no such file."""
    if not log.exists():
        return []
    return [Smallest(**json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]


COLUMNS = ("interpreter", "norm", "method", "n", "found", "median ε [95 %]", "passes", "smaller", "equal", "larger")


def table(found: Sequence[Smallest]) -> Table:
    """One line per interpreter, norm and method; of ours on how many photos the ε is smaller than by bisection."""
    cases: dict[tuple[str, NormName], dict[str, dict[str, Smallest]]] = {}
    for one in found:
        cases.setdefault((one.interpreter, one.norm), {}).setdefault(one.method, {})[one.photo] = one
    rows = []
    for (name, norm), methods in cases.items():
        for method, photos in methods.items():
            others = next((theirs for other, theirs in methods.items() if other != method), {})
            rows.append((interpreter_title(name), norm, method, *_cells(norm, photos, others)))
    notes = (
        f"The goal: the target class, and IoU with the benign map, both cut at 0.5, of at least {IOU:g}.",
        "ε in grey levels for linf, a length for l2, infinite where none was found; medians with exact intervals.",
        "Passes are means. Smaller, equal, larger: on how many photos ε is so against that of the other method.",
    )
    return Table("The smallest change that reaches label and map", COLUMNS, rows, notes)


def _cells(norm: NormName, photos: dict[str, Smallest], others: dict[str, Smallest]) -> tuple[str, ...]:
    unit = 255 if norm == "linf" else 1
    sizes = {name: math.inf if one.eps is None else one.eps * unit for name, one in photos.items()}
    theirs = {name: math.inf if one.eps is None else one.eps * unit for name, one in others.items()}
    both = [(sizes[name], theirs[name]) for name in sizes if name in theirs]
    equal = sum(math.isclose(a, b, rel_tol=1e-6) for a, b in both)
    smaller = sum(a < b and not math.isclose(a, b, rel_tol=1e-6) for a, b in both)
    return (
        str(len(photos)),
        str(sum(map(math.isfinite, sizes.values()))),
        interval(stats.median(list(sizes.values()))),
        f"{sum(one.passes for one in photos.values()) / len(photos):.0f}",
        str(smaller),
        str(equal),
        str(len(both) - equal - smaller),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option("--log", type=click.Path(path_type=Path), required=True, help="A file for what is finished.")
@click.option("--model", default="efficientnet-lite0", show_default=True)
@click.option("--interpreters", default="cam,grad,ig,gradcam,rts", show_default=True, help="Comma-separated.")
@click.option("--norms", default="linf,l2", show_default=True, help="Comma-separated.")
@names_option(HELD_OUT)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Photos, of those got right.")
@click.option("--passes", type=click.IntRange(1), default=600, show_default=True, help="Of MinimumNorm on a photo.")
@click.option("--each", type=click.IntRange(1), default=300, show_default=True, help="Of each attack of a bisection.")
@click.option("--batch-size", type=click.IntRange(1), default=4, show_default=True, help="Photos attacked together.")
def main(
    photos: Path,
    log: Path,
    model: str,
    interpreters: str,
    norms: str,
    lists: tuple[Path, ...],
    limit: int,
    passes: int,
    each: int,
    batch_size: int,
) -> None:
    """Find the smallest ε of PHOTOS that the model gets right, towards a random class and the benign map."""
    try:
        known = known_interpreters()
        names = split_names(interpreters, tuple(known), "interpreter")
        chosen = split_names(norms, tuple(NORMS), "norm")
        click.echo(header())
        classifier = load_classifier(model)
        parts = chosen_photos(classifier, photos, lists, limit, batch_size)
        budgets = dict(zip(METHODS, (passes, each), strict=True))
        found = []
        wanted: list[NormName] = [norm for norm in NORMS if norm in chosen]
        for one in measure([known[name](classifier) for name in names], wanted, parts, log, budgets):
            click.echo(f"{one.interpreter}, {one.norm}, {one.method}, {one.photo}: {one.eps}", err=True)
            found.append(one)
        click.echo(table(found))
    except InputError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
