"""``underfire explain``: the maps of photos as PNG, no attack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from underfire.auditing.plan import ModelSettings
from underfire.cli.console import notes, print_table
from underfire.cli.options import (
    DEFAULTS,
    INTERPRETERS_OR_ALL,
    load_model,
    model_options,
    out_folder,
    photos_argument,
    photos_of,
    quiet_option,
    rts_option,
)
from underfire.errors import InputError
from underfire.files import make_output, printable, quoted

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.images import Photo, Pixels
    from underfire.interpreters import Interpreter
    from underfire.models.classifier import Classifier


@click.command()
@photos_argument()
@model_options
@click.option(
    "--interpreters",
    type=INTERPRETERS_OR_ALL,
    show_default="grad,ig,cam; rts where there are weights",
    help="Comma-separated, or 'all'.",
)
@rts_option
@click.option("--class", "class_", metavar="CLASS", help="Explain this class, not the predicted one.")
@quiet_option
@out_folder("Where the PNGs go.", default="underfire-maps", show_default=True)
def explain(
    photos: tuple[str, ...],
    settings: ModelSettings,
    device: str | None,
    interpreters: tuple[str, ...] | None,
    rts: str | None,
    class_: str | None,
    out: Path,
) -> None:
    """Shows where the model looks: attribution maps as PNG, plain and over the photo. Nothing is attacked.

    A photo that cannot be used is named on stderr and left out. The IG residual is what the attributions miss of
    the change of the probability from a black image to the photo: 0 for the exact integral.
    """
    from underfire.auditing.names import make_interpreters
    from underfire.auditing.selection import select_interpreters
    from underfire.auditing.targets import class_index
    from underfire.cli.pictures import file_stems, photo_bytes, save_maps
    from underfire.images import load_photo
    from underfire.interpreters import IG

    classifier = load_model(settings, device)
    selection = select_interpreters(interpreters, classifier, preset=DEFAULTS.preset, rts=rts)
    explainers = make_interpreters(selection.interpreters, classifier, rts=rts)
    for reason in selection.left_out if interpreters else ():  # nobody expects what was not asked for
        notes().print(f"Left out: {reason}")
    wanted = None if class_ is None else class_index(class_, classifier.class_names)
    found = photos_of(photos, classifier)
    skipped = [(skip.name, skip.reason) for skip in found.skipped]
    table = []
    stems = file_stems([photo.image_id for photo in found.photos])
    for photo, stem in zip(found.photos, stems, strict=True):
        try:
            loaded = load_photo(photo.path, classifier.preprocessing)
        except InputError as error:
            skipped.append((photo.image_id, str(error.__cause__ or error)))
            continue
        explained, probability, maps, residuals = _explained(photo, loaded, classifier, explainers, wanted)
        make_output(out)
        for name, found_map in maps.items():
            save_maps(photo_bytes(loaded.pixels), found_map, out / f"{stem}-{name}")
        row = (photo.image_id, classifier.class_names[explained], f"{probability:.3f}", *residuals, f"{stem}-*.png")
        table.append(row)
    for name, reason in skipped:
        notes().print(f"Skipped {quoted(name)}: {reason}")
    if not table:
        raise InputError(f"none of the {len(skipped)} files given is a photo that can be used; give at least one")
    residuals = ["IG residual" for ig in explainers if isinstance(ig, IG)]
    print_table(("photo", "class", "probability", *residuals, "files"), table)
    click.echo(f"Maps: {printable(out)}")


def _explained(
    photo: Photo, loaded: Pixels, classifier: Classifier, explainers: Sequence[Interpreter], wanted: int | None
) -> tuple[int, float, dict[str, Tensor], list[str]]:
    """The explained class, its probability, a map (h, w) by interpreter, and the completeness residuals of IG."""
    import torch

    from underfire.auditing.look import look, predict
    from underfire.images.png import from_8bit
    from underfire.interpreters import IG

    x = from_8bit(loaded.pixels[None], classifier.dtype)
    probabilities = predict(classifier, x, names=[photo.image_id])
    explained = probabilities.argmax(dim=1) if wanted is None else torch.tensor([wanted])
    view = look(classifier, explainers, x, explained, names=[photo.image_id])
    device = classifier.device
    residuals = [
        f"{float(ig.integrate(x.to(device), explained.to(device)).residual):.3f}"
        for ig in explainers
        if isinstance(ig, IG)
    ]
    index = int(explained)
    return index, float(probabilities[0, index]), {name: maps[0] for name, maps in view.maps.items()}, residuals
