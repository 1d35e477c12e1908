"""How well a map shows what the classifier uses: what its most salient pixels do to the probability of the class.

Three measures, the same for every interpreter, of forward passes only. *Deletion* and *insertion* are those of Petsiuk,
Das and Saenko, "RISE: Randomized input sampling for explanation of black-box models", BMVC 2018; *kept* asks, in the
spirit of Dabkowski and Gal, "Real time image saliency for black box classifiers", NeurIPS 2017, whether the salient
part alone still carries the class. What is taken away is blurred in all three: black patches are shapes of their own,
which a classifier sees.

Maps of all native grids are compared on pixels. A map (N, h, w) is interpolated bilinearly to the image's (H, W), its
pixels are ranked, and each level replaces or shows the same number of them for every map. Only their order counts, so
that no scale, and no min–max, changes a measure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.errors import InputError
from underfire.interpreters.base import require_finite
from underfire.models.classifier import Classifier
from underfire.seeding import generator, owners

_STEPS = 2**20 - 1
"""Values that differ by less than one of so many parts of a map's range are ties, as interpolation rounds."""

_REACH = 3  # standard deviations after which the blur is cut off: the rest is 0.3 % of it


@dataclass(frozen=True)
class Probe:
    """How the measures are taken.

    Attributes:
        levels: into how many equal shares of the pixels an image is divided; more give finer areas and cost as many
            forward passes, twice.
        share: of the pixels that *kept* shows; a multiple of one level.
        blur: standard deviation of the Gaussian blur that takes the place of what is not shown, as a share of the
            image's short side; the default is 10 pixels of 224, that of Fong and Vedaldi, "Interpretable
            explanations of black boxes by meaningful perturbation", ICCV 2017.
        seed: of the order of ties.
        batch_size: images of one forward pass.

    Raises:
        InputError: a value is out of its range.
    """

    levels: int = 20
    share: float = 0.2
    blur: float = 10 / 224
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("levels", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a whole number of at least 1")
        if not 0 < self.blur <= 1:
            raise InputError(f"blur {self.blur} is not in (0, 1]; give a share of the image's short side")
        self.level_of(self.share)

    def level_of(self, share: float) -> int:
        """The level at which ``share`` of the pixels are shown; raises `InputError` where there is none."""
        level = round(share * self.levels)
        if not 0 <= level <= self.levels or abs(level / self.levels - share) > 1e-9:
            raise InputError(
                f"a share of {share} is none of the {self.levels} levels; give a multiple of {1 / self.levels:.4g} "
                "in [0, 1]"
            )
        return level


@dataclass(frozen=True)
class Faithfulness:
    """What N maps did to the probability of their classes; tensors on the CPU, in the classifier's type.

    Attributes:
        probe: how it was measured; L is its ``levels``.
        deleted: (N, L + 1), p_y with the most salient k/L of the pixels replaced, k = 0 … L.
        inserted: (N, L + 1), p_y with the most salient k/L of the pixels shown and all others replaced.
        holds: bool (N, L + 1), whether y was then the prediction.
    """

    probe: Probe
    deleted: Tensor
    inserted: Tensor
    holds: Tensor

    @property
    def deletion(self) -> Tensor:
        """(N,) in [0, 1], lower is better: the area under ``deleted`` over the share, by trapezoids."""
        return _area(self.deleted)

    @property
    def insertion(self) -> Tensor:
        """(N,) in [0, 1], higher is better: the area under ``inserted`` over the share, by trapezoids."""
        return _area(self.inserted)

    def kept(self, share: float | None = None) -> tuple[Tensor, Tensor]:
        """p_y (N,) and whether y is the prediction, bool (N,), when only ``share`` of the pixels is shown.

        By default the share of the probe.

        Raises:
            InputError: ``share`` is none of the levels.
        """
        level = self.probe.level_of(self.probe.share if share is None else share)
        return self.inserted[:, level], self.holds[:, level]


def faithfulness(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    maps: Tensor,
    *,
    probe: Probe = Probe(),
    keys: Sequence[str] | None = None,
) -> Faithfulness:
    """Measure ``maps`` of the images ``x`` for the classes ``y``, with 2·levels forward passes an image.

    Ties: cells of one value are ranked by a random map on the same grid, which belongs to the probe's seed and to the
    image. So a constant map is worth what a random one is worth, and no place in the picture is favoured. The rest of
    the ties, as between pixels of one cell, is in random order.

    Args:
        classifier: whose use of the image is in question.
        x: images (N, C, H, W) in [0, 1].
        y: the classes that the maps explain, int64 (N,).
        maps: (N, h, w) of any grid, floating point, larger where more salient.
        probe: how to measure.
        keys: one name per image, the owner of its random numbers; by default the image's own content.

    Raises:
        InputError: an argument has another shape, type or range.
        NonFiniteError: a map, or a probability, is not a finite number.
    """
    classifier.check_images(x)
    classifier.check_classes(y, x.shape[0])
    _check_maps(maps, x.shape[0])
    require_finite(maps, "the map")
    names = owners(x, keys)
    x = x.detach()
    found = [_one(classifier, x[i], int(y[i]), maps[i], probe, names[i]) for i in range(x.shape[0])]
    if not found:
        curves = torch.zeros((0, probe.levels + 1), dtype=x.dtype)
        return Faithfulness(probe, curves, curves.clone(), curves.bool())
    deleted, inserted, holds = (torch.stack(parts) for parts in zip(*found, strict=True))
    for curves in (deleted, inserted):
        require_finite(curves, "the classifier's output")
    return Faithfulness(probe, deleted, inserted, holds)


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, h, w) interpolated bilinearly to ``size`` (H, W) pixels, in float64 on the CPU."""
    grid = maps.detach().to("cpu", torch.float64)[:, None]
    return F.interpolate(grid, size=size, mode="bilinear", align_corners=False)[:, 0]


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Images ``x`` (N, C, H, W) under a Gaussian blur of ``sigma`` pixels, mirrored at the edges; in [0, 1]."""
    for axis in (2, 3):
        reach = min(max(1, round(_REACH * sigma)), x.shape[axis] - 1)
        offsets = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
        weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
        weights /= weights.sum()
        lines = x.movedim(axis, -1)
        padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="reflect")
        x = F.conv1d(padded, weights[None, None]).reshape(lines.shape).movedim(-1, axis)
    return x.clamp(0, 1)


