"""How much of a map lies on the object, where the object is known to the pixel."""

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.contenders import Maps
from benchmarks.stamps import Scenes
from benchmarks.tables import Table, interval
from underfire import stats
from underfire.interpreters.faithfulness import upsampled


def energy_inside(maps: Tensor, inside: Tensor) -> Tensor:
    """The share (N,) of each map's mass that lies on the object.

    Source: the energy-based pointing game of Wang et al., "Score-CAM: Score-weighted visual explanations for
    convolutional neural networks", CVPR workshops 2020. A map of zeros is worth what a constant one is.

    Args:
        maps: (N, h, w), not negative, of any grid.
        inside: bool (N, H, W), the pixels of the object.
    """
    mass = upsampled(maps, (inside.shape[1], inside.shape[2]))
    mass = torch.where((mass == 0).all(dim=2).all(dim=1)[:, None, None], 1.0, mass)
    return (mass * inside).sum(dim=(1, 2)) / mass.sum(dim=(1, 2))


def points_inside(maps: Tensor, inside: Tensor) -> Tensor:
    """The pointing game (N,): 1 where a map's maximum is on the object; of several, the share that is.

    Source: Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016; without its margin. As there,
    the maximum is one of pixels.
    """
    seen = upsampled(maps, (inside.shape[1], inside.shape[2]))
    # What interpolation rounds is no maximum of its own.
    largest = seen >= seen.amax(dim=(1, 2), keepdim=True) * (1 - 1e-12)
    return (largest & inside).sum(dim=(1, 2)) / largest.sum(dim=(1, 2))


def table(found: Scenes, contenders: Mapping[str, Maps], baseline: str, batch_size: int) -> Table:
    """One line per contender; its energy also as the paired difference to ``baseline``."""
    seen = {name: _seen(maps, found, batch_size) for name, maps in contenders.items()}
    energies = {name: energy_inside(maps, found.inside).tolist() for name, maps in seen.items()}
    rows = [
        (
            name,
            interval(stats.bootstrap_mean(energies[name])),
            ""
            if name == baseline
            else interval(stats.bootstrap_paired(energies[name], energies[baseline]), signed=True),
            interval(stats.bootstrap_mean(points_inside(maps, found.inside).tolist())),
        )
        for name, maps in seen.items()
    ]
    area = stats.bootstrap_mean(found.inside.double().mean(dim=(1, 2)).tolist())
    columns = ("map", "energy inside [95 %]", f"less {baseline} [95 %]", "maximum inside [95 %]")
    notes = (
        f"n = {len(found.names)} of {found.tried} stamps, those of which the classifier is sure enough; each map is for"
        " its most probable class.",
        f"The objects' share of the picture, which a constant map has of its energy: {interval(area)}.",
    )
    return Table("Localisation against exact outlines", columns, rows, notes)


def _seen(maps: Maps, found: Scenes, batch_size: int) -> Tensor:
    """The maps (N, h, w) of all pictures, ``batch_size`` at a time."""
    columns = zip(found.x.split(batch_size), found.classes.split(batch_size), strict=True)
    return torch.cat(
        [
            maps(x, y, found.names[batch_size * part : batch_size * part + len(x)]).cpu()
            for part, (x, y) in enumerate(columns)
        ]
    )
