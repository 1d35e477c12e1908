"""Where a classifier keeps the picture that CAM-like maps, RTS and layers of Captum read.

It is found by looking at what passes do, not by the names or kinds of layers. Gradients say whether the logits depend
on an activation, and whether each of its rows belongs to one image; the graph of the pass says whether all that the
logits read of the image passes through it; changing the image place by place says where in it the cells lie.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from underfire.errors import InputError, ModelError
from underfire.models.classifier import Classifier, filled
from underfire.models.folded import TOLERANCE, prepared
from underfire.models.gradients import gradients
from underfire.models.layout import Kind, Layout, changed, layout_of, strengths
from underfire.models.readout import Head, find_head, read_out
from underfire.models.recording import Spot, recorded, tensors_in
from underfire.models.remembered import Remembered

_PADDINGS = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)
_STEP = 1.5  # a grid this much finer than the last is another resolution, not a border more
_SAME = 1e-3  # largest difference, relative to their spread, of activations that count as the same
_AT_ONCE = 32  # activations whose layout is looked for in one go, the last ones first
_NDIMS = (3, 4)  # tokens, or a grid
_NEEDED = "whose cells change where the image does and that the logits depend on"
_COLOURS = 3


@dataclass(frozen=True)
class FeatureMap:
    """The output of one call of one module, and where in it the picture is.

    Attributes:
        spot: which output it is.
        layout: where its cells and channels are.
        head: what reads the mean of its cells linearly to give the logits, or None if the logits are anything else.
        moved: it is a layer that was asked for, and another activation in a prepared copy, where a norm is folded
            into it.
    """

    spot: Spot
    layout: Layout
    head: Head | None = None
    moved: bool = False

    @property
    def module(self) -> str:
        """Name of the module within the classifier's, ``""`` for the module itself."""
        return self.spot.module

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the activation."""
        return self.layout.grid

    def settings(self) -> dict[str, object]:
        """What tells it from another one, as values of JSON; what was measured earlier is kept under these words."""
        told: dict[str, object] = {"module": self.module, "call": self.spot.call, "grid": list(self.grid), "head": None}
        if self.head is not None:
            told["head"] = self.head.weight.removesuffix(".weight") if self.head.weight else "computed"
        if self.layout.kind != "channels first":
            told |= {"layout": self.layout.kind, "prefix": self.layout.prefix}
        if self.spot.item is not None:
            told["item"] = self.spot.item
        return told | ({"moved": True} if self.moved else {})

    def picture(self, activation: Tensor) -> Tensor:
        """The cells of the module's output as (N, C, h, w)."""
        return self.layout.picture(activation)


_found: Remembered[FeatureMap | str] = Remembered()
"""Features by the name of the layer asked for, or in a sentence why there are none."""


def find_features(classifier: Classifier, layer: str | nn.Module | None = None) -> FeatureMap:
    """The activation of ``classifier`` in which the picture is found last on the way to the logits.

    Its rows are the images; it depends on them, and the logits depend on its cells; it lies upright. Unless it is laid
    out (N, C, h, w), all that the logits read of the image passes through it: what a block computes beside its main
    path is none. For a vision transformer that reads a class token it is what the last block is given.

    Args:
        classifier: whose activation is wanted.
        layer: the layer whose output it shall be, by its name within the classifier's module or the module itself; by
            default the classifier's own ``layer``, or whichever serves.

    Raises:
        InputError: no activation serves, or that of ``layer`` does not; the sentence says why.
    """
    name = _name_of(classifier, classifier.layer if layer is None else layer)
    found = _found.get(classifier, name, lambda: _found_anew(classifier, name))
    if isinstance(found, str):
        raise InputError(found)
    return found


