"""``underfire evidence``: a run's documents for pipelines and for file cabinets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from underfire.cli.options import gate_options, with_room
from underfire.files import printable

if TYPE_CHECKING:
    from underfire.auditing.gates import Gate


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    callback=with_room,
    help="Where the documents go, outside RUN; those of the same names are replaced.",
)
@gate_options
def evidence(run: Path, out: Path, gates: tuple[Gate, ...], min_photos: int | None) -> int:
    """Writes what an auditor files of the run in RUN: its figures, limits and hashes.

    junit.xml and sarif.json (the gates), bom.cdx.json (CycloneDX 1.6), model-card.md, mapping.md (AI Act article 15 and
    test plans), results.json, and the SHA-256 of everything. Exits with 1 if a gate fails; without any, if no photo
    could be attacked.
    """
    from underfire.api import load_run
    from underfire.auditing.gates import failures
    from underfire.evidence.build import write_evidence

    found = load_run(run)
    least = 1 if min_photos is None and not gates else min_photos
    checks = found.gates(gates, min_photos=least)
    for path in write_evidence(found, checks, out):
        click.echo(printable(path))
    failed = failures(checks)
    for failure in failed:
        click.echo(f"Gate failed: {failure}", err=True)
    return 1 if failed else 0
