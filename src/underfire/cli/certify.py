"""``underfire certify``: what no attack can do to photos that are shown through noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from underfire.auditing.plan import AuditPlan, ModelSettings, PlannedPhoto, RaySettings, Shard
from underfire.choices import EngineName
from underfire.cli.audit import Shards
from underfire.cli.console import notes, print_table, results
from underfire.cli.interrupts import interruptible
from underfire.cli.options import (
    DEFAULTS,
    GOALS,
    INTERPRETERS_OR_ALL,
    Count,
    Number,
    Numbers,
    Seed,
    engine_options,
    limit_option,
    load_model,
    model_options,
    out_folder,
    photos_argument,
    photos_of,
    quiet_option,
    rts_option,
)
from underfire.errors import InputError
from underfire.files import printable, quoted

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.auditing.certified import CertifiedPhotos, CertifySettings
    from underfire.auditing.inspection import Inspection
    from underfire.certificates import CellCertificate
    from underfire.models.classifier import Classifier


@click.command()
@photos_argument()
@model_options
@click.option(
    "--interpreters",
    type=INTERPRETERS_OR_ALL,
    show_default="cam, or gradcam where there is none, and grad",
    help="Whose maps are shown, comma-separated, or 'all'.",
)
@rts_option
@click.option(
    "--sigma",
    "sigmas",
    type=Numbers,
    metavar="S,...",
    show_default="0.12",
    help="Standard deviations of the noise, in pixel values of [0, 1].",
)
@click.option("--samples", type=Count, show_default="1000", help="Draws of each photo that count.")
@click.option(
    "--alpha", type=Number, show_default="0.001", help="The chance, for each photo, that any of its figures is wrong."
)
@click.option(
    "--radii", type=Numbers, metavar="R,...", show_default="0 to 0.5", help="L2 distances at which rates are given."
)
@click.option(
    "--goals",
    type=GOALS,
    metavar="LABEL/MAP,...",
    show_default="other/free,other/kept,target/kept,kept/topk",
    help="What an attacker may want of label and map; other/free is always among them.",
)
@click.option(
    "--targets",
    default=DEFAULTS.targets,
    show_default=True,
    metavar="random|next|given|CLASS",
    help="The class of goals that name one; given: the manifest's column 'target'.",
)
@click.option("--seed", type=Seed, default=DEFAULTS.seed, show_default=True, help="Of all draws.")
@click.option(
    "--batch-size", type=Count, default=8, show_default=True, help="Draws that go through the model together."
)
@limit_option
@engine_options
@click.option("--shard", type=Shards, default="1/1", metavar="i/N", help="Do every N-th photo only.")
@quiet_option
@out_folder(
    "Where the certificates go; the same command with the same DIR goes on where it was stopped.",
    default="underfire-certificates",
    show_default=True,
)
def certify(
    photos: tuple[str, ...],
    settings: ModelSettings,
    device: str | None,
    interpreters: tuple[str, ...] | None,
    rts: str | None,
    targets: str,
    seed: int,
    batch_size: int,
    limit: int | None,
    engine: EngineName,
    ray: RaySettings,
    shard: Shard,
    out: Path,
    **given: Any,
) -> None:
    """Certifies what no attack within an L2 distance can do to label and map, shown through Gaussian noise.

    It is of the system that adds noise to each image, not of the model without noise. R(½) is the distance within which
    no attacker reaches a goal with one query at a rate of one half or more; with 10 and 100 queries it is shorter.
    """
    from underfire.auditing.certified import CertifySettings, certify_photos
    from underfire.auditing.inspection import inspect_photos
    from underfire.auditing.names import make_interpreters
    from underfire.auditing.ray_pool import pool_of
    from underfire.cli.progress import PhotosDisplay

    pool = pool_of(engine, ray)
    wanted = CertifySettings(**{name: value for name, value in given.items() if value is not None})
    classifier = load_model(settings, device)
    names = _names(interpreters, rts, classifier)
    plan = AuditPlan(settings, interpreters=names, rts=rts, targets=targets, seed=seed, limit=limit, device=device)
    explainers = make_interpreters(names, classifier, rts=rts)
    found = inspect_photos(plan, classifier, photos_of(photos, classifier), strict=False)
    chosen = _certifiable(found)
    pictures = _Pictures(out)
    share = sum(shard.has(place) for place in range(len(chosen)))
    with (
        interruptible(f"The finished photos in {quoted(out)} are kept; the same command goes on from there."),
        PhotosDisplay(notes(), max(1, share)) as display,
    ):
        certified = certify_photos(
            wanted, plan, chosen, explainers, out, drawn=pictures.draw,
            complete=pictures.has, shard=shard, pool=pool, batch_size=batch_size,
            made=lambda done: display.advanced(done - display.done),
        )  # fmt: skip
    _print(certified, wanted, out)


def _names(named: tuple[str, ...] | None, rts: str | None, classifier: Classifier) -> tuple[str, ...]:
    """Of the interpreters that are named, or of the two that cost one pass for each draw."""
    from underfire.auditing.selection import select_interpreters
    from underfire.interpreters import CAM, GradCAM

    if named is None:
        one_activation = next((g.name for g in (CAM, GradCAM) if g.available(classifier) is None), None)
        return ("grad",) if one_activation is None else (one_activation, "grad")
    selection = select_interpreters(named, classifier, preset=DEFAULTS.preset, rts=rts)
    for reason in selection.left_out:
        notes().print(f"Left out: {reason}")
    return selection.interpreters


def _certifiable(found: Inspection) -> list[PlannedPhoto]:
    """The photos that the model gets right without noise; the others are named."""
    for skip in (*found.skipped, *found.unusable):
        notes().print(f"Skipped {quoted(skip.name)}: {skip.reason}")
    chosen = [photo for photo in found.photos if photo.excluded is None]
    for photo in found.photos:
        if photo.excluded is not None:
            notes().print(f"Left out {quoted(photo.image_id)}: {photo.excluded}")
    if not chosen:
        raise InputError(f"none of the {len(found.photos)} photos has a label to certify; give others")
    return chosen


class _Pictures:
    """A picture of each photo's cells: surely in the top of its map, surely out, and free."""

    def __init__(self, out: Path) -> None:
        self._folder = out / "pictures"

    def has(self, photo: PlannedPhoto) -> bool:
        """Whether it is there."""
        return self._path(photo).is_file()

    def draw(self, photo: PlannedPhoto, pixels: Tensor, cells: Mapping[str, CellCertificate]) -> None:
        """Draws it."""
        from underfire.cli.pictures import photo_bytes, save_cells

        states = {name: (found.sure_in[0].cpu(), found.sure_out[0].cpu()) for name, found in cells.items()}
        save_cells(photo_bytes(pixels), states, self._path(photo))

    def _path(self, photo: PlannedPhoto) -> Path:
        from underfire.auditing.certified import part_key
        from underfire.cli.pictures import file_stems

        (stem,) = file_stems([photo.image_id])
        return self._folder / f"{stem}-{part_key(photo)[:8]}.png"


