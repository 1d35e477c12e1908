"""``underfire train``: interpreters that learn."""

from pathlib import Path

import click

from underfire.audit.plan import ModelSettings
from underfire.cli.console import counted, notes, print_table
from underfire.cli.options import check_writable, load_model, model_options, photos_of
from underfire.cli.training import TrainingDisplay
from underfire.errors import InputError
from underfire.images.files import printable, quoted
from underfire.training.photos import Source, drawn, read_sources, split_photos
from underfire.training.plan import TrainingPlan
from underfire.training.rts import train_rts

_DEFAULTS = TrainingPlan()
_HELD_OUT = 100


class HeldOut(click.ParamType[int | Path]):
    """A number of photos, or a file of their names."""

    name = "held-out"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | Path:
        """The number or the file."""
        if isinstance(value, int | Path):
            return value
        text = str(value)
        if not text.isdecimal():
            return Path(text)
        if int(text) < 1:
            self.fail("hold at least 1 photo out, to see whether the maps are any good", param, ctx)
        return int(text)


@click.group()
def train() -> None:
    """Trains the interpreters that learn."""


@train.command()
@click.argument("photos", nargs=-1, metavar="[PHOTO_OR_FOLDER]...")
@model_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE.safetensors",
    help="Where the weights go; the checkpoint of each epoch stands beside it.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=_DEFAULTS.epochs, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=_DEFAULTS.batch_size, show_default=True)
@click.option("--seed", type=int, default=_DEFAULTS.seed, show_default=True, help="Of all random numbers.")
@click.option(
    "--held-out",
    type=HeldOut(),
    default=_HELD_OUT,
    show_default=True,
    metavar="NUMBER|FILE",
    help="Photos to score, not to train on: how many, drawn by the seed, or a file of their names, one a line.",
)
def rts(
    photos: tuple[str, ...],
    settings: ModelSettings,
    device: str,
    out: Path,
    epochs: int,
    batch_size: int,
    seed: int,
    held_out: int | Path,
) -> None:
    """Trains the masking network of RTS for a model, on photos without labels.

    Run again with the same settings, it goes on where it was interrupted.

    The score of each epoch is of the photos that were held out: the probability of the top class in the photo, where
    the salient part alone is shown, and where it is destroyed; the mean of its map, and of the map of a class that is
    not there.
    """
    check_writable(out)
    plan = TrainingPlan(epochs=epochs, batch_size=batch_size, seed=seed)
    classifier = load_model(settings, device)
    found = photos_of(photos, classifier)
    sources, unusable = read_sources(found.photos, classifier)
    for name, reason in [*((skip.name, skip.reason) for skip in found.skipped), *unusable]:
        notes().print(f"Skipped {quoted(name)}: {reason}")
    split = split_photos(sources, _held_out_names(held_out, sources, seed), classifier)
    notes().print(f"{counted(len(split.train), 'photo')} to train on, {len(split.held_out)} held out")
    with TrainingDisplay(notes()) as display:
        network = train_rts(classifier, split, out, plan=plan, listener=display)
    last = network.about["history"][-1]
    print_table(tuple(name.replace("_", " ") for name in last), [tuple(f"{value:.3f}" for value in last.values())])
    click.echo(f"Weights: {printable(out)}")


def _held_out_names(held_out: int | Path, sources: list[Source], seed: int) -> frozenset[str]:
    """The names of the photos to keep out.

    Raises:
        InputError: the file cannot be read, or names a photo that is not there.
    """
    if isinstance(held_out, int):
        return drawn(sources, held_out, seed)
    try:
        lines = held_out.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--held-out '{held_out}' is neither a number nor a file of photo names.") from error
    names = frozenset(line.strip() for line in lines if line.strip())
    missing = sorted(names - {source.image_id for source in sources})
    if missing:
        raise InputError(f"--held-out '{held_out}' names {quoted(missing[0])}, which is not among the photos.")
    return names
