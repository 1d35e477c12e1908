"""The chapter of a run's studies, as they lie in its directory."""

import base64
import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path

from underfire.present.tables import shown
from underfire.studies.study import Provenance, SavedStudy, Study, read

_LABEL = re.compile(r'<svg\b[^>]*\baria-label="([^"]*)"')


@dataclass(frozen=True)
class StudyPart:
    """One study on the page.

    Attributes:
        study: as it was saved; one that 0.1 saved has no claims.
        made: what made it.
        figure: a data URI. As an image the figure can bring nothing into the page, whoever wrote the file.
        alt: read aloud instead of it.
        columns, rows: of its table, as text; ``left_out`` are further rows.
    """

    study: Study
    made: Provenance
    figure: str
    alt: str
    columns: list[str]
    rows: list[list[str]]
    left_out: int


_MOST_ROWS = 300


def study_parts(folder: Path) -> list[StudyPart]:
    """The studies in ``folder``, a run's; none where there is no such folder.

    Raises:
        InputError: a study is damaged.
    """
    return [_part(saved) for saved in read(folder)]


def _part(saved: SavedStudy) -> StudyPart:
    drawn, label = saved.study.figure, _LABEL.search(saved.study.figure)
    figure = f"data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode('ascii')}"
    columns, rows = shown(saved.study.table)
    alt, left_out = unescape(label[1]) if label else saved.study.title, max(0, len(rows) - _MOST_ROWS)
    return StudyPart(saved.study, saved.made, figure, alt, columns, rows[:_MOST_ROWS], left_out)
