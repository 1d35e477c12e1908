"""What the maps of several interpreters say of each other and of the image, without any benign map.

The maps are those of the class c that the classifier predicts, brought to one grid of 28×28 cells. Four groups of
signals are measured on them:

* *pairs*, of every two interpreters: Spearman's rank correlation of their maps, and the overlap of the top fifths;
* *shapes*, of each: the entropy of its map, in nats, and how far its centroid is from the mean centroid of all, as a
  share of the picture's side;
* *agreed*: the log-odds of c when only the top fifth of the mean map is shown, the rest blurred;
* *views*, of each harmless view: the change of the log-odds of c, whether c is still predicted, and for each
  interpreter the rank correlation of its map with that of the view, carried back, once for c and once for the class
  predicted there.

Whatever is summed over a row is summed exactly, or row by row, so that a batch gives the same bits split or whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.defenses.views import View, harmless
from underfire.errors import InputError, NonFiniteError
from underfire.interpreters.base import Interpreter, check_together, require_finite
from underfire.interpreters.faithfulness import Probe, blurred, ranks
from underfire.metrics import iou_top
from underfire.models.classifier import Classifier
from underfire.seeding import owners

GRID = 28
"""Cells on a side of the grid on which maps are compared."""

_FINEST = 2**32
"""Values that differ by less than one of so many parts are ties, as interpolation rounds; sums of them are exact."""


@dataclass(frozen=True)
class Groups:
    """Which groups of signals are measured; the module says what they are.

    Raises:
        InputError: none is.
    """

    pairs: bool = True
    shapes: bool = True
    agreed: bool = True
    views: bool = True

    def __post_init__(self) -> None:
        if not any(astuple(self)):
            raise InputError("no group of signals is left; keep one of pairs, shapes, agreed and views.")


EVERY_GROUP = Groups()


@dataclass(frozen=True)
class _Look:
    """N images as the classifier and its interpreters see them; maps are on the common grid.

    Attributes:
        logits: (N, K).
        maps: by interpreter, (N, 28, 28).
        ranks: of the maps, as :func:`centred_ranks` gives them.
    """

    logits: Tensor
    maps: Mapping[str, Tensor]
    ranks: Mapping[str, Tensor]


class EnsembleSignals:
    """The signals of K interpreters of one classifier; see the module for what they are.

    Args:
        interpreters: one or several, of one classifier; a single one has no pairs, and no mean centroid but its own.
        groups: which signals are measured.
        views: harmless views, of different names; by default those of :func:`underfire.defenses.views.harmless`.
        seed: of the noise of the default views, and of the order of ties in the mean map.

    Raises:
        InputError: the interpreters or the views don't belong together, or nothing is left to measure.
    """

    def __init__(
        self,
        interpreters: Interpreter | Sequence[Interpreter],
        *,
        groups: Groups = EVERY_GROUP,
        views: Sequence[View] | None = None,
        seed: int = 0,
    ) -> None:
        self.interpreters = _of_one_classifier(interpreters)
        self.groups = groups
        self.seed = seed
        chosen = harmless(self.classifier.input_size, seed) if views is None else tuple(views)
        self.views = chosen if groups.views else ()
        called = [view.name for view in self.views]
        if len(set(called)) < len(called):
            raise InputError(f"the views {', '.join(called)} share a name; give each one once.")
        self._shown = Probe(seed=seed)
        self.names: tuple[str, ...] = tuple(self._signal_names())
        if not self.names:
            raise InputError("no signal is left to measure; a single interpreter has no pairs, so keep another group.")

    @property
    def classifier(self) -> Classifier:
        """The classifier that the interpreters explain."""
        return self.interpreters[0].classifier

    @property
    def passes_per_image(self) -> int:
        """Forward and backward passes of :meth:`measure` for an image that keeps its label under every view.

        A view under which it does not takes the passes of one map of each interpreter more.
        """
        look = 1 + sum(g.passes_per_map for g in self.interpreters)
        return look * (1 + len(self.views)) + self.groups.agreed

    def measure(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """The signals (N, S), float64 on the CPU, of images ``x`` (N, C, H, W) in [0, 1].

        All maps of an image, or of a view of it, are computed once, with one call of each interpreter for the batch.
        ``keys`` names the owner of each image's random numbers, which its views share; by default the image's content.

        Raises:
            InputError: ``x`` is not what the classifier takes, or there is not one key per image.
            NonFiniteError: a logit or a map of an image, or of a view of it, is NaN or infinite.
        """
        self.classifier.check_images(x)
        owned = owners(x, keys)
        if not x.shape[0]:
            return torch.zeros((0, len(self.names)), dtype=torch.float64)
        x = x.detach()
        logits = self._logits(x)
        classes = logits.argmax(dim=1)
        own = self._look(logits, self._native(x, classes, owned))
        columns: list[Tensor] = []
        if self.groups.pairs:
            columns += self._pairs(own)
        if self.groups.shapes:
            columns += self._shapes(own)
        if self.groups.agreed:
            columns.append(log_odds(self._logits(self.agreed(x, own.maps, owned)), classes))
        for view in self.views:
            columns += self._view(view, x, classes, own, owned)
        return torch.stack(columns, dim=1)

    def maps(self, x: Tensor, keys: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Each interpreter's maps (N, h, w) in [0, 1], on its own grid, for the class predicted; raises as measure."""
        self.classifier.check_images(x)
        owned = owners(x, keys)
        if not x.shape[0]:
            return {g.name: x.new_zeros((0, *g.grid)) for g in self.interpreters}
        classes = self._logits(x).argmax(dim=1)
        return {g.name: g(x, classes, keys=owned) for g in self.interpreters}

    def _signal_names(self) -> Iterator[str]:
        """The names of the signals, in their order."""
        called = [g.name for g in self.interpreters]
        if self.groups.pairs:
            for a, b in self._couples():
                yield from (f"{a}~{b} rank", f"{a}~{b} overlap")
        if self.groups.shapes:
            for name in called:
                yield f"{name} entropy"
                if len(called) > 1:
                    yield f"{name} centroid"
        if self.groups.agreed:
            yield "agreed log-odds"
        for view in self.views:
            yield from (f"{view.name}: log-odds change", f"{view.name}: label kept")
            for name in called:
                yield from (f"{view.name}: {name} rank", f"{view.name}: {name} rank by its label")

    def _couples(self) -> list[tuple[str, str]]:
        called = [g.name for g in self.interpreters]
        return [(a, b) for place, a in enumerate(called) for b in called[place + 1 :]]

    def _logits(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits = self.classifier(x)
        require_finite(logits, "the classifier's output")
        return logits

    def _native(self, x: Tensor, classes: Tensor, keys: Sequence[str]) -> dict[str, Tensor]:
        """The maps of each interpreter on its own grid, float64 on the CPU: they are compared there."""
        return {g.name: g(x, classes, keys=keys).to("cpu", torch.float64) for g in self.interpreters}

    def _look(self, logits: Tensor, native: Mapping[str, Tensor]) -> _Look:
        maps = {name: on_grid(found) for name, found in native.items()}
        return _Look(logits, maps, {name: centred_ranks(found) for name, found in maps.items()})

    def _pairs(self, own: _Look) -> list[Tensor]:
        columns = []
        for a, b in self._couples():
            columns.append(rank_correlations(own.ranks[a], own.ranks[b]))
            columns.append(iou_top(own.maps[a], own.maps[b], share=self._shown.share).double())
        return columns

    def _shapes(self, own: _Look) -> list[Tensor]:
        centroids = torch.stack([centroid(maps) for maps in own.maps.values()])
        apart = (centroids - centroids.mean(dim=0)).square().sum(dim=2).sqrt()
        columns = []
        for maps, distance in zip(own.maps.values(), apart, strict=True):
            columns.append(entropy(maps))
            if len(own.maps) > 1:
                columns.append(distance)
        return columns

    def agreed(self, x: Tensor, maps: Mapping[str, Tensor], keys: Sequence[str]) -> Tensor:
        """Images ``x`` (N, C, H, W) of which only the top fifth of the mean of ``maps`` is shown, the rest blurred.

        ``maps`` (N, h, w) are one interpreter's each, on any grid; ``keys`` name the owners of the order of ties.
        Differentiable in ``x``.
        """
        mean = torch.stack([on_grid(found) for found in maps.values()]).mean(dim=0)
        size, probe = (int(x.shape[2]), int(x.shape[3])), self._shown
        parts = []
        for image, agreed, key in zip(x, mean, keys, strict=True):
            shown = ranks(agreed, size, seed=probe.seed, key=key) < round(probe.share * size[0] * size[1])
            away = blurred(image[None], probe.blur * min(size))[0]
            parts.append(torch.where(shown.to(x.device), image, away))
        return torch.stack(parts)

    def _view(self, view: View, x: Tensor, classes: Tensor, own: _Look, keys: Sequence[str]) -> list[Tensor]:
        seen, size = view.seen(x, keys), (int(x.shape[2]), int(x.shape[3]))

        def correlations(rows: Tensor, labels: Tensor) -> dict[str, Tensor]:
            """Of the image's maps with those of the view, both of the images at ``rows``, for ``labels``."""
            named = [keys[row] for row in rows.tolist()]
            with _counting(rows):
                native = self._native(seen[rows], labels, named)
            back = {name: view.carried_back(maps, size) for name, maps in native.items()}
            there = {name: centred_ranks(on_grid(maps)) for name, maps in back.items()}
            return {name: rank_correlations(own.ranks[name][rows.cpu()], there[name]) for name in there}

        logits = self._logits(seen)
        labels = logits.argmax(dim=1)
        same = correlations(torch.arange(len(x), device=x.device), classes)
        relabelled = (labels != classes).nonzero()[:, 0]
        anew = correlations(relabelled, labels[relabelled]) if len(relabelled) else {}
        columns = [log_odds(logits, classes) - log_odds(own.logits, classes), (labels == classes).cpu().double()]
        for name, by_class in same.items():
            by_label = by_class.clone()
            if name in anew:
                by_label[relabelled.cpu()] = anew[name]
            columns += [by_class, by_label]
        return columns


def _of_one_classifier(interpreters: Interpreter | Sequence[Interpreter]) -> tuple[Interpreter, ...]:
    """The interpreters, one or several, checked."""
    given = (interpreters,) if isinstance(interpreters, Interpreter) else tuple(interpreters)
    if not given:
        raise InputError("no interpreter was given; an ensemble has at least one.")
    for other in given:
        if not isinstance(other, Interpreter):
            raise InputError(
                f"{other!r} is no interpreter; give interpreters of a classifier, such as CAM(classifier)."
            )
    check_together(given)
    return given


def on_grid(maps: Tensor) -> Tensor:
    """Maps (N, h, w) on the common grid (N, 28, 28), float64: a finer side is averaged, a coarser one interpolated.

    Values are rounded to multiples of 2⁻³², so that a constant map stays one and equal cells tie.
    """
    grid = maps.detach().to("cpu", torch.float64)[:, None]
    h, w = (min(GRID, int(side)) for side in grid.shape[2:])
    grid = F.adaptive_avg_pool2d(grid, (h, w))
    grid = F.interpolate(grid, size=(GRID, GRID), mode="bilinear", align_corners=False)[:, 0]
    return (grid * _FINEST).round() / _FINEST


def centred_ranks(maps: Tensor) -> Tensor:
    """The ranks (N, D) of the D cells of each of ``maps`` (N, …), float64, less their mean; equal cells share theirs.

    They are multiples of ½, so that sums of their products are exact. Those of a constant map are 0.
    """
    cells = maps.flatten(1).contiguous()
    ordered = cells.sort(dim=1).values
    below = torch.searchsorted(ordered, cells, right=False)
    up_to = torch.searchsorted(ordered, cells, right=True)
    return (below + up_to - cells.shape[1]).double() / 2


def rank_correlations(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation (N,) in [−1, 1] of maps by their centred ranks (N, D).

    Where a map is constant, it has no order and the correlation is undefined; it is taken for 0, as that of maps that
    have nothing to do with each other.
    """
    scale = (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()
    return (a * b).sum(dim=1) / scale.where(scale > 0, 1.0)


def entropy(maps: Tensor) -> Tensor:
    """The entropy (N,) in nats, in [0, ln D], of each of ``maps`` (N, …) ≥ 0 as a distribution over its D cells.

    A map that is 0 everywhere points nowhere: its distribution is the uniform one.
    """
    return torch.stack([torch.special.entr(cells).sum() for cells in _distributions(maps).flatten(1)])


def centroid(maps: Tensor) -> Tensor:
    """The mean place (N, 2), row and column as shares of the sides, of each of ``maps`` (N, h, w) as a distribution."""
    parts = []
    for cells in _distributions(maps):
        down, across = (cells.sum(dim=1 - axis) for axis in (0, 1))
        parts.append(torch.stack([(line * _middles(len(line))).sum() for line in (down, across)]))
    return torch.stack(parts)


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """The log-odds (N,) in nats, float64 on the CPU, of each image's class against all others."""
    rows = zip(logits.detach().to("cpu", torch.float64), classes.tolist(), strict=True)
    return torch.stack([z[c] - torch.cat([z[:c], z[c + 1 :]]).logsumexp(dim=0) for z, c in rows])


def _distributions(maps: Tensor) -> Tensor:
    """``maps`` (N, …), each divided by its sum; uniform where that is 0."""
    total = maps.flatten(1).sum(dim=1).reshape(-1, *[1] * (maps.ndim - 1))
    return torch.where(total > 0, maps / total.where(total > 0, 1.0), 1 / maps[0].numel())


def _middles(cells: int) -> Tensor:
    """The middle of each of ``cells`` cells, as a share of the side that they fill."""
    return (torch.arange(cells, dtype=torch.float64) + 0.5) / cells


@contextmanager
def _counting(rows: Tensor) -> Iterator[None]:
    """Name the image of the batch where only its ``rows`` were looked at."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(error.what, int(rows[error.index])) from error
