"""The chapter of a run's studies, as they lie in its directory."""

import base64
import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path

from underfire.present.tables import shown
from underfire.studies.study import Claim, SavedStudy, read

_LABEL = re.compile(r'<svg\b[^>]*\baria-label="([^"]*)"')


@dataclass(frozen=True)
class StudyPart:
    """One study on the page.

    Attributes:
        claim: of the paper.
        claims: what was tested of it, the overall claim first; none in a study that was saved by 0.1.
        figure: a data URI. As an image the figure can bring nothing into the page, whoever wrote the file.
        alt: read aloud instead of it.
        made: what made it, in words.
    """

    name: str
    title: str
    claim: str
    claims: tuple[Claim, ...]
    words: str
    figure: str
    alt: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    command: str
    made: str


def study_parts(folder: Path) -> list[StudyPart]:
    """The studies in ``folder``, a run's; none where there is no such folder.

    Raises:
        InputError: a study is damaged.
    """
    return [_part(saved) for saved in read(folder)]


def _part(saved: SavedStudy) -> StudyPart:
    study, made = saved.study, saved.made
    columns, rows = shown(study.table)
    label = _LABEL.search(study.figure)
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    return StudyPart(
        name=study.name,
        title=study.title,
        claim=study.claim,
        claims=study.claims,
        words=study.words,
        figure=f"data:image/svg+xml;base64,{base64.b64encode(study.figure.encode()).decode('ascii')}",
        alt=unescape(label[1]) if label else study.title,
        columns=tuple(columns),
        rows=tuple(map(tuple, rows)),
        command=made.command,
        made=f"seed {made.seed}, {made.date[:10]}, {versions}",
    )
