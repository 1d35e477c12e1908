"""What a study leaves: claims with their verdicts, a table, a figure, and a page of words made from them.

On disk NAME.parquet holds everything, claims, words and figure in its metadata, and is written last: a study that is
there is there whole, and what a report shows of it was made together. NAME.svg and NAME.md are for people.
"""

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from underfire.auditing.parquet import open_parquet
from underfire.decoding import decoded, plain_json
from underfire.errors import InputError
from underfire.files import printable, quoted, write_whole
from underfire.present.palette import with_colours
from underfire.present.tables import markdown, shown
from underfire.stats import Estimate, Share, bonferroni, sign_test
from underfire.studies.registry import STUDIES

_KEY = b"underfire.study"
_MOST_ROWS = 10_000  # all of which the report shows
_LIBRARIES = ("underfire", "torch", "numpy", "pyarrow")


class Verdict(StrEnum):
    """What the numbers say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "is not decided at this n"

    @property
    def opposite(self) -> "Verdict":
        """The verdict on the statement's contrary."""
        return {Verdict.HOLDS: Verdict.FAILS, Verdict.FAILS: Verdict.HOLDS}.get(self, self)


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a statement about several cases: it fails where one fails, and holds where all of some hold."""
    found = set(verdicts)
    if Verdict.FAILS in found:
        return Verdict.FAILS
    return Verdict.HOLDS if found == {Verdict.HOLDS} else Verdict.UNDECIDED


def above(figure: Estimate, level: float = 0.0) -> Verdict:
    """Whether ``figure`` is above ``level``, by its interval."""
    if figure.low is not None and figure.low > level:
        return Verdict.HOLDS
    return Verdict.FAILS if figure.high is not None and figure.high < level else Verdict.UNDECIDED


def below(figure: Estimate, level: float = 0.0) -> Verdict:
    """Whether ``figure`` is below ``level``, by its interval."""
    return above(figure, level).opposite


def majority(k: int, n: int, tests: int) -> Verdict:
    """Whether something is so on most photos, having been so on ``k`` of ``n``.

    By an exact sign test, and by Bonferroni at (1 − `LEVEL`) / ``tests``, so that with probability `LEVEL` none of all
    the verdicts of that many tests is wrong.

    Raises:
        ValueError: not 0 ≤ k ≤ n, or ``tests`` is below 1.
    """
    if sign_test(k, n) > bonferroni(tests):
        return Verdict.UNDECIDED
    return Verdict.HOLDS if 2 * k > n else Verdict.FAILS


@dataclass(frozen=True)
class Claim:
    """One statement that a study tested.

    Attributes:
        id: stable and unique within the study, its parts joined with "/": ``across/adv2-cam/grad``.
        statement: what would be true if it holds, a whole sentence.
        verdict: what the numbers say.
        estimates: the figures behind the verdict, by name.
        n: how many photos the verdict rests on.
    """

    id: str
    statement: str
    verdict: Verdict
    estimates: Mapping[str, Share | Estimate]
    n: int

    @classmethod
    def over(cls, id: str, statement: str, verdict: Verdict, estimates: Mapping[str, Estimate]) -> "Claim":  # noqa: A002
        """A claim that rests on as many photos as the ``estimates`` of the fewest; on none without estimates."""
        return cls(id, statement, verdict, estimates, min((figure.n for figure in estimates.values()), default=0))


@dataclass(frozen=True)
class Study:
    """A claim of the paper's discussion, or a question that it leaves open, tested.

    Attributes:
        name: what command lines and files call it.
        title: a heading.
        claim: what the paper says, in our own words, with its place.
        claims: what was tested of it, the overall claim first.
        table: the numbers, one row per cell; every mean with its n and interval.
        figure: one SVG, with the report's colours.
        words: made from the claims and the table, paragraphs with an empty line between them.
    """

    name: str
    title: str
    claim: str
    claims: tuple[Claim, ...]
    table: pa.Table
    figure: str
    words: str

    version: ClassVar[int] = 1
    """Of what is saved with a table; raised when it changes its meaning."""


@dataclass(frozen=True)
class Provenance:
    """What made a study: enough to make it again."""

    command: str
    seed: int
    date: str
    """UTC, ISO 8601."""
    versions: Mapping[str, str]

    @property
    def day(self) -> str:
        """The date without the time."""
        return self.date[:10]

    @property
    def libraries(self) -> str:
        """The versions in words: ``python 3.13.1, torch 2.9.0``."""
        return ", ".join(f"{name} {number}" for name, number in self.versions.items())


@dataclass(frozen=True)
class _Content:
    """What a study's Parquet file says beside the table; a study of 0.1 has no claims."""

    version: int
    name: str
    title: str
    claim: str
    words: str
    figure: str
    made: Provenance
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class SavedStudy:
    """A study as it was read back; the ``figure`` of its ``study`` brings its own colours."""

    study: Study
    made: Provenance


