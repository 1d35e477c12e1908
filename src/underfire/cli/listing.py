"""``underfire models``, ``interpreters`` and ``attacks``: what is available."""

import click

from underfire.auditing.plan import PASSES, QUERIES, Preset
from underfire.cli.console import print_table


@click.command()
def models() -> None:
    """Lists the models that --model takes."""
    from underfire.models import available

    print_table(
        ("model", "what it is", "installed"),
        [(source.name, source.description, "yes" if source.installed else "no") for source in available()],
    )


@click.command()
def interpreters() -> None:
    """Lists the interpreters that --interpreters takes, with what they cost and need.

    A pass is one forward and backward pass of the model, per photo. A step is one of ADV².
    """
    from underfire.auditing.names import known_interpreters

    print_table(
        ("interpreter", "family", "what its map shows", "passes a map", "passes a step", "needs"),
        [
            (name, cls.family, cls.summary, str(cls.passes_per_map), str(cls.passes_per_step), cls.needs or "-")
            for name, cls in known_interpreters().items()
        ],
    )


@click.command()
def attacks() -> None:
    """Lists the attacks that --attacks takes, with the passes of each preset, and what --perturbation takes."""
    from underfire.attacks import ADV2, PGD, Square, StAdv
    from underfire.auditing.names import known_perturbations
    from underfire.present.text import budget

    described = {
        PGD.name: "the prediction alone, whatever the explanation shows",
        ADV2.name: "the prediction and the map of an interpreter, together",
        StAdv.name: "the same by moving pixels, whatever --perturbation says",
        Square.name: "as adv2 but without gradients, a random search to check the others (linf only)",
    }
    print_table(
        ("attack", "what it aims at", *(f"passes, {preset}" for preset in PASSES)),
        [(name, text, *(_passes(preset, name) for preset in PASSES)) for name, text in described.items()],
    )
    click.echo()
    print_table(
        ("perturbation", "what may change", "default eps", "unit"),
        [(name, cls.summary, budget(cls.eps, name), cls.unit) for name, cls in known_perturbations().items()],
    )


def _passes(preset: Preset, attack: str) -> str:
    from underfire.attacks import ADV2, Square

    if (preset, attack) == ("authors", ADV2.name):
        return "as published"
    return f"{PASSES[preset] * QUERIES} queries" if attack == Square.name else str(PASSES[preset])
