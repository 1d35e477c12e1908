"""A classifier that reads one thing, and photos with it at a known place."""

from pathlib import Path

import torch
from torch import Tensor, nn

from underfire.images import save_png
from underfire.models.classifier import Classifier

SIZE, CELL = 32, 8  # pixels of the photos, and of the patch in them
NOTHING, RED, BLUE = range(3)


def planted_net() -> nn.Sequential:
    """Class RED counts the cells of 8 × 8 pixels that are red, BLUE the blue ones, and NOTHING is ahead of none."""
    colours, whole = nn.Conv2d(3, 2, 4, stride=4), nn.Conv2d(2, 2, 2, stride=2)
    head = nn.Linear(2, 3)
    with torch.no_grad():
        for module in (colours, whole, head):
            module.weight.zero_()
            assert module.bias is not None
            module.bias.zero_()
        for index, channel in enumerate((0, 2)):
            colours.weight[index] = -1 / 32
            colours.weight[index, channel] = 1 / 16  # the colour less the mean of the other two
            whole.weight[index, index] = 1 / 4
        assert colours.bias is not None
        colours.bias.fill_(-0.5)  # a faint tint is none
        head.weight[RED, 0] = head.weight[BLUE, 1] = 400
        head.bias[NOTHING] = 3
    return nn.Sequential(colours, nn.ReLU(), whole, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def tinted_net() -> nn.Sequential:
    """The same, but a tint that is faint counts as well, wherever it is: an attack needs no patch."""
    net = planted_net()
    colours, head = net[0], net[-1]
    assert isinstance(colours, nn.Conv2d)
    assert isinstance(head, nn.Linear)
    assert colours.bias is not None
    with torch.no_grad():
        colours.bias.fill_(0.1)  # alive without any tint
        head.bias[NOTHING] += 40  # what that makes of 16 cells
    return net


def planted_classifier() -> Classifier:
    """``planted_net`` on photos of 32 pixels."""
    return Classifier(planted_net(), input_size=SIZE, name="planted")


def planted(n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Grey pictures (n, 3, 32, 32) with a red patch each, and where it is, (n, 8, 8) of 0 and 1."""
    draw = torch.Generator().manual_seed(seed)
    x = 0.3 + 0.2 * torch.rand(n, 1, SIZE, SIZE, generator=draw).expand(n, 3, SIZE, SIZE).clone()
    places = torch.randint(0, SIZE // CELL, (n, 2), generator=draw)
    where = torch.zeros(n, SIZE // CELL, SIZE // CELL)
    for index, (row, column) in enumerate(places.tolist()):
        block = (slice(row * CELL, (row + 1) * CELL), slice(column * CELL, (column + 1) * CELL))
        x[index, :, *block] = torch.tensor([0.95, 0.05, 0.05])[:, None, None]
        where[index, row, column] = 1
    return x, where.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


def write_planted(folder: Path, n: int, *, seed: int = 0) -> Path:
    """``planted`` pictures as PNG files ``00.png`` … in a new ``folder``."""
    folder.mkdir(parents=True)
    for index, picture in enumerate(planted(n, seed=seed)[0]):
        save_png(picture, folder / f"{index:02}.png")
    return folder


def flat_net() -> nn.Sequential:
    """No pooling before its linear layer, so that no cell has a logit of its own."""
    return nn.Sequential(nn.Conv2d(3, 2, 4, stride=4), nn.Flatten(), nn.Linear(128, 3))