def save(study: Study, out: Path, *, command: str, seed: int) -> None:
    """Writes NAME.svg, NAME.md and NAME.parquet of ``study`` into the folder ``out``, replacing what was there.

    Raises:
        ValueError: ``study`` has a name that no report looks for.
        OSError: the disk refused.
    """
    if study.name not in STUDIES:
        raise ValueError(f"a study is named {', '.join(STUDIES)}, not {study.name!r}")
    made = Provenance(
        command=printable(command),
        seed=seed,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    )
    figure = with_colours(study.figure)
    content = {
        "version": Study.version,
        "name": study.name,
        "title": study.title,
        "claim": study.claim,
        "claims": [asdict(claim) for claim in study.claims],
        "words": study.words,
        "figure": figure,
        "made": asdict(made),
    }
    table = study.table.replace_schema_metadata({_KEY: json.dumps(content).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    write_whole(out / f"{study.name}.svg", figure.encode())
    write_whole(out / f"{study.name}.md", printable(page(study, made)).encode())
    write_whole(out / f"{study.name}.parquet", sink.getvalue().to_pybytes())


def read(out: Path) -> tuple[SavedStudy, ...]:
    """The studies in the folder ``out``, in the order of `STUDIES`; none where there is no such folder.

    Raises:
        InputError: a study is damaged, or of another version.
    """
    found = []
    for name, entry in STUDIES.items():
        paths = (out / f"{some}.parquet" for some in (name, *entry.old_names))
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found.append(_read(path, name))
    return tuple(found)


def page(study: Study, made: Provenance) -> str:
    """The study as Markdown; its figure is linked, its table is the whole of it."""
    return "\n".join(
        [
            f"# {study.title}",
            "",
            f"Claim: {study.claim}",
            "",
            study.words,
            "",
            f"![{study.title}]({study.name}.svg)",
            "",
            *markdown(study.table),
            "",
            f"Made by `{made.command}` with seed {made.seed} on {made.day} ({made.libraries}).",
            "",
        ]
    )


def _read(path: Path, known_as: str) -> SavedStudy:
    again = f"run `underfire study {known_as}` again, or delete it"
    try:
        table = open_parquet(path, most_rows=_MOST_ROWS).read()
        table.validate(full=True)
        if len(set(table.column_names)) < table.num_columns:
            raise ValueError("two of its columns have one name")
        saved = decoded(_Content, plain_json((table.schema.metadata or {}).get(_KEY, b"{}")))
        if (saved.version, saved.name) != (Study.version, path.stem):
            raise ValueError("it is one of another version or name")
        shown(table)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())  # Arrow's messages may run over several lines
        raise InputError(f"{quoted(path)} cannot be read as a study ({reason}); {again}") from error
    table = table.replace_schema_metadata(None)
    study = Study(known_as, saved.title, saved.claim, saved.claims, table, saved.figure, saved.words)
    return SavedStudy(study, saved.made)
