"""``python -m benchmarks.universal PHOTOS``: one change for many photos, fitted to some and scored on others.

A measurement of hours: every finished fit is a file in a folder, and a run that is started again goes on where it was.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import click
import torch
from torch import Tensor

from benchmarks.header import header
from benchmarks.tables import Table, interval
from underfire import CAM, GRAD, Classifier, Interpreter, Linf, load_classifier, metrics, stats
from underfire.attacks.universal import Universal, UniversalPerturbation
from underfire.images import find_photos, load_photo
from underfire.images.records import Photo
from underfire.seeding import derive_seed, generator

INTERPRETERS: Mapping[str, Callable[[Classifier], Interpreter]] = {"cam": CAM, "grad": GRAD}
NOISE, PREDICTION = "noise", "prediction alone"
FITS = (NOISE, PREDICTION, *INTERPRETERS)
"""What is done to the photos: random signs of full size, and what is fitted to the prediction, or to a map too."""

HELD_OUT = Path(__file__).with_name("rts_held_out.txt")
THRESHOLD = 0.5  # of IoU from which on a map counts as kept
SEED = 0
DOGS = range(151, 269)  # the breeds among ImageNet's classes


@dataclass(frozen=True)
class Photos:
    """Photos that the classifier gets right: names, images (N, C, H, W) in whole grey levels, labels (N,)."""

    names: tuple[str, ...]
    x: Tensor
    label: Tensor

    def of(self, case: "Case") -> "Photos":
        """Those of its group that don't have the target's label."""
        chosen = self.label != case.target
        if case.group == "dogs":
            chosen &= (self.label >= DOGS.start) & (self.label < DOGS.stop)
        places = chosen.nonzero().flatten()
        return Photos(tuple(self.names[place] for place in places.tolist()), self.x[places], self.label[places])


@dataclass(frozen=True)
class Case:
    """One fit: what of, where to, how large, and of which photos."""

    fit: str
    levels: int
    target: int
    group: str = "any"

    @property
    def file(self) -> str:
        """Its name in the folder."""
        return f"{self.group}-{self.target}-{self.levels}-{self.fit.replace(' ', '-')}.json"


@dataclass(frozen=True)
class Scored:
    """What a change did to one photo that it was not fitted to.

    Attributes:
        photo: its name.
        listed: it is held out by name.
        success: the target is predicted.
        p: probability of the target.
        l1, iou, iou_top: by interpreter, of the map for the target against the benign one.
    """

    photo: str
    listed: bool
    success: bool
    p: float
    l1: Mapping[str, float]
    iou: Mapping[str, float]
    iou_top: Mapping[str, float]


@dataclass(frozen=True)
class Found:
    """All of one case.

    Attributes:
        case: which one.
        fitted: the number of photos of the fit.
        reached: the share of them on which the final change has the label.
        distance: the mean L1 of their attacked maps; None without one.
        passes: for each of them.
        seconds: of the fit.
        changed: mean size of the change, in grey levels.
        photos: what it did to others.
    """

    case: Case
    fitted: int
    reached: float
    distance: float | None
    passes: float
    seconds: float
    changed: float
    photos: tuple[Scored, ...]


@dataclass(frozen=True)
class Bench:
    """The photos of both sides, the interpreters, and what a fit may cost."""

    classifier: Classifier
    fit: Photos
    test: Photos
    passes: int
    batch_size: int

    def folder(self, log: Path) -> Path:
        """Where in ``log`` the fits of these settings are kept."""
        return log / f"{len(self.fit.names)}-{len(self.test.names)}-{self.passes}-{self.batch_size}"

    def found(self, case: Case, benign: Mapping[str, Tensor], interpreters: Mapping[str, Interpreter]) -> Found:
        """Fit and score ``case``; ``benign`` are the maps (N, h, w) of the test photos, by interpreter."""
        fit, test = self.fit.of(case), self.test.of(case)
        attacked = interpreters.get(case.fit, self.classifier)
        model = Linf(case.levels / 255)
        if case.fit == NOISE:
            delta = _noise(test.x, model)
            change = UniversalPerturbation(self.classifier, (), model, delta, case.target, (), passes=0, seconds=0)
        else:
            attack = Universal(attacked, perturbation=model, passes=self.passes, batch_size=self.batch_size, seed=SEED)
            change = attack.fit(fit.x, case.target, label=fit.label, keys=fit.names)
        change = replace(change, interpreters=())  # every map is taken below, attacked or not
        chosen = torch.tensor([name in test.names for name in self.test.names])
        maps = {name: values[chosen] for name, values in benign.items()}
        last = change.course[-1] if change.course else None
        return Found(
            case,
            0 if last is None else len(fit.names),
            0.0 if last is None else last.reached,
            None if last is None else last.distance,
            change.passes / len(fit.names),
            change.seconds,
            float(change.delta.abs().mean()) * 255,
            tuple(_scores(change, test, maps, interpreters, self.batch_size)),
        )


def _noise(x: Tensor, model: Linf) -> Tensor:
    """One draw of ±eps for every pixel value, (1, C, H, W)."""
    grey = torch.full_like(x[:1], 128 / 255)
    return model.harmless(grey, [generator(SEED, "universal noise")]) - grey


def _scores(
    change: UniversalPerturbation,
    test: Photos,
    benign: Mapping[str, Tensor],
    interpreters: Mapping[str, Interpreter],
    batch_size: int,
) -> Iterator[Scored]:
    listed = set(HELD_OUT.read_text(encoding="utf-8").splitlines())
    for rows in torch.arange(len(test.names)).split(batch_size):
        names = [test.names[row] for row in rows.tolist()]
        result = change(test.x[rows], label=test.label[rows], keys=names)
        measured: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        for name, interpreter in interpreters.items():
            maps, aim = interpreter(result.x_adv, result.target, keys=names), benign[name][rows]
            measured[name] = (metrics.l1(maps, aim), metrics.iou(maps, aim, threshold=0.5), metrics.iou_top(maps, aim))
        for i, photo in enumerate(names):
            l1, iou, top = ({name: float(values[k][i]) for name, values in measured.items()} for k in range(3))
            yield Scored(photo, photo in listed, bool(result.success[i]), float(result.confidence[i]), l1, iou, top)


def _maps(interpreter: Interpreter, photos: Photos, batch_size: int) -> Tensor:
    """The benign maps (N, h, w)."""
    parts = torch.arange(len(photos.names)).split(batch_size)
    return torch.cat([interpreter(photos.x[rows], photos.label[rows]) for rows in parts])


def halves(photos: Sequence[Photo]) -> tuple[list[Photo], list[Photo]]:
    """Photos to fit to, and to score on: those held out by name first, then the half that nothing was fitted to."""
    listed = set(HELD_OUT.read_text(encoding="utf-8").splitlines())
    others = [photo for photo in photos if photo.image_id not in listed]
    others.sort(key=lambda photo: derive_seed(SEED, photo.image_id, "half"))
    middle = len(others) // 2
    return others[:middle], [photo for photo in photos if photo.image_id in listed] + others[middle:]


def read_photos(classifier: Classifier, photos: Sequence[Photo], limit: int | None) -> Photos:
    """The first ``limit`` of them, or all, that the classifier gets right."""
    right = list(islice(_right(classifier, photos), limit))
    names, images, labels = zip(*right, strict=True)
    return Photos(names, torch.stack(images), torch.tensor(labels))


def _right(classifier: Classifier, photos: Sequence[Photo]) -> Iterator[tuple[str, Tensor, int]]:
    for photo in photos:
        x = load_photo(photo.path, classifier.preprocessing).pixels.to(classifier.dtype) / 255
        if photo.label is not None and int(classifier(x[None]).argmax()) == photo.label:
            yield photo.image_id, x, photo.label


def measure(bench: Bench, cases: Sequence[Case], log: Path) -> Iterator[Found]:
    """What every case came to, from the folder ``log`` where it stands there already."""
    folder = bench.folder(log)
    folder.mkdir(parents=True, exist_ok=True)
    interpreters = {name: make(bench.classifier) for name, make in INTERPRETERS.items()}
    benign: dict[str, Tensor] = {}
    for case in cases:
        file = folder / case.file
        if not file.exists():
            if not benign:
                benign = {name: _maps(g, bench.test, bench.batch_size) for name, g in interpreters.items()}
            found = bench.found(case, benign, interpreters)
            file.write_text(json.dumps(asdict(found)), encoding="utf-8")
        yield _read(file)


def _read(file: Path) -> Found:
    held = json.loads(file.read_text(encoding="utf-8"))
    photos = tuple(Scored(**photo) for photo in held.pop("photos"))
    return Found(**held | {"case": Case(**held["case"])}, photos=photos)


def table(title: str, found: Sequence[Found]) -> Table:
    """One line for each case: label, maps, and both together."""
    columns = ["fitted to", "ε", "fitted, label", "n", "label"]
    for name in INTERPRETERS:
        columns += [f"{name} IoU", f"{name} JSR@.5", f"{name} JSR@.5, top fifths"]
    return Table(title, columns, [_cells(one) for one in found])


def _cells(found: Found) -> list[str]:
    photos, n = found.photos, len(found.photos)
    own = f"{found.reached:.2f} of {found.fitted}" if found.fitted else "-"
    cells = [found.case.fit, f"{found.case.levels}/255", own, str(n), interval(_share(p.success for p in photos))]
    for name in INTERPRETERS:
        cells.append(interval(stats.bootstrap_mean([p.iou[name] for p in photos])))
        cells.append(interval(_share(p.success and p.iou[name] >= THRESHOLD for p in photos)))
        cells.append(interval(_share(p.success and p.iou_top[name] >= THRESHOLD for p in photos)))
    return cells


def _share(met: Iterator[bool]) -> stats.Share:
    values = list(met)
    return stats.wilson(sum(values), len(values))


def differences(title: str, found: Sequence[Found]) -> Table:
    """On the same photos, how much the map term adds to JSR, and what it takes from the label."""
    alone = {one.case.levels: one for one in found if one.case.fit == PREDICTION}
    rows = []
    for one in found:
        name, other = one.case.fit, alone.get(one.case.levels)
        if name not in INTERPRETERS or other is None:
            continue

        def joint(photo: Scored, name: str = name) -> float:
            return float(photo.success and photo.iou[name] >= THRESHOLD)

        pairs = [
            stats.bootstrap_paired([of(p) for p in one.photos], [of(p) for p in other.photos])
            for of in (lambda p: float(p.success), lambda p, name=name: p.iou[name], joint)
        ]
        rows.append([name, f"{one.case.levels}/255", *(interval(pair, signed=True) for pair in pairs)])
    return Table(title, ["fitted to", "ε", "label", "IoU of its map", "JSR@.5 of its map"], rows)


def cases(targets: Sequence[int], levels: Sequence[int], *, groups: Sequence[str]) -> list[Case]:
    """What is measured, the first target first."""
    return [Case(fit, size, target, group) for group in groups for target in targets for size in levels for fit in FITS]


def in_short(classifier: Classifier, found: Sequence[Found]) -> Iterator[str]:
    """A sentence for every fit to a map, beside the fit to the prediction alone."""
    alone = {replace(one.case, fit=NOISE): one for one in found if one.case.fit == PREDICTION}
    for one in found:
        name, other = one.case.fit, alone.get(replace(one.case, fit=NOISE))
        if name in INTERPRETERS and other is not None:
            (won, kept), (before, kept_before) = (_counts(which, name) for which in (one, other))
            yield (
                f"* Towards {classifier.class_names[one.case.target]} at {one.case.levels}/255, n = {len(one.photos)}:"
                f" fitted to the prediction alone, {before} get the label, {kept_before} of them with their {name} map"
                f" kept; fitted to that map too, {won} and {kept}."
            )


def _counts(found: Found, name: str) -> tuple[int, int]:
    """How many photos get the label, and how many of them keep the map of the interpreter ``name``."""
    won = [photo for photo in found.photos if photo.success]
    return len(won), sum(photo.iou[name] >= THRESHOLD for photo in won)


ABOUT = """# One change for many photos

