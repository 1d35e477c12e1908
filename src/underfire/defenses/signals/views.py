"""How prediction and maps bear a view: a transformed copy of the image that a person would take for the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from underfire.attacks.transforms import ImageTransform
from underfire.defenses.evaluator import renumbered
from underfire.defenses.mean_map import MeanMap
from underfire.defenses.signals.base import Signal, SignalInput
from underfire.defenses.statistics import centred_ranks, log_odds, on_grid, rank_correlations
from underfire.defenses.views import View, default_views, described
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.seeding import derive_seed


class Views(Signal):
    """What each view changes.

    The change of the log-odds of the class, whether it is still predicted, and for each interpreter the rank
    correlation of its map with that of the view, carried back to the image: for the class, and for the class that is
    predicted on the view.

    Args:
        views: of different names.

    Raises:
        InputError: two views share a name.
    """

    name: ClassVar[str] = "views"
    depends_on_set: ClassVar[bool] = False

    def __init__(self, views: Sequence[View]) -> None:
        self.views = tuple(views)
        called = [view.name for view in self.views]
        if len(set(called)) < len(called):
            raise InputError(f"the views {', '.join(called)} share a name; give each one once.")

    @classmethod
    def default(cls, size: tuple[int, int], seed: int) -> Self:
        """Those of :func:`underfire.defenses.views.default_views`."""
        return cls(default_views(size, seed))

    def settings(self) -> dict[str, Any]:
        """The views, as :func:`underfire.defenses.views.described` gives them."""
        return {"views": [described(view) for view in self.views]}

    def names(self, interpreters: Sequence[str]) -> tuple[str, ...]:
        """Such as ``flip: log-odds change``, ``flip: label kept``, ``flip: cam rank``, ``flip: cam rank by its label``.

        The last two are of every interpreter.
        """
        ranks = [f"{name} rank{which}" for name in interpreters for which in ("", " by its label")]
        measures = ["log-odds change", "label kept", *ranks]
        return tuple(f"{view.name}: {measure}" for view in self.views for measure in measures)

    def passes(self, interpreters: Sequence[Interpreter | MeanMap]) -> int:
        """Those of a prediction and of all maps for each view; a view that changes the label takes the maps again."""
        return len(self.views) * (1 + sum(g.passes_per_map for g in interpreters))

    def measure(self, given: SignalInput) -> Tensor:
        """The changes under each view, (N, S)."""
        columns = [column for view in self.views for column in _changes(view, given)]
        return torch.stack(columns, dim=1) if columns else torch.zeros((len(given.x), 0), dtype=torch.float64)

    def transforms(self, _target_maps: Mapping[str, Tensor], seed: int) -> tuple[ImageTransform, ...]:
        """The views themselves, with fresh noise at every step."""
        return tuple(_FreshView(view, seed) for view in self.views)


def _changes(view: View, given: SignalInput) -> list[Tensor]:
    """The columns (N,) of one view."""
    x, keys, classes = given.x, given.keys, given.classes
    transformed, size = view.apply(x, keys), (int(x.shape[2]), int(x.shape[3]))

    def correlations(rows: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Of the image's maps with those of the view, both of the images at ``rows``, for ``labels``."""
        places = rows.tolist()
        with renumbered(places):
            native = given.explain(transformed[rows], labels, [keys[row] for row in places])
        back = {name: view.carry_back(maps, size) for name, maps in native.items()}
        there = {name: centred_ranks(on_grid(maps)) for name, maps in back.items()}
        return {name: rank_correlations(given.ranks[name][rows.cpu()], there[name]) for name in there}

    logits = given.predict(transformed)
    labels = logits.argmax(dim=1)
    by_class = correlations(torch.arange(len(x), device=x.device), classes)
    relabelled = (labels != classes).nonzero()[:, 0]
    changed = correlations(relabelled, labels[relabelled]) if len(relabelled) else {}
    columns = [log_odds(logits, classes) - log_odds(given.logits, classes), (labels == classes).cpu().double()]
    for name, same in by_class.items():
        by_label = same.clone()
        if name in changed:
            by_label[relabelled.cpu()] = changed[name]
        columns += [same, by_label]
    return columns


@dataclass(frozen=True)
class _FreshView:
    """A view whose random numbers belong to the image, the attack's seed and the step."""

    view: View
    seed: int
    maps: bool = field(default=True, init=False)

    def apply(self, images: Tensor, _rows: Tensor, keys: Sequence[str], step: int, /) -> Tensor:
        """The view of ``images``."""
        return self.view.apply(images, [str(derive_seed(self.seed, key, "view", step)) for key in keys])

    def carry(self, maps: Tensor, size: tuple[int, int], /) -> Tensor:
        """``maps`` as the view moves them."""
        return self.view.carry(maps, size)
