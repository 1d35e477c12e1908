"""``underfire models``, ``interpreters`` and ``attacks``: what is available."""

from collections.abc import Mapping

import click

from underfire.attacks import ADV2, PGD, StAdv
from underfire.audit.names import known_interpreters, known_perturbations
from underfire.audit.plan import STEPS
from underfire.cli.console import print_table
from underfire.report.wording import budget
from underfire.zoo import available


@click.command()
def models() -> None:
    """Lists the models that --model takes."""
    print_table(
        ("model", "what it is", "installed"),
        [(source.name, source.description, "yes" if source.installed else "no") for source in available()],
    )


@click.command()
def interpreters() -> None:
    """Lists the interpreters that --interpreters takes."""
    print_table(
        ("interpreter", "family", "what its map shows"),
        [(name, cls.family, cls.summary) for name, cls in known_interpreters().items()],
    )


@click.command()
def attacks() -> None:
    """Lists the attacks that --attacks takes, with the steps of each preset, and what --perturbation takes."""
    described = {
        PGD.name: "the prediction alone, whatever the explanation shows",
        ADV2.name: "the prediction and the map of an interpreter, together",
        StAdv.name: "the same by moving pixels, whatever --perturbation says",
    }
    print_table(
        ("attack", "what it aims at", *(f"steps, {preset}" for preset in STEPS)),
        [
            (name, text, *(_steps(preset_steps, name) for preset_steps in STEPS.values()))
            for name, text in described.items()
        ],
    )
    click.echo()
    print_table(
        ("perturbation", "what may change", "default eps", "unit"),
        [(name, cls.summary, budget(cls.eps, name), cls.unit) for name, cls in known_perturbations().items()],
    )


def _steps(table: Mapping[str, int], attack: str) -> str:
    prefix = f"{attack}-"
    special = [f"{n} on {key.removeprefix(prefix)}" for key, n in table.items() if key.startswith(prefix)]
    return ", ".join([str(table[attack]), *special])
