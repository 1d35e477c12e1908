"""What detectors see in images, kept on disk by what an image shows, so that no study measures it again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underfire.audit.look import calling
from underfire.audit.store import write_json
from underfire.seeding import content_key
from underfire.studies.defence_measure import Meter
from underfire.studies.kept import read_kept
from underfire.studies.source import Note


class Ledger:
    """The signals of a meter in any images, one file per image.

    A file has the signals by name. Those that a meter has and the file has not are measured and written to it: another
    set of interpreters that were there before costs little.

    Args:
        folder: whose name decides what all values in it depend on beside an image and a signal's name.
        meter: random numbers belong to an image's content.
        note: is told what was measured.
    """

    def __init__(self, folder: Path, meter: Meter, note: Note) -> None:
        self.meter = meter
        self._folder, self._note = folder, note

    def values(self, x: Tensor, *, names: Sequence[str], what: str) -> Tensor:
        """The signals (N, S) of images ``x`` (N, C, H, W) on the CPU, of photos ``names``.

        ``what`` is noted where something was not there.

        Raises:
            InputError: a file is damaged, or a number is not finite.
        """
        paths = [self._folder / f"{content_key(image)}.json" for image in x]
        known = [read_kept(path, _values) if path.is_file() else {} for path in paths]
        missing = {row: self.meter.lacking(found) for row, found in enumerate(known)}
        missing = {row: meter for row, meter in missing.items() if meter.names}
        for signals in dict.fromkeys(meter.names for meter in missing.values()):
            rows = [row for row, meter in missing.items() if meter.names == signals]
            with calling([names[row] for row in rows]):
                found = missing[rows[0]].measure(x[rows])
            for row, line in zip(rows, found.tolist(), strict=True):
                known[row] |= zip(signals, line, strict=True)
                write_json(paths[row], {"values": known[row]})
        if missing:
            self._note(what)
        return torch.tensor([[found[name] for name in self.meter.names] for found in known], dtype=torch.float64)


def _values(content: Any) -> dict[str, float]:
    return {str(name): float(value) for name, value in content["values"].items()}