def ranks(attribution: Tensor, size: tuple[int, int], *, seed: int, key: str) -> Tensor:
    """The rank of each pixel, int64 (H, W) from 0 for the most salient on, of a map (h, w) seen at ``size`` (H, W).

    Ties are broken as :func:`faithfulness` says.
    """
    draw = generator(seed, key, "ties")
    shuffled = torch.rand(attribution.shape, generator=draw, dtype=torch.float64)
    fine = torch.rand(size, generator=draw, dtype=torch.float64)
    keys = [
        _in_steps(values) for values in (*upsampled(torch.stack([attribution.cpu().double(), shuffled]), size), fine)
    ]
    order = (((keys[0] << 20) | keys[1]) << 20 | keys[2]).flatten().argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return rank.reshape(size)


def _one(
    classifier: Classifier, x: Tensor, y: int, attribution: Tensor, probe: Probe, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The curves (L + 1,) of one image (C, H, W): deleted, inserted, and whether y held while inserting."""
    size = (int(x.shape[1]), int(x.shape[2]))
    away = blurred(x[None], probe.blur * min(size))[0]
    rank = ranks(attribution, size, seed=probe.seed, key=key).to(x.device)
    # Shown is what ranks from a first pixel on, up to a last: from whole to nothing, and from one level to whole.
    edges = [round(k * rank.numel() / probe.levels) for k in range(probe.levels + 1)]
    spans = [(edge, rank.numel()) for edge in edges] + [(0, edge) for edge in edges[1:-1]]
    parts = []
    for start in range(0, len(spans), probe.batch_size):
        shown = torch.stack([(rank >= a) & (rank < b) for a, b in spans[start : start + probe.batch_size]])
        parts.append(classifier.probabilities(torch.where(shown[:, None], x, away)).cpu())
    probabilities = torch.cat(parts)
    asked = torch.full((len(probabilities),), y)
    p, holds = probabilities[:, y], classifier.decision.predict_from(probabilities, asked) == y
    # Nothing shown and everything shown are the same images for both curves.
    inserting = torch.tensor([probe.levels, *range(probe.levels + 1, 2 * probe.levels), 0])
    return p[: probe.levels + 1], p[inserting], holds[inserting]


def _in_steps(values: Tensor) -> Tensor:
    """``values`` (…) as whole numbers below 2²⁰, their range divided evenly; a constant is all 0."""
    low, high = torch.aminmax(values)
    span = high - low
    # The rounding of the interpolation is no range: relative to the values, not to 0.
    flat = span <= 1e-12 * torch.maximum(low.abs(), high.abs())
    return torch.zeros_like(values, dtype=torch.int64) if flat else ((values - low) / span * _STEPS).round().long()


def _area(curves: Tensor) -> Tensor:
    return ((curves[:, :-1] + curves[:, 1:]) / 2).mean(dim=1)


def _check_maps(maps: Tensor, n: int) -> None:
    if not isinstance(maps, Tensor) or maps.ndim != 3 or maps.shape[0] != n or 0 in maps.shape[1:]:
        seen = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise InputError(f"maps are {seen} for {n} images; give a tensor ({n}, h, w).")
    if not maps.is_floating_point():
        raise InputError(f"maps are of type {maps.dtype}; give floating point.")
