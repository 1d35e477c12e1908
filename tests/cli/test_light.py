"""Help, the version and mistakes come without what is large; so does ``import underfire``."""

import subprocess
import sys

import click
import pytest

import underfire
from underfire.attacks.authors import PUBLISHED
from underfire.auditing.names import known_interpreters, known_perturbations
from underfire.auditing.plan import PASSES, QUICK
from underfire.choices import PERTURBATIONS
from underfire.cli import COMMANDS, cli

LARGE = ("torch", "matplotlib", "scipy", "pyarrow", "PIL", "numpy", "jinja2")

_RUN = f"""
import sys
from underfire.cli import cli
try:
    cli(sys.argv[1:], prog_name="underfire")
except SystemExit as end:
    print("exit", end.code)
print("large:", *(name for name in {LARGE} if name in sys.modules))
"""


def run(*arguments: str) -> str:
    """What a fresh process prints, at its end the large modules that it imported."""
    return subprocess.run([sys.executable, "-c", _RUN, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        ([], 2),
        (["nonsense"], 2),
        (["--nonsense"], 2),
        *(([name, "--help"], 0) for name in COMMANDS if name != "study"),
        (["detect", "fit", "--help"], 0),
        (["train", "rts", "--help"], 0),
        (["audit", "--perturbation", "l1"], 2),
        (["audit", "--eps", "much"], 2),
        (["attack"], 2),
    ],
    ids=str,
)
def test_help_and_usage_errors_import_nothing_large(arguments: list[str], code: int) -> None:
    *_, end, large = run(*arguments).splitlines()
    assert end == f"exit {code}"
    assert large == "large:"


def test_importing_the_package_imports_nothing_large() -> None:
    program = f"import sys, underfire; print(*(name for name in {LARGE} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_public_names_are_what_they_say() -> None:
    assert set(underfire.__all__) <= set(dir(underfire))
    for name in underfire.__all__:
        found = getattr(underfire, name)
        assert getattr(found, "__name__", name).rpartition(".")[2] == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        underfire.nonsense  # type: ignore[attr-defined]  # noqa: B018
    from underfire import attacks

    assert underfire.attacks is attacks


def test_every_command_is_where_the_table_says() -> None:
    for name in COMMANDS:
        command = cli.commands[name]
        assert isinstance(command, click.Command)
        assert command.name == name
    assert cli.commands.get("nonsense") is None


def test_plain_names_are_those_of_the_parts() -> None:
    assert tuple(known_perturbations()) == PERTURBATIONS
    assert PASSES["paper"] == PASSES["authors"] == max(published.steps for published in PUBLISHED.values())
    assert set(QUICK) <= set(known_interpreters())