def _print(certified: CertifiedPhotos, settings: CertifySettings, out: Path) -> None:
    from underfire.present.text import plural

    console = results()
    columns = ("photo", "interpreter", "σ", "goal", "draws", "R(½)", "10 queries", "100 queries", "")
    print_table(columns, [_line(row) for row in certified.rows])
    console.print()
    photos = {row["image_id"] for row in certified.rows}
    for sigma in settings.sigmas:
        here = {row["image_id"]: row for row in certified.rows if row["sigma"] == sigma}
        if here:
            _print_reservations(sigma, settings, list(here.values()))
    if certified.missing:
        console.print(
            f"This shard is done: {len(photos)} of {plural(len(photos) + certified.missing, 'photo')} are there, and"
            " the tables are of these; the last shard's are of all."
        )
    console.print(f"Certificates: {printable(out)}/certificates.parquet, certificates.json, pictures")


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    marks = [
        "abstains: the label is not certified" if row["abstained"] else "censored" if row["censored"] else "",
        "as far as the draws allow" if row["count"] == 0 else "",
    ]
    radii = (f"{row[name]:.3f}" for name in ("radius_1", "radius_10", "radius_100"))
    found = f"{row['count']} of {row['samples']}"
    return (
        row["image_id"],
        row["interpreter"],
        f"{row['sigma']:g}",
        row["goal"],
        found,
        *radii,
        "; ".join(filter(None, marks)),
    )


def _print_reservations(sigma: float, settings: CertifySettings, rows: Sequence[Mapping[str, Any]]) -> None:
    """What a reader must know of the figures at one σ."""
    from underfire.present.certificates import reservations

    results().print(
        reservations(
            sigma=sigma,
            photos=len(rows),
            abstained=sum(row["abstained"] for row in rows),
            censored=sum(row["censored"] and not row["abstained"] for row in rows),
            samples=settings.samples,
            cap=rows[0]["cap"],
            alpha=settings.alpha,
        )
    )
