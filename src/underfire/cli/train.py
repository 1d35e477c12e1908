"""``underfire train``: interpreters that learn, and classifiers on noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from underfire.auditing.plan import ModelSettings
from underfire.cli.console import notes, print_table
from underfire.cli.options import (
    Count,
    Number,
    Parsed,
    Seed,
    load_model,
    model_options,
    out_file,
    photos_argument,
    quiet_option,
    rts_option,
)
from underfire.errors import InputError
from underfire.files import printable, quoted
from underfire.parsing import count, names
from underfire.training.plan import AidPlan, NoisePlan, RtsPlan, TrainingPlan

if TYPE_CHECKING:
    from underfire.images.dataset import NamedPhoto, Split
    from underfire.models.classifier import Classifier

_RTS, _AID, _NOISE = RtsPlan(), AidPlan(), NoisePlan()
_HELD_OUT = 100


def _held_out(text: str) -> int | Path:
    """A number of photos, or a file of their names."""
    return count(text) if text.isdecimal() else Path(text)


@click.group()
def train() -> None:
    """Trains the interpreters that learn, and classifiers on noise."""


def training_options(plan: TrainingPlan) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the photos and the options of every training, with the defaults of ``plan``."""
    options = (
        photos_argument(),
        model_options,
        out_file("Where the weights go; the checkpoint of each epoch stands beside it."),
        click.option("--epochs", type=Count, default=plan.epochs, show_default=True),
        click.option("--batch-size", type=Count, default=plan.batch_size, show_default=True),
        click.option("--seed", type=Seed, default=plan.seed, show_default=True, help="Of all random numbers."),
        click.option(
            "--held-out",
            type=Parsed("held-out", _held_out),
            default=_HELD_OUT,
            show_default=True,
            metavar="NUMBER|FILE",
            help="Photos to score, not to train on: how many, drawn by the seed, or a file of their names, one a line.",
        ),
        quiet_option,
    )

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@train.command()
@training_options(_RTS)
def rts(
    photos: tuple[str, ...],
    settings: ModelSettings,
    device: str | None,
    out: Path,
    seed: int,
    held_out: int | Path,
    **numbers: int,
) -> None:
    """Trains the masking network of RTS for a model, on photos without labels.

    Run again with the same settings, it goes on where it was interrupted.

    The score of each epoch is of the photos that were held out: the probability of the top class in the photo, where
    the salient part alone is shown, and where it is destroyed; the mean of its map, and of the map of a class that is
    not there.
    """
    from underfire.cli.training import TrainingDisplay
    from underfire.training.rts import train_rts

    plan = RtsPlan(seed=seed, **numbers)
    classifier = load_model(settings, device)
    split = _split(photos, classifier, held_out, seed)
    with TrainingDisplay(notes()) as display:
        train_rts(classifier, split, out, plan=plan, listener=display)
    _tell(out)


@train.command()
@training_options(_AID)
@rts_option
@click.option(
    "--attack-passes",
    type=Count,
    default=_AID.attack_passes,
    show_default=True,
    help="Forward and backward passes of the attack on each photo.",
)
@click.option(
    "--margin",
    type=Number,
    default=_AID.margin,
    show_default=True,
    help="Mean difference of an adversarial from a benign map that is enough.",
)
def aid(
    photos: tuple[str, ...],
    settings: ModelSettings,
    device: str | None,
    out: Path,
    seed: int,
    held_out: int | Path,
    rts: str | None,
    **numbers: Any,
) -> None:
    """Trains the masking network of RTS on, with attacks in the loop: adversarial interpretation training.

    A design of our own. It begins with the weights in --rts, by default those that come with the package, and attacks
    each photo with a short ADV² on the network as it is at that step. Benign maps shall stay what they were, maps of
    adversarial images shall differ from them. The weights are used like any others of RTS; whether they withstand a
    longer attack that knows them is another question, and has to be measured.

    Run again with the same settings, it goes on where it was interrupted.

    The score of each epoch has, beside that of `underfire train rts`: how far benign maps of held-out photos moved
    (stayed), how many of a few attacked ones got the target class (reached), and how far their maps are from the
    benign ones (showed).
    """
    from underfire.cli.training import TrainingDisplay
    from underfire.interpreters.rts import default_weights
    from underfire.training.aid import train_aid

    plan = AidPlan(seed=seed, **numbers)
    classifier = load_model(settings, device)
    start = default_weights(classifier) if rts is None else Path(rts)
    split = _split(photos, classifier, held_out, seed)
    with TrainingDisplay(notes()) as display:
        train_aid(classifier, split, start, out, plan=plan, listener=display)
    _tell(out)