def find_trunk(classifier: Classifier, last: FeatureMap, *, finest: tuple[int, int]) -> tuple[FeatureMap, ...]:
    """``last`` and, for each finer resolution up to the grid ``finest``, the last activation on it before ``last``.

    Coarsest first. All of them are the same in :func:`underfire.models.folded.prepared` copies of ``classifier``: the
    output of a convolution whose batch norm is folded is not, and paddings are no activations.
    """
    n = len(classifier.patterns())
    with torch.no_grad():
        (seen, copied) = (_outputs(c) for c in (classifier, prepared(classifier)))
    spots = list(seen)[: list(seen).index(last.spot)]
    kept = {
        spot
        for spot in spots
        if not isinstance(classifier.module.get_submodule(spot.module), _PADDINGS)
        and _nearly(seen[spot][:n], copied.get(spot))
    }
    by_grid: dict[tuple[int, int], FeatureMap] = {}
    for scene in scenes(classifier):
        changes = _changes(classifier, scene, kept)
        layouts = {spot: layout_of(changes[spot], classifier.input_size) for spot in spots if spot in changes}
        by_grid = {layout.grid: FeatureMap(spot, layout) for spot, layout in layouts.items() if layout is not None}
        if by_grid:
            break
    trunk = [last]
    for grid in sorted(by_grid):
        finer = all(now >= _STEP * before for now, before in zip(grid, trunk[-1].grid, strict=True))
        if finer and grid[0] <= finest[0] and grid[1] <= finest[1]:
            trunk.append(by_grid[grid])
    return tuple(trunk)


def head_bias(classifier: Classifier, features: FeatureMap) -> Tensor:
    """The bias (K,) of the linear head of ``features``, detached; zeros where it has none."""
    return read_out(classifier, features.spot, features.layout, _head(features))[1]


def head_weight(classifier: Classifier, features: FeatureMap) -> Tensor:
    """The weight (K, C) of the linear head of ``features``, detached."""
    return read_out(classifier, features.spot, features.layout, _head(features))[0]


def check_kept(interpreter: str, features: FeatureMap) -> None:
    """Raise `InputError` if ``features`` are moved, so that an attack on the interpreter of that name misreads them."""
    if features.moved:
        raise InputError(
            f"{interpreter} cannot be attacked at the layer {features.module!r}: attacks work on a copy of the"
            " classifier that has its batch norm folded into it; give the layer after the norm."
        )


@contextmanager
def capture(classifier: Classifier, features: FeatureMap, *, detach: bool = False) -> Iterator[list[Tensor]]:
    """Inside the block, every forward pass appends the output that ``features`` names to the list yielded.

    With ``detach`` the pass goes on from a detached copy that requires grad, so that its graph begins at that output,
    which must be all that its module returns.
    """
    seen: list[Tensor] = []
    calls = 0

    def start(_: nn.Module, __: object) -> None:
        nonlocal calls
        calls = 0

    def keep(_: nn.Module, __: object, output: object) -> Tensor | None:
        nonlocal calls
        calls += 1
        if calls - 1 != features.spot.call:
            return None
        found = tensors_in(output)[features.spot.item]
        if detach:  # and cloned: the next layer may work in place, which no leaf allows
            found = found.detach().requires_grad_(True).clone()
        seen.append(found)
        return found if detach else None

    root, tapped = classifier.module, classifier.module.get_submodule(features.module)
    handles = (root.register_forward_pre_hook(start, prepend=True), tapped.register_forward_hook(keep))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _name_of(classifier: Classifier, layer: str | nn.Module | None) -> str | None:
    """The name of ``layer`` within the classifier's module; raises `InputError` if it is none of its layers."""
    named = dict(classifier.module.named_modules())
    if isinstance(layer, nn.Module):
        name: str | None = next((name for name, module in named.items() if module is layer), None)
        if name is None:
            raise InputError(f"the layer given, a {type(layer).__name__}, is no part of {classifier.name!r}; give one.")
        return name
    if layer is not None and layer not in named:
        raise InputError(f"layer {layer!r} is none of {classifier.name!r}; give a name of its named_modules().")
    return layer


