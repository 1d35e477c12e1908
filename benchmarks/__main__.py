"""``python -m benchmarks``: the tables on the standard output."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Protocol

import click
import torch

from benchmarks import peers, preparation, steps
from benchmarks.header import header
from benchmarks.subject import Recipe, Subject
from benchmarks.tables import Table
from underfire.models import DEFAULT_MODEL


class Section(Protocol):
    """One subject of measurement."""

    def __call__(self, subject: Subject, *, turns: int) -> Iterator[Table]:
        """Tables of ``subject``, ``turns`` timings of everything."""
        ...


SECTIONS: Mapping[str, Section] = {
    "steps": steps.tables,
    "preparation": preparation.tables,
    "peers": peers.tables,
}
RESNET50 = "benchmarks.models:resnet50"
BATCH_SIZES = {"cpu": 8, "cuda": 64}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sections", nargs=-1, type=click.Choice(list(SECTIONS)))
@click.option(
    "--model", help="As for `underfire audit`; by default the built-in model, and on a GPU a ResNet-50 besides."
)
@click.option("--device", help="Where to measure; by default on the CPU and, where there is one, on the GPU.")
@click.option("--batch-size", type=click.IntRange(1), help="By default 8 on the CPU and 64 on a GPU.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Timings of everything.")
@click.option(
    "--photos", type=click.Path(exists=True), help="Photo, folder or manifest instead of the built-in photos."
)
def main(
    sections: tuple[str, ...],
    model: str | None,
    device: str | None,
    batch_size: int | None,
    repeats: int,
    photos: str | None,
) -> None:
    """Measure SECTIONS, all of them by default, and print the tables."""
    click.echo(header())
    for recipe in _recipes(model, device, batch_size, photos):
        subject = Subject.make(recipe)
        for name in sections or SECTIONS:
            for table in SECTIONS[name](subject, turns=repeats):
                click.echo(table)


def _recipes(model: str | None, device: str | None, batch_size: int | None, photos: str | None) -> Iterator[Recipe]:
    """The ``model`` everywhere; for None the built-in one, and on a GPU a ResNet-50 besides."""
    devices = [device] if device else ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for place in devices:
        size = batch_size or BATCH_SIZES[torch.device(place).type]
        yield Recipe(model or DEFAULT_MODEL, place, size, photos)
        if model is None and torch.device(place).type == "cuda":
            try:
                importlib.import_module("torchvision")
            except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
                click.echo(f"No ResNet-50: torchvision can't be imported ({error}).\n")
            else:
                yield Recipe(RESNET50, place, size, photos)


if __name__ == "__main__":
    main()