@train.command()
@training_options(_NOISE)
@click.option(
    "--sigma",
    type=Number,
    default=_NOISE.sigma,
    show_default=True,
    help="Standard deviation of the noise, in pixel values of [0, 1].",
)
@click.option(
    "--layers",
    type=Parsed("layers", names),
    default=_NOISE.layers,
    metavar="NAME,...",
    show_default="the linear layer that reads the pooled features",
    help="Layers of the model whose weights are trained.",
)
@click.option("--learning-rate", type=Number, default=_NOISE.learning_rate, show_default=True, help="Of Adam.")
def noise(
    photos: tuple[str, ...],
    settings: ModelSettings,
    device: str | None,
    out: Path,
    seed: int,
    held_out: int | Path,
    **numbers: Any,
) -> None:
    """Fine-tunes a classifier on photos with Gaussian noise, for longer certificates; photos need no labels.

    What it says of a noisy photo shall be what it says of the photo itself. The weights are a checkpoint of the same
    model: give them with --checkpoint to any command, beside the same --model.

    Run again with the same settings, it goes on where it was interrupted.

    The score of each epoch is of the photos that were held out, and of the label that the model gave them before,
    without noise: how many have it still (clean), how many of their noisy copies have it (noisy) and had it before.
    """
    from underfire.cli.training import TrainingDisplay
    from underfire.training.noise import train_noise

    plan = NoisePlan(seed=seed, **numbers)
    classifier = load_model(settings, device)
    split = _split(photos, classifier, held_out, seed)
    with TrainingDisplay(notes()) as display:
        train_noise(classifier, split, out, plan=plan, listener=display)
    _tell(out)


def _split(photos: tuple[str, ...], classifier: Classifier, held_out: int | Path, seed: int) -> Split:
    """The photos to train on and those to keep out; says on stderr what was skipped and how many there are."""
    from underfire.cli.usable import usable
    from underfire.images.dataset import split_photos
    from underfire.present.text import plural

    sources = list(usable(photos, classifier).sources)
    split = split_photos(sources, _held_out_names(held_out, sources, seed), classifier)
    notes().print(f"{plural(len(split.train), 'photo')} to train on, {len(split.held_out)} held out")
    return split


def _tell(out: Path) -> None:
    """The score of the last epoch, and where the weights are."""
    from underfire.weights import read_about

    last = read_about(out)["history"][-1]
    print_table(tuple(name.replace("_", " ") for name in last), [tuple(f"{value:.3f}" for value in last.values())])
    click.echo(f"Weights: {printable(out)}")


def _held_out_names(held_out: int | Path, sources: list[NamedPhoto], seed: int) -> frozenset[str]:
    """The names of the photos to keep out.

    Raises:
        InputError: the file cannot be read, or names a photo that is not there.
    """
    from underfire.images.dataset import drawn

    if isinstance(held_out, int):
        return drawn(sources, held_out, seed)
    try:
        lines = held_out.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--held-out '{held_out}' is neither a number nor a file of photo names.") from error
    named = frozenset(line.strip() for line in lines if line.strip())
    missing = sorted(named - {source.image_id for source in sources})
    if missing:
        raise InputError(f"--held-out '{held_out}' names {quoted(missing[0])}, which is not among the photos.")
    return named