def _found_anew(classifier: Classifier, name: str | None) -> FeatureMap | str:
    if classifier.one_by_one:
        return (
            f"{classifier.name!r} takes one image at a time, and what reads an activation needs that of all images of"
            " a batch; use grad instead, or export the model for any batch."
        )
    survey = _Survey(classifier)
    if not survey.spots:
        return (
            f"{classifier.name!r} is a scripted module, and its activations cannot be read; give the module that it was"
            " made from, or use grad instead."
        )
    spots = [spot for spot in survey.spots if name in (None, spot.module)]
    faults = {spot: survey.fault(spot) for spot in spots}
    possible = [spot for spot in spots if faults[spot] is None]
    for spot, layout in _laid_out(classifier, survey, possible, all_of_image=name is None):
        faults[spot] = survey.fault_of_cells(spot, layout)
        if layout is not None and faults[spot] is None:
            head = find_head(classifier, spot, layout) if survey.may_be_pooled(spot, layout) else None
            if head is None and survey.blind is not None:
                continue
            if name is None:
                return FeatureMap(survey.plain(spot), layout, head)
            return FeatureMap(spot, layout, head, moved=_is_moved(classifier, spot))
    if survey.blind is not None:
        return survey.blind
    if name is None:
        return f"{classifier.name!r} has no activation {_NEEDED}; use grad instead, or name a layer."
    fault = next((fault for fault in faults.values() if fault is not None), "no pass calls it")
    return f"the output of layer {name!r} of {classifier.name!r} is no picture: {fault}; name another layer."


def _laid_out(
    classifier: Classifier, survey: "_Survey", spots: Sequence[Spot], *, all_of_image: bool
) -> Iterator[tuple[Spot, Layout | None]]:
    """The layout of each of ``spots``, None where it has none; as few passes are made as are asked for.

    With ``all_of_image`` those are left out that are not (N, C, h, w) and do not hold all that the logits read.
    """
    for scene in scenes(classifier):
        for first in range(0, len(spots), _AT_ONCE):
            group = spots[first : first + _AT_ONCE]
            changes = _changes(classifier, scene, group)
            for spot in group:
                whole = survey.is_whole(spot)
                served = ("channels first",) if all_of_image and not whole else tuple(changes[spot])
                change = {kind: cells for kind, cells in changes[spot].items() if kind in served}
                yield spot, layout_of(change, classifier.input_size, whole=whole)


class _Survey:
    """What one pass of the patterns, and gradients through it, say of all that modules return.

    Attributes:
        spots: where tensors are returned, the last first.
        blind: in a sentence, that gradients say nothing, if so. Then only a head that is found can tell.
    """

    def __init__(self, classifier: Classifier) -> None:
        x = classifier.patterns()
        self._rows = len(filled(x)) if x.device.type == "cpu" else len(x)
        with torch.inference_mode(False), torch.enable_grad(), classifier.frozen():
            self._x = x.clone().requires_grad_(True)
            self._logits, self._seen = recorded(classifier, self._x)
            draw = torch.Generator().manual_seed(0)
            mixture = torch.randn(self._logits.shape[1], generator=draw, dtype=torch.float64).to(self._logits)
            mixed = self._logits @ mixture
            try:
                self._slopes, first = self._gradients(mixed.sum()), self._gradients(mixed[0])
                self.blind = None
            except ModelError as error:
                self._slopes, first, self.blind = {}, {}, str(error)
        self.spots = list(reversed(self._seen))
        self._apart = {spot: bool((slope[1:] == 0).all()) for spot, slope in first.items()}
        self._flat = not any(bool((slope != 0).any()) for slope in self._slopes.values() if slope.ndim in _NDIMS)

    def _gradients(self, output: Tensor) -> dict[Spot, Tensor]:
        attached = {spot: value for spot, value in self._seen.items() if value.requires_grad}
        found = gradients(output, tuple(attached.values()))
        return {spot: slope for spot, slope in zip(attached, found, strict=True) if slope is not None}

    def fault(self, spot: Spot) -> str | None:
        """In words, why the output cannot be a picture, whatever its layout; None if it may be one."""
        value, slope = self._seen[spot], self._slopes.get(spot)
        if value.ndim not in _NDIMS or len(value) != self._rows:
            return f"its shape is {tuple(value.shape)} for {self._rows} images"
        if self.blind is not None:
            return None
        if not value.requires_grad:
            return "it does not depend on the image"
        if slope is None or not (self._flat or bool((slope != 0).any())):
            return "the logits do not depend on it"
        return None if self._apart[spot] else "its rows are not the images"

    def fault_of_cells(self, spot: Spot, layout: Layout | None) -> str | None:
        """In words, why cells that lie so are no picture; None if they are one."""
        if layout is None:
            return f"nothing in its shape {tuple(self._seen[spot].shape)} changes where the image does"
        if self.blind is not None or self._flat or bool((layout.picture(self._slopes[spot]) != 0).any()):
            return None
        return "the logits do not depend on its cells"

    def is_whole(self, spot: Spot) -> bool:
        """Whether all that the logits read of the image passes through the output: the graph falls apart there."""
        if self.blind is not None:
            return True
        value = self._seen[spot]
        cut = (value.grad_fn, value.output_nr)
        visited, waiting = set(), [(self._logits.grad_fn, 0)]
        while waiting:
            node, output = waiting.pop()
            if node is None or (node, output) == cut or node in visited:
                continue
            visited.add(node)
            if getattr(node, "variable", None) is self._x:
                return False
            waiting.extend(node.next_functions)
        return True

    def plain(self, spot: Spot) -> Spot:
        """Where the tensor is all that a module returns, if it is anywhere, or else ``spot``."""
        alone = (other for other in self.spots if other.item is None and self._seen[other] is self._seen[spot])
        return next(alone, spot)

    def may_be_pooled(self, spot: Spot, layout: Layout) -> bool:
        """Whether gradients allow that the logits read nothing but the mean of the cells, linearly."""
        if self.blind is not None:
            return True
        slope = self._slopes[spot][: len(self._x)]
        cells = layout.picture(slope)
        size = float(slope.abs().max())
        even = float((cells - cells[:1, :, :1, :1]).abs().max()) <= _SAME * size
        others = float(slope.abs().sum() - cells.abs().sum())
        return even and others <= _SAME * size and self.is_whole(spot)


