"""Checks for NaN and infinity that do not synchronise with a GPU at every step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from underfire.errors import NonFiniteError
from underfire.interpreters.base import not_finite, surely_finite


class FiniteChecks:
    """Which rows of what a loop computed are not finite, read when the loop asks.

    Args:
        at_once: each check is read as it is made, as on a device where that costs nothing.
    """

    def __init__(self, *, at_once: bool) -> None:
        self._at_once = at_once
        self._unseen: list[tuple[str, Tensor, Tensor | None]] = []

    def add(
        self,
        values: Tensor,
        what: str,
        *,
        rows: Tensor | None = None,
        own: int | None = None,
        live: Tensor | None = None,
    ) -> None:
        """Stop at NaN or infinity in ``values`` (N, …), here or when it is asked.

        Args:
            values: that must be finite.
            what: they are, for the error.
            rows: (N,) the places of the images that the error shall name, by default those in ``values``.
            own: only the first so many rows count; None for all.
            live: (own,) bool, and of them these; None for all.

        Raises:
            NonFiniteError: a row of ``values`` is not finite.
        """
        if self._at_once and surely_finite(values):
            return
        failed = not_finite(values)[:own]
        self._unseen.append((what, failed if live is None else failed & live, rows))
        if self._at_once:
            self.ask()

    @contextmanager
    def told_first(self) -> Iterator[None]:
        """Where an error ends the block and something was not finite before it, that is raised in its place.

        Raises:
            NonFiniteError: there was.
        """
        try:
            yield
        except Exception:
            self.ask()
            raise

    def ask(self) -> None:
        """Wait, and stop at the first that was not finite.

        Raises:
            NonFiniteError: there was one, of the row that it names.
        """
        unseen, self._unseen = self._unseen, []
        if unseen and bool(torch.cat([failed for _, failed, _ in unseen]).any()):
            what, failed, rows = next(one for one in unseen if bool(one[1].any()))
            place = int(failed.nonzero()[0])
            raise NonFiniteError(what, place if rows is None else int(rows[place]))
