"""A run directory becomes one HTML file that needs nothing else."""

from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from underfire.auditing.run import Run
from underfire.auditing.store import STUDIES
from underfire.files import printable, write_whole
from underfire.present.pictures import colour_bar
from underfire.present.text import budget
from underfire.report.agreement import agreement_part
from underfire.report.findings import cards, findings
from underfire.report.gallery import Gallery
from underfire.report.goals import goal_table
from underfire.report.matrix import matrix, panels
from underfire.report.settings import allowed, configuration, costs, origin, threat_model
from underfire.report.soundness import remarks, verdict, warnings
from underfire.report.studies import study_parts

REPORT = "report.html"
"""The page in a run directory."""

MOST_PHOTOS = 24
"""Photos whose pictures go into the page; the numbers are always those of all of them."""

MOST_BYTES = 11_000_000
"""Of the pictures of single photos, so that the page stays easy to send and to open."""


def build_report(run: Run, *, most_photos: int = MOST_PHOTOS) -> Path:
    """Writes report.html into the directory of ``run``, whole or not at all, and returns its path.

    A run that is unfinished or lacks artifacts gets a report that says so. The same run gives the same bytes.

    Args:
        run: what an audit wrote (run.json, rows/, artifacts/), and what studies of it did (studies/).
        most_photos: at most so many photos are shown one by one.

    Raises:
        InputError: two rows are of the same map, or a study, a picture or the maps of a photo are damaged.
        OSError: the disk refused.
    """
    summary = run.summary
    gallery = Gallery(run, summary)
    model_checks = run.facts.model_checks
    norm, eps = allowed(run)
    page = _environment().get_template("report.html").render(
        run=run,
        summary=summary,
        eps=budget(eps, norm),
        norm=norm,
        cards=cards(summary),
        findings=findings(summary, eps, norm),
        heroes=gallery.heroes(),
        l1=matrix(summary, "l1", low_is_kept=True),
        iou=matrix(summary, "iou_50", low_is_kept=False),
        agreement=agreement_part(summary),
        goals=goal_table(summary),
        panels=panels(summary),
        warnings=warnings(model_checks, summary),
        verdict=verdict(model_checks, summary),
        remarks=remarks(model_checks, summary),
        studies=study_parts(run.path / STUDIES),
        album=gallery.album(most=most_photos, budget=MOST_BYTES),
        colours=colour_bar(),
        threat_model=threat_model(run),
        configuration=configuration(run),
        origin=origin(run),
        costs=costs(run, summary),
    )  # fmt: skip
    path = run.path / REPORT
    write_whole(path, printable(page).encode())
    return path


def _environment() -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader("underfire.report"), PackageLoader("underfire.present")]),
        autoescape=True,  # file names and class names are data
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