`{command}`

{short}

A universal perturbation, `underfire.Universal`, is fitted to {fit} photos of one half of PHOTOS and added to {test}
others: those that are held out by name (`benchmarks/rts_held_out.txt`), and then photos of the other half, up to that
number. No constant of this attack was chosen on either. The classifier gets all photos right; those that have the
target's label already are left out of each n. Target classes were drawn. A fit takes at most {passes} passes for each
of its photos, in batches of {size}; seed {seed}. A step on GRAD takes two: its fits see each photo half as often.
Images are in whole grey levels, scored on the unmodified classifier.

* **fitted to**: random signs of full size, the same for all photos, and not fitted; the prediction alone; or the
  prediction and the map of that interpreter.
* **label**: the share of the other photos that become the target class; *fitted, label* that of the fit's own.
* **IoU** of the map for the target class and the benign map, both cut at 0.5. **JSR@.5**: the label is reached and that
  IoU is at least 0.5; *top fifths*: the same with the IoU of both maps' largest fifths of cells.
* For a change of no avail, as noise is, the IoU is that of two classes' maps of one photo.
* Shares have Wilson intervals and means bootstrap intervals, of 95 %. They are over photos: for one fit each, and say
  nothing of what another half, seed or target class would give.
* Not measured, since PHOTOS has one photo a class: pairs of classes. A change that leads class a to class b would have
  one photo to be fitted to and none to be scored on. `--group dogs` leads all breeds of dogs to the target class.
