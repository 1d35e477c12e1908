"""``underfire detect``: a detector of manipulated photos, fitted on clean ones, that scores others."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from underfire.auditing.plan import ModelSettings
from underfire.cli.console import notes, print_table
from underfire.cli.interrupts import interruptible
from underfire.cli.options import (
    INTERPRETERS_OR_ALL,
    Number,
    Seed,
    limit_option,
    load_model,
    model_options,
    out_file,
    out_folder,
    photos_argument,
    quiet_option,
    rts_option,
)
from underfire.errors import InputError
from underfire.files import make_output, printable, quoted

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.cli.progress import PhotosDisplay
    from underfire.cli.verdicts import PhotoVerdict
    from underfire.defenses.ensemble import EnsembleDetector
    from underfire.images.dataset import NamedPhoto, Photos
    from underfire.interpreters import Interpreter
    from underfire.models.classifier import Classifier

_SCORES = "scores.parquet"


@click.group()
def detect() -> None:
    """Flags photos whose maps are unlike those of clean photos.

    The detector sees a photo, the model and the maps of several interpreters, and never a benign map to compare with.
    """


@detect.command()
@photos_argument()
@model_options
@click.option(
    "--interpreters",
    type=INTERPRETERS_OR_ALL,
    show_default="grad,ig,cam; rts where there are weights",
    help="Whose maps are compared, comma-separated, or 'all'. MASK takes part if it is named, or with 'all': each of "
    "its maps is a fit of many passes, and every photo takes several.",
)
@rts_option
@click.option(
    "--fpr",
    type=Number,
    default=0.05,
    show_default=True,
    metavar="RATE",
    help="The share of clean photos that may be flagged.",
)
@click.option(
    "--seed",
    type=Seed,
    default=0,
    show_default=True,
    help="Of the views' noise, of ties, and of which photos set the threshold.",
)
@limit_option
@quiet_option
@out_file("Where the detector goes.")
def fit(
    photos: tuple[str, ...],
    settings: ModelSettings,
    device: str | None,
    interpreters: tuple[str, ...] | None,
    rts: str | None,
    fpr: float,
    seed: int,
    limit: int | None,
    out: Path,
) -> None:
    """Learns from clean photos what they look like to the interpreters, and sets the threshold.

    The photos need no labels, but they must be clean, and of the kind that will be scored. Half of them, drawn by the
    seed, say what is usual; the other half set the threshold. The fewer there are, the less is known of the true
    false-positive rate: its interval is printed.
    """
    from underfire.auditing.look import calling
    from underfire.cli.usable import usable
    from underfire.defenses.ensemble import EnsembleDetector
    from underfire.present.text import plural

    with interruptible("Nothing was written."):
        classifier = load_model(settings, device)
        detector = EnsembleDetector(_interpreters(interpreters, classifier, rts), fpr=fpr, seed=seed)
        found = usable(photos, classifier, limit)
        rows = _distinct(found)
        keys = tuple(rows)
        detector.check_photos(keys)  # before the long work
        names = [found.sources[row].image_id for row in rows.values()]
        values = _measured(found, tuple(rows.values()), detector)
        with calling(names):
            detector.fit_measured(values, keys)
        detector.save(out)
    low, high = detector.fpr_interval_
    click.echo(
        f"{plural(len(keys), 'photo')}: {detector.n_fit_} say what is usual, {detector.n_calibration_} set the "
        f"threshold. A photo is flagged if its score is below {detector.threshold_:.4g}."
    )
    click.echo(
        f"False-positive rate: at most {100 * fpr:g} %, as named, on average over such photos; of this very threshold "
        f"from {100 * low:.2g} % to {100 * high:.2g} % (95 % interval)."
    )
    click.echo(f"Passes for a photo: {detector.signals.passes_per_image}")
    click.echo(f"Detector: {printable(out)}")


@detect.command()
@click.argument("file", type=click.Path(path_type=Path))
@photos_argument()
@model_options
@rts_option
@limit_option
@quiet_option
@out_folder(f"Where {_SCORES} goes, and of each flagged photo a PNG with its maps.")
def score(
    file: Path,
    photos: tuple[str, ...],
    settings: ModelSettings,
    device: str | None,
    rts: str | None,
    limit: int | None,
    out: Path | None,
) -> None:
    """Says of photos whether they are flagged by the detector in FILE, and what speaks against them.

    A model that is not built in, and weights of RTS that do not come with the package, must be named as for the fit.
    Higher scores are more like clean photos. Beside each score stand the signals that add most to its distance from the
    clean photos.
    """
    from underfire.cli.usable import usable
    from underfire.cli.verdicts import COLUMNS, save_verdicts
    from underfire.present.text import plural

    if out is not None and (out / _SCORES).exists():  # whose pictures would stay among the new ones
        raise InputError(f"--out '{out}' holds the scores of another call; give another folder.")
    with interruptible("The pictures that are there are whole." if out else "Nothing is kept."):
        classifier = load_model(settings, device)
        detector = _load(file, classifier, rts)
        found = usable(photos, classifier, limit)
        if not found.sources:
            raise InputError("none of the files given is a photo that can be used; give at least one")
        if out is not None:
            make_output(out)
        verdicts = _verdicts(found, detector, out)
        if out is not None:
            save_verdicts(verdicts, out / _SCORES, command=shlex.join(["underfire", *sys.argv[1:]]))
    print_table(COLUMNS, [row for verdict in verdicts for row in verdict.rows()])
    flagged = sum(verdict.explanation.flagged for verdict in verdicts)
    click.echo(
        f"{flagged} of {plural(len(verdicts), 'photo')} flagged: the score is below {detector.threshold_:.4g}, the "
        f"threshold at a false-positive rate of {100 * detector.fpr:g} %."
    )
    if out is not None:
        click.echo(f"Scores and pictures: {printable(out)}")


def _interpreters(named: tuple[str, ...] | None, classifier: Classifier, rts: str | None) -> tuple[Interpreter, ...]:
    """Those that the user named, or those of an audit but MASK."""
    from underfire.auditing.names import make_interpreters
    from underfire.auditing.selection import select_interpreters

    selection = select_interpreters(named, classifier, preset="quick", rts=rts)
    for reason in selection.left_out if named else ():  # nobody expects what was not asked for
        notes().print(f"Left out: {reason}")
    return make_interpreters(selection.interpreters, classifier, rts=rts)


def _load(file: Path, classifier: Classifier, rts: str | None) -> EnsembleDetector:
    """The detector in ``file``, its RTS with the weights in the file ``rts``, or those that come with the package."""
    from underfire.defenses.ensemble import EnsembleDetector

    class Ensemble(EnsembleDetector):
        """The same detector, whose interpreters are made as those of every command."""

        @classmethod
        def interpreters_from(cls, names: Sequence[str], classifier: Classifier) -> Sequence[Interpreter]:
            return _interpreters(tuple(names), classifier, rts)

    return Ensemble.load(file, classifier)


def _distinct(photos: Photos) -> dict[str, int]:
    """The places of ``photos`` by their content, each content once: twice, it might be in either half of a fit."""
    from underfire.seeding import content_key

    rows: dict[str, int] = {}
    for row, source in enumerate(photos.sources):
        first = rows.setdefault(content_key(photos[row]), row)
        if first != row:
            same = quoted(photos.sources[first].image_id)
            notes().print(f"Skipped {quoted(source.image_id)}: it shows the same as {same}")
    return rows


def _batches(
    photos: Photos, rows: Sequence[int], detector: EnsembleDetector
) -> Iterator[tuple[list[NamedPhoto], Tensor]]:
    """The photos at ``rows``, a few at a time: their sources, and the images (N, C, H, W) on the model's device."""
    from underfire.images.dataset import stacked

    for start in range(0, len(rows), detector.batch_size):
        part = rows[start : start + detector.batch_size]
        images = stacked([photos[row] for row in part], detector.signals.classifier)
        yield [photos.sources[row] for row in part], images


