"""The pages under docs/measured are what the commands print: claim, columns and options of today."""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from underfire.cli import cli
from underfire.evaluation.results import DetectorRecord
from underfire.evaluation.words import CLAIM as DEFENSE
from underfire.present.tables import to_arrow
from underfire.studies import bound, frontier, gap, goals, sandwich, sandwich_rows, sensitivity, transfer

PAGES = [  # the benchmark's is joined from the entries beside it, and tests/evidence/test_benchmark.py joins them again
    page for page in sorted((Path(__file__).parents[1] / "docs" / "measured").glob("*.md")) if page.stem != "benchmark"
]
STUDIES = {
    "transfer": (transfer.CLAIM, transfer.TransferRecord),
    "bound": (bound.CLAIM, bound.BoundRecord),
    "frontier": (frontier.CLAIM, frontier.FrontierRow),
    "gap": (gap.CLAIM, gap.GapRow),
    "goals": (goals.CLAIM, goals.GoalRow),
    "sandwich": (sandwich.CLAIM, sandwich_rows.SandwichRow),
    "sensitivity": (sensitivity.CLAIM, sensitivity.SensitivityRow),
    "defence": (DEFENSE, DetectorRecord),
}
OF_STUDIES = [page for page in PAGES if re.split(r"\W", page.stem)[0] in STUDIES]


@pytest.mark.parametrize("page", OF_STUDIES, ids=lambda page: str(page.stem))
def test_a_page_is_what_its_study_prints(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    claim, kind = STUDIES[re.split(r"\W", page.stem)[0]]
    assert f"\nClaim: {claim}\n" in text
    header = next(line for line in text.splitlines() if line.startswith("| "))
    shown = [cell.strip() for cell in header.strip("|").split("|")]
    columns = to_arrow([], kind).column_names
    assert [column for column in columns if column in shown] == shown  # those without a value are left out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_the_command_of_a_page_can_be_typed(page: Path) -> None:
    if target := re.search(r"`make (\w+)[^`]*`", page.read_text(encoding="utf-8")):
        assert f"\n{target[1]}:" in (page.parents[2] / "Makefile").read_text(encoding="utf-8")
        return
    commands = re.findall(r"`((?:underfire|python -m benchmarks\.\w+) [^`]+)`", page.read_text(encoding="utf-8"))
    assert commands
    for command in commands:
        program, words = _split([word for word in shlex.split(command) if word != "…"])
        refused = CliRunner().invoke(program, [*words, "--help"])  # help comes first, and wrong options before it
        assert refused.exit_code == 0, f"{command}: {refused.output}"


def _split(words: list[str]) -> tuple[click.Command, list[str]]:
    """The program that a command line names, and its arguments."""
    if words[0] == "underfire":
        return cli, words[1:]
    package = importlib.util.find_spec(words[2])
    assert package is not None
    main = "" if package.submodule_search_locations is None else ".__main__"
    program = importlib.import_module(words[2] + main).main
    assert isinstance(program, click.Command)
    return program, words[3:]
