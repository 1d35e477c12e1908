"""``python -m benchmarks``: the tables on the standard output."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import click
import torch

from benchmarks import peers, preparation, steps
from benchmarks.header import header
from benchmarks.stand_ins import importable
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
BATCH_SIZES = {"cpu": 8, "cuda": 64}
LARGE = ("benchmarks.models:resnet50", "benchmarks.models:vit_small")
"""With random weights: measured besides the built-in model, on a CPU beside other libraries alone."""

LARGE_BATCH, LARGE_DRAWS = 2, 32
"""On a CPU, where a pass of theirs takes ten of the built-in model's."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sections", nargs=-1, type=click.Choice(list(SECTIONS)))
@click.option(
    "--model",
    help="As for `underfire audit`; by default the built-in model, and timm's ResNet-50 and ViT-S/16 besides, on a CPU"
    " for peers alone.",
)
@click.option("--device", help="Where to measure; by default on the CPU and, where there is one, on the GPU.")
@click.option(
    "--batch-size", type=click.IntRange(1), help="By default 8 on the CPU, 2 of the larger models, and 64 on a GPU."
)
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True, help="Timings of everything.")
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
    for recipe, names in work(sections or tuple(SECTIONS), model, device, batch_size, photos):
        subject = Subject.make(recipe)
        for name in names:
            for table in SECTIONS[name](subject, turns=repeats):
                click.echo(table)


def work(
    sections: Sequence[str], model: str | None, device: str | None, batch_size: int | None, photos: str | None
) -> Iterator[tuple[Recipe, Sequence[str]]]:
    """What to measure, and of that which of the ``sections``: the ``model`` everywhere, or all there are by default."""
    devices = [device] if device else ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for place in devices:
        kind = torch.device(place).type
        yield Recipe(model or DEFAULT_MODEL, place, batch_size or BATCH_SIZES[kind], photos), sections
        besides = [name for name in sections if kind == "cuda" or name == "peers"]
        if model is None and besides and _has_timm():
            few = {} if kind == "cuda" else {"draws": LARGE_DRAWS}
            size = batch_size or (BATCH_SIZES[kind] if kind == "cuda" else LARGE_BATCH)
            yield from ((Recipe(large, place, size, photos, **few), besides) for large in LARGE)


def _has_timm() -> bool:
    """Whether it can be imported; a line says so if not."""
    importable()
    try:
        importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        click.echo(f"No ResNet-50 and no ViT: timm can't be imported ({error}).\n")
        return False
    return True


if __name__ == "__main__":
    main()
