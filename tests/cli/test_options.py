"""Commands, options and values under the names that they once had."""

import click
import pytest
from click.testing import CliRunner

from underfire.cli.options import Group, Option


@click.group(cls=Group, old_names={"colour": "color"})
def paint() -> None:
    """Paints."""


@paint.command()
@click.option(
    "--shade", cls=Option, old_names=["--tint"], type=click.Choice(["pale", "deep"]), old_values={"dark": "deep"}
)
@click.option("--layer", cls=Option, old_names=["--coat"], old_values={"base": "primer"}, multiple=True)
@click.option("--dry", cls=Option, old_names=["--wait"], is_flag=True)
@click.pass_context
def color(ctx: click.Context, shade: str | None, layer: tuple[str, ...], dry: bool) -> None:
    """Colours."""
    click.echo(f"{ctx.command_path}: {shade} {','.join(layer)} {dry}")


def run(*arguments: str) -> str:
    return CliRunner().invoke(paint, arguments, prog_name="paint").output


@pytest.mark.parametrize(
    "arguments",
    [
        ["color", "--shade", "deep", "--layer", "primer", "--layer", "top", "--dry"],
        ["colour", "--tint", "dark", "--coat=base", "--layer", "top", "--wait"],
    ],
    ids=["today", "once"],
)
def test_old_names_do_what_the_new_ones_do(arguments: list[str]) -> None:
    assert run(*arguments) == "paint color: deep primer,top True\n"


def test_what_is_not_given_stays_so() -> None:
    assert run("color") == "paint color: None  False\n"


def test_help_and_errors_have_the_new_names_alone() -> None:
    said = run("--help") + run("color", "--help") + run("colour", "--tint", "blue") + run("tint")
    assert "'--shade'" in said
    assert "color" in said
    for old in ("colour", "--coat", "--wait", "dark", "base", "--tint"):
        assert old not in said
