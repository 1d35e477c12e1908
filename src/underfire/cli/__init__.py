"""The command line: parse, call, print."""

import sys
import traceback
from typing import Any

import click

from underfire.cli import attack, audit, detect, explain, listing, report, study, train
from underfire.errors import InputError

__all__ = ["cli", "main"]

INTERNAL_ERROR = 70
"""The exit code of our own mistakes (EX_SOFTWARE of sysexits.h): 1 must mean that a gate failed."""


class _Refusal(click.ClickException):
    """Bad input: one sentence on stderr."""

    exit_code = 2


class _Interrupted(click.ClickException):
    """Stopped by Ctrl-C or SIGTERM."""

    exit_code = 130

    def show(self, file: Any = None) -> None:  # noqa: ARG002 - the signature is click's
        """Says so, without calling it an error."""
        click.echo(self.format_message(), err=True)


class _Commands(click.Group):
    """A group whose commands end as the exit codes promise, and never in a traceback for bad input."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the chosen command."""
        try:
            return super().invoke(ctx)
        except (InputError, OSError) as error:
            raise _Refusal(str(error)) from error
        except KeyboardInterrupt as stop:
            raise _Interrupted(str(stop) or "Interrupted.") from stop


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="underfire")
def cli() -> None:
    """Audits interpretable image classifiers under attack.

    Can an attacker choose the prediction and keep its explanation?
    """


for _command in (
    audit.audit,
    audit.plan_command,
    explain.explain,
    attack.attack,
    report.report,
    detect.detect,
    study.study,
    train.train,
    listing.models,
    listing.interpreters,
    listing.attacks,
):
    cli.add_command(_command)


def main() -> None:
    """The command line's entry point."""
    try:
        cli(prog_name="underfire")
    except Exception:  # noqa: BLE001 - whatever it was, it was not a failed gate
        traceback.print_exc()
        sys.exit(INTERNAL_ERROR)