"""


def page(bench: Bench, found: Sequence[Found], command: str) -> str:
    """The whole page, Markdown."""
    told = {"fit": len(bench.fit.names), "test": len(bench.test.names), "passes": bench.passes}
    short = "\n".join(in_short(bench.classifier, found))
    about = ABOUT.format(**told, size=bench.batch_size, seed=SEED, command=command, short=short)
    lines = [about, header().replace("## underfire benchmarks\n\n", "")]
    groups: dict[tuple[str, int], list[Found]] = {}
    for one in found:
        groups.setdefault((one.case.group, one.case.target), []).append(one)
    for (group, target), all_of_it in groups.items():
        source = "any photo" if group == "any" else f"{group} (classes {DOGS.start} to {DOGS.stop - 1})"
        listed = [replace(one, photos=tuple(photo for photo in one.photos if photo.listed)) for one in all_of_it]
        lines += [
            f"## {source} → {bench.classifier.class_names[target]} ({target})\n",
            str(table("All", all_of_it)),
            str(table("Those held out by name", listed)),
            str(differences("With the map term less without it, on the same photos", all_of_it)),
        ]
    return "\n".join(lines)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option("--fit", "fitted", type=click.IntRange(1), default=200, show_default=True, help="Photos of a fit.")
@click.option("--test", "tested", type=click.IntRange(1), default=120, show_default=True, help="Photos to score on.")
@click.option("--passes", type=click.IntRange(1), default=10, show_default=True, help="Of a fit, for each photo.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
@click.option("--levels", multiple=True, type=click.IntRange(1, 255), default=(16, 8), show_default=True)
@click.option("--targets", type=click.IntRange(1), default=3, show_default=True, help="Target classes, drawn.")
@click.option("--fits", multiple=True, type=click.Choice(FITS), default=FITS)
@click.option("--group", "groups", multiple=True, type=click.Choice(["any", "dogs"]), default=("any",))
@click.option("--finished", is_flag=True, help="Print what the folder holds; fit nothing.")
@click.option("--log", type=click.Path(path_type=Path), required=True, help="Folder where finished fits are kept.")
def main(
    photos: Path,
    fitted: int,
    tested: int,
    passes: int,
    batch_size: int,
    levels: tuple[int, ...],
    targets: int,
    fits: tuple[str, ...],
    groups: tuple[str, ...],
    finished: bool,
    log: Path,
) -> None:
    """Fit universal perturbations to one half of PHOTOS and print what they do to others."""
    classifier = load_classifier()
    half, others = halves(find_photos([photos], class_names=classifier.class_names).photos)
    drawn = torch.randperm(classifier.num_classes, generator=generator(SEED, "universal targets"))[:targets].tolist()
    bench = Bench(
        classifier,
        read_photos(classifier, half, fitted),
        read_photos(classifier, others, tested),
        passes=passes,
        batch_size=batch_size,
    )
    options = f"--fit {fitted} --test {tested} --passes {passes} --targets {targets}"
    command = f"python -m benchmarks.universal PHOTOS {options} --log universal"
    plan = [case for case in cases(drawn, levels, groups=groups) if case.fit in fits]
    left = [case for case in plan if not (bench.folder(log) / case.file).exists()] if finished else []
    found = list(measure(bench, [case for case in plan if case not in left], log))
    click.echo(page(bench, found, command))
    if left:
        told = ", ".join(f"{case.fit} to {case.target} at {case.levels}/255" for case in left)
        click.echo(f"Not finished: {told}.")


if __name__ == "__main__":
    main()
