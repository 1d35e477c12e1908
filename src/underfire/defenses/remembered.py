"""Interpreters that compute a map once and give it again, for detectors that share interpreters."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from underfire.interpreters.base import Interpreter, MapObjective, MapTarget
from underfire.seeding import content_key


@contextmanager
def remembered(interpreters: Sequence[Interpreter]) -> Iterator[tuple[Interpreter, ...]]:
    """Stand-ins of ``interpreters``, in their order, that remember every map until the end of the block.

    A map belongs to the image's content, the class and the key, so that theirs are the maps of the interpreters to the
    bit, in any batch.
    """
    stands = tuple(_Remembering(interpreter) for interpreter in interpreters)
    try:
        yield stands
    finally:
        for stand in stands:
            stand.forget()


class _Remembering(Interpreter):
    """An interpreter that looks every map up first."""

    family = "stand-in"

    def __init__(self, original: Interpreter) -> None:
        super().__init__(original.classifier)
        self._original = original
        self._maps: dict[tuple[str, int, str], Tensor] = {}
        self.name, self.summary, self.grid = original.name, original.summary, original.grid
        self.passes_per_map, self.passes_per_step = original.passes_per_map, original.passes_per_step

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        """The maps, of which those seen before are not computed."""
        rows = list(zip(map(content_key, x), y.tolist(), keys, strict=True))
        missing = [i for i, row in enumerate(rows) if row not in self._maps]
        if missing:
            found = self._original.compute(x[missing], y[missing], tuple(keys[i] for i in missing))
            self._maps |= {rows[i]: found[place].clone() for place, i in enumerate(missing)}
        return torch.stack([self._maps[row] for row in rows])

    def objective(self, target: MapTarget) -> MapObjective:
        """The original's: nothing of an attack is remembered."""
        return self._original.objective(target)

    def forget(self) -> None:
        """Let all maps go."""
        self._maps.clear()
