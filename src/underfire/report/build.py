"""A run directory becomes one HTML file that needs nothing else."""

from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from underfire.auditing.certificate_folder import CertificateFolder
from underfire.auditing.run import Run
from underfire.auditing.store import STUDIES
from underfire.auditing.summary import Summary
from underfire.files import printable, write_whole
from underfire.present.pictures import colour_bar, colour_tables
from underfire.present.text import agreeing, budget, plural
from underfire.report.agreement import agreement_part
from underfire.report.certificates import certificate_part
from underfire.report.explorer import Listing, pairs_of, script, script_data
from underfire.report.findings import cards, findings
from underfire.report.gallery import Album, Gallery
from underfire.report.goals import goal_table
from underfire.report.matrix import matrix, panels
from underfire.report.settings import allowed, clipped, configuration, costs, listed, origin, threat_model
from underfire.report.soundness import remarks, verdict, warnings
from underfire.report.studies import study_parts
from underfire.stats import MOST_RESAMPLED

REPORT = "report.html"
"""The page in a run directory."""

MOST_PHOTOS = 60
"""Photos whose pictures go into the page; the numbers are always those of all of them."""

MOST_BYTES = 6_000_000
"""Of the page, so that it stays easy to send and to open whatever the number of photos."""

_ROOM = 60_000  # bytes, for the script and what it reads beside the list


def build_report(run: Run, *, certified: CertificateFolder | None = None, most_photos: int = MOST_PHOTOS) -> Path:
    """Writes report.html into the directory of ``run``, whole or not at all, and returns its path.

    A run that is unfinished or lacks artifacts gets a report that says so. The same run gives the same bytes.

    Args:
        run: what an audit wrote (run.json, rows/, artifacts/), and what studies of it did (studies/).
        certified: certificates of its attacked photos, for a chapter of their own.
        most_photos: at most so many photos are shown one by one.

    Raises:
        InputError: two rows are of the same map, a study, a picture or the maps of a photo are damaged, or the
            certificates are of no interpreter of the run.
        OSError: the disk refused.
    """
    gallery = Gallery(run, run.summary, most=most_photos)
    templates = _environment()
    template, of_photo = templates.get_template("report.html"), templates.get_template("photo.html")
    parts = _chapters(run, gallery, certified)
    listing = gallery.listed.packed(run.attacked, gallery.photos, run.class_names)
    without = template.render(parts | _explorer(run.summary, Album({}, 0), gallery, listing))
    album = gallery.album(
        lambda photo, place: Markup(of_photo.render(photo=photo, first=place == 0)),  # noqa: S704 - of a template
        budget=MOST_BYTES - _ROOM - len(listing.packed) - len(printable(without).encode()),
    )
    page = template.render(parts | _explorer(run.summary, album, gallery, listing))
    path = run.path / REPORT
    write_whole(path, printable(page).encode())
    return path


def _chapters(run: Run, gallery: Gallery, certified: CertificateFolder | None) -> dict[str, Any]:
    """What the template shows, but for the photos one by one."""
    summary, model_checks = run.summary, run.facts.model_checks
    norm, eps = allowed(run)
    return {
        "run": run,
        "summary": summary,
        "eps": budget(eps, norm),
        "norm": norm,
        "cards": cards(summary),
        "findings": findings(summary, eps, norm),
        "heroes": gallery.heroes(),
        "l1": matrix(summary, "l1", low_is_kept=True),
        "iou": matrix(summary, "iou_50", low_is_kept=False),
        "agreement": agreement_part(summary),
        "goals": goal_table(summary),
        "certified": None if certified is None else certificate_part(run, certified),
        "panels": panels(summary),
        "warnings": warnings(model_checks, summary),
        "verdict": verdict(model_checks, summary),
        "remarks": remarks(model_checks, summary),
        "studies": study_parts(run.path / STUDIES),
        "colours": colour_bar(),
        "threat_model": threat_model(run),
        "configuration": configuration(run),
        "origin": origin(run),
        "costs": costs(summary),
        "skipped": listed(run.facts.skipped),
        "command": clipped(run.facts.command or ""),
        "most_resampled": MOST_RESAMPLED,
    }


def _explorer(summary: Summary, album: Album, gallery: Gallery, listing: Listing) -> dict[str, Any]:
    """What the template shows of photos one by one."""
    return {
        "album": album,
        "listing": listing,
        "pairs": pairs_of(summary),
        "explorable": bool(album.photos and pairs_of(summary)),
        "script": script(),
        "script_data": script_data(summary, gallery.sample(album.photos), listing),
        "colour_tables": colour_tables(),
    }


def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("underfire.report"), PackageLoader("underfire.present")]),
        autoescape=True,  # file names and class names are data
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(plural=plural, agreeing=agreeing)
    return environment
