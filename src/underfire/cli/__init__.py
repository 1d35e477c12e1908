"""The command line: parse, call, print.

What a command needs is imported when that command runs, so that help, the version and mistakes come at once.
"""

import sys
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any

import click

from underfire import __version__
from underfire.cli.options import Group
from underfire.cli.streams import flush, shown_warnings, steady_streams
from underfire.errors import InputError, ended
from underfire.files import refused

__all__ = ["cli", "main"]

INTERNAL_ERROR = 70
"""The exit code of our own mistakes (EX_SOFTWARE of sysexits.h): 1 must mean that a gate failed."""

COMMANDS: Mapping[str, tuple[str, str]] = {
    "attack": ("attack", "Makes a photo look like TARGET_CLASS to the model, with the map you choose."),
    "attacks": ("listing", "Lists the attacks that --attacks takes."),
    "audit": ("audit", "Attacks photos and their explanations, and reports how far to trust them."),
    "benchmark": ("benchmark", "Writes entries of the benchmark from a run, or joins entries into a table."),
    "certify": ("certify", "Certifies what no attack can do to label and map, shown through noise."),
    "detect": ("detect", "Flags photos whose maps are unlike those of clean photos."),
    "doctor": ("doctor", "Says what is installed, which devices there are, and what will hurt."),
    "evidence": ("evidence", "Writes what an auditor files of a run: figures, limits and hashes."),
    "explain": ("explain", "Shows where the model looks: attribution maps as PNG."),
    "interpreters": ("listing", "Lists the interpreters that --interpreters takes."),
    "merge": ("merge", "Joins the runs of shards into one."),
    "models": ("listing", "Lists the models that --model takes."),
    "plan": ("audit", "Tells what an audit would do, in passes, without doing it."),
    "report": ("report", "(Re)builds the summary and the report of a run."),
    "studio": ("studio", "Opens a local page to try an attack."),
    "study": ("study", "Tests the claims of the paper's discussion on your model."),
    "train": ("train", "Trains the interpreters that learn."),
}
"""The module of each command, where it has the command's name, and the line that tells of it."""


class _Refusal(click.ClickException):
    """Bad input: one sentence on stderr."""

    exit_code = 2


class _Interrupted(click.ClickException):
    """Stopped by Ctrl-C or SIGTERM."""

    exit_code = 130

    def show(self, file: Any = None) -> None:  # noqa: ARG002 - the signature is click's
        """Says so, without calling it an error."""
        click.echo(self.format_message(), err=True)


class _Imported(MutableMapping[str, click.Command]):
    """The commands by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        module = import_module(f"{__name__}.{COMMANDS[name][0]}")
        command: click.Command = next(
            found for found in vars(module).values() if isinstance(found, click.Command) and found.name == name
        )
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        raise TypeError(f"'{name}' goes into the table of commands")

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"'{name}' stands in the table of commands")

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Commands(Group):
    """The group whose commands end as the exit codes promise, and never in a traceback for bad input."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands, none of them imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the chosen command; what it returns is its exit code, None for 0.

        No command of ours raises SystemExit: code of the user's own that does so must not decide the exit code.
        """
        try:
            with shown_warnings():
                code = super().invoke(ctx)
                flush()
        except OSError as error:
            raise _Refusal(refused(error)) from error
        except InputError as error:
            raise _Refusal(str(error)) from error
        except KeyboardInterrupt as stop:
            raise _Interrupted(str(stop) or "Interrupted.") from stop
        except Exception:
            raise
        except BaseException as stop:
            raise _Refusal(ended(stop)) from stop
        ctx.exit(code or 0)


@click.group(
    cls=_Commands,
    commands=_Imported(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__)
def cli() -> None:
    """Audits interpretable image classifiers under attack.

    Can an attacker choose the prediction and keep its explanation?
    """


def main() -> None:
    """The command line's entry point."""
    steady_streams()
    try:
        cli(prog_name="underfire")
    except Exception:  # noqa: BLE001 - whatever it was, it was not a failed gate
        traceback.print_exc()
        sys.exit(INTERNAL_ERROR)
