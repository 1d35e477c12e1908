"""``python -m benchmarks.pages_vit FILE``: trains ``pages-vit`` on drawn pages and counts how often it is right.

Every step sees some pages in all four ways up, shifted and lit anew.
"""

import math
import time
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.header import header
from benchmarks.pages import TURNS, drawn_page
from benchmarks.tables import interval
from underfire import Classifier, stats
from underfire.images.geometry import prepared
from underfire.models.pages_vit import CLASSES, PREPROCESSING, PagesViT
from underfire.weights import write_weights

TRAINING, HELD_OUT = 0, 1
"""Seeds of pages."""

_RATE, _DECAY, _WARM = 1.5e-3, 0.05, 0.1  # of AdamW; the share of steps in which the rate grows
_LONGEST = 1.0  # norm of a gradient
_SHIFT = 6  # pixels


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--pages", type=click.IntRange(1), default=2000, show_default=True, help="To train on.")
@click.option(
    "--held-out", type=click.IntRange(1), default=500, show_default=True, help="Pages, a quarter each way up."
)
@click.option("--steps", type=click.IntRange(1), default=1400, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=12, show_default=True, help="Pages in a step.")
def main(file: Path, pages: int, held_out: int, steps: int, batch_size: int) -> None:
    """Train on drawn pages, write the weights to FILE and say how often they are right on other pages."""
    click.echo(header())
    began, worked = time.perf_counter(), time.process_time()
    module = trained(drawn(TRAINING, pages), steps=steps, batch_size=batch_size)
    about = {"pages": pages, "seed": TRAINING, "steps": steps, "batch_size": batch_size, "torch": torch.__version__}
    write_weights(file, module.state_dict(), about)
    spent = f"{time.perf_counter() - began:.0f} seconds, {time.process_time() - worked:.0f} of the processor"
    x = drawn(HELD_OUT, held_out)
    label = torch.arange(held_out) % len(TURNS)
    x = torch.stack([torch.rot90(page, -int(turn), (1, 2)) for page, turn in zip(x, label, strict=True)])
    classifier = Classifier(
        module, class_names=CLASSES, mean=PREPROCESSING.mean, std=PREPROCESSING.std, input_size=PREPROCESSING.input_size
    )
    right = torch.cat([classifier(part / 255).argmax(dim=1) for part in x.split(50)]) == label
    share = interval(stats.wilson(int(right.sum()), held_out))
    click.echo(f"{pages} pages, {steps} steps of {batch_size} in four ways up: {spent}.")
    click.echo(f"Right on {int(right.sum())} of {held_out} held-out pages: {share}.")
    for turn, name in enumerate(CLASSES):
        click.echo(f"  turned by {name}: {int(right[label == turn].sum())} of {int((label == turn).sum())}")


def drawn(seed: int, pages: int) -> Tensor:
    """Upright pages (N, 3, H, W), uint8, as the classifier sees them."""
    seen = (np.asarray(prepared(drawn_page(seed, number), PREPROCESSING)) for number in range(pages))
    return torch.stack([torch.from_numpy(page.copy()).permute(2, 0, 1) for page in seen])


def trained(pages: Tensor, *, steps: int, batch_size: int) -> PagesViT:
    """A network in evaluation mode, after so many steps of AdamW on upright ``pages`` (N, 3, H, W), uint8."""
    torch.manual_seed(TRAINING)
    module = PagesViT()
    optimizer = torch.optim.AdamW(module.parameters(), lr=_RATE, weight_decay=_DECAY, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    label = torch.arange(len(TURNS)).repeat_interleave(batch_size)
    for step in range(steps):
        page = torch.randint(len(pages), (batch_size,))
        upright = _photographed(pages[page].float() / 255)
        x = torch.cat([torch.rot90(upright, -turn, (2, 3)) for turn in range(len(TURNS))])
        loss = F.cross_entropy(module(PREPROCESSING.normalised(x)), label)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), _LONGEST)
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            click.echo(f"step {step + 1}: loss {loss:.3f}", err=True)
    return module.eval()


def _rate(done: float) -> float:
    """The learning rate, relative to the highest, when the share ``done`` of the steps is done."""
    return done / _WARM if done < _WARM else 0.5 * (1 + math.cos(math.pi * (done - _WARM) / (1 - _WARM)))


def _photographed(x: Tensor) -> Tensor:
    """Pages in [0, 1], each shifted by some pixels and with another light."""
    side = x.shape[-1]
    wider = F.pad(x, (_SHIFT,) * 4, mode="replicate")
    corners = torch.randint(2 * _SHIFT + 1, (len(x), 2)).tolist()
    x = torch.stack([page[:, i : i + side, j : j + side] for page, (i, j) in zip(wider, corners, strict=True)])
    light, level = torch.empty(2, len(x), 1, 1, 1).uniform_(-1, 1)
    lit: Tensor = 0.5 + (x - 0.5) * (1 + 0.2 * light) + 0.1 * level
    return lit.clamp(0, 1)


if __name__ == "__main__":
    main()
