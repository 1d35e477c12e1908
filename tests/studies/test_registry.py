"""A further study is one file, one template and one line in the table; the command comes of itself."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from support.toy_photos import MODEL_OPTIONS, write_photos
from underfire.cli import cli
from underfire.parsing import positive
from underfire.present import plots, svg
from underfire.present.tables import to_arrow
from underfire.present.words import written
from underfire.stats import Estimate, bootstrap_mean
from underfire.studies.options import Declared, StudySource, declared_options, option
from underfire.studies.registry import STUDIES, StudyEntry
from underfire.studies.study import Claim, Study, above, read, together

# The file of the study: options, records, and collect → judge → table and figure → words.


@dataclass(frozen=True)
class ConfidenceOptions:
    """What the command takes beside the options of an audit."""

    level: float = option(0.5, help="What counts as sure.", parse=positive, metavar="P", old_names=("sure",))
    only: tuple[str, ...] = option((), help="An attack to study; repeatable.", choices=("pgd", "adv2"), multiple=True)


@dataclass(frozen=True)
class ConfidenceRecord:
    """How sure the model is of the target class, under one attack."""

    attack: str
    n: int
    confidence: Estimate


def study(source: StudySource, options: ConfidenceOptions) -> Study:
    """Is the model surer than ``options.level`` of what an attacker chose?"""
    run = source.audited()
    rows = [row for row in run.records if not row.condition.is_control]
    attacks = sorted({row.attack for row in rows} & set(options.only or ("pgd", "adv2")))
    records = []
    for attack in attacks:
        values = {row.image_id: row.confidence_8bit for row in rows if row.attack == attack}
        records.append(ConfidenceRecord(attack, len(values), bootstrap_mean(list(values.values()))))
    verdict = together(above(record.confidence, options.level) for record in records)
    estimates = {record.attack: record.confidence for record in records}
    claim = Claim("sure", f"The model is surer than {options.level}.", verdict, estimates, records[0].n)
    block = plots.ForestBlock(
        "confidence", tuple(plots.ForestRow(record.attack, record.confidence, svg.ADV2) for record in records)
    )
    return Study(
        name="confidence",
        title="How sure is the model of what an attacker chose?",
        claim="It is sure.",
        claims=(claim,),
        table=to_arrow(records, ConfidenceRecord),
        figure=plots.forest([block], label="confidence", name="confidence", description="Means."),
        words=written("toy_studies", "confidence.md.jinja", claim=claim),
    )


TEMPLATE = "The claim {{ claim.verdict }} on {{ claim.n | plural('photo') }}."
ENTRY = StudyEntry("How sure is the model of what an attacker chose?", "confidence:study", old_names=("trust",))

# The tests.

FAST = (*MODEL_OPTIONS, "--interpreters", "cam", "--steps", "2", "--limit", "2")
Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """``underfire study …`` where the package has one study more."""
    package = tmp_path / "package" / "toy_studies"
    (package / "templates").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "templates" / "confidence.md.jinja").write_text(TEMPLATE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(package.parent))
    module = ModuleType("confidence")
    monkeypatch.setattr(module, "study", study, raising=False)
    monkeypatch.setitem(sys.modules, "confidence", module)
    monkeypatch.setitem(STUDIES, "confidence", ENTRY)
    monkeypatch.chdir(tmp_path)
    write_photos(Path("photos"))
    return lambda *arguments: CliRunner().invoke(cli, ["study", *map(str, arguments)])


def test_a_further_study_has_its_command_and_its_chapter(invoke: Invoke) -> None:
    audited = CliRunner().invoke(cli, ["audit", "photos", *FAST, "--targets", "random", "--out", "run"])
    assert audited.exit_code == 0, audited.output
    result = invoke("confidence", "run", "--level", "0.9", "--only", "pgd")
    assert result.exit_code == 0, result.output
    (found,) = read(Path("run/studies"))
    assert found.study.table["attack"].to_pylist() == ["pgd"]
    assert found.study.claims[0].statement == "The model is surer than 0.9."
    assert f"The claim {found.study.claims[0].verdict} on 2 photos." in result.stdout
    assert 'id="study-confidence"' in Path("run/report.html").read_text(encoding="utf-8")
    with_old_names = invoke("trust", "run", "--sure", "0.9", "--only", "pgd")
    assert with_old_names.exit_code == 0, with_old_names.output


def test_help_lists_the_study_and_its_options(invoke: Invoke) -> None:
    assert ENTRY.question in " ".join(invoke("--help").output.split())
    shown = " ".join(invoke("confidence", "--help").output.split())
    assert "RUN is the directory of an audit. Photos are audited first" in shown
    assert "--level P What counts as sure. [default: 0.5]" in shown
    assert "--sure" not in shown
    assert "trust" not in invoke("--help").output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--level", "none"), "'none' is not a number"),
        (("--only", "square"), "'square' is not one of"),
        (("photos", "--eps", "7/0"), "'7/0' is not a number"),
    ],
)
def test_what_an_option_cannot_be_is_one_sentence(invoke: Invoke, options: tuple[str, ...], message: str) -> None:
    result = invoke("confidence", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_what_an_option_declares_is_found_again() -> None:
    assert declared_options(ConfidenceOptions)["level"] == (
        0.5, Declared(help="What counts as sure.", parse=positive, metavar="P", old_names=("sure",)),
    )  # fmt: skip


def test_the_table_of_studies_imports_no_study() -> None:
    modules = "[name for name in sys.modules if name.startswith('underfire.studies.')]"
    program = f"import sys, underfire.studies.registry; print(*{modules})"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=path)
    assert done.stdout.split() == ["underfire.studies.registry"]