def scenes(classifier: Classifier) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of images (C, H, W): the one is changed place by place into the other. What comes first serves most models.

    Waves and their inverse; then, for models that see nothing in waves, grey and each colour.
    """
    for wave in classifier.patterns()[[1, 3]]:
        yield wave, 1 - wave
    grey = torch.full_like(wave, 0.4)
    for channel in range(min(len(grey), _COLOURS)):
        colour = torch.zeros_like(grey)
        colour[channel] = 1
        yield grey, colour


def _changes(
    classifier: Classifier, scene: tuple[Tensor, Tensor], spots: Collection[Spot]
) -> dict[Spot, dict[Kind, Tensor]]:
    """How much the cells at ``spots`` change when one place of a scene after another is changed."""
    parts: dict[Spot, list[dict[Kind, Tensor]]] = {spot: [] for spot in spots}
    image, other = scene
    rows = changed(image, other)
    batch = len(classifier.patterns())
    with torch.no_grad(), classifier.frozen():
        _, before = recorded(classifier, image.repeat(batch, 1, 1, 1), spots)
        for part in rows.split(batch):
            _, now = recorded(classifier, part, spots)
            for spot, values in now.items():
                parts[spot].append(strengths((values - before[spot][:1])[: len(part)]))
    return {spot: {kind: torch.cat([one[kind] for one in many]) for kind in many[0]} for spot, many in parts.items()}


def _is_moved(classifier: Classifier, spot: Spot) -> bool:
    with torch.no_grad():
        own, copied = (_outputs(c, {spot})[spot] for c in (classifier, prepared(classifier)))
    return float((own - copied).abs().max()) > TOLERANCE * max(1.0, float(own.std()))


def _outputs(classifier: Classifier, spots: Collection[Spot] | None = None) -> dict[Spot, Tensor]:
    """What modules return in a pass of the patterns, in the order of their return."""
    with classifier.frozen():
        return recorded(classifier, classifier.patterns(), spots)[1]


def _head(features: FeatureMap) -> Head:
    if features.head is None:
        raise ValueError("these features have no linear head")
    return features.head


def _nearly(a: Tensor, b: Tensor | None) -> bool:
    if b is None or b[: len(a)].shape != a.shape:
        return False
    return float((a - b[: len(a)]).abs().max()) <= _SAME * max(1.0, float(a.std()))
