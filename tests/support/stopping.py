"""Work that is stopped on its way."""

import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from underfire import CAM, Classifier


class Stop(BaseException):
    """What stops them."""


def stopping_after(lines: int) -> Callable[[str], None]:
    """A note that stops a study at the line of that number."""
    seen: list[str] = []

    def note(line: str) -> None:
        seen.append(line)
        if len(seen) == lines:
            raise Stop

    return note


class DyingCAM(CAM):
    """CAM, whose first map in another process ends that process; it leaves the file ``flag``."""

    def __init__(self, classifier: Classifier, flag: Path) -> None:
        super().__init__(classifier)
        self._flag, self._home = flag, os.getpid()

    def compute(self, x: Tensor, y: Tensor, keys: tuple[str, ...]) -> Tensor:
        """The maps (N, h, w) of ``x`` for ``y``."""
        if os.getpid() != self._home and not self._flag.exists():
            self._flag.touch()
            os._exit(0)
        return super().compute(x, y, keys)