def _display(count: int, detector: EnsembleDetector) -> PhotosDisplay:
    """The progress display for ``count`` photos; prints what each will cost."""
    from underfire.cli.progress import PhotosDisplay
    from underfire.present.text import plural

    names = ", ".join(g.name for g in detector.signals.interpreters)
    notes().print(f"{plural(count, 'photo')}, {names}: about {detector.signals.passes_per_image} passes for each")
    return PhotosDisplay(notes(), count)


def _measured(photos: Photos, rows: Sequence[int], detector: EnsembleDetector) -> Tensor:
    """The signals (N, S) of the photos at ``rows``."""
    import torch

    from underfire.auditing.look import calling

    values = []
    with _display(len(rows), detector) as display:
        for sources, x in _batches(photos, rows, detector):
            with calling([source.image_id for source in sources]):
                values.append(detector.signals.measure(x))
            display.advanced(len(sources))
    return torch.cat(values)


def _verdicts(photos: Photos, detector: EnsembleDetector, out: Path | None) -> list[PhotoVerdict]:
    """What is found of each photo; the pictures of those that are flagged are saved in ``out``."""
    from underfire.auditing.look import calling, predict
    from underfire.cli.pictures import file_stems
    from underfire.cli.verdicts import PhotoVerdict

    classifier = detector.signals.classifier
    stems = file_stems([source.image_id for source in photos.sources])
    verdicts: list[PhotoVerdict] = []
    with _display(len(photos), detector) as display:
        for sources, x in _batches(photos, range(len(photos)), detector):
            names = [source.image_id for source in sources]
            classes = predict(classifier, x, names=names).argmax(dim=1).tolist()
            with calling(names):
                explanations = detector.explain(x)
            for source, image, index, explanation in zip(sources, x, classes, explanations, strict=True):
                picture = None
                if out is not None and explanation.flagged:
                    picture = f"{stems[len(verdicts)]}.png"
                    _save_picture(image, explanation.maps, out / picture)
                verdicts.append(PhotoVerdict(source, index, classifier.class_names[index], explanation, picture))
            display.advanced(len(sources))
    return verdicts


def _save_picture(image: Tensor, maps: Mapping[str, Tensor], path: Path) -> None:
    """An image (3, H, W) in [0, 1] with its maps (h, w) beside it."""
    import torch

    from underfire.cli.pictures import photo_bytes, save_side_by_side

    pixels = photo_bytes((255 * image).round().to("cpu", torch.uint8))
    save_side_by_side(pixels, {name: found.cpu() for name, found in maps.items()}, path)
