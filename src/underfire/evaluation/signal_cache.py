"""What detectors see in images, kept on disk by what an image shows, so that no study measures it again."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underfire.auditing.look import calling
from underfire.auditing.store import write_json
from underfire.defenses.ensemble import settings_of
from underfire.evaluation.signals import Meter
from underfire.interpreters import Interpreter
from underfire.seeding import content_key
from underfire.studies.kept import read_kept
from underfire.studies.source import Note


class Ledger:
    """The signals of a meter in any images, one file per image.

    A file has the signals by name. Those that a meter has and the file has not are measured and written to it: another
    set of interpreters that were there before costs little.

    Args:
        folder: whose name decides what all values in it depend on beside an image, a signal's name and what the
            interpreters are made of.
        meter: random numbers belong to an image's content.
        note: is told what was measured.
    """

    def __init__(self, folder: Path, meter: Meter, note: Note) -> None:
        self.meter = meter
        self._folder, self._note = folder, note
        self._made_of = {g.name: _digest(g) for g in meter.interpreters}

    def values(self, x: Tensor, *, names: Sequence[str], what: str) -> Tensor:
        """The signals (N, S) of images ``x`` (N, C, H, W) on the CPU, of photos ``names``.

        ``what`` is noted where something was not there.

        Raises:
            InputError: a file is damaged, or a number is not finite.
        """
        paths = [self._folder / f"{content_key(image)}.json" for image in x]
        known = [read_kept(path, self._known) if path.is_file() else _Known({}, {}) for path in paths]
        alike: dict[frozenset[str], list[int]] = {}
        for row, found in enumerate(known):
            if not found.values.keys() >= set(self.meter.names):
                alike.setdefault(frozenset(found.values), []).append(row)
        for there, rows in alike.items():
            meter = self.meter.lacking(there)
            with calling([names[row] for row in rows]):
                measured = meter.measure(x[rows])
            for row, line in zip(rows, measured.tolist(), strict=True):
                known[row].values.update(zip(meter.names, line, strict=True))
                known[row].interpreters.update(self._made_of)
                write_json(paths[row], asdict(known[row]))
        if alike:
            self._note(what)
        columns = [[found.values[name] for name in self.meter.names] for found in known]
        return torch.tensor(columns, dtype=torch.float64)

    def _known(self, content: Any) -> "_Known":
        """What a file has; nothing, where it was measured with an interpreter that is another one now."""
        known = _Known(
            {str(name): str(made_of) for name, made_of in content["interpreters"].items()},
            {str(name): float(value) for name, value in content["values"].items()},
        )
        same = all(known.interpreters.get(name, made_of) == made_of for name, made_of in self._made_of.items())
        return known if same else _Known({}, {})


@dataclass(frozen=True)
class _Known:
    """The file of an image: the interpreters that were asked, as `_digest` names them, and the signals by name."""

    interpreters: dict[str, str]
    values: dict[str, float]


def _digest(interpreter: Interpreter) -> str:
    """A name for the settings and weights of ``interpreter``."""
    return hashlib.sha256(repr(settings_of(interpreter)).encode()).hexdigest()[:16]
